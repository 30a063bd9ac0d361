/* trigram.c - see trigram.h. Counts lie in open tables by 64-bit hashes of their words: among 10^8
 * trigrams two share one with probability 3 * 10^-4, and only their counts would add. */
#include "worker/recipes/data/web/trigram.h"

#include "common/base/hash.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "worker/recipes/text/words.h"

#include <math.h>
#include <string.h>

#define MARKER       1u /* before the first word */
#define HELD_SHARE   0.1
#define WEIGHT_THREE 0.5
#define WEIGHT_TWO   0.35
#define WEIGHT_ONE   0.15

struct counts {
    uint64_t *key; /* 0: free */
    uint32_t *count;
    size_t slots, used;
};

struct text {
    char *bytes;
    size_t length;
};

struct trigram {
    uint64_t seed;
    struct counts grams; /* words, pairs and triples: their hashes differ */
    struct counts contexts; /* how often a word, or a pair, is followed by one */
    uint64_t words, vocabulary;
    struct text *held;
    size_t held_count, held_capacity;
    double mu, sigma;
};

static size_t slot_of(const struct counts *counts, uint64_t key)
{
    size_t at = (size_t)(key ^ key >> 29) & (counts->slots - 1);

    while (counts->key[at] && counts->key[at] != key)
        at = (at + 1) & (counts->slots - 1);
    return at;
}

static void grow(struct counts *counts)
{
    struct counts old = *counts;

    counts->slots = old.slots ? 2 * old.slots : 1024;
    counts->key = mem_array(counts->slots, sizeof *counts->key);
    counts->count = mem_array(counts->slots, sizeof *counts->count);
    for (size_t i = 0; i < old.slots; i++)
        if (old.key[i]) {
            size_t at = slot_of(counts, old.key[i]);
            counts->key[at] = old.key[i];
            counts->count[at] = old.count[i];
        }
    mem_free(old.key);
    mem_free(old.count);
}

/* True when it is new. */
static bool count_one(struct counts *counts, uint64_t key)
{
    if (2 * (counts->used + 1) > counts->slots)
        grow(counts);
    size_t at = slot_of(counts, key);
    bool fresh = counts->key[at] == 0;
    counts->key[at] = key;
    counts->count[at] += counts->count[at] < UINT32_MAX;
    counts->used += fresh;
    return fresh;
}

static double count_of(const struct counts *counts, uint64_t key)
{
    return counts->slots ? counts->count[slot_of(counts, key)] : 0;
}

/* Hashes of (w), (v, w) and (u, v, w): never 0, and apart by their number of words. */
static uint64_t one(uint64_t w)
{
    return rng_mix(w ^ 1) | 1;
}
static uint64_t two(uint64_t v, uint64_t w)
{
    return rng_mix(rng_mix(v ^ 2) + w) | 1;
}
static uint64_t three(uint64_t u, uint64_t v, uint64_t w)
{
    return rng_mix(rng_mix(rng_mix(u ^ 3) + v) + w) | 1;
}

struct trigram *trigram_new(uint64_t seed)
{
    struct trigram *trigram = mem_zalloc(sizeof *trigram);

    trigram->seed = seed;
    return trigram;
}

void trigram_free(struct trigram *trigram)
{
    if (!trigram)
        return;
    for (size_t i = 0; i < trigram->held_count; i++)
        mem_free(trigram->held[i].bytes);
    mem_free(trigram->held);
    mem_free(trigram->grams.key);
    mem_free(trigram->grams.count);
    mem_free(trigram->contexts.key);
    mem_free(trigram->contexts.count);
    mem_free(trigram);
}

void trigram_add(struct trigram *trigram, const char *text, size_t length)
{
    struct words words = {0};
    struct hash hash;
    uint64_t bits, u = MARKER, v = MARKER;

    hash_bytes(text, length, &hash);
    memcpy(&bits, hash.bytes, sizeof bits);
    if (rng_unit_at(trigram->seed, bits, 3) < HELD_SHARE) {
        VEC_RESERVE(trigram->held, trigram->held_count, trigram->held_capacity);
        trigram->held[trigram->held_count++] = (struct text){mem_strndup(text, length), length};
        return;
    }
    words_split(&words, WORDS_ROUGE, text, length);
    for (size_t i = 0; i < words.count; i++) {
        uint64_t w = words.word[i];
        trigram->vocabulary += count_one(&trigram->grams, one(w));
        count_one(&trigram->grams, two(v, w));
        count_one(&trigram->grams, three(u, v, w));
        count_one(&trigram->contexts, one(v));
        count_one(&trigram->contexts, two(u, v));
        u = v;
        v = w;
    }
    trigram->words += words.count;
    words_done(&words);
}

static double share(double part, double whole)
{
    return whole > 0 ? part / whole : 0;
}

double trigram_mean(const struct trigram *trigram, const char *text, size_t length)
{
    struct words words = {0};
    uint64_t u = MARKER, v = MARKER;
    double sum = 0, all = (double)trigram->words + 0.5 * (double)(trigram->vocabulary + 1);

    words_split(&words, WORDS_ROUGE, text, length);
    for (size_t i = 0; i < words.count; i++) {
        uint64_t w = words.word[i];
        double p3 = share(count_of(&trigram->grams, three(u, v, w)),
                          count_of(&trigram->contexts, two(u, v)));
        double p2 = share(count_of(&trigram->grams, two(v, w)),
                          count_of(&trigram->contexts, one(v)));
        double p1 = (count_of(&trigram->grams, one(w)) + 0.5) / all;
        sum += log(WEIGHT_THREE * p3 + WEIGHT_TWO * p2 + WEIGHT_ONE * p1);
        u = v;
        v = w;
    }
    double mean = words.count ? sum / (double)words.count : trigram->mu;
    words_done(&words);
    return mean;
}

int trigram_finish(struct trigram *trigram, struct err *err)
{
    double sum = 0, squares = 0, n = (double)trigram->held_count;

    if (trigram->held_count < 2 || trigram->words == 0)
        return err_set(err, ERR_INVALID, "the reference has too few texts: %zu to measure with and "
                       "%llu words to count, at least 2 and 1 are needed", trigram->held_count,
                       (unsigned long long)trigram->words);
    for (size_t i = 0; i < trigram->held_count; i++) {
        double mean = trigram_mean(trigram, trigram->held[i].bytes, trigram->held[i].length);
        sum += mean;
        squares += mean * mean;
    }
    trigram->mu = sum / n;
    trigram->sigma = sqrt(fmax(0, (squares - sum * sum / n) / (n - 1)));
    return 0;
}

double trigram_limit(const struct trigram *trigram, double sigmas)
{
    return trigram->mu - sigmas * trigram->sigma;
}

void trigram_stats(const struct trigram *trigram, double *out_mu, double *out_sigma,
                   size_t *out_texts)
{
    *out_mu = trigram->mu;
    *out_sigma = trigram->sigma;
    *out_texts = trigram->held_count;
}
