/* loop.c - the event loop; see loop.h.
 *
 * zmq_poll waits for ZeroMQ sockets and descriptors alike. Watches removed during a pass stay in
 * the array as NULL until its end, so that indices stay those of the poll items. Timers are few
 * (LOOP_TIMERS_MAX) and searched linearly: dozens of entries beat a heap's bookkeeping. */
#include "common/net/loop.h"

#include "common/base/clock.h"
#include "common/base/mem.h"

#include <errno.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include <zmq.h>

#define LOOP_TIMERS_MAX  4096u /* a few per connection, attempt and child of one daemon */
#define LOOP_SIGNALS_MAX 16u

struct loop_watch {
    struct loop *loop;
    void *socket; /* ZeroMQ socket, or NULL for fd */
    int fd;
    unsigned events;
    loop_ready_fn *ready;
    void *user;
};

struct signal_entry {
    int number;
    loop_signal_fn *fire;
    void *user;
};

struct loop {
    void *context;
    struct loop_watch **watches; /* in order of adding; NULL: removed during this pass */
    size_t watch_count, watch_capacity;
    zmq_pollitem_t *items;
    size_t item_capacity;
    struct loop_timer **timers; /* unordered */
    size_t timer_count, timer_capacity;
    uint64_t timer_order;
    struct signal_entry signals[LOOP_SIGNALS_MAX];
    size_t signal_count;
    sigset_t signal_mask;
    int signal_fd;
    loop_timer_fn *idle;
    void *idle_user;
    bool in_pass;
    bool stopped;
};

struct loop *loop_new(void)
{
    struct loop *loop = mem_zalloc(sizeof *loop);
    loop->context = zmq_ctx_new();
    CHECK(loop->context);
    zmq_ctx_set(loop->context, ZMQ_BLOCKY, 0);
    loop->signal_fd = -1;
    sigemptyset(&loop->signal_mask);
    return loop;
}

void loop_free(struct loop *loop)
{
    if (!loop)
        return;
    CHECK(!loop->in_pass);
    for (size_t i = 0; i < loop->timer_count; i++)
        loop->timers[i]->loop = NULL;
    for (size_t i = 0; i < loop->watch_count; i++)
        mem_free(loop->watches[i]);
    if (loop->signal_fd >= 0) {
        close(loop->signal_fd);
        sigprocmask(SIG_UNBLOCK, &loop->signal_mask, NULL);
    }
    while (zmq_ctx_term(loop->context) < 0 && errno == EINTR)
        continue;
    mem_free(loop->timers);
    mem_free(loop->watches);
    mem_free(loop->items);
    mem_free(loop);
}

void *loop_context(struct loop *loop)
{
    return loop->context;
}

/* ---- watches ------------------------------------------------------------------------------ */

static struct loop_watch *watch_add(struct loop *loop, struct loop_watch watch)
{
    struct loop_watch *copy = mem_alloc(sizeof *copy);
    *copy = watch;
    VEC_RESERVE(loop->watches, loop->watch_count, loop->watch_capacity);
    loop->watches[loop->watch_count++] = copy;
    return copy;
}

struct loop_watch *loop_add_fd(struct loop *loop, int fd, unsigned events, loop_ready_fn *ready,
                               void *user)
{
    CHECK(fd >= 0);
    return watch_add(loop, (struct loop_watch){loop, NULL, fd, events, ready, user});
}

struct loop_watch *loop_add_socket(struct loop *loop, void *socket, unsigned events,
                                   loop_ready_fn *ready, void *user)
{
    CHECK(socket);
    return watch_add(loop, (struct loop_watch){loop, socket, -1, events, ready, user});
}

void loop_watch_set(struct loop_watch *watch, unsigned events)
{
    watch->events = events;
}

static void watches_compact(struct loop *loop)
{
    size_t kept = 0;
    for (size_t i = 0; i < loop->watch_count; i++)
        if (loop->watches[i])
            loop->watches[kept++] = loop->watches[i];
    loop->watch_count = kept;
}

void loop_remove(struct loop_watch *watch)
{
    if (!watch)
        return;
    struct loop *loop = watch->loop;
    size_t i = 0;
    while (i < loop->watch_count && loop->watches[i] != watch)
        i++;
    CHECK(i < loop->watch_count);
    loop->watches[i] = NULL;
    mem_free(watch);
    if (!loop->in_pass)
        watches_compact(loop);
}

/* ---- timers ------------------------------------------------------------------------------- */

void loop_timer_start(struct loop *loop, struct loop_timer *timer, uint64_t after_ms)
{
    CHECK(timer->fire);
    loop_timer_stop(timer);
    CHECK(loop->timer_count < LOOP_TIMERS_MAX);
    timer->at_ms = clock_steady_ms() + after_ms;
    timer->order = ++loop->timer_order;
    timer->loop = loop;
    VEC_RESERVE(loop->timers, loop->timer_count, loop->timer_capacity);
    loop->timers[loop->timer_count++] = timer;
}

void loop_timer_stop(struct loop_timer *timer)
{
    struct loop *loop = timer->loop;
    if (!loop)
        return;
    size_t i = 0;
    while (i < loop->timer_count && loop->timers[i] != timer)
        i++;
    CHECK(i < loop->timer_count);
    loop->timers[i] = loop->timers[--loop->timer_count];
    timer->loop = NULL;
}

static struct loop_timer *timer_first(const struct loop *loop)
{
    struct loop_timer *first = NULL;
    for (size_t i = 0; i < loop->timer_count; i++) {
        struct loop_timer *timer = loop->timers[i];
        if (!first || timer->at_ms < first->at_ms ||
            (timer->at_ms == first->at_ms && timer->order < first->order))
            first = timer;
    }
    return first;
}

/* Fires what was due when the pass began: a timer that restarts itself with 0 ms must not keep
 * the sockets waiting. */
static bool timers_fire(struct loop *loop)
{
    uint64_t now = clock_steady_ms(), newest = loop->timer_order;
    bool fired = false;
    struct loop_timer *timer;
    while ((timer = timer_first(loop)) && timer->at_ms <= now && timer->order <= newest) {
        loop_timer_stop(timer);
        timer->fire(timer->user);
        fired = true;
    }
    return fired;
}

/* ---- signals ------------------------------------------------------------------------------ */

static void signals_ready(void *user, unsigned events)
{
    struct loop *loop = user;
    struct signalfd_siginfo info;
    (void)events;
    while (read(loop->signal_fd, &info, sizeof info) == (ssize_t)sizeof info)
        for (size_t i = 0; i < loop->signal_count; i++)
            if (loop->signals[i].number == (int)info.ssi_signo)
                loop->signals[i].fire(loop->signals[i].user, (int)info.ssi_signo);
}

int loop_add_signal(struct loop *loop, int signal_number, loop_signal_fn *fire, void *user,
                    struct err *err)
{
    CHECK(loop->signal_count < LOOP_SIGNALS_MAX);
    sigaddset(&loop->signal_mask, signal_number);
    int fd = signalfd(loop->signal_fd, &loop->signal_mask, SFD_NONBLOCK | SFD_CLOEXEC);
    if (fd < 0)
        return err_errno(err, "waiting for signal %d", signal_number);
    if (sigprocmask(SIG_BLOCK, &loop->signal_mask, NULL) < 0)
        return err_errno(err, "blocking signal %d", signal_number);
    if (loop->signal_fd < 0) {
        loop->signal_fd = fd;
        loop_add_fd(loop, fd, LOOP_READ, signals_ready, loop);
    }
    loop->signals[loop->signal_count++] = (struct signal_entry){signal_number, fire, user};
    return 0;
}

void loop_signals_reset(void)
{
    struct sigaction action = {.sa_handler = SIG_DFL};
    for (int number = 1; number < NSIG; number++)
        sigaction(number, &action, NULL); /* fails for KILL and STOP, as it should */
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* ---- passes ------------------------------------------------------------------------------- */

void loop_set_idle(struct loop *loop, loop_timer_fn *idle, void *user)
{
    loop->idle = idle;
    loop->idle_user = user;
}

static void items_fill(struct loop *loop)
{
    if (loop->item_capacity < loop->watch_count) {
        loop->item_capacity = 2 * loop->watch_count;
        loop->items = mem_grow(loop->items, loop->item_capacity, sizeof *loop->items);
    }
    for (size_t i = 0; i < loop->watch_count; i++) {
        const struct loop_watch *watch = loop->watches[i];
        short events = 0;
        if (watch->events & LOOP_READ)
            events |= ZMQ_POLLIN;
        if (watch->events & LOOP_WRITE)
            events |= ZMQ_POLLOUT;
        loop->items[i] = (zmq_pollitem_t){watch->socket, watch->fd, events, 0};
    }
}

static unsigned events_of(short revents)
{
    unsigned events = 0;
    if (revents & ZMQ_POLLIN)
        events |= LOOP_READ;
    if (revents & ZMQ_POLLOUT)
        events |= LOOP_WRITE;
    if (revents & ZMQ_POLLERR)
        events |= LOOP_ERROR;
    return events;
}

/* Waits at most wait_ms and runs the callbacks of what is ready. Returns how many, or -1. */
static int poll_dispatch(struct loop *loop, long wait_ms, struct err *err)
{
    items_fill(loop);
    size_t count = loop->watch_count; /* callbacks may add more: those wait for the next pass */
    int ready = zmq_poll(loop->items, (int)count, wait_ms);
    if (ready < 0 && errno == EINTR)
        return 0;
    if (ready < 0)
        return err_errno(err, "waiting for sockets");
    loop->in_pass = true;
    for (size_t i = 0; ready > 0 && i < count; i++) {
        unsigned events = events_of(loop->items[i].revents);
        if (events && loop->watches[i])
            loop->watches[i]->ready(loop->watches[i]->user, events);
    }
    loop->in_pass = false;
    watches_compact(loop);
    return ready;
}

static long wait_until_timer(const struct loop *loop, uint64_t max_wait_ms)
{
    const struct loop_timer *timer = timer_first(loop);
    uint64_t wait_ms = min_u64(max_wait_ms, 60000);
    if (timer) {
        uint64_t now = clock_steady_ms();
        wait_ms = min_u64(wait_ms, timer->at_ms > now ? timer->at_ms - now : 0);
    }
    return (long)wait_ms;
}

int loop_once(struct loop *loop, uint64_t max_wait_ms, struct err *err)
{
    CHECK(!loop->in_pass);
    loop->in_pass = true;
    bool fired = timers_fire(loop);
    loop->in_pass = false;
    watches_compact(loop);
    int ready = poll_dispatch(loop, 0, err);
    if (ready != 0 || fired)
        return ready < 0 ? -1 : 0;
    if (loop->idle)
        loop->idle(loop->idle_user);
    if (loop->stopped)
        return 0;
    return poll_dispatch(loop, wait_until_timer(loop, max_wait_ms), err) < 0 ? -1 : 0;
}

int loop_run(struct loop *loop, struct err *err)
{
    loop->stopped = false;
    while (!loop->stopped)
        if (loop_once(loop, 60000, err) < 0)
            return -1;
    return 0;
}

void loop_stop(struct loop *loop)
{
    loop->stopped = true;
}
