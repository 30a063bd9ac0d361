/* gang.c - which workers a job of several ranks gets, all at once or none.
 *
 * Packing takes the fewest switches, then racks, then workers: one switch if one will do (the
 * tightest of them), else one rack, else as many as it needs, those with the most room first.
 * The first two are exact; beyond one rack it is a greedy choice, because the exact one is a
 * covering problem. Spreading takes as many workers as the job allows, the least loaded first.
 * Jobs without GPUs leave workers with GPUs alone while others suffice. Ranks are divided
 * evenly over the workers chosen, as far as each has room.
 *
 * Cost: O(n log n) in the workers with room; O(n) when the job wants one worker. */
#include "coordinator/policy/plan.h"

#include <stdlib.h>
#include <string.h>

static int compare_u64(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

/* Most ranks first; then what suits the policy; then the fullest, to keep the others whole; then
 * those that have what the job reads. */
static int pack_order(const void *left, const void *right)
{
    const struct seat *a = left, *b = right;
    int by = compare_u64(b->ranks, a->ranks);
    by = by ? by : compare_u64(b->favour, a->favour);
    by = by ? by : compare_u64(a->load, b->load);
    by = by ? by : compare_u64(b->held, a->held);
    return by ? by : compare_u64(a->worker_index, b->worker_index);
}

static int spread_order(const void *left, const void *right)
{
    const struct seat *a = left, *b = right;
    int by = compare_u64(a->load, b->load);
    by = by ? by : compare_u64(b->favour, a->favour);
    by = by ? by : compare_u64(b->held, a->held);
    return by ? by : compare_u64(a->worker_index, b->worker_index);
}

static int group_order(const void *left, const void *right)
{
    const struct seat *a = left, *b = right;
    int by = compare_u64(a->order, b->order);
    return by ? by : pack_order(a, b);
}

static int ranks_order(const void *left, const void *right)
{
    const struct seat *a = left, *b = right;
    int by = compare_u64(a->ranks, b->ranks);
    return by ? by : compare_u64(a->worker_index, b->worker_index);
}

static int place_order(const void *left, const void *right)
{
    const struct seat *a = left, *b = right;
    int by = compare_u64(a->group[1], b->group[1]);
    by = by ? by : compare_u64(a->group[0], b->group[0]);
    return by ? by : compare_u64(a->worker_index, b->worker_index);
}

/* How many of the first seats hold the job; 0: they do not. */
static size_t prefix(const struct policy_class *class, const struct seat *seats, size_t count)
{
    uint64_t ranks = 0;
    size_t most = min_u64(min_u64(count, class->nodes_max), class->ranks);
    for (size_t n = 1; n <= most; n++) {
        ranks += seats[n - 1].ranks;
        if (ranks >= class->ranks && n >= class->nodes_min)
            return n;
    }
    return 0;
}

/* The same, with as many workers as allowed. */
static size_t prefix_wide(const struct policy_class *class, const struct seat *seats, size_t count)
{
    uint64_t ranks = 0;
    size_t most = min_u64(min_u64(count, class->nodes_max), class->ranks);
    for (size_t n = 0; n < most; n++)
        ranks += seats[n].ranks;
    return ranks >= class->ranks && most >= class->nodes_min ? most : 0;
}

static size_t group_length(const struct seat *seats, size_t count, size_t level)
{
    size_t length = 1;
    while (length < count && seats[length].group[level] == seats[0].group[level])
        length++;
    return length;
}

static uint64_t ranks_sum(const struct seat *seats, size_t count)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += seats[i].ranks;
    return sum;
}

/* Moves the one group of the level that holds the job with fewest workers, then with least room
 * left, to the front; returns its length, 0 when no group of its own holds it. */
static size_t one_group(const struct policy_class *class, struct seat *seats, size_t count,
                        size_t level)
{
    size_t best = 0, best_length = 0, best_nodes = 0;
    uint64_t best_ranks = 0;
    for (size_t i = 0; i < count; i++)
        seats[i].order = seats[i].group[level];
    qsort(seats, count, sizeof *seats, group_order);
    for (size_t at = 0; at < count;) {
        size_t length = group_length(seats + at, count - at, level);
        size_t nodes = prefix(class, seats + at, length);
        uint64_t ranks = ranks_sum(seats + at, length);
        if (nodes &&
            (!best_nodes || nodes < best_nodes || (nodes == best_nodes && ranks < best_ranks))) {
            best = at;
            best_length = length;
            best_nodes = nodes;
            best_ranks = ranks;
        }
        at += length;
    }
    memmove(seats, seats + best, best_length * sizeof *seats);
    return best_length;
}

/* Switches in order of the room they have for the job, the largest first; of equals those of
 * one rack together. */
static void largest_switches_first(const struct policy_class *class, struct seat *seats,
                                   size_t count)
{
    for (size_t i = 0; i < count; i++)
        seats[i].order = (uint64_t)seats[i].group[1] << 32 | seats[i].group[0];
    qsort(seats, count, sizeof *seats, group_order);
    for (size_t at = 0; at < count;) {
        size_t length = group_length(seats + at, count - at, 0);
        uint64_t ranks = ranks_sum(seats + at, min_u64(length, class->nodes_max));
        for (size_t i = at; i < at + length; i++)
            seats[i].order = UINT64_MAX - (ranks << 20 | (0xfffff - (uint64_t)at));
        at += length;
    }
    qsort(seats, count, sizeof *seats, group_order);
}

/* seats[0..count) hold the job in pack order. Returns how many of the first to take. */
static size_t pack_near(const struct policy_class *class, struct seat *seats, size_t count,
                        struct seat *scratch)
{
    size_t nodes = prefix(class, seats, count);
    if (nodes <= 1)
        return nodes;
    memcpy(scratch, seats, count * sizeof *seats);
    for (size_t level = 0; level < POLICY_LEVELS; level++) {
        size_t length = one_group(class, scratch, count, level);
        if (level > 0) {
            length = length ? length : count; /* no rack will do: the whole cluster */
            largest_switches_first(class, scratch, length);
        }
        size_t near = length ? prefix(class, scratch, length) : 0;
        if (near) {
            memcpy(seats, scratch, near * sizeof *seats);
            return near;
        }
    }
    return nodes;
}

/* Each worker its part, not more than it holds; the smallest first, so that what they cannot
 * take is divided over the others. Whenever the seats hold all ranks together, so it ends. */
static size_t divide(const struct policy_class *class, struct seat *seats, size_t count,
                     struct arena *arena, const struct policy_share **out)
{
    struct policy_share *shares = arena_alloc(arena, count * sizeof *shares);
    uint64_t left = class->ranks;
    qsort(seats, count, sizeof *seats, ranks_order);
    for (size_t i = 0; i < count; i++) {
        seats[i].ranks = (uint32_t)min_u64(seats[i].ranks, left / (count - i));
        left -= seats[i].ranks;
    }
    CHECK(left == 0);
    qsort(seats, count, sizeof *seats, place_order);
    for (size_t i = 0; i < count; i++)
        shares[i] =
            (struct policy_share){.worker_index = seats[i].worker_index, .ranks = seats[i].ranks};
    *out = shares;
    return count;
}

/* One worker for all ranks: no sorting. */
static size_t choose_one(const struct policy_class *class, struct seat *seats, size_t count)
{
    const struct seat *best = NULL;
    for (size_t i = 0; i < count; i++) {
        if (seats[i].ranks < class->ranks)
            continue;
        if (!best || (class->spread ? spread_order : pack_order)(&seats[i], best) < 0)
            best = &seats[i];
    }
    if (!best)
        return 0;
    seats[0] = *best;
    return 1;
}

static size_t choose(const struct policy_class *class, struct seat *seats, size_t count,
                     struct seat *scratch)
{
    if (class->nodes_max == 1)
        return choose_one(class, seats, count);
    if (class->spread) {
        qsort(seats, count, sizeof *seats, spread_order);
        size_t nodes = prefix_wide(class, seats, count);
        if (nodes)
            return nodes;
    }
    qsort(seats, count, sizeof *seats, pack_order);
    if (class->spread)
        return prefix_wide(class, seats, count);
    return pack_near(class, seats, count, scratch);
}

size_t gang_choose(const struct policy_class *class, struct seat *seats, size_t count,
                   struct seat *scratch, struct arena *arena, const struct policy_share **out)
{
    size_t nodes = 0, without = 0;
    if (class->nodes_min > class->ranks)
        return 0;
    /* Those with unwanted GPUs behind the others, which are tried alone first. */
    for (size_t i = 0; i < count; i++)
        if (!seats[i].gpus) {
            struct seat seat = seats[without];
            seats[without++] = seats[i];
            seats[i] = seat;
        }
    if (without)
        nodes = choose(class, seats, without, scratch);
    if (!nodes && without < count)
        nodes = choose(class, seats, count, scratch);
    return nodes ? divide(class, seats, nodes, arena, out) : 0;
}

struct seat seat_make(const struct pass *pass, size_t class_index, size_t worker_index,
                      uint32_t ranks, const struct policy_need *free)
{
    const struct policy_class *class = &pass->view->classes[class_index];
    const struct policy_worker *worker = &pass->view->workers[worker_index];
    struct seat seat = {.worker_index = worker_index,
                        .ranks = ranks,
                        .gpus = worker->has_gpus && class->rank.gpus == 0,
                        .load = free->cores};
    if (class->spread) /* in parts of 2^20; cores of a worker are far below 2^43 */
        seat.load = ((worker->total.cores - min_u64(free->cores, worker->total.cores)) << 20) /
                    max_u64(worker->total.cores, 1);
    memcpy(seat.group, worker->group, sizeof seat.group);
    return seat;
}

size_t gang_fit(const struct pass *pass, size_t class_index, const struct room *rooms,
                uint64_t start_ms, const struct policy_share **out)
{
    const struct policy_view *view = pass->view;
    const struct policy_class *class = &view->classes[class_index];
    struct seat *seats = pass->seats;
    size_t count = 0;
    for (size_t i = 0; i < view->worker_count; i++) {
        struct policy_fit fit;
        if (room_ranks(class, &rooms[i], 0) == 0 ||
            !worker_allows(pass, class_index, i, start_ms, &fit))
            continue;
        uint32_t ranks = room_ranks(class, &rooms[i], fit.gpus_unfit);
        if (ranks)
            seats[count++] = seat_make(pass, class_index, i, ranks, &rooms[i].free);
    }
    count = gang_choose(class, seats, count, seats + view->worker_count, pass->plan->arena, out);
    size_t limit;
    return count && workers_within_limits(pass, class_index, *out, count, &limit) ? count : 0;
}

bool gang_is_possible(const struct pass *pass, size_t class_index)
{
    const struct policy_view *view = pass->view;
    const struct policy_class *class = &view->classes[class_index];
    const struct policy_share *shares;
    struct seat *seats = pass->seats;
    size_t count = 0;
    for (size_t i = 0; i < view->worker_count; i++) {
        const struct room room = {.free = view->workers[i].total};
        struct policy_fit fit;
        if (!worker_allows_ever(pass, class_index, i, &fit))
            continue;
        uint32_t ranks = room_ranks(class, &room, fit.gpus_unfit);
        if (ranks == class->ranks && class->nodes_min <= 1)
            return true;
        if (ranks)
            seats[count++] = seat_make(pass, class_index, i, ranks, &room.free);
    }
    return gang_choose(class, seats, count, seats + view->worker_count, pass->plan->arena,
                       &shares) > 0;
}
