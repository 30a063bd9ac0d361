/* critic.c - recipe eval/critic: how well a critic tells pairs that belong together from others.
 *
 * Every document of the parts `same` and `random` is two sentences, x, newline, y. Both directions
 * are scored. The threshold tau is the forward score that a share false_pass of the random pairs
 * reaches; what share of the others passes it, forward and in both directions, is what a
 * calibrated critic would keep of true pairs. Scores of every pair are written beside. */
#include "common/base/buf.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "worker/engine/comm.h"
#include "worker/recipes/distillation/impossible/critic.h"
#include "worker/recipes/eval/interval.h"
#include "worker/recipes/eval/membership.h"
#include "worker/recipes/eval/results.h"
#include "worker/recipes/train.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAIRS_A_STEP 64

enum label { LABEL_SAME = 0, LABEL_RANDOM, LABEL_END };
enum side { SIDE_FORWARD = 0, SIDE_REVERSE, SIDE_BOTH, SIDE_END }; /* both: their sum */

static const char *const label_names[LABEL_END] = {"same", "random"};

struct judged {
    struct dataset *dataset;
    struct dataset_texts texts;
    double *score[SIDE_END];
};

struct critic_eval {
    struct device *device;
    struct critic *critic;
    const char *critic_name; /* resolved */
    struct judged judged[LABEL_END];
};

/* ---- opening ---------------------------------------------------------------------------- */

static int open_pairs(struct run *run, enum label label, struct judged *out, struct err *err)
{
    const struct run_input *given = run_input(run, label_names[label]);
    const struct dataset_part *part;

    if (dataset_open(given->path, &out->dataset, err) < 0 ||
        dataset_part(out->dataset, given->part, &part, err) < 0 ||
        dataset_texts_read(part, &out->texts, err) < 0)
        return err_wrap(err, "input '%s' (%s)", label_names[label], given->ref);
    if (out->texts.count == 0)
        return err_set(err, ERR_INVALID, "input '%s' (%s) holds no documents", label_names[label],
                       given->ref);
    for (size_t i = 0; i < out->texts.count; i++)
        if (!strchr(out->texts.items[i].text, '\n'))
            return err_set(err, ERR_INVALID, "input '%s' (%s): document %zu ('%s') is no pair; two "
                           "sentences with a newline between them are expected",
                           label_names[label], given->ref, i, out->texts.items[i].id);
    for (enum side side = 0; side < SIDE_END; side++)
        out->score[side] = mem_array(out->texts.count, sizeof *out->score[side]);
    return 0;
}

static int open_critic(struct run *run, struct critic_eval *state, struct err *err)
{
    const struct run_input *judge = run_input(run, "judge");
    struct critic_choice choice = {.name = critic_resolve(run_string(run, "critic"),
                                                          judge ? judge->path : NULL),
                                   .folder = judge ? judge->path : NULL,
                                   .device = state->device};

    state->critic_name = choice.name;
    if (critic_choose(&choice, &state->critic, err) < 0)
        return judge ? err_wrap(err, "input 'judge' (%s)", judge->ref) : -1;
    return 0;
}

static int critic_open(struct run *run, void *opaque, struct err *err)
{
    struct critic_eval *state = opaque;
    size_t most = 0;

    if (run_device_open(run, &state->device, err) < 0 || open_critic(run, state, err) < 0)
        return -1;
    for (enum label label = 0; label < LABEL_END; label++) {
        if (open_pairs(run, label, &state->judged[label], err) < 0)
            return -1;
        most = state->judged[label].texts.count > most ? state->judged[label].texts.count : most;
    }
    run->step_count = (most + PAIRS_A_STEP - 1) / PAIRS_A_STEP + 1;
    return 0;
}

/* ---- scoring ---------------------------------------------------------------------------- */

/* Pairs from .. of one input that are this rank's, both directions in one question. */
static int score_pairs(struct run *run, struct critic_eval *state, struct judged *judged,
                       size_t from, struct err *err)
{
    struct critic_pair asked[2 * PAIRS_A_STEP] = {0};
    char *x[PAIRS_A_STEP];
    size_t number[PAIRS_A_STEP], count = 0;
    double score[2 * PAIRS_A_STEP];

    for (size_t i = from; i < from + PAIRS_A_STEP && i < judged->texts.count; i++) {
        const char *text = judged->texts.items[i].text, *end = strchr(text, '\n');
        if (i % run->rank_count != run->rank)
            continue;
        x[count] = mem_strndup(text, (size_t)(end - text));
        number[count] = i;
        asked[2 * count] = (struct critic_pair){x[count], end + 1};
        asked[2 * count + 1] = (struct critic_pair){end + 1, x[count]};
        count++;
    }
    int rc = critic_score(state->critic, asked, 2 * count, score, err);
    for (size_t i = 0; i < count; i++) {
        if (rc == 0) {
            judged->score[SIDE_FORWARD][number[i]] = score[2 * i];
            judged->score[SIDE_REVERSE][number[i]] = score[2 * i + 1];
            judged->score[SIDE_BOTH][number[i]] = score[2 * i] + score[2 * i + 1];
        }
        mem_free(x[i]);
    }
    return rc;
}

/* ---- measuring, on rank 0 --------------------------------------------------------------- */

static double *copy_of(const double *values, size_t count)
{
    double *copy = mem_array(count, sizeof *copy);

    memcpy(copy, values, count * sizeof *copy);
    return copy;
}

static int compare(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;

    return (left > right) - (left < right);
}

/* Probability that a true pair scores above a random one; both arrays are sorted in place. */
static double auc_of(double *same, size_t same_count, double *random, size_t random_count)
{
    return membership_auc(random, (int64_t)random_count, same, (int64_t)same_count);
}

/* Percentile bootstrap over pairs; draws depend on (seed, draw) only. */
static struct interval auc_interval(const struct run *run, const struct critic_eval *state,
                                    enum side side)
{
    size_t draws = (size_t)run_int(run, "bootstrap");
    double *auc = mem_array(draws + 1, sizeof *auc), *drawn[LABEL_END];
    struct interval out = {NAN, NAN};

    for (enum label l = 0; l < LABEL_END; l++)
        drawn[l] = mem_array(state->judged[l].texts.count, sizeof **drawn);
    for (size_t d = 0; d < draws; d++) {
        for (enum label l = 0; l < LABEL_END; l++) {
            size_t count = state->judged[l].texts.count;
            uint64_t seed = rng_at((uint64_t)run_int(run, "seed"), l, side);
            for (size_t i = 0; i < count; i++)
                drawn[l][i] = state->judged[l].score[side][rng_at(seed, d, i) % count];
        }
        auc[d] = auc_of(drawn[LABEL_SAME], state->judged[LABEL_SAME].texts.count,
                        drawn[LABEL_RANDOM], state->judged[LABEL_RANDOM].texts.count);
    }
    if (draws) {
        qsort(auc, draws, sizeof *auc, compare);
        out.low = auc[(size_t)(0.025 * (double)(draws - 1) + 0.5)];
        out.high = auc[(size_t)(0.975 * (double)(draws - 1) + 0.5)];
    }
    for (enum label l = 0; l < LABEL_END; l++)
        mem_free(drawn[l]);
    mem_free(auc);
    return out;
}

static void put(struct results *results, const char *name, double value, struct interval interval)
{
    char full[64];

    results_add(results, name, value);
    snprintf(full, sizeof full, "%s_low", name);
    results_add(results, full, interval.low);
    snprintf(full, sizeof full, "%s_high", name);
    results_add(results, full, interval.high);
}

static void put_auc(struct run *run, struct results *results, const struct critic_eval *state,
                    enum side side, const char *name)
{
    const struct judged *same = &state->judged[LABEL_SAME], *random = &state->judged[LABEL_RANDOM];
    double *a = copy_of(same->score[side], same->texts.count);
    double *b = copy_of(random->score[side], random->texts.count);

    put(results, name, auc_of(a, same->texts.count, b, random->texts.count),
        auc_interval(run, state, side));
    mem_free(a);
    mem_free(b);
}

static double threshold(const struct run *run, const struct judged *random)
{
    size_t count = random->texts.count;
    double *sorted = copy_of(random->score[SIDE_FORWARD], count);

    qsort(sorted, count, sizeof *sorted, compare);
    size_t above = (size_t)(run_float(run, "false_pass") * (double)count);
    double tau = sorted[count - 1 - min_u64(above, count - 1)];
    mem_free(sorted);
    return tau;
}

/* Shares of the pairs that reach tau forward, and in both directions. */
static void put_passes(struct run *run, struct results *results, const struct judged *judged,
                       const char *name, double tau)
{
    size_t count = judged->texts.count;
    uint64_t seed = (uint64_t)run_int(run, "seed");
    unsigned draws = (unsigned)run_int(run, "bootstrap");
    double *forward = mem_array(count, sizeof *forward), *both = mem_array(count, sizeof *both);
    char full[64];

    for (size_t i = 0; i < count; i++) {
        forward[i] = judged->score[SIDE_FORWARD][i] >= tau;
        both[i] = forward[i] > 0 && judged->score[SIDE_REVERSE][i] >= tau;
    }
    snprintf(full, sizeof full, "%s_pass", name);
    put(results, full, mean_of(forward, count), mean_interval(forward, count, seed, draws));
    snprintf(full, sizeof full, "%s_pass_both", name);
    put(results, full, mean_of(both, count), mean_interval(both, count, seed, draws));
    snprintf(full, sizeof full, "%s_score", name);
    put(results, full, mean_of(judged->score[SIDE_FORWARD], count),
        mean_interval(judged->score[SIDE_FORWARD], count, seed, draws));
    mem_free(forward);
    mem_free(both);
}

static int write_scores(struct run *run, const struct critic_eval *state, struct err *err)
{
    char *path = mem_printf("%s/critic_scores.jsonl", run->job_dir);
    struct buf lines = {0};

    for (enum label l = 0; l < LABEL_END; l++)
        for (size_t i = 0; i < state->judged[l].texts.count; i++) {
            const struct judged *judged = &state->judged[l];
            buf_printf(&lines, "{\"part\": \"%s\", \"id\": ", label_names[l]);
            json_put_text(&lines, judged->texts.items[i].id, strlen(judged->texts.items[i].id));
            buf_printf(&lines, ", \"forward\": %.9g, \"reverse\": %.9g}\n",
                       judged->score[SIDE_FORWARD][i], judged->score[SIDE_REVERSE][i]);
        }
    int rc = file_replace(path, buf_text(&lines), lines.length, 0644, err);
    if (rc == 0)
        rc = run_artifact(run, "texts", "critic_scores", path, NULL, err);
    buf_done(&lines);
    mem_free(path);
    return rc;
}

static int finish(struct run *run, struct critic_eval *state, struct err *err)
{
    struct results results;

    for (enum label l = 0; l < LABEL_END; l++)
        for (enum side side = 0; side < SIDE_END; side++)
            comm_sum_f64(run->comm, state->judged[l].score[side], state->judged[l].texts.count);
    double tau = threshold(run, &state->judged[LABEL_RANDOM]);
    results_init(&results, run);
    results_text(&results, "critic", state->critic_name);
    results_text(&results, "same", run_input(run, "same")->ref);
    results_text(&results, "random", run_input(run, "random")->ref);
    if (run_input(run, "judge"))
        results_text(&results, "judge", run_input(run, "judge")->ref);
    put_auc(run, &results, state, SIDE_FORWARD, "auc");
    put_auc(run, &results, state, SIDE_REVERSE, "auc_reverse");
    put_auc(run, &results, state, SIDE_BOTH, "auc_both");
    results_add(&results, "tau", tau);
    for (enum label l = 0; l < LABEL_END; l++)
        put_passes(run, &results, &state->judged[l], label_names[l], tau);
    int rc = results_write(&results, "critic", err);
    results_done(&results);
    return rc == 0 && run->rank == 0 ? write_scores(run, state, err) : rc;
}

static int critic_step(struct run *run, void *opaque, struct err *err)
{
    struct critic_eval *state = opaque;

    run->phase = "judge";
    if (run->step + 1 == run->step_count)
        return finish(run, state, err);
    for (enum label l = 0; l < LABEL_END; l++)
        if (score_pairs(run, state, &state->judged[l], (size_t)run->step * PAIRS_A_STEP, err) < 0)
            return -1;
    return 0;
}

static void critic_close(struct run *run, void *opaque)
{
    struct critic_eval *state = opaque;

    (void)run;
    critic_free(state->critic);
    for (enum label l = 0; l < LABEL_END; l++) {
        for (enum side side = 0; side < SIDE_END; side++)
            mem_free(state->judged[l].score[side]);
        dataset_texts_done(&state->judged[l].texts);
        dataset_close(state->judged[l].dataset);
    }
    device_close(state->device);
}

static const struct param critic_params[] = {
    {"critic", PARAM_CHOICE, "auto", 0, 0, "auto|lm_mi|nli|embed|oracle",
     "who is judged: mutual information, classes or cosines of the input judge, or the "
     "micro-world's truth; auto: nli if the judge is a classifier, else lm_mi"},
    {"false_pass", PARAM_FLOAT, "0.05", 0.0001, 0.5, NULL,
     "share of the random pairs that the threshold tau lets pass"},
    {"bootstrap", PARAM_INT, "1000", 0, 100000, NULL, "draws of the 95 % intervals over pairs"},
    {"seed", PARAM_INT, "0", 0, 9e15, NULL, "of the intervals"},
    DEVICE_PARAMS,
};

static const struct input critic_inputs[] = {
    {"same", INPUT_DATASET, true, "pairs that belong together: two sentences, newline between"},
    {"random", INPUT_DATASET, true, "pairs that do not, in the same form"},
    {"judge", INPUT_CHECKPOINT, false,
     "the critic's own model: language model of lm_mi, classifier of nli, encoder of embed"},
};

const struct recipe recipe_eval_critic = {
    .name = "critic",
    .kind = RECIPE_EVAL,
    .version = 1,
    .summary = "Measures how well a critic tells pairs that belong together from random ones.",
    .source = "area under the ROC curve (Hanley and McNeil 1982); calibration: Athanor",
    .params = critic_params,
    .param_count = ARRAY_COUNT(critic_params),
    .inputs = critic_inputs,
    .input_count = ARRAY_COUNT(critic_inputs),
    .outputs = "metrics",
    .state_size = sizeof(struct critic_eval),
    .open = critic_open,
    .step = critic_step,
    .close = critic_close,
};
