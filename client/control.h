/* control.h - the verbs that change jobs and workers: one CONTROL message each. */
#ifndef ATHANOR_CLIENT_CONTROL_H
#define ATHANOR_CLIENT_CONTROL_H

#include "client/client.h"

#define CONTROL_JOB_OPTIONS                                                                        \
    {"experiment", 0, VALUE_TEXT, "NAME", "all jobs of this experiment", true},                    \
    {                                                                                              \
        "reason", 0, VALUE_TEXT, "TEXT", "kept with the change, for others to read", false         \
    }

/* Sends `action` for the jobs named by the words and --experiment. */
int control_jobs(struct client *client, const struct args *args, const char *action);
/* Sends `action` for the workers named by the words. */
int control_workers(struct client *client, const struct args *args, const char *action);

#endif
