/* ngram.c - see ngram.h. Bigrams are counted by sorting pairs, so memory is 8 bytes a token. */
#include "worker/recipes/ngram.h"

#include <math.h>
#include <stdlib.h>

struct counts {
    uint64_t *pair; /* sorted: previous << 32 | next */
    size_t pair_count;
    uint64_t *unigram;  /* (V) as next token                    */
    uint64_t *follower; /* (V) distinct tokens seen after this  */
    uint64_t *history;  /* (V) tokens seen after this           */
    uint64_t distinct;  /* tokens with a count                  */
    double V;
};

static int compare_pairs(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

    return (left > right) - (left < right);
}

static void counts_done(struct counts *counts)
{
    free(counts->pair);
    free(counts->unigram);
    free(counts->follower);
    free(counts->history);
}

static uint64_t pair_at(const struct shard *shard, uint64_t next)
{
    return (uint64_t)shard_token(shard, next - 1) << 32 | shard_token(shard, next);
}

static void collect(const struct dataset_part *part, struct counts *counts)
{
    for (size_t s = 0; s < part->shard_count; s++) {
        for (uint64_t i = 1; i < part->shards[s]->token_count; i++)
            counts->pair[counts->pair_count++] = pair_at(part->shards[s], i);
    }
    qsort(counts->pair, counts->pair_count, sizeof *counts->pair, compare_pairs);
    for (size_t i = 0; i < counts->pair_count; i++) {
        uint64_t pair = counts->pair[i];

        counts->distinct += counts->unigram[pair & UINT32_MAX]++ == 0;
        counts->history[pair >> 32]++;
        counts->follower[pair >> 32] += i == 0 || counts->pair[i - 1] != pair;
    }
}

/* First index whose pair is not below. */
static size_t lower_bound(const struct counts *counts, uint64_t pair)
{
    size_t from = 0, to = counts->pair_count;

    while (from < to) {
        size_t middle = from + (to - from) / 2;

        if (counts->pair[middle] < pair)
            from = middle + 1;
        else
            to = middle;
    }
    return from;
}

static double unigram_probability(const struct counts *counts, uint64_t token)
{
    double t = (double)counts->distinct;

    return ((double)counts->unigram[token] + t / counts->V) / ((double)counts->pair_count + t);
}

static double bigram_probability(const struct counts *counts, uint64_t pair)
{
    double lower = unigram_probability(counts, pair & UINT32_MAX);
    double c = (double)counts->history[pair >> 32];
    double t = (double)counts->follower[pair >> 32];
    double seen = (double)(lower_bound(counts, pair + 1) - lower_bound(counts, pair));

    return c > 0 ? (seen + t * lower) / (c + t) : lower;
}

static int measure(const struct counts *counts, const struct dataset_part *valid,
                   struct ngram_losses *out, struct err *err)
{
    struct ngram_losses sum = {0};
    uint64_t tokens = 0;

    for (size_t s = 0; s < valid->shard_count; s++) {
        for (uint64_t i = 1; i < valid->shards[s]->token_count; i++) {
            uint64_t pair = pair_at(valid->shards[s], i);

            sum.unigram -= log(unigram_probability(counts, pair & UINT32_MAX));
            sum.bigram -= log(bigram_probability(counts, pair));
            tokens++;
        }
    }
    if (tokens == 0)
        return err_set(err, ERR_INVALID, "part '%s' has under two tokens", valid->name);
    out->unigram = sum.unigram / (double)tokens;
    out->bigram = sum.bigram / (double)tokens;
    return 0;
}

int ngram_losses(const struct dataset_part *train, const struct dataset_part *valid,
                 struct ngram_losses *out, struct err *err)
{
    size_t V = dataset_vocab_size(train->dataset);
    struct counts counts = {.V = (double)V};
    int rc = -1;

    if (train->token_count < 2)
        return err_set(err, ERR_INVALID, "part '%s' has under two tokens", train->name);
    counts.pair = malloc(train->token_count * sizeof *counts.pair);
    counts.unigram = calloc(V, sizeof *counts.unigram);
    counts.follower = calloc(V, sizeof *counts.follower);
    counts.history = calloc(V, sizeof *counts.history);
    if (!counts.pair || !counts.unigram || !counts.follower || !counts.history) {
        err_set(err, ERR_MEMORY, "cannot allocate counts of %llu tokens",
                (unsigned long long)train->token_count);
        goto out;
    }
    collect(train, &counts);
    rc = measure(&counts, valid, out, err);
out:
    counts_done(&counts);
    return rc;
}
