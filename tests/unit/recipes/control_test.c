/* control_test.c - control codes: values, fifths, the limits in a dataset.json. */
#include "worker/recipes/distillation/impossible/control.h"

#include "common/base/file.h"
#include "common/base/mem.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void values_are_lengths_in_characters_and_words_that_differ(void **state)
{
    double value[CONTROL_END];

    (void)state;
    control_measure("abcd efgh", "abcd efgh", value);
    assert_true(value[CONTROL_LEN] == 1 && value[CONTROL_ABS] == 0);
    control_measure("\xC3\xA9t\xC3\xA9 ici", "ici", value); /* 7 characters in 9 bytes */
    assert_true(fabs(value[CONTROL_LEN] - 3 / 7.0) < 1e-12);
    assert_true(fabs(value[CONTROL_ABS] - 1 / 3.0) < 1e-12); /* P 1, R 1/2: F 2/3 */
    control_measure("x", "", value);
    assert_true(isnan(value[CONTROL_LEN]) && isnan(value[CONTROL_ABS]));
}

static void fifths_hold_equal_numbers_where_values_differ(void **state)
{
    struct control control = {.count = 1};
    double values[100];
    int count[CONTROL_BUCKETS + 1] = {0};
    char token[CONTROL_TOKEN_SIZE];

    (void)state;
    for (int i = 0; i < 100; i++)
        values[i] = (double)((i * 37) % 100);
    control_set_limits(&control, CONTROL_LEN, values, 100);
    for (int i = 0; i < 100; i++)
        count[control_bucket(&control, CONTROL_LEN, values[i])]++;
    for (int b = 1; b <= CONTROL_BUCKETS; b++)
        assert_int_equal(count[b], 20);
    assert_int_equal(control_bucket(&control, CONTROL_LEN, -5), 1);
    assert_int_equal(control_bucket(&control, CONTROL_LEN, 1e9), 5);
    assert_int_equal(control_bucket(&control, CONTROL_LEN, control.limit[0][0]), 2);
    control_token(CONTROL_ABS, 4, token);
    assert_string_equal(token, "<abs:4>");
}

static void limits_come_back_from_a_dataset_and_damage_is_named(void **state)
{
    char folder[] = "/tmp/athanor-test-XXXXXX", *path;
    struct control control = {.count = 2, .limit = {{.5, .75, 1, 1.25}, {.1, .2, .3, .4}}}, back;
    struct err err;
    json_t *root = json_pack("{s:o}", "codes", control_json(&control));

    (void)state;
    assert_non_null(mkdtemp(folder));
    path = mem_printf("%s/dataset.json", folder);
    assert_int_equal(json_dump_file(root, path, 0), 0);
    assert_int_equal(control_read(folder, &back, &err), 0);
    assert_int_equal(back.count, control.count);
    assert_memory_equal(back.limit, control.limit, sizeof control.limit);
    json_array_remove(json_object_get(json_object_get(json_object_get(root, "codes"), "abs"),
                                      "limits"), 0);
    assert_int_equal(json_dump_file(root, path, 0), 0);
    assert_int_equal(control_read(folder, &back, &err), -1);
    assert_non_null(strstr(err.text, "codes.abs.limits"));
    json_object_del(root, "codes");
    assert_int_equal(json_dump_file(root, path, 0), 0);
    assert_int_equal(control_read(folder, &back, &err), -1);
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    assert_int_equal(file_remove_tree(folder, &err), 0);
    json_decref(root);
    mem_free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_lengths_in_characters_and_words_that_differ),
        cmocka_unit_test(fifths_hold_equal_numbers_where_values_differ),
        cmocka_unit_test(limits_come_back_from_a_dataset_and_damage_is_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
