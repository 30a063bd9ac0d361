/* timer.h - what is due when: a binary heap of timers embedded in their owners.
 *
 * Equal times fire in order of (kind, id), so that the order is the same in every run. */
#ifndef ATHANOR_CORE_TIMER_H
#define ATHANOR_CORE_TIMER_H

#include "common/base/base.h"

enum timer_kind {
    TIMER_WORKER = 1,
    TIMER_ATTEMPT,
    TIMER_JOB,
    TIMER_REASONS,
    TIMER_WINDOWS,
};

struct timer {
    uint64_t due_ms;
    uint64_t id; /* of the owner */
    enum timer_kind kind;
    uint32_t slot; /* place in the heap, from 1; 0: not set */
};

struct timers {
    struct timer **heap; /* slots from 1 */
    uint32_t count, capacity;
};

/* Sets or moves the timer; due_ms 0 clears it. */
void timer_set(struct timers *timers, struct timer *timer, uint64_t due_ms);
void timer_clear(struct timers *timers, struct timer *timer);
struct timer *timer_first(const struct timers *timers); /* NULL when none is set */
void timers_done(struct timers *timers);

#endif
