/* poller.h - waiting for descriptors in one thread: the shepherd's loop without ZeroMQ.
 *
 * common/net/loop.h would do the same, but loads ZeroMQ into every attempt. */
#ifndef ATHANOR_SHEPHERD_POLLER_H
#define ATHANOR_SHEPHERD_POLLER_H

#include "common/base/err.h"

#include <poll.h>

struct poller;
struct poller_watch;

/* events: POLLIN, POLLOUT, POLLHUP, POLLERR that are ready. May add and remove watches. */
typedef void poller_fn(void *user, short events);

struct poller *poller_new(void);
void poller_free(struct poller *poller);
struct poller_watch *poller_add(struct poller *poller, int fd, short events, poller_fn *ready,
                                void *user);
/* With 0 the descriptor is not looked at, not even for hang-ups. */
void poller_set(struct poller_watch *watch, short events);
void poller_remove(struct poller_watch *watch); /* NULL is fine; close the descriptor afterwards */
/* Waits at most timeout_ms (-1: for ever) and calls what is ready. Errors: ERR_IO. */
int poller_wait(struct poller *poller, int timeout_ms, struct err *err) WARN_UNUSED;

#endif
