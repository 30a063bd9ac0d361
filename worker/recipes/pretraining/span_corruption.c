/* span_corruption.c - recipe pretraining/span_corruption: a T5 fills in what was cut out.
 *
 * A sequence is a stretch of the stream, as long as fills the encoder (spans_longest), or a
 * document cut to that. Spans follow from (seed, position in the stream of sequences): a later
 * epoch has others, a resume or another number of ranks has the same. State: model, AdamW
 * moments and the step number. */
#include "common/base/mem.h"
#include "worker/engine/comm.h"
#include "worker/recipes/order.h"
#include "worker/recipes/spans.h"
#include "worker/recipes/train.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TRAIN_STREAM 0x7370616e00u /* "span" */
#define VALID_STREAM 0x7370616e01u
#define VALID_ROWS   16

/* One pass of encoder and decoder rows. */
struct span_rows {
    int64_t B, S, T;         /* S: sources, T: targets; both padded */
    int32_t *source, *input; /* (B, S), (B, T): the target, one later */
    int32_t *target;         /* (B, T); -1 on padding */
    int32_t *source_length;  /* (B) */
    float *weight;           /* (B, T) */
    int64_t target_count;
};

struct span_corruption {
    struct trainer trainer;
    struct corpus train, valid;
    struct windows windows;
    struct batch batch; /* one window */
    struct spans_config config;
    struct span_rows rows;
    int32_t *sentinel;
    int64_t sentinel_count;
    int64_t longest; /* tokens of a sequence */
    int32_t *cells;  /* (2, longest + 1): one sequence */
    bool *noise;
    struct arena room; /* for drawing spans */
    bool documents;
    int64_t eval_every;
};

/* -- opening -------------------------------------------------------------------------------- */

static int read_sentinels(struct span_corruption *s, struct err *err)
{
    const struct tokenizer *tokenizer = dataset_tokenizer(s->train.dataset);
    int64_t wanted = spans_sizes(&s->config, s->longest).spans;
    char text[32];

    s->sentinel = mem_array((size_t)wanted, sizeof *s->sentinel);
    for (int64_t i = 0; i < wanted; i++) {
        uint32_t id;

        snprintf(text, sizeof text, "<extra_id_%lld>", (long long)i);
        id = tokenizer_find(tokenizer, text, strlen(text));
        if (id >= tokenizer_vocab_size(tokenizer))
            return err_set(err, ERR_INVALID, "%lld tokens have %lld spans, but the tokenizer of "
                           "'%s' has no sentinel %s: prepare the dataset with sentinels: %lld",
                           (long long)s->longest, (long long)wanted,
                           dataset_path(s->train.dataset), text, (long long)wanted);
        s->sentinel[i] = (int32_t)id;
    }
    s->sentinel_count = wanted;
    return 0;
}

static int new_model(struct run *run, struct span_corruption *s, struct err *err)
{
    struct model_config config = {
        .family = MODEL_T5,
        .vocab_size = dataset_vocab_size(s->train.dataset),
        .context = run_int(run, "context"),
        .width = run_int(run, "d_model"),
        .layers = run_int(run, "layers"),
        .decoder_layers = run_int(run, "decoder_layers"),
        .heads = run_int(run, "heads"),
        .ffn_width = run_int(run, "d_ff"),
        .gated = run_bool(run, "gated"),
        .tied = run_bool(run, "tied"),
        .bos_token = -1,
        .eos_token = s->train.end_of_text,
    };

    if (model_config_complete(&config, err) < 0)
        return err_wrap(err, "shape of the new model");
    return model_new(s->trainer.device, &config, s->trainer.seed, &s->trainer.model, err);
}

static int open_model(struct run *run, struct span_corruption *s, struct err *err)
{
    const struct run_input *init = run_input(run, "init");
    struct trainer *trainer = &s->trainer;

    if (!init)
        return new_model(run, s, err);
    if (run_model_open(run, "init", trainer->device, true, &trainer->model, err) < 0)
        return -1;
    if (trainer->model->config.family != MODEL_T5)
        return err_set(err, ERR_INVALID, "input 'init' (%s) is a %s; a t5 is needed", init->ref,
                       model_family_name(trainer->model->config.family));
    return corpus_match_model(&s->train, init->path, trainer->model, err);
}

static int rows_alloc(struct span_rows *rows, int64_t B, int64_t S, int64_t T, struct err *err)
{
    size_t sources = (size_t)(B * S), targets = (size_t)(B * T);

    *rows = (struct span_rows){.S = S, .T = T};
    rows->source = malloc(sources * sizeof *rows->source);
    rows->input = malloc(targets * sizeof *rows->input);
    rows->target = malloc(targets * sizeof *rows->target);
    rows->weight = malloc(targets * sizeof *rows->weight);
    rows->source_length = malloc((size_t)B * sizeof *rows->source_length);
    if (!rows->source || !rows->input || !rows->target || !rows->weight || !rows->source_length)
        return err_set(err, ERR_MEMORY, "cannot allocate %lld rows of %lld and %lld tokens",
                       (long long)B, (long long)S, (long long)T);
    return 0;
}

static void rows_free(struct span_rows *rows)
{
    free(rows->source);
    free(rows->input);
    free(rows->target);
    free(rows->weight);
    free(rows->source_length);
}

/* Rows for training and for validation, whichever are more. */
static int open_rows(struct span_corruption *s, struct err *err)
{
    struct spans_sizes sizes = spans_sizes(&s->config, s->longest);
    int64_t most = trainer_pass_most(&s->trainer);

    if (sizes.target > s->trainer.model->config.context)
        return err_set(err, ERR_INVALID, "a source of %lld tokens at noise_density %g has a target "
                       "of %lld, more than the model's context", (long long)sizes.source,
                       s->config.density, (long long)sizes.target);
    s->cells = malloc(2 * (size_t)(s->longest + 1) * sizeof *s->cells);
    s->noise = malloc((size_t)s->longest);
    if (!s->cells || !s->noise)
        return err_set(err, ERR_MEMORY, "cannot allocate a sequence of %lld tokens",
                       (long long)s->longest);
    return rows_alloc(&s->rows, most > VALID_ROWS ? most : VALID_ROWS, sizes.source, sizes.target,
                      err);
}

static int open_data(struct run *run, struct span_corruption *s, struct err *err)
{
    if (!s->documents) {
        if (windows_init(&s->windows, s->train.part, s->longest, err) < 0 ||
            batch_init(&s->batch, 1, s->longest, err) < 0)
            return -1;
        if (s->windows.window_count == 0)
            return err_set(err, ERR_INVALID, "input 'data' has too few tokens for one sequence of "
                           "%lld", (long long)s->longest);
    }
    if (!run_input(run, "valid"))
        return 0;
    if (corpus_open(run, "valid", &s->valid, err) < 0)
        return -1;
    return corpus_match(&s->valid, &s->train, err);
}

static int span_open(struct run *run, void *state, struct err *err)
{
    struct span_corruption *s = state;
    struct trainer *trainer = &s->trainer;

    run->step_count = (uint64_t)run_int(run, "steps");
    s->eval_every = run_int(run, "eval_every");
    s->documents = strcmp(run_string(run, "unit"), "documents") == 0;
    s->config = (struct spans_config){run_float(run, "noise_density"),
                                      run_float(run, "mean_span")};
    if (corpus_open(run, "data", &s->train, err) < 0 || trainer_open(run, trainer, err) < 0 ||
        open_model(run, s, err) < 0 || trainer_start(trainer, err) < 0)
        return -1;
    s->longest = spans_longest(&s->config, trainer->model->config.context);
    if (read_sentinels(s, err) < 0 || open_rows(s, err) < 0 || open_data(run, s, err) < 0)
        return -1;
    order_tell(trainer, &s->train, trainer->seed, s->documents ? NULL : &s->windows);
    run_note(run, "t5 with %lld weights; sequences of %lld tokens become sources of %lld and "
             "targets of %lld", (long long)model_weight_count(&trainer->model->config),
             (long long)s->longest, (long long)s->rows.S, (long long)s->rows.T);
    return 0;
}

/* -- rows ----------------------------------------------------------------------------------- */

static void rows_clear(struct span_rows *rows)
{
    rows->B = 0;
    rows->target_count = 0;
}

/* Appends a sequence with its spans cut out. T5's decoder starts with token 0. */
static void rows_add(struct span_corruption *s, const int32_t *token, int64_t n, uint64_t stream,
                     uint64_t position)
{
    struct span_rows *rows = &s->rows;
    int64_t row = rows->B++, source_count, target_count;
    int32_t *source = rows->source + row * rows->S, *target = rows->target + row * rows->T;
    int32_t *input = rows->input + row * rows->T;
    struct rng rng;

    rng_init(&rng, rng_at(s->trainer.seed, stream, position));
    spans_draw(&s->config, n, &rng, &s->room, s->noise);
    spans_write(token, s->noise, n, s->sentinel, s->train.end_of_text, source, &source_count,
                target, &target_count);
    CHECK(source_count <= rows->S && target_count <= rows->T);
    rows->source_length[row] = (int32_t)source_count;
    rows->target_count += target_count;
    for (int64_t i = source_count; i < rows->S; i++)
        source[i] = 0;
    for (int64_t i = 0; i < rows->T; i++) {
        input[i] = i > 0 && i <= target_count ? target[i - 1] : 0;
        if (i >= target_count)
            target[i] = -1;
    }
}

/* A document's own tokens, at most `longest`; returns how many (0: none). */
static int64_t read_document(struct span_corruption *s, struct corpus *corpus, int64_t item)
{
    int32_t *token = s->cells, *target = s->cells + s->longest + 1;
    int64_t cells = corpus_document(corpus, item, s->longest + 1, token, target, NULL);

    return cells - 1; /* the first is the separator */
}

static int64_t read_window(struct span_corruption *s, uint64_t position)
{
    int64_t count = s->longest;

    windows_fill(&s->windows, s->trainer.seed, position, &s->batch);
    while (count > 0 && s->batch.target[count - 1] < 0)
        count--;
    return count;
}

static void fill(struct span_corruption *s, int64_t pass)
{
    uint64_t first;
    int64_t count;

    rows_clear(&s->rows);
    trainer_share(&s->trainer, pass, &first, &count);
    for (int64_t i = 0; i < count; i++) {
        uint64_t position = first + (uint64_t)i;
        uint64_t documents = s->train.part->document_count;
        int64_t n;

        if (s->documents) {
            n = read_document(s, &s->train,
                              (int64_t)sampler_item(s->trainer.seed, documents, position));
            rows_add(s, s->cells + 1, n, TRAIN_STREAM, position);
        } else {
            n = read_window(s, position);
            rows_add(s, s->batch.token, n, TRAIN_STREAM, position);
        }
    }
}

static struct model_batch batch_of(const struct span_rows *rows)
{
    return (struct model_batch){.B = rows->B, .T = rows->T, .token = rows->input, .S = rows->S,
                                .source = rows->source, .source_length = rows->source_length};
}

static const float *weigh(struct span_rows *rows, double each)
{
    for (int64_t i = 0; i < rows->B * rows->T; i++)
        rows->weight[i] = rows->target[i] >= 0 ? (float)each : 0.0f;
    return rows->weight;
}

/* -- steps ---------------------------------------------------------------------------------- */

static int span_pass(struct span_corruption *s, int64_t pass, int64_t count, double *loss,
                     struct err *err)
{
    struct trainer *trainer = &s->trainer;
    struct loss_head head = {.head = trainer->model->head, .target = s->rows.target};
    struct loss_values values = {0};
    struct model_batch batch;

    fill(s, pass);
    batch = batch_of(&s->rows);
    head.ce_weight = weigh(&s->rows, 1.0 / (double)count);
    if (trainer_forward(trainer, &batch, &head.hidden, err) < 0 ||
        loss_head(trainer->tape, &head, &values, err) < 0 ||
        trainer_backward(trainer, err) < 0)
        return -1;
    *loss += values.total;
    return 0;
}

/* Losses of the rows, added to their documents: sums (documents, 2) of loss and tokens. */
static int score_block(struct span_corruption *s, struct tape *tape, int64_t first, double *sums,
                       struct err *err)
{
    struct model_batch batch = batch_of(&s->rows);
    int64_t cells = s->rows.B * s->rows.T;
    float *nll = mem_array((size_t)cells, sizeof *nll);
    struct model_states states = {0};
    int rc;

    tape_reset(tape);
    rc = model_forward(tape, s->trainer.model, &batch, &states, err);
    if (rc == 0)
        rc = loss_nll(tape, states.hidden, s->trainer.model->head, s->rows.target, nll, err);
    for (int64_t n = 0; n < cells && rc == 0; n++) {
        sums[2 * (first + n / s->rows.T)] += nll[n];
        sums[2 * (first + n / s->rows.T) + 1] += s->rows.target[n] >= 0;
    }
    mem_free(nll);
    return rc;
}

/* The documents of `valid`, with spans that are always the same; blocks go round the ranks. */
static int validate(struct run *run, struct span_corruption *s, double *out, struct err *err)
{
    int64_t documents = corpus_count(&s->valid);
    double *sums = mem_zalloc(2 * (size_t)documents * sizeof *sums), nll = 0, tokens = 0;
    struct tape *tape = NULL;
    int rc = tape_new(s->trainer.device, TAPE_INFER, &tape, err);

    for (int64_t first = 0, block = 0; first < documents && rc == 0; first += VALID_ROWS, block++) {
        if (block % run->rank_count != run->rank)
            continue;
        rows_clear(&s->rows);
        for (int64_t i = first; i < documents && i < first + VALID_ROWS; i++)
            rows_add(s, s->cells + 1, read_document(s, &s->valid, i), VALID_STREAM, (uint64_t)i);
        rc = score_block(s, tape, first, sums, err);
    }
    tape_free(tape);
    if (rc == 0) {
        comm_sum_f64(run->comm, sums, 2 * documents);
        for (int64_t i = 0; i < documents; i++) {
            nll += sums[2 * i];
            tokens += sums[2 * i + 1];
        }
        *out = nll / tokens;
    }
    mem_free(sums);
    return rc;
}

static int report(struct run *run, struct span_corruption *s, struct err *err)
{
    uint64_t done = run->step + 1;
    double loss = 0;

    if (!corpus_is_open(&s->valid))
        return 0;
    if (done != run->step_count && (s->eval_every == 0 || done % (uint64_t)s->eval_every != 0))
        return 0;
    if (validate(run, s, &loss, err) < 0)
        return -1;
    run_metric(run, "val_loss", loss);
    if (done == run->step_count)
        run_note(run, "val_loss %.4f nats a target token", loss);
    return 0;
}

static int span_step(struct run *run, void *state, struct err *err)
{
    struct span_corruption *s = state;
    int64_t counts[2] = {0, 0}; /* targets, and all tokens that are read */
    double loss = 0;

    for (int64_t pass = 0; pass < s->trainer.pass_count; pass++) {
        fill(s, pass);
        counts[0] += s->rows.target_count;
        counts[1] += s->rows.target_count;
        for (int64_t row = 0; row < s->rows.B; row++)
            counts[1] += s->rows.source_length[row];
    }
    comm_sum_i64(run->comm, counts, 2);
    for (int64_t pass = 0; pass < s->trainer.pass_count; pass++)
        if (span_pass(s, pass, counts[0], &loss, err) < 0)
            return -1;
    comm_sum_f64(run->comm, &loss, 1);
    run_metric(run, "loss", loss);
    if (trainer_update(&s->trainer, err) < 0)
        return -1;
    trainer_speed(&s->trainer, counts[1]);
    return report(run, s, err);
}

static int span_load(struct run *run, void *state, struct checkpoint_reader *reader,
                     struct err *err)
{
    (void)run;
    return trainer_load(&((struct span_corruption *)state)->trainer, reader, err);
}

static int span_save(struct run *run, void *state, struct checkpoint_writer *writer,
                     struct err *err)
{
    struct span_corruption *s = state;

    (void)run;
    if (trainer_save(&s->trainer, writer, err) < 0)
        return -1;
    return checkpoint_copy_tokenizer(writer, dataset_path(s->train.dataset), err);
}

static void span_close(struct run *run, void *state)
{
    struct span_corruption *s = state;

    (void)run;
    mem_free(s->sentinel);
    free(s->cells);
    free(s->noise);
    arena_done(&s->room);
    rows_free(&s->rows);
    batch_done(&s->batch);
    windows_done(&s->windows);
    corpus_close(&s->valid);
    corpus_close(&s->train);
    trainer_close(&s->trainer);
}

static const struct param span_params[] = {
    {"steps", PARAM_INT, "400", 1, 1e9, NULL, "optimiser steps"},
    {"unit", PARAM_CHOICE, "windows", 0, 0, "windows|documents",
     "what a sequence is: tokens of the stream that fill the encoder, or one document"},
    {"noise_density", PARAM_FLOAT, "0.15", 0.01, 0.9, NULL, "share of the tokens cut out"},
    {"mean_span", PARAM_FLOAT, "3", 1, 1000, NULL, "mean tokens of a span"},
    {"eval_every", PARAM_INT, "50", 0, 1e9, NULL,
     "steps between validation losses; 0: only after the last step"},
    {"layers", PARAM_INT, "4", 1, 1000, NULL, "encoder blocks of a new model"},
    {"decoder_layers", PARAM_INT, "0", 0, 1000, NULL, "its decoder blocks; 0: as many"},
    {"d_model", PARAM_INT, "128", 1, 65536, NULL, "width of the residual stream"},
    {"heads", PARAM_INT, "4", 1, 1024, NULL, "attention heads; divides d_model"},
    {"d_ff", PARAM_INT, "0", 0, 1048576, NULL,
     "width inside a feed-forward block; 0: 4 times d_model"},
    {"gated", PARAM_BOOL, "true", 0, 0, NULL, "gated feed-forward blocks, as in version 1.1"},
    {"tied", PARAM_BOOL, "false", 0, 0, NULL, "the output matrix is the embedding"},
    {"context", PARAM_INT, "128", 4, 1048576, NULL, "most tokens of a source, its end included"},
    TRAIN_PARAMS("1e-3", "linear", "32", "0.01"),
};

static const struct input span_inputs[] = {
    {"data", INPUT_DATASET, true, "documents to train on; the tokenizer has sentinels"},
    {"valid", INPUT_DATASET, false, "documents for val_loss, same tokenizer"},
    {"init", INPUT_CHECKPOINT, false,
     "t5 to go on from (its shape then holds, not the parameters'); fresh optimiser"},
};

const struct recipe recipe_pretraining_span_corruption = {
    .name = "span_corruption",
    .kind = RECIPE_PRETRAINING,
    .version = 1,
    .summary = "Trains a T5 to fill in spans that were cut out of a text.",
    .source = "Raffel et al. 2020, section 3.1.4; random_spans_noise_mask of its release",
    .params = span_params,
    .param_count = ARRAY_COUNT(span_params),
    .inputs = span_inputs,
    .input_count = ARRAY_COUNT(span_inputs),
    .outputs = "checkpoint|metrics",
    .state_size = sizeof(struct span_corruption),
    .open = span_open,
    .load = span_load,
    .step = span_step,
    .save = span_save,
    .close = span_close,
};
