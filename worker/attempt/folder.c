/* folder.c - see folder.h. */
#include "worker/attempt/folder.h"

#include "common/base/buf.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define NOTES_BYTES_MAX ((size_t)1 << 20) /* 16,384 processes of at most 64 bytes */

char *folder_file(const char *folder, const char *name)
{
    return mem_printf("%s/%s", folder, name);
}

void folder_tag(const char *attempts_dir, char out[FOLDER_TAG_SIZE])
{
    struct hash hash;
    char hex[HASH_HEX_SIZE];
    hash_bytes(attempts_dir, strlen(attempts_dir), &hash);
    hash_to_hex(&hash, hex);
    snprintf(out, FOLDER_TAG_SIZE, "%.*s", FOLDER_TAG_SIZE - 1, hex);
}

int folder_write(const char *folder, const char *name, const char *text, struct err *err)
{
    char *path = folder_file(folder, name), *temporary = mem_printf("%s.tmp", path);
    int rc = -1;
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        err_errno(err, "write '%s'", temporary);
        goto out;
    }
    rc = file_write_all(fd, text, strlen(text), err);
    close(fd);
    if (rc == 0 && rename(temporary, path) < 0)
        rc = err_errno(err, "rename to '%s'", path);
out:
    mem_free(temporary);
    mem_free(path);
    return rc;
}

int folder_lock(const char *folder, int *out_fd, struct err *err)
{
    char *path = folder_file(folder, FOLDER_LOCK);
    int rc = -1;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        err_errno(err, "open lock '%s'", path);
    } else if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno == EWOULDBLOCK)
            err_set(err, ERR_EXISTS, "a shepherd holds '%s'", path);
        else
            err_errno(err, "lock '%s'", path);
        close(fd);
    } else {
        *out_fd = fd;
        rc = 0;
    }
    mem_free(path);
    return rc;
}

static int line_append(const char *folder, const char *file, const char *line, struct err *err)
{
    char *path = folder_file(folder, file);
    int rc = -1;
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        err_errno(err, "open '%s'", path);
    } else {
        rc = file_write_all(fd, line, strlen(line), err);
        close(fd);
        if (rc < 0)
            err_wrap(err, "note in '%s'", path);
    }
    mem_free(path);
    return rc;
}

int folder_note_process(const char *folder, struct process_id process, struct err *err)
{
    char line[64];
    snprintf(line, sizeof line, "%d %" PRIu64 "\n", (int)process.pid, process.start_ticks);
    return line_append(folder, FOLDER_NOTES, line, err);
}

int folder_note_place(const char *folder, const char *path, struct err *err)
{
    char *line = mem_printf("%s\n", path);
    int rc = line_append(folder, FOLDER_NOTES, line, err);
    mem_free(line);
    return rc;
}

int folder_notes(const char *folder, char **out, struct err *err)
{
    static const char *const names[] = {FOLDER_NOTES, "shepherd", "ranks", "places"};
    struct buf all = {0};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < ARRAY_COUNT(names); i++) {
        char *path = folder_file(folder, names[i]), *text = NULL;
        size_t length;
        struct err why = {0};
        if (file_read(path, NOTES_BYTES_MAX, &text, &length, &why) == 0) {
            buf_add(&all, text, strlen(text));
            buf_putc(&all, '\n'); /* a torn last line ends here */
        } else if (why.kind != ERR_NOT_FOUND) {
            *err = why;
            rc = -1;
        }
        mem_free(text);
        mem_free(path);
    }
    if (rc == 0)
        *out = all.length ? buf_take(&all) : mem_strdup("");
    buf_done(&all);
    return rc;
}

int folder_processes(const char *folder, struct process_id **out, size_t *out_count,
                     struct err *err)
{
    struct process_id *list = NULL;
    size_t count = 0, capacity = 0;
    char *text, *save = NULL;
    if (folder_notes(folder, &text, err) < 0)
        return -1;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        int pid, used = 0;
        uint64_t ticks;
        if (sscanf(line, "%d %" SCNu64 "%n", &pid, &ticks, &used) != 2 || line[used] || pid <= 1)
            continue;
        VEC_RESERVE(list, count, capacity);
        list[count++] = (struct process_id){pid, ticks};
    }
    mem_free(text);
    *out = list;
    *out_count = count;
    return 0;
}

uint64_t folder_acked(const char *folder)
{
    char *path = folder_file(folder, FOLDER_ACKED), *text = NULL;
    struct err err = {0};
    size_t length;
    uint64_t seq = 0;
    if (file_read(path, 64, &text, &length, &err) == 0 && sscanf(text, "%" SCNu64, &seq) != 1)
        seq = 0;
    mem_free(text);
    mem_free(path);
    return seq;
}

int folder_set_acked(const char *folder, uint64_t seq, struct err *err)
{
    char *path = folder_file(folder, FOLDER_ACKED);
    char text[32];
    /* Fixed width, overwritten in place: the cheapest way that never leaves a shorter number. */
    int length = snprintf(text, sizeof text, "%020" PRIu64 "\n", seq);
    int rc = -1;
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        err_errno(err, "open '%s'", path);
    } else {
        rc = file_write_all(fd, text, (size_t)length, err);
        close(fd);
    }
    mem_free(path);
    return rc;
}

char *folder_socket_path(const char *folder, const char *name, int *out_folder_fd, struct err *err)
{
    int fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        err_errno(err, "open folder '%s'", folder);
        return NULL;
    }
    *out_folder_fd = fd;
    return mem_printf("/proc/self/fd/%d/%s", fd, name);
}
