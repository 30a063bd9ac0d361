/* effect.h - what a step of the core decided.
 *
 * Rows are to be made durable first; only then may the messages leave (invariant 3). The shell
 * collects the effects of many steps into one batch and calls outbox_release when the batch has
 * committed. All pointers live in the effects' arena or in the core, until effects_reset. */
#ifndef ATHANOR_CORE_EFFECT_H
#define ATHANOR_CORE_EFFECT_H

#include "common/base/arena.h"
#include "common/wire/wire.h"
#include "coordinator/rows/rows.h"

enum persist_op {
    PERSIST_INSERT = 1, /* the row is new                                         */
    PERSIST_UPDATE,     /* the mutable columns of an existing row                 */
    PERSIST_UPSERT,     /* insert, or update the mutable columns                  */
};

struct persist {
    enum row_table table;
    enum persist_op op;
    const void *row; /* struct row_<table>, copied into the arena */
};

enum address_kind { ADDRESS_WORKER = 1, ADDRESS_CLIENT };

struct outgoing {
    enum address_kind to;
    uint64_t address; /* worker_id, or the shell's token of the client's request */
    struct message message;
};

struct effects {
    struct persist *persist;
    size_t persist_count, persist_capacity;
    struct outgoing *release;
    size_t release_count, release_capacity;
    uint64_t wake_at_ms; /* next time at which a TICK is wanted; 0: none */
    struct arena arena;
};

void effects_init(struct effects *effects);
void effects_reset(struct effects *effects); /* keeps memory */
void effects_done(struct effects *effects);
/* Copies the row; texts and blobs within it are copied too. */
void effects_persist(struct effects *effects, enum row_table table, enum persist_op op,
                     const void *row);
/* Returns a zeroed message to fill; what it points to must live in effects->arena. */
struct message *effects_release(struct effects *effects, enum address_kind to, uint64_t address,
                                enum msg_tag tag);

#endif
