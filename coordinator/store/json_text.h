/* json_text.h - whether PostgreSQL's jsonb would take a text.
 *
 * Programs of users put JSON into reports. One text that jsonb refuses would fail the whole batch
 * it travels in, again and again; so the writer looks first. */
#ifndef ATHANOR_STORE_JSON_TEXT_H
#define ATHANOR_STORE_JSON_TEXT_H

#include "common/base/buf.h"

#define JSON_TEXT_DEPTH_MAX 64u /* nesting; PostgreSQL itself bounds it by stack only */

/* Strict RFC 8259 over UTF-8, no \u0000, surrogates only in pairs, numbers within jsonb's
 * numeric (at most 1000 characters, exponents of at most four digits). No recursion. */
bool json_text_is_valid(const char *text, size_t length);

/* Appends any bytes as a JSON string; what is not UTF-8 or is a zero byte becomes U+FFFD. */
void json_text_quote(struct buf *out, const char *bytes, size_t length);

#endif
