/* limits.h - which limits the Gopher rules have: the published ones, those of params.limits, or
 * with params.rules_mode quantile those that a sample of the documents gives (quantile.h).
 *
 * Limits may differ by language, which is the likeliest label of the classifier langid; without it
 * all documents are of one language, named "". An item of params.limits is MEASURE=LOW:HIGH, of
 * all languages, or LANGUAGE/MEASURE=LOW:HIGH; it wins over what is drawn. What is drawn is told
 * in that form too, so that a person can look at it and pin it.
 *
 * The sample: documents of a share params.rules_sample of all ids, by (seed, id), that pass the
 * LOCAL stages before gopher; duplicates are in it. A language with fewer than
 * params.rules_sample_min of them keeps the published limits; when none has as many the job ends.
 * A share p of n documents has a standard deviation of sqrt(p (1 - p) / n): at 100 documents and p
 * = 0.1 it is 0.03. */
#ifndef ATHANOR_WEB_LIMITS_H
#define ATHANOR_WEB_LIMITS_H

#include "worker/recipes/data/web/web.h"

struct language_limits {
    const char *language; /* label of langid, or "" */
    struct gopher_limits limits;
    int64_t documents; /* of the sample */
    bool drawn;        /* else: the published ones, and those of params */
};

/* LOW:HIGH, either side may be empty: -INFINITY, INFINITY. Errors: ERR_INVALID. */
int limits_parse_sides(const char *sides, double *out_low, double *out_high,
                       struct err *err) WARN_UNUSED;
/* Reads params.limits and params.rules_mode into web->limits; before inputs are opened. */
int limits_read(struct web *web, struct err *err) WARN_UNUSED;
/* Opens langid where limits may differ by language, and reads those of params that do. */
int limits_open(struct web *web, struct err *err) WARN_UNUSED;
void limits_close(struct web *web);
/* All ranks: draws the limits, says them as metrics, and in the log. Errors: those of documents;
 * ERR_INVALID when the sample is too small. */
int limits_draw(struct web *web, struct err *err) WARN_UNUSED;
/* Those of an item's language. */
const struct gopher_limits *limits_of(struct web *web, struct item *item);
/* ', "limits": {...}' for the card, at most `most` bytes, languages with many documents first;
 * nothing when none were drawn. */
void limits_card(const struct web *web, size_t most, struct buf *out);

#endif
