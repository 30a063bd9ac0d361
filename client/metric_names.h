/* metric_names.h - metrics named on the command line: a typo must not look like "no points". */
#ifndef ATHANOR_CLIENT_METRIC_NAMES_H
#define ATHANOR_CLIENT_METRIC_NAMES_H

#include "client/client.h"

/* Checks that the job (its number `id`; `job` as people called it) has reported each of `names`.
 * EXIT_REFUSED, naming the metrics that it has, when one is missing. */
int metric_names_check(struct client *client, const char *job, const char *id,
                       const char *const *names, size_t count);
/* The names joined by commas, in the client's arena: how the queries take them. */
const char *metric_names_join(struct client *client, const char *const *names, size_t count);

#endif
