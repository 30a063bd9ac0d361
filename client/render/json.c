/* json.c - tables as JSON; see table.h. */
#include "client/render/table.h"
#include "common/base/mem.h"
#include "common/base/parse.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static json_t *real_value(const char *text)
{
    double value = strtod(text, NULL);
    return isfinite(value) ? json_real(value) : json_string(text);
}

/* "2026-01-31 12:34:56.789+00" as ISO 8601. */
static json_t *time_value(const char *text)
{
    char iso[64];
    size_t length = strlen(text);
    if (length < 20 || length >= sizeof iso - 8 || text[10] != ' ')
        return json_string(text);
    memcpy(iso, text, length + 1);
    iso[10] = 'T';
    if (length > 3 && strcmp(iso + length - 3, "+00") == 0)
        memcpy(iso + length - 3, "Z", 2);
    return json_string(iso);
}

static json_t *cell_value(const struct rec_column *column, const struct rec_cell *cell)
{
    int64_t number;
    struct err err;
    json_t *value = NULL;
    if (cell->is_null)
        return json_null();
    if (strcmp(column->type, "int") == 0 || strcmp(column->type, "duration_ms") == 0)
        value = parse_i64(cell->text, &number, &err) == 0 ? json_integer(number) : NULL;
    else if (strcmp(column->type, "float") == 0)
        value = real_value(cell->text);
    else if (strcmp(column->type, "bool") == 0)
        value = json_boolean(*cell->text == 't');
    else if (strcmp(column->type, "time") == 0)
        value = time_value(cell->text);
    else if (strcmp(column->type, "json") == 0)
        value = json_loads(cell->text, JSON_DECODE_ANY, NULL);
    return value ? value : json_string(cell->text);
}

static int add_to_buf(const char *bytes, size_t length, void *user)
{
    buf_add(user, bytes, length);
    return 0;
}

void table_print_json_row(const struct msg_table *table, size_t row, struct buf *out)
{
    json_t *object = json_object();
    for (size_t i = 0; i < table->columns_count; i++)
        json_object_set_new(
            object, table->columns[i].name,
            cell_value(&table->columns[i], &table->cells[row * table->columns_count + i]));
    CHECK(json_dump_callback(object, add_to_buf, out, JSON_COMPACT | JSON_REAL_PRECISION(17)) == 0);
    json_decref(object);
}

void table_print_json(const struct msg_table *table, struct buf *out)
{
    size_t rows = table_rows(table);
    buf_puts(out, "[");
    for (size_t row = 0; row < rows; row++) {
        buf_puts(out, row ? ",\n " : "");
        table_print_json_row(table, row, out);
    }
    buf_puts(out, "]\n");
}
