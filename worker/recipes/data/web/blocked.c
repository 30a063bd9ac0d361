/* blocked.c - see blocked.h. */
#include "worker/recipes/data/web/blocked.h"

#include "common/base/mem.h"
#include "worker/recipes/data/web/chars.h"

#include <string.h>

#define URL_BYTES_MAX 2048 /* of an address are looked at, and this many borders of its path: a */
#define BORDERS_MAX   16   /* hostile one costs 2,048 * 16 look-ups at most */

void blocked_done(struct blocked *blocked)
{
    byte_map_done(&blocked->entries);
}

/* The address as it is compared: lower case host, no scheme, user, port, "www." or final '/'.
 * mem_free. */
static char *plain_of(const char *url, size_t length)
{
    char *copy = mem_strndup(url, length), *at = strstr(copy, "://");

    at = at ? at + 3 : copy;
    size_t host = strcspn(at, "/?#");
    char *user = memchr(at, '@', host);
    if (user) {
        host -= (size_t)(user + 1 - at);
        at = user + 1;
    }
    char *port = memchr(at, ':', host);
    if (port) {
        memmove(port, at + host, strlen(at + host) + 1);
        host = (size_t)(port - at);
    }
    for (size_t i = 0; i < host; i++)
        at[i] = (char)(at[i] >= 'A' && at[i] <= 'Z' ? at[i] | 0x20 : at[i]);
    if (host > 4 && strncmp(at, "www.", 4) == 0)
        at += 4;
    size_t end = strlen(at);
    while (end > 0 && (at[end - 1] == '/' || at[end - 1] == '.'))
        end--;
    char *out = mem_strndup(at, end);
    mem_free(copy);
    return out;
}

static void add_line(struct blocked *blocked, const char *line, size_t length)
{
    const char *comment = memchr(line, '#', length);

    length = comment ? (size_t)(comment - line) : length;
    while (length > 0 && memchr(" \t\r", line[length - 1], 3))
        length--;
    size_t begin = length;
    while (begin > 0 && !memchr(" \t", line[begin - 1], 2))
        begin--;
    char *plain = plain_of(line + begin, length - begin);
    if (*plain)
        byte_map_put(&blocked->entries, plain, strlen(plain));
    mem_free(plain);
}

void blocked_add(struct blocked *blocked, const char *list, size_t length)
{
    for (size_t at = 0; at < length;) {
        const char *newline = memchr(list + at, '\n', length - at);
        size_t end = newline ? (size_t)(newline - list) : length;
        add_line(blocked, list + at, end - at);
        at = end + 1;
    }
}

static bool has(const struct blocked *blocked, const char *text, size_t length)
{
    return byte_map_find(&blocked->entries, text, length) != BYTE_MAP_NONE;
}

/* The host and the domains above it, then the address up to each border of its path; with the host
 * as it is, or one above it, before the path. */
bool blocked_has(const struct blocked *blocked, const char *url)
{
    char *plain = plain_of(url, strlen(url));
    size_t length = strnlen(plain, URL_BYTES_MAX), host = strcspn(plain, "/?#");
    bool found = false;

    host = host < length ? host : length;
    for (const char *from = plain; from && !found && host > 0;) {
        size_t before = (size_t)(from - plain), borders = 0;
        found = has(blocked, from, host - before);
        for (size_t end = host + 1; end <= length && !found && borders < BORDERS_MAX; end++) {
            if (end < length && !strchr("/?#", plain[end]))
                continue;
            found = has(blocked, from, end - before);
            borders++;
        }
        from = memchr(from, '.', host - before);
        from = from ? from + 1 : NULL;
    }
    mem_free(plain);
    return found;
}

double garbled_share(const char *text, size_t length)
{
    size_t bad = 0, all = 0, bytes;

    for (size_t i = 0; i < length; i += bytes, all++) {
        uint32_t c = char_at(text + i, length - i, &bytes);
        if (c >= ' ' && c < 0x7F)
            continue;
        utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
        bad += c == 0xFFFD || category == UTF8PROC_CATEGORY_CO ||
               category == UTF8PROC_CATEGORY_CN ||
               (category == UTF8PROC_CATEGORY_CC && !char_is_space(c));
    }
    return all ? (double)bad / (double)all : 0;
}
