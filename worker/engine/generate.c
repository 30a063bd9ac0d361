/* generate.c - sampling with a cache. */
#include "worker/engine/generate.h"

#include "common/base/mem.h"
#include "common/base/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct candidate {
    int32_t token;
    double weight; /* exp((logit - highest) / temperature) */
};

/* Likelier first; equal ones by id, so that the order is total. */
static bool is_likelier(const struct candidate *x, const struct candidate *y)
{
    return x->weight != y->weight ? x->weight > y->weight : x->token < y->token;
}

static void sift(struct candidate *heap, int64_t at, int64_t count)
{
    struct candidate moved = heap[at];

    for (int64_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && is_likelier(&heap[child + 1], &heap[child]))
            child++;
        if (!is_likelier(&heap[child], &moved))
            break;
        heap[at] = heap[child];
    }
    heap[at] = moved;
}

static int32_t greedy_token(const float *logits, int64_t V)
{
    int64_t best = 0;

    for (int64_t i = 1; i < V; i++)
        if (logits[i] > logits[best])
            best = i;
    return (int32_t)best;
}

/* The likeliest of a heap goes behind the others. */
static const struct candidate *take_likeliest(struct candidate *heap, int64_t count)
{
    struct candidate best = heap[0];

    heap[0] = heap[count - 1];
    heap[count - 1] = best;
    sift(heap, 0, count - 1);
    return &heap[count - 1];
}

/* Puts the candidates that stay at the end of the list, the likeliest last; returns how many they
 * are. A nucleus is a few of V tokens, so they are taken from a heap one by one, not sorted. */
static int64_t cut(struct candidate *list, int64_t V, const struct sampling *sampling)
{
    bool nucleus = sampling->top_p > 0 && sampling->top_p < 1;
    int64_t most = sampling->top_k > 0 && sampling->top_k < V ? sampling->top_k : V, count = 0;
    double total = 0, sum = 0;

    for (int64_t at = V / 2; at-- > 0;)
        sift(list, at, V);
    if (most < V) {
        for (; count < most; count++)
            total += take_likeliest(list, V - count)->weight;
    } else {
        for (int64_t i = 0; i < V; i++)
            total += list[i].weight;
    }
    for (int64_t i = 0; i < most && (nucleus || most == V); i++) {
        sum += i < count ? list[V - 1 - i].weight : take_likeliest(list, V - i)->weight;
        count = i < count ? count : i + 1;
        if (nucleus && sum >= sampling->top_p * total)
            return i + 1;
    }
    return most;
}

int32_t sample_token(const float *logits, int64_t V, const struct sampling *sampling, double unit)
{
    int32_t best = greedy_token(logits, V), chosen;
    bool some = sampling->top_k > 0 || (sampling->top_p > 0 && sampling->top_p < 1);
    struct candidate *list;
    double total = 0, at;
    int64_t count = V;

    if (sampling->temperature <= 0)
        return best;
    list = mem_alloc((size_t)V * sizeof *list);
    for (int64_t i = 0; i < V; i++)
        list[some ? i : V - 1 - i] = (struct candidate){
            (int32_t)i, exp(((double)logits[i] - logits[best]) / sampling->temperature)};
    if (some)
        count = cut(list, V, sampling);
    for (int64_t i = 0; i < count; i++)
        total += list[V - 1 - i].weight;
    at = unit * total;
    chosen = list[V - count].token;
    for (int64_t i = 0; i < count; i++) {
        at -= list[V - 1 - i].weight;
        if (at < 0) {
            chosen = list[V - 1 - i].token;
            break;
        }
    }
    mem_free(list);
    return chosen;
}

/* What one call of generate works on. */
struct run {
    const struct model *model;
    const struct prompt *prompts;
    struct generation *texts;
    int64_t count, most_tokens;
    const struct sampling *sampling;
    struct tape *tape;
    struct kv_cache *cache;
    int32_t *next;    /* the token each row feeds next */
    int64_t *advance; /* 1 while a row is alive        */
    bool *ended;
    float *logits;
};

static int check_prompts(const struct run *run, int64_t *out_longest, struct err *err)
{
    int64_t context = run->model->config.context, longest = 0;

    for (int64_t i = 0; i < run->count; i++) {
        int64_t count = run->prompts[i].count;

        if (count < 1 || count > context)
            return err_set(err, ERR_INVALID, "prompt %lld has %lld tokens, expected 1..%lld",
                           (long long)i, (long long)count, (long long)context);
        longest = count > longest ? count : longest;
    }
    *out_longest = longest;
    return 0;
}

static int32_t *padded_prompts(const struct run *run, int64_t longest)
{
    int32_t *token = mem_array((size_t)(run->count * longest), sizeof *token);

    for (int64_t i = 0; i < run->count; i++) {
        memcpy(token + i * longest, run->prompts[i].token, 4 * (size_t)run->prompts[i].count);
        run->advance[i] = run->prompts[i].count;
    }
    return token;
}

/* Draws one token per living row from the hidden state at column at[i]. */
static int draw(struct run *run, struct tensor *hidden, const int32_t *row, struct err *err)
{
    int64_t V = run->model->config.vocab_size;
    struct tensor *last = op_gather(run->tape, hidden, tape_i32(run->tape, row, run->count));
    struct tensor *logits = model_logits(run->tape, run->model, last);

    if (tape_check(run->tape, err) < 0)
        return -1;
    tensor_read(logits, run->logits);
    for (int64_t i = 0; i < run->count; i++) {
        struct generation *text = &run->texts[i];
        double unit = rng_unit_at(run->sampling->seed, text->index, (uint64_t)text->count);
        int32_t token;

        if (run->ended[i])
            continue;
        if (run->sampling->constrain)
            run->sampling->constrain(run->sampling->context, text->index, text->token,
                                     text->count, run->logits + i * V, V);
        token = sample_token(run->logits + i * V, V, run->sampling, unit);
        run->next[i] = token;
        if (model_is_end(&run->model->config, run->sampling->stop_token, token))
            run->ended[i] = true;
        else
            text->token[text->count++] = token;
        if (text->count >= run->most_tokens ||
            kv_cache_begun(run->model, run->prompts[i].count) + text->count >=
                run->model->config.context)
            run->ended[i] = true;
    }
    return 0;
}

static bool all_ended(const struct run *run)
{
    for (int64_t i = 0; i < run->count; i++)
        if (!run->ended[i])
            return false;
    return true;
}

static int feed_prompts(struct run *run, int64_t longest, int32_t *row, struct err *err)
{
    int32_t *token = padded_prompts(run, longest);
    struct tensor *hidden;
    int64_t columns;
    int rc = kv_cache_begin(run->tape, run->cache, token, longest, run->advance, &hidden, &columns,
                            err);

    mem_free(token);
    if (rc < 0)
        return -1;
    for (int64_t i = 0; i < run->count; i++)
        row[i] = (int32_t)(i * columns + kv_cache_begun(run->model, run->prompts[i].count) - 1);
    return draw(run, hidden, row, err);
}

/* One array for all: it is read once, and every row goes on from what was kept of it. */
static bool is_shared(const struct run *run)
{
    for (int64_t i = 1; i < run->count; i++)
        if (run->prompts[i].token != run->prompts[0].token ||
            run->prompts[i].count != run->prompts[0].count)
            return false;
    return run->count > 1;
}

static int feed_shared(struct run *run, int64_t capacity, int32_t *row, struct err *err)
{
    const struct prompt *prompt = &run->prompts[0];
    struct kv_cache *prefix = NULL;
    struct tensor *hidden;
    int64_t begun = kv_cache_begun(run->model, prompt->count), columns;
    int rc = kv_cache_new(run->model, 1, begun, &prefix, err);

    if (rc == 0)
        rc = kv_cache_begin(run->tape, prefix, prompt->token, prompt->count, NULL, &hidden,
                            &columns, err);
    if (rc == 0)
        rc = kv_cache_fork(prefix, 0, run->count, capacity, &run->cache, err);
    for (int64_t i = 0; i < run->count; i++)
        row[i] = (int32_t)begun - 1;
    if (rc == 0)
        rc = draw(run, hidden, row, err);
    kv_cache_free(prefix);
    return rc;
}

static int feed(struct run *run, int64_t longest, int64_t capacity, int32_t *row, struct err *err)
{
    if (is_shared(run))
        return feed_shared(run, capacity, row, err);
    if (kv_cache_new(run->model, run->count, capacity, &run->cache, err) < 0)
        return -1;
    return feed_prompts(run, longest, row, err);
}

static int run_texts(struct run *run, int64_t longest, int64_t capacity, struct err *err)
{
    int32_t *row = mem_array((size_t)run->count, sizeof *row);
    int rc = feed(run, longest, capacity, row, err);

    for (int64_t i = 0; i < run->count; i++)
        row[i] = (int32_t)i;
    while (rc == 0 && !all_ended(run)) {
        struct tensor *hidden;

        for (int64_t i = 0; i < run->count; i++)
            run->advance[i] = run->ended[i] ? 0 : 1;
        tape_reset(run->tape);
        rc = kv_cache_extend(run->tape, run->cache, run->next, 1, run->advance, &hidden, err);
        if (rc == 0)
            rc = draw(run, hidden, row, err);
    }
    mem_free(row);
    return rc;
}

int generate(const struct model *model, const struct prompt *prompts, struct generation *texts,
             int64_t count, int64_t most_tokens, const struct sampling *sampling,
             struct err *err)
{
    struct run run = {.model = model, .prompts = prompts, .texts = texts, .count = count,
                      .most_tokens = most_tokens, .sampling = sampling};
    int64_t longest = 0, capacity;
    int rc = -1;

    if (check_prompts(&run, &longest, err) < 0)
        return -1;
    for (int64_t i = 0; i < count; i++)
        texts[i].count = 0;
    if (count < 1 || most_tokens < 1)
        return 0;
    capacity = (int64_t)min_u64((uint64_t)(kv_cache_begun(model, longest) + most_tokens),
                                (uint64_t)model->config.context);
    run.next = mem_array((size_t)count, sizeof *run.next);
    run.advance = mem_array((size_t)count, sizeof *run.advance);
    run.ended = mem_array((size_t)count, sizeof *run.ended);
    run.logits = mem_array((size_t)(count * model->config.vocab_size), sizeof *run.logits);
    if (tape_new(model->device, TAPE_INFER, &run.tape, err) == 0)
        rc = run_texts(&run, longest, capacity, err);
    kv_cache_free(run.cache);
    tape_free(run.tape);
    mem_free(run.next);
    mem_free(run.advance);
    mem_free(run.ended);
    mem_free(run.logits);
    return rc;
}
