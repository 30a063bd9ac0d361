/* ops_test.c - runs the case table: backend against reference, gradients against central
 * differences, repeated runs bit for bit; with --bench, timing.
 *
 *   ops_test [--backend cpu|cuda] [--bf16] [--bench]
 *
 * Products and the head are run again with copies of their weights (worker/engine/packed.h), which
 * must give the same bits, and once more after the weights were written; in bf16 likewise with
 * rounded copies, which updates must keep true.
 *
 * Without --backend: each instruction set of the CPU backend that this machine runs, with 1
 * and 3 threads, and cuda where it can be opened. It needs no test library, so that it also
 * builds on a bare GPU machine (cuda.sh).
 *
 * With ATHANOR_CUDA_EMULATED it is ops-cuda_emulated_test instead: the same table for the kernels
 * of worker/engine/cuda, compiled for the host (tests/lib/cuda_host.h), in f32 and bf16, and some
 * training steps of small models on them. Without
 * ATHANOR_TEST_MODE=long cases of large arrays are left to the GPU and the long mode. */
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "worker/engine/builtin.h"
#include "worker/engine/cpu/kernels/kernels.h"
#include "worker/engine/loss.h"
#include "worker/engine/ops.h"
#include "worker/engine/optim.h"
#include "worker/engine/packed.h"
#include "worker/engine/rope.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum fill { NO_TENSOR = 0, NORMAL, POSITIVE, BELOW, DISTINCT, TARGET, DOCUMENT, DOCUMENT_END,
            STRETCH, ASCENDING, HOLES, APART, ANGLE, GRADIENT, OWN_FORM };

struct slot {
    enum fill fill;
    int rank;
    int64_t dim[3];
    int64_t limit;
};

struct test_case {
    enum op op;
    const char *label;
    double tolerance, difference_tolerance;
    int64_t whole[OP_WHOLES_MAX];
    double real[OP_REALS_MAX];
    struct slot in[OP_INPUTS_MAX];
    struct slot out[OP_OUTPUTS_MAX];
};

#define F1(n) {NORMAL, 1, {n}}
#define F2(r, c) {NORMAL, 2, {r, c}}
#define F3(a, b, c) {NORMAL, 3, {a, b, c}}
#define P1(n) {POSITIVE, 1, {n}}
#define I(n, most) {BELOW, 1, {n}, most}
#define UNIQUE(n, most) {DISTINCT, 1, {n}, most}
#define TARGETS(n, most) {TARGET, 1, {n}, most}
#define FIRST(B, T) {DOCUMENT, 2, {B, T}}
#define LAST(B, T) {DOCUMENT_END, 2, {B, T}}
#define BOUNDS(S, most) {STRETCH, 2, {S, 2}, most}
#define STARTS(n, most) {ASCENDING, 1, {n}, most}
#define SLOTS(n, most) {HOLES, 1, {n}, most}
#define SPREAD(r, c) {APART, 2, {r, c}}
#define TURNS(P, d) {ANGLE, 2, {P, d}}
#define KEEP(r, c) {GRADIENT, 2, {r, c}}
#define INNER(r, c) {OWN_FORM, 2, {r, c}}
#define NONE {NO_TENSOR, 0, {0}}
#define NOTHING NONE
#define LIST(...) {__VA_ARGS__}

#define CASE(op, label, tolerance, difference, wholes, reals, inputs, outputs) \
    {OP_##op, label, tolerance, difference, LIST wholes, LIST reals, LIST inputs, LIST outputs},
#define MORE CASE
#define BENCH(op, ...)
static const struct test_case cases[] = {
#include "tests/ops/cases.def"
};
#undef CASE
#undef MORE
#undef BENCH

#define CASE(...)
#define MORE(...)
#define BENCH(op, label, wholes, reals, inputs, outputs) \
    {OP_##op, label, 0, 0, LIST wholes, LIST reals, LIST inputs, LIST outputs},
#ifndef ATHANOR_CUDA_EMULATED
static const struct test_case benches[] = {
#include "tests/ops/cases.def"
};
#endif
#undef CASE
#undef BENCH

/* Each op has exactly one CASE: two would define the name twice, none would miss the count. */
#define CASE(op, ...) CASE_OF_##op,
#define BENCH(op, ...)
enum case_of {
#include "tests/ops/cases.def"
    CASE_OF_END
};
_Static_assert((int)CASE_OF_END == (int)OP_END, "every op has a line in cases.def");

static struct rng rng;
static int failures, checks;

static void fail(const char *where, const struct test_case *c, const char *what, double got,
                 double limit)
{
    fprintf(stderr, "not ok: %s: %s (%s): %s %.3g, expected at most %.3g\n", where,
            op_name(c->op), c->label, what, got, limit);
    failures++;
}

static int64_t slot_count(const struct slot *slot)
{
    int64_t count = 1;

    for (int i = 0; i < slot->rank; i++)
        count *= slot->dim[i];
    return count;
}

static bool slot_is_integer(const struct slot *slot)
{
    return slot->fill == BELOW || slot->fill == DISTINCT || slot->fill == TARGET ||
           slot->fill == DOCUMENT || slot->fill == DOCUMENT_END || slot->fill == STRETCH ||
           slot->fill == ASCENDING || slot->fill == HOLES;
}

static void fill_integers(const struct slot *slot, int32_t *out)
{
    int64_t count = slot_count(slot);

    for (int64_t i = 0; i < count; i++) {
        out[i] = slot->limit ? (int32_t)rng_below(&rng, (uint64_t)slot->limit) : 0;
        if (slot->fill == DISTINCT)
            out[i] = (int32_t)(i * 3 % slot->limit);
        if (slot->fill == TARGET && i % 7 == 3)
            out[i] = -1;
        if (slot->fill == DOCUMENT)
            out[i] = (int32_t)(i % slot->dim[1] / 23 * 23); /* documents of 23 tokens */
        if (slot->fill == DOCUMENT_END)
            out[i] = (int32_t)min_u64((uint64_t)(i % slot->dim[1] / 23 * 23 + 22),
                                      (uint64_t)slot->dim[1] - 1);
        if (slot->fill == ASCENDING)
            out[i] = (int32_t)(i * slot->limit / (count - 1));
        if (slot->fill == HOLES)
            out[i] = i % 5 == 3 ? -1 : (int32_t)(i * 3 % slot->limit);
        if (slot->fill == STRETCH) /* growing stretches with gaps, the last one empty */
            out[i] = (int32_t)(i / 2 * slot->limit / slot->dim[0] + i % 2 * (i / 2 + 1) -
                               (i == count - 1 ? i / 2 + 1 : 0));
    }
}

/* Elements that keep their speed, that lose some and that lose all of it; longer than 1. */
static const struct rope_scaling stretched = {
    .kind = ROPE_YARN, .factor = 4, .slow = 1, .fast = 8, .original = 100};

static void *fill_slot(const struct slot *slot)
{
    int64_t count = slot_count(slot);
    float *out = mem_array((size_t)count, 4);

    if (slot_is_integer(slot)) {
        fill_integers(slot, (int32_t *)out);
        return out;
    }
    if (slot->fill == ANGLE) {
        rope_turns(out, 0, slot->dim[0], slot->dim[1], 100, &stretched);
        return out;
    }
    for (int64_t i = 0; i < count; i++) {
        out[i] = (float)rng_normal(&rng);
        if (slot->fill == APART) /* no two of up to 13 columns are close */
            out[i] = 0.01f * out[i] +
                     0.31f * (float)((i % slot->dim[1] * 7 + i / slot->dim[1] * 5) % 13);
        if (slot->fill == POSITIVE)
            out[i] = fabsf(out[i]) + 0.1f;
    }
    return out;
}

/* One run's tensors on one device, from given host inputs. */
struct bench_call {
    struct device *device;
    struct op_call call;
    struct tensor in[OP_INPUTS_MAX], out[OP_OUTPUTS_MAX];
    bool in_own_form[OP_OUTPUTS_MAX]; /* outputs that are nobody else's business */
};

static void must(int rc, const struct err *err)
{
    if (rc == 0)
        return;
    fprintf(stderr, "ops_test: %s\n", err->text);
    exit(1);
}

static struct tensor make_tensor(struct device *device, const struct slot *slot, const void *host,
                                 bool with_grad)
{
    struct tensor tensor = {.device = device, .rank = slot->rank, .dim = {1, 1, 1, 1},
                            .dtype = slot_is_integer(slot) ? DTYPE_I32 : DTYPE_F32};
    size_t size_bytes = 4 * (size_t)slot_count(slot);
    void *memory;
    struct err err;

    for (int i = 0; i < slot->rank; i++)
        tensor.dim[i] = slot->dim[i];
    must(device_alloc(device, size_bytes, &tensor.values, &err), &err);
    if (host)
        tensor_write(&tensor, host);
    if (with_grad && tensor.dtype == DTYPE_F32) {
        must(device_alloc(device, size_bytes, &memory, &err), &err);
        tensor.grad = memory;
        tensor.wants_grad = true;
    }
    device->backend->finish(device);
    return tensor;
}

static void call_open(struct bench_call *b, struct device *device, const struct test_case *c,
                      void *const *host)
{
    struct err err;
    const struct op_kernels *kernels = &device->backend->ops[c->op];

    memset(b, 0, sizeof *b);
    b->device = device;
    b->call.op = c->op;
    memcpy(b->call.whole, c->whole, sizeof c->whole);
    memcpy(b->call.real, c->real, sizeof c->real);
    for (int i = 0; i < OP_INPUTS_MAX; i++) {
        bool differentiable = op_differentiable(c->op) &&
                              (c->in[i].fill == NORMAL || c->in[i].fill == APART) &&
                              !(c->op == OP_HEAD && i >= 3);

        if (c->in[i].fill == NO_TENSOR)
            continue;
        b->in[i] = make_tensor(device, &c->in[i], host[i], differentiable);
        b->call.in[i] = &b->in[i];
    }
    for (int i = 0; i < OP_OUTPUTS_MAX; i++) {
        if (c->out[i].fill == NO_TENSOR)
            continue;
        b->out[i] = make_tensor(device, &c->out[i], NULL, i == 0);
        b->call.out[i] = &b->out[i];
        b->in_own_form[i] = c->out[i].fill == OWN_FORM;
    }
    if (kernels->scratch)
        must(device_scratch_reserve(device, kernels->scratch(device, &b->call), &err), &err);
}

static void tensor_drop(struct device *device, struct tensor *tensor)
{
    size_t size_bytes = 4 * (size_t)(tensor->rank ? tensor_count(tensor) : 0);

    device_release(device, tensor->values, size_bytes);
    device_release(device, tensor->grad, size_bytes);
}

static void call_close(struct bench_call *b)
{
    b->device->backend->finish(b->device);
    for (int i = 0; i < OP_INPUTS_MAX; i++)
        tensor_drop(b->device, &b->in[i]);
    for (int i = 0; i < OP_OUTPUTS_MAX; i++)
        tensor_drop(b->device, &b->out[i]);
}

/* Sets what the gradients hold before backward: nothing, or `prior` to add to. */
static void set_prior(struct bench_call *b, float *const *prior)
{
    for (int i = 0; i < OP_INPUTS_MAX; i++) {
        if (!b->in[i].grad)
            continue;
        b->in[i].grad_ready = prior != NULL;
        if (prior)
            b->device->backend->from_host(b->device, b->in[i].grad, prior[i],
                                          4 * (size_t)tensor_count(&b->in[i]));
    }
}

static void call_run(struct bench_call *b, const float *dy)
{
    op_forward(b->device, &b->call);
    if (!op_differentiable(b->call.op))
        return;
    if (b->out[0].grad) {
        b->device->backend->from_host(b->device, b->out[0].grad, dy,
                                      4 * (size_t)tensor_count(&b->out[0]));
        b->out[0].grad_ready = true;
    }
    op_backward(b->device, &b->call);
}

/* Host copies of everything a call leaves behind: outputs, inputs, gradients, in one order. */
struct results {
    int count;
    int64_t size[OP_OUTPUTS_MAX + 2 * OP_INPUTS_MAX];
    float *values[OP_OUTPUTS_MAX + 2 * OP_INPUTS_MAX];
    bool integer[OP_OUTPUTS_MAX + 2 * OP_INPUTS_MAX];
    char name[OP_OUTPUTS_MAX + 2 * OP_INPUTS_MAX][16];
};

static float *results_add(struct results *r, const struct tensor *t, const char *what, int index)
{
    snprintf(r->name[r->count], sizeof r->name[0], "%s %d", what, index);
    r->size[r->count] = tensor_count(t);
    r->integer[r->count] = t->dtype == DTYPE_I32;
    r->values[r->count] = mem_array((size_t)tensor_count(t), 4);
    return r->values[r->count++];
}

static void results_read(const struct bench_call *b, struct results *r)
{
    r->count = 0;
    for (int i = 0; i < OP_OUTPUTS_MAX; i++)
        if (b->out[i].values && !b->in_own_form[i])
            tensor_read(&b->out[i], results_add(r, &b->out[i], "output", i));
    for (int i = 0; i < OP_INPUTS_MAX; i++) {
        if (!b->in[i].values)
            continue;
        tensor_read(&b->in[i], results_add(r, &b->in[i], "input", i));
        if (b->in[i].grad)
            tensor_read_grad(&b->in[i], results_add(r, &b->in[i], "gradient", i));
    }
}

static void results_free(struct results *r)
{
    for (int i = 0; i < r->count; i++)
        mem_free(r->values[i]);
    r->count = 0;
}

/* Largest difference over the largest reference value; NaN counts as infinite. */
static double distance(const float *got, const float *expected, int64_t count)
{
    double most = 0, scale = 1e-30;

    for (int64_t i = 0; i < count; i++) {
        double d = fabs((double)got[i] - expected[i]);

        if (!(d <= 1e300))
            return INFINITY;
        most = fmax(most, d);
        scale = fmax(scale, fabs((double)expected[i]));
    }
    return most / scale;
}

static void compare(const char *where, const struct test_case *c, const struct results *got,
                    const struct results *expected, double tolerance)
{
    for (int i = 0; i < expected->count; i++) {
        double d = distance(got->values[i], expected->values[i], expected->size[i]);

        if (expected->integer[i] && tolerance > 1e-2)
            continue; /* rounding may change which of two close tokens is likeliest */
        if (expected->integer[i])
            d = memcmp(got->values[i], expected->values[i], 4 * (size_t)expected->size[i]) != 0;
        checks++;
        if (!(d <= tolerance))
            fail(where, c, expected->name[i], d, tolerance);
    }
}

static bool same_bits(const struct results *a, const struct results *b)
{
    for (int i = 0; i < a->count; i++)
        if (memcmp(a->values[i], b->values[i], 4 * (size_t)a->size[i]) != 0)
            return false;
    return true;
}

struct inputs {
    void *host[OP_INPUTS_MAX];
    float *prior[OP_INPUTS_MAX];
    float *dy;
};

static void inputs_make(const struct test_case *c, struct inputs *inputs)
{
    memset(inputs, 0, sizeof *inputs);
    for (int i = 0; i < OP_INPUTS_MAX; i++) {
        struct slot prior = c->in[i];

        if (c->in[i].fill == NO_TENSOR)
            continue;
        inputs->host[i] = fill_slot(&c->in[i]);
        prior.fill = NORMAL;
        inputs->prior[i] = fill_slot(&prior);
    }
    if (c->out[0].fill != NO_TENSOR)
        inputs->dy = fill_slot(&c->out[0]);
}

static void inputs_free(struct inputs *inputs)
{
    for (int i = 0; i < OP_INPUTS_MAX; i++) {
        mem_free(inputs->host[i]);
        mem_free(inputs->prior[i]);
    }
    mem_free(inputs->dy);
}

static void run_once(struct device *device, const struct test_case *c, const struct inputs *inputs,
                     bool with_prior, struct results *out)
{
    struct bench_call b;

    call_open(&b, device, c, inputs->host);
    set_prior(&b, with_prior ? inputs->prior : NULL);
    call_run(&b, inputs->dy);
    results_read(&b, out);
    call_close(&b);
}

/* Whose operands bf16 rounds. */
static bool rounds(enum op op)
{
    return op == OP_LINEAR || op == OP_MLP || op == OP_ATTENTION || op == OP_ATTEND ||
           op == OP_HEAD;
}

/* Operands rounded to bf16 carry 2^-9 each; sums of them and what follows some times that. */
static double tolerance_of(const struct device *device, const struct test_case *c)
{
    return device->config.bf16 && rounds(c->op) ? 4e-2 : c->tolerance;
}

static void forward_again(struct bench_call *b, struct results *out)
{
    set_prior(b, NULL);
    for (int i = 0; i < OP_OUTPUTS_MAX; i++)
        if (b->out[i].values)
            b->device->backend->zero(b->device, b->out[i].values,
                                     4 * (size_t)tensor_count(&b->out[i]));
    op_forward(b->device, &b->call);
    results_read(b, out);
}

/* Whether the next product of so few rows reads a copy. */
static bool has_copy(const struct bench_call *b)
{
    const struct tensor *w = &b->in[1];

    return packed_find(b->device, w->values, tensor_rows(w), tensor_columns(w)) != NULL;
}

/* The same call without a copy of its weight, with one, and with one of a weight written since. */
static void check_packed(const char *where, struct device *device, const struct test_case *c,
                         const struct inputs *inputs)
{
    struct results plain = {0}, packed = {0}, anew = {0}, written = {0};
    struct bench_call b;
    float *w;

    if ((c->op != OP_LINEAR && c->op != OP_HEAD) || !device->backend->ops[OP_LINEAR].pack)
        return;
    call_open(&b, device, c, inputs->host);
    forward_again(&b, &plain);
    b.in[1].of_model = true;
    for (int use = 0; use < 9; use++)
        packed_use(device, &b.in[1], 1);
    checks += 5;
    if (!has_copy(&b) || packed_bytes(device) < 4 * (uint64_t)tensor_count(&b.in[1]))
        fail(where, c, "copies that are missing", 1, 0);
    forward_again(&b, &packed);
    if (!same_bits(&plain, &packed))
        fail(where, c, "bits that a copy changes", 1, 0);
    w = mem_array((size_t)tensor_count(&b.in[1]), sizeof *w);
    for (int64_t i = 0; i < tensor_count(&b.in[1]); i++)
        w[i] = -((const float *)inputs->host[1])[i];
    tensor_write(&b.in[1], w);
    if (has_copy(&b))
        fail(where, c, "copies of what was written since", 1, 0);
    forward_again(&b, &anew);
    for (int use = 0; use < 9; use++)
        packed_use(device, &b.in[1], 1);
    forward_again(&b, &written);
    if (!has_copy(&b) || !same_bits(&anew, &written) || same_bits(&plain, &anew))
        fail(where, c, "bits that a new copy changes", 1, 0);
    call_close(&b);
    if (packed_bytes(device) != 0)
        fail(where, c, "bytes of copies of what is gone", (double)packed_bytes(device), 0);
    mem_free(w);
    results_free(&plain);
    results_free(&packed);
    results_free(&anew);
    results_free(&written);
}

static bool rounds_weights(enum op op)
{
    return op == OP_LINEAR || op == OP_MLP || op == OP_HEAD;
}

static void run_again(struct bench_call *b, const struct inputs *inputs, struct results *out)
{
    set_prior(b, NULL);
    call_run(b, inputs->dy);
    results_read(b, out);
}

static void give_copy(struct bench_call *b, int weight)
{
    struct tensor *w = &b->in[weight];
    struct err err;

    w->of_model = true;
    must(packed_round(b->device, w, ROUNDED_ROWS * tensor_columns(w), &err), &err);
}

/* Products with a weight that has its copy in bf16: the bits that rounding at each use gives, also
 * after the weight was written. */
static void check_rounded(const char *where, struct device *device, const struct test_case *c,
                          struct inputs *inputs)
{
    struct results plain = {0}, copied = {0}, anew = {0}, written = {0};
    float *w = inputs->host[1];
    struct bench_call b, fresh;

    call_open(&b, device, c, inputs->host);
    run_again(&b, inputs, &plain);
    give_copy(&b, 1);
    run_again(&b, inputs, &copied);
    for (int64_t i = 0; i < tensor_count(&b.in[1]); i++)
        w[i] = -w[i];
    tensor_write(&b.in[1], w);
    run_again(&b, inputs, &written);
    call_close(&b);
    call_open(&fresh, device, c, inputs->host);
    run_again(&fresh, inputs, &anew);
    call_close(&fresh);
    checks += 3;
    if (!same_bits(&plain, &copied))
        fail(where, c, "bits that a rounded copy changes", 1, 0);
    if (!same_bits(&anew, &written) || same_bits(&plain, &anew))
        fail(where, c, "rounded copies of what was there before", 1, 0);
    if (device->rounded)
        fail(where, c, "rounded copies of what is gone", 1, 0);
    results_free(&plain);
    results_free(&copied);
    results_free(&anew);
    results_free(&written);
}

static uint16_t as_bf16(float v)
{
    uint32_t bits;

    memcpy(&bits, &v, sizeof bits);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* An update writes the weights and, in the same pass, their copy: here of all but the first ones,
 * since a model's weights are updated by stretches. */
static void check_updated(const char *where, struct device *device, const struct test_case *c,
                          const struct inputs *inputs)
{
    int64_t count = slot_count(&c->in[0]), from = 5;
    float *p = mem_array((size_t)count, sizeof *p);
    uint16_t *copy = mem_array((size_t)count, sizeof *copy);
    struct bench_call b;
    int wrong = 0;

    call_open(&b, device, c, inputs->host);
    give_copy(&b, 0);
    for (int i = 0; i < 4; i++) {
        b.in[i].dim[0] -= from;
        b.in[i].values = tensor_f32(&b.in[i]) + from;
    }
    op_forward(device, &b.call);
    for (int i = 0; i < 4; i++) {
        b.in[i].dim[0] += from;
        b.in[i].values = tensor_f32(&b.in[i]) - from;
    }
    tensor_read(&b.in[0], p);
    device->backend->to_host(device, copy, device->rounded->copy, sizeof *copy * (size_t)count);
    call_close(&b);
    for (int64_t i = 0; i < count; i++)
        wrong += copy[i] != as_bf16(p[i]);
    checks++;
    if (wrong > 0)
        fail(where, c, "weights whose rounded copy is not theirs", wrong, 0);
    mem_free(p);
    mem_free(copy);
}

static void check_copies(const char *where, struct device *device, const struct test_case *c,
                         struct inputs *inputs)
{
    check_packed(where, device, c, inputs);
    if (!device->config.bf16 || !device->backend->round)
        return;
    if (rounds_weights(c->op))
        check_rounded(where, device, c, inputs);
    if (c->op == OP_ADAMW)
        check_updated(where, device, c, inputs);
}

static void check_case(const char *where, struct device *device, struct device *reference,
                       const struct test_case *c)
{
    struct inputs inputs;
    struct results expected = {0}, got = {0}, again = {0};

    inputs_make(c, &inputs);
    for (int with_prior = 0; with_prior < 2; with_prior++) {
        run_once(reference, c, &inputs, with_prior, &expected);
        run_once(device, c, &inputs, with_prior, &got);
        run_once(device, c, &inputs, with_prior, &again);
        compare(where, c, &got, &expected, tolerance_of(device, c));
        checks++;
        if (!same_bits(&got, &again))
            fail(where, c, "runs that differ in their bits", 1, 0);
        results_free(&expected);
        results_free(&got);
        results_free(&again);
    }
    check_copies(where, device, c, &inputs);
    inputs_free(&inputs);
}

#ifndef ATHANOR_CUDA_EMULATED
/* sum dy * y, or for HEAD the weighted terms. */
static double objective(struct device *device, const struct test_case *c,
                        const struct inputs *inputs)
{
    struct bench_call b;
    int64_t count = slot_count(&c->out[0]);
    float *y = mem_array((size_t)count, 4), *kd = mem_array((size_t)count, 4);
    double sum = 0;

    call_open(&b, device, c, inputs->host);
    op_forward(device, &b.call);
    tensor_read(&b.out[0], y);
    if (c->op == OP_HEAD)
        tensor_read(&b.out[1], kd);
    if (c->op == OP_ROUTE) {
        float stats[ROUTE_STATS];

        tensor_read(&b.out[4], stats);
        sum += c->real[0] * stats[ROUTE_STAT_BALANCE] + c->real[1] * stats[ROUTE_STAT_Z];
    }
    for (int64_t i = 0; i < count; i++) {
        if (c->op != OP_HEAD)
            sum += (double)inputs->dy[i] * y[i];
        else if (inputs->host[6])
            sum += (double)((float *)inputs->host[3])[i] * y[i] +
                   (double)((float *)inputs->host[6])[i] * kd[i];
        else
            sum += (double)((float *)inputs->host[3])[i] * y[i];
    }
    call_close(&b);
    mem_free(y);
    mem_free(kd);
    return sum;
}

#define PROBES 6
#define STEP 4e-3f

static double probe(struct device *reference, const struct test_case *c, struct inputs *inputs,
                    int input, int64_t at)
{
    float *host = inputs->host[input], before = host[at];
    double up, down;
    volatile float high = before + STEP, low = before - STEP;

    host[at] = high;
    up = objective(reference, c, inputs);
    host[at] = low;
    down = objective(reference, c, inputs);
    host[at] = before;
    return (up - down) / ((double)high - low);
}

/* The reference's own gradients against differences of its forward pass. */
static void check_differences(struct device *reference, const struct test_case *c)
{
    struct inputs inputs;
    struct bench_call b;

    if (!op_differentiable(c->op) || slot_count(&c->in[0]) > 3000)
        return;
    inputs_make(c, &inputs);
    call_open(&b, reference, c, inputs.host);
    call_run(&b, inputs.dy);
    for (int i = 0; i < OP_INPUTS_MAX; i++) {
        int64_t count = slot_count(&c->in[i]);
        float *grad;
        double scale = 1e-3, most = 0;

        if (!b.in[i].grad)
            continue;
        grad = mem_array((size_t)count, 4);
        tensor_read_grad(&b.in[i], grad);
        for (int64_t k = 0; k < count; k++)
            scale = fmax(scale, fabs((double)grad[k]));
        for (int k = 0; k < PROBES; k++) {
            int64_t at = (int64_t)rng_below(&rng, (uint64_t)count);

            most = fmax(most, fabs(grad[at] - probe(reference, c, &inputs, i, at)));
        }
        checks++;
        if (!(most / scale <= c->difference_tolerance))
            fail("reference", c, "gradient against differences", most / scale,
                 c->difference_tolerance);
        mem_free(grad);
    }
    call_close(&b);
    inputs_free(&inputs);
}

#endif
static struct device *open_device(enum backend_kind kind, unsigned threads)
{
    struct device_config config = {.kind = kind, .threads = threads};
    struct device *device;
    struct err err;

    must(device_open(&config, &device, &err), &err);
    return device;
}

#ifdef ATHANOR_CUDA_EMULATED
#define LARGE 10000 /* numbers in an argument */

static bool is_long(void)
{
    const char *mode = getenv("ATHANOR_TEST_MODE");

    return mode && strcmp(mode, "long") == 0;
}

/* For the long mode: large arrays, and in bf16 ops that do the same as in f32. */
static bool is_left_out(const struct device *device, const struct test_case *c)
{
    bool large = device->config.bf16 && !rounds(c->op) && c->op != OP_ADAMW;

    for (int i = 0; i < OP_INPUTS_MAX; i++)
        large |= c->in[i].fill != NO_TENSOR && slot_count(&c->in[i]) > LARGE;
    return large && !is_long();
}
#else
static bool is_left_out(const struct device *device, const struct test_case *c)
{
    (void)device;
    (void)c;
    return false;
}
#endif

static void run_cases(const char *where, struct device *device)
{
    struct device *reference = open_device(BACKEND_REFERENCE, 1);

    rng_init(&rng, 11);
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        if (is_left_out(device, &cases[i]))
            printf("skipped: %s: %s (%s) in quick mode\n", where, op_name(cases[i].op),
                   cases[i].label);
        else if (device_supports(device, cases[i].op, false))
            check_case(where, device, reference, &cases[i]);
        else
            printf("skipped: %s: no %s (%s)\n", where, op_name(cases[i].op), cases[i].label);
    }
    device_close(reference);
}

#ifndef ATHANOR_CUDA_EMULATED
static double seconds_of(struct bench_call *b, bool backward)
{
    uint64_t best_us = UINT64_MAX;

    for (int round = 0; round < 5; round++) {
        uint64_t start_us = clock_steady_us();

        if (backward)
            op_backward(b->device, &b->call);
        else
            op_forward(b->device, &b->call);
        b->device->backend->finish(b->device);
        best_us = min_u64(best_us, clock_steady_us() - start_us);
    }
    return 1e-6 * (double)best_us;
}

static void bench_case(struct device *device, const struct test_case *c)
{
    struct inputs inputs;
    struct bench_call b;
    double forward, backward = 0;

    inputs_make(c, &inputs);
    call_open(&b, device, c, inputs.host);
    call_run(&b, inputs.dy);
    forward = seconds_of(&b, false);
    if (op_differentiable(c->op))
        backward = seconds_of(&b, true);
    printf("%-18s %-22s %10.3f %10.3f\n", op_name(c->op), c->label, 1e3 * forward, 1e3 * backward);
    call_close(&b);
    inputs_free(&inputs);
}

static void run_benches(const char *where, struct device *device)
{
    printf("%s, %u threads\n%-18s %-22s %10s %10s\n", where, device->config.threads, "op", "shape",
           "forward ms", "backward ms");
    rng_init(&rng, 12);
    for (size_t i = 0; i < ARRAY_COUNT(benches); i++)
        if (device_supports(device, benches[i].op, false))
            bench_case(device, &benches[i]);
}

#ifndef ATHANOR_WITHOUT_BLAS
/* The CPU backend with another set's kernels. */
static void run_set(const char *set, const struct op_kernels *ops)
{
    static const unsigned threads[] = {1, 3};

    for (size_t i = 0; i < ARRAY_COUNT(threads); i++) {
        struct device *device = open_device(BACKEND_CPU, threads[i]);
        struct backend variant = *device->backend;
        char where[40];

        variant.ops = ops;
        device->backend = &variant;
        snprintf(where, sizeof where, "cpu %s, threads %u", set, threads[i]);
        run_cases(where, device);
        device_close(device);
        printf("ok: %s\n", where);
    }
}

static void run_cpu(void)
{
    struct device *reference = open_device(BACKEND_REFERENCE, 1);

    rng_init(&rng, 10);
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++)
        check_differences(reference, &cases[i]);
    device_close(reference);
    run_set("base", cpu_ops_base);
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        run_set("avx2", cpu_ops_avx2);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl"))
        run_set("avx512", cpu_ops_avx512);
#endif
}

#else
static void run_cpu(void)
{
    printf("skipped: cpu: built without a BLAS\n");
}
#endif

static void run_cuda(bool demanded, bool bf16)
{
    struct device_config config = {.kind = BACKEND_CUDA, .threads = 1, .bf16 = bf16};
    struct err why;
    struct device *device;

    if (!backend_usable(BACKEND_CUDA, &why)) {
        printf("skipped: %s\n", why.text);
        failures += demanded;
        return;
    }
    must(device_open(&config, &device, &why), &why);
    run_cases(bf16 ? "cuda bf16" : "cuda", device);
    device_close(device);
}
int main(int count, char **words)
{
    enum backend_kind kind = BACKEND_CPU;
    bool bench = false, chosen = false, bf16 = false;
    struct err err;

    for (int i = 1; i < count; i++) {
        if (strcmp(words[i], "--bench") == 0) {
            bench = true;
        } else if (strcmp(words[i], "--bf16") == 0) {
            bf16 = true;
        } else if (strcmp(words[i], "--backend") == 0 && i + 1 < count) {
            must(backend_parse(words[++i], &kind, &err), &err);
            chosen = true;
        } else {
            fprintf(stderr, "usage: ops_test [--backend cpu|cuda] [--bf16] [--bench]\n");
            return 2;
        }
    }
    if (bench) {
        struct device_config config = {.kind = kind, .bf16 = bf16};
        struct device *device;

        must(device_open(&config, &device, &err), &err);
        run_benches(device->backend->name, device);
        device_close(device);
        return 0;
    }
    if (!chosen || kind == BACKEND_CPU)
        run_cpu();
    if (!chosen || kind == BACKEND_CUDA)
        run_cuda(chosen, bf16);
    printf("%d checks, %d failures\n", checks, failures);
    return failures != 0;
}

#else
#define STEPS 2
#define TRAINING_B 2
#define TRAINING_T 12

static const struct model_config trained[] = {
    {.family = MODEL_GPT2, .vocab_size = 61, .context = 16, .width = 32, .layers = 2, .heads = 4,
     .init_std = 0.2, .tied = true},
    {.family = MODEL_LLAMA, .vocab_size = 61, .context = 16, .width = 24, .layers = 2, .heads = 6,
     .kv_heads = 2, .head_width = 8, .ffn_width = 40, .init_std = 0.2},
};

static void training_step(struct model *model, struct optim *optim, struct tape *tape,
                          double *out_loss)
{
    int32_t token[TRAINING_B * TRAINING_T], target[TRAINING_B * TRAINING_T];
    float weight[TRAINING_B * TRAINING_T];
    struct model_batch batch = {.B = TRAINING_B, .T = TRAINING_T, .token = token};
    struct model_states states = {0};
    struct loss_values values = {0};
    struct loss_head loss = {.head = model->head, .target = target, .ce_weight = weight};
    double norm;
    struct err err;

    for (int i = 0; i < TRAINING_B * TRAINING_T; i++) {
        token[i] = i * 7 % 61;
        target[i] = i % 5 == 2 ? -1 : i * 11 % 61;
        weight[i] = 1.0f / (TRAINING_B * TRAINING_T);
    }
    tape_reset(tape);
    must(model_forward(tape, model, &batch, &states, &err), &err);
    loss.hidden = states.hidden;
    must(loss_head(tape, &loss, &values, &err), &err);
    must(tape_backward(tape, &err), &err);
    must(optim_step(optim, 5e-3, &norm, &err), &err);
    *out_loss = values.total;
}

/* How many of the model's weights have a rounded copy that is not theirs; -1: there is none. */
static int64_t untrue_copies(const struct model *model)
{
    struct device *device = model->device;
    const void *copy = rounded_find(device, model->flat.values, model->flat_count);
    size_t count = (size_t)model->flat_count;
    float *flat = mem_array(count, sizeof *flat);
    uint16_t *host = mem_array(count, sizeof *host);
    int64_t wrong = copy ? 0 : -1;

    tensor_read(&model->flat, flat);
    if (copy)
        device->backend->to_host(device, host, copy, count * sizeof *host);
    for (size_t i = 0; copy && i < count; i++)
        wrong += host[i] != as_bf16(flat[i]);
    mem_free(flat);
    mem_free(host);
    return wrong;
}

/* Losses of steps, and of one after a weight was written, which takes no new memory. */
static void train_small(struct device *device, const struct model_config *config, bool recompute,
                        double out_loss[STEPS + 1], int64_t *out_untrue, int64_t *out_grown)
{
    struct optim_config adamw = {.weight_decay = 0.1, .clip_norm = 1};
    struct model_weight *weight;
    struct model *model;
    struct optim *optim;
    struct tape *tape;
    uint64_t used;
    struct err err;
    float *host;

    must(model_new(device, config, 7, &model, &err), &err);
    must(optim_new(model, &adamw, &optim, &err), &err);
    must(tape_new(device, TAPE_TRAIN, &tape, &err), &err);
    tape_recompute(tape, recompute);
    *out_untrue = untrue_copies(model);
    for (int i = 0; i < STEPS; i++) {
        training_step(model, optim, tape, &out_loss[i]);
        *out_untrue += untrue_copies(model);
    }
    used = device->used_bytes;
    weight = &model->weight[model->weight_count / 2];
    host = mem_zalloc(4 * (size_t)tensor_count(&weight->tensor));
    model_weight_write(weight, host);
    *out_untrue += untrue_copies(model);
    training_step(model, optim, tape, &out_loss[STEPS]);
    *out_grown = (int64_t)(device->used_bytes - used);
    tape_free(tape);
    optim_free(optim);
    model_free(model);
    mem_free(host);
}

static void check_training(const char *where, struct device *device,
                           const struct model_config *config, bool recompute)
{
    struct device *reference = open_device(BACKEND_REFERENCE, 1);
    const struct test_case named = {.op = OP_ADAMW, .label = model_family_name(config->family)};
    double expected[STEPS + 1], loss[STEPS + 1], most = 0;
    double tolerance = device->config.bf16 ? 2e-2 : 2e-5;
    int64_t untrue, grown, ignored;

    train_small(reference, config, recompute, expected, &ignored, &ignored);
    train_small(device, config, recompute, loss, &untrue, &grown);
    for (int i = 0; i <= STEPS; i++)
        most = fmax(most, fabs(loss[i] / expected[i] - 1));
    checks += 3;
    if (!(most <= tolerance))
        fail(where, &named, "loss of a training step against the reference", most, tolerance);
    if (device->config.bf16 && untrue != 0)
        fail(where, &named, "weights whose rounded copy is not theirs", (double)untrue, 0);
    if (grown != 0)
        fail(where, &named, "bytes that steps take after the second", (double)grown, 0);
    device_close(reference);
}

/* As device_open, for a backend that is linked in. */
static void run_emulated(bool bf16)
{
    struct device *device = open_device(BACKEND_REFERENCE, 1);
    struct backend emulated = backend_cuda;
    const struct backend *opened = device->backend;
    struct op_kernels kernels[OP_END];
    const char *where = bf16 ? "cuda bf16, emulated" : "cuda, emulated";
    struct err err;

    memcpy(kernels, backend_cuda.ops, sizeof kernels);
    kernels[OP_EXCHANGE] = exchange_staged;
    emulated.ops = kernels;
    device->backend = &emulated;
    device->config.bf16 = bf16;
    must(emulated.open(device, &err), &err);
    run_cases(where, device);
    for (size_t i = 0; i < ARRAY_COUNT(trained); i++)
        for (int recompute = 0; recompute < 2; recompute++)
            if (is_long() || (bf16 && !recompute && i == 0))
                check_training(where, device, &trained[i], recompute);
    device_release(device, device->scratch, device->scratch_bytes);
    device->scratch = NULL;
    device->scratch_bytes = 0;
    emulated.close(device);
    device->backend = opened;
    device_close(device);
}

int main(void)
{
    run_emulated(false);
    run_emulated(true);
    printf("%d checks, %d failures\n", checks, failures);
    return failures != 0;
}
#endif
