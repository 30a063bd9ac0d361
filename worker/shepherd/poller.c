/* poller.c - see poller.h. */
#include "worker/shepherd/poller.h"

#include "common/base/mem.h"

#include <errno.h>

struct poller_watch {
    struct poller *poller;
    int fd; /* -1: removed, freed at the end of the pass */
    short events;
    poller_fn *ready;
    void *user;
};

struct poller {
    struct poller_watch **watches;
    size_t count, capacity;
    struct pollfd *polled; /* as of this pass */
    size_t polled_capacity;
};

struct poller *poller_new(void)
{
    return mem_zalloc(sizeof(struct poller));
}

void poller_free(struct poller *poller)
{
    if (!poller)
        return;
    for (size_t i = 0; i < poller->count; i++)
        mem_free(poller->watches[i]);
    mem_free(poller->watches);
    mem_free(poller->polled);
    mem_free(poller);
}

struct poller_watch *poller_add(struct poller *poller, int fd, short events, poller_fn *ready,
                                void *user)
{
    struct poller_watch *watch = mem_zalloc(sizeof *watch);
    *watch = (struct poller_watch){poller, fd, events, ready, user};
    VEC_RESERVE(poller->watches, poller->count, poller->capacity);
    poller->watches[poller->count++] = watch;
    return watch;
}

void poller_set(struct poller_watch *watch, short events)
{
    watch->events = events;
}

void poller_remove(struct poller_watch *watch)
{
    if (watch)
        watch->fd = -1;
}

static void sweep_removed(struct poller *poller)
{
    size_t kept = 0;
    for (size_t i = 0; i < poller->count; i++)
        if (poller->watches[i]->fd >= 0)
            poller->watches[kept++] = poller->watches[i];
        else
            mem_free(poller->watches[i]);
    poller->count = kept;
}

int poller_wait(struct poller *poller, int timeout_ms, struct err *err)
{
    sweep_removed(poller);
    size_t count = poller->count; /* watches added by callbacks wait for the next pass */
    if (count > poller->polled_capacity) {
        poller->polled_capacity = 2 * count;
        poller->polled = mem_grow(poller->polled, poller->polled_capacity, sizeof *poller->polled);
    }
    for (size_t i = 0; i < count; i++) {
        struct poller_watch *watch = poller->watches[i];
        poller->polled[i] = (struct pollfd){watch->events ? watch->fd : -1, watch->events, 0};
    }
    int ready = poll(poller->polled, count, timeout_ms);
    if (ready < 0 && errno != EINTR)
        return err_errno(err, "poll");
    for (size_t i = 0; ready > 0 && i < count; i++) {
        struct poller_watch *watch = poller->watches[i];
        if (poller->polled[i].revents && watch->fd >= 0 && watch->events)
            watch->ready(watch->user, poller->polled[i].revents);
    }
    return 0;
}
