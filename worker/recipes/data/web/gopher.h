/* gopher.h - the Gopher rules: what a page of prose looks like, in 21 numbers.
 *
 * Two variants whose values differ: as allenai/dolma computes them and as datatrove does, with
 * words cut at white space in both. gopher.def states measures and limits; the definitions are
 * those of the card data-dolma. Python's Counter.most_common(1) decides ties: the n-gram that
 * came first. */
#ifndef ATHANOR_WEB_GOPHER_H
#define ATHANOR_WEB_GOPHER_H

#include "worker/recipes/data/web/view.h"

enum gopher_measure {
#define GOPHER(id, name, low, high, low2, high2, text) GOPHER_##id,
#include "worker/recipes/data/web/gopher.def"
#undef GOPHER
    GOPHER_END,
};

enum gopher_variant { GOPHER_DOLMA = 1, GOPHER_DATATROVE };

struct gopher_limits {
    double low[GOPHER_END], high[GOPHER_END]; /* -INFINITY, INFINITY: no limit */
};

const char *gopher_name(enum gopher_measure measure);
const char *gopher_text(enum gopher_measure measure);
/* The published limits of a variant. */
void gopher_limits_init(struct gopher_limits *limits, enum gopher_variant variant);
/* All measures of a text; 0 where nothing can be measured (no words, too few for an n-gram). The
 * view's scratch is used. */
void gopher_measure(struct view *view, enum gopher_variant variant, double out[GOPHER_END]);
/* The first measure beyond its limit, in the table's order; GOPHER_END: none. */
enum gopher_measure gopher_judge(const struct gopher_limits *limits,
                                 const double value[GOPHER_END]);

#endif
