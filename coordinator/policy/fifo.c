/* fifo.c - priority, then order of submit; first worker with room.
 *
 * A job that does not fit lets smaller ones pass (its class is set aside for the pass), so a
 * large job can wait long on a busy cluster; reservations are for other policies. Workers are
 * filled in order of their ids, those without GPUs first for jobs that need none, which packs
 * work and keeps GPUs free.
 *
 * Cost: room only shrinks during a pass, so a worker that refused a class once refuses it for
 * the rest of the pass and each class walks the workers once: O(classes x workers + placements
 * x classes). Identical jobs are one class: 100,000 of them cost one walk. */
#include "coordinator/policy/plan.h"

struct lane { /* one class during a pass */
    struct policy_job head;
    bool open;     /* has a head that may still find room */
    size_t cursor; /* candidates before it are known not to fit */
};

struct pass {
    const struct policy_view *view;
    struct policy_plan *plan;
    struct policy_need *free;  /* per worker, shrinking */
    struct policy_need *needs; /* per class, of all ranks */
    struct lane *lanes;        /* per class */
};

static bool lane_is_before(const struct pass *pass, const struct lane *a, const struct lane *b)
{
    int64_t a_key = a->head.key + pass->view->classes[a - pass->lanes].bonus;
    int64_t b_key = b->head.key + pass->view->classes[b - pass->lanes].bonus;
    return a_key != b_key ? a_key > b_key : a->head.job_id < b->head.job_id;
}

static struct lane *lane_best(const struct pass *pass)
{
    struct lane *best = NULL;
    for (size_t i = 0; i < pass->view->class_count; i++) {
        struct lane *lane = &pass->lanes[i];
        if (lane->open && (!best || lane_is_before(pass, lane, best)))
            best = lane;
    }
    return best;
}

/* Candidates of a class, numbered: those without GPUs first when it needs none. */
static bool candidate(const struct pass *pass, size_t class_index, size_t number, size_t *out)
{
    const struct policy_view *view = pass->view;
    const struct policy_class *class = &view->classes[class_index];
    size_t count = class->blocked ? view->changed_count : view->worker_count;
    bool second_round = number >= count;
    size_t position = second_round ? number - count : number;
    size_t worker = class->blocked ? view->changed[position] : position;
    if (class->rank.gpus == 0 && view->workers[worker].has_gpus != second_round)
        return false;
    if (class->rank.gpus > 0 && second_round)
        return false;
    *out = worker;
    return true;
}

static bool lane_find_worker(struct pass *pass, size_t class_index, size_t *out)
{
    const struct policy_view *view = pass->view;
    const struct policy_class *class = &view->classes[class_index];
    struct lane *lane = &pass->lanes[class_index];
    size_t count = class->blocked ? view->changed_count : view->worker_count;
    for (; lane->cursor < 2 * count; lane->cursor++) {
        size_t worker;
        if (!candidate(pass, class_index, lane->cursor, &worker))
            continue;
        if (!view->workers[worker].usable || view->workers[worker].taken ||
            !policy_fits(&pass->needs[class_index], &pass->free[worker]))
            continue;
        struct policy_fit fit;
        if (class->constrained &&
            !view->allows(view->core, class_index, worker, view->now_ms, &fit))
            continue;
        *out = worker;
        return true;
    }
    return false;
}

static void pass_place_one(struct pass *pass, size_t class_index)
{
    const struct policy_view *view = pass->view;
    struct lane *lane = &pass->lanes[class_index];
    size_t worker;
    if (!lane_find_worker(pass, class_index, &worker)) {
        lane->open = false;
        pass->plan->verdicts[class_index] =
            (struct policy_verdict){.block = POLICY_BLOCK_ROOM, .exhausted = true};
        return;
    }
    need_take(&pass->free[worker], &pass->needs[class_index]);
    struct policy_share *share = arena_alloc(pass->plan->arena, sizeof *share);
    *share = (struct policy_share){.worker_index = worker,
                                   .ranks = view->classes[class_index].ranks};
    plan_place(pass->plan, &(struct policy_placement){.job_id = lane->head.job_id,
                                                      .class_index = class_index,
                                                      .shares = share,
                                                      .share_count = 1});
    struct policy_job placed = lane->head;
    lane->open = view->next_job(view->core, class_index, &placed, &lane->head);
}

static void fifo_plan(const struct policy_view *view, struct policy_plan *plan)
{
    struct pass pass = {.view = view, .plan = plan};
    pass.free = arena_alloc(plan->arena, view->worker_count * sizeof *pass.free);
    pass.needs = arena_alloc(plan->arena, view->class_count * sizeof *pass.needs);
    pass.lanes = arena_alloc(plan->arena, view->class_count * sizeof *pass.lanes);
    for (size_t i = 0; i < view->worker_count; i++)
        pass.free[i] = view->workers[i].free;
    for (size_t i = 0; i < view->class_count; i++)
        pass.needs[i] = need_times(&view->classes[i].rank, view->classes[i].ranks);
    for (size_t i = 0; i < view->class_count; i++)
        pass.lanes[i].open = view->next_job(view->core, i, NULL, &pass.lanes[i].head);
    for (struct lane *lane = lane_best(&pass); lane; lane = lane_best(&pass))
        pass_place_one(&pass, (size_t)(lane - pass.lanes));
}

const struct policy policy_fifo = {
    .name = "fifo",
    .summary = "priority, then order of submit; first worker with room",
    .order = POLICY_ORDER_FIFO,
    .plan = fifo_plan,
};
