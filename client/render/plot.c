/* plot.c - curves in a terminal; see plot.h. The frame of both drawings is made here. */
#include "client/render/plot_frame.h"

#include "common/base/mem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define LABEL_COLUMNS 10

/* ---- the frame ---------------------------------------------------------------------------- */

bool plot_point(const struct plot *plot, const struct plot_series *series, size_t i, double *x,
                double *y)
{
    *x = series->x[i];
    *y = series->y[i];
    if (plot->log_y)
        *y = *y > 0 ? log10(*y) : (double)NAN;
    return isfinite(*x) && isfinite(*y);
}

static void widen(double *low, double *high)
{
    if (*low < *high)
        return;
    double margin = *low != 0 ? fabs(*low) * 0.05 : 1;
    *low -= margin;
    *high += margin;
}

bool plot_frame_make(const struct plot *plot, struct plot_frame *out)
{
    struct plot_frame frame = {.x_low = INFINITY,
                               .x_high = -INFINITY,
                               .y_low = INFINITY,
                               .y_high = -INFINITY};
    bool any = false;
    for (size_t s = 0; s < plot->count; s++)
        for (size_t i = 0; i < plot->series[s].count; i++) {
            double x, y;
            if (!plot_point(plot, &plot->series[s], i, &x, &y))
                continue;
            any = true;
            frame.x_low = fmin(frame.x_low, x);
            frame.x_high = fmax(frame.x_high, x);
            frame.y_low = fmin(frame.y_low, y);
            frame.y_high = fmax(frame.y_high, y);
        }
    if (!any)
        return false;
    widen(&frame.x_low, &frame.x_high);
    widen(&frame.y_low, &frame.y_high);
    *out = frame;
    return true;
}

size_t plot_ticks(double low, double high, unsigned wanted, double out[PLOT_TICKS_MAX])
{
    static const double factors[] = {1, 2, 5, 10};
    double power = pow(10, floor(log10((high - low) / wanted)));
    double step = power * 10;
    for (size_t i = 0; i < ARRAY_COUNT(factors); i++)
        if ((high - low) / (factors[i] * power) <= wanted) {
            step = factors[i] * power;
            break;
        }
    size_t count = 0;
    for (double k = ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++)
        if (count < PLOT_TICKS_MAX)
            out[count++] = k == 0 ? 0 : k * step;
    return count;
}

/* ---- braille ------------------------------------------------------------------------------ */

/* A grid of 2 x 4 dots a character (Unicode block U+2800). */
struct canvas {
    unsigned columns, rows;
    uint8_t *dots;   /* bits of the braille pattern */
    uint8_t *owners; /* series that drew last, from 1 */
};

static void canvas_dot(struct canvas *canvas, long x, long y, uint8_t owner)
{
    static const uint8_t bits[4][2] = {{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}};
    if (x < 0 || y < 0 || x >= 2 * (long)canvas->columns || y >= 4 * (long)canvas->rows)
        return;
    size_t at = (size_t)(y / 4) * canvas->columns + (size_t)(x / 2);
    canvas->dots[at] |= bits[y % 4][x % 2];
    canvas->owners[at] = owner;
}

static void canvas_line(struct canvas *canvas, double x0, double y0, double x1, double y1,
                        uint8_t owner)
{
    double steps = ceil(fmax(fabs(x1 - x0), fabs(y1 - y0)));
    for (double i = 0; i <= steps; i++) {
        double part = steps > 0 ? i / steps : 0;
        canvas_dot(canvas, lround(x0 + part * (x1 - x0)), lround(y0 + part * (y1 - y0)), owner);
    }
}

static void canvas_series(struct canvas *canvas, const struct plot *plot,
                          const struct plot_frame *frame, size_t index)
{
    const struct plot_series *series = &plot->series[index];
    double width = 2.0 * canvas->columns - 1, height = 4.0 * canvas->rows - 1;
    double before_x = 0, before_y = 0;
    bool joined = false;
    for (size_t i = 0; i < series->count; i++) {
        double x, y;
        if (!plot_point(plot, series, i, &x, &y)) {
            joined = false;
            continue;
        }
        double at_x = (x - frame->x_low) / (frame->x_high - frame->x_low) * width;
        double at_y = (frame->y_high - y) / (frame->y_high - frame->y_low) * height;
        canvas_line(canvas, joined ? before_x : at_x, joined ? before_y : at_y, at_x, at_y,
                    (uint8_t)(index + 1));
        before_x = at_x;
        before_y = at_y;
        joined = true;
    }
}

static const char *series_color(const struct style *style, unsigned owner)
{
    static const char *const colors[] = {"\033[36m", "\033[33m", "\033[35m",
                                         "\033[32m", "\033[34m", "\033[31m"};
    return style->color && owner ? colors[(owner - 1) % ARRAY_COUNT(colors)] : "";
}

static void add_braille(struct buf *out, uint8_t dots)
{
    unsigned point = 0x2800u + dots;
    const char bytes[3] = {(char)(0xe0 | point >> 12), (char)(0x80 | (point >> 6 & 0x3f)),
                           (char)(0x80 | (point & 0x3f))};
    buf_add(out, bytes, sizeof bytes);
}

static void add_row(const struct canvas *canvas, unsigned row, const struct style *style,
                    struct buf *out)
{
    unsigned owner = 0;
    for (unsigned column = 0; column < canvas->columns; column++) {
        size_t at = (size_t)row * canvas->columns + column;
        if (canvas->owners[at] && canvas->owners[at] != owner) {
            owner = canvas->owners[at];
            buf_puts(out, series_color(style, owner));
        }
        add_braille(out, canvas->dots[at]);
    }
    if (owner && style->color)
        buf_puts(out, "\033[0m");
    buf_putc(out, '\n');
}

double plot_y_value(const struct plot *plot, double y)
{
    return plot->log_y ? pow(10, y) : y;
}

static void add_canvas(const struct canvas *canvas, const struct plot *plot,
                       const struct plot_frame *frame, const struct style *style, struct buf *out)
{
    for (unsigned row = 0; row < canvas->rows; row++) {
        /* Labels at the top, the middle and the bottom. */
        bool labelled = row == 0 || row == canvas->rows - 1 || row == (canvas->rows - 1) / 2;
        double part = canvas->rows > 1 ? (double)row / (canvas->rows - 1) : 0;
        double y = frame->y_high - part * (frame->y_high - frame->y_low);
        char label[32] = "";
        if (labelled)
            snprintf(label, sizeof label, "%.4g", plot_y_value(plot, y));
        buf_printf(out, "%*s %s", LABEL_COLUMNS, label, labelled ? "┤" : "│");
        add_row(canvas, row, style, out);
    }
    char low[32], high[32];
    snprintf(low, sizeof low, "%.6g", frame->x_low);
    snprintf(high, sizeof high, "%.6g", frame->x_high);
    buf_printf(out, "%*s └", LABEL_COLUMNS, "");
    for (unsigned i = 0; i < canvas->columns; i++)
        buf_puts(out, "─");
    int gap = (int)canvas->columns - (int)strlen(low) - (int)strlen(high);
    buf_printf(out, "\n%*s %s%*s%s\n", LABEL_COLUMNS + 1, "", low, gap > 1 ? gap : 1, "", high);
}

static void add_legend(const struct plot *plot, const struct style *style, struct buf *out)
{
    if (plot->title) {
        buf_puts(out, tint_on(style, TINT_STRONG));
        text_add_clean(out, plot->title, 0);
        buf_printf(out, "%s\n", tint_off(style, TINT_STRONG));
    }
    for (size_t i = 0; i < plot->count; i++) {
        const struct plot_series *series = &plot->series[i];
        buf_printf(out, "  %s", series_color(style, (unsigned)i + 1));
        text_add_clean(out, series->name, 0);
        buf_puts(out, style->color ? "\033[0m" : "");
        if (series->count)
            buf_printf(out, "  last %.6g at %.10g", series->y[series->count - 1],
                       series->x[series->count - 1]);
        buf_putc(out, '\n');
    }
}

void plot_text(const struct plot *plot, const struct style *style, struct buf *out)
{
    struct plot_frame frame;
    add_legend(plot, style, out);
    if (!plot_frame_make(plot, &frame)) {
        buf_puts(out, "  no points to draw\n");
        return;
    }
    size_t cells = (size_t)plot->columns * plot->rows;
    struct canvas canvas = {plot->columns, plot->rows, mem_zalloc(cells), mem_zalloc(cells)};
    for (size_t i = 0; i < plot->count; i++)
        canvas_series(&canvas, plot, &frame, i);
    add_canvas(&canvas, plot, &frame, style, out);
    mem_free(canvas.dots);
    mem_free(canvas.owners);
}
