/* pairs_context.c - a context: sample, judge, write; and the critic's threshold. */
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

int pairs_context(struct pairs *pairs, uint64_t context, struct buf *lines, struct err *err)
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
