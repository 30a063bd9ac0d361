/* cache.c - see cache.h.
 *
 * Prompts are fed padded to the longest; padding is stored past a row's count and then
 * overwritten by its next tokens, so ragged prompts need no mask. */
#include "worker/engine/cache.h"

#include "worker/engine/models/table.h"

#include "common/base/mem.h"

#include <string.h>

struct kv_cache {
    const struct model *model;
    int64_t B, capacity;
    struct tensor *kept;  /* CACHE_KEPT of each layer, first dimension B; values NULL: none */
    int32_t *count;       /* tokens cached per row, on the host           */
    struct tensor *start; /* the same on the device, of the current call  */
    struct tensor *take;  /* tokens of the current call that count        */
    int32_t *source_length; /* of kv_cache_read; NULL: all                */
};

static size_t kept_bytes(const struct tensor *tensor)
{
    return 4 * (size_t)tensor_count(tensor);
}

static char *kept_row(const struct tensor *tensor, int64_t b)
{
    return (char *)tensor->values + kept_bytes(tensor) / (size_t)tensor->dim[0] * (size_t)b;
}

static size_t row_bytes(const struct tensor *tensor)
{
    return kept_bytes(tensor) / (size_t)tensor->dim[0];
}

static bool default_kept(const struct model_config *c, int which, int64_t capacity,
                         int64_t out[2])
{
    out[0] = capacity;
    out[1] = c->kv_heads * c->head_width;
    return which < 2;
}

static int make_kept(struct kv_cache *cache, int64_t layer, int which, struct err *err)
{
    const struct model *model = cache->model;
    struct tensor *tensor = &cache->kept[CACHE_KEPT * layer + which];
    int64_t dim[2];
    bool there = model->table->kept ? model->table->kept(&model->config, layer, which,
                                                         cache->capacity, dim)
                                    : default_kept(&model->config, which, cache->capacity, dim);

    *tensor = (struct tensor){.device = model->device, .dtype = DTYPE_F32, .rank = 3,
                              .dim = {cache->B, there ? dim[0] : 0, there ? dim[1] : 0, 1}};
    if (!there)
        return 0;
    if (device_alloc(model->device, kept_bytes(tensor), &tensor->values, err) < 0)
        return err_wrap(err, "cache of the tokens read");
    model->device->backend->zero(model->device, tensor->values, kept_bytes(tensor));
    return 0;
}

static int64_t layer_count(const struct model *model)
{
    return model->table->second_count ? model->config.decoder_layers : model->config.layers;
}

static int64_t kept_count(const struct kv_cache *cache)
{
    return CACHE_KEPT * layer_count(cache->model);
}

int kv_cache_new(const struct model *model, int64_t B, int64_t capacity, struct kv_cache **out,
                 struct err *err)
{
    struct kv_cache *cache;

    CHECK(B > 0 && capacity > 0);
    if (model->table->sees_both_ways)
        return err_set(err, ERR_INVALID, "%s is an encoder: it cannot continue texts",
                       model->table->name);
    cache = mem_zalloc(sizeof *cache);
    *cache = (struct kv_cache){.model = model, .B = B, .capacity = capacity};
    cache->kept = mem_zalloc((size_t)kept_count(cache) * sizeof *cache->kept);
    cache->count = mem_array((size_t)B, sizeof *cache->count);
    for (int64_t i = 0; i < kept_count(cache); i++) {
        if (make_kept(cache, i / CACHE_KEPT, (int)(i % CACHE_KEPT), err) < 0) {
            kv_cache_free(cache);
            return -1;
        }
    }
    *out = cache;
    return 0;
}

void kv_cache_free(struct kv_cache *cache)
{
    if (!cache)
        return;
    cache->model->device->backend->finish(cache->model->device);
    for (int64_t i = 0; i < kept_count(cache); i++)
        device_release(cache->model->device, cache->kept[i].values, kept_bytes(&cache->kept[i]));
    mem_free(cache->kept);
    mem_free(cache->source_length);
    mem_free(cache->count);
    mem_free(cache);
}

int64_t kv_cache_count(const struct kv_cache *cache, int64_t b)
{
    CHECK(b >= 0 && b < cache->B);
    return cache->count[b];
}

/* Room for a source that kv_cache_read left in another cache. */
static int widen_like(struct kv_cache *cache, struct tensor *tensor, const struct tensor *from,
                      struct err *err)
{
    tensor->dim[1] = from->dim[1];
    tensor->dim[2] = from->dim[2];
    if (device_alloc(cache->model->device, kept_bytes(tensor), &tensor->values, err) < 0)
        return err_wrap(err, "cache of the source");
    return 0;
}

int kv_cache_fork(const struct kv_cache *prefix, int64_t row, int64_t B, int64_t capacity,
                  struct kv_cache **out, struct err *err)
{
    struct device *device = prefix->model->device;
    struct kv_cache *cache;

    CHECK(row >= 0 && row < prefix->B && capacity >= prefix->count[row]);
    if (kv_cache_new(prefix->model, B, capacity, &cache, err) < 0)
        return -1;
    for (int64_t i = 0; i < kept_count(prefix); i++) {
        const struct tensor *from = &prefix->kept[i];

        if (!from->values)
            continue;
        if (!cache->kept[i].values && widen_like(cache, &cache->kept[i], from, err) < 0) {
            kv_cache_free(cache);
            return -1;
        }
        size_t per_row = row_bytes(&cache->kept[i]);
        size_t size_bytes = per_row < row_bytes(from) ? per_row : row_bytes(from);

        for (int64_t b = 0; b < B; b++)
            device->backend->copy(device, kept_row(&cache->kept[i], b), kept_row(from, row),
                                  size_bytes);
    }
    for (int64_t b = 0; b < B; b++)
        cache->count[b] = prefix->count[row];
    if (prefix->source_length) {
        cache->source_length = mem_array((size_t)B, sizeof *cache->source_length);
        for (int64_t b = 0; b < B; b++)
            cache->source_length[b] = prefix->source_length[row];
    }
    *out = cache;
    return 0;
}

int kv_cache_read(struct tape *tape, struct kv_cache *cache, const int32_t *source, int64_t S,
                  const int32_t *length, struct err *err)
{
    struct device *device = cache->model->device;
    struct model_batch batch = {.B = cache->B, .source = source, .S = S, .source_length = length};

    if (cache->model->config.family != MODEL_T5)
        return err_set(err, ERR_INVALID, "%s reads no source", cache->model->table->name);
    for (int64_t i = 0; i < layer_count(cache->model); i++) {
        struct tensor *kept = &cache->kept[CACHE_KEPT * i + 2];
        struct tensor shape = {.dim = {cache->B, S, 2 * cache->model->config.heads *
                                                        cache->model->config.head_width, 1}};

        CHECK(!kept->values);
        if (widen_like(cache, kept, &shape, err) < 0)
            return -1;
    }
    if (t5_read(tape, cache->model, &batch, cache, err) < 0)
        return -1;
    device->backend->finish(device);
    if (length) {
        cache->source_length = mem_array((size_t)cache->B, sizeof *length);
        memcpy(cache->source_length, length, sizeof *length * (size_t)cache->B);
    }
    return 0;
}

/* Through scratch, since rows may go in circles. */
static void select_rows(struct kv_cache *cache, const struct tensor *kept, const int32_t *source)
{
    struct device *device = cache->model->device;
    size_t size_bytes = row_bytes(kept);

    for (int64_t b = 0; b < cache->B; b++)
        device->backend->copy(device, (char *)device->scratch + (size_t)b * size_bytes,
                              kept_row(kept, source[b]), size_bytes);
    device->backend->copy(device, kept->values, device->scratch, kept_bytes(kept));
}

int kv_cache_select(struct kv_cache *cache, const int32_t *source, struct err *err)
{
    int32_t *count;

    for (int64_t i = 0; i < kept_count(cache); i++) {
        if (!cache->kept[i].values)
            continue;
        if (device_scratch_reserve(cache->model->device, kept_bytes(&cache->kept[i]), err) < 0)
            return -1;
        select_rows(cache, &cache->kept[i], source);
    }
    count = mem_array((size_t)cache->B, sizeof *count);
    for (int64_t b = 0; b < cache->B; b++) {
        CHECK(source[b] >= 0 && source[b] < cache->B);
        count[b] = cache->count[source[b]];
    }
    memcpy(cache->count, count, sizeof *count * (size_t)cache->B);
    mem_free(count);
    return 0;
}

struct tensor *kv_cache_kept(struct kv_cache *cache, int64_t layer, int which)
{
    struct tensor *kept = &cache->kept[CACHE_KEPT * layer + which];

    return kept->values ? kept : NULL;
}

struct tensor *kv_cache_start(const struct kv_cache *cache)
{
    return cache->start;
}

struct tensor *kv_cache_take(const struct kv_cache *cache)
{
    return cache->take;
}

int64_t kv_cache_capacity(const struct kv_cache *cache)
{
    return cache->capacity;
}

const int32_t *kv_cache_source_length(const struct kv_cache *cache)
{
    return cache->source_length;
}

struct tensor *kv_cache_attend(struct tape *tape, struct kv_cache *cache, int64_t layer,
                               struct tensor *qkv, int64_t B, int64_t T)
{
    return op_attention_cached(tape, qkv, cache->start, kv_cache_kept(cache, layer, 0),
                               kv_cache_kept(cache, layer, 1),
                               model_heads(&cache->model->config), B, T);
}

/* How many of the T tokens of each row count, on the device. */
static struct tensor *taken(struct tape *tape, const struct kv_cache *cache, int64_t T,
                            const int64_t *advance)
{
    int32_t *host = tape_host(tape, cache->B, sizeof *host);

    for (int64_t b = 0; b < cache->B; b++)
        host[b] = (int32_t)(advance ? advance[b] : T);
    return tape_i32(tape, host, cache->B);
}

/* Positions go on from what is cached; padding past the context stays at its end. */
static int32_t *next_positions(struct tape *tape, const struct kv_cache *cache, int64_t T)
{
    int32_t *position = tape_host(tape, cache->B * T, sizeof *position);
    int32_t last = (int32_t)cache->model->config.context - 1;

    for (int64_t n = 0; n < cache->B * T; n++) {
        int32_t at = cache->count[n / T] + (int32_t)(n % T);

        position[n] = at < last ? at : last;
    }
    return position;
}

static int check_room(const struct kv_cache *cache, int64_t T, const int64_t *advance,
                      struct err *err)
{
    for (int64_t b = 0; b < cache->B; b++) {
        int64_t after = cache->count[b] + (advance ? advance[b] : T);

        if (after > cache->capacity)
            return err_set(err, ERR_LIMIT, "row %lld would hold %lld tokens, the cache holds %lld",
                           (long long)b, (long long)after, (long long)cache->capacity);
    }
    return 0;
}

int kv_cache_extend(struct tape *tape, struct kv_cache *cache, const int32_t *token, int64_t T,
                    const int64_t *advance, struct tensor **out_hidden, struct err *err)
{
    struct model_batch batch = {.B = cache->B, .T = T, .token = token};
    struct model_states states = {0};

    if (check_room(cache, T, advance, err) < 0)
        return -1;
    batch.position = next_positions(tape, cache, T);
    cache->start = tape_i32(tape, cache->count, cache->B);
    cache->take = taken(tape, cache, T, advance);
    if (model_run(tape, cache->model, &batch, cache, &states, err) < 0)
        return -1;
    for (int64_t b = 0; b < cache->B; b++)
        cache->count[b] += (int32_t)(advance ? advance[b] : T);
    *out_hidden = states.hidden;
    return 0;
}

int64_t kv_cache_begun(const struct model *model, int64_t count)
{
    return model->config.family == MODEL_T5 ? 1 : count;
}

/* The encoder reads the prompts, and the decoder of each row its first token. */
static int begin_source(struct tape *tape, struct kv_cache *cache, const int32_t *source,
                        int64_t S, const int64_t *count, struct tensor **out_hidden,
                        struct err *err)
{
    size_t B = (size_t)cache->B;
    int32_t *start = mem_array(B, sizeof *start), *length = mem_array(B, sizeof *length);

    for (size_t b = 0; b < B; b++)
        length[b] = (int32_t)(count ? count[b] : S);
    int rc = kv_cache_read(tape, cache, source, S, count ? length : NULL, err);
    if (rc == 0)
        rc = kv_cache_extend(tape, cache, start, 1, NULL, out_hidden, err);
    mem_free(start);
    mem_free(length);
    return rc;
}

int kv_cache_begin(struct tape *tape, struct kv_cache *cache, const int32_t *prompt, int64_t T,
                   const int64_t *count, struct tensor **out_hidden, int64_t *out_columns,
                   struct err *err)
{
    if (cache->model->config.family == MODEL_T5) {
        *out_columns = 1;
        return begin_source(tape, cache, prompt, T, count, out_hidden, err);
    }
    *out_columns = T;
    return kv_cache_extend(tape, cache, prompt, T, count, out_hidden, err);
}
