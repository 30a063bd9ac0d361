/* query.h - the questions of query.def as data, and turning a result into a TABLE. */
#ifndef ATHANOR_STORE_QUERY_H
#define ATHANOR_STORE_QUERY_H

#include "common/base/arena.h"
#include "common/wire/wire.h"

#define QUERY_ARGUMENTS_MAX 10u
#define QUERY_COLUMNS_MAX   32u
/* Cells of one page, so that a TABLE stays below WIRE_FRAME_BYTES_MAX with its framing. */
#define QUERY_PAGE_BYTES_MAX ((size_t)5 << 20)

struct query {
    const char *name, *help, *columns, *arguments, *sql;
    enum role role; /* 0: everyone */
    bool follow;
};

/* NULL when there is no such query. */
const struct query *query_find(const char *name);
/* All of them, in the order of query.def. */
const struct query *query_at(size_t index); /* NULL at the end */

/* What is sent to PostgreSQL: texts in arena, NULL for SQL NULL. */
struct query_call {
    const struct query *query;
    uint64_t limit; /* rows of a page; one more is asked for, to know whether there are more */
    const char *after;
    const char *values[2 + QUERY_ARGUMENTS_MAX];
    int value_count;
};

/* Checks name, role, arguments and limit. Errors: ERR_NOT_FOUND, ERR_DENIED, ERR_INVALID with what
 * would be accepted. */
int query_bind(const struct msg_query *message, enum role role, struct arena *arena,
               struct query_call *out, struct err *err) WARN_UNUSED;

/* Fills out->columns from the declaration. */
void query_columns(const struct query *query, struct arena *arena, struct msg_table *out);

#endif
