/* json_text.c - see json_text.h. */
#include "common/base/json_text.h"

#include "common/base/parse.h"

#include <string.h>

struct scan {
    const char *at, *end;
};

static void skip_space(struct scan *scan)
{
    while (scan->at < scan->end && (*scan->at == ' ' || *scan->at == '\n' || *scan->at == '\t' ||
                                    *scan->at == '\r'))
        scan->at++;
}

static bool take(struct scan *scan, char c)
{
    if (scan->at >= scan->end || *scan->at != c)
        return false;
    scan->at++;
    return true;
}

static bool take_word(struct scan *scan, const char *word)
{
    size_t length = strlen(word);

    if ((size_t)(scan->end - scan->at) < length || memcmp(scan->at, word, length) != 0)
        return false;
    scan->at += length;
    return true;
}

static size_t take_digits(struct scan *scan)
{
    const char *start = scan->at;

    while (scan->at < scan->end && *scan->at >= '0' && *scan->at <= '9')
        scan->at++;
    return (size_t)(scan->at - start);
}

static bool take_number(struct scan *scan)
{
    const char *start = scan->at;

    take(scan, '-');
    if (!take(scan, '0') && take_digits(scan) == 0)
        return false;
    if (take(scan, '.') && take_digits(scan) == 0)
        return false;
    if (scan->at < scan->end && (*scan->at == 'e' || *scan->at == 'E')) {
        scan->at++;
        if (!take(scan, '-'))
            take(scan, '+');
        size_t digits = take_digits(scan);
        if (digits == 0 || digits > 3)
            return false;
    }
    return scan->at - start <= (ptrdiff_t)JSON_TEXT_NUMBER_MAX;
}

/* Four hexadecimal digits; -1 when they are not. */
static int take_hex4(struct scan *scan)
{
    int value = 0;

    if (scan->end - scan->at < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        char c = scan->at[i];
        if (!c || !strchr("0123456789abcdefABCDEF", c))
            return -1;
        value = value * 16 + (c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
    }
    scan->at += 4;
    return value;
}

static bool take_escape(struct scan *scan)
{
    if (scan->at >= scan->end)
        return false;
    char c = *scan->at++;
    if (c != 'u')
        return c && strchr("\"\\/bfnrt", c);
    int unit = take_hex4(scan);
    if (unit <= 0 || (unit >= 0xDC00 && unit <= 0xDFFF))
        return false;
    if (unit < 0xD800 || unit > 0xDBFF)
        return true;
    if (!take(scan, '\\') || !take(scan, 'u'))
        return false;
    int low = take_hex4(scan);
    return low >= 0xDC00 && low <= 0xDFFF;
}

static bool take_string(struct scan *scan)
{
    if (!take(scan, '"'))
        return false;
    while (scan->at < scan->end) {
        unsigned char c = (unsigned char)*scan->at++;
        if (c == '"')
            return true;
        if (c < 0x20 || (c == '\\' && !take_escape(scan)))
            return false;
    }
    return false;
}

static bool take_scalar(struct scan *scan)
{
    if (scan->at >= scan->end)
        return false;
    if (*scan->at == '"')
        return take_string(scan);
    return take_word(scan, "true") || take_word(scan, "false") || take_word(scan, "null") ||
           take_number(scan);
}

static bool take_key(struct scan *scan)
{
    skip_space(scan);
    if (!take_string(scan))
        return false;
    skip_space(scan);
    return take(scan, ':');
}

/* After a value: closes what ends here. 1: another value follows, 0: all is closed, -1: wrong. */
static int close_or_continue(struct scan *scan, const char *closers, unsigned *depth)
{
    for (;;) {
        if (*depth == 0)
            return 0;
        skip_space(scan);
        char closer = closers[*depth - 1];
        if (take(scan, ',')) {
            if (closer == '}' && !take_key(scan))
                return -1;
            return 1;
        }
        if (!take(scan, closer))
            return -1;
        --*depth;
    }
}

/* One value with all that is in it. */
static bool take_value(struct scan *scan)
{
    char closers[JSON_TEXT_DEPTH_MAX];
    unsigned depth = 0;
    int more = 1;

    while (more == 1) {
        skip_space(scan);
        bool object = take(scan, '{');
        if (object || take(scan, '[')) {
            if (depth == JSON_TEXT_DEPTH_MAX)
                return false;
            char closer = object ? '}' : ']';
            closers[depth++] = closer;
            skip_space(scan);
            if (scan->at < scan->end && *scan->at == closer)
                more = close_or_continue(scan, closers, &depth);
            else if (object && !take_key(scan))
                return false;
            continue;
        }
        if (!take_scalar(scan))
            return false;
        more = close_or_continue(scan, closers, &depth);
    }
    return more == 0;
}

bool json_text_is_valid(const char *text, size_t length)
{
    struct scan scan = {text, text + length};

    if (!text_is_utf8(text, length) || memchr(text, 0, length) || !take_value(&scan))
        return false;
    skip_space(&scan);
    return scan.at == scan.end;
}

const char *json_text_space_end(const char *at, const char *end)
{
    struct scan scan = {at, end};

    skip_space(&scan);
    return scan.at;
}

const char *json_text_string_end(const char *at, const char *end)
{
    struct scan scan = {at, end};

    return take_string(&scan) ? scan.at : NULL;
}

const char *json_text_value_end(const char *at, const char *end)
{
    struct scan scan = {at, end};

    return take_value(&scan) ? scan.at : NULL;
}

void json_text_quote(struct buf *out, const char *bytes, size_t length)
{
    buf_putc(out, '"');
    for (size_t i = 0; i < length;) {
        size_t plain = 0; /* most texts are runs of ASCII: they go in at once */
        while (i + plain < length && bytes[i + plain] >= 0x20 && bytes[i + plain] != '"' &&
               bytes[i + plain] != '\\' && (unsigned char)bytes[i + plain] < 0x80)
            plain++;
        if (plain) {
            buf_add(out, bytes + i, plain);
            i += plain;
            continue;
        }
        unsigned char c = (unsigned char)bytes[i];
        size_t size = c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
        if (size > length - i || c == 0 || !text_is_utf8(bytes + i, size)) {
            buf_puts(out, "\xEF\xBF\xBD");
            i++;
            continue;
        }
        if (c == '"' || c == '\\')
            buf_printf(out, "\\%c", c);
        else if (c < 0x20)
            buf_printf(out, "\\u%04x", c);
        else
            buf_add(out, bytes + i, size);
        i += size;
    }
    buf_putc(out, '"');
}
