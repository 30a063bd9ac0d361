/* run_test.c - the driver with a recipe that counts: saves, resumes, stops, diverges, fails. */
#include "tests/unit/data/inputs.h"
#include "worker/engine/io/checkpoint.h"
#include "worker/recipes/job.h"
#include "worker/recipes/recipe.h"
#include "worker/recipes/run.h"

#include <math.h>
#include <signal.h>

enum { STEPS = 10 };

struct counter {
    int64_t sum;
};

/* What the recipe shall do, and what happened; reset by each test. */
static struct {
    uint64_t diverge_at, fail_at, stop_at;
    unsigned opened, closed, saved;
    int64_t sum;
} world;

static int counter_open(struct run *run, void *state, struct err *err)
{
    (void)state;
    (void)err;
    world.opened++;
    run->step_count = STEPS;
    return 0;
}

static int counter_load(struct run *run, void *state, struct checkpoint_reader *reader,
                        struct err *err)
{
    (void)run;
    return checkpoint_get_int(reader, "sum", &((struct counter *)state)->sum, err);
}

static int counter_step(struct run *run, void *state, struct err *err)
{
    struct counter *counter = state;
    uint64_t step = run->step + 1;
    if (step == world.fail_at)
        return err_set(err, ERR_IO, "the disk is on fire");
    counter->sum += (int64_t)step;
    world.sum = counter->sum;
    run_metric(run, "sum", step == world.diverge_at ? NAN : (double)counter->sum);
    if (step == world.stop_at)
        raise(SIGTERM);
    return 0;
}

static int counter_save(struct run *run, void *state, struct checkpoint_writer *writer,
                        struct err *err)
{
    (void)run;
    (void)err;
    world.saved++;
    checkpoint_put_int(writer, "sum", ((struct counter *)state)->sum);
    return 0;
}

static void counter_close(struct run *run, void *state)
{
    (void)run;
    (void)state;
    world.closed++;
}

static const struct recipe counting = {
    .name = "counting", .kind = RECIPE_EVAL, .version = 1, .summary = "s", .source = "s",
    .outputs = "checkpoint", .state_size = sizeof(struct counter), .open = counter_open,
    .load = counter_load, .step = counter_step, .save = counter_save, .close = counter_close,
};

static const struct recipe counting_without_checkpoints = {
    .name = "counting", .kind = RECIPE_EVAL, .version = 1, .summary = "s", .source = "s",
    .outputs = "metrics", .state_size = sizeof(struct counter), .open = counter_open,
    .step = counter_step, .close = counter_close,
};

static int run_counting(const struct recipe *recipe, const char *folder, const char *resume,
                        uint64_t every, struct err *err)
{
    struct job job = {.recipe = recipe, .name = "count", .checkpoint_every_steps = every};
    struct run_options options = {.job_dir = folder, .run_dir = folder, .resume = resume};
    *err = (struct err){0};
    return run_job(&job, &options, err);
}

static bool has_checkpoint(const char *folder, unsigned step)
{
    char *path = mem_printf("%s/checkpoints/step-%010u/manifest.json", folder, step);
    bool there = file_exists(path);
    mem_free(path);
    return there;
}

static void checkpoints_come_every_n_steps_and_at_the_end(void **state)
{
    (void)state;
    struct err err;
    char *folder = folder_make();
    memset(&world, 0, sizeof world);
    assert_int_equal(run_counting(&counting, folder, NULL, 4, &err), 0);
    assert_int_equal(world.sum, 55);
    assert_int_equal(world.saved, 3);
    assert_true(has_checkpoint(folder, 4) && has_checkpoint(folder, 8));
    assert_true(has_checkpoint(folder, STEPS) && !has_checkpoint(folder, 5));
    assert_int_equal(world.opened, 1);
    assert_int_equal(world.closed, 1);
    folder_done(folder);
}

static void a_resumed_run_ends_as_an_undisturbed_one(void **state)
{
    (void)state;
    struct err err;
    char *folder = folder_make(), *middle = mem_printf("%s/checkpoints/step-0000000004", folder);
    memset(&world, 0, sizeof world);
    assert_int_equal(run_counting(&counting, folder, NULL, 4, &err), 0);
    world.saved = 0;
    world.sum = 0;
    assert_int_equal(run_counting(&counting, folder, middle, 4, &err), 0);
    assert_int_equal(world.sum, 55);
    assert_int_equal(world.saved, 2); /* 8 and 10; the one resumed from is not written again */
    mem_free(middle);
    folder_done(folder);
}

static void a_finished_checkpoint_resumes_to_success_at_once(void **state)
{
    (void)state;
    struct err err;
    char *folder = folder_make(), *end = mem_printf("%s/checkpoints/step-0000000010", folder);
    memset(&world, 0, sizeof world);
    assert_int_equal(run_counting(&counting, folder, NULL, 0, &err), 0);
    world.saved = 0;
    world.sum = 0;
    assert_int_equal(run_counting(&counting, folder, end, 0, &err), 0);
    assert_int_equal(world.sum, 0);
    assert_int_equal(world.saved, 0);
    mem_free(end);
    folder_done(folder);
}

static void a_metric_that_is_not_finite_ends_the_run_as_diverged(void **state)
{
    (void)state;
    struct err err;
    char *folder = folder_make();
    memset(&world, 0, sizeof world);
    world.diverge_at = 6;
    assert_int_equal(run_counting(&counting, folder, NULL, 3, &err), -1);
    assert_string_equal(err.text, "diverged: sum is not finite at step 6: nan");
    assert_true(has_checkpoint(folder, 3) && !has_checkpoint(folder, 6));
    assert_int_equal(world.closed, 1);
    folder_done(folder);
}

static void a_failing_step_is_named_and_everything_is_released(void **state)
{
    (void)state;
    struct err err;
    char *folder = folder_make();
    memset(&world, 0, sizeof world);
    world.fail_at = 2;
    assert_int_equal(run_counting(&counting, folder, NULL, 0, &err), -1);
    assert_string_equal(err.text, "step 2: the disk is on fire");
    assert_int_equal(world.closed, 1);
    folder_done(folder);
}

static void a_checkpoint_of_a_longer_job_is_refused(void **state)
{
    (void)state;
    struct err err;
    struct checkpoint_writer *writer;
    char *folder = folder_make(), *path;
    memset(&world, 0, sizeof world);
    assert_int_equal(checkpoint_begin(folder, STEPS + 1, 0, 1, &writer, &err), 0);
    assert_int_equal(checkpoint_commit(writer, &path, &err), 0);
    checkpoint_writer_free(writer);
    assert_int_equal(run_counting(&counting, folder, path, 0, &err), -1);
    assert_non_null(strstr(err.text, "the job has only 10"));
    assert_int_equal(run_counting(&counting_without_checkpoints, folder, path, 0, &err), -1);
    assert_non_null(strstr(err.text, "takes no checkpoints"));
    mem_free(path);
    folder_done(folder);
}

/* Last: the flag that SIGTERM sets stays set, as a process that is asked to end does end. */
static void sigterm_saves_a_checkpoint_and_succeeds(void **state)
{
    (void)state;
    struct err err;
    char *folder = folder_make();
    memset(&world, 0, sizeof world);
    world.stop_at = 5;
    assert_int_equal(run_counting(&counting, folder, NULL, 0, &err), 0);
    assert_int_equal(world.sum, 15);
    assert_true(has_checkpoint(folder, 5) && !has_checkpoint(folder, STEPS));
    folder_done(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(checkpoints_come_every_n_steps_and_at_the_end),
        cmocka_unit_test(a_resumed_run_ends_as_an_undisturbed_one),
        cmocka_unit_test(a_finished_checkpoint_resumes_to_success_at_once),
        cmocka_unit_test(a_metric_that_is_not_finite_ends_the_run_as_diverged),
        cmocka_unit_test(a_failing_step_is_named_and_everything_is_released),
        cmocka_unit_test(a_checkpoint_of_a_longer_job_is_refused),
        cmocka_unit_test(sigterm_saves_a_checkpoint_and_succeeds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
