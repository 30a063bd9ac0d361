/* sentence.c - see sentence.h. */
#include "worker/recipes/distillation/impossible/sentence.h"

#include "common/base/parse.h"

#include <string.h>

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static size_t closing(const char *text, size_t at, size_t length)
{
    while (at < length && strchr("\"')]", text[at]))
        at++;
    return at;
}

size_t sentence_first(const char *text, size_t length)
{
    size_t end = 0;

    for (size_t i = 0; i < length && end == 0; i++) {
        if (text[i] == '\n' || text[i] == 0)
            return 0;
        if (text[i] != '.' && text[i] != '?' && text[i] != '!')
            continue;
        size_t after = closing(text, i + 1, length);
        if (after == length || is_blank(text[after]))
            end = after;
    }
    return end >= 3 && text_is_utf8(text, end) ? end : 0;
}

size_t sentence_prefix(const char *text, size_t most, size_t *out_count)
{
    size_t end = 0, length = strlen(text), count = 0;

    while (count < most) {
        size_t blanks = strspn(text + end, " ");
        size_t next = sentence_first(text + end + blanks, length - end - blanks);
        if (next == 0)
            break;
        end += blanks + next;
        count++;
    }
    *out_count = count;
    return end;
}

size_t sentence_characters(const char *text)
{
    size_t count = 0;

    for (; *text; text++)
        count += (*text & 0xC0) != 0x80;
    return count;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* The next numeral at or after *at; false at the end. */
static bool next_number(const char **at, const char **out, size_t *out_length)
{
    const char *start = *at;

    while (*start && !is_digit(*start))
        start++;
    const char *end = start;
    while (is_digit(*end) || ((*end == '.' || *end == ',') && end > start && is_digit(end[1])))
        end++;
    *at = end;
    *out = start;
    *out_length = (size_t)(end - start);
    return end > start;
}

static size_t occurrences(const char *text, const char *number, size_t length)
{
    const char *found;
    size_t found_length, count = 0;

    while (next_number(&text, &found, &found_length))
        count += found_length == length && memcmp(found, number, length) == 0;
    return count;
}

bool sentence_numbers_within(const char *x, const char *y)
{
    const char *at = y, *number;
    size_t length;

    while (next_number(&at, &number, &length))
        if (occurrences(x, number, length) < occurrences(y, number, length))
            return false;
    return true;
}
