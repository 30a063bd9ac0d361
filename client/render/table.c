/* table.c - tables for people; see table.h. JSON is in json.c. */
#include "client/render/table.h"

#include "common/base/mem.h"
#include "common/base/parse.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define GAP        2u
#define SHRINK_MIN 12u /* columns that a shortened text keeps */

size_t table_rows(const struct msg_table *table)
{
    return table->columns_count ? table->cells_count / table->columns_count : 0;
}

int table_column(const struct msg_table *table, const char *name)
{
    for (size_t i = 0; i < table->columns_count; i++)
        if (strcmp(table->columns[i].name, name) == 0)
            return (int)i;
    return -1;
}

static const struct rec_cell *cell_at(const struct msg_table *table, size_t row, int column)
{
    return &table->cells[row * table->columns_count + (size_t)column];
}

const char *table_text(const struct msg_table *table, size_t row, const char *column)
{
    int index = table_column(table, column);
    return index < 0 || row >= table_rows(table) ? "" : cell_at(table, row, index)->text;
}

bool table_is_null(const struct msg_table *table, size_t row, const char *column)
{
    int index = table_column(table, column);
    return index < 0 || row >= table_rows(table) || cell_at(table, row, index)->is_null;
}

uint64_t table_u64(const struct msg_table *table, size_t row, const char *column)
{
    return strtoull(table_text(table, row, column), NULL, 10);
}

double table_f64(const struct msg_table *table, size_t row, const char *column)
{
    const char *text = table_text(table, row, column);
    return *text ? strtod(text, NULL) : (double)NAN;
}

int table_check(const struct msg_table *table, struct err *err)
{
    if (table->columns_count == 0 || table->cells_count % table->columns_count != 0)
        return err_set(err, ERR_PROTOCOL, "the answer has %zu cells in %zu columns",
                       table->cells_count, table->columns_count);
    return 0;
}

void table_append(struct msg_table *table, const struct msg_table *more, struct arena *arena)
{
    CHECK(table->columns_count == more->columns_count);
    size_t count = table->cells_count + more->cells_count;
    struct rec_cell *cells = arena_alloc(arena, (count + 1) * sizeof *cells);
    if (table->cells_count)
        memcpy(cells, table->cells, table->cells_count * sizeof *cells);
    if (more->cells_count)
        memcpy(cells + table->cells_count, more->cells, more->cells_count * sizeof *cells);
    table->cells = cells;
    table->cells_count = count;
}

/* ---- values ------------------------------------------------------------------------------- */

/* "2026-01-31 12:34:56.789+00" in local time without the fraction; as it is when not understood. */
static const char *time_text(const char *text, struct arena *arena)
{
    struct tm parts = {0}, local;
    const char *rest = strptime(text, "%Y-%m-%d %H:%M:%S", &parts);
    if (!rest)
        return text;
    long hours = 0, minutes = 0;
    rest += strspn(rest, ".0123456789");
    if (sscanf(rest, "%3ld:%2ld", &hours, &minutes) < 1)
        return text;
    time_t seconds = timegm(&parts) - hours * 3600 - (hours < 0 ? -minutes : minutes) * 60;
    char out[32];
    if (!localtime_r(&seconds, &local) || !strftime(out, sizeof out, "%Y-%m-%d %H:%M:%S", &local))
        return text;
    return arena_strdup(arena, out);
}

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), end_length = strlen(end);
    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

const char *value_text(const struct rec_column *column, const struct rec_cell *cell,
                       struct arena *arena)
{
    char short_text[PARSE_TEXT_SIZE];
    uint64_t number;
    struct err err;
    if (cell->is_null)
        return "-";
    if (strcmp(column->type, "time") == 0)
        return time_text(cell->text, arena);
    if (strcmp(column->type, "bool") == 0)
        return *cell->text == 't' ? "yes" : "no";
    if (strcmp(column->type, "float") == 0)
        return arena_printf(arena, "%.6g", strtod(cell->text, NULL));
    bool is_duration = strcmp(column->type, "duration_ms") == 0;
    bool is_size = strcmp(column->type, "int") == 0 && ends_with(column->name, "_bytes");
    if ((is_duration || is_size || ends_with(column->name, "memory_used")) &&
        parse_u64(cell->text, &number, &err) == 0)
        return arena_strdup(arena, is_duration ? format_duration_short(number, short_text)
                                               : format_size_short(number, short_text));
    return cell->text;
}

/* ---- the aligned table -------------------------------------------------------------------- */

/* A listing being laid out: texts[row * count + i], widths per column. */
struct layout {
    size_t rows, count;
    const int *indices; /* of the table's columns */
    const char **headings;
    const char **texts;
    unsigned *widths;
    bool *right;
};

static const char *default_heading(const char *name, struct arena *arena)
{
    char *text = arena_strdup(arena, name);
    for (char *at = text; *at; at++)
        *at = *at == '_' ? ' ' : (char)toupper((unsigned char)*at);
    return text;
}

static bool is_number(const char *type)
{
    return strcmp(type, "int") == 0 || strcmp(type, "float") == 0 ||
           strcmp(type, "duration_ms") == 0;
}

static const struct heading *all_headings(const struct msg_table *table, struct arena *arena)
{
    struct heading *headings = arena_alloc(arena, table->columns_count * sizeof *headings);
    for (size_t i = 0; i < table->columns_count; i++)
        headings[i].column = table->columns[i].name;
    return headings;
}

static struct layout layout_make(const struct msg_table *table, const struct heading *headings,
                                 size_t count, struct arena *arena)
{
    struct layout layout = {.rows = table_rows(table)};
    int *indices = arena_alloc(arena, count * sizeof *indices);
    layout.headings = arena_alloc(arena, count * sizeof *layout.headings);
    layout.widths = arena_alloc(arena, count * sizeof *layout.widths);
    layout.right = arena_alloc(arena, count * sizeof *layout.right);
    for (size_t i = 0; i < count; i++) {
        int index = table_column(table, headings[i].column);
        if (index < 0) /* an older coordinator: the column is left out */
            continue;
        size_t at = layout.count++;
        indices[at] = index;
        layout.right[at] = is_number(table->columns[index].type);
        layout.headings[at] =
            headings[i].heading ? headings[i].heading : default_heading(headings[i].column, arena);
        layout.widths[at] = text_width(layout.headings[at]);
    }
    layout.indices = indices;
    layout.texts = arena_alloc(arena, (layout.rows * layout.count + 1) * sizeof *layout.texts);
    for (size_t row = 0; row < layout.rows; row++)
        for (size_t i = 0; i < layout.count; i++) {
            const char *text =
                value_text(&table->columns[indices[i]], cell_at(table, row, indices[i]), arena);
            layout.texts[row * layout.count + i] = text;
            layout.widths[i] = (unsigned)max_u64(layout.widths[i], text_width(text));
        }
    return layout;
}

/* Takes columns from the widest texts until the line fits the terminal. */
static void layout_shrink(struct layout *layout, unsigned columns)
{
    unsigned total = 0;
    for (size_t i = 0; i < layout->count; i++)
        total += layout->widths[i] + (i ? GAP : 0);
    while (total > columns) {
        size_t widest = 0;
        for (size_t i = 1; i < layout->count; i++)
            if (layout->right[widest] ||
                (!layout->right[i] && layout->widths[i] > layout->widths[widest]))
                widest = i;
        if (layout->right[widest] || layout->widths[widest] <= SHRINK_MIN)
            return;
        layout->widths[widest]--;
        total--;
    }
}

static void add_cell(struct buf *out, const char *text, unsigned width, bool right, bool last,
                     const struct style *style, enum tint tint)
{
    struct buf clean = {0};
    text_add_clean(&clean, text, width);
    unsigned used = text_width(buf_text(&clean));
    unsigned pad = width > used ? width - used : 0;
    if (right)
        buf_printf(out, "%*s", (int)pad, "");
    buf_printf(out, "%s%s%s", tint_on(style, tint), buf_text(&clean), tint_off(style, tint));
    if (!right && !last)
        buf_printf(out, "%*s", (int)pad, "");
    buf_done(&clean);
}

/* An empty last cell leaves the gap before it. */
static void trim_blanks(struct buf *out)
{
    while (out->length && out->bytes[out->length - 1] == ' ')
        out->bytes[--out->length] = '\0';
}

static void add_line(struct buf *out, const struct layout *layout, const char *const *texts,
                     const struct msg_table *table, const struct style *style, bool heading)
{
    for (size_t i = 0; i < layout->count; i++) {
        enum tint tint = heading ? TINT_STRONG : TINT_NONE;
        if (!heading && strcmp(table->columns[layout->indices[i]].name, "state") == 0)
            tint = tint_of_state(texts[i]);
        if (i)
            buf_printf(out, "%*s", (int)GAP, "");
        add_cell(out, texts[i], layout->widths[i], layout->right[i], i + 1 == layout->count, style,
                 tint);
    }
    trim_blanks(out);
    buf_putc(out, '\n');
}

void table_print(const struct msg_table *table, const struct heading *headings, size_t count,
                 const struct style *style, struct buf *out)
{
    struct arena arena = {0};
    if (!headings) {
        headings = all_headings(table, &arena);
        count = table->columns_count;
    }
    struct layout layout = layout_make(table, headings, count, &arena);
    if (style->terminal)
        layout_shrink(&layout, style->columns);
    add_line(out, &layout, layout.headings, table, style, true);
    for (size_t row = 0; row < layout.rows; row++)
        add_line(out, &layout, layout.texts + row * layout.count, table, style, false);
    arena_done(&arena);
}

void table_print_row(const struct msg_table *table, size_t row, const struct heading *headings,
                     size_t count, const struct style *style, struct buf *out)
{
    struct arena arena = {0};
    unsigned width = 0;
    for (size_t i = 0; i < count; i++)
        width = (unsigned)max_u64(width, strlen(headings[i].heading));
    for (size_t i = 0; i < count; i++) {
        int index = table_column(table, headings[i].column);
        if (index < 0 || cell_at(table, row, index)->is_null || !*cell_at(table, row, index)->text)
            continue; /* nothing to say */
        const char *text = value_text(&table->columns[index], cell_at(table, row, index), &arena);
        enum tint tint = strcmp(headings[i].column, "state") == 0 ? tint_of_state(text) : TINT_NONE;
        buf_printf(out, "%s%-*s%s  %s", tint_on(style, TINT_QUIET), (int)width, headings[i].heading,
                   tint_off(style, TINT_QUIET), tint_on(style, tint));
        text_add_clean(out, text, 0);
        buf_printf(out, "%s\n", tint_off(style, tint));
    }
    arena_done(&arena);
}

void table_print_column(const struct msg_table *table, const char *column, struct buf *out)
{
    for (size_t row = 0; row < table_rows(table); row++) {
        text_add_clean(out, table_text(table, row, column), 0);
        buf_putc(out, '\n');
    }
}
