/* wordpiece.c - see wordpiece.h. */
#include "worker/engine/data/wordpiece.h"

#include "common/base/mem.h"
#include "worker/engine/data/tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* ASCII is most of most texts, and needs no tables. */
static bool is_ascii(int32_t c)
{
    return c >= 0 && c < 128;
}

static bool is_space(int32_t c)
{
    if (is_ascii(c))
        return c == ' ' || (c >= 9 && c <= 13);
    return c == 0x85 ||
           utf8proc_category(c) == UTF8PROC_CATEGORY_ZS ||
           utf8proc_category(c) == UTF8PROC_CATEGORY_ZL ||
           utf8proc_category(c) == UTF8PROC_CATEGORY_ZP;
}

static bool is_control(int32_t c)
{
    utf8proc_category_t category;

    if (is_ascii(c))
        return c == 127 || (c < ' ' && c != '\t' && c != '\n' && c != '\r');
    category = utf8proc_category(c);
    return category == UTF8PROC_CATEGORY_CC || category == UTF8PROC_CATEGORY_CF ||
           category == UTF8PROC_CATEGORY_CN || category == UTF8PROC_CATEGORY_CO ||
           category == UTF8PROC_CATEGORY_CS;
}

/* All ASCII marks, also those that Unicode calls symbols, and Unicode's punctuation. */
static bool is_punctuation(int32_t c)
{
    if (is_ascii(c))
        return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) ||
               (c >= 123 && c <= 126);
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_PC:
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO:
        return true;
    default:
        return false;
    }
}

/* The blocks of Chinese characters that BERT's own code lists. */
static bool is_cjk(int32_t c)
{
    return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) ||
           (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
           (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B820 && c <= 0x2CEAF) ||
           (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

static void put_char(struct buf *out, int32_t c)
{
    uint8_t bytes[4];

    if (is_ascii(c)) {
        buf_putc(out, (char)c);
        return;
    }
    utf8proc_ssize_t count = utf8proc_encode_char(c, bytes);

    buf_add(out, bytes, (size_t)count);
}

/* Next character and its length; a byte outside UTF-8 is U+FFFD, as a lossy decoder gives. */
static int32_t next_char(const char *text, size_t length, size_t *out_bytes)
{
    int32_t c = (uint8_t)*text;

    *out_bytes = 1;
    if (is_ascii(c))
        return c;
    utf8proc_ssize_t got = utf8proc_iterate(
        (const uint8_t *)text, length < 4 ? (utf8proc_ssize_t)length : 4, &c);

    *out_bytes = got > 0 ? (size_t)got : 1;
    return got > 0 ? c : 0xFFFD;
}

/* İ is the one character whose lower case is two. */
static void put_lower(struct buf *out, int32_t c)
{
    if (is_ascii(c)) {
        buf_putc(out, (char)(c >= 'A' && c <= 'Z' ? c + 32 : c));
        return;
    }
    put_char(out, c == 0x130 ? 'i' : utf8proc_tolower(c));
    if (c == 0x130)
        put_char(out, 0x307);
}

static void clean(const struct wordpiece *w, const char *text, size_t length, struct buf *out)
{
    for (size_t at = 0, bytes; at < length; at += bytes) {
        int32_t c = next_char(text + at, length - at, &bytes);

        if (w->clean && (c == 0 || c == 0xFFFD || is_control(c)))
            continue;
        if (w->clean && is_space(c))
            c = ' ';
        if (w->split_cjk && is_cjk(c))
            buf_putc(out, ' ');
        put_char(out, c);
        if (w->split_cjk && is_cjk(c))
            buf_putc(out, ' ');
    }
}

/* Canonical decomposition without its marks that take no space, of text without ASCII. */
static void put_apart(const char *text, size_t length, struct buf *out)
{
    utf8proc_uint8_t *apart = NULL;
    utf8proc_ssize_t got = utf8proc_map((const uint8_t *)text, (utf8proc_ssize_t)length, &apart,
                                        UTF8PROC_STABLE | UTF8PROC_DECOMPOSE);

    if (got < 0)
        buf_add(out, text, length);
    for (size_t at = 0, bytes; got > 0 && at < (size_t)got; at += bytes) {
        int32_t c = next_char((const char *)apart + at, (size_t)got - at, &bytes);

        if (utf8proc_category(c) != UTF8PROC_CATEGORY_MN)
            put_char(out, c);
    }
    free(apart);
}

/* Run by run: an ASCII character decomposes to itself, and marks are ordered within what follows a
 * character that is none, so that no run reaches over it (Unicode, section 3.11). */
static void strip_accents(struct buf *text)
{
    struct buf out = {0};
    size_t at = 0;

    while (at < text->length) {
        size_t end = at;

        while (end < text->length && is_ascii((uint8_t)text->bytes[end]))
            end++;
        buf_add(&out, text->bytes + at, end - at);
        for (at = end; end < text->length && !is_ascii((uint8_t)text->bytes[end]);)
            end++;
        if (end > at)
            put_apart(text->bytes + at, end - at, &out);
        at = end;
    }
    buf_done(text);
    *text = out;
}

static void lowercase(struct buf *text)
{
    struct buf lower = {0};

    for (size_t at = 0, bytes; at < text->length; at += bytes)
        put_lower(&lower, next_char(text->bytes + at, text->length - at, &bytes));
    buf_done(text);
    *text = lower;
}

/* Longest piece that begins at `from`; 0 where there is none. */
static size_t longest_piece(const struct tokenizer *t, const char *word, size_t from,
                            size_t length, struct buf *scratch, uint32_t *out_id)
{
    for (size_t end = length; end > from; end--) {
        if (end < length && ((uint8_t)word[end] & 0xC0) == 0x80)
            continue; /* inside a character */
        buf_clear(scratch);
        if (from > 0)
            buf_puts(scratch, t->wordpiece.prefix);
        buf_add(scratch, word + from, end - from);
        *out_id = tokenizer_find(t, scratch->bytes, scratch->length);
        if (*out_id != TOKENIZER_VOCAB_MAX)
            return end - from;
    }
    return 0;
}

static void encode_word(const struct tokenizer *t, const char *word, size_t length, size_t chars,
                        struct buf *scratch, struct token_list *out)
{
    size_t before = out->count;

    if (chars > t->wordpiece.word_chars_max) {
        token_list_add(out, t->wordpiece.unknown);
        return;
    }
    for (size_t at = 0; at < length;) {
        uint32_t id;
        size_t bytes = longest_piece(t, word, at, length, scratch, &id);

        if (bytes == 0) {
            out->count = before;
            token_list_add(out, t->wordpiece.unknown);
            return;
        }
        token_list_add(out, id);
        at += bytes;
    }
}

static void encode_words(const struct tokenizer *t, const char *text, size_t length,
                         struct token_list *out)
{
    struct buf scratch = {0};
    size_t start = 0, chars = 0, bytes;

    for (size_t at = 0; at < length; at += bytes) {
        int32_t c = next_char(text + at, length - at, &bytes);
        bool space = is_space(c), mark = !space && is_punctuation(c);

        if (!space && !mark) {
            chars++;
            continue;
        }
        if (at > start)
            encode_word(t, text + start, at - start, chars, &scratch, out);
        if (mark)
            encode_word(t, text + at, bytes, 1, &scratch, out);
        start = at + bytes;
        chars = 0;
    }
    if (length > start)
        encode_word(t, text + start, length - start, chars, &scratch, out);
    buf_done(&scratch);
}

void wordpiece_encode(const struct tokenizer *t, const char *text, size_t length,
                      struct token_list *out)
{
    struct buf normal = {0};

    clean(&t->wordpiece, text, length, &normal);
    if (t->wordpiece.strip_accents)
        strip_accents(&normal);
    if (t->wordpiece.lowercase)
        lowercase(&normal);
    encode_words(t, buf_text(&normal), normal.length, out);
    buf_done(&normal);
}

/* What tokenizers' decoder takes back: the spaces that cutting put in. */
static void clean_up(const char *joined, struct buf *out)
{
    static const char *const marks[][2] = {{" .", "."}, {" ?", "?"}, {" !", "!"}, {" ,", ","},
                                           {" ' ", "'"}, {" n't", "n't"}, {" 'm", "'m"},
                                           {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};

    while (*joined) {
        size_t i = 0;

        while (i < ARRAY_COUNT(marks) && strncmp(joined, marks[i][0], strlen(marks[i][0])) != 0)
            i++;
        if (i == ARRAY_COUNT(marks)) {
            buf_putc(out, *joined++);
            continue;
        }
        buf_puts(out, marks[i][1]);
        joined += strlen(marks[i][0]);
    }
}

void wordpiece_decode(const struct tokenizer *t, const uint32_t *ids, size_t count,
                      struct buf *out)
{
    size_t prefix = strlen(t->wordpiece.prefix);
    struct buf joined = {0};

    for (size_t i = 0; i < count; i++) {
        size_t length;
        const char *piece = tokenizer_token(t, ids[i], &length);

        if (length > prefix && memcmp(piece, t->wordpiece.prefix, prefix) == 0 && i > 0) {
            buf_add(&joined, piece + prefix, length - prefix);
            continue;
        }
        if (joined.length > 0 && length > 0)
            buf_putc(&joined, ' ');
        buf_add(&joined, piece, length);
    }
    clean_up(buf_text(&joined), out);
    buf_done(&joined);
}
