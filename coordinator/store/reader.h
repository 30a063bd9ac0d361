/* reader.h - reading history without blocking the loop or the writer.
 *
 * A few connections of their own (lanes), read-only and with a statement timeout, so that a heavy
 * question delays other questions at most, never a commit. Requests wait in order; each is answered
 * exactly once through the callbacks, from within reader_step. A request whose connection broke is
 * asked again, at most READER_TRIES times. */
#ifndef ATHANOR_STORE_READER_H
#define ATHANOR_STORE_READER_H

#include "coordinator/core/core.h"
#include "coordinator/store/query.h"

#define READER_LANES     2u
#define READER_QUEUE_MAX 1024u /* requests waiting; one more is refused with ERR_LIMIT */
#define READER_TRIES     5u

struct reader;

struct reader_events {
    void *user;
    /* table is NULL when err says why there is none. Valid during the call. */
    void (*on_table)(void *user, uint64_t ticket, const struct msg_table *table,
                     const struct err *err);
    void (*on_found)(void *user, uint64_t ticket, const struct event_found *found,
                     const struct err *err);
    void (*on_maintained)(void *user, const struct err *err); /* err NULL: done */
    /* A lane's descriptor is about to be closed: stop watching it. */
    void (*on_closing)(void *user, size_t lane);
};

/* Connects when first asked. */
struct reader *reader_open(const char *conninfo, const struct reader_events *events);
void reader_close(struct reader *reader);

/* A query of query.def. Errors: those of query_bind, ERR_LIMIT; then nothing is answered. */
int reader_query(struct reader *reader, uint64_t ticket, const struct msg_query *query,
                 enum role role, struct err *err) WARN_UNUSED;
/* What core_lookups asked for. Errors: ERR_LIMIT. */
int reader_lookup(struct reader *reader, uint64_t ticket, const struct core_lookup *lookups,
                  size_t count, struct err *err) WARN_UNUSED;
/* Makes partitions ahead, and drops metrics and logs older than keep_ms (0: keeps all). Gives up
 * rather than wait for somebody's long query. Errors: ERR_LIMIT. */
int reader_maintain(struct reader *reader, uint64_t keep_ms, struct err *err) WARN_UNUSED;

void reader_step(struct reader *reader, uint64_t now_ms);

int reader_fd(const struct reader *reader, size_t lane); /* -1: not connected */
bool reader_wants_write(const struct reader *reader, size_t lane);
uint64_t reader_wake_ms(const struct reader *reader); /* 0: none */

#endif
