/* policy_reference.h - FCFS, EASY and conservative backfill as the textbooks have them, naively.
 *
 * A machine of N equal processors, where only the number of free ones counts. Written to be read
 * against the papers and to share nothing with coordinator/policy: at every submit and every end
 * all is worked out anew from lists. Jobs stand in order of submit, then of their index.
 *   EASY: Lifka, The ANL/IBM SP Scheduling System, 1995; Mu'alem and Feitelson, Utilization,
 *   Predictability, Workloads, and User Runtime Estimates in Scheduling the IBM SP2 with
 *   Backfilling, IEEE TPDS 12(6), 2001, figure 1 (shadow time, extra nodes), and conservative.
 * Conservative makes its reservations anew, in order, at each event; the paper compresses the old
 * ones, in order. Time is in any integer unit; a job runs at most `limit` and at least 1. */
#ifndef ATHANOR_TESTS_POLICY_REFERENCE_H
#define ATHANOR_TESTS_POLICY_REFERENCE_H

#include "common/base/base.h"
#include "common/base/mem.h"

enum reference_rule { REFERENCE_FCFS, REFERENCE_EASY, REFERENCE_CONSERVATIVE };

struct reference_job {
    uint64_t submit, run, limit; /* run <= limit */
    uint64_t processors;         /* 1..N */
    uint64_t start;              /* out; UINT64_MAX until then */
};

struct reference {
    struct reference_job *jobs; /* in order of submit */
    size_t count;
    uint64_t now, free;
    size_t *waiting, waiting_count; /* in order */
    size_t *running, running_count;
};

static inline void reference_start(struct reference *r, size_t position)
{
    size_t job = r->waiting[position];
    r->jobs[job].start = r->now;
    r->free -= r->jobs[job].processors;
    r->running[r->running_count++] = job;
    for (size_t i = position + 1; i < r->waiting_count; i++)
        r->waiting[i - 1] = r->waiting[i];
    r->waiting_count--;
}

/* Processors that are free at `at` if everything runs to its limit and nothing starts. */
static inline uint64_t reference_free_at(const struct reference *r, uint64_t at)
{
    uint64_t free = r->free;
    for (size_t i = 0; i < r->running_count; i++) {
        const struct reference_job *job = &r->jobs[r->running[i]];
        if (job->start + job->limit <= at)
            free += job->processors;
    }
    return free;
}

/* The first time at which the head of the queue has its processors. */
static inline uint64_t reference_shadow(const struct reference *r, uint64_t processors)
{
    uint64_t shadow = UINT64_MAX;
    for (size_t i = 0; i < r->running_count; i++) {
        const struct reference_job *job = &r->jobs[r->running[i]];
        uint64_t end = job->start + job->limit;
        if (end < shadow && reference_free_at(r, end) >= processors)
            shadow = end;
    }
    return shadow;
}

static inline void reference_start_heads(struct reference *r)
{
    while (r->waiting_count && r->jobs[r->waiting[0]].processors <= r->free)
        reference_start(r, 0);
}

static inline void reference_easy(struct reference *r)
{
    reference_start_heads(r);
    if (r->waiting_count == 0)
        return;
    uint64_t head = r->jobs[r->waiting[0]].processors;
    uint64_t shadow = reference_shadow(r, head);
    uint64_t extra = reference_free_at(r, shadow) - head;
    for (size_t i = 1; i < r->waiting_count;) {
        const struct reference_job *job = &r->jobs[r->waiting[i]];
        bool ends_before = r->now + job->limit <= shadow;
        if (job->processors > r->free || (!ends_before && job->processors > extra)) {
            i++;
            continue;
        }
        if (!ends_before)
            extra -= job->processors;
        reference_start(r, i);
    }
}

struct reference_span {
    uint64_t from, until, processors;
};

static inline uint64_t reference_used_at(const struct reference_span *spans, size_t count,
                                         uint64_t at)
{
    uint64_t used = 0;
    for (size_t i = 0; i < count; i++)
        used += spans[i].from <= at && at < spans[i].until ? spans[i].processors : 0;
    return used;
}

/* Use grows only where a span begins. */
static inline bool reference_span_fits(const struct reference_span *spans, size_t count,
                                       const struct reference_span *span, uint64_t total)
{
    bool fits = reference_used_at(spans, count, span->from) + span->processors <= total;
    for (size_t i = 0; i < count && fits; i++)
        if (spans[i].from > span->from && spans[i].from < span->until)
            fits = reference_used_at(spans, count, spans[i].from) + span->processors <= total;
    return fits;
}

/* Each waiting job, in order, gets the earliest span that fits beside all before it. */
static inline void reference_conservative(struct reference *r, uint64_t total)
{
    struct reference_span *spans =
        mem_array(r->running_count + r->waiting_count + 1, sizeof *spans);
    size_t count = 0;
    for (size_t i = 0; i < r->running_count; i++) {
        const struct reference_job *job = &r->jobs[r->running[i]];
        spans[count++] = (struct reference_span){r->now, job->start + job->limit, job->processors};
    }
    for (size_t i = 0; i < r->waiting_count;) {
        const struct reference_job *job = &r->jobs[r->waiting[i]];
        struct reference_span best = {UINT64_MAX, UINT64_MAX, job->processors};
        for (size_t k = 0; k <= count; k++) {
            uint64_t from = k == count ? r->now : spans[k].until;
            struct reference_span span = {from, from + job->limit, job->processors};
            if (from < best.from && reference_span_fits(spans, count, &span, total))
                best = span;
        }
        spans[count++] = best;
        if (best.from == r->now)
            reference_start(r, i);
        else
            i++;
    }
    mem_free(spans);
}

static inline void reference_end_due(struct reference *r)
{
    size_t kept = 0;
    for (size_t i = 0; i < r->running_count; i++) {
        const struct reference_job *job = &r->jobs[r->running[i]];
        if (job->start + job->run <= r->now)
            r->free += job->processors;
        else
            r->running[kept++] = r->running[i];
    }
    r->running_count = kept;
}

/* Runs all jobs to their ends; fills in `start`. */
static inline void reference_run(enum reference_rule rule, uint64_t processors,
                                 struct reference_job *jobs, size_t count)
{
    struct reference r = {.jobs = jobs, .count = count, .free = processors};
    r.waiting = mem_array(count + 1, sizeof *r.waiting);
    r.running = mem_array(count + 1, sizeof *r.running);
    for (size_t i = 0; i < count; i++)
        jobs[i].start = UINT64_MAX;
    size_t submitted = 0;
    while (submitted < count || r.running_count) {
        uint64_t next = submitted < count ? jobs[submitted].submit : UINT64_MAX;
        for (size_t i = 0; i < r.running_count; i++) {
            const struct reference_job *job = &jobs[r.running[i]];
            next = min_u64(next, job->start + job->run);
        }
        r.now = next;
        reference_end_due(&r);
        while (submitted < count && jobs[submitted].submit <= r.now)
            r.waiting[r.waiting_count++] = submitted++;
        if (rule == REFERENCE_FCFS)
            reference_start_heads(&r);
        else if (rule == REFERENCE_EASY)
            reference_easy(&r);
        else
            reference_conservative(&r, processors);
    }
    mem_free(r.waiting);
    mem_free(r.running);
}

#endif
