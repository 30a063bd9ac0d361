/* conninfo.h - a PostgreSQL connection string without its password.
 *
 * What stands among the arguments of a program is shown by ps to every account of the machine, so
 * that psql gets the password in its environment. Both forms of libpq are understood ("Connection
 * Strings" in the PostgreSQL documentation): KEYWORD=VALUE ... with quotes and backslashes, and
 * postgresql://USER:PASSWORD@HOST/DATABASE?password=... with percent codes. */
#ifndef ATHANOR_CLIENT_CONNINFO_H
#define ATHANOR_CLIENT_CONNINFO_H

#include "common/base/arena.h"
#include "common/base/err.h"

/* *out_rest means the same without a password; *out_password is decoded, NULL when there is none.
 * Both live in `arena`. Errors: ERR_INVALID, without repeating the text: it may hold a secret. */
int conninfo_split(struct arena *arena, const char *conninfo, const char **out_rest,
                   const char **out_password, struct err *err) WARN_UNUSED;

#endif
