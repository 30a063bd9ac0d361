/* sequential.c - see sequential.h. */
#include "worker/recipes/distillation/impossible/sequential.h"

#include "common/base/mem.h"
#include "worker/engine/constrained.h"
#include "worker/recipes/distillation/impossible/sentence.h"
#include "worker/recipes/text/function_words.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

struct span {
    const char *at;
    size_t length;
};

static bool is_word_byte(char c)
{
    return isalnum((unsigned char)c) || (c & 0x80);
}

/* The next word at or after *at; false at the end. */
static bool next_word(const char **at, struct span *out)
{
    while (**at && !is_word_byte(**at))
        ++*at;
    out->at = *at;
    while (is_word_byte(**at) ||
           ((**at == '-' || **at == '\'') && *at > out->at && is_word_byte((*at)[1])))
        ++*at;
    out->length = (size_t)(*at - out->at);
    return out->length > 0;
}

static bool is_same(struct span a, struct span b)
{
    return a.length == b.length && strncasecmp(a.at, b.at, a.length) == 0;
}

/* The different content words of a sentence, in order, at most CLAUSES_MAX. */
static size_t content_words(const char *text, struct span out[CLAUSES_MAX])
{
    struct span word;
    size_t count = 0;

    while (count < CLAUSES_MAX && next_word(&text, &word)) {
        bool known = is_function_word(word.at, word.length);
        for (size_t i = 0; i < count && !known; i++)
            known = is_same(word, out[i]);
        if (!known)
            out[count++] = word;
    }
    return count;
}

bool sequential_has_words(const char *x, const char *y)
{
    struct span word[CLAUSES_MAX], other;
    size_t count = content_words(x, word);

    for (size_t i = 0; i < count; i++) {
        const char *at = y;
        bool found = false;
        while (!found && next_word(&at, &other))
            found = is_same(word[i], other);
        if (!found)
            return false;
    }
    return true;
}

/* ---- constraints ------------------------------------------------------------------------ */

struct constraints {
    struct token_list tokens[2 * CLAUSES_MAX];
    struct phrase phrase[2 * CLAUSES_MAX];
    int64_t count;
    struct clauses *clauses;
    uint8_t *role;
};

static void add_phrase(const struct tokenizer *tokenizer, struct constraints *constraints,
                       const char *text, size_t clause)
{
    struct token_list *tokens = &constraints->tokens[constraints->count];

    tokenizer_encode(tokenizer, text, strlen(text), tokens);
    constraints->phrase[constraints->count++] = (struct phrase){
        (const int32_t *)tokens->ids, (int64_t)tokens->count, (int32_t)clause};
}

static uint8_t role_of(const struct tokenizer *tokenizer, uint32_t id)
{
    size_t length;
    const char *text = tokenizer_token(tokenizer, id, &length);

    if (length == 0 || memchr(text, '\n', length) || tokenizer_is_added(tokenizer, id))
        return ROLE_BANNED;
    return strchr(".?!", text[length - 1]) ? ROLE_ENDS : ROLE_PLAIN;
}

static int make_constraints(const struct sentence_sampler *sampler, const char *x,
                            struct constraints *out, struct err *err)
{
    size_t V = (size_t)sampler->model->config.vocab_size;
    uint32_t known = tokenizer_vocab_size(sampler->tokenizer);
    struct span word[CLAUSES_MAX];
    size_t count = content_words(x, word);

    for (size_t i = 0; i < count; i++) {
        char *text = mem_printf(" %.*s", (int)word[i].length, word[i].at);
        add_phrase(sampler->tokenizer, out, text, i);
        add_phrase(sampler->tokenizer, out, text + 1, i);
        mem_free(text);
    }
    out->role = mem_array(V, 1);
    for (size_t id = 0; id < V; id++)
        out->role[id] = id < known ? role_of(sampler->tokenizer, (uint32_t)id) : ROLE_BANNED;
    if (sampler->sampling.stop_token >= 0)
        out->role[sampler->sampling.stop_token] = ROLE_PLAIN; /* known to the search */
    return clauses_new(out->phrase, out->count, &out->clauses, err);
}

static void constraints_done(struct constraints *constraints)
{
    for (int64_t i = 0; i < constraints->count; i++)
        token_list_done(&constraints->tokens[i]);
    clauses_free(constraints->clauses);
    mem_free(constraints->role);
}

/* ---- decoding --------------------------------------------------------------------------- */

/* The text where it is one sentence with the words of x, or "". */
static char *accepted(const struct sentence_sampler *sampler, const struct constrained_text *text,
                      const char *x)
{
    struct buf bytes = {0};
    const char *start;
    size_t length;

    tokenizer_decode(sampler->tokenizer, (const uint32_t *)text->token, (size_t)text->count,
                     &bytes);
    start = buf_text(&bytes);
    start += strspn(start, " \t");
    length = strlen(start);
    bool good = length && sentence_first(start, length) == length &&
                sequential_has_words(x, start);
    char *out = mem_strndup(start, good ? length : 0);
    buf_done(&bytes);
    return out;
}

static int search(const struct sentence_sampler *sampler, const char *prompt_text, const char *x,
                  const struct constraints *constraints, size_t count, char **out,
                  uint64_t *out_tokens, struct err *err)
{
    struct constrained_config config = {CONSTRAINED_DEFAULTS, .most_tokens = sampler->max_tokens};
    struct constrained_text *texts = mem_array(count, sizeof *texts);
    int32_t *memory = mem_array(count * (size_t)sampler->max_tokens, sizeof *memory);
    struct token_list tokens = {0};
    int64_t found = 0;

    config.beams = (int64_t)count;
    config.stop_token = sampler->sampling.stop_token;
    config.role = constraints->role;
    for (size_t i = 0; i < count; i++)
        texts[i].token = memory + i * (size_t)sampler->max_tokens;
    sampler_prompt(sampler, prompt_text, &tokens);
    struct prompt prompt = {(const int32_t *)tokens.ids, (int64_t)tokens.count};
    int rc = constrained_search(sampler->model, &prompt, constraints->clauses, &config, texts,
                                &found, err);
    for (size_t i = 0; i < count && rc == 0; i++) {
        out[i] = i < (size_t)found ? accepted(sampler, &texts[i], x) : mem_strdup("");
        *out_tokens += i < (size_t)found ? (uint64_t)texts[i].count : 0;
    }
    token_list_done(&tokens);
    mem_free(memory);
    mem_free(texts);
    return rc;
}

int sequential_sentences(const struct sentence_sampler *sampler, const char *context,
                         const char *x, size_t count, char **out, uint64_t *out_tokens,
                         struct err *err)
{
    char *prompt = mem_printf("%s%s%s", context, *context ? " " : "", x);
    struct constraints *constraints = mem_zalloc(sizeof *constraints);
    int rc = make_constraints(sampler, x, constraints, err);

    if (rc == 0)
        rc = search(sampler, prompt, x, constraints, count, out, out_tokens, err);
    constraints_done(constraints);
    mem_free(constraints);
    mem_free(prompt);
    return rc;
}
