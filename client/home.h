/* home.h - the directory of a cluster, and where its things are. Layout: README.md. */
#ifndef ATHANOR_CLIENT_HOME_H
#define ATHANOR_CLIENT_HOME_H

#include "common/base/arena.h"
#include "common/base/err.h"

#define HOME_ENDPOINTS_MAX 16u

/* `given` (an option), else ATHANOR_HOME, else the default of README.md. Absolute, in arena. */
int home_find(struct arena *arena, const char *given, const char **out,
              struct err *err) WARN_UNUSED;
/* The directory of the running program, where the daemons are; in arena. */
int home_programs(struct arena *arena, const char **out, struct err *err) WARN_UNUSED;

/* Lines of HOME/endpoints. Errors: ERR_NOT_FOUND when nothing was ever started here. */
int home_endpoints(struct arena *arena, const char *home, const char **out, size_t *out_count,
                   struct err *err) WARN_UNUSED;
/* Splits "a,b" into at most HOME_ENDPOINTS_MAX parts, added to out[*count]. */
int home_endpoints_split(struct arena *arena, const char *text, const char **out, size_t *count,
                         struct err *err) WARN_UNUSED;

/* Connection string of the database: ATHANOR_DB, else HOME/conninfo. */
int home_conninfo(struct arena *arena, const char *home, const char **out,
                  struct err *err) WARN_UNUSED;

/* Login name of the user that runs this program; in arena. */
const char *home_user(struct arena *arena);

#endif
