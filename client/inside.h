/* inside.h - a program of ours within a job: exec and attach. */
#ifndef ATHANOR_CLIENT_INSIDE_H
#define ATHANOR_CLIENT_INSIDE_H

#include "client/client.h"

#define INSIDE_BROKEN 255 /* the session ended before the program did, as ssh says it */

struct inside {
    const char *job;
    uint64_t rank;
    const char *const *arguments; /* the program first */
    size_t argument_count;
    bool terminal; /* our terminal in raw mode is the program's */
    int detach;    /* byte that leaves it; -1: none */
};

/* Runs it to its end: returns its exit code, 128 and the signal's number, INSIDE_BROKEN, or, when
 * it did not begin, an enum exit_code, with everything printed. The terminal is restored on every
 * way out but SIGKILL. */
int inside_run(struct client *client, const struct inside *inside);

#endif
