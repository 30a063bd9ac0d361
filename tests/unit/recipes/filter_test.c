/* filter_test.c - the filters of Impossible Distillation against independent accounts of them
 * (card distillation-impossible, gates 6 and 7). */
#include "common/base/mem.h"
#include "worker/recipes/distillation/impossible/block.h"
#include "worker/recipes/distillation/impossible/components.h"
#include "worker/recipes/distillation/impossible/sentence.h"
#include "worker/recipes/text/microworld.h"
#include "worker/recipes/text/overlap.h"
#include "worker/recipes/text/tree_edit.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#define SAMPLES 24

/* Sentences of a few facts, some of them broken, some twice. */
static void draw(struct rng *rng, char *samples[SAMPLES])
{
    unsigned fact_number = (unsigned)rng_below(rng, MICROWORLD_FACTS);

    for (size_t i = 0; i < SAMPLES; i++) {
        struct fact fact = microworld_fact(fact_number);
        struct buf text = {0};
        if (rng_below(rng, 3) == 0)
            fact.value[SLOT_AGENT] = (fact.value[SLOT_AGENT] + 1) % 10;
        microworld_sentence(&fact, rng, &text);
        samples[i] = rng_below(rng, 8) == 0 ? mem_strdup("")
                     : i && rng_below(rng, 8) == 0 && *samples[i - 1] ? mem_strdup(samples[i - 1])
                                                                      : mem_strdup(buf_text(&text));
        buf_done(&text);
    }
}

static bool entails(const char *x, const char *y)
{
    struct fact a, b;

    return microworld_parse(x, strlen(x), &a) && microworld_parse(y, strlen(y), &b) &&
           microworld_entails(&a, &b);
}

/* Whether a pair passes all critics, by their definitions; lengths are of ASCII. */
static bool passes(const struct filter *filter, const char *x, const char *y)
{
    double ratio = *x ? (double)strlen(y) / (double)strlen(x) : 0;
    struct words words[2] = {0};
    struct tree tree[2];

    if (!*x || !*y || strcmp(x, y) == 0 || !entails(x, y))
        return false;
    if (filter->task == TASK_SUMMARIZE)
        return ratio < filter->ratio_max;
    for (int side = 0; side < 2; side++) {
        words_split(&words[side], WORDS_ROUGE, side ? y : x, strlen(side ? y : x));
        tree_of_words(&words[side], &tree[side]);
    }
    double distance = (double)tree_edit_distance(&tree[0], &tree[1]);
    for (int side = 0; side < 2; side++) {
        tree_done(&tree[side]);
        words_done(&words[side]);
    }
    return entails(y, x) && ratio >= filter->ratio_min && ratio <= filter->ratio_max &&
           rouge_l_texts(x, y) <= filter->rouge_max && distance >= filter->ted_min;
}

static void check_kept(const struct filter *filter, char *const *samples,
                       const struct filtered *out)
{
    for (size_t i = 0; i < out->kept_count; i++)
        assert_true(passes(filter, samples[out->kept[i].x], samples[out->kept[i].y]));
}

/* Two kept pairs are never of one component: breadth first over pairs that pass every filter. */
static void check_components(const struct filter *filter, char *const *samples,
                             const struct filtered *out)
{
    struct {
        const char *x, *y;
        int component;
    } pairs[SAMPLES * SAMPLES];
    size_t count = 0, queue[SAMPLES * SAMPLES];
    int components = 0;
    bool used[SAMPLES * SAMPLES] = {0};

    for (size_t i = 0; i < SAMPLES; i++)
        for (size_t j = 0; j < SAMPLES; j++)
            if (passes(filter, samples[i], samples[j])) {
                pairs[count].x = samples[i];
                pairs[count].y = samples[j];
                pairs[count++].component = -1;
            }
    for (size_t start = 0; start < count; start++) {
        size_t head = 0, tail = 0;
        if (pairs[start].component >= 0)
            continue;
        pairs[start].component = components;
        for (queue[tail++] = start; head < tail; head++)
            for (size_t next = 0; next < count; next++) {
                const char *x = pairs[queue[head]].x, *y = pairs[queue[head]].y;
                if (pairs[next].component < 0 &&
                    (entails(x, pairs[next].x) || entails(pairs[next].x, x) ||
                     entails(y, pairs[next].y) || entails(pairs[next].y, y))) {
                    pairs[next].component = components;
                    queue[tail++] = next;
                }
            }
        components++;
    }
    assert_int_equal(out->kept_count, components);
    for (size_t i = 0; i < out->kept_count; i++)
        for (size_t p = 0; p < count; p++)
            if (strcmp(pairs[p].x, samples[out->kept[i].x]) == 0 &&
                strcmp(pairs[p].y, samples[out->kept[i].y]) == 0) {
                assert_false(used[pairs[p].component]);
                used[pairs[p].component] = true;
                break;
            }
}

static uint64_t sum(const struct filtered *out)
{
    uint64_t total = 0;

    for (enum verdict v = 0; v < VERDICT_END; v++)
        total += out->count[v];
    return total;
}

static struct filter paraphrases(void)
{
    return (struct filter){.task = TASK_PARAPHRASE, .ratio_min = 0, .ratio_max = 10,
                           .numbers = NUMBERS_BOTH, .rouge_max = 0.75, .tau = 0.75,
                           .diversity_tau = 0.5, .keep = KEEP_MAX_ENTAIL, .seed = 3};
}

static size_t check_filter(const struct filter *filter, struct critic *critic)
{
    struct rng rng;
    size_t kept = 0;

    rng_init(&rng, 11);
    for (uint64_t context = 0; context < 60; context++) {
        char *samples[SAMPLES];
        struct filtered out;
        struct err err;
        draw(&rng, samples);
        assert_int_equal(filter_context(filter, critic, context, (const char *const *)samples,
                                        SAMPLES, &out, &err), 0);
        assert_int_equal(sum(&out), SAMPLES * (SAMPLES - 1));
        check_kept(filter, samples, &out);
        check_components(filter, samples, &out);
        kept += out.kept_count;
        filtered_done(&out);
        for (size_t i = 0; i < SAMPLES; i++)
            mem_free(samples[i]);
    }
    return kept;
}

static void every_kept_pair_passes_every_critic_and_stands_for_its_component_alone(void **state)
{
    struct critic *critic = critic_oracle();
    struct filter filter = paraphrases(), strict = filter, summary = filter;

    (void)state;
    strict.ratio_min = 0.8;
    strict.ratio_max = 1.5;
    strict.ted_min = 4;
    summary.task = TASK_SUMMARIZE;
    summary.ratio_max = 0.8;
    size_t all = check_filter(&filter, critic), few = check_filter(&strict, critic);
    assert_true(few > 0 && few <= all);
    assert_true(check_filter(&summary, critic) > 0);
    critic_free(critic);
}

/* What the filter says of two texts, the second as y. */
static enum verdict verdict_of(const struct filter *filter, const char *x, const char *y)
{
    const char *samples[] = {x, y};
    struct critic *critic = critic_oracle();
    struct filtered out;
    struct err err;

    assert_int_equal(filter_context(filter, critic, 0, samples, 2, &out, &err), 0);
    enum verdict verdict = out.verdict[1];
    assert_int_equal(sum(&out), filter->source_only ? 1 : 2);
    filtered_done(&out);
    critic_free(critic);
    return verdict;
}

static void a_summary_must_be_shorter_than_the_bound_not_as_long(void **state)
{
    struct filter filter = paraphrases();

    (void)state;
    filter.task = TASK_SUMMARIZE;
    filter.ratio_max = 0.8;
    filter.diversity_tau = INFINITY;
    /* 50 characters, of which 40 are not less than 0.8 and 39 are; the oracle calls both false. */
    const char *x = "0123456789012345678901234567890123456789012345678.";
    assert_int_equal(verdict_of(&filter, x, "012345678901234567890123456789012345678."),
                     VERDICT_LENGTH);
    filter.numbers = NUMBERS_OFF;
    assert_int_equal(verdict_of(&filter, x, "01234567890123456789012345678901234567."),
                     VERDICT_FORWARD);
    /* Characters, not bytes. */
    assert_int_equal(verdict_of(&filter, "0123456789", "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"
                                                       "\xc3\xa9."), VERDICT_FORWARD);
    assert_int_equal(verdict_of(&filter, "near the forest , the doctor buy the car .",
                                "the doctor buy the car ."), VERDICT_KEPT);
}

static void numerals_must_agree_as_the_rule_says(void **state)
{
    struct filter filter = paraphrases();

    (void)state;
    filter.rouge_max = 1;
    assert_int_equal(verdict_of(&filter, "He has 3 cats.", "3 cats has he."), VERDICT_FORWARD);
    assert_int_equal(verdict_of(&filter, "He has 3 cats.", "He has 4 cats."), VERDICT_NUMBERS);
    assert_int_equal(verdict_of(&filter, "It costs 1,000.5 now.", "Now 1,000.5 it costs."),
                     VERDICT_FORWARD);
    assert_int_equal(verdict_of(&filter, "He has 3 cats.", "He has cats."), VERDICT_NUMBERS);
    filter.numbers = NUMBERS_ONE_WAY;
    assert_int_equal(verdict_of(&filter, "He has 3 cats.", "He has cats."), VERDICT_FORWARD);
    assert_int_equal(verdict_of(&filter, "He has cats.", "He has 3 cats."), VERDICT_NUMBERS);
}

static void sentences_of_one_build_are_dropped_where_that_is_asked(void **state)
{
    const char *active = "the doctor buy the car .", *other = "the physician purchase the auto .";
    const char *passive = "the automobile is purchase by the physician .";
    struct filter filter = paraphrases();

    (void)state;
    filter.diversity_tau = INFINITY;
    assert_int_equal(verdict_of(&filter, active, "the physician purchase the automobile ."),
                     VERDICT_KEPT);
    filter.ted_min = 3;
    assert_int_equal(verdict_of(&filter, active, "the physician purchase the automobile ."),
                     VERDICT_STRUCTURE);
    assert_int_equal(verdict_of(&filter, active, passive), VERDICT_KEPT);
    filter.task = TASK_SUMMARIZE; /* which may be built as its source is */
    filter.ratio_max = 2;
    assert_int_equal(verdict_of(&filter, active, other), VERDICT_FORWARD);
}

static void a_rewritten_source_is_paired_only_as_the_source(void **state)
{
    const char *samples[] = {"the doctor buy the car .",
                             "the automobile is purchase by the physician .",
                             "the car is buy by the physician .", ""};
    struct filter filter = paraphrases();
    struct critic *critic = critic_oracle();
    struct filtered out;
    struct err err;

    (void)state;
    filter.source_only = true;
    filter.keep = KEEP_MIN_ROUGE;
    assert_int_equal(filter_context(&filter, critic, 0, samples, 4, &out, &err), 0);
    assert_int_equal(sum(&out), 3);
    assert_int_equal(out.count[VERDICT_MALFORMED], 1);
    assert_int_equal(out.kept_count, 1);
    assert_int_equal(out.kept[0].x, 0);
    assert_int_equal(out.kept[0].y, 1); /* shares fewer words */
    filtered_done(&out);
    critic_free(critic);
}

static void of_many_pairs_a_random_choice_is_taken(void **state)
{
    struct critic *critic = critic_oracle();
    struct filter filter = paraphrases();
    char *samples[SAMPLES];
    struct filtered all, few;
    struct rng rng;
    struct err err;

    (void)state;
    rng_init(&rng, 4);
    draw(&rng, samples);
    filter.diversity_tau = INFINITY;
    assert_int_equal(filter_context(&filter, critic, 1, (const char *const *)samples, SAMPLES, &all,
                                    &err), 0);
    filter.most = 3;
    assert_int_equal(filter_context(&filter, critic, 1, (const char *const *)samples, SAMPLES, &few,
                                    &err), 0);
    assert_true(all.kept_count > 3);
    assert_int_equal(few.kept_count, 3);
    assert_int_equal(sum(&few), sum(&all));
    filtered_done(&all);
    filtered_done(&few);
    for (size_t i = 0; i < SAMPLES; i++)
        mem_free(samples[i]);
    critic_free(critic);
}

/* -- scores between 0 and 1 --------------------------------------------------------------- */

#define GRADED 9

/* Scores in eighths, so that thresholds of eighths are met exactly; texts begin with their
 * number. */
static double grade[GRADED][GRADED];

static int score_grades(struct critic *critic, const struct critic_pair *pairs, size_t count,
                        double *out, struct err *err)
{
    (void)critic;
    (void)err;
    for (size_t i = 0; i < count; i++)
        out[i] = grade[pairs[i].x[0] - '0'][pairs[i].y[0] - '0'];
    return 0;
}

static void free_grades(struct critic *critic)
{
    mem_free(critic);
}

static struct critic *critic_graded(void)
{
    static const struct critic_class class = {.name = "graded", .scaled = true,
                                              .score = score_grades, .free = free_grades};
    struct critic *critic = mem_zalloc(sizeof *critic);

    critic->class = &class;
    return critic;
}

static bool is_graded_pair(const struct filter *filter, size_t x, size_t y)
{
    return x != y && grade[x][y] >= filter->tau &&
           (filter->task == TASK_SUMMARIZE || grade[y][x] >= filter->tau);
}

static bool are_tied(const struct filter *filter, size_t a, size_t b)
{
    return a == b || grade[a][b] >= filter->diversity_tau || grade[b][a] >= filter->diversity_tau;
}

/* What the rule asks most of. */
static double value_of(const struct filter *filter, char *const *text, size_t x, size_t y)
{
    switch (filter->keep) {
    case KEEP_MIN_REVERSE: return -grade[y][x];
    case KEEP_MIN_ROUGE: return -rouge_l_texts(text[x], text[y]);
    case KEEP_MAX_ENTAIL: break;
    }
    return grade[x][y] + (filter->task == TASK_PARAPHRASE ? grade[y][x] : 0);
}

/* component[pair]: the least pair that ties lead to, found by repeating until nothing changes. */
static void tie_pairs(const struct filter *filter, size_t component[GRADED * GRADED])
{
    enum { N = GRADED };

    for (size_t p = 0; p < N * N; p++)
        component[p] = is_graded_pair(filter, p / N, p % N) ? p : N * N;
    for (bool changed = true; changed;) {
        changed = false;
        for (size_t p = 0; p < N * N; p++)
            for (size_t q = 0; q < N * N; q++)
                if (component[p] < N * N && component[q] < component[p] &&
                    (are_tied(filter, p / N, q / N) || are_tied(filter, p % N, q % N))) {
                    component[p] = component[q];
                    changed = true;
                }
    }
}

static size_t check_graded(const struct filter *filter, struct critic *critic, char *const *text,
                           uint64_t context)
{
    enum { N = GRADED };
    size_t component[N * N], components = 0;
    struct filtered out;
    struct err err;

    tie_pairs(filter, component);
    for (size_t p = 0; p < N * N; p++)
        components += component[p] == p;
    assert_int_equal(filter_context(filter, critic, context, (const char *const *)text, N, &out,
                                    &err), 0);
    assert_int_equal(out.kept_count, components);
    for (size_t i = 0; i < out.kept_count; i++) {
        size_t x = out.kept[i].x, y = out.kept[i].y, own = component[x * N + y];
        assert_true(own < N * N);
        for (size_t p = 0; p < N * N; p++)
            if (component[p] == own)
                assert_true(value_of(filter, text, x, y) >=
                            value_of(filter, text, p / N, p % N) - 1e-12);
        for (size_t j = 0; j < i; j++)
            assert_true(component[out.kept[j].x * N + out.kept[j].y] != own);
    }
    filtered_done(&out);
    return components;
}

static void of_graded_scores_the_pair_that_keep_asks_for_stands_for_its_component(void **state)
{
    struct critic *critic = critic_graded();
    struct filter filter = paraphrases();
    char *text[GRADED];
    struct rng rng;
    size_t several = 0;

    (void)state;
    rng_init(&rng, 5);
    filter.numbers = NUMBERS_OFF;
    filter.rouge_max = 1;
    filter.tau = 0.375;
    for (uint64_t context = 0; context < 600; context++) {
        for (size_t i = 0; i < GRADED; i++) {
            text[i] = mem_printf("%zu w%llu w%llu w%llu .", i,
                                 (unsigned long long)rng_below(&rng, 4),
                                 (unsigned long long)rng_below(&rng, 4),
                                 (unsigned long long)rng_below(&rng, 4));
            for (size_t j = 0; j < GRADED; j++)
                grade[i][j] = (double)rng_below(&rng, 1 + rng_below(&rng, 9)) / 8;
        }
        filter.task = context % 2 ? TASK_SUMMARIZE : TASK_PARAPHRASE;
        filter.ratio_max = filter.task == TASK_SUMMARIZE ? INFINITY : 10;
        filter.keep = (enum keep_rule)(1 + context / 2 % 3);
        filter.diversity_tau = (double)(5 + context / 6 % 4) / 8; /* .625 to 1: some met exactly */
        several += check_graded(&filter, critic, text, context) > 1;
        for (size_t i = 0; i < GRADED; i++)
            mem_free(text[i]);
    }
    assert_true(several > 100);
    critic_free(critic);
}

static void nothing_to_pair_is_no_error(void **state)
{
    const char *none[] = {"", "", ""};
    struct filter filter = paraphrases();
    struct critic *critic = critic_oracle();
    struct filtered out;
    struct err err;

    (void)state;
    assert_int_equal(filter_context(&filter, critic, 0, none, 3, &out, &err), 0);
    assert_int_equal(out.count[VERDICT_MALFORMED], 6);
    assert_int_equal(out.kept_count, 0);
    filtered_done(&out);
    critic_free(critic);
}

static void a_sentence_ends_where_its_mark_is_followed_by_space_or_nothing(void **state)
{
    static const struct {
        const char *text;
        size_t length;
    } cases[] = {{"He left. She stayed.", 8},
                 {"It is 3.5 metres. Long.", 17},
                 {"He asked \"why?\" Then.", 15},
                 {"No end here", 0},
                 {"New\nline.", 0},
                 {"a.", 0},
                 {"Hm!", 3},
                 {"", 0},
                 {"\xff\xfe.", 0}};

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++)
        assert_int_equal(sentence_first(cases[i].text, strlen(cases[i].text)), cases[i].length);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kept_pair_passes_every_critic_and_stands_for_its_component_alone),
        cmocka_unit_test(a_summary_must_be_shorter_than_the_bound_not_as_long),
        cmocka_unit_test(numerals_must_agree_as_the_rule_says),
        cmocka_unit_test(sentences_of_one_build_are_dropped_where_that_is_asked),
        cmocka_unit_test(a_rewritten_source_is_paired_only_as_the_source),
        cmocka_unit_test(of_many_pairs_a_random_choice_is_taken),
        cmocka_unit_test(
            of_graded_scores_the_pair_that_keep_asks_for_stands_for_its_component),
        cmocka_unit_test(nothing_to_pair_is_no_error),
        cmocka_unit_test(a_sentence_ends_where_its_mark_is_followed_by_space_or_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
