/* link: client */
/* render_fuzz.c - whatever cells arrive, what is printed cannot drive a terminal and is JSON.
 *
 * Input: first byte the number of columns, second the type of each, then cells ended by zero
 * bytes. */
#include "client/render/table.h"

#include <jansson.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static struct msg_table make_table(const uint8_t *bytes, size_t length, struct arena *arena)
{
    static const char *const types[] = {"int",  "float",       "text", "bool",
                                        "time", "duration_ms", "json", "odd"};
    static const char *const names[] = {"job_id", "state", "size_bytes", "x"};
    struct msg_table table = {.columns_count = 1u + bytes[0] % 4u};
    table.columns = arena_alloc(arena, table.columns_count * sizeof *table.columns);
    for (size_t i = 0; i < table.columns_count; i++)
        table.columns[i] = (struct rec_column){names[i], types[(bytes[1] + i) % 8]};
    table.cells = arena_alloc(arena, (length + 8) * sizeof *table.cells);
    for (size_t at = 2; at < length;) {
        size_t size = strnlen((const char *)bytes + at, length - at);
        char *text = arena_strndup(arena, (const char *)bytes + at, size);
        table.cells[table.cells_count++] = (struct rec_cell){size == 0, text};
        at += size + 1;
    }
    while (table.cells_count % table.columns_count)
        table.cells[table.cells_count++] = (struct rec_cell){true, ""};
    return table;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct arena arena = {0};
    struct buf out = {0};
    if (length < 2 || length > 4096)
        return 0;
    struct msg_table table = make_table(bytes, length, &arena);
    const struct style style = {true, false, 10u + bytes[1] % 100u};
    table_print(&table, NULL, 0, &style, &out);
    table_print_column(&table, "job_id", &out);
    for (size_t i = 0; i < out.length; i++)
        CHECK((uint8_t)out.bytes[i] >= 0x20 || out.bytes[i] == '\n');
    buf_clear(&out);
    table_print_json(&table, &out);
    json_t *json = json_loads(out.bytes, 0, NULL);
    CHECK(json_is_array(json) && json_array_size(json) == table_rows(&table));
    json_decref(json);
    buf_done(&out);
    arena_done(&arena);
    return 0;
}
