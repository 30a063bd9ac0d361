/* results.h - the numbers of an evaluation: metrics of the job and one JSON file.
 *
 * A number that cannot be computed (its reference is missing) is null in the file and no
 * metric at all; it is never a made-up value. */
#ifndef ATHANOR_RESULTS_H
#define ATHANOR_RESULTS_H

#include "common/base/buf.h"
#include "worker/recipes/recipe.h"

#define RESULTS_VERSION "1" /* of the evaluators: raised when a definition changes */

struct results {
    struct run *run;
    struct buf body; /* members of "results" */
    struct buf head; /* members of the object */
};

void results_init(struct results *results, struct run *run);
void results_done(struct results *results);
/* A setting or identity: a member of the object itself. */
void results_text(struct results *results, const char *name, const char *text);
void results_number(struct results *results, const char *name, double value);
/* A result: metric and member of "results". A value that is not finite becomes null. */
void results_add(struct results *results, const char *name, double value);
/* A list of objects already written as JSON. */
void results_raw(struct results *results, const char *name, const char *json);
/* Writes job_dir/<name>.json and announces it as an artifact of kind "evaluation". Only rank 0
 * writes. Errors: ERR_IO. */
int results_write(struct results *results, const char *name, struct err *err) WARN_UNUSED;

/* Appends the text as a JSON string; bytes that are not UTF-8 become U+FFFD. */
void json_put_text(struct buf *out, const char *text, size_t length);

#endif
