/* notices.h - the outbox of notifications (migrations/, notification_*), from a thread of its own.
 *
 * Blocking, with a connection that belongs to the caller. */
#ifndef ATHANOR_STORE_NOTICES_H
#define ATHANOR_STORE_NOTICES_H

#include "common/base/arena.h"
#include "common/base/err.h"

/* Of receivers that take all of their 10 s only the first six are told within a claim's minute; the
 * rest may be told twice, under the same key. */
#define NOTICES_CLAIMED_MAX 16u

struct notices;

struct notice {
    const char *id, *kind, *target, *payload; /* kind: "webhook" or "mail"; payload: JSON */
};

/* Connects when first used, and again when the connection was lost. */
struct notices *notices_open(const char *conninfo);
void notices_close(struct notices *notices); /* NULL is fine */
/* Takes what is due, for a minute; texts in arena. Errors: ERR_CLOSED, ERR_INVALID. */
int notices_claim(struct notices *notices, struct arena *arena, struct notice *out,
                  size_t *out_count, struct err *err) WARN_UNUSED;
/* trouble NULL: it was sent; else why not, and it is tried again later. */
int notices_settle(struct notices *notices, const char *id, const char *trouble,
                   struct err *err) WARN_UNUSED;

#endif
