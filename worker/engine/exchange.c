/* exchange.c - rows of experts between ranks: OP_EXCHANGE of every backend. Those with memory of
 * their own go through copies on the host, where MPI is.
 *
 * Rows that leave lie in order of experts, hence of the ranks that have them. Rows that arrive lie
 * in order of ranks, then experts; the products want experts, then ranks. The way back is the same
 * reversed, and so is each one's gradient. */
#include "worker/engine/builtin.h"
#include "worker/engine/comm.h"

#include "common/base/mem.h"

#include <string.h>

struct exchange {
    struct comm *comm;
    int ranks, rank;
    int64_t E, D, from, to; /* experts from..to-1 are here */
    const int32_t *counts;  /* (ranks, E) */
    int64_t *leave, *arrive; /* rows to and from each rank on the way out */
};

static int64_t sum_counts(const int32_t *counts, int64_t from, int64_t to)
{
    int64_t sum = 0;

    for (int64_t e = from; e < to; e++)
        sum += counts[e];
    return sum;
}

static void exchange_open(struct exchange *x, struct device *device, const struct op_call *call)
{
    *x = (struct exchange){.comm = device->comm, .ranks = device->comm ? device->comm->size : 1,
                           .rank = device->comm ? device->comm->rank : 0,
                           .D = tensor_columns(call->in[0]),
                           .counts = tensor_i32(call->in[1])};
    x->E = tensor_count(call->in[1]) / x->ranks;
    comm_share(x->E, x->ranks, x->rank, &x->from, &x->to);
    x->leave = mem_array(2 * (size_t)x->ranks, sizeof *x->leave);
    x->arrive = x->leave + x->ranks;
    for (int r = 0; r < x->ranks; r++) {
        int64_t from, to;

        comm_share(x->E, x->ranks, r, &from, &to);
        x->leave[r] = sum_counts(x->counts + x->rank * x->E, from, to);
        x->arrive[r] = sum_counts(x->counts + r * x->E, x->from, x->to);
    }
}

static void exchange_close(struct exchange *x)
{
    mem_free(x->leave);
}

/* Between the order of ranks, then experts, and the order of experts, then ranks. */
static void turn(const struct exchange *x, float *by_rank, float *by_expert, bool to_expert)
{
    for (int64_t e = x->from; e < x->to; e++)
        for (int r = 0; r < x->ranks; r++) {
            const int32_t *counts = x->counts + r * x->E;
            int64_t before = sum_counts(counts, x->from, e), rows = counts[e];
            float *one = by_rank + before * x->D;

            for (int s = 0; s < r; s++)
                one += x->arrive[s] * x->D;
            memcpy(to_expert ? by_expert : one, to_expert ? one : by_expert,
                   4 * (size_t)(rows * x->D));
            by_expert += rows * x->D;
        }
}

/* room: as many rows as are on the side of the experts. */
static void send_out(const struct exchange *x, const float *tokens, float *experts, float *room)
{
    comm_exchange_rows(x->comm, tokens, x->leave, room, x->arrive, x->D);
    turn(x, room, experts, true);
}

static void send_back(const struct exchange *x, const float *experts, float *tokens, float *room)
{
    turn(x, room, (float *)experts, false);
    comm_exchange_rows(x->comm, room, x->arrive, tokens, x->leave, x->D);
}

/* A gradient that comes, and the rows of the side of the experts, be it input or output. */
size_t exchange_scratch(const struct device *device, const struct op_call *call)
{
    uint64_t in = (uint64_t)tensor_count(call->in[0]), out = (uint64_t)tensor_count(call->out[0]);

    (void)device;
    return 4 * (in + max_u64(in, out));
}

void exchange_forward(struct device *device, const struct op_call *call)
{
    const float *from = tensor_f32(call->in[0]);
    float *to = tensor_f32(call->out[0]);
    struct exchange x;

    exchange_open(&x, device, call);
    if (call->whole[0]) {
        memset(to, 0, 4 * (size_t)tensor_count(call->out[0])); /* rows that nobody wanted */
        send_back(&x, from, to, device->scratch);
    } else {
        send_out(&x, from, to, device->scratch);
    }
    exchange_close(&x);
}

void exchange_backward(struct device *device, const struct op_call *call)
{
    const float *dy = call->out[0]->grad;
    float *dx = device_grad(device, call->in[0], NULL), *got = device->scratch;
    int64_t count = tensor_count(call->in[0]);
    struct exchange x;

    exchange_open(&x, device, call);
    memset(got, 0, 4 * (size_t)count);
    if (call->whole[0])
        send_out(&x, dy, got, got + count);
    else
        send_back(&x, dy, got, got + count);
    for (int64_t i = 0; i < count; i++)
        dx[i] += got[i];
    exchange_close(&x);
}

static float *host_array(const struct tensor *tensor)
{
    return mem_array((size_t)tensor_count(tensor), sizeof(float));
}

/* Runs a kernel of this file on host copies of the call's tensors. */
static void run_staged(struct device *device, const struct op_call *call, op_kernel kernel)
{
    struct device host = {.backend = &backend_reference, .comm = device->comm};
    struct tensor in = *call->in[0], counts = *call->in[1], out = *call->out[0];
    struct op_call staged = *call;

    staged.in[0] = &in;
    staged.in[1] = &counts;
    staged.out[0] = &out;
    in.values = host_array(&in);
    out.values = host_array(&out);
    in.grad = call->in[0]->grad ? host_array(&in) : NULL;
    out.grad = call->out[0]->grad ? host_array(&out) : NULL;
    counts.values = mem_array((size_t)tensor_count(&counts), sizeof(int32_t));
    host.scratch = mem_array(exchange_scratch(&host, call) + 1, 1);
    tensor_read(call->in[0], in.values);
    tensor_read(call->in[1], counts.values);
    if (out.grad)
        tensor_read_grad(call->out[0], out.grad);
    if (in.grad)
        tensor_read_grad(call->in[0], in.grad);
    kernel(&host, &staged);
    if (kernel == exchange_forward)
        tensor_write(call->out[0], out.values);
    else
        device->backend->from_host(device, device_grad(device, call->in[0], NULL), in.grad,
                                   4 * (size_t)tensor_count(&in));
    device->backend->finish(device);
    mem_free(host.scratch);
    mem_free(counts.values);
    mem_free(out.grad);
    mem_free(in.grad);
    mem_free(out.values);
    mem_free(in.values);
}

static void staged_forward(struct device *device, const struct op_call *call)
{
    run_staged(device, call, exchange_forward);
}

static void staged_backward(struct device *device, const struct op_call *call)
{
    run_staged(device, call, exchange_backward);
}

const struct op_kernels exchange_staged = {.forward = staged_forward, .backward = staged_backward};
