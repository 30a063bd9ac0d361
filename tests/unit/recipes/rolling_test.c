/* rolling_test.c - windows of perplexity against a token-by-token account (card eval-general,
 * acceptance item E3). */
#include "worker/recipes/eval/rolling.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#define N_MOST 100

/* How often each token is scored, and the least context any scored token of a later window
 * had. */
static void account(const struct rolling *rolling, int64_t n, int seen[N_MOST + 1])
{
    int64_t count = rolling_count(rolling, n);

    memset(seen, 0, (N_MOST + 1) * sizeof *seen);
    for (int64_t i = 0; i < count; i++) {
        struct rolling_window window = rolling_at(rolling, n, i);

        assert_true(window.from >= 0 && window.count <= rolling->K);
        assert_true(window.from + window.count <= n);
        for (int64_t j = window.from + 1; j <= window.from + window.count; j++)
            seen[j] += j >= window.score_from;
    }
}

static void every_token_is_scored_once_by_rolling_windows(void **state)
{
    static const int64_t lengths[] = {1, 7, 32};
    int seen[N_MOST + 1];

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(lengths); k++) {
        for (int64_t c = 1; c <= lengths[k]; c++) {
            for (int64_t n = 0; n <= 3 * lengths[k]; n++) {
                struct rolling rolling = {.K = lengths[k], .context = c};

                account(&rolling, n, seen);
                for (int64_t i = 1; i <= n; i++)
                    assert_int_equal(seen[i], 1);
            }
        }
    }
}

static void a_later_window_gives_its_first_token_exactly_c_tokens_of_context(void **state)
{
    (void)state;
    for (int64_t c = 1; c <= 8; c++) {
        struct rolling rolling = {.K = 8, .context = c};
        int64_t fresh = 8 - c + 1;
        int64_t n = 8 + 3 * fresh; /* full windows only */

        for (int64_t i = 1; i < rolling_count(&rolling, n); i++) {
            struct rolling_window window = rolling_at(&rolling, n, i);

            assert_int_equal(window.score_from - window.from, c);
            assert_int_equal(window.count, 8);
        }
    }
}

/* The loop of the documentation, written out: which targets each window scores. */
static void strided_reference(int64_t K, int64_t s, int64_t n, int seen[N_MOST + 1])
{
    int64_t length = n + 1, previous_end = 0;

    memset(seen, 0, (N_MOST + 1) * sizeof *seen);
    for (int64_t begin = 0; begin < length; begin += s) {
        int64_t end = begin + K < length ? begin + K : length;
        int64_t scored = end - previous_end;

        for (int64_t i = end - scored; i < end; i++)
            seen[i] += i > begin;
        previous_end = end;
        if (end == length)
            break;
    }
}

static void strided_windows_score_what_the_published_loop_scores(void **state)
{
    int seen[N_MOST + 1], expected[N_MOST + 1];

    (void)state;
    for (int64_t s = 1; s <= 8; s++) {
        for (int64_t n = 1; n <= 40; n++) {
            struct rolling rolling = {.K = 8, .context = 1, .stride = s};

            account(&rolling, n, seen);
            strided_reference(8, s, n, expected);
            assert_memory_equal(seen, expected, sizeof seen);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_token_is_scored_once_by_rolling_windows),
        cmocka_unit_test(a_later_window_gives_its_first_token_exactly_c_tokens_of_context),
        cmocka_unit_test(strided_windows_score_what_the_published_loop_scores),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
