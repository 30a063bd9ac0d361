/* trace_test.c - every *.trace beside this file says what the core decides. With ATHANOR_BLESS=1
 * the files are rewritten (tests/golden/bless), and the diff is to be reviewed. */
#include "tests/lib/core/trace.h"

#include "common/base/file.h"
#include "common/base/mem.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define FOLDER "tests/golden/core"

/* The first line in which the two differ, for the report. */
static void print_difference(const char *path, const char *expected, const char *got)
{
    size_t line = 1;
    while (*expected && *expected == *got) {
        line += *expected == '\n';
        expected++;
        got++;
    }
    print_error("%s:%zu differs\n  expected: %.*s\n  got:      %.*s\n", path, line,
                (int)strcspn(expected, "\n"), expected, (int)strcspn(got, "\n"), got);
}

static void a_trace_is_as_blessed(void **state)
{
    const char *path = *state;
    char *text;
    size_t length;
    struct err err;
    struct buf got = {0};
    if (file_read(path, (size_t)1 << 20, &text, &length, &err) < 0)
        fail_msg("%s", err.text);
    if (trace_run(text, &got, &err) < 0)
        fail_msg("%s: %s", path, err.text);
    bool same = strcmp(text, buf_text(&got)) == 0;
    if (!same && getenv("ATHANOR_BLESS")) {
        if (file_replace(path, got.bytes, got.length, 0644, &err) < 0)
            fail_msg("%s", err.text);
        same = true;
    }
    if (!same)
        print_difference(path, text, buf_text(&got));
    mem_free(text);
    buf_done(&got);
    assert_true(same);
}

static int is_trace(const struct dirent *entry)
{
    const char *dot = strrchr(entry->d_name, '.');
    return dot && strcmp(dot, ".trace") == 0;
}

int main(void)
{
    struct dirent **entries;
    int count = scandir(FOLDER, &entries, is_trace, alphasort);
    if (count <= 0) {
        fprintf(stderr, "no *.trace in %s: run from the root of the sources\n", FOLDER);
        return 1;
    }
    struct CMUnitTest *tests = calloc((size_t)count, sizeof *tests);
    for (int i = 0; i < count; i++) {
        char *path = mem_printf(FOLDER "/%s", entries[i]->d_name);
        tests[i] = (struct CMUnitTest){.name = path,
                                       .test_func = a_trace_is_as_blessed,
                                       .initial_state = path};
    }
    int rc = _cmocka_run_group_tests("golden core traces", tests, (size_t)count, NULL, NULL);
    for (int i = 0; i < count; i++) {
        mem_free((void *)tests[i].name);
        free(entries[i]);
    }
    free(entries);
    free(tests);
    return rc;
}
