/* pieces.h - cuts text into the pieces inside which BPE merges: published patterns, by hand.
 *
 * GPT-2's: ordered alternatives, leftmost first: 's 't 're 've 'm 'll 'd | ?letters | ?numbers |
 * ?others | white space not followed by non-space | white space. Letters are Unicode L,
 * numbers N, white space the White_Space property (U+001C..1F are not in it). A byte that is
 * not part of valid UTF-8 counts as "other". Pieces concatenate to the input.
 * Llama 3's (cl100k's in its first form): contractions in any case | one that is neither letter,
 * number nor line end, and letters | up to three numbers | ?others and line ends | white space up
 * to its last line end | white space as above. Qwen 2's takes numbers one by one. SmolLM's is
 * GPT-2's, where numbers were parted one by one before.
 * Source: the pattern of GPT-2's encoder.py; the scanner without look-ahead is of the card
 * data-tokenizers-and-shards, section 1, with its vectors as tests. The others are the expressions
 * of published tokenizer.json files (piece_regex). */
#ifndef ATHANOR_PIECES_H
#define ATHANOR_PIECES_H

#include "common/base/base.h"

enum piece_pattern { PIECES_GPT2 = 0, PIECES_LLAMA3, PIECES_QWEN2, PIECES_GPT2_DIGITS, PIECES_END };

/* As Split of a tokenizer.json has them; NULL: GPT-2's with numbers parted has none. */
extern const char *const piece_regex[PIECES_END];

/* Length in bytes of the first piece; at least 1 for length > 0. */
size_t piece_next(const char *text, size_t length); /* GPT-2's */
size_t piece_next_of(enum piece_pattern pattern, const char *text, size_t length);

#define BYTE_CHARS 256
/* GPT-2's printable stand-ins: the code point that stands for each byte in vocab files. */
uint32_t byte_to_char(uint8_t byte);
/* The byte a code point stands for; -1 for all others. */
int char_to_byte(uint32_t code_point);

#endif
