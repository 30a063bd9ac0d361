/* pull_test.c - the MessagePack reader against the public test suite of encodings.
 *
 * Input: formats/msgpack-test-suite.json of the shared data (PROVENANCE.md there): every value
 * in every encoding that the format allows. Skipped where the file is absent. */
#include "common/base/buf.h"
#include "common/base/mem.h"
#include "common/wire/pull.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static json_t *suite_load(void)
{
    const char *folder = getenv("ATHANOR_SHARED_DATA");
    char *path =
        mem_printf("%s/formats/msgpack-test-suite.json", folder ? folder : "../shared/data");
    json_error_t error;
    json_t *suite = json_load_file(path, 0, &error);
    if (!suite)
        print_message("skipped: no %s (set ATHANOR_SHARED_DATA)\n", path);
    mem_free(path);
    return suite;
}

static void from_dashed(const char *text, struct buf *out)
{
    unsigned byte;
    int used;
    buf_clear(out);
    while (sscanf(text, "%2x%n", &byte, &used) == 1) {
        buf_putc(out, (char)byte);
        text += used;
        text += *text == '-';
    }
}

typedef void visit_fn(const char *name, const json_t *value, const struct buf *bytes);

/* Calls visit for every encoding of every value in the suite. */
static void suite_visit(visit_fn *visit)
{
    json_t *suite = suite_load(), *group, *entry, *encoding, *value;
    const char *file, *name;
    size_t i, j, visited = 0;
    struct buf bytes = {0};
    if (!suite)
        skip();
    json_object_foreach(suite, file, group) json_array_foreach(group, i, entry)
    {
        json_object_foreach(entry, name, value)
        {
            if (strcmp(name, "msgpack") == 0 || strcmp(name, "bignum") == 0)
                continue;
            json_array_foreach(json_object_get(entry, "msgpack"), j, encoding)
            {
                from_dashed(json_string_value(encoding), &bytes);
                visit(name, value, &bytes);
                visited++;
            }
        }
    }
    assert_true(visited > 200);
    buf_done(&bytes);
    json_decref(suite);
}

static struct pull pull_of(const struct buf *bytes)
{
    return (struct pull){(const uint8_t *)bytes->bytes,
                         (const uint8_t *)bytes->bytes + bytes->length};
}

static void skip_takes_it_whole(const char *name, const json_t *value, const struct buf *bytes)
{
    struct err err;
    (void)name;
    (void)value;
    for (size_t length = 0; length <= bytes->length; length++) {
        struct pull pull = pull_of(bytes);
        pull.end = pull.at + length;
        int rc = pull_skip(&pull, 4, &err);
        assert_int_equal(rc, length < bytes->length ? -1 : 0);
        if (rc == 0)
            assert_ptr_equal(pull.at, pull.end);
    }
}

static void every_encoding_is_passed_over_whole_and_refused_in_part(void **state)
{
    (void)state;
    suite_visit(skip_takes_it_whole);
}

static void number_is_read(const json_t *value, const struct buf *bytes)
{
    uint8_t first = (uint8_t)bytes->bytes[0];
    struct pull pull = pull_of(bytes);
    uint64_t natural;
    int64_t integer;
    double real;
    struct err err;
    if (first == 0xca || first == 0xcb) { /* float 32 of a large integer is rounded */
        assert_int_equal(pull_f64(&pull, &real, &err), 0);
        double wanted = json_number_value(value);
        assert_true(real == wanted || (first == 0xca && real == (double)(float)wanted));
        return;
    }
    if (json_is_real(value) || strchr("\xcf", first)) /* bignum: jansson has it as a real */
        return;
    assert_int_equal(pull_i64(&pull, &integer, &err), 0);
    assert_true(integer == json_integer_value(value));
    pull = pull_of(bytes);
    assert_int_equal(pull_u64(&pull, &natural, &err), integer < 0 ? -1 : 0);
}

static void value_is_read(const char *name, const json_t *value, const struct buf *bytes)
{
    struct pull pull = pull_of(bytes);
    const char *text;
    size_t length;
    uint32_t count;
    bool flag;
    struct err err;
    if (strcmp(name, "bool") == 0) {
        assert_int_equal(pull_flag(&pull, &flag, &err), 0);
        assert_int_equal(flag, json_is_true(value));
    } else if (strcmp(name, "number") == 0) {
        number_is_read(value, bytes);
    } else if (strcmp(name, "string") == 0) {
        assert_int_equal(pull_str(&pull, &text, &length, &err), 0);
        assert_int_equal(length, json_string_length(value));
        assert_memory_equal(text, json_string_value(value), length);
    } else if (strcmp(name, "array") == 0) {
        assert_int_equal(pull_array(&pull, &count, &err), 0);
        assert_int_equal(count, json_array_size(value));
    } else if (strcmp(name, "map") == 0) {
        assert_int_equal(pull_map(&pull, &count, &err), 0);
        assert_int_equal(count, json_object_size(value));
    }
}

static void every_encoding_reads_as_its_value(void **state)
{
    (void)state;
    suite_visit(value_is_read);
}

static void wrong_types_are_named(void **state)
{
    struct pull pull = {(const uint8_t *)"\xc0", (const uint8_t *)"\xc0" + 1};
    uint64_t number;
    struct err err;
    (void)state;
    assert_int_equal(pull_u64(&pull, &number, &err), -1);
    assert_string_equal(err.text, "is nil where an integer belongs");
}

static void the_unused_byte_starts_no_value(void **state)
{
    struct pull pull = {(const uint8_t *)"\xc1", (const uint8_t *)"\xc1" + 1};
    struct err err;
    (void)state;
    assert_int_equal(pull_skip(&pull, 4, &err), -1);
    assert_int_equal(err.kind, ERR_PROTOCOL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_encoding_is_passed_over_whole_and_refused_in_part),
        cmocka_unit_test(every_encoding_reads_as_its_value),
        cmocka_unit_test(wrong_types_are_named),
        cmocka_unit_test(the_unused_byte_starts_no_value),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
