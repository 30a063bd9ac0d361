/* batch.c - filling rows from shards; see batch.h. */
#include "worker/engine/data/batch.h"

#include "common/base/mem.h"
#include "worker/engine/data/sampler.h"

#include <stdlib.h>
#include <string.h>

#define BATCH_CELLS_MAX ((int64_t)1 << 31)

int batch_init(struct batch *batch, int64_t B, int64_t T, struct err *err)
{
    if (B < 1 || T < 1 || B > BATCH_CELLS_MAX / T)
        return err_set(err, ERR_INVALID, "a batch of %lld rows of %lld tokens; at least 1 of each "
                       "and at most 2^31 in all are accepted", (long long)B, (long long)T);
    size_t cells = (size_t)(B * T);
    int32_t *token = calloc(cells, sizeof *token), *target = calloc(cells, sizeof *target);
    int64_t *item = calloc((size_t)B, sizeof *item);
    if (!token || !target || !item) {
        free(token);
        free(target);
        free(item);
        return err_set(err, ERR_MEMORY, "a batch of %lld x %lld tokens needs %zu bytes",
                       (long long)B, (long long)T, 8 * cells);
    }
    *batch = (struct batch){B, T, token, target, item, 0};
    return 0;
}

void batch_done(struct batch *batch)
{
    free(batch->token);
    free(batch->target);
    free(batch->item);
    *batch = (struct batch){0};
}

static void row_clear(struct batch *batch, int64_t row)
{
    for (int64_t t = 0; t < batch->T; t++) {
        batch->token[row * batch->T + t] = 0;
        batch->target[row * batch->T + t] = -1;
    }
    batch->item[row] = -1;
}

/* Row `row` predicts tokens [from + 1, from + 1 + count) of the shard; count <= T. */
static void row_fill(struct batch *batch, int64_t row, const struct shard *shard, uint64_t from,
                     int64_t count)
{
    int32_t *token = batch->token + row * batch->T, *target = batch->target + row * batch->T;
    uint32_t current = shard_token(shard, from);
    for (int64_t t = 0; t < count; t++) {
        uint32_t next = shard_token(shard, from + 1 + (uint64_t)t);
        token[t] = (int32_t)current;
        target[t] = (int32_t)next;
        current = next;
    }
    batch->target_count += count;
}

int windows_init(struct windows *windows, const struct dataset_part *part, int64_t T,
                 struct err *err)
{
    CHECK(T >= 1);
    int64_t *base = mem_array(part->shard_count + 1, sizeof *base);
    for (size_t i = 0; i < part->shard_count; i++) {
        int64_t tokens = (int64_t)part->shards[i]->token_count;
        base[i + 1] = base[i] + (tokens > 1 ? (tokens - 1 + T - 1) / T : 0);
    }
    if (base[part->shard_count] == 0) {
        mem_free(base);
        return err_set(err, ERR_INVALID, "part '%s' has %llu tokens; training needs at least 2 "
                       "in one shard", part->name, (unsigned long long)part->token_count);
    }
    *windows = (struct windows){part, T, base, base[part->shard_count]};
    return 0;
}

void windows_done(struct windows *windows)
{
    mem_free(windows->window_base);
    *windows = (struct windows){0};
}

/* The shard of window (or document) `index`: the last whose base is not above it. */
static size_t shard_of_window(const struct windows *windows, int64_t index)
{
    size_t low = 0, high = windows->part->shard_count - 1;
    while (low < high) {
        size_t middle = (low + high + 1) / 2;
        if (windows->window_base[middle] <= index)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

static void window_row(const struct windows *windows, int64_t index, struct batch *batch,
                       int64_t row)
{
    size_t at = shard_of_window(windows, index);
    const struct shard *shard = windows->part->shards[at];
    uint64_t from = (uint64_t)((index - windows->window_base[at]) * windows->T);
    int64_t left = (int64_t)(shard->token_count - 1 - from);
    row_clear(batch, row);
    row_fill(batch, row, shard, from, left < windows->T ? left : windows->T);
    batch->item[row] = index;
}

/* The document of the shard that token `at` is of: the last one that begins there or before. */
static uint64_t document_at(const struct shard *shard, uint64_t at)
{
    uint64_t low = 0, high = shard->document_count - 1;
    while (low < high) {
        uint64_t middle = (low + high + 1) / 2;
        if (shard->document_start[middle] <= at)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

void windows_documents(const struct windows *windows, int64_t index, uint64_t *out_first,
                       uint64_t *out_last)
{
    CHECK(index >= 0 && index < windows->window_count);
    size_t at = shard_of_window(windows, index);
    const struct shard *shard = windows->part->shards[at];
    uint64_t from = (uint64_t)((index - windows->window_base[at]) * windows->T);
    uint64_t to = from + (uint64_t)windows->T, base = windows->part->document_base[at];
    if (to > shard->token_count - 1)
        to = shard->token_count - 1;
    *out_first = base + document_at(shard, from);
    *out_last = base + document_at(shard, to);
}

void windows_fill(const struct windows *windows, uint64_t seed, uint64_t first,
                  struct batch *batch)
{
    CHECK(batch->T == windows->T);
    batch->target_count = 0;
    for (int64_t row = 0; row < batch->B; row++)
        window_row(windows,
                   (int64_t)sampler_item(seed, (uint64_t)windows->window_count,
                                         first + (uint64_t)row),
                   batch, row);
}

int64_t windows_fill_ordered(const struct windows *windows, uint64_t first, struct batch *batch)
{
    CHECK(batch->T == windows->T);
    int64_t filled = 0;
    batch->target_count = 0;
    for (int64_t row = 0; row < batch->B; row++) {
        if (first + (uint64_t)row < (uint64_t)windows->window_count) {
            window_row(windows, (int64_t)first + row, batch, row);
            filled++;
        } else {
            row_clear(batch, row);
        }
    }
    return filled;
}

/* The document's own tokens, without separators. */
static void document_span(const struct dataset_part *part, uint64_t index,
                          const struct shard **out_shard, uint64_t *out_begin, uint64_t *out_end)
{
    size_t at = dataset_shard_of(part, index);
    const struct shard *shard = part->shards[at];
    uint64_t local = index - part->document_base[at];
    uint64_t begin = shard->document_start[local], end = shard->document_start[local + 1];
    if ((shard->flags & SHARD_FLAG_SEPARATOR_BEFORE) && begin < end)
        begin++;
    if ((shard->flags & SHARD_FLAG_SEPARATOR_AFTER) && begin < end)
        end--;
    *out_shard = shard;
    *out_begin = begin;
    *out_end = end;
}

static void document_row(const struct dataset_part *part, uint64_t index, struct batch *batch,
                         int64_t row)
{
    const struct shard *shard;
    uint64_t begin, end;
    uint32_t first = tokenizer_begin_of_text(dataset_tokenizer(part->dataset));
    uint32_t last = tokenizer_end_of_text(dataset_tokenizer(part->dataset));
    int32_t *token = batch->token + row * batch->T, *target = batch->target + row * batch->T;
    document_span(part, index, &shard, &begin, &end);
    row_clear(batch, row);
    int64_t length = (int64_t)(end - begin) + 1; /* targets: the tokens, then the last */
    int64_t count = length < batch->T ? length : batch->T;
    for (int64_t t = 0; t < count; t++) {
        token[t] = (int32_t)(t == 0 ? first : shard_token(shard, begin + (uint64_t)t - 1));
        target[t] = (int32_t)(t == length - 1 ? last
                                              : shard_token(shard, begin + (uint64_t)t));
    }
    batch->target_count += count;
    batch->item[row] = (int64_t)index;
}

void documents_fill(const struct dataset_part *part, uint64_t seed, uint64_t first,
                    struct batch *batch)
{
    CHECK(part->document_count > 0);
    batch->target_count = 0;
    for (int64_t row = 0; row < batch->B; row++)
        document_row(part, sampler_item(seed, part->document_count, first + (uint64_t)row), batch,
                     row);
}

int64_t documents_fill_ordered(const struct dataset_part *part, uint64_t first,
                               struct batch *batch)
{
    int64_t filled = 0;
    batch->target_count = 0;
    for (int64_t row = 0; row < batch->B; row++) {
        if (first + (uint64_t)row < part->document_count) {
            document_row(part, first + (uint64_t)row, batch, row);
            filled++;
        } else {
            row_clear(batch, row);
        }
    }
    return filled;
}

int64_t documents_longest(const struct dataset_part *part)
{
    uint64_t longest = 0;
    for (uint64_t i = 0; i < part->document_count; i++) {
        const struct shard *shard;
        uint64_t begin, end;
        document_span(part, i, &shard, &begin, &end);
        longest = max_u64(longest, end - begin + 1);
    }
    return (int64_t)longest;
}
