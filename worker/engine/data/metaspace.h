/* metaspace.h - pieces in which a space is U+2581, as SentencePiece writes them, and tokens that
 * spell one byte, "<0x0A>". */
#ifndef ATHANOR_METASPACE_H
#define ATHANOR_METASPACE_H

#include "common/base/buf.h"

#define METASPACE       "\xE2\x96\x81" /* U+2581 */
#define METASPACE_BYTES 3

/* Appends a text as pieces write it. */
void metaspace_put(const char *text, size_t length, struct buf *out);
bool metaspace_begins(const char *text, size_t length);
/* Appends the text of a piece. drop_first: a space at its begin was put there for the piece. */
void metaspace_decode(const char *piece, size_t length, bool drop_first, struct buf *out);
/* The byte that a piece spells; -1 for other texts. */
int metaspace_byte(const char *piece, size_t length);

#endif
