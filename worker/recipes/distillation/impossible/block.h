/* block.h - what became of a block of contexts, as a file of one line a context.
 *
 * The first line names the settings (settings hash), the others are JSON objects in order of
 * their context's number. A block gets its name when it is whole, and is the same bytes whoever
 * makes it.
 *
 *   {"context": 17, "origin": "contexts.77.2", "text": "...", "samples": ["...", ""],
 *    "distinct": [0, 3], "verdicts": ["CL", "LC"], "pool": {"malformed": 38, ...},
 *    "kept": [{"x": 0, "y": 3, "forward": 1, "reverse": 1, "rouge": 0.53}]}
 *
 * verdicts has a row for each distinct x and a letter (verdicts.def) for each distinct y; '-' is
 * no pair of the pool. */
#ifndef ATHANOR_BLOCK_H
#define ATHANOR_BLOCK_H

#include "common/base/err.h"
#include "worker/recipes/distillation/impossible/filter.h"

#define BLOCK_BYTES_MAX ((size_t)1 << 33)

struct outcome {
    uint64_t context;
    char *origin, *text;
    char **samples;
    size_t sample_count;
    struct filtered filtered;
};
void outcome_done(struct outcome *outcome); /* a zeroed struct is fine */
/* Appends the line of an outcome, newline included. */
void outcome_write(const struct outcome *outcome, struct buf *out);

/* A line read back: what the build needs. */
struct kept_text {
    char *x, *y;
    size_t x_sample, y_sample;
    double forward, reverse, rouge;
};
struct block_line {
    uint64_t context, text_hash; /* its number; of its text */
    const char *text;            /* the same, as long as the visit lasts */
    size_t context_sentences;
    uint64_t count[VERDICT_END];
    struct kept_text *kept;
    size_t kept_count;
    char *dropped_x, *dropped_y; /* an example of a pair that was dropped; NULL: none */
    size_t dropped_x_sample, dropped_y_sample;
    enum verdict dropped; /* by turns of the context's number, else the last that was reached */
};
/* Errors: ERR_PROTOCOL naming file and line. */
typedef int (*block_visit)(void *argument, const struct block_line *line, struct err *err);
/* Calls visit for each of `count` lines of a block's bytes, which a zero ends. ERR_STALE: made with
 * other settings; ERR_PROTOCOL: damaged, or of another number of contexts. */
int block_parse(const char *bytes, const char *settings, uint64_t count, block_visit visit,
                void *argument, struct err *err) WARN_UNUSED;
/* The same of a file; ERR_NOT_FOUND: no such block. */
int block_read(const char *path, const char *settings, uint64_t count, block_visit visit,
               void *argument, struct err *err) WARN_UNUSED;

/* The first line of a block. */
void block_begin(struct buf *out, const char *settings);
/* Gives a finished block its name. One that is there already must be the same bytes: ERR_INVALID
 * otherwise, naming both hashes. *out_first: it was not there. */
int block_write(const char *path, const struct buf *bytes, bool *out_first,
                struct err *err) WARN_UNUSED;
/* Reads the start of a block, of contexts first, first + 1, ...: appends what is whole of it, its
 * first line included, and sets *out_count to its contexts. What is of no use, or no such file, is
 * none. Errors: ERR_IO. */
int block_read_start(const char *path, const char *settings, uint64_t first, uint64_t most,
                     struct buf *out, uint64_t *out_count, struct err *err) WARN_UNUSED;

/* For evaluations, whose lines ranks make side by side. This rank's lines (each complete, any order
 * by rank but ascending within one). */
int block_write_part(const char *path, unsigned rank, const struct buf *lines,
                     struct err *err) WARN_UNUSED;
/* Rank 0, after all have written: merges in order of items first .. first+count-1, where item c was
 * written by rank c % ranks, renames and removes the parts. */
int block_merge(const char *path, const char *settings, uint64_t first, uint64_t count,
                unsigned ranks, struct err *err) WARN_UNUSED;

#endif
