/* parse.h - numbers, durations and sizes as people write them.
 *
 * Durations and sizes need a unit, because bare numbers surprise ("24:00").
 *   duration: 500ms 30s 20m 2h 3d, combined as 1h30m
 *   size:     512B 64KiB 1GiB 2TiB, and decimal KB MB GB TB */
#ifndef ATHANOR_PARSE_H
#define ATHANOR_PARSE_H

#include "common/base/err.h"

/* Whole text must match. Errors: ERR_INVALID, naming the text and what is accepted. */
int parse_u64(const char *text, uint64_t *out, struct err *err) WARN_UNUSED;
int parse_i64(const char *text, int64_t *out, struct err *err) WARN_UNUSED;
int parse_f64(const char *text, double *out, struct err *err) WARN_UNUSED; /* finite only */
int parse_bool(const char *text, bool *out, struct err *err) WARN_UNUSED;  /* true, false */
int parse_duration_ms(const char *text, uint64_t *out, struct err *err) WARN_UNUSED;
int parse_size_bytes(const char *text, uint64_t *out, struct err *err) WARN_UNUSED;

#define PARSE_TEXT_SIZE 32
/* Shortest exact text that the parsers above read back: "1h30m", "1536MiB". */
const char *format_duration_ms(uint64_t ms, char out[PARSE_TEXT_SIZE]);
const char *format_size_bytes(uint64_t bytes, char out[PARSE_TEXT_SIZE]);
/* For people: rounded to three digits, "1.50 GiB", "2.3 h". */
const char *format_size_short(uint64_t bytes, char out[PARSE_TEXT_SIZE]);
const char *format_duration_short(uint64_t ms, char out[PARSE_TEXT_SIZE]);

bool text_is_utf8(const char *bytes, size_t length);
/* Edits (insert, delete, replace, swap) between two short texts; for nearest-name hints. */
unsigned text_distance(const char *a, const char *b);

#endif
