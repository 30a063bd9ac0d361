/* spans.h - what is to be cut out of a text or masked in it, gathered first and applied at once.
 *
 * Rules look at the text as it was read and leave spans of bytes; the union of the cuts is taken
 * (dolma's mixer skips a span that begins inside an earlier one, so that its tail survives). A
 * mask wins over cuts: unless it lies wholly within them, all of its bytes are replaced, so that
 * no cut leaves half a number behind. */
#ifndef ATHANOR_WEB_SPANS_H
#define ATHANOR_WEB_SPANS_H

#include "common/base/buf.h"

struct span {
    size_t begin, end; /* bytes */
    const char *mask;  /* NULL: cut; else a constant text to put in its place */
};

struct spans { /* a zeroed struct is empty */
    struct span *items;
    size_t count, capacity;
};

void spans_add(struct spans *spans, size_t begin, size_t end, const char *mask);
void spans_clear(struct spans *spans);
void spans_done(struct spans *spans);
/* Appends the edited text. Sorts the spans. Masks must not overlap each other (CHECK). */
void spans_apply(struct spans *spans, const char *text, size_t length, struct buf *out);

#endif
