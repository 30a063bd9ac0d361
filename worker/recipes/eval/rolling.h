/* rolling.h - how a long text is cut into windows for perplexity: pure arithmetic.
 *
 * The text is y[0..n]: y[0] the prefix token, y[1..n] the tokens to score.
 *   rolling (context c, 1..K): every y[i] once; a later window scores up to K-c+1 new tokens
 *     from the K inputs that precede its last one, so its first has c tokens before it.
 *     c = 1 gives disjoint windows. As in lm-evaluation-harness.
 *   strided (stride s, 1..K): windows of K tokens start every s; each scores what no earlier
 *     window has, save its own first token, which has nothing before it. So y[0] is never
 *     scored, and with s = K neither is the first token of any window. As in the
 *     documentation of transformers on fixed-length models.
 * Source: card eval-general, section 2. */
#ifndef ATHANOR_ROLLING_H
#define ATHANOR_ROLLING_H

#include "common/base/base.h"

struct rolling {
    int64_t K;       /* most inputs of a window */
    int64_t context; /* c; used when stride is 0 */
    int64_t stride;  /* s; 0: rolling */
};

/* Inputs y[from .. from+count-1], targets y[from+1 .. from+count]; of those, targets y[i] with
 * i >= score_from are scored. */
struct rolling_window {
    int64_t from;
    int64_t count;
    int64_t score_from;
};

int64_t rolling_count(const struct rolling *rolling, int64_t n);
struct rolling_window rolling_at(const struct rolling *rolling, int64_t n, int64_t index);

#endif
