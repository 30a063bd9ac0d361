/* amd.c - see amd.h. */
#include "worker/daemon/amd.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/parse.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define NODES_MAX      1024u /* of the topology: processors and GPUs */
#define FILE_BYTES_MAX 65536u

/* The number in the line of this name; 0 when there is none. */
static uint64_t property(const char *text, const char *name)
{
    size_t length = strlen(name);
    for (const char *line = text; line; line = strchr(line, '\n')) {
        uint64_t number;
        line += *line == '\n';
        if (strncmp(line, name, length) == 0 && line[length] == ' ' &&
            sscanf(line + length, "%20" SCNu64, &number) == 1)
            return number;
        if (!*line)
            break;
    }
    return 0;
}

/* A line of a file; "" when it is not there. */
static const char *line_of(struct arena *arena, const char *path)
{
    struct err err;
    char *text = NULL;
    size_t length;
    if (file_read(path, FILE_BYTES_MAX, &text, &length, &err) < 0)
        return "";
    const char *line = arena_strndup(arena, text, strcspn(text, "\n"));
    mem_free(text);
    return line;
}

static const char *model_of(struct arena *arena, const char *device, const char *node)
{
    const char *name = line_of(arena, arena_printf(arena, "%s/product_name", device));
    if (!*name)
        name = line_of(arena, arena_printf(arena, "%s/name", node));
    return arena_printf(arena, "AMD %s", *name && text_is_utf8(name, strlen(name)) ? name : "GPU");
}

static int gpu_read(const char *sysfs, const char *node, const char *properties,
                    struct inventory *inventory, struct err *err)
{
    struct arena *arena = &inventory->arena;
    unsigned minor = (unsigned)property(properties, "drm_render_minor");
    uint64_t id = property(properties, "unique_id"), place = property(properties, "location_id");
    const char *device = arena_printf(arena, "%s/class/drm/renderD%u/device", sysfs, minor);
    const char *total = line_of(arena, arena_printf(arena, "%s/mem_info_vram_total", device));
    struct inventory_gpu gpu = {.numa = -1, .is_amd = true};
    if (inventory->gpu_count == INVENTORY_GPUS_MAX)
        return err_set(err, ERR_LIMIT, "more than %u GPUs", INVENTORY_GPUS_MAX);
    if (minor == 0 || parse_u64(total, &gpu.memory_bytes, err) < 0)
        return err_set(err, ERR_PROTOCOL,
                       "GPU '%s': the kernel tells neither its render device nor its memory", node);
    gpu.visible = id ? arena_printf(arena, "GPU-%016" PRIx64, id)
                     : arena_printf(arena, "%zu", inventory->gpu_count);
    gpu.uuid = id ? gpu.visible : arena_printf(arena, "AMD-renderD%u", minor);
    gpu.model = model_of(arena, device, node);
    gpu.pci = arena_printf(arena, "%04x:%02x:%02x.%x", (unsigned)property(properties, "domain"),
                           (unsigned)(place >> 8) & 255, (unsigned)(place >> 3) & 31,
                           (unsigned)place & 7);
    gpu.device = arena_printf(arena, "/dev/dri/renderD%u", minor);
    gpu.used = arena_printf(arena, "%s/mem_info_vram_used", device);
    const char *busy = arena_printf(arena, "%s/gpu_busy_percent", device);
    gpu.busy = file_exists(busy) ? busy : NULL; /* not with every card */
    inventory->gpus[inventory->gpu_count++] = gpu;
    return 0;
}

int amd_list(const char *sysfs, struct inventory *inventory, struct err *err)
{
    char *nodes = mem_printf("%s/class/kfd/kfd/topology/nodes", sysfs);
    int rc = 0;
    bool more = true;
    for (unsigned i = 0; rc == 0 && more && i < NODES_MAX; i++) { /* numbered without gaps */
        char *node = mem_printf("%s/%u", nodes, i), *path = mem_printf("%s/properties", node);
        char *text = NULL;
        size_t length;
        struct err why = {0};
        if (file_read(path, FILE_BYTES_MAX, &text, &length, &why) < 0) {
            more = false;
            rc = why.kind == ERR_NOT_FOUND ? 0 : -1;
            if (rc < 0)
                *err = why;
        } else if (property(text, "simd_count") > 0) { /* processors have none */
            rc = gpu_read(sysfs, node, text, inventory, err);
        }
        mem_free(text);
        mem_free(path);
        mem_free(node);
    }
    mem_free(nodes);
    return rc;
}
