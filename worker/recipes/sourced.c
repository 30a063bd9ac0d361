/* sourced.c - see sourced.h. */
#include "worker/recipes/sourced.h"

#include "common/base/mem.h"
#include "worker/recipes/train.h"

#include <string.h>

bool sourced_is_needed(const struct model *model)
{
    return model->config.family == MODEL_T5;
}

int64_t sourced_prompt(const int32_t *token, int64_t count, int32_t *out)
{
    int32_t end_of_text = token[0];

    for (int64_t i = 1; i < count - 1; i++)
        out[i - 1] = token[i];
    out[max_i64(count - 2, 0)] = end_of_text;
    return max_i64(count - 1, 1);
}

/* The document's first cell that has a target: its separator's. `count`: there is none. */
static int64_t first_target(const struct pack *pack, const struct pack_span *span)
{
    int64_t at = 0;

    while (at < span->count && pack->target[span->start + at] < 0)
        at++;
    return at;
}

static int32_t *reserve(int32_t *array, size_t *room, int64_t count)
{
    if ((size_t)count <= *room)
        return array;
    *room = (size_t)count;
    return mem_grow(array, *room, sizeof *array);
}

/* The shape of the batch: a row for each document, at least one. */
static void measure(struct sourced *sourced, const struct pack *pack)
{
    struct model_batch shape = {.B = max_i64(pack->span_count, 1), .T = 1, .S = 1};

    for (int64_t i = 0; i < pack->span_count; i++) {
        int64_t prompt = first_target(pack, &pack->span[i]);

        shape.T = max_i64(shape.T, pack->span[i].count - prompt);
        shape.S = max_i64(shape.S, prompt);
    }
    sourced->source = reserve(sourced->source, &sourced->source_room, shape.B * shape.S);
    sourced->token = reserve(sourced->token, &sourced->token_room, shape.B * shape.T);
    sourced->length = reserve(sourced->length, &sourced->length_room, shape.B);
    sourced->cell = reserve(sourced->cell, &sourced->cell_room, pack_cells(pack));
    shape.source = sourced->source;
    shape.token = sourced->token;
    shape.source_length = sourced->length;
    sourced->batch = shape;
}

/* The decoder reads token 0 where a row of the pack has the separator, and then what it has. */
static void fill_row(struct sourced *sourced, const struct pack *pack, int64_t row)
{
    const struct pack_span *span = &pack->span[row];
    int64_t T = sourced->batch.T, prompt = first_target(pack, span);
    int32_t *source = sourced->source + row * sourced->batch.S;

    sourced->length[row] =
        (int32_t)sourced_prompt(pack->token + span->start,
                                prompt < span->count ? prompt + 1 : prompt, source);
    for (int64_t i = prompt; i < span->count; i++) {
        sourced->token[row * T + i - prompt] = i == prompt ? 0 : pack->token[span->start + i];
        sourced->cell[span->start + i] = (int32_t)(row * T + i - prompt);
    }
}

void sourced_fill(struct sourced *sourced, const struct pack *pack)
{
    measure(sourced, pack);
    memset(sourced->source, 0, (size_t)(sourced->batch.B * sourced->batch.S) * sizeof(int32_t));
    memset(sourced->token, 0, (size_t)(sourced->batch.B * sourced->batch.T) * sizeof(int32_t));
    memset(sourced->cell, 0, (size_t)pack_cells(pack) * sizeof(int32_t));
    sourced->length[0] = 1; /* of an empty pack */
    for (int64_t row = 0; row < pack->span_count; row++)
        fill_row(sourced, pack, row);
}

void sourced_done(struct sourced *sourced)
{
    mem_free(sourced->source);
    mem_free(sourced->token);
    mem_free(sourced->length);
    mem_free(sourced->cell);
    memset(sourced, 0, sizeof *sourced);
}

/* An embedding whose table are the states: its gradient adds up where rows repeat, and cells
 * without a target, which all show row 0, give none. */
struct tensor *sourced_states(struct tape *tape, const struct sourced *sourced,
                              const struct pack *pack, struct tensor *hidden)
{
    return op_embed(tape, tape_i32(tape, sourced->cell, pack_cells(pack)), NULL, hidden, NULL);
}

/* Fills the batch for a model with an encoder, or gives the pack's own. Documents without a prompt
 * have nothing for an encoder to read. */
static int batch_of(const struct model *model, const struct pack *pack, struct sourced *sourced,
                    struct model_batch *out, struct err *err)
{
    *out = pack_batch(pack);
    if (!sourced_is_needed(model))
        return 0;
    for (int64_t i = 0; i < pack->span_count; i++)
        if (first_target(pack, &pack->span[i]) == 0)
            return err_set(err, ERR_INVALID, "a %s needs a source for its encoder: documents of a "
                           "prompt, a separator and a response",
                           model_family_name(model->config.family));
    sourced_fill(sourced, pack);
    *out = sourced->batch;
    return 0;
}

int documents_forward(struct tape *tape, const struct model *model, const struct pack *pack,
                      struct sourced *sourced, struct tensor **out_hidden, struct err *err)
{
    bool needed = sourced_is_needed(model);
    struct model_states states = {0};
    struct model_batch batch;

    if (batch_of(model, pack, sourced, &batch, err) < 0)
        return -1;
    tape_reset(tape);
    if (model_forward(tape, model, &batch, &states, err) < 0)
        return -1;
    *out_hidden = needed ? sourced_states(tape, sourced, pack, states.hidden) : states.hidden;
    return 0;
}

int documents_train(struct trainer *trainer, const struct pack *pack, struct sourced *sourced,
                    struct tensor **out_hidden, struct err *err)
{
    bool needed = sourced_is_needed(trainer->model);
    struct model_batch batch;

    if (batch_of(trainer->model, pack, sourced, &batch, err) < 0 ||
        trainer_forward(trainer, &batch, out_hidden, err) < 0)
        return -1;
    if (needed)
        *out_hidden = sourced_states(trainer->tape, sourced, pack, *out_hidden);
    return 0;
}
