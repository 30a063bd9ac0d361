/* json_text.h - JSON of others, checked and cut into pieces without building a tree.
 *
 * Programs of users put JSON into reports. A text that PostgreSQL's jsonb refuses would fail the
 * whole batch that it travels in, again and again; so it is looked at first. No check
 * allocates or recurses. */
#ifndef ATHANOR_JSON_TEXT_H
#define ATHANOR_JSON_TEXT_H

#include "common/base/buf.h"

#define JSON_TEXT_DEPTH_MAX  64u  /* nesting; PostgreSQL itself bounds it by its stack only */
#define JSON_TEXT_NUMBER_MAX 100u /* characters of a number, of them 3 digits of exponent */

/* Strict RFC 8259 over UTF-8 within the bounds above, and what jsonb can hold: no \u0000,
 * surrogates in pairs. */
bool json_text_is_valid(const char *text, size_t length);

/* Where the piece that starts at `at` ends; NULL when there is none. Strings are not checked to be
 * UTF-8: json_text_is_valid does that. */
const char *json_text_space_end(const char *at, const char *end); /* never NULL */
const char *json_text_string_end(const char *at, const char *end);
const char *json_text_value_end(const char *at, const char *end); /* may start with space */

/* Appends any bytes as a JSON string; what is not UTF-8 or is a zero byte becomes U+FFFD. */
void json_text_quote(struct buf *out, const char *bytes, size_t length);

#endif
