/* tokenizer_parts.h - inside of a tokenizer, for tokenizer.c, its reader and its writer. */
#ifndef ATHANOR_TOKENIZER_PARTS_H
#define ATHANOR_TOKENIZER_PARTS_H

#include "worker/engine/data/bpe.h"
#include "worker/engine/data/tokenizer.h"

#define ADDED_TOKENS_MAX 65536

struct token {
    const char *bytes; /* in the arena; NULL: the id is not in use */
    uint32_t length;
    bool direct; /* merging its bytes gives just this id: whole pieces may be looked up */
    bool added;  /* in `added` below, and never made by merging */
};

struct added_token {
    const char *content; /* in the arena */
    uint32_t length;
    uint32_t id;
    bool special; /* recognised only where special tokens are asked for */
};

struct tokenizer {
    struct token *tokens; /* vocab_size */
    uint32_t vocab_size, token_capacity;
    uint32_t byte_id[256];
    struct merge_table merges;
    struct byte_map vocab; /* bytes of ordinary tokens; value: the id */
    struct added_token *added;
    size_t added_count;
    struct byte_map added_texts; /* their contents; value: the id */
    bool added_first[256]; /* bytes that begin a text in `added` */
    bool ignore_merges; /* whole pieces are looked up first, reachable or not (Llama 3) */
    bool compose;       /* normalise to NFC first (GPT-NeoX) */
    uint32_t end_of_text;
    struct hash identity;
    struct arena arena;
};

struct tokenizer *tokenizer_new(void);
/* Gives `id` these bytes. Errors: ERR_INVALID (id out of range, id or bytes given twice). */
int tokenizer_add_token(struct tokenizer *tokenizer, uint32_t id, const char *bytes,
                        size_t length, struct err *err) WARN_UNUSED;
/* A token matched in the raw text. Its id may be new or one that the vocabulary has. */
int tokenizer_add_special(struct tokenizer *tokenizer, uint32_t id, const char *content,
                          size_t length, bool special, struct err *err) WARN_UNUSED;
/* The rule "bytes of left, bytes of right"; all three must be tokens. */
int tokenizer_add_merge(struct tokenizer *tokenizer, const char *left, size_t left_length,
                        const char *right, size_t right_length, struct err *err) WARN_UNUSED;
/* Checks that all bytes have an id; finds direct tokens, <|endoftext|> and the identity. */
int tokenizer_finish(struct tokenizer *tokenizer, struct err *err) WARN_UNUSED;

#endif
