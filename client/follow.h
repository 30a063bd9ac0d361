/* follow.h - waiting for jobs to end: what `wait` and `submit --wait` do. */
#ifndef ATHANOR_CLIENT_FOLLOW_H
#define ATHANOR_CLIENT_FOLLOW_H

#include "client/client.h"

/* Waits until all jobs (numbers as texts) have ended: live bars on a terminal, a line per change
 * otherwise. An unreachable coordinator is waited for, up to FOLLOW_OUTAGE_MS. Returns EXIT_DONE
 * when all succeeded, EXIT_JOB_FAILED when not. */
#define FOLLOW_OUTAGE_MS 600000u
int follow_jobs(struct client *client, const char *const *ids, size_t count);

#endif
