/* charsmap.h - SentencePiece's compiled normalisation: a trie of byte strings to replacements.
 *
 * The file holds a 32-bit length, a trie of that many bytes (32-bit units of a darts-clone double
 * array), and the replacements, each ended by a zero. Foreign bytes: every access is checked.
 * Sources: sentencepiece's normalizer.cc, darts-clone's darts.h. */
#ifndef ATHANOR_CHARSMAP_H
#define ATHANOR_CHARSMAP_H

#include "common/base/buf.h"
#include "common/base/err.h"

struct charsmap {
    const uint8_t *trie; /* little-endian units; NULL: nothing is replaced */
    size_t unit_count;
    const char *texts;
    size_t text_bytes;
};

/* Points into bytes, which must outlive it. Errors: ERR_PROTOCOL. */
int charsmap_open(const void *bytes, size_t length, struct charsmap *out,
                  struct err *err) WARN_UNUSED;
/* Replacement of the longest prefix of text that has one: its length in text, and the
 * replacement; 0 where there is none. */
size_t charsmap_match(const struct charsmap *map, const char *text, size_t length,
                      const char **out_text, size_t *out_length);

/* Standard alphabet with padding; the decoder refuses everything else. */
void base64_write(const void *bytes, size_t length, struct buf *out);
int base64_read(const char *text, size_t length, struct buf *out, struct err *err) WARN_UNUSED;

#endif
