/* ops.c - each op as a call: checks shapes, makes outputs, hands it to the tape. */
#include "worker/engine/ops.h"

#include "worker/engine/packed.h"

#include <math.h>

/* True when the call must not go on: an input is missing because the tape has failed. */
static bool gone(const struct tape *tape, const struct tensor *a, const struct tensor *b)
{
    return tape_failed(tape) || !a || !b;
}

static struct tensor *run(struct tape *tape, struct op_call *call)
{
    if (!call->out[0])
        return NULL;
    tape_run(tape, call);
    return tape_failed(tape) ? NULL : call->out[0];
}

static struct tensor *like(struct tape *tape, const struct tensor *x)
{
    return tape_tensor(tape, DTYPE_F32, x->rank, x->dim);
}

struct tensor *op_embed(struct tape *tape, struct tensor *token, struct tensor *position,
                        struct tensor *wte, struct tensor *wpe)
{
    struct op_call call = {.op = OP_EMBED, .in = {token, wpe ? position : NULL, wte, wpe}};

    if (gone(tape, token, wte) || (wpe && !position))
        return NULL;
    CHECK(token->dtype == DTYPE_I32 && wte->rank == 2);
    CHECK(!wpe || (tensor_count(position) == tensor_count(token) &&
                   tensor_columns(wpe) == tensor_columns(wte)));
    call.out[0] = tape_matrix(tape, tensor_count(token), tensor_columns(wte));
    return run(tape, &call);
}

/* y and what the weight's adapters add: scale * (x a') b' in their rows of the weight. */
static struct tensor *adapted(struct tape *tape, struct tensor *x, const struct adapter *adapter,
                              struct tensor *y)
{
    for (; adapter; adapter = adapter->next)
        y = op_add_columns(tape, y,
                           op_linear(tape, op_linear(tape, x, adapter->a, NULL), adapter->b, NULL),
                           adapter->from, adapter->scale);
    return y;
}

struct tensor *op_linear(struct tape *tape, struct tensor *x, struct tensor *w, struct tensor *b)
{
    struct op_call call = {.op = OP_LINEAR, .in = {x, w, b}};

    if (gone(tape, x, w))
        return NULL;
    CHECK(tensor_columns(x) == tensor_columns(w));
    CHECK(!b || tensor_count(b) == tensor_rows(w));
    if (!tape_records(tape))
        packed_use(tape_device(tape), w, tensor_rows(x));
    call.out[0] = tape_matrix(tape, tensor_rows(x), tensor_rows(w));
    return adapted(tape, x, w->adapter, run(tape, &call));
}

static bool is_one_op(const struct device *device, const struct mlp *mlp)
{
    return device->config.bf16 && device_supports(device, OP_MLP, true) && !mlp->w1->adapter &&
           !mlp->w2->adapter;
}

/* Room for (rows, columns) numbers of the products' type. */
static struct tensor *operands(struct tape *tape, int64_t rows, int64_t columns)
{
    return tape_matrix(tape, rows, (columns + 1) / 2);
}

struct tensor *op_mlp(struct tape *tape, struct tensor *x, const struct mlp *mlp)
{
    struct op_call call = {.op = OP_MLP, .in = {x, mlp->w1, mlp->b1, mlp->w2, mlp->b2},
                           .whole = {mlp->gated}};
    int64_t rows;

    if (gone(tape, x, x))
        return NULL;
    if (!is_one_op(tape_device(tape), mlp)) {
        x = op_linear(tape, x, mlp->w1, mlp->b1);
        x = mlp->gated ? op_swiglu(tape, x) : op_gelu(tape, x);
        return op_linear(tape, x, mlp->w2, mlp->b2);
    }
    CHECK(tensor_columns(x) == tensor_columns(mlp->w1));
    CHECK(tensor_rows(mlp->w1) == (mlp->gated ? 2 : 1) * tensor_columns(mlp->w2));
    rows = tensor_rows(x);
    call.out[1] = operands(tape, rows, tensor_rows(mlp->w1));
    call.out[2] = operands(tape, rows, tensor_columns(mlp->w2));
    call.out[0] = tape_matrix(tape, rows, tensor_rows(mlp->w2));
    return run(tape, &call);
}

struct tensor *op_layernorm(struct tape *tape, struct tensor *x, struct tensor *g,
                            struct tensor *b, double eps)
{
    struct op_call call = {.op = OP_LAYERNORM, .in = {x, g, b}, .real = {eps}};
    int64_t rows;

    if (gone(tape, x, g) || !b)
        return NULL;
    CHECK(tensor_count(g) == tensor_columns(x) && tensor_count(b) == tensor_columns(x));
    rows = tensor_rows(x);
    call.out[1] = tape_tensor(tape, DTYPE_F32, 1, &rows);
    call.out[2] = tape_tensor(tape, DTYPE_F32, 1, &rows);
    call.out[0] = like(tape, x);
    return run(tape, &call);
}

struct tensor *op_rmsnorm(struct tape *tape, struct tensor *x, struct tensor *g, double eps)
{
    struct op_call call = {.op = OP_RMSNORM, .in = {x, g}, .real = {eps}};
    int64_t rows;

    if (gone(tape, x, g))
        return NULL;
    CHECK(tensor_count(g) == tensor_columns(x));
    rows = tensor_rows(x);
    call.out[1] = tape_tensor(tape, DTYPE_F32, 1, &rows);
    call.out[0] = like(tape, x);
    return run(tape, &call);
}

struct tensor *op_gelu(struct tape *tape, struct tensor *x)
{
    struct op_call call = {.op = OP_GELU, .in = {x}};

    if (gone(tape, x, x))
        return NULL;
    call.out[0] = like(tape, x);
    return run(tape, &call);
}

struct tensor *op_swiglu(struct tape *tape, struct tensor *x)
{
    struct op_call call = {.op = OP_SWIGLU, .in = {x}};

    if (gone(tape, x, x))
        return NULL;
    CHECK(tensor_columns(x) % 2 == 0);
    call.out[0] = tape_matrix(tape, tensor_rows(x), tensor_columns(x) / 2);
    return run(tape, &call);
}

struct tensor *op_add(struct tape *tape, struct tensor *a, struct tensor *b)
{
    struct op_call call = {.op = OP_ADD, .in = {a, b}};

    if (gone(tape, a, b))
        return NULL;
    CHECK(tensor_count(a) == tensor_count(b) && tensor_columns(a) == tensor_columns(b));
    call.out[0] = like(tape, a);
    return run(tape, &call);
}

struct tensor *op_softmax(struct tape *tape, struct tensor *x, double temperature)
{
    struct op_call call = {.op = OP_SOFTMAX, .in = {x}, .real = {temperature}};

    if (gone(tape, x, x))
        return NULL;
    CHECK(temperature > 0);
    call.out[0] = like(tape, x);
    return run(tape, &call);
}

static void check_heads(const struct tensor *qkv, struct heads heads)
{
    CHECK(heads.heads > 0 && heads.kv_heads > 0 && heads.heads % heads.kv_heads == 0);
    CHECK(tensor_columns(qkv) == (heads.heads + 2 * heads.kv_heads) * heads.head_width);
}

struct tensor *op_rope(struct tape *tape, struct tensor *qkv, struct tensor *position,
                       struct tensor *turns, struct heads heads)
{
    struct op_call call = {.op = OP_ROPE, .in = {qkv, position, turns},
                           .whole = {heads.heads, heads.kv_heads, heads.head_width}};

    if (gone(tape, qkv, position))
        return NULL;
    check_heads(qkv, heads);
    CHECK(heads.head_width % 2 == 0 && tensor_columns(turns) == heads.head_width);
    CHECK(tensor_count(position) == tensor_rows(qkv));
    call.out[0] = like(tape, qkv);
    return run(tape, &call);
}

struct tensor *op_attention(struct tape *tape, struct tensor *qkv, struct tensor *first,
                            struct heads heads, int64_t B, int64_t T)
{
    struct op_call call = {.op = OP_ATTENTION, .in = {qkv, first},
                           .whole = {heads.heads, heads.kv_heads, heads.head_width, B, T}};
    int64_t rows = B * T * heads.heads;

    if (gone(tape, qkv, qkv))
        return NULL;
    check_heads(qkv, heads);
    CHECK(tensor_rows(qkv) == B * T && (!first || tensor_count(first) == B * T));
    call.out[1] = tape_tensor(tape, DTYPE_F32, 1, &rows);
    call.out[0] = tape_matrix(tape, B * T, heads.heads * heads.head_width);
    return run(tape, &call);
}

struct tensor *op_attention_cached(struct tape *tape, struct tensor *qkv, struct tensor *start,
                                   struct tensor *k, struct tensor *v, struct heads heads,
                                   int64_t B, int64_t T)
{
    struct op_call call = {.op = OP_ATTENTION_CACHED, .in = {qkv, start, k, v},
                           .whole = {heads.heads, heads.kv_heads, heads.head_width, B}};

    if (gone(tape, qkv, start))
        return NULL;
    check_heads(qkv, heads);
    CHECK(tensor_rows(qkv) == B * T && tensor_count(start) == B && k->dim[0] == B);
    CHECK(k->dim[2] == heads.kv_heads * heads.head_width);
    call.out[0] = tape_matrix(tape, B * T, heads.heads * heads.head_width);
    return run(tape, &call);
}

static void check_attend(const struct tensor *x, const struct attend *a)
{
    int64_t q = a->heads.heads * a->heads.head_width;
    int64_t kv = 2 * a->heads.kv_heads * a->heads.head_width;

    CHECK(a->heads.kv_heads > 0 && a->heads.heads % a->heads.kv_heads == 0);
    CHECK(tensor_rows(x) == a->B * a->Tq && tensor_columns(x) == q + (a->kv ? 0 : kv));
    CHECK(a->kv || a->Tk == a->Tq);
    CHECK(!a->kv || (tensor_rows(a->kv) == a->B * a->Tk && tensor_columns(a->kv) == kv));
    CHECK(!a->first || tensor_count(a->first) == a->B * a->Tq);
    CHECK(!a->last || tensor_count(a->last) == a->B * a->Tq);
    CHECK(!a->bias || (tensor_rows(a->bias) == a->Tq + a->Tk - 1 &&
                       tensor_columns(a->bias) == a->heads.heads));
}

struct tensor *op_attend(struct tape *tape, struct tensor *x, const struct attend *a)
{
    struct op_call call = {.op = OP_ATTEND, .in = {x, a->kv, a->first, a->last, a->bias},
                           .whole = {a->heads.heads, a->heads.kv_heads, a->heads.head_width, a->B,
                                     a->Tq, a->Tk},
                           .real = {a->scale}};
    int64_t kept = a->B * a->Tq * a->heads.heads;

    if (gone(tape, x, x))
        return NULL;
    check_attend(x, a);
    if (a->scale == 0)
        call.real[0] = 1 / sqrt((double)a->heads.head_width);
    call.out[1] = tape_tensor(tape, DTYPE_F32, 1, &kept);
    call.out[0] = tape_matrix(tape, a->B * a->Tq, a->heads.heads * a->heads.head_width);
    return run(tape, &call);
}

struct tensor *op_activate(struct tape *tape, struct tensor *x, enum activation f)
{
    struct op_call call = {.op = OP_ACTIVATE, .in = {x}, .whole = {f}};

    if (gone(tape, x, x))
        return NULL;
    CHECK(f < ACTIVATION_END);
    call.out[0] = like(tape, x);
    return run(tape, &call);
}

struct tensor *op_glu(struct tape *tape, struct tensor *x, enum activation f)
{
    struct op_call call = {.op = OP_GLU, .in = {x}, .whole = {f}};

    if (gone(tape, x, x))
        return NULL;
    CHECK(f < ACTIVATION_END && tensor_columns(x) % 2 == 0);
    call.out[0] = tape_matrix(tape, tensor_rows(x), tensor_columns(x) / 2);
    return run(tape, &call);
}

struct tensor *op_mul(struct tape *tape, struct tensor *a, struct tensor *b)
{
    struct op_call call = {.op = OP_MUL, .in = {a, b}};

    if (gone(tape, a, b))
        return NULL;
    CHECK(tensor_count(a) == tensor_count(b) && tensor_columns(a) == tensor_columns(b));
    call.out[0] = like(tape, a);
    return run(tape, &call);
}

struct tensor *op_scale(struct tape *tape, struct tensor *x, double factor)
{
    struct op_call call = {.op = OP_SCALE, .in = {x}, .real = {factor}};

    if (gone(tape, x, x))
        return NULL;
    call.out[0] = like(tape, x);
    return run(tape, &call);
}

struct tensor *op_slice(struct tape *tape, struct tensor *x, int64_t from, int64_t count)
{
    struct op_call call = {.op = OP_SLICE, .in = {x}, .whole = {from}};

    if (gone(tape, x, x))
        return NULL;
    CHECK(from >= 0 && count > 0 && from + count <= tensor_columns(x));
    call.out[0] = tape_matrix(tape, tensor_rows(x), count);
    return run(tape, &call);
}

struct tensor *op_pool(struct tape *tape, struct tensor *x, struct tensor *bound)
{
    struct op_call call = {.op = OP_POOL, .in = {x, bound}};

    if (gone(tape, x, bound))
        return NULL;
    CHECK(bound->dtype == DTYPE_I32 && tensor_count(bound) % 2 == 0);
    call.out[0] = tape_matrix(tape, tensor_count(bound) / 2, tensor_columns(x));
    return run(tape, &call);
}

struct tensor *op_nll(struct tape *tape, struct tensor *x, struct tensor *target)
{
    struct op_call call = {.op = OP_NLL, .in = {x, target}};
    int64_t rows;

    if (gone(tape, x, target))
        return NULL;
    rows = tensor_rows(x);
    CHECK(target->dtype == DTYPE_I32 && tensor_count(target) == rows);
    call.out[1] = tape_tensor(tape, DTYPE_F32, 1, &rows);
    call.out[0] = tape_tensor(tape, DTYPE_F32, 1, &rows);
    return run(tape, &call);
}

struct tensor *op_gather(struct tape *tape, struct tensor *x, struct tensor *index)
{
    struct op_call call = {.op = OP_GATHER, .in = {x, index}};

    if (gone(tape, x, index))
        return NULL;
    CHECK(index->dtype == DTYPE_I32);
    call.out[0] = tape_matrix(tape, tensor_count(index), tensor_columns(x));
    return run(tape, &call);
}
