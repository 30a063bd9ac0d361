/* view.h - a document's text cut into words and lines once, for all the rules that look at it. */
#ifndef ATHANOR_WEB_VIEW_H
#define ATHANOR_WEB_VIEW_H

#include "common/base/base.h"

/* A run of characters that are no white space (Python's str.split). */
struct view_word {
    uint32_t at;    /* byte in the text */
    uint32_t bytes;
    uint32_t chars;
    bool letter;    /* has one */
    bool symbol;    /* has '#' or an ellipsis */
    bool plain;     /* has a character that is not punctuation */
    uint64_t hash;  /* of its bytes */
};

/* A line without its '\n' (Python's str.split("\n"): a text of k newlines has k + 1). */
struct view_line {
    uint32_t at, bytes, chars;
    uint64_t hash;
};

/* A zeroed struct is empty. Texts are below 4 GiB (the document reader sees to that). */
struct view {
    const char *text; /* borrowed */
    size_t length;
    size_t char_count;
    size_t word_chars; /* characters that are no white space */
    struct view_word *words;
    size_t word_count, word_capacity;
    struct view_line *lines;
    size_t line_count, line_capacity;
    uint64_t *scratch; /* room of the counters in gopher.c */
    size_t scratch_capacity;
};

void view_set(struct view *view, const char *text, size_t length);
void view_done(struct view *view);

#endif
