/* words.c - see words.h. */
#include "worker/recipes/text/words.h"

#include "common/base/buf.h"
#include "common/base/mem.h"

#include <stdio.h>
#include <string.h>
#include <utf8proc.h>
#include <xxhash.h>

static void add(struct words *words, const char *bytes, size_t length)
{
    if (length == 0)
        return;
    VEC_RESERVE(words->word, words->count, words->capacity);
    words->word[words->count++] = XXH3_64bits(bytes, length);
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static void split_space(struct words *words, const char *text, size_t length)
{
    size_t start = 0;

    for (size_t i = 0; i <= length; i++) {
        if (i < length && !is_space(text[i]))
            continue;
        add(words, text + start, i - start);
        start = i + 1;
    }
}

/* ---- ROUGE ------------------------------------------------------------------------------ */

static bool is_word_part(utf8proc_int32_t c)
{
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
    case UTF8PROC_CATEGORY_MN: /* accents of decomposed letters */
    case UTF8PROC_CATEGORY_MC: /* vowel signs                   */
        return true;
    default:
        return false;
    }
}

static void split_rouge(struct words *words, const char *text, size_t length)
{
    struct buf word = {0};

    for (size_t i = 0; i < length;) {
        utf8proc_int32_t c;
        utf8proc_ssize_t used = utf8proc_iterate((const utf8proc_uint8_t *)text + i,
                                                 (utf8proc_ssize_t)(length - i), &c);
        utf8proc_uint8_t lower[4];

        if (used > 0 && is_word_part(c)) {
            buf_add(&word, lower, (size_t)utf8proc_encode_char(utf8proc_tolower(c), lower));
        } else {
            add(words, word.bytes, word.length);
            buf_clear(&word);
        }
        i += used > 0 ? (size_t)used : 1;
    }
    add(words, word.bytes, word.length);
    buf_done(&word);
}

/* ---- 13a -------------------------------------------------------------------------------- */

/* The rules are regular expressions applied one after the other, each from left to right
 * without overlap; a rule over two characters therefore eats both. */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_dot(char c)
{
    return c == '.' || c == ',';
}

/* [\{-\~\[-\` -\&\(-\+\:-\@\/] */
static bool is_symbol(char c)
{
    return (c >= '{' && c <= '~') || (c >= '[' && c <= '`') || (c >= ' ' && c <= '&') ||
           (c >= '(' && c <= '+') || (c >= ':' && c <= '@') || c == '/';
}

static void replace_all(struct buf *text, const char *from, const char *to)
{
    struct buf out = {0};
    const char *at = buf_text(text), *hit;

    for (; (hit = strstr(at, from)); at = hit + strlen(from)) {
        buf_add(&out, at, (size_t)(hit - at));
        buf_puts(&out, to);
    }
    buf_puts(&out, at);
    buf_done(text);
    *text = out;
}

static void part_symbols(struct buf *text)
{
    struct buf out = {0};

    for (size_t i = 0; i < text->length; i++) {
        if (is_symbol(text->bytes[i]))
            buf_printf(&out, " %c ", text->bytes[i]);
        else
            buf_putc(&out, text->bytes[i]);
    }
    buf_done(text);
    *text = out;
}

struct pair_rule {
    bool (*first)(char c), (*second)(char c);
    bool first_is_not, second_is_not; /* the class is the complement */
    const char *format;
};

/* ([^0-9])([\.,]) and ([\.,])([^0-9]) and ([0-9])(-) */
static bool is_dash(char c)
{
    return c == '-';
}

static const struct pair_rule pair_rules[] = {
    {is_digit, is_dot, true, false, "%c %c "},
    {is_dot, is_digit, false, true, " %c %c"},
    {is_digit, is_dash, false, false, "%c %c "},
};

static void part_pairs(struct buf *text, const struct pair_rule *rule)
{
    struct buf out = {0};

    for (size_t i = 0; i < text->length; i++) {
        char a = text->bytes[i], b = text->bytes[i + 1]; /* terminated */

        if (i + 1 < text->length && rule->first(a) != rule->first_is_not &&
            rule->second(b) != rule->second_is_not) {
            char both[8];
            int length = snprintf(both, sizeof both, rule->format, a, b);
            buf_add(&out, both, (size_t)length);
            i++;
        } else {
            buf_putc(&out, a);
        }
    }
    buf_done(text);
    *text = out;
}

static void apply_13a(struct buf *out, const char *text, size_t length)
{
    static const char *const plain[][2] = {
        {"<skipped>", ""}, {"-\n", ""},     {"\n", " "},     {"&quot;", "\""},
        {"&amp;", "&"},    {"&lt;", "<"},   {"&gt;", ">"},
    };

    buf_putc(out, ' ');
    for (size_t i = 0; i < length; i++)
        buf_putc(out, text[i] ? text[i] : ' ');
    for (size_t i = 0; i < ARRAY_COUNT(plain); i++)
        replace_all(out, plain[i][0], plain[i][1]);
    buf_putc(out, ' ');
    part_symbols(out);
    for (size_t i = 0; i < ARRAY_COUNT(pair_rules); i++)
        part_pairs(out, &pair_rules[i]);
}

static void split_13a(struct words *words, const char *text, size_t length)
{
    struct buf spaced = {0};

    apply_13a(&spaced, text, length);
    split_space(words, spaced.bytes, spaced.length);
    buf_done(&spaced);
}

char *words_13a(const char *text, size_t length)
{
    struct buf spaced = {0}, out = {0};

    apply_13a(&spaced, text, length);
    for (size_t i = 0; i < spaced.length; i++) {
        if (!is_space(spaced.bytes[i]))
            buf_putc(&out, spaced.bytes[i]);
        else if (out.length && i + 1 < spaced.length && !is_space(spaced.bytes[i + 1]))
            buf_putc(&out, ' ');
    }
    buf_done(&spaced);
    return out.length ? buf_take(&out) : mem_strdup("");
}

/* ---- */

void words_split(struct words *words, enum words_style style, const char *text, size_t length)
{
    static void (*const split[WORDS_STYLE_END])(struct words *, const char *, size_t) = {
        [WORDS_SPACE] = split_space, [WORDS_ROUGE] = split_rouge, [WORDS_13A] = split_13a};

    CHECK(style > 0 && style < WORDS_STYLE_END);
    words->count = 0;
    split[style](words, text, length);
}

void words_done(struct words *words)
{
    mem_free(words->word);
    *words = (struct words){0};
}
