/* function_words.h - the closed classes of English: words that say how a sentence is built rather
 * than what it is about. */
#ifndef ATHANOR_FUNCTION_WORDS_H
#define ATHANOR_FUNCTION_WORDS_H

#include "worker/recipes/text/words.h"

/* Upper and lower case are one. */
bool is_function_word(const char *word, size_t length);
/* All of them, as WORDS_ROUGE cuts them. */
void function_words_split(struct words *out);

#endif
