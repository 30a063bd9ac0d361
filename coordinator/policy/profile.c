/* profile.c - room over time: per worker a list of steps, each what is free from then on.
 *
 * Free room grows where running jobs end, by their limits, and is cut by the jobs and
 * reservations booked since. Made from the view when first wanted: O(running log running).
 * A job that is past its limit is taken to end in the next millisecond. */
#include "coordinator/policy/plan.h"

#include <stdlib.h>
#include <string.h>

struct step {
    uint64_t at;
    struct room room; /* until the next step */
};

struct line {           /* of one worker */
    struct step *steps; /* ascending, the first at now */
    size_t count, capacity;
    bool booked;          /* by a reservation */
    uint64_t booked_from; /* the first of them */
};

struct profile {
    struct line *lines;
};

/* ---- making -------------------------------------------------------------------------------- */

struct release {
    size_t worker_index, class_index, number; /* number: of the list, for a stable order */
    uint64_t at;
    uint32_t ranks;
};

struct releases {
    struct release *list;
    size_t count, capacity;
};

static void releases_add(struct pass *pass, struct releases *releases, size_t class_index,
                         const struct policy_share *shares, size_t share_count, uint64_t at)
{
    for (size_t i = 0; i < share_count; i++) {
        PLAN_GROW(pass->plan->arena, releases->list, releases->count, releases->capacity);
        releases->list[releases->count] = (struct release){.worker_index = shares[i].worker_index,
                                                           .class_index = class_index,
                                                           .number = releases->count,
                                                           .at = at,
                                                           .ranks = shares[i].ranks};
        releases->count++;
    }
}

static int release_order(const void *left, const void *right)
{
    const struct release *a = left, *b = right;
    if (a->worker_index != b->worker_index)
        return a->worker_index < b->worker_index ? -1 : 1;
    if (a->at != b->at)
        return a->at < b->at ? -1 : 1;
    return (a->number > b->number) - (a->number < b->number);
}

static struct releases releases_collect(struct pass *pass)
{
    const struct policy_view *view = pass->view;
    struct releases releases = {0};
    for (size_t i = 0; i < pass->running_count; i++) {
        const struct policy_running *running = &pass->running[i];
        uint64_t at = max_u64(running->ends_ms, view->now_ms + 1);
        if (pass->evicted && pass->evicted[i])
            at = min_u64(at, time_after(view->now_ms, max_u64(running->stop_ms, 1)));
        releases_add(pass, &releases, running->class_index, running->shares, running->share_count,
                     at);
    }
    for (size_t i = 0; i < pass->plan->placement_count; i++) {
        const struct policy_placement *placed = &pass->plan->placements[i];
        uint64_t wall = max_u64(view->classes[placed->class_index].wall_time_ms, 1);
        releases_add(pass, &releases, placed->class_index, placed->shares, placed->share_count,
                     time_after(view->now_ms, wall));
    }
    if (releases.count)
        qsort(releases.list, releases.count, sizeof *releases.list, release_order);
    return releases;
}

static void line_make(struct pass *pass, size_t worker_index, const struct release *releases,
                      size_t count)
{
    const struct policy_view *view = pass->view;
    struct line *line = &pass->profile->lines[worker_index];
    line->capacity = count + 1;
    line->steps = arena_alloc(pass->plan->arena, line->capacity * sizeof *line->steps);
    struct room room = pass->rooms[worker_index];
    uint32_t exclusives = 0;
    for (size_t i = 0; i < count; i++)
        exclusives += view->classes[releases[i].class_index].exclusive;
    room.jobs = (uint32_t)max_u64(room.jobs, count);
    room.exclusives = (uint32_t)max_u64(room.exclusives, exclusives);
    line->steps[line->count++] = (struct step){.at = view->now_ms, .room = room};
    for (size_t i = 0; i < count; i++) {
        room_release(&room, &view->classes[releases[i].class_index], releases[i].ranks,
                     &view->workers[worker_index].total);
        if (line->steps[line->count - 1].at != releases[i].at)
            line->steps[line->count++].at = releases[i].at;
        line->steps[line->count - 1].room = room;
    }
}

void profile_make(struct pass *pass)
{
    pass_running_read(pass);
    struct arena *arena = pass->plan->arena;
    struct releases releases = releases_collect(pass);
    pass->profile = arena_alloc(arena, sizeof *pass->profile);
    pass->profile->lines =
        arena_alloc(arena, pass->view->worker_count * sizeof *pass->profile->lines);
    size_t at = 0;
    for (size_t i = 0; i < pass->view->worker_count; i++) {
        size_t from = at;
        while (at < releases.count && releases.list[at].worker_index == i)
            at++;
        line_make(pass, i, releases.list + from, at - from);
    }
}

/* ---- booking ------------------------------------------------------------------------------- */

/* The step that holds at that time. */
static size_t line_find(const struct line *line, uint64_t at)
{
    size_t low = 0, high = line->count;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (line->steps[middle].at <= at)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Makes a step begin at that time; returns which. */
static size_t line_split(struct arena *arena, struct line *line, uint64_t at)
{
    size_t index = line_find(line, at);
    if (line->steps[index].at == at)
        return index;
    PLAN_GROW(arena, line->steps, line->count, line->capacity);
    memmove(&line->steps[index + 2], &line->steps[index + 1],
            (line->count - index - 1) * sizeof *line->steps);
    line->count++;
    line->steps[index + 1] = (struct step){.at = at, .room = line->steps[index].room};
    return index + 1;
}

/* At POLICY_NEVER everything has ended; only what waits for that holds the last step. */
static void book(struct pass *pass, size_t class_index, const struct policy_share *share,
                 uint64_t start_ms, uint64_t end_ms, bool for_ever)
{
    struct line *line = &pass->profile->lines[share->worker_index];
    size_t from = line_split(pass->plan->arena, line, start_ms);
    size_t until = for_ever ? line->count : line_split(pass->plan->arena, line, end_ms);
    for (size_t i = from; i < until; i++)
        room_occupy(&line->steps[i].room, &pass->view->classes[class_index], share->ranks);
}

void profile_place(struct pass *pass, size_t class_index, const struct policy_share *shares,
                   size_t share_count)
{
    uint64_t wall_ms = max_u64(pass->view->classes[class_index].wall_time_ms, 1);
    for (size_t i = 0; i < share_count; i++)
        book(pass, class_index, &shares[i], pass->view->now_ms,
             time_after(pass->view->now_ms, wall_ms), false);
}

void profile_reserve(struct pass *pass, size_t class_index, const struct policy_share *shares,
                     size_t share_count, uint64_t start_ms)
{
    /* Without a date the room is kept from now on, so that it gathers. */
    bool undated = start_ms == POLICY_NEVER;
    uint64_t from_ms = undated ? pass->view->now_ms : start_ms;
    uint64_t wall_ms = max_u64(pass->view->classes[class_index].wall_time_ms, 1);
    for (size_t i = 0; i < share_count; i++) {
        struct line *line = &pass->profile->lines[shares[i].worker_index];
        book(pass, class_index, &shares[i], from_ms, time_after(from_ms, wall_ms), undated);
        line->booked_from = line->booked ? min_u64(line->booked_from, from_ms) : from_ms;
        line->booked = true;
    }
}

/* ---- asking -------------------------------------------------------------------------------- */

bool profile_is_booked(const struct profile *profile, size_t worker_index, uint64_t *out_from_ms)
{
    const struct line *line = &profile->lines[worker_index];
    *out_from_ms = line->booked_from;
    return line->booked;
}

uint32_t profile_ranks(const struct pass *pass, size_t class_index, size_t worker_index,
                       uint64_t gpus_unfit, uint64_t start_ms, uint64_t end_ms)
{
    const struct policy_class *class = &pass->view->classes[class_index];
    const struct line *line = &pass->profile->lines[worker_index];
    size_t at = line_find(line, start_ms);
    uint32_t ranks = room_ranks(class, &line->steps[at].room, gpus_unfit);
    for (at++; ranks && at < line->count && line->steps[at].at < end_ms; at++)
        ranks = (uint32_t)min_u64(ranks, room_ranks(class, &line->steps[at].room, gpus_unfit));
    return ranks;
}

size_t profile_steps(const struct profile *profile, size_t worker_index)
{
    return profile->lines[worker_index].count;
}

uint64_t profile_step_ms(const struct profile *profile, size_t worker_index, size_t step)
{
    return profile->lines[worker_index].steps[step].at;
}
