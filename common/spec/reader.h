/* reader.h - what all steps of reading one spec share: places, errors, hints. Internal. */
#ifndef ATHANOR_SPEC_READER_H
#define ATHANOR_SPEC_READER_H

#include "common/spec/node.h"
#include "common/spec/spec.h"

struct reader {
    const struct spec_source *source;
    const struct catalogue *catalogue;
    struct arena *arena; /* the spec's */
    struct spec_errors *errors;
    size_t error_count;  /* all, also those that errors dropped */
    size_t sweep_capacity; /* of spec->sweeps */
    const char **set_names; /* of each --set, NULL until it is asked for; NULL: none was */
};

/* Whether further errors are only counted: then they need no text. */
bool reader_is_full(const struct reader *reader);

/* Where in the tree we are, as a chain on the stack: a path is only written when needed. */
struct place {
    const struct place *up; /* NULL at the document */
    const char *key;        /* NULL: item `index` of a list */
    size_t index;
};

/* "jobs.base.command[2]"; in arena. */
const char *place_text(struct arena *arena, const struct place *place);
/* Adds an error at the node (its line and column, or its --set). node NULL: the whole file. */
void reader_refuse(struct reader *reader, const struct node *node, const struct place *place,
                   const char *format, ...) FORMAT(4, 5);
/* The name of the n-th --set in messages, from 1; in arena. */
const char *set_name(struct reader *reader, uint32_t source);
/* The same place for refusals that come later: of a node, or of NULL. */
struct spec_mark reader_mark(struct reader *reader, const struct node *node);
/* The user's text in single quotes, cut to about 60 bytes; in arena. */
const char *quoted(struct reader *reader, const char *text);
/* How a node reads in a message: its quoted text, or "a list", "a mapping", "nothing". */
const char *shown(struct reader *reader, const struct node *node);

/* Finds the nearest of some names. */
#define NEAREST_OFFERS_MAX 1000u /* bounds the time of a hint in a spec of 10,000 jobs */
struct nearest {
    const char *wanted; /* NULL: no hint is needed, no more errors are kept */
    const char *best;
    unsigned distance, offers;
};
struct nearest nearest_of(const struct reader *reader, const char *wanted);
void nearest_offer(struct nearest *nearest, const char *name);
/* ", did you mean 'x'?" or ""; in arena. */
const char *nearest_hint(struct reader *reader, const struct nearest *nearest);

/* Applies the --set overrides to the tree; the document's own nodes stay as they are. */
struct node *sets_apply(struct reader *reader, struct node *root);
/* Puts a value at a path; every map on the way is copied. `where` is the place of errors and of
 * what is made on the way. False after refusing. */
bool tree_set(struct reader *reader, struct node **root, const char *path, struct node *value,
              const struct node *where);

#endif
