/* conninfo.c - see conninfo.h. */
#include "client/conninfo.h"

#include "common/base/buf.h"

#include <ctype.h>
#include <string.h>

struct split {
    struct arena *arena;
    struct buf rest, value; /* value: of the keyword at hand, decoded */
    const char *password;
};

static void password_take(struct split *split)
{
    split->password = arena_strndup(split->arena, split->value.bytes ? split->value.bytes : "",
                                    split->value.length);
}

/* ---- KEYWORD=VALUE ... -------------------------------------------------------------------- */

static const char *skip_space(const char *at)
{
    while (isspace((unsigned char)*at))
        at++;
    return at;
}

/* Decodes the value at `at`; returns what follows it, or NULL when its quote is not closed. */
static const char *value_read(const char *at, struct buf *out)
{
    bool quoted = *at == '\'';
    at += quoted;
    buf_clear(out);
    while (*at && (quoted ? *at != '\'' : !isspace((unsigned char)*at))) {
        if (*at == '\\' && !*++at)
            break;
        buf_putc(out, *at++);
    }
    if (quoted && *at != '\'')
        return NULL;
    return at + quoted;
}

static int keywords_split(struct split *split, const char *at, struct err *err)
{
    static const char secret[] = "password";
    for (at = skip_space(at); *at; at = skip_space(at)) {
        const char *start = at;
        while (isalnum((unsigned char)*at) || *at == '_')
            at++;
        size_t length = (size_t)(at - start);
        at = skip_space(at);
        if (*at != '=' || length == 0)
            return err_set(err, ERR_INVALID,
                           "the connection string has a keyword without '=': expected "
                           "KEYWORD=VALUE ..., values with spaces in single quotes");
        at = value_read(skip_space(at + 1), &split->value);
        if (!at)
            return err_set(err, ERR_INVALID,
                           "the connection string has a quote that is not closed");
        if (length == strlen(secret) && memcmp(start, secret, length) == 0)
            password_take(split);
        else
            buf_printf(&split->rest, "%s%.*s", split->rest.length ? " " : "", (int)(at - start),
                       start);
    }
    return 0;
}

/* ---- postgresql://... --------------------------------------------------------------------- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)tolower((unsigned char)c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int percent_read(const char *at, size_t length, struct buf *out, struct err *err)
{
    buf_clear(out);
    for (size_t i = 0; i < length; i++) {
        if (at[i] != '%') {
            buf_putc(out, at[i]);
            continue;
        }
        int high = length - i > 2 ? hex_digit(at[i + 1]) : -1;
        int low = high >= 0 ? hex_digit(at[i + 2]) : -1;
        if (low < 0 || (high == 0 && low == 0)) /* no text holds the character 0 */
            return err_set(err, ERR_INVALID,
                           "the connection string has a '%%' that is not followed by two "
                           "hexadecimal digits");
        buf_putc(out, (char)(high * 16 + low));
        i += 2;
    }
    return 0;
}

/* KEYWORD=VALUE&... behind the '?'. */
static int query_split(struct split *split, const char *at, struct err *err)
{
    static const char secret[] = "password=";
    for (char mark = '?'; *at;) {
        size_t length = strcspn(at, "&");
        if (strncmp(at, secret, strlen(secret)) == 0) {
            if (percent_read(at + strlen(secret), length - strlen(secret), &split->value, err) < 0)
                return -1;
            password_take(split);
        } else {
            buf_printf(&split->rest, "%c%.*s", mark, (int)length, at);
            mark = '&';
        }
        at += length + (at[length] == '&');
    }
    return 0;
}

static int uri_split(struct split *split, const char *uri, struct err *err)
{
    const char *user = strstr(uri, "://") + 3, *host = user;
    size_t to_mark = strcspn(user, "@/");
    if (user[to_mark] == '@') {
        size_t name = strcspn(user, ":@");
        host = user + to_mark;
        if (user[name] == ':') {
            if (percent_read(user + name + 1, to_mark - name - 1, &split->value, err) < 0)
                return -1;
            password_take(split);
        }
        buf_add(&split->rest, uri, (size_t)(user - uri) + name);
    } else {
        buf_add(&split->rest, uri, (size_t)(user - uri));
    }
    size_t to_query = strcspn(host, "?");
    buf_add(&split->rest, host, to_query);
    /* Whether an '@' ends a user name depends on what stands before it, that is on the password. */
    if (strchr(host + to_query, '@'))
        return err_set(err, ERR_INVALID,
                       "the connection string has an '@' behind the '?': write it as %%40");
    return host[to_query] ? query_split(split, host + to_query + 1, err) : 0;
}

/* ---- both --------------------------------------------------------------------------------- */

int conninfo_split(struct arena *arena, const char *conninfo, const char **out_rest,
                   const char **out_password, struct err *err)
{
    struct split split = {.arena = arena};
    int rc = 0;
    if (strncmp(conninfo, "postgresql://", 13) == 0 || strncmp(conninfo, "postgres://", 11) == 0)
        rc = uri_split(&split, conninfo, err);
    else if (strchr(conninfo, '='))
        rc = keywords_split(&split, conninfo, err);
    else
        buf_puts(&split.rest, conninfo); /* the name of a database alone */
    if (rc == 0) {
        *out_rest = arena_strdup(arena, buf_text(&split.rest));
        *out_password = split.password;
    }
    buf_done(&split.rest);
    buf_done(&split.value);
    return rc;
}
