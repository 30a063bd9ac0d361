/* c4.h - the C4 rules as allenai/dolma tags them: lines to cut, and pages to drop.
 *
 * Dolma uses only the punctuation rule ("NoPunc", the best of its ablations with Gopher). Source:
 * card data-dolma, "C4"; Raffel et al. 2020. */
#ifndef ATHANOR_WEB_C4_H
#define ATHANOR_WEB_C4_H

#include "common/base/err.h"
#include "worker/engine/data/bytemap.h"
#include "worker/recipes/data/web/spans.h"
#include "worker/recipes/data/web/view.h"

/* Bits: which rules are on, and which of them a page breaks. */
enum c4_rule {
    C4_NOPUNC = 1,    /* cuts lines that, stripped, end in none of . ? ! "                 */
    C4_MINWORDS = 2,  /* cuts lines of fewer than C4_LINE_WORDS words                      */
    C4_NAUGHTY = 4,   /* drops pages with a word of the list                               */
    C4_JS = 8,        /* drops pages with the word javascript                              */
    C4_LOREM = 16,    /* drops pages with "lorem ipsum"                                    */
    C4_BRACE = 32,    /* drops pages with {                                                */
    C4_MINSENTS = 64, /* drops pages of fewer than C4_SENTENCES sentences: words that end in
                         . ? or !, quotes and brackets after it not counted                */
};
#define C4_LINE_WORDS 3
#define C4_SENTENCES  5
#define C4_PHRASE_WORDS 5 /* the longest entry of the published English list has 4 */

struct c4_result {
    unsigned broken;   /* rules that drop the page */
    size_t lines_nopunc, lines_minwords; /* cut by each rule (a line may be cut by both) */
    size_t sentences;
};

/* Adds a line of a list: a word or phrase, compared in lower case with one space between its words;
 * a blank line is none. Errors: ERR_LIMIT above C4_PHRASE_WORDS words. */
int c4_naughty_add(struct byte_map *naughty, const char *line, size_t length,
                   struct err *err) WARN_UNUSED;

/* Applies the rules that are on; cuts go to `spans`, line ends included. Words are compared in
 * lower case; a phrase of the list (several words, one space between) matches words in a row.
 * naughty: NULL without a list. */
void c4_check(const struct view *view, unsigned rules, const struct byte_map *naughty,
              struct spans *spans, struct c4_result *out);

#endif
