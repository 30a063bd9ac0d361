/* plot_frame.h - the ranges that both drawings of a plot share. */
#ifndef ATHANOR_CLIENT_PLOT_FRAME_H
#define ATHANOR_CLIENT_PLOT_FRAME_H

#include "client/render/plot.h"

struct plot_frame {
    double x_low, x_high, y_low, y_high; /* y in drawing units: log10 when log_y */
};

/* False when no point can be drawn. Low and high always differ. */
bool plot_frame_make(const struct plot *plot, struct plot_frame *out);
/* Point i in drawing units; false for one that is not drawn. */
bool plot_point(const struct plot *plot, const struct plot_series *series, size_t i, double *x,
                double *y);
/* From drawing units back to the value. */
double plot_y_value(const struct plot *plot, double y);

#endif
