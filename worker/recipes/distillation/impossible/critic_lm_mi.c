/* critic_lm_mi.c - pointwise mutual information of two sentences under a language model.
 *
 * x and y are put as prompt and response are in training: <|endoftext|> x newline y. Without x
 * the newline stays, so that both probabilities are of a text that begins after one. That of y by
 * itself is found once a context (critic_context_begin): the reverse and the components ask for the
 * same sentences again. */
#include "worker/recipes/distillation/impossible/critic.h"

#include "common/base/mem.h"
#include "worker/engine/comm.h"
#include "worker/engine/io/model_files.h"
#include "worker/recipes/score.h"

#include <string.h>

struct lm_mi {
    struct critic critic;
    const struct model *model;
    const struct tokenizer *tokenizer;
    struct model *own;              /* what it frees, or NULL */
    struct tokenizer *own_tokenizer;
    int32_t newline;
    struct comm alone; /* a rank scores its own contexts */
    struct scorer scorer;
};

/* Items 0 .. pair_count-1 are y after x; the next ones each y by itself that is not known yet. */
struct question {
    const struct lm_mi *critic;
    const struct critic_pair *pairs;
    size_t pair_count;
    struct byte_map *known;  /* each distinct y to the bits of -log p(y) */
    size_t known_count;      /* before this question: what follows is asked */
    uint32_t *alone_of;      /* (pair_count) entry of known   */
    struct token_list x, y;  /* of the item at hand           */
};

static void encode(const struct lm_mi *critic, const char *text, struct token_list *out)
{
    out->count = 0;
    tokenizer_encode(critic->tokenizer, text, strlen(text), out);
}

static const char *alone_text(const struct question *question, int64_t number)
{
    size_t entry = question->known_count + (size_t)number - question->pair_count;

    return question->known->entries[entry].bytes; /* with the zero that find_alone put there */
}

static int64_t fill(void *argument, int64_t number, int64_t T, int32_t *token, int32_t *target)
{
    struct question *question = argument;
    bool paired = (size_t)number < question->pair_count;
    int64_t count = 0, kept, skip;

    encode(question->critic, paired ? question->pairs[number].x : "", &question->x);
    encode(question->critic, paired ? question->pairs[number].y : alone_text(question, number),
           &question->y);
    kept = (int64_t)min_u64(question->y.count, (uint64_t)T - 1);
    skip = (int64_t)question->x.count + 1 + kept - T; /* 1: begin of text; newline is an input */
    skip = skip > 0 ? skip : 0;
    token[count++] = (int32_t)tokenizer_begin_of_text(question->critic->tokenizer);
    for (int64_t i = skip; i < (int64_t)question->x.count && count < T - kept; i++)
        token[count++] = (int32_t)question->x.ids[i];
    for (int64_t i = 0; i < count; i++)
        target[i] = -1;
    for (int64_t i = 0; i < kept; i++) {
        token[count] = i ? (int32_t)question->y.ids[i - 1] : question->critic->newline;
        target[count++] = (int32_t)question->y.ids[i];
    }
    return count;
}

static void find_alone(struct question *question)
{
    question->known_count = question->known->count;
    for (size_t p = 0; p < question->pair_count; p++) {
        const char *y = question->pairs[p].y;
        question->alone_of[p] = byte_map_put(question->known, y, strlen(y) + 1);
    }
}

static void keep_alone(struct question *question, const double *nll)
{
    for (size_t e = question->known_count; e < question->known->count; e++)
        memcpy(&question->known->entries[e].value,
               &nll[question->pair_count + e - question->known_count], sizeof *nll);
}

static double alone_of(const struct question *question, size_t pair)
{
    double nll;

    memcpy(&nll, &question->known->entries[question->alone_of[pair]].value, sizeof nll);
    return nll;
}

static size_t token_count(struct question *question, const char *text)
{
    encode(question->critic, text, &question->y);
    return question->y.count;
}

static int score_question(struct lm_mi *critic, struct question *question, double *out,
                          struct err *err)
{
    int64_t items = (int64_t)(question->pair_count + question->known->count -
                              question->known_count);
    struct score_source source = {items, items, fill, question};
    double *nll = mem_array((size_t)items, sizeof *nll);
    int rc = score_each(&critic->scorer, &source, critic->model, nll, err);

    if (rc == 0)
        keep_alone(question, nll);
    for (size_t p = 0; p < question->pair_count && rc == 0; p++) {
        size_t tokens = token_count(question, question->pairs[p].y);
        out[p] = tokens ? (alone_of(question, p) - nll[p]) / (double)tokens : 0;
    }
    mem_free(nll);
    return rc;
}

static int lm_mi_score(struct critic *base, const struct critic_pair *pairs, size_t count,
                       double *out, struct err *err)
{
    struct lm_mi *critic = (struct lm_mi *)base;
    struct byte_map once = {0};
    struct question question = {.critic = critic, .pairs = pairs, .pair_count = count,
                                .known = base->in_context ? &base->alone : &once};

    question.alone_of = mem_array(count, sizeof *question.alone_of);
    find_alone(&question);
    int rc = score_question(critic, &question, out, err);
    if (rc < 0)
        byte_map_done(question.known); /* of some there is no probability */
    byte_map_done(&once);
    mem_free(question.alone_of);
    token_list_done(&question.x);
    token_list_done(&question.y);
    return rc;
}

static void lm_mi_free(struct critic *base)
{
    struct lm_mi *critic = (struct lm_mi *)base;

    scorer_close(&critic->scorer);
    model_free(critic->own);
    tokenizer_free(critic->own_tokenizer);
    mem_free(critic);
}

static int find_newline(struct lm_mi *critic, struct err *err)
{
    struct token_list tokens = {0};

    tokenizer_encode(critic->tokenizer, "\n", 1, &tokens);
    size_t count = tokens.count;
    critic->newline = count == 1 ? (int32_t)tokens.ids[0] : -1;
    token_list_done(&tokens);
    if (count == 1 && tokenizer_begin_of_text(critic->tokenizer) < TOKENIZER_VOCAB_MAX)
        return 0;
    return err_set(err, ERR_INVALID,
                   "the critic's tokenizer cuts a newline into %zu tokens or has no "
                   TOKENIZER_END_OF_TEXT "; it needs one token for each",
                   count);
}

int critic_lm_mi(const struct model *model, const struct tokenizer *tokenizer, struct critic **out,
                 struct err *err)
{
    static const struct critic_class class = {"lm_mi", false, false, lm_mi_score, lm_mi_free};
    struct lm_mi *critic;

    critic = mem_zalloc(sizeof *critic);
    critic->critic.class = &class;
    critic->model = model;
    critic->tokenizer = tokenizer;
    critic->alone.size = 1;
    if (find_newline(critic, err) < 0 ||
        scorer_open(&critic->alone, model->device, model->config.context, &critic->scorer, err) <
            0) {
        mem_free(critic);
        return -1;
    }
    *out = &critic->critic;
    return 0;
}

int critic_lm_mi_open(const char *folder, struct device *device, struct critic **out,
                      struct err *err)
{
    struct model *model = NULL;
    struct tokenizer *tokenizer = NULL;

    int rc = model_files_open(folder, device, true, &model, err);

    if (rc == 0 && model->config.family == MODEL_BERT)
        rc = err_set(err, ERR_INVALID, "'%s' is a BERT, which gives no text a probability: lm_mi "
                     "and pmi need a language model; a classifier of pairs is critic nli's",
                     folder);
    if (rc < 0 || tokenizer_read(folder, &tokenizer, err) < 0 ||
        critic_lm_mi(model, tokenizer, out, err) < 0) {
        tokenizer_free(tokenizer);
        model_free(model);
        return -1;
    }
    ((struct lm_mi *)*out)->own = model;
    ((struct lm_mi *)*out)->own_tokenizer = tokenizer;
    return 0;
}
