/* tape.c - the arena of a step and the record of its ops.
 *
 * Positions count bytes over all blocks, so a mark is one number. In backward each op's
 * output (values and gradient) is dead once its own backward has run, since all readers
 * came later in the record; its memory goes to a list that later gradients take from. With
 * recompute, forward gives to that list too, block by block, and takes from it. */
#include "worker/engine/tape.h"

#include "common/base/arena.h"
#include "common/base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define ALIGN_BYTES ((size_t)256) /* what GPU loads want; more than any host needs */
#define BLOCK_BYTES_LEAST ((size_t)1 << 20)
#define TENSORS_PER_CHUNK 256
#define SEED_FLOATS ((int64_t)1 << 20) /* of a gradient from outside at a time */

struct block {
    void *memory;
    size_t size_bytes;
    size_t base; /* position of its first byte */
};

struct spare {
    void *memory;
    size_t size_bytes;
};

/* Calls begin..end-1, whose outputs were given back in forward. */
struct segment {
    size_t begin, end;
};

struct tape {
    struct device *device;
    enum tape_mode mode;
    struct block *block;
    size_t block_count, block_capacity;
    size_t position;  /* next free byte */
    size_t high_water;
    struct tensor **chunk;
    size_t chunk_count, chunk_capacity;
    size_t tensor_count;
    struct op_call *call;
    size_t call_count, call_capacity;
    struct spare *spare;
    size_t spare_count, spare_capacity;
    struct arena host;
    bool recomputes;
    size_t marked; /* call_count at the last mark */
    struct segment *segment;
    size_t segment_count, segment_capacity;
    tape_watcher watcher; /* of the next backward */
    void *watcher_argument;
    bool failed;
    struct err failure;
};

int tape_new(struct device *device, enum tape_mode mode, struct tape **out, struct err *err)
{
    struct tape *tape;

    (void)err;
    CHECK(mode == TAPE_TRAIN || mode == TAPE_INFER);
    tape = mem_zalloc(sizeof *tape);
    tape->device = device;
    tape->mode = mode;
    *out = tape;
    return 0;
}

static void release_blocks(struct tape *tape)
{
    for (size_t i = 0; i < tape->block_count; i++)
        device_release(tape->device, tape->block[i].memory, tape->block[i].size_bytes);
    tape->block_count = 0;
}

void tape_free(struct tape *tape)
{
    if (!tape)
        return;
    tape->device->backend->finish(tape->device);
    release_blocks(tape);
    for (size_t i = 0; i < tape->chunk_count; i++)
        mem_free(tape->chunk[i]);
    mem_free(tape->chunk);
    mem_free(tape->block);
    mem_free(tape->call);
    mem_free(tape->spare);
    mem_free(tape->segment);
    arena_done(&tape->host);
    mem_free(tape);
}

void tape_fail(struct tape *tape, enum err_kind kind, const char *format, ...)
{
    char text[sizeof tape->failure.text];
    va_list list;

    if (tape->failed)
        return;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    tape->failed = true;
    err_set(&tape->failure, kind, "%s", text);
}

bool tape_failed(const struct tape *tape)
{
    return tape->failed;
}

int tape_check(const struct tape *tape, struct err *err)
{
    if (!tape->failed)
        return 0;
    *err = tape->failure;
    return -1;
}

static int add_block(struct tape *tape, size_t size_bytes, struct err *err)
{
    struct block *last = tape->block_count ? &tape->block[tape->block_count - 1] : NULL;
    struct block block = {.size_bytes = size_bytes,
                          .base = last ? last->base + last->size_bytes : 0};

    if (device_alloc(tape->device, size_bytes, &block.memory, err) < 0)
        return err_wrap(err, "activations of a step");
    VEC_RESERVE(tape->block, tape->block_count, tape->block_capacity);
    tape->block[tape->block_count++] = block;
    return 0;
}

/* Joins the blocks of a grown step into one, so that the next steps allocate nothing. */
static void join_blocks(struct tape *tape)
{
    struct err err;

    tape->device->backend->finish(tape->device);
    release_blocks(tape);
    if (add_block(tape, tape->high_water, &err) < 0)
        tape_fail(tape, err.kind, "%s", err.text);
}

void tape_reset(struct tape *tape)
{
    tape->failed = false;
    tape->position = 0;
    tape->tensor_count = 0;
    tape->call_count = 0;
    tape->spare_count = 0;
    tape->segment_count = 0;
    tape->watcher = NULL;
    arena_join(&tape->host);
    if (tape->block_count > 1)
        join_blocks(tape);
}

struct device *tape_device(const struct tape *tape)
{
    return tape->device;
}

bool tape_records(const struct tape *tape)
{
    return tape->mode == TAPE_TRAIN;
}

size_t tape_bytes(const struct tape *tape)
{
    size_t total = 0;

    for (size_t i = 0; i < tape->block_count; i++)
        total += tape->block[i].size_bytes;
    return total;
}

static size_t round_up(size_t size_bytes)
{
    return (size_bytes + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
}

/* Finds room at or after the position: in the block there, or the next that is large enough. */
static void *take_existing(struct tape *tape, size_t size_bytes)
{
    for (size_t i = 0; i < tape->block_count; i++) {
        struct block *block = &tape->block[i];
        size_t from = tape->position > block->base ? tape->position : block->base;

        if (from + size_bytes > block->base + block->size_bytes)
            continue;
        tape->position = from + size_bytes;
        return (char *)block->memory + (from - block->base);
    }
    return NULL;
}

static void *arena_take(struct tape *tape, size_t size_bytes)
{
    size_t rounded = round_up(size_bytes ? size_bytes : 1);
    void *memory = take_existing(tape, rounded);

    if (!memory) {
        size_t grown = max_u64(max_u64(rounded, tape_bytes(tape) / 4), BLOCK_BYTES_LEAST);
        struct err err;

        /* Growth ahead of need is a convenience: near the limit, take what is needed only. */
        if (add_block(tape, grown, &err) < 0 && add_block(tape, rounded, &err) < 0) {
            tape_fail(tape, err.kind, "%s", err.text);
            return NULL;
        }
        memory = take_existing(tape, rounded);
    }
    tape->high_water = max_u64(tape->high_water, tape->position);
    return memory;
}

static struct tensor *new_tensor(struct tape *tape)
{
    size_t chunk = tape->tensor_count / TENSORS_PER_CHUNK;
    struct tensor *tensor;

    if (chunk == tape->chunk_count) {
        VEC_RESERVE(tape->chunk, tape->chunk_count, tape->chunk_capacity);
        tape->chunk[tape->chunk_count++] = mem_array(TENSORS_PER_CHUNK, sizeof *tensor);
    }
    tensor = &tape->chunk[chunk][tape->tensor_count++ % TENSORS_PER_CHUNK];
    *tensor = (struct tensor){.device = tape->device};
    return tensor;
}

static void give_spare(struct tape *tape, void *memory, size_t size_bytes)
{
    VEC_RESERVE(tape->spare, tape->spare_count, tape->spare_capacity);
    tape->spare[tape->spare_count++] = (struct spare){memory, size_bytes};
}

/* The smallest spare that fits and is not twice too large; the newest of equals. */
static void *take_spare(struct tape *tape, size_t size_bytes)
{
    size_t best = SIZE_MAX;
    void *memory;

    for (size_t i = tape->spare_count; i-- > 0;) {
        size_t have = tape->spare[i].size_bytes;

        if (have >= size_bytes && have <= 2 * size_bytes &&
            (best == SIZE_MAX || have < tape->spare[best].size_bytes))
            best = i;
    }
    if (best == SIZE_MAX)
        return NULL;
    memory = tape->spare[best].memory;
    tape->spare[best] = tape->spare[--tape->spare_count];
    return memory;
}

static void *take_values(struct tape *tape, size_t size_bytes)
{
    void *memory = take_spare(tape, size_bytes);

    return memory ? memory : arena_take(tape, size_bytes);
}

struct tensor *tape_tensor(struct tape *tape, enum dtype dtype, int rank, const int64_t *dim)
{
    struct tensor *tensor;
    size_t size_bytes;

    CHECK(rank >= 1 && rank <= TENSOR_RANK_MAX);
    if (tape->failed)
        return NULL;
    tensor = new_tensor(tape);
    tensor->dtype = dtype;
    tensor->rank = rank;
    for (int i = 0; i < TENSOR_RANK_MAX; i++)
        tensor->dim[i] = i < rank ? dim[i] : 1;
    size_bytes = 4 * (size_t)tensor_count(tensor);
    tensor->values = (tape->recomputes ? take_values : arena_take)(tape, size_bytes);
    return tensor->values ? tensor : NULL;
}

struct tensor *tape_matrix(struct tape *tape, int64_t rows, int64_t columns)
{
    return tape_tensor(tape, DTYPE_F32, 2, (int64_t[]){rows, columns});
}

struct tensor *tape_i32(struct tape *tape, const int32_t *host, int64_t count)
{
    struct tensor *tensor = host ? tape_tensor(tape, DTYPE_I32, 1, &count) : NULL;

    if (tensor)
        tensor_write(tensor, host);
    return tensor;
}

struct tensor *tape_f32(struct tape *tape, const float *host, int64_t rows, int64_t columns)
{
    struct tensor *tensor = host ? tape_matrix(tape, rows, columns) : NULL;

    if (tensor)
        tensor_write(tensor, host);
    return tensor;
}

void *tape_host(struct tape *tape, int64_t count, size_t item_bytes)
{
    CHECK(count >= 0 && (size_t)count <= SIZE_MAX / 4 / item_bytes);
    return arena_alloc(&tape->host, (size_t)count * item_bytes);
}

void tape_recompute(struct tape *tape, bool blocks)
{
    CHECK(tape->mode == TAPE_TRAIN || !blocks);
    tape->recomputes = blocks;
}

size_t tape_mark(struct tape *tape)
{
    tape->marked = tape->call_count;
    return tape->position;
}

/* Routing is decided once a step: the ranks have summed its loads, its numbers are read after
 * forward, and rows travel as it says. Few numbers a token, so the block computed again takes the
 * same ways without asking anybody. */
static bool decides(const struct op_call *call)
{
    return call->op == OP_ROUTE;
}

/* What the block's ops made is given back, but for `keep` and decisions: backward makes it again.
 * What was written from the host, or is not recorded, stays. */
static void fold_block(struct tape *tape, const struct tensor *keep)
{
    struct segment segment = {tape->marked, tape->call_count};

    if (segment.begin == segment.end)
        return;
    for (size_t i = segment.begin; i < segment.end; i++) {
        for (int k = 0; k < OP_OUTPUTS_MAX && !decides(&tape->call[i]); k++) {
            struct tensor *tensor = tape->call[i].out[k];

            if (!tensor || tensor == keep)
                continue;
            give_spare(tape, tensor->values, 4 * (size_t)tensor_count(tensor));
            tensor->values = NULL;
        }
    }
    VEC_RESERVE(tape->segment, tape->segment_count, tape->segment_capacity);
    tape->segment[tape->segment_count++] = segment;
    tape->marked = tape->call_count;
}

struct tensor *tape_fold(struct tape *tape, size_t mark, struct tensor *keep)
{
    size_t size_bytes;
    void *memory;
    size_t position = tape->position;

    if (tape->recomputes && keep)
        fold_block(tape, keep);
    if (tape->mode == TAPE_TRAIN || !keep)
        return keep;
    size_bytes = 4 * (size_t)tensor_count(keep);
    tape->position = mark;
    memory = arena_take(tape, size_bytes);
    /* Regions that overlap cannot be copied in parallel; then nothing is given back. */
    if (!memory || ((char *)memory + size_bytes > (char *)keep->values &&
                    (char *)keep->values + size_bytes > (char *)memory)) {
        tape->position = position;
        return keep;
    }
    tape->device->backend->copy(tape->device, memory, keep->values, size_bytes);
    keep->values = memory;
    return keep;
}

static bool inputs_want_grad(const struct op_call *call)
{
    for (int i = 0; i < OP_INPUTS_MAX; i++)
        if (call->in[i] && call->in[i]->wants_grad)
            return true;
    return false;
}

static void record(struct tape *tape, struct op_call *call)
{
    if (tape->mode != TAPE_TRAIN || !op_differentiable(call->op) || !inputs_want_grad(call))
        return;
    call->out[0]->wants_grad = true;
    VEC_RESERVE(tape->call, tape->call_count, tape->call_capacity);
    tape->call[tape->call_count++] = *call;
}

void tape_run(struct tape *tape, struct op_call *call)
{
    const struct op_kernels *kernels = &tape->device->backend->ops[call->op];
    struct err err;

    if (tape->failed)
        return;
    if (!kernels->forward) {
        tape_fail(tape, ERR_INVALID, "the %s backend has no %s", tape->device->backend->name,
                  op_name(call->op));
        return;
    }
    if (kernels->scratch &&
        device_scratch_reserve(tape->device, kernels->scratch(tape->device, call), &err) < 0) {
        tape_fail(tape, err.kind, "%s: %s", op_name(call->op), err.text);
        return;
    }
    op_forward(tape->device, call);
    record(tape, call);
}

static bool give_grad(struct tape *tape, struct tensor *tensor)
{
    size_t size_bytes;

    if (!tensor || !tensor->wants_grad || tensor->grad)
        return true;
    size_bytes = 4 * (size_t)tensor_count(tensor);
    tensor->grad = take_values(tape, size_bytes);
    tensor->grad_ready = false;
    return tensor->grad != NULL;
}

void tape_seed(struct tape *tape, struct tensor *tensor, const float *host_grad)
{
    struct device *device = tape->device;
    int64_t count;
    float *sum;

    if (tape->failed || !tensor || !tensor->wants_grad || !give_grad(tape, tensor))
        return;
    count = tensor_count(tensor);
    if (!tensor->grad_ready) {
        device->backend->from_host(device, tensor->grad, host_grad, 4 * (size_t)count);
        tensor->grad_ready = true;
        return;
    }
    sum = tape_host(tape, count < SEED_FLOATS ? count : SEED_FLOATS, sizeof *sum);
    for (int64_t at = 0, part; at < count; at += part) {
        part = count - at < SEED_FLOATS ? count - at : SEED_FLOATS;
        device->backend->to_host(device, sum, tensor->grad + at, 4 * (size_t)part);
        for (int64_t i = 0; i < part; i++)
            sum[i] += host_grad[at + i];
        device->backend->from_host(device, tensor->grad + at, sum, 4 * (size_t)part);
    }
}

/* What all ranks do together, and what has a loss of its own, even if no other depends on it. */
static bool runs_anyway(const struct op_call *call)
{
    return call->op == OP_EXCHANGE ||
           (call->op == OP_ROUTE && (call->real[0] != 0 || call->real[1] != 0));
}

static bool give_zeros(struct tape *tape, struct tensor *tensor)
{
    if (!give_grad(tape, tensor))
        return false;
    device_grad(tape->device, tensor, NULL);
    return true;
}

/* The outputs of a finished call are dead, unless they are inputs of the caller's making. */
static void reclaim(struct tape *tape, const struct op_call *call)
{
    for (int i = 0; i < OP_OUTPUTS_MAX; i++) {
        struct tensor *tensor = call->out[i];

        if (!tensor)
            continue;
        give_spare(tape, tensor->values, 4 * (size_t)tensor_count(tensor));
        if (tensor->grad)
            give_spare(tape, tensor->grad, 4 * (size_t)tensor_count(tensor));
        tensor->values = NULL;
        tensor->grad = NULL;
    }
}

const struct op_call *tape_calls(const struct tape *tape, size_t *out_count)
{
    *out_count = tape->call_count;
    return tape->call;
}

void tape_watch(struct tape *tape, tape_watcher watcher, void *argument)
{
    tape->watcher = watcher;
    tape->watcher_argument = argument;
}

/* Whether an output is missing; they are made where they are. */
static bool make_outputs(struct tape *tape, struct op_call *call)
{
    bool missing = false;

    for (int k = 0; k < OP_OUTPUTS_MAX; k++) {
        struct tensor *tensor = call->out[k];

        if (!tensor || tensor->values)
            continue;
        tensor->values = take_values(tape, 4 * (size_t)tensor_count(tensor));
        missing = true;
    }
    return missing;
}

/* Before the last call of a folded block: its forward again. Scratch was reserved then. */
static void unfold_block(struct tape *tape, size_t last)
{
    struct segment segment;

    if (tape->segment_count == 0)
        return;
    segment = tape->segment[tape->segment_count - 1];
    if (segment.end != last + 1)
        return;
    tape->segment_count--;
    for (size_t i = segment.begin; i < segment.end; i++) {
        bool missing = make_outputs(tape, &tape->call[i]);

        if (tape->failed)
            return;
        if (missing)
            op_forward(tape->device, &tape->call[i]);
    }
}

int tape_backward(struct tape *tape, struct err *err)
{
    CHECK(tape->mode == TAPE_TRAIN);
    for (size_t i = tape->call_count; i-- > 0 && !tape->failed;) {
        struct op_call *call = &tape->call[i];

        unfold_block(tape, i);
        if (tape->failed)
            break;
        /* A HEAD that was asked for values only (loss_nll) starts no gradient. */
        bool reached = call->op == OP_HEAD ? call->whole[1] != 0 : call->out[0]->grad_ready;

        if (!reached && runs_anyway(call))
            reached = give_zeros(tape, call->out[0]);
        for (int k = 0; reached && k < OP_INPUTS_MAX; k++)
            if (!give_grad(tape, call->in[k]))
                break;
        if (tape->failed)
            break;
        if (reached)
            op_backward(tape->device, call);
        reclaim(tape, call);
        if (tape->watcher)
            tape->watcher(tape->watcher_argument, i);
    }
    tape->watcher = NULL;
    tape->call_count = 0;
    return tape_check(tape, err);
}
