/* encode.h - texts, or pairs of them, through an encoder.
 *
 * A batch is always ENCODE_ROWS rows of one length, that of the longest text in it rounded up to
 * ENCODE_STEP tokens: shapes follow from a text's own length, so that what is computed for it does
 * not depend on what else is asked (the last batch of a length is filled up with copies). */
#ifndef ATHANOR_ENCODE_H
#define ATHANOR_ENCODE_H

#include "worker/engine/data/tokenizer.h"
#include "worker/engine/encoder.h"

#define ENCODE_ROWS 8
#define ENCODE_STEP 8

struct encode_text {
    const char *x, *y; /* y NULL: x alone */
};

/* The tokens of one text or pair as the model expects them. */
struct encode_row {
    struct token_list ids, types;
    size_t first, count; /* where x's tokens are */
    bool cut;            /* tokens were left out, each time the last one of the longer text */
};
/* most: the model's context. The tokenizer's frame must fit into it. Errors: ERR_LIMIT. */
int encode_row(const struct tokenizer *tokenizer, const struct encode_text *text, size_t most,
               struct encode_row *row, struct err *err) WARN_UNUSED;
void encode_row_done(struct encode_row *row); /* a zeroed struct is fine */

enum encode_what {
    ENCODE_LABELS = 1, /* scores of the classes                                            */
    ENCODE_OWN,        /* the model's own vector of the text, of length 1                  */
    ENCODE_MEAN,       /* mean of its states, of length 1                                  */
    ENCODE_STATES,     /* the last state of each token of x                                */
};

struct encoder {
    struct model *model;
    struct tokenizer *tokenizer;
    struct tape *tape;
    uint64_t texts, cut; /* so far */
};

/* Model and tokenizer of a folder: one of ours or of Hugging Face, or the dist/ folder of npm's
 * sentence encoder. Errors: theirs, and ERR_INVALID for a model that is no encoder. */
int encoder_open(const char *folder, struct device *device, struct encoder *out,
                 struct err *err) WARN_UNUSED;
void encoder_close(struct encoder *encoder); /* a zeroed struct is fine */
int64_t encoder_columns(const struct encoder *encoder, enum encode_what what);

/* Gets what was asked for of text `index`: (rows, columns); rows is 1 but for ENCODE_STATES. */
typedef void (*encode_visit)(void *argument, size_t index, const float *values, size_t rows);
/* Errors: ERR_MEMORY, ERR_LIMIT. */
int encode(struct encoder *encoder, const struct encode_text *texts, size_t count,
           enum encode_what what, encode_visit visit, void *argument, struct err *err) WARN_UNUSED;

#endif
