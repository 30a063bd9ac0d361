/* threads.h - the threads of one rank. Work is split by fixed shares, so results depend on
 * the thread count only, never on timing. */
#ifndef ATHANOR_ENGINE_THREADS_H
#define ATHANOR_ENGINE_THREADS_H

#include "common/base/err.h"

struct threads;

/* `count` includes the calling thread; 1 starts none. Errors: ERR_LIMIT (the system). */
int threads_new(unsigned count, struct threads **out, struct err *err) WARN_UNUSED;
void threads_free(struct threads *threads);
unsigned threads_count(const struct threads *threads);

/* Calls body(argument, from, to, thread) for consecutive shares of 0..items, each at least
 * `least` long, one per thread, and waits. Not to be nested. */
typedef void (*threads_body)(void *argument, int64_t from, int64_t to, unsigned thread);
void threads_run(struct threads *threads, int64_t items, int64_t least, threads_body body,
                 void *argument);

#endif
