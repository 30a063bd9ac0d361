/* json_tree_test.c - JSON in an arena: what it holds, how it is found, what is refused. That it
 * says the same as jansson is checked by tests/fuzz/json_tree_fuzz.c. */
#include "common/base/json_tree.h"

#include "common/base/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct json_tree tree_of(const char *text, struct arena *arena)
{
    struct json_tree tree;
    struct err err;
    if (json_tree_read(text, strlen(text), arena, &tree, &err) < 0)
        fail_msg("%s: %s", text, err.text);
    return tree;
}

static void values_keep_their_kind_and_place(void **state)
{
    (void)state;
    struct arena arena = {0};
    const char *text = " {\"n\": -12, \"real\": 2.50, \"list\": [true, false, null, [], {}], "
                       "\"text\": \"a\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\ud83d\\ude00\"} ";
    struct json_tree tree = tree_of(text, &arena);
    static const enum json_tree_kind kinds[] = {JSON_TREE_TRUE, JSON_TREE_FALSE, JSON_TREE_NULL,
                                                JSON_TREE_ARRAY, JSON_TREE_OBJECT};
    const struct json_tree *list = json_tree_get(&tree, "list");

    assert_int_equal(json_tree_integer(json_tree_get(&tree, "n")), -12);
    assert_true(json_tree_get(&tree, "real")->real == 2.5);
    assert_int_equal(json_tree_count(list), ARRAY_COUNT(kinds));
    for (size_t i = 0; i < ARRAY_COUNT(kinds); i++)
        assert_true(json_tree_is(&list->items[i], kinds[i]));
    assert_string_equal(json_tree_text(json_tree_get(&tree, "text")),
                        "a\"\\/\b\f\n\r\t\xc3\xa9\xf0\x9f\x98\x80");
    assert_memory_equal(list->source, "[true, false, null, [], {}]", list->source_length);
    assert_int_equal(tree.source_length, strlen(text) - 2);
    arena_done(&arena);
}

static void members_are_in_order_and_found_by_name_or_path(void **state)
{
    (void)state;
    struct arena arena = {0};
    struct buf text = {0};
    buf_puts(&text, "{\"retry\": {\"on\": 7, \"\": {\"x\": 8}}");
    for (int i = 999; i >= 0; i--)
        buf_printf(&text, ", \"key%d\": %d", i, i);
    buf_puts(&text, "}");
    struct json_tree tree = tree_of(buf_text(&text), &arena);

    assert_int_equal(json_tree_count(&tree), 1001);
    for (size_t i = 1; i < tree.count; i++)
        assert_true(strcmp(tree.items[i - 1].key, tree.items[i].key) < 0);
    for (int i = 0; i < 1000; i++) {
        char key[16];
        snprintf(key, sizeof key, "key%d", i);
        assert_int_equal(json_tree_integer(json_tree_get(&tree, key)), i);
    }
    assert_int_equal(json_tree_integer(json_tree_at(&tree, "retry.on")), 7);
    assert_int_equal(json_tree_integer(json_tree_at(&tree, "retry..x")), 8);
    assert_null(json_tree_at(&tree, "retry.o"));
    assert_null(json_tree_at(&tree, "retry.on.x"));
    assert_null(json_tree_get(&tree, "key"));
    assert_null(json_tree_get(&tree, "key9999"));
    buf_done(&text);
    arena_done(&arena);
}

static void what_is_not_there_is_nothing(void **state)
{
    (void)state;
    struct arena arena = {0};
    struct json_tree tree = tree_of("\"text\"", &arena);

    assert_null(json_tree_get(NULL, "a"));
    assert_null(json_tree_get(&tree, "a"));
    assert_null(json_tree_text(NULL));
    assert_int_equal(json_tree_integer(&tree), 0);
    assert_int_equal(json_tree_count(&tree), 0);
    assert_false(json_tree_is(NULL, JSON_TREE_NULL));
    arena_done(&arena);
}

static void what_cannot_be_held_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *said;
    } bad[] = {
        {"", "not JSON"},
        {"{\"a\": }", "not JSON"},
        {"[1] 2", "not JSON"},
        {"\"\\u0000\"", "not JSON"},
        {"\"\\ud83d\"", "not JSON"},
        {"\"\xff\"", "not JSON"},
        {"9223372036854775808", "out of range"},
        {"[-9223372036854775809]", "out of range"},
        {"1e999", "out of range"},
        {"{\"a\": {\"b\": 1, \"c\": 2, \"b\": 3}}", "two members of one name"},
        {"{\"a\": 1, \"\\u0061\": 2}", "two members of one name"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        struct arena arena = {0};
        struct json_tree tree;
        struct err err;
        assert_int_equal(
            json_tree_read(bad[i].text, strlen(bad[i].text), &arena, &tree, &err), -1);
        assert_int_equal(err.kind, ERR_PROTOCOL);
        assert_non_null(strstr(err.text, bad[i].said));
        arena_done(&arena);
    }
}

static void a_text_may_end_without_a_zero(void **state)
{
    (void)state;
    struct arena arena = {0};
    struct json_tree tree;
    struct err err;
    assert_int_equal(json_tree_read("1234", 2, &arena, &tree, &err), 0);
    assert_int_equal(json_tree_integer(&tree), 12);
    arena_done(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_keep_their_kind_and_place),
        cmocka_unit_test(members_are_in_order_and_found_by_name_or_path),
        cmocka_unit_test(what_is_not_there_is_nothing),
        cmocka_unit_test(what_cannot_be_held_is_refused),
        cmocka_unit_test(a_text_may_end_without_a_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
