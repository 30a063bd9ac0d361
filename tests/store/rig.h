/* rig.h - a migrated database, the lease on it and a writer, for tests of the store. */
#ifndef ATHANOR_TESTS_STORE_RIG_H
#define ATHANOR_TESTS_STORE_RIG_H

#include "coordinator/store/writer.h"

#include "common/base/clock.h"
#include "coordinator/store/migrate.h"

#include "tests/lib/pg.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define LEASE_MS 60000u

static struct pg_server server;

struct rig {
    const char *db;
    struct lease lease;
    struct writer *writer;
    struct effects effects;
    struct err err;
};

static int rig_start_server(void **state)
{
    (void)state;
    return pg_start(&server) ? 0 : 1;
}

static int rig_stop_server(void **state)
{
    (void)state;
    pg_stop(&server);
    return 0;
}

static void take_lease(const char *db, struct lease *out)
{
    struct lease_keeper *keeper;
    struct err err = {0};

    if (lease_open(db, LEASE_MS, &keeper, &err) < 0 || lease_take(keeper, true, out, &err) != 1)
        fail_msg("%s", err.text);
    lease_close(keeper);
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
    size_t applied;

    memset(rig, 0, sizeof *rig);
    rig->db = pg_database(&server);
    if (migrate(rig->db, migrations_embedded, migrations_embedded_count, &applied, &rig->err) < 0)
        fail_msg("%s", rig->err.text);
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
