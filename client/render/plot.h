/* plot.h - curves, drawn in a terminal with braille dots or written as SVG. */
#ifndef ATHANOR_CLIENT_PLOT_H
#define ATHANOR_CLIENT_PLOT_H

#include "client/render/style.h"

struct plot_series {
    const char *name;
    const double *x, *y; /* x ascending; points that are not finite make a gap */
    size_t count;
};

struct plot {
    const char *title; /* may be NULL */
    const struct plot_series *series;
    size_t count;
    unsigned columns, rows; /* of the drawing area of plot_text, without labels */
    bool log_y;             /* points that are not positive are left out */
};

/* Draws all series into one panel; without colour they share the dots, so draw them one by one
 * there. Says so in words when there is nothing to draw. */
void plot_text(const struct plot *plot, const struct style *style, struct buf *out);
/* A complete SVG document of 860 x 480. */
void plot_svg(const struct plot *plot, struct buf *out);

/* At most PLOT_TICKS_MAX round numbers (1, 2, 5 times a power of ten) within [low, high]. */
#define PLOT_TICKS_MAX 12u
size_t plot_ticks(double low, double high, unsigned wanted, double out[PLOT_TICKS_MAX]);

#endif
