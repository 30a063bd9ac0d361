/* lease.h - who leads: taking, keeping and losing the lease, without blocking the loop.
 *
 * A keeper is a connection of its own (migrations/0011_coordinators.sql says why). While it follows
 * it asks KEEPER_FOLLOW_MS apart who leads, and takes the lease when nobody holds it; a success
 * raises the epoch, at least to the milliseconds since 1970, so that it rises also across a
 * restored database; the database refuses every write of an older one. While it leads it renews,
 * tenure_renew_ms apart. A server that does not answer within the lease is asked anew on another
 * connection. By force (--single) takes the lease of whoever holds it. */
#ifndef ATHANOR_STORE_LEASE_H
#define ATHANOR_STORE_LEASE_H

#include "common/base/err.h"

#define LEASE_HOLDER_SIZE    128
#define LEASE_ENDPOINTS_SIZE 1024
#define LEASE_KEYS_SIZE      64

#define KEEPER_FOLLOW_MS      150u
#define KEEPER_BACKOFF_MIN_MS 50u
#define KEEPER_BACKOFF_MAX_MS 400u

struct lease {
    char holder[LEASE_HOLDER_SIZE]; /* host:pid:random, unique for each process */
    uint64_t epoch;                 /* ours, once taken */
    uint64_t batch;                 /* newest batch written under any epoch */
    uint64_t lease_ms;
    uint64_t cluster_id;
};

struct keeper_config {
    const char *conninfo;
    const char *endpoints; /* where others reach us, separated by commas */
    const char *version;
    uint64_t program; /* the last migration that this program has: who would misread a job of a
                         newer one does not lead (migrations/0034_fit.sql) */
    uint64_t lease_ms;
    bool by_force;
};

enum keeper_news {
    KEEPER_NOTHING = 0,
    KEEPER_FOLLOWS, /* an answer: keeper_leader tells who leads */
    KEEPER_TAKEN,   /* we lead: keeper_lease, counted from keeper_sent_ms */
    KEEPER_RENEWED, /* still, counted from keeper_sent_ms */
    KEEPER_LOST,    /* another leads, or led since; the keeper follows again */
};

/* What the newest answer said. */
struct keeper_leader {
    char holder[LEASE_HOLDER_SIZE]; /* "": nobody leads */
    char endpoints[LEASE_ENDPOINTS_SIZE];
    uint64_t epoch;             /* the newest that anybody led */
    char keys[LEASE_KEYS_SIZE]; /* changes with the enrolled keys */
};

struct keeper;

/* Begins to connect, and to follow. */
struct keeper *keeper_open(const struct keeper_config *config);
void keeper_close(struct keeper *keeper);

/* Goes on as far as possible without blocking; to be called until KEEPER_NOTHING. */
enum keeper_news keeper_step(struct keeper *keeper, uint64_t now_ms) WARN_UNUSED;
/* Stops renewing: somebody found that the lease is lost. */
void keeper_follow(struct keeper *keeper);
/* Asks at once instead of at the next time. */
void keeper_hurry(struct keeper *keeper);

const struct lease *keeper_lease(const struct keeper *keeper);
const struct keeper_leader *keeper_leader(const struct keeper *keeper);
uint64_t keeper_sent_ms(const struct keeper *keeper); /* of the request last answered */
/* Why there is no answer; "" while all is well. */
const char *keeper_trouble(const struct keeper *keeper);

/* What to wait for. fd -1: nothing but the time. It may change with each keeper_step. */
int keeper_fd(const struct keeper *keeper);
bool keeper_wants_write(const struct keeper *keeper);
uint64_t keeper_wake_ms(const struct keeper *keeper);
/* The backend's process id, for tests; 0 while not connected. */
int keeper_backend_pid(const struct keeper *keeper);

/* At a clean end: the lease is free at once, and we are no standby any more. Blocking. */
int lease_leave(const char *conninfo, const struct lease *lease, struct err *err) WARN_UNUSED;

#endif
