/* plot.c - athanor plot */
#include "client/metric_names.h"
#include "client/render/plot.h"
#include "client/verbs.h"
#include "common/base/file.h"

#include <limits.h>
#include <string.h>

#define POINTS_SVG   1600u
#define ROWS_DEFAULT 16u
#define LABELS       13u /* columns left of the drawing */
#define SERIES_MAX   64u

static const struct option options[] = {
    {"with", 0, VALUE_TEXT, "JOB", "also the curves of this job", true},
    {"svg", 0, VALUE_FILE, "FILE", "write an SVG picture instead; '-' is standard output", false},
    {"log", 0, VALUE_NONE, NULL, "logarithmic values", false},
    {"panels", 0, VALUE_NONE, NULL, "one panel a curve (as without colour)", false},
    {"rows", 0, VALUE_COUNT, "N", "height of a panel in lines (default 16)", false},
};

struct curves {
    struct plot_series series[SERIES_MAX];
    size_t count;
};

/* Splits a table ordered by name, rank and step into series. */
static void add_series(struct client *client, const struct msg_table *table, const char *job,
                       bool several_jobs, struct curves *out)
{
    struct arena *arena = &client->arena;
    size_t rows = table_rows(table);
    for (size_t from = 0, to; from < rows && out->count < SERIES_MAX; from = to) {
        const char *name = table_text(table, from, "name"), *rank = table_text(table, from, "rank");
        for (to = from; to < rows && strcmp(table_text(table, to, "name"), name) == 0 &&
                        strcmp(table_text(table, to, "rank"), rank) == 0;
             to++)
            continue;
        double *x = arena_alloc(arena, (to - from) * sizeof *x);
        double *y = arena_alloc(arena, (to - from) * sizeof *y);
        for (size_t i = from; i < to; i++) {
            x[i - from] = table_f64(table, i, "step");
            y[i - from] = table_f64(table, i, "value");
        }
        const char *label = several_jobs ? arena_printf(arena, "%s %s", job, name) : name;
        if (*rank && strcmp(rank, "0") != 0)
            label = arena_printf(arena, "%s, rank %s", label, rank);
        out->series[out->count++] = (struct plot_series){label, x, y, to - from};
    }
}

static int load_job(struct client *client, const struct args *args, const char *job,
                    bool several_jobs, struct curves *out)
{
    struct pairs pairs = {0};
    struct msg_table table;
    const char *id = NULL, *const *names = args->words + 1;
    size_t name_count = args->word_count - 1;
    unsigned points = args_has(args, "svg") ? POINTS_SVG : 2 * client->style.columns;
    int code = client_job_id(client, job, &id);
    if (code == EXIT_DONE && !several_jobs) /* several may have some metrics each */
        code = metric_names_check(client, job, id, names, name_count);
    if (code != EXIT_DONE)
        return code;
    pairs_add(&pairs, "job", id);
    pairs_add(&pairs, "name", metric_names_join(client, names, name_count));
    pairs_add(&pairs, "points", arena_printf(&client->arena, "%u", points));
    code = client_query(client, "metrics", &pairs, UINT32_MAX, &table);
    if (code == EXIT_DONE)
        add_series(client, &table, job, several_jobs, out);
    pairs_done(&pairs);
    return code;
}

static int load(struct client *client, const struct args *args, struct curves *out)
{
    bool several = args_has(args, "with");
    int code = load_job(client, args, args->words[0], several, out);
    for (size_t i = 0; i < args->given_count && code == EXIT_DONE; i++)
        if (strcmp(args->given[i].option->name, "with") == 0)
            code = load_job(client, args, args->given[i].value, several, out);
    if (code == EXIT_DONE && out->count == 0)
        code = client_failf(client, EXIT_REFUSED,
                            "job '%s' has no such metrics, see 'athanor metrics %s'",
                            args->words[0], args->words[0]);
    return code;
}

static int write_svg(struct client *client, const struct plot *plot, const char *path)
{
    struct buf out = {0};
    struct err err;
    int code = EXIT_DONE;
    plot_svg(plot, &out);
    if (strcmp(path, "-") == 0)
        code = client_print(client, &out);
    else if (file_replace(path, out.bytes, out.length, 0644, &err) < 0)
        code = client_fail(client, EXIT_LOCAL, &err);
    buf_done(&out);
    return code;
}

static int draw(struct client *client, struct plot plot, bool panels)
{
    struct buf out = {0};
    size_t all = plot.count;
    const struct plot_series *series = plot.series;
    for (size_t i = 0; panels && i < all; i++) {
        plot.series = &series[i];
        plot.count = 1;
        plot_text(&plot, &client->style, &out);
        buf_puts(&out, i + 1 < all ? "\n" : "");
    }
    if (!panels)
        plot_text(&plot, &client->style, &out);
    int code = client_print(client, &out);
    buf_done(&out);
    return code;
}

static int run(struct client *client, const struct args *args)
{
    struct curves curves = {.count = 0};
    int code = load(client, args, &curves);
    if (code != EXIT_DONE)
        return code;
    unsigned columns = client->style.columns;
    struct plot plot = {
        .title = args_has(args, "with") ? NULL : args->words[0],
        .series = curves.series,
        .count = curves.count,
        .columns = columns > LABELS + 20 ? (unsigned)min_u64(columns - LABELS, 160) : 20,
        .rows = (unsigned)min_u64(max_u64(args_count(args, "rows", ROWS_DEFAULT), 3), 200),
        .log_y = args_has(args, "log"),
    };
    if (args_has(args, "svg"))
        return write_svg(client, &plot, args_text(args, "svg"));
    return draw(client, plot, args_has(args, "panels") || !client->style.color);
}

const struct verb verb_plot = {
    .name = "plot",
    .words = "JOB [METRIC...]",
    .summary = "draw curves in the terminal or as SVG",
    .text = "Draws metrics over steps; all metrics when none is named. The coordinator thins long "
            "series, so that a run of millions of steps is drawn as fast as a short one.",
    .word_kind = WORD_JOB,
    .words_min = 1,
    .words_max = UINT_MAX,
    VERB_OPTIONS(options),
    .run = run,
};
