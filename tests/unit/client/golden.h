/* golden.h - compares output with tests/golden/client/<name>; ATHANOR_BLESS=1 writes it anew. */
#ifndef ATHANOR_TESTS_CLIENT_GOLDEN_H
#define ATHANOR_TESTS_CLIENT_GOLDEN_H

#include "common/base/buf.h"
#include "common/base/file.h"
#include "common/base/mem.h"

#include <stdlib.h>
#include <string.h>

static inline void assert_golden(const char *name, const struct buf *out)
{
    char *path = mem_printf("tests/golden/client/%s", name), *expected;
    size_t length;
    struct err err;
    if (getenv("ATHANOR_BLESS"))
        assert_int_equal(file_replace(path, buf_text(out), out->length, 0644, &err), 0);
    if (file_read(path, 1 << 20, &expected, &length, &err) < 0)
        fail_msg("%s; run with ATHANOR_BLESS=1 to make it", err.text);
    assert_string_equal(buf_text(out), expected);
    mem_free(expected);
    mem_free(path);
}

#endif
