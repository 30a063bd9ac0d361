/* sentence.h - what of a sampled text is a sentence, and what can be told of it without a model. */
#ifndef ATHANOR_SENTENCE_H
#define ATHANOR_SENTENCE_H

#include "common/base/base.h"

/* Length of the first sentence of a text, blanks at its end left out: up to and including the
 * first of . ? ! (and closing quotes or brackets after it) that is followed by white space or the
 * end. 0: refused - there is no such end, a newline comes first, it has fewer than 3 characters,
 * or its bytes are not UTF-8. */
size_t sentence_first(const char *text, size_t length);

/* Bytes of the first `most` sentences of a text and the blanks between them; *out_count: how many
 * there are. */
size_t sentence_prefix(const char *text, size_t most, size_t *out_count);

size_t sentence_characters(const char *text); /* Unicode code points of valid UTF-8 */

/* Whether every numeral of y ("3", "1,000", "2.5": digits with . and , between them) occurs as
 * often in x. */
bool sentence_numbers_within(const char *x, const char *y);

#endif
