/* constrained.c - see constrained.h. */
#include "worker/engine/constrained.h"

#include "common/base/mem.h"
#include "worker/engine/clauses.h"

#include <math.h>
#include <string.h>

#define BEAMS_MAX 1024

/* A possible next step of one text. */
struct step {
    int32_t beam, token;
    double log_p;
};

struct candidate {
    struct step step;
    struct clause_state state;
    double rank;
    int64_t place; /* among those that meet the same clauses, 0 the best */
};

struct search {
    const struct model *model;
    const struct clauses *clauses;
    const struct constrained_config *config;
    struct tape *tape;
    struct kv_cache *cache;
    int64_t K, V, W, alive;     /* W: steps of each text that are looked at; texts 0..alive-1 */
    int32_t *token, *spare;     /* (K, most_tokens)                                          */
    double *log_p, *spare_log_p;
    struct clause_state *state, *spare_state;
    float *logits;              /* (K, V); -INFINITY where forbidden                         */
    double *base;               /* (K) of log p: text's log p - log sum exp                  */
    struct step *top;           /* (K, W) of each text, best first                           */
    struct step *pool;          /* (K W) of all texts                                        */
    uint8_t *taken;             /* (K, V) is a candidate already                             */
    struct candidate *candidate;
    int64_t candidate_count;
    int32_t *source, *next, *row; /* (K) */
    struct constrained_text *kept;  /* the caller's, best first */
    int64_t kept_count, length;
};

/* ---- sorting without memory of its own -------------------------------------------------- */

typedef bool (*before)(const void *a, const void *b);

static void swap_bytes(char *a, char *b, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        char byte = a[i];
        a[i] = b[i];
        b[i] = byte;
    }
}

static void sift(char *items, size_t at, size_t count, size_t size, before first)
{
    for (size_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && first(items + child * size, items + (child + 1) * size))
            child++;
        if (!first(items + at * size, items + child * size))
            return;
        swap_bytes(items + at * size, items + child * size, size);
    }
}

/* Heapsort: what comes first stands first. The orders here are total, so it need not be stable. */
static void sort(void *items, size_t count, size_t size, before first)
{
    char *bytes = items;

    for (size_t i = count / 2; i-- > 0;)
        sift(bytes, i, count, size, first);
    for (size_t end = count; end > 1; end--) {
        swap_bytes(bytes, bytes + (end - 1) * size, size);
        sift(bytes, 0, end - 1, size, first);
    }
}

static bool likelier(const void *a, const void *b)
{
    const struct step *x = a, *y = b;

    if (x->log_p != y->log_p)
        return x->log_p > y->log_p;
    return x->beam != y->beam ? x->beam < y->beam : x->token < y->token;
}

static bool better(const struct candidate *x, const struct candidate *y)
{
    return x->rank != y->rank ? x->rank > y->rank : likelier(&x->step, &y->step);
}

static bool same_group_better(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;

    return x->state.met != y->state.met ? x->state.met < y->state.met : better(x, y);
}

static bool in_turn(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;

    return x->place != y->place ? x->place < y->place : better(x, y);
}

/* ---- what may follow -------------------------------------------------------------------- */

static void forbid_repeats(const struct search *s, int64_t b)
{
    int64_t n = s->config->no_repeat;
    const int32_t *text = s->token + b * s->config->most_tokens, *end = text + s->length;

    for (const int32_t *at = text; n > 0 && at + n <= end; at++)
        if (memcmp(at, end - (n - 1), sizeof *at * (size_t)(n - 1)) == 0)
            s->logits[b * s->V + at[n - 1]] = -INFINITY;
}

/* Tokens that complete a phrase that must not be: they follow this node or one of its suffixes. */
static void forbid_phrases(const struct search *s, int64_t b)
{
    const struct clauses *clauses = s->clauses;
    int32_t node = s->state[b].node;

    for (;; node = clauses->node[node].fail) {
        for (int32_t c = clauses->node[node].child; c; c = clauses->node[c].next)
            if (clauses->node[c].never)
                s->logits[b * s->V + clauses->node[c].token] = -INFINITY;
        if (node == 0)
            return;
    }
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

static void forbid(struct search *s, int64_t b)
{
    float *logits = s->logits + b * s->V;

    s->base[b] = s->log_p[b] - log_sum_exp(logits, s->V);
    for (int64_t i = 0; i < s->V && s->config->role; i++)
        if (s->config->role[i] == ROLE_BANNED)
            logits[i] = -INFINITY;
    forbid_repeats(s, b);
    forbid_phrases(s, b);
}

/* The W likeliest steps of a text, best first; the rest of the row is filled by impossible ones. */
static void find_top(struct search *s, int64_t b)
{
    const float *logits = s->logits + b * s->V;
    struct step *top = s->top + b * s->W;
    int64_t count = 0;

    for (int64_t i = 0; i < s->V; i++) {
        struct step step = {(int32_t)b, (int32_t)i, s->base[b] + logits[i]};
        int64_t at = count < s->W ? count++ : s->W - 1;
        if (at == s->W - 1 && count == s->W && at < i && !likelier(&step, &top[at]))
            continue;
        for (; at > 0 && likelier(&step, &top[at - 1]); at--)
            top[at] = top[at - 1];
        top[at] = step;
    }
}

/* ---- texts that have ended -------------------------------------------------------------- */

static int met_count(uint64_t met)
{
    return __builtin_popcountll(met);
}

/* log p a token; a stop token, which is no part of the text, counts. */
static double kept_rank(const struct search *s, const struct constrained_text *text)
{
    bool by_stop = text->ended && !(s->config->role && text->count &&
                                    s->config->role[text->token[text->count - 1]] == ROLE_ENDS);

    return text->log_p / (double)max_u64((uint64_t)(text->count + by_stop), 1);
}

/* extra: the token that ended it and is part of it; -1: none. */
static void keep(struct search *s, int64_t b, int32_t extra, const struct clause_state *state,
                 double log_p, bool ended)
{
    struct constrained_text text = {.count = s->length + (extra >= 0), .log_p = log_p,
                                    .met = state->met, .ended = ended};
    bool by_stop = ended && extra < 0;
    double rank = log_p / (double)max_u64((uint64_t)(text.count + by_stop), 1);
    int64_t at = s->kept_count;

    for (; at > 0; at--) {
        const struct constrained_text *other = &s->kept[at - 1];
        int mine = met_count(text.met), theirs = met_count(other->met);
        if (mine < theirs || (mine == theirs && rank <= kept_rank(s, other)))
            break;
    }
    if (at == s->K)
        return;
    if (s->kept_count < s->K)
        s->kept_count++;
    text.token = s->kept[s->kept_count - 1].token;
    memmove(&s->kept[at + 1], &s->kept[at], (size_t)(s->kept_count - 1 - at) * sizeof *s->kept);
    memcpy(text.token, s->token + b * s->config->most_tokens, sizeof *text.token *
                                                                  (size_t)s->length);
    if (extra >= 0)
        text.token[s->length] = extra;
    s->kept[at] = text;
}

/* ---- candidates ------------------------------------------------------------------------- */

static bool is_stop(const struct search *s, int32_t token)
{
    return model_is_end(&s->model->config, s->config->stop_token, token);
}

static bool is_end(const struct search *s, int32_t token)
{
    return is_stop(s, token) ||
           (s->config->role && s->config->role[token] == ROLE_ENDS);
}

/* An end is kept where it may be; every other step is a candidate, once. */
static void offer(struct search *s, struct step step)
{
    struct clause_state state = s->state[step.beam];
    const struct step *top = s->top + step.beam * s->W;
    uint8_t *taken = &s->taken[step.beam * s->V + step.token];
    bool never, complete;
    int64_t early = (int64_t)((double)s->K * s->config->early_stop);

    if (*taken || isinf(step.log_p))
        return;
    *taken = 1;
    if (!is_stop(s, step.token))
        state = clauses_advance(s->clauses, state, step.token, &never);
    if (!is_end(s, step.token)) {
        s->candidate[s->candidate_count++] = (struct candidate){.step = step, .state = state};
        return;
    }
    complete = state.met == s->clauses->all && (early >= s->W || step.log_p >= top[early].log_p);
    if (complete || step.token == top[0].token)
        keep(s, step.beam, is_stop(s, step.token) ? -1 : step.token, &state, step.log_p, true);
}

/* Tokens after this text that go on a phrase of a clause that is not met. */
static void offer_phrases(struct search *s, int64_t b, double least)
{
    const struct clauses *clauses = s->clauses;

    for (int32_t node = s->state[b].node;; node = clauses->node[node].fail) {
        for (int32_t c = clauses->node[node].child; c; c = clauses->node[c].next) {
            int32_t token = clauses->node[c].token;
            double log_p = s->base[b] + s->logits[b * s->V + token];
            if ((clauses->node[c].below & ~s->state[b].met) && log_p >= least)
                offer(s, (struct step){(int32_t)b, token, log_p});
        }
        if (node == 0)
            return;
    }
}

static void find_candidates(struct search *s)
{
    int64_t pool = s->alive * s->W, prune = s->config->prune;
    double least = -INFINITY;

    memset(s->taken, 0, (size_t)(s->K * s->V));
    s->candidate_count = 0;
    memcpy(s->pool, s->top, sizeof *s->pool * (size_t)pool);
    sort(s->pool, (size_t)pool, sizeof *s->pool, likelier);
    if (prune > 1 && prune - 1 <= pool)
        least = s->pool[prune - 2].log_p;
    for (int64_t i = 0; i < s->K && i < pool; i++)
        offer(s, s->pool[i]);
    for (int64_t b = 0; b < s->alive; b++) {
        offer_phrases(s, b, least);
        for (int64_t i = 0; i < s->K && i < s->W; i++)
            if (s->top[b * s->W + i].log_p >= least)
                offer(s, s->top[b * s->W + i]);
    }
    /* An end that was likely enough for a complete text, but for none of the lists. */
    for (int64_t b = 0; b < s->alive; b++)
        for (int64_t i = 0; i < s->W && s->state[b].met == s->clauses->all; i++)
            if (is_end(s, s->top[b * s->W + i].token))
                offer(s, s->top[b * s->W + i]);
}

/* Those that meet enough, ranked, in the order in which they are taken. */
static void order_candidates(struct search *s)
{
    int most = 0;
    int64_t count = 0;

    for (int64_t i = 0; i < s->candidate_count; i++)
        if (met_count(s->candidate[i].state.met) > most)
            most = met_count(s->candidate[i].state.met);
    for (int64_t i = 0; i < s->candidate_count; i++) {
        struct candidate candidate = s->candidate[i];
        int met = met_count(candidate.state.met);
        int64_t open = s->clauses->clause_count - met;
        if (met < most - s->config->tolerance)
            continue;
        candidate.rank = candidate.step.log_p / (double)(s->length + 1) -
                         s->config->beta * log((double)(open > 1 ? open : 1));
        s->candidate[count++] = candidate;
    }
    s->candidate_count = count;
    sort(s->candidate, (size_t)count, sizeof *s->candidate, same_group_better);
    for (int64_t i = 0, place = 0; i < count; i++, place++) {
        if (i > 0 && s->candidate[i].state.met != s->candidate[i - 1].state.met)
            place = 0;
        s->candidate[i].place = s->config->ungrouped ? 0 : place;
    }
    sort(s->candidate, (size_t)count, sizeof *s->candidate, in_turn);
}

static void take_candidates(struct search *s)
{
    int64_t most = s->config->most_tokens;

    s->alive = s->candidate_count < s->K ? s->candidate_count : s->K;
    for (int64_t b = 0; b < s->alive; b++) {
        const struct candidate *candidate = &s->candidate[b];
        memcpy(s->spare + b * most, s->token + candidate->step.beam * most,
               sizeof *s->spare * (size_t)s->length);
        s->spare[b * most + s->length] = candidate->step.token;
        s->spare_log_p[b] = candidate->step.log_p;
        s->spare_state[b] = candidate->state;
        s->source[b] = candidate->step.beam;
    }
    for (int64_t b = s->alive; b < s->K; b++)
        s->source[b] = 0;
    int32_t *token = s->token;
    double *log_p = s->log_p;
    struct clause_state *state = s->state;
    s->token = s->spare;
    s->log_p = s->spare_log_p;
    s->state = s->spare_state;
    s->spare = token;
    s->spare_log_p = log_p;
    s->spare_state = state;
    s->length++;
}

static void step_texts(struct search *s)
{
    for (int64_t b = 0; b < s->alive; b++) {
        forbid(s, b);
        find_top(s, b);
    }
    find_candidates(s);
    order_candidates(s);
    take_candidates(s);
}

/* Whether no text that goes on can come before the worst of K kept ones: log p only falls, and
 * weighs least at the greatest length. */
static bool is_settled(const struct search *s)
{
    const struct constrained_text *worst;
    double best = -INFINITY;

    if (s->alive == 0)
        return true;
    if (s->kept_count < s->K)
        return false;
    worst = &s->kept[s->K - 1];
    for (int64_t b = 0; b < s->alive; b++)
        best = s->log_p[b] > best ? s->log_p[b] : best;
    return worst->met == s->clauses->all &&
           best / (double)s->config->most_tokens <= kept_rank(s, worst);
}

/* ---- the model -------------------------------------------------------------------------- */

static int read_logits(struct search *s, struct tensor *hidden, struct err *err)
{
    struct tensor *last = op_gather(s->tape, hidden, tape_i32(s->tape, s->row, s->K));
    struct tensor *logits = model_logits(s->tape, s->model, last);

    if (tape_check(s->tape, err) < 0)
        return -1;
    tensor_read(logits, s->logits);
    return 0;
}

/* Reads the prompt once; every text goes on from it. */
static int read_prompt(struct search *s, const struct prompt *prompt, int64_t capacity,
                       struct err *err)
{
    struct kv_cache *prefix = NULL;
    struct tensor *hidden;
    int64_t columns;
    int rc = kv_cache_new(s->model, 1, capacity, &prefix, err);

    if (rc == 0)
        rc = kv_cache_begin(s->tape, prefix, prompt->token, prompt->count, NULL, &hidden,
                            &columns, err);
    for (int64_t b = 0; b < s->K && rc == 0; b++)
        s->row[b] = (int32_t)columns - 1;
    if (rc == 0)
        rc = read_logits(s, hidden, err);
    if (rc == 0)
        rc = kv_cache_fork(prefix, 0, s->K, capacity, &s->cache, err);
    kv_cache_free(prefix);
    for (int64_t b = 0; b < s->K; b++)
        s->row[b] = (int32_t)b;
    s->alive = 1;
    return rc;
}

static int read_texts(struct search *s, struct err *err)
{
    struct tensor *hidden;
    int rc = kv_cache_select(s->cache, s->source, err);

    for (int64_t b = 0; b < s->K; b++)
        s->next[b] = b < s->alive ? s->token[b * s->config->most_tokens + s->length - 1] : 0;
    tape_reset(s->tape);
    if (rc == 0)
        rc = kv_cache_extend(s->tape, s->cache, s->next, 1, NULL, &hidden, err);
    return rc == 0 ? read_logits(s, hidden, err) : -1;
}

static int run_search(struct search *s, const struct prompt *prompt, struct err *err)
{
    int64_t begun = kv_cache_begun(s->model, prompt->count);
    int64_t capacity = (int64_t)min_u64((uint64_t)(begun + s->config->most_tokens),
                                        (uint64_t)s->model->config.context);
    int rc = tape_new(s->model->device, TAPE_INFER, &s->tape, err);

    if (rc == 0)
        rc = read_prompt(s, prompt, capacity, err);
    while (rc == 0) {
        step_texts(s);
        if (s->length >= s->config->most_tokens || begun + s->length >= capacity ||
            is_settled(s))
            break;
        rc = read_texts(s, err);
    }
    for (int64_t b = 0; b < s->alive && rc == 0; b++)
        keep(s, b, -1, &s->state[b], s->log_p[b], false);
    return rc;
}

/* ---- the whole -------------------------------------------------------------------------- */

static int check_search(const struct model *model, const struct prompt *prompt,
                        const struct clauses *clauses, const struct constrained_config *config,
                        struct err *err)
{
    if (config->beams < 1 || config->beams > BEAMS_MAX || config->most_tokens < 1)
        return err_set(err, ERR_INVALID, "%lld beams of %lld tokens, expected 1..%d of 1 or more",
                       (long long)config->beams, (long long)config->most_tokens, BEAMS_MAX);
    if (prompt->count < 1 || prompt->count >= model->config.context)
        return err_set(err, ERR_INVALID, "prompt of %lld tokens, expected 1..%lld",
                       (long long)prompt->count, (long long)model->config.context - 1);
    for (int32_t n = 1; n < clauses->count; n++)
        if (clauses->node[n].token < 0 || clauses->node[n].token >= model->config.vocab_size)
            return err_set(err, ERR_INVALID, "a phrase has token %d, the model knows 0..%lld",
                           (int)clauses->node[n].token, (long long)model->config.vocab_size - 1);
    return 0;
}

static void open_search(struct search *s)
{
    size_t K = (size_t)s->K, cells = K * (size_t)s->config->most_tokens;
    int64_t wide = (int64_t)((double)s->K * s->config->early_stop) + 1;

    s->W = s->K > s->config->prune ? s->K : s->config->prune;
    s->W = wide > s->W ? wide : s->W;
    s->W = s->W > s->V ? s->V : s->W;
    s->token = mem_array(cells, sizeof *s->token);
    s->spare = mem_array(cells, sizeof *s->spare);
    s->log_p = mem_array(K, sizeof *s->log_p);
    s->spare_log_p = mem_array(K, sizeof *s->log_p);
    s->state = mem_array(K, sizeof *s->state);
    s->spare_state = mem_array(K, sizeof *s->state);
    s->logits = mem_array(K * (size_t)s->V, sizeof *s->logits);
    s->base = mem_array(K, sizeof *s->base);
    s->top = mem_array(K * (size_t)s->W, sizeof *s->top);
    s->pool = mem_array(K * (size_t)s->W, sizeof *s->pool);
    s->taken = mem_array(K * (size_t)s->V, 1);
    /* The K likeliest, and of each text its K and at most a token for each node. */
    s->candidate = mem_array(K * (1 + K + (size_t)s->clauses->count), sizeof *s->candidate);
    s->source = mem_array(K, sizeof *s->source);
    s->next = mem_array(K, sizeof *s->next);
    s->row = mem_array(K, sizeof *s->row);
}

static void close_search(struct search *s)
{
    kv_cache_free(s->cache);
    tape_free(s->tape);
    mem_free(s->token);
    mem_free(s->spare);
    mem_free(s->log_p);
    mem_free(s->spare_log_p);
    mem_free(s->state);
    mem_free(s->spare_state);
    mem_free(s->logits);
    mem_free(s->base);
    mem_free(s->top);
    mem_free(s->pool);
    mem_free(s->taken);
    mem_free(s->candidate);
    mem_free(s->source);
    mem_free(s->next);
    mem_free(s->row);
}

int constrained_search(const struct model *model, const struct prompt *prompt,
                       const struct clauses *clauses, const struct constrained_config *config,
                       struct constrained_text *out_texts, int64_t *out_count, struct err *err)
{
    struct search s = {.model = model, .clauses = clauses, .config = config, .kept = out_texts,
                       .K = config->beams, .V = model->config.vocab_size};

    *out_count = 0;
    if (check_search(model, prompt, clauses, config, err) < 0)
        return -1;
    open_search(&s);
    int rc = run_search(&s, prompt, err);
    close_search(&s);
    if (rc < 0)
        return -1;
    *out_count = s.kept_count;
    return 0;
}
