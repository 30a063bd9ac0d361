/* choices_test.c - multiple-choice items, and exact intervals: card eval-general, E1, E7, E9. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "common/base/mem.h"
#include "common/base/rng.h"
#include "worker/engine/data/bpe.h"
#include "worker/recipes/eval/choices.h"
#include "worker/recipes/eval/interval.h"

#include <math.h>
#include <string.h>

static struct choice_item item_of(const char *json)
{
    struct choice_item item = {0};
    struct err err = {0};

    if (choice_item_parse(json, strlen(json), &item, &err) < 0)
        fail_msg("%s", err.text);
    return item;
}

static void an_item_is_read_with_all_it_says(void **state)
{
    struct choice_item item = item_of("{\"id\": \"q1\", \"context\": \"Is it?\", \"choices\": "
                                      "[\"yes\", \"no\", \"maybe\"], \"gold\": 2}");

    (void)state;
    assert_string_equal(item.id, "q1");
    assert_string_equal(item.context, "Is it?");
    assert_int_equal(item.count, 3);
    assert_string_equal(item.choice[2], "maybe");
    assert_int_equal(item.gold, 2);
    assert_null(item.label);
    choice_item_done(&item);
}

static void wrong_items_are_refused_by_name(void **state)
{
    static const struct {
        const char *json, *complaint;
    } wrong[] = {
        {"{\"context\": \"a\", \"choices\": [\"b\"], \"gold\": 0}", "list of 2 to 256 texts"},
        {"{\"context\": \"a\", \"choices\": [\"b\", \"\"], \"gold\": 0}", "choices[1]"},
        {"{\"context\": \"a\", \"choices\": [\"b\", \"c\"], \"gold\": 2}", "'gold' is no number"},
        {"{\"context\": \"a\", \"choices\": [\"b\", \"c\"]}", "'gold' is no number from"},
        {"{\"choices\": [\"b\", \"c\"], \"gold\": 0}", "'context' is no text"},
        {"{\"context\": \"a\", \"choices\": [\"b\", \"c\"], \"labels\": [0, 0]}", "has no 1"},
        {"{\"context\": \"a\", \"choices\": [\"b\", \"c\"], \"labels\": [1]}", "1 entries for 2"},
        {"{\"context\": \"a\", \"choices\": [\"b\", \"c\"], \"labels\": [1, 2]}", "labels[1]"},
        {"{\"context\": \"a\", \"choices\": [\"b\", \"c\"], \"labels\": [1, 0], \"gold\": 0}",
         "both"},
        {"[]", "not an object"},
        {"{\"context\": ", "column"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(wrong); i++) {
        struct choice_item item = {0};
        struct err err = {0};

        assert_int_equal(choice_item_parse(wrong[i].json, strlen(wrong[i].json), &item, &err), -1);
        if (!strstr(err.text, wrong[i].complaint))
            fail_msg("expected '%s' in: %s", wrong[i].complaint, err.text);
    }
}

/* The short choice is bad, the long one good; log p alone prefers the short one. Two letters of
 * two bytes each tell characters from bytes. */
static void lengths_are_normalised_as_computed_by_hand(void **state)
{
    struct choice_item item = item_of("{\"context\": \"c\", \"choices\": [\"no\", "
                                      "\"surely it is\"], \"gold\": 1}");
    struct choice_item letters = item_of("{\"context\": \"c\", \"choices\": "
                                         "[\"\\u00e9\\u00e9\", \"abc\"], \"gold\": 0}");
    double log_p[2] = {-4, -6}, even[2] = {-4, -5.5}, mutual[2] = {-1, -5};
    struct choice_verdict verdict;
    double p = exp(-4.0) / (exp(-4.0) + exp(-6.0));

    (void)state;
    choice_judge(&item, log_p, mutual, &verdict); /* -4 > -6; -2 < -0.5; -3 < -1 */
    assert_int_equal(verdict.best, 0);
    assert_false(verdict.acc);
    assert_true(verdict.acc_norm && verdict.acc_bytes && verdict.acc_mutual_info);
    assert_float_equal(verdict.brier, 2 * p * p, 1e-12);
    assert_float_equal(verdict.confidence, p, 1e-12);
    assert_true(isnan(verdict.mc2));
    choice_judge(&letters, even, NULL, &verdict);
    assert_true(verdict.acc);
    assert_false(verdict.acc_norm); /* -4/2 < -5.5/3 */
    assert_true(verdict.acc_bytes); /* -4/4 > -5.5/3 */
    choice_item_done(&item);
    choice_item_done(&letters);
}

static void several_true_choices_share_their_probability(void **state)
{
    struct choice_item item = item_of("{\"context\": \"c\", \"choices\": [\"a\", \"b\", \"d\"], "
                                      "\"labels\": [0, 1, 1]}");
    double log_p[3] = {-1001, -1000, -1002};
    struct choice_verdict verdict;

    (void)state;
    choice_judge(&item, log_p, NULL, &verdict);
    assert_float_equal(verdict.mc2, (1 + exp(-2.0)) / (exp(-1.0) + 1 + exp(-2.0)), 1e-12);
    assert_true(verdict.acc);
    choice_item_done(&item);
}

static void ties_go_to_the_first(void **state)
{
    struct choice_item item = item_of("{\"context\": \"c\", \"choices\": [\"ab\", \"cd\"], "
                                      "\"gold\": 0}");
    double log_p[2] = {-3, -3};
    struct choice_verdict verdict;

    (void)state;
    choice_judge(&item, log_p, NULL, &verdict);
    assert_true(verdict.acc && verdict.acc_norm && verdict.acc_bytes);
    choice_item_done(&item);
}

/* Bytes as tokens: where a choice begins can be counted. */
static void spaces_at_the_contexts_end_belong_to_the_choice(void **state)
{
    struct word_counts counts = {0};
    struct tokenizer *tokenizer = NULL;
    struct token_list list = {0};
    struct err err = {0};
    struct choice_encoding how = {.delimiter = " "};
    size_t start;

    (void)state;
    word_counts_add_text(&counts, "a", 1);
    assert_int_equal(tokenizer_train(&counts, 257, 2, &tokenizer, &err), 0);
    word_counts_done(&counts);
    how.tokenizer = tokenizer;
    how.prefix = tokenizer_end_of_text(tokenizer);
    choice_encode(&how, "abc", "de", &list, &start);
    assert_int_equal(list.count, 6);
    assert_int_equal(start, 3);
    choice_encode(&how, "abc  ", "de", &list, &start);
    assert_int_equal(list.count, 8);
    assert_int_equal(start, 3);
    choice_encode(&how, "", "de", &list, &start);
    assert_int_equal(list.count, 4);
    assert_int_equal(start, 1);
    assert_int_equal(list.ids[0], how.prefix);
    how.always = true;
    choice_encode(&how, "abc", "de", &list, &start);
    assert_int_equal(list.count, 7);
    assert_int_equal(start, 4);
    token_list_done(&list);
    tokenizer_free(tokenizer);
}

static void exact_intervals_are_the_published_ones(void **state)
{
    static const struct {
        size_t k, n;
        double low, high;
    } golden[] = {{0, 10, 0, .308497},
                  {5, 10, .187086, .812914},
                  {1, 100, .000253, .054459},
                  {73, 100, .631984, .813934},
                  {500, 1000, .468549, .531451},
                  {10, 10, 1 - .308497, 1}};

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(golden); i++) {
        struct interval interval = proportion_interval(golden[i].k, golden[i].n);

        assert_float_equal(interval.low, golden[i].low, 1e-6);
        assert_float_equal(interval.high, golden[i].high, 1e-6);
    }
}

/* Summed over k for n = 50: how often the interval holds the truth. */
static void exact_intervals_cover_as_computed(void **state)
{
    static const double truth[] = {.1, .5, .9}, covered[] = {.970308, .967161, .970308};

    (void)state;
    for (int t = 0; t < 3; t++) {
        double sum = 0;

        for (size_t k = 0; k <= 50; k++) {
            struct interval interval = proportion_interval(k, 50);
            double log_p = lgamma(51) - lgamma((double)k + 1) - lgamma(51 - (double)k) +
                           (double)k * log(truth[t]) + (50 - (double)k) * log(1 - truth[t]);

            if (interval.low <= truth[t] && truth[t] <= interval.high)
                sum += exp(log_p);
        }
        assert_float_equal(sum, covered[t], 1e-6);
    }
}

static void the_calibration_error_is_the_published_one(void **state)
{
    static const double confidence[] = {.95, .9, .8, .7, .6, .55, .3, .99};
    static const bool correct[] = {true, true, false, true, true, false, false, true};

    (void)state;
    assert_float_equal(calibration_error(confidence, correct, 8, 10), .213750, 1e-9);
}

/* Card eval-general, E10: n = 500, ends within 5 % of the width of normal theory's. */
static void a_bootstrap_agrees_with_normal_theory(void **state)
{
    double values[500], mean = 0, squares = 0, half;
    struct interval plain, grouped;

    (void)state;
    for (uint64_t i = 0; i < 500; i++) {
        values[i] = rng_unit_at(4, 0, i);
        mean += values[i] / 500;
    }
    for (int i = 0; i < 500; i++)
        squares += (values[i] - mean) * (values[i] - mean);
    half = 1.959964 * sqrt(squares / 499 / 500);
    plain = mean_interval(values, 500, 1, 10000);
    grouped = grouped_interval(values, 500, 1, 1, 10000);
    assert_float_equal(plain.low, mean - half, 0.1 * half);
    assert_float_equal(plain.high, mean + half, 0.1 * half);
    assert_float_equal(grouped.low, mean - half, 0.1 * half);
    assert_float_equal(grouped.high, mean + half, 0.1 * half);
}

/* A draw's BLEU is that of the corpus of its texts, put together from their words; equal seeds draw
 * equal texts. */
static void draws_of_bleu_are_those_of_the_corpora_they_name(void **state)
{
    static const char *const texts[][2] = {{"the cat sat on the mat", "a cat sat on the mat"},
                                           {"rain falls on the plain", "rain fell in the plain"},
                                           {"he left", "she left the old house"},
                                           {"we saw the sea and the sky", "we saw sea and sky"}};
    enum { COUNT = ARRAY_COUNT(texts), DRAWS = 40 };
    struct words ours[COUNT] = {0}, theirs[COUNT] = {0};
    struct bleu parts[COUNT] = {0};
    double drawn[DRAWS], again[DRAWS];
    bool differ = false;

    (void)state;
    for (size_t i = 0; i < COUNT; i++) {
        const struct words *one = &theirs[i];
        words_split(&ours[i], WORDS_13A, texts[i][0], strlen(texts[i][0]));
        words_split(&theirs[i], WORDS_13A, texts[i][1], strlen(texts[i][1]));
        bleu_add(&parts[i], &ours[i], &one, 1);
    }
    bleu_draws(parts, COUNT, 1, 9, DRAWS, drawn);
    bleu_draws(parts, COUNT, 1, 9, DRAWS, again);
    assert_memory_equal(drawn, again, sizeof drawn);
    for (size_t d = 0; d < DRAWS; d++) {
        struct bleu sum = {0};
        for (size_t g = 0; g < COUNT; g++) {
            size_t text = rng_at(9, d, g) % COUNT;
            const struct words *one = &theirs[text];
            bleu_add(&sum, &ours[text], &one, 1);
        }
        assert_float_equal(drawn[d], bleu_score(&sum, false), 1e-12);
        differ = differ || drawn[d] != drawn[0];
    }
    assert_true(differ);
    for (size_t i = 0; i < COUNT; i++) {
        words_done(&ours[i]);
        words_done(&theirs[i]);
    }
}

/* Of a ratio: the delta method's error, and units of one ratio have no spread. */
static void a_bootstrap_of_a_ratio_draws_both_parts_together(void **state)
{
    double top[400], bottom[400], all = 0, below = 0, squares = 0, half, ratio;
    struct interval drawn;

    (void)state;
    for (uint64_t i = 0; i < 400; i++) {
        bottom[i] = 1 + (double)(i % 7);
        top[i] = bottom[i] * (2 + rng_unit_at(5, 0, i));
        all += top[i];
        below += bottom[i];
    }
    ratio = all / below;
    for (int i = 0; i < 400; i++)
        squares += (top[i] - ratio * bottom[i]) * (top[i] - ratio * bottom[i]);
    half = 1.959964 * sqrt(400.0 / 399 * squares) / below;
    drawn = ratio_interval(top, bottom, 400, 1, 10000);
    assert_float_equal(drawn.low, ratio - half, 0.1 * half);
    assert_float_equal(drawn.high, ratio + half, 0.1 * half);
    for (int i = 0; i < 400; i++)
        top[i] = 3 * bottom[i];
    drawn = ratio_interval(top, bottom, 400, 1, 100);
    assert_float_equal(drawn.low, 3, 1e-12);
    assert_float_equal(drawn.high, 3, 1e-12);
    assert_true(isnan(ratio_interval(top, bottom, 1, 1, 100).low));
    assert_true(isnan(ratio_interval(top, bottom, 400, 1, 0).high));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_item_is_read_with_all_it_says),
        cmocka_unit_test(wrong_items_are_refused_by_name),
        cmocka_unit_test(lengths_are_normalised_as_computed_by_hand),
        cmocka_unit_test(several_true_choices_share_their_probability),
        cmocka_unit_test(ties_go_to_the_first),
        cmocka_unit_test(spaces_at_the_contexts_end_belong_to_the_choice),
        cmocka_unit_test(exact_intervals_are_the_published_ones),
        cmocka_unit_test(exact_intervals_cover_as_computed),
        cmocka_unit_test(the_calibration_error_is_the_published_one),
        cmocka_unit_test(a_bootstrap_agrees_with_normal_theory),
        cmocka_unit_test(draws_of_bleu_are_those_of_the_corpora_they_name),
        cmocka_unit_test(a_bootstrap_of_a_ratio_draws_both_parts_together),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
