/* cgroup_test.c - finding our group from the kernel's tables; killing and limiting by each version
 * of cgroups that this machine lets us use. */
#include "worker/attempt/cgroup.h"
#include "worker/attempt/cgroup_file.h"
#include "worker/attempt/device_group.h"

#include "common/base/clock.h"
#include "common/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define PATIENCE_MS 30000u

/* ---- tables ---------------------------------------------------------------------------------- */

static const char hybrid[] =
    "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n";
static const char hybrid_groups[] = "5:cpu,cpuacct:/a\n4:memory:/job/7\n0::/\n";

static void assert_own(const char *mounts, const char *groups, const char *controller,
                       const char *expected, bool expected_root)
{
    bool is_root = false;
    char *own = cgroup_own_in(mounts, groups, controller, &is_root);
    if (!expected) {
        assert_null(own);
        return;
    }
    if (!own)
        fail_msg("nothing for %s", controller ? controller : "version 2");
    assert_string_equal(own, expected);
    assert_int_equal(is_root, expected_root);
    mem_free(own);
}

static void our_group_is_found_in_each_hierarchy(void **state)
{
    (void)state;
    assert_own(hybrid, hybrid_groups, NULL, "/sys/fs/cgroup/unified", true);
    assert_own(hybrid, hybrid_groups, "memory", "/sys/fs/cgroup/memory/job/7", false);
    assert_own(hybrid, hybrid_groups, "cpuacct", "/sys/fs/cgroup/cpu,cpuacct/a", false);
    assert_own(hybrid, hybrid_groups, "cpu", "/sys/fs/cgroup/cpu,cpuacct/a", false);
    assert_own(hybrid, hybrid_groups, "freezer", NULL, false);
    assert_own(hybrid, hybrid_groups, "acct", NULL, false);
    assert_own("", "", NULL, NULL, false);
    assert_own("1 2 3\n - cgroup2\nx - cgroup2 y\n", "0::/\n", NULL, NULL, false);
}

static void a_container_that_sees_a_part_finds_its_group_at_the_mount(void **state)
{
    (void)state;
    const char *mounts = "9 8 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
                         "7 8 0:38 /user.slice /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
    const char *groups = "4:memory:/docker/abc\n0::/user.slice/me.service/daemon\n";
    assert_own(mounts, groups, "memory", "/sys/fs/cgroup/memory", true);
    assert_own(mounts, groups, NULL, "/sys/fs/cgroup/me.service/daemon", false);
}

/* ---- groups ---------------------------------------------------------------------------------- */

struct group {
    char *base, *path;
};

static bool group_open(struct group *group, enum cgroup_kind kind)
{
    struct err err = {0};
    char name[32];
    group->base = cgroup_base(kind);
    if (!group->base) {
        print_message("SKIPPED: no cgroup of this version may be made here\n");
        return false;
    }
    snprintf(name, sizeof name, "test-%d", (int)getpid());
    assert_int_equal(
        cgroup_make(group->base, name, 0, geteuid(), getegid(), &group->path, &err), 0);
    return true;
}

static size_t group_count(const struct group *group)
{
    struct process_list list = {0};
    cgroup_processes(group->path, "ranks", &list);
    size_t count = list.count;
    process_list_done(&list);
    return count;
}

static void until_count(const struct group *group, size_t count)
{
    uint64_t give_up_ms = clock_steady_ms() + PATIENCE_MS;
    while (group_count(group) != count) {
        assert_true(clock_steady_ms() < give_up_ms);
        poll(NULL, 0, 5);
    }
}

static void group_close(struct group *group)
{
    uint64_t give_up_ms = clock_steady_ms() + PATIENCE_MS;
    while (!cgroup_remove(group->path)) {
        assert_true(clock_steady_ms() < give_up_ms);
        poll(NULL, 0, 5);
    }
    mem_free(group->path);
    mem_free(group->base);
}

/* A rank, a child in another session, and a grandchild whose parent is gone. */
static void family_live(void)
{
    if (fork() == 0) {
        setsid();
        if (fork() == 0)
            for (;;)
                pause();
        _exit(0);
    }
    if (fork() == 0) {
        setsid();
        for (;;)
            pause();
    }
    while (wait(NULL) > 0)
        continue;
    for (;;)
        pause();
}

static void a_family_dies_in(enum cgroup_kind kind)
{
    struct group group;
    bool inside;
    if (!group_open(&group, kind))
        skip();
    int fd = cgroup_open(group.path, "ranks");
    assert_true(fd >= 0);
    pid_t pid = cgroup_fork(fd, &inside);
    if (pid == 0) {
        if (!inside && !cgroup_join(fd))
            _exit(1);
        family_live();
    }
    close(fd);
    until_count(&group, 3);
    assert_false(cgroup_remove(group.path)); /* in use */
    assert_true(cgroup_kill(group.path, "ranks"));
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    until_count(&group, 0);
    group_close(&group);
}

static void double_forked_and_setsid_processes_die_in_a_group_of_version_2(void **state)
{
    (void)state;
    a_family_dies_in(CGROUP_V2);
}

static void double_forked_and_setsid_processes_die_in_a_group_of_version_1(void **state)
{
    (void)state;
    a_family_dies_in(CGROUP_V1);
}

/* ---- devices --------------------------------------------------------------------------------- */

/* Exit code: bit 0: `refused` could be opened, bit 1: `other`, bit 2: a new file for `refused`. */
static int opened_in(const struct group *group, const char *folder,
                     const struct device_number *refused)
{
    char path[3][64];
    static const char *const names[] = {"refused", "other", "new"};
    bool inside;
    int status, fd = cgroup_open(group->path, "ranks");
    for (int i = 0; i < 3; i++)
        snprintf(path[i], sizeof path[i], "%s/%s", folder, names[i]);
    pid_t pid = cgroup_fork(fd, &inside);
    if (pid == 0) {
        if (!inside && !cgroup_join(fd))
            _exit(99);
        int code = 0;
        for (int i = 0; i < 2; i++)
            code |= open(path[i], O_RDONLY) >= 0 ? 1 << i : errno == EPERM ? 0 : 32;
        dev_t number = makedev(refused->major, refused->minor);
        code |= mknod(path[2], S_IFCHR | 0600, number) == 0 ? 4 : 0;
        _exit(code);
    }
    close(fd);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    unlink(path[2]);
    return WEXITSTATUS(status);
}

static void even_root_cannot_open_a_device_that_its_group_is_refused(void **state)
{
    struct group group;
    struct err err = {0};
    char folder[] = "/tmp/athanor-devices-XXXXXX", path[64];
    const dev_t numbers[] = {makedev(1, 7), makedev(1, 5)}; /* as /dev/full and /dev/zero */
    const char *const names[] = {"refused", "other"};
    struct device_number refused = {1, 7}, found;
    (void)state;
    assert_non_null(mkdtemp(folder));
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        if (mknod(path, S_IFCHR | 0600, numbers[i]) < 0) {
            rmdir(folder);
            print_message("SKIPPED: no device file can be made here: %s\n", strerror(errno));
            skip();
        }
    }
    bool can = group_open(&group, CGROUP_V2);
    if (can) {
        snprintf(path, sizeof path, "%s/refused", folder);
        assert_int_equal(device_number_of(path, &found, &err), 0);
        assert_true(found.major == 1 && found.minor == 7);
        assert_int_equal(opened_in(&group, folder, &refused), 7);
        can = device_filter_attach(group.path, &refused, 1, &err) == 0;
        if (can)
            assert_int_equal(opened_in(&group, folder, &refused), 2);
        else
            print_message("SKIPPED: %s\n", err.text);
        group_close(&group);
    }
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    rmdir(folder);
    if (!can)
        skip();
}

static void as_many_devices_as_a_filter_takes_are_refused_and_no_more(void **state)
{
    struct group group;
    struct err err = {0};
    struct device_number many[DEVICE_FILTER_MAX + 1];
    (void)state;
    for (unsigned i = 0; i < DEVICE_FILTER_MAX + 1; i++)
        many[i] = (struct device_number){195, i};
    if (!group_open(&group, CGROUP_V2))
        skip();
    int rc = device_filter_attach(group.path, many, DEVICE_FILTER_MAX, &err);
    if (rc == 0) {
        assert_int_equal(device_filter_attach(group.path, many, DEVICE_FILTER_MAX + 1, &err), -1);
        assert_int_equal(err.kind, ERR_LIMIT);
    }
    group_close(&group);
    if (rc < 0) {
        print_message("SKIPPED: %s\n", err.text);
        skip();
    }
}

static void what_is_no_device_is_refused_by_name(void **state)
{
    struct device_number number;
    struct err err = {0};
    (void)state;
    assert_int_equal(device_number_of("/proc/self/maps", &number, &err), -1);
    assert_string_equal(err.text, "'/proc/self/maps' is no character device");
    number = (struct device_number){1, 7};
    assert_int_equal(device_filter_attach("/proc/self", &number, 1, &err), -1);
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* Waits for the word, then touches so much memory and sleeps. */
static pid_t eater_start(size_t bytes, int *out_go)
{
    int go[2];
    assert_int_equal(pipe(go), 0);
    pid_t pid = fork();
    if (pid == 0) {
        char byte;
        close(go[1]);
        if (read(go[0], &byte, 1) != 1)
            _exit(1);
        char *memory =
            mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED)
            _exit(2);
        memset(memory, 1, bytes);
        _exit(0);
    }
    close(go[0]);
    *out_go = go[1];
    return pid;
}

static int eater_end(pid_t pid, int go)
{
    int status;
    assert_int_equal(write(go, "", 1), 1);
    close(go);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

/* Numbers of NVIDIA's files: 195:0 and up are GPUs, 195:255 is nvidiactl. */
static void lists_of_what_is_allowed_are_narrowed_to_what_is_not_refused(void **state)
{
    const struct device_number refused[] = {{195, 1}, {195, 3}};
    static const struct {
        const char *list, *deny;
        size_t allowed; /* rules that take the place of one */
    } cases[] = {
        {"a *:* rwm\n", "c 195:1 rwm\nc 195:3 rwm\n", 0},
        {"c 1:3 rw\nc 195:1 rw\nc 195:2 rw\n", "c 195:1 rw\n", 0},
        {"c *:* m\nb *:* rwm\nc 195:* rwm\n", "c 195:* rwm\n", 254},
        {"c 136:* rwm\nc 195:0 rwm\nb 195:1 rwm\n", "", 0},
        {"", "", 0},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct buf deny = {0}, allow = {0};
        struct err err = {0};
        size_t allowed = 0;
        assert_int_equal(device_group_rules(cases[i].list, refused, 2, &deny, &allow, &err), 0);
        assert_string_equal(buf_text(&deny), cases[i].deny);
        for (const char *at = buf_text(&allow); (at = strchr(at, '\n')); at++)
            allowed++;
        assert_int_equal(allowed, cases[i].allowed);
        if (allowed) {
            assert_non_null(strstr(buf_text(&allow), "c 195:0 rwm\nc 195:2 rwm\nc 195:4 rwm\n"));
            assert_non_null(strstr(buf_text(&allow), "c 195:255 rwm\n"));
        }
        buf_done(&deny);
        buf_done(&allow);
    }
}

static void rules_that_cannot_be_narrowed_are_told(void **state)
{
    const struct device_number refused = {195, 1};
    static const char *const lists[] = {"c 1:3 rw\nc *:* rwm\n", "c *:1 r\n", "rubbish\n"};
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(lists); i++) {
        struct buf deny = {0}, allow = {0};
        struct err err = {0};
        assert_int_equal(device_group_rules(lists[i], &refused, 1, &deny, &allow, &err), -1);
        assert_int_equal(err.kind, ERR_INVALID);
        assert_non_null(strstr(err.text, "devices.list has"));
        buf_done(&deny);
        buf_done(&allow);
    }
}

/* A folder stands for a hierarchy that is not there: nothing is left when it cannot be read. */
static void a_group_whose_rules_cannot_be_read_is_not_left(void **state)
{
    const struct device_number refused = {195, 1};
    char base[] = "/tmp/athanor-devices-XXXXXX", *path = NULL, *group;
    struct err err = {0};
    (void)state;
    assert_non_null(mkdtemp(base));
    assert_int_equal(device_group_make(base, "a", &refused, 1, &path, &err), -1);
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    assert_null(path);
    group = cgroup_file(base, NULL, "a");
    assert_int_equal(access(group, F_OK), -1);
    mem_free(group);
    assert_int_equal(rmdir(base), 0);
}

static void more_memory_than_the_group_may_have_kills_and_the_neighbour_lives(void **state)
{
    (void)state;
    char *base = cgroup_memory_base(CGROUP_V1, NULL), *paths[2], name[32];
    struct err err = {0};
    int go[2];
    pid_t pids[2];
    if (!base) {
        print_message("SKIPPED: no memory cgroup of version 1 may be made here\n");
        skip();
    }
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "test-%d-%d", (int)getpid(), i);
        assert_int_equal(cgroup_memory_make(base, name, (uint64_t)32 << 20, geteuid(), getegid(),
                                            &paths[i], &err),
                         0);
        pids[i] = eater_start((size_t)(i == 0 ? 128 : 8) << 20, &go[i]);
        assert_true(cgroup_memory_move(paths[i], pids[i]));
    }
    int status = eater_end(pids[0], go[0]);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_true(cgroup_memory_kills(paths[0]) >= 1);
    assert_in_range(cgroup_memory_most(paths[0]), 31u << 20, 32u << 20);
    status = eater_end(pids[1], go[1]);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(cgroup_memory_kills(paths[1]), 0);
    for (int i = 0; i < 2; i++) {
        assert_true(cgroup_remove(paths[i]));
        mem_free(paths[i]);
    }
    mem_free(base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(our_group_is_found_in_each_hierarchy),
        cmocka_unit_test(a_container_that_sees_a_part_finds_its_group_at_the_mount),
        cmocka_unit_test(double_forked_and_setsid_processes_die_in_a_group_of_version_2),
        cmocka_unit_test(double_forked_and_setsid_processes_die_in_a_group_of_version_1),
        cmocka_unit_test(even_root_cannot_open_a_device_that_its_group_is_refused),
        cmocka_unit_test(as_many_devices_as_a_filter_takes_are_refused_and_no_more),
        cmocka_unit_test(lists_of_what_is_allowed_are_narrowed_to_what_is_not_refused),
        cmocka_unit_test(rules_that_cannot_be_narrowed_are_told),
        cmocka_unit_test(a_group_whose_rules_cannot_be_read_is_not_left),
        cmocka_unit_test(what_is_no_device_is_refused_by_name),
        cmocka_unit_test(more_memory_than_the_group_may_have_kills_and_the_neighbour_lives),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
