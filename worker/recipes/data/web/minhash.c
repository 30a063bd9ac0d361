/* minhash.c - see minhash.h. */
#include "worker/recipes/data/web/minhash.h"

#include "common/base/mem.h"
#include "common/base/rng.h"
#include "worker/recipes/text/words.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define PRIME (((uint64_t)1 << 61) - 1)

__extension__ typedef unsigned __int128 wide;

int minhash_init(struct minhash *minhash, unsigned bands, unsigned rows, unsigned ngram,
                 uint64_t seed, struct err *err)
{
    size_t values = (size_t)bands * rows;

    if (values == 0 || values > MINHASH_VALUES_MAX)
        return err_set(err, ERR_INVALID, "minhash_bands %u times minhash_rows %u is not 1 to %d",
                       bands, rows, MINHASH_VALUES_MAX);
    *minhash = (struct minhash){.bands = bands, .rows = rows, .ngram = ngram};
    minhash->a = mem_array(values, sizeof *minhash->a);
    minhash->c = mem_array(values, sizeof *minhash->c);
    minhash->least = mem_array(values, sizeof *minhash->least);
    for (size_t j = 0; j < values; j++) {
        minhash->a[j] = 1 + rng_at(seed, j, 1) % (PRIME - 1);
        minhash->c[j] = rng_at(seed, j, 2) % PRIME;
    }
    return 0;
}

void minhash_done(struct minhash *minhash)
{
    mem_free(minhash->a);
    mem_free(minhash->c);
    mem_free(minhash->least);
    *minhash = (struct minhash){0};
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

void shingles_set(struct shingles *shingles, unsigned ngram, const char *text, size_t length)
{
    struct words words = {0};
    size_t kept = 0;

    shingles->count = 0;
    words_split(&words, WORDS_ROUGE, text, length);
    shingles->words = words.count;
    size_t n = words.count < ngram ? words.count : ngram;
    for (size_t i = 0; n > 0 && i + n <= words.count; i++) {
        VEC_RESERVE(shingles->items, shingles->count, shingles->capacity);
        shingles->items[shingles->count++] =
            XXH3_64bits(words.word + i, n * sizeof *words.word) % PRIME;
    }
    words_done(&words);
    if (shingles->count > 1)
        qsort(shingles->items, shingles->count, sizeof *shingles->items, compare);
    for (size_t i = 0; i < shingles->count; i++)
        if (kept == 0 || shingles->items[i] != shingles->items[kept - 1])
            shingles->items[kept++] = shingles->items[i];
    shingles->count = kept;
}

void shingles_done(struct shingles *shingles)
{
    mem_free(shingles->items);
    *shingles = (struct shingles){0};
}

double shingles_jaccard(const struct shingles *a, const struct shingles *b)
{
    size_t both = 0, i = 0, j = 0;

    while (i < a->count && j < b->count) {
        uint64_t x = a->items[i], y = b->items[j];
        both += x == y;
        i += x <= y;
        j += y <= x;
    }
    size_t either = a->count + b->count - both;
    return either ? (double)both / (double)either : 0;
}

/* a x + c mod 2^61 - 1: the high part of the product has the weight of 1. */
static uint64_t mix(uint64_t a, uint64_t x, uint64_t c)
{
    wide product = (wide)a * x + c;
    uint64_t sum = (uint64_t)(product & PRIME) + (uint64_t)(product >> 61);

    return sum >= PRIME ? sum - PRIME : sum;
}

bool minhash_keys(struct minhash *minhash, const struct shingles *shingles, uint64_t *out)
{
    size_t values = (size_t)minhash->bands * minhash->rows;

    if (shingles->count == 0)
        return false;
    memset(minhash->least, 0xFF, values * sizeof *minhash->least);
    for (size_t i = 0; i < shingles->count; i++)
        for (size_t j = 0; j < values; j++) {
            uint64_t value = mix(minhash->a[j], shingles->items[i], minhash->c[j]);
            minhash->least[j] = value < minhash->least[j] ? value : minhash->least[j];
        }
    for (unsigned b = 0; b < minhash->bands; b++)
        out[b] = XXH3_64bits_withSeed(minhash->least + (size_t)b * minhash->rows,
                                      minhash->rows * sizeof *minhash->least, b);
    return true;
}
