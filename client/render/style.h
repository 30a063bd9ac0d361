/* style.h - how to print: colours and widths for a terminal, plain text for everything else. */
#ifndef ATHANOR_CLIENT_STYLE_H
#define ATHANOR_CLIENT_STYLE_H

#include "common/base/buf.h"

#include <stdio.h>

struct style {
    bool terminal; /* cursor movement and truncation make sense */
    bool color;
    unsigned columns; /* of the terminal; 80 when unknown */
};

/* `when`: "auto", "always", "never" or NULL for auto. NO_COLOR and TERM=dumb turn auto off. */
struct style style_of(FILE *out, const char *when);

enum tint { TINT_NONE = 0, TINT_GOOD, TINT_BAD, TINT_BUSY, TINT_QUIET, TINT_STRONG, TINT_END };
/* Escape sequences, "" without colour. */
const char *tint_on(const struct style *style, enum tint tint);
const char *tint_off(const struct style *style, enum tint tint);
/* What a job, attempt or worker state looks like, by its name in any case; bad with a remark in
 * brackets behind it. */
enum tint tint_of_state(const char *state);

/* ---- text from outside -------------------------------------------------------------------- */

/* Columns that UTF-8 text takes on a terminal. Bytes that are not UTF-8 count one each. */
unsigned text_width(const char *text);
/* Adds `text` with control characters replaced: line breaks and tabs by blanks, others by '?'. At
 * most `columns` columns, the last being "…" when something is cut (0: no limit). */
void text_add_clean(struct buf *out, const char *text, unsigned columns);
/* The same for program output: '\n' and '\t' stay. */
void text_add_output(struct buf *out, const char *text, size_t length);

#endif
