/* unigram.h - tokenizers by a unigram model: the cut of the text whose pieces sum to most.
 *
 * Text is normalised (a compiled map, or NFKC), a mark (U+2581) stands for each space and, if
 * wanted, one before the text; then Viterbi over the pieces. What no piece covers is unknown; a
 * run of unknown ones is one id.
 * Sources: Kudo 2018; sentencepiece's normalizer.cc and unigram_model.cc; for the rule KONA,
 * the tokenizer that comes with @energetic-ai/embeddings. */
#ifndef ATHANOR_UNIGRAM_H
#define ATHANOR_UNIGRAM_H

#include "worker/engine/data/bytemap.h"
#include "worker/engine/data/charsmap.h"
#include "worker/engine/data/tokenizer.h"

/* As sentencepiece numbers them. */
enum piece_type {
    PIECE_NORMAL = 1,
    PIECE_UNKNOWN,
    PIECE_CONTROL, /* never made from text                          */
    PIECE_USER,    /* always kept whole                             */
    PIECE_UNUSED,
    PIECE_BYTE,    /* "<0x41>": a byte of a character without piece */
};

/* Which cuts win, and what an unknown character costs. */
enum unigram_rule {
    UNIGRAM_SENTENCEPIECE = 0, /* 10 below the worst piece, where no piece is the character alone;
                                  of equal sums the one found first                             */
    UNIGRAM_KONA,              /* nothing, where no piece begins; the one found last            */
};

struct unigram {
    enum unigram_rule rule;
    double *score;       /* by id                                 */
    uint8_t *type;       /* enum piece_type by id                 */
    uint32_t capacity;   /* of both                               */
    uint32_t unknown;
    double lowest, highest; /* scores of normal pieces            */
    uint32_t piece_max_bytes;
    struct byte_map prefixes; /* see unigram.c; made by unigram_finish */
    bool byte_fallback;  /* unknown characters become their bytes */
    bool nfkc;           /* instead of the map                    */
    bool mark_first;     /* a space is put before the text        */
    bool collapse;       /* runs of spaces count as one, those at both ends as none */
    struct charsmap map;
    struct buf map_bytes;
};

void unigram_done(struct unigram *unigram);
void unigram_encode(const struct tokenizer *tokenizer, const char *text, size_t length,
                    struct token_list *out);
void unigram_decode(const struct tokenizer *tokenizer, const uint32_t *ids, size_t count,
                    struct buf *out);

#endif
