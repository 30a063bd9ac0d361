/* hidden_kd.c - a small encoder learns from a larger one: what it predicts, its hidden states and
 * where it attends. By default DistilBERT's loss; with `hidden` and `attention` TinyBERT's.
 *
 *   L = soft tau^2 KL(teacher || student; tau) + mlm CE(hidden tokens)
 *     + cosine mean(1 - cos(h_S, h_T)) of the last states
 *     + hidden sum over pairs (m, g) mean((W_m h_S,m - h_T,g)^2)
 *     + attention sum over pairs mean((scores_S,m - scores_T,g)^2), before the softmax
 *
 * Both models read the same masked rows (masks.h). The means are over tokens (scores: over heads
 * and pairs of tokens that see each other) of the whole batch. W_m is learned where the widths
 * differ, else it is the identity. The teacher is frozen and runs on a tape of its own. Hidden
 * states and scores are compared on the host (hidden_losses.h), which is exact and costs about as
 * much as the student's own products; logits of kd_tokens: all are held at once, 8 V bytes a
 * token. State: student, moments, projections and the step number. */
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "worker/engine/comm.h"
#include "worker/engine/encoder.h"
#include "worker/recipes/distillation/hidden_losses.h"
#include "worker/recipes/distillation/kd.h"
#include "worker/recipes/distillation/projection.h"
#include "worker/recipes/masks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAIRS_MAX 256

/* Layer m of the student (0: its embeddings) learns from layer g of the teacher. */
struct pair {
    int64_t m, g;
};

enum term { TERM_SOFT = 0, TERM_MLM, TERM_COSINE, TERM_HIDDEN, TERM_ATTENTION, TERM_END };

static const char *const term_param[TERM_END] = {"soft", "mlm", "cosine", "hidden", "attention"};
static const char *const term_metric[TERM_END] = {"kd_loss", "mlm_loss", "cosine_loss",
                                                  "hidden_loss", "attention_loss"};

struct hidden_kd {
    struct trainer trainer;
    struct corpus train, valid;
    struct rows rows;
    struct masks masks;
    struct model *teacher;
    struct tape *teacher_tape;
    struct projection *projection; /* NULL: the identity */
    struct pair pair[PAIRS_MAX];
    int64_t pair_count;
    double weight[TERM_END], temperature;
    bool all_tokens;
    int64_t eval_every;
    float *nll; /* of a pass */
    /* Of the step: what the means divide by. */
    double masked, cells, visible;
    /* Of the pass: states by layer, of both. */
    struct tensor **student_layer, **teacher_layer;
    struct tensor *teacher_hidden;
};

/* -- opening -------------------------------------------------------------------------------- */

static int open_teacher(struct run *run, struct hidden_kd *kd, struct err *err)
{
    const struct run_input *given = run_input(run, "teacher");

    if (run_model_open(run, "teacher", kd->trainer.device, false, &kd->teacher, err) < 0 ||
        corpus_match_model(&kd->train, given->path, kd->teacher, err) < 0)
        return -1;
    if (kd->teacher->config.family != MODEL_BERT || kd->teacher->config.top != MODEL_TOP_TOKENS)
        return err_set(err, ERR_INVALID, "input 'teacher' (%s) is no BertForMaskedLM; decoders are "
                       "distilled by logit_kd, seq_kd and gkd", given->ref);
    return tape_new(kd->trainer.device, TAPE_INFER, &kd->teacher_tape, err);
}

static int check_student(struct run *run, struct hidden_kd *kd, struct err *err)
{
    const struct model_config *s = &kd->trainer.model->config, *t = &kd->teacher->config;

    if (s->family != MODEL_BERT || s->top != MODEL_TOP_TOKENS || s->vocab_size != t->vocab_size ||
        s->context > t->context)
        return err_set(err, ERR_INVALID, "the student is a %s of %lld tokens and context %lld: "
                       "expected a BertForMaskedLM of the teacher's %lld tokens and at most its "
                       "context %lld", model_family_name(s->family), (long long)s->vocab_size,
                       (long long)s->context, (long long)t->vocab_size, (long long)t->context);
    if (kd->weight[TERM_COSINE] > 0 && s->width != t->width)
        return err_set(err, ERR_INVALID, "parameter 'cosine' is %g, but the student is %lld wide "
                       "and the teacher %lld: set it to 0 and use 'hidden', which learns a map",
                       kd->weight[TERM_COSINE], (long long)s->width, (long long)t->width);
    if (kd->weight[TERM_ATTENTION] > 0 && s->heads != t->heads)
        return err_set(err, ERR_INVALID, "parameter 'attention' is %g, but the student has %lld "
                       "heads and the teacher %lld: they must be equal, or 'attention' 0",
                       kd->weight[TERM_ATTENTION], (long long)s->heads, (long long)t->heads);
    (void)run;
    return 0;
}

static int open_student(struct run *run, struct hidden_kd *kd, struct err *err)
{
    const char *init = run_string(run, "student_init");
    struct trainer *trainer = &kd->trainer;
    struct model_config config;

    if (strcmp(init, "checkpoint") == 0) {
        if (run_model_open(run, "student", trainer->device, true, &trainer->model, err) < 0)
            return -1;
        return corpus_match_model(&kd->train, run_input(run, "student")->path, trainer->model,
                                  err);
    }
    if (student_config(run, kd->teacher, &config, err) < 0 ||
        model_new(trainer->device, &config, trainer->seed, &trainer->model, err) < 0)
        return -1;
    return strcmp(init, "teacher-layers") == 0
               ? student_copy_layers(trainer->model, kd->teacher, err)
               : 0;
}

static int refuse_map(const char *text, struct err *err)
{
    return err_set(err, ERR_INVALID, "parameter 'map' is '%s', expected uniform, last or pairs "
                   "of layers STUDENT:TEACHER with commas between, as 0:0,1:2,2:4", text);
}

/* "1:2,2:4" */
static int parse_map(struct hidden_kd *kd, const char *text, struct err *err)
{
    int64_t M = kd->trainer.model->config.layers, N = kd->teacher->config.layers;
    const char *at = text;

    while (*at) {
        long long m, g;
        int used = 0;

        if (sscanf(at, "%4lld:%4lld%n", &m, &g, &used) != 2 || m < 0 || g < 0 ||
            (at[used] && at[used] != ',') || (at[used] == ',' && !at[used + 1]))
            return refuse_map(text, err);
        if (m > M || g > N)
            return err_set(err, ERR_INVALID, "parameter 'map' pairs %lld:%lld, but the student has "
                           "%lld layers and the teacher %lld", m, g, (long long)M, (long long)N);
        if (kd->pair_count == PAIRS_MAX)
            return err_set(err, ERR_INVALID, "parameter 'map' has more than %d pairs", PAIRS_MAX);
        kd->pair[kd->pair_count++] = (struct pair){m, g};
        at += used + (at[used] == ',');
    }
    return kd->pair_count > 0 ? 0 : refuse_map(text, err);
}

/* TinyBERT's g(m) = m N / M, the embeddings included. */
static int make_map(struct run *run, struct hidden_kd *kd, struct err *err)
{
    int64_t M = kd->trainer.model->config.layers, N = kd->teacher->config.layers;
    const char *map = run_string(run, "map");

    if (kd->weight[TERM_HIDDEN] <= 0 && kd->weight[TERM_ATTENTION] <= 0)
        return 0;
    if (strcmp(map, "last") == 0) {
        kd->pair[kd->pair_count++] = (struct pair){M, N};
        return 0;
    }
    if (strcmp(map, "uniform") != 0)
        return parse_map(kd, map, err);
    if (N % M != 0 || M >= PAIRS_MAX)
        return err_set(err, ERR_INVALID, "parameter 'map' is uniform, but the teacher's %lld "
                       "layers are no multiple of the student's %lld: name the pairs, as 1:2,2:4",
                       (long long)N, (long long)M);
    for (int64_t m = 0; m <= M; m++)
        kd->pair[kd->pair_count++] = (struct pair){m, m * (N / M)};
    return 0;
}

static int open_projection(struct run *run, struct hidden_kd *kd, struct err *err)
{
    int64_t from = kd->trainer.model->config.width, to = kd->teacher->config.width;
    struct optim_config config = {.beta1 = run_float(run, "beta1"),
                                  .beta2 = run_float(run, "beta2"),
                                  .weight_decay = run_float(run, "weight_decay"),
                                  .clip_norm = run_float(run, "clip")};

    if (kd->weight[TERM_HIDDEN] <= 0 || (from == to && !run_bool(run, "project")))
        return 0;
    return projection_new(kd->trainer.device, kd->pair_count, from, to, kd->trainer.seed, &config,
                          &kd->projection, err);
}

static int open_room(struct run *run, struct hidden_kd *kd, struct err *err)
{
    struct trainer *trainer = &kd->trainer;
    int64_t cells = trainer_pass_most(trainer) * trainer->model->config.context;

    kd->student_layer = mem_array((size_t)trainer->model->config.layers + 1, sizeof(void *));
    kd->teacher_layer = mem_array((size_t)kd->teacher->config.layers + 1, sizeof(void *));
    kd->nll = malloc((size_t)cells * sizeof *kd->nll);
    if (!kd->nll)
        return err_set(err, ERR_MEMORY, "cannot allocate losses of %lld tokens", (long long)cells);
    return masks_init(run, &kd->train, cells, trainer->seed, &kd->masks, err);
}

static int hidden_kd_open(struct run *run, void *state, struct err *err)
{
    struct hidden_kd *kd = state;
    struct trainer *trainer = &kd->trainer;

    run->step_count = (uint64_t)run_int(run, "steps");
    kd->eval_every = run_int(run, "eval_every");
    kd->temperature = run_float(run, "temperature");
    kd->all_tokens = strcmp(run_string(run, "kd_tokens"), "all") == 0;
    for (int term = 0; term < TERM_END; term++)
        kd->weight[term] = run_float(run, term_param[term]);
    if (corpus_open(run, "data", &kd->train, err) < 0 || trainer_open(run, trainer, err) < 0 ||
        open_teacher(run, kd, err) < 0 || open_student(run, kd, err) < 0 ||
        check_student(run, kd, err) < 0 || make_map(run, kd, err) < 0 ||
        trainer_start(trainer, err) < 0 || open_projection(run, kd, err) < 0 ||
        rows_init(trainer, &kd->train, run_string(run, "unit"), &kd->rows, err) < 0 ||
        open_room(run, kd, err) < 0)
        return -1;
    run_note(run, "student of %lld weights, teacher of %lld, %lld pairs of layers",
             (long long)model_weight_count(&trainer->model->config),
             (long long)model_weight_count(&kd->teacher->config), (long long)kd->pair_count);
    if (!run_input(run, "valid"))
        return 0;
    if (corpus_open(run, "valid", &kd->valid, err) < 0)
        return -1;
    return corpus_match(&kd->valid, &kd->train, err);
}

/* -- the terms ------------------------------------------------------------------------------ */

/* A student's tensor and a teacher's on the host, and room for the gradient. */
struct compared {
    float *s, *t, *grad;
};

static void compared_open(struct compared *c, const struct tensor *s, const struct tensor *t)
{
    c->s = mem_array((size_t)tensor_count(s), sizeof *c->s);
    c->grad = mem_zalloc((size_t)tensor_count(s) * sizeof *c->grad);
    c->t = mem_array((size_t)tensor_count(t), sizeof *c->t);
    tensor_read(s, c->s);
    tensor_read(t, c->t);
}

static void compared_done(struct compared *c)
{
    mem_free(c->s);
    mem_free(c->t);
    mem_free(c->grad);
}

/* Every cell of a sequence, in order; *out_count of them. mem_free. */
static int32_t *list_cells(const struct masks *masks, int64_t *out_count)
{
    int32_t *list = mem_array((size_t)(masks->B * masks->T) + 1, sizeof *list);
    int64_t count = 0;

    for (int64_t i = 0; i < masks->sequence_count; i++)
        for (int32_t n = 0; n < masks->sequence[2 * i + 1]; n++)
            list[count++] = masks->sequence[2 * i] + n;
    *out_count = count;
    return list;
}

typedef double (*distance)(const float *s, const float *t, int64_t width, double weight,
                           float *grad);

/* Sums a distance over the cells of both, each weighing `weight` in the loss. */
static double compare_cells(struct hidden_kd *kd, struct tensor *student, struct tensor *teacher,
                            distance how, double weight)
{
    int64_t width = tensor_columns(student), count;
    int32_t *cells = list_cells(&kd->masks, &count);
    struct compared c;
    double sum = 0;

    compared_open(&c, student, teacher);
    for (int64_t i = 0; i < count; i++) {
        int64_t at = cells[i] * width;

        sum += how(c.s + at, c.t + at, width, weight, c.grad + at);
    }
    tape_seed(kd->trainer.tape, student, c.grad);
    compared_done(&c);
    mem_free(cells);
    return sum;
}

static double cosine_term(struct hidden_kd *kd, struct tensor *hidden)
{
    return compare_cells(kd, hidden, kd->teacher_hidden, hidden_cosine,
                         kd->weight[TERM_COSINE] / kd->cells) / kd->cells;
}

static int hidden_term(struct hidden_kd *kd, int64_t i, double *out, struct err *err)
{
    struct tensor *student = kd->student_layer[kd->pair[i].m];
    struct tensor *teacher = kd->teacher_layer[kd->pair[i].g];
    double count = kd->cells * (double)kd->teacher->config.width;

    if (kd->projection)
        student = op_linear(kd->trainer.tape, student, projection_weight(kd->projection, i), NULL);
    if (tape_check(kd->trainer.tape, err) < 0)
        return -1;
    *out += compare_cells(kd, student, teacher, hidden_square,
                          kd->weight[TERM_HIDDEN] / count) / count;
    return 0;
}

/* Queries or keys of a block, from the states before it. */
static struct tensor *linear_of(struct tape *tape, struct model *model, struct tensor *x,
                                int64_t block, char which)
{
    char name[MODEL_NAME_SIZE];
    struct model_weight *w, *b;

    snprintf(name, sizeof name, "block.%lld.%c.weight", (long long)block, which);
    w = model_weight_find(model, name);
    snprintf(name, sizeof name, "block.%lld.%c.bias", (long long)block, which);
    b = model_weight_find(model, name);
    CHECK(w && b);
    return op_linear(tape, x, &w->tensor, &b->tensor);
}

static int attention_term(struct hidden_kd *kd, const struct pair *pair, double *out,
                          struct err *err)
{
    struct tape *tape = kd->trainer.tape;
    struct model *model = kd->trainer.model;
    struct tensor *x = kd->student_layer[pair->m - 1], *y = kd->teacher_layer[pair->g - 1];
    struct tensor *qs = linear_of(tape, model, x, pair->m - 1, 'q');
    struct tensor *ks = linear_of(tape, model, x, pair->m - 1, 'k');
    struct tensor *qt = linear_of(kd->teacher_tape, kd->teacher, y, pair->g - 1, 'q');
    struct tensor *kt = linear_of(kd->teacher_tape, kd->teacher, y, pair->g - 1, 'k');
    int64_t heads = model->config.heads, ws = model->config.width;
    int64_t wt = kd->teacher->config.width;
    double count = kd->visible * (double)heads, sum = 0;
    struct compared q, k;

    if (tape_check(tape, err) < 0 || tape_check(kd->teacher_tape, err) < 0)
        return -1;
    compared_open(&q, qs, qt);
    compared_open(&k, ks, kt);
    for (int64_t i = 0; i < kd->masks.sequence_count; i++) {
        int64_t start = kd->masks.sequence[2 * i];
        struct attention_side s = {q.s + start * ws, k.s + start * ws, ws / heads};
        struct attention_side t = {q.t + start * wt, k.t + start * wt, wt / heads};

        sum += hidden_scores(&s, &t, kd->masks.sequence[2 * i + 1], heads,
                             kd->weight[TERM_ATTENTION] / count, q.grad + start * ws,
                             k.grad + start * ws);
    }
    tape_seed(tape, qs, q.grad);
    tape_seed(tape, ks, k.grad);
    compared_done(&q);
    compared_done(&k);
    *out += sum / count;
    return 0;
}

/* Logits of both at the given cells, compared at the temperature. student: NULL, or logits that
 * are there already. */
static int soft_term(struct hidden_kd *kd, struct tensor *hidden, struct tensor *student,
                     const int32_t *cells, int64_t count, double total, double *out,
                     struct err *err)
{
    struct tape *tape = kd->trainer.tape, *other = kd->teacher_tape;
    int64_t V = kd->teacher->config.vocab_size;
    struct tensor *teacher;
    struct compared c;

    if (count == 0)
        return 0;
    if (!student)
        student = encoder_tokens(tape, kd->trainer.model,
                                 op_gather(tape, hidden, tape_i32(tape, cells, count)));
    teacher = encoder_tokens(other, kd->teacher,
                             op_gather(other, kd->teacher_hidden, tape_i32(other, cells, count)));
    if (tape_check(tape, err) < 0 || tape_check(other, err) < 0)
        return -1;
    compared_open(&c, student, teacher);
    for (int64_t i = 0; i < count; i++)
        *out += hidden_soften(c.s + i * V, c.t + i * V, V, kd->temperature,
                              kd->weight[TERM_SOFT] / total, c.grad + i * V) / total;
    tape_seed(tape, student, c.grad);
    compared_done(&c);
    return 0;
}

static int predict(struct hidden_kd *kd, struct tensor *hidden, double term[TERM_END],
                   struct err *err)
{
    struct masks *masks = &kd->masks;
    struct tensor *logits;
    int32_t *cells;
    int64_t count;
    int rc;

    if (masks_loss(kd->trainer.tape, kd->trainer.model, masks, hidden,
                   kd->weight[TERM_MLM] / kd->masked, kd->nll, &logits, err) < 0)
        return -1;
    for (int64_t i = 0; i < masks->count; i++)
        term[TERM_MLM] += (double)kd->nll[i] / kd->masked;
    if (kd->weight[TERM_SOFT] <= 0)
        return 0;
    if (!kd->all_tokens)
        return soft_term(kd, hidden, logits, masks->row, masks->count, kd->masked,
                         &term[TERM_SOFT], err);
    cells = list_cells(masks, &count);
    rc = soft_term(kd, hidden, NULL, cells, count, kd->cells, &term[TERM_SOFT], err);
    mem_free(cells);
    return rc;
}

/* -- steps ---------------------------------------------------------------------------------- */

static int teach(struct hidden_kd *kd, struct err *err)
{
    struct model_states states = {.layer = kd->teacher_layer};

    tape_reset(kd->teacher_tape);
    if (model_forward(kd->teacher_tape, kd->teacher, &kd->masks.batch, &states, err) < 0)
        return -1;
    kd->teacher_hidden = states.hidden;
    return 0;
}

static int hidden_kd_pass(struct hidden_kd *kd, int64_t pass, double term[TERM_END],
                          struct err *err)
{
    struct model_states states = {.layer = kd->student_layer};

    masks_fill(&kd->masks, &kd->rows, pass);
    if (teach(kd, err) < 0 ||
        trainer_states(&kd->trainer, &kd->masks.batch, &states, err) < 0 ||
        predict(kd, states.hidden, term, err) < 0)
        return -1;
    if (kd->weight[TERM_COSINE] > 0)
        term[TERM_COSINE] += cosine_term(kd, states.hidden);
    for (int64_t i = 0; i < kd->pair_count; i++) {
        const struct pair *pair = &kd->pair[i];

        if (kd->weight[TERM_HIDDEN] > 0 && hidden_term(kd, i, &term[TERM_HIDDEN], err) < 0)
            return -1;
        if (kd->weight[TERM_ATTENTION] > 0 && pair->m > 0 && pair->g > 0 &&
            attention_term(kd, pair, &term[TERM_ATTENTION], err) < 0)
            return -1;
    }
    return trainer_backward(&kd->trainer, err);
}

/* What the means of the step divide by, over all passes and ranks. */
static void count_step(struct hidden_kd *kd)
{
    double counts[3] = {0, 0, 0};

    for (int64_t pass = 0; pass < kd->trainer.pass_count; pass++) {
        masks_fill(&kd->masks, &kd->rows, pass);
        counts[0] += (double)kd->masks.count;
        for (int64_t i = 0; i < kd->masks.sequence_count; i++) {
            double length = kd->masks.sequence[2 * i + 1];

            counts[1] += length;
            counts[2] += length * length;
        }
    }
    comm_sum_f64(kd->trainer.run->comm, counts, 3);
    kd->masked = counts[0];
    kd->cells = counts[1];
    kd->visible = counts[2];
}

static int update(struct run *run, struct hidden_kd *kd, struct err *err)
{
    double rate = schedule_rate(&kd->trainer.schedule, (int64_t)run->step);

    if (kd->projection && projection_update(kd->projection, run->comm, rate, err) < 0)
        return trainer_stopped(run, err);
    return trainer_update(&kd->trainer, err);
}

static int hidden_kd_step(struct run *run, void *state, struct err *err)
{
    struct hidden_kd *kd = state;
    double term[TERM_END] = {0}, loss = 0;

    count_step(kd);
    if (kd->masked == 0)
        return err_set(err, ERR_INVALID, "input 'data' has only special tokens in this step");
    for (int64_t pass = 0; pass < kd->trainer.pass_count; pass++)
        if (hidden_kd_pass(kd, pass, term, err) < 0)
            return -1;
    comm_sum_f64(run->comm, term, TERM_END);
    for (int i = 0; i < TERM_END; i++) {
        loss += kd->weight[i] * term[i];
        if (kd->weight[i] > 0 || i == TERM_MLM)
            run_metric(run, term_metric[i], term[i]);
    }
    run_metric(run, "loss", loss);
    if (update(run, kd, err) < 0)
        return -1;
    trainer_speed(&kd->trainer, (int64_t)kd->cells);
    return masks_report(run, &kd->masks, &kd->valid, kd->trainer.model, kd->eval_every, err);
}

static int hidden_kd_load(struct run *run, void *state, struct checkpoint_reader *reader,
                          struct err *err)
{
    struct hidden_kd *kd = state;

    (void)run;
    if (trainer_load(&kd->trainer, reader, err) < 0)
        return -1;
    return kd->projection ? projection_load(kd->projection, reader, err) : 0;
}

static int hidden_kd_save(struct run *run, void *state, struct checkpoint_writer *writer,
                          struct err *err)
{
    struct hidden_kd *kd = state;

    (void)run;
    if (trainer_save(&kd->trainer, writer, err) < 0 ||
        (kd->projection && projection_save(kd->projection, writer, err) < 0))
        return -1;
    return checkpoint_copy_tokenizer(writer, dataset_path(kd->train.dataset), err);
}

static void hidden_kd_close(struct run *run, void *state)
{
    struct hidden_kd *kd = state;

    (void)run;
    free(kd->nll);
    mem_free(kd->student_layer);
    mem_free(kd->teacher_layer);
    masks_done(&kd->masks);
    rows_done(&kd->rows);
    projection_free(kd->projection);
    tape_free(kd->teacher_tape);
    model_free(kd->teacher);
    corpus_close(&kd->valid);
    corpus_close(&kd->train);
    trainer_close(&kd->trainer);
}

static const struct param hidden_kd_params[] = {
    {"soft", PARAM_FLOAT, "5", 0, 1000, NULL, "weight of the divergence from the teacher's tokens"},
    {"mlm", PARAM_FLOAT, "2", 0, 1000, NULL, "weight of the cross-entropy of hidden tokens"},
    {"cosine", PARAM_FLOAT, "1", 0, 1000, NULL,
     "weight of the angle between last states; needs the teacher's width"},
    {"hidden", PARAM_FLOAT, "0", 0, 1000, NULL, "weight of squares of states, by `map`"},
    {"attention", PARAM_FLOAT, "0", 0, 1000, NULL,
     "weight of squares of attention scores, by `map`; needs the teacher's heads"},
    {"map", PARAM_STRING, "uniform", 0, 0, NULL,
     "layers that learn from which: uniform (m from m N / M, embeddings too), last, or pairs "
     "STUDENT:TEACHER as 0:0,1:2"},
    {"project", PARAM_BOOL, "false", 0, 0, NULL,
     "learn a map for `hidden` even where the widths are equal"},
    {"temperature", PARAM_FLOAT, "2", 0.25, 20, NULL, "temperature of both distributions"},
    {"kd_tokens", PARAM_CHOICE, "all", 0, 0, "all|masked",
     "tokens at which distributions are compared"},
    KD_STUDENT_PARAMS,
    {"steps", PARAM_INT, "400", 1, 1e9, NULL, "optimiser steps"},
    {"unit", PARAM_CHOICE, "documents", 0, 0, "windows|documents",
     "what a sequence is: `context` tokens of the stream, or one document that sees only itself"},
    {"eval_every", PARAM_INT, "50", 0, 1e9, NULL,
     "steps between validation losses; 0: only after the last step"},
    MASK_PARAMS,
    TRAIN_PARAMS("1e-3", "linear", "32", "0.01"),
};

static const struct input hidden_kd_inputs[] = {
    {"data", INPUT_DATASET, true, "documents to train on; the tokenizer has a [MASK]"},
    {"valid", INPUT_DATASET, false, "documents for val_loss, same tokenizer"},
    {"teacher", INPUT_CHECKPOINT, true, "BertForMaskedLM to learn from, same tokenizer"},
    {"student", INPUT_CHECKPOINT, false, "student's weights, with student_init: checkpoint"},
};

const struct recipe recipe_distillation_hidden_kd = {
    .name = "hidden_kd",
    .kind = RECIPE_DISTILLATION,
    .version = 1,
    .summary = "Trains a small encoder to match a larger one's tokens, states and attention.",
    .source = "Sanh et al. 2019 (DistilBERT), section 3; Jiao et al. 2020 (TinyBERT), eq. 7-9",
    .params = hidden_kd_params,
    .param_count = ARRAY_COUNT(hidden_kd_params),
    .inputs = hidden_kd_inputs,
    .input_count = ARRAY_COUNT(hidden_kd_inputs),
    .outputs = "checkpoint|metrics",
    .state_size = sizeof(struct hidden_kd),
    .open = hidden_kd_open,
    .load = hidden_kd_load,
    .step = hidden_kd_step,
    .save = hidden_kd_save,
    .close = hidden_kd_close,
};
