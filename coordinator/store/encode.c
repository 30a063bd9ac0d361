/* encode.c - see encode.h. Formats: PostgreSQL's *send and *recv functions of each type. */
#include "coordinator/store/encode.h"

#include "common/base/parse.h"
#include "common/base/json_text.h"

#include <endian.h>
#include <string.h>

/* Microseconds between 1970 and 2000, where timestamptz counts from. */
#define EPOCH_2000_US INT64_C(946684800000000)
#define TIME_US_MAX   INT64_C(253402300799000000) /* end of the year 9999 */

struct sql_type {
    const char *name;
    uint32_t oid; /* pg_type.dat; fixed for built-in types */
};

static const struct sql_type sql_types[] = {
    {"bigint", 20},  {"integer", 23},         {"smallint", 21}, {"double precision", 701},
    {"boolean", 16}, {"text", 25},            {"jsonb", 3802},  {"bytea", 17},
    {"timestamptz", 1184},
};

static const struct sql_type *type_of(const struct row_column *column)
{
    for (size_t i = 0; i < ARRAY_COUNT(sql_types); i++)
        if (strcmp(sql_types[i].name, column->sql_type) == 0)
            return &sql_types[i];
    CHECK(!"a column has an SQL type that encode.c knows");
    return NULL;
}

static void add_u16(struct buf *out, uint16_t value)
{
    value = htobe16(value);
    buf_add(out, &value, sizeof value);
}

static void add_u32(struct buf *out, uint32_t value)
{
    value = htobe32(value);
    buf_add(out, &value, sizeof value);
}

static void add_null(struct buf *out)
{
    add_u32(out, UINT32_MAX);
}

static void add_bytes(struct buf *out, const void *bytes, size_t length)
{
    CHECK(length <= INT32_MAX);
    add_u32(out, (uint32_t)length);
    buf_add(out, bytes, length);
}

/* Values of a fixed size in one piece: millions of metric points pass here. */
static void add_8(struct buf *out, uint64_t value)
{
    struct {
        uint32_t length;
        uint32_t halves[2];
    } piece = {htobe32(8), {htobe32((uint32_t)(value >> 32)), htobe32((uint32_t)value)}};

    buf_add(out, &piece, sizeof piece);
}

static int64_t clamp(int64_t value, int64_t least, int64_t most)
{
    return value < least ? least : value > most ? most : value;
}

/* Of the types of integers the first letters differ. */
static void add_integer(struct buf *out, const struct row_column *column, int64_t value)
{
    switch (column->sql_type[0]) {
    case 'b': /* bigint */
        add_8(out, (uint64_t)value);
        return;
    case 'i': /* integer */
        add_u32(out, 4);
        add_u32(out, (uint32_t)clamp(value, INT32_MIN, INT32_MAX));
        return;
    case 's': /* smallint */
        add_u32(out, 2);
        add_u16(out, (uint16_t)clamp(value, INT16_MIN, INT16_MAX));
        return;
    }
    CHECK(!"an integer's column has a type of integers");
}

static void add_float(struct buf *out, double value)
{
    uint64_t bits;

    memcpy(&bits, &value, sizeof bits);
    add_8(out, bits);
}

static void add_time(struct buf *out, uint64_t us)
{
    int64_t clamped = (int64_t)min_u64(us, (uint64_t)TIME_US_MAX);

    add_8(out, (uint64_t)(clamped - EPOCH_2000_US));
}

/* Foreign text that is not UTF-8: every byte that does not belong becomes U+FFFD. */
static void add_scrubbed(struct buf *out, const char *text, size_t length)
{
    struct buf clean = {0};

    for (size_t i = 0; i < length;) {
        unsigned char c = (unsigned char)text[i];
        size_t size = c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
        if (size <= length - i && text_is_utf8(text + i, size)) {
            buf_add(&clean, text + i, size);
            i += size;
        } else {
            buf_puts(&clean, "\xEF\xBF\xBD");
            i++;
        }
    }
    add_bytes(out, clean.bytes, clean.length);
    buf_done(&clean);
}

static void add_text(struct buf *out, const char *text)
{
    size_t length = strlen(text);

    if (text_is_utf8(text, length))
        add_bytes(out, text, length);
    else
        add_scrubbed(out, text, length);
}

/* jsonb's binary format is a version byte, 1, and the text. */
static void add_json(struct buf *out, const char *text)
{
    size_t length = strlen(text);
    struct buf quoted = {0};

    if (!*text) {
        add_null(out);
        return;
    }
    if (!json_text_is_valid(text, length)) {
        json_text_quote(&quoted, text, length);
        text = quoted.bytes;
        length = quoted.length;
    }
    add_u32(out, (uint32_t)length + 1);
    buf_putc(out, 1);
    buf_add(out, text, length);
    buf_done(&quoted);
}

/* rows.h: 0 in *_id and *_at columns means NULL, unless they are keys. The bare `at` of history is
 * part of its partition key and comes from foreign clocks: 0 is 1970 there. */
static bool zero_is_null(const struct row_column *column)
{
    size_t length = strlen(column->name);
    const char *end = column->name + length - min_u64(length, 3);

    return column->role != ROW_ROLE_KEY && (strcmp(end, "_at") == 0 || strcmp(end, "_id") == 0);
}

static void encode_text(struct buf *out, const struct row_column *column, const char *text)
{
    if (!text)
        add_null(out);
    else if (column->sql_type[0] == 'j') /* jsonb; else text */
        add_json(out, text);
    else
        add_text(out, text);
}

void encode_value(struct buf *out, const struct row_column *column, const void *row)
{
    const char *field = (const char *)row + column->offset;

    switch (column->type) {
    case ROW_u64: {
        uint64_t value = *(const uint64_t *)(const void *)field;
        if (value == 0 && zero_is_null(column))
            add_null(out);
        else
            add_integer(out, column, (int64_t)min_u64(value, INT64_MAX));
        return;
    }
    case ROW_i64:
        add_integer(out, column, *(const int64_t *)(const void *)field);
        return;
    case ROW_f64:
        add_float(out, *(const double *)(const void *)field);
        return;
    case ROW_flag:
        add_u32(out, 1);
        buf_putc(out, *(const bool *)(const void *)field ? 1 : 0);
        return;
    case ROW_text:
        encode_text(out, column, *(const char *const *)(const void *)field);
        return;
    case ROW_blob: {
        const struct row_blob *blob = (const struct row_blob *)(const void *)field;
        add_bytes(out, blob->bytes, blob->length);
        return;
    }
    case ROW_hash:
        if (hash_is_zero((const struct hash *)(const void *)field))
            add_null(out);
        else
            add_bytes(out, field, HASH_BYTES);
        return;
    case ROW_time: {
        uint64_t us = *(const uint64_t *)(const void *)field;
        if (us == 0 && zero_is_null(column))
            add_null(out);
        else
            add_time(out, us);
        return;
    }
    }
    CHECK(!"every row type is encoded");
}

void encode_array(struct buf *out, const struct row_column *column, const void *const *rows,
                  size_t count)
{
    add_u32(out, 1); /* dimensions */
    add_u32(out, 1); /* may hold NULLs */
    add_u32(out, type_of(column)->oid);
    add_u32(out, (uint32_t)count);
    add_u32(out, 1); /* first index */
    for (size_t i = 0; i < count; i++)
        encode_value(out, column, rows[i]);
}

void encode_copy_header(struct buf *out)
{
    buf_add(out, "PGCOPY\n\377\r\n\0\0\0\0\0\0\0\0\0", 19);
}

void encode_copy_row(struct buf *out, const struct row_shape *shape, const void *row)
{
    add_u16(out, (uint16_t)shape->column_count);
    for (size_t i = 0; i < shape->column_count; i++)
        encode_value(out, &shape->columns[i], row);
}

void encode_copy_trailer(struct buf *out)
{
    add_u16(out, UINT16_MAX);
}

/* ---- the way back -------------------------------------------------------------------------- */

static int decode_integer(const char *bytes, size_t length, int64_t *out)
{
    uint16_t two;
    uint32_t four;
    uint64_t eight;

    switch (length) {
    case 2:
        memcpy(&two, bytes, 2);
        *out = (int16_t)be16toh(two);
        return 0;
    case 4:
        memcpy(&four, bytes, 4);
        *out = (int32_t)be32toh(four);
        return 0;
    case 8:
        memcpy(&eight, bytes, 8);
        *out = (int64_t)be64toh(eight);
        return 0;
    }
    return -1;
}

static int decode_number(const struct row_column *column, const char *bytes, size_t length,
                         char *field)
{
    int64_t value;

    if (decode_integer(bytes, length, &value) < 0)
        return -1;
    if (column->type == ROW_time) {
        uint64_t us = value < -EPOCH_2000_US ? 1 : (uint64_t)(value + EPOCH_2000_US);
        *(uint64_t *)(void *)field = min_u64(us, (uint64_t)TIME_US_MAX); /* infinity too */
    } else if (column->type == ROW_f64) {
        memcpy(field, &value, sizeof value);
    } else {
        *(int64_t *)(void *)field = value;
    }
    return 0;
}

int decode_value(const struct row_column *column, const char *bytes, size_t length,
                 struct arena *arena, void *row, struct err *err)
{
    char *field = (char *)row + column->offset;
    int rc = 0;

    if (!bytes)
        return 0; /* the struct starts zeroed, which is what NULL means */
    switch (column->type) {
    case ROW_u64:
    case ROW_i64:
    case ROW_f64:
    case ROW_time:
        rc = decode_number(column, bytes, length, field);
        break;
    case ROW_flag:
        rc = length == 1 ? 0 : -1;
        *(bool *)(void *)field = rc == 0 && *bytes != 0;
        break;
    case ROW_text: {
        size_t skip = strcmp(column->sql_type, "jsonb") == 0 ? 1 : 0;
        rc = length >= skip ? 0 : -1;
        if (rc == 0)
            *(char **)(void *)field = arena_strndup(arena, bytes + skip, length - skip);
        break;
    }
    case ROW_blob: {
        struct row_blob *blob = (struct row_blob *)(void *)field;
        blob->bytes = arena_strndup(arena, bytes, length);
        blob->length = length;
        break;
    }
    case ROW_hash:
        rc = length == HASH_BYTES ? 0 : -1;
        if (rc == 0)
            memcpy(field, bytes, HASH_BYTES);
        break;
    }
    return rc == 0 ? 0
                   : err_set(err, ERR_PROTOCOL, "column '%s' came with %zu bytes, not as %s",
                             column->name, length, column->sql_type);
}
