/* c4.c - see c4.h. */
#include "worker/recipes/data/web/c4.h"

#include "worker/recipes/data/web/chars.h"

#include <string.h>

#define PHRASE_WORDS_MAX 5 /* the longest entry of the published English list has 4 */

/* Appends in lower case. */
static void add_lower(struct buf *out, const char *text, size_t length)
{
    utf8proc_uint8_t encoded[4];
    size_t bytes;

    for (size_t i = 0; i < length; i += bytes) {
        uint32_t c = char_lower(char_at(text + i, length - i, &bytes));
        buf_add(out, encoded, (size_t)utf8proc_encode_char((utf8proc_int32_t)c, encoded));
    }
}

static bool is_naughty(const struct view *view, size_t word, const struct byte_map *naughty,
                       struct buf *room)
{
    size_t last = word + PHRASE_WORDS_MAX;

    buf_clear(room);
    for (size_t i = word; i < last && i < view->word_count; i++) {
        if (i > word)
            buf_putc(room, ' ');
        add_lower(room, view->text + view->words[i].at, view->words[i].bytes);
        if (byte_map_find(naughty, room->bytes, room->length) != BYTE_MAP_NONE)
            return true;
    }
    return false;
}

static bool word_is(const struct view *view, const struct view_word *word, const char *what)
{
    return strlen(what) == word->bytes &&
           strncasecmp(view->text + word->at, what, word->bytes) == 0;
}

static bool ends_sentence(const char *word, size_t bytes)
{
    while (bytes > 0 && strchr("\"')]", word[bytes - 1]))
        bytes--;
    return bytes > 0 && memchr(".?!", word[bytes - 1], 3) != NULL;
}

static void check_words(const struct view *view, unsigned rules, const struct byte_map *naughty,
                        struct c4_result *out)
{
    struct buf room = {0};

    for (size_t i = 0; i < view->word_count; i++) {
        const struct view_word *word = &view->words[i];
        if ((rules & C4_JS) && word_is(view, word, "javascript"))
            out->broken |= C4_JS;
        if ((rules & C4_NAUGHTY) && naughty && is_naughty(view, i, naughty, &room))
            out->broken |= C4_NAUGHTY;
        out->sentences += ends_sentence(view->text + word->at, word->bytes);
    }
    if ((rules & C4_MINSENTS) && out->sentences < C4_SENTENCES)
        out->broken |= C4_MINSENTS;
    buf_done(&room);
}

static bool has_lorem_ipsum(const struct view *view)
{
    static const char phrase[] = "lorem ipsum";
    size_t bytes = sizeof phrase - 1;

    for (size_t i = 0; i + bytes <= view->length; i++)
        if ((view->text[i] | 0x20) == 'l' && strncasecmp(view->text + i, phrase, bytes) == 0)
            return true;
    return false;
}

void c4_check(const struct view *view, unsigned rules, const struct byte_map *naughty,
              struct spans *spans, struct c4_result *out)
{
    size_t word = 0;

    *out = (struct c4_result){0};
    for (size_t i = 0; i < view->line_count; i++) {
        const struct view_line *line = &view->lines[i];
        size_t begin = line->at, end = begin + line->bytes, first = word, length = line->bytes;
        const char *text = view->text + begin;
        while (word < view->word_count && view->words[word].at < end)
            word++;
        char_trim(&text, &length);
        bool nopunc = (rules & C4_NOPUNC) && (length == 0 || !memchr(".?!\"", text[length - 1], 4));
        bool minwords = (rules & C4_MINWORDS) && word - first < C4_LINE_WORDS;
        out->lines_nopunc += nopunc;
        out->lines_minwords += minwords;
        if (nopunc || minwords)
            spans_add(spans, begin, end < view->length ? end + 1 : end, NULL);
    }
    if ((rules & C4_LOREM) && has_lorem_ipsum(view))
        out->broken |= C4_LOREM;
    if ((rules & C4_BRACE) && memchr(view->text, '{', view->length))
        out->broken |= C4_BRACE;
    check_words(view, rules, naughty, out);
}
