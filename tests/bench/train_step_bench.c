/* link: engine-core
 *
 * train_step_bench.c - whole training steps against the matrix-product peak of the same run.
 *
 *   train_step_bench [--backend cpu|cuda] [--threads N] [--bf16] [--only NAME]
 *
 * Peak: the best of several square sgemm products on the same threads (cpu), or of the
 * backend's own largest product (cuda). Work per token is counted as 6 W + 12 L D T, W being
 * weights that take part in products (Chowdhery et al. 2022, appendix B). A step is forward,
 * loss, backward, clipping and AdamW. */
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "worker/engine/optim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct shape {
    const char *name;
    struct model_config config;
    int64_t B, T;
    int steps;
};

static const struct shape shapes[] = {
    {"gpt2-124m", {.family = MODEL_GPT2, .vocab_size = 50257, .context = 1024, .width = 768,
                   .layers = 12, .heads = 12, .tied = true}, 4, 256, 3},
    {"gpt2-124m-short", {.family = MODEL_GPT2, .vocab_size = 50257, .context = 1024, .width = 768,
                         .layers = 12, .heads = 12, .tied = true}, 4, 64, 3},
    {"quickstart", {.family = MODEL_GPT2, .vocab_size = 2048, .context = 128, .width = 128,
                    .layers = 4, .heads = 4, .tied = true}, 16, 64, 20},
    {"quickstart-llama", {.family = MODEL_LLAMA, .vocab_size = 4096, .context = 128, .width = 256,
                          .layers = 4, .heads = 8, .kv_heads = 4, .tied = true}, 8, 128, 10},
    {"gpt2-124m-gpu", {.family = MODEL_GPT2, .vocab_size = 50257, .context = 1024, .width = 768,
                       .layers = 12, .heads = 12, .tied = true}, 16, 1024, 6},
};

static void must(int rc, const struct err *err)
{
    if (rc == 0)
        return;
    fprintf(stderr, "train_step_bench: %s\n", err->text);
    exit(1);
}

/* Products per second of y (n, n) = x w', in FLOP/s; the best of some rounds. */
static double product_rate(struct device *device, int64_t n)
{
    struct tensor t[3];
    struct op_call call = {.op = OP_LINEAR, .in = {&t[0], &t[1]}, .out = {&t[2]}};
    const struct op_kernels *kernels = &device->backend->ops[OP_LINEAR];
    double best = 0;
    struct err err;

    for (int i = 0; i < 3; i++) {
        t[i] = (struct tensor){.device = device, .dtype = DTYPE_F32, .rank = 2,
                               .dim = {n, n, 1, 1}};
        must(device_alloc(device, 4 * (size_t)(n * n), &t[i].values, &err), &err);
        device->backend->zero(device, t[i].values, 4 * (size_t)(n * n));
    }
    if (kernels->scratch)
        must(device_scratch_reserve(device, kernels->scratch(device, &call), &err), &err);
    for (int round = 0; round < 6; round++) {
        uint64_t start_us = clock_steady_us();

        op_forward(device, &call);
        device->backend->finish(device);
        double rate = 2.0 * (double)n * (double)n * (double)n /
                      (1e-6 * (double)(clock_steady_us() - start_us + 1));
        best = rate > best ? rate : best;
    }
    for (int i = 0; i < 3; i++)
        device_release(device, t[i].values, 4 * (size_t)(n * n));
    return best;
}

static double peak_rate(struct device *device)
{
    double best = 0;

    for (int64_t n = 512; n <= (device->backend->kind == BACKEND_CUDA ? 8192 : 2048); n *= 2) {
        double rate = product_rate(device, n);

        best = rate > best ? rate : best;
    }
    return best;
}

static double flops_per_token(const struct model *model, int64_t T)
{
    const struct model_config *c = &model->config;
    double products = 0;

    for (int64_t i = 0; i < model->weight_count; i++)
        if (model->weight[i].decays && strcmp(model->weight[i].name, "wpe") != 0)
            products += (double)tensor_count(&model->weight[i].tensor);
    return 6 * products +
           12.0 * (double)c->layers * (double)(c->heads * c->head_width) * (double)T;
}

struct job {
    struct device *device;
    struct model *model;
    struct optim *optim;
    struct tape *tape;
    int32_t *token, *target;
    float *weight;
    int64_t B, T;
};

static void job_open(struct job *job, struct device *device, const struct shape *shape)
{
    size_t N = (size_t)(shape->B * shape->T);
    struct optim_config adamw = {.weight_decay = 0.1, .clip_norm = 1};
    struct rng rng;
    struct err err;

    *job = (struct job){.device = device, .B = shape->B, .T = shape->T,
                        .token = mem_array(N, 4), .target = mem_array(N, 4),
                        .weight = mem_array(N, 4)};
    must(model_new(device, &shape->config, 1, &job->model, &err), &err);
    must(optim_new(job->model, &adamw, &job->optim, &err), &err);
    must(tape_new(device, TAPE_TRAIN, &job->tape, &err), &err);
    rng_init(&rng, 1);
    for (size_t i = 0; i < N; i++) {
        job->token[i] = (int32_t)rng_below(&rng, (uint64_t)shape->config.vocab_size);
        job->target[i] = (int32_t)rng_below(&rng, (uint64_t)shape->config.vocab_size);
        job->weight[i] = 1.0f / (float)N;
    }
}

static void job_close(struct job *job)
{
    tape_free(job->tape);
    optim_free(job->optim);
    model_free(job->model);
    mem_free(job->token);
    mem_free(job->target);
    mem_free(job->weight);
}

static double step(struct job *job)
{
    struct model_batch batch = {.B = job->B, .T = job->T, .token = job->token};
    struct model_states states = {0};
    struct loss_values values = {0};
    struct loss_head loss = {.head = job->model->head, .target = job->target,
                             .ce_weight = job->weight};
    double norm;
    struct err err;

    tape_reset(job->tape);
    must(model_forward(job->tape, job->model, &batch, &states, &err), &err);
    loss.hidden = states.hidden;
    must(loss_head(job->tape, &loss, &values, &err), &err);
    must(tape_backward(job->tape, &err), &err);
    must(optim_step(job->optim, 1e-4, &norm, &err), &err);
    job->device->backend->finish(job->device);
    return values.total;
}

static void bench(struct device *device, const struct shape *shape, double peak)
{
    struct job job;
    double best = 1e30, loss = 0, rate;

    job_open(&job, device, shape);
    step(&job);
    step(&job);
    for (int i = 0; i < shape->steps; i++) {
        uint64_t start_us = clock_steady_us();
        double seconds;

        loss = step(&job);
        seconds = 1e-6 * (double)(clock_steady_us() - start_us);
        best = seconds < best ? seconds : best;
    }
    rate = flops_per_token(job.model, shape->T) * (double)(shape->B * shape->T) / best;
    printf("%-18s %4lld x %-5lld %10.2f ms %10.0f tok/s %8.1f GFLOP/s  %.2f of peak  "
           "%6.0f MiB  loss %.4f\n",
           shape->name, (long long)shape->B, (long long)shape->T, 1e3 * best,
           (double)(shape->B * shape->T) / best, 1e-9 * rate, rate / peak,
           (double)device->peak_bytes / 1048576, loss);
    fflush(stdout);
    job_close(&job);
}

int main(int count, char **words)
{
    struct device_config config = {.kind = BACKEND_CPU, .threads = 0};
    const char *only = NULL;
    struct device *device;
    double peak;
    struct err err;

    for (int i = 1; i < count; i++) {
        if (strcmp(words[i], "--bf16") == 0)
            config.bf16 = true;
        else if (i + 1 < count && strcmp(words[i], "--backend") == 0)
            must(backend_parse(words[++i], &config.kind, &err), &err);
        else if (i + 1 < count && strcmp(words[i], "--threads") == 0)
            config.threads = (unsigned)strtoul(words[++i], NULL, 10);
        else if (i + 1 < count && strcmp(words[i], "--only") == 0)
            only = words[++i];
        else
            return fprintf(stderr, "usage: train_step_bench [--backend cpu|cuda] [--threads N] "
                                   "[--bf16] [--only NAME]\n"), 2;
    }
    must(device_open(&config, &device, &err), &err);
    peak = peak_rate(device);
    printf("%s, %u threads, measured product peak %.1f GFLOP/s\n", device->backend->name,
           device->config.threads, 1e-9 * peak);
    for (size_t i = 0; i < ARRAY_COUNT(shapes); i++) {
        bool for_gpu = strstr(shapes[i].name, "gpu") != NULL;

        if (only ? strcmp(only, shapes[i].name) == 0 : !for_gpu || config.kind == BACKEND_CUDA)
            bench(device, &shapes[i], peak);
    }
    device_close(device);
    return 0;
}
