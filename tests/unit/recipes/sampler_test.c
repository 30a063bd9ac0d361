/* sampler_test.c - texts without a repeated n-gram, against a plain search of every sequence. */
#include "common/base/file.h"
#include "tests/unit/engine/small_models.h"
#include "worker/recipes/distillation/impossible/sampler.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>

#define MOST  24
#define TEXTS 6

static struct err err;
static struct tokenizer *tokenizer;
static struct device *device;
static struct model *model;

/* A WordPiece of twelve words, and a model of random weights that is sure of itself. */
static int open_model(void **state)
{
    static const char words[] =
        "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\nl\n";
    struct model_config config = small_llama;
    const char *scratch = getenv("TMPDIR");
    char *path = mem_printf("%s/athanor-sampler-XXXXXX", scratch ? scratch : "/tmp"), *file;

    (void)state;
    if (!mkdtemp(path))
        fail_msg("mkdtemp %s", path);
    file = mem_printf("%s/vocab.txt", path);
    must(file_create(file, words, strlen(words), 0600, &err));
    must(tokenizer_read(path, &tokenizer, &err));
    must(file_remove_tree(path, &err));
    mem_free(file);
    mem_free(path);
    device = small_device(BACKEND_CPU, 1);
    config.vocab_size = tokenizer_vocab_size(tokenizer);
    config.context = 64;
    config.init_std = 0.4;
    model = small_model(device, &config, 11);
    return 0;
}

static int close_model(void **state)
{
    (void)state;
    model_free(model);
    device_close(device);
    tokenizer_free(tokenizer);
    return 0;
}

/* -- the plain search ----------------------------------------------------------------------- */

struct oracle {
    const struct token_list *prompt;
    int64_t n;
    int64_t turned;    /* draws whose likeliest token was forbidden        */
    int64_t exhausted; /* draws at which every token would have repeated   */
};

/* Where the sequence `want` of n tokens is last seen in `all`; -1: nowhere. */
static int64_t last_seen(const int32_t *all, int64_t count, const int32_t *want, int64_t n)
{
    for (int64_t at = count - n; at >= 0; at--)
        if (memcmp(all + at, want, (size_t)n * sizeof *want) == 0)
            return at;
    return -1;
}

/* Tries every token: does the n-gram that it would complete stand somewhere? When all do, the one
 * whose first place is latest stays. */
static void search(void *context, uint64_t index, const int32_t *token, int64_t count,
                   float *logits, int64_t V)
{
    struct oracle *oracle = context;
    int32_t all[64], gram[8];
    int64_t total = 0, left = 0, stays = -1, latest = -1, likeliest = 0;

    (void)index;
    for (int64_t v = 1; v < V; v++)
        likeliest = logits[v] > logits[likeliest] ? v : likeliest;
    for (size_t i = 0; i < oracle->prompt->count; i++)
        all[total++] = (int32_t)oracle->prompt->ids[i];
    for (int64_t i = 0; i < count; i++)
        all[total++] = token[i];
    if (total < oracle->n - 1)
        return;
    memcpy(gram, all + total - (oracle->n - 1), (size_t)(oracle->n - 1) * sizeof *gram);
    for (int64_t v = 0; v < V; v++) {
        int64_t first = 0;

        gram[oracle->n - 1] = (int32_t)v;
        left += last_seen(all, total, gram, oracle->n) < 0;
        while (first + oracle->n <= total && last_seen(all + first, oracle->n, gram, oracle->n) < 0)
            first++;
        if (first > latest) {
            latest = first;
            stays = v;
        }
    }
    oracle->exhausted += left == 0;
    for (int64_t v = 0; v < V; v++) {
        gram[oracle->n - 1] = (int32_t)v;
        if (last_seen(all, total, gram, oracle->n) >= 0 && (left > 0 || v != stays))
            logits[v] = -INFINITY;
    }
    oracle->turned += !isfinite(logits[likeliest]);
}

static char *text_of_tokens(const struct generation *text)
{
    struct buf out = {0};
    const char *start;
    char *copy;
    size_t length;

    tokenizer_decode(tokenizer, (const uint32_t *)text->token, (size_t)text->count, &out);
    start = buf_text(&out);
    length = out.length;
    while (length && isspace((unsigned char)*start))
        start++, length--;
    while (length && isspace((unsigned char)start[length - 1]))
        length--;
    copy = mem_strndup(start, length);
    buf_done(&out);
    return copy;
}

/* -- tests ---------------------------------------------------------------------------------- */

static struct sentence_sampler sampler_of(int64_t n, double temperature)
{
    return (struct sentence_sampler){
        .model = model, .tokenizer = tokenizer, .max_tokens = MOST, .no_repeat = n,
        .sampling = {.temperature = temperature, .seed = 3, .stop_token = -1}};
}

static void check_against_search(const char *before, int64_t n, double temperature,
                                 struct oracle *counts)
{
    struct sentence_sampler sampler = sampler_of(n, temperature);
    struct token_list prompt = {0};
    struct prompt prompts[TEXTS];
    struct generation texts[TEXTS];
    int32_t memory[TEXTS][MOST];
    struct oracle oracle = {.prompt = &prompt, .n = n};
    struct sampling sampling = sampler.sampling;
    char *got[TEXTS];
    uint64_t tokens = 0, wanted = 0;

    must(sampler_sentences(&sampler, before, 0, TEXTS, true, got, &tokens, &err));
    sampler_prompt(&sampler, before, &prompt);
    for (uint64_t i = 0; i < TEXTS; i++) {
        prompts[i] = (struct prompt){(const int32_t *)prompt.ids, (int64_t)prompt.count};
        texts[i] = (struct generation){.token = memory[i], .index = i};
    }
    sampling.constrain = search;
    sampling.context = &oracle;
    must(generate(model, prompts, texts, TEXTS, MOST, &sampling, &err));
    for (size_t i = 0; i < TEXTS; i++) {
        char *want = text_of_tokens(&texts[i]);

        assert_string_equal(got[i], want);
        wanted += (uint64_t)texts[i].count;
        mem_free(want);
        mem_free(got[i]);
    }
    assert_int_equal(tokens, wanted);
    token_list_done(&prompt);
    counts->turned += oracle.turned;
    counts->exhausted += oracle.exhausted;
}

static void texts_are_those_of_a_plain_search(void **state)
{
    static const char *const befores[] = {"", "a b c a b", "l l l l l l", "a b c d e f g h i j k"};
    struct oracle counts[5] = {{0}};

    (void)state;
    for (int64_t n = 1; n <= 4; n++)
        for (size_t b = 0; b < ARRAY_COUNT(befores); b++)
            for (int warm = 0; warm < 3; warm++)
                check_against_search(befores[b], n, warm * 0.7, &counts[n]);
    for (int64_t n = 1; n <= 3; n++)
        assert_true(counts[n].turned > 0); /* or there was nothing to forbid */
    assert_true(counts[1].exhausted > 0); /* no text of 24 has each of sixteen tokens once */
    assert_int_equal(counts[4].exhausted, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_are_those_of_a_plain_search),
    };

    return cmocka_run_group_tests(tests, open_model, close_model);
}
