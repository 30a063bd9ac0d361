/* encode.c - see encode.h. */
#include "worker/recipes/encode.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "worker/engine/io/kona_import.h"
#include "worker/engine/io/model_files.h"
#include "worker/engine/models/table.h"

#include <string.h>

#define CHUNK 4096 /* texts whose tokens are held at once: of 512, 16 MiB */

/* ---- rows ------------------------------------------------------------------------------- */

static void frame(const struct tokenizer *tokenizer, const struct token_list *x,
                  const struct token_list *y, struct encode_row *row)
{
    row->ids.count = row->types.count = 0;
    tokenizer_frame(tokenizer, x, y, &row->ids, &row->types);
}

/* Where the tokens of x stand: behind those that the frame puts first. */
static size_t find_first(const struct token_list *ids, const struct token_list *x)
{
    for (size_t at = 0; at + x->count <= ids->count; at++)
        if (memcmp(ids->ids + at, x->ids, x->count * sizeof *x->ids) == 0)
            return at;
    return 0;
}

/* The longer one loses its last token until both fit, as transformers' "longest_first". */
static bool shorten(struct token_list *x, struct token_list *y, size_t most)
{
    bool cut = x->count + (y ? y->count : 0) > most;

    while (x->count + (y ? y->count : 0) > most)
        if (y && y->count >= x->count)
            y->count--;
        else
            x->count--;
    return cut;
}

int encode_row(const struct tokenizer *tokenizer, const struct encode_text *text, size_t most,
               struct encode_row *row, struct err *err)
{
    struct token_list x = {0}, y = {0}, none = {0};
    struct token_list *second = text->y ? &y : NULL;

    frame(tokenizer, &none, text->y ? &none : NULL, row);
    size_t around = row->ids.count;
    if (around + 2 > most)
        return err_set(err, ERR_LIMIT, "the model reads at most %zu tokens; %zu are put around "
                       "each text", most, around);
    tokenizer_encode(tokenizer, text->x, strlen(text->x), &x);
    if (text->y)
        tokenizer_encode(tokenizer, text->y, strlen(text->y), &y);
    row->cut = shorten(&x, second, most - around);
    frame(tokenizer, &x, second, row);
    row->first = x.count ? find_first(&row->ids, &x) : 0;
    row->count = x.count;
    token_list_done(&x);
    token_list_done(&y);
    return 0;
}

void encode_row_done(struct encode_row *row)
{
    token_list_done(&row->ids);
    token_list_done(&row->types);
    *row = (struct encode_row){0};
}

/* ---- the model -------------------------------------------------------------------------- */

static int check_model(const struct encoder *encoder, const char *folder, struct err *err)
{
    const struct model *model = encoder->model;

    if (!model->table->pooled)
        return err_set(err, ERR_INVALID, "'%s' holds a %s, which is no encoder", folder,
                       model->table->name);
    if ((int64_t)tokenizer_vocab_size(encoder->tokenizer) > model->config.vocab_size)
        return err_set(err, ERR_INVALID,
                       "'%s': its tokenizer has %u ids, the model knows only %lld", folder,
                       (unsigned)tokenizer_vocab_size(encoder->tokenizer),
                       (long long)model->config.vocab_size);
    return 0;
}

static int open_files(const char *folder, struct device *device, struct encoder *out,
                      struct err *err)
{
    char *npm = mem_printf("%s/model.json", folder), *config = mem_printf("%s/config.json", folder);
    bool imported = file_exists(npm) && !file_exists(config);

    mem_free(npm);
    mem_free(config);
    if (imported)
        return kona_import(folder, device, &out->model, err) < 0
                   ? -1
                   : kona_import_tokenizer(folder, &out->tokenizer, err);
    if (model_files_open(folder, device, true, &out->model, err) < 0)
        return -1;
    return tokenizer_read(folder, &out->tokenizer, err);
}

int encoder_open(const char *folder, struct device *device, struct encoder *out, struct err *err)
{
    struct encoder fresh = {0};

    if (open_files(folder, device, &fresh, err) < 0 || check_model(&fresh, folder, err) < 0 ||
        tape_new(device, TAPE_INFER, &fresh.tape, err) < 0) {
        encoder_close(&fresh);
        return -1;
    }
    *out = fresh;
    return 0;
}

void encoder_close(struct encoder *encoder)
{
    tape_free(encoder->tape);
    tokenizer_free(encoder->tokenizer);
    model_free(encoder->model);
    *encoder = (struct encoder){0};
}

int64_t encoder_columns(const struct encoder *encoder, enum encode_what what)
{
    return what == ENCODE_LABELS ? encoder->model->config.labels : encoder->model->config.width;
}

/* ---- batches ---------------------------------------------------------------------------- */

struct work {
    struct encoder *encoder;
    enum encode_what what;
    struct encode_row *row; /* one a text */
    size_t *order;          /* texts by length, equal ones as they came */
    int32_t *token, *type, *length; /* of a batch */
    float *values;
    size_t base;            /* number of the chunk's first text */
};

static size_t steps_of(const struct encode_row *row)
{
    return (row->ids.count + ENCODE_STEP - 1) / ENCODE_STEP + !row->ids.count;
}

/* By length: a counting sort over steps. */
static void sort(struct work *work, size_t count, size_t steps)
{
    size_t *begin = mem_array(steps + 2, sizeof *begin);

    for (size_t i = 0; i < count; i++)
        begin[steps_of(&work->row[i]) + 1]++;
    for (size_t s = 1; s < steps + 2; s++)
        begin[s] += begin[s - 1];
    for (size_t i = 0; i < count; i++)
        work->order[begin[steps_of(&work->row[i])]++] = i;
    mem_free(begin);
}

static int64_t fill(struct work *work, const size_t *items, size_t count)
{
    int64_t most = work->encoder->model->config.context;
    int64_t T = (int64_t)(steps_of(&work->row[items[0]]) * ENCODE_STEP);

    T = T > most ? most : T;
    memset(work->token, 0, (size_t)(ENCODE_ROWS * T) * sizeof *work->token);
    memset(work->type, 0, (size_t)(ENCODE_ROWS * T) * sizeof *work->type);
    for (size_t r = 0; r < ENCODE_ROWS; r++) {
        const struct encode_row *row = &work->row[items[r < count ? r : 0]];
        int32_t types = (int32_t)work->encoder->model->config.token_types;
        for (size_t i = 0; i < row->ids.count; i++) {
            work->token[(int64_t)r * T + (int64_t)i] = (int32_t)row->ids.ids[i];
            work->type[(int64_t)r * T + (int64_t)i] =
                (int32_t)row->types.ids[i] < types ? (int32_t)row->types.ids[i] : 0;
        }
        work->length[r] = (int32_t)row->ids.count + !row->ids.count; /* an empty text: padding */
    }
    return T;
}

static struct tensor *output(struct work *work, const struct model_batch *batch,
                             struct tensor *hidden)
{
    struct tape *tape = work->encoder->tape;
    const struct model *model = work->encoder->model;

    switch (work->what) {
    case ENCODE_LABELS:
        return encoder_labels(tape, model,
                              encoder_pool(tape, model, batch, hidden, ENCODER_OWN, false));
    case ENCODE_OWN:
        return encoder_pool(tape, model, batch, hidden, ENCODER_OWN, true);
    case ENCODE_MEAN:
        return encoder_pool(tape, model, batch, hidden, ENCODER_MEAN, true);
    case ENCODE_STATES:
        return hidden;
    }
    return NULL;
}

static int run_batch(struct work *work, const size_t *items, size_t count, encode_visit visit,
                     void *argument, struct err *err)
{
    struct encoder *encoder = work->encoder;
    int64_t T = fill(work, items, count), columns = encoder_columns(encoder, work->what);
    struct model_batch batch = {.B = ENCODE_ROWS, .T = T, .token = work->token,
                                .length = work->length,
                                .type = encoder->model->config.token_types ? work->type : NULL};
    struct model_states states = {0};

    tape_reset(encoder->tape);
    if (model_forward(encoder->tape, encoder->model, &batch, &states, err) < 0)
        return -1;
    struct tensor *out = output(work, &batch, states.hidden);
    if (tape_check(encoder->tape, err) < 0)
        return -1;
    tensor_read(out, work->values);
    for (size_t r = 0; r < count; r++) {
        const struct encode_row *row = &work->row[items[r]];
        bool states_wanted = work->what == ENCODE_STATES;
        int64_t at = states_wanted ? (int64_t)r * T + (int64_t)row->first : (int64_t)r;
        visit(argument, work->base + items[r], work->values + at * columns,
              states_wanted ? row->count : 1);
    }
    return 0;
}

static int run_all(struct work *work, size_t count, encode_visit visit, void *argument,
                   struct err *err)
{
    for (size_t i = 0; i < count;) {
        size_t n = 1, steps = steps_of(&work->row[work->order[i]]);
        while (n < ENCODE_ROWS && i + n < count &&
               steps_of(&work->row[work->order[i + n]]) == steps)
            n++;
        if (run_batch(work, work->order + i, n, visit, argument, err) < 0)
            return -1;
        i += n;
    }
    return 0;
}

static int make_rows(struct work *work, const struct encode_text *texts, size_t count,
                     size_t *out_steps, struct err *err)
{
    struct encoder *encoder = work->encoder;

    *out_steps = 1;
    for (size_t i = 0; i < count; i++) {
        if (encode_row(encoder->tokenizer, &texts[i], (size_t)encoder->model->config.context,
                       &work->row[i], err) < 0)
            return -1;
        encoder->texts++;
        encoder->cut += work->row[i].cut;
        *out_steps = steps_of(&work->row[i]) > *out_steps ? steps_of(&work->row[i]) : *out_steps;
    }
    return 0;
}

static int encode_chunk(struct work *work, const struct encode_text *texts, size_t count,
                        encode_visit visit, void *argument, struct err *err)
{
    size_t steps;
    int rc = make_rows(work, texts, count, &steps, err);

    if (rc == 0) {
        sort(work, count, steps);
        rc = run_all(work, count, visit, argument, err);
    }
    for (size_t i = 0; i < count; i++)
        encode_row_done(&work->row[i]);
    return rc;
}

int encode(struct encoder *encoder, const struct encode_text *texts, size_t count,
           enum encode_what what, encode_visit visit, void *argument, struct err *err)
{
    struct work work = {.encoder = encoder, .what = what};
    size_t cells = ENCODE_ROWS * (size_t)encoder->model->config.context;
    int rc = 0;

    work.row = mem_array(CHUNK, sizeof *work.row);
    work.order = mem_array(CHUNK, sizeof *work.order);
    work.length = mem_array(ENCODE_ROWS, sizeof *work.length);
    work.token = mem_array(cells, sizeof *work.token);
    work.type = mem_array(cells, sizeof *work.type);
    work.values = mem_array((what == ENCODE_STATES ? cells : ENCODE_ROWS) *
                                (size_t)encoder_columns(encoder, what), sizeof *work.values);
    for (; work.base < count && rc == 0; work.base += CHUNK)
        rc = encode_chunk(&work, texts + work.base, min_u64(CHUNK, count - work.base), visit,
                          argument, err);
    mem_free(work.row);
    mem_free(work.order);
    mem_free(work.length);
    mem_free(work.token);
    mem_free(work.type);
    mem_free(work.values);
    return rc;
}
