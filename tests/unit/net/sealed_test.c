/* sealed_test.c - boxes open for their keys alone. */
#include "common/net/sealed.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static struct buf box_of(const struct keypair *keys, const char *text)
{
    struct clear_value value;
    struct buf box = {0};
    struct err err;
    assert_int_equal(clear_value_new(strlen(text), &value, &err), 0);
    memcpy(value.bytes, text, strlen(text));
    assert_int_equal(sealed_make(keys->public_key, &value, &box, &err), 0);
    clear_value_done(&value);
    assert_null(value.bytes);
    return box;
}

static void a_box_opens_for_its_keys_and_shows_nothing_before(void **state)
{
    struct keypair keys;
    struct clear_value value;
    struct err err;
    (void)state;
    keypair_make(&keys);
    struct buf box = box_of(&keys, "a value to hide");
    assert_int_equal(box.length, strlen("a value to hide") + SEALED_EXTRA_BYTES);
    assert_null(memmem(box.bytes, box.length, "value", 5));
    assert_int_equal(sealed_open(&keys, box.bytes, box.length, &value, &err), 0);
    assert_int_equal(value.length, strlen("a value to hide"));
    assert_memory_equal(value.bytes, "a value to hide", value.length);
    clear_value_done(&value);
    buf_done(&box);
}

static void two_boxes_of_one_value_have_nothing_in_common(void **state)
{
    struct keypair keys;
    (void)state;
    keypair_make(&keys);
    struct buf a = box_of(&keys, "same"), b = box_of(&keys, "same");
    assert_memory_not_equal(a.bytes, b.bytes, 32); /* the keys that were made for them */
    assert_memory_not_equal(a.bytes + 32, b.bytes + 32, a.length - 32);
    buf_done(&a);
    buf_done(&b);
}

static void other_keys_and_any_change_are_refused(void **state)
{
    struct keypair keys, others;
    struct clear_value value = {0};
    struct err err;
    (void)state;
    keypair_make(&keys);
    keypair_make(&others);
    struct buf box = box_of(&keys, "value");
    assert_int_equal(sealed_open(&others, box.bytes, box.length, &value, &err), -1);
    assert_int_equal(err.kind, ERR_PROTOCOL);
    for (size_t i = 0; i < box.length; i++) {
        box.bytes[i] ^= 1;
        assert_int_equal(sealed_open(&keys, box.bytes, box.length, &value, &err), -1);
        box.bytes[i] ^= 1;
    }
    for (size_t length = 0; length < box.length; length++)
        assert_int_equal(sealed_open(&keys, box.bytes, length, &value, &err), -1);
    assert_null(value.bytes);
    buf_done(&box);
}

static void what_is_no_key_is_refused(void **state)
{
    struct clear_value value;
    struct buf box = {0};
    struct err err;
    (void)state;
    assert_int_equal(clear_value_new(1, &value, &err), 0);
    assert_int_equal(sealed_make("short", &value, &box, &err), -1);
    assert_int_equal(err.kind, ERR_INVALID);
    assert_int_equal(box.length, 0);
    clear_value_done(&value);
    buf_done(&box);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_box_opens_for_its_keys_and_shows_nothing_before),
        cmocka_unit_test(two_boxes_of_one_value_have_nothing_in_common),
        cmocka_unit_test(other_keys_and_any_change_are_refused),
        cmocka_unit_test(what_is_no_key_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
