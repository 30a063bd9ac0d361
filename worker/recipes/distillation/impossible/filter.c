/* filter.c - see filter.h. */
#include "worker/recipes/distillation/impossible/filter.h"

#include "common/base/mem.h"
#include "common/base/rng.h"
#include "worker/recipes/distillation/impossible/components.h"
#include "worker/recipes/distillation/impossible/sentence.h"
#include "worker/recipes/text/overlap.h"
#include "worker/recipes/text/tree_edit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    char letter;
} verdicts[VERDICT_END] = {
#define VERDICT(NAME, name, letter, text) {#name, letter},
#include "worker/recipes/distillation/impossible/verdicts.def"
#undef VERDICT
};

const char *verdict_name(enum verdict verdict)
{
    return verdicts[verdict].name;
}

char verdict_letter(enum verdict verdict)
{
    return verdicts[verdict].letter;
}

struct text {
    const char *bytes;
    size_t sample;   /* the first that says it */
    uint64_t copies; /* samples that say it    */
    size_t characters;
    struct words words;
    struct lcs_pattern pattern;
    struct tree tree; /* only where ted_min is asked */
};

struct work {
    const struct filter *filter;
    struct critic *critic;
    uint64_t context;
    struct text *text;
    size_t count;
    double *score; /* (count, count) critic of row => column; NAN: not asked yet */
    double *rouge; /* (count, count) */
    enum verdict *verdict;
};

static size_t cell(const struct work *work, size_t x, size_t y)
{
    return x * work->count + y;
}

/* ---- distinct texts --------------------------------------------------------------------- */

static void add_sample(struct work *work, const char *bytes, size_t sample)
{
    for (size_t t = 0; t < work->count; t++)
        if (strcmp(work->text[t].bytes, bytes) == 0) {
            work->text[t].copies++;
            return;
        }
    struct text *text = &work->text[work->count++];
    *text = (struct text){.bytes = bytes, .sample = sample, .copies = 1};
    text->characters = sentence_characters(bytes);
    words_split(&text->words, WORDS_ROUGE, bytes, strlen(bytes));
    lcs_pattern_init(&text->words, &text->pattern);
    if (work->filter->ted_min > 0)
        tree_of_words(&text->words, &text->tree);
}

/* Returns how many samples are sentences. */
static uint64_t gather(struct work *work, const char *const *samples, size_t count)
{
    uint64_t sentences = 0;

    work->text = mem_array(count + 1, sizeof *work->text);
    for (size_t i = 0; i < count; i++) {
        if (!*samples[i])
            continue;
        add_sample(work, samples[i], i);
        sentences++;
    }
    size_t cells = work->count * work->count + 1;
    work->score = mem_array(cells, sizeof *work->score);
    work->rouge = mem_array(cells, sizeof *work->rouge);
    work->verdict = mem_array(cells, sizeof *work->verdict);
    for (size_t i = 0; i < cells; i++)
        work->score[i] = NAN;
    return sentences;
}

static void work_done(struct work *work)
{
    for (size_t t = 0; t < work->count; t++) {
        words_done(&work->text[t].words);
        lcs_pattern_done(&work->text[t].pattern);
        tree_done(&work->text[t].tree);
    }
    mem_free(work->text);
    mem_free(work->score);
    mem_free(work->rouge);
}

/* ---- cheap filters ---------------------------------------------------------------------- */

static bool lengths_fit(const struct filter *filter, const struct text *x, const struct text *y)
{
    double ratio = (double)y->characters / (double)x->characters;

    if (filter->task == TASK_SUMMARIZE)
        return ratio < filter->ratio_max;
    return ratio >= filter->ratio_min && ratio <= filter->ratio_max;
}

static bool numbers_fit(const struct filter *filter, const struct text *x, const struct text *y)
{
    return filter->numbers == NUMBERS_OFF ||
           (sentence_numbers_within(x->bytes, y->bytes) &&
            (filter->numbers == NUMBERS_ONE_WAY || sentence_numbers_within(y->bytes, x->bytes)));
}

/* The distance is symmetric: of two orders the second is known by the first's verdict, where that
 * says it. */
static bool built_alike(const struct work *work, size_t i, size_t j)
{
    if (work->filter->task != TASK_PARAPHRASE || work->filter->ted_min <= 0)
        return false;
    enum verdict other = i > j ? work->verdict[cell(work, j, i)] : VERDICT_END;
    if (other == VERDICT_KEPT || other == VERDICT_STRUCTURE)
        return other == VERDICT_STRUCTURE;
    return (double)tree_edit_distance(&work->text[i].tree, &work->text[j].tree) <
           work->filter->ted_min;
}

static enum verdict judge_cheaply(struct work *work, size_t i, size_t j)
{
    const struct text *x = &work->text[i], *y = &work->text[j];
    const struct filter *filter = work->filter;

    if (filter->source_only && x->sample != 0)
        return VERDICT_END;
    if (i == j)
        return VERDICT_COPY;
    if (!lengths_fit(filter, x, y))
        return VERDICT_LENGTH;
    if (!numbers_fit(filter, x, y))
        return VERDICT_NUMBERS;
    double rouge = i > j && work->rouge[cell(work, j, i)] > 0
                       ? work->rouge[cell(work, j, i)] /* F is symmetric */
                       : rouge_l(&x->pattern, &y->words).f;
    work->rouge[cell(work, i, j)] = rouge;
    if (filter->task == TASK_PARAPHRASE && rouge > filter->rouge_max)
        return VERDICT_OVERLAP;
    return built_alike(work, i, j) ? VERDICT_STRUCTURE : VERDICT_KEPT;
}

/* ---- the critic ------------------------------------------------------------------------- */

struct asked {
    size_t *cell;
    size_t count, capacity;
};

static void ask(const struct work *work, struct asked *asked, size_t x, size_t y)
{
    if (x == y || !isnan(work->score[cell(work, x, y)]))
        return;
    VEC_RESERVE(asked->cell, asked->count, asked->capacity);
    asked->cell[asked->count++] = cell(work, x, y);
}

/* Scores what was asked, in one call, into `to` and forgets the questions. */
static int answer_into(struct work *work, struct critic *critic, struct asked *asked, double *to,
                       struct err *err)
{
    struct critic_pair *pairs = mem_array(asked->count + 1, sizeof *pairs);
    double *scores = mem_array(asked->count + 1, sizeof *scores);

    for (size_t i = 0; i < asked->count; i++)
        pairs[i] = (struct critic_pair){work->text[asked->cell[i] / work->count].bytes,
                                        work->text[asked->cell[i] % work->count].bytes};
    int rc = critic_score(critic, pairs, asked->count, scores, err);
    for (size_t i = 0; i < asked->count && rc == 0; i++)
        to[asked->cell[i]] = scores[i];
    asked->count = 0;
    mem_free(pairs);
    mem_free(scores);
    return rc;
}

static int answer(struct work *work, struct asked *asked, struct err *err)
{
    return answer_into(work, work->critic, asked, work->score, err);
}

/* Likeness has no direction: a pair is asked for once, the earlier text first. */
static int judge_likeness(struct work *work, struct err *err)
{
    size_t n = work->count;
    double *like = mem_array(n * n + 1, sizeof *like);
    struct asked asked = {0};

    for (size_t x = 0; x < n; x++)
        for (size_t y = x + 1; y < n; y++)
            if (work->verdict[cell(work, x, y)] == VERDICT_KEPT ||
                work->verdict[cell(work, y, x)] == VERDICT_KEPT)
                ask(work, &asked, x, y);
    int rc = answer_into(work, work->filter->likeness, &asked, like, err);
    for (size_t x = 0; x < n && rc == 0; x++)
        for (size_t y = 0; y < n; y++) {
            enum verdict *now = &work->verdict[cell(work, x, y)];
            double score = like[x < y ? cell(work, x, y) : cell(work, y, x)];
            if (*now == VERDICT_KEPT && !(score >= work->filter->likeness_min))
                *now = VERDICT_UNLIKE;
        }
    mem_free(like);
    mem_free(asked.cell);
    return rc;
}

/* Pairs still alive whose entailment (reversed: of y => x) is below tau are dropped. */
static int judge_entailment(struct work *work, bool reversed, double tau, struct err *err)
{
    enum verdict verdict = reversed ? VERDICT_REVERSE : VERDICT_FORWARD;
    struct asked asked = {0};

    for (size_t x = 0; x < work->count; x++)
        for (size_t y = 0; y < work->count; y++)
            if (work->verdict[cell(work, x, y)] == VERDICT_KEPT)
                ask(work, &asked, reversed ? y : x, reversed ? x : y);
    int rc = answer(work, &asked, err);
    for (size_t x = 0; x < work->count && rc == 0; x++)
        for (size_t y = 0; y < work->count; y++) {
            enum verdict *now = &work->verdict[cell(work, x, y)];
            double score = work->score[reversed ? cell(work, y, x) : cell(work, x, y)];
            if (*now == VERDICT_KEPT && !(score >= tau))
                *now = verdict;
        }
    mem_free(asked.cell);
    return rc;
}

/* What y says of x, against the share of x that it takes to say it. */
static int judge_saliency(struct work *work, struct err *err)
{
    struct asked asked = {0};

    for (size_t x = 0; x < work->count; x++)
        for (size_t y = 0; y < work->count; y++)
            if (work->verdict[cell(work, x, y)] == VERDICT_KEPT)
                ask(work, &asked, y, x);
    int rc = answer(work, &asked, err);
    for (size_t x = 0; x < work->count && rc == 0; x++)
        for (size_t y = 0; y < work->count; y++) {
            enum verdict *now = &work->verdict[cell(work, x, y)];
            double share =
                (double)work->text[y].characters / (double)work->text[x].characters;
            if (*now == VERDICT_KEPT &&
                !(work->score[cell(work, y, x)] >= work->filter->saliency_tau * share))
                *now = VERDICT_SALIENCY;
        }
    mem_free(asked.cell);
    return rc;
}

/* ---- diversity -------------------------------------------------------------------------- */

/* Nodes are "text t as x" (t) and "text t as y" (count + t); a pair ties its two nodes together,
 * an entailment ties two texts of one side. The components of pairs are those of the nodes, with
 * at most texts^2 entailments asked instead of pairs^2. */
static int tie_side(struct work *work, struct components *components, const bool *present,
                    size_t base, struct err *err)
{
    struct asked asked = {0};
    int rc = 0;

    for (size_t a = 0; a < work->count && rc == 0; a++) {
        for (size_t b = a + 1; b < work->count && present[a]; b++) {
            if (!present[b] ||
                components_find(components, base + a) == components_find(components, base + b))
                continue;
            ask(work, &asked, a, b);
            ask(work, &asked, b, a);
        }
        rc = answer(work, &asked, err);
        for (size_t b = a + 1; b < work->count && present[a] && rc == 0; b++)
            if (present[b] && (work->score[cell(work, a, b)] >= work->filter->diversity_tau ||
                               work->score[cell(work, b, a)] >= work->filter->diversity_tau))
                components_join(components, base + a, base + b);
    }
    mem_free(asked.cell);
    return rc;
}

static int find_components(struct work *work, struct components *components, struct err *err)
{
    bool *as_x = mem_array(work->count + 1, sizeof *as_x);
    bool *as_y = mem_array(work->count + 1, sizeof *as_y);

    for (size_t x = 0; x < work->count; x++)
        for (size_t y = 0; y < work->count; y++)
            if (work->verdict[cell(work, x, y)] == VERDICT_KEPT) {
                as_x[x] = as_y[y] = true;
                components_join(components, x, work->count + y);
            }
    int rc = tie_side(work, components, as_x, 0, err);
    if (rc == 0)
        rc = tie_side(work, components, as_y, work->count, err);
    mem_free(as_x);
    mem_free(as_y);
    return rc;
}

/* Whether pair a represents its component rather than b. Equal pairs, and so the direction of a
 * paraphrase, are decided by the seed. */
static bool is_better(const struct work *work, size_t a, size_t b)
{
    size_t n = work->count, a_back = a % n * n + a / n, b_back = b % n * n + b / n;
    double value_a, value_b;

    if (work->filter->keep == KEEP_MIN_REVERSE) {
        value_a = -work->score[a_back];
        value_b = -work->score[b_back];
    } else if (work->filter->keep == KEEP_MIN_ROUGE) {
        value_a = -work->rouge[a];
        value_b = -work->rouge[b];
    } else {
        bool both = work->filter->task == TASK_PARAPHRASE;
        value_a = work->score[a] + (both ? work->score[a_back] : 0);
        value_b = work->score[b] + (both ? work->score[b_back] : 0);
    }
    if (value_a != value_b)
        return value_a > value_b;
    return rng_at(work->filter->seed, work->context, a) >
           rng_at(work->filter->seed, work->context, b);
}

/* One pair a component stays. */
static int judge_diversity(struct work *work, struct err *err)
{
    size_t nodes = 2 * work->count;
    size_t *best = mem_array(nodes + 1, sizeof *best); /* 1 + cell; 0: none */
    struct components components;

    components_init(&components, nodes);
    int rc = find_components(work, &components, err);
    for (size_t i = 0; i < work->count * work->count && rc == 0; i++) {
        if (work->verdict[i] != VERDICT_KEPT)
            continue;
        size_t *now = &best[components_find(&components, i / work->count)];
        if (*now && !is_better(work, i, *now - 1)) {
            work->verdict[i] = VERDICT_SIMILAR;
            continue;
        }
        if (*now)
            work->verdict[*now - 1] = VERDICT_SIMILAR;
        *now = i + 1;
    }
    components_done(&components);
    mem_free(best);
    return rc;
}

static int compare_draws(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

    return (left > right) - (left < right);
}

/* The pairs with the smallest draws stay. */
static void judge_surplus(struct work *work)
{
    size_t cells = work->count * work->count, kept = 0;
    uint64_t *draw = mem_array(cells + 1, sizeof *draw);
    uint64_t seed = rng_mix(work->filter->seed); /* not the draws that broke ties */

    for (size_t i = 0; i < cells; i++)
        if (work->verdict[i] == VERDICT_KEPT)
            draw[kept++] = rng_at(seed, work->context, i);
    if (kept > work->filter->most) {
        qsort(draw, kept, sizeof *draw, compare_draws);
        for (size_t i = 0; i < cells; i++)
            if (work->verdict[i] == VERDICT_KEPT &&
                rng_at(seed, work->context, i) >= draw[work->filter->most])
                work->verdict[i] = VERDICT_SURPLUS;
    }
    mem_free(draw);
}

/* ---- the whole -------------------------------------------------------------------------- */

static int judge(struct work *work, struct err *err)
{
    const struct filter *filter = work->filter;
    bool both = filter->task == TASK_PARAPHRASE;

    for (size_t x = 0; x < work->count; x++)
        for (size_t y = 0; y < work->count; y++)
            work->verdict[cell(work, x, y)] = judge_cheaply(work, x, y);
    if (filter->likeness && judge_likeness(work, err) < 0)
        return -1;
    if (judge_entailment(work, false, filter->tau, err) < 0)
        return -1;
    /* A summary's reverse is only asked for where it chooses the representative. */
    if (both ? judge_entailment(work, true, filter->tau, err) < 0
             : filter->keep == KEEP_MIN_REVERSE && judge_entailment(work, true, -1e300, err) < 0)
        return -1;
    if (!both && filter->asks_saliency && judge_saliency(work, err) < 0)
        return -1;
    if (isfinite(filter->diversity_tau) && judge_diversity(work, err) < 0)
        return -1;
    if (filter->most)
        judge_surplus(work);
    return 0;
}

static void take_kept(const struct work *work, size_t i, struct filtered *out)
{
    size_t n = work->count, x = i / n, y = i % n;
    double back = work->score[cell(work, y, x)];

    out->kept[out->kept_count++] = (struct kept_pair){
        .x = work->text[x].sample, .y = work->text[y].sample, .forward = work->score[i],
        .reverse = back, .rouge = work->rouge[i]};
}

static uint64_t pool_of(const struct filter *filter, uint64_t samples)
{
    return filter->source_only ? samples - 1 : samples * (samples - 1);
}

/* Pairs of samples that say the texts x and y. */
static uint64_t copies_of(const struct work *work, size_t x, size_t y)
{
    uint64_t of_x = work->filter->source_only ? 1 : work->text[x].copies;

    return of_x * (work->text[y].copies - (x == y));
}

static void report(struct work *work, size_t samples, uint64_t sentences, bool source,
                   struct filtered *out)
{
    size_t n = work->count;

    out->distinct = mem_array(n + 1, sizeof *out->distinct);
    out->kept = mem_array(n * n + 1, sizeof *out->kept);
    out->distinct_count = n;
    out->verdict = work->verdict;
    out->count[VERDICT_MALFORMED] = pool_of(work->filter, samples);
    if (sentences && (source || !work->filter->source_only))
        out->count[VERDICT_MALFORMED] -= pool_of(work->filter, sentences);
    for (size_t t = 0; t < n; t++)
        out->distinct[t] = work->text[t].sample;
    for (size_t i = 0; i < n * n; i++) {
        uint64_t copies = copies_of(work, i / n, i % n);
        if (work->verdict[i] == VERDICT_END)
            continue;
        if (work->verdict[i] == VERDICT_KEPT) {
            take_kept(work, i, out);
            out->count[VERDICT_COPY] += copies - 1;
            copies = 1;
        }
        out->count[work->verdict[i]] += copies;
    }
}

int filter_context(const struct filter *filter, struct critic *critic, uint64_t context,
                   const char *const *samples, size_t count, struct filtered *out, struct err *err)
{
    struct work work = {.filter = filter, .critic = critic, .context = context};

    if (count > FILTER_SAMPLES_MAX)
        return err_set(err, ERR_LIMIT, "context %llu has %zu samples; at most %d are filtered",
                       (unsigned long long)context, count, FILTER_SAMPLES_MAX);
    uint64_t sentences = gather(&work, samples, count);
    critic_context_begin(critic);
    int rc = judge(&work, err);
    critic_context_end(critic);
    if (rc == 0) {
        *out = (struct filtered){0};
        if (count)
            report(&work, count, sentences, *samples[0], out);
    }
    if (rc < 0 || !count)
        mem_free(work.verdict);
    work_done(&work);
    return rc;
}

void filtered_done(struct filtered *filtered)
{
    mem_free(filtered->distinct);
    mem_free(filtered->verdict);
    mem_free(filtered->kept);
    *filtered = (struct filtered){0};
}
