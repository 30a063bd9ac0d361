/* pilot.h - one look at Slurm and the cluster, and what follows from it.
 *
 * The truth about allocations is squeue's, about workers the coordinator's; what the pilot keeps
 * between two looks (back-offs, counts) is in status.json below `dir` and read again at a start, so
 * that it may be killed at any time. */
#ifndef ATHANOR_PILOT_PILOT_H
#define ATHANOR_PILOT_PILOT_H

#include "client/client.h"
#include "client/pilot/pool.h"

struct pilot {
    struct client *client;
    const struct pilot_config *config;
    const char *config_file;
    struct pool *pools; /* as in config */
    char trouble[1000]; /* of the newest look; "" */
};

int pilot_open(struct client *client, const struct pilot_config *config, struct pilot *out,
               struct err *err) WARN_UNUSED;
void pilot_close(struct pilot *pilot);
/* Never fails for good: what went wrong is in `trouble`, in the pools and in the log. */
void pilot_look(struct pilot *pilot);

/* status.c */
const char *status_file(const struct pilot_config *config, struct arena *arena);
int status_write(const struct pilot *pilot, struct err *err) WARN_UNUSED;
/* Back-offs and counts of before; a missing file is none. */
void status_recall(struct pilot *pilot);
/* As a table with a row per pool, in arena. */
int status_table(const struct pilot_config *config, struct arena *arena, struct msg_table *out,
                 struct err *err) WARN_UNUSED;

#endif
