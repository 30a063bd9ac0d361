/* gpu_usage_test.c - sums over a rank's devices, and texts that tell nothing. */
#include "worker/attempt/gpu_usage.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static struct gpu_usage sum_of(const char *text, const char *words, uint64_t now_ms)
{
    struct gpu_usage usage;
    gpu_usage_sum(text, words, now_ms, 3000, &usage);
    return usage;
}

static void a_sample_that_was_written_is_read_back_and_added_up(void **state)
{
    struct buf text = {0};
    (void)state;
    gpu_usage_begin(&text, 5000);
    gpu_usage_add(&text, "GPU-1", &(struct gpu_usage){true, true, 90, 5000000000});
    gpu_usage_add(&text, "GPU-10", &(struct gpu_usage){true, true, 5, 7});
    gpu_usage_add(&text, "GPU-2", &(struct gpu_usage){true, true, 60, 1000000000});
    struct gpu_usage both = sum_of(buf_text(&text), "GPU-1,GPU-2", 6000);
    assert_true(both.busy_known && both.used_known);
    assert_int_equal(both.busy_percent, 150);
    assert_int_equal(both.used_bytes, 6000000000);
    assert_int_equal(sum_of(buf_text(&text), "GPU-10", 6000).used_bytes, 7);
    buf_done(&text);
}

static void what_one_device_does_not_tell_the_sum_does_not_either(void **state)
{
    struct buf text = {0};
    (void)state;
    gpu_usage_begin(&text, 5000);
    gpu_usage_add(&text, "GPU-1", &(struct gpu_usage){true, true, 90, 5});
    gpu_usage_add(&text, "MIG-1", &(struct gpu_usage){false, true, 0, 2});
    struct gpu_usage both = sum_of(buf_text(&text), "GPU-1,MIG-1", 5000);
    assert_false(both.busy_known);
    assert_true(both.used_known);
    assert_int_equal(both.used_bytes, 7);
    struct gpu_usage gone = sum_of(buf_text(&text), "GPU-1,GPU-9", 5000);
    assert_false(gone.busy_known || gone.used_known);
    buf_done(&text);
}

static void old_torn_and_foreign_texts_tell_nothing(void **state)
{
    static const char *const texts[] = {
        "",
        "athanor-gpu-usage 1",
        "athanor-gpu-usage 2 5000\n0 50 100\n",
        "athanor-gpu-usage 1 x\n0 50 100\n",
        "athanor-gpu-usage 1 5000\n0",
        "athanor-gpu-usage 1 5000\n0 ",
        "athanor-gpu-usage 1 5000\n0 - -\n",
        "athanor-gpu-usage 1 9000\n0 50 100\n", /* of a later boot's clock, or another's */
        "athanor-gpu-usage 1 1000\n0 50 100\n",
    };
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct gpu_usage usage = sum_of(texts[i], "0", 5000);
        assert_false(usage.busy_known || usage.used_known);
    }
    struct gpu_usage none = sum_of("athanor-gpu-usage 1 5000\n0 50 100\n", "", 5000);
    assert_false(none.busy_known || none.used_known);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sample_that_was_written_is_read_back_and_added_up),
        cmocka_unit_test(what_one_device_does_not_tell_the_sum_does_not_either),
        cmocka_unit_test(old_torn_and_foreign_texts_tell_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
