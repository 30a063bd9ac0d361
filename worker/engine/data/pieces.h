/* pieces.h - cuts text into the pieces inside which BPE merges: GPT-2's pattern, by hand.
 *
 * Ordered alternatives, leftmost first: 's 't 're 've 'm 'll 'd | ?letters | ?numbers |
 * ?others | white space not followed by non-space | white space. Letters are Unicode L,
 * numbers N, white space the White_Space property (U+001C..1F are not in it). A byte that is
 * not part of valid UTF-8 counts as "other". Pieces concatenate to the input.
 * Source: the pattern of GPT-2's encoder.py; the scanner without look-ahead is of the card
 * data-tokenizers-and-shards, section 1, with its vectors as tests. */
#ifndef ATHANOR_PIECES_H
#define ATHANOR_PIECES_H

#include "common/base/base.h"

/* Length in bytes of the first piece; at least 1 for length > 0. */
size_t piece_next(const char *text, size_t length);

#define BYTE_CHARS 256
/* GPT-2's printable stand-ins: the code point that stands for each byte in vocab files. */
uint32_t byte_to_char(uint8_t byte);
/* The byte a code point stands for; -1 for all others. */
int char_to_byte(uint32_t code_point);

#endif
