/* continuation.c - scores given continuations of one prefix. See generate.h.
 *
 * All tokens of the prefix but the last are read once. Each continuation then reads the last
 * token of the prefix and its own but the last, so that every token that is scored has the state
 * before it in the same pass. */
#include "worker/engine/generate.h"

#include "common/base/mem.h"

#include <string.h>

static int check_lengths(const struct model *model, const struct prompt *prefix,
                         const struct prompt *continuations, int64_t count, int64_t *out_longest,
                         struct err *err)
{
    int64_t context = model->config.context;

    *out_longest = 0;
    if (model->config.family == MODEL_T5)
        return err_set(err, ERR_INVALID, "a t5 is no judge of continuations: it reads sources");
    if (prefix->count < 1)
        return err_set(err, ERR_INVALID, "the prefix is empty, expected 1 token or more");
    for (int64_t i = 0; i < count; i++) {
        int64_t length = continuations[i].count;

        if (length < 0 || prefix->count + length > context + 1)
            return err_set(err, ERR_INVALID, "prefix of %lld and continuation %lld of %lld tokens, "
                           "expected at most %lld together", (long long)prefix->count,
                           (long long)i, (long long)length, (long long)context + 1);
        *out_longest = length > *out_longest ? length : *out_longest;
    }
    return 0;
}

/* The rows that are read and what they must predict; padding has no target. */
struct rows {
    int64_t count, T;
    int32_t *token, *target, *argmax;
    int64_t *advance;
    float *nll;
};

static void rows_init(struct rows *rows, const struct prompt *prefix,
                      const struct prompt *continuations, int64_t count, int64_t T)
{
    size_t cells = (size_t)(count * T);

    *rows = (struct rows){.count = count, .T = T, .token = mem_array(cells, sizeof(int32_t)),
                          .target = mem_array(cells, sizeof(int32_t)),
                          .argmax = mem_array(cells, sizeof(int32_t)),
                          .advance = mem_array((size_t)count, sizeof(int64_t)),
                          .nll = mem_array(cells, sizeof(float))};
    for (int64_t i = 0; i < count; i++) {
        const struct prompt *c = &continuations[i];

        for (int64_t t = 0; t < T; t++) {
            rows->target[i * T + t] = t < c->count ? c->token[t] : -1;
            rows->token[i * T + t] = t == 0 ? prefix->token[prefix->count - 1]
                                            : t < c->count ? c->token[t - 1] : 0;
        }
        rows->advance[i] = c->count;
    }
}

static void rows_done(struct rows *rows)
{
    mem_free(rows->token);
    mem_free(rows->target);
    mem_free(rows->argmax);
    mem_free(rows->advance);
    mem_free(rows->nll);
}

static int run_rows(const struct model *model, const struct prompt *prefix, struct rows *rows,
                    struct tape *tape, struct err *err)
{
    struct kv_cache *first = NULL, *cache = NULL;
    struct loss_head head = {.head = model->head, .target = rows->target};
    struct loss_values values = {.nll = rows->nll, .argmax = rows->argmax};
    struct tensor *hidden;
    int rc = kv_cache_new(model, 1, prefix->count, &first, err);

    if (rc == 0 && prefix->count > 1)
        rc = kv_cache_extend(tape, first, prefix->token, prefix->count - 1, NULL, &hidden, err);
    tape_reset(tape);
    if (rc == 0)
        rc = kv_cache_fork(first, 0, rows->count, prefix->count - 1 + rows->T, &cache, err);
    if (rc == 0)
        rc = kv_cache_extend(tape, cache, rows->token, rows->T, rows->advance, &head.hidden, err);
    if (rc == 0)
        rc = loss_head(tape, &head, &values, err);
    kv_cache_free(cache);
    kv_cache_free(first);
    return rc;
}

int score_continuations(const struct model *model, const struct prompt *prefix,
                        const struct prompt *continuations, int64_t count, double *out_log_p,
                        bool *out_greedy, struct err *err)
{
    struct tape *tape = NULL;
    struct rows rows;
    int64_t T;
    int rc;

    if (check_lengths(model, prefix, continuations, count, &T, err) < 0)
        return -1;
    for (int64_t i = 0; i < count; i++) {
        out_log_p[i] = 0;
        if (out_greedy)
            out_greedy[i] = true;
    }
    if (T == 0)
        return 0;
    rows_init(&rows, prefix, continuations, count, T);
    rc = tape_new(model->device, TAPE_INFER, &tape, err);
    if (rc == 0)
        rc = run_rows(model, prefix, &rows, tape, err);
    for (int64_t n = 0; n < count * T && rc == 0; n++) {
        if (rows.target[n] < 0)
            continue;
        out_log_p[n / T] -= rows.nll[n];
        if (out_greedy)
            out_greedy[n / T] &= rows.argmax[n] == rows.target[n];
    }
    tape_free(tape);
    rows_done(&rows);
    return rc;
}
