/* cgroup.c - see cgroup.h. */
#include "worker/attempt/cgroup.h"

#include "common/base/mem.h"
#include "worker/attempt/cgroup_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const char *const leaves[] = {"shepherd", "ranks"};

#define FREEZE_ROUNDS 20

static bool group_make(const char *path)
{
    return mkdir(path, 0755) == 0 || errno == EEXIST;
}

/* Where groups for attempts belong. A process must not sit in a group that hands out controllers,
 * or the service manager could not start it there again. So controllers are asked for only where
 * we are a leaf already: in the root group, or in a leaf `daemon` that the service manager made
 * (DelegateSubgroup=). *out_controllers tells. */
static char *group_above(bool *out_controllers)
{
    bool is_root = false; /* also when we are in no such hierarchy */
    char *own = cgroup_own(NULL, &is_root);
    const char *name = own ? strrchr(own, '/') : NULL;
    bool leaf = name && strcmp(name, "/daemon") == 0;
    if (leaf)
        own[strlen(own) - strlen(name)] = '\0';
    *out_controllers = leaf || is_root;
    return own;
}

static char *base_below(const char *above)
{
    char *base = cgroup_file(above, NULL, "athanor");
    if (group_make(base) && access(base, W_OK) == 0)
        return base;
    mem_free(base);
    return NULL;
}

static char *base_v2(void)
{
    bool controllers = false;
    char *above = group_above(&controllers), *base = above ? base_below(above) : NULL;
    if (base && controllers) { /* refused where the controller is not ours to use */
        cgroup_write(above, NULL, "cgroup.subtree_control", "+memory");
        cgroup_write(base, NULL, "cgroup.subtree_control", "+memory");
    }
    mem_free(above);
    return base;
}

static char *base_v1(const char *controller)
{
    bool is_root = false;
    char *own = cgroup_own(controller, &is_root), *base = own ? base_below(own) : NULL;
    mem_free(own);
    return base;
}

char *cgroup_base(enum cgroup_kind wanted)
{
    char *base = NULL;
    if (wanted == CGROUP_AUTO || wanted == CGROUP_V2)
        base = base_v2();
    if (!base && (wanted == CGROUP_AUTO || wanted == CGROUP_V1))
        base = base_v1("freezer");
    return base;
}

static bool hands_out_memory(const char *base)
{
    char *text = base ? cgroup_read(base, NULL, "cgroup.subtree_control") : NULL;
    bool there = text && strstr(text, "memory");
    mem_free(text);
    return there;
}

char *cgroup_memory_base(enum cgroup_kind wanted, const char *base)
{
    bool none = wanted == CGROUP_NONE || wanted == CGROUP_V2 || hands_out_memory(base);
    return none ? NULL : base_v1("memory");
}

char *cgroup_device_base(enum cgroup_kind wanted)
{
    bool none = wanted == CGROUP_NONE || wanted == CGROUP_V2 || geteuid() != 0;
    return none ? NULL : base_v1("devices");
}

static int group_give(const char *path, uid_t uid, gid_t gid, struct err *err)
{
    static const char *const files[] = {"", "cgroup.procs", "cgroup.subtree_control"};
    static const char *const files_v1[] = {"", "cgroup.procs", "freezer.state"};
    bool v1 = cgroup_is_v1(path);
    for (size_t i = 0; i < ARRAY_COUNT(files); i++) {
        char *name = cgroup_file(path, NULL, v1 ? files_v1[i] : files[i]);
        int rc = chown(name, uid, gid) < 0 ? err_errno(err, "give '%s' to the job", name) : 0;
        mem_free(name);
        if (rc < 0)
            return -1;
    }
    return 0;
}

static int leaves_make(const char *path, uid_t uid, gid_t gid, struct err *err)
{
    for (size_t i = 0; i < ARRAY_COUNT(leaves); i++) {
        char *leaf = cgroup_file(path, NULL, leaves[i]);
        int rc = group_make(leaf) ? 0 : err_errno(err, "make cgroup '%s'", leaf);
        if (rc == 0 && uid != geteuid())
            rc = group_give(leaf, uid, gid, err);
        mem_free(leaf);
        if (rc < 0)
            return -1;
    }
    return 0;
}

int cgroup_make(const char *base, const char *name, uint64_t memory_bytes, uid_t uid, gid_t gid,
                char **out_path, struct err *err)
{
    char *path = cgroup_file(base, NULL, name);
    int rc = group_make(path) ? 0 : err_errno(err, "make cgroup '%s'", path);
    if (rc == 0) {
        cgroup_write(path, NULL, "cgroup.subtree_control", "+memory"); /* as in cgroup_base */
        rc = leaves_make(path, uid, gid, err);
    }
    if (rc == 0 && uid != geteuid())
        rc = group_give(path, uid, gid, err);
    if (rc < 0) {
        cgroup_remove(path);
        mem_free(path);
        return -1;
    }
    if (memory_bytes && cgroup_limits_memory(path)) {
        char text[32];
        snprintf(text, sizeof text, "%" PRIu64, memory_bytes);
        cgroup_write(path, "ranks", "memory.max", text);
        cgroup_write(path, "ranks", "memory.swap.max", "0");
    }
    *out_path = path;
    return 0;
}

int cgroup_open(const char *path, const char *leaf)
{
    char *name = leaf ? cgroup_file(path, NULL, leaf) : mem_strdup(path);
    int fd = open(name, O_PATH | O_DIRECTORY | O_CLOEXEC);
    mem_free(name);
    return fd;
}

pid_t cgroup_fork(int leaf_fd, bool *out_inside)
{
    struct clone_args args = {.flags = CLONE_INTO_CGROUP,
                              .exit_signal = SIGCHLD,
                              .cgroup = (uint64_t)leaf_fd};
    pid_t pid = leaf_fd < 0 ? -1 : (pid_t)syscall(SYS_clone3, &args, sizeof args);
    *out_inside = pid >= 0 || leaf_fd < 0;
    return pid >= 0 ? pid : fork();
}

bool cgroup_join(int leaf_fd)
{
    int fd = openat(leaf_fd, "cgroup.procs", O_WRONLY | O_CLOEXEC);
    bool joined = fd >= 0 && write(fd, "0", 1) == 1;
    if (fd >= 0)
        close(fd);
    return joined;
}

bool cgroup_limits_memory(const char *path)
{
    char *name = cgroup_file(path, "ranks", "memory.max");
    bool there = access(name, F_OK) == 0;
    mem_free(name);
    return there;
}

static bool state_is(const char *path, const char *leaf, const char *state)
{
    char *text = cgroup_read(path, leaf, "freezer.state");
    bool is = text && strncmp(text, state, strlen(state)) == 0;
    mem_free(text);
    return is;
}

static void kill_listed(const char *path, const char *leaf)
{
    struct process_list list = {0};
    for (size_t i = 0; i < ARRAY_COUNT(leaves); i++)
        if (!leaf || strcmp(leaf, leaves[i]) == 0)
            cgroup_processes(path, leaves[i], &list);
    for (size_t i = 0; i < list.count; i++)
        process_signal(list.items[i], SIGKILL);
    process_list_done(&list);
}

/* Version 1 has no cgroup.kill. Frozen processes cannot fork, so that the list is whole; the
 * signal reaches them when they thaw. One in an uninterruptible wait freezes late: then what is
 * listed is killed all the same, and the caller comes back. */
static bool freeze_and_kill(const char *path, const char *leaf)
{
    if (!cgroup_write(path, leaf, "freezer.state", "FROZEN"))
        return false;
    for (int i = 0; i < FREEZE_ROUNDS && !state_is(path, leaf, "FROZEN"); i++)
        poll(NULL, 0, 1);
    kill_listed(path, leaf);
    return cgroup_write(path, leaf, "freezer.state", "THAWED");
}

bool cgroup_kill(const char *path, const char *leaf)
{
    return cgroup_write(path, leaf, "cgroup.kill", "1") || freeze_and_kill(path, leaf);
}

void cgroup_processes(const char *path, const char *leaf, struct process_list *out)
{
    char *text = cgroup_read(path, leaf, "cgroup.procs"), *save = NULL;
    if (!text)
        return;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        struct process_id process;
        if (!process_find((pid_t)atoi(line), &process))
            continue;
        VEC_RESERVE(out->items, out->count, out->capacity);
        out->items[out->count++] = process;
    }
    mem_free(text);
}

/* The number behind `name`, or at the start of the file when name is "". */
static uint64_t number_read(const char *path, const char *leaf, const char *file, const char *name)
{
    char *text = cgroup_read(path, leaf, file);
    const char *at = text ? strstr(text, name) : NULL;
    uint64_t number = 0;
    if (at && sscanf(at + strlen(name), "%" SCNu64, &number) != 1)
        number = 0;
    mem_free(text);
    return number;
}

uint64_t cgroup_oom_kills(const char *path)
{
    return number_read(path, "ranks", "memory.events", "oom_kill ");
}

uint64_t cgroup_memory_peak(const char *path)
{
    return number_read(path, "ranks", "memory.peak", "");
}

/* ---- memory by version 1 --------------------------------------------------------------------- */

int cgroup_memory_make(const char *base, const char *name, uint64_t memory_bytes, uid_t uid,
                       gid_t gid, char **out_path, struct err *err)
{
    char *path = cgroup_file(base, NULL, name), text[32], *procs;
    if (!group_make(path)) {
        err_errno(err, "make cgroup '%s'", path);
        mem_free(path);
        return -1;
    }
    snprintf(text, sizeof text, "%" PRIu64, memory_bytes);
    procs = cgroup_file(path, NULL, "cgroup.procs");
    int rc = 0;
    if (!cgroup_write(path, NULL, "memory.limit_in_bytes", text))
        rc = err_errno(err, "limit the memory of '%s'", path);
    else if (chown(procs, uid, gid) < 0)
        rc = err_errno(err, "give '%s' to the job", procs);
    /* With swap counted, where the kernel counts it: a swapping job would starve its neighbours. */
    cgroup_write(path, NULL, "memory.memsw.limit_in_bytes", text);
    mem_free(procs);
    if (rc < 0) {
        rmdir(path);
        mem_free(path);
        return -1;
    }
    *out_path = path;
    return 0;
}

bool cgroup_memory_move(const char *path, pid_t pid)
{
    char text[16];
    snprintf(text, sizeof text, "%d", (int)pid);
    return cgroup_write(path, NULL, "cgroup.procs", text);
}

uint64_t cgroup_memory_kills(const char *path)
{
    return number_read(path, NULL, "memory.oom_control", "oom_kill ");
}

uint64_t cgroup_memory_most(const char *path)
{
    return number_read(path, NULL, "memory.max_usage_in_bytes", "");
}

bool cgroup_remove(const char *path)
{
    for (size_t i = 0; i < ARRAY_COUNT(leaves); i++) {
        char *leaf = cgroup_file(path, NULL, leaves[i]);
        rmdir(leaf);
        mem_free(leaf);
    }
    return rmdir(path) == 0 || errno == ENOENT;
}

#define TIDY_AFTER_S 600 /* a group just made has no processes yet either */

static bool group_is_abandoned(const char *path)
{
    struct stat info;
    if (stat(path, &info) < 0 || !S_ISDIR(info.st_mode) ||
        time(NULL) - info.st_mtim.tv_sec < TIDY_AFTER_S)
        return false;
    char *events = cgroup_read(path, NULL, "cgroup.events");
    struct process_list list = {0};
    for (size_t i = 0; !events && i < ARRAY_COUNT(leaves); i++) /* of version 1 */
        cgroup_processes(path, leaves[i], &list);
    bool empty = events ? strstr(events, "populated 0") != NULL : list.count == 0;
    process_list_done(&list);
    mem_free(events);
    return empty;
}

void cgroup_tidy(const char *base)
{
    DIR *dir = opendir(base);
    if (!dir)
        return;
    for (struct dirent *entry; (entry = readdir(dir));) {
        char *path = cgroup_file(base, NULL, entry->d_name);
        if (entry->d_name[0] != '.' && group_is_abandoned(path))
            cgroup_remove(path);
        mem_free(path);
    }
    closedir(dir);
}
