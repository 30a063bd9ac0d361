/* comm_test.c - ranks: the program starts itself under mpirun and checks sums there.
 *
 * Child mode is chosen by --rank. RANK and WORLD_SIZE are what a shepherd would set; under
 * mpirun they are copied from its own variables. */
#include "tests/unit/engine/small_models.h"
#include "worker/engine/comm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHILD_CHECK(statement) \
    do { \
        if (!(statement)) { \
            fprintf(stderr, "rank %d: not true: %s\n", comm->rank, #statement); \
            failed = 1; \
        } \
    } while (0)

static int check_sums(struct comm *comm)
{
    static float values[3000001], expected[3000001];
    int64_t counts[2] = {comm->rank + 1, 10};
    double highest = -5.0 - comm->rank;
    int failed = 0, all[8];

    for (int i = 0; i < 3000001; i++) {
        expected[i] = 0;
        for (int r = 0; r < comm->size; r++)
            expected[i] += (float)rng_unit_at(1, (uint64_t)r, (uint64_t)i);
        values[i] = (float)rng_unit_at(1, (uint64_t)comm->rank, (uint64_t)i);
    }
    comm_sum_f32(comm, values, 3000001);
    CHILD_CHECK(memcmp(values, expected, sizeof values) == 0); /* rank order, bit for bit */
    comm_sum_i64(comm, counts, 2);
    CHILD_CHECK(counts[0] == comm->size * (comm->size + 1) / 2 && counts[1] == 10 * comm->size);
    comm_max_f64(comm, &highest, 1);
    CHILD_CHECK(highest == -5.0);
    comm_gather_all(comm, &comm->rank, sizeof(int), all);
    for (int r = 0; r < comm->size; r++)
        CHILD_CHECK(all[r] == r);
    comm_broadcast(comm, counts, sizeof counts, comm->size - 1);
    comm_barrier(comm);
    return failed;
}

/* The gradient of a batch split over the ranks equals the gradient of the whole batch on one.
 * 1e-5 of the largest entry: sums of the rows are grouped differently. */
static int check_gradient(struct comm *comm)
{
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model *model = small_model(device, &small_gpt2, 2);
    struct tape *tape = small_tape(device, TAPE_TRAIN);
    int failed = 0;
    struct small_batch whole, mine;
    float *expected, *got, scale = 0, most = 0;
    struct err err;

    small_batch_fill(&whole, small_gpt2.vocab_size, 3);
    mine = whole;
    small_loss(tape, model, &whole);
    expected = small_grads(model);
    model_zero_grad(model);
    for (int i = 0; i < SMALL_N; i++)
        if (i / SMALL_T % comm->size != comm->rank) /* rows of other ranks */
            mine.target[i] = -1;
    mine.batch.token = mine.token;
    small_loss(tape, model, &mine);
    must(comm_sum_grad(comm, &model->flat, &err));
    got = small_grads(model);
    for (int64_t i = 0; i < model->flat_count; i++) {
        most = fmaxf(most, fabsf(got[i] - expected[i]));
        scale = fmaxf(scale, fabsf(expected[i]));
    }
    CHILD_CHECK(scale > 0 && most <= 1e-5f * scale);
    mem_free(expected);
    mem_free(got);
    tape_free(tape);
    model_free(model);
    device_close(device);
    return failed;
}

static int rank_main(void)
{
    struct comm *comm;
    struct err err;
    int failed;

    setenv("RANK", getenv("OMPI_COMM_WORLD_RANK"), 1);
    setenv("WORLD_SIZE", getenv("OMPI_COMM_WORLD_SIZE"), 1);
    if (comm_open(&comm, &err) < 0) {
        fprintf(stderr, "comm_open: %s\n", err.text);
        return 1;
    }
    failed = check_sums(comm) | check_gradient(comm);
    comm_close(comm);
    return failed;
}

#define NO_MPIRUN 127

/* Exit code of `mpirun -n count self --rank`; NO_MPIRUN when it is not installed. */
static int run_ranks(const char *count)
{
    char self[256];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    int status;
    pid_t pid;

    assert_true(length > 0);
    self[length] = 0;
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        setenv("OMPI_MCA_mpi_yield_when_idle", "1", 1);
        setenv("ASAN_OPTIONS", "detect_leaks=0", 1); /* MPI's own, at exit */
        execlp("mpirun", "mpirun", "--allow-run-as-root", "--oversubscribe", "-n", count, self,
               "--rank", (char *)NULL);
        _exit(NO_MPIRUN);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void ranks_add_in_rank_order_and_agree_with_one_rank(void **state)
{
    int rc = run_ranks("2");

    (void)state;
    if (rc == NO_MPIRUN) {
        print_message("skipped: mpirun is not installed\n");
        skip();
    }
    assert_int_equal(rc, 0);
    assert_int_equal(run_ranks("3"), 0);
}

static void one_process_needs_no_launcher(void **state)
{
    struct comm *comm = NULL;
    double value = 3;
    struct err err;

    (void)state;
    unsetenv("RANK");
    unsetenv("WORLD_SIZE");
    must(comm_open(&comm, &err));
    assert_true(comm->rank == 0 && comm->size == 1);
    comm_sum_f64(comm, &value, 1);
    assert_true(value == 3);
    comm_close(comm);
}

static void wrong_environments_are_refused(void **state)
{
    struct comm *comm = NULL;
    struct err err;

    (void)state;
    setenv("RANK", "2", 1);
    setenv("WORLD_SIZE", "2", 1);
    assert_int_equal(comm_open(&comm, &err), -1);
    assert_int_equal(err.kind, ERR_INVALID);
    setenv("WORLD_SIZE", "two", 1);
    assert_int_equal(comm_open(&comm, &err), -1);
    assert_non_null(strstr(err.text, "WORLD_SIZE"));
    unsetenv("RANK");
    unsetenv("WORLD_SIZE");
}

/* Started without a launcher, MPI is a world of one: that must not train alone in silence. */
static void ranks_that_are_not_connected_are_refused(void **state)
{
    int status;
    pid_t pid = fork();

    (void)state;
    assert_true(pid >= 0);
    if (pid == 0) {
        struct comm *comm = NULL;
        struct err err;

        setenv("RANK", "1", 1);
        setenv("WORLD_SIZE", "2", 1);
        _exit(comm_open(&comm, &err) == -1 && err.kind == ERR_INVALID &&
                      strstr(err.text, "did not connect")
                  ? 0
                  : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

int main(int count, char **words)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_add_in_rank_order_and_agree_with_one_rank),
        cmocka_unit_test(one_process_needs_no_launcher),
        cmocka_unit_test(wrong_environments_are_refused),
        cmocka_unit_test(ranks_that_are_not_connected_are_refused),
    };

    if (count > 1 && strcmp(words[1], "--rank") == 0)
        return rank_main();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
