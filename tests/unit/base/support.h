/* support.h - what the tests of common/base share. */
#ifndef TESTS_UNIT_BASE_SUPPORT_H
#define TESTS_UNIT_BASE_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/base/err.h"
#include "common/base/file.h"
#include "common/base/mem.h"

/* Runs the function in a child with stderr closed; true when it did not return. */
static inline bool ends_the_process(void (*function)(void))
{
    int status;
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        close(STDERR_FILENO);
        function();
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* A private folder below TMPDIR (folder_drop). */
static inline char *folder_make(void)
{
    const char *base = getenv("TMPDIR");
    char *folder = mem_printf("%s/athanor-base-XXXXXX", base ? base : "/tmp");
    assert_non_null(mkdtemp(folder));
    return folder;
}

static inline void folder_drop(char *folder)
{
    struct err err;
    assert_int_equal(file_remove_tree(folder, &err), 0);
    mem_free(folder);
}

#endif
