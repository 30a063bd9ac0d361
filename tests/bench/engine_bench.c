/* link: engine-core
 *
 * engine_bench.c - decoding, and what attention costs by length.
 *
 *   engine_bench [--threads N] decode NAME BATCH TOKENS
 *   engine_bench [--threads N] attention LENGTH
 *   engine_bench memory
 *
 * decode: greedy, TOKENS after a prompt of 16, the prompt's own time taken off, the better of two;
 * the same without copies of weights (worker/engine/packed.h), by turns; what the copies take; and
 * the bytes of weights that a token reads over the rate at which a core reads memory, in the same
 * run, which is about what bounds a batch of one. memory: those rates.
 * attention: forward and backward of one layer of 4 heads of 64, in a row of LENGTH tokens, twice,
 * four and eight times as many: softmax attention, whose time is quadratic and whose memory is
 * linear, lightning attention, linear in both, and lightning attention in its quadratic form,
 * (q k' . decay) v over all tokens at once. Times are of the processor (all threads). */
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "worker/engine/generate.h"
#include "worker/engine/packed.h"

#include <cblas.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PROMPT 16
#define HEADS  4
#define WIDTH  64 /* of a head */

static const struct {
    const char *name;
    struct model_config config;
} models[] = {
    {"gpt2-124m", {.family = MODEL_GPT2, .vocab_size = 50257, .context = 1024, .width = 768,
                   .layers = 12, .heads = 12, .tied = true}},
    {"gpt2-14m", {.family = MODEL_GPT2, .vocab_size = 8192, .context = 256, .width = 384,
                  .layers = 6, .heads = 6, .tied = true}},
};

static void must(int rc, const struct err *err)
{
    if (rc == 0)
        return;
    fprintf(stderr, "engine_bench: %s\n", err->text);
    exit(1);
}

struct instant {
    double wall_s, cpu_s;
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

/* ---- decoding --------------------------------------------------------------------------- */

static struct instant decode_time(const struct model *model, int64_t batch, int64_t tokens)
{
    struct generation *texts = mem_zalloc((size_t)batch * sizeof *texts);
    struct prompt *prompts = mem_zalloc((size_t)batch * sizeof *prompts);
    struct sampling greedy = {.stop_token = -1};
    int32_t prompt[PROMPT];
    struct instant start;
    struct err err;

    for (int32_t i = 0; i < PROMPT; i++)
        prompt[i] = i;
    for (int64_t b = 0; b < batch; b++) {
        prompts[b] = (struct prompt){prompt, PROMPT};
        texts[b] = (struct generation){.token = mem_array((size_t)tokens, 4), .index = (uint64_t)b};
    }
    start = instant_now();
    must(generate(model, prompts, texts, batch, tokens, &greedy, &err), &err);
    start = instant_since(start);
    for (int64_t b = 0; b < batch; b++)
        mem_free(texts[b].token);
    mem_free(texts);
    mem_free(prompts);
    return start;
}

/* Of a core, on arrays that no cache holds: bytes a second of a sum (read), of memcpy, and of
 * a = b + s c (STREAM's triad; McCalpin 1995): 3 numbers each, no write-allocate counted. */
struct memory_rates {
    double read, copy, triad;
};

#define MEMORY_FLOATS ((size_t)16 << 20) /* 64 MiB each: twice the last cache of most machines */

static void raise_rate(double *rate, double bytes, struct instant start)
{
    double now = bytes / (instant_since(start).cpu_s + 1e-9);

    *rate = now > *rate ? now : *rate;
}

typedef float lanes __attribute__((vector_size(64)));

static float sum_of(const float *from, size_t count)
{
    const lanes *v = (const lanes *)from; /* as aligned as the device's memory */
    lanes sum[4] = {0};

    for (size_t i = 0; i < count / 16; i += 4)
        for (size_t k = 0; k < 4; k++)
            sum[k] += v[i + k];
    return sum[0][0] + sum[1][1] + sum[2][2] + sum[3][3];
}

/* In a device's memory, which lies in large pages, as weights do. */
static struct memory_rates memory_rates(void)
{
    struct device_config config = {.kind = BACKEND_CPU, .threads = 1};
    size_t n = MEMORY_FLOATS;
    struct memory_rates best = {0};
    struct instant start;
    struct device *device;
    struct err err;
    void *room[3];
    float *a, *b, *c;

    must(device_open(&config, &device, &err), &err);
    for (int i = 0; i < 3; i++)
        must(device_alloc(device, n * sizeof(float), &room[i], &err), &err);
    a = room[0];
    b = room[1];
    c = room[2];
    for (size_t i = 0; i < n; i++)
        a[i] = b[i] = c[i] = (float)(i % 7);
    for (int round = 0; round < 5; round++) {
        volatile float kept;

        start = instant_now();
        kept = sum_of(b, n);
        (void)kept;
        raise_rate(&best.read, 4.0 * (double)n, start);
        start = instant_now();
        memcpy(a, b, n * sizeof *a);
        raise_rate(&best.copy, 4.0 * (double)n, start);
        start = instant_now();
        for (size_t i = 0; i < n; i++)
            a[i] = b[i] + 0.5f * c[i];
        raise_rate(&best.triad, 12.0 * (double)n, start);
        kept = a[round];
    }
    for (int i = 0; i < 3; i++)
        device_release(device, room[i], n * sizeof(float));
    device_close(device);
    return best;
}

static int memory(void)
{
    struct memory_rates rates = memory_rates();

    printf("memory read %.2f GB/s copy %.2f GB/s triad %.2f GB/s\n", 1e-9 * rates.read,
           1e-9 * rates.copy, 1e-9 * rates.triad);
    return 0;
}

/* Seconds of `tokens` - 1 tokens of each text after the first. */
static struct instant tokens_time(const struct model *model, int64_t batch, int64_t tokens)
{
    struct instant one = decode_time(model, batch, 1), all = decode_time(model, batch, tokens);

    return (struct instant){all.wall_s - one.wall_s, all.cpu_s - one.cpu_s};
}

static struct instant better(struct instant a, struct instant b)
{
    return (struct instant){a.wall_s < b.wall_s ? a.wall_s : b.wall_s,
                            a.cpu_s < b.cpu_s ? a.cpu_s : b.cpu_s};
}

/* The model once more, on a device that may not keep copies of weights. */
static struct model *without_copies(const struct model *model, const struct device_config *config)
{
    struct device_config none = *config;
    struct device *device;
    struct model *out;
    struct err err;

    none.memory_bytes = 1;
    must(device_open(&none, &device, &err), &err);
    must(model_clone_frozen(model, device, &out, &err), &err);
    return out;
}

#define WARM_UP 12 /* tokens: more than a weight is used before it is copied */

static int decode(const struct device_config *config, const char *name, int64_t batch,
                  int64_t tokens)
{
    struct instant spent = {1e30, 1e30}, plain = {1e30, 1e30};
    struct model *model, *other;
    struct device *device;
    struct err err;
    size_t m = 0;

    while (m < ARRAY_COUNT(models) && strcmp(models[m].name, name) != 0)
        m++;
    if (m == ARRAY_COUNT(models) || batch < 1 || tokens < 2)
        return -1;
    must(device_open(config, &device, &err), &err);
    must(model_new(device, &models[m].config, 1, &model, &err), &err);
    other = without_copies(model, config);
    decode_time(model, batch, WARM_UP);
    decode_time(other, batch, 2);
    for (int round = 0; round < 2; round++) {
        plain = better(plain, tokens_time(other, batch, tokens));
        spent = better(spent, tokens_time(model, batch, tokens));
    }
    double made = (double)(batch * (tokens - 1));
    double read_s = 4.0 * (double)model_weight_count(&model->config) / memory_rates().read;

    printf("decode %s %lld %.1f tok/s %.1f tok/s-cpu %.2f of-reading-weights %.1f tok/s-plain "
           "%.1f tok/s-plain-cpu %.0f MiB-copies\n", name, (long long)batch, made / spent.wall_s,
           made / spent.cpu_s, read_s * (double)(tokens - 1) / spent.cpu_s, made / plain.wall_s,
           made / plain.cpu_s, (double)packed_bytes(device) / 1048576);
    struct device *plain_device = other->device;
    model_free(other);
    device_close(plain_device);
    model_free(model);
    device_close(device);
    return 0;
}

/* ---- attention by length ---------------------------------------------------------------- */

struct layer {
    struct device *device;
    struct tensor qkv, slope; /* (T, 3 HEADS WIDTH) with gradient, (HEADS) */
    int64_t T;
};

static void layer_open(struct layer *layer, const struct device_config *config, int64_t T)
{
    int64_t C = 3 * HEADS * WIDTH;
    float *host = mem_array((size_t)(T * C), sizeof *host), slope[HEADS];
    struct rng rng;
    struct err err;

    *layer = (struct layer){.T = T};
    must(device_open(config, &layer->device, &err), &err);
    layer->qkv = (struct tensor){.device = layer->device, .dtype = DTYPE_F32, .rank = 2,
                                 .dim = {T, C, 1, 1}, .wants_grad = true, .is_weight = true,
                                 .grad_ready = true};
    layer->slope = (struct tensor){.device = layer->device, .dtype = DTYPE_F32, .rank = 1,
                                   .dim = {HEADS, 1, 1, 1}};
    void **room[] = {&layer->qkv.values, (void **)&layer->qkv.grad, &layer->slope.values};
    for (size_t i = 0; i < ARRAY_COUNT(room); i++)
        must(device_alloc(layer->device, 4 * (size_t)(i < 2 ? T * C : HEADS), room[i], &err), &err);
    layer->device->backend->zero(layer->device, layer->qkv.grad, 4 * (size_t)(T * C));
    rng_init(&rng, 1);
    for (int64_t i = 0; i < T * C; i++)
        host[i] = (float)(0.1 * rng_normal(&rng));
    for (int h = 0; h < HEADS; h++)
        slope[h] = 0.01f * (float)(h + 1);
    tensor_write(&layer->qkv, host);
    tensor_write(&layer->slope, slope);
    mem_free(host);
}

static void layer_close(struct layer *layer)
{
    size_t size_bytes = 4 * (size_t)tensor_count(&layer->qkv);

    device_release(layer->device, layer->qkv.values, size_bytes);
    device_release(layer->device, layer->qkv.grad, size_bytes);
    device_release(layer->device, layer->slope.values, 4 * HEADS);
    device_close(layer->device);
}

/* Forward and backward from a gradient of ones; processor seconds, the better of two. */
static double layer_time(struct layer *layer, bool lightning)
{
    int64_t rows = layer->T, columns = HEADS * WIDTH;
    float *ones = mem_array((size_t)(rows * columns), sizeof *ones);
    double best = 1e30;
    struct tape *tape;
    struct err err;

    for (int64_t i = 0; i < rows * columns; i++)
        ones[i] = 1;
    must(tape_new(layer->device, TAPE_TRAIN, &tape, &err), &err);
    for (int round = 0; round < 2; round++) {
        struct heads heads = {.heads = HEADS, .kv_heads = HEADS, .head_width = WIDTH};
        struct lightning light = {.H = HEADS, .dk = WIDTH, .e = WIDTH, .B = 1,
                                  .slope = &layer->slope};
        struct instant start;
        struct tensor *y;

        tape_reset(tape);
        start = instant_now();
        y = lightning ? op_lightning(tape, &layer->qkv, &light)
                      : op_attention(tape, &layer->qkv, NULL, heads, 1, layer->T);
        tape_seed(tape, y, ones);
        must(tape_backward(tape, &err), &err);
        start = instant_since(start);
        best = start.cpu_s < best ? start.cpu_s : best;
    }
    tape_free(tape);
    mem_free(ones);
    return best;
}

static void weigh(float *S, int64_t T, float slope)
{
    for (int64_t t = 0; t < T; t++)
        for (int64_t j = 0; j < T; j++)
            S[t * T + j] = j <= t ? S[t * T + j] * expf(-slope * (float)(t - j)) : 0;
}

static void product(bool at, bool bt, int64_t m, int64_t n, int64_t k, const float *a, int64_t lda,
                    const float *b, int64_t ldb, float *c, int64_t ldc)
{
    cblas_sgemm(CblasRowMajor, at ? CblasTrans : CblasNoTrans, bt ? CblasTrans : CblasNoTrans,
                (int)m, (int)n, (int)k, 1, a, (int)lda, b, (int)ldb, 0, c, (int)ldc);
}

/* The definition, by products over all pairs of tokens: forward and the three gradients. */
static double quadratic_time(const struct layer *layer)
{
    int64_t T = layer->T, C = 3 * HEADS * WIDTH, D = HEADS * WIDTH;
    float *S = mem_array((size_t)(T * T), 4), *G = mem_array((size_t)(T * T), 4);
    float *y = mem_array((size_t)(T * C), 4);
    struct instant start = instant_now();

    for (int64_t h = 0; h < HEADS; h++) {
        const float *q = tensor_f32(&layer->qkv) + h * WIDTH, *k = q + D, *v = k + D;
        float slope = tensor_f32(&layer->slope)[h];

        product(false, true, T, T, WIDTH, q, C, k, C, S, T);
        weigh(S, T, slope);
        product(false, false, T, WIDTH, T, S, T, v, C, y, C);
        product(false, true, T, T, WIDTH, q, C, v, C, G, T); /* q stands in for dy */
        weigh(G, T, slope);
        product(false, false, T, WIDTH, T, G, T, k, C, y, C);
        product(true, false, T, WIDTH, T, G, T, q, C, y + D, C);
        product(true, false, T, WIDTH, T, S, T, q, C, y + 2 * D, C);
    }
    start = instant_since(start);
    mem_free(S);
    mem_free(G);
    mem_free(y);
    return start.cpu_s;
}

static int attention(const struct device_config *config, int64_t length)
{
    if (length < 64 || length > 65536)
        return -1;
    for (int64_t T = length; T <= 8 * length; T *= 2) {
        struct layer layer;

        layer_open(&layer, config, T);
        double lightning_s = layer_time(&layer, true), own = (double)layer.device->peak_bytes;
        double quadratic_s = T <= 8192 ? quadratic_time(&layer) : 0;
        layer_close(&layer);
        layer_open(&layer, config, T);
        double softmax_s = layer_time(&layer, false);

        /* The scores of all heads are what plain attention would keep for backward. */
        printf("attention %lld softmax %.2f ms %.1f MiB scores %.1f MiB lightning %.2f ms %.1f MiB "
               "quadratic %.2f ms\n",
               (long long)T, 1e3 * softmax_s, (double)layer.device->peak_bytes / 1048576,
               4.0 * HEADS * (double)T * (double)T / 1048576, 1e3 * lightning_s, own / 1048576,
               1e3 * quadratic_s);
        fflush(stdout);
        layer_close(&layer);
    }
    return 0;
}

static int64_t number(const char *word)
{
    return strtoll(word, NULL, 10);
}

int main(int count, char **words)
{
    struct device_config config = {.kind = BACKEND_CPU};
    int rc = -1;

    if (count > 2 && strcmp(words[1], "--threads") == 0) {
        config.threads = (unsigned)number(words[2]);
        count -= 2;
        words += 2;
    }
    if (count == 5 && strcmp(words[1], "decode") == 0) {
        rc = decode(&config, words[2], number(words[3]), number(words[4]));
    } else if (count == 2 && strcmp(words[1], "memory") == 0) {
        rc = memory();
    } else if (count == 3 && strcmp(words[1], "attention") == 0) {
        rc = attention(&config, number(words[2]));
    }
    if (rc < 0)
        return fprintf(stderr, "usage: engine_bench [--threads N] decode NAME BATCH TOKENS | "
                               "attention 64..65536 | memory\n"), 2;
    return 0;
}
