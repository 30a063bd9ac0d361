/* tokenizer_parts.h - inside of a tokenizer, for tokenizer.c, its reader and its writer. */
#ifndef ATHANOR_TOKENIZER_PARTS_H
#define ATHANOR_TOKENIZER_PARTS_H

#include "worker/engine/data/bpe.h"
#include "worker/engine/data/charbpe.h"
#include "worker/engine/data/pieces.h"
#include "worker/engine/data/tokenizer.h"
#include "worker/engine/data/unigram.h"
#include "worker/engine/data/wordpiece.h"

#include <jansson.h>

#define ADDED_TOKENS_MAX 65536
#define TOKENIZER_FILE_MAX ((size_t)256 << 20) /* the largest published one has 17 MB */

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

/* What is put around texts: a special token, the first or the second text, with its type. */
enum frame_part { FRAME_TOKEN = 0, FRAME_FIRST, FRAME_SECOND };
#define FRAME_ITEMS_MAX 8

struct frame {
    struct frame_item {
        enum frame_part part;
        uint32_t id, type;
    } item[FRAME_ITEMS_MAX];
    size_t count;
};

/* What a special token is for, by transformers' names: bos_token, eos_token, ... */
enum token_role {
    ROLE_BOS = 0, ROLE_EOS, ROLE_UNK, ROLE_SEP, ROLE_PAD, ROLE_CLS, ROLE_MASK, TOKEN_ROLES
};

struct tokenizer {
    enum tokenizer_kind kind;
    struct wordpiece wordpiece; /* of its kind */
    struct unigram unigram;     /* of its kind */
    struct charbpe charbpe;     /* of its kind */
    struct frame single, pair;  /* empty: nothing is put around */
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
    enum piece_pattern pattern; /* byte-level */
    uint32_t role[TOKEN_ROLES]; /* ids that the files beside it name; TOKENIZER_VOCAB_MAX: none */
    uint32_t begin_of_text, end_of_text; /* what follows from roles, frame and kind */
    struct hash identity;
    struct arena arena;
};

struct tokenizer *tokenizer_new(void);
/* Gives `id` these bytes. Errors: ERR_INVALID (id out of range, id or bytes given twice). */
int tokenizer_add_token(struct tokenizer *tokenizer, uint32_t id, const char *bytes,
                        size_t length, struct err *err) WARN_UNUSED;
/* The same where bytes may be given twice: texts become the last id, ids still have a text. */
int tokenizer_put_token(struct tokenizer *tokenizer, uint32_t id, const char *bytes,
                        size_t length, struct err *err) WARN_UNUSED;
/* A token matched in the raw text. Its id may be new or one that the vocabulary has. */
int tokenizer_add_special(struct tokenizer *tokenizer, uint32_t id, const char *content,
                          size_t length, bool special, struct err *err) WARN_UNUSED;
/* The rule "bytes of left, bytes of right"; all three must be tokens. */
int tokenizer_add_merge(struct tokenizer *tokenizer, const char *left, size_t left_length,
                        const char *right, size_t right_length, struct err *err) WARN_UNUSED;
/* In tokenizer_forms.c: what a file's model.type says, after its added tokens. */
int tokenizer_read_forms(struct tokenizer *tokenizer, json_t *root, struct err *err) WARN_UNUSED;
/* Of a byte-level BPE, once its identity is known, which frames are no part of. */
int tokenizer_read_processor(struct tokenizer *tokenizer, json_t *processor,
                             struct err *err) WARN_UNUSED;
void tokenizer_put_processor(struct buf *out, const struct tokenizer *tokenizer);
bool tokenizer_is_form(json_t *root); /* any but byte-level BPE */
void tokenizer_put_forms(struct buf *out, const struct tokenizer *tokenizer);
/* Pieces of an object of text to id, where added tokens are there already; and back, for Unigram
 * with scores, as [text, score]. */
int tokenizer_read_pieces(struct tokenizer *tokenizer, json_t *vocab, struct err *err) WARN_UNUSED;
void tokenizer_put_pieces(struct buf *out, const struct tokenizer *tokenizer, bool scored);
int tokenizer_read_frame(struct tokenizer *tokenizer, json_t *processor,
                         struct err *err) WARN_UNUSED;
int tokenizer_parse_vocab(const char *text, size_t length, bool lowercase, struct tokenizer **out,
                          struct err *err) WARN_UNUSED;
/* In tokenizer_json.c. An object, or NULL with an error that says line and column. */
json_t *tokenizer_load_json(const char *json, size_t length, struct err *err);
/* Byte-level entries of an object of text to id. of: what it is called in errors; *out_key: the
 * entry that was refused, or NULL. */
int tokenizer_read_vocab(struct tokenizer *tokenizer, const char *of, json_t *vocab,
                         const char **out_key, struct err *err) WARN_UNUSED;
int tokenizer_read_merge(struct tokenizer *tokenizer, const char *text, size_t length,
                         struct err *err) WARN_UNUSED; /* "a b" */
int tokenizer_read_added(struct tokenizer *tokenizer, json_t *added, struct err *err) WARN_UNUSED;
/* An added token and its vocabulary entry must be one id: readers disagree on which counts. */
int tokenizer_check_added(const struct tokenizer *tokenizer, const char *key, uint32_t id,
                          struct err *err) WARN_UNUSED;
void tokenizer_put_added(struct buf *out, const struct tokenizer *tokenizer);
void tokenizer_put_text(struct buf *out, const char *text, size_t length);
/* In tokenizer_sides.c: the files beside a tokenizer, as they are. */
enum tokenizer_side {
    SIDE_CONFIG = 0, /* tokenizer_config.json */
    SIDE_SPECIALS,   /* special_tokens_map.json */
    SIDE_ADDED,      /* added_tokens.json */
    SIDE_GENERATION, /* generation_config.json */
    SIDE_MODEL,      /* config.json */
    TOKENIZER_SIDES
};
struct tokenizer_sides {
    json_t *root[TOKENIZER_SIDES]; /* objects; NULL: not there */
};
/* One of them from its text. Errors say its name, line and column. */
int tokenizer_sides_parse(struct tokenizer_sides *sides, enum tokenizer_side side,
                          const char *text, size_t length, struct err *err) WARN_UNUSED;
int tokenizer_sides_read(struct tokenizer_sides *sides, const char *folder,
                         struct err *err) WARN_UNUSED;
void tokenizer_sides_done(struct tokenizer_sides *sides);
/* The object or text that names the role's token; NULL: none does. */
json_t *tokenizer_sides_role(const struct tokenizer_sides *sides, enum token_role role);
/* The id that the model's files name for it; -1: none. The first of a list. */
int64_t tokenizer_sides_id(const struct tokenizer_sides *sides, enum token_role role);
const char *tokenizer_token_text(json_t *value); /* of such an object or text, or NULL */
/* Sets the roles that are named and that the tokenizer has a token for, and what follows. */
void tokenizer_take_sides(struct tokenizer *tokenizer, const struct tokenizer_sides *sides);
/* Finds what begins and ends texts, once roles and frame are known. */
void tokenizer_settle(struct tokenizer *tokenizer);
/* In tokenizer_pair.c. */
struct tokenizer_text {
    const char *name; /* for errors */
    const char *text;
    size_t length;
};
/* From the texts of vocab.json and merges.txt and what lies beside them. */
int tokenizer_parse_pair(const struct tokenizer_text *vocab, const struct tokenizer_text *merges,
                         const struct tokenizer_sides *sides, struct tokenizer **out,
                         struct err *err) WARN_UNUSED;
int tokenizer_read_pair(const char *vocab_path, const char *merges_path,
                        const struct tokenizer_sides *sides, struct tokenizer **out,
                        struct err *err) WARN_UNUSED;
/* In charbpe_forms.c and charbpe.c: BPE with byte_fallback. */
bool charbpe_is_form(json_t *model);
int charbpe_read(struct tokenizer *tokenizer, json_t *root, struct err *err) WARN_UNUSED;
void charbpe_put(struct buf *out, const struct tokenizer *tokenizer);
int charbpe_finish(struct tokenizer *tokenizer, struct err *err) WARN_UNUSED;
/* In unigram.c: bytes of the character at text; 1 for a byte outside UTF-8. */
size_t tokenizer_char_bytes(const char *text, size_t length);
/* What is known once all pieces are. */
int unigram_finish(struct tokenizer *tokenizer, struct err *err) WARN_UNUSED;
/* A piece with its score; makes room in the arrays. */
int unigram_add(struct tokenizer *tokenizer, uint32_t id, const char *piece, size_t length,
                double score, enum piece_type type, struct err *err) WARN_UNUSED;

/* Checks that all bytes have an id; finds direct tokens, the end of texts and the identity. */
int tokenizer_finish(struct tokenizer *tokenizer, struct err *err) WARN_UNUSED;

#endif
