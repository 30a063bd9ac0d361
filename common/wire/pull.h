/* pull.h - reads MessagePack values one after the other, straight from the frame.
 *
 * Why not msgpack-c's unpacker: it builds a tree, allocating for an array what its header claims
 * before a single item is seen; our frames have known shapes and need no tree. Each function
 * takes one value or fails with ERR_PROTOCOL ("is a string where an integer belongs"). */
#ifndef ATHANOR_WIRE_PULL_H
#define ATHANOR_WIRE_PULL_H

#include "common/base/err.h"

struct pull {
    const uint8_t *at;
    const uint8_t *end;
};

int pull_u64(struct pull *pull, uint64_t *out, struct err *err) WARN_UNUSED;
int pull_i64(struct pull *pull, int64_t *out, struct err *err) WARN_UNUSED;
int pull_f64(struct pull *pull, double *out, struct err *err) WARN_UNUSED; /* 32 or 64 bits */
int pull_flag(struct pull *pull, bool *out, struct err *err) WARN_UNUSED;
/* The text points into the frame and is not terminated. */
int pull_str(struct pull *pull, const char **out, size_t *out_length, struct err *err) WARN_UNUSED;
int pull_bin(struct pull *pull, const char **out, size_t *out_length, struct err *err) WARN_UNUSED;
/* Counts of items that follow; a count that cannot fit the rest of the frame is refused. */
int pull_array(struct pull *pull, uint32_t *out_count, struct err *err) WARN_UNUSED;
int pull_map(struct pull *pull, uint32_t *out_count, struct err *err) WARN_UNUSED;
/* Passes over one value of any type nested at most `depth` arrays or maps deep (0: a scalar). */
int pull_skip(struct pull *pull, unsigned depth, struct err *err) WARN_UNUSED;

#endif
