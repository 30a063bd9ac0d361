/* head.c - the reference of the losses at the vocabulary head, one row at a time.
 *
 * The gradient of a divergence D on logits is u_k - q_k sum_j u_j with u_k = q_k dD/dq_k,
 * times tau (tau^2 of the loss over tau of the softmax). Derivations: each u below is
 * q times the derivative of the term, constants that cancel left out. */
#include "worker/engine/reference/reference.h"

#include "worker/engine/loss.h"

#include <math.h>
#include <string.h>

size_t reference_head_scratch(const struct device *device, const struct op_call *call)
{
    (void)device;
    return 4 * sizeof(double) * (size_t)tensor_rows(call->in[1]);
}

/* z[v] = x w_v, and the log-sum-exp of z / tau. */
static double logits(const float *x, const struct tensor *w, double tau, double *z)
{
    int64_t V = tensor_rows(w), D = tensor_columns(w);
    double highest = -INFINITY, sum = 0;

    for (int64_t v = 0; v < V; v++) {
        z[v] = 0;
        for (int64_t i = 0; i < D; i++)
            z[v] += (double)x[i] * tensor_f32(w)[v * D + i];
        highest = fmax(highest, z[v]);
    }
    for (int64_t v = 0; v < V; v++)
        sum += exp((z[v] - highest) / tau);
    return highest / tau + log(sum);
}

/* a log(a / b), where a = 0 counts nothing. */
static double term(double a, double b)
{
    return a > 0 ? a * log(a / b) : 0;
}

/* Adds one entry's part of the divergence; sets *u. */
static double entry(enum divergence kind, double b, double q, double p, double *u)
{
    double m = b * p + (1 - b) * q, ratio = q > 0 && p > 0 ? log(q / p) : 0;

    switch (kind) {
    case DIVERGENCE_FORWARD_KL:
        *u = -p;
        return -p * ratio;
    case DIVERGENCE_REVERSE_KL:
        *u = q * ratio;
        return q * ratio;
    case DIVERGENCE_JSD:
        *u = (1 - b) * term(q, m);
        return b * term(p, m) + (1 - b) * term(q, m);
    case DIVERGENCE_SKEW_FORWARD:
        *u = m > 0 ? -(1 - b) * q * p / m : 0;
        return term(p, m);
    case DIVERGENCE_SKEW_REVERSE:
        *u = term(q, m) + (m > 0 ? q - (1 - b) * q * q / m : 0);
        return term(q, m);
    case DIVERGENCE_TOTAL_VARIATION:
        *u = 0.5 * q * ((q > p) - (q < p));
        return 0.5 * fabs(q - p);
    case DIVERGENCE_NONE:
    case DIVERGENCE_END:
        break;
    }
    CHECK(!"divergence is known");
    return 0;
}

/* One row's workspace: z and zt hold logits, dz the gradient on z, u as above. */
struct row {
    double *z, *zt, *dz, *u;
};

static void ce_part(const struct op_call *call, int64_t n, double lse, struct row *r)
{
    int64_t V = tensor_rows(call->in[1]);
    int32_t target = tensor_i32(call->in[2])[n], best = 0;
    double weight = call->in[3] && target >= 0 ? tensor_f32(call->in[3])[n] : 0;

    for (int64_t v = 0; v < V; v++) {
        r->dz[v] = weight * (exp(r->z[v] - lse) - (v == target));
        best = r->z[v] > r->z[best] ? (int32_t)v : best;
    }
    tensor_f32(call->out[0])[n] = target >= 0 ? (float)(lse - r->z[target]) : 0;
    tensor_i32(call->out[2])[n] = best;
}

static void kd_part(const struct op_call *call, int64_t n, double lse, double lse_teacher,
                    struct row *r)
{
    int64_t V = tensor_rows(call->in[1]);
    double tau = call->real[0], loss = 0, sum = 0;
    double weight = call->in[6] ? tensor_f32(call->in[6])[n] : 0;

    for (int64_t v = 0; v < V; v++) {
        loss += entry((enum divergence)call->whole[0], call->real[1], exp(r->z[v] / tau - lse),
                      exp(r->zt[v] / tau - lse_teacher), &r->u[v]);
        sum += r->u[v];
    }
    for (int64_t v = 0; v < V; v++)
        r->dz[v] += weight * tau * (r->u[v] - exp(r->z[v] / tau - lse) * sum);
    tensor_f32(call->out[1])[n] = (float)(tau * tau * loss);
}

static void row_gradients(const struct op_call *call, int64_t n, const double *dz, float *dw)
{
    int64_t V = tensor_rows(call->in[1]), D = tensor_columns(call->in[1]);
    const float *x = tensor_f32(call->in[0]) + n * D;

    for (int64_t i = 0; i < D; i++) {
        double sum = 0;

        for (int64_t v = 0; v < V; v++) {
            sum += dz[v] * tensor_f32(call->in[1])[v * D + i];
            if (dw)
                dw[v * D + i] += (float)(dz[v] * x[i]);
        }
        if (call->out[3])
            tensor_f32(call->out[3])[n * D + i] = (float)sum;
    }
}

void reference_head_forward(struct device *device, const struct op_call *call)
{
    int64_t V = tensor_rows(call->in[1]), D = tensor_columns(call->in[1]);
    double *scratch = device->scratch, tau = call->real[0];
    struct row r = {scratch, scratch + V, scratch + 2 * V, scratch + 3 * V};
    bool trains = call->whole[1] != 0;
    float *dw = trains && call->in[1]->grad ? device_grad(device, call->in[1], NULL) : NULL;

    for (int64_t n = 0; n < tensor_rows(call->in[0]); n++) {
        const float *x = tensor_f32(call->in[0]) + n * D;

        ce_part(call, n, logits(x, call->in[1], 1, r.z), &r);
        tensor_f32(call->out[1])[n] = 0;
        if (call->in[4]) {
            const struct tensor *teacher = call->in[4];
            double lse = logits(x, call->in[1], tau, r.z);

            kd_part(call, n, lse,
                    logits(tensor_f32(teacher) + n * tensor_columns(teacher), call->in[5], tau,
                           r.zt), &r);
        }
        if (trains)
            row_gradients(call, n, r.dz, dw);
    }
}

void reference_head_backward(struct device *device, const struct op_call *call)
{
    struct tensor *hidden = call->in[0];
    float *grad;

    if (!hidden->grad)
        return;
    grad = device_grad(device, hidden, NULL);
    for (int64_t i = 0; i < tensor_count(hidden); i++)
        grad[i] += tensor_f32(call->out[3])[i];
}
