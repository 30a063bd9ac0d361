/* removal.c - files that go on the coordinator's word; see daemon.h.
 *
 * What goes is renamed first, to a name that no path leads to, so at no moment is there half a
 * checkpoint or dataset; a daemon that is killed meanwhile finishes when it starts again. Only
 * what lies below the job directories and is what was meant is touched (README, invariant 8). */
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "worker/attempt/folder.h"
#include "worker/daemon/daemon.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define GONE_PREFIX ".removing-" /* then the worker's name, a counter and the time */

/* The hash of what lies at the path: of a folder its index's, of a file its own. False: none. */
static bool content_of(const char *path, bool is_folder, struct hash *out)
{
    static const char *const names[] = {"manifest.json", "dataset.json"};
    struct err err;
    if (!is_folder)
        return hash_file(path, out, &err) == 0;
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        char *index = folder_file(path, names[i]);
        bool found = file_exists(index) && hash_file(index, out, &err) == 0;
        mem_free(index);
        if (found)
            return true;
    }
    return false;
}

/* 0: it may go, or there is nothing; *out_real is NULL then. */
static int target_find(struct daemon *daemon, const char *path, const struct hash *content,
                       char **out_real, struct err *err)
{
    char *real = realpath(path, NULL);
    int error = errno;
    char *base = realpath(daemon->options->jobs_dir, NULL);
    struct stat info;
    struct hash found;
    int rc = 0;
    *out_real = NULL;
    errno = error;
    if (!real)
        rc = errno == ENOENT || errno == ENOTDIR ? 0 : err_errno(err, "look at '%s'", path);
    else if (!base || strncmp(real, base, strlen(base)) != 0 || real[strlen(base)] != '/')
        rc = err_set(err, ERR_INVALID, "'%s' is not below '%s'", path, daemon->options->jobs_dir);
    else if (lstat(real, &info) < 0)
        rc = err_errno(err, "look at '%s'", path);
    else if (!hash_is_zero(content) &&
             (!content_of(real, S_ISDIR(info.st_mode), &found) || !hash_equal(&found, content)))
        log_info("'%s' stays: it was made anew", path);
    else {
        *out_real = real;
        real = NULL;
    }
    free(real);
    free(base);
    return rc;
}

/* Folders that are empty now, up to the job's own: of `checkpoints`, of the job. */
static void parents_tidy(const struct daemon *daemon, char *path)
{
    char *base = realpath(daemon->options->jobs_dir, NULL);
    for (char *slash; base && (slash = strrchr(path, '/'));) {
        *slash = '\0';
        if (strlen(path) <= strlen(base) || rmdir(path) < 0)
            break;
    }
    free(base);
}

int removal_do(struct daemon *daemon, const char *path, const struct hash *content,
               bool with_parents, struct err *err)
{
    static unsigned count;
    char *real;
    if (target_find(daemon, path, content, &real, err) < 0)
        return -1;
    if (!real)
        return 0;
    char *gone = mem_printf("%s/" GONE_PREFIX "%s-%u-%" PRIu64, daemon->options->jobs_dir,
                            daemon->options->name, ++count, clock_wall_us());
    int rc = rename(real, gone) < 0 ? err_errno(err, "rename '%s'", real) : 0;
    if (rc == 0 && with_parents)
        parents_tidy(daemon, real);
    if (rc == 0)
        rc = file_remove_tree(gone, err);
    mem_free(gone);
    free(real);
    return rc;
}

void removed_send(struct daemon *daemon, uint64_t removal_id, const char *failure)
{
    struct message message = {.tag = MSG_REMOVED};
    struct err err;
    message.u.removed = (struct msg_removed){.worker_id = daemon->worker_id,
                                             .incarnation = daemon->incarnation,
                                             .removal_id = removal_id,
                                             .failure = failure};
    if (peer_send(daemon->peer, &message, NULL, &err) < 0)
        log_warn("%s is not sent: %s", msg_name(message.tag), err.text);
}

void removal_on_remove(struct daemon *daemon, const struct msg_remove *remove)
{
    struct err err = {0};
    if (!remove->path[0]) {
        copies_drop(daemon, remove);
        return;
    }
    if (removal_do(daemon, remove->path, &remove->content, true, &err) < 0)
        log_warn("removal %" PRIu64 ": %s", remove->removal_id, err.text);
    removed_send(daemon, remove->removal_id, err.text);
}

void removals_finish(struct daemon *daemon)
{
    char *prefix = mem_printf(GONE_PREFIX "%s-", daemon->options->name);
    DIR *folder = opendir(daemon->options->jobs_dir);
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        struct err err;
        if (strncmp(entry->d_name, prefix, strlen(prefix)) != 0)
            continue;
        char *gone = folder_file(daemon->options->jobs_dir, entry->d_name);
        if (file_remove_tree(gone, &err) < 0)
            log_warn("%s", err.text);
        mem_free(gone);
    }
    if (folder)
        closedir(folder);
    mem_free(prefix);
}
