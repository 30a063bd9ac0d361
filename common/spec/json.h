/* json.h - canonical JSON: one text per value, so that texts can be compared and hashed.
 *
 * Keys sorted by byte, ": " and ", " as separators, numbers in the shortest form that reads back
 * the same. A float always shows a '.' or an exponent, so that it stays a float. */
#ifndef ATHANOR_SPEC_JSON_H
#define ATHANOR_SPEC_JSON_H

#include "common/base/buf.h"
#include "common/base/err.h"

#include <jansson.h>

#define JSON_DEPTH_MAX 64 /* twice what a spec's params may nest; deeper values are a CHECK */

/* Beyond this a float may come back from PostgreSQL's jsonb as an integer that no 64-bit reader
 * accepts; specs refuse such values. */
#define JSON_FLOAT_MAX 1e18

void json_put(struct buf *out, const json_t *value);
void json_put_text(struct buf *out, const char *text); /* UTF-8; with its quotes */
void json_put_float(struct buf *out, double number);   /* finite */
/* Parses one value of at most JSON_DEPTH_MAX levels; *out is the caller's (json_decref).
 * Errors: ERR_PROTOCOL with the place. */
int json_read(const char *bytes, size_t length, json_t **out, struct err *err) WARN_UNUSED;

#endif
