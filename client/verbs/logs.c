/* logs.c - athanor logs */
#include "client/client.h"
#include "client/verbs.h"
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/net/loop.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define POLL_MS   200u
#define PAGE_ROWS 1000u

static const struct option options[] = {
    {"follow", 'f', VALUE_NONE, NULL, "go on until the job has ended", false},
    {"lines", 'n', VALUE_COUNT, "N", "begin about N lines before the end", false},
    {"rank", 'r', VALUE_COUNT, "RANK", "output of this rank alone", false},
    {"stream", 0, VALUE_TEXT, "NAME", "stdout or stderr alone", false},
    {"attempt", 0, VALUE_COUNT, "N", "of this attempt (default: the newest)", false},
    {"all", 'a', VALUE_NONE, NULL, "of all attempts", false},
    {"raw", 0, VALUE_NONE, NULL, "bytes as they came: no rank, control characters kept", false},
    OPTION_JSON,
};

/* An unfinished line of one rank and stream. */
struct tail {
    uint64_t rank;
    char stream[8];
    struct buf text;
};

struct logs {
    struct client *client;
    struct pairs pairs;
    const char *id;
    bool raw, prefix;
    struct tail *tails;
    size_t tail_count, tail_capacity;
    char *cursor; /* owned */
};

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

static void put_line(const struct logs *logs, const struct tail *tail, const char *line,
                     size_t length, struct buf *out)
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

static int print_page(struct logs *logs, const struct msg_table *table)
{
    struct buf out = {0};
    for (size_t row = 0; row < table_rows(table); row++) {
        if (logs->raw)
            buf_puts(&out, table_text(table, row, "text"));
        else
            put_chunk(logs, table, row, &out);
    }
    int code = client_print(logs->client, &out);
    buf_done(&out);
    return code;
}

/* Prints everything there is now. */
static int print_new(struct logs *logs)
{
    struct arena arena = {0};
    struct msg_table table;
    int code;
    size_t rows;
    do {
        arena_reset(&arena);
        code = client_page(logs->client, "logs", &logs->pairs, PAGE_ROWS, logs->cursor, &arena,
                           &table);
        rows = code == EXIT_DONE ? table_rows(&table) : 0;
        if (rows)
            code = print_page(logs, &table);
        if (code == EXIT_DONE && *table.next) {
            mem_free(logs->cursor);
            logs->cursor = mem_strdup(table.next);
        }
    } while (code == EXIT_DONE && rows > 0 && logs->cursor);
    arena_done(&arena);
    return code;
}

static int job_facts(struct logs *logs, bool *out_ended, uint64_t *out_ranks)
{
    struct arena arena = {0};
    struct pairs pairs = {0};
    struct msg_table table;
    pairs_add(&pairs, "ids", logs->id);
    int code = client_page(logs->client, "jobs", &pairs, 1, NULL, &arena, &table);
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

static int sleep_a_little(struct logs *logs)
{
    struct err err;
    uint64_t until_ms = clock_steady_ms() + POLL_MS, now_ms;
    while ((now_ms = clock_steady_ms()) < until_ms)
        if (loop_once(logs->client->loop, until_ms - now_ms, &err) < 0)
            return client_fail(logs->client, EXIT_LOCAL, &err);
    return EXIT_DONE;
}

static int print_logs(struct logs *logs, bool follow)
{
    bool ended = false;
    uint64_t ranks = 1;
    int code = job_facts(logs, &ended, &ranks);
    logs->prefix = ranks > 1 && !logs->raw && !args_has(logs->client->args, "rank");
    while (code == EXIT_DONE) {
        code = print_new(logs);
        if (code != EXIT_DONE || !follow || ended)
            break;
        code = sleep_a_little(logs);
        if (code == EXIT_DONE) /* asked before the last page: what came until the end is printed */
            code = job_facts(logs, &ended, &ranks);
    }
    struct buf out = {0};
    flush_tails(logs, &out);
    if (code == EXIT_DONE)
        code = client_print(logs->client, &out);
    buf_done(&out);
    return code;
}

static int print_json(struct logs *logs)
{
    struct msg_table table;
    struct buf out = {0};
    int code = client_query(logs->client, "logs", &logs->pairs, UINT32_MAX, &table);
    if (code != EXIT_DONE)
        return code;
    table_print_json(&table, &out);
    code = client_print(logs->client, &out);
    buf_done(&out);
    return code;
}

static int run(struct client *client, const struct args *args)
{
    struct logs logs = {.client = client, .raw = args_has(args, "raw")};
    int code = client_job_id(client, args->words[0], &logs.id);
    if (code == EXIT_DONE) {
        pairs_add(&logs.pairs, "job", logs.id);
        pairs_add(&logs.pairs, "attempt", args_text(args, "attempt"));
        pairs_add(&logs.pairs, "rank", args_text(args, "rank"));
        pairs_add(&logs.pairs, "stream", args_text(args, "stream"));
        pairs_add(&logs.pairs, "tail", args_text(args, "lines"));
        pairs_add_flag(&logs.pairs, "all", args_has(args, "all"));
        code = args_has(args, "json") ? print_json(&logs)
                                      : print_logs(&logs, args_has(args, "follow"));
    }
    for (size_t i = 0; i < logs.tail_count; i++)
        buf_done(&logs.tails[i].text);
    mem_free(logs.tails);
    mem_free(logs.cursor);
    pairs_done(&logs.pairs);
    return code;
}

const struct verb verb_logs = {
    .name = "logs",
    .words = "JOB",
    .summary = "what a job's ranks print",
    .text =
        "Prints the output of the newest attempt. Lines of jobs with several ranks begin with the "
        "rank. With -f new lines appear as they are stored, and the command ends with the job.",
    .word_kind = WORD_JOB,
    .words_min = 1,
    .words_max = 1,
    VERB_OPTIONS(options),
    .run = run,
};
