/* unigram.c - see unigram.h. */
#include "worker/engine/data/unigram.h"

#include "common/base/mem.h"
#include "worker/engine/data/metaspace.h"
#include "worker/engine/data/tokenizer_parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define UNKNOWN_PENALTY 10.0f
/* Beginnings of pieces are kept up to so many bytes: at most 2 KB a piece, however long it is. */
#define PREFIX_MAX_BYTES 64

void unigram_done(struct unigram *unigram)
{
    mem_free(unigram->score);
    mem_free(unigram->type);
    byte_map_done(&unigram->prefixes);
    buf_done(&unigram->map_bytes);
}

/* The arrays are as long as the tokenizer's own. */
static void reserve(struct tokenizer *t)
{
    struct unigram *u = &t->unigram;
    uint32_t old = u->capacity;

    if (t->token_capacity <= old)
        return;
    u->score = mem_grow(u->score, t->token_capacity, sizeof *u->score);
    u->type = mem_grow(u->type, t->token_capacity, sizeof *u->type);
    memset(u->type + old, 0, t->token_capacity - old);
    memset(u->score + old, 0, (t->token_capacity - old) * sizeof *u->score);
    u->capacity = t->token_capacity;
}

int unigram_add(struct tokenizer *t, uint32_t id, const char *piece, size_t length, double score,
                enum piece_type type, struct err *err)
{
    if (!isfinite(score))
        return err_set(err, ERR_INVALID, "piece %u has the score %g", id, score);
    if (t->unigram.rule == UNIGRAM_KONA ? tokenizer_put_token(t, id, piece, length, err) < 0
                                        : tokenizer_add_token(t, id, piece, length, err) < 0)
        return -1;
    reserve(t);
    t->unigram.score[id] = score;
    t->unigram.type[id] = (uint8_t)type;
    return 0;
}

size_t tokenizer_char_bytes(const char *text, size_t length)
{
    int32_t c;

    if ((uint8_t)*text < 0x80)
        return 1;
    utf8proc_ssize_t got = utf8proc_iterate(
        (const uint8_t *)text, length < 4 ? (utf8proc_ssize_t)length : 4, &c);

    return got > 0 ? (size_t)got : 1;
}

static bool is_whole_char(const char *text, size_t bytes)
{
    return bytes > 1 || (uint8_t)text[0] < 0x80;
}

/* The next character or mapped prefix, normalised; returns the bytes taken. */
static size_t next_normal(const struct unigram *u, const char *text, size_t length,
                          const char **out, size_t *out_length)
{
    size_t bytes = charsmap_match(&u->map, text, length, out, out_length);

    if (bytes > 0)
        return bytes;
    bytes = tokenizer_char_bytes(text, length);
    *out = text;
    *out_length = bytes;
    if (!is_whole_char(text, bytes)) {
        *out = "\xEF\xBF\xBD"; /* U+FFFD */
        *out_length = 3;
    }
    return bytes;
}

static int check_bytes(const struct tokenizer *t, struct err *err)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        char name[8];
        uint32_t id;

        snprintf(name, sizeof name, "<0x%02X>", byte);
        id = tokenizer_find(t, name, strlen(name));
        if (id == TOKENIZER_VOCAB_MAX)
            return err_set(err, ERR_INVALID, "byte_fallback is set, but there is no piece %s",
                           name);
        t->unigram.type[id] = PIECE_BYTE;
    }
    return 0;
}

static bool is_cut_into(const struct unigram *u, uint32_t id)
{
    return u->type[id] == PIECE_NORMAL || u->type[id] == PIECE_USER;
}

/* What the text at a place begins no piece with ends the search there: of the characters that a
 * piece may have, a look-up or two past the longest match are tried, not all. A beginning's value
 * is the piece it is, or TOKENIZER_VOCAB_MAX. */
static void add_prefixes(struct unigram *u, const struct token *piece, uint32_t id)
{
    size_t bytes = 0;

    while (bytes < piece->length) {
        size_t known = u->prefixes.count;
        uint32_t entry;

        bytes += tokenizer_char_bytes(piece->bytes + bytes, piece->length - bytes);
        if (bytes > PREFIX_MAX_BYTES)
            return;
        entry = byte_map_put(&u->prefixes, piece->bytes, bytes);
        if (entry == known)
            u->prefixes.entries[entry].value = TOKENIZER_VOCAB_MAX;
        if (bytes == piece->length)
            u->prefixes.entries[entry].value = id;
    }
}

static void find_prefixes(struct tokenizer *t)
{
    byte_map_done(&t->unigram.prefixes);
    for (uint32_t id = 0; id < t->vocab_size; id++) {
        const struct token *piece = &t->tokens[id];

        if (piece->bytes && is_cut_into(&t->unigram, id) &&
            tokenizer_find(t, piece->bytes, piece->length) == id)
            add_prefixes(&t->unigram, piece, id);
    }
}

int unigram_finish(struct tokenizer *t, struct err *err)
{
    struct unigram *u = &t->unigram;

    reserve(t);
    if (u->unknown >= t->vocab_size || !t->tokens[u->unknown].bytes)
        return err_set(err, ERR_INVALID, "the unknown piece is %u, expected one of %u",
                       u->unknown, t->vocab_size);
    u->type[u->unknown] = PIECE_UNKNOWN;
    for (size_t i = 0; i < t->added_count; i++) /* matched in the raw text, not by the model */
        u->type[t->added[i].id] = PIECE_CONTROL;
    u->type[u->unknown] = PIECE_UNKNOWN;
    if (u->byte_fallback && check_bytes(t, err) < 0)
        return -1;
    u->lowest = INFINITY;
    u->highest = -INFINITY;
    for (uint32_t id = 0; id < t->vocab_size; id++) {
        if (u->type[id] != PIECE_NORMAL)
            continue;
        u->lowest = fmin(u->lowest, u->score[id]);
        u->highest = fmax(u->highest, u->score[id]);
        u->piece_max_bytes = (uint32_t)max_u64(u->piece_max_bytes, t->tokens[id].length);
    }
    find_prefixes(t);
    return 0;
}

/* As normalizer.cc: spaces at the start and after a space are dropped, then those at the end. */
static void normalise(const struct unigram *u, const char *text, size_t length, struct buf *out)
{
    bool after_space = u->collapse;
    size_t least;

    if (u->mark_first)
        buf_puts(out, METASPACE);
    least = out->length;
    for (size_t at = 0; at < length;) {
        const char *normal;
        size_t bytes;

        at += next_normal(u, text + at, length - at, &normal, &bytes);
        for (; after_space && bytes > 0 && *normal == ' '; bytes--)
            normal++;
        metaspace_put(normal, bytes, out);
        if (bytes > 0)
            after_space = u->collapse && normal[bytes - 1] == ' ';
    }
    while (u->collapse && out->length >= least + METASPACE_BYTES &&
           metaspace_begins(out->bytes + out->length - METASPACE_BYTES, METASPACE_BYTES))
        out->length -= METASPACE_BYTES;
    if (out->length == least)
        out->length = 0; /* nothing but spaces */
}

static void normalise_nfkc(const struct unigram *u, const char *text, size_t length,
                           struct buf *out)
{
    utf8proc_uint8_t *composed = NULL;
    utf8proc_ssize_t got =
        utf8proc_map((const uint8_t *)text, (utf8proc_ssize_t)length, &composed,
                     UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT);

    if (got > 0 && u->mark_first)
        buf_puts(out, METASPACE);
    if (got > 0)
        metaspace_put((const char *)composed, (size_t)got, out);
    free(composed);
}

/* Best way to each byte: where its last piece began, and which it is. As in sentencepiece sums are
 * kept as float32 and offers compared as double: where cuts are nearly equal, rounding decides. */
struct node {
    float sum;
    size_t from;
    uint32_t id;
    bool reached;
};

static void offer(const struct unigram *u, struct node *to, size_t from, double sum, uint32_t id)
{
    bool better = u->rule == UNIGRAM_KONA ? to->sum == 0 || sum >= to->sum
                                          : !to->reached || sum > to->sum;

    if (better)
        *to = (struct node){(float)sum, from, id, true};
}

/* The piece that a text is; TOKENIZER_VOCAB_MAX: none. False: none begins with it either. */
static bool find_piece(const struct tokenizer *t, const char *text, size_t length, uint32_t *out)
{
    uint32_t entry;

    if (length > PREFIX_MAX_BYTES) {
        *out = tokenizer_find(t, text, length);
        return true;
    }
    entry = byte_map_find(&t->unigram.prefixes, text, length);
    if (entry == BYTE_MAP_NONE)
        return false;
    *out = (uint32_t)t->unigram.prefixes.entries[entry].value;
    return true;
}

/* Pieces that begin at `at`. Returns whether one begins, and in *out_single whether one is just
 * the character. */
static bool offer_pieces(const struct tokenizer *t, const char *text, size_t length, size_t at,
                         struct node *nodes, bool *out_single)
{
    const struct unigram *u = &t->unigram;
    size_t most = length - at < u->piece_max_bytes ? length - at : u->piece_max_bytes;
    size_t first = tokenizer_char_bytes(text + at, length - at);
    bool any = false;

    *out_single = false;
    for (size_t bytes = first, more; bytes <= most; bytes += more) {
        size_t left = length - at - bytes;
        double score;
        uint32_t id;

        more = left > 0 ? tokenizer_char_bytes(text + at + bytes, left) : 1;
        if (!find_piece(t, text + at, bytes, &id))
            break;
        if (id == TOKENIZER_VOCAB_MAX || !is_cut_into(u, id))
            continue;
        score = u->type[id] == PIECE_USER ? (double)bytes * u->highest - 0.1 : u->score[id];
        offer(u, &nodes[at + bytes], at, (double)nodes[at].sum + score, id);
        any = true;
        *out_single |= bytes == first;
    }
    return any;
}

static void fill_nodes(const struct tokenizer *t, const char *text, size_t length,
                       struct node *nodes)
{
    const struct unigram *u = &t->unigram;
    float penalty = u->rule == UNIGRAM_KONA ? 0 : (float)u->lowest - UNKNOWN_PENALTY;

    for (size_t i = 0; i <= length; i++)
        nodes[i] = (struct node){.from = i, .id = u->unknown};
    nodes[0].reached = true;
    for (size_t at = 0, bytes; at < length; at += bytes) {
        bool single, any = offer_pieces(t, text, length, at, nodes, &single);

        bytes = tokenizer_char_bytes(text + at, length - at);
        if (u->rule == UNIGRAM_KONA ? !any : !single)
            offer(u, &nodes[at + bytes], at, nodes[at].sum + penalty, u->unknown);
        if (!nodes[at + bytes].reached) /* KONA: the way there counts as unknown */
            nodes[at + bytes].from = at;
    }
}

static void add_bytes(const struct tokenizer *t, const char *text, size_t length,
                      struct token_list *out)
{
    for (size_t i = 0; i < length; i++) {
        char name[8];

        snprintf(name, sizeof name, "<0x%02X>", (uint8_t)text[i]);
        token_list_add(out, tokenizer_find(t, name, strlen(name)));
    }
}

/* Walks back from the end, then appends forwards. */
static void collect(const struct tokenizer *t, const char *text, size_t length,
                    const struct node *nodes, struct token_list *out)
{
    size_t *end = mem_array(length + 1, sizeof *end), count = 0;
    bool after_unknown = false;

    for (size_t at = length; at > 0; at = nodes[at].from)
        end[count++] = at;
    while (count-- > 0) {
        const struct node *node = &nodes[end[count]];
        bool unknown = node->id == t->unigram.unknown;

        if (unknown && t->unigram.byte_fallback)
            add_bytes(t, text + node->from, end[count] - node->from, out);
        else if (!unknown || !after_unknown)
            token_list_add(out, node->id);
        after_unknown = unknown;
    }
    mem_free(end);
}

void unigram_encode(const struct tokenizer *t, const char *text, size_t length,
                    struct token_list *out)
{
    struct buf normal = {0};
    struct node *nodes;

    if (t->unigram.nfkc)
        normalise_nfkc(&t->unigram, text, length, &normal);
    else
        normalise(&t->unigram, text, length, &normal);
    if (normal.length > 0) {
        nodes = mem_array(normal.length + 1, sizeof *nodes);
        fill_nodes(t, normal.bytes, normal.length, nodes);
        collect(t, normal.bytes, normal.length, nodes, out);
        mem_free(nodes);
    }
    buf_done(&normal);
}

void unigram_decode(const struct tokenizer *t, const uint32_t *ids, size_t count, struct buf *out)
{
    for (size_t i = 0; i < count; i++) {
        size_t length;
        const char *piece = tokenizer_token(t, ids[i], &length);
        bool spells = ids[i] < t->vocab_size && t->unigram.type[ids[i]] == PIECE_BYTE;
        int byte = spells ? metaspace_byte(piece, length) : -1;

        if (byte >= 0)
            buf_putc(out, (char)byte);
        else
            metaspace_decode(piece, length, i == 0 && t->unigram.mark_first, out);
    }
}
