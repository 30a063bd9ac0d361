/* outbox.h - effects wait here until the commit that covers them.
 *
 * Two sets of effects: one that core_step fills, one whose rows are being committed. outbox_begin
 * turns the first into the second; outbox_release, called when that batch has committed, sends its
 * messages, and nothing else sends what the core decided (invariant 3). Bounded: when
 * outbox_is_full the shell stops reading sockets, which is how back-pressure reaches peers. */
#ifndef ATHANOR_SHELL_OUTBOX_H
#define ATHANOR_SHELL_OUTBOX_H

#include "common/net/server.h"
#include "coordinator/core/effect.h"

/* About a second of PostgreSQL's work: 100,000 metric points or 20,000 jobs. */
#define OUTBOX_ROWS_MAX  200000u
#define OUTBOX_BYTES_MAX ((size_t)256 << 20)

struct outbox {
    struct effects sets[2];
    int filling;
    bool flying;       /* the other set's batch is not committed yet */
    uint64_t begun;    /* batches begun; the filling one will be begun + 1 */
    uint64_t since_ms; /* when the filling set got its first entry; 0: empty */
};

void outbox_init(struct outbox *outbox);
void outbox_done(struct outbox *outbox);
struct effects *outbox_filling(struct outbox *outbox);
bool outbox_is_empty(const struct outbox *outbox); /* the filling set */
bool outbox_has_rows(const struct outbox *outbox);
bool outbox_is_full(const struct outbox *outbox);
/* Requires !flying. Returns the effects to commit, valid until outbox_release. */
const struct effects *outbox_begin(struct outbox *outbox);
/* The batch begun last is durable: sends its messages. */
void outbox_release(struct outbox *outbox, struct server *server);

/* Sends an answer that states only what is durable already: a TABLE, a refusal. A peer that went
 * away is no error; an answer that is too large becomes a refusal. */
void outbox_answer(struct server *server, uint64_t peer, uint64_t request_seq,
                   const struct message *message);

#endif
