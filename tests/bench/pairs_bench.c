/* link: recipes
 *
 * pairs_bench.c - what Impossible Distillation spends its time on, each part beside a plain way.
 *
 *   pairs_bench [--samples K]
 *
 * Sampling K sentences after a context: the context read once for all, against once for each.
 * ROUGE-L of all pairs: bits of a word's places, against the table of the definition. Model: 4
 * layers of 256, 2,048 tokens, contexts of 100 tokens and answers of 24: random weights cost what
 * trained ones do. */
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "common/base/rng.h"
#include "worker/engine/generate.h"
#include "worker/recipes/text/microworld.h"
#include "worker/recipes/text/overlap.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROMPT 100
#define ANSWER 24
#define ROUNDS 3
#define SENTENCES 300

static void must(int rc, const struct err *err)
{
    if (rc == 0)
        return;
    fprintf(stderr, "pairs_bench: %s\n", err->text);
    exit(1);
}

static double seconds_since(uint64_t began_us)
{
    return (double)(clock_steady_us() - began_us + 1) / 1e6;
}

/* Tokens of answers a second, the best of some rounds. */
static double sampling_rate(const struct model *model, int64_t samples, bool shared)
{
    struct sampling sampling = {.temperature = 0.7, .top_p = 0.9, .seed = 1, .stop_token = -1};
    int32_t *prompt = mem_array((size_t)(samples * PROMPT), sizeof *prompt);
    int32_t *answer = mem_array((size_t)(samples * ANSWER), sizeof *answer);
    struct prompt *prompts = mem_array((size_t)samples, sizeof *prompts);
    struct generation *texts = mem_array((size_t)samples, sizeof *texts);
    double best = 0;
    struct err err;

    for (int64_t i = 0; i < samples * PROMPT; i++)
        prompt[i] = (int32_t)(rng_at(1, 0, (uint64_t)(i % PROMPT)) % 2048);
    for (int round = 0; round < ROUNDS; round++) {
        for (int64_t i = 0; i < samples; i++) {
            prompts[i] = (struct prompt){shared ? prompt : prompt + i * PROMPT, PROMPT};
            texts[i] = (struct generation){.token = answer + i * ANSWER, .index = (uint64_t)i};
        }
        uint64_t began = clock_steady_us();
        must(generate(model, prompts, texts, samples, ANSWER, &sampling, &err), &err);
        double rate = (double)(samples * ANSWER) / seconds_since(began);
        best = rate > best ? rate : best;
    }
    mem_free(prompt);
    mem_free(answer);
    mem_free(prompts);
    mem_free(texts);
    return best;
}

static size_t lcs_by_table(const struct words *a, const struct words *b)
{
    size_t row[256] = {0};

    for (size_t i = 0; i < a->count; i++) {
        size_t diagonal = 0;
        for (size_t j = 1; j <= b->count; j++) {
            size_t above = row[j];
            if (a->word[i] == b->word[j - 1])
                row[j] = diagonal + 1;
            else if (row[j - 1] > row[j])
                row[j] = row[j - 1];
            diagonal = above;
        }
    }
    return row[b->count];
}

/* Ordered pairs of sentences a second; *out_sum tells that both ways find the same. */
static double overlap_rate(const struct words *words, bool bits, size_t *out_sum)
{
    uint64_t began = clock_steady_us();

    *out_sum = 0;
    for (size_t i = 0; i < SENTENCES; i++) {
        struct lcs_pattern pattern = {0};
        if (bits)
            lcs_pattern_init(&words[i], &pattern);
        for (size_t j = 0; j < SENTENCES; j++)
            *out_sum += bits ? lcs_length(&pattern, &words[j]) : lcs_by_table(&words[i], &words[j]);
        lcs_pattern_done(&pattern);
    }
    return (double)SENTENCES * SENTENCES / seconds_since(began);
}

static void overlap(void)
{
    static struct words words[SENTENCES];
    size_t with_bits, with_table;
    struct rng rng;

    rng_init(&rng, 1);
    for (size_t i = 0; i < SENTENCES; i++) {
        struct buf text = {0};
        for (int s = 0; s < 3; s++) { /* about 30 words, as sentences of news have */
            struct fact fact = microworld_fact((unsigned)rng_below(&rng, MICROWORLD_FACTS));
            microworld_sentence(&fact, &rng, &text);
            buf_putc(&text, ' ');
        }
        words_split(&words[i], WORDS_ROUGE, buf_text(&text), text.length);
        buf_done(&text);
    }
    double table = overlap_rate(words, false, &with_table);
    double bits = overlap_rate(words, true, &with_bits);
    CHECK(with_bits == with_table);
    printf("rouge_l %.0f pairs/s, %.0f by the table, ratio %.1f\n", bits, table, bits / table);
    for (size_t i = 0; i < SENTENCES; i++)
        words_done(&words[i]);
}

int main(int argc, char **argv)
{
    struct device_config device_config = {.kind = BACKEND_CPU};
    struct model_config config = {.family = MODEL_LLAMA, .vocab_size = 2048, .context = 128,
                                  .width = 256, .layers = 4, .heads = 8, .tied = true};
    int64_t samples = argc == 3 && strcmp(argv[1], "--samples") == 0 ? atoll(argv[2]) : 50;
    struct device *device;
    struct model *model;
    struct err err;

    if ((argc != 1 && argc != 3) || samples < 2 || samples > 4096) {
        fprintf(stderr, "usage: pairs_bench [--samples 2..4096]\n");
        return 2;
    }
    must(device_open(&device_config, &device, &err), &err);
    must(model_config_complete(&config, &err), &err);
    must(model_new(device, &config, 1, &model, &err), &err);
    double apart = sampling_rate(model, samples, false);
    double shared = sampling_rate(model, samples, true);
    printf("sample %.0f tokens/s with one reading of the context, %.0f with one for each of %lld "
           "samples, ratio %.2f\n", shared, apart, (long long)samples, shared / apart);
    overlap();
    model_free(model);
    device_close(device);
    return 0;
}
