/* plot_test.c - curves in braille and SVG. */
#include "client/render/plot.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/client/golden.h"

#define POINTS 40

static double x[POINTS], falling[POINTS], rising[POINTS], holes[POINTS];

static int setup(void **state)
{
    (void)state;
    for (int i = 0; i < POINTS; i++) {
        x[i] = 10 * i;
        falling[i] = 10.0 / (1 + i);
        rising[i] = 0.25 * i;
        holes[i] = i == 20 ? NAN : i == 25 ? INFINITY : 5;
    }
    return 0;
}

static const struct style plain = {false, false, 80};

static struct plot plot_of(const struct plot_series *series, size_t count)
{
    return (struct plot){"glosses <base>", series, count, 40, 6, false};
}

static void a_curve_is_drawn_in_braille(void **state)
{
    const struct plot_series series[] = {{"loss", x, falling, POINTS}};
    struct plot plot = plot_of(series, 1);
    struct buf out = {0};
    (void)state;
    plot_text(&plot, &plain, &out);
    assert_golden("plot.txt", &out);
    buf_done(&out);
}

static void a_logarithmic_curve_leaves_out_what_has_no_logarithm(void **state)
{
    const struct plot_series series[] = {{"rising", x, rising, POINTS}};
    struct plot plot = plot_of(series, 1);
    struct buf out = {0};
    (void)state;
    plot.log_y = true;
    plot_text(&plot, &plain, &out);
    assert_golden("plot-log.txt", &out);
    buf_done(&out);
}

static void points_that_are_not_finite_make_a_gap(void **state)
{
    const struct plot_series series[] = {{"holes", x, holes, POINTS}};
    struct plot plot = plot_of(series, 1);
    struct buf out = {0};
    (void)state;
    plot_text(&plot, &plain, &out);
    assert_golden("plot-gap.txt", &out);
    buf_done(&out);
}

static void two_curves_are_told_apart_by_colour(void **state)
{
    const struct plot_series series[] = {{"loss", x, falling, POINTS}, {"rate", x, rising, POINTS}};
    const struct style colour = {false, true, 80};
    struct plot plot = plot_of(series, 2);
    struct buf out = {0};
    (void)state;
    plot_text(&plot, &colour, &out);
    assert_golden("plot-colour.txt", &out);
    buf_done(&out);
}

static void nothing_to_draw_is_said_in_words(void **state)
{
    const double nan_only[] = {NAN};
    const struct plot_series series[] = {{"none", x, nan_only, 1}};
    struct plot plot = plot_of(series, 1);
    struct buf out = {0};
    (void)state;
    plot_text(&plot, &plain, &out);
    assert_non_null(strstr(out.bytes, "no points to draw"));
    buf_clear(&out);
    plot_svg(&plot, &out);
    assert_non_null(strstr(out.bytes, "no points to draw"));
    buf_done(&out);
}

static void a_constant_and_a_single_point_are_drawn(void **state)
{
    const struct plot_series series[] = {{"one", x, falling, 1}};
    struct plot plot = plot_of(series, 1);
    struct buf out = {0};
    (void)state;
    plot_text(&plot, &plain, &out);
    assert_null(strstr(out.bytes, "nan"));
    assert_null(strstr(out.bytes, "no points"));
    buf_done(&out);
}

static void svg_is_written_with_its_texts_escaped(void **state)
{
    const struct plot_series series[] = {{"a & b", x, falling, POINTS},
                                         {"holes", x, holes, POINTS}};
    struct plot plot = plot_of(series, 2);
    struct buf out = {0};
    (void)state;
    plot_svg(&plot, &out);
    assert_golden("plot.svg", &out);
    assert_non_null(strstr(out.bytes, "glosses &lt;base&gt;"));
    assert_non_null(strstr(out.bytes, "a &amp; b"));
    assert_null(strstr(out.bytes, "nan"));
    buf_done(&out);
}

static void ticks_are_round_numbers_within_the_range(void **state)
{
    static const struct {
        double low, high;
    } ranges[] = {{0, 1}, {0, 400}, {-3.7, 12.1}, {1e-9, 3e-9}, {1e12, 1.1e12}, {-1, 0}};
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(ranges); i++) {
        double ticks[PLOT_TICKS_MAX], span = ranges[i].high - ranges[i].low;
        size_t count = plot_ticks(ranges[i].low, ranges[i].high, 6, ticks);
        assert_true(count >= 2 && count <= 7);
        for (size_t k = 0; k < count; k++) {
            /* a thousandth of the range: rounding of k * step */
            assert_true(ticks[k] >= ranges[i].low - span / 1000);
            assert_true(ticks[k] <= ranges[i].high + span / 1000);
            assert_true(k == 0 || ticks[k] > ticks[k - 1]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_curve_is_drawn_in_braille),
        cmocka_unit_test(a_logarithmic_curve_leaves_out_what_has_no_logarithm),
        cmocka_unit_test(points_that_are_not_finite_make_a_gap),
        cmocka_unit_test(two_curves_are_told_apart_by_colour),
        cmocka_unit_test(nothing_to_draw_is_said_in_words),
        cmocka_unit_test(a_constant_and_a_single_point_are_drawn),
        cmocka_unit_test(svg_is_written_with_its_texts_escaped),
        cmocka_unit_test(ticks_are_round_numbers_within_the_range),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
