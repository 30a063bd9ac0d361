/* ngram_test.c - the baselines by counting, computed again from tables of counts. Card
 * eval-general, acceptance item E5: bits of a trained byte bigram equal the entropy of its counts
 * to 1e-9. */
#include "tests/train/fixture.h"

#include "worker/recipes/ngram.h"

#define TOKENS 257 /* of the toys: bytes, and the one that begins a document */

/* Tokens, and pairs of a token and the next. */
struct table {
    double pair[TOKENS][TOKENS], after[TOKENS], before[TOKENS], all;
};

static void count(const struct dataset_part *part, struct table *table)
{
    memset(table, 0, sizeof *table);
    for (size_t s = 0; s < part->shard_count; s++)
        for (uint64_t i = 1; i < part->shards[s]->token_count; i++) {
            uint32_t v = shard_token(part->shards[s], i - 1), w = shard_token(part->shards[s], i);
            table->pair[v][w]++;
            table->before[v]++;
            table->after[w]++;
            table->all++;
        }
}

/* Interpolated Witten-Bell, as ngram.h says it. v < 0: of no history. */
static double chance(const struct table *table, int v, int w)
{
    const double *counts = v < 0 ? table->after : table->pair[v];
    double sum = v < 0 ? table->all : table->before[v], distinct = 0;
    double lower = v < 0 ? 1.0 / TOKENS : chance(table, -1, w);

    for (int i = 0; i < TOKENS; i++)
        distinct += counts[i] > 0;
    return sum > 0 ? (counts[w] + distinct * lower) / (sum + distinct) : lower;
}

/* Nats a token of texts whose pairs are counted in `of`. */
static struct ngram_losses entropy(const struct table *counts, const struct table *of)
{
    struct ngram_losses sum = {0};

    for (int v = 0; v < TOKENS; v++)
        for (int w = 0; w < TOKENS; w++)
            if (of->pair[v][w] > 0) {
                sum.unigram -= of->pair[v][w] * log(chance(counts, -1, w)) / of->all;
                sum.bigram -= of->pair[v][w] * log(chance(counts, v, w)) / of->all;
            }
    return sum;
}

static void losses_of_counting_are_the_entropies_of_the_counts(void **state)
{
    static struct table counts, held;
    const struct place *place = *state;
    char *path = job_path(place, "toys", "");
    struct dataset *dataset = NULL;
    const struct dataset_part *train, *valid;
    struct ngram_losses losses, wanted;

    OK(dataset_open(path, &dataset, &fixture_err));
    OK(dataset_part(dataset, "train", &train, &fixture_err));
    OK(dataset_part(dataset, "valid", &valid, &fixture_err));
    count(train, &counts);
    count(valid, &held);
    for (int i = 0; i < 2; i++) {
        OK(ngram_losses(train, i ? valid : train, &losses, &fixture_err));
        wanted = entropy(&counts, i ? &held : &counts);
        assert_float_equal(losses.unigram, wanted.unigram, 1e-9);
        assert_float_equal(losses.bigram, wanted.bigram, 1e-9);
        assert_true(losses.bigram < losses.unigram);
    }
    dataset_close(dataset);
    mem_free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(losses_of_counting_are_the_entropies_of_the_counts),
    };

    return cmocka_run_group_tests(tests, place_open, place_close);
}
