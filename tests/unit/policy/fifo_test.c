/* fifo_test.c - what every policy must keep, and what fifo promises. */
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "coordinator/policy/plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define CLASSES_MAX 8
#define WORKERS_MAX 16
#define JOBS_MAX 64

/* A little cluster in plain arrays: jobs of a class in order of their queue. */
struct fixture {
    struct policy_class classes[CLASSES_MAX];
    struct policy_worker workers[WORKERS_MAX];
    struct policy_job jobs[CLASSES_MAX][JOBS_MAX];
    bool allowed[CLASSES_MAX][WORKERS_MAX];
    size_t changed[WORKERS_MAX];
    struct policy_view view;
    struct policy_plan plan;
    struct arena arena;
};

static bool next_job(const void *core, size_t class_index, const struct policy_job *after,
                     struct policy_job *out)
{
    const struct fixture *f = core;
    for (uint64_t i = 0; i < f->classes[class_index].ready_count; i++) {
        const struct policy_job *job = &f->jobs[class_index][i];
        bool behind = !after || job->key < after->key ||
                      (job->key == after->key && job->job_id > after->job_id);
        if (behind) {
            *out = *job;
            return true;
        }
    }
    return false;
}

static bool allows(const void *core, size_t class_index, size_t worker_index, uint64_t start_ms,
                   struct policy_fit *out)
{
    (void)start_ms;
    *out = (struct policy_fit){0};
    return ((const struct fixture *)core)->allowed[class_index][worker_index];
}

static void fixture_plan(struct fixture *f, const struct policy *policy)
{
    arena_reset(&f->arena);
    f->plan = (struct policy_plan){.arena = &f->arena};
    f->plan.verdicts = arena_alloc(&f->arena, CLASSES_MAX * sizeof *f->plan.verdicts);
    f->view.core = f;
    f->view.classes = f->classes;
    f->view.workers = f->workers;
    f->view.changed = f->changed;
    f->view.next_job = next_job;
    f->view.allows = allows;
    policy->plan(&f->view, &f->plan);
}

static void worker_set(struct fixture *f, size_t index, uint64_t cores, uint64_t gpus)
{
    f->workers[index] = (struct policy_worker){.worker_id = index + 1,
                                               .usable = true,
                                               .has_gpus = gpus > 0,
                                               .free = {cores, 100, gpus}};
    if (f->view.worker_count <= index)
        f->view.worker_count = index + 1;
}

static void class_set(struct fixture *f, size_t index, uint64_t cores, uint64_t gpus)
{
    f->classes[index] = (struct policy_class){
        .rank = {cores, 1, gpus}, .ranks = 1, .nodes_min = 1, .nodes_max = 1};
    if (f->view.class_count <= index)
        f->view.class_count = index + 1;
}

static void job_set(struct fixture *f, size_t class_index, uint64_t job_id, int64_t priority)
{
    uint64_t at = f->classes[class_index].ready_count++;
    f->jobs[class_index][at] = (struct policy_job){.job_id = job_id, .key = priority};
}

static int set_up(void **state)
{
    *state = mem_zalloc(sizeof(struct fixture));
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    arena_done(&f->arena);
    mem_free(f);
    return 0;
}

static const struct policy_placement *placement(const struct fixture *f, size_t index)
{
    assert_true(index < f->plan.placement_count);
    return &f->plan.placements[index];
}

static void higher_priority_goes_first_then_order_of_submit(void **state)
{
    struct fixture *f = *state;
    worker_set(f, 0, 3, 0);
    class_set(f, 0, 1, 0);
    class_set(f, 1, 1, 0);
    job_set(f, 0, 5, 0);
    job_set(f, 0, 7, 0);
    job_set(f, 1, 9, 10);
    job_set(f, 1, 6, 0);
    fixture_plan(f, policy_find("fifo"));
    assert_int_equal(f->plan.placement_count, 3);
    assert_int_equal(placement(f, 0)->job_id, 9);
    assert_int_equal(placement(f, 1)->job_id, 5);
    assert_int_equal(placement(f, 2)->job_id, 6);
}

static void a_job_that_does_not_fit_lets_smaller_ones_pass(void **state)
{
    struct fixture *f = *state;
    worker_set(f, 0, 2, 0);
    class_set(f, 0, 8, 0);
    class_set(f, 1, 1, 0);
    job_set(f, 0, 1, 10);
    job_set(f, 1, 2, 0);
    fixture_plan(f, policy_find("fifo"));
    assert_int_equal(f->plan.placement_count, 1);
    assert_int_equal(placement(f, 0)->job_id, 2);
    assert_true(f->plan.verdicts[0].exhausted);
    assert_false(f->plan.verdicts[1].exhausted);
}

static void gpus_are_kept_for_jobs_that_need_them(void **state)
{
    struct fixture *f = *state;
    worker_set(f, 0, 4, 2);
    worker_set(f, 1, 1, 0);
    class_set(f, 0, 1, 0);
    class_set(f, 1, 1, 1);
    job_set(f, 0, 1, 0);
    job_set(f, 0, 2, 0);
    job_set(f, 1, 3, 0);
    fixture_plan(f, policy_find("fifo"));
    assert_int_equal(placement(f, 0)->shares[0].worker_index, 1); /* no GPU wanted: the one without */
    assert_int_equal(placement(f, 1)->shares[0].worker_index, 0); /* until it is full */
    assert_int_equal(placement(f, 2)->shares[0].worker_index, 0);
}

static void a_blocked_class_looks_only_at_changed_workers(void **state)
{
    struct fixture *f = *state;
    worker_set(f, 0, 4, 0);
    worker_set(f, 1, 4, 0);
    class_set(f, 0, 2, 0);
    job_set(f, 0, 1, 0);
    f->classes[0].blocked = true;
    f->changed[0] = 1;
    f->view.changed_count = 1;
    fixture_plan(f, policy_find("fifo"));
    assert_int_equal(f->plan.placement_count, 1);
    assert_int_equal(placement(f, 0)->shares[0].worker_index, 1);
}

static void draw(struct fixture *f, struct rng *rng)
{
    memset(f->classes, 0, sizeof f->classes);
    f->view = (struct policy_view){0};
    size_t workers = rng_below(rng, WORKERS_MAX), classes = rng_below(rng, CLASSES_MAX);
    for (size_t i = 0; i < workers; i++) {
        worker_set(f, i, rng_below(rng, 9), rng_below(rng, 3));
        f->workers[i].usable = rng_below(rng, 5) != 0;
    }
    uint64_t job_id = 0;
    for (size_t i = 0; i < classes; i++) {
        class_set(f, i, rng_below(rng, 5), rng_below(rng, 2));
        f->classes[i].constrained = rng_below(rng, 2);
        for (size_t k = 0; k < WORKERS_MAX; k++)
            f->allowed[i][k] = rng_below(rng, 2);
        for (int64_t p = 2; p >= 0; p--)
            for (uint64_t n = rng_below(rng, 8); n > 0; n--)
                job_set(f, i, ++job_id, p);
    }
}

/* No overbooking, no unusable or forbidden worker, no job twice. */
static void plan_must_be_sound(const struct fixture *f)
{
    struct policy_need free[WORKERS_MAX];
    bool placed[CLASSES_MAX * JOBS_MAX + 1] = {false};
    for (size_t i = 0; i < f->view.worker_count; i++)
        free[i] = f->workers[i].free;
    for (size_t i = 0; i < f->plan.placement_count; i++) {
        const struct policy_placement *p = &f->plan.placements[i];
        const struct policy_class *class = &f->classes[p->class_index];
        assert_true(p->shares[0].worker_index < f->view.worker_count);
        assert_true(f->workers[p->shares[0].worker_index].usable);
        assert_true(!class->constrained || f->allowed[p->class_index][p->shares[0].worker_index]);
        assert_true(policy_fits(&class->rank, &free[p->shares[0].worker_index]));
        need_take(&free[p->shares[0].worker_index], &class->rank);
        assert_false(placed[p->job_id]);
        placed[p->job_id] = true;
    }
    /* Work-conserving: an exhausted class has no usable, allowed worker with room left. */
    for (size_t c = 0; c < f->view.class_count; c++)
        for (size_t w = 0; f->plan.verdicts[c].exhausted && w < f->view.worker_count; w++)
            assert_true(!f->workers[w].usable ||
                        (f->classes[c].constrained && !f->allowed[c][w]) ||
                        !policy_fits(&f->classes[c].rank, &free[w]));
}

static void no_policy_overbooks_and_each_is_deterministic(void **state)
{
    struct fixture *f = *state;
    for (size_t which = 0; policy_at(which); which++) {
        for (uint64_t seed = 0; seed < 500; seed++) {
            struct rng rng;
            rng_init(&rng, seed);
            draw(f, &rng);
            fixture_plan(f, policy_at(which));
            plan_must_be_sound(f);
            size_t count = f->plan.placement_count;
            struct policy_placement *first = mem_array(count, sizeof *first);
            if (count)
                memcpy(first, f->plan.placements, count * sizeof *first);
            fixture_plan(f, policy_at(which));
            assert_int_equal(f->plan.placement_count, count);
            for (size_t i = 0; i < count; i++) {
                assert_int_equal(first[i].job_id, f->plan.placements[i].job_id);
                assert_int_equal(first[i].shares[0].worker_index, f->plan.placements[i].shares[0].worker_index);
            }
            mem_free(first);
        }
    }
}

static void policies_are_found_by_name(void **state)
{
    (void)state;
    assert_non_null(policy_find("fifo"));
    assert_null(policy_find("lottery"));
    assert_ptr_equal(policy_at(0), policy_find("fifo"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(higher_priority_goes_first_then_order_of_submit, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_job_that_does_not_fit_lets_smaller_ones_pass, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(gpus_are_kept_for_jobs_that_need_them, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_blocked_class_looks_only_at_changed_workers, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(no_policy_overbooks_and_each_is_deterministic, set_up,
                                        tear_down),
        cmocka_unit_test(policies_are_found_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
