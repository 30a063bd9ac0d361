/* charbpe.h - BPE over the characters of a text, as Llama's tokenizer.json has it.
 *
 * A mark (U+2581) stands for each space and, if wanted, one before the text. The text is one piece:
 * its characters, or the bytes ("<0x41>") of those that are no token, are merged in rank order.
 * Sources: sentencepiece's bpe_model.cc; tokenizers' BPE with byte_fallback. */
#ifndef ATHANOR_CHARBPE_H
#define ATHANOR_CHARBPE_H

#include "worker/engine/data/tokenizer.h"

struct charbpe {
    uint32_t byte_of[256]; /* the id of "<0xHH>"                                    */
    uint32_t unknown;      /* named in files, never made; TOKENIZER_VOCAB_MAX: none */
    bool mark_first;       /* a space is put before the text                        */
};

void charbpe_encode(const struct tokenizer *tokenizer, const char *text, size_t length,
                    struct token_list *out);
void charbpe_decode(const struct tokenizer *tokenizer, const uint32_t *ids, size_t count,
                    struct buf *out);

#endif
