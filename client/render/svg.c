/* svg.c - curves as an SVG document; see plot.h. */
#include "client/render/plot_frame.h"

#include <math.h>

#define WIDTH  860.0
#define HEIGHT 480.0
#define LEFT   80.0
#define RIGHT  20.0
#define TOP    50.0
#define BOTTOM 40.0

static const char *const palette[] = {"#0072b2", "#d55e00", "#009e73",
                                      "#cc79a7", "#e69f00", "#56b4e9"}; /* Okabe and Ito */

static double place_x(const struct plot_frame *frame, double x)
{
    return LEFT + (x - frame->x_low) / (frame->x_high - frame->x_low) * (WIDTH - LEFT - RIGHT);
}

static double place_y(const struct plot_frame *frame, double y)
{
    return TOP + (frame->y_high - y) / (frame->y_high - frame->y_low) * (HEIGHT - TOP - BOTTOM);
}

static void add_escaped(struct buf *out, const char *text)
{
    struct buf clean = {0};
    text_add_clean(&clean, text, 0);
    for (const char *at = buf_text(&clean); *at; at++) {
        if (*at == '<')
            buf_puts(out, "&lt;");
        else if (*at == '>')
            buf_puts(out, "&gt;");
        else if (*at == '&')
            buf_puts(out, "&amp;");
        else
            buf_putc(out, *at);
    }
    buf_done(&clean);
}

static void add_axes(const struct plot *plot, const struct plot_frame *frame, struct buf *out)
{
    double ticks[PLOT_TICKS_MAX];
    size_t count = plot_ticks(frame->y_low, frame->y_high, 6, ticks);
    for (size_t i = 0; i < count; i++) {
        double y = place_y(frame, ticks[i]);
        buf_printf(out, "<path class=\"grid\" d=\"M%.1f %.1fH%.1f\"/>", LEFT, y, WIDTH - RIGHT);
        buf_printf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%.4g</text>\n", LEFT - 8,
                   y + 4, plot_y_value(plot, ticks[i]));
    }
    count = plot_ticks(frame->x_low, frame->x_high, 8, ticks);
    for (size_t i = 0; i < count; i++) {
        double x = place_x(frame, ticks[i]);
        buf_printf(out, "<path class=\"grid\" d=\"M%.1f %.1fV%.1f\"/>", x, TOP, HEIGHT - BOTTOM);
        buf_printf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%.6g</text>\n", x,
                   HEIGHT - BOTTOM + 18, ticks[i]);
    }
    buf_printf(out, "<path class=\"axis\" d=\"M%.1f %.1fV%.1fH%.1f\"/>\n", LEFT, TOP,
               HEIGHT - BOTTOM, WIDTH - RIGHT);
}

static void add_curve(const struct plot *plot, const struct plot_frame *frame, size_t index,
                      struct buf *out)
{
    const struct plot_series *series = &plot->series[index];
    bool joined = false;
    buf_printf(out, "<path fill=\"none\" stroke=\"%s\" stroke-width=\"1.5\" d=\"",
               palette[index % ARRAY_COUNT(palette)]);
    for (size_t i = 0; i < series->count; i++) {
        double x, y;
        bool drawn = plot_point(plot, series, i, &x, &y);
        if (drawn)
            buf_printf(out, "%c%.1f %.1f", joined ? 'L' : 'M', place_x(frame, x),
                       place_y(frame, y));
        joined = drawn;
    }
    buf_puts(out, "\"/>\n");
}

static void add_legend(const struct plot *plot, struct buf *out)
{
    double x = LEFT;
    for (size_t i = 0; i < plot->count; i++) {
        buf_printf(out, "<path stroke=\"%s\" stroke-width=\"3\" d=\"M%.1f 36h18\"/>",
                   palette[i % ARRAY_COUNT(palette)], x);
        buf_printf(out, "<text x=\"%.1f\" y=\"40\">", x + 24);
        add_escaped(out, plot->series[i].name);
        buf_puts(out, "</text>\n");
        x += 48 + 7.5 * text_width(plot->series[i].name);
    }
}

void plot_svg(const struct plot *plot, struct buf *out)
{
    struct plot_frame frame;
    buf_printf(out,
               "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" "
               "font-family=\"sans-serif\" font-size=\"13\">\n"
               "<style>.grid{stroke:#ddd;fill:none}.axis{stroke:#444;fill:none}text{fill:#222}"
               "</style>\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
               WIDTH, HEIGHT);
    if (plot->title) {
        buf_printf(out, "<text x=\"%.1f\" y=\"20\" font-size=\"15\">", LEFT);
        add_escaped(out, plot->title);
        buf_puts(out, "</text>\n");
    }
    if (plot_frame_make(plot, &frame)) {
        add_axes(plot, &frame, out);
        for (size_t i = 0; i < plot->count; i++)
            add_curve(plot, &frame, i, out);
        add_legend(plot, out);
    } else {
        buf_printf(out, "<text x=\"%.1f\" y=\"%.1f\">no points to draw</text>\n", LEFT, TOP);
    }
    buf_puts(out, "</svg>\n");
}
