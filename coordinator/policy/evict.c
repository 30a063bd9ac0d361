/* evict.c - which running jobs must make room for one that may evict.
 *
 * Considered are those of a lower preemption class. The room of what is stopping already counts
 * as coming, and nobody is evicted unless the job fits afterwards. The aim is the least work
 * lost since the last checkpoint: for each worker it is found what room for an equal part of the
 * job would cost there, taking victims in order of loss per room freed and dropping those that
 * were not needed; the cheapest workers are taken. Where no equal parts fit, victims are taken
 * over all workers in the same order until the job fits. Exact would be a knapsack problem.
 *
 * Cost: O(running log running + workers log workers) a job that evicts. */
#include "coordinator/policy/plan.h"

#include <stdlib.h>
#include <string.h>

struct victim {
    size_t running_index;
    uint64_t price; /* work lost per room freed */
    bool chosen;
};

/* A victim's part on a worker; in order of worker, then of price. */
struct part {
    size_t worker_index, victim_index;
    uint32_t ranks;
    uint64_t lost_ms; /* the worker's part of the loss */
};

struct hunt {
    struct pass *pass;
    size_t class_index;
    struct victim *victims; /* in order of price */
    size_t victim_count;
    struct part *parts;
    size_t part_count, part_capacity;
    struct room *rooms; /* scratch: per worker */
};

static const struct policy_running *victim_running(const struct hunt *hunt, size_t victim_index)
{
    return &hunt->pass->running[hunt->victims[victim_index].running_index];
}

static void rooms_release(struct pass *pass, struct room *rooms, const struct policy_running *job)
{
    for (size_t i = 0; i < job->share_count; i++)
        room_release(&rooms[job->shares[i].worker_index], &pass->view->classes[job->class_index],
                     job->shares[i].ranks, &pass->view->workers[job->shares[i].worker_index].total);
}

static void rooms_occupy(struct pass *pass, struct room *rooms, size_t class_index,
                         const struct policy_share *shares, size_t share_count)
{
    for (size_t i = 0; i < share_count; i++)
        room_occupy(&rooms[shares[i].worker_index], &pass->view->classes[class_index],
                    shares[i].ranks);
}

/* Now and what stops. */
static void coming_make(struct pass *pass)
{
    size_t count = pass->view->worker_count;
    pass_running_read(pass);
    pass->coming = arena_alloc(pass->plan->arena, count * sizeof *pass->coming);
    pass->evicted = arena_alloc(pass->plan->arena, pass->running_count * sizeof *pass->evicted);
    for (size_t i = 0; i < count; i++)
        pass->coming[i].free = pass->rooms[i].free;
    for (size_t i = 0; i < pass->running_count; i++) {
        const struct policy_running *job = &pass->running[i];
        for (size_t k = 0; k < job->share_count; k++) {
            struct room *room = &pass->coming[job->shares[k].worker_index];
            room->jobs++;
            room->exclusives += pass->view->classes[job->class_index].exclusive;
        }
    }
    for (size_t i = 0; i < pass->plan->placement_count; i++) {
        const struct policy_placement *placed = &pass->plan->placements[i];
        for (size_t k = 0; k < placed->share_count; k++) {
            struct room *room = &pass->coming[placed->shares[k].worker_index];
            room->jobs++;
            room->exclusives += pass->view->classes[placed->class_index].exclusive;
        }
    }
    pass->coming_ms = pass->view->now_ms;
    for (size_t i = 0; i < pass->running_count; i++) {
        const struct policy_running *job = &pass->running[i];
        if (job->stopping)
            rooms_release(pass, pass->coming, job);
        if (job->stopping || job->evictable)
            pass->coming_ms =
                max_u64(pass->coming_ms, time_after(pass->view->now_ms, job->stop_ms));
    }
}

/* ---- candidates ---------------------------------------------------------------------------- */

static uint64_t per_mille(uint64_t freed, uint64_t need)
{
    return need ? freed * 1000 / need : 0;
}

/* Loss per thousandth of a rank's need, over what the job asks for. */
static uint64_t price(const struct hunt *hunt, const struct policy_running *job)
{
    const struct policy_class *for_class = &hunt->pass->view->classes[hunt->class_index];
    const struct policy_class *class = &hunt->pass->view->classes[job->class_index];
    uint64_t ranks = 0;
    for (size_t i = 0; i < job->share_count; i++)
        ranks += job->shares[i].ranks;
    struct policy_need freed = need_times(&class->rank, ranks);
    uint64_t room = per_mille(freed.cores, for_class->rank.cores) +
                    per_mille(freed.memory_bytes, for_class->rank.memory_bytes) +
                    per_mille(freed.gpus, for_class->rank.gpus);
    return min_u64(job->lost_ms, UINT64_MAX >> 20) * 1000 / max_u64(room, 1);
}

static int victim_order(const void *left, const void *right)
{
    const struct victim *a = left, *b = right;
    if (a->price != b->price)
        return a->price < b->price ? -1 : 1;
    /* running is in order of job_id: of equals the youngest goes */
    return (a->running_index < b->running_index) - (a->running_index > b->running_index);
}

static int part_order(const void *left, const void *right)
{
    const struct part *a = left, *b = right;
    if (a->worker_index != b->worker_index)
        return a->worker_index < b->worker_index ? -1 : 1;
    return (a->victim_index > b->victim_index) - (a->victim_index < b->victim_index);
}

static void parts_add(struct hunt *hunt, size_t victim_index)
{
    const struct policy_running *job = victim_running(hunt, victim_index);
    for (size_t i = 0; i < job->share_count; i++) {
        PLAN_GROW(hunt->pass->plan->arena, hunt->parts, hunt->part_count, hunt->part_capacity);
        hunt->parts[hunt->part_count++] = (struct part){.worker_index = job->shares[i].worker_index,
                                                        .victim_index = victim_index,
                                                        .ranks = job->shares[i].ranks,
                                                        .lost_ms = job->lost_ms / job->share_count};
    }
}

static void candidates_find(struct hunt *hunt)
{
    struct pass *pass = hunt->pass;
    const struct policy_class *classes = pass->view->classes;
    hunt->victims = arena_alloc(pass->plan->arena, pass->running_count * sizeof *hunt->victims);
    for (size_t i = 0; i < pass->running_count; i++) {
        const struct policy_running *job = &pass->running[i];
        if (!job->evictable || job->stopping || pass->evicted[i] ||
            classes[job->class_index].preemption >= classes[hunt->class_index].preemption)
            continue;
        hunt->victims[hunt->victim_count++] =
            (struct victim){.running_index = i, .price = price(hunt, job)};
    }
    if (hunt->victim_count)
        qsort(hunt->victims, hunt->victim_count, sizeof *hunt->victims, victim_order);
    for (size_t i = 0; i < hunt->victim_count; i++)
        parts_add(hunt, i);
    if (hunt->part_count)
        qsort(hunt->parts, hunt->part_count, sizeof *hunt->parts, part_order);
}

/* ---- choice -------------------------------------------------------------------------------- */

static void rooms_reset(struct hunt *hunt)
{
    size_t count = hunt->pass->view->worker_count;
    if (count)
        memcpy(hunt->rooms, hunt->pass->coming, count * sizeof *hunt->rooms);
}

static bool fits_without_first(struct hunt *hunt, size_t count, const struct policy_share **out,
                               size_t *out_count)
{
    rooms_reset(hunt);
    for (size_t i = 0; i < count; i++)
        rooms_release(hunt->pass, hunt->rooms, victim_running(hunt, i));
    *out_count = gang_fit(hunt->pass, hunt->class_index, hunt->rooms, hunt->pass->coming_ms, out);
    return *out_count > 0;
}

struct offer { /* what room for `ranks` ranks costs on a worker */
    size_t worker_index, first_part, part_count;
    uint64_t lost_ms;
};

static int offer_order(const void *left, const void *right)
{
    const struct offer *a = left, *b = right;
    if (a->lost_ms != b->lost_ms)
        return a->lost_ms < b->lost_ms ? -1 : 1;
    return (a->worker_index > b->worker_index) - (a->worker_index < b->worker_index);
}

/* Takes parts of the worker in order until `ranks` fit, then gives back those that are not
 * needed, the dearest first; kept ones stand first. False: all of them do not make the room. */
static bool offer_make(struct hunt *hunt, uint32_t ranks, struct part *parts, size_t count,
                       struct offer *offer)
{
    const struct policy_view *view = hunt->pass->view;
    const struct policy_class *class = &view->classes[hunt->class_index];
    const struct policy_need *total = &view->workers[offer->worker_index].total;
    struct room room = hunt->pass->coming[offer->worker_index];
    struct policy_fit fit;
    if (!worker_allows(hunt->pass, hunt->class_index, offer->worker_index, hunt->pass->coming_ms,
                       &fit))
        return false;
    size_t taken = 0;
    for (; taken < count && room_ranks(class, &room, fit.gpus_unfit) < ranks; taken++)
        room_release(&room,
                     &view->classes[victim_running(hunt, parts[taken].victim_index)->class_index],
                     parts[taken].ranks, total);
    if (room_ranks(class, &room, fit.gpus_unfit) < ranks)
        return false;
    offer->part_count = taken;
    for (size_t i = taken; i > 0; i--) {
        struct part part = parts[i - 1];
        struct room without = room;
        room_occupy(&without, &view->classes[victim_running(hunt, part.victim_index)->class_index],
                    part.ranks);
        if (room_ranks(class, &without, fit.gpus_unfit) >= ranks) {
            room = without;
            parts[i - 1] = parts[--offer->part_count];
            parts[offer->part_count] = part;
        } else {
            offer->lost_ms += part.lost_ms;
        }
    }
    return true;
}

/* An equal part of the job on each of as few workers as it allows, where it costs least. */
static bool choose_by_worker(struct hunt *hunt)
{
    struct pass *pass = hunt->pass;
    const struct policy_class *class = &pass->view->classes[hunt->class_index];
    size_t count = 0, at = 0;
    uint64_t nodes = max_u64(class->nodes_min, 1);
    if (class->ranks_per_node)
        nodes = max_u64(nodes, (class->ranks + class->ranks_per_node - 1) / class->ranks_per_node);
    if (nodes > class->nodes_max || nodes > class->ranks)
        return false;
    struct offer *offers =
        arena_alloc(pass->plan->arena, pass->view->worker_count * sizeof *offers);
    uint32_t ranks = (uint32_t)((class->ranks + nodes - 1) / nodes);
    for (size_t i = 0; i < pass->view->worker_count; i++) {
        struct offer offer = {.worker_index = i, .first_part = at};
        while (at < hunt->part_count && hunt->parts[at].worker_index == i)
            at++;
        if (offer_make(hunt, ranks, hunt->parts + offer.first_part, at - offer.first_part, &offer))
            offers[count++] = offer;
    }
    if (count < nodes)
        return false;
    qsort(offers, count, sizeof *offers, offer_order);
    for (size_t i = 0; i < nodes; i++)
        for (size_t k = 0; k < offers[i].part_count; k++)
            hunt->victims[hunt->parts[offers[i].first_part + k].victim_index].chosen = true;
    return true;
}

/* The shortest list of the cheapest that makes room; more victims never make less. */
static void choose_by_price(struct hunt *hunt)
{
    const struct policy_share *shares;
    size_t share_count, low = 1, high = hunt->victim_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (fits_without_first(hunt, middle, &shares, &share_count))
            high = middle;
        else
            low = middle + 1;
    }
    for (size_t i = 0; i < low; i++)
        hunt->victims[i].chosen = true;
}

/* ---- orders -------------------------------------------------------------------------------- */

/* Gives back victims that the job does not need where it will lie, the dearest first. */
static void drop_superfluous(struct hunt *hunt, const struct policy_share *shares,
                             size_t share_count)
{
    struct pass *pass = hunt->pass;
    const struct policy_class *class = &pass->view->classes[hunt->class_index];
    uint32_t *needed = arena_alloc(pass->plan->arena, pass->view->worker_count * sizeof *needed);
    for (size_t i = 0; i < share_count; i++)
        needed[shares[i].worker_index] = shares[i].ranks;
    for (size_t i = hunt->victim_count; i > 0; i--) {
        struct victim *victim = &hunt->victims[i - 1];
        const struct policy_running *job = victim_running(hunt, i - 1);
        bool superfluous = victim->chosen;
        rooms_occupy(pass, hunt->rooms, job->class_index, job->shares,
                     victim->chosen ? job->share_count : 0);
        for (size_t k = 0; superfluous && k < job->share_count; k++) {
            size_t worker = job->shares[k].worker_index;
            struct policy_fit fit;
            superfluous =
                needed[worker] == 0 ||
                (worker_allows(pass, hunt->class_index, worker, pass->coming_ms, &fit) &&
                 room_ranks(class, &hunt->rooms[worker], fit.gpus_unfit) >= needed[worker]);
        }
        if (victim->chosen && !superfluous)
            rooms_release(pass, hunt->rooms, job);
        victim->chosen = victim->chosen && !superfluous;
    }
}

static bool chosen_fit(struct hunt *hunt, const struct policy_share **out, size_t *out_count)
{
    rooms_reset(hunt);
    for (size_t i = 0; i < hunt->victim_count; i++)
        if (hunt->victims[i].chosen)
            rooms_release(hunt->pass, hunt->rooms, victim_running(hunt, i));
    *out_count = gang_fit(hunt->pass, hunt->class_index, hunt->rooms, hunt->pass->coming_ms, out);
    return *out_count > 0;
}

static void evict_chosen(struct hunt *hunt, uint64_t job_id)
{
    for (size_t i = 0; i < hunt->victim_count; i++) {
        if (!hunt->victims[i].chosen)
            continue;
        const struct policy_running *job = victim_running(hunt, i);
        rooms_release(hunt->pass, hunt->pass->coming, job);
        hunt->pass->evicted[hunt->victims[i].running_index] = true;
        plan_evict(hunt->pass->plan, job->job_id, job_id);
    }
}

bool evict_for(struct pass *pass, struct waiter *waiter)
{
    if (!pass->coming)
        coming_make(pass);
    waiter->share_count =
        gang_fit(pass, waiter->class_index, pass->coming, pass->coming_ms, &waiter->shares);
    if (waiter->share_count == 0) {
        struct hunt hunt = {.pass = pass, .class_index = waiter->class_index};
        hunt.rooms = arena_alloc(pass->plan->arena, pass->view->worker_count * sizeof *hunt.rooms);
        candidates_find(&hunt);
        if (!fits_without_first(&hunt, hunt.victim_count, &waiter->shares, &waiter->share_count))
            return false;
        if (!choose_by_worker(&hunt) || !chosen_fit(&hunt, &waiter->shares, &waiter->share_count)) {
            choose_by_price(&hunt);
            CHECK(chosen_fit(&hunt, &waiter->shares, &waiter->share_count));
        }
        drop_superfluous(&hunt, waiter->shares, waiter->share_count);
        evict_chosen(&hunt, waiter->job_id);
    }
    rooms_occupy(pass, pass->coming, waiter->class_index, waiter->shares, waiter->share_count);
    return true;
}
