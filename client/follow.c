/* follow.c - polling jobs until they have ended; see follow.h.
 *
 * Asks only for the jobs that have not ended, five times a second while they are few, less often
 * when they are many: a poll of 2,000 rows costs the coordinator more than it tells a person. */
#include "client/follow.h"

#include "client/render/bar.h"
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "common/net/loop.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define POLL_MS       200u
#define POLL_MANY_MS  1000u
#define MANY_JOBS     100u
#define NAME_COLUMNS  24u
#define BAR_COLUMNS   24u
#define IDS_PER_QUERY 1000u
#define STATE_SIZE    16

struct followed {
    const char *id;
    char name[256];
    char state[STATE_SIZE];                  /* "" before the first answer */
    char cause[80], detail[800], phase[160]; /* a quarter of it in columns: UTF-8 fits */
    uint64_t step, total, run_ms;
    bool held, node_lost;
    unsigned told_tenth; /* progress last printed in line mode */
    bool changed;
};

struct follow {
    struct client *client;
    struct followed *jobs;
    size_t count, ended;
    unsigned drawn_lines;   /* of the live view, above the cursor */
    uint64_t down_since_ms; /* 0: the coordinator answers */
    struct arena arena;     /* of one poll */
};

static bool is_state(const struct followed *job, const char *state)
{
    return strcasecmp(job->state, state) == 0;
}

static bool has_ended(const struct followed *job)
{
    return is_state(job, "succeeded") || is_state(job, "failed") || is_state(job, "cancelled");
}

/* Stopped by its sweep in favour of better trials: as meant. */
static bool is_pruned(const struct followed *job)
{
    return is_state(job, "cancelled") && strcmp(job->cause, "pruned") == 0;
}

static void copy_text(char *out, size_t size, const char *text)
{
    struct buf clean = {0};
    text_add_clean(&clean, text, (unsigned)size / 4);
    snprintf(out, size, "%s", buf_text(&clean));
    buf_done(&clean);
}

static struct followed *find_job(struct follow *follow, const char *id)
{
    for (size_t i = 0; i < follow->count; i++)
        if (strcmp(follow->jobs[i].id, id) == 0)
            return &follow->jobs[i];
    return NULL;
}

static void take_row(struct follow *follow, const struct msg_table *table, size_t row)
{
    struct followed *job = find_job(follow, table_text(table, row, "job_id"));
    if (!job)
        return;
    const char *state = table_text(table, row, "state");
    bool held = *table_text(table, row, "held") == 't';
    bool node_lost = !table_is_null(table, row, "node_lost_at");
    if (strcmp(job->state, state) != 0 || job->held != held || job->node_lost != node_lost)
        job->changed = true;
    job->node_lost = node_lost;
    copy_text(job->name, sizeof job->name, table_text(table, row, "name"));
    copy_text(job->cause, sizeof job->cause, table_text(table, row, "cause"));
    copy_text(job->detail, sizeof job->detail, table_text(table, row, "detail"));
    copy_text(job->phase, sizeof job->phase, table_text(table, row, "progress_phase"));
    snprintf(job->state, sizeof job->state, "%s", state);
    job->held = held;
    job->step = table_u64(table, row, "progress_step");
    job->total = table_u64(table, row, "progress_total");
    job->run_ms = table_u64(table, row, "run_ms");
    if (has_ended(job))
        follow->ended++;
}

/* ---- asking ------------------------------------------------------------------------------- */

/* Numbers of jobs that have not ended, from *at on, at most IDS_PER_QUERY. */
static const char *next_ids(struct follow *follow, size_t *at, size_t *out_count)
{
    struct buf ids = {0};
    *out_count = 0;
    for (; *at < follow->count && *out_count < IDS_PER_QUERY; ++*at) {
        if (has_ended(&follow->jobs[*at]))
            continue;
        buf_printf(&ids, "%s%s", ids.length ? "," : "", follow->jobs[*at].id);
        ++*out_count;
    }
    const char *copy = arena_strdup(&follow->arena, buf_text(&ids));
    buf_done(&ids);
    return copy;
}

/* Returns -1 with err when the coordinator does not answer, else an exit code. */
static int poll_some(struct follow *follow, const char *ids, size_t count, struct err *err)
{
    struct rec_name_value argument = {"ids", ids};
    struct message request = {.tag = MSG_QUERY}, reply;
    request.u.query = (struct msg_query){"jobs", &argument, 1, IDS_PER_QUERY, NULL};
    if (client_try(follow->client, &request, &follow->arena, &reply, err) < 0)
        return -1;
    if (reply.tag == MSG_REFUSED)
        return client_failf(follow->client, EXIT_REFUSED, "%s", reply.u.refused.text);
    if (reply.tag != MSG_TABLE || table_check(&reply.u.table, err) < 0)
        return client_failf(follow->client, EXIT_UNREACHABLE, "the answer is not understood");
    for (size_t row = 0; row < table_rows(&reply.u.table); row++)
        take_row(follow, &reply.u.table, row);
    if (table_rows(&reply.u.table) < count)
        for (size_t i = 0; i < follow->count; i++)
            if (!follow->jobs[i].state[0])
                return client_failf(follow->client, EXIT_REFUSED, "there is no job %s",
                                    follow->jobs[i].id);
    return EXIT_DONE;
}

static int poll_all(struct follow *follow, struct err *err)
{
    size_t count;
    int code = EXIT_DONE;
    for (size_t at = 0; at < follow->count && code == EXIT_DONE;) {
        const char *ids = next_ids(follow, &at, &count);
        if (count)
            code = poll_some(follow, ids, count, err);
    }
    arena_reset(&follow->arena);
    return code;
}

/* ---- the live view ------------------------------------------------------------------------ */

static void add_job_line(const struct follow *follow, const struct followed *job, struct buf *out)
{
    const struct style *style = &follow->client->style;
    char time[PARSE_TEXT_SIZE];
    enum tint tint = tint_of_state(job->state);
    struct buf name = {0};
    text_add_clean(&name, job->name, NAME_COLUMNS);
    buf_printf(out, "%s%*s  %s%-9s%s ", buf_text(&name),
               (int)(NAME_COLUMNS - text_width(buf_text(&name))), "", tint_on(style, tint),
               job->held && !has_ended(job) ? "held" : job->state, tint_off(style, tint));
    buf_done(&name);
    bar_add(out, is_state(job, "succeeded") ? 1 : job->step,
            is_state(job, "succeeded") ? 1 : job->total, BAR_COLUMNS);
    if (job->total)
        buf_printf(out, " %" PRIu64 "/%" PRIu64, job->step, job->total);
    if (job->run_ms)
        buf_printf(out, "  %s", format_duration_short(job->run_ms, time));
    if (has_ended(job) && job->cause[0] && strcmp(job->cause, "success") != 0)
        buf_printf(out, "  %s%s%s", job->cause, *job->detail ? ": " : "", job->detail);
    else if (job->node_lost)
        buf_printf(out, "  %snode lost%s", tint_on(style, TINT_BAD), tint_off(style, TINT_BAD));
    else if (job->phase[0])
        buf_printf(out, "  %s", job->phase);
}

static unsigned terminal_rows(void)
{
    struct winsize size;
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 4 ? size.ws_row : 24;
}

/* Running jobs first: when the terminal is too short, those that wait are counted only. */
static int job_order(const void *a, const void *b)
{
    const struct followed *const *x = a, *const *y = b;
    int live_x = is_state(*x, "running"), live_y = is_state(*y, "running");
    if (live_x != live_y)
        return live_y - live_x;
    return (*x > *y) - (*x < *y);
}

static void draw(struct follow *follow)
{
    unsigned room = terminal_rows() - 2;
    struct followed **order = mem_array(follow->count, sizeof(struct followed *));
    struct buf out = {0};
    for (size_t i = 0; i < follow->count; i++)
        order[i] = &follow->jobs[i];
    if (follow->count > room)
        qsort(order, follow->count, sizeof(struct followed *), job_order);
    if (follow->drawn_lines)
        buf_printf(&out, "\033[%uA", follow->drawn_lines);
    follow->drawn_lines = 0;
    for (size_t i = 0; i < follow->count && i < room; i++) {
        buf_puts(&out, "\r\033[2K\033[?7l"); /* no wrapping: a long line is cut by the terminal */
        add_job_line(follow, order[i], &out);
        buf_puts(&out, "\033[?7h\n");
        follow->drawn_lines++;
    }
    if (follow->count > room || follow->down_since_ms) {
        buf_printf(&out, "\r\033[2K%zu of %zu ended%s\n", follow->ended, follow->count,
                   follow->down_since_ms ? "; waiting for the coordinator" : "");
        follow->drawn_lines++;
    }
    buf_puts(&out, "\033[J");
    fwrite(out.bytes, 1, out.length, stdout);
    fflush(stdout);
    buf_done(&out);
    mem_free(order);
}

/* ---- line mode ---------------------------------------------------------------------------- */

static void print_change(struct followed *job)
{
    char time[PARSE_TEXT_SIZE];
    job->changed = false;
    if (!has_ended(job)) {
        printf("%s (%s): %s%s%s\n", job->name, job->id, job->state, job->held ? ", held" : "",
               job->node_lost ? ", its node is lost" : "");
        return;
    }
    printf("%s (%s): %s", job->name, job->id, job->state);
    if (job->run_ms)
        printf(" after %s", format_duration_short(job->run_ms, time));
    if (job->cause[0] && strcmp(job->cause, "success") != 0)
        printf(", %s%s%s", job->cause, *job->detail ? ": " : "", job->detail);
    printf("\n");
}

static void print_changes(struct follow *follow)
{
    for (size_t i = 0; i < follow->count; i++) {
        struct followed *job = &follow->jobs[i];
        unsigned tenth = job->total ? (unsigned)(10 * job->step / job->total) : 0;
        if (job->changed)
            print_change(job);
        else if (tenth > job->told_tenth && !has_ended(job))
            printf("%s (%s): step %" PRIu64 " of %" PRIu64 "%s%s\n", job->name, job->id, job->step,
                   job->total, job->phase[0] ? ", " : "", job->phase);
        job->told_tenth = tenth;
    }
    fflush(stdout);
}

/* ---- waiting ------------------------------------------------------------------------------ */

static void show(struct follow *follow)
{
    if (follow->client->style.terminal)
        draw(follow);
    else
        print_changes(follow);
}

static int pause_until_next(struct follow *follow)
{
    struct err err;
    size_t left = follow->count - follow->ended;
    uint64_t until_ms = clock_steady_ms() + (left > MANY_JOBS ? POLL_MANY_MS : POLL_MS), now_ms;
    while ((now_ms = clock_steady_ms()) < until_ms)
        if (loop_once(follow->client->loop, until_ms - now_ms, &err) < 0)
            return client_fail(follow->client, EXIT_LOCAL, &err);
    return EXIT_DONE;
}

/* A coordinator that answered once is waited for: jobs run on without it. */
static int outage(struct follow *follow, bool first, const struct err *why)
{
    uint64_t now_ms = clock_steady_ms();
    if (first)
        return client_fail(follow->client, EXIT_UNREACHABLE, why);
    if (!follow->down_since_ms) {
        follow->down_since_ms = now_ms;
        if (!follow->client->style.terminal)
            client_failf(follow->client, EXIT_UNREACHABLE, "%s; waiting", why->text);
    }
    if (now_ms - follow->down_since_ms > FOLLOW_OUTAGE_MS)
        return client_fail(follow->client, EXIT_UNREACHABLE, why);
    return EXIT_DONE;
}

static int run_follow(struct follow *follow)
{
    struct err err;
    bool first = true;
    for (;;) {
        int code = poll_all(follow, &err);
        if (code < 0)
            code = outage(follow, first, &err);
        else
            follow->down_since_ms = 0;
        if (code != EXIT_DONE)
            return code;
        first = false;
        show(follow);
        if (follow->ended == follow->count)
            return EXIT_DONE;
        code = pause_until_next(follow);
        if (code != EXIT_DONE)
            return code;
    }
}

int follow_jobs(struct client *client, const char *const *ids, size_t count)
{
    struct follow follow = {.client = client, .jobs = mem_array(count + 1, sizeof *follow.jobs)};
    for (size_t i = 0; i < count; i++)
        if (!find_job(&follow, ids[i]))
            follow.jobs[follow.count++].id = ids[i];
    int code = follow.count ? run_follow(&follow) : EXIT_DONE;
    for (size_t i = 0; i < follow.count && code == EXIT_DONE; i++)
        if (!is_state(&follow.jobs[i], "succeeded") && !is_pruned(&follow.jobs[i]))
            code = EXIT_JOB_FAILED;
    arena_done(&follow.arena);
    mem_free(follow.jobs);
    return code;
}
