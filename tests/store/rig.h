/* rig.h - a migrated database, the lease on it and a writer, for tests of the store. */
#ifndef ATHANOR_TESTS_STORE_RIG_H
#define ATHANOR_TESTS_STORE_RIG_H

#include "coordinator/store/writer.h"

#include "tests/store/keepers.h"

struct rig {
    const char *db;
    struct lease lease;
    struct writer *writer;
    struct effects effects;
    struct err err;
};

static void take_lease(const char *db, struct lease *out)
{
    struct keeper *keeper = open_keeper(db, LEASE_MS, true);

    keeper_until(keeper, KEEPER_TAKEN);
    *out = *keeper_lease(keeper);
    keeper_close(keeper);
}

/* Steps until an outcome, or until the writer is idle with nothing in flight. */
static enum writer_outcome pump(struct rig *rig)
{
    for (int i = 0; i < 6000; i++) {
        enum writer_outcome outcome = writer_step(rig->writer, clock_steady_ms(), &rig->err);
        if (outcome != WRITER_PENDING)
            return outcome;
        struct pollfd fd = {.fd = writer_fd(rig->writer),
                            .events =
                                (short)(POLLIN | (writer_wants_write(rig->writer) ? POLLOUT : 0))};
        poll(&fd, 1, 10);
    }
    fail_msg("no outcome within 60 s: %s", writer_trouble(rig->writer));
    return WRITER_PENDING;
}

static void until_idle(struct rig *rig)
{
    for (int i = 0; i < 6000 && !writer_is_idle(rig->writer); i++) {
        assert_int_equal(writer_step(rig->writer, clock_steady_ms(), &rig->err), WRITER_PENDING);
        struct pollfd fd = {.fd = writer_fd(rig->writer),
                            .events =
                                (short)(POLLIN | (writer_wants_write(rig->writer) ? POLLOUT : 0))};
        if (!writer_is_idle(rig->writer))
            poll(&fd, 1, 10);
    }
    assert_true(writer_is_idle(rig->writer));
}

static void rig_open(struct rig *rig)
{
    memset(rig, 0, sizeof *rig);
    rig->db = migrated_database();
    take_lease(rig->db, &rig->lease);
    rig->writer = writer_open(rig->db, &rig->lease);
    effects_init(&rig->effects);
    until_idle(rig);
}

static void rig_close(struct rig *rig)
{
    writer_close(rig->writer);
    effects_done(&rig->effects);
}

static enum writer_outcome commit(struct rig *rig)
{
    struct writer_batch batch = {.effects = &rig->effects};

    until_idle(rig);
    writer_commit(rig->writer, &batch, clock_steady_ms());
    enum writer_outcome outcome = pump(rig);
    effects_reset(&rig->effects);
    return outcome;
}

#define COMMITTED(rig)                                                                             \
    do {                                                                                           \
        if (commit(rig) != WRITER_COMMITTED)                                                       \
            fail_msg("%s", (rig)->err.text);                                                       \
    } while (0)

#endif
