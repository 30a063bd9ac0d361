/* forget_retain.c - what a model still knows of a forget set, and what it kept.
 *
 * Three kinds of text give the numbers meaning: forget (trained on, to be unlearned), retain
 * (trained on, to be kept) and holdout (of the forget set's kind, never trained on). The
 * reference is a model retrained without the forget set: where it or the holdout is missing,
 * what depends on it is null. Definitions: membership.h; loss and probability include the
 * end of a document, extraction, memorisation and Min-K do not.
 * A task is one (model, set) pair; a step scores one group of blocks of one task. */
#include "common/base/rng.h"
#include "worker/engine/comm.h"
#include "worker/recipes/eval/membership.h"
#include "worker/recipes/eval/results.h"
#include "worker/recipes/eval/samples.h"
#include "worker/recipes/score.h"
#include "worker/recipes/train.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCKS_A_STEP 64 /* of 2048 tokens */

enum set { SET_FORGET, SET_RETAIN, SET_HOLDOUT, SET_END };
enum subject { SUBJECT_MODEL, SUBJECT_REFERENCE, SUBJECT_END };

static const char *const set_name[SET_END] = {"forget", "retain", "holdout"};

/* All doubles: summed over ranks as one array. */
struct document_score {
    double nll, tokens; /* the end included */
    double kd;          /* forward KL to the teacher, sum */
    double extraction, memorisation, min_k;
};
_Static_assert(sizeof(struct document_score) == 6 * sizeof(double), "summed as doubles");

struct task {
    enum subject subject;
    enum set set;
    struct score_plan plan;
    int64_t documents;            /* scored */
    struct document_score *score; /* one a document */
    uint64_t first_step, end_step;
};

struct forget_retain {
    struct device *device;
    struct model *subject[SUBJECT_END];
    struct model *teacher;
    struct corpus corpus[SET_END];
    struct scorer scorer;
    double min_k;
    int64_t most; /* documents of a set; 0: all */
    struct task task[SUBJECT_END * SET_END];
    int task_count;
    struct task *task_of[SUBJECT_END][SET_END]; /* NULL: not given */
    int64_t cut_documents;
    bool *hit; /* room for one document */
    float *nll;
};

/* -- opening ------------------------------------------------------------------------------ */

static int open_model(struct run *run, struct forget_retain *eval, const char *input,
                      struct model **out, struct err *err)
{
    struct model *model = NULL;

    if (!run_input(run, input))
        return 0;
    if (run_writer_open(run, input, eval->device, false, &model, err) < 0)
        return -1;
    *out = model;
    return corpus_match_model(&eval->corpus[SET_FORGET], run_input(run, input)->path, model, err);
}

static int open_inputs(struct run *run, struct forget_retain *eval, struct err *err)
{
    for (enum set set = 0; set < SET_END; set++) {
        if (!run_input(run, set_name[set]))
            continue;
        if (corpus_open(run, set_name[set], &eval->corpus[set], err) < 0 ||
            corpus_match(&eval->corpus[set], &eval->corpus[SET_FORGET], err) < 0)
            return -1;
    }
    if (run_device_open(run, &eval->device, err) < 0 ||
        open_model(run, eval, "model", &eval->subject[SUBJECT_MODEL], err) < 0 ||
        open_model(run, eval, "reference", &eval->subject[SUBJECT_REFERENCE], err) < 0)
        return -1;
    return open_model(run, eval, "teacher", &eval->teacher, err);
}

/* The shortest context of all models, so that all score the same tokens. */
static int64_t common_context(const struct forget_retain *eval)
{
    const struct model *models[] = {eval->subject[SUBJECT_MODEL], eval->subject[SUBJECT_REFERENCE],
                                    eval->teacher};
    int64_t T = INT64_MAX;

    for (size_t i = 0; i < ARRAY_COUNT(models); i++) {
        if (models[i] && models[i]->config.context < T)
            T = models[i]->config.context;
    }
    return T;
}

static void count_cut(struct forget_retain *eval, int64_t T)
{
    for (enum set set = 0; set < SET_END; set++) {
        if (!corpus_is_open(&eval->corpus[set]))
            continue;
        struct score_source source = score_documents(&eval->corpus[set], eval->most);

        for (int64_t i = 0; i < source.count; i++) {
            bool cut = false;

            corpus_document(&eval->corpus[set], i * source.total / source.count, T,
                            eval->scorer.token, eval->scorer.target, &cut);
            eval->cut_documents += cut;
        }
    }
}

static int add_task(struct run *run, struct forget_retain *eval, enum subject subject, enum set set,
                    struct err *err)
{
    struct task *task = &eval->task[eval->task_count];
    struct score_source source = score_documents(&eval->corpus[set], eval->most);

    task->subject = subject;
    task->set = set;
    task->documents = source.count;
    task->score = calloc((size_t)source.count, sizeof *task->score);
    if (!task->score)
        return err_set(err, ERR_MEMORY, "cannot allocate scores of %lld documents",
                       (long long)source.count);
    eval->task_count++;
    if (score_plan_init(&eval->scorer, &source, &task->plan, err) < 0)
        return -1;
    task->first_step = run->step_count;
    run->step_count += (uint64_t)(task->plan.block_count + BLOCKS_A_STEP - 1) / BLOCKS_A_STEP;
    task->end_step = run->step_count;
    eval->task_of[subject][set] = task;
    return 0;
}

static int forget_retain_open(struct run *run, void *state, struct err *err)
{
    struct forget_retain *eval = state;
    int64_t T;

    eval->min_k = run_float(run, "min_k");
    eval->most = run_int(run, "documents");
    run->phase = "evaluate";
    if (open_inputs(run, eval, err) < 0)
        return -1;
    T = common_context(eval);
    if (scorer_open(run->comm, eval->device, T, &eval->scorer, err) < 0)
        return -1;
    eval->hit = malloc((size_t)T * sizeof *eval->hit);
    eval->nll = malloc((size_t)T * sizeof *eval->nll);
    if (!eval->hit || !eval->nll)
        return err_set(err, ERR_MEMORY, "cannot allocate scores of %lld tokens", (long long)T);
    count_cut(eval, T);
    run->step_count = 0;
    for (enum subject subject = 0; subject < SUBJECT_END; subject++) {
        for (enum set set = 0; set < SET_END; set++) {
            if (eval->subject[subject] && corpus_is_open(&eval->corpus[set]) &&
                add_task(run, eval, subject, set, err) < 0)
                return -1;
        }
    }
    run->step_count++; /* the report */
    return 0;
}

/* -- scoring ------------------------------------------------------------------------------ */

struct visit {
    struct forget_retain *eval;
    struct task *task;
};

static void visit_document(void *argument, const struct score_item *item)
{
    struct visit *visit = argument;
    struct forget_retain *eval = visit->eval;
    struct document_score *score = &visit->task->score[item->item];
    int64_t words = item->count;

    for (int64_t i = 0; i < item->count; i++) {
        score->nll += (double)item->nll[i];
        score->kd += item->kd ? (double)item->kd[i] : 0;
        eval->hit[i] = item->argmax[i] == item->target[i];
        eval->nll[i] = item->nll[i];
    }
    score->tokens = (double)item->count;
    words -= item->target[item->count - 1] == eval->corpus[visit->task->set].end_of_text;
    score->extraction = extraction_strength(eval->hit, words);
    score->memorisation = exact_memorisation(eval->hit, words);
    score->min_k = min_k_score(eval->nll, words, eval->min_k);
}

static int score_task(struct run *run, struct forget_retain *eval, struct task *task,
                      struct err *err)
{
    struct score_source source = score_documents(&eval->corpus[task->set], eval->most);
    struct visit visit = {eval, task};
    int64_t from = (int64_t)(run->step - task->first_step) * BLOCKS_A_STEP;
    int64_t to = from + BLOCKS_A_STEP;
    const struct model *teacher = task->subject == SUBJECT_MODEL ? eval->teacher : NULL;

    if (to > task->plan.block_count)
        to = task->plan.block_count;
    return score_blocks(&eval->scorer, &source, &task->plan, from, to, eval->subject[task->subject],
                        teacher, visit_document, &visit, err);
}

/* -- the report --------------------------------------------------------------------------- */

static void add_named(struct results *results, const char *subject, const char *set,
                      const char *name, double value)
{
    char full[96];

    snprintf(full, sizeof full, "%s%s_%s", subject, set, name);
    results_add(results, full, value);
}

static void report_task(struct results *results, const struct forget_retain *eval,
                        const struct task *task)
{
    const char *subject = task->subject == SUBJECT_REFERENCE ? "reference_" : "";
    const char *set = set_name[task->set];
    int64_t documents = task->documents;
    struct document_score sum = {0};
    double probability = 0, residuals = 0, n = (double)documents;

    for (int64_t i = 0; i < documents; i++) {
        const struct document_score *score = &task->score[i];

        sum.nll += score->nll;
        sum.tokens += score->tokens;
        sum.kd += score->kd;
        sum.extraction += score->extraction;
        sum.memorisation += score->memorisation;
        probability += exp(-score->nll / score->tokens);
    }
    for (int64_t i = 0; i < documents; i++) {
        double residual = task->score[i].nll - sum.nll / sum.tokens * task->score[i].tokens;

        residuals += residual * residual;
    }
    add_named(results, subject, set, "loss", sum.nll / sum.tokens);
    add_named(results, subject, set, "loss_stderr",
              documents > 1 ? sqrt(n / (n - 1) * residuals) / sum.tokens : NAN);
    add_named(results, subject, set, "probability", probability / n);
    add_named(results, subject, set, "extraction_strength", sum.extraction / n);
    add_named(results, subject, set, "exact_memorisation", sum.memorisation / n);
    add_named(results, subject, set, "documents", n);
    if (task->subject == SUBJECT_MODEL)
        add_named(results, "", set, "kl_to_teacher", eval->teacher ? sum.kd / sum.tokens : NAN);
}

enum attack { ATTACK_MIN_K, ATTACK_LOSS };

/* One score a document; pick chooses which document stands at each place (bootstrap). */
static void attack_scores(const struct task *task, enum attack attack, int64_t count,
                          const int64_t *pick, double *out)
{
    for (int64_t i = 0; i < count; i++) {
        const struct document_score *score = &task->score[pick ? pick[i] : i];

        out[i] = attack == ATTACK_MIN_K ? score->min_k : score->nll / score->tokens;
    }
}

/* room: one double a forget and a holdout document. picks: NULL, or as many indices. */
static double attack_auc(const struct forget_retain *eval, enum subject subject, enum attack attack,
                         const int64_t *picks, double *room)
{
    const struct task *forget = eval->task_of[subject][SET_FORGET];
    const struct task *holdout = eval->task_of[subject][SET_HOLDOUT];
    int64_t members, outsiders;

    if (!forget || !holdout)
        return NAN;
    members = forget->documents;
    outsiders = holdout->documents;
    attack_scores(forget, attack, members, picks, room);
    attack_scores(holdout, attack, outsiders, picks ? picks + members : NULL, room + members);
    return membership_auc(room, members, room + members, outsiders);
}

static int compare_doubles(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;

    return (left > right) - (left < right);
}

/* Percentile of sorted draws; NAN when there are none. */
static double percentile(const double *sorted, int64_t count, double share)
{
    return count > 0 ? sorted[(int64_t)(share * (double)(count - 1) + 0.5)] : NAN;
}

/* Resamples documents of both sets together for model and reference, keyed by the draw. */
static void draw_picks(const struct forget_retain *eval, uint64_t seed, int64_t draw,
                       int64_t *picks)
{
    int64_t members = eval->task_of[SUBJECT_MODEL][SET_FORGET]->documents;
    int64_t all = members + eval->task_of[SUBJECT_MODEL][SET_HOLDOUT]->documents;

    for (int64_t i = 0; i < all; i++) {
        double unit = rng_unit_at(seed, (uint64_t)draw, (uint64_t)i);

        picks[i] = (int64_t)(unit * (double)(i < members ? members : all - members));
    }
}

static void put_interval(struct results *results, const char *name, double *draws, int64_t count)
{
    char full[96];

    if (count > 0)
        qsort(draws, (size_t)count, sizeof *draws, compare_doubles);
    snprintf(full, sizeof full, "%s_low", name);
    results_add(results, full, percentile(draws, count, 0.025));
    snprintf(full, sizeof full, "%s_high", name);
    results_add(results, full, percentile(draws, count, 0.975));
}

/* Membership inference: forget against holdout, and against the retrained reference. */
static int report_membership(struct run *run, struct results *results, struct forget_retain *eval,
                             struct err *err)
{
    int64_t draws = run_int(run, "bootstrap");
    const struct task *holdout = eval->task_of[SUBJECT_MODEL][SET_HOLDOUT];
    int64_t all = eval->task_of[SUBJECT_MODEL][SET_FORGET]->documents;
    double *room = NULL, *auc_draw = NULL, *leak_draw = NULL;
    int64_t *picks = NULL;
    double auc, reference;
    int rc = -1;

    all += holdout ? holdout->documents : 0;
    draws = holdout ? draws : 0;
    room = malloc((size_t)all * sizeof *room);
    picks = malloc((size_t)all * sizeof *picks);
    auc_draw = malloc((size_t)(draws + 1) * sizeof *auc_draw);
    leak_draw = malloc((size_t)(draws + 1) * sizeof *leak_draw);
    if (!room || !picks || !auc_draw || !leak_draw) {
        err_set(err, ERR_MEMORY, "cannot allocate %lld bootstrap draws", (long long)draws);
        goto out;
    }
    auc = attack_auc(eval, SUBJECT_MODEL, ATTACK_MIN_K, NULL, room);
    reference = attack_auc(eval, SUBJECT_REFERENCE, ATTACK_MIN_K, NULL, room);
    for (int64_t draw = 0; draw < draws; draw++) {
        draw_picks(eval, (uint64_t)run_int(run, "seed"), draw, picks);
        auc_draw[draw] = attack_auc(eval, SUBJECT_MODEL, ATTACK_MIN_K, picks, room);
        leak_draw[draw] = privacy_leak(auc_draw[draw], attack_auc(eval, SUBJECT_REFERENCE,
                                                                  ATTACK_MIN_K, picks, room));
    }
    results_add(results, "mia_auc", auc);
    put_interval(results, "mia_auc", auc_draw, draws);
    results_add(results, "mia_auc_loss", attack_auc(eval, SUBJECT_MODEL, ATTACK_LOSS, NULL, room));
    results_add(results, "reference_mia_auc", reference);
    results_add(results, "privleak", privacy_leak(auc, reference));
    put_interval(results, "privleak", leak_draw, isfinite(reference) ? draws : 0);
    rc = 0;
out:
    free(room);
    free(picks);
    free(auc_draw);
    free(leak_draw);
    return rc;
}

static int report_samples(struct run *run, struct results *results, struct forget_retain *eval,
                          struct err *err)
{
    int64_t count = run_int(run, "samples"), most = run_int(run, "sample_tokens");
    struct buf list = {0}, text = {0};
    int rc = 0;

    if (run->rank != 0)
        return 0;
    for (enum set set = 0; rc == 0 && set < SET_END; set++) {
        if (corpus_is_open(&eval->corpus[set]))
            rc = samples_write(run, &eval->corpus[set], eval->subject[SUBJECT_MODEL], count, most,
                               &list, err);
    }
    buf_printf(&text, "[%s]", buf_text(&list));
    if (rc == 0)
        results_raw(results, "samples", buf_text(&text));
    buf_done(&list);
    buf_done(&text);
    return rc;
}

static void put_settings(struct run *run, struct results *results, const struct forget_retain *eval)
{
    static const char *const inputs[] = {"model",  "reference", "teacher",
                                         "forget", "retain",    "holdout"};
    char hex[HASH_HEX_SIZE];

    hash_to_hex(tokenizer_identity(dataset_tokenizer(eval->corpus[SET_FORGET].dataset)), hex);
    results_text(results, "tokenizer", hex);
    for (size_t i = 0; i < ARRAY_COUNT(inputs); i++) {
        const struct run_input *input = run_input(run, inputs[i]);

        if (input)
            results_text(results, inputs[i], input->ref);
        else
            results_raw(results, inputs[i], "null");
    }
    results_number(results, "max_length", (double)eval->scorer.pack.T);
    results_number(results, "min_k", eval->min_k);
    results_number(results, "documents_most", (double)eval->most);
}

static void note_summary(struct run *run, const struct forget_retain *eval)
{
    for (int i = 0; i < eval->task_count; i++) {
        const struct task *task = &eval->task[i];
        struct document_score sum = {0};

        for (int64_t d = 0; d < task->documents; d++) {
            sum.nll += task->score[d].nll;
            sum.tokens += task->score[d].tokens;
        }
        run_note(run, "%s: %s loss %.4f nats a token",
                 task->subject == SUBJECT_MODEL ? "model" : "reference", set_name[task->set],
                 sum.nll / sum.tokens);
    }
}

static int forget_retain_report(struct run *run, struct forget_retain *eval, struct err *err)
{
    struct results results;
    int rc = -1;

    for (int i = 0; i < eval->task_count; i++)
        comm_sum_f64(run->comm, &eval->task[i].score->nll, 6 * eval->task[i].documents);
    results_init(&results, run);
    put_settings(run, &results, eval);
    for (int i = 0; i < eval->task_count; i++)
        report_task(&results, eval, &eval->task[i]);
    results_add(&results, "cut_documents", (double)eval->cut_documents);
    note_summary(run, eval);
    if (report_membership(run, &results, eval, err) == 0 &&
        report_samples(run, &results, eval, err) == 0)
        rc = results_write(&results, "forget_retain", err);
    results_done(&results);
    return rc;
}

static int forget_retain_step(struct run *run, void *state, struct err *err)
{
    struct forget_retain *eval = state;

    for (int i = 0; i < eval->task_count; i++) {
        struct task *task = &eval->task[i];

        if (run->step >= task->first_step && run->step < task->end_step)
            return score_task(run, eval, task, err);
    }
    return forget_retain_report(run, eval, err);
}

static void forget_retain_close(struct run *run, void *state)
{
    struct forget_retain *eval = state;

    (void)run;
    for (int i = 0; i < eval->task_count; i++) {
        score_plan_done(&eval->task[i].plan);
        free(eval->task[i].score);
    }
    free(eval->hit);
    free(eval->nll);
    scorer_close(&eval->scorer);
    model_free(eval->teacher);
    for (enum subject subject = 0; subject < SUBJECT_END; subject++)
        model_free(eval->subject[subject]);
    device_close(eval->device);
    for (enum set set = 0; set < SET_END; set++)
        corpus_close(&eval->corpus[set]);
}

static const struct param forget_retain_params[] = {
    {"documents", PARAM_INT, "0", 0, 1e12, NULL,
     "most documents of each set, spread evenly over it; 0: all"},
    {"min_k", PARAM_FLOAT, "0.4", 0.001, 1, NULL,
     "share of a document's least likely tokens that the membership attack averages"},
    {"bootstrap", PARAM_INT, "200", 0, 10000, NULL,
     "resamples of the documents behind the 95 % intervals of mia_auc and privleak; 0: none"},
    {"samples", PARAM_INT, "4", 0, 1000, NULL, "documents of each set to continue greedily"},
    {"sample_tokens", PARAM_INT, "40", 1, 100000, NULL, "most tokens of a continuation"},
    {"seed", PARAM_INT, "0", 0, 9e15, NULL, "seed of the resampling"},
    DEVICE_PARAMS,
};

static const struct input forget_retain_inputs[] = {
    {"model", INPUT_CHECKPOINT, true, "model to measure"},
    {"forget", INPUT_DATASET, true, "documents that should be forgotten"},
    {"retain", INPUT_DATASET, true, "documents that should be kept"},
    {"holdout", INPUT_DATASET, false,
     "documents of the forget set's kind that no model was trained on; null results without"},
    {"reference", INPUT_CHECKPOINT, false,
     "model retrained without the forget set; null results without"},
    {"teacher", INPUT_CHECKPOINT, false, "model whose forward KL to the measured one is wanted"},
};

const struct recipe recipe_eval_forget_retain = {
    .name = "forget_retain",
    .kind = RECIPE_EVAL,
    .version = 1,
    .summary = "Measures what a model knows of a forget, a retain and a holdout set.",
    .source = "Dorna et al. 2025 (extraction, memorisation); Shi et al. 2024 (Min-K, PrivLeak)",
    .params = forget_retain_params,
    .param_count = ARRAY_COUNT(forget_retain_params),
    .inputs = forget_retain_inputs,
    .input_count = ARRAY_COUNT(forget_retain_inputs),
    .outputs = "metrics",
    .state_size = sizeof(struct forget_retain),
    .open = forget_retain_open,
    .step = forget_retain_step,
    .close = forget_retain_close,
};
