/* pairs_block.c - a block of contexts: sample, judge, write; and the critic's threshold. */
#include "worker/recipes/distillation/impossible/pairs.h"

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "worker/engine/comm.h"
#include "worker/recipes/distillation/impossible/sentence.h"
#include "worker/recipes/distillation/impossible/sequential.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define YIELD_CONTEXTS 200      /* before min_yield is asked */
#define CALIBRATION_CONTEXTS 32 /* 32 x 31 pairs of different contexts */

/* ---- one context ------------------------------------------------------------------------ */

static int write_context(struct pairs *pairs, uint64_t context, char **out, struct err *err)
{
    uint64_t least = (uint64_t)run_int(pairs->run, "context_sentences_min");
    uint64_t more = (uint64_t)run_int(pairs->run, "context_sentences") - least;
    uint64_t seed = pairs->contexts.sampling.seed, count = pairs->prefixes.count;
    uint64_t sentences = least + rng_at(seed, context, 1) % (more + 1);
    const char *prefix = count ? pairs->prefixes.items[rng_at(seed, context, 2) % count] : "";
    char *text = NULL;
    size_t written;

    if (sentences && sampler_sentences(&pairs->contexts, prefix, context, 1, true, &text,
                                       &pairs->tokens, err) < 0)
        return -1;
    if (text)
        text[sentence_prefix(text, (size_t)sentences, &written)] = 0;
    *out = mem_printf("%s%s%s", prefix, *prefix && text && *text ? " " : "", text ? text : "");
    mem_free(text);
    return 0;
}

/* Text and origin of a context by number. */
static int find_context(struct pairs *pairs, uint64_t context, struct outcome *out, struct err *err)
{
    out->context = context;
    if (!pairs->source) {
        out->origin = mem_strdup("teacher");
        return write_context(pairs, context, &out->text, err);
    }
    const struct dataset_text *item = &pairs->texts.items[pairs->usable[context]];
    out->origin = mem_strdup(item->id);
    out->text = mem_strdup(item->text);
    return 0;
}

/* samples after the context or a sentence after it and its rewrites, a student's or in sequence. */
static int sample(struct pairs *pairs, struct outcome *out, struct err *err)
{
    size_t rewrites = pairs->student ? pairs->samples : pairs->sequential ? pairs->samples - 1 : 0;

    out->sample_count = pairs->student ? 1 + rewrites : pairs->samples;
    out->samples = mem_array(out->sample_count, sizeof *out->samples);
    if (sampler_sentences(&pairs->sentences, out->text, out->context,
                          out->sample_count - rewrites, false, out->samples, &pairs->tokens,
                          err) < 0)
        return -1;
    if (pairs->sequential && *out->samples[0])
        return sequential_sentences(&pairs->sentences, out->text, out->samples[0], rewrites,
                                    out->samples + 1, &pairs->tokens, err);
    if (rewrites && *out->samples[0])
        return sampler_sentences(&pairs->rewrites, out->samples[0], out->context, rewrites, false,
                                 out->samples + 1, &pairs->tokens, err);
    for (size_t i = 1; i <= rewrites; i++)
        out->samples[i] = mem_strdup("");
    return 0;
}

static int do_context(struct pairs *pairs, uint64_t context, struct buf *lines, struct err *err)
{
    struct outcome outcome = {0};
    uint64_t began = clock_steady_us(), sampled = began;
    int rc = find_context(pairs, context, &outcome, err);

    if (rc == 0)
        rc = sample(pairs, &outcome, err);
    sampled = clock_steady_us();
    if (rc == 0)
        rc = filter_context(&pairs->filter, pairs->critic, context,
                            (const char *const *)outcome.samples, outcome.sample_count,
                            &outcome.filtered, err);
    if (rc == 0)
        outcome_write(&outcome, lines);
    pairs->made++;
    pairs->sample_us += sampled - began;
    pairs->critic_us += clock_steady_us() - sampled;
    outcome_done(&outcome);
    return rc < 0 ? err_wrap(err, "context %llu", (unsigned long long)context) : 0;
}

/* ---- the critic's threshold ------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;

    return (left > right) - (left < right);
}

/* First sentences of the first contexts, "" where there was none. */
static int calibration_sentences(struct pairs *pairs, size_t count, char **out, struct err *err)
{
    for (size_t i = 0; i < count; i++) {
        struct outcome outcome = {0};
        int rc = find_context(pairs, pairs->context_first + i, &outcome, err);
        if (rc == 0)
            rc = sampler_sentences(&pairs->sentences, outcome.text, outcome.context, 1, false,
                                   &out[i], &pairs->tokens, err);
        outcome_done(&outcome);
        if (rc < 0)
            return -1;
    }
    return 0;
}

/* Scores of the ordered pairs of different sentences, and what they mean for saliency: what y
 * tells of x, for one of y's share of x's characters. */
struct calibration {
    struct critic_pair *asked;
    double *score, *saliency;
    size_t count;
};

static void add_pair(struct calibration *calibration, const char *x, const char *y)
{
    if (*x && *y && strcmp(x, y) != 0)
        calibration->asked[calibration->count++] = (struct critic_pair){x, y};
}

/* Pairs are asked in both orders, one after the other. */
static int score_pairs(struct pairs *pairs, char *const *texts, size_t count,
                       struct calibration *out, struct err *err)
{
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < i; j++) {
            add_pair(out, texts[i], texts[j]);
            add_pair(out, texts[j], texts[i]);
        }
    if (out->count == 0)
        return run_gave_up(pairs->run, err, "no_sentences",
                           "after the first %zu contexts the teacher wrote no two different "
                           "sentences, so the critic cannot be calibrated; see max_tokens and "
                           "separator, or give tau", count);
    if (critic_score(pairs->critic, out->asked, out->count, out->score, err) < 0)
        return -1;
    for (size_t p = 0; p < out->count; p++)
        out->saliency[p] = out->score[p ^ 1] *
                           (double)sentence_characters(out->asked[p].x) /
                           (double)sentence_characters(out->asked[p].y);
    return 0;
}

/* The value that a share of false_pass of them reaches. Sorts them. */
static double reached_by(const struct pairs *pairs, double *values, size_t count)
{
    double above = run_float(pairs->run, "false_pass") * (double)count;

    qsort(values, count, sizeof *values, compare);
    return values[count - 1 - min_u64((uint64_t)above, count - 1)];
}

/* Thresholds that were not given, from pairs of different contexts. */
static int calibrate(struct pairs *pairs, double *tau, double *saliency_tau, struct err *err)
{
    size_t count = (size_t)min_u64(CALIBRATION_CONTEXTS, pairs->context_count);
    char *texts[CALIBRATION_CONTEXTS] = {0};
    struct calibration sample = {.asked = mem_array(count * count + 1, sizeof *sample.asked),
                                 .score = mem_array(count * count + 1, sizeof *sample.score),
                                 .saliency = mem_array(count * count + 1, sizeof(double))};
    int rc = calibration_sentences(pairs, count, texts, err);

    if (rc == 0)
        rc = score_pairs(pairs, texts, count, &sample, err);
    if (rc == 0 && *tau == 0)
        *tau = reached_by(pairs, sample.score, sample.count);
    if (rc == 0 && *saliency_tau == 0)
        *saliency_tau = reached_by(pairs, sample.saliency, sample.count);
    for (size_t i = 0; i < count; i++)
        mem_free(texts[i]);
    mem_free(sample.asked);
    mem_free(sample.score);
    mem_free(sample.saliency);
    return rc;
}

int pairs_calibrate(struct pairs *pairs, struct err *err)
{
    struct run *run = pairs->run;
    bool scaled = critic_is_scaled(pairs->critic), salient = pairs->filter.asks_saliency;
    double tau = run_float(run, "tau"), edge = run_float(run, "diversity_tau");
    double saliency_tau = salient ? run_float(run, "saliency_tau") : 1;

    run->phase = "calibrate";
    if (tau == 0 && scaled)
        tau = 0.75;
    if ((tau == 0 || saliency_tau == 0) && calibrate(pairs, &tau, &saliency_tau, err) < 0)
        return -1;
    pairs->filter.tau = tau;
    pairs->filter.saliency_tau = saliency_tau;
    if (isfinite(pairs->filter.diversity_tau))
        pairs->filter.diversity_tau = edge != 0 ? edge : scaled ? 0.5 : tau;
    run_metric(run, "tau", tau);
    if (salient)
        run_metric(run, "saliency_tau", saliency_tau);
    return 0;
}

/* ---- a block ---------------------------------------------------------------------------- */

uint64_t pairs_block_size(const struct pairs *pairs, uint64_t number)
{
    return min_u64(pairs->block_contexts, pairs->context_count - number * pairs->block_contexts);
}

static int make_block(struct pairs *pairs, uint64_t number, const char *path, struct err *err)
{
    struct run *run = pairs->run;
    uint64_t first = pairs->context_first + number * pairs->block_contexts;
    uint64_t count = pairs_block_size(pairs, number);
    struct buf lines = {0};
    int rc = 0;

    for (uint64_t c = first; c < first + count && rc == 0; c++)
        if (c % run->rank_count == run->rank)
            rc = do_context(pairs, c, &lines, err);
    if (rc == 0)
        rc = block_write_part(path, run->rank, &lines, err);
    buf_done(&lines);
    if (rc < 0)
        return -1;
    comm_barrier(run->comm);
    if (run->rank == 0)
        rc = block_merge(path, pairs->header, first, count, run->rank_count, err);
    comm_barrier(run->comm);
    return rc;
}

struct adding {
    struct pairs *pairs;
    struct pairs_sum sum;
};

static int add_line(void *argument, const struct block_line *line, struct err *err)
{
    struct adding *adding = argument;
    struct pairs_sum *sum = &adding->sum;
    size_t known = adding->pairs->seen.count;

    (void)err;
    byte_map_put(&adding->pairs->seen, (const char *)&line->text_hash, sizeof line->text_hash);
    sum->distinct += adding->pairs->seen.count - known;
    sum->contexts++;
    for (enum verdict v = 0; v < VERDICT_END; v++)
        sum->count[v] += line->count[v];
    return 0;
}

static int pass(void *argument, const struct block_line *line, struct err *err)
{
    (void)argument, (void)line, (void)err;
    return 0;
}

/* Rank 0 looks, all hear: 0 there, 1 to be made. */
static int find_block(struct pairs *pairs, uint64_t number, const char *path, bool *out_make,
                      struct err *err)
{
    struct run *run = pairs->run;
    double state = 0;

    if (run->rank == 0 && block_read(path, pairs->header, pairs_block_size(pairs, number), pass,
                                     NULL, err) < 0) {
        if (err->kind != ERR_NOT_FOUND && err->kind != ERR_STALE && err->kind != ERR_PROTOCOL)
            return -1;
        err_clear(err);
        state = 1;
    }
    comm_max_f64(run->comm, &state, 1);
    *out_make = state > 0;
    return 0;
}

static uint64_t pool_of(const struct pairs_sum *sum)
{
    uint64_t pool = 0;

    for (enum verdict v = 0; v < VERDICT_END; v++)
        pool += sum->count[v];
    return pool;
}

static void report(struct pairs *pairs)
{
    struct run *run = pairs->run;
    const struct pairs_sum *sum = &pairs->sum;
    double pool = (double)pool_of(sum);
    double own[] = {(double)pairs->tokens, (double)pairs->sample_us, (double)pairs->critic_us,
                    (double)critic_pair_count(pairs->critic),
                    (double)critic_cut_count(pairs->critic), (double)pairs->made};

    comm_sum_f64(run->comm, own, ARRAY_COUNT(own));
    run_metric(run, "contexts", (double)sum->contexts);
    run_metric(run, "distinct_contexts", (double)sum->distinct);
    run_metric(run, "pool", pool);
    for (enum verdict v = 0; v < VERDICT_END; v++) {
        char name[64];
        snprintf(name, sizeof name, "share_%s", verdict_name(v));
        run_metric(run, name, pool > 0 ? (double)sum->count[v] / pool : 0);
    }
    run_metric(run, "pairs", (double)sum->count[VERDICT_KEPT]);
    run_metric(run, "critic_cut", own[3] > 0 ? own[4] / own[3] : 0);
    if (own[1] + own[2] > 0) {
        run_metric(run, "sampled_tokens_per_s", own[0] / (own[1] + 1) * 1e6 * run->rank_count);
        run_metric(run, "critic_pairs_per_s", own[3] / (own[2] + 1) * 1e6 * run->rank_count);
        run_metric(run, "critic_time_share", own[2] / (own[1] + own[2]));
        run_metric(run, "sampled_contexts_per_s", own[5] / (own[1] + 1) * 1e6 * run->rank_count);
        run_metric(run, "judged_contexts_per_s", own[5] / (own[2] + 1) * 1e6 * run->rank_count);
    }
}

double pairs_accepted(const struct pairs *pairs)
{
    const uint64_t *count = pairs->sum.count;
    double pool = (double)pool_of(&pairs->sum);
    uint64_t accepted = count[VERDICT_KEPT] + count[VERDICT_SIMILAR] + count[VERDICT_SURPLUS];

    return pool > 0 ? (double)accepted / pool : 0;
}

static int check_yield(struct pairs *pairs, struct err *err)
{
    const struct pairs_sum *sum = &pairs->sum;
    double pool = (double)pool_of(sum), least = run_float(pairs->run, "min_yield");
    double yield = pool > 0 ? (double)sum->count[VERDICT_KEPT] / pool : 0;
    double differ = run_float(pairs->run, "min_distinct");
    enum verdict most = 0;

    if (sum->contexts < YIELD_CONTEXTS)
        return 0;
    if ((double)sum->distinct < differ * (double)sum->contexts)
        return run_gave_up(pairs->run, err, "min_distinct",
                           "only %llu of %llu contexts differ from all before them, less than "
                           "%.3g of them: pairs would repeat as well",
                           (unsigned long long)sum->distinct, (unsigned long long)sum->contexts,
                           differ);
    if (yield >= least)
        return 0;
    for (enum verdict v = 1; v < VERDICT_KEPT; v++)
        most = sum->count[v] > sum->count[most] ? v : most;
    return run_gave_up(pairs->run, err, "min_yield",
                       "after %llu contexts %.3g of %.0f pairs are kept, less than %.3g; most "
                       "(%.1f %%) are dropped as '%s'",
                       (unsigned long long)sum->contexts, yield, pool, least,
                       100 * (double)sum->count[most] / (pool > 0 ? pool : 1),
                       verdict_name(most));
}

int pairs_block(struct pairs *pairs, uint64_t number, bool *out_enough, struct err *err)
{
    struct run *run = pairs->run;
    char *path = pairs_block_path(pairs, number);
    struct adding adding = {.pairs = pairs};
    struct pairs_sum sum;
    bool make = false;
    int rc = find_block(pairs, number, path, &make, err);

    run->phase = pairs->student ? "rewrite and judge" : "sample and judge";
    if (rc == 0 && make)
        rc = make_block(pairs, number, path, err);
    if (rc == 0 && run->rank == 0)
        rc = block_read(path, pairs->header, pairs_block_size(pairs, number), add_line, &adding,
                        err);
    mem_free(path);
    if (rc < 0)
        return -1;
    sum = adding.sum;
    comm_broadcast(run->comm, &sum, sizeof sum, 0);
    pairs->sum.contexts += sum.contexts;
    pairs->sum.distinct += sum.distinct;
    for (enum verdict v = 0; v < VERDICT_END; v++)
        pairs->sum.count[v] += sum.count[v];
    report(pairs);
    *out_enough = pairs->sum.count[VERDICT_KEPT] >= pairs->target;
    return check_yield(pairs, err);
}
