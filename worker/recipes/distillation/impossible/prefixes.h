/* prefixes.h - a file of what contexts begin with: a line each, as "Paris, France (MEDIA) --".
 *
 * Blanks at the ends of a line are left out, as are empty lines and those that begin with '#'. */
#ifndef ATHANOR_PREFIXES_H
#define ATHANOR_PREFIXES_H

#include "common/base/err.h"

#define PREFIXES_BYTES_MAX ((size_t)16 << 20) /* 16 MiB: some 400,000 datelines */
#define PREFIX_BYTES_MAX   1000u

struct prefixes {
    char *bytes;
    const char **items;
    size_t count;
};

/* Borrows nothing. Errors: ERR_INVALID naming the line: not UTF-8, a zero byte, too long; no line
 * at all. */
int prefixes_parse(const char *bytes, size_t length, struct prefixes *out,
                   struct err *err) WARN_UNUSED;
/* The same of a file; errors name it. */
int prefixes_read(const char *path, struct prefixes *out, struct err *err) WARN_UNUSED;
void prefixes_done(struct prefixes *prefixes); /* a zeroed struct is fine */

#endif
