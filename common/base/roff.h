/* roff.h - manual pages, made from the tables that --help is made from. */
#ifndef ATHANOR_ROFF_H
#define ATHANOR_ROFF_H

#include "common/base/buf.h"

/* The title line and NAME. `about` goes to the footer: "Athanor 0.1.0". */
void roff_title(struct buf *out, const char *name, int section, const char *about,
                const char *summary);
void roff_section(struct buf *out, const char *title); /* .SH */
void roff_subsection(struct buf *out, const char *title);
/* A text with every character as written; an empty line starts a paragraph. */
void roff_text(struct buf *out, const char *text);
/* The same, in lines as they are. */
void roff_block(struct buf *out, const char *text);
/* An entry of a list: `term` bold, `value` (may be NULL) in italics, the text indented below. */
void roff_item(struct buf *out, const char *term, const char *value, const char *text);

#endif
