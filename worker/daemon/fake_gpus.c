/* fake_gpus.c - imaginary GPUs by configuration, so that all that is done with GPUs can be tried
 * without any.
 *
 *   [{"model": "NVIDIA H100", "memory": "80GiB", "count": 2, "numa": 0, "used": "/tmp/used",
 *     "busy": "/tmp/busy", "device": "/tmp/gpu0"},
 *    {"model": "NVIDIA H100", "memory": "80GiB", "pci": "0000:81:00.0",
 *     "slices": [{"profile": "1g.10gb", "memory": "10GiB", "count": 7}]}]
 *
 * Slices stand in place of their GPU. `used` names a file with the bytes that somebody holds on the
 * device, `busy` one with the percentage of time in which it computes; a missing file means none.
 * `device` is a device file that only attempts with this GPU may open. */
#include "worker/daemon/inventory.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/parse.h"

#include <jansson.h>
#include <string.h>

#define FILE_BYTES_MAX ((size_t)1 << 20)

struct fake {
    struct inventory *inventory;
    const char *path;
};

static int fault(const struct fake *fake, size_t entry, const char *text, struct err *err)
{
    return err_set(err, ERR_INVALID, "'%s', GPU %zu: %s", fake->path, entry, text);
}

static int memory_read(const struct fake *fake, size_t entry, const json_t *from, uint64_t *out,
                       struct err *err)
{
    const char *text = json_string_value(json_object_get(from, "memory"));
    if (!text || parse_size_bytes(text, out, err) < 0)
        return fault(fake, entry, "memory: expected a size such as \"80GiB\"", err);
    return 0;
}

/* "count": 1 when it is not there. */
static int count_read(const struct fake *fake, size_t entry, const json_t *from, size_t *out,
                      struct err *err)
{
    const json_t *value = json_object_get(from, "count");
    json_int_t count = value ? json_integer_value(value) : 1;
    if ((value && !json_is_integer(value)) || count < 1 || count > (json_int_t)INVENTORY_GPUS_MAX)
        return fault(fake, entry, "count: expected 1 to 64", err);
    *out = (size_t)count;
    return 0;
}

static int gpu_add(const struct fake *fake, const struct inventory_gpu *gpu, struct err *err)
{
    if (fake->inventory->gpu_count == INVENTORY_GPUS_MAX)
        return err_set(err, ERR_LIMIT, "'%s': more than %u GPUs", fake->path, INVENTORY_GPUS_MAX);
    fake->inventory->gpus[fake->inventory->gpu_count++] = *gpu;
    return 0;
}

static int slice_read(const struct fake *fake, size_t entry, const json_t *from,
                      const struct inventory_gpu *whole, size_t *number, struct err *err)
{
    struct arena *arena = &fake->inventory->arena;
    const char *profile = json_string_value(json_object_get(from, "profile"));
    struct inventory_gpu slice = *whole;
    size_t count;
    if (!profile || !profile[0])
        return fault(fake, entry, "slices: expected objects of profile, memory and count", err);
    if (memory_read(fake, entry, from, &slice.memory_bytes, err) < 0 ||
        count_read(fake, entry, from, &count, err) < 0)
        return -1;
    slice.model = arena_printf(arena, "%s MIG %s", whole->model, profile);
    for (size_t i = 0; i < count; i++) {
        slice.uuid = slice.visible =
            arena_printf(arena, "MIG-%s-%zu", whole->uuid + strlen("GPU-"), (*number)++);
        if (gpu_add(fake, &slice, err) < 0)
            return -1;
    }
    return 0;
}

static int whole_read(const struct fake *fake, size_t entry, const json_t *from, size_t number,
                      struct err *err)
{
    struct arena *arena = &fake->inventory->arena;
    const char *model = json_string_value(json_object_get(from, "model"));
    const char *pci = json_string_value(json_object_get(from, "pci"));
    const char *used = json_string_value(json_object_get(from, "used"));
    const char *busy = json_string_value(json_object_get(from, "busy"));
    const char *device = json_string_value(json_object_get(from, "device"));
    const json_t *numa = json_object_get(from, "numa"), *slices = json_object_get(from, "slices");
    struct inventory_gpu gpu = {.imaginary = true, .numa = -1};
    if (memory_read(fake, entry, from, &gpu.memory_bytes, err) < 0)
        return -1;
    if (numa && (!json_is_integer(numa) || json_integer_value(numa) < 0 ||
                 json_integer_value(numa) > 1023))
        return fault(fake, entry, "numa: expected the number of a node", err);
    gpu.model = arena_strdup(arena, model ? model : "fake");
    gpu.uuid = gpu.visible = arena_printf(arena, "GPU-fake-%zu", number);
    gpu.pci = pci ? arena_strdup(arena, pci) : NULL;
    gpu.used = used ? arena_strdup(arena, used) : NULL;
    gpu.busy = busy ? arena_strdup(arena, busy) : NULL;
    gpu.device = device ? arena_strdup(arena, device) : NULL;
    gpu.numa = numa ? (int)json_integer_value(numa) : -1;
    size_t slice_number = 0;
    for (size_t i = 0; i < json_array_size(slices); i++)
        if (slice_read(fake, entry, json_array_get(slices, i), &gpu, &slice_number, err) < 0)
            return -1;
    return slice_number ? 0 : gpu_add(fake, &gpu, err);
}

static int all_read(const struct fake *fake, const json_t *root, struct err *err)
{
    size_t number = 0;
    if (!json_is_array(root))
        return err_set(err, ERR_INVALID, "'%s': expected a list of GPUs", fake->path);
    for (size_t entry = 0; entry < json_array_size(root); entry++) {
        const json_t *from = json_array_get(root, entry);
        size_t count;
        if (!json_is_object(from))
            return fault(fake, entry, "expected an object", err);
        if (count_read(fake, entry, from, &count, err) < 0)
            return -1;
        for (size_t i = 0; i < count; i++)
            if (whole_read(fake, entry, from, number++, err) < 0)
                return -1;
    }
    return 0;
}

int inventory_fake_gpus(const char *path, struct inventory *inventory, struct err *err)
{
    struct fake fake = {inventory, path};
    char *text;
    size_t length;
    json_error_t why;
    if (file_read(path, FILE_BYTES_MAX, &text, &length, err) < 0)
        return err_wrap(err, "--gpus");
    json_t *root = json_loadb(text, length, JSON_REJECT_DUPLICATES, &why);
    int rc = root ? all_read(&fake, root, err)
                  : err_set(err, ERR_INVALID, "'%s':%d:%d: %s", path, why.line, why.column,
                            why.text);
    json_decref(root);
    mem_free(text);
    return rc;
}
