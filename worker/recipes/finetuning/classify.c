/* classify.c - recipe finetuning/classify: an encoder with classes, for texts or pairs of them.
 *
 * A document is its lines: a text, or x and y, and last the label. Sequence classification as
 * Devlin et al. 2019, section 4.1: the pooled first state, a linear map, cross-entropy. What is
 * saved is a BertForSequenceClassification with the labels' names in its config.json, which the
 * critic nli reads. Which documents a step sees is a function of (seed, step), so the state is the
 * model, AdamW's moments and the step. */
#include "common/base/mem.h"
#include "worker/engine/comm.h"
#include "worker/engine/models/table.h"
#include "worker/recipes/encode.h"
#include "worker/recipes/order.h"
#include "worker/recipes/text/overlap.h"
#include "worker/recipes/train.h"

#include <math.h>
#include <string.h>

#define EVAL_ROWS 64 /* documents of a pass of evaluation */
#define BINS      12 /* of the overlap baseline: tenths, all, and no second text */

struct item {
    struct encode_row row;
    int32_t label;
    unsigned bin;
};

struct items {
    struct dataset *dataset;
    const struct dataset_part *part;
    struct item *item;
    size_t count, cut;
};

struct classify {
    struct trainer trainer;
    struct tokenizer *tokenizer;
    struct items train, valid;
    struct model_config config; /* with the labels' names */
    double majority, overlap;   /* accuracies of the baselines on valid */
    int64_t eval_every;
    int32_t *token, *type, *length, *target; /* of a pass */
    float *weight, *nll;
};

/* ---- documents -------------------------------------------------------------------------- */

static int find_label(const struct model_config *config, const char *name, int32_t *out)
{
    for (int32_t i = 0; i < config->labels; i++)
        if (strcmp(config->label_name[i], name) == 0) {
            *out = i;
            return 0;
        }
    return -1;
}

static int refuse_label(const struct run *run, const char *label, struct err *err)
{
    struct buf known = {0};

    for (size_t i = 0; i < run_list_count(run, "labels"); i++)
        buf_printf(&known, "%s%s", i ? ", " : "", run_list_item(run, "labels", i));
    err_set(err, ERR_INVALID, "its last line is '%.40s', no label; params.labels are %s", label,
            buf_text(&known));
    buf_done(&known);
    return -1;
}

/* Tenths of y's words that x has too; all of them apart. */
static unsigned bin_of(const char *x, const char *y)
{
    struct words a = {0}, b = {0};
    size_t shared = 0;

    if (!y)
        return BINS - 1;
    words_split(&a, WORDS_ROUGE, x, strlen(x));
    words_split(&b, WORDS_ROUGE, y, strlen(y));
    for (size_t i = 0; i < b.count; i++) {
        size_t k = 0;
        while (k < a.count && a.word[k] != b.word[i])
            k++;
        shared += k < a.count;
    }
    unsigned bin = b.count ? (unsigned)(10 * shared / b.count) : 0;
    words_done(&a);
    words_done(&b);
    return bin;
}

/* Cuts a document's text into its lines. */
static int read_item(struct run *run, struct classify *state, char *text, struct item *out,
                     struct err *err)
{
    size_t most = (size_t)state->trainer.model->config.context;
    char *last = strrchr(text, '\n'), *between;
    struct encode_text pair = {.x = text};

    if (!last)
        return err_set(err, ERR_INVALID, "it has one line; a text, perhaps a second one, and a "
                                         "label are accepted");
    *last = 0;
    if (find_label(&state->config, last + 1, &out->label) < 0)
        return refuse_label(run, last + 1, err);
    if ((between = strchr(text, '\n'))) {
        *between = 0;
        pair.y = between + 1;
        if (strchr(pair.y, '\n'))
            return err_set(err, ERR_INVALID, "it has more than three lines");
    }
    out->bin = bin_of(pair.x, pair.y);
    return encode_row(state->tokenizer, &pair, most, &out->row, err);
}

static int open_items(struct run *run, struct classify *state, const char *input,
                      struct items *out, struct err *err)
{
    const struct run_input *given = run_input(run, input);
    struct dataset_texts texts = {0};
    int rc = 0;

    if (!out->dataset && dataset_open(given->path, &out->dataset, err) < 0)
        return err_wrap(err, "input '%s' (%s)", input, given->ref);
    if (dataset_part(out->dataset, given->part, &out->part, err) < 0 ||
        dataset_texts_read(out->part, &texts, err) < 0)
        return err_wrap(err, "input '%s' (%s)", input, given->ref);
    if (texts.count == 0)
        rc = err_set(err, ERR_INVALID, "input '%s' (%s) holds no documents", input, given->ref);
    out->item = mem_array(texts.count + 1, sizeof *out->item);
    for (; out->count < texts.count && rc == 0; out->count++) {
        struct item *item = &out->item[out->count];
        if (read_item(run, state, texts.items[out->count].text, item, err) < 0)
            rc = err_wrap(err, "input '%s' (%s), document '%s'", input, given->ref,
                          texts.items[out->count].id);
        out->cut += item->row.cut;
    }
    dataset_texts_done(&texts);
    return rc;
}

static void items_done(struct items *items)
{
    for (size_t i = 0; i < items->count; i++)
        encode_row_done(&items->item[i].row);
    mem_free(items->item);
    dataset_close(items->dataset);
}

/* ---- baselines: the commonest label of train, and of train's pairs with equal overlap ---- */

static int32_t commonest(const uint64_t *count, int64_t labels)
{
    int32_t best = 0;

    for (int32_t l = 1; l < labels; l++)
        best = count[l] > count[best] ? l : best;
    return best;
}

static void measure_baselines(struct classify *state)
{
    uint64_t all[MODEL_LABELS_NAMED] = {0}, by_bin[BINS][MODEL_LABELS_NAMED] = {{0}};
    int64_t labels = state->config.labels;
    size_t majority = 0, overlap = 0;

    for (size_t i = 0; i < state->train.count; i++) {
        all[state->train.item[i].label]++;
        by_bin[state->train.item[i].bin][state->train.item[i].label]++;
    }
    for (size_t i = 0; i < state->valid.count; i++) {
        const struct item *item = &state->valid.item[i];
        majority += item->label == commonest(all, labels);
        overlap += item->label == commonest(by_bin[item->bin], labels);
    }
    state->majority = (double)majority / (double)state->valid.count;
    state->overlap = (double)overlap / (double)state->valid.count;
}

/* ---- the model -------------------------------------------------------------------------- */

static int read_labels(const struct run *run, struct model_config *config, struct err *err)
{
    size_t count = run_list_count(run, "labels");

    if (count < 2 || count > MODEL_LABELS_NAMED)
        return err_set(err, ERR_INVALID, "params.labels names %zu classes; 2 to %d are accepted",
                       count, MODEL_LABELS_NAMED);
    memset(config->label_name, 0, sizeof config->label_name);
    config->labels = (int64_t)count;
    config->top = MODEL_TOP_LABELS;
    for (size_t i = 0; i < count; i++) {
        const char *name = run_list_item(run, "labels", i);
        int32_t twice;
        if (!*name || strlen(name) >= MODEL_LABEL_SIZE || find_label(config, name, &twice) == 0)
            return err_set(err, ERR_INVALID, "params.labels: '%s' is named twice, or not of 1 to "
                           "%d bytes", name, MODEL_LABEL_SIZE - 1);
        memcpy(config->label_name[i], name, strlen(name));
    }
    return 0;
}

/* Weights of one name and size; those above the blocks may be new. */
static size_t take_weights(struct model *from, struct model *to)
{
    size_t fresh = 0;

    for (int64_t w = 0; w < to->weight_count; w++) {
        struct model_weight *mine = &to->weight[w];
        struct model_weight *theirs = model_weight_find(from, mine->name);
        int64_t count = tensor_count(&mine->tensor);
        if (!theirs || tensor_count(&theirs->tensor) != count) {
            fresh++;
            continue;
        }
        float *host = mem_array((size_t)count, sizeof *host);
        model_weight_read(theirs, host);
        model_weight_write(mine, host);
        mem_free(host);
    }
    return fresh;
}

static int model_from_init(struct run *run, struct classify *state, struct err *err)
{
    struct trainer *trainer = &state->trainer;
    const struct run_input *init = run_input(run, "init");
    struct model *from = NULL;

    if (run_model_open(run, "init", trainer->device, false, &from, err) < 0)
        return -1;
    struct model_config config = from->config;
    if (config.family != MODEL_BERT) {
        err_set(err, ERR_INVALID, "input 'init' (%s) is a %s; an encoder of the BERT family is "
                "accepted", init->ref, from->table->name);
        model_free(from);
        return -1;
    }
    int rc = read_labels(run, &config, err);
    if (rc == 0)
        rc = model_new(trainer->device, &config, trainer->seed, &trainer->model, err);
    if (rc == 0)
        run_note(run, "%zu weights are new, the others are those of %s",
                 take_weights(from, trainer->model), init->ref);
    model_free(from);
    if (rc == 0 && tokenizer_read(init->path, &state->tokenizer, err) < 0)
        rc = err_wrap(err, "input 'init' (%s)", init->ref);
    return rc;
}

static int model_from_params(struct run *run, struct classify *state, struct err *err)
{
    const struct run_input *data = run_input(run, "data");
    struct model_config config = {.family = MODEL_BERT,
                                  .layers = run_int(run, "layers"),
                                  .width = run_int(run, "d_model"),
                                  .heads = run_int(run, "heads"),
                                  .ffn_width = run_int(run, "d_ff"),
                                  .context = run_int(run, "context"),
                                  .bos_token = -1, .eos_token = -1};

    if (read_labels(run, &config, err) < 0)
        return -1;
    if (tokenizer_read(data->path, &state->tokenizer, err) < 0)
        return err_wrap(err, "input 'data' (%s)", data->ref);
    config.vocab_size = tokenizer_vocab_size(state->tokenizer);
    if (model_config_complete(&config, err) < 0)
        return -1;
    return model_new(state->trainer.device, &config, state->trainer.seed, &state->trainer.model,
                     err);
}

static int open_model(struct run *run, struct classify *state, struct err *err)
{
    int rc = run_input(run, "init") ? model_from_init(run, state, err)
                                    : model_from_params(run, state, err);

    if (rc < 0)
        return -1;
    tokenizer_frame_by_end(state->tokenizer);
    state->config = state->trainer.model->config;
    if ((int64_t)tokenizer_vocab_size(state->tokenizer) > state->config.vocab_size)
        return err_set(err, ERR_INVALID, "the tokenizer has %u ids, the model knows only %lld",
                       (unsigned)tokenizer_vocab_size(state->tokenizer),
                       (long long)state->config.vocab_size);
    return 0;
}

static void make_room(struct classify *state)
{
    size_t most = (size_t)trainer_pass_most(&state->trainer);
    size_t rows = most > EVAL_ROWS ? most : EVAL_ROWS;
    size_t cells = rows * (size_t)state->config.context;

    state->token = mem_array(cells, sizeof *state->token);
    state->type = mem_array(cells, sizeof *state->type);
    state->length = mem_array(rows, sizeof *state->length);
    state->target = mem_array(rows, sizeof *state->target);
    state->weight = mem_array(rows, sizeof *state->weight);
    state->nll = mem_array(rows, sizeof *state->nll);
}

/* Items are the part's documents, in its order. */
static void tell_order(const struct classify *state)
{
    struct corpus corpus = {.input = "data", .dataset = state->train.dataset,
                            .part = state->train.part};

    order_tell(&state->trainer, &corpus, state->trainer.seed, NULL);
}

static int classify_open(struct run *run, void *opaque, struct err *err)
{
    struct classify *state = opaque;

    run->step_count = (uint64_t)run_int(run, "steps");
    state->eval_every = run_int(run, "eval_every");
    if (trainer_open(run, &state->trainer, err) < 0 || open_model(run, state, err) < 0 ||
        open_items(run, state, "data", &state->train, err) < 0 ||
        (run_input(run, "valid") && open_items(run, state, "valid", &state->valid, err) < 0))
        return -1;
    if (state->train.cut + state->valid.cut)
        run_note(run, "%zu of %zu documents are longer than the model's %lld tokens and lose ends",
                 state->train.cut + state->valid.cut, state->train.count + state->valid.count,
                 (long long)state->config.context);
    if (state->valid.count)
        measure_baselines(state);
    make_room(state);
    tell_order(state);
    return trainer_start(&state->trainer, err);
}

/* ---- passes ----------------------------------------------------------------------------- */

/* Rows as long as the longest. */
static struct model_batch fill(struct classify *state, const struct item *const *items,
                               int64_t count)
{
    int64_t T = 1;

    for (int64_t r = 0; r < count; r++)
        T = (int64_t)items[r]->row.ids.count > T ? (int64_t)items[r]->row.ids.count : T;
    memset(state->token, 0, (size_t)(count * T) * sizeof *state->token);
    memset(state->type, 0, (size_t)(count * T) * sizeof *state->type);
    for (int64_t r = 0; r < count; r++) {
        const struct encode_row *row = &items[r]->row;
        for (size_t i = 0; i < row->ids.count; i++) {
            int32_t type = (int32_t)row->types.ids[i];
            state->token[r * T + (int64_t)i] = (int32_t)row->ids.ids[i];
            state->type[r * T + (int64_t)i] = type < state->config.token_types ? type : 0;
        }
        state->length[r] = (int32_t)row->ids.count;
        state->target[r] = items[r]->label;
    }
    return (struct model_batch){.B = count, .T = T, .token = state->token, .type = state->type,
                                .length = state->length};
}

static struct tensor *labels_of(struct classify *state, const struct model_batch *batch,
                                struct tensor *hidden)
{
    struct tape *tape = state->trainer.tape;
    const struct model *model = state->trainer.model;

    return encoder_labels(tape, model,
                          encoder_pool(tape, model, batch, hidden, ENCODER_OWN, false));
}

static int train_pass(struct classify *state, int64_t pass, double *loss, int64_t *tokens,
                      struct err *err)
{
    struct trainer *trainer = &state->trainer;
    const struct item **items = mem_array((size_t)trainer_pass_most(trainer) + 1, sizeof *items);
    struct tensor *hidden, *nll;
    uint64_t first;
    int64_t count;

    trainer_share(trainer, pass, &first, &count);
    for (int64_t r = 0; r < count; r++)
        items[r] = &state->train.item[sampler_item(trainer->seed, state->train.count,
                                                   first + (uint64_t)r)];
    struct model_batch batch = fill(state, items, count);
    mem_free(items);
    if (trainer_forward(trainer, &batch, &hidden, err) < 0)
        return -1;
    nll = op_nll(trainer->tape, labels_of(state, &batch, hidden),
                 tape_i32(trainer->tape, state->target, count));
    if (tape_check(trainer->tape, err) < 0)
        return -1;
    tensor_read(nll, state->nll);
    for (int64_t r = 0; r < count; r++) {
        state->weight[r] = 1 / (float)trainer->batch;
        *loss += (double)state->nll[r] / (double)trainer->batch;
    }
    *tokens += batch.B * batch.T;
    tape_seed(trainer->tape, nll, state->weight);
    return trainer_backward(trainer, err);
}

/* Losses and hits of the documents of one pass of evaluation. */
static int eval_pass(struct classify *state, struct tape *tape, size_t first, double sum[2],
                     struct err *err)
{
    const struct model *model = state->trainer.model;
    const struct item *items[EVAL_ROWS];
    int64_t count = (int64_t)min_u64(EVAL_ROWS, state->valid.count - first);
    int64_t labels = state->config.labels;
    float logits[EVAL_ROWS * MODEL_LABELS_NAMED];
    struct model_states states = {0};

    for (int64_t r = 0; r < count; r++)
        items[r] = &state->valid.item[first + (size_t)r];
    struct model_batch batch = fill(state, items, count);
    tape_reset(tape);
    if (model_forward(tape, model, &batch, &states, err) < 0)
        return -1;
    struct tensor *scores = encoder_labels(
        tape, model, encoder_pool(tape, model, &batch, states.hidden, ENCODER_OWN, false));
    if (tape_check(tape, err) < 0)
        return -1;
    tensor_read(scores, logits);
    for (int64_t r = 0; r < count; r++) {
        const float *row = logits + r * labels;
        double most = row[0], total = 0;
        int32_t best = 0;
        for (int32_t l = 1; l < labels; l++)
            best = row[l] > row[best] ? l : best;
        most = row[best];
        for (int32_t l = 0; l < labels; l++)
            total += exp((double)row[l] - most);
        sum[0] += log(total) + most - (double)row[state->target[r]];
        sum[1] += best == state->target[r];
    }
    return 0;
}

static int evaluate(struct run *run, struct classify *state, struct err *err)
{
    struct tape *tape = NULL;
    double sum[2] = {0};
    size_t passes = (state->valid.count + EVAL_ROWS - 1) / EVAL_ROWS;
    int rc = tape_new(state->trainer.device, TAPE_INFER, &tape, err);

    for (size_t p = run->rank; p < passes && rc == 0; p += run->rank_count)
        rc = eval_pass(state, tape, p * EVAL_ROWS, sum, err);
    tape_free(tape);
    if (rc < 0)
        return -1;
    comm_sum_f64(run->comm, sum, 2);
    run_metric(run, "val_loss", sum[0] / (double)state->valid.count);
    run_metric(run, "val_accuracy", sum[1] / (double)state->valid.count);
    run_metric(run, "majority_accuracy", state->majority);
    run_metric(run, "overlap_accuracy", state->overlap);
    return 0;
}

static int classify_step(struct run *run, void *opaque, struct err *err)
{
    struct classify *state = opaque;
    int64_t tokens = 0, step = (int64_t)run->step + 1;
    double loss = 0;

    run->phase = "train";
    for (int64_t pass = 0; pass < state->trainer.pass_count; pass++)
        if (train_pass(state, pass, &loss, &tokens, err) < 0)
            return -1;
    comm_sum_f64(run->comm, &loss, 1);
    comm_sum_i64(run->comm, &tokens, 1);
    run_metric(run, "loss", loss);
    if (trainer_update(&state->trainer, err) < 0)
        return -1;
    trainer_speed(&state->trainer, tokens);
    bool due = state->eval_every && step % state->eval_every == 0;
    if (state->valid.count && (due || step == (int64_t)run->step_count))
        return evaluate(run, state, err);
    return 0;
}

static int classify_load(struct run *run, void *opaque, struct checkpoint_reader *reader,
                         struct err *err)
{
    (void)run;
    return trainer_load(&((struct classify *)opaque)->trainer, reader, err);
}

static int classify_save(struct run *run, void *opaque, struct checkpoint_writer *writer,
                         struct err *err)
{
    struct classify *state = opaque;

    if (trainer_save(&state->trainer, writer, err) < 0)
        return -1;
    if (run->rank != 0)
        return 0;
    return tokenizer_write(state->tokenizer, checkpoint_folder(writer),
                           (uint64_t)state->config.context, err);
}

static void classify_close(struct run *run, void *opaque)
{
    struct classify *state = opaque;

    (void)run;
    trainer_close(&state->trainer);
    items_done(&state->train);
    items_done(&state->valid);
    tokenizer_free(state->tokenizer);
    mem_free(state->token);
    mem_free(state->type);
    mem_free(state->length);
    mem_free(state->target);
    mem_free(state->weight);
    mem_free(state->nll);
}

static const struct param classify_params[] = {
    {"steps", PARAM_INT, "1000", 1, 1e9, NULL, "optimiser steps"},
    {"eval_every", PARAM_INT, "100", 0, 1e9, NULL,
     "steps between validations; 0: only after the last step"},
    {"labels", PARAM_LIST, "contradiction;entailment;neutral", 0, 0, NULL,
     "names of the classes, in the order of their ids"},
    {"layers", PARAM_INT, "2", 1, 1000, NULL, "blocks of a new encoder"},
    {"d_model", PARAM_INT, "128", 8, 65536, NULL, "its width"},
    {"heads", PARAM_INT, "4", 1, 1024, NULL, "its attention heads; divides d_model"},
    {"d_ff", PARAM_INT, "0", 0, 1048576, NULL, "width inside its blocks; 0: 4 times d_model"},
    {"context", PARAM_INT, "128", 8, 65536, NULL,
     "most tokens of a pair, with those around it; longer ones lose ends"},
    TRAIN_PARAMS("1e-3", "linear", "32", "0.01"),
};

static const struct input classify_inputs[] = {
    {"data", INPUT_DATASET, true, "documents of a text, or x and y, and a label, a line each"},
    {"valid", INPUT_DATASET, false, "the same for val_loss and val_accuracy"},
    {"init", INPUT_CHECKPOINT, false,
     "encoder to finetune, with its tokenizer; classes it lacks are new. Without it a new one"},
};

const struct recipe recipe_finetuning_classify = {
    .name = "classify",
    .kind = RECIPE_FINETUNING,
    .version = 1,
    .summary = "Trains an encoder to classify texts or pairs: entailment, for one",
    .source = "Devlin et al. 2019 (BERT), section 4.1",
    .params = classify_params,
    .param_count = ARRAY_COUNT(classify_params),
    .inputs = classify_inputs,
    .input_count = ARRAY_COUNT(classify_inputs),
    .outputs = "checkpoint|metrics",
    .state_size = sizeof(struct classify),
    .open = classify_open,
    .load = classify_load,
    .step = classify_step,
    .save = classify_save,
    .close = classify_close,
};
