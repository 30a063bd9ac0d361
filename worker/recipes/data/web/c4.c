/* c4.c - see c4.h. */
#include "worker/recipes/data/web/c4.h"

#include "worker/recipes/data/web/chars.h"

#include <string.h>

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

/* In lower case, one space before it unless it is the first. */
static void add_word(const struct view *view, size_t word, struct buf *out)
{
    if (out->length)
        buf_putc(out, ' ');
    add_lower(out, view->text + view->words[word].at, view->words[word].bytes);
}

int c4_naughty_add(struct byte_map *naughty, const char *line, size_t length, struct err *err)
{
    struct view view = {0};
    struct buf phrase = {0};
    int rc = 0;

    view_set(&view, line, length);
    if (view.word_count > C4_PHRASE_WORDS)
        rc = err_set(err, ERR_LIMIT, "'%.*s' has %zu words; phrases of up to %d are compared",
                     (int)(length < 80 ? length : 80), line, view.word_count, C4_PHRASE_WORDS);
    for (size_t i = 0; i < view.word_count && rc == 0; i++)
        add_word(&view, i, &phrase);
    if (phrase.length)
        byte_map_put(naughty, phrase.bytes, phrase.length);
    buf_done(&phrase);
    view_done(&view);
    return rc;
}

static bool is_naughty(const struct view *view, size_t word, const struct byte_map *naughty,
                       struct buf *room)
{
    buf_clear(room);
    for (size_t i = word; i < word + C4_PHRASE_WORDS && i < view->word_count; i++) {
        add_word(view, i, room);
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
        if (begin == view->length) /* behind the last line's end there is no line to cut */
            break;
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
