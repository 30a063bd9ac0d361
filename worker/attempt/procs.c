/* procs.c - see procs.h. */
#include "worker/attempt/procs.h"

#include "common/base/buf.h"
#include "common/base/file.h"
#include "common/base/mem.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ENVIRON_BYTES_MAX                                                                          \
    ((size_t)4 << 20) /* the kernel's own bound on arguments and environment */

void process_list_done(struct process_list *list)
{
    mem_free(list->items);
    memset(list, 0, sizeof *list);
}

static void list_add(struct process_list *list, struct process_id process)
{
    VEC_RESERVE(list->items, list->count, list->capacity);
    list->items[list->count++] = process;
}

/* Reads a small /proc file into text, terminated; returns its length or -1. */
static ssize_t proc_read(pid_t pid, const char *file, char *text, size_t size)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    size_t length = 0;
    ssize_t got;
    while (length + 1 < size && (got = read(fd, text + length, size - 1 - length)) > 0)
        length += (size_t)got;
    close(fd);
    text[length] = '\0';
    return (ssize_t)length;
}

struct stat_line {
    char state;
    pid_t parent;
    uint64_t start_ticks, cpu_ticks, rss_pages;
};

static bool stat_read(pid_t pid, struct stat_line *out)
{
    char text[1024];
    if (proc_read(pid, "stat", text, sizeof text) <= 0)
        return false;
    const char *at = strrchr(text, ')'); /* the command's name may hold anything */
    int parent;
    uint64_t user, system, child_user, child_system;
    if (!at || sscanf(at + 1,
                      " %c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64 " %" SCNu64
                      " %" SCNu64 " %*d %*d %*d %*d %" SCNu64 " %*u %" SCNu64,
                      &out->state, &parent, &user, &system, &child_user, &child_system,
                      &out->start_ticks, &out->rss_pages) != 8)
        return false;
    out->parent = parent;
    out->cpu_ticks = user + system + child_user + child_system;
    return true;
}

bool process_find(pid_t pid, struct process_id *out)
{
    struct stat_line line;
    if (!stat_read(pid, &line) || line.state == 'Z' || line.state == 'X')
        return false;
    *out = (struct process_id){pid, line.start_ticks};
    return true;
}

bool process_signal(struct process_id process, int signal_number)
{
    int fd = (int)syscall(SYS_pidfd_open, process.pid, 0);
    if (fd < 0)
        return false;
    struct process_id now;
    bool same = process_find(process.pid, &now) && now.start_ticks == process.start_ticks;
    if (same)
        same = syscall(SYS_pidfd_send_signal, fd, signal_number, NULL, 0) == 0;
    close(fd);
    return same;
}

void process_signals_reset(void)
{
    struct sigaction plain = {.sa_handler = SIG_DFL};
    sigset_t none;
    for (int number = 1; number < NSIG; number++)
        sigaction(number, &plain, NULL); /* fails for SIGKILL and SIGSTOP, as it should */
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

#define NO_ROOT SIZE_MAX

struct scanned {
    pid_t pid, parent;
    uint64_t start_ticks, cpu_ticks, rss_pages;
    bool zombie;
    size_t root; /* of the tree that it belongs to */
};

static struct scanned *scan_all(size_t *out_count)
{
    struct scanned *list = NULL;
    size_t count = 0, capacity = 0;
    DIR *dir = opendir("/proc");
    CHECK(dir); /* without /proc nothing here can work */
    for (struct dirent *entry; (entry = readdir(dir));) {
        struct stat_line line;
        if (!isdigit((unsigned char)entry->d_name[0]))
            continue;
        pid_t pid = (pid_t)atoi(entry->d_name);
        if (!stat_read(pid, &line))
            continue;
        VEC_RESERVE(list, count, capacity);
        list[count++] = (struct scanned){pid,
                                         line.parent,
                                         line.start_ticks,
                                         line.cpu_ticks,
                                         line.rss_pages,
                                         line.state == 'Z' || line.state == 'X',
                                         NO_ROOT};
    }
    closedir(dir);
    *out_count = count;
    return list;
}

static int compare_pid(const void *a, const void *b)
{
    pid_t x = ((const struct scanned *)a)->pid, y = ((const struct scanned *)b)->pid;
    return x < y ? -1 : x > y;
}

static struct scanned *scanned_find(struct scanned *all, size_t count, pid_t pid)
{
    struct scanned key = {.pid = pid};
    return count ? bsearch(&key, all, count, sizeof *all, compare_pid) : NULL;
}

/* Every process of the tables that the roots do not name themselves gets its parent's root.
 * Parents mostly have smaller numbers than children, so that a few passes suffice. */
static void roots_spread(struct scanned *all, size_t count)
{
    for (bool more = true; more;) {
        more = false;
        for (size_t i = 0; i < count; i++) {
            const struct scanned *parent = scanned_find(all, count, all[i].parent);
            if (all[i].root != NO_ROOT || !parent || parent->root == NO_ROOT)
                continue;
            all[i].root = parent->root;
            more = true;
        }
    }
}

static struct scanned *scan_trees(const pid_t *roots, size_t root_count, size_t *out_count)
{
    struct scanned *all = scan_all(out_count);
    if (*out_count)
        qsort(all, *out_count, sizeof *all, compare_pid);
    for (size_t i = 0; i < root_count; i++) {
        struct scanned *root = scanned_find(all, *out_count, roots[i]);
        if (root)
            root->root = i;
    }
    roots_spread(all, *out_count);
    return all;
}

void processes_below(pid_t root, struct process_list *out)
{
    size_t count;
    struct scanned *all = scan_trees(&root, 1, &count);
    for (size_t i = 0; i < count; i++)
        if (all[i].root != NO_ROOT && all[i].pid != root && !all[i].zombie)
            list_add(out, (struct process_id){all[i].pid, all[i].start_ticks});
    mem_free(all);
}

/* 0 when it may not be looked at. */
static uint64_t io_bytes(const char *text, const char *name)
{
    uint64_t bytes;
    const char *at = strstr(text, name);
    return at && sscanf(at + strlen(name), "%" SCNu64, &bytes) == 1 ? bytes : 0;
}

static void usage_add(struct process_usage *sum, const struct scanned *process)
{
    char io[512];
    sum->cpu_ms += process->cpu_ticks * 1000 / (uint64_t)sysconf(_SC_CLK_TCK);
    sum->rss_bytes += process->rss_pages * (uint64_t)sysconf(_SC_PAGESIZE);
    if (proc_read(process->pid, "io", io, sizeof io) <= 0)
        return;
    sum->read_bytes += io_bytes(io, "\nread_bytes: ");
    sum->write_bytes += io_bytes(io, "\nwrite_bytes: ");
}

void processes_usage(const pid_t *roots, size_t root_count, struct process_usage *out)
{
    size_t count;
    struct scanned *all = scan_trees(roots, root_count, &count);
    memset(out, 0, root_count * sizeof *out);
    for (size_t i = 0; i < count; i++)
        if (all[i].root != NO_ROOT)
            usage_add(&out[all[i].root], &all[i]);
    mem_free(all);
}

static bool environ_holds(pid_t pid, const char *marker)
{
    char path[64], *text;
    size_t length;
    struct err err = {0};
    snprintf(path, sizeof path, "/proc/%d/environ", (int)pid);
    if (file_read(path, ENVIRON_BYTES_MAX, &text, &length, &err) < 0)
        return false; /* gone, a kernel thread, or not ours to look at */
    bool found = false;
    for (size_t at = 0; !found && at < length; at += strlen(text + at) + 1)
        found = strcmp(text + at, marker) == 0;
    mem_free(text);
    return found;
}

void processes_marked(const char *marker, struct process_list *out)
{
    size_t count;
    struct scanned *all = scan_all(&count);
    for (size_t i = 0; i < count; i++)
        if (!all[i].zombie && all[i].pid != getpid() && environ_holds(all[i].pid, marker))
            list_add(out, (struct process_id){all[i].pid, all[i].start_ticks});
    mem_free(all);
}

uint64_t process_anonymous_bytes(pid_t pid)
{
    char text[256];
    uint64_t resident, shared;
    if (proc_read(pid, "statm", text, sizeof text) <= 0 ||
        sscanf(text, "%*u %" SCNu64 " %" SCNu64, &resident, &shared) != 2 || shared > resident)
        return 0;
    return (resident - shared) * (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t process_proportional_bytes(pid_t pid)
{
    char text[4096];
    uint64_t kib;
    if (proc_read(pid, "smaps_rollup", text, sizeof text) <= 0)
        return 0;
    const char *line = strstr(text, "Pss_Anon:");
    return line && sscanf(line, "Pss_Anon: %" SCNu64, &kib) == 1 ? kib * 1024 : 0;
}

uint64_t machine_oom_kills(void)
{
    char *text;
    size_t length;
    struct err err = {0};
    if (file_read("/proc/vmstat", 65536, &text, &length, &err) < 0)
        return 0;
    uint64_t kills = 0;
    const char *line = strstr(text, "\noom_kill ");
    if (line && sscanf(line, "\noom_kill %" SCNu64, &kills) != 1)
        kills = 0;
    mem_free(text);
    return kills;
}
