/* ops_more.c - calls of the ops of experts and of linear attention; see ops.h. */
#include "worker/engine/comm.h"
#include "worker/engine/ops.h"

#include <math.h>

static struct tensor *run(struct tape *tape, struct op_call *call)
{
    if (!call->out[0])
        return NULL;
    tape_run(tape, call);
    return tape_failed(tape) ? NULL : call->out[0];
}

struct tensor *op_join(struct tape *tape, struct tensor *a, struct tensor *b, struct tensor *c)
{
    struct op_call call = {.op = OP_JOIN, .in = {a, b, c}};

    if (tape_failed(tape) || !a || !b)
        return NULL;
    CHECK(tensor_rows(a) == tensor_rows(b) && (!c || tensor_rows(a) == tensor_rows(c)));
    call.out[0] = tape_matrix(tape, tensor_rows(a), tensor_columns(a) + tensor_columns(b) +
                                                        (c ? tensor_columns(c) : 0));
    return run(tape, &call);
}

struct tensor *op_attend_cached(struct tape *tape, struct tensor *qkv,
                                const struct attend_cached *a)
{
    int64_t H = a->heads.heads, Hk = a->heads.kv_heads, d = a->heads.head_width;
    struct op_call call = {.op = OP_ATTEND_CACHED, .in = {qkv, a->start, a->k, a->v, a->bias},
                           .whole = {H, Hk, d, a->B, a->window}, .real = {a->scale}};

    if (tape_failed(tape) || !qkv || !a->start)
        return NULL;
    CHECK(tensor_columns(qkv) == (H + 2 * Hk) * d && H % Hk == 0);
    CHECK(tensor_count(a->start) == a->B && a->k->dim[0] == a->B && a->k->dim[2] == Hk * d);
    CHECK(!a->bias || tensor_columns(a->bias) == H);
    if (a->scale == 0)
        call.real[0] = 1 / sqrt((double)d);
    call.out[0] = tape_matrix(tape, tensor_rows(qkv), H * d);
    return run(tape, &call);
}

struct tensor *op_add_columns(struct tape *tape, struct tensor *a, struct tensor *b, int64_t from,
                              double factor)
{
    struct op_call call = {.op = OP_ADD_COLUMNS, .in = {a, b}, .whole = {from}, .real = {factor}};

    if (tape_failed(tape) || !a || !b)
        return NULL;
    CHECK(tensor_rows(a) == tensor_rows(b) && from >= 0 &&
          from + tensor_columns(b) <= tensor_columns(a));
    call.out[0] = tape_matrix(tape, tensor_rows(a), tensor_columns(a));
    return run(tape, &call);
}

struct tensor *op_dropout(struct tape *tape, struct tensor *x, double p, uint64_t seed,
                          uint64_t stream)
{
    struct op_call call = {.op = OP_DROPOUT, .in = {x},
                           .whole = {(int64_t)seed, (int64_t)stream}, .real = {p}};

    if (tape_failed(tape) || !x)
        return NULL;
    CHECK(p >= 0 && p < 1);
    if (p == 0)
        return x;
    call.out[0] = tape_tensor(tape, DTYPE_F32, x->rank, x->dim);
    return run(tape, &call);
}

/* f and P of all ranks in place of these tokens' own, and the numbers that follow from them. */
static void share_loads(struct tape *tape, struct comm *comm, struct route *route)
{
    int64_t E = route->experts;
    float *loads, stats[ROUTE_STATS], aux = 0, most = 0, least = 1;

    if (!comm || comm->size == 1)
        return;
    loads = tape_host(tape, 2 * E, sizeof *loads);
    tensor_read(route->loads, loads);
    tensor_read(route->stats, stats);
    comm_sum_f32(comm, loads, 2 * E);
    for (int64_t i = 0; i < 2 * E; i++)
        loads[i] /= (float)comm->size;
    for (int64_t i = 0; i < E; i++) {
        aux += (float)E * loads[i] * loads[E + i];
        most = fmaxf(most, loads[i]);
        least = fminf(least, loads[i]);
    }
    stats[ROUTE_STAT_BALANCE] = aux;
    stats[ROUTE_STAT_HIGHEST_LOAD] = most * (float)E;
    stats[ROUTE_STAT_LOWEST_LOAD] = least * (float)E;
    tensor_write(route->loads, loads);
    tensor_write(route->stats, stats);
}

bool op_route(struct tape *tape, struct tensor *logits, const struct route_config *config,
              struct route *out)
{
    struct op_call call = {.op = OP_ROUTE, .in = {logits},
                           .whole = {config->choices, config->mode, config->capacity,
                                     config->drop},
                           .real = {config->balance_weight, config->z_weight}};
    int64_t cells, starts, stats = ROUTE_STATS;

    if (tape_failed(tape) || !logits)
        return false;
    CHECK(config->choices >= 1 && config->choices <= ROUTE_CHOICES_MAX &&
          config->choices <= tensor_columns(logits));
    cells = tensor_rows(logits) * config->choices;
    starts = tensor_columns(logits) + 1;
    call.out[1] = tape_tensor(tape, DTYPE_I32, 1, &cells);
    call.out[2] = tape_tensor(tape, DTYPE_I32, 1, &cells);
    call.out[3] = tape_tensor(tape, DTYPE_I32, 1, &starts);
    call.out[4] = tape_tensor(tape, DTYPE_F32, 1, &stats);
    call.out[5] = tape_matrix(tape, 2, tensor_columns(logits));
    call.out[0] = tape_matrix(tape, tensor_rows(logits), config->choices);
    if (!run(tape, &call))
        return false;
    *out = (struct route){call.out[0], call.out[1], call.out[2], call.out[3], call.out[4],
                          call.out[5], starts - 1, config->choices};
    share_loads(tape, config->comm, out);
    return true;
}

struct tensor *op_dispatch(struct tape *tape, struct tensor *x, const struct route *route)
{
    struct op_call call = {.op = OP_DISPATCH, .in = {x, route->slot}, .whole = {route->choices}};

    if (tape_failed(tape) || !x)
        return NULL;
    CHECK(tensor_rows(x) * route->choices == tensor_count(route->slot));
    call.out[0] = tape_matrix(tape, tensor_count(route->slot), tensor_columns(x));
    return run(tape, &call);
}

struct tensor *op_experts(struct tape *tape, struct tensor *x, struct tensor *w,
                          const struct route *route)
{
    struct op_call call = {.op = OP_EXPERTS, .in = {x, w, route->starts},
                           .whole = {route->experts}};

    if (tape_failed(tape) || !x || !w)
        return NULL;
    CHECK(tensor_columns(x) == tensor_columns(w) && tensor_rows(w) % route->experts == 0);
    call.out[0] = tape_matrix(tape, tensor_rows(x), tensor_rows(w) / route->experts);
    return run(tape, &call);
}

struct tensor *op_combine(struct tape *tape, struct tensor *y, const struct route *route)
{
    struct op_call call = {.op = OP_COMBINE, .in = {y, route->slot, route->gate},
                           .whole = {route->choices}};

    if (tape_failed(tape) || !y)
        return NULL;
    CHECK(tensor_rows(y) == tensor_count(route->slot));
    call.out[0] = tape_matrix(tape, tensor_rows(y) / route->choices, tensor_columns(y));
    return run(tape, &call);
}

/* Rows of all ranks for the experts of one: where each expert's begin, and how many. */
static int64_t starts_here(const int32_t *counts, int64_t E, int ranks, int rank, int32_t *starts)
{
    int64_t from, to;
    int32_t next = 0;

    comm_share(E, ranks, rank, &from, &to);
    for (int64_t e = from; e < to; e++) {
        starts[e - from] = next;
        for (int r = 0; r < ranks; r++)
            next += counts[r * E + e];
    }
    starts[to - from] = next;
    return next;
}

bool op_spread(struct tape *tape, const struct route *route, struct spread *out)
{
    struct comm alone = {.size = 1}, *comm = tape_device(tape)->comm;
    int64_t E = route->experts, from, to, cells;
    int32_t *host, *counts;

    if (tape_failed(tape))
        return false;
    comm = comm ? comm : &alone;
    cells = E * comm->size;
    host = tape_host(tape, cells + 2 * E + 1, sizeof *host);
    counts = host + E + 1; /* behind the starts: this rank's counts, then all of them */
    tensor_read(route->starts, host);
    for (int64_t e = 0; e < E; e++)
        counts[e] = host[e + 1] - host[e];
    comm_gather_all(comm, counts, 4 * (size_t)E, counts + E);
    comm_share(E, comm->size, comm->rank, &from, &to);
    out->rows = starts_here(counts + E, E, comm->size, comm->rank, host);
    out->rows_back = tensor_count(route->slot);
    out->counts = tape_i32(tape, counts + E, cells);
    out->here = (struct route){.starts = tape_i32(tape, host, to - from + 1),
                               .experts = to - from, .choices = route->choices};
    return !tape_failed(tape);
}

struct tensor *op_exchange(struct tape *tape, struct tensor *x, const struct spread *spread,
                           bool back)
{
    struct op_call call = {.op = OP_EXCHANGE, .in = {x, spread->counts}, .whole = {back}};

    if (tape_failed(tape) || !x)
        return NULL;
    CHECK(tensor_rows(x) == (back ? spread->rows : spread->rows_back));
    call.out[0] = tape_matrix(tape, back ? spread->rows_back : spread->rows, tensor_columns(x));
    return run(tape, &call);
}

struct tensor *op_lightning(struct tape *tape, struct tensor *qkv, const struct lightning *l)
{
    struct op_call call = {.op = OP_LIGHTNING, .in = {qkv, l->slope, l->first},
                           .whole = {l->H, l->dk, l->e, l->B}};

    if (tape_failed(tape) || !qkv || !l->slope)
        return NULL;
    CHECK(tensor_columns(qkv) == l->H * (2 * l->dk + l->e) && tensor_count(l->slope) == l->H);
    CHECK(tensor_rows(qkv) % l->B == 0);
    call.out[0] = tape_matrix(tape, tensor_rows(qkv), l->H * l->e);
    return run(tape, &call);
}

struct tensor *op_lightning_step(struct tape *tape, struct tensor *qkv,
                                 const struct lightning *l, struct tensor *take,
                                 struct tensor *state)
{
    struct op_call call = {.op = OP_LIGHTNING_STEP, .in = {qkv, l->slope, take, state},
                           .whole = {l->H, l->dk, l->e, l->B}};

    if (tape_failed(tape) || !qkv || !l->slope || !take)
        return NULL;
    CHECK(tensor_columns(qkv) == l->H * (2 * l->dk + l->e) && tensor_count(take) == l->B);
    CHECK(tensor_count(state) == l->B * l->H * l->dk * l->e);
    call.out[0] = tape_matrix(tape, tensor_rows(qkv), l->H * l->e);
    return run(tape, &call);
}

struct tensor *op_lrpe(struct tape *tape, struct tensor *x, struct tensor *position,
                       struct tensor *theta, int64_t H, int64_t d, enum activation f)
{
    struct op_call call = {.op = OP_LRPE, .in = {x, theta ? position : NULL, theta},
                           .whole = {H, d, f}};

    if (tape_failed(tape) || !x || (theta && !position))
        return NULL;
    CHECK(tensor_columns(x) >= 3 * H * d && (!theta || tensor_count(theta) == H * d));
    CHECK(f == ACTIVATION_NONE || f == ACTIVATION_SILU || f == ACTIVATION_ELU1);
    call.out[0] = tape_matrix(tape, tensor_rows(x), H * d * (theta ? 5 : 3));
    return run(tape, &call);
}
