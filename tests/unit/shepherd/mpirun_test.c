/* mpirun_test.c - how mpirun is started, and what its words mean. */
#include "worker/shepherd/mpirun.h"

#include "common/base/arena.h"
#include "worker/attempt/plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void the_rank_that_died_of_a_signal_is_told_by_mpirun(void **state)
{
    unsigned rank = 0;
    int number = 0;
    (void)state;
    assert_true(mpirun_signal_told(
        "-----\nmpirun noticed that process rank 12 with PID 0 on node node-2-w3 exited on "
        "signal 9 (Killed).\n-----\n",
        &rank, &number));
    assert_int_equal(rank, 12);
    assert_int_equal(number, 9);
}

static void other_words_tell_of_no_signal(void **state)
{
    static const char *const texts[] = {
        "",
        "mpirun noticed that process rank",
        "mpirun noticed that process rank x with PID 1 on node a exited on signal 9 (Killed).",
        "mpirun noticed that process rank 1 with PID 1 on node a exited on signal 900 (?).",
        "mpirun noticed that process rank 99999999999999999999 with PID 1 exited on signal 9 (K).",
        " exited on signal 9 (Killed). mpirun noticed that process rank 1 with",
    };
    unsigned rank;
    int number;
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(texts); i++)
        assert_false(mpirun_signal_told(texts[i], &rank, &number));
}

static void a_host_is_known_by_its_number(void **state)
{
    static const char *const wrong[] = {"", "w1", "node-", "node-x-w1", "node-3", "node-4096-w",
                                        "my-node-3-w1", "node--3-w"};
    unsigned node = 0;
    (void)state;
    assert_true(mpirun_node_of("node-3-some.worker", &node));
    assert_int_equal(node, 3);
    for (size_t i = 0; i < ARRAY_COUNT(wrong); i++)
        assert_false(mpirun_node_of(wrong[i], &node));
}

static bool has_pair(char **words, const char *name, const char *value)
{
    for (size_t i = 0; words[i]; i++)
        if (strcmp(words[i], name) == 0 && words[i + 1] && strcmp(words[i + 1], value) == 0)
            return true;
    return false;
}

static void every_node_is_named_once_with_its_ranks_and_the_program_comes_last(void **state)
{
    struct gang_node nodes[] = {{.name = "a", .ranks = 2},
                                {.name = "b", .first_rank = 2, .ranks = 1},
                                {.name = "b.c", .first_rank = 3, .ranks = 3}};
    struct gang_plan gang = {.node_count = 3, .nodes = nodes};
    char *command[] = {"/bin/program", "--x", NULL};
    struct plan plan = {.world_size = 6, .rank_count = 2, .gang = &gang, .command = command};
    struct arena arena = {0};
    (void)state;
    char **words = mpirun_words(&plan, "head", "10.0.0.0/24", "/opt/rsh", &arena);
    size_t count = 0;
    while (words[count])
        count++;
    assert_string_equal(words[0], "mpirun");
    assert_true(has_pair(words, "--host", "head:2,node-1-b:1,node-2-b.c:3"));
    assert_true(has_pair(words, "-n", "6"));
    assert_true(has_pair(words, "plm_rsh_agent", "/opt/rsh"));
    assert_true(has_pair(words, "btl_tcp_if_include", "10.0.0.0/24"));
    assert_true(has_pair(words, "oob_tcp_if_include", "10.0.0.0/24"));
    assert_true(has_pair(words, "/opt/rsh", "--rank"));
    assert_string_equal(words[count - 2], "/bin/program");
    assert_string_equal(words[count - 1], "--x");
    arena_done(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_rank_that_died_of_a_signal_is_told_by_mpirun),
        cmocka_unit_test(other_words_tell_of_no_signal),
        cmocka_unit_test(a_host_is_known_by_its_number),
        cmocka_unit_test(every_node_is_named_once_with_its_ranks_and_the_program_comes_last),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
