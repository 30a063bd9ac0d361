/* logs.c - athanor logs
 *
 * Asks with `seen`, how far each node's stream has been printed, instead of a page's cursor: a
 * follower must find what node 0 prints after something of node 1, and it may ask another
 * coordinator each time. */
#include "client/client.h"
#include "client/follow.h"
#include "client/verbs.h"
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/net/loop.h"

#include <inttypes.h>
#include <regex.h>
#include <stdlib.h>
#include <string.h>

#define POLL_MS   200u
#define PAGE_ROWS 1000u
#define TAIL_MAX  1000000u /* lines kept in memory until the end is known */

static const struct option options[] = {
    {"follow", 'f', VALUE_NONE, NULL, "go on until the job has ended, through its retries", false},
    {"tail", 'n', VALUE_COUNT, "N", "begin with the last N lines (of --grep: that match)", false},
    {"lines", 0, VALUE_COUNT, "N", "the same as --tail", false},
    {"since", 0, VALUE_DURATION, "TIME", "what was printed in the last TIME, such as 5m", false},
    {"grep", 'g', VALUE_TEXT, "REGEX", "lines alone that match the extended regular expression",
     false},
    {"rank", 'r', VALUE_COUNT, "RANK", "output of this rank alone", false},
    {"stream", 0, VALUE_TEXT, "NAME", "out or err alone", false},
    {"attempt", 0, VALUE_COUNT, "N", "of this attempt (default: the newest)", false},
    {"all", 'a', VALUE_NONE, NULL, "of all attempts", false},
    {"raw", 0, VALUE_NONE, NULL, "bytes as they came: no rank, no marks, control characters kept",
     false},
    {"json", 0, VALUE_NONE, NULL,
     "print JSON: an array of chunks as they were stored; with -f an object a line", false},
};

/* An unfinished line of one rank and stream. */
struct tail {
    uint64_t rank;
    char stream[8];
    struct buf text;
};

/* The last lines so far, oldest at `first` once it is full. */
struct ring {
    char **lines;
    size_t count, capacity, most, first;
};

/* How far a node's stream was printed. */
struct position {
    uint64_t attempt_id, node, seq;
};

struct logs {
    struct client *client;
    struct pairs pairs; /* what stays the same in all questions */
    const char *id, *lines;
    bool raw, prefix, json, follow, filtered, told_outage;
    regex_t filter;
    struct tail *tails;
    size_t tail_count, tail_capacity;
    struct ring ring; /* most 0: lines are printed at once */
    struct position *seen;
    size_t seen_count, seen_capacity;
    uint64_t attempt; /* number of the one printed last; 0: none yet */
    uint64_t rows, down_since_ms;
};

/* ---- lines ---------------------------------------------------------------------------------- */

static struct tail *tail_of(struct logs *logs, uint64_t rank, const char *stream)
{
    for (size_t i = 0; i < logs->tail_count; i++)
        if (logs->tails[i].rank == rank && strcmp(logs->tails[i].stream, stream) == 0)
            return &logs->tails[i];
    VEC_RESERVE(logs->tails, logs->tail_count, logs->tail_capacity);
    struct tail *tail = &logs->tails[logs->tail_count++];
    *tail = (struct tail){.rank = rank};
    snprintf(tail->stream, sizeof tail->stream, "%s", stream);
    return tail;
}

/* Takes the line. */
static void ring_put(struct ring *ring, char *line)
{
    if (ring->count < ring->most) {
        VEC_RESERVE(ring->lines, ring->count, ring->capacity);
        ring->lines[ring->count++] = line;
        return;
    }
    mem_free(ring->lines[ring->first]);
    ring->lines[ring->first] = line;
    ring->first = (ring->first + 1) % ring->count;
}

static void ring_flush(struct ring *ring, struct buf *out)
{
    for (size_t i = 0; i < ring->count; i++) {
        char *line = ring->lines[(ring->first + i) % ring->count];
        buf_puts(out, line);
        mem_free(line);
    }
    mem_free(ring->lines);
    *ring = (struct ring){0};
}

static void add_line(struct logs *logs, const struct tail *tail, const char *line, size_t length,
                     struct buf *out)
{
    const struct style *style = &logs->client->style;
    if (logs->prefix)
        buf_printf(out, "%s[%" PRIu64 "]%s ", tint_on(style, TINT_QUIET), tail->rank,
                   tint_off(style, TINT_QUIET));
    if (style->terminal)
        text_add_output(out, line, length);
    else
        buf_add(out, line, length);
    buf_putc(out, '\n');
}

static bool line_fits(const struct logs *logs, const char *line, size_t length)
{
    regmatch_t range = {0, (regoff_t)length};
    return !logs->filtered || regexec(&logs->filter, line, 1, &range, REG_STARTEND) == 0;
}

static void put_line(struct logs *logs, const struct tail *tail, const char *line, size_t length,
                     struct buf *out)
{
    if (!line_fits(logs, line, length))
        return;
    if (logs->ring.most == 0) {
        add_line(logs, tail, line, length, out);
        return;
    }
    struct buf kept = {0};
    add_line(logs, tail, line, length, &kept);
    ring_put(&logs->ring, buf_take(&kept));
}

/* Chunks end anywhere: only whole lines are printed, so that ranks do not mix within one. */
static void put_chunk(struct logs *logs, const struct msg_table *table, size_t row, struct buf *out)
{
    const char *text = table_text(table, row, "text");
    struct tail *tail =
        tail_of(logs, table_u64(table, row, "rank"), table_text(table, row, "stream"));
    buf_puts(&tail->text, text);
    size_t done = 0;
    const char *stop;
    while (tail->text.length > done &&
           (stop = memchr(tail->text.bytes + done, '\n', tail->text.length - done))) {
        size_t length = (size_t)(stop - tail->text.bytes) - done;
        put_line(logs, tail, tail->text.bytes + done, length, out);
        done += length + 1;
    }
    buf_drop(&tail->text, done);
}

static void flush_tails(struct logs *logs, struct buf *out)
{
    for (size_t i = 0; i < logs->tail_count; i++) {
        struct tail *tail = &logs->tails[i];
        if (tail->text.length)
            put_line(logs, tail, tail->text.bytes, tail->text.length, out);
        buf_clear(&tail->text);
    }
}

/* ---- attempts ------------------------------------------------------------------------------- */

static void add_end(const struct msg_table *attempts, size_t row, struct buf *out)
{
    const char *evidence = table_text(attempts, row, "evidence");
    buf_printf(out, "%s%s%s", table_text(attempts, row, "cause"), *evidence ? ", " : "", evidence);
}

static int attempt_row(const struct msg_table *attempts, uint64_t number)
{
    for (size_t row = 0; row < table_rows(attempts); row++)
        if (table_u64(attempts, row, "number") == number)
            return (int)row;
    return -1;
}

/* A line of ours between the output of two attempts, or before that of one that was replaced. */
static void mark_attempt(struct logs *logs, uint64_t number, bool superseded, struct buf *out)
{
    struct arena arena = {0};
    struct pairs pairs = {0};
    struct msg_table attempts = {0};
    struct buf text = {0}, clean = {0};
    struct err err;
    pairs_add(&pairs, "job", logs->id);
    if (client_poll(logs->client, "attempts", &pairs, QUERY_ROWS_MAX, &arena, &attempts, &err) !=
        EXIT_DONE)
        attempts = (struct msg_table){0}; /* the number alone says most of it */
    int row = attempt_row(&attempts, number), before = attempt_row(&attempts, logs->attempt);
    buf_printf(&text, "[athanor] attempt %" PRIu64, number);
    if (row >= 0)
        buf_printf(&text, " on %s", table_text(&attempts, (size_t)row, "worker"));
    if (superseded && row >= 0) {
        buf_puts(&text, ", superseded: ");
        add_end(&attempts, (size_t)row, &text);
    } else if (logs->attempt && before >= 0) {
        buf_printf(&text, "; attempt %" PRIu64 " is superseded: ", logs->attempt);
        add_end(&attempts, (size_t)before, &text);
    }
    text_add_clean(&clean, buf_text(&text), 1000);
    flush_tails(logs, out);
    char *line = mem_printf("%s%s%s\n", tint_on(&logs->client->style, TINT_QUIET),
                            buf_text(&clean), tint_off(&logs->client->style, TINT_QUIET));
    if (logs->ring.most)
        ring_put(&logs->ring, line);
    else {
        buf_puts(out, line);
        mem_free(line);
    }
    buf_done(&clean);
    buf_done(&text);
    pairs_done(&pairs);
    arena_done(&arena);
}

static void look_at_attempt(struct logs *logs, const struct msg_table *table, size_t row,
                            struct buf *out)
{
    uint64_t number = table_u64(table, row, "attempt");
    bool superseded = *table_text(table, row, "superseded") == 't';
    if (number == logs->attempt || logs->raw || logs->json)
        return;
    if (logs->attempt || superseded)
        mark_attempt(logs, number, superseded, out);
    logs->attempt = number;
}

/* ---- positions ------------------------------------------------------------------------------ */

/* A row of a later attempt comes behind all of the earlier ones: they are forgotten. */
static void note_seen(struct logs *logs, const struct msg_table *table, size_t row)
{
    struct position at = {table_u64(table, row, "attempt_id"), table_u64(table, row, "node"),
                          table_u64(table, row, "seq")};
    if (logs->seen_count && logs->seen[0].attempt_id < at.attempt_id)
        logs->seen_count = 0;
    for (size_t i = 0; i < logs->seen_count; i++)
        if (logs->seen[i].node == at.node) {
            logs->seen[i].seq = max_u64(logs->seen[i].seq, at.seq);
            return;
        }
    VEC_RESERVE(logs->seen, logs->seen_count, logs->seen_capacity);
    logs->seen[logs->seen_count++] = at;
}

static const char *seen_text(const struct logs *logs, struct arena *arena)
{
    struct buf text = {0};
    for (size_t i = 0; i < logs->seen_count; i++)
        buf_printf(&text, "%s%" PRIu64 ".%" PRIu64 ".%" PRIu64, i ? "," : "",
                   logs->seen[i].attempt_id, logs->seen[i].node, logs->seen[i].seq);
    const char *kept = arena_strdup(arena, buf_text(&text));
    buf_done(&text);
    return kept;
}

/* ---- asking --------------------------------------------------------------------------------- */

static int print_page(struct logs *logs, const struct msg_table *table)
{
    struct buf out = {0};
    for (size_t row = 0; row < table_rows(table); row++) {
        const char *text = table_text(table, row, "text");
        note_seen(logs, table, row);
        look_at_attempt(logs, table, row, &out);
        if (logs->json && line_fits(logs, text, strlen(text))) {
            buf_puts(&out, logs->follow || logs->rows == 0 ? "" : ",\n ");
            table_print_json_row(table, row, &out);
            buf_puts(&out, logs->follow ? "\n" : "");
            logs->rows++;
        } else if (logs->raw && !logs->json)
            buf_puts(&out, text);
        else if (!logs->json)
            put_chunk(logs, table, row, &out);
    }
    int code = client_print(logs->client, &out);
    buf_done(&out);
    return code;
}

/* One question for what lies behind `seen`. -1 while nobody answers. */
static int ask_page(struct logs *logs, struct arena *arena, struct msg_table *out, struct err *err)
{
    struct pairs pairs = {0};
    for (size_t i = 0; i < logs->pairs.count; i++)
        pairs_add(&pairs, logs->pairs.items[i].name, logs->pairs.items[i].value);
    pairs_add(&pairs, "seen", seen_text(logs, arena));
    pairs_add(&pairs, "tail", logs->lines);
    int code = client_poll(logs->client, "logs", &pairs, PAGE_ROWS, arena, out, err);
    pairs_done(&pairs);
    return code;
}

/* Prints everything there is now. */
static int print_new(struct logs *logs, struct err *err)
{
    struct arena arena = {0};
    struct msg_table table;
    int code;
    size_t rows;
    do {
        arena_reset(&arena);
        code = ask_page(logs, &arena, &table, err);
        rows = code == EXIT_DONE ? table_rows(&table) : 0;
        if (rows)
            code = print_page(logs, &table);
    } while (code == EXIT_DONE && rows > 0);
    arena_done(&arena);
    return code;
}

static int job_facts(struct logs *logs, bool *out_ended, uint64_t *out_ranks, struct err *err)
{
    struct arena arena = {0};
    struct pairs pairs = {0};
    struct msg_table table;
    pairs_add(&pairs, "ids", logs->id);
    int code = client_poll(logs->client, "jobs", &pairs, 1, &arena, &table, err);
    if (code == EXIT_DONE && table_rows(&table) == 0)
        code = client_failf(logs->client, EXIT_REFUSED, "there is no job %s", logs->id);
    if (code == EXIT_DONE) {
        *out_ended = !table_is_null(&table, 0, "ended_at");
        *out_ranks = table_u64(&table, 0, "ranks");
    }
    pairs_done(&pairs);
    arena_done(&arena);
    return code;
}

/* Asks for what the job has not got, and never will: silence would look like a program's. */
static int check_wishes(const struct logs *logs, const struct args *args, uint64_t ranks,
                        uint64_t attempts, bool ended)
{
    uint64_t rank = args_count(args, "rank", 0), attempt = args_count(args, "attempt", 0);
    if (args_has(args, "rank") && rank >= ranks)
        return client_failf(logs->client, EXIT_USAGE,
                            ranks == 1 ? "job %s has rank 0 only, not %" PRIu64
                                       : "job %s has no rank %" PRIu64
                                         ", expected 0 to %" PRIu64,
                            logs->id, rank, ranks - 1);
    if (!args_has(args, "attempt") || (attempt > 0 && attempt <= attempts))
        return EXIT_DONE;
    if (attempt > 0 && logs->follow && !ended)
        return EXIT_DONE; /* it may come */
    return attempts == 0 ? EXIT_DONE
                         : client_failf(logs->client, EXIT_USAGE,
                                        "job %s has no attempt %" PRIu64
                                        ", expected 1 to %" PRIu64,
                                        logs->id, attempt, attempts);
}

/* Nothing is printed because there is nothing yet, or never was. */
static void tell_silence(const struct logs *logs, const char *state, bool held, bool ended)
{
    if (ended)
        fprintf(stderr, "job %s never started: it is %s\n", logs->id, state);
    else
        fprintf(stderr, "job %s has not started yet: it is %s%s, 'athanor why %s' says why%s\n",
                logs->id, state, held ? " and held" : "", logs->id,
                logs->follow ? "; waiting" : "");
}

static int check_job(struct logs *logs, const struct args *args)
{
    struct pairs pairs = {0};
    struct msg_table table;
    pairs_add(&pairs, "ids", logs->id);
    int code = client_query(logs->client, "jobs", &pairs, 1, &table);
    pairs_done(&pairs);
    if (code != EXIT_DONE)
        return code;
    if (table_rows(&table) == 0)
        return client_failf(logs->client, EXIT_REFUSED, "there is no job %s", logs->id);
    uint64_t attempts = table_u64(&table, 0, "attempt_count");
    bool ended = !table_is_null(&table, 0, "ended_at");
    code = check_wishes(logs, args, table_u64(&table, 0, "ranks"), attempts, ended);
    if (code == EXIT_DONE && table_is_null(&table, 0, "started_at") && attempts == 0)
        tell_silence(logs, table_text(&table, 0, "state"),
                     *table_text(&table, 0, "held") == 't', ended);
    return code;
}

/* Where to begin: with the newest attempt, or the first that the job will have. */
static int begin_at_newest(struct logs *logs)
{
    struct pairs pairs = {0};
    struct msg_table table;
    struct position first = {0};
    bool newest = !args_has(logs->client->args, "attempt") && !args_has(logs->client->args, "all");
    pairs_add(&pairs, "job", logs->id);
    int code = client_query(logs->client, "attempts", &pairs, 1, &table);
    pairs_done(&pairs);
    if (code == EXIT_DONE && newest && table_rows(&table) > 0)
        first.attempt_id = table_u64(&table, 0, "attempt_id");
    VEC_RESERVE(logs->seen, logs->seen_count, logs->seen_capacity);
    logs->seen[logs->seen_count++] = first;
    return code;
}

/* ---- following ------------------------------------------------------------------------------ */

static int sleep_a_little(struct logs *logs)
{
    struct err err;
    uint64_t until_ms = clock_steady_ms() + POLL_MS, now_ms;
    while ((now_ms = clock_steady_ms()) < until_ms)
        if (loop_once(logs->client->loop, until_ms - now_ms, &err) < 0)
            return client_fail(logs->client, EXIT_LOCAL, &err);
    return EXIT_DONE;
}

/* Jobs print on while nobody leads: a follower waits for the next coordinator. */
static int wait_for_leader(struct logs *logs, const struct err *why)
{
    uint64_t now_ms = clock_steady_ms();
    if (!logs->follow)
        return client_fail(logs->client, EXIT_UNREACHABLE, why);
    if (!logs->down_since_ms) {
        logs->down_since_ms = now_ms;
        client_failf(logs->client, EXIT_UNREACHABLE, "%s; waiting", why->text);
    }
    if (now_ms - logs->down_since_ms > FOLLOW_OUTAGE_MS)
        return client_fail(logs->client, EXIT_UNREACHABLE, why);
    return sleep_a_little(logs);
}

/* What remains to be said: unfinished lines, the last lines kept, the end of the array. */
static int print_rest(struct logs *logs, bool last)
{
    struct buf out = {0};
    if (last)
        flush_tails(logs, &out);
    ring_flush(&logs->ring, &out);
    if (last && logs->json && !logs->follow)
        buf_puts(&out, "]\n");
    int code = client_print(logs->client, &out);
    buf_done(&out);
    return code;
}

/* The end is asked for before the page: what came until then is printed. */
static int print_logs(struct logs *logs)
{
    bool ended = false;
    uint64_t ranks = 1;
    struct err err;
    if (logs->json && !logs->follow)
        fputs("[", stdout);
    for (;;) {
        int code = job_facts(logs, &ended, &ranks, &err);
        logs->prefix = ranks > 1 && !logs->raw && !args_has(logs->client->args, "rank");
        if (code == EXIT_DONE)
            code = print_new(logs, &err);
        if (code < 0) {
            code = wait_for_leader(logs, &err);
            if (code != EXIT_DONE)
                return code;
            continue;
        }
        if (code != EXIT_DONE)
            return code;
        logs->down_since_ms = 0;
        logs->lines = NULL;
        if (!logs->follow || ended)
            return print_rest(logs, true);
        code = print_rest(logs, false);
        if (code == EXIT_DONE)
            code = sleep_a_little(logs);
        if (code != EXIT_DONE)
            return code;
    }
}

/* ---- the verb ------------------------------------------------------------------------------- */

static int read_options(struct logs *logs, const struct args *args)
{
    static const struct {
        const char *given, *meant;
    } streams[] = {{"out", "stdout"}, {"err", "stderr"}, {"stdout", "stdout"},
                   {"stderr", "stderr"}};
    const char *stream = args_text(args, "stream"), *regex = args_text(args, "grep");
    size_t at = 0;
    char why[200];
    while (stream && at < ARRAY_COUNT(streams) && strcmp(stream, streams[at].given) != 0)
        at++;
    if (at == ARRAY_COUNT(streams))
        return client_failf(logs->client, EXIT_USAGE, "--stream is '%s', expected out or err",
                            stream);
    logs->lines = args_text(args, "tail") ? args_text(args, "tail") : args_text(args, "lines");
    logs->ring.most = args_count(args, "tail", args_count(args, "lines", 0));
    if (logs->lines && (logs->ring.most == 0 || logs->ring.most > TAIL_MAX))
        return client_failf(logs->client, EXIT_USAGE, "--tail is %s, expected 1 to %u",
                            logs->lines, TAIL_MAX);
    int rc = regex ? regcomp(&logs->filter, regex, REG_EXTENDED | REG_NEWLINE) : 0;
    if (rc) {
        regerror(rc, &logs->filter, why, sizeof why);
        return client_failf(logs->client, EXIT_USAGE,
                            "--grep is '%s', expected an extended regular expression: %s", regex,
                            why);
    }
    logs->filtered = regex != NULL;
    if (logs->filtered || logs->ring.most == 0)
        logs->lines = NULL; /* which lines will match is known here only */
    if (logs->raw || logs->json)
        logs->ring.most = 0; /* chunks, as they were stored */
    pairs_add(&logs->pairs, "stream", stream ? streams[at].meant : NULL);
    return EXIT_DONE;
}

static void ask_for(struct logs *logs, const struct args *args)
{
    uint64_t since_ms = args_duration_ms(args, "since", 0), now_us = clock_wall_us();
    pairs_add(&logs->pairs, "job", logs->id);
    pairs_add(&logs->pairs, "attempt", args_text(args, "attempt"));
    pairs_add(&logs->pairs, "rank", args_text(args, "rank"));
    pairs_add_flag(&logs->pairs, "all", args_has(args, "all"));
    if (since_ms)
        pairs_add(&logs->pairs, "since",
                  arena_printf(&logs->client->arena, "%.6f",
                               (double)(now_us - min_u64(now_us, since_ms * 1000)) / 1e6));
}

static int run(struct client *client, const struct args *args)
{
    struct logs logs = {.client = client,
                        .raw = args_has(args, "raw"),
                        .json = args_has(args, "json"),
                        .follow = args_has(args, "follow")};
    int code = read_options(&logs, args);
    if (code == EXIT_DONE)
        code = client_job_id(client, args->words[0], &logs.id);
    if (code == EXIT_DONE)
        code = check_job(&logs, args);
    if (code == EXIT_DONE)
        code = begin_at_newest(&logs);
    if (code == EXIT_DONE) {
        ask_for(&logs, args);
        code = print_logs(&logs);
    }
    struct buf left = {0};
    ring_flush(&logs.ring, &left);
    buf_done(&left);
    for (size_t i = 0; i < logs.tail_count; i++)
        buf_done(&logs.tails[i].text);
    if (logs.filtered)
        regfree(&logs.filter);
    mem_free(logs.tails);
    mem_free(logs.seen);
    pairs_done(&logs.pairs);
    return code;
}

const struct verb verb_logs = {
    .name = "logs",
    .words = "JOB",
    .summary = "what a job's ranks print",
    .text =
        "Prints the output of the newest attempt. Lines of jobs with several ranks begin with the "
        "rank; lines of our own, which name the attempt and why the one before it ended, with "
        "[athanor]. With -f new lines appear as they are stored, through retries of the job and "
        "while one coordinator takes over from another, and the command ends with the job.\n\n"
        "Programs that do not write to a terminal often hold back their output in blocks: 'pty: "
        "true' in the spec gives them one.",
    .word_kind = WORD_JOB,
    .words_min = 1,
    .words_max = 1,
    VERB_OPTIONS(options),
    .run = run,
};
