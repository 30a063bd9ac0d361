/* timer.c - the heap; see timer.h. */
#include "coordinator/core/timer.h"

#include "common/base/mem.h"

static bool is_before(const struct timer *a, const struct timer *b)
{
    if (a->due_ms != b->due_ms)
        return a->due_ms < b->due_ms;
    if (a->kind != b->kind)
        return a->kind < b->kind;
    return a->id < b->id;
}

static void put(struct timers *timers, struct timer *timer, uint32_t slot)
{
    timers->heap[slot] = timer;
    timer->slot = slot;
}

static void sift_up(struct timers *timers, struct timer *timer)
{
    uint32_t slot = timer->slot;
    for (; slot > 1 && is_before(timer, timers->heap[slot / 2]); slot /= 2)
        put(timers, timers->heap[slot / 2], slot);
    put(timers, timer, slot);
}

static void sift_down(struct timers *timers, struct timer *timer)
{
    uint32_t slot = timer->slot;
    for (;;) {
        uint32_t child = 2 * slot;
        if (child > timers->count)
            break;
        if (child < timers->count && is_before(timers->heap[child + 1], timers->heap[child]))
            child++;
        if (!is_before(timers->heap[child], timer))
            break;
        put(timers, timers->heap[child], slot);
        slot = child;
    }
    put(timers, timer, slot);
}

void timer_set(struct timers *timers, struct timer *timer, uint64_t due_ms)
{
    if (due_ms == 0) {
        timer_clear(timers, timer);
        return;
    }
    if (timer->slot == 0) {
        if (timers->count + 1 >= timers->capacity) {
            timers->capacity = timers->capacity ? 2 * timers->capacity : 64;
            timers->heap = mem_grow(timers->heap, timers->capacity, sizeof *timers->heap);
        }
        put(timers, timer, ++timers->count);
    }
    timer->due_ms = due_ms;
    sift_up(timers, timer);
    sift_down(timers, timer);
}

void timer_clear(struct timers *timers, struct timer *timer)
{
    if (timer->slot == 0)
        return;
    uint32_t slot = timer->slot;
    struct timer *last = timers->heap[timers->count--];
    timer->slot = 0;
    if (last == timer)
        return;
    put(timers, last, slot);
    sift_up(timers, last);
    sift_down(timers, last);
}

struct timer *timer_first(const struct timers *timers)
{
    return timers->count ? timers->heap[1] : NULL;
}

void timers_done(struct timers *timers)
{
    mem_free(timers->heap);
    *timers = (struct timers){0};
}
