/* configure.h - the verbs that change what may be used by whom: one CONFIGURE message each. */
#ifndef ATHANOR_CLIENT_CONFIGURE_H
#define ATHANOR_CLIENT_CONFIGURE_H

#include "client/client.h"

/* How the value of an option becomes that of a setting. */
enum setting_kind {
    SETTING_TEXT = 1, /* as it is */
    SETTING_DURATION, /* "2h" or "none": milliseconds */
    SETTING_TIME,     /* "2026-03-01 12:00", "12:00", "+2h", "now": microseconds since 1970 */
};

struct setting_option {
    const char *option, *setting;
    enum setting_kind kind;
};

/* Adds the options that were given to `pairs`. EXIT_USAGE when a value cannot be read. */
int configure_settings(struct client *client, const struct args *args,
                       const struct setting_option *table, size_t count, struct pairs *pairs);
/* Sends CONFIGURE and prints what was done. */
int configure_send(struct client *client, const char *table, const char *action, const char *name,
                   const struct pairs *settings);
/* Microseconds since 1970 of a point in time as people write it, in the local time zone unless it
 * ends with Z. Errors: ERR_INVALID with what is accepted. */
int time_parse(const char *text, uint64_t now_us, uint64_t *out_us, struct err *err) WARN_UNUSED;

/* Things with a name that are listed, set and removed: `athanor KIND [ls|set|rm [NAME]]`. */
struct configured {
    const char *kind, *list, *none; /* "queue", "queues", "no queues" */
    const struct setting_option *settings;
    size_t setting_count;
    const struct heading *columns;
    size_t column_count;
};
int configured_run(struct client *client, const struct args *args, const struct configured *what);

#endif
