/* errors.h - everything wrong with one spec, in the order of the text. */
#ifndef ATHANOR_SPEC_ERRORS_H
#define ATHANOR_SPEC_ERRORS_H

#include "common/base/arena.h"

#define SPEC_ERRORS_MAX 100u /* kept; the rest is only counted */

struct spec_error {
    uint32_t source;       /* 0: the document; n: the n-th --set */
    const char *file;      /* the spec's name, or "--set params.steps=x" */
    uint32_t line, column; /* from 1; 0 when the whole file is meant */
    const char *path;      /* of the field: "jobs.base.params.steps"; "" for the document */
    const char *message;   /* the offending value and what would be accepted */
};

/* A zeroed struct is valid and empty. */
struct spec_errors {
    struct arena arena;
    struct spec_error *items;
    size_t count, capacity; /* count <= SPEC_ERRORS_MAX */
    size_t dropped;
};

/* Adds one. Texts are copied; what is not printable UTF-8 in them is escaped. */
void spec_errors_add(struct spec_errors *errors, const struct spec_error *place,
                     const char *format, ...) FORMAT(3, 4);
/* By place: the document first, then each --set. */
void spec_errors_sort(struct spec_errors *errors);
/* Of sorted errors that are equal one stays: the trials of a sweep make the same mistakes. */
void spec_errors_unique(struct spec_errors *errors);
/* Compiler style, one per line: "file:line:column: path: message" (mem_free). */
char *spec_errors_text(const struct spec_errors *errors);
/* [{"file", "line", "column", "path", "message"}, ...] (mem_free). */
char *spec_errors_json(const struct spec_errors *errors);
void spec_errors_done(struct spec_errors *errors);

#endif
