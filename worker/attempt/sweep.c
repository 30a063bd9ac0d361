/* sweep.c - see sweep.h. */
#include "worker/attempt/sweep.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "worker/attempt/cgroup.h"

#include <ctype.h>
#include <dirent.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void see(struct process_list *seen, struct process_id process)
{
    for (size_t i = 0; seen && i < seen->count; i++)
        if (seen->items[i].pid == process.pid)
            return;
    if (!seen || seen->count >= SWEEP_SEEN_MAX)
        return;
    VEC_RESERVE(seen->items, seen->count, seen->capacity);
    seen->items[seen->count++] = process;
}

static size_t kill_all(struct process_list *list, struct process_list *seen)
{
    size_t hit = 0;
    for (size_t i = 0; i < list->count; i++) {
        hit += process_signal(list->items[i], SIGKILL);
        see(seen, list->items[i]);
    }
    process_list_done(list);
    return hit;
}

size_t sweep_processes(const char *folder, const char *cgroup, struct process_list *seen)
{
    struct process_list found = {0};
    struct process_id *ranks = NULL;
    size_t count = 0, hit = 0;
    struct err err = {0};
    if (cgroup) {
        cgroup_processes(cgroup, "ranks", &found);
        cgroup_processes(cgroup, "shepherd", &found);
        cgroup_kill(cgroup, NULL);
    }
    if (folder_processes(folder, &ranks, &count, &err) == 0)
        for (size_t i = 0; i < count; i++) {
            struct process_id now;
            see(seen, ranks[i]);
            if (!process_find(ranks[i].pid, &now) || now.start_ticks != ranks[i].start_ticks)
                continue;
            processes_below(now.pid, &found);
            hit += process_signal(now, SIGKILL);
        }
    mem_free(ranks);
    char *marker = mem_printf("ATHANOR_RUN_DIR=%s/%s", folder, FOLDER_RUN);
    processes_marked(marker, &found);
    mem_free(marker);
    return hit + kill_all(&found, seen);
}

bool sweep_name_has_pid(const char *name, pid_t pid)
{
    char digits[16];
    size_t length = (size_t)snprintf(digits, sizeof digits, "%d", (int)pid);
    for (const char *at = name; (at = strstr(at, digits)); at++) {
        bool left = at == name || !isdigit((unsigned char)at[-1]);
        if (left && !isdigit((unsigned char)at[length]))
            return true;
    }
    return false;
}

static bool is_of(uid_t owner, const char *path, uint64_t since_us)
{
    struct stat info;
    if (lstat(path, &info) < 0 || info.st_uid != owner)
        return false;
    uint64_t changed_us =
        (uint64_t)info.st_ctim.tv_sec * 1000000 + (uint64_t)info.st_ctim.tv_nsec / 1000;
    return changed_us + 1000000 >= since_us; /* file times tick coarsely */
}

static void keep_first(struct err *first, const struct err *next)
{
    if (first->kind == ERR_NONE)
        *first = *next;
}

static void sweep_shared_memory(const char *folder, const pid_t *pids, size_t pid_count,
                                uint64_t since_us, struct err *first)
{
    struct stat home;
    uid_t owner = stat(folder, &home) == 0 ? home.st_uid : geteuid();
    DIR *dir = pid_count ? opendir("/dev/shm") : NULL;
    if (!dir)
        return;
    for (struct dirent *entry; (entry = readdir(dir));) {
        bool match = false;
        for (size_t i = 0; !match && i < pid_count; i++)
            match = sweep_name_has_pid(entry->d_name, pids[i]);
        if (!match)
            continue;
        char *path = mem_printf("/dev/shm/%s", entry->d_name);
        struct err err = {0};
        if (is_of(owner, path, since_us) && file_remove_tree(path, &err) < 0)
            keep_first(first, &err);
        mem_free(path);
    }
    closedir(dir);
}

/* The list may have been written by the job's account: a root daemon must not be talked into
 * removing what belongs to others. */
static bool place_is_believable(const char *folder, const char *path)
{
    struct stat place, home;
    return path[0] == '/' && strstr(path, "/athanor-") && !strstr(path, "/..") &&
           lstat(path, &place) == 0 && stat(folder, &home) == 0 && place.st_uid == home.st_uid;
}

static void sweep_noted(const char *folder, struct err *first)
{
    char *text = NULL, *save = NULL;
    struct err err = {0};
    if (folder_notes(folder, &text, &err) < 0)
        keep_first(first, &err);
    for (char *line = text ? strtok_r(text, "\n", &save) : NULL; line;
         line = strtok_r(NULL, "\n", &save))
        if (place_is_believable(folder, line) && file_remove_tree(line, &err) < 0)
            keep_first(first, &err);
    mem_free(text);
}

int sweep_places(const char *folder, const pid_t *pids, size_t pid_count, uint64_t since_us,
                 struct err *err)
{
    struct err first = {0}, one = {0};
    sweep_noted(folder, &first);
    char *run = folder_file(folder, FOLDER_RUN);
    if (file_remove_tree(run, &one) < 0)
        keep_first(&first, &one);
    mem_free(run);
    sweep_shared_memory(folder, pids, pid_count, since_us, &first);
    if (first.kind == ERR_NONE)
        return 0;
    *err = first;
    return -1;
}

/* ---- strays ---------------------------------------------------------------------------------- */

#define STRAY_ROUND_MS 10
#define STRAY_ROUNDS   200

struct strays {
    const char *attempts_dir;
    char tag[FOLDER_TAG_SIZE];
    size_t found;
    struct err first;
};

/* The folder that a name was made for, if it is one of ours and that folder is gone (mem_free). */
static char *stray_folder(const struct strays *strays, const char *id_text, const char *tag)
{
    uint64_t id = strtoull(id_text, NULL, 10);
    if (id == 0 || strncmp(tag, strays->tag, FOLDER_TAG_SIZE - 1) != 0)
        return NULL;
    char *folder = mem_printf("%s/%" PRIu64, strays->attempts_dir, id);
    if (file_exists(folder)) {
        mem_free(folder);
        return NULL;
    }
    return folder;
}

/* The shepherd itself carries no mark, but ends when none of its ranks is left. */
static void stray_kill(const char *folder, const char *cgroup)
{
    for (int round = 0; round < STRAY_ROUNDS && sweep_processes(folder, cgroup, NULL) > 0; round++)
        poll(NULL, 0, STRAY_ROUND_MS);
}

/* "athanor-ID-TAG-RANDOM", of our own account unless we are root. */
static void stray_place(struct strays *strays, const char *below, const char *name)
{
    struct stat info;
    char id[24], tag[FOLDER_TAG_SIZE];
    if (sscanf(name, "athanor-%20[0-9]-%12[0-9a-f]-", id, tag) != 2)
        return;
    char *folder = stray_folder(strays, id, tag), *path = mem_printf("%s/%s", below, name);
    if (folder && lstat(path, &info) == 0 && (geteuid() == 0 || info.st_uid == geteuid())) {
        struct err err = {0};
        stray_kill(folder, NULL);
        if (file_remove_tree(path, &err) < 0)
            keep_first(&strays->first, &err);
        strays->found++;
    }
    mem_free(path);
    mem_free(folder);
}

/* "TAG-ID" */
static void stray_group(struct strays *strays, const char *base, const char *name)
{
    char id[24], tag[FOLDER_TAG_SIZE];
    if (sscanf(name, "%12[0-9a-f]-%20[0-9]", tag, id) != 2)
        return;
    char *folder = stray_folder(strays, id, tag), *path = mem_printf("%s/%s", base, name);
    if (folder) {
        stray_kill(folder, path);
        cgroup_remove(
            path); /* a dead one that nobody has reaped keeps it: cgroup_tidy comes back */
        strays->found++;
    }
    mem_free(path);
    mem_free(folder);
}

static void strays_seek(struct strays *strays, const char *where,
                        void (*look)(struct strays *strays, const char *where, const char *name))
{
    DIR *dir = opendir(where);
    if (!dir)
        return;
    for (struct dirent *entry; (entry = readdir(dir));)
        look(strays, where, entry->d_name);
    closedir(dir);
}

size_t sweep_strays(const char *attempts_dir, const char *const *places, size_t place_count,
                    const char *const *bases, size_t base_count, struct err *err)
{
    struct strays strays = {.attempts_dir = attempts_dir};
    folder_tag(attempts_dir, strays.tag);
    for (size_t i = 0; i < base_count; i++)
        if (bases[i])
            strays_seek(&strays, bases[i], stray_group);
    for (size_t i = 0; i < place_count; i++)
        strays_seek(&strays, places[i], stray_place);
    *err = strays.first;
    return strays.found;
}
