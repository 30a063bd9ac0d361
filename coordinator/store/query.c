/* query.c - see query.h. */
#include "coordinator/store/query.h"

#include <string.h>

static const struct query queries[] = {
#define QUERY(query_name, ...) {.name = #query_name, __VA_ARGS__},
#include "coordinator/store/query.def"
#undef QUERY
};

const struct query *query_at(size_t index)
{
    return index < ARRAY_COUNT(queries) ? &queries[index] : NULL;
}

const struct query *query_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_COUNT(queries); i++)
        if (strcmp(queries[i].name, name) == 0)
            return &queries[i];
    return NULL;
}

/* The next word of a list separated by blanks; *length 0 at the end. */
static const char *word_next(const char *at, size_t *length)
{
    at += strspn(at, " ");
    *length = strcspn(at, " ");
    return at;
}

/* Index of the argument in the declaration, or -1. */
static int argument_index(const struct query *query, const char *name)
{
    size_t length, wanted = strlen(name);
    int index = 0;

    for (const char *at = word_next(query->arguments, &length); length > 0;
         at = word_next(at + length, &length), index++) {
        size_t plain = at[length - 1] == '!' ? length - 1 : length;
        if (plain == wanted && memcmp(at, name, plain) == 0)
            return index;
    }
    return -1;
}

static int unknown_name(const char *name, struct err *err)
{
    char known[600] = "";
    size_t used = 0;

    for (size_t i = 0; i < ARRAY_COUNT(queries); i++) {
        size_t length = strlen(queries[i].name);
        if (used + length + 3 > sizeof known)
            break;
        memcpy(known + used, queries[i].name, length);
        memcpy(known + used + length, ", ", 3);
        used += length + 2;
    }
    return err_set(err, ERR_NOT_FOUND, "there is no query '%.60s', expected one of %swhy", name,
                   known);
}

static int check_required(const struct query_call *call, struct err *err)
{
    size_t length;
    int index = 2;

    for (const char *at = word_next(call->query->arguments, &length); length > 0;
         at = word_next(at + length, &length), index++)
        if (at[length - 1] == '!' && !call->values[index])
            return err_set(err, ERR_INVALID, "query '%s' needs the argument '%.*s'",
                           call->query->name, (int)length - 1, at);
    return 0;
}

static int bind_arguments(const struct msg_query *message, struct query_call *call,
                          struct arena *arena, struct err *err)
{
    for (size_t i = 0; i < message->arguments_count; i++) {
        const struct rec_name_value *argument = &message->arguments[i];
        int index = argument_index(call->query, argument->name);
        if (index < 0)
            return err_set(err, ERR_INVALID, "query '%s' has no argument '%.60s', expected: %s",
                           call->query->name, argument->name,
                           *call->query->arguments ? call->query->arguments : "none");
        if (*argument->value)
            call->values[2 + index] = arena_strdup(arena, argument->value);
    }
    return check_required(call, err);
}

static int arguments_count(const struct query *query)
{
    size_t length;
    int count = 0;

    for (const char *at = word_next(query->arguments, &length); length > 0;
         at = word_next(at + length, &length))
        count++;
    return count;
}

int query_bind(const struct msg_query *message, enum role role, struct arena *arena,
               struct query_call *out, struct err *err)
{
    struct query_call call = {.query = query_find(message->name)};

    if (!call.query)
        return unknown_name(message->name, err);
    if (call.query->role != 0 && (role < call.query->role || role == ROLE_PILOT))
        return err_set(err, ERR_DENIED, "query '%s' needs the role %s", call.query->name,
                       role_name(call.query->role));
    if (message->limit > QUERY_ROWS_MAX)
        return err_set(err, ERR_INVALID, "limit is %llu rows, expected at most %u",
                       (unsigned long long)message->limit, QUERY_ROWS_MAX);
    call.limit = message->limit ? message->limit : QUERY_ROWS_DEFAULT;
    call.values[0] = arena_printf(arena, "%llu", (unsigned long long)call.limit + 1);
    if (message->after && *message->after)
        call.values[1] = call.after = arena_strdup(arena, message->after);
    if (bind_arguments(message, &call, arena, err) < 0)
        return -1;
    call.value_count = 2 + arguments_count(call.query);
    *out = call;
    return 0;
}

void query_columns(const struct query *query, struct arena *arena, struct msg_table *out)
{
    struct rec_column *columns = arena_alloc(arena, QUERY_COLUMNS_MAX * sizeof *columns);
    size_t length, count = 0;

    for (const char *at = word_next(query->columns, &length); length > 0;
         at = word_next(at + length, &length)) {
        CHECK(count < QUERY_COLUMNS_MAX);
        columns[count].name = arena_strndup(arena, at, length);
        at = word_next(at + length, &length);
        CHECK(length > 0);
        columns[count++].type =
            arena_strndup(arena, at, at[length - 1] == ',' ? length - 1 : length);
    }
    out->columns = columns;
    out->columns_count = count;
}
