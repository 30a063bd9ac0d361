/* link: engine-core
 *
 * train_step_bench.c - whole training steps against the matrix-product peak of the same run.
 *
 *   train_step_bench [--backend cpu|cuda] [--threads N] [--bf16] [--only NAME] [--steps N]
 *                    [--card TFLOPS]
 *
 * Peak: the best of several square products and of those of GPT-2 124M, on the same threads, before
 * and after the steps. Work per token is counted as 6 W + 12 L D T, W being weights that take part
 * in products (Chowdhery et al. 2022, appendix B). A step is forward, loss, backward, clipping and
 * AdamW; medians of steps, after two that warm up.
 *
 * With --card, the dense peak that the maker of a GPU states for the type of the products, shares
 * of it (MFU) follow in both conventions: 6 W + 12 L D T, and 6 W + 6 L D T, which counts causal
 * attention once.
 *
 * Shares are told twice: of time on the wall, and of processor time, which others on the machine
 * disturb less. MiB: the most that the device held; resident: the most that the process did, the
 * peak's operands included. least: 16 bytes a weight (weight, gradient, two
 * moments), what backward of GPT-2's equations reads (16 floats per token, layer and unit of width;
 * 3 beside the layers), and the head's chunk of logits. */
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "worker/engine/optim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#define STEPS_MAX 100

struct shape {
    const char *name;
    struct model_config config;
    int64_t B, T;
    int steps;
};

static const struct shape shapes[] = {
    {"gpt2-124m", {.family = MODEL_GPT2, .vocab_size = 50257, .context = 1024, .width = 768,
                   .layers = 12, .heads = 12, .tied = true}, 4, 256, 3},
    {"gpt2-124m-long", {.family = MODEL_GPT2, .vocab_size = 50257, .context = 1024, .width = 768,
                        .layers = 12, .heads = 12, .tied = true}, 4, 1024, 3},
    {"gpt2-14m", {.family = MODEL_GPT2, .vocab_size = 8192, .context = 256, .width = 384,
                  .layers = 6, .heads = 6, .tied = true}, 8, 256, 5},
    {"gpt2-124m-short", {.family = MODEL_GPT2, .vocab_size = 50257, .context = 1024, .width = 768,
                         .layers = 12, .heads = 12, .tied = true}, 4, 64, 3},
    {"quickstart", {.family = MODEL_GPT2, .vocab_size = 2048, .context = 128, .width = 128,
                    .layers = 4, .heads = 4, .tied = true}, 16, 64, 20},
    {"quickstart-llama", {.family = MODEL_LLAMA, .vocab_size = 4096, .context = 128, .width = 256,
                          .layers = 4, .heads = 8, .kv_heads = 4, .tied = true}, 8, 128, 10},
    {"gpt2-124m-gpu", {.family = MODEL_GPT2, .vocab_size = 50257, .context = 1024, .width = 768,
                       .layers = 12, .heads = 12, .tied = true}, 16, 1024, 12},
    {"llama-1b-gpu", {.family = MODEL_LLAMA, .vocab_size = 32000, .context = 2048, .width = 2048,
                      .layers = 22, .heads = 32, .kv_heads = 4, .ffn_width = 5632}, 4, 2048, 8},
};

static void must(int rc, const struct err *err)
{
    if (rc == 0)
        return;
    fprintf(stderr, "train_step_bench: %s\n", err->text);
    exit(1);
}

struct instant {
    double wall_s, cpu_s; /* cpu: of all threads of this process */
};

static struct instant instant_now(void)
{
    struct timespec cpu;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    return (struct instant){1e-6 * (double)clock_steady_us(),
                            (double)cpu.tv_sec + 1e-9 * (double)cpu.tv_nsec};
}

static struct instant instant_since(struct instant start)
{
    struct instant now = instant_now();

    return (struct instant){now.wall_s - start.wall_s, now.cpu_s - start.cpu_s};
}

/* FLOP/s on the wall, and per second of processor time of one thread. */
struct rates {
    double wall, cpu;
};

static void rates_raise(struct rates *best, struct rates other)
{
    best->wall = other.wall > best->wall ? other.wall : best->wall;
    best->cpu = other.cpu > best->cpu ? other.cpu : best->cpu;
}

/* Linux adds a thread that runs elsewhere to the processor time at its tick, every 1 to 10 ms:
 * a round of products takes long against that. */
#define ROUND_S 0.1

/* y (rows, columns) = x w', with w (columns, inner). */
struct product {
    int64_t rows, columns, inner;
};

static const struct product measured[] = {
    {512, 512, 512}, {1024, 1024, 1024}, {2048, 2048, 2048}, /* squares             */
    {1024, 2304, 768}, {1024, 3072, 768}, {1024, 768, 3072}, /* GPT-2 124M, N = 1024 */
    {256, 50257, 768},                                       /* its head, a chunk   */
};

static void product_tensor(struct device *device, int64_t rows, int64_t columns, struct tensor *out)
{
    struct err err;

    *out = (struct tensor){.device = device, .dtype = DTYPE_F32, .rank = 2,
                           .dim = {rows, columns, 1, 1}};
    must(device_alloc(device, 4 * (size_t)tensor_count(out), &out->values, &err), &err);
    device->backend->zero(device, out->values, 4 * (size_t)tensor_count(out));
}

static struct rates product_rates(struct device *device, const struct product *p)
{
    struct tensor t[3];
    struct op_call call = {.op = OP_LINEAR, .in = {&t[0], &t[1]}, .out = {&t[2]}};
    const struct op_kernels *kernels = &device->backend->ops[OP_LINEAR];
    double work = 2.0 * (double)p->rows * (double)p->columns * (double)p->inner;
    struct rates best = {0};
    struct err err;

    product_tensor(device, p->rows, p->inner, &t[0]);
    product_tensor(device, p->columns, p->inner, &t[1]);
    product_tensor(device, p->rows, p->columns, &t[2]);
    if (kernels->scratch)
        must(device_scratch_reserve(device, kernels->scratch(device, &call), &err), &err);
    for (int round = 0, repeats = 1; round < 6; round++) {
        struct instant start = instant_now(), spent;

        for (int i = 0; i < repeats; i++)
            op_forward(device, &call);
        device->backend->finish(device);
        spent = instant_since(start);
        if (round == 0) { /* warms up */
            repeats = 1 + (int)(ROUND_S / (spent.wall_s + 1e-9));
            continue;
        }
        rates_raise(&best, (struct rates){repeats * work / (spent.wall_s + 1e-9),
                                          repeats * work / (spent.cpu_s + 1e-9)});
    }
    for (int i = 0; i < 3; i++)
        device_release(device, t[i].values, 4 * (size_t)tensor_count(&t[i]));
    return best;
}

/* In a device of its own, whose memory does not count. */
static struct rates peak_rates(const struct device_config *config, bool tell)
{
    static const struct product large = {8192, 8192, 8192};
    struct rates best = {0};
    struct device *device;
    struct err err;

    must(device_open(config, &device, &err), &err);
    for (size_t i = 0; i < ARRAY_COUNT(measured); i++) {
        struct rates rates = product_rates(device, &measured[i]);

        if (tell)
            printf("product %lld %lld %lld  %.1f GFLOP/s  %.1f a core\n",
                   (long long)measured[i].rows, (long long)measured[i].columns,
                   (long long)measured[i].inner, 1e-9 * rates.wall, 1e-9 * rates.cpu);
        rates_raise(&best, rates);
    }
    if (config->kind == BACKEND_CUDA)
        rates_raise(&best, product_rates(device, &large));
    device_close(device);
    return best;
}

/* scores: operations for each pair of a layer's width and a token that is seen, 12 or 6. */
static double flops_per_token(const struct model *model, int64_t T, double scores)
{
    const struct model_config *c = &model->config;
    double products = 0;

    for (int64_t i = 0; i < model->weight_count; i++)
        if (model->weight[i].decays && strcmp(model->weight[i].name, "wpe") != 0 &&
            (c->tied || strcmp(model->weight[i].name, "embed") != 0))
            products += (double)tensor_count(&model->weight[i].tensor);
    return 6 * products +
           scores * (double)c->layers * (double)(c->heads * c->head_width) * (double)T;
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

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* See the head of this file; 0 for what is not GPT-2. */
static double least_bytes(const struct model *model, int64_t N)
{
    const struct model_config *c = &model->config;
    double unit = 4.0 * (double)N * (double)c->width;

    if (c->family != MODEL_GPT2)
        return 0;
    return 16.0 * (double)model_weight_count(c) + unit * (double)(16 * c->layers + 3) +
           4.0 * 256 * (double)c->vocab_size;
}

struct result {
    double wall_s, cpu_s; /* medians of a step */
    double work, causal_work; /* of a step, in both conventions */
    double loss, least_bytes;
    uint64_t peak_bytes;
};

static struct result measure(const struct device_config *config, const struct shape *shape,
                             int steps)
{
    double wall[STEPS_MAX], cpu[STEPS_MAX];
    struct result result = {0};
    struct device *device;
    struct job job;
    struct err err;

    must(device_open(config, &device, &err), &err);
    job_open(&job, device, shape);
    step(&job);
    step(&job);
    for (int i = 0; i < steps; i++) {
        struct instant start = instant_now(), spent;

        result.loss = step(&job);
        spent = instant_since(start);
        wall[i] = spent.wall_s;
        cpu[i] = spent.cpu_s;
    }
    qsort(wall, (size_t)steps, sizeof *wall, by_size);
    qsort(cpu, (size_t)steps, sizeof *cpu, by_size);
    result.wall_s = wall[steps / 2];
    result.cpu_s = cpu[steps / 2];
    result.work = flops_per_token(job.model, shape->T, 12) * (double)(shape->B * shape->T);
    result.causal_work = flops_per_token(job.model, shape->T, 6) * (double)(shape->B * shape->T);
    result.least_bytes = least_bytes(job.model, shape->B * shape->T);
    result.peak_bytes = device->peak_bytes;
    job_close(&job);
    device_close(device);
    return result;
}

static double resident_mib(void)
{
    struct rusage usage = {0};

    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_maxrss / 1024;
}

static void bench(const struct device_config *config, const struct shape *shape, int steps,
                  struct rates before, double card)
{
    struct result r = measure(config, shape, steps ? steps : shape->steps);
    struct rates peak = peak_rates(config, false);

    rates_raise(&peak, before);
    printf("step %-16s %2lld x %-5lld %10.2f ms %10.2f ms-cpu %9.0f tok/s %8.1f GFLOP/s  %.2f of "
           "peak %.2f by-cpu  %6.0f MiB %6.0f least %6.0f resident  loss %.4f\n",
           shape->name, (long long)shape->B, (long long)shape->T, 1e3 * r.wall_s, 1e3 * r.cpu_s,
           (double)(shape->B * shape->T) / r.wall_s, 1e-9 * r.work / r.wall_s,
           r.work / r.wall_s / peak.wall, r.work / r.cpu_s / peak.cpu,
           (double)r.peak_bytes / 1048576, r.least_bytes / 1048576, resident_mib(), r.loss);
    if (card > 0)
        printf("mfu %-17s %.3f (6 W + 12 L D T) %.3f (6 W + 6 L D T) of the card's %.0f TFLOP/s\n",
               shape->name, r.work / r.wall_s / (1e12 * card),
               r.causal_work / r.wall_s / (1e12 * card), card);
    fflush(stdout);
}

struct options {
    struct device_config device;
    const char *only;
    double card; /* TFLOP/s; 0: not told */
    int steps;
};

static int read_options(int count, char **words, struct options *o)
{
    struct err err;

    for (int i = 1; i < count; i++) {
        if (strcmp(words[i], "--bf16") == 0)
            o->device.bf16 = true;
        else if (i + 1 < count && strcmp(words[i], "--backend") == 0)
            must(backend_parse(words[++i], &o->device.kind, &err), &err);
        else if (i + 1 < count && strcmp(words[i], "--threads") == 0)
            o->device.threads = (unsigned)strtoul(words[++i], NULL, 10);
        else if (i + 1 < count && strcmp(words[i], "--only") == 0)
            o->only = words[++i];
        else if (i + 1 < count && strcmp(words[i], "--card") == 0)
            o->card = strtod(words[++i], NULL);
        else if (i + 1 < count && strcmp(words[i], "--steps") == 0)
            o->steps = (int)strtol(words[++i], NULL, 10);
        else
            return -1;
    }
    return o->steps >= 0 && o->steps <= STEPS_MAX && o->card >= 0 ? 0 : -1;
}

/* Shapes for GPUs are left to them; the longest is asked for by name. */
static bool wanted(const struct options *o, const struct shape *shape)
{
    if (o->only)
        return strcmp(o->only, shape->name) == 0;
    if (strstr(shape->name, "long"))
        return false;
    return !strstr(shape->name, "gpu") || o->device.kind == BACKEND_CUDA;
}

int main(int count, char **words)
{
    struct options options = {.device = {.kind = BACKEND_CPU}};
    struct rates peak;

    if (read_options(count, words, &options) < 0)
        return fprintf(stderr, "usage: train_step_bench [--backend cpu|cuda] [--threads N] "
                               "[--bf16] [--only NAME] [--steps 1..%d] [--card TFLOPS]\n",
                       STEPS_MAX), 2;
    peak = peak_rates(&options.device, true);
    printf("peak %.1f GFLOP/s  %.1f a core\n", 1e-9 * peak.wall, 1e-9 * peak.cpu);
    for (size_t i = 0; i < ARRAY_COUNT(shapes); i++)
        if (wanted(&options, &shapes[i]))
            bench(&options.device, &shapes[i], options.steps, peak, options.card);
    return 0;
}
