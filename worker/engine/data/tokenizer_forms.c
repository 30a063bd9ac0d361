/* tokenizer_forms.c - WordPiece and Unigram in tokenizer.json, vocab.txt and vocab.json, and what
 * all forms but byte-level BPE share. */
#include "common/base/file.h"
#include "common/base/mem.h"
#include "worker/engine/data/metaspace.h"
#include "worker/engine/data/tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define FILE_MAX ((size_t)256 << 20)

static const char *type_of(json_t *object)
{
    const char *type = json_string_value(json_object_get(object, "type"));
    return type ? type : json_is_object(object) ? "object without type" : "none";
}

static bool is_null(json_t *value)
{
    return !value || json_is_null(value);
}

bool tokenizer_is_form(json_t *root)
{
    json_t *model = json_object_get(root, "model");
    const char *type = type_of(model);
    return strcmp(type, "WordPiece") == 0 || strcmp(type, "Unigram") == 0 ||
           charbpe_is_form(model);
}

static int frame_add(struct frame *frame, struct frame_item item, struct err *err)
{
    if (frame->count == FRAME_ITEMS_MAX)
        return err_set(err, ERR_LIMIT, "post_processor has more than %d parts", FRAME_ITEMS_MAX);
    frame->item[frame->count++] = item;
    return 0;
}

/* An id that has a token: vocabularies may have holes. */
static bool is_token(const struct tokenizer *tokenizer, const json_t *id)
{
    json_int_t value = json_is_integer(id) ? json_integer_value(id) : -1;
    return value >= 0 && value < (json_int_t)tokenizer->vocab_size &&
           tokenizer->tokens[value].length > 0;
}

/* {"SpecialToken": {"id": "[CLS]", "type_id": 0}} or {"Sequence": {"id": "A", "type_id": 0}}. */
static int read_template_item(const struct tokenizer *tokenizer, json_t *value, json_t *specials,
                              struct frame *frame, struct err *err)
{
    json_t *special = json_object_get(value, "SpecialToken");
    json_t *body = special ? special : json_object_get(value, "Sequence");
    const char *name = json_string_value(json_object_get(body, "id"));
    json_int_t type = json_integer_value(json_object_get(body, "type_id"));
    struct frame_item item = {.type = (uint32_t)type};
    if (!name || type < 0 || type > 1)
        return err_set(err, ERR_INVALID, "post_processor has a part that is neither a "
                       "SpecialToken nor a Sequence of type 0 or 1");
    if (!special) {
        item.part = strcmp(name, "B") == 0 ? FRAME_SECOND : FRAME_FIRST;
        return frame_add(frame, item, err);
    }
    json_t *ids = json_object_get(json_object_get(specials, name), "ids");
    json_t *id = json_array_get(ids, 0);
    if (json_array_size(ids) != 1 || !is_token(tokenizer, id))
        return err_set(err, ERR_INVALID, "post_processor.special_tokens['%s'] is not one id of "
                       "the vocabulary", name);
    item.id = (uint32_t)json_integer_value(id);
    return frame_add(frame, item, err);
}

static int read_template(const struct tokenizer *tokenizer, json_t *list, json_t *specials,
                         struct frame *frame, struct err *err)
{
    size_t index;
    json_t *value;
    json_array_foreach(list, index, value)
        if (read_template_item(tokenizer, value, specials, frame, err) < 0)
            return -1;
    return 0;
}

static void frame_bert(struct tokenizer *tokenizer, uint32_t first, uint32_t between)
{
    tokenizer->single = (struct frame){
        .item = {{FRAME_TOKEN, first, 0}, {FRAME_FIRST, 0, 0}, {FRAME_TOKEN, between, 0}},
        .count = 3};
    tokenizer->pair = (struct frame){
        .item = {{FRAME_TOKEN, first, 0}, {FRAME_FIRST, 0, 0}, {FRAME_TOKEN, between, 0},
                 {FRAME_SECOND, 0, 1}, {FRAME_TOKEN, between, 1}},
        .count = 5};
}

static int read_bert_frame(struct tokenizer *tokenizer, json_t *processor, struct err *err)
{
    json_t *first = json_array_get(json_object_get(processor, "cls"), 1);
    json_t *between = json_array_get(json_object_get(processor, "sep"), 1);
    if (!is_token(tokenizer, first) || !is_token(tokenizer, between))
        return err_set(err, ERR_INVALID, "post_processor needs cls and sep as [text, id], with "
                       "ids of the vocabulary");
    frame_bert(tokenizer, (uint32_t)json_integer_value(first),
               (uint32_t)json_integer_value(between));
    return 0;
}

/* <s> A </s> and <s> A </s> </s> B </s>, all of type 0: Liu et al. 2019. */
static void frame_roberta(struct tokenizer *tokenizer)
{
    uint32_t first = tokenizer->pair.item[0].id, between = tokenizer->pair.item[2].id;
    tokenizer->pair = (struct frame){
        .item = {{FRAME_TOKEN, first, 0}, {FRAME_FIRST, 0, 0}, {FRAME_TOKEN, between, 0},
                 {FRAME_TOKEN, between, 0}, {FRAME_SECOND, 0, 0}, {FRAME_TOKEN, between, 0}},
        .count = 6};
}

int tokenizer_read_frame(struct tokenizer *tokenizer, json_t *processor, struct err *err)
{
    json_t *specials = json_object_get(processor, "special_tokens");
    if (is_null(processor))
        return 0;
    if (strcmp(type_of(processor), "BertProcessing") == 0)
        return read_bert_frame(tokenizer, processor, err);
    if (strcmp(type_of(processor), "TemplateProcessing") != 0)
        return err_set(err, ERR_INVALID, "post_processor is %s; none, TemplateProcessing and "
                       "BertProcessing are accepted", type_of(processor));
    if (read_template(tokenizer, json_object_get(processor, "single"), specials,
                      &tokenizer->single, err) < 0)
        return -1;
    return read_template(tokenizer, json_object_get(processor, "pair"), specials,
                         &tokenizer->pair, err);
}

int tokenizer_read_pieces(struct tokenizer *tokenizer, json_t *vocab, struct err *err)
{
    const char *key;
    json_t *value;
    if (!json_is_object(vocab))
        return err_set(err, ERR_INVALID, "model.vocab is not an object of text to id");
    json_object_foreach(vocab, key, value) {
        json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        if (id < 0 || id >= (json_int_t)TOKENIZER_VOCAB_MAX)
            return err_set(err, ERR_INVALID, "model.vocab['%s'] is not an id from 0 to %u", key,
                           TOKENIZER_VOCAB_MAX - 1);
        if (tokenizer_check_added(tokenizer, key, (uint32_t)id, err) < 0)
            return -1;
        if ((uint32_t)id < tokenizer->vocab_size && tokenizer->tokens[id].added &&
            strcmp(tokenizer->tokens[id].bytes, key) == 0)
            continue;
        if (tokenizer_add_token(tokenizer, (uint32_t)id, key, strlen(key), err) < 0)
            return -1;
    }
    return 0;
}

static bool flag_of(json_t *object, const char *field, bool fallback)
{
    json_t *value = json_object_get(object, field);
    return json_is_boolean(value) ? json_is_true(value) : fallback;
}

static int check_wordpiece(json_t *root, struct err *err)
{
    json_t *normalizer = json_object_get(root, "normalizer");
    json_t *cutter = json_object_get(root, "pre_tokenizer");
    if (!is_null(normalizer) && strcmp(type_of(normalizer), "BertNormalizer") != 0)
        return err_set(err, ERR_INVALID, "normalizer is %s; for WordPiece none and "
                       "BertNormalizer are accepted", type_of(normalizer));
    if (strcmp(type_of(cutter), "BertPreTokenizer") != 0)
        return err_set(err, ERR_INVALID, "pre_tokenizer is %s; for WordPiece BertPreTokenizer is "
                       "accepted", type_of(cutter));
    return 0;
}

static int read_wordpiece(struct tokenizer *tokenizer, json_t *root, struct err *err)
{
    json_t *model = json_object_get(root, "model");
    json_t *normalizer = json_object_get(root, "normalizer");
    json_t *prefix = json_object_get(model, "continuing_subword_prefix");
    json_t *chars = json_object_get(model, "max_input_chars_per_word");
    const char *unknown = json_string_value(json_object_get(model, "unk_token"));
    struct wordpiece *w = &tokenizer->wordpiece;
    tokenizer->kind = TOKENIZER_WORDPIECE;
    if (check_wordpiece(root, err) < 0 ||
        tokenizer_read_added(tokenizer, json_object_get(root, "added_tokens"), err) < 0 ||
        tokenizer_read_pieces(tokenizer, json_object_get(model, "vocab"), err) < 0)
        return -1;
    w->lowercase = flag_of(normalizer, "lowercase", !is_null(normalizer));
    w->strip_accents = flag_of(normalizer, "strip_accents", w->lowercase);
    w->clean = flag_of(normalizer, "clean_text", !is_null(normalizer));
    w->split_cjk = flag_of(normalizer, "handle_chinese_chars", !is_null(normalizer));
    if (json_string_length(prefix) >= WORDPIECE_PREFIX_MAX)
        return err_set(err, ERR_INVALID, "model.continuing_subword_prefix is over %d bytes",
                       WORDPIECE_PREFIX_MAX - 1);
    snprintf(w->prefix, sizeof w->prefix, "%s", is_null(prefix) ? "##" : json_string_value(prefix));
    w->word_chars_max = 100;
    if (json_is_integer(chars) && json_integer_value(chars) > 0)
        w->word_chars_max = (uint32_t)min_u64((uint64_t)json_integer_value(chars), 1 << 20);
    w->unknown = unknown ? tokenizer_find(tokenizer, unknown, strlen(unknown))
                         : TOKENIZER_VOCAB_MAX;
    if (w->unknown == TOKENIZER_VOCAB_MAX)
        return err_set(err, ERR_INVALID, "model.unk_token is %s, which the vocabulary lacks",
                       unknown ? unknown : "missing");
    return tokenizer_read_frame(tokenizer, json_object_get(root, "post_processor"), err);
}

static int read_one_normalizer(struct tokenizer *tokenizer, json_t *normalizer, struct err *err)
{
    const char *type = type_of(normalizer);
    struct unigram *u = &tokenizer->unigram;
    if (strcmp(type, "NFKC") == 0) {
        u->nfkc = true;
        return 0;
    }
    if (strcmp(type, "Strip") == 0 || strcmp(type, "Replace") == 0) {
        u->collapse = true; /* of spaces, as all converted models have it */
        return 0;
    }
    if (strcmp(type, "Precompiled") != 0)
        return err_set(err, ERR_INVALID, "normalizer is %s; for Unigram Precompiled, NFKC, Strip "
                       "and Replace of spaces are accepted", type);
    json_t *map = json_object_get(normalizer, "precompiled_charsmap");
    if (!json_is_string(map) || u->map_bytes.length > 0)
        return err_set(err, ERR_INVALID, "normalizer.precompiled_charsmap is not one text");
    if (base64_read(json_string_value(map), json_string_length(map), &u->map_bytes, err) < 0)
        return err_wrap(err, "precompiled_charsmap");
    return charsmap_open(u->map_bytes.bytes, u->map_bytes.length, &u->map, err);
}

static int read_normalizers(struct tokenizer *tokenizer, json_t *normalizer, struct err *err)
{
    json_t *list = json_object_get(normalizer, "normalizers"), *one;
    size_t index;
    if (is_null(normalizer))
        return 0;
    if (strcmp(type_of(normalizer), "Sequence") != 0)
        return read_one_normalizer(tokenizer, normalizer, err);
    json_array_foreach(list, index, one)
        if (read_one_normalizer(tokenizer, one, err) < 0)
            return -1;
    return 0;
}

/* Metaspace, alone or after WhitespaceSplit. */
static int read_metaspace(struct tokenizer *tokenizer, json_t *cutter, struct err *err)
{
    json_t *list = json_object_get(cutter, "pretokenizers"), *one;
    size_t index;
    if (strcmp(type_of(cutter), "Sequence") == 0) {
        json_array_foreach(list, index, one) {
            if (strcmp(type_of(one), "WhitespaceSplit") == 0)
                tokenizer->unigram.collapse = true;
            else
                cutter = one;
        }
    }
    const char *mark = json_string_value(json_object_get(cutter, "replacement"));
    const char *scheme = json_string_value(json_object_get(cutter, "prepend_scheme"));
    if (strcmp(type_of(cutter), "Metaspace") != 0 || !mark || strcmp(mark, METASPACE) != 0)
        return err_set(err, ERR_INVALID, "pre_tokenizer is %s; for Unigram Metaspace with "
                       "U+2581 is accepted", type_of(cutter));
    tokenizer->unigram.mark_first = flag_of(cutter, "add_prefix_space", true) &&
                                    !(scheme && strcmp(scheme, "never") == 0);
    return 0;
}

static int read_scored(struct tokenizer *tokenizer, json_t *vocab, struct err *err)
{
    size_t index;
    json_t *pair;
    if (!json_is_array(vocab) || json_array_size(vocab) > TOKENIZER_VOCAB_MAX)
        return err_set(err, ERR_INVALID, "model.vocab is not a list of [text, score]");
    json_array_foreach(vocab, index, pair) {
        json_t *piece = json_array_get(pair, 0), *score = json_array_get(pair, 1);
        if (!json_is_string(piece) || !json_is_number(score))
            return err_set(err, ERR_INVALID, "model.vocab[%zu] is not [text, score]", index);
        if (unigram_add(tokenizer, (uint32_t)index, json_string_value(piece),
                        json_string_length(piece), json_number_value(score), PIECE_NORMAL,
                        err) < 0)
            return -1;
    }
    return 0;
}

static int read_unigram(struct tokenizer *tokenizer, json_t *root, struct err *err)
{
    json_t *model = json_object_get(root, "model"), *unknown = json_object_get(model, "unk_id");
    const char *rule = json_string_value(json_object_get(root, "athanor_rule"));
    struct unigram *u = &tokenizer->unigram;
    tokenizer->kind = TOKENIZER_UNIGRAM;
    if (!json_is_integer(unknown) || json_integer_value(unknown) < 0 ||
        json_integer_value(unknown) >= (json_int_t)TOKENIZER_VOCAB_MAX)
        return err_set(err, ERR_INVALID, "model.unk_id is not an id");
    u->unknown = (uint32_t)json_integer_value(unknown);
    u->byte_fallback = json_is_true(json_object_get(model, "byte_fallback"));
    u->rule = rule && strcmp(rule, "kona") == 0 ? UNIGRAM_KONA : UNIGRAM_SENTENCEPIECE;
    if (read_normalizers(tokenizer, json_object_get(root, "normalizer"), err) < 0 ||
        read_metaspace(tokenizer, json_object_get(root, "pre_tokenizer"), err) < 0 ||
        read_scored(tokenizer, json_object_get(model, "vocab"), err) < 0 ||
        tokenizer_read_added(tokenizer, json_object_get(root, "added_tokens"), err) < 0)
        return -1;
    return tokenizer_read_frame(tokenizer, json_object_get(root, "post_processor"), err);
}

int tokenizer_read_forms(struct tokenizer *tokenizer, json_t *root, struct err *err)
{
    const char *type = type_of(json_object_get(root, "model"));
    const char *version = json_string_value(json_object_get(root, "version"));
    if (!version || strcmp(version, "1.0") != 0)
        return err_set(err, ERR_INVALID, "tokenizer.json version is '%s'; \"1.0\" is accepted",
                       version ? version : "absent");
    if ((strcmp(type, "WordPiece") == 0 ? read_wordpiece
         : strcmp(type, "Unigram") == 0 ? read_unigram
                                        : charbpe_read)(tokenizer, root, err) < 0)
        return -1;
    return tokenizer_finish(tokenizer, err);
}

/* One piece a line; the special tokens are those that BERT has. */
int tokenizer_parse_vocab(const char *text, size_t length, bool lowercase, struct tokenizer **out,
                          struct err *err)
{
    static const char *const specials[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
    struct tokenizer *t = tokenizer_new();
    uint32_t id = 0;
    int rc = 0;
    t->kind = TOKENIZER_WORDPIECE;
    for (size_t at = 0; at < length && rc == 0; id++) {
        const char *line = text + at, *end = memchr(line, '\n', length - at);
        size_t bytes = end ? (size_t)(end - line) : length - at;
        at += bytes + 1;
        bytes -= bytes > 0 && line[bytes - 1] == '\r';
        rc = bytes == 0 && at >= length ? 0 : tokenizer_add_token(t, id, line, bytes, err);
        if (rc < 0)
            err_wrap(err, "line %u", id + 1);
    }
    for (size_t i = 0; i < ARRAY_COUNT(specials) && rc == 0; i++) {
        uint32_t known = tokenizer_find(t, specials[i], strlen(specials[i]));
        if (known != TOKENIZER_VOCAB_MAX)
            rc = tokenizer_add_special(t, known, specials[i], strlen(specials[i]), true, err);
    }
    t->wordpiece = (struct wordpiece){.clean = true, .split_cjk = true, .lowercase = lowercase,
                                      .strip_accents = lowercase, .word_chars_max = 100,
                                      .unknown = tokenizer_find(t, "[UNK]", 5), .prefix = "##"};
    uint32_t first = tokenizer_find(t, "[CLS]", 5), between = tokenizer_find(t, "[SEP]", 5);
    if (rc == 0 && t->wordpiece.unknown == TOKENIZER_VOCAB_MAX)
        rc = err_set(err, ERR_INVALID, "the vocabulary has no [UNK]");
    if (first != TOKENIZER_VOCAB_MAX && between != TOKENIZER_VOCAB_MAX)
        frame_bert(t, first, between);
    if (rc == 0)
        rc = tokenizer_finish(t, err);
    if (rc < 0)
        tokenizer_free(t);
    else
        *out = t;
    return rc;
}

/* Pieces 0..5 are the model's own. Some pieces have no score: they count as 0. */
static int read_kona(struct tokenizer *t, json_t *vocab, struct err *err)
{
    size_t index;
    json_t *pair;
    t->kind = TOKENIZER_UNIGRAM;
    t->unigram.rule = UNIGRAM_KONA;
    t->unigram.nfkc = t->unigram.mark_first = true;
    if (!json_is_array(vocab) || json_array_size(vocab) > TOKENIZER_VOCAB_MAX)
        return err_set(err, ERR_PROTOCOL, "not a list of [text, score]");
    json_array_foreach(vocab, index, pair) {
        json_t *piece = json_array_get(pair, 0), *score = json_array_get(pair, 1);
        if (!json_is_string(piece) || !(json_is_number(score) || json_is_null(score)))
            return err_set(err, ERR_PROTOCOL, "entry %zu is not [text, score]", index);
        if (unigram_add(t, (uint32_t)index, json_string_value(piece), json_string_length(piece),
                        json_number_value(score), PIECE_NORMAL, err) < 0)
            return -1;
        if (index < 6 && tokenizer_add_special(t, (uint32_t)index, json_string_value(piece),
                                               json_string_length(piece), true, err) < 0)
            return -1;
    }
    return tokenizer_finish(t, err);
}

int tokenizer_read_kona(const char *path, struct tokenizer **out, struct err *err)
{
    struct tokenizer *t = tokenizer_new();
    json_error_t why;
    char *bytes = NULL;
    size_t length;
    int rc = file_read(path, FILE_MAX, &bytes, &length, err);
    if (rc == 0) {
        json_t *root = json_loadb(bytes, length, 0, &why);
        rc = root ? read_kona(t, root, err)
                  : err_set(err, ERR_PROTOCOL, "line %d: %s", why.line, why.text);
        json_decref(root);
        if (rc < 0)
            err_wrap(err, "tokenizer '%s'", path);
    }
    mem_free(bytes);
    if (rc < 0)
        tokenizer_free(t);
    else
        *out = t;
    return rc;
}

static void put_frame(struct buf *out, const struct tokenizer *tokenizer, const char *name,
                      const struct frame *frame)
{
    buf_printf(out, "\n    \"%s\": [", name);
    for (size_t i = 0; i < frame->count; i++) {
        const struct frame_item *item = &frame->item[i];
        buf_puts(out, i ? ", " : "");
        if (item->part == FRAME_TOKEN) {
            buf_puts(out, "{\"SpecialToken\": {\"id\": ");
            tokenizer_put_text(out, tokenizer->tokens[item->id].bytes,
                               tokenizer->tokens[item->id].length);
        } else {
            buf_printf(out, "{\"Sequence\": {\"id\": \"%s\"",
                       item->part == FRAME_FIRST ? "A" : "B");
        }
        buf_printf(out, ", \"type_id\": %u}}", item->type);
    }
    buf_puts(out, "],");
}

static void put_frame_tokens(struct buf *out, const struct tokenizer *tokenizer)
{
    const struct frame *frame = &tokenizer->pair; /* has all that the single one has */
    bool first = true;
    if (frame->count == 0)
        frame = &tokenizer->single;
    buf_puts(out, "\n    \"special_tokens\": {");
    for (size_t i = 0; i < frame->count; i++) {
        const struct token *token = &tokenizer->tokens[frame->item[i].id];
        bool known = frame->item[i].part != FRAME_TOKEN;
        for (size_t k = 0; k < i; k++)
            known |= frame->item[k].part == FRAME_TOKEN && frame->item[k].id == frame->item[i].id;
        if (known)
            continue;
        buf_puts(out, first ? "" : ", ");
        tokenizer_put_text(out, token->bytes, token->length);
        buf_puts(out, ": {\"id\": ");
        tokenizer_put_text(out, token->bytes, token->length);
        buf_printf(out, ", \"ids\": [%u], \"tokens\": [", frame->item[i].id);
        tokenizer_put_text(out, token->bytes, token->length);
        buf_puts(out, "]}");
        first = false;
    }
    buf_puts(out, "}},\n");
}

/* Byte-level BPE: what says nothing of special tokens is left alone, as ByteLevel. */
int tokenizer_read_processor(struct tokenizer *tokenizer, json_t *processor, struct err *err)
{
    const char *type = type_of(processor);
    size_t index;
    json_t *part;
    if (strcmp(type, "Sequence") == 0) {
        json_array_foreach(json_object_get(processor, "processors"), index, part)
            if (strcmp(type_of(part), "Sequence") != 0 &&
                tokenizer_read_processor(tokenizer, part, err) < 0)
                return -1;
        return 0;
    }
    if (strcmp(type, "RobertaProcessing") == 0) {
        if (read_bert_frame(tokenizer, processor, err) < 0)
            return -1;
        frame_roberta(tokenizer);
        return 0;
    }
    if (strcmp(type, "TemplateProcessing") == 0 || strcmp(type, "BertProcessing") == 0)
        return tokenizer_read_frame(tokenizer, processor, err);
    return 0;
}

void tokenizer_frame_by_end(struct tokenizer *tokenizer)
{
    if (tokenizer->pair.count == 0 && tokenizer->end_of_text < TOKENIZER_VOCAB_MAX)
        frame_bert(tokenizer, tokenizer->end_of_text, tokenizer->end_of_text);
}

void tokenizer_put_processor(struct buf *out, const struct tokenizer *tokenizer)
{
    if (tokenizer->single.count == 0 && tokenizer->pair.count == 0) {
        buf_puts(out, "  \"post_processor\": null,\n");
        return;
    }
    buf_puts(out, "  \"post_processor\": {\"type\": \"TemplateProcessing\",");
    put_frame(out, tokenizer, "single", &tokenizer->single);
    put_frame(out, tokenizer, "pair", &tokenizer->pair);
    put_frame_tokens(out, tokenizer);
}

void tokenizer_put_pieces(struct buf *out, const struct tokenizer *tokenizer, bool scored)
{
    bool first = true;
    for (uint32_t id = 0; id < tokenizer->vocab_size; id++) {
        const struct token *token = &tokenizer->tokens[id];
        if (!token->bytes)
            continue;
        buf_puts(out, first ? "\n      " : ",\n      ");
        if (scored)
            buf_putc(out, '[');
        tokenizer_put_text(out, token->bytes, token->length);
        if (scored)
            buf_printf(out, ", %.17g]", tokenizer->unigram.score[id]);
        else
            buf_printf(out, ": %u", id);
        first = false;
    }
}

static void put_wordpiece(struct buf *out, const struct tokenizer *tokenizer)
{
    const struct wordpiece *w = &tokenizer->wordpiece;
    static const char *const words[] = {"false", "true"};
    buf_printf(out, "  \"normalizer\": {\"type\": \"BertNormalizer\", \"clean_text\": %s, "
                    "\"handle_chinese_chars\": %s, \"strip_accents\": %s, \"lowercase\": %s},\n",
               words[w->clean], words[w->split_cjk], words[w->strip_accents], words[w->lowercase]);
    buf_puts(out, "  \"pre_tokenizer\": {\"type\": \"BertPreTokenizer\"},\n");
    tokenizer_put_processor(out, tokenizer);
    buf_puts(out, "  \"decoder\": {\"type\": \"WordPiece\", \"prefix\": ");
    tokenizer_put_text(out, w->prefix, strlen(w->prefix));
    buf_puts(out, ", \"cleanup\": true},\n  \"model\": {\"type\": \"WordPiece\", \"unk_token\": ");
    tokenizer_put_text(out, tokenizer->tokens[w->unknown].bytes,
                       tokenizer->tokens[w->unknown].length);
    buf_puts(out, ", \"continuing_subword_prefix\": ");
    tokenizer_put_text(out, w->prefix, strlen(w->prefix));
    buf_printf(out, ", \"max_input_chars_per_word\": %u,\n    \"vocab\": {", w->word_chars_max);
    tokenizer_put_pieces(out, tokenizer, false);
    buf_puts(out, "}}\n}\n");
}

static void put_normalizers(struct buf *out, const struct unigram *u)
{
    buf_puts(out, "  \"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [");
    if (u->nfkc)
        buf_puts(out, "{\"type\": \"NFKC\"}");
    if (u->map_bytes.length > 0) {
        buf_puts(out, "{\"type\": \"Precompiled\", \"precompiled_charsmap\": \"");
        base64_write(u->map_bytes.bytes, u->map_bytes.length, out);
        buf_puts(out, "\"}");
    }
    if (u->collapse)
        buf_printf(out, "%s{\"type\": \"Strip\", \"strip_left\": true, \"strip_right\": true}, "
                        "{\"type\": \"Replace\", \"pattern\": {\"Regex\": \" {2,}\"}, "
                        "\"content\": \" \"}",
                   u->nfkc || u->map_bytes.length > 0 ? ", " : "");
    buf_puts(out, "]},\n");
}

static void put_unigram(struct buf *out, const struct tokenizer *tokenizer)
{
    const struct unigram *u = &tokenizer->unigram;
    const char *scheme = u->mark_first ? "always" : "never";
    if (u->rule == UNIGRAM_KONA)
        buf_puts(out, "  \"athanor_rule\": \"kona\",\n");
    put_normalizers(out, u);
    buf_printf(out, "  \"pre_tokenizer\": {\"type\": \"Metaspace\", "
                    "\"replacement\": \"" METASPACE "\", "
                    "\"prepend_scheme\": \"%s\", \"split\": true},\n", scheme);
    tokenizer_put_processor(out, tokenizer);
    buf_printf(out, "  \"decoder\": {\"type\": \"Metaspace\", \"replacement\": \"" METASPACE "\", "
                    "\"prepend_scheme\": \"%s\", \"split\": true},\n", scheme);
    buf_printf(out, "  \"model\": {\"type\": \"Unigram\", \"unk_id\": %u, \"byte_fallback\": %s,\n"
                    "    \"vocab\": [", u->unknown, u->byte_fallback ? "true" : "false");
    tokenizer_put_pieces(out, tokenizer, true);
    buf_puts(out, "]}\n}\n");
}

void tokenizer_put_forms(struct buf *out, const struct tokenizer *tokenizer)
{
    if (tokenizer->kind == TOKENIZER_WORDPIECE)
        put_wordpiece(out, tokenizer);
    else if (tokenizer->kind == TOKENIZER_UNIGRAM)
        put_unigram(out, tokenizer);
    else
        charbpe_put(out, tokenizer);
}
