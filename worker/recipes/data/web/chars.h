/* chars.h - one code point at a time, for rules that are stated in characters.
 *
 * White space is what Python's str.isspace calls so, letters are Unicode's categories L*: the
 * published rules are defined by those (str.split, str.isalpha). */
#ifndef ATHANOR_WEB_CHARS_H
#define ATHANOR_WEB_CHARS_H

#include "common/base/base.h"

#include <utf8proc.h>

#define CHAR_ELLIPSIS 0x2026u
#define CHAR_BULLET   0x2022u

/* The code point at text, which has at least one byte; *out_bytes is its length. A byte that
 * begins no UTF-8 sequence counts as U+FFFD. */
static inline uint32_t char_at(const char *text, size_t length, size_t *out_bytes)
{
    utf8proc_int32_t point;

    if ((uint8_t)text[0] < 0x80) {
        *out_bytes = 1;
        return (uint8_t)text[0];
    }
    utf8proc_ssize_t got = utf8proc_iterate((const utf8proc_uint8_t *)text,
                                            (utf8proc_ssize_t)(length < 4 ? length : 4), &point);
    *out_bytes = got > 0 ? (size_t)got : 1;
    return got > 0 ? (uint32_t)point : 0xFFFD;
}

static inline bool char_is_space(uint32_t c)
{
    if (c < 0x80)
        return c == ' ' || (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x1F);
    return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
           c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

static inline bool char_is_letter(uint32_t c)
{
    if (c < 0x80)
        return (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
    return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

static inline uint32_t char_lower(uint32_t c)
{
    if (c < 0x80)
        return c >= 'A' && c <= 'Z' ? c | 0x20 : c;
    return (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
}

/* Characters of a text. */
static inline size_t char_count(const char *text, size_t length)
{
    size_t count = 0;

    for (size_t i = 0; i < length; i++)
        count += ((uint8_t)text[i] & 0xC0) != 0x80;
    return count;
}

/* Bytes of the first `chars` characters, or of all. */
static inline size_t char_prefix(const char *text, size_t length, size_t chars)
{
    size_t at = 0, bytes;

    for (; chars > 0 && at < length; chars--, at += bytes)
        char_at(text + at, length - at, &bytes);
    return at;
}

/* The text without white space at its ends. */
static inline void char_trim(const char **text, size_t *length)
{
    size_t bytes;

    while (*length > 0 && char_is_space(char_at(*text, *length, &bytes))) {
        *text += bytes;
        *length -= bytes;
    }
    while (*length > 0) {
        size_t last = *length - 1;
        while (last > 0 && ((uint8_t)(*text)[last] & 0xC0) == 0x80)
            last--;
        if (!char_is_space(char_at(*text + last, *length - last, &bytes)))
            break;
        *length = last;
    }
}

#endif
