/* pair_line.h - one line of a file of labelled pairs: {"x": TEXT, "y": TEXT, "label": TEXT}.
 *
 * A label may be an integer. Other members are left alone. */
#ifndef ATHANOR_PAIR_LINE_H
#define ATHANOR_PAIR_LINE_H

#include "common/base/err.h"

#define PAIR_TEXT_MAX 65536 /* bytes of a text */
#define PAIR_LABEL_MAX 31   /* bytes of a label: what a model's configuration has room for */

struct pair_line {
    char *x, *y, *label; /* runs of white space, newlines too, are one space */
};

/* Errors: ERR_PROTOCOL for what is no JSON (with its column), ERR_INVALID naming the member and
 * what is accepted. */
int pair_line_parse(const char *line, size_t length, struct pair_line *out,
                    struct err *err) WARN_UNUSED;
void pair_line_done(struct pair_line *line); /* a zeroed struct is fine */

#endif
