/* queue_test.c - the treap of ready jobs and the heap of timers, against plain references. */
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "coordinator/core/queue.h"
#include "coordinator/core/timer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define NODES 400

static bool is_before(const struct queue_node *a, const struct queue_node *b)
{
    return a->priority != b->priority ? a->priority > b->priority : a->job_id < b->job_id;
}

/* Walks the queue and a naive selection side by side. */
static void walk_must_be_sorted(const struct queue *queue, const struct queue_node *nodes)
{
    uint64_t seen = 0;
    const struct queue_node *previous = NULL;
    const struct queue_node *node = queue_first(queue);
    for (; node; node = queue_after(queue, node->priority, node->job_id)) {
        if (previous)
            assert_true(is_before(previous, node));
        previous = node;
        seen++;
    }
    uint64_t queued = 0;
    for (int i = 0; i < NODES; i++)
        queued += nodes[i].queued;
    assert_int_equal(seen, queued);
    assert_int_equal(seen, queue->count);
}

static void jobs_come_out_by_priority_then_by_order_of_submit(void **state)
{
    (void)state;
    struct queue queue = {0};
    struct queue_node nodes[NODES] = {0};
    struct rng rng;
    rng_init(&rng, 1);
    for (int i = 0; i < NODES; i++)
        nodes[i] = (struct queue_node){.job_id = (uint64_t)i + 1,
                                       .priority = (int64_t)rng_below(&rng, 5) - 2};
    for (int round = 0; round < 3000; round++) {
        struct queue_node *node = &nodes[rng_below(&rng, NODES)];
        if (node->queued)
            queue_remove(&queue, node);
        else
            queue_add(&queue, node);
        if (round % 100 == 0)
            walk_must_be_sorted(&queue, nodes);
    }
    walk_must_be_sorted(&queue, nodes);
}

static void the_next_is_found_behind_a_job_that_has_left(void **state)
{
    (void)state;
    struct queue queue = {0};
    struct queue_node a = {.job_id = 1}, b = {.job_id = 2}, c = {.job_id = 3};
    queue_add(&queue, &c);
    queue_add(&queue, &a);
    queue_add(&queue, &b);
    queue_remove(&queue, &b);
    assert_ptr_equal(queue_after(&queue, 0, 2), &c);
    assert_null(queue_after(&queue, 0, 3));
    assert_ptr_equal(queue_after(&queue, 7, 99), &a);
}

static void ascending_ids_keep_the_tree_shallow(void **state)
{
    (void)state;
    struct queue queue = {0};
    size_t count = 1 << 16, depth_most = 0;
    struct queue_node *nodes = mem_array(count, sizeof *nodes);
    for (size_t i = 0; i < count; i++) {
        nodes[i].job_id = i + 1;
        queue_add(&queue, &nodes[i]);
    }
    for (size_t i = 0; i < count; i += 97) {
        size_t depth = 0;
        for (struct queue_node *at = queue.root; at != &nodes[i]; depth++)
            at = nodes[i].job_id < at->job_id ? at->left : at->right;
        depth_most = depth > depth_most ? depth : depth_most;
    }
    assert_true(depth_most < 60); /* expected about 2 ln n = 22; a list would be 65536 */
    mem_free(nodes);
}

static void timers_fire_in_order_of_time_kind_and_id(void **state)
{
    (void)state;
    struct timers timers = {0};
    struct timer all[NODES];
    struct rng rng;
    rng_init(&rng, 2);
    for (int i = 0; i < NODES; i++)
        all[i] = (struct timer){.kind = (enum timer_kind)(1 + i % 4), .id = (uint64_t)i};
    for (int round = 0; round < 5000; round++)
        timer_set(&timers, &all[rng_below(&rng, NODES)], rng_below(&rng, 50));
    uint64_t due = 0;
    const struct timer *previous = NULL;
    for (struct timer *timer = timer_first(&timers); timer; timer = timer_first(&timers)) {
        assert_true(timer->due_ms >= due);
        if (previous && timer->due_ms == due)
            assert_true(previous->kind < timer->kind ||
                        (previous->kind == timer->kind && previous->id < timer->id));
        due = timer->due_ms;
        previous = timer;
        timer_clear(&timers, timer);
        assert_int_equal(timer->slot, 0);
    }
    timers_done(&timers);
}

static void a_timer_set_to_zero_is_cleared(void **state)
{
    (void)state;
    struct timers timers = {0};
    struct timer timer = {.kind = TIMER_JOB, .id = 1};
    timer_set(&timers, &timer, 5);
    timer_set(&timers, &timer, 0);
    assert_null(timer_first(&timers));
    timer_clear(&timers, &timer); /* clearing twice changes nothing */
    timers_done(&timers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jobs_come_out_by_priority_then_by_order_of_submit),
        cmocka_unit_test(the_next_is_found_behind_a_job_that_has_left),
        cmocka_unit_test(ascending_ids_keep_the_tree_shallow),
        cmocka_unit_test(timers_fire_in_order_of_time_kind_and_id),
        cmocka_unit_test(a_timer_set_to_zero_is_cleared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
