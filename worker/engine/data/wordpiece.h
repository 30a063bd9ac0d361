/* wordpiece.h - BERT's tokenizer: words by space and punctuation, each into its longest pieces.
 *
 * Text is cleaned (controls dropped, white space to spaces), CJK characters become words of
 * their own, letters are lower-cased and lose their accents where the vocabulary wants it; then
 * every punctuation mark is a word. A word is matched greedily from the left; pieces that continue
 * one begin with the prefix ("##"). A word that cannot be covered, or is too long, is one unknown.
 * Sources: Wu et al. 2016, section 4.1; bert/tokenization.py; tokenizers' BertNormalizer and
 * BertPreTokenizer. */
#ifndef ATHANOR_WORDPIECE_H
#define ATHANOR_WORDPIECE_H

#include "worker/engine/data/tokenizer.h"

#define WORDPIECE_PREFIX_MAX 8

struct wordpiece {
    bool clean, split_cjk, lowercase, strip_accents;
    uint32_t unknown;
    uint32_t word_chars_max; /* longer words are unknown */
    char prefix[WORDPIECE_PREFIX_MAX];
};

/* Appends ids. The tokenizer is of this kind. */
void wordpiece_encode(const struct tokenizer *tokenizer, const char *text, size_t length,
                      struct token_list *out);
/* Pieces joined to words, words by spaces, and no space before marks ("do n't" is don't). */
void wordpiece_decode(const struct tokenizer *tokenizer, const uint32_t *ids, size_t count,
                      struct buf *out);

#endif
