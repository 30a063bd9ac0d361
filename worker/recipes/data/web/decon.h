/* decon.h - paragraphs of eval sets, which no training document may hold.
 *
 * Every string of the eval files is cut at '\n'; paragraphs of more than `min_words` words (white
 * space between) are known by their key. With ngram > 0 the key is that of each n-gram of words
 * instead, and a paragraph is a hit when at least `overlap` of its n-grams are known (of those with
 * fewer than two n-grams, the whole). Source: card data-dolma, "Decontamination", "N-gram mode". */
#ifndef ATHANOR_WEB_DECON_H
#define ATHANOR_WEB_DECON_H

#include "common/base/err.h"

struct web;
struct decon;

int decon_new(const struct web *web, struct decon **out, struct err *err) WARN_UNUSED;
void decon_free(struct decon *decon);
size_t decon_count(const struct decon *decon); /* keys */
/* Paragraphs of the text that are hits. */
size_t decon_hits(const struct web *web, const struct decon *decon, const char *text,
                  size_t length);

#endif
