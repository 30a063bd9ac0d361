/* packed.c - see packed.h. */
#include "worker/engine/packed.h"

#include "common/base/mem.h"

#include <string.h>

/* A copy costs as much as reading without it does more in 4 products (0.8 ns a number against 0.2),
 * and several times that on memory which the machine must find first. */
#define USES_BEFORE_COPY 8

struct packed_weight {
    const char *w; /* with M and K the key: a joined matrix begins where its first part does */
    int64_t M, K;
    int64_t uses;  /* since it was written */
    float *copy;   /* NULL: none yet       */
    bool is_current;
};

struct packed {
    struct packed_weight *weight; /* by address, then M */
    size_t count;
    uint64_t bytes;
    bool has_given_up;
};

static size_t weight_bytes(const struct packed_weight *weight)
{
    return 4 * (size_t)(weight->M * weight->K);
}

static int by_place(const struct packed_weight *weight, const void *w, int64_t M)
{
    if (weight->w != (const char *)w)
        return weight->w < (const char *)w ? -1 : 1;
    return (weight->M > M) - (weight->M < M);
}

/* The first that is not before (w, M). */
static size_t place_of(const struct packed *packed, const void *w, int64_t M)
{
    size_t low = 0, high = packed->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (by_place(&packed->weight[middle], w, M) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct packed_weight *find(const struct packed *packed, const void *w, int64_t M, int64_t K)
{
    size_t at = packed ? place_of(packed, w, M) : 0;

    if (!packed || at == packed->count || by_place(&packed->weight[at], w, M) != 0 ||
        packed->weight[at].K != K)
        return NULL;
    return &packed->weight[at];
}

const float *packed_find(const struct device *device, const void *w, int64_t M, int64_t K)
{
    const struct packed_weight *weight = find(device->packed, w, M, K);

    return weight && weight->is_current ? weight->copy : NULL;
}

static struct packed_weight *add(struct packed *packed, const struct tensor *w)
{
    int64_t M = tensor_rows(w);
    size_t at = place_of(packed, w->values, M);

    packed->weight = mem_grow(packed->weight, packed->count + 1, sizeof *packed->weight);
    memmove(packed->weight + at + 1, packed->weight + at,
            (packed->count - at) * sizeof *packed->weight);
    packed->count++;
    packed->weight[at] = (struct packed_weight){w->values, M, tensor_columns(w), 0, NULL, false};
    return &packed->weight[at];
}

static size_t copy_bytes(const struct device *device, const struct packed_weight *weight)
{
    return device->backend->ops[OP_LINEAR].packed_bytes(weight->M, weight->K);
}

static bool fits(const struct device *device, size_t size_bytes)
{
    uint64_t rank = device->config.memory_bytes, limit = device->config.memory_limit_bytes;
    uint64_t wanted = device->used_bytes + size_bytes;

    return (rank == 0 || wanted <= rank - rank / 4) && (limit == 0 || wanted <= limit);
}

/* Room for the copy; false: memory is short, and nothing has changed but, perhaps, that all copies
 * are gone. */
static bool make_room(struct device *device, struct packed_weight *weight)
{
    size_t size_bytes = copy_bytes(device, weight);
    struct err ignored;
    void *memory;

    if (weight->copy)
        return true;
    if (!fits(device, size_bytes) || device_alloc(device, size_bytes, &memory, &ignored) < 0)
        return false;
    weight->copy = memory;
    device->packed->bytes += size_bytes;
    return true;
}

void packed_use(struct device *device, const struct tensor *w, int64_t rows)
{
    const struct op_kernels *kernels = &device->backend->ops[OP_LINEAR];
    struct packed_weight *weight;

    if (!w->of_model || rows > PACKED_ROWS || !kernels->pack)
        return;
    if (!device->packed) {
        device->packed = mem_zalloc(sizeof *device->packed);
        device->weights_written = packed_written;
    }
    if (device->packed->has_given_up)
        return;
    weight = find(device->packed, w->values, tensor_rows(w), tensor_columns(w));
    if (!weight)
        weight = add(device->packed, w);
    if (weight->is_current || ++weight->uses <= USES_BEFORE_COPY || !make_room(device, weight))
        return;
    kernels->pack(device, w, weight->copy);
    weight->is_current = true;
}

static bool overlaps(const struct packed_weight *weight, const void *from, size_t size_bytes)
{
    return weight->w < (const char *)from + size_bytes &&
           weight->w + weight_bytes(weight) > (const char *)from;
}

void packed_updated(struct device *device, const void *from, size_t size_bytes)
{
    struct packed *packed = device->packed;

    for (size_t i = 0; packed && i < packed->count; i++) {
        if (!overlaps(&packed->weight[i], from, size_bytes))
            continue;
        packed->weight[i].is_current = false;
        packed->weight[i].uses = 0;
    }
}

/* -- rounded copies ------------------------------------------------------------------------- */

static size_t rounded_bytes(int64_t room)
{
    return 2 * (size_t)room;
}

int packed_round(struct device *device, const struct tensor *flat, int64_t zeros, struct err *err)
{
    int64_t count = tensor_count(flat);
    struct rounded *rounded;
    void *copy;

    if (!device->config.bf16 || !device->backend->round)
        return 0;
    if (device_alloc(device, rounded_bytes(count + zeros), &copy, err) < 0)
        return err_wrap(err, "weights in bf16");
    rounded = mem_zalloc(sizeof *rounded);
    *rounded = (struct rounded){tensor_f32(flat), count, count + zeros, copy, device->rounded};
    device->backend->zero(device, copy, rounded_bytes(count + zeros));
    device->backend->round(device, rounded->from, copy, count);
    device->rounded = rounded;
    device->weights_written = packed_written;
    return 0;
}

static bool meets(const struct rounded *rounded, const void *from, size_t size_bytes)
{
    return (const char *)rounded->from < (const char *)from + size_bytes &&
           (const char *)(rounded->from + rounded->count) > (const char *)from;
}

/* The stretch that was written, within the model. */
static void round_again(struct device *device, const struct rounded *rounded, const float *from,
                        int64_t count)
{
    int64_t begin = from > rounded->from ? from - rounded->from : 0;
    int64_t end = from + count - rounded->from;

    if (end > rounded->count)
        end = rounded->count;
    device->backend->round(device, rounded->from + begin, (uint16_t *)rounded->copy + begin,
                           end - begin);
}

void packed_written(struct device *device, const void *from, size_t size_bytes)
{
    packed_updated(device, from, size_bytes);
    for (const struct rounded *r = device->rounded; r; r = r->next)
        if (meets(r, from, size_bytes))
            round_again(device, r, from, (int64_t)(size_bytes / 4));
}

static void drop_rounded(struct device *device, struct rounded **link)
{
    struct rounded *rounded = *link;

    *link = rounded->next;
    device_release(device, rounded->copy, rounded_bytes(rounded->room));
    mem_free(rounded);
}

/* -- ends ----------------------------------------------------------------------------------- */

static void drop_copy(struct device *device, struct packed_weight *weight)
{
    size_t size_bytes = copy_bytes(device, weight);
    float *copy = weight->copy;

    if (!copy)
        return;
    weight->copy = NULL;
    weight->is_current = false;
    device->packed->bytes -= size_bytes;
    device_release(device, copy, size_bytes);
}

void packed_forget(struct device *device, const void *from, size_t size_bytes)
{
    struct packed *packed = device->packed;
    size_t kept = 0;

    for (size_t i = 0; packed && i < packed->count; i++)
        if (overlaps(&packed->weight[i], from, size_bytes))
            drop_copy(device, &packed->weight[i]); /* comes back here, where nothing overlaps */
    for (size_t i = 0; packed && i < packed->count; i++)
        if (!overlaps(&packed->weight[i], from, size_bytes))
            packed->weight[kept++] = packed->weight[i];
    if (packed)
        packed->count = kept;
    for (struct rounded **link = &device->rounded; *link;) {
        if (meets(*link, from, size_bytes))
            drop_rounded(device, link); /* comes back here too */
        else
            link = &(*link)->next;
    }
}

bool packed_give_up(struct device *device)
{
    struct packed *packed = device->packed;

    if (!packed || packed->bytes == 0)
        return false;
    for (size_t i = 0; i < packed->count; i++)
        drop_copy(device, &packed->weight[i]);
    packed->has_given_up = true;
    return true;
}

uint64_t packed_bytes(const struct device *device)
{
    return device->packed ? device->packed->bytes : 0;
}

void packed_free(struct device *device)
{
    while (device->rounded)
        drop_rounded(device, &device->rounded);
    device->weights_written = NULL;
    if (!device->packed)
        return;
    (void)packed_give_up(device);
    mem_free(device->packed->weight);
    mem_free(device->packed);
    device->packed = NULL;
}
