/* support.h - what the tests of specs share. */
#ifndef TESTS_UNIT_SPEC_SUPPORT_H
#define TESTS_UNIT_SPEC_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/base/buf.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/spec/json.h"
#include "common/spec/spec.h"

#define GOLDEN_FOLDER "tests/golden/spec"

/* The small catalogue beside the golden cases (catalogue_free). */
static inline struct catalogue *test_catalogue(void)
{
    char *json;
    size_t length;
    struct err err;
    struct catalogue *catalogue = catalogue_new();
    assert_int_equal(file_read(GOLDEN_FOLDER "/catalogue.json", CATALOGUE_TEXT_BYTES_MAX, &json,
                               &length, &err), 0);
    assert_int_equal(catalogue_add(catalogue, json, length, &err), 0);
    mem_free(json);
    return catalogue;
}

/* Reads a text with overrides; the errors as text, "" when there are none (mem_free). */
static inline char *test_read(const char *text, const struct spec_set *sets, size_t set_count,
                              struct spec **out)
{
    struct catalogue *catalogue = test_catalogue();
    struct spec_errors errors = {0};
    struct spec_source source = {.name = "test.yaml", .bytes = text, .length = strlen(text),
                                 .folder = "/home/user", .sets = sets, .set_count = set_count};
    *out = NULL;
    int rc = spec_read(&source, catalogue, out, &errors);
    assert_int_equal(rc, errors.count > 0 ? -1 : 0);
    char *report = spec_errors_text(&errors);
    spec_errors_done(&errors);
    catalogue_free(catalogue);
    return report;
}

/* Reads a text that must be right (spec_free). */
static inline struct spec *test_spec(const char *text)
{
    struct spec *spec;
    char *report = test_read(text, NULL, 0, &spec);
    if (!spec)
        fail_msg("refused: %s", report);
    mem_free(report);
    return spec;
}

/* Asserts that a text is refused with exactly this report. */
static inline void test_refused(const char *text, const char *expected)
{
    struct spec *spec;
    char *report = test_read(text, NULL, 0, &spec);
    assert_null(spec);
    assert_string_equal(report, expected);
    mem_free(report);
}

#endif
