/* sim_trace.c - what happened, as a hash and, when asked, as lines. */
#include "tests/lib/core/show.h"
#include "tests/lib/core/sim_inner.h"

#include <stdarg.h>
#include <string.h>

void trace_line(struct sim *sim, const char *format, ...)
{
    if (!sim->options.trace)
        return;
    va_list arguments;
    va_start(arguments, format);
    fprintf(sim->options.trace, "%7llu ", (unsigned long long)sim->now_ms);
    vfprintf(sim->options.trace, format, arguments);
    fputc('\n', sim->options.trace);
    va_end(arguments);
}

/* Eight bytes at a time: the hash is of everything, so it must cost little. */
void trace_bytes(struct sim *sim, const void *bytes, size_t length)
{
    uint64_t hash = sim->result->trace_hash ^ length;
    const char *at = bytes;
    for (; length >= 8; at += 8, length -= 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        hash = (hash ^ word) * 0x9E3779B97F4A7C15u;
        hash ^= hash >> 32;
    }
    uint64_t tail = 0;
    memcpy(&tail, at, length);
    hash = (hash ^ tail) * 0x9E3779B97F4A7C15u;
    sim->result->trace_hash = hash ^ hash >> 29;
}

static void row_hash_in(struct sim *sim, const struct persist *persist)
{
    const struct row_shape *shape = row_shape(persist->table);
    uint64_t head = (uint64_t)persist->table << 8 | (uint64_t)persist->op;
    trace_bytes(sim, &head, sizeof head);
    for (size_t i = 0; i < shape->column_count; i++) {
        const struct row_column *column = &shape->columns[i];
        const void *field = (const char *)persist->row + column->offset;
        const row_blob *blob = field;
        const char *text;
        switch (column->type) {
        case ROW_text:
            text = *(const char *const *)field;
            trace_bytes(sim, text ? text : "", text ? strlen(text) : 0);
            break;
        case ROW_blob:
            trace_bytes(sim, blob->length ? blob->bytes : "", blob->length);
            break;
        case ROW_hash:
            trace_bytes(sim, field, sizeof(struct hash));
            break;
        case ROW_flag:
            trace_bytes(sim, field, sizeof(bool));
            break;
        case ROW_u64:
        case ROW_time:
        case ROW_i64:
        case ROW_f64:
            trace_bytes(sim, field, sizeof(uint64_t));
            break;
        }
    }
}

static void effects_show(struct sim *sim, uint32_t coordinator, const struct effects *effects,
                         size_t first_row, size_t first_message)
{
    struct buf text = {0};
    for (size_t i = first_row; i < effects->persist_count; i++) {
        buf_clear(&text);
        show_persist(&effects->persist[i], SIM_BASE_US, &text);
        trace_line(sim, "c%u   < %s", coordinator, buf_text(&text));
    }
    for (size_t i = first_message; i < effects->release_count; i++) {
        buf_clear(&text);
        show_message(&effects->release[i].message, &text);
        trace_line(sim, "c%u   > %s", coordinator, buf_text(&text));
    }
    buf_done(&text);
}

void trace_effects(struct sim *sim, uint32_t coordinator, const struct effects *effects,
                   size_t first_row, size_t first_message)
{
    for (size_t i = first_row; i < effects->persist_count; i++)
        row_hash_in(sim, &effects->persist[i]);
    for (size_t i = first_message; i < effects->release_count; i++) {
        uint64_t head = (uint64_t)effects->release[i].message.tag << 32 ^ effects->release[i].peer;
        trace_bytes(sim, &head, sizeof head);
    }
    if (sim->options.trace)
        effects_show(sim, coordinator, effects, first_row, first_message);
}
