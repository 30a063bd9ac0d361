/* view.c - see view.h. */
#include "worker/recipes/data/web/view.h"

#include "common/base/mem.h"
#include "worker/recipes/data/web/chars.h"

#include <string.h>
#include <xxhash.h>

static bool is_punctuation(uint32_t c)
{
    if (c < 0x80)
        return c > ' ' && c < 0x7F && !char_is_letter(c) && !(c >= '0' && c <= '9');
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
    return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_SO;
}

static void add_word(struct view *view, struct view_word *word, size_t end)
{
    word->bytes = (uint32_t)(end - word->at);
    word->hash = XXH3_64bits(view->text + word->at, word->bytes);
    VEC_RESERVE(view->words, view->word_count, view->word_capacity);
    view->words[view->word_count++] = *word;
    view->word_chars += word->chars;
    *word = (struct view_word){0};
}

static void cut_words(struct view *view)
{
    struct view_word word = {0};
    size_t bytes;

    for (size_t i = 0; i < view->length; i += bytes) {
        uint32_t c = char_at(view->text + i, view->length - i, &bytes);
        view->char_count++;
        if (char_is_space(c)) {
            if (word.chars)
                add_word(view, &word, i);
            continue;
        }
        if (word.chars++ == 0)
            word.at = (uint32_t)i;
        word.letter = word.letter || char_is_letter(c);
        word.symbol = word.symbol || c == '#' || c == CHAR_ELLIPSIS;
        word.plain = word.plain || !is_punctuation(c);
    }
    if (word.chars)
        add_word(view, &word, view->length);
}

static void cut_lines(struct view *view)
{
    for (size_t at = 0; at <= view->length;) {
        const char *end = memchr(view->text + at, '\n', view->length - at);
        size_t bytes = end ? (size_t)(end - view->text) - at : view->length - at;
        VEC_RESERVE(view->lines, view->line_count, view->line_capacity);
        view->lines[view->line_count++] = (struct view_line){
            .at = (uint32_t)at,
            .bytes = (uint32_t)bytes,
            .chars = (uint32_t)char_count(view->text + at, bytes),
            .hash = XXH3_64bits(view->text + at, bytes),
        };
        at += bytes + 1;
    }
}

void view_set(struct view *view, const char *text, size_t length)
{
    CHECK(length < UINT32_MAX);
    view->text = text;
    view->length = length;
    view->char_count = view->word_chars = 0;
    view->word_count = view->line_count = 0;
    cut_words(view);
    cut_lines(view);
}

void view_done(struct view *view)
{
    mem_free(view->words);
    mem_free(view->lines);
    mem_free(view->scratch);
    *view = (struct view){0};
}
