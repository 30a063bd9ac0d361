/* link: engine-core
 *
 * llmc_bench.c - a training step and a product in the loops of llm.c's CPU trainer.
 *
 *   llmc_bench [--threads N] check
 *   llmc_bench [--threads N] product
 *   llmc_bench [--threads N] step NAME B T STEPS
 *
 * Without a command: product, and one step of gpt2-124m at 4 x 64, llm.c's own default. All begin
 * with the check: small GPT-2s are trained for some steps by the loops (llmc_reference.h) and by
 * the engine, and loss, norm of the gradients and every gradient must be the same to rounding; else
 * it says what is not, and ends with 1. So what is timed is known to be the same step.
 *
 * step: forward, loss, backward and AdamW, for train_step_bench to be compared with; medians, the
 * lower of two, after one that warms up. product: 1024 x 768 x 768, forward and backward (both
 * gradients, added), by engine and loops in turn; the best of some rounds. */
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "tests/bench/llmc_reference.h"
#include "worker/engine/optim.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#define STEPS_MAX 100

static void must(int rc, const struct err *err)
{
    if (rc == 0)
        return;
    fprintf(stderr, "llmc_bench: %s\n", err->text);
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

/* ---- the same step in both -------------------------------------------------------------- */

/* Rounding: sums of f32 in another order, here of some hundred products, and -ffast-math: 2e-7 and
 * 7e-7 were measured. Later steps divide by the root of v, which enlarges differences of gradients
 * that are nearly zero: 7e-6. */
#define LOSS_TOLERANCE 1e-5
#define GRAD_TOLERANCE 1e-4
#define CHECKED_STEPS  3

/* In the engine; those of blocks behind "block.I.". */
static const char *const weight_names[LLMC_WEIGHT_END] = {
    [LLMC_WTE] = "wte", [LLMC_WPE] = "wpe",
    [LLMC_LN1_G] = "ln1.weight", [LLMC_LN1_B] = "ln1.bias",
    [LLMC_QKV_W] = "qkv.weight", [LLMC_QKV_B] = "qkv.bias",
    [LLMC_PROJ_W] = "proj.weight", [LLMC_PROJ_B] = "proj.bias",
    [LLMC_LN2_G] = "ln2.weight", [LLMC_LN2_B] = "ln2.bias",
    [LLMC_FC_W] = "fc.weight", [LLMC_FC_B] = "fc.bias",
    [LLMC_OUT_W] = "out.weight", [LLMC_OUT_B] = "out.bias",
    [LLMC_LNF_G] = "lnf.weight", [LLMC_LNF_B] = "lnf.bias",
};

struct pair {
    struct llmc_shape shape;
    struct llmc_reference *loops;
    struct device *device;
    struct model *model;
    struct optim *optim;
    struct tape *tape;
    int32_t *token, *target;
    float *ce_weight;
};

static struct model_weight *weight_of(const struct pair *pair, enum llmc_weight kind, int64_t layer)
{
    char name[MODEL_NAME_SIZE];
    struct model_weight *weight;

    if (llmc_reference_in_layers(kind))
        snprintf(name, sizeof name, "block.%d.%s", (int)layer, weight_names[kind]);
    else
        snprintf(name, sizeof name, "%s", weight_names[kind]);
    weight = model_weight_find(pair->model, name);
    CHECK(weight != NULL);
    return weight;
}

/* Both get the engine's first weights and a draw upon each, so that no bias is 0 and no gain 1. */
static void share_weights(struct pair *pair, struct rng *rng)
{
    for (int kind = 0; kind < LLMC_WEIGHT_END; kind++) {
        int64_t layers = llmc_reference_in_layers(kind) ? pair->shape.layers : 1;

        for (int64_t i = 0; i < layers; i++) {
            struct model_weight *weight = weight_of(pair, kind, i);
            int64_t count;
            float *values = llmc_reference_weight(pair->loops, kind, i, &count);

            CHECK(count == tensor_count(&weight->tensor));
            model_weight_read(weight, values);
            for (int64_t k = 0; k < count; k++)
                values[k] += (float)(0.2 * (rng_unit(rng) - 0.5));
            model_weight_write(weight, values);
        }
    }
}

static void pair_open(struct pair *pair, const struct llmc_shape *shape, unsigned threads)
{
    struct device_config device = {.kind = BACKEND_CPU, .threads = threads};
    struct model_config config = {.family = MODEL_GPT2, .vocab_size = shape->V,
                                  .context = shape->context, .width = shape->C,
                                  .layers = shape->layers, .heads = shape->heads, .tied = true};
    struct optim_config adamw = {.beta2 = 0.95};
    size_t N = (size_t)(shape->B * shape->T);
    struct rng rng;
    struct err err;

    *pair = (struct pair){.shape = *shape, .loops = llmc_reference_new(shape),
                          .token = mem_array(N, 4), .target = mem_array(N, 4),
                          .ce_weight = mem_array(N, 4)};
    must(device_open(&device, &pair->device, &err), &err);
    must(model_new(pair->device, &config, 1, &pair->model, &err), &err);
    must(optim_new(pair->model, &adamw, &pair->optim, &err), &err);
    must(tape_new(pair->device, TAPE_TRAIN, &pair->tape, &err), &err);
    rng_init(&rng, 2);
    share_weights(pair, &rng);
    for (size_t i = 0; i < N; i++) {
        pair->token[i] = (int32_t)rng_below(&rng, (uint64_t)shape->V);
        pair->target[i] = (int32_t)rng_below(&rng, (uint64_t)shape->V);
        pair->ce_weight[i] = 1.0f / (float)N;
    }
}

static void pair_close(struct pair *pair)
{
    tape_free(pair->tape);
    optim_free(pair->optim);
    model_free(pair->model);
    device_close(pair->device);
    llmc_reference_free(pair->loops);
    mem_free(pair->token);
    mem_free(pair->target);
    mem_free(pair->ce_weight);
}

static double engine_gradients(struct pair *pair)
{
    struct model_batch batch = {.B = pair->shape.B, .T = pair->shape.T, .token = pair->token};
    struct loss_head loss = {.head = pair->model->head, .target = pair->target,
                             .ce_weight = pair->ce_weight};
    struct model_states states = {0};
    struct loss_values values = {0};
    struct err err;

    tape_reset(pair->tape);
    must(model_forward(pair->tape, pair->model, &batch, &states, &err), &err);
    loss.hidden = states.hidden;
    must(loss_head(pair->tape, &loss, &values, &err), &err);
    must(tape_backward(pair->tape, &err), &err);
    return values.total;
}

/* Squares of a weight's gradient in the loops, and of its difference from the engine's. */
struct squares {
    double loops, difference;
};

static struct squares compare_weight(const struct pair *pair, enum llmc_weight kind, int64_t layer)
{
    struct model_weight *weight = weight_of(pair, kind, layer);
    int64_t count = tensor_count(&weight->tensor);
    const float *loops = llmc_reference_grad(pair->loops, kind, layer);
    float *engine = mem_array((size_t)count, sizeof *engine);
    struct squares squares = {0};

    tensor_read_grad(&weight->tensor, engine);
    for (int64_t i = 0; i < count; i++) {
        squares.loops += (double)loops[i] * loops[i];
        squares.difference += ((double)loops[i] - engine[i]) * ((double)loops[i] - engine[i]);
    }
    mem_free(engine);
    return squares;
}

struct comparison {
    double norm;  /* of all gradients of the loops                               */
    double worst; /* the largest difference of a weight's, as a share of its norm */
    enum llmc_weight at;
    int64_t layer;
};

static struct comparison compare_gradients(const struct pair *pair)
{
    struct comparison c = {0};

    for (int kind = 0; kind < LLMC_WEIGHT_END; kind++) {
        for (int64_t i = 0; i < (llmc_reference_in_layers(kind) ? pair->shape.layers : 1); i++) {
            struct squares squares = compare_weight(pair, kind, i);
            double share = sqrt(squares.difference / squares.loops);

            c.norm += squares.loops;
            if (!(share <= c.worst)) { /* also where it is not a number */
                c.worst = share;
                c.at = kind;
                c.layer = i;
            }
        }
    }
    c.norm = sqrt(c.norm);
    return c;
}

static bool close_to(double a, double b, double tolerance)
{
    return fabs(a - b) <= tolerance * fabs(b);
}

static bool check_step(struct pair *pair, int step)
{
    static const struct llmc_adamw adamw = {.rate = 1e-3f, .beta1 = 0.9f, .beta2 = 0.95f,
                                            .eps = 1e-8f};
    double engine_loss = engine_gradients(pair), engine_norm;
    double loss = llmc_reference_forward(pair->loops, pair->token, pair->target);
    struct comparison c;
    struct err err;
    bool same;

    llmc_reference_backward(pair->loops, pair->token, pair->target);
    c = compare_gradients(pair);
    must(optim_step(pair->optim, adamw.rate, &engine_norm, &err), &err);
    llmc_reference_update(pair->loops, &adamw);
    same = close_to(loss, engine_loss, LOSS_TOLERANCE) &&
           close_to(c.norm, engine_norm, GRAD_TOLERANCE) && c.worst <= GRAD_TOLERANCE;
    printf("check %lld x %-2lld step %d: loss %.6f, the engine's %.6f; norm %.6f, %.6f; gradients "
           "differ by at most %.1e (%s of layer %lld): %s\n",
           (long long)pair->shape.B, (long long)pair->shape.T, step, loss, engine_loss, c.norm,
           engine_norm, c.worst, weight_names[c.at], (long long)c.layer,
           same ? "the same" : "NOT the same");
    return same;
}

/* Rows that are tiles of eight and a few more, and a vocabulary that is padded. */
static int check(unsigned threads)
{
    static const struct llmc_shape shapes[] = {
        {.V = 300, .context = 32, .C = 48, .layers = 2, .heads = 3, .B = 2, .T = 24},
        {.V = 256, .context = 7, .C = 64, .layers = 3, .heads = 4, .B = 3, .T = 7},
    };
    bool same = true;

    for (size_t i = 0; i < ARRAY_COUNT(shapes); i++) {
        struct pair pair;

        pair_open(&pair, &shapes[i], threads);
        for (int step = 1; step <= CHECKED_STEPS; step++)
            same &= check_step(&pair, step);
        pair_close(&pair);
    }
    fflush(stdout);
    if (!same)
        fprintf(stderr, "llmc_bench: the loops and the engine do not compute the same step\n");
    return same ? 0 : 1;
}

/* ---- a product -------------------------------------------------------------------------- */

#define ROWS    1024
#define COLUMNS 768
#define INNER   768
#define ROUNDS  6
/* Linux adds a thread that runs elsewhere to the processor time at its tick, every 1 to 10 ms. */
#define ROUND_S 0.1

/* y (ROWS, COLUMNS) = x (ROWS, INNER) w (COLUMNS, INNER)', with their gradients. */
struct product {
    struct device *device;
    struct tensor x, w, y;
    struct op_call call;
};

static void product_tensor(struct device *device, int64_t rows, int64_t columns, struct rng *rng,
                           struct tensor *out)
{
    size_t count = (size_t)(rows * columns);
    void *grad;
    struct err err;

    *out = (struct tensor){.device = device, .dtype = DTYPE_F32, .rank = 2,
                           .dim = {rows, columns, 1, 1}, .wants_grad = true, .grad_ready = true};
    must(device_alloc(device, 4 * count, &out->values, &err), &err);
    must(device_alloc(device, 4 * count, &grad, &err), &err);
    out->grad = grad;
    for (size_t i = 0; i < count; i++) {
        tensor_f32(out)[i] = (float)(rng_unit(rng) - 0.5);
        out->grad[i] = (float)(1e-3 * (rng_unit(rng) - 0.5));
    }
}

static void tensor_done(struct tensor *tensor)
{
    size_t size_bytes = 4 * (size_t)tensor_count(tensor);

    device_release(tensor->device, tensor->values, size_bytes);
    device_release(tensor->device, tensor->grad, size_bytes);
}

static void engine_forward(struct product *p)
{
    op_forward(p->device, &p->call);
}

static void engine_backward(struct product *p)
{
    op_backward(p->device, &p->call);
}

static void loops_forward(struct product *p)
{
    llmc_reference_product(tensor_f32(&p->y), tensor_f32(&p->x), tensor_f32(&p->w), NULL, ROWS,
                           INNER, COLUMNS);
}

static void loops_backward(struct product *p)
{
    llmc_reference_product_backward(p->x.grad, p->w.grad, NULL, p->y.grad, tensor_f32(&p->x),
                                    tensor_f32(&p->w), ROWS, INNER, COLUMNS);
}

/* Seconds of a call: the best of all rounds, each of about ROUND_S. */
static struct instant seconds_of(void (*run)(struct product *), struct product *p)
{
    struct instant best = {INFINITY, INFINITY};

    for (int round = 0, repeats = 1; round < ROUNDS; round++) {
        struct instant start = instant_now(), spent;

        for (int i = 0; i < repeats; i++)
            run(p);
        spent = instant_since(start);
        if (round == 0) { /* warms up */
            repeats = 1 + (int)(ROUND_S / (spent.wall_s + 1e-9));
            continue;
        }
        best.wall_s = fmin(best.wall_s, spent.wall_s / repeats);
        best.cpu_s = fmin(best.cpu_s, spent.cpu_s / repeats);
    }
    return best;
}

static void compare(const char *name, double products, struct product *p,
                    void (*engine)(struct product *), void (*loops)(struct product *))
{
    double work = 1e-9 * products * 2.0 * ROWS * COLUMNS * INNER;
    struct instant ours = seconds_of(engine, p), theirs = seconds_of(loops, p);

    printf("%s %.1f GFLOP/s %.1f a core  loops %.1f GFLOP/s %.1f a core  faster by %.2f wall %.2f "
           "processor\n", name, work / ours.wall_s, work / ours.cpu_s, work / theirs.wall_s,
           work / theirs.cpu_s, theirs.wall_s / ours.wall_s, theirs.cpu_s / ours.cpu_s);
    fflush(stdout);
}

static int product(unsigned threads)
{
    struct device_config config = {.kind = BACKEND_CPU, .threads = threads};
    struct product p = {.call = {.op = OP_LINEAR}};
    const struct op_kernels *kernels;
    struct rng rng;
    struct err err;

    must(device_open(&config, &p.device, &err), &err);
    rng_init(&rng, 1);
    product_tensor(p.device, ROWS, INNER, &rng, &p.x);
    product_tensor(p.device, COLUMNS, INNER, &rng, &p.w);
    product_tensor(p.device, ROWS, COLUMNS, &rng, &p.y);
    p.call.in[0] = &p.x;
    p.call.in[1] = &p.w;
    p.call.out[0] = &p.y;
    kernels = &p.device->backend->ops[OP_LINEAR];
    if (kernels->scratch)
        must(device_scratch_reserve(p.device, kernels->scratch(p.device, &p.call), &err), &err);
    compare("forward", 1, &p, engine_forward, loops_forward);
    compare("backward", 2, &p, engine_backward, loops_backward);
    tensor_done(&p.x);
    tensor_done(&p.w);
    tensor_done(&p.y);
    device_close(p.device);
    return 0;
}

/* ---- a step ----------------------------------------------------------------------------- */

static const struct {
    const char *name;
    struct llmc_shape shape;
} models[] = {
    {"gpt2-124m", {.V = 50257, .context = 1024, .C = 768, .layers = 12, .heads = 12}},
    {"gpt2-14m", {.V = 8192, .context = 256, .C = 384, .layers = 6, .heads = 6}},
};

/* Draws as wide as GPT-2's (0.02), gains of 1, biases of 0; which ones is nothing to the time. */
static void draw_weights(struct llmc_reference *loops, int64_t layers)
{
    for (int kind = 0; kind < LLMC_WEIGHT_END; kind++) {
        bool gain = kind == LLMC_LN1_G || kind == LLMC_LN2_G || kind == LLMC_LNF_G;
        bool matrix = strstr(weight_names[kind], ".") == NULL ||
                      (!gain && strstr(weight_names[kind], ".weight"));

        for (int64_t i = 0; i < (llmc_reference_in_layers(kind) ? layers : 1); i++) {
            int64_t count;
            float *values = llmc_reference_weight(loops, kind, i, &count);

            for (int64_t k = 0; k < count; k++)
                values[k] = gain     ? 1
                            : matrix ? (float)(0.0693 * (rng_unit_at(1, (uint64_t)(kind + 16 * i),
                                                                     (uint64_t)k) - 0.5))
                                     : 0;
        }
    }
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *values, int count)
{
    qsort(values, (size_t)count, sizeof *values, by_size);
    return values[(count - 1) / 2];
}

static double resident_mib(void)
{
    struct rusage usage = {0};

    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_maxrss / 1024;
}

static void time_steps(const char *name, const struct llmc_shape *shape, int steps)
{
    static const struct llmc_adamw adamw = {.rate = 1e-4f, .beta1 = 0.9f, .beta2 = 0.95f,
                                            .eps = 1e-8f, .decay = 0.1f};
    struct llmc_reference *loops = llmc_reference_new(shape);
    int64_t N = shape->B * shape->T;
    int32_t *token = mem_array((size_t)N, 4), *target = mem_array((size_t)N, 4);
    double wall[STEPS_MAX + 1], cpu[STEPS_MAX + 1], loss = 0;

    draw_weights(loops, shape->layers);
    for (int64_t i = 0; i < N; i++) {
        token[i] = (int32_t)(rng_at(2, 0, (uint64_t)i) % (uint64_t)shape->V);
        target[i] = (int32_t)(rng_at(2, 1, (uint64_t)i) % (uint64_t)shape->V);
    }
    for (int i = 0; i <= steps; i++) {
        struct instant start = instant_now(), spent;

        loss = llmc_reference_forward(loops, token, target);
        llmc_reference_backward(loops, token, target);
        llmc_reference_update(loops, &adamw);
        spent = instant_since(start);
        wall[i] = spent.wall_s;
        cpu[i] = spent.cpu_s;
    }
    wall[0] = median(wall + 1, steps);
    cpu[0] = median(cpu + 1, steps);
    printf("llmc-step %s %lld x %lld %.2f ms %.2f ms-cpu %.0f tok/s %.0f MiB loss %.4f\n", name,
           (long long)shape->B, (long long)shape->T, 1e3 * wall[0], 1e3 * cpu[0],
           (double)N / wall[0], resident_mib(), loss);
    mem_free(token);
    mem_free(target);
    llmc_reference_free(loops);
}

static int step(const char *name, int64_t B, int64_t T, int64_t steps)
{
    for (size_t i = 0; i < ARRAY_COUNT(models); i++) {
        struct llmc_shape shape = models[i].shape;

        if (strcmp(models[i].name, name) != 0)
            continue;
        if (B < 1 || T < 1 || T > shape.context || steps < 1 || steps > STEPS_MAX)
            return -1;
        shape.B = B;
        shape.T = T;
        time_steps(name, &shape, (int)steps);
        return 0;
    }
    return -1;
}

static int64_t number(const char *word)
{
    return strtol(word, NULL, 10);
}

/* -1: not understood. */
static int run(int count, char **words, unsigned threads)
{
    if (count == 0)
        return product(threads) < 0 ? -1 : step("gpt2-124m", 4, 64, 1);
    if (count == 1 && strcmp(words[0], "check") == 0)
        return 0;
    if (count == 1 && strcmp(words[0], "product") == 0)
        return product(threads);
    if (count == 5 && strcmp(words[0], "step") == 0)
        return step(words[1], number(words[2]), number(words[3]), number(words[4]));
    return -1;
}

int main(int count, char **words)
{
    unsigned threads = 0; /* OMP_NUM_THREADS */

    count--;
    words++;
    if (count > 1 && strcmp(words[0], "--threads") == 0) {
        threads = (unsigned)number(words[1]);
        count -= 2;
        words += 2;
    }
    if (threads > 0 && threads < 512)
        llmc_reference_threads((int)threads);
    if (check(threads) != 0)
        return 1;
    if (run(count, words, threads) < 0)
        return fprintf(stderr, "usage: llmc_bench [--threads N] [check | product | "
                               "step gpt2-124m|gpt2-14m B T STEPS]\n"), 2;
    return 0;
}
