/* spans.h - spans of tokens for a T5 to fill in: which ones, and the two texts that result.
 *
 *   tokens   a b c d e f g h i   noise  c d, h     sentinels X, Y
 *   source   a b X e f g Y i </s>
 *   target   X c d Y h </s>
 *
 * A sequence of n tokens loses round(n density) of them, within 1..n-1, in round(that / length)
 * spans, at least one; both the spans and what stands between them are random cuts of their
 * totals into that many parts of at least one token. It begins with what stays.
 * Source: Raffel et al. 2020, section 3.1.4, as in random_spans_noise_mask and
 * random_spans_helper of its release. */
#ifndef ATHANOR_SPANS_H
#define ATHANOR_SPANS_H

#include "common/base/arena.h"
#include "common/base/rng.h"

struct spans_config {
    double density; /* share of the tokens that is noise */
    double length;  /* mean tokens of a span             */
};

struct spans_sizes {
    int64_t noise, spans;
    int64_t source, target; /* with their ends */
};

/* Of a sequence of n tokens. Under two tokens there is no noise. */
struct spans_sizes spans_sizes(const struct spans_config *config, int64_t n);
/* The longest sequence whose source is at most `source` tokens: 568 for 512 (density 0.15, length
 * 3), with targets of 114. */
int64_t spans_longest(const struct spans_config *config, int64_t source);

/* noise[i]: whether token i goes. Draws 2 (n - 1) numbers at most. room is joined afterwards. */
void spans_draw(const struct spans_config *config, int64_t n, struct rng *rng, struct arena *room,
                bool *noise);

/* The two texts; sentinel[k] stands for span k. source and target have room for what spans_sizes
 * says. */
void spans_write(const int32_t *token, const bool *noise, int64_t n, const int32_t *sentinel,
                 int32_t end, int32_t *source, int64_t *out_source, int32_t *target,
                 int64_t *out_target);

#endif
