/* pieces.c - the pre-tokeniser's scanner; see pieces.h. */
#include "worker/engine/data/pieces.h"

#include <string.h>
#include <utf8proc.h>

enum char_class { CLASS_OTHER = 0, CLASS_LETTER, CLASS_NUMBER, CLASS_SPACE };

static enum char_class class_of_ascii(uint8_t c)
{
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
        return CLASS_LETTER;
    if (c >= '0' && c <= '9')
        return CLASS_NUMBER;
    return c == ' ' || (c >= 9 && c <= 13) ? CLASS_SPACE : CLASS_OTHER;
}

/* White_Space beyond ASCII, PropList.txt of Unicode 15. */
static bool is_wide_space(int32_t c)
{
    return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
           c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

static enum char_class class_of_wide(int32_t c)
{
    if (is_wide_space(c))
        return CLASS_SPACE;
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
        return CLASS_LETTER;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
        return CLASS_NUMBER;
    default:
        return CLASS_OTHER;
    }
}

/* Class and length in bytes of the character at text; requires length > 0. */
static enum char_class class_at(const char *text, size_t length, size_t *out_bytes)
{
    uint8_t first = (uint8_t)text[0];
    if (first < 0x80) {
        *out_bytes = 1;
        return class_of_ascii(first);
    }
    int32_t code_point;
    utf8proc_ssize_t limit = length < 4 ? (utf8proc_ssize_t)length : 4;
    utf8proc_ssize_t got = utf8proc_iterate((const uint8_t *)text, limit, &code_point);
    if (got <= 0) {
        *out_bytes = 1;
        return CLASS_OTHER;
    }
    *out_bytes = (size_t)got;
    return class_of_wide(code_point);
}

/* End of the run of `class` that starts at `at`. */
static size_t run_end(const char *text, size_t length, size_t at, enum char_class class,
                      size_t *out_last)
{
    while (at < length) {
        size_t bytes;
        if (class_at(text + at, length - at, &bytes) != class)
            break;
        *out_last = at;
        at += bytes;
    }
    return at;
}

static size_t contraction_length(const char *text, size_t length)
{
    static const char suffixes[7][3] = {"s", "t", "re", "ve", "m", "ll", "d"};
    for (size_t i = 0; i < ARRAY_COUNT(suffixes); i++) {
        size_t bytes = strlen(suffixes[i]);
        if (length > bytes && memcmp(text + 1, suffixes[i], bytes) == 0)
            return bytes + 1;
    }
    return 0;
}

size_t piece_next(const char *text, size_t length)
{
    if (length == 0)
        return 0;
    if (text[0] == '\'') {
        size_t contraction = contraction_length(text, length);
        if (contraction)
            return contraction;
    }
    size_t bytes, start = 0, last = 0;
    enum char_class class = class_at(text, length, &bytes);
    if (text[0] == ' ' && length > 1) {
        enum char_class next = class_at(text + 1, length - 1, &bytes);
        if (next != CLASS_SPACE) {
            start = 1; /* only U+0020 attaches to what follows */
            class = next;
        }
    }
    size_t end = run_end(text, length, start, class, &last);
    if (class != CLASS_SPACE || end == length || last == 0)
        return end;
    return last; /* the last white-space character is left to the next piece */
}

#define REST_OF_BOTH \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define START_OF_BOTH \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"

const char *const piece_regex[PIECES_END] = {
    [PIECES_GPT2] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|"
                    "\\s+(?!\\S)|\\s+",
    [PIECES_LLAMA3] = START_OF_BOTH "\\p{N}{1,3}" REST_OF_BOTH,
    [PIECES_QWEN2] = START_OF_BOTH "\\p{N}" REST_OF_BOTH,
};

static bool is_line_end(char c)
{
    return c == '\r' || c == '\n';
}

/* In any case; the long s U+017F is an s in another case. */
static size_t any_contraction_length(const char *text, size_t length)
{
    char small[4] = {'\''};
    if (length >= 3 && memcmp(text + 1, "\xC5\xBF", 2) == 0)
        return 3;
    size_t count = length < 3 ? length : 3;
    for (size_t i = 1; i < count; i++)
        small[i] = text[i] >= 'A' && text[i] <= 'Z' ? (char)(text[i] - 'A' + 'a') : text[i];
    return contraction_length(small, count);
}

/* Up to `most` numbers. */
static size_t numbers_end(const char *text, size_t length, int most)
{
    size_t at = 0, bytes;
    while (at < length && most-- > 0 &&
           class_at(text + at, length - at, &bytes) == CLASS_NUMBER)
        at += bytes;
    return at;
}

/* White space: up to its last line end; else without its last character, which goes with what
 * follows; else all of it. */
static size_t space_end(const char *text, size_t length)
{
    size_t last = 0, end = run_end(text, length, 0, CLASS_SPACE, &last);
    for (size_t at = end; at > 0; at--)
        if (is_line_end(text[at - 1]))
            return at;
    return end == length || last == 0 ? end : last;
}

static size_t piece_next_line_ends(const char *text, size_t length, int numbers)
{
    size_t bytes, more, ignored, start = text[0] == ' ' && length > 1;
    size_t contraction = text[0] == '\'' ? any_contraction_length(text, length) : 0;
    enum char_class class = class_at(text, length, &bytes);
    if (contraction)
        return contraction;
    if (class == CLASS_LETTER)
        return run_end(text, length, 0, CLASS_LETTER, &ignored);
    if (class == CLASS_NUMBER)
        return numbers_end(text, length, numbers);
    if (!is_line_end(text[0]) && bytes < length &&
        class_at(text + bytes, length - bytes, &more) == CLASS_LETTER)
        return run_end(text, length, bytes, CLASS_LETTER, &ignored);
    if (class_at(text + start, length - start, &bytes) != CLASS_OTHER)
        return space_end(text, length);
    size_t end = run_end(text, length, start, CLASS_OTHER, &ignored);
    while (end < length && is_line_end(text[end]))
        end++;
    return end;
}

/* A number is a piece; what lies before one is cut as if the text ended there, which only white
 * space can tell: no other piece looks behind its end. */
static size_t piece_next_digits(const char *text, size_t length)
{
    size_t bytes, last;
    if (class_at(text, length, &bytes) == CLASS_NUMBER)
        return bytes;
    size_t end = run_end(text, length, 0, CLASS_SPACE, &last);
    if (end > 0 && end < length && class_at(text + end, length - end, &bytes) == CLASS_NUMBER)
        return end;
    return piece_next(text, length);
}

size_t piece_next_of(enum piece_pattern pattern, const char *text, size_t length)
{
    if (length == 0 || pattern == PIECES_GPT2)
        return piece_next(text, length);
    if (pattern == PIECES_GPT2_DIGITS)
        return piece_next_digits(text, length);
    return piece_next_line_ends(text, length, pattern == PIECES_LLAMA3 ? 3 : 1);
}

static bool byte_is_printable(unsigned byte)
{
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

uint32_t byte_to_char(uint8_t byte)
{
    if (byte_is_printable(byte))
        return byte;
    uint32_t rank = 0; /* of the byte among those without a printable form */
    for (unsigned b = 0; b < byte; b++)
        rank += !byte_is_printable(b);
    return 0x100 + rank;
}

int char_to_byte(uint32_t code_point)
{
    if (code_point < 0x100)
        return byte_is_printable(code_point) ? (int)code_point : -1;
    uint32_t rank = 0x100;
    for (unsigned b = 0; b < BYTE_CHARS; b++) {
        if (byte_is_printable(b))
            continue;
        if (rank == code_point)
            return (int)b;
        rank++;
    }
    return -1;
}
