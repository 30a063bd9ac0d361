/* control.h - control codes: tokens before a source that say how its rewrite is to be.
 *
 *   <len:1> .. <len:5>   fifths of |y| / |x|, in characters: 1 is the shortest
 *   <abs:1> .. <abs:5>   fifths of 1 - ROUGE-L(x, y): 5 is in the most other words
 *
 * The limits of the fifths are those of the pairs that a dataset is made of. A value that equals
 * a limit belongs above it, so where many pairs are alike fifths may differ, or be empty. Codes:
 * ours, after the abstract of the first version of Jung et al. 2023. */
#ifndef ATHANOR_CONTROL_H
#define ATHANOR_CONTROL_H

#include "common/base/err.h"

#include <jansson.h>

enum control_kind { CONTROL_LEN = 0, CONTROL_ABS, CONTROL_END };

#define CONTROL_BUCKETS 5
#define CONTROL_TOKEN_SIZE 16

struct control {
    enum control_kind count; /* codes of kinds below this are used: 1 or 2 */
    double limit[CONTROL_END][CONTROL_BUCKETS - 1]; /* ascending; between two buckets */
};

const char *control_kind_name(enum control_kind kind); /* "len", "abs" */
/* "<len:3>"; bucket: 1 .. CONTROL_BUCKETS. */
void control_token(enum control_kind kind, unsigned bucket, char out[CONTROL_TOKEN_SIZE]);
/* What the codes of each kind are fifths of. An empty x or y: NAN. */
void control_measure(const char *x, const char *y, double out[CONTROL_END]);
/* Sets the limits of a kind from `count` values, which are sorted in place. count > 0. */
void control_set_limits(struct control *control, enum control_kind kind, double *values,
                        size_t count);
unsigned control_bucket(const struct control *control, enum control_kind kind, double value);

/* As the member "codes" of a dataset.json: {"len": {"limits": [4 numbers]}, "abs": ...}. */
json_t *control_json(const struct control *control);
/* Of the dataset in this folder. Errors: ERR_NOT_FOUND (it has no codes), ERR_PROTOCOL. */
int control_read(const char *folder, struct control *out, struct err *err) WARN_UNUSED;

#endif
