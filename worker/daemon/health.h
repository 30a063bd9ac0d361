/* health.h - the node's health checks: every program of a directory, one after the other. */
#ifndef ATHANOR_DAEMON_HEALTH_H
#define ATHANOR_DAEMON_HEALTH_H

#include "common/net/loop.h"
#include "common/wire/wire.h"

#define HEALTH_CHECKS_MAX 64u

struct health_config {
    struct loop *loop;
    const char *folder;           /* of the programs; "": none */
    const char *worker;           /* our name, for their environment */
    uint64_t every_ms, timeout_ms; /* of a round; of one check */
    /* Called when the verdict of any check has changed, and after the first round. text: which
     * checks fail, "" when none. */
    void (*on_change)(void *user, const char *text);
    void *user;
};

struct health;

/* The first round begins at once. NULL without a folder; the others accept that. */
struct health *health_new(const struct health_config *config);
void health_free(struct health *health);
/* A good moment, as between jobs: a round begins unless one began lately. */
void health_look(struct health *health);
/* The newest verdicts, in order of name. Lives in arena; the texts until the next round. */
struct rec_health_check *health_checks(const struct health *health, struct arena *arena,
                                       size_t *out_count);

#endif
