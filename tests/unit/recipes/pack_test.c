/* pack_test.c - documents in rows. */
#include "worker/recipes/pack.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static const int32_t token[] = {10, 11, 12, 13, 14, 15, 16, 17};
static const int32_t target[] = {11, 12, 13, 14, 15, 16, 17, -1};

static void start(struct pack *pack, int64_t T, int64_t rows)
{
    struct err err;

    assert_int_equal(pack_init(pack, T, rows, &err), 0);
}

static void a_document_sees_only_itself_and_counts_from_zero(void **state)
{
    struct pack pack;

    (void)state;
    start(&pack, 8, 2);
    assert_true(pack_add(&pack, 5, token, target, 3));
    assert_true(pack_add(&pack, 9, token, target, 4));
    assert_int_equal(pack.rows, 1);
    for (int i = 0; i < 7; i++) {
        assert_int_equal(pack.position[i], i < 3 ? i : i - 3);
        assert_int_equal(pack.first[i], i < 3 ? 0 : 3);
        assert_int_equal(pack.token[i], token[i < 3 ? i : i - 3]);
    }
    assert_int_equal(pack.span[1].item, 9);
    assert_int_equal(pack.span[1].start, 3);
    assert_int_equal(pack.target_count, 7);
    pack_done(&pack);
}

static void a_document_that_does_not_fit_starts_the_next_row(void **state)
{
    struct pack pack;

    (void)state;
    start(&pack, 8, 2);
    assert_true(pack_add(&pack, 0, token, target, 5));
    assert_true(pack_add(&pack, 1, token, target, 5));
    assert_int_equal(pack.rows, 2);
    assert_int_equal(pack.span[1].start, 8);
    assert_int_equal(pack.first[8], 0);
    assert_false(pack_add(&pack, 2, token, target, 5));
    assert_int_equal(pack.span_count, 2);
    pack_done(&pack);
}

static void padding_predicts_nothing_and_sees_only_itself(void **state)
{
    struct pack pack;

    (void)state;
    start(&pack, 8, 1);
    assert_true(pack_add(&pack, 0, token, target, 2));
    for (int i = 2; i < 8; i++) {
        assert_int_equal(pack.target[i], -1);
        assert_int_equal(pack.first[i], i);
        assert_int_equal(pack.token[i], 0);
    }
    pack_clear(&pack);
    assert_int_equal(pack.target[0], -1);
    assert_int_equal(pack.target_count, 0);
    pack_done(&pack);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_document_sees_only_itself_and_counts_from_zero),
        cmocka_unit_test(a_document_that_does_not_fit_starts_the_next_row),
        cmocka_unit_test(padding_predicts_nothing_and_sees_only_itself),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
