/* cgroup.c - see cgroup.h. */
#include "worker/attempt/cgroup.h"

#include "common/base/file.h"
#include "common/base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const char *const leaves[] = {"shepherd", "ranks"};

static char *group_file(const char *path, const char *leaf, const char *file)
{
    return mem_printf("%s/%s%s%s", path, leaf ? leaf : "", leaf ? "/" : "", file);
}

static bool group_write(const char *path, const char *leaf, const char *file, const char *text)
{
    char *name = group_file(path, leaf, file);
    int fd = open(name, O_WRONLY | O_CLOEXEC);
    bool done = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (fd >= 0)
        close(fd);
    mem_free(name);
    return done;
}

static char *group_read(const char *path, const char *leaf, const char *file)
{
    char *name = group_file(path, leaf, file), *text = NULL;
    size_t length;
    struct err err = {0};
    if (file_read(name, (size_t)1 << 20, &text, &length, &err) < 0)
        text = NULL; /* no such controller, or the group is gone */
    mem_free(name);
    return text;
}

/* Where cgroup v2 is mounted: field 5 of the mountinfo line of that type. */
static char *mount_find(void)
{
    char *text, *save = NULL, *found = NULL;
    size_t length;
    struct err err = {0};
    if (file_read("/proc/self/mountinfo", (size_t)1 << 20, &text, &length, &err) < 0)
        return NULL;
    for (char *line = strtok_r(text, "\n", &save); line && !found;
         line = strtok_r(NULL, "\n", &save)) {
        char where[1024];
        if (strstr(line, " - cgroup2 ") && sscanf(line, "%*s %*s %*s %*s %1023s", where) == 1)
            found = mem_strdup(where);
    }
    mem_free(text);
    return found;
}

static char *own_group(const char *mount)
{
    char *text, *found = NULL;
    size_t length;
    struct err err = {0};
    if (file_read("/proc/self/cgroup", 65536, &text, &length, &err) < 0)
        return NULL;
    char *line = strncmp(text, "0::", 3) == 0 ? text : strstr(text, "\n0::");
    if (line) {
        line += line == text ? 3 : 4;
        line[strcspn(line, "\n")] = '\0';
        found = mem_printf("%s%s", mount, strcmp(line, "/") == 0 ? "" : line);
    }
    mem_free(text);
    return found;
}

static bool group_make(const char *path)
{
    return mkdir(path, 0755) == 0 || errno == EEXIST;
}

/* Where groups for attempts belong. A process must not sit in a group that hands out controllers,
 * or the service manager could not start it there again. So controllers are asked for only where
 * we are a leaf already: in the root group, or in a leaf `daemon` that the service manager made
 * (DelegateSubgroup=). *out_controllers tells. */
static char *group_above(const char *mount, bool *out_controllers)
{
    char *own = own_group(mount);
    const char *name = own ? strrchr(own, '/') : NULL;
    bool leaf = name && strcmp(name, "/daemon") == 0;
    if (leaf)
        own[strlen(own) - strlen(name)] = '\0';
    *out_controllers = leaf || (own && strcmp(own, mount) == 0);
    return own;
}

char *cgroup_base(void)
{
    bool controllers = false;
    char *mount = mount_find();
    char *above = mount ? group_above(mount, &controllers) : NULL;
    mem_free(mount);
    if (!above)
        return NULL;
    char *base = group_file(above, NULL, "athanor");
    if (!group_make(base) || access(base, W_OK) < 0) {
        mem_free(base);
        base = NULL;
    } else if (controllers) { /* refused where the controller is not ours to use */
        group_write(above, NULL, "cgroup.subtree_control", "+memory");
        group_write(base, NULL, "cgroup.subtree_control", "+memory");
    }
    mem_free(above);
    return base;
}

static int group_give(const char *path, uid_t uid, gid_t gid, struct err *err)
{
    static const char *const files[] = {"", "cgroup.procs", "cgroup.subtree_control"};
    for (size_t i = 0; i < ARRAY_COUNT(files); i++) {
        char *name = group_file(path, NULL, files[i]);
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
        char *leaf = group_file(path, NULL, leaves[i]);
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
    char *path = group_file(base, NULL, name);
    int rc = group_make(path) ? 0 : err_errno(err, "make cgroup '%s'", path);
    if (rc == 0) {
        group_write(path, NULL, "cgroup.subtree_control", "+memory"); /* as in cgroup_base */
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
        group_write(path, "ranks", "memory.max", text);
        group_write(path, "ranks", "memory.swap.max", "0");
    }
    *out_path = path;
    return 0;
}

int cgroup_open(const char *path, const char *leaf)
{
    char *name = group_file(path, NULL, leaf);
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
    char *name = group_file(path, "ranks", "memory.max");
    bool there = access(name, F_OK) == 0;
    mem_free(name);
    return there;
}

bool cgroup_kill(const char *path, const char *leaf)
{
    return group_write(path, leaf, "cgroup.kill", "1");
}

void cgroup_processes(const char *path, const char *leaf, struct process_list *out)
{
    char *text = group_read(path, leaf, "cgroup.procs"), *save = NULL;
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

uint64_t cgroup_oom_kills(const char *path)
{
    char *text = group_read(path, "ranks", "memory.events");
    uint64_t kills = 0;
    const char *line = text ? strstr(text, "oom_kill ") : NULL;
    if (line && sscanf(line, "oom_kill %" SCNu64, &kills) != 1)
        kills = 0;
    mem_free(text);
    return kills;
}

uint64_t cgroup_memory_peak(const char *path)
{
    char *text = group_read(path, "ranks", "memory.peak");
    uint64_t peak = 0;
    if (text && sscanf(text, "%" SCNu64, &peak) != 1)
        peak = 0;
    mem_free(text);
    return peak;
}

bool cgroup_remove(const char *path)
{
    for (size_t i = 0; i < ARRAY_COUNT(leaves); i++) {
        char *leaf = group_file(path, NULL, leaves[i]);
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
    char *events = group_read(path, NULL, "cgroup.events");
    bool empty = events && strstr(events, "populated 0");
    mem_free(events);
    return empty;
}

void cgroup_tidy(const char *base)
{
    DIR *dir = opendir(base);
    if (!dir)
        return;
    for (struct dirent *entry; (entry = readdir(dir));) {
        char *path = group_file(base, NULL, entry->d_name);
        if (entry->d_name[0] != '.' && group_is_abandoned(path))
            cgroup_remove(path);
        mem_free(path);
    }
    closedir(dir);
}
