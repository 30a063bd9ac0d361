/* experts.c - the reference of routing tokens to experts and back. */
#include "worker/engine/reference/reference.h"

#include "worker/engine/ops.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct routing {
    int64_t N, E, k, mode, capacity, drop;
    const float *logits;
    float *gate, *stats, *loads; /* loads: f, then the means of probabilities */
    int32_t *expert, *slot, *starts;
};

static struct routing route_of(const struct op_call *call)
{
    struct routing r = {.N = tensor_rows(call->in[0]), .E = tensor_columns(call->in[0]),
                      .k = call->whole[0], .mode = call->whole[1], .capacity = call->whole[2],
                      .drop = call->whole[3], .logits = tensor_f32(call->in[0])};

    r.gate = tensor_f32(call->out[0]);
    r.expert = tensor_i32(call->out[1]);
    r.slot = tensor_i32(call->out[2]);
    r.starts = tensor_i32(call->out[3]);
    r.stats = tensor_f32(call->out[4]);
    r.loads = tensor_f32(call->out[5]);
    return r;
}

static double log_sum(const float *x, int64_t count)
{
    double highest = x[0], sum = 0;

    for (int64_t i = 1; i < count; i++)
        highest = fmax(highest, x[i]);
    for (int64_t i = 0; i < count; i++)
        sum += exp(x[i] - highest);
    return highest + log(sum);
}

/* The k highest logits of a row, highest first, the lower index of equal ones. */
static void choose(const struct routing *r, int64_t n)
{
    const float *x = r->logits + n * r->E;
    int32_t *expert = r->expert + n * r->k;

    for (int64_t j = 0; j < r->k; j++) {
        int32_t best = -1;

        for (int32_t i = 0; i < r->E; i++) {
            bool taken = false;

            for (int64_t m = 0; m < j; m++)
                taken |= expert[m] == i;
            if (!taken && (best < 0 || x[i] > x[best]))
                best = i;
        }
        expert[j] = best;
    }
}

static void gate_row(const struct routing *r, int64_t n)
{
    const float *x = r->logits + n * r->E;
    float chosen[ROUTE_CHOICES_MAX];
    double base;

    for (int64_t j = 0; j < r->k; j++)
        chosen[j] = x[r->expert[n * r->k + j]];
    base = r->mode == ROUTE_AFTER ? log_sum(chosen, r->k) : log_sum(x, r->E);
    for (int64_t j = 0; j < r->k; j++)
        r->gate[n * r->k + j] = (float)exp(chosen[j] - base);
}

/* Among the assignments of one expert, whether `a` goes before `b`. */
static bool goes_before(const struct routing *r, int64_t a, int64_t b)
{
    if (r->drop == ROUTE_DROP_WEAK && r->gate[a] != r->gate[b])
        return r->gate[a] > r->gate[b];
    return a < b;
}

/* slot = -1 for what is over the capacity; else rows by expert, then by token. */
static int64_t place(const struct routing *r)
{
    int64_t all = r->N * r->k, next = 0, dropped = 0;

    for (int64_t e = 0; e < r->E; e++) {
        r->starts[e] = (int32_t)next;
        for (int64_t a = 0; a < all; a++) {
            int64_t before = 0;

            if (r->expert[a] != e)
                continue;
            for (int64_t b = 0; r->capacity > 0 && b < all; b++)
                before += r->expert[b] == e && goes_before(r, b, a);
            if (r->capacity > 0 && before >= r->capacity) {
                r->slot[a] = -1;
                dropped++;
            } else {
                r->slot[a] = (int32_t)next++;
            }
        }
    }
    r->starts[r->E] = (int32_t)next;
    return dropped;
}

/* Share of the assignments that want expert i, before any are dropped. */
static double share(const struct routing *r, int64_t i)
{
    int64_t count = 0;

    for (int64_t a = 0; a < r->N * r->k; a++)
        count += r->expert[a] == i;
    return (double)count / (double)(r->N * r->k);
}

void reference_route_forward(struct device *device, const struct op_call *call)
{
    struct routing r = route_of(call);
    double aux = 0, z = 0, highest = 0, lowest = (double)r.E;

    (void)device;
    for (int64_t n = 0; n < r.N; n++) {
        double lse = log_sum(r.logits + n * r.E, r.E);

        choose(&r, n);
        gate_row(&r, n);
        z += lse * lse / (double)r.N;
    }
    for (int64_t i = 0; i < r.E; i++) {
        double f = share(&r, i), mean = 0;

        for (int64_t n = 0; n < r.N; n++)
            mean += exp(r.logits[n * r.E + i] - log_sum(r.logits + n * r.E, r.E)) / (double)r.N;
        aux += (double)r.E * f * mean;
        r.loads[i] = (float)f;
        r.loads[r.E + i] = (float)mean;
        highest = fmax(highest, f * (double)r.E);
        lowest = fmin(lowest, f * (double)r.E);
    }
    r.stats[ROUTE_STAT_BALANCE] = (float)aux;
    r.stats[ROUTE_STAT_Z] = (float)z;
    r.stats[ROUTE_STAT_HIGHEST_LOAD] = (float)highest;
    r.stats[ROUTE_STAT_LOWEST_LOAD] = (float)lowest;
    r.stats[ROUTE_STAT_DROPPED] = (float)((double)place(&r) / (double)(r.N * r.k));
}

/* Through the gates: after the choice g_j (gamma_j - sum g gamma) on the chosen; before it
 * p_i (dp_i - sum p dp) on all, dp being gamma on the chosen. */
static void gate_gradient(const struct routing *r, int64_t n, const float *gamma, double *out)
{
    const float *x = r->logits + n * r->E;
    double dot = 0, base = log_sum(x, r->E);

    for (int64_t j = 0; j < r->k; j++)
        dot += (double)r->gate[n * r->k + j] * gamma[j];
    for (int64_t i = 0; i < r->E; i++)
        out[i] = r->mode == ROUTE_AFTER ? 0 : -exp(x[i] - base) * dot;
    for (int64_t j = 0; j < r->k; j++)
        out[r->expert[n * r->k + j]] +=
            r->gate[n * r->k + j] * (gamma[j] - (r->mode == ROUTE_AFTER ? dot : 0));
}

void reference_route_backward(struct device *device, const struct op_call *call)
{
    struct routing r = route_of(call);
    float *dx = device_grad(device, call->in[0], NULL);
    double *row = device->scratch;

    for (int64_t n = 0; n < r.N; n++) {
        const float *x = r.logits + n * r.E;
        double lse = log_sum(x, r.E), mean = 0;

        gate_gradient(&r, n, call->out[0]->grad + n * r.k, row);
        for (int64_t i = 0; i < r.E; i++)
            mean += exp(x[i] - lse) * r.loads[i];
        for (int64_t i = 0; i < r.E; i++) {
            double p = exp(x[i] - lse);

            row[i] += call->real[0] * (double)r.E / (double)r.N * p * (r.loads[i] - mean);
            row[i] += call->real[1] * 2 / (double)r.N * lse * p;
            dx[n * r.E + i] += (float)row[i];
        }
    }
}

size_t reference_route_scratch(const struct device *device, const struct op_call *call)
{
    (void)device;
    return sizeof(double) * (size_t)tensor_columns(call->in[0]);
}

void reference_dispatch_forward(struct device *device, const struct op_call *call)
{
    int64_t D = tensor_columns(call->in[0]), k = call->whole[0];
    const int32_t *slot = tensor_i32(call->in[1]);
    float *y = tensor_f32(call->out[0]);

    (void)device;
    memset(y, 0, 4 * (size_t)tensor_count(call->out[0]));
    for (int64_t a = 0; a < tensor_count(call->in[1]); a++)
        for (int64_t i = 0; slot[a] >= 0 && i < D; i++)
            y[slot[a] * D + i] = tensor_f32(call->in[0])[a / k * D + i];
}

void reference_dispatch_backward(struct device *device, const struct op_call *call)
{
    int64_t D = tensor_columns(call->in[0]), k = call->whole[0];
    const int32_t *slot = tensor_i32(call->in[1]);
    float *dx = device_grad(device, call->in[0], NULL);

    for (int64_t a = 0; a < tensor_count(call->in[1]); a++)
        for (int64_t i = 0; slot[a] >= 0 && i < D; i++)
            dx[a / k * D + i] += call->out[0]->grad[slot[a] * D + i];
}

void reference_combine_forward(struct device *device, const struct op_call *call)
{
    int64_t D = tensor_columns(call->in[0]), k = call->whole[0];
    const int32_t *slot = tensor_i32(call->in[1]);

    (void)device;
    for (int64_t n = 0; n < tensor_rows(call->out[0]); n++)
        for (int64_t i = 0; i < D; i++) {
            double sum = 0;

            for (int64_t a = n * k; a < (n + 1) * k; a++)
                if (slot[a] >= 0)
                    sum += (double)tensor_f32(call->in[2])[a] *
                           tensor_f32(call->in[0])[slot[a] * D + i];
            tensor_f32(call->out[0])[n * D + i] = (float)sum;
        }
}

void reference_combine_backward(struct device *device, const struct op_call *call)
{
    int64_t D = tensor_columns(call->in[0]), k = call->whole[0];
    const int32_t *slot = tensor_i32(call->in[1]);
    float *dy = call->in[0]->grad ? device_grad(device, call->in[0], NULL) : NULL;
    float *dgate = call->in[2]->grad ? device_grad(device, call->in[2], NULL) : NULL;

    for (int64_t a = 0; a < tensor_count(call->in[1]); a++) {
        const float *d = call->out[0]->grad + a / k * D;
        double sum = 0;

        for (int64_t i = 0; slot[a] >= 0 && i < D; i++) {
            sum += (double)d[i] * tensor_f32(call->in[0])[slot[a] * D + i];
            if (dy)
                dy[slot[a] * D + i] += tensor_f32(call->in[2])[a] * d[i];
        }
        if (dgate)
            dgate[a] += (float)sum;
    }
}

void reference_experts_forward(struct device *device, const struct op_call *call)
{
    int64_t K = tensor_columns(call->in[0]), M = tensor_columns(call->out[0]);
    const int32_t *starts = tensor_i32(call->in[2]);
    float *y = tensor_f32(call->out[0]);

    (void)device;
    memset(y, 0, 4 * (size_t)tensor_count(call->out[0]));
    for (int64_t e = 0; e < call->whole[0]; e++)
        for (int64_t r = starts[e]; r < starts[e + 1]; r++)
            for (int64_t m = 0; m < M; m++) {
                double sum = 0;

                for (int64_t i = 0; i < K; i++)
                    sum += (double)tensor_f32(call->in[0])[r * K + i] *
                           tensor_f32(call->in[1])[(e * M + m) * K + i];
                y[r * M + m] = (float)sum;
            }
}

void reference_experts_backward(struct device *device, const struct op_call *call)
{
    int64_t K = tensor_columns(call->in[0]), M = tensor_columns(call->out[0]);
    const float *x = tensor_f32(call->in[0]), *w = tensor_f32(call->in[1]);
    const int32_t *starts = tensor_i32(call->in[2]);
    float *dx = call->in[0]->grad ? device_grad(device, call->in[0], NULL) : NULL;
    float *dw = call->in[1]->grad ? device_grad(device, call->in[1], NULL) : NULL;

    for (int64_t e = 0; e < call->whole[0]; e++)
        for (int64_t r = starts[e]; r < starts[e + 1]; r++)
            for (int64_t m = 0; m < M; m++) {
                float d = call->out[0]->grad[r * M + m];

                for (int64_t i = 0; i < K; i++) {
                    if (dx)
                        dx[r * K + i] += d * w[(e * M + m) * K + i];
                    if (dw)
                        dw[(e * M + m) * K + i] += d * x[r * K + i];
                }
            }
}
