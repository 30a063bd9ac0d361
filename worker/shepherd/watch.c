/* watch.c - limits that only time or a look at the processes can show; see run.h. */
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "worker/attempt/cgroup.h"
#include "worker/attempt/procs.h"
#include "worker/shepherd/run.h"
#include "worker/shepherd/stack.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

/* ---- wall time ------------------------------------------------------------------------------- */

static void wall_time_check(struct run *run, uint64_t now_ms)
{
    char limit[PARSE_TEXT_SIZE];
    if (run->plan.wall_time_ms && now_ms - run->started_ms >= run->plan.wall_time_ms)
        run_stop(run, CAUSE_TIME_LIMIT, run->plan.stop_grace_ms, "reached its wall_time of %s",
                 format_duration_ms(run->plan.wall_time_ms, limit));
}

/* ---- stall ----------------------------------------------------------------------------------- */

/* The newest sign of life of a rank: an accepted report line, or, of a program that has never
 * reported anything, output. A rank that reports is judged by its reports alone: a hung rank may
 * still print warnings. While the spool is full, programs are silent because of us. */
static uint64_t beacon_of(const struct run *run, unsigned index)
{
    const struct rank *rank = &run->ranks[index];
    uint64_t beacon = rank->spoke_ms ? rank->spoke_ms : logs_newest_ms(run->logs, index);
    return max_u64(beacon, max_u64(run->started_ms, run->full_ms));
}

/* Programs report from rank 0 only, or from all ranks. So the attempt as a whole must show life,
 * and besides every rank that is known to send progress regularly. */
static bool is_silent(const struct run *run, uint64_t now_ms, unsigned *out_rank)
{
    uint64_t newest = 0, oldest_step = UINT64_MAX;
    bool silent = false;
    *out_rank = 0;
    for (unsigned i = 0; i < run->plan.rank_count; i++) {
        const struct rank *rank = &run->ranks[i];
        uint64_t beacon = beacon_of(run, i);
        newest = max_u64(newest, beacon);
        if (rank->ended)
            continue;
        if (rank->progress_count >= 2 && now_ms - beacon >= run->plan.stall_ms)
            silent = true;
        /* In step all fall silent together: the one that is furthest behind is the suspect. */
        if (rank->progress_count && rank->step < oldest_step) {
            oldest_step = rank->step;
            *out_rank = i;
        }
    }
    return silent || now_ms - newest >= run->plan.stall_ms;
}

/* Before anything is signalled: afterwards it would be somewhere else. */
static enum stack_finding stack_report(struct run *run, unsigned index)
{
    struct buf text = {0};
    buf_printf(&text, "Rank %u\n", run_rank(run, index));
    if (run->ranks[index].pid)
        stack_describe(run->ranks[index].pid, &text);
    else
        buf_puts(&text, "mpirun has not started this rank yet.\n");
    struct rec_report report = {.kind = REPORT_EVENT,
                                .rank = run_rank(run, index),
                                .name = "stack",
                                .text = {text.bytes, text.length}};
    reports_add(run, &report);
    enum stack_finding finding = stack_find(buf_text(&text));
    buf_done(&text);
    return finding;
}

/* A stopped rank before one that is outside of MPI, and otherwise the one that was seen first. */
static void finding_take(struct run *run, unsigned index, enum stack_finding finding)
{
    bool known = run->culprit < run->plan.rank_count;
    if ((finding == STACK_STOPPED && (!known || run->culprit_finding != STACK_STOPPED)) ||
        (finding == STACK_ELSEWHERE && !known)) {
        run->culprit = index;
        run->culprit_finding = finding;
    }
}

void watch_stacks(struct run *run, unsigned suspect)
{
    unsigned count = (unsigned)min_u64(run->plan.rank_count, WATCH_STACKS_MAX);
    if (run->stacks_taken)
        return;
    run->stacks_taken = true;
    run->culprit = run->plan.rank_count;
    enum stack_finding finding = STACK_UNKNOWN;
    if (!run->ranks[suspect].ended)
        finding = stack_report(run, suspect);
    finding_take(run, suspect, finding);
    /* One whose steps accuse it is not cleared by having no stack. */
    bool accused = finding == STACK_UNKNOWN && run->ranks[suspect].progress_count > 0;
    for (unsigned i = 0; i < count; i++) {
        if (i == suspect || run->ranks[i].ended)
            continue;
        finding = stack_report(run, i);
        if (!accused || finding != STACK_ELSEWHERE)
            finding_take(run, i, finding);
    }
}

static void silence_describe(const struct run *run, unsigned index, uint64_t now_ms,
                             struct buf *out)
{
    static const char *const findings[] = {[STACK_STOPPED] = "is stopped by a signal",
                                           [STACK_ELSEWHERE] = "is outside of MPI (its stack is an "
                                                               "event)"};
    const struct rank *rank = &run->ranks[index];
    char silence[PARSE_TEXT_SIZE];
    bool known = run->culprit == index;
    format_duration_short(now_ms - beacon_of(run, index), silence);
    const char *finding = known ? findings[run->culprit_finding] : "";
    if (rank->progress_count)
        buf_printf(out, "rank %u is silent since step %" PRIu64 " of %" PRIu64 ", %s ago%s%s",
                   run_rank(run, index), rank->step, rank->total, silence, known ? ", and " : "",
                   finding);
    else if (known)
        buf_printf(out, "rank %u %s; nothing was reported or printed here for %s",
                   run_rank(run, index), finding, silence);
    else
        buf_printf(out, "no rank has reported or printed anything for %s", silence);
}

/* A collective hangs on all nodes at once, but only one of them has the rank for which the others
 * wait. A node whose ranks all wait, or whose debugger had no answer, gives that one the time to
 * say so. */
static bool is_for_another_node(const struct run *run, uint64_t now_ms)
{
    return run->plan.gang && run->culprit == run->plan.rank_count &&
           now_ms - run->stalled_ms < WATCH_OTHERS_MS;
}

static void stall_check(struct run *run, uint64_t now_ms)
{
    unsigned index;
    char limit[PARSE_TEXT_SIZE];
    struct buf text = {0};
    if (!run->plan.stall_ms)
        return;
    if (!is_silent(run, now_ms, &index)) {
        run->stalled_ms = 0;
        run->stacks_taken = false;
        return;
    }
    if (!run->stalled_ms)
        run->stalled_ms = now_ms;
    watch_stacks(run, index);
    if (is_for_another_node(run, now_ms))
        return;
    if (run->culprit < run->plan.rank_count)
        index = (unsigned)run->culprit;
    format_duration_ms(run->plan.stall_ms, limit);
    silence_describe(run, index, now_ms, &text);
    run_stop(run, CAUSE_STALLED, run->plan.stop_grace_ms, "no progress within %s: %s", limit,
             buf_text(&text));
    buf_done(&text);
}

/* ---- memory ---------------------------------------------------------------------------------- */

static void processes_list(const struct run *run, struct process_list *out)
{
    if (run->plan.cgroup[0])
        cgroup_processes(run->plan.cgroup, "ranks", out);
    if (out->count == 0)
        processes_below(getpid(), out);
}

static uint64_t memory_sum(const struct process_list *list, uint64_t (*measure)(pid_t pid))
{
    uint64_t sum = 0;
    for (size_t i = 0; i < list->count; i++)
        sum += measure(list->items[i].pid);
    return sum;
}

#define MOVE_ROUNDS 8

/* Once, at the first look: those that live by then go into the group that limits their memory
 * (cgroup.h), and what they start is born there. Between listing and moving one may fork: the
 * rounds go on until all that are listed have been moved before. */
static void memory_join(struct run *run)
{
    size_t moved = 0, before = SIZE_MAX;
    if (!run->plan.memory_cgroup[0] || run->memory_joined)
        return;
    run->memory_joined = true;
    for (int round = 0; round < MOVE_ROUNDS && moved != before; round++) {
        struct process_list list = {0};
        before = moved;
        processes_list(run, &list);
        moved = 0;
        for (size_t i = 0; i < list.count; i++)
            moved += cgroup_memory_move(run->plan.memory_cgroup, list.items[i].pid);
        process_list_done(&list);
    }
}

/* Where the kernel does not hold the limit, we do. Pages that processes share after fork count
 * twice in the cheap measure, so it only raises the suspicion that the exact one confirms. */
static void memory_check(struct run *run)
{
    uint64_t limit = run->plan.memory_bytes * run->plan.rank_count;
    struct process_list list = {0};
    char used_text[PARSE_TEXT_SIZE], limit_text[PARSE_TEXT_SIZE];
    if (!limit || (run->plan.cgroup[0] && cgroup_limits_memory(run->plan.cgroup)))
        return;
    processes_list(run, &list);
    uint64_t used = memory_sum(&list, process_anonymous_bytes);
    if (used > limit) {
        uint64_t exact = memory_sum(&list, process_proportional_bytes);
        used = exact ? exact : used;
    }
    process_list_done(&list);
    run->memory_peak = max_u64(run->memory_peak, used);
    if (used > limit)
        run_stop(run, CAUSE_OOM, 0, "used %s of memory, more than the %s given to its %zu ranks",
                 format_size_short(used, used_text), format_size_short(limit, limit_text),
                 run->plan.rank_count);
}

void watch_tick(struct run *run, uint64_t now_ms)
{
    if (run->state != RUN_UP)
        return;
    mpirun_tick(run);
    wall_time_check(run, now_ms);
    if (run->state == RUN_UP)
        stall_check(run, now_ms);
    if (run->state == RUN_UP) {
        memory_join(run);
        memory_check(run);
    }
}
