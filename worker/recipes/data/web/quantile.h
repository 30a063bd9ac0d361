/* quantile.h - limits of the Gopher rules drawn from the documents themselves, as CulturaX's and
 * Yi's are (card data-yi-pipeline: "data-driven mode").
 *
 * A sample of the documents, chosen by the hash of their ids, is measured, and each measure
 * counted in a histogram for each language. Where the published rules have a low limit it becomes
 * the q_low-quantile of the language, where they have a high one its q_high-quantile.
 *
 * A histogram counts in bins that are 1/256 of an octave wide, from 2^-20 to 2^20; 0 (and below)
 * has a bin of its own, and so has every whole number up to 512. A low limit is the lower edge of
 * the bin of the document number floor(q n) (from 0, in ascending order), a high one the upper
 * edge of that of document number ceil(q n) - 1: so at most floor(q_low n) of the sample are below
 * the one and at most n - ceil(q_high n) above the other, and limits are numbers of few digits,
 * which differ from the exact quantile by less than 0.4 %. Counts are integers, so limits are the
 * same bits however the documents lie on ranks. */
#ifndef ATHANOR_WEB_QUANTILE_H
#define ATHANOR_WEB_QUANTILE_H

#include "common/base/base.h"
#include "worker/recipes/data/web/gopher.h"

#define HISTOGRAM_OCTAVES 40 /* from 2^-20 */
#define HISTOGRAM_FINE    256
#define HISTOGRAM_BINS    ((size_t)HISTOGRAM_OCTAVES * HISTOGRAM_FINE + 3)

/* value: no NaN. Bin 0 is of 0 and below, 1 of what is below 2^-20, the last of 2^20 and above. */
size_t histogram_bin(double value);
/* -INFINITY for q 0, and INFINITY for q 1, or when that document is in the last bin: no limit. The
 * histogram has `total` counts, at least 1. */
double histogram_low(const int64_t *bins, int64_t total, double q);
double histogram_high(const int64_t *bins, int64_t total, double q);

/* Of one language. */
struct measured {
    int64_t documents;
    int64_t *bins; /* (GOPHER_END, HISTOGRAM_BINS): 1.7 MB; NULL: no document yet */
};
void measured_add(struct measured *measured, const double value[GOPHER_END]);
void measured_done(struct measured *measured); /* a zeroed struct is fine */
/* Puts quantiles in the place of the limits that there are in `limits`. */
void measured_limits(const struct measured *measured, double q_low, double q_high,
                     struct gopher_limits *limits);

#endif
