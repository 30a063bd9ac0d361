/* support.h - folders and archives for the tests of snapshots. */
#ifndef TESTS_UNIT_SNAPSHOT_SUPPORT_H
#define TESTS_UNIT_SNAPSHOT_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/buf.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/snapshot/snapshot.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static inline char *folder_make(void)
{
    char *path = mem_strdup("/tmp/athanor-snapshot-XXXXXX");
    assert_non_null(mkdtemp(path));
    return path;
}

static inline void folder_drop(char *path)
{
    struct err err;
    assert_int_equal(file_remove_tree(path, &err), 0);
    mem_free(path);
}

static inline void put(const char *folder, const char *name, const char *content)
{
    char *path = mem_printf("%s/%s", folder, name), *slash = strrchr(path, '/');
    struct err err;
    *slash = '\0';
    assert_int_equal(file_make_folders(path, 0755, &err), 0);
    *slash = '/';
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(file_write_all(fd, content, strlen(content), &err), 0);
    close(fd);
    mem_free(path);
}

static inline int memory_file(void)
{
    int fd = memfd_create("snapshot", MFD_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

static inline int packed(const char *folder)
{
    struct snapshot_counts counts;
    struct err err;
    int fd = memory_file();
    if (snapshot_pack(folder, fd, &counts, &err) < 0)
        fail_msg("%s", err.text);
    return fd;
}

static inline struct hash hash_of(int fd)
{
    struct chunks *sum = mem_alloc(sizeof *sum);
    struct err err;
    assert_int_equal(chunks_of_file(fd, sum, &err), 0);
    struct hash hash = sum->whole;
    mem_free(sum);
    return hash;
}

static inline int list_one(void *user, const struct snapshot_file *file, struct err *err)
{
    (void)err;
    buf_printf(user, "%s%s%s%s\n", file->path, file->executable ? "*" : "",
               file->link ? " -> " : "", file->link ? file->link : "");
    return 0;
}

/* One path a line (mem_free). */
static inline char *listing(int fd)
{
    struct buf out = {0};
    struct err err;
    if (snapshot_list(fd, list_one, &out, &err) < 0)
        fail_msg("%s", err.text);
    buf_putc(&out, '\0');
    out.length--;
    return buf_take(&out);
}

#endif
