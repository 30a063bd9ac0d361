/* loop.h - one thread waiting for sockets, file descriptors, timers and signals.
 *
 * Callbacks run on the thread in loop_run, one at a time, and must not block. A callback may add
 * and remove anything, itself included. One pass: due timers (earliest first, ties in order of
 * start), then ready sockets and descriptors in order of adding; when a pass found nothing more
 * to do, the idle callback runs once before the loop sleeps. */
#ifndef ATHANOR_LOOP_H
#define ATHANOR_LOOP_H

#include "common/base/err.h"

struct loop;
struct loop_watch; /* a watched socket or descriptor; owned by the loop until removed */

enum loop_event { LOOP_READ = 1, LOOP_WRITE = 2, LOOP_ERROR = 4 }; /* bits */

/* events: what is ready now. LOOP_ERROR (hang-up, error) comes also unasked; with it reading
 * the descriptor tells what happened. */
typedef void loop_ready_fn(void *user, unsigned events);
typedef void loop_timer_fn(void *user);
typedef void loop_signal_fn(void *user, int signal_number);

/* Embed one per timer; zeroed is a stopped timer. */
struct loop_timer {
    loop_timer_fn *fire;
    void *user;
    uint64_t at_ms;    /* clock_steady_ms at which it fires */
    uint64_t order;    /* tie-break */
    struct loop *loop; /* NULL while stopped */
};

struct loop *loop_new(void);
/* Removes everything left and ends the ZeroMQ context. Close peers and servers first. */
void loop_free(struct loop *loop);
/* The ZeroMQ context of this loop (one I/O thread), for sockets of peer.c and server.c. */
void *loop_context(struct loop *loop);

/* Watches a descriptor for `events`; the caller keeps owning it and must remove the watch before
 * closing it. */
struct loop_watch *loop_add_fd(struct loop *loop, int fd, unsigned events, loop_ready_fn *ready,
                               void *user);
/* Same for a ZeroMQ socket. LOOP_READ is level-triggered: called until it is drained. */
struct loop_watch *loop_add_socket(struct loop *loop, void *socket, unsigned events,
                                   loop_ready_fn *ready, void *user);
void loop_watch_set(struct loop_watch *watch, unsigned events); /* 0: errors only */
void loop_remove(struct loop_watch *watch);                     /* NULL is fine */

/* Fires once after `after_ms`; starting a running timer moves it. Set fire and user first. */
void loop_timer_start(struct loop *loop, struct loop_timer *timer, uint64_t after_ms);
void loop_timer_stop(struct loop_timer *timer);

/* Blocks the signal for the process and delivers it here (signalfd). Call before starting
 * threads or children; a child must reset its mask (loop_signals_reset) before exec. */
int loop_add_signal(struct loop *loop, int signal_number, loop_signal_fn *fire, void *user,
                    struct err *err) WARN_UNUSED;
/* In a forked child: empty signal mask and default dispositions. Async-signal-safe. */
void loop_signals_reset(void);

/* Called each time the loop is about to sleep. One per loop; NULL removes it. It may make more
 * work (send, start timers): the loop looks again before it sleeps. */
void loop_set_idle(struct loop *loop, loop_timer_fn *idle, void *user);

/* Until loop_stop. Errors: ERR_IO when polling itself fails. */
int loop_run(struct loop *loop, struct err *err) WARN_UNUSED;
/* One pass, sleeping at most max_wait_ms: for tests and for request-reply. */
int loop_once(struct loop *loop, uint64_t max_wait_ms, struct err *err) WARN_UNUSED;
void loop_stop(struct loop *loop);

#endif
