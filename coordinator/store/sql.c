/* sql.c - see sql.h. */
#include "coordinator/store/sql.h"

#include "common/base/buf.h"

bool sql_takes(enum sql_verb verb, const struct row_column *column)
{
    return verb != SQL_UPDATE || column->role != ROW_ROLE_COLUMN;
}

/* The names of the columns that the verb takes, each with prefix and suffix. */
static void add_names(struct buf *out, const struct row_shape *shape, enum sql_verb verb,
                      const char *prefix)
{
    const char *comma = "";

    for (size_t i = 0; i < shape->column_count; i++)
        if (sql_takes(verb, &shape->columns[i])) {
            buf_printf(out, "%s%s%s", comma, prefix, shape->columns[i].name);
            comma = ", ";
        }
}

static void add_unnest(struct buf *out, const struct row_shape *shape, enum sql_verb verb)
{
    unsigned number = 0;

    buf_puts(out, "unnest(");
    for (size_t i = 0; i < shape->column_count; i++)
        if (sql_takes(verb, &shape->columns[i])) {
            number++;
            buf_printf(out, "%s$%u::%s[]", number > 1 ? ", " : "", number,
                       shape->columns[i].sql_type);
        }
    buf_puts(out, ")");
}

/* "a = u.a, b = u.b" for mutable columns, "t.k = u.k AND ..." for keys. */
static void add_pairs(struct buf *out, const struct row_shape *shape, enum row_role role,
                      const char *left, const char *right, const char *separator)
{
    const char *between = "";

    for (size_t i = 0; i < shape->column_count; i++) {
        const struct row_column *column = &shape->columns[i];
        if (column->role != role)
            continue;
        buf_printf(out, "%s%s%s = %s%s", between, left, column->name, right, column->name);
        between = separator;
    }
}

static void add_insert(struct buf *out, const struct row_shape *shape, enum sql_verb verb)
{
    buf_printf(out, "INSERT INTO athanor.%s (", shape->name);
    add_names(out, shape, verb, "");
    buf_puts(out, ") SELECT * FROM ");
    add_unnest(out, shape, verb);
}

static void add_upsert(struct buf *out, const struct row_shape *shape)
{
    const char *comma = "";

    add_insert(out, shape, SQL_UPSERT);
    buf_puts(out, " ON CONFLICT (");
    for (size_t i = 0; i < shape->column_count; i++)
        if (shape->columns[i].role == ROW_ROLE_KEY) {
            buf_printf(out, "%s%s", comma, shape->columns[i].name);
            comma = ", ";
        }
    buf_puts(out, ") DO UPDATE SET ");
    add_pairs(out, shape, ROW_ROLE_MUTABLE, "", "excluded.", ", ");
}

static void add_update(struct buf *out, const struct row_shape *shape)
{
    buf_printf(out, "UPDATE athanor.%s AS t SET ", shape->name);
    add_pairs(out, shape, ROW_ROLE_MUTABLE, "", "u.", ", ");
    buf_puts(out, " FROM ");
    add_unnest(out, shape, SQL_UPDATE);
    buf_puts(out, " AS u (");
    add_names(out, shape, SQL_UPDATE, "");
    buf_puts(out, ") WHERE ");
    add_pairs(out, shape, ROW_ROLE_KEY, "t.", "u.", " AND ");
}

char *sql_statement(const struct row_shape *shape, enum sql_verb verb)
{
    struct buf out = {0};

    CHECK(verb > 0 && verb < SQL_VERB_END);
    if (verb == SQL_UPDATE)
        add_update(&out, shape);
    else if (verb == SQL_UPSERT)
        add_upsert(&out, shape);
    else
        add_insert(&out, shape, SQL_INSERT);
    return buf_take(&out);
}

char *sql_copy(const struct row_shape *shape)
{
    struct buf out = {0};

    buf_printf(&out, "COPY athanor.%s (", shape->name);
    add_names(&out, shape, SQL_INSERT, "");
    buf_puts(&out, ") FROM STDIN BINARY");
    return buf_take(&out);
}

char *sql_select(const struct row_shape *shape, const char *rest)
{
    struct buf out = {0};

    buf_puts(&out, "SELECT ");
    add_names(&out, shape, SQL_INSERT, "t.");
    buf_printf(&out, " FROM athanor.%s AS t %s", shape->name, rest);
    return buf_take(&out);
}
