/* tokenizer.c - vocabulary, encoding and decoding; see tokenizer.h. */
#include "worker/engine/data/tokenizer.h"

#include "common/base/mem.h"
#include "worker/engine/data/pieces.h"
#include "worker/engine/data/tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define ID_NONE BYTE_MAP_NONE

void token_list_done(struct token_list *list)
{
    mem_free(list->ids);
    *list = (struct token_list){0};
}

static void token_list_reserve(struct token_list *list, size_t more)
{
    if (list->count + more <= list->capacity)
        return;
    size_t capacity = list->capacity ? 2 * list->capacity : 256;
    while (capacity < list->count + more)
        capacity *= 2;
    list->ids = mem_grow(list->ids, capacity, sizeof *list->ids);
    list->capacity = capacity;
}

void token_list_add(struct token_list *list, uint32_t id)
{
    token_list_reserve(list, 1);
    list->ids[list->count++] = id;
}

struct tokenizer *tokenizer_new(void)
{
    struct tokenizer *tokenizer = mem_zalloc(sizeof *tokenizer);
    tokenizer->begin_of_text = tokenizer->end_of_text = TOKENIZER_VOCAB_MAX;
    for (size_t i = 0; i < TOKEN_ROLES; i++)
        tokenizer->role[i] = TOKENIZER_VOCAB_MAX;
    memset(tokenizer->byte_id, 0xFF, sizeof tokenizer->byte_id);
    return tokenizer;
}

void tokenizer_free(struct tokenizer *tokenizer)
{
    if (!tokenizer)
        return;
    mem_free(tokenizer->tokens);
    mem_free(tokenizer->added);
    unigram_done(&tokenizer->unigram);
    merge_table_done(&tokenizer->merges);
    byte_map_done(&tokenizer->vocab);
    byte_map_done(&tokenizer->added_texts);
    arena_done(&tokenizer->arena);
    mem_free(tokenizer);
}

static int token_place(struct tokenizer *tokenizer, uint32_t id, struct err *err)
{
    if (id >= TOKENIZER_VOCAB_MAX)
        return err_set(err, ERR_INVALID, "token id %u is too large; at most %u is accepted", id,
                       TOKENIZER_VOCAB_MAX - 1);
    if (id < tokenizer->vocab_size)
        return 0;
    uint32_t old = tokenizer->token_capacity, capacity = old ? old : 256;
    while (capacity <= id)
        capacity *= 2;
    if (capacity > old) {
        tokenizer->tokens = mem_grow(tokenizer->tokens, capacity, sizeof *tokenizer->tokens);
        memset(tokenizer->tokens + old, 0, (capacity - old) * sizeof *tokenizer->tokens);
        tokenizer->token_capacity = capacity;
    }
    tokenizer->vocab_size = id + 1;
    return 0;
}

int tokenizer_add_token(struct tokenizer *tokenizer, uint32_t id, const char *bytes,
                        size_t length, struct err *err)
{
    if (length == 0)
        return err_set(err, ERR_INVALID, "token %u is empty", id);
    if (token_place(tokenizer, id, err) < 0)
        return -1;
    if (tokenizer->tokens[id].bytes)
        return err_set(err, ERR_INVALID, "token id %u is given twice", id);
    size_t known = tokenizer->vocab.count;
    uint32_t entry = byte_map_put(&tokenizer->vocab, bytes, length);
    if (entry < known)
        return err_set(err, ERR_INVALID, "tokens %u and %u are the same bytes", id,
                       (uint32_t)tokenizer->vocab.entries[entry].value);
    tokenizer->vocab.entries[entry].value = id;
    tokenizer->tokens[id] = (struct token){
        .bytes = arena_strndup(&tokenizer->arena, bytes, length),
        .length = (uint32_t)length,
    };
    if (length == 1)
        tokenizer->byte_id[(uint8_t)bytes[0]] = id;
    return 0;
}

int tokenizer_put_token(struct tokenizer *tokenizer, uint32_t id, const char *bytes,
                        size_t length, struct err *err)
{
    uint32_t entry = byte_map_find(&tokenizer->vocab, bytes, length);
    if (entry == BYTE_MAP_NONE || (id < tokenizer->vocab_size && tokenizer->tokens[id].bytes))
        return tokenizer_add_token(tokenizer, id, bytes, length, err);
    if (token_place(tokenizer, id, err) < 0)
        return -1;
    tokenizer->vocab.entries[entry].value = id;
    tokenizer->tokens[id] = (struct token){
        .bytes = arena_strndup(&tokenizer->arena, bytes, length),
        .length = (uint32_t)length,
    };
    return 0;
}

int tokenizer_add_special(struct tokenizer *tokenizer, uint32_t id, const char *content,
                          size_t length, bool special, struct err *err)
{
    if (length == 0 || length > 4096)
        return err_set(err, ERR_INVALID, "added token %u has %zu bytes; 1 to 4096 are accepted",
                       id, length);
    if (tokenizer->added_count >= ADDED_TOKENS_MAX)
        return err_set(err, ERR_LIMIT, "more than %d added tokens", ADDED_TOKENS_MAX);
    if (token_place(tokenizer, id, err) < 0)
        return -1;
    size_t known = tokenizer->added_texts.count;
    uint32_t entry = byte_map_put(&tokenizer->added_texts, content, length);
    if (entry < known)
        return err_set(err, ERR_INVALID, "added token '%.*s' is given twice", (int)length, content);
    tokenizer->added_texts.entries[entry].value = id;
    struct token *token = &tokenizer->tokens[id];
    if (token->bytes && (token->length != length || memcmp(token->bytes, content, length) != 0))
        return err_set(err, ERR_INVALID, "token id %u has two different texts", id);
    if (!token->bytes)
        *token = (struct token){.bytes = arena_strndup(&tokenizer->arena, content, length),
                                .length = (uint32_t)length};
    token->added = true;
    size_t n = tokenizer->added_count;
    if ((n & (n - 1)) == 0)
        tokenizer->added = mem_grow(tokenizer->added, n ? 2 * n : 1, sizeof *tokenizer->added);
    tokenizer->added[tokenizer->added_count++] =
        (struct added_token){token->bytes, (uint32_t)length, id, special};
    tokenizer->added_first[(uint8_t)content[0]] = true;
    return 0;
}

static uint32_t vocab_id(const struct tokenizer *tokenizer, const char *bytes, size_t length)
{
    uint32_t entry = byte_map_find(&tokenizer->vocab, bytes, length);
    return entry == BYTE_MAP_NONE ? ID_NONE : (uint32_t)tokenizer->vocab.entries[entry].value;
}

int tokenizer_add_merge(struct tokenizer *tokenizer, const char *left, size_t left_length,
                        const char *right, size_t right_length, struct err *err)
{
    size_t rank = tokenizer->merges.count;
    char joined[8192];
    if (left_length + right_length > sizeof joined)
        return err_set(err, ERR_LIMIT, "merge %zu makes a token of over %zu bytes", rank,
                       sizeof joined);
    memcpy(joined, left, left_length);
    memcpy(joined + left_length, right, right_length);
    struct merge merge = {
        .left = vocab_id(tokenizer, left, left_length),
        .right = vocab_id(tokenizer, right, right_length),
        .id = vocab_id(tokenizer, joined, left_length + right_length),
    };
    if (merge.left == ID_NONE || merge.right == ID_NONE || merge.id == ID_NONE)
        return err_set(err, ERR_INVALID, "merge %zu names a token that the vocabulary lacks", rank);
    if (!merge_table_add(&tokenizer->merges, merge))
        return err_set(err, ERR_INVALID, "merge %zu is given twice", rank);
    return 0;
}

/* Ids of one piece by merging alone. ids has room for length. */
static size_t piece_merge(const struct tokenizer *tokenizer, const char *bytes, size_t length,
                          uint32_t *ids)
{
    size_t count = 0;
    for (size_t i = 0; i < length; i++) {
        ids[count] = tokenizer->byte_id[(uint8_t)bytes[i]];
        count += ids[count] != ID_NONE;
    }
    return count <= BPE_SCAN_MAX ? bpe_merge_scan(&tokenizer->merges, ids, count)
                                 : bpe_merge_heap(&tokenizer->merges, ids, count);
}

static void tokenizer_find_direct(struct tokenizer *tokenizer)
{
    struct token_list scratch = {0};
    for (size_t i = 0; i < tokenizer->vocab.count; i++) {
        struct token *token = &tokenizer->tokens[tokenizer->vocab.entries[i].value];
        token_list_reserve(&scratch, token->length);
        size_t count = piece_merge(tokenizer, token->bytes, token->length, scratch.ids);
        token->direct = count == 1 || tokenizer->ignore_merges;
    }
    token_list_done(&scratch);
}

/* Bytes that no UTF-8 text contains; some published vocabularies leave them out. */
static bool byte_outside_utf8(unsigned byte)
{
    return byte == 0xC0 || byte == 0xC1 || byte >= 0xF5;
}

static int finish_bytes(struct tokenizer *tokenizer, struct err *err)
{
    for (unsigned byte = 0; byte < 256; byte++)
        if (tokenizer->byte_id[byte] == ID_NONE && !byte_outside_utf8(byte))
            return err_set(err, ERR_INVALID, "the vocabulary has no token for byte 0x%02X; a "
                           "byte-level vocabulary has all that occur in UTF-8", byte);
    tokenizer_find_direct(tokenizer);
    return 0;
}

/* The added token that usually ends texts of its kind. */
static uint32_t usual_end(const struct tokenizer *tokenizer)
{
    static const char *const ends[][2] = {
        [TOKENIZER_BYTES] = {TOKENIZER_END_OF_TEXT, "</s>"}, [TOKENIZER_WORDPIECE] = {"[SEP]"},
        [TOKENIZER_UNIGRAM] = {"</s>"}, [TOKENIZER_CHARBPE] = {"</s>"}};
    for (size_t n = 0; n < 2 && ends[tokenizer->kind][n]; n++) {
        const char *end = ends[tokenizer->kind][n];
        uint32_t entry = byte_map_find(&tokenizer->added_texts, end, strlen(end));
        if (entry != BYTE_MAP_NONE)
            return (uint32_t)tokenizer->added_texts.entries[entry].value;
    }
    return TOKENIZER_VOCAB_MAX;
}

/* A BERT is taught streams of texts with [SEP] between: its frame is for pairs. */
void tokenizer_settle(struct tokenizer *tokenizer)
{
    const struct frame *frame = &tokenizer->single;
    uint32_t end = tokenizer->role[ROLE_EOS];
    if (end == TOKENIZER_VOCAB_MAX)
        end = usual_end(tokenizer);
    tokenizer->begin_of_text = tokenizer->end_of_text = end;
    if (tokenizer->kind == TOKENIZER_WORDPIECE)
        return;
    if (frame->count > 0 && frame->item[0].part == FRAME_TOKEN)
        tokenizer->begin_of_text = frame->item[0].id;
    else if (tokenizer->role[ROLE_BOS] < TOKENIZER_VOCAB_MAX)
        tokenizer->begin_of_text = tokenizer->role[ROLE_BOS];
}

int tokenizer_finish(struct tokenizer *tokenizer, struct err *err)
{
    if (tokenizer->kind == TOKENIZER_BYTES && finish_bytes(tokenizer, err) < 0)
        return -1;
    if (tokenizer->kind == TOKENIZER_UNIGRAM && unigram_finish(tokenizer, err) < 0)
        return -1;
    if (tokenizer->kind == TOKENIZER_CHARBPE && charbpe_finish(tokenizer, err) < 0)
        return -1;
    tokenizer_settle(tokenizer);
    char *text = tokenizer_text(tokenizer);
    hash_sha256(text, strlen(text), &tokenizer->identity);
    mem_free(text);
    return 0;
}

/* By way of its own text, so that what is written is what is used. */
int tokenizer_extend(struct tokenizer **tokenizer, const char *const *texts, size_t count,
                     struct err *err)
{
    char *text = tokenizer_text(*tokenizer);
    struct tokenizer *longer = NULL, *fresh = NULL;
    int rc = tokenizer_parse(text, strlen(text), &longer, err);
    mem_free(text);
    for (size_t i = 0; i < count && rc == 0; i++) {
        size_t length = strlen(texts[i]);
        if (tokenizer_find(longer, texts[i], length) >= tokenizer_vocab_size(longer))
            rc = tokenizer_add_special(longer, longer->vocab_size, texts[i], length, true, err);
    }
    if (rc == 0) {
        text = tokenizer_text(longer);
        rc = tokenizer_parse(text, strlen(text), &fresh, err);
        mem_free(text);
    }
    tokenizer_free(longer);
    if (rc < 0)
        return -1;
    memcpy(fresh->role, (*tokenizer)->role, sizeof fresh->role);
    tokenizer_settle(fresh);
    tokenizer_free(*tokenizer);
    *tokenizer = fresh;
    return 0;
}

static int add_trained(struct tokenizer *tokenizer, const struct merge_table *rules,
                       struct err *err)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        char spelled = (char)byte;
        if (tokenizer_add_token(tokenizer, byte, &spelled, 1, err) < 0)
            return -1;
    }
    struct buf joined = {0};
    int rc = 0;
    for (size_t i = 0; i < rules->count && rc == 0; i++) {
        struct merge rule = rules->merges[i];
        struct token left = tokenizer->tokens[rule.left], right = tokenizer->tokens[rule.right];
        buf_clear(&joined);
        buf_add(&joined, left.bytes, left.length);
        buf_add(&joined, right.bytes, right.length);
        if (rule.id == tokenizer->vocab_size)
            rc = tokenizer_add_token(tokenizer, rule.id, joined.bytes, joined.length, err);
        if (rc == 0)
            rc = tokenizer_add_merge(tokenizer, left.bytes, left.length, right.bytes,
                                     right.length, err);
    }
    buf_done(&joined);
    return rc;
}

int tokenizer_train(const struct word_counts *counts, uint32_t vocab_size, uint64_t min_count,
                    struct tokenizer **out, struct err *err)
{
    if (vocab_size < 257 || vocab_size > TOKENIZER_VOCAB_MAX)
        return err_set(err, ERR_INVALID, "vocab_size is %u; 257 to %u are accepted", vocab_size,
                       TOKENIZER_VOCAB_MAX);
    struct merge_table rules = {0};
    struct tokenizer *tokenizer = tokenizer_new();
    tokenizer->pattern = counts->pattern;
    bpe_train(counts, vocab_size - 1, min_count, &rules, NULL);
    int rc = add_trained(tokenizer, &rules, err);
    if (rc == 0)
        rc = tokenizer_add_special(tokenizer, tokenizer->vocab_size, TOKENIZER_END_OF_TEXT,
                                   strlen(TOKENIZER_END_OF_TEXT), true, err);
    if (rc == 0)
        rc = tokenizer_finish(tokenizer, err);
    merge_table_done(&rules);
    if (rc < 0) {
        tokenizer_free(tokenizer);
        return -1;
    }
    *out = tokenizer;
    return 0;
}

bool tokenizer_extends(const struct tokenizer *larger, const struct tokenizer *smaller)
{
    size_t count = 0;
    const char **texts = mem_array(larger->added_count + 1, sizeof *texts);
    char *json = tokenizer_text(smaller);
    struct tokenizer *made = NULL;
    struct err ignored;

    for (size_t i = 0; i < larger->added_count; i++)
        if (larger->added[i].id >= smaller->vocab_size)
            texts[count++] = larger->added[i].content;
    bool equal = count && tokenizer_parse(json, strlen(json), &made, &ignored) == 0 &&
                 tokenizer_extend(&made, texts, count, &ignored) == 0 &&
                 hash_equal(&made->identity, &larger->identity);
    tokenizer_free(made);
    mem_free(texts);
    mem_free(json);
    return equal;
}

enum tokenizer_kind tokenizer_kind(const struct tokenizer *tokenizer)
{
    return tokenizer->kind;
}

uint32_t tokenizer_find(const struct tokenizer *tokenizer, const char *text, size_t length)
{
    uint32_t id = vocab_id(tokenizer, text, length), entry;
    if (id != ID_NONE)
        return id;
    entry = byte_map_find(&tokenizer->added_texts, text, length);
    return entry == BYTE_MAP_NONE ? TOKENIZER_VOCAB_MAX
                                  : (uint32_t)tokenizer->added_texts.entries[entry].value;
}

bool tokenizer_is_added(const struct tokenizer *tokenizer, uint32_t id)
{
    return id < tokenizer->vocab_size && tokenizer->tokens[id].added;
}

static void frame_text(const struct token_list *text, uint32_t type, struct token_list *ids,
                       struct token_list *types)
{
    for (size_t i = 0; i < text->count; i++) {
        token_list_add(ids, text->ids[i]);
        token_list_add(types, type);
    }
}

void tokenizer_frame(const struct tokenizer *tokenizer, const struct token_list *a,
                     const struct token_list *b, struct token_list *ids,
                     struct token_list *types)
{
    const struct frame *frame = b ? &tokenizer->pair : &tokenizer->single;
    for (size_t i = 0; i < frame->count; i++) {
        const struct frame_item *item = &frame->item[i];
        if (item->part == FRAME_TOKEN) {
            token_list_add(ids, item->id);
            token_list_add(types, item->type);
        } else if (item->part == FRAME_FIRST || b) {
            frame_text(item->part == FRAME_FIRST ? a : b, item->type, ids, types);
        }
    }
    if (frame->count > 0)
        return;
    frame_text(a, 0, ids, types);
    if (b)
        frame_text(b, 1, ids, types);
}

uint32_t tokenizer_vocab_size(const struct tokenizer *tokenizer)
{
    return tokenizer->vocab_size;
}

uint32_t tokenizer_end_of_text(const struct tokenizer *tokenizer)
{
    return tokenizer->end_of_text;
}

uint32_t tokenizer_begin_of_text(const struct tokenizer *tokenizer)
{
    return tokenizer->begin_of_text;
}

const struct hash *tokenizer_identity(const struct tokenizer *tokenizer)
{
    return &tokenizer->identity;
}

const char *tokenizer_token(const struct tokenizer *tokenizer, uint32_t id, size_t *out_length)
{
    *out_length = 0;
    if (id >= tokenizer->vocab_size || !tokenizer->tokens[id].bytes)
        return "";
    *out_length = tokenizer->tokens[id].length;
    return tokenizer->tokens[id].bytes;
}

static void encode_piece(const struct tokenizer *tokenizer, const char *piece, size_t length,
                         struct token_list *out)
{
    token_list_reserve(out, length);
    uint32_t id = vocab_id(tokenizer, piece, length);
    if (id != ID_NONE && tokenizer->tokens[id].direct) {
        out->ids[out->count++] = id;
        return;
    }
    out->count += piece_merge(tokenizer, piece, length, out->ids + out->count);
}

static void encode_plain(const struct tokenizer *tokenizer, const char *text, size_t length,
                         struct token_list *out)
{
    if (tokenizer->kind == TOKENIZER_WORDPIECE) {
        wordpiece_encode(tokenizer, text, length, out);
        return;
    }
    if (tokenizer->kind == TOKENIZER_UNIGRAM) {
        unigram_encode(tokenizer, text, length, out);
        return;
    }
    if (tokenizer->kind == TOKENIZER_CHARBPE) {
        charbpe_encode(tokenizer, text, length, out);
        return;
    }
    while (length > 0) {
        size_t piece = piece_next_of(tokenizer->pattern, text, length);
        encode_piece(tokenizer, text, piece, out);
        text += piece;
        length -= piece;
    }
}

/* The longest added token that begins at text, or NULL. */
static const struct added_token *added_at(const struct tokenizer *tokenizer, const char *text,
                                          size_t length, bool with_special)
{
    const struct added_token *best = NULL;
    if (!tokenizer->added_first[(uint8_t)text[0]])
        return NULL;
    for (size_t i = 0; i < tokenizer->added_count; i++) {
        const struct added_token *added = &tokenizer->added[i];
        if ((added->special && !with_special) || added->length > length ||
            (best && best->length >= added->length))
            continue;
        if (memcmp(added->content, text, added->length) == 0)
            best = added;
    }
    return best;
}

static void encode_with_added(const struct tokenizer *tokenizer, const char *text, size_t length,
                              bool with_special, struct token_list *out)
{
    size_t start = 0;
    for (size_t at = 0; at < length;) {
        const struct added_token *added =
            added_at(tokenizer, text + at, length - at, with_special);
        if (!added) {
            at++;
            continue;
        }
        encode_plain(tokenizer, text + start, at - start, out);
        token_list_reserve(out, 1);
        out->ids[out->count++] = added->id;
        at += added->length;
        start = at;
    }
    encode_plain(tokenizer, text + start, length - start, out);
}

/* NFC of the text; NULL when it is NFC already, or not UTF-8 (then it is taken as it is). */
static char *composed(const char *text, size_t length, size_t *out_length)
{
    size_t ascii = 0;
    while (ascii < length && (uint8_t)text[ascii] < 0x80)
        ascii++;
    if (ascii == length)
        return NULL;
    utf8proc_uint8_t *result = NULL;
    utf8proc_ssize_t got = utf8proc_map((const uint8_t *)text, (utf8proc_ssize_t)length, &result,
                                        UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    if (got < 0) {
        free(result);
        return NULL;
    }
    *out_length = (size_t)got;
    return (char *)result;
}

static void encode(const struct tokenizer *tokenizer, const char *text, size_t length,
                   bool with_special, struct token_list *out)
{
    size_t composed_length;
    char *copy = tokenizer->compose ? composed(text, length, &composed_length) : NULL;
    if (copy)
        encode_with_added(tokenizer, copy, composed_length, with_special, out);
    else
        encode_with_added(tokenizer, text, length, with_special, out);
    free(copy);
}

void tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t length,
                      struct token_list *out)
{
    encode(tokenizer, text, length, false, out);
}

void tokenizer_encode_special(const struct tokenizer *tokenizer, const char *text, size_t length,
                              struct token_list *out)
{
    encode(tokenizer, text, length, true, out);
}

void tokenizer_decode(const struct tokenizer *tokenizer, const uint32_t *ids, size_t count,
                      struct buf *out)
{
    if (tokenizer->kind == TOKENIZER_WORDPIECE) {
        wordpiece_decode(tokenizer, ids, count, out);
        return;
    }
    if (tokenizer->kind == TOKENIZER_UNIGRAM) {
        unigram_decode(tokenizer, ids, count, out);
        return;
    }
    if (tokenizer->kind == TOKENIZER_CHARBPE) {
        charbpe_decode(tokenizer, ids, count, out);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        size_t length;
        const char *bytes = tokenizer_token(tokenizer, ids[i], &length);
        buf_add(out, bytes, length);
    }
}
