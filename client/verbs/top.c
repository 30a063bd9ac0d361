/* top.c - athanor top: the cluster live, on a terminal of any size from 40x8 on. */
#include "client/client.h"
#include "client/verbs.h"
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "common/net/loop.h"

#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#define EVERY_MS    2000u
#define EVERY_LEAST 200u
#define FILTER_SIZE 64u
#define JOBS_SHOWN  1000u

static const struct option options[] = {
    {"every", 'd', VALUE_DURATION, "TIME", "ask again after this long (default 2s)", false},
    {"once", '1', VALUE_NONE, NULL, "print it once, as plain text", false},
    {"sort", 's', VALUE_TEXT, "COLUMN", "by job, time, cores, memory, progress or left", false},
    {"filter", 'f', VALUE_TEXT, "TEXT", "jobs with this in name, account, state, worker", false},
    {"json", 0, VALUE_NONE, NULL,
     "print JSON once: an object with cluster, nodes and jobs, every column", false},
};

/* What jobs can be sorted by; the greatest first but for the number. */
static const struct sorting {
    const char *name, *column;
    bool rising;
} sortings[] = {
    {"job", "job_id", false},        {"time", "run_ms", false},
    {"cores", "cores_used", false},  {"memory", "rss_bytes", false},
    {"progress", "progress", false}, {"left", "left_ms", true},
};

static const struct heading job_headings[] = {
    {"job_id", "JOB"},      {"name", NULL},           {"state", NULL},      {"worker", NULL},
    {"progress", "%"},      {"progress_step", "STEP"}, {"left_ms", "LEFT"}, {"run_ms", "RAN"},
    {"loss", NULL},         {"cores_used", "CORES"},  {"rss_bytes", "MEMORY"},
    {"gpu_used", "GPU%"},
};

static const struct heading node_headings[] = {
    {"name", "NODE"},       {"state", NULL}, {"runs", "RUNS"}, {"cores_used", "CORES"},
    {"cores", "OF"},        {"memory_used", "MEMORY"}, {"memory_bytes", "OF"},
    {"gpus_used", "GPUS"},  {"gpus", "OF"},  {"kept_away", "WHY"},
};

struct top {
    struct client *client;
    struct arena arena; /* of one look */
    struct msg_table status, nodes, jobs;
    size_t sorting;
    char filter[FILTER_SIZE];
    bool typing; /* into the filter */
    bool with_nodes, help, ended, asked;
    uint64_t every_ms;
    char trouble[200]; /* "" while the coordinator answers */
    struct termios mode;
    bool raw;
};

/* ---- asking --------------------------------------------------------------------------------- */

static int ask(struct top *top, struct arena *arena, const char *name, const char *argument,
               const char *value, struct msg_table *out, struct err *err)
{
    struct pairs pairs = {0};
    pairs_add(&pairs, argument, value);
    int code = client_poll(top->client, name, &pairs, JOBS_SHOWN, arena, out, err);
    pairs_done(&pairs);
    return code;
}

/* -1 while nobody answers: what was seen last stays. */
static int look(struct top *top, struct err *err)
{
    struct arena arena = {0};
    struct msg_table status, nodes, jobs;
    int code = ask(top, &arena, "status", NULL, NULL, &status, err);
    if (code == EXIT_DONE)
        code = ask(top, &arena, "workers", NULL, NULL, &nodes, err);
    if (code == EXIT_DONE)
        code = ask(top, &arena, "top", NULL, NULL, &jobs, err);
    if (code != EXIT_DONE) {
        arena_done(&arena);
        return code;
    }
    arena_done(&top->arena);
    top->arena = arena;
    top->status = status;
    top->nodes = nodes;
    top->jobs = jobs;
    return EXIT_DONE;
}

/* ---- choosing and ordering ------------------------------------------------------------------ */

static bool row_fits(const struct top *top, size_t row)
{
    static const char *const columns[] = {"name", "account", "state", "worker", "queue"};
    for (size_t i = 0; i < ARRAY_COUNT(columns); i++)
        if (strcasestr(table_text(&top->jobs, row, columns[i]), top->filter))
            return true;
    return !top->filter[0];
}

struct keyed {
    double key;
    size_t row;
};

/* Running jobs first whatever the order; what is not known last. */
static int keyed_order(const void *a, const void *b)
{
    const struct keyed *left = a, *right = b;
    if (left->key != right->key)
        return left->key > right->key ? -1 : 1;
    return (left->row > right->row) - (left->row < right->row);
}

static double key_of(const struct top *top, size_t row)
{
    const struct sorting *sorting = &sortings[top->sorting];
    if (table_is_null(&top->jobs, row, sorting->column))
        return -1e300;
    double value = table_f64(&top->jobs, row, sorting->column);
    return sorting->rising ? -value : value;
}

/* The jobs to show, in a table of their own. */
static struct msg_table chosen(struct top *top, struct arena *arena)
{
    size_t rows = table_rows(&top->jobs), columns = top->jobs.columns_count, count = 0;
    struct keyed *order = arena_alloc(arena, (rows + 1) * sizeof *order);
    struct msg_table out = top->jobs;
    for (size_t row = 0; row < rows; row++)
        if (row_fits(top, row))
            order[count++] = (struct keyed){key_of(top, row), row};
    qsort(order, count, sizeof *order, keyed_order);
    out.cells = arena_alloc(arena, (count * columns + 1) * sizeof *out.cells);
    out.cells_count = count * columns;
    for (size_t i = 0; i < count; i++)
        memcpy(out.cells + i * columns, top->jobs.cells + order[i].row * columns,
               columns * sizeof *out.cells);
    return out;
}

/* ---- showing -------------------------------------------------------------------------------- */

static void add_summary(struct top *top, const struct style *style, struct buf *out)
{
    const struct msg_table *status = &top->status;
    buf_printf(out, "%sathanor%s  %s of %s workers  jobs: %s running, %s ready, %s waiting",
               tint_on(style, TINT_STRONG), tint_off(style, TINT_STRONG),
               table_text(status, 0, "workers_ok"), table_text(status, 0, "workers"),
               table_text(status, 0, "running"), table_text(status, 0, "ready"),
               table_text(status, 0, "waiting"));
    if (table_u64(status, 0, "backoff"))
        buf_printf(out, ", %s in backoff", table_text(status, 0, "backoff"));
    if (table_u64(status, 0, "held"))
        buf_printf(out, ", %s held", table_text(status, 0, "held"));
    buf_printf(out, "\ncores %s/%s", table_text(status, 0, "cores_used"),
               table_text(status, 0, "cores"));
    if (table_u64(status, 0, "gpus"))
        buf_printf(out, "  gpus %s/%s", table_text(status, 0, "gpus_used"),
                   table_text(status, 0, "gpus"));
    char used[PARSE_TEXT_SIZE], all[PARSE_TEXT_SIZE];
    buf_printf(out, "  memory %s/%s  by %s",
               format_size_short(table_u64(status, 0, "memory_used"), used),
               format_size_short(table_u64(status, 0, "memory_bytes"), all),
               sortings[top->sorting].name);
    if (top->filter[0] || top->typing)
        buf_printf(out, "  filter: %s%s", top->filter, top->typing ? "_" : "");
    if (top->trouble[0])
        buf_printf(out, "  %s%s%s", tint_on(style, TINT_BAD), top->trouble,
                   tint_off(style, TINT_BAD));
    buf_puts(out, "\n");
}

static void add_help(struct buf *out)
{
    buf_puts(out, "\n  q  leave          s  sort by the next column      /  filter (Enter, Esc)\n"
                  "  n  nodes or not   space  ask now                 h  this help\n");
}

static void add_view(struct top *top, const struct style *style, struct buf *out)
{
    struct arena arena = {0};
    struct msg_table jobs = chosen(top, &arena);
    add_summary(top, style, out);
    if (top->help)
        add_help(out);
    if (top->with_nodes) {
        buf_puts(out, "\n");
        table_print(&top->nodes, node_headings, ARRAY_COUNT(node_headings), style, out);
    }
    buf_puts(out, "\n");
    table_print(&jobs, job_headings, ARRAY_COUNT(job_headings), style, out);
    arena_done(&arena);
}

static void add_array(const char *name, const struct msg_table *table, struct buf *out)
{
    buf_printf(out, ",\n\"%s\": ", name);
    table_print_json(table, out);
}

static int print_once(struct top *top)
{
    struct arena arena = {0};
    struct buf out = {0};
    struct err err;
    int code = look(top, &err);
    if (code < 0)
        return client_fail(top->client, EXIT_UNREACHABLE, &err);
    if (code != EXIT_DONE)
        return code;
    struct style plain = {.columns = 80};
    if (args_has(top->client->args, "json")) {
        struct msg_table jobs = chosen(top, &arena);
        buf_puts(&out, "{\"cluster\": ");
        table_print_json_row(&top->status, 0, &out);
        add_array("nodes", &top->nodes, &out);
        add_array("jobs", &jobs, &out);
        buf_puts(&out, "}\n");
    } else {
        client_tell_held(&top->jobs);
        add_view(top, &plain, &out);
    }
    code = client_print(top->client, &out);
    buf_done(&out);
    arena_done(&arena);
    return code;
}

/* ---- the terminal --------------------------------------------------------------------------- */

static void draw(struct top *top)
{
    struct winsize size = {.ws_row = 24, .ws_col = 80};
    struct style style = top->client->style;
    struct buf view = {0}, out = {0};
    ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
    style.columns = size.ws_col ? size.ws_col : 80;
    client_tell_held(&top->jobs);
    add_view(top, &style, &view);
    buf_puts(&out, "\033[H\033[?7l"); /* a line that is too long is cut by the terminal */
    const char *line = buf_text(&view);
    for (unsigned row = 1; *line && row < size.ws_row; row++) {
        size_t length = strcspn(line, "\n");
        buf_printf(&out, "%.*s\033[K\r\n", (int)length, line);
        line += length + (line[length] == '\n');
    }
    buf_puts(&out, "\033[J\033[?7h");
    fwrite(out.bytes, 1, out.length, stdout);
    fflush(stdout);
    buf_done(&out);
    buf_done(&view);
}

static void screen_take(struct top *top)
{
    struct termios quiet;
    if (tcgetattr(STDIN_FILENO, &top->mode) == 0) {
        quiet = top->mode;
        quiet.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
        top->raw = tcsetattr(STDIN_FILENO, TCSADRAIN, &quiet) == 0;
    }
    fputs("\033[?1049h\033[?25l\033[2J", stdout);
}

static void screen_give_back(struct top *top)
{
    fputs("\033[?25h\033[?1049l", stdout);
    fflush(stdout);
    if (top->raw)
        tcsetattr(STDIN_FILENO, TCSADRAIN, &top->mode);
}

static void filter_key(struct top *top, char key)
{
    size_t length = strlen(top->filter);
    if (key == '\n' || key == '\r')
        top->typing = false;
    else if (key == 27) {
        top->typing = false;
        top->filter[0] = '\0';
    } else if ((key == 127 || key == 8) && length > 0)
        top->filter[length - 1] = '\0';
    else if (isprint((unsigned char)key) && length + 1 < sizeof top->filter)
        snprintf(top->filter + length, sizeof top->filter - length, "%c", key);
}

static void key_pressed(struct top *top, char key)
{
    if (top->typing) {
        filter_key(top, key);
        return;
    }
    switch (key) {
    case 'q':
        top->ended = true;
        break;
    case 's':
        top->sorting = (top->sorting + 1) % ARRAY_COUNT(sortings);
        break;
    case '/':
        top->typing = true;
        break;
    case 'n':
        top->with_nodes = !top->with_nodes;
        break;
    case 'h':
    case '?':
        top->help = !top->help;
        break;
    case ' ':
        top->asked = true;
        break;
    default:
        break;
    }
}

static void on_keys(void *user, unsigned events)
{
    struct top *top = user;
    char keys[64];
    (void)events;
    ssize_t got = read(STDIN_FILENO, keys, sizeof keys);
    if (got <= 0 && errno != EINTR)
        top->ended = true;
    for (ssize_t i = 0; i < got; i++)
        key_pressed(top, keys[i]);
    draw(top);
}

static void on_signal(void *user, int number)
{
    struct top *top = user;
    if (number == SIGWINCH)
        draw(top);
    else
        top->ended = true;
}

static int watch(struct top *top, struct err *err)
{
    static const int numbers[] = {SIGWINCH, SIGINT, SIGTERM, SIGHUP};
    for (size_t i = 0; i < ARRAY_COUNT(numbers); i++)
        if (loop_add_signal(top->client->loop, numbers[i], on_signal, top, err) < 0)
            return -1;
    return 0;
}

static int wait_until_next(struct top *top, struct err *err)
{
    uint64_t until_ms = clock_steady_ms() + top->every_ms, now_ms;
    top->asked = false;
    while (!top->ended && !top->asked && (now_ms = clock_steady_ms()) < until_ms)
        if (loop_once(top->client->loop, until_ms - now_ms, err) < 0)
            return -1;
    return 0;
}

/* A coordinator that answered once is waited for. */
static int run_live(struct top *top)
{
    struct err err;
    int code = look(top, &err), rc;
    if (code < 0)
        return client_fail(top->client, EXIT_UNREACHABLE, &err);
    if (code != EXIT_DONE)
        return code;
    if (watch(top, &err) < 0)
        return client_fail(top->client, EXIT_LOCAL, &err);
    struct loop_watch *keys =
        loop_add_fd(top->client->loop, STDIN_FILENO, LOOP_READ, on_keys, top);
    screen_take(top);
    do {
        draw(top);
        rc = wait_until_next(top, &err);
        code = rc == 0 && !top->ended ? look(top, &err) : EXIT_DONE;
        snprintf(top->trouble, sizeof top->trouble, "%.*s", 190, code < 0 ? err.text : "");
    } while (rc == 0 && !top->ended && code <= EXIT_DONE);
    screen_give_back(top);
    loop_remove(keys);
    if (rc < 0)
        return client_fail(top->client, EXIT_LOCAL, &err);
    return code < 0 ? EXIT_DONE : code;
}

static int run(struct client *client, const struct args *args)
{
    struct top top = {.client = client,
                      .with_nodes = true,
                      .every_ms = max_u64(args_duration_ms(args, "every", EVERY_MS), EVERY_LEAST)};
    const char *sort = args_text(args, "sort"), *filter = args_text(args, "filter");
    while (sort && top.sorting < ARRAY_COUNT(sortings) &&
           strcmp(sort, sortings[top.sorting].name) != 0)
        top.sorting++;
    if (top.sorting == ARRAY_COUNT(sortings))
        return client_failf(client, EXIT_USAGE,
                            "--sort is '%s', expected job, time, cores, memory, progress or left",
                            sort);
    snprintf(top.filter, sizeof top.filter, "%s", filter ? filter : "");
    bool once = args_has(args, "once") || args_has(args, "json") || !client->style.terminal ||
                !isatty(STDIN_FILENO);
    int code = once ? print_once(&top) : run_live(&top);
    arena_done(&top.arena);
    return code;
}

const struct verb verb_top = {
    .name = "top",
    .words = "",
    .summary = "the cluster live: nodes, and jobs with progress, time left, loss, cores, memory",
    .text = "Shows workers and living jobs and asks again every two seconds. Keys: q leaves, s "
            "sorts by the next column, / filters, n hides the nodes, space asks now, h helps. "
            "CORES, MEMORY and GPU% are what the ranks really use, every ten seconds.",
    VERB_OPTIONS(options),
    .run = run,
};
