/* procs_test.c - looking at process trees through /proc. */
#include "worker/attempt/procs.h"

#include "common/base/mem.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static void burn(unsigned ms)
{
    struct timespec used;
    do
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    while ((uint64_t)used.tv_sec * 1000 + (uint64_t)used.tv_nsec / 1000000 < ms);
}

/* A child whose own child burns 60 ms and ends, and which then waits with `bytes` of memory
 * touched and another child beside it. Says so through the pipe. */
static pid_t tree_start(size_t bytes, int *out_ready)
{
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        pid_t worker = fork();
        if (worker == 0) {
            burn(60);
            _exit(0);
        }
        waitpid(worker, NULL, 0);
        if (fork() == 0)
            for (;;)
                pause();
        char *memory = malloc(bytes);
        memset(memory, 1, bytes);
        if (write(ready[1], memory, 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    close(ready[1]);
    *out_ready = ready[0];
    return pid;
}

static void tree_end(pid_t root)
{
    struct process_list list = {0};
    processes_below(root, &list);
    assert_int_equal(list.count, 1);
    assert_true(process_signal(list.items[0], SIGKILL));
    process_list_done(&list);
    kill(root, SIGKILL);
    waitpid(root, NULL, 0);
}

static void usage_is_told_apart_by_tree_and_counts_ended_children(void **state)
{
    (void)state;
    int ready[2];
    char byte;
    pid_t roots[3] = {0};
    struct process_usage usage[3];
    roots[0] = tree_start((size_t)40 << 20, &ready[0]);
    roots[1] = tree_start((size_t)1 << 20, &ready[1]);
    roots[2] = 1 << 30; /* nobody */
    for (int i = 0; i < 2; i++) {
        assert_int_equal(read(ready[i], &byte, 1), 1);
        close(ready[i]);
    }
    processes_usage(roots, 3, usage);
    for (int i = 0; i < 2; i++)
        assert_in_range(usage[i].cpu_ms, 50, 60000);
    assert_in_range(usage[0].rss_bytes, (size_t)40 << 20, (size_t)1 << 40);
    assert_true(usage[1].rss_bytes > 0 && usage[1].rss_bytes + ((size_t)30 << 20) <
                                              usage[0].rss_bytes);
    assert_int_equal(usage[2].cpu_ms, 0);
    assert_int_equal(usage[2].rss_bytes, 0);
    tree_end(roots[0]);
    tree_end(roots[1]);
}

static void descendants_are_found_without_the_root_itself(void **state)
{
    (void)state;
    int ready;
    char byte;
    pid_t root = tree_start(4096, &ready);
    assert_int_equal(read(ready, &byte, 1), 1);
    close(ready);
    struct process_list list = {0};
    processes_below(getpid(), &list);
    assert_int_equal(list.count, 2);
    process_list_done(&list);
    tree_end(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(usage_is_told_apart_by_tree_and_counts_ended_children),
        cmocka_unit_test(descendants_are_found_without_the_root_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
