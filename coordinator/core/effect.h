/* effect.h - what steps of the core decided.
 *
 * Rows are to be made durable first; only then may the messages leave (invariant 3). The shell
 * gathers the effects of many steps into one batch and releases it when the batch has committed.
 * core_step appends; everything pointed to lives in the effects' arena until effects_reset.
 * Rows are in the order of the decisions: of several UPDATEs of one row the last one counts. */
#ifndef ATHANOR_CORE_EFFECT_H
#define ATHANOR_CORE_EFFECT_H

#include "common/base/arena.h"
#include "common/wire/wire.h"
#include "coordinator/rows/rows.h"

enum persist_op {
    PERSIST_INSERT = 1, /* the row is new                                                  */
    PERSIST_UPDATE,     /* mutable columns of an existing row; only these and keys are set  */
    PERSIST_UPSERT,     /* insert, or update the mutable columns                           */
};

struct persist {
    enum row_table table;
    enum persist_op op;
    const void *row; /* struct row_<table> in the arena */
};

enum address_kind { ADDRESS_WORKER = 1, ADDRESS_CLIENT };

struct outgoing {
    enum address_kind to; /* for statistics and queue policy; the address is `peer` */
    uint64_t peer;        /* as given in the event of the request, or in the worker's join */
    struct message message;
};

struct effects {
    struct persist *persist;
    size_t persist_count, persist_capacity;
    struct outgoing *release;
    size_t release_count, release_capacity;
    uint64_t wake_at_ms; /* of the newest step: steady time at which a TICK is wanted; 0: none.
                            Not later than the step's now_ms: as soon as input is drained. */
    struct arena arena;
};

void effects_init(struct effects *effects);
void effects_reset(struct effects *effects); /* keeps memory */
void effects_done(struct effects *effects);
/* Copies the row, and the texts and blobs within it. */
void effects_persist(struct effects *effects, enum row_table table, enum persist_op op,
                     const void *row);
/* Returns a zeroed message to fill, valid until the next call; what it points to must live in
 * effects->arena. */
struct message *effects_release(struct effects *effects, enum address_kind to, uint64_t peer,
                                enum msg_tag tag);

#endif
