/* sampler.c - see sampler.h. */
#include "worker/recipes/distillation/impossible/sampler.h"

#include "common/base/mem.h"
#include "common/base/parse.h"
#include "worker/recipes/distillation/impossible/sentence.h"
#include "worker/recipes/sourced.h"

#include <math.h>
#include <string.h>

#define SAMPLES_PER_CONTEXT 4096 /* numbers of a context's texts: FILTER_SAMPLES_MAX and room */

/* What begins texts, the codes, as much of the end of the text as leaves room for an answer, and a
 * newline; what an encoder reads of that (sourced.h) has room of its own. */
void sampler_prompt(const struct sentence_sampler *sampler, const char *text,
                    struct token_list *out)
{
    size_t before = 1 + sampler->code_count;
    int64_t room = sampler->model->config.context - sampler->max_tokens - (int64_t)before;

    token_list_add(out, tokenizer_begin_of_text(sampler->tokenizer));
    for (size_t c = 0; c < sampler->code_count; c++)
        token_list_add(out, sampler->code[c]);
    tokenizer_encode(sampler->tokenizer, text, strlen(text), out);
    if (sampler->newline)
        tokenizer_encode(sampler->tokenizer, "\n", 1, out);
    if ((int64_t)(out->count - before) > room && room > 0) {
        size_t drop = out->count - before - (size_t)room;
        memmove(out->ids + before, out->ids + before + drop, (size_t)room * sizeof *out->ids);
        out->count -= drop;
    }
    if (sourced_is_needed(sampler->model) && sampler->newline)
        out->count = (size_t)sourced_prompt((const int32_t *)out->ids, (int64_t)out->count,
                                            (int32_t *)out->ids);
}

/* ---- no n-gram twice -------------------------------------------------------------------- */

struct no_repeat {
    int64_t n;
    const int32_t *prompt;
    int64_t prompt_count;
};

/* The i-th token of prompt and text. */
static int32_t token_at(const struct no_repeat *rule, const int32_t *token, int64_t i)
{
    return i < rule->prompt_count ? rule->prompt[i] : token[i - rule->prompt_count];
}

/* What followed the last n-1 tokens before must not follow them now. */
static void forbid_repeats(void *context, uint64_t index, const int32_t *token, int64_t count,
                           float *logits, int64_t V)
{
    const struct no_repeat *rule = context;
    int64_t total = rule->prompt_count + count, tail = rule->n - 1, allowed = 0;

    (void)index;
    for (int64_t v = 0; v < V; v++)
        allowed += isfinite(logits[v]);
    for (int64_t start = 0; start + tail < total && allowed > 1; start++) {
        int64_t same = 0;
        while (same < tail &&
               token_at(rule, token, start + same) == token_at(rule, token, total - tail + same))
            same++;
        int32_t next = token_at(rule, token, start + tail);
        if (same == tail && isfinite(logits[next])) {
            logits[next] = -INFINITY;
            allowed--;
        }
    }
}

static char *text_of(const struct sentence_sampler *sampler, const struct generation *generation,
                     bool whole)
{
    struct buf text = {0};

    tokenizer_decode(sampler->tokenizer, (const uint32_t *)generation->token,
                     (size_t)generation->count, &text);
    const char *start = buf_text(&text);
    size_t length = text.length;
    while (length && (*start == ' ' || *start == '\t')) {
        start++;
        length--;
    }
    if (whole) {
        while (length && strchr(" \t\r\n", start[length - 1]))
            length--;
        length = text_is_utf8(start, length) ? length : 0;
    } else {
        length = sentence_first(start, length);
    }
    char *out = mem_strndup(start, length);
    buf_done(&text);
    return out;
}

int sampler_sentences(const struct sentence_sampler *sampler, const char *text, uint64_t context,
                      size_t count, bool whole, char **out, uint64_t *out_tokens, struct err *err)
{
    struct token_list tokens = {0};
    struct prompt *prompts = mem_array(count + 1, sizeof *prompts);
    struct generation *texts = mem_array(count + 1, sizeof *texts);
    int32_t *memory = mem_array(count * (size_t)sampler->max_tokens + 1, sizeof *memory);

    sampler_prompt(sampler, text, &tokens);
    for (size_t i = 0; i < count; i++) {
        prompts[i] = (struct prompt){(const int32_t *)tokens.ids, (int64_t)tokens.count};
        texts[i] = (struct generation){.token = memory + i * (size_t)sampler->max_tokens,
                                       .index = context * SAMPLES_PER_CONTEXT + i};
    }
    struct sampling sampling = sampler->sampling;
    struct no_repeat rule = {sampler->no_repeat, (const int32_t *)tokens.ids,
                             (int64_t)tokens.count};
    if (sampler->no_repeat) {
        sampling.constrain = forbid_repeats;
        sampling.context = &rule;
    }
    int rc = generate(sampler->model, prompts, texts, (int64_t)count, sampler->max_tokens,
                      &sampling, err);
    for (size_t i = 0; i < count && rc == 0; i++) {
        out[i] = text_of(sampler, &texts[i], whole);
        *out_tokens += (uint64_t)texts[i].count;
    }
    token_list_done(&tokens);
    mem_free(prompts);
    mem_free(texts);
    mem_free(memory);
    return rc;
}
