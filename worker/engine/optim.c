/* optim.c - AdamW over the model's flat arrays, and learning-rate schedules. */
#include "worker/engine/optim.h"

#include "worker/engine/packed.h"

#include "common/base/mem.h"

#include <math.h>
#include <string.h>

static int make_state(struct model *model, int64_t count, struct tensor *out, struct err *err)
{
    size_t size_bytes = 4 * (size_t)count;

    *out = (struct tensor){.device = model->device, .dtype = DTYPE_F32, .rank = 1,
                           .dim = {count, 1, 1, 1}};
    if (device_alloc(model->device, size_bytes, &out->values, err) < 0)
        return err_wrap(err, "optimiser state");
    model->device->backend->zero(model->device, out->values, size_bytes);
    return 0;
}

static int check_config(const struct optim_config *c, struct err *err)
{
    if (c->beta1 < 0 || c->beta1 >= 1 || c->beta2 < 0 || c->beta2 >= 1)
        return err_set(err, ERR_INVALID, "AdamW betas are %g and %g, expected 0..1, below 1",
                       c->beta1, c->beta2);
    if (c->eps < 0 || c->weight_decay < 0 || c->clip_norm < 0)
        return err_set(err, ERR_INVALID,
                       "AdamW eps %g, weight_decay %g, clip_norm %g: expected 0 or more", c->eps,
                       c->weight_decay, c->clip_norm);
    return 0;
}

static void set_defaults(struct optim_config *config)
{
    if (config->beta1 == 0)
        config->beta1 = 0.9;
    if (config->beta2 == 0)
        config->beta2 = 0.95;
    if (config->eps == 0)
        config->eps = 1e-8;
}

/* This rank's segments, of the last bucket first, since buckets count from the end; then what no
 * other rank has. */
static int64_t hold_segments(struct optim *optim)
{
    int64_t buckets = reducer_bucket_count(optim->reducer), sum = 0;
    int64_t own = optim->model->own_count;
    int rank = reducer_comm(optim->reducer)->rank;

    optim->held = mem_array((size_t)buckets + 1, sizeof *optim->held);
    for (int64_t i = buckets; i-- > 0;) {
        int64_t from, to;

        reducer_segment(optim->reducer, i, rank, &from, &to);
        if (from == to)
            continue;
        optim->held[optim->held_count++] = (struct optim_range){from, to - from, sum};
        sum += to - from;
    }
    if (own > 0)
        optim->held[optim->held_count++] =
            (struct optim_range){optim->model->flat_count - own, own, sum};
    return sum + own;
}

/* How many elements this rank has moments of. */
static int64_t hold(struct optim *optim)
{
    if (optim->reducer && reducer_owners_only(optim->reducer))
        return hold_segments(optim);
    optim->held = mem_array(1, sizeof *optim->held);
    optim->held[optim->held_count++] = (struct optim_range){0, optim->model->flat_count, 0};
    return optim->model->flat_count;
}

int optim_new_shared(struct reducer *reducer, struct model *model,
                     const struct optim_config *config, struct optim **out, struct err *err)
{
    struct optim *optim;
    int64_t count;

    CHECK(model->flat.grad != NULL);
    if (check_config(config, err) < 0)
        return -1;
    optim = mem_zalloc(sizeof *optim);
    optim->config = *config;
    optim->model = model;
    optim->reducer = reducer;
    set_defaults(&optim->config);
    if (reducer && reducer_comm(reducer)->size > 1)
        optim->squares = mem_array((size_t)(reducer_bucket_count(reducer) + 1) *
                                       (size_t)(1 + reducer_comm(reducer)->size),
                                   sizeof *optim->squares);
    count = (int64_t)max_u64((uint64_t)hold(optim), 1); /* a rank may hold nothing */
    if (make_state(model, count, &optim->m, err) < 0 ||
        make_state(model, count, &optim->v, err) < 0 ||
        make_state(model, 1, &optim->square, err) < 0) {
        optim_free(optim);
        return -1;
    }
    *out = optim;
    return 0;
}

int optim_new(struct model *model, const struct optim_config *config, struct optim **out,
              struct err *err)
{
    return optim_new_shared(NULL, model, config, out, err);
}

void optim_free(struct optim *optim)
{
    if (!optim)
        return;
    optim->model->device->backend->finish(optim->model->device);
    device_release(optim->model->device, optim->m.values, 4 * (size_t)tensor_count(&optim->m));
    device_release(optim->model->device, optim->v.values, 4 * (size_t)tensor_count(&optim->v));
    device_release(optim->model->device, optim->square.values, 4);
    mem_free(optim->held);
    mem_free(optim->squares);
    mem_free(optim);
}

/* A slice of a flat array as a tensor for kernels. */
static struct tensor slice(const struct tensor *flat, float *base, int64_t from, int64_t count)
{
    return (struct tensor){.device = flat->device, .dtype = DTYPE_F32, .rank = 1,
                           .dim = {count, 1, 1, 1}, .values = base + from};
}

/* Sum of the squares of a stretch of the gradient. */
static int squares_of(struct optim *optim, int64_t from, int64_t count, double *out,
                      struct err *err)
{
    const struct model *model = optim->model;
    struct device *device = model->device;
    struct tensor grads = slice(&model->flat, model->flat.grad, from, count);
    struct op_call call = {.op = OP_SUM_SQUARES, .in = {&grads}, .out = {&optim->square}};
    const struct op_kernels *kernels = &device->backend->ops[OP_SUM_SQUARES];
    float host;

    *out = 0;
    if (count == 0)
        return 0;
    if (kernels->scratch &&
        device_scratch_reserve(device, kernels->scratch(device, &call), err) < 0)
        return -1;
    op_forward(device, &call);
    tensor_read(&optim->square, &host);
    *out = host;
    return 0;
}

/* Each rank the squares of its segments and of what only it has; then all of them, added in one
 * order everywhere. */
static int shared_squares(struct optim *optim, double *out, struct err *err)
{
    struct comm *comm = reducer_comm(optim->reducer);
    int64_t buckets = reducer_bucket_count(optim->reducer), count = buckets + 1, from, to;
    double *own = optim->squares, *all = own + count;
    int rc = squares_of(optim, optim->model->flat_count - optim->model->own_count,
                        optim->model->own_count, &own[buckets], err);

    for (int64_t i = 0; i < buckets && rc == 0; i++) {
        reducer_segment(optim->reducer, i, comm->rank, &from, &to);
        rc = squares_of(optim, from, to - from, &own[i], err);
    }
    if (rc == 0)
        comm_gather_all(comm, own, (size_t)count * sizeof *own, all);
    *out = 0;
    for (int64_t i = 0; i < count * comm->size; i++)
        *out += all[i];
    return rc;
}

static int gradient_norm(struct optim *optim, double *out, struct err *err)
{
    if ((optim->squares ? shared_squares(optim, out, err)
                   : squares_of(optim, 0, optim->model->flat_count, out, err)) < 0)
        return -1;
    *out = sqrt(*out);
    return 0;
}

/* How one update goes, whatever the weight. */
struct update {
    double decay, rate, scale;
};

static void update_range(struct optim *optim, int64_t from, int64_t count, int64_t state,
                         const struct update *update)
{
    struct model *model = optim->model;
    const struct optim_config *c = &optim->config;
    struct tensor p = slice(&model->flat, tensor_f32(&model->flat), from, count);
    struct tensor g = slice(&model->flat, model->flat.grad, from, count);
    struct tensor m = slice(&optim->m, tensor_f32(&optim->m), state, count);
    struct tensor v = slice(&optim->v, tensor_f32(&optim->v), state, count);
    struct op_call call = {.op = OP_ADAMW, .in = {&p, &g, &m, &v}, .whole = {optim->step},
                           .real = {update->rate, c->beta1, c->beta2, c->eps, update->decay,
                                    update->scale}};

    op_forward(model->device, &call);
}

/* What this rank holds of elements from..to-1. */
static void update_held(struct optim *optim, int64_t from, int64_t to,
                        const struct update *update)
{
    for (int64_t i = 0; i < optim->held_count; i++) {
        const struct optim_range *range = &optim->held[i];
        int64_t begin = from > range->at ? from : range->at;
        int64_t end = to < range->at + range->count ? to : range->at + range->count;

        if (begin < end)
            update_range(optim, begin, end - begin, range->state + begin - range->at, update);
    }
}

/* Neighbours with the same decay are updated in one call, where weights lie in their order. */
static void update_all(struct optim *optim, struct update update)
{
    const struct model *model = optim->model;
    int64_t i = 0;

    while (i < model->weight_count) {
        const struct model_weight *first = &model->weight[i++], *last = first;

        while (i < model->weight_count && model->own_count == 0 &&
               model->weight[i].decays == first->decays)
            last = &model->weight[i++];
        update.decay = first->decays ? optim->config.weight_decay : 0;
        update_held(optim, first->offset, last->offset + tensor_count(&last->tensor), &update);
    }
}

int optim_step(struct optim *optim, double learning_rate, double *out_norm, struct err *err)
{
    struct update update = {.rate = learning_rate, .scale = 1};
    size_t size_bytes = 4 * (size_t)optim->model->flat_count;
    double norm;

    if (gradient_norm(optim, &norm, err) < 0)
        return -1;
    *out_norm = norm;
    if (!isfinite(norm))
        return err_set(err, ERR_LIMIT, "the gradient is not finite after update %lld: its norm is "
                       "%g", (long long)optim->step, fabs(norm)); /* a NaN without its sign */
    if (optim->config.clip_norm > 0 && norm > optim->config.clip_norm)
        update.scale = optim->config.clip_norm / norm;
    optim->step++;
    update_all(optim, update);
    packed_updated(optim->model->device, optim->model->flat.values, size_bytes);
    if (optim->reducer && reducer_owners_only(optim->reducer)) {
        reducer_share_weights(optim->reducer);
        packed_written(optim->model->device, optim->model->flat.values, size_bytes);
        model_zero_grad(optim->model); /* terms of elements that others hold */
    }
    return 0;
}

static const char *const schedule_names[SCHEDULE_END] = {
    [SCHEDULE_CONSTANT] = "constant", [SCHEDULE_LINEAR] = "linear", [SCHEDULE_COSINE] = "cosine",
    [SCHEDULE_WSD] = "wsd"};

int schedule_parse(const char *name, enum schedule *out, struct err *err)
{
    for (int i = 1; i < SCHEDULE_END; i++) {
        if (strcmp(schedule_names[i], name) == 0) {
            *out = (enum schedule)i;
            return 0;
        }
    }
    return err_set(err, ERR_INVALID,
                   "schedule '%s' is unknown, expected constant, linear, cosine or wsd", name);
}

/* Share of the way from the end of warmup (0) to the last update (1). */
static double progress(const struct schedule_config *c, int64_t step, int64_t begin)
{
    int64_t length = c->steps - 1 - begin;

    if (length <= 0 || step >= c->steps)
        return 1;
    return step <= begin ? 0 : (double)(step - begin) / (double)length;
}

double schedule_rate(const struct schedule_config *c, int64_t step)
{
    double peak = c->learning_rate, low = peak * c->final_fraction;
    int64_t decay_steps = c->decay_steps > 0 ? c->decay_steps : c->steps / 5;

    if (step < c->warmup_steps)
        return peak * (double)(step + 1) / (double)c->warmup_steps;
    switch (c->kind) {
    case SCHEDULE_LINEAR:
        return peak + (low - peak) * progress(c, step, c->warmup_steps);
    case SCHEDULE_COSINE:
        return low + (peak - low) * 0.5 *
                         (1 + cos(3.14159265358979323846 * progress(c, step, c->warmup_steps)));
    case SCHEDULE_WSD:
        return peak + (low - peak) * progress(c, step, c->steps - 1 - decay_steps);
    case SCHEDULE_CONSTANT:
    case SCHEDULE_END:
        break;
    }
    return peak;
}
