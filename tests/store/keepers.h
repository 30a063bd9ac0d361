/* keepers.h - a migrated database and keepers of its lease, for tests of the store. */
#ifndef ATHANOR_TESTS_STORE_KEEPERS_H
#define ATHANOR_TESTS_STORE_KEEPERS_H

#include "coordinator/store/lease.h"

#include "common/base/clock.h"
#include "coordinator/store/migrate.h"

#include "tests/lib/pg.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define LEASE_MS 60000u

static struct pg_server server;

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

static const char *migrated_database(void)
{
    const char *db = pg_database(&server);
    struct err err;
    size_t applied;

    if (migrate(db, migrations_embedded, migrations_embedded_count, &applied, &err) < 0)
        fail_msg("%s", err.text);
    return db;
}

static struct keeper *open_keeper(const char *db, uint64_t lease_ms, bool by_force)
{
    struct keeper_config config = {.conninfo = db,
                                   .endpoints = "tcp://here:7117",
                                   .version = "test",
                                   .program = migrations_embedded_count,
                                   .lease_ms = lease_ms,
                                   .by_force = by_force};
    return keeper_open(&config);
}

/* Steps until it has news. */
static enum keeper_news keeper_next(struct keeper *keeper)
{
    for (int i = 0; i < 6000; i++) {
        enum keeper_news news = keeper_step(keeper, clock_steady_ms());
        if (news != KEEPER_NOTHING)
            return news;
        struct pollfd fd = {.fd = keeper_fd(keeper),
                            .events = (short)(POLLIN | (keeper_wants_write(keeper) ? POLLOUT : 0))};
        poll(&fd, 1, 10);
    }
    fail_msg("no news within 60 s: %s", keeper_trouble(keeper));
    return KEEPER_NOTHING;
}

/* Steps until that news; others of KEEPER_FOLLOWS and KEEPER_RENEWED may come before. */
static void keeper_until(struct keeper *keeper, enum keeper_news wanted)
{
    enum keeper_news news;

    while ((news = keeper_next(keeper)) != wanted)
        assert_true(news == KEEPER_FOLLOWS || news == KEEPER_RENEWED);
}

#endif
