/* loss.c - prepares HEAD calls, and the scalar parts of unlearning losses.
 *
 * Rows without a target and without a divergence weight cost a row of the largest product
 * for nothing; when any exist, the others are gathered first. */
#include "worker/engine/loss.h"

#include "worker/engine/ops.h"
#include "worker/engine/packed.h"

#include <math.h>
#include <string.h>

static const char *const divergence_names[DIVERGENCE_END] = {
    [DIVERGENCE_NONE] = "none",        [DIVERGENCE_FORWARD_KL] = "fkl",
    [DIVERGENCE_REVERSE_KL] = "rkl",   [DIVERGENCE_JSD] = "jsd",
    [DIVERGENCE_SKEW_FORWARD] = "sfkl", [DIVERGENCE_SKEW_REVERSE] = "srkl",
    [DIVERGENCE_TOTAL_VARIATION] = "tv"};

int divergence_parse(const char *name, enum divergence *out, struct err *err)
{
    for (int i = 0; i < DIVERGENCE_END; i++) {
        if (strcmp(divergence_names[i], name) == 0) {
            *out = (enum divergence)i;
            return 0;
        }
    }
    return err_set(err, ERR_INVALID,
                   "divergence '%s' is unknown, expected none, fkl, rkl, jsd, sfkl, srkl or tv",
                   name);
}

const char *divergence_name(enum divergence divergence)
{
    CHECK(divergence < DIVERGENCE_END);
    return divergence_names[divergence];
}

static int check_loss(const struct loss_head *loss, struct err *err)
{
    int64_t N = tensor_rows(loss->hidden), V = tensor_rows(loss->head);

    CHECK(tensor_columns(loss->hidden) == tensor_columns(loss->head));
    CHECK(loss->divergence == DIVERGENCE_NONE ||
          (loss->teacher_hidden && loss->teacher_head && loss->kd_weight));
    for (int64_t n = 0; n < N; n++)
        if (loss->target[n] < -1 || loss->target[n] >= V)
            return err_set(err, ERR_INVALID, "target %d in row %lld, expected -1..%lld",
                           (int)loss->target[n], (long long)n, (long long)V - 1);
    if (loss->divergence == DIVERGENCE_NONE)
        return 0;
    if (tensor_rows(loss->teacher_head) != V)
        return err_set(err, ERR_INVALID,
                       "the teacher has %lld tokens, the student %lld: their vocabularies "
                       "must be the same",
                       (long long)tensor_rows(loss->teacher_head), (long long)V);
    CHECK(tensor_rows(loss->teacher_hidden) == N);
    return 0;
}

/* The rows that matter, and what goes with them; index is NULL when all do. */
struct chosen {
    int64_t count;
    int32_t *index;
    int32_t *target;
    float *ce_weight, *kd_weight;
};

static bool row_counts(const struct loss_head *loss, int64_t n)
{
    return loss->target[n] >= 0 || (loss->divergence && loss->kd_weight[n] != 0);
}

static void choose_rows(struct tape *tape, const struct loss_head *loss, struct chosen *chosen)
{
    int64_t N = tensor_rows(loss->hidden);

    *chosen = (struct chosen){.index = tape_host(tape, N, 4), .target = tape_host(tape, N, 4),
                              .ce_weight = tape_host(tape, N, 4),
                              .kd_weight = tape_host(tape, N, 4)};
    for (int64_t n = 0; n < N; n++) {
        int64_t at = chosen->count;

        if (!row_counts(loss, n))
            continue;
        chosen->index[at] = (int32_t)n;
        chosen->target[at] = loss->target[n];
        chosen->ce_weight[at] = loss->ce_weight ? loss->ce_weight[n] : 0;
        chosen->kd_weight[at] = loss->divergence ? loss->kd_weight[n] : 0;
        chosen->count++;
    }
}

static struct tensor *pick(struct tape *tape, struct tensor *x, const struct chosen *chosen)
{
    if (chosen->count == tensor_rows(x))
        return x;
    return op_gather(tape, x, tape_i32(tape, chosen->index, chosen->count));
}

static void fill_call(struct tape *tape, const struct loss_head *loss, const struct chosen *chosen,
                      struct op_call *call)
{
    bool train = tape_records(tape) &&
                 (loss->hidden->wants_grad || loss->head->wants_grad) &&
                 (loss->ce_weight || loss->divergence);
    double temperature = loss->temperature > 0 ? loss->temperature : 1;

    *call = (struct op_call){.op = OP_HEAD, .whole = {loss->divergence, train},
                             .real = {temperature, loss->beta}};
    call->in[0] = pick(tape, loss->hidden, chosen);
    call->in[1] = loss->head;
    if (call->in[0] && !tape_records(tape))
        packed_use(tape_device(tape), loss->head, tensor_rows(call->in[0]));
    call->in[2] = tape_i32(tape, chosen->target, chosen->count);
    call->in[3] = tape_f32(tape, chosen->ce_weight, 1, chosen->count);
    if (loss->divergence) {
        call->in[4] = pick(tape, loss->teacher_hidden, chosen);
        call->in[5] = loss->teacher_head;
        call->in[6] = tape_f32(tape, chosen->kd_weight, 1, chosen->count);
    }
    call->out[0] = tape_tensor(tape, DTYPE_F32, 1, &chosen->count);
    call->out[1] = tape_tensor(tape, DTYPE_F32, 1, &chosen->count);
    call->out[2] = tape_tensor(tape, DTYPE_I32, 1, &chosen->count);
    if (train && loss->hidden->wants_grad)
        call->out[3] = tape_matrix(tape, chosen->count, tensor_columns(loss->hidden));
}

/* Sums the terms in row order and spreads per-row results to where they were gathered from. */
static void read_values(struct tape *tape, const struct op_call *call,
                        const struct loss_head *loss, const struct chosen *chosen,
                        struct loss_values *values)
{
    size_t N = (size_t)tensor_rows(loss->hidden);
    float *nll = tape_host(tape, chosen->count, 4), *kd = tape_host(tape, chosen->count, 4);
    int32_t *argmax = tape_host(tape, chosen->count, 4);

    tensor_read(call->out[0], nll);
    tensor_read(call->out[1], kd);
    tensor_read(call->out[2], argmax);
    if (values->nll)
        memset(values->nll, 0, 4 * N);
    if (values->kd)
        memset(values->kd, 0, 4 * N);
    if (values->argmax)
        memset(values->argmax, 0xff, 4 * N);
    for (int64_t i = 0; i < chosen->count; i++) {
        if (chosen->target[i] >= 0)
            values->total += (double)chosen->ce_weight[i] * nll[i];
        values->total += (double)chosen->kd_weight[i] * kd[i];
        if (values->nll)
            values->nll[chosen->index[i]] = nll[i];
        if (values->kd)
            values->kd[chosen->index[i]] = kd[i];
        if (values->argmax)
            values->argmax[chosen->index[i]] = argmax[i];
    }
}

static void empty_values(const struct loss_head *loss, struct loss_values *values)
{
    size_t N = (size_t)tensor_rows(loss->hidden);

    if (values->nll)
        memset(values->nll, 0, 4 * N);
    if (values->kd)
        memset(values->kd, 0, 4 * N);
    if (values->argmax)
        memset(values->argmax, 0xff, 4 * N);
}

int loss_head(struct tape *tape, const struct loss_head *loss, struct loss_values *values,
              struct err *err)
{
    struct chosen chosen = {0};
    struct op_call call;

    if (tape_check(tape, err) < 0)
        return -1;
    if (check_loss(loss, err) < 0)
        return -1;
    choose_rows(tape, loss, &chosen);
    values->total = 0;
    if (chosen.count == 0) {
        empty_values(loss, values);
        return 0;
    }
    fill_call(tape, loss, &chosen, &call);
    if (!tape_failed(tape))
        tape_run(tape, &call);
    if (tape_check(tape, err) < 0)
        return -1;
    read_values(tape, &call, loss, &chosen, values);
    return 0;
}

int loss_nll(struct tape *tape, struct tensor *hidden, struct tensor *head, const int32_t *target,
             float *out_nll, struct err *err)
{
    struct loss_head loss = {.hidden = hidden, .head = head, .target = target};
    struct loss_values values = {.nll = out_nll};

    return loss_head(tape, &loss, &values, err);
}

void loss_sequences(const float *nll, const int32_t *target, int64_t B, int64_t T,
                    double *out_nll_sum, int64_t *out_count)
{
    for (int64_t b = 0; b < B; b++) {
        out_nll_sum[b] = 0;
        out_count[b] = 0;
        for (int64_t n = b * T; n < (b + 1) * T; n++) {
            if (target[n] < 0)
                continue;
            out_nll_sum[b] += nll[n];
            out_count[b]++;
        }
    }
}

/* log sigmoid(x) and sigmoid(x) without overflow on either side. */
static double log_sigmoid(double x)
{
    return x >= 0 ? -log1p(exp(-x)) : x - log1p(exp(x));
}

double loss_npo_weight(double nll, double reference_nll, double beta)
{
    return 2 * exp(log_sigmoid(-beta * (nll - reference_nll)));
}

double loss_npo_value(double nll, double reference_nll, double beta)
{
    return -2 / beta * log_sigmoid(beta * (nll - reference_nll));
}

double loss_simnpo_weight(double nll, int64_t count, double beta, double delta)
{
    return 2 * exp(log_sigmoid(-beta * (nll / (double)count - delta)));
}

double loss_simnpo_value(double nll, int64_t count, double beta, double delta)
{
    return -2 / beta * log_sigmoid(beta * (nll / (double)count - delta));
}
