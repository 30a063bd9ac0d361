/* stack_test.c - from what a debugger says to who waits for whom. */
#include "worker/shepherd/stack.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void a_rank_within_a_collective_waits(void **state)
{
    (void)state;
    assert_int_equal(stack_find("Rank 1\nState:\tR (running)\n"
                                "#0  0x1 in opal_progress () from libopen-pal.so.40\n"
                                "#1  0x2 in PMPI_Barrier () from libmpi.so.40\n"),
                     STACK_WAITING);
    assert_int_equal(stack_find("State:\tS (sleeping)\n#0 0x1 ncclGroupEnd\n"), STACK_WAITING);
}

static void a_stopped_rank_is_stopped_wherever_it_is(void **state)
{
    (void)state;
    assert_int_equal(stack_find("State:\tT (stopped)\n#0 0x1 in PMPI_Barrier ()\n"),
                     STACK_STOPPED);
    assert_int_equal(stack_find("State:\tt (tracing stop)\n"), STACK_STOPPED);
}

static void a_stack_without_a_collective_is_elsewhere(void **state)
{
    (void)state;
    assert_int_equal(stack_find("State:\tR (running)\n#0  0x1 in forward () from model.so\n"),
                     STACK_ELSEWHERE);
}

static void without_a_stack_nothing_is_known(void **state)
{
    (void)state;
    assert_int_equal(stack_find(""), STACK_UNKNOWN);
    assert_int_equal(stack_find("State:\tR (running)\nSystem call: running\nNo stack: install\n"),
                     STACK_UNKNOWN);
}

static void a_process_that_is_stopped_is_described_so(void **state)
{
    struct buf text = {0};
    int status;
    (void)state;
    pid_t pid = fork();
    if (pid == 0)
        for (;;)
            pause();
    assert_int_equal(kill(pid, SIGSTOP), 0);
    assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
    stack_describe(pid, &text);
    assert_int_equal(stack_find(buf_text(&text)), STACK_STOPPED);
    buf_done(&text);
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rank_within_a_collective_waits),
        cmocka_unit_test(a_stopped_rank_is_stopped_wherever_it_is),
        cmocka_unit_test(a_stack_without_a_collective_is_elsewhere),
        cmocka_unit_test(without_a_stack_nothing_is_known),
        cmocka_unit_test(a_process_that_is_stopped_is_described_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
