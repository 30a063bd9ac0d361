/* cluster.c - see cluster.h. */
#include "worker/recipes/data/web/cluster.h"

#include "common/base/mem.h"
#include "common/base/rng.h"
#include "worker/engine/comm.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PLACES 4 /* of a word in a vector */

/* ---- words ------------------------------------------------------------------------------ */

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

/* The words of a text, sorted: equal ones lie side by side. */
static void sort_words(struct words *words, const char *text, size_t length)
{
    words->count = 0;
    words_split(words, WORDS_ROUGE, text, length);
    if (words->count > 1)
        qsort(words->word, words->count, sizeof *words->word, compare_u64);
}

static size_t bucket_of(uint64_t word)
{
    return (size_t)(rng_mix(word) & (CLUSTER_BUCKETS - 1));
}

void word_spread_add(struct word_spread *spread, const char *text, size_t length)
{
    struct words *words = &spread->words;

    if (!spread->documents)
        spread->documents = mem_array(CLUSTER_BUCKETS, sizeof *spread->documents);
    sort_words(words, text, length);
    for (size_t i = 0; i < words->count; i++)
        if (i == 0 || words->word[i] != words->word[i - 1])
            spread->documents[bucket_of(words->word[i])]++;
    spread->count++;
}

void word_spread_sum(struct word_spread *spread, struct comm *comm)
{
    if (!spread->documents)
        spread->documents = mem_array(CLUSTER_BUCKETS, sizeof *spread->documents);
    comm_sum_i64(comm, spread->documents, (int64_t)CLUSTER_BUCKETS);
    comm_sum_i64(comm, &spread->count, 1);
}

void word_spread_done(struct word_spread *spread)
{
    mem_free(spread->documents);
    words_done(&spread->words);
    *spread = (struct word_spread){0};
}

/* ---- vectors ---------------------------------------------------------------------------- */

static void quantise(const double *values, size_t width, int16_t *out)
{
    double squares = 0;

    for (size_t i = 0; i < width; i++)
        squares += values[i] * values[i];
    double scale = squares > 0 ? CLUSTER_ONE / sqrt(squares) : 0;
    for (size_t i = 0; i < width; i++)
        out[i] = (int16_t)nearbyint(values[i] * scale);
}

static void add_scaled(struct vectors *vectors, const double *values)
{
    if (vectors->count == vectors->capacity) {
        vectors->capacity = vectors->capacity ? 2 * vectors->capacity : 64;
        vectors->items = mem_grow(vectors->items, vectors->capacity * vectors->width,
                                  sizeof *vectors->items);
    }
    quantise(values, vectors->width, vectors->items + vectors->count++ * vectors->width);
}

void vectors_add(struct vectors *vectors, const float *values)
{
    double *wide = mem_array(vectors->width, sizeof *wide);

    for (size_t i = 0; i < vectors->width; i++)
        wide[i] = (double)values[i];
    add_scaled(vectors, wide);
    mem_free(wide);
}

void vectors_add_text(struct vectors *vectors, struct word_spread *spread, const char *text,
                      size_t length)
{
    struct words *words = &spread->words;
    double values[CLUSTER_WIDTH] = {0};

    CHECK(vectors->width == CLUSTER_WIDTH);
    sort_words(words, text, length);
    for (size_t i = 0, next; i < words->count; i = next) {
        uint64_t word = words->word[i], places = rng_mix(word ^ 5);
        for (next = i + 1; next < words->count && words->word[next] == word;)
            next++;
        int64_t documents = spread->documents[bucket_of(word)];
        if (documents < 1)
            continue;
        double weight = (1 + log((double)(next - i))) *
                        log((double)spread->count / (double)documents);
        for (int p = 0; p < PLACES; p++, places >>= 9)
            values[places & 255] += places & 256 ? weight : -weight;
    }
    add_scaled(vectors, values);
}

void vectors_done(struct vectors *vectors)
{
    mem_free(vectors->items);
    *vectors = (struct vectors){0};
}

/* ---- clusters --------------------------------------------------------------------------- */

size_t cluster_count(int64_t documents)
{
    double count = ceil(sqrt((double)documents / 2));

    return count < 1 ? 1 : count > CLUSTER_K_AUTO ? CLUSTER_K_AUTO : (size_t)count;
}

/* At most CLUSTER_ONE squared, and so is every part of it (Cauchy and Schwarz), but for rounding:
 * 2^30 of 2^31. */
static int32_t product(const int16_t *a, const int16_t *b, size_t width)
{
    int32_t sum = 0;

    for (size_t i = 0; i < width; i += 16) /* of a known length, so that it is vectorised */
        for (size_t k = i; k < i + 16; k++)
            sum += (int32_t)a[k] * b[k];
    return sum;
}

struct offer {
    uint64_t order;
    uint64_t index; /* of the rank's vectors */
};

static int compare_offer(const void *a, const void *b)
{
    return compare_u64(&((const struct offer *)a)->order, &((const struct offer *)b)->order);
}

/* The first centres: each rank offers its `count` first, and the first of all stay. */
static int choose_first(struct comm *comm, const struct vectors *vectors, const uint64_t *order,
                        struct clusters *out, struct err *err)
{
    size_t bytes = sizeof(uint64_t) + vectors->width * sizeof(int16_t), length;
    struct offer *offers = mem_array(vectors->count + 1, sizeof *offers);
    char *mine, *all = NULL;

    for (size_t i = 0; i < vectors->count; i++)
        offers[i] = (struct offer){order[i], i};
    if (vectors->count > 1)
        qsort(offers, vectors->count, sizeof *offers, compare_offer);
    size_t few = vectors->count < out->count ? vectors->count : out->count;
    mine = mem_alloc(few * bytes + 1);
    for (size_t i = 0; i < few; i++) {
        memcpy(mine + i * bytes, &offers[i].order, sizeof(uint64_t));
        memcpy(mine + i * bytes + sizeof(uint64_t),
               vectors->items + offers[i].index * vectors->width, bytes - sizeof(uint64_t));
    }
    mem_free(offers);
    int rc = comm_gather_parts(comm, mine, few * bytes, (void **)&all, &length, err);
    mem_free(mine);
    if (rc < 0)
        return -1;
    size_t offered = length / bytes;
    offers = mem_array(offered + 1, sizeof *offers);
    for (size_t i = 0; i < offered; i++) {
        memcpy(&offers[i].order, all + i * bytes, sizeof(uint64_t));
        offers[i].index = i;
    }
    if (offered > 1)
        qsort(offers, offered, sizeof *offers, compare_offer);
    out->count = offered < out->count ? offered : out->count;
    out->centres = mem_array(out->count * out->width + 1, sizeof *out->centres);
    for (size_t c = 0; c < out->count; c++)
        memcpy(out->centres + c * out->width, all + offers[c].index * bytes + sizeof(uint64_t),
               bytes - sizeof(uint64_t));
    mem_free(offers);
    mem_free(all);
    return 0;
}

/* Returns how many owners changed. */
static int64_t assign(const struct vectors *vectors, struct clusters *out)
{
    int64_t changed = 0;

    for (size_t i = 0; i < vectors->count; i++) {
        const int16_t *vector = vectors->items + i * vectors->width;
        int32_t most = INT32_MIN;
        uint32_t best = 0;
        for (size_t c = 0; c < out->count; c++) {
            int32_t value = product(vector, out->centres + c * out->width, out->width);
            if (value > most) {
                most = value;
                best = (uint32_t)c;
            }
        }
        changed += out->owners[i] != best;
        out->owners[i] = best;
    }
    return changed;
}

/* Sums over all ranks; with `move` also the centres, but those that own nothing, which stay. */
static void sum_up(struct comm *comm, const struct vectors *vectors, struct clusters *out,
                   bool move)
{
    size_t width = out->width;
    int64_t *sums = move ? mem_array(out->count * width + 1, sizeof *sums) : NULL;
    double *mean = mem_array(width, sizeof *mean);

    memset(out->sizes, 0, out->count * sizeof *out->sizes);
    for (size_t i = 0; i < vectors->count; i++) {
        out->sizes[out->owners[i]]++;
        for (size_t d = 0; d < width && move; d++)
            sums[out->owners[i] * width + d] += vectors->items[i * width + d];
    }
    comm_sum_i64(comm, out->sizes, (int64_t)out->count);
    if (move)
        comm_sum_i64(comm, sums, (int64_t)(out->count * width));
    for (size_t c = 0; c < out->count && move; c++) {
        bool any = false;
        for (size_t d = 0; d < width; d++) {
            mean[d] = (double)sums[c * width + d];
            any = any || sums[c * width + d] != 0;
        }
        if (any)
            quantise(mean, width, out->centres + c * width);
    }
    mem_free(sums);
    mem_free(mean);
}

int clusters_find(struct comm *comm, const struct vectors *vectors, const uint64_t *order,
                  size_t count, unsigned rounds_max, struct clusters *out, struct err *err)
{
    *out = (struct clusters){.count = count, .width = vectors->width};
    if (choose_first(comm, vectors, order, out, err) < 0)
        return -1;
    out->owners = mem_array(vectors->count + 1, sizeof *out->owners);
    out->sizes = mem_array(out->count + 1, sizeof *out->sizes);
    for (size_t i = 0; i < vectors->count; i++)
        out->owners[i] = UINT32_MAX;
    for (int64_t changed = 1; out->count > 0;) {
        changed = assign(vectors, out);
        comm_sum_i64(comm, &changed, 1);
        if (changed == 0 || out->rounds == rounds_max)
            break;
        out->rounds++;
        sum_up(comm, vectors, out, true);
    }
    sum_up(comm, vectors, out, false);
    return 0;
}

void clusters_done(struct clusters *clusters)
{
    mem_free(clusters->centres);
    mem_free(clusters->owners);
    mem_free(clusters->sizes);
    *clusters = (struct clusters){0};
}
