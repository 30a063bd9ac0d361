/* history.c - athanor history */
#include "client/client.h"
#include "client/verbs.h"

#include "common/base/mem.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PAGE_ROWS 1000u

static const struct option options[] = {
    {"experiment", 'e', VALUE_TEXT, "NAME", "jobs of this experiment", false},
    {"queue", 0, VALUE_TEXT, "NAME", "jobs of this queue", false},
    {"project", 0, VALUE_TEXT, "NAME", "jobs of this project", false},
    {"from", 0, VALUE_TEXT, "TIME", "submitted at this time or later: 2026-01-05, 'today'", false},
    {"to", 0, VALUE_TEXT, "TIME", "submitted before this time", false},
    OPTION_COLUMN,
    OPTION_JSON,
};

/* RFC 4180: quoted where it has to be. */
static void csv_cell(struct buf *out, const char *text)
{
    if (!strpbrk(text, ",\"\r\n")) {
        buf_puts(out, text);
        return;
    }
    buf_putc(out, '"');
    for (; *text; text++) {
        if (*text == '"')
            buf_putc(out, '"');
        buf_putc(out, *text);
    }
    buf_putc(out, '"');
}

static void csv_head(const struct msg_table *table, struct buf *out)
{
    for (size_t i = 0; i < table->columns_count; i++)
        buf_printf(out, "%s%s", i ? "," : "", table->columns[i].name);
    buf_putc(out, '\n');
}

static void csv_rows(const struct msg_table *table, struct buf *out)
{
    for (size_t i = 0; i < table->cells_count; i++) {
        const struct rec_cell *cell = &table->cells[i];
        csv_cell(out, cell->is_null || !cell->text ? "" : cell->text);
        buf_putc(out, (i + 1) % table->columns_count ? ',' : '\n');
    }
}

/* Page by page, so that memory does not grow with the history. */
static int write_pages(struct client *client, const struct pairs *pairs, FILE *file)
{
    struct arena arena = {0};
    struct buf out = {0};
    char *cursor = NULL;
    bool head = true;
    int code;
    size_t rows;
    do {
        struct msg_table table = {0};
        arena_reset(&arena);
        buf_clear(&out);
        code = client_page(client, "history", pairs, PAGE_ROWS, cursor, &arena, &table);
        rows = code == EXIT_DONE ? table_rows(&table) : 0;
        if (code == EXIT_DONE && head)
            csv_head(&table, &out);
        csv_rows(&table, &out);
        head = false;
        if (out.length && fwrite(out.bytes, 1, out.length, file) != out.length)
            code = client_failf(client, EXIT_LOCAL, "writing: %s", strerror(errno));
        mem_free(cursor);
        cursor = code == EXIT_DONE && table.next && *table.next ? mem_strdup(table.next) : NULL;
    } while (code == EXIT_DONE && rows > 0 && cursor);
    mem_free(cursor);
    buf_done(&out);
    arena_done(&arena);
    return code;
}

/* Into FILE.part first: what is called FILE is whole. */
static int write_file(struct client *client, const struct pairs *pairs, const char *path)
{
    const char *part = arena_printf(&client->arena, "%s.part", path);
    FILE *file = fopen(part, "we");
    if (!file)
        return client_failf(client, EXIT_LOCAL, "writing '%s': %s", part, strerror(errno));
    int code = write_pages(client, pairs, file);
    if (fclose(file) != 0 && code == EXIT_DONE)
        code = client_failf(client, EXIT_LOCAL, "writing '%s': %s", part, strerror(errno));
    if (code == EXIT_DONE && rename(part, path) < 0)
        code = client_failf(client, EXIT_LOCAL, "renaming to '%s': %s", path, strerror(errno));
    if (code != EXIT_DONE)
        unlink(part);
    return code;
}

static int run(struct client *client, const struct args *args)
{
    struct pairs pairs = {0};
    int code;
    static const char *const passed[] = {"experiment", "queue", "project", "from", "to"};
    for (size_t i = 0; i < ARRAY_COUNT(passed); i++)
        pairs_add(&pairs, passed[i], args_text(args, passed[i]));
    if (args_has(args, "json") || args_text(args, "column"))
        code = client_list(client, "history", &pairs, UINT32_MAX, NULL, 0, "no job has ended");
    else if (args->word_count)
        code = write_file(client, &pairs, args->words[0]);
    else
        code = write_pages(client, &pairs, stdout);
    if (fflush(stdout) != 0 && code == EXIT_DONE)
        code = client_failf(client, EXIT_LOCAL, "writing: %s", strerror(errno));
    pairs_done(&pairs);
    return code;
}

const struct verb verb_history = {
    .name = "history",
    .words = "[FILE]",
    .summary = "what ran, as a CSV to simulate again",
    .text = "Writes every job that has ended as CSV, oldest first: who submitted what, when it "
            "started and ended, how long its attempts ran. 'athanor-coordinator --simulate FILE "
            "--policy NAME' replays that past under another policy or on another machine, and "
            "prints what would have become of waits, utilisation and fairness.",
    .word_kind = WORD_FILE,
    .words_max = 1,
    VERB_OPTIONS(options),
    .run = run,
};
