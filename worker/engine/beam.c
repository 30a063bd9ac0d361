/* beam.c - beam search: the likeliest texts rather than likely ones. See generate.h. */
#include "worker/engine/generate.h"

#include "common/base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BEAMS_MAX 1024

/* One possible next step of one beam. */
struct step {
    int32_t beam, token;
    double log_p;
};

struct search {
    const struct model *model;
    const struct beam_config *config;
    struct tape *tape;
    struct kv_cache *cache;
    int64_t K, V, alive;     /* alive beams are 0..alive-1                    */
    int32_t *token, *spare;  /* (K, most_tokens) of the beams                 */
    double *log_p;           /* of the beams                                  */
    float *logits;           /* (K, V)                                        */
    struct step *step;       /* the best `most` so far                        */
    int64_t most;            /* K for each token that ends texts, and K more  */
    struct beam_text *ended; /* the caller's texts, best first                */
    int64_t ended_count;
    int64_t length;          /* tokens of every beam                          */
    int64_t begun;           /* tokens before them (kv_cache_begun)           */
};

static double rank_of(const struct search *s, double log_p, int64_t length)
{
    return s->config->length_power == 0 ? log_p
                                        : log_p / pow((double)length, s->config->length_power);
}

/* Better first; ties by beam, then id, so that the order is total. */
static int compare_steps(const void *a, const void *b)
{
    const struct step *x = a, *y = b;

    if (x->log_p != y->log_p)
        return x->log_p > y->log_p ? -1 : 1;
    if (x->beam != y->beam)
        return x->beam < y->beam ? -1 : 1;
    return (x->token > y->token) - (x->token < y->token);
}

static double log_sum_exp(const float *logits, int64_t V)
{
    double highest = logits[0], sum = 0;

    for (int64_t i = 1; i < V; i++)
        highest = logits[i] > highest ? logits[i] : highest;
    for (int64_t i = 0; i < V; i++)
        sum += exp(logits[i] - highest);
    return highest + log(sum);
}

/* Keeps `step` if it is among the best; the list is a heap whose worst is found by sorting,
 * which is cheap since few of V tokens pass the worst. */
static void offer_step(struct search *s, int64_t *count, struct step step)
{
    int64_t most = s->most;

    if (*count < most) {
        s->step[(*count)++] = step;
        if (*count == most)
            qsort(s->step, (size_t)most, sizeof *s->step, compare_steps);
        return;
    }
    if (compare_steps(&step, &s->step[most - 1]) >= 0)
        return;
    for (most--; most > 0 && compare_steps(&step, &s->step[most - 1]) < 0; most--)
        s->step[most] = s->step[most - 1];
    s->step[most] = step;
}

/* The best extensions of all alive beams, in order: K of them at least do not end. */
static int64_t best_steps(struct search *s)
{
    int64_t count = 0;

    for (int64_t b = 0; b < s->alive; b++) {
        const float *logits = s->logits + b * s->V;
        double base = s->log_p[b] - log_sum_exp(logits, s->V);

        for (int64_t i = 0; i < s->V; i++)
            offer_step(s, &count, (struct step){(int32_t)b, (int32_t)i, base + logits[i]});
    }
    qsort(s->step, (size_t)count, sizeof *s->step, compare_steps);
    return count;
}

/* Puts a finished text in its place among the best; the worst one gives its room. */
static void keep_text(struct search *s, const int32_t *token, int64_t count, double log_p,
                      bool by_stop)
{
    int64_t scored = count + by_stop, at = s->ended_count;
    struct beam_text text;

    while (at > 0 && rank_of(s, log_p, scored) >
                         rank_of(s, s->ended[at - 1].log_p,
                                 s->ended[at - 1].count + s->ended[at - 1].ended))
        at--;
    if (at == s->K)
        return;
    if (s->ended_count < s->K)
        s->ended_count++;
    text = s->ended[s->ended_count - 1];
    memmove(&s->ended[at + 1], &s->ended[at],
            (size_t)(s->ended_count - 1 - at) * sizeof *s->ended);
    memcpy(text.token, token, sizeof *token * (size_t)count);
    text.count = count;
    text.log_p = log_p;
    text.ended = by_stop;
    s->ended[at] = text;
}

/* Turns steps into the next beams; returns which beam each came from. */
static void take_steps(struct search *s, int64_t count, int32_t *source)
{
    int64_t most = s->config->most_tokens, next = 0;
    double *log_p = mem_array((size_t)s->K, sizeof *log_p);

    for (int64_t i = 0; i < count && next < s->K; i++) {
        const struct step *step = &s->step[i];
        const int32_t *from = s->token + step->beam * most;

        if (model_is_end(&s->model->config, s->config->stop_token, step->token)) {
            if (i < s->K)
                keep_text(s, from, s->length, step->log_p, true);
            continue;
        }
        memcpy(s->spare + next * most, from, sizeof *from * (size_t)s->length);
        s->spare[next * most + s->length] = step->token;
        log_p[next] = step->log_p;
        source[next++] = step->beam;
    }
    for (int64_t b = next; b < s->K; b++)
        source[b] = 0;
    memcpy(s->log_p, log_p, sizeof *log_p * (size_t)next);
    int32_t *swap = s->token;
    s->token = s->spare;
    s->spare = swap;
    s->alive = next;
    s->length++;
    mem_free(log_p);
}

/* True when no alive beam can still pass the worst of K finished texts. Log p only falls; with a
 * positive power the most that a beam can reach is at the greatest length. */
static bool is_settled(const struct search *s)
{
    const struct beam_text *worst;

    if (s->alive == 0)
        return true;
    if (s->ended_count < s->K)
        return false;
    worst = &s->ended[s->K - 1];
    return rank_of(s, s->log_p[0], s->config->most_tokens) <=
           rank_of(s, worst->log_p, worst->count + worst->ended);
}

static int read_logits(struct search *s, struct tensor *hidden, const int32_t *row, struct err *err)
{
    struct tensor *last = op_gather(s->tape, hidden, tape_i32(s->tape, row, s->K));
    struct tensor *logits = model_logits(s->tape, s->model, last);

    if (tape_check(s->tape, err) < 0)
        return -1;
    tensor_read(logits, s->logits);
    return 0;
}

/* Reads the prompt once; every beam goes on from it. */
static int read_prompt(struct search *s, const struct prompt *prompt, int64_t capacity,
                       struct err *err)
{
    struct kv_cache *prefix = NULL;
    struct tensor *hidden;
    int64_t columns;
    int32_t *row = mem_array((size_t)s->K, sizeof *row);
    int rc = kv_cache_new(s->model, 1, capacity, &prefix, err);

    if (rc == 0)
        rc = kv_cache_begin(s->tape, prefix, prompt->token, prompt->count, NULL, &hidden,
                            &columns, err);
    for (int64_t b = 0; b < s->K && rc == 0; b++)
        row[b] = (int32_t)columns - 1;
    if (rc == 0)
        rc = read_logits(s, hidden, row, err);
    if (rc == 0)
        rc = kv_cache_fork(prefix, 0, s->K, capacity, &s->cache, err);
    kv_cache_free(prefix);
    mem_free(row);
    s->alive = 1;
    return rc;
}

static int extend_beams(struct search *s, const int32_t *source, struct err *err)
{
    int32_t *next = mem_array((size_t)s->K, sizeof *next), *row = mem_array((size_t)s->K, 4);
    struct tensor *hidden;
    int rc = kv_cache_select(s->cache, source, err);

    for (int64_t b = 0; b < s->K; b++) {
        next[b] = b < s->alive ? s->token[b * s->config->most_tokens + s->length - 1] : 0;
        row[b] = (int32_t)b;
    }
    tape_reset(s->tape);
    if (rc == 0)
        rc = kv_cache_extend(s->tape, s->cache, next, 1, NULL, &hidden, err);
    if (rc == 0)
        rc = read_logits(s, hidden, row, err);
    mem_free(next);
    mem_free(row);
    return rc;
}

static int run_search(struct search *s, const struct prompt *prompt, int64_t capacity,
                      struct err *err)
{
    int32_t *source = mem_array((size_t)s->K, sizeof *source);
    int rc = read_prompt(s, prompt, capacity, err);

    while (rc == 0) {
        take_steps(s, best_steps(s), source);
        if (s->length >= s->config->most_tokens || s->begun + s->length >= capacity ||
            is_settled(s))
            break;
        rc = extend_beams(s, source, err);
    }
    for (int64_t b = 0; b < s->alive && rc == 0; b++)
        keep_text(s, s->token + b * s->config->most_tokens, s->length, s->log_p[b], false);
    mem_free(source);
    return rc;
}

static int check_search(const struct model *model, const struct prompt *prompt,
                        const struct beam_config *config, struct err *err)
{
    if (config->beams < 1 || config->beams > BEAMS_MAX || config->most_tokens < 1)
        return err_set(err, ERR_INVALID, "%lld beams of %lld tokens, expected 1..%d of 1 or more",
                       (long long)config->beams, (long long)config->most_tokens, BEAMS_MAX);
    if (prompt->count < 1 || prompt->count >= model->config.context)
        return err_set(err, ERR_INVALID, "prompt of %lld tokens, expected 1..%lld",
                       (long long)prompt->count, (long long)model->config.context - 1);
    return 0;
}

int beam_search(const struct model *model, const struct prompt *prompt,
                const struct beam_config *config, struct beam_text *out_texts, struct err *err)
{
    struct search s = {.model = model, .config = config, .ended = out_texts};
    size_t cells;
    int rc;

    if (check_search(model, prompt, config, err) < 0)
        return -1;
    s.K = config->beams;
    s.begun = kv_cache_begun(model, prompt->count);
    s.V = model->config.vocab_size;
    cells = (size_t)(s.K * config->most_tokens);
    s.token = mem_array(cells, sizeof *s.token);
    s.spare = mem_array(cells, sizeof *s.spare);
    s.log_p = mem_array((size_t)s.K, sizeof *s.log_p);
    s.logits = mem_array((size_t)(s.K * s.V), sizeof *s.logits);
    s.most = s.K * max_i64(1 + model_end_count(&model->config, config->stop_token), 2);
    s.step = mem_array((size_t)(s.most + 1), sizeof *s.step);
    rc = tape_new(model->device, TAPE_INFER, &s.tape, err);
    if (rc == 0)
        rc = run_search(&s, prompt,
                        (int64_t)min_u64((uint64_t)(s.begun + config->most_tokens),
                                         (uint64_t)model->config.context), err);
    for (int64_t b = s.ended_count; b < s.K && rc == 0; b++)
        out_texts[b].count = 0; /* fewer different texts than beams */
    kv_cache_free(s.cache);
    tape_free(s.tape);
    mem_free(s.token);
    mem_free(s.spare);
    mem_free(s.log_p);
    mem_free(s.logits);
    mem_free(s.step);
    return rc;
}
