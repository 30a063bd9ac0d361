/* words.h - texts as sequences of words, for the measures of overlap.h.
 *
 * A word is the 64-bit hash of its bytes: measures only ask whether two words are equal, and
 * among a million distinct words two collide with probability 3e-8. */
#ifndef ATHANOR_WORDS_H
#define ATHANOR_WORDS_H

#include "common/base/base.h"

enum words_style {
    WORDS_SPACE = 1, /* cut at white space                                                 */
    WORDS_ROUGE,     /* lower case; everything but letters and digits is a gap. Beyond ASCII
                        letters and digits are Unicode's L and N, where the ROUGE scripts drop
                        them all, and with them whole languages                             */
    WORDS_13A,       /* mteval-v13a as sacreBLEU applies it: case kept, punctuation apart   */
    WORDS_STYLE_END,
};

struct words {
    uint64_t *word;
    size_t count;
    size_t capacity;
};

/* Replaces the content by the words of a text. Bytes that are not UTF-8 are gaps for ROUGE and
 * parts of words otherwise. */
void words_split(struct words *words, enum words_style style, const char *text, size_t length);
void words_done(struct words *words); /* a zeroed struct is fine */

/* The tokens of 13a with one space between them; for callers who want to see them. mem_free. */
char *words_13a(const char *text, size_t length);

#endif
