/* encoder.c - see encoder.h. */
#include "worker/engine/encoder.h"

#include "worker/engine/models/table.h"

#include <math.h>

struct tensor *encoder_mean(struct tape *tape, const struct model_batch *batch,
                            struct tensor *hidden)
{
    int32_t *bound = tape_host(tape, 2 * batch->B, sizeof *bound);

    for (int64_t b = 0; b < batch->B; b++) {
        int64_t length = batch->length ? batch->length[b] : batch->T;

        bound[2 * b] = (int32_t)(b * batch->T);
        bound[2 * b + 1] = (int32_t)(b * batch->T + length);
    }
    return op_pool(tape, hidden, tape_i32(tape, bound, 2 * batch->B));
}

/* x / |x| is the RMS norm with gain 1/sqrt(C): mean(x^2) = |x|^2 / C. */
struct tensor *encoder_unit(struct tape *tape, struct tensor *x)
{
    struct tensor *gain;
    int64_t C;
    float *host;

    if (tape_failed(tape) || !x)
        return NULL;
    C = tensor_columns(x);
    host = tape_host(tape, C, sizeof *host);
    for (int64_t i = 0; i < C; i++)
        host[i] = (float)(1 / sqrt((double)C));
    gain = tape_f32(tape, host, 1, C);
    return gain ? op_rmsnorm(tape, x, gain, 1e-24) : NULL;
}

struct tensor *encoder_pool(struct tape *tape, const struct model *model,
                            const struct model_batch *batch, struct tensor *hidden,
                            enum encoder_pooling pooling, bool unit)
{
    struct tensor *x;

    if (!model->table->pooled) {
        tape_fail(tape, ERR_INVALID, "%s is no encoder", model->table->name);
        return NULL;
    }
    if (pooling == ENCODER_OWN)
        x = model->table->pooled(tape, model, batch, hidden);
    else if (pooling == ENCODER_FIRST)
        x = op_gather(tape, hidden, model_first_rows(tape, batch));
    else
        x = encoder_mean(tape, batch, hidden);
    return unit ? encoder_unit(tape, x) : x;
}

struct tensor *encoder_labels(struct tape *tape, const struct model *model, struct tensor *pooled)
{
    if (model->config.family == MODEL_BERT)
        return bert_labels(tape, model, pooled);
    tape_fail(tape, ERR_INVALID, "%s has no classes", model->table->name);
    return NULL;
}

struct tensor *encoder_tokens(struct tape *tape, const struct model *model, struct tensor *states)
{
    if (model->config.family == MODEL_BERT)
        return bert_tokens(tape, model, states);
    tape_fail(tape, ERR_INVALID, "%s predicts no masked tokens", model->table->name);
    return NULL;
}
