/* optim.c - AdamW over the model's flat arrays, and learning-rate schedules. */
#include "worker/engine/optim.h"

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

int optim_new(struct model *model, const struct optim_config *config, struct optim **out,
              struct err *err)
{
    struct optim *optim;

    CHECK(model->flat.grad != NULL);
    if (check_config(config, err) < 0)
        return -1;
    optim = mem_zalloc(sizeof *optim);
    optim->config = *config;
    optim->model = model;
    if (optim->config.beta1 == 0)
        optim->config.beta1 = 0.9;
    if (optim->config.beta2 == 0)
        optim->config.beta2 = 0.95;
    if (optim->config.eps == 0)
        optim->config.eps = 1e-8;
    if (make_state(model, model->flat_count, &optim->m, err) < 0 ||
        make_state(model, model->flat_count, &optim->v, err) < 0 ||
        make_state(model, 1, &optim->square, err) < 0) {
        optim_free(optim);
        return -1;
    }
    *out = optim;
    return 0;
}

void optim_free(struct optim *optim)
{
    size_t size_bytes;

    if (!optim)
        return;
    size_bytes = 4 * (size_t)optim->model->flat_count;
    optim->model->device->backend->finish(optim->model->device);
    device_release(optim->model->device, optim->m.values, size_bytes);
    device_release(optim->model->device, optim->v.values, size_bytes);
    device_release(optim->model->device, optim->square.values, 4);
    mem_free(optim);
}

/* A slice of a flat array as a tensor for kernels. */
static struct tensor slice(const struct tensor *flat, float *base, int64_t from, int64_t count)
{
    return (struct tensor){.device = flat->device, .dtype = DTYPE_F32, .rank = 1,
                           .dim = {count, 1, 1, 1}, .values = base + from};
}

static int gradient_norm(struct optim *optim, double *out, struct err *err)
{
    const struct model *model = optim->model;
    struct device *device = model->device;
    struct tensor grads = slice(&model->flat, model->flat.grad, 0, model->flat_count);
    struct op_call call = {.op = OP_SUM_SQUARES, .in = {&grads}, .out = {&optim->square}};
    const struct op_kernels *kernels = &device->backend->ops[OP_SUM_SQUARES];
    float host;

    if (kernels->scratch &&
        device_scratch_reserve(device, kernels->scratch(device, &call), err) < 0)
        return -1;
    op_forward(device, &call);
    tensor_read(&optim->square, &host);
    *out = sqrt((double)host);
    return 0;
}

static void update_range(struct optim *optim, int64_t from, int64_t to, double decay, double rate,
                         double scale)
{
    struct model *model = optim->model;
    const struct optim_config *c = &optim->config;
    struct tensor p = slice(&model->flat, tensor_f32(&model->flat), from, to - from);
    struct tensor g = slice(&model->flat, model->flat.grad, from, to - from);
    struct tensor m = slice(&optim->m, tensor_f32(&optim->m), from, to - from);
    struct tensor v = slice(&optim->v, tensor_f32(&optim->v), from, to - from);
    struct op_call call = {.op = OP_ADAMW, .in = {&p, &g, &m, &v}, .whole = {optim->step},
                           .real = {rate, c->beta1, c->beta2, c->eps, decay, scale}};

    op_forward(model->device, &call);
}

/* Neighbours with the same decay are updated in one call. */
static void update_all(struct optim *optim, double rate, double scale)
{
    const struct model *model = optim->model;
    int64_t i = 0;

    while (i < model->weight_count) {
        bool decays = model->weight[i].decays;
        int64_t from = model->weight[i].offset, end = i;

        while (end < model->weight_count && model->weight[end].decays == decays)
            end++;
        update_range(optim, from,
                     end < model->weight_count ? model->weight[end].offset : model->flat_count,
                     decays ? optim->config.weight_decay : 0, rate, scale);
        i = end;
    }
}

int optim_step(struct optim *optim, double learning_rate, double *out_norm, struct err *err)
{
    double norm, scale = 1;

    if (gradient_norm(optim, &norm, err) < 0)
        return -1;
    *out_norm = norm;
    if (!isfinite(norm))
        return err_set(err, ERR_LIMIT, "the gradient is not finite after update %lld",
                       (long long)optim->step);
    if (optim->config.clip_norm > 0 && norm > optim->config.clip_norm)
        scale = optim->config.clip_norm / norm;
    optim->step++;
    update_all(optim, learning_rate, scale);
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
