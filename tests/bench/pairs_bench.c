/* link: recipes
 *
 * pairs_bench.c - what Impossible Distillation spends its time on, each part beside a plain way.
 *
 *   pairs_bench [--samples K]
 *
 * Sampling K sentences after a context: the context read once for all, against once for each.
 * ROUGE-L of all pairs: bits of a word's places, against the table of the definition, in processor
 * time. Each critic: pairs a second, and its share of the time when CONTEXT_SAMPLES sentences are
 * sampled and all their ordered pairs judged, nothing being filtered before; lm_mi's two directions
 * also with what it keeps of a context's sentences against without, in processor time. Models: 4
 * layers of 256, 2,048 tokens, contexts of 100 tokens and answers of 24: random weights cost what
 * trained ones do. */
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "common/base/rng.h"
#include "worker/engine/data/bpe.h"
#include "worker/engine/generate.h"
#include "worker/engine/io/model_files.h"
#include "worker/recipes/distillation/impossible/critic.h"
#include "worker/recipes/text/microworld.h"
#include "worker/recipes/text/overlap.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PROMPT 100
#define ANSWER 24
#define ROUNDS 3
#define SENTENCES 300
#define CONTEXT_SAMPLES 16

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

/* Ordered pairs of sentences a processor second; *out_sum tells that both ways find the same. */
static double overlap_rate(const struct words *words, bool bits, size_t *out_sum)
{
    clock_t began = clock();

    *out_sum = 0;
    for (size_t i = 0; i < SENTENCES; i++) {
        struct lcs_pattern pattern = {0};
        if (bits)
            lcs_pattern_init(&words[i], &pattern);
        for (size_t j = 0; j < SENTENCES; j++)
            *out_sum += bits ? lcs_length(&pattern, &words[j]) : lcs_by_table(&words[i], &words[j]);
        lcs_pattern_done(&pattern);
    }
    return (double)SENTENCES * SENTENCES * CLOCKS_PER_SEC / (double)(clock() - began + 1);
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

/* ---- critics ---------------------------------------------------------------------------- */

/* Sentences of one fact and of others, as those after one context are. */
static void draw_sentences(char *out[CONTEXT_SAMPLES])
{
    struct rng rng;

    rng_init(&rng, 2);
    for (int i = 0; i < CONTEXT_SAMPLES; i++) {
        struct fact fact = microworld_fact((unsigned)rng_below(&rng, 4));
        struct buf text = {0};
        for (int s = 0; s < 2; s++) { /* about 24 tokens */
            microworld_sentence(&fact, &rng, &text);
            buf_putc(&text, s ? 0 : ' ');
        }
        out[i] = buf_take(&text);
    }
}

static struct tokenizer *tokenizer_of(char *const *sentences)
{
    struct word_counts counts = {0};
    struct tokenizer *tokenizer;
    struct err err;

    for (int i = 0; i < CONTEXT_SAMPLES; i++)
        word_counts_add_text(&counts, sentences[i], strlen(sentences[i]));
    must(tokenizer_train(&counts, 2048, 2, &tokenizer, &err), &err);
    word_counts_done(&counts);
    tokenizer_frame_by_end(tokenizer);
    return tokenizer;
}

/* An encoder of the same size, as finetuning/classify saves one. */
static void write_encoder(const char *folder, struct device *device,
                          const struct tokenizer *tokenizer)
{
    struct model_config config = {.family = MODEL_BERT, .vocab_size = 2048, .context = 128,
                                  .width = 256, .layers = 4, .heads = 8, .top = MODEL_TOP_LABELS,
                                  .labels = 2, .label_name = {"entailment", "other"}};
    struct model *model;
    struct err err;

    must(model_config_complete(&config, &err), &err);
    must(model_new(device, &config, 1, &model, &err), &err);
    must(model_files_write(folder, model, &err), &err);
    must(tokenizer_write(tokenizer, folder, 128, &err), &err);
    model_free(model);
}

static void measure_critic(const char *name, struct critic *critic, char *const *sentences,
                           double sampling_s)
{
    struct critic_pair pairs[CONTEXT_SAMPLES * CONTEXT_SAMPLES];
    double score[CONTEXT_SAMPLES * CONTEXT_SAMPLES];
    size_t count = 0;
    struct err err;

    for (int i = 0; i < CONTEXT_SAMPLES; i++)
        for (int j = 0; j < CONTEXT_SAMPLES; j++)
            if (i != j)
                pairs[count++] = (struct critic_pair){sentences[i], sentences[j]};
    uint64_t began = clock_steady_us();
    must(critic_score(critic, pairs, count, score, &err), &err);
    double seconds = seconds_since(began);
    printf("critic %-6s %10.0f pairs/s, share of time %.3f (%d samples, %zu pairs)\n", name,
           (double)count / seconds, seconds / (seconds + sampling_s), CONTEXT_SAMPLES, count);
    critic_free(critic);
}

/* Pairs of a processor second when first one direction of all pairs is asked, then the other. */
static double both_ways_rate(struct critic *critic, char *const *sentences, bool kept)
{
    struct critic_pair pairs[2][CONTEXT_SAMPLES * CONTEXT_SAMPLES];
    double score[CONTEXT_SAMPLES * CONTEXT_SAMPLES];
    size_t count = 0;
    struct err err;

    for (int i = 0; i < CONTEXT_SAMPLES; i++)
        for (int j = 0; j < i; j++, count++) {
            pairs[0][count] = (struct critic_pair){sentences[i], sentences[j]};
            pairs[1][count] = (struct critic_pair){sentences[j], sentences[i]};
        }
    clock_t began = clock();
    if (kept)
        critic_context_begin(critic);
    for (int way = 0; way < 2; way++)
        must(critic_score(critic, pairs[way], count, score, &err), &err);
    if (kept)
        critic_context_end(critic);
    return 2.0 * (double)count * CLOCKS_PER_SEC / (double)(clock() - began + 1);
}

static void measure_memory(struct critic *critic, char *const *sentences)
{
    double best[2] = {0};

    for (int round = 0; round < 5 * ROUNDS; round++)
        for (int kept = 0; kept < 2; kept++) {
            double rate = both_ways_rate(critic, sentences, kept);
            best[kept] = rate > best[kept] ? rate : best[kept];
        }
    printf("critic lm_mi  %10.0f pairs a processor second, %.0f where sentences by themselves are "
           "read again, ratio %.3f\n", best[1], best[0], best[1] / best[0]);
    critic_free(critic);
}

static void critics(const struct model *model, double sampling_rate_now)
{
    double sampling_s = CONTEXT_SAMPLES * ANSWER / sampling_rate_now;
    char folder[] = "/tmp/athanor-bench-XXXXXX", *sentences[CONTEXT_SAMPLES];
    struct critic *critic;
    struct err err;

    CHECK(mkdtemp(folder));
    draw_sentences(sentences);
    struct tokenizer *tokenizer = tokenizer_of(sentences);
    write_encoder(folder, model->device, tokenizer);
    measure_critic("oracle", critic_oracle(), sentences, sampling_s);
    must(critic_embed(folder, model->device, &critic, &err), &err);
    measure_critic("embed", critic, sentences, sampling_s);
    must(critic_lm_mi(model, tokenizer, &critic, &err), &err);
    measure_critic("lm_mi", critic, sentences, sampling_s);
    must(critic_lm_mi(model, tokenizer, &critic, &err), &err);
    measure_memory(critic, sentences);
    must(critic_nli(folder, model->device, &critic, &err), &err);
    measure_critic("nli", critic, sentences, sampling_s);
    must(file_remove_tree(folder, &err), &err);
    for (int i = 0; i < CONTEXT_SAMPLES; i++)
        mem_free(sentences[i]);
    tokenizer_free(tokenizer);
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
    critics(model, shared);
    model_free(model);
    device_close(device);
    return 0;
}
