/* json.c - JSON of others, checked before it reaches a jsonb column.
 *
 * A text that PostgreSQL would refuse must never be persisted: the commit would fail and end the
 * leader, and the worker would send it again. So this takes the strict grammar of RFC 8259 and
 * leaves out what jsonb cannot hold: \u0000, lone surrogates, and numbers of more than 100
 * characters or exponents of more than three digits. No recursion: depth is counted. */
#include "coordinator/core/state.h"

#include "common/base/buf.h"
#include "common/base/parse.h"

#include <stdlib.h>
#include <string.h>

#define JSON_DEPTH_MAX 32
#define JSON_NUMBER_MAX 100

struct scan {
    const char *at;
    uint8_t stack[JSON_DEPTH_MAX]; /* '{' or '[' of each open level */
    int depth;
};

static void space_skip(struct scan *scan)
{
    while (*scan->at == ' ' || *scan->at == '\t' || *scan->at == '\n' || *scan->at == '\r')
        scan->at++;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static int hex_value(char c)
{
    if (is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The four digits of a \u escape, or -1. */
static int unit_read(const char *at)
{
    int unit = 0;
    for (int i = 0; i < 4; i++) {
        int digit = hex_value(at[i]);
        if (digit < 0)
            return -1;
        unit = unit * 16 + digit;
    }
    return unit;
}

static bool escape_skip(struct scan *scan)
{
    if (*scan->at != 'u') {
        if (*scan->at == '\0' || !strchr("\"\\/bfnrt", *scan->at))
            return false;
        scan->at++;
        return true;
    }
    int unit = unit_read(scan->at + 1);
    if (unit <= 0 || (unit >= 0xDC00 && unit <= 0xDFFF))
        return false;
    scan->at += 5;
    if (unit < 0xD800 || unit > 0xDBFF)
        return true;
    if (scan->at[0] != '\\' || scan->at[1] != 'u')
        return false;
    unit = unit_read(scan->at + 2);
    scan->at += 6;
    return unit >= 0xDC00 && unit <= 0xDFFF;
}

static bool string_skip(struct scan *scan)
{
    if (*scan->at != '"')
        return false;
    scan->at++;
    while (*scan->at != '"') {
        if ((unsigned char)*scan->at < 0x20)
            return false; /* also the end of the text */
        if (*scan->at++ == '\\' && !escape_skip(scan))
            return false;
    }
    scan->at++;
    return true;
}

static size_t digits_skip(struct scan *scan)
{
    const char *start = scan->at;
    while (is_digit(*scan->at))
        scan->at++;
    return (size_t)(scan->at - start);
}

static bool number_skip(struct scan *scan)
{
    const char *start = scan->at;
    if (*scan->at == '-')
        scan->at++;
    if (*scan->at == '0')
        scan->at++;
    else if (digits_skip(scan) == 0)
        return false;
    if (*scan->at == '.') {
        scan->at++;
        if (digits_skip(scan) == 0)
            return false;
    }
    if (*scan->at == 'e' || *scan->at == 'E') {
        scan->at++;
        if (*scan->at == '+' || *scan->at == '-')
            scan->at++;
        size_t digits = digits_skip(scan);
        if (digits == 0 || digits > 3)
            return false;
    }
    return scan->at - start <= JSON_NUMBER_MAX;
}

static bool word_skip(struct scan *scan, const char *word)
{
    size_t length = strlen(word);
    if (strncmp(scan->at, word, length) != 0)
        return false;
    scan->at += length;
    return true;
}

static bool scalar_skip(struct scan *scan)
{
    switch (*scan->at) {
    case '"':
        return string_skip(scan);
    case 't':
        return word_skip(scan, "true");
    case 'f':
        return word_skip(scan, "false");
    case 'n':
        return word_skip(scan, "null");
    default:
        return number_skip(scan);
    }
}

static bool key_skip(struct scan *scan)
{
    space_skip(scan);
    if (!string_skip(scan))
        return false;
    space_skip(scan);
    return *scan->at++ == ':';
}

/* Opens levels until a scalar or an empty container is behind us. */
static bool value_open(struct scan *scan)
{
    for (;;) {
        space_skip(scan);
        char c = *scan->at;
        if (c != '{' && c != '[')
            return scalar_skip(scan);
        if (scan->depth == JSON_DEPTH_MAX)
            return false;
        scan->at++;
        space_skip(scan);
        if (*scan->at == (c == '{' ? '}' : ']')) {
            scan->at++;
            return true;
        }
        scan->stack[scan->depth++] = (uint8_t)c;
        if (c == '{' && !key_skip(scan))
            return false;
    }
}

/* Skips one whole value. */
static bool value_skip(struct scan *scan)
{
    int base = scan->depth;
    if (!value_open(scan))
        return false;
    while (scan->depth > base) {
        space_skip(scan);
        char open = (char)scan->stack[scan->depth - 1];
        char c = *scan->at;
        if (c == '\0')
            return false;
        scan->at++;
        if (c == (open == '{' ? '}' : ']')) {
            scan->depth--;
        } else if (c == ',') {
            if ((open == '{' && !key_skip(scan)) || !value_open(scan))
                return false;
        } else {
            return false;
        }
    }
    return true;
}

bool json_is_storable(const char *text, size_t bytes_max)
{
    size_t length = text ? strlen(text) : 0;
    if (length == 0 || length > bytes_max || !text_is_utf8(text, length))
        return false;
    struct scan scan = {.at = text};
    if (!value_skip(&scan))
        return false;
    space_skip(&scan);
    return *scan.at == '\0';
}

/* Start of the value of a key without escapes in the top-level object. NULL: not there.
 * Of doubled keys the last one counts, as in jsonb. */
static const char *member_find(const char *text, const char *key)
{
    struct scan scan = {.at = text};
    const char *found = NULL;
    size_t length = strlen(key);
    space_skip(&scan);
    if (*scan.at != '{')
        return NULL;
    do {
        scan.at++;
        space_skip(&scan);
        const char *name = scan.at + 1;
        if (!string_skip(&scan))
            return found;
        bool same = (size_t)(scan.at - 1 - name) == length && memcmp(name, key, length) == 0;
        space_skip(&scan);
        if (*scan.at++ != ':')
            return found;
        space_skip(&scan);
        if (same)
            found = scan.at;
        if (!value_skip(&scan))
            return NULL;
        space_skip(&scan);
    } while (*scan.at == ',');
    return found;
}

bool json_number(const char *text, const char *key, double *out)
{
    const char *value = member_find(text, key);
    if (!value || (*value != '-' && !is_digit(*value)))
        return false;
    *out = strtod(value, NULL);
    return true;
}

bool json_text(const char *text, const char *key, struct arena *arena, const char **out)
{
    const char *value = member_find(text, key);
    if (!value || *value != '"')
        return false;
    const char *end = strchr(value + 1, '"');
    if (memchr(value, '\\', (size_t)(end - value)))
        return false; /* kinds and names need no escapes */
    *out = arena_strndup(arena, value + 1, (size_t)(end - value - 1));
    return true;
}

size_t json_pairs(const char *text, struct arena *arena, struct json_pair **out)
{
    struct scan scan = {.at = text};
    size_t count = 0;
    *out = arena_alloc(arena, (strlen(text) / 5 + 1) * sizeof **out); /* "":"", at least */
    space_skip(&scan);
    if (*scan.at != '{')
        return 0;
    do {
        scan.at++;
        space_skip(&scan);
        const char *name = scan.at + 1;
        if (!string_skip(&scan))
            return count;
        size_t name_length = (size_t)(scan.at - 1 - name);
        space_skip(&scan);
        if (*scan.at++ != ':')
            return count;
        space_skip(&scan);
        const char *value = scan.at + 1;
        bool is_text = *scan.at == '"';
        if (!value_skip(&scan))
            return count;
        if (is_text)
            (*out)[count++] = (struct json_pair){
                arena_strndup(arena, name, name_length),
                arena_strndup(arena, value, (size_t)(scan.at - 1 - value))};
        space_skip(&scan);
    } while (*scan.at == ',');
    return count;
}

void json_quote(struct buf *out, const char *text)
{
    buf_putc(out, '"');
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            buf_putc(out, '\\');
        if (c < 0x20)
            buf_printf(out, "\\u%04x", c);
        else
            buf_putc(out, (char)c);
    }
    buf_putc(out, '"');
}
