/* sentencepiece.c - reads a SentencePiece .model: a protocol buffer of pieces and two specs.
 *
 * Fields used, as sentencepiece_model.proto numbers them: ModelProto.pieces 1 (piece 1, score 2,
 * type 3), trainer_spec 2 (model_type 3, treat_whitespace_as_suffix 24, byte_fallback 35),
 * normalizer_spec 3 (precompiled_charsmap 2, add_dummy_prefix 3, remove_extra_whitespaces 4,
 * escape_whitespaces 5). Others are skipped. Foreign bytes: every length is checked. */
#include "common/base/mem.h"
#include "worker/engine/data/tokenizer_parts.h"

#include <string.h>
#include <utf8proc.h>

/* A message's bytes that are still to be read. */
struct message {
    const uint8_t *at, *end;
};

struct field {
    uint32_t number;
    uint64_t value;      /* of a number, or its bits    */
    struct message body; /* of a length-delimited field */
};

static int read_varint(struct message *m, uint64_t *out, struct err *err)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64 && m->at < m->end; shift += 7) {
        uint8_t byte = *m->at++;
        value |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80) {
            *out = value;
            return 0;
        }
    }
    return err_set(err, ERR_PROTOCOL, "a number does not end");
}

static int read_fixed(struct message *m, size_t bytes, uint64_t *out, struct err *err)
{
    if ((size_t)(m->end - m->at) < bytes)
        return err_set(err, ERR_PROTOCOL, "a number of %zu bytes is cut off", bytes);
    *out = 0;
    memcpy(out, m->at, bytes); /* little-endian, as all hosts we build for */
    m->at += bytes;
    return 0;
}

static int read_field(struct message *m, struct field *out, struct err *err)
{
    uint64_t key = 0, length = 0;
    *out = (struct field){0};
    if (read_varint(m, &key, err) < 0)
        return -1;
    out->number = (uint32_t)(key >> 3);
    switch (key & 7) {
    case 0:
        return read_varint(m, &out->value, err);
    case 1:
        return read_fixed(m, 8, &out->value, err);
    case 5:
        return read_fixed(m, 4, &out->value, err);
    case 2:
        if (read_varint(m, &length, err) < 0)
            return -1;
        if (length > (uint64_t)(m->end - m->at))
            return err_set(err, ERR_PROTOCOL, "field %u of %llu bytes is cut off", out->number,
                           (unsigned long long)length);
        out->body = (struct message){m->at, m->at + length};
        m->at += length;
        return 0;
    default:
        return err_set(err, ERR_PROTOCOL, "field %u has wire type %u", out->number,
                       (unsigned)(key & 7));
    }
}

static double float_of(uint64_t bits)
{
    uint32_t low = (uint32_t)bits;
    float value;
    memcpy(&value, &low, sizeof value);
    return value;
}

static bool is_utf8(const char *text, size_t length)
{
    for (size_t at = 0; at < length;) {
        int32_t c;
        utf8proc_ssize_t got = utf8proc_iterate((const uint8_t *)text + at,
                                                (utf8proc_ssize_t)(length - at), &c);
        if (got <= 0 || c == 0)
            return false;
        at += (size_t)got;
    }
    return length > 0;
}

static int add_piece(struct tokenizer *t, struct message m, struct err *err)
{
    struct message piece = {0};
    struct field field;
    double score = 0;
    uint64_t type = PIECE_NORMAL;
    uint32_t id = t->vocab_size;
    while (m.at < m.end) {
        if (read_field(&m, &field, err) < 0)
            return -1;
        if (field.number == 1)
            piece = field.body;
        else if (field.number == 2)
            score = float_of(field.value);
        else if (field.number == 3)
            type = field.value;
    }
    const char *text = (const char *)piece.at;
    size_t length = (size_t)(piece.end - piece.at);
    if (type < PIECE_NORMAL || type > PIECE_BYTE || !is_utf8(text, length))
        return err_set(err, ERR_PROTOCOL, "piece %u is not a text with a type from 1 to 6", id);
    if (unigram_add(t, id, text, length, score, (enum piece_type)type, err) < 0)
        return -1;
    if (type == PIECE_UNKNOWN)
        t->unigram.unknown = id;
    if (type == PIECE_CONTROL || type == PIECE_USER)
        return tokenizer_add_special(t, id, text, length, type == PIECE_CONTROL, err);
    return 0;
}

static int read_trainer(struct tokenizer *t, struct message m, struct err *err)
{
    struct field field;
    while (m.at < m.end) {
        if (read_field(&m, &field, err) < 0)
            return -1;
        if (field.number == 3 && field.value != 1)
            return err_set(err, ERR_INVALID, "model_type is %llu; only 1, a unigram model, is "
                           "accepted", (unsigned long long)field.value);
        if (field.number == 24 && field.value != 0)
            return err_set(err, ERR_INVALID, "treat_whitespace_as_suffix is set");
        if (field.number == 35)
            t->unigram.byte_fallback = field.value != 0;
    }
    return 0;
}

static int read_normalizer(struct tokenizer *t, struct message m, struct err *err)
{
    struct unigram *u = &t->unigram;
    struct field field;
    while (m.at < m.end) {
        if (read_field(&m, &field, err) < 0)
            return -1;
        if (field.number == 2) {
            buf_clear(&u->map_bytes);
            buf_add(&u->map_bytes, field.body.at, (size_t)(field.body.end - field.body.at));
        }
        if (field.number == 3)
            u->mark_first = field.value != 0;
        if (field.number == 4)
            u->collapse = field.value != 0;
        if (field.number == 5 && field.value == 0)
            return err_set(err, ERR_INVALID, "escape_whitespaces is not set");
    }
    return charsmap_open(u->map_bytes.bytes, u->map_bytes.length, &u->map, err);
}

static int read_model(struct tokenizer *t, struct message m, struct err *err)
{
    struct field field;
    t->kind = TOKENIZER_UNIGRAM;
    t->unigram = (struct unigram){.mark_first = true, .collapse = true,
                                  .unknown = TOKENIZER_VOCAB_MAX};
    while (m.at < m.end) {
        int rc = 0;
        if (read_field(&m, &field, err) < 0)
            return -1;
        if (field.number == 1)
            rc = add_piece(t, field.body, err);
        else if (field.number == 2)
            rc = read_trainer(t, field.body, err);
        else if (field.number == 3)
            rc = read_normalizer(t, field.body, err);
        if (rc < 0)
            return -1;
    }
    return tokenizer_finish(t, err);
}

int tokenizer_parse_sentencepiece(const void *bytes, size_t length, struct tokenizer **out,
                                  struct err *err)
{
    struct tokenizer *t = tokenizer_new();
    struct message all = {bytes, (const uint8_t *)bytes + length};
    if (read_model(t, all, err) < 0) {
        tokenizer_free(t);
        return err_wrap(err, "SentencePiece model");
    }
    *out = t;
    return 0;
}
