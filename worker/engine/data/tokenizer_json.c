/* tokenizer_json.c - tokenizer.json, read and written. */
#include "common/base/mem.h"
#include "worker/engine/data/pieces.h"
#include "worker/engine/data/tokenizer_parts.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* The raw bytes that a vocabulary entry spells; false when a character stands for none. */
static bool spelled_bytes(const char *text, size_t length, struct buf *out)
{
    const uint8_t *at = (const uint8_t *)text, *end = at + length;
    buf_clear(out);
    while (at < end) {
        int32_t code_point;
        utf8proc_ssize_t got = utf8proc_iterate(at, end - at, &code_point);
        int byte = got > 0 ? char_to_byte((uint32_t)code_point) : -1;
        if (byte < 0)
            return false;
        buf_putc(out, (char)byte);
        at += got;
    }
    return true;
}

static void spell_bytes(const char *bytes, size_t length, struct buf *out)
{
    for (size_t i = 0; i < length; i++) {
        uint8_t text[4];
        utf8proc_ssize_t got = utf8proc_encode_char((int32_t)byte_to_char((uint8_t)bytes[i]), text);
        buf_add(out, text, (size_t)got);
    }
}

static bool is_added_id(const struct tokenizer *tokenizer, uint32_t id)
{
    return id < tokenizer->vocab_size && tokenizer->tokens[id].added;
}

int tokenizer_check_added(const struct tokenizer *tokenizer, const char *key, uint32_t id,
                          struct err *err)
{
    uint32_t entry = byte_map_find(&tokenizer->added_texts, key, strlen(key));
    if (entry == BYTE_MAP_NONE || tokenizer->added_texts.entries[entry].value == id)
        return 0;
    return err_set(err, ERR_INVALID, "'%s' is id %u in model.vocab but %u in added_tokens", key, id,
                   (uint32_t)tokenizer->added_texts.entries[entry].value);
}

static int read_entry(struct tokenizer *tokenizer, const char *of, const char *key, json_t *value,
                      struct buf *bytes, struct err *err)
{
    json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
    if (id < 0 || id >= (json_int_t)TOKENIZER_VOCAB_MAX)
        return err_set(err, ERR_INVALID, "%s['%s'] is not an id from 0 to %u", of, key,
                       TOKENIZER_VOCAB_MAX - 1);
    if (tokenizer_check_added(tokenizer, key, (uint32_t)id, err) < 0)
        return -1;
    if (is_added_id(tokenizer, (uint32_t)id))
        return 0;
    if (!spelled_bytes(key, strlen(key), bytes))
        return err_set(err, ERR_INVALID, "%s['%s'] is not in the byte alphabet; only byte-level "
                       "vocabularies are accepted", of, key);
    if (tokenizer_add_token(tokenizer, (uint32_t)id, buf_text(bytes), bytes->length, err) < 0)
        return err_wrap(err, "%s['%s']", of, key);
    return 0;
}

/* Entries that are added tokens too (GPT-2 lists <|endoftext|>) stay out of merging. */
int tokenizer_read_vocab(struct tokenizer *tokenizer, const char *of, json_t *vocab,
                         const char **out_key, struct err *err)
{
    const char *key;
    json_t *value;
    struct buf bytes = {0};
    int rc = 0;
    *out_key = NULL;
    if (!json_is_object(vocab))
        return err_set(err, ERR_INVALID, "%s is not an object of text to id", of);
    json_object_foreach(vocab, key, value) {
        rc = read_entry(tokenizer, of, key, value, &bytes, err);
        if (rc < 0) {
            *out_key = key;
            break;
        }
    }
    buf_done(&bytes);
    return rc;
}

/* One rule from its two spelled halves. */
static int read_merge_halves(struct tokenizer *tokenizer, const char *left, size_t left_length,
                             const char *right, size_t right_length, struct err *err)
{
    struct buf a = {0}, b = {0};
    int rc;
    if (!spelled_bytes(left, left_length, &a) || !spelled_bytes(right, right_length, &b))
        rc = err_set(err, ERR_INVALID, "merge %zu is not in the byte alphabet",
                     tokenizer->merges.count);
    else
        rc = tokenizer_add_merge(tokenizer, buf_text(&a), a.length, buf_text(&b), b.length, err);
    buf_done(&a);
    buf_done(&b);
    return rc;
}

int tokenizer_read_merge(struct tokenizer *tokenizer, const char *text, size_t length,
                         struct err *err)
{
    const char *space = memchr(text, ' ', length);
    if (!space || space == text || space + 1 == text + length ||
        memchr(space + 1, ' ', (size_t)(text + length - space - 1)))
        return err_set(err, ERR_INVALID, "merge %zu is not two tokens with one space between",
                       tokenizer->merges.count);
    return read_merge_halves(tokenizer, text, (size_t)(space - text), space + 1,
                             (size_t)(text + length - space - 1), err);
}

static int read_merges(struct tokenizer *tokenizer, json_t *merges, struct err *err)
{
    size_t index;
    json_t *merge;
    if (!json_is_array(merges))
        return err_set(err, ERR_INVALID, "model.merges is not an array");
    json_array_foreach(merges, index, merge) {
        json_t *left = json_array_get(merge, 0), *right = json_array_get(merge, 1);
        int rc;
        if (json_is_string(merge))
            rc = tokenizer_read_merge(tokenizer, json_string_value(merge),
                                      json_string_length(merge), err);
        else if (json_array_size(merge) == 2 && json_is_string(left) && json_is_string(right))
            rc = read_merge_halves(tokenizer, json_string_value(left), json_string_length(left),
                                   json_string_value(right), json_string_length(right), err);
        else
            rc = err_set(err, ERR_INVALID, "merge %zu is neither \"a b\" nor [\"a\", \"b\"]",
                         index);
        if (rc < 0)
            return -1;
    }
    return 0;
}

int tokenizer_read_added(struct tokenizer *tokenizer, json_t *added, struct err *err)
{
    static const char *const refused[] = {"single_word", "lstrip", "rstrip"};
    size_t index;
    json_t *entry;
    if (added && !json_is_array(added))
        return err_set(err, ERR_INVALID, "added_tokens is not an array");
    json_array_foreach(added, index, entry) {
        json_t *id = json_object_get(entry, "id"), *content = json_object_get(entry, "content");
        if (!json_is_integer(id) || !json_is_string(content) || json_integer_value(id) < 0 ||
            json_integer_value(id) >= (json_int_t)TOKENIZER_VOCAB_MAX)
            return err_set(err, ERR_INVALID, "added_tokens[%zu] needs an id and a content", index);
        bool special = json_is_true(json_object_get(entry, "special"));
        for (size_t i = 0; i < ARRAY_COUNT(refused); i++)
            if (json_is_true(json_object_get(entry, refused[i])) && !(special && i == 1))
                return err_set(err, ERR_INVALID, "added token '%s' has %s true; only false is "
                               "accepted", json_string_value(content), refused[i]);
        if (tokenizer_add_special(tokenizer, (uint32_t)json_integer_value(id),
                                  json_string_value(content), json_string_length(content),
                                  special, err) < 0)
            return -1;
    }
    return 0;
}

static const char *type_of(json_t *object)
{
    const char *type = json_string_value(json_object_get(object, "type"));
    return type ? type : json_is_object(object) ? "object without type" : "none";
}

static bool is_null(json_t *value)
{
    return !value || json_is_null(value);
}

static int refuse_pattern(struct err *err)
{
    return err_set(err, ERR_INVALID, "pre_tokenizer cuts texts by a pattern that is not GPT-2's, "
                   "Llama 3's or Qwen 2's, nor GPT-2's after single digits");
}

/* {"Split": the expression, each match a piece}. */
static int read_split(struct tokenizer *tokenizer, json_t *split, struct err *err)
{
    const char *regex =
        json_string_value(json_object_get(json_object_get(split, "pattern"), "Regex"));
    const char *behaviour = json_string_value(json_object_get(split, "behavior"));
    if (!regex || !behaviour || strcmp(behaviour, "Isolated") != 0 ||
        json_is_true(json_object_get(split, "invert")))
        return refuse_pattern(err);
    for (enum piece_pattern p = 0; p < PIECES_END; p++)
        if (piece_regex[p] && strcmp(piece_regex[p], regex) == 0) {
            tokenizer->pattern = p;
            return 0;
        }
    return refuse_pattern(err);
}

/* [Split, ByteLevel] or [Digits, ByteLevel]. Returns the ByteLevel. */
static int read_sequence(struct tokenizer *tokenizer, json_t *list, json_t **out_bytes,
                         struct err *err)
{
    json_t *first = json_array_get(list, 0);
    *out_bytes = json_array_get(list, 1);
    if (json_array_size(list) != 2)
        return refuse_pattern(err);
    if (strcmp(type_of(first), "Split") == 0)
        return json_is_false(json_object_get(*out_bytes, "use_regex"))
                   ? read_split(tokenizer, first, err)
                   : refuse_pattern(err);
    if (strcmp(type_of(first), "Digits") != 0 ||
        !json_is_true(json_object_get(first, "individual_digits")) ||
        json_is_false(json_object_get(*out_bytes, "use_regex")))
        return refuse_pattern(err);
    tokenizer->pattern = PIECES_GPT2_DIGITS;
    return 0;
}

static int read_cutter(struct tokenizer *tokenizer, json_t *cutter, struct err *err)
{
    json_t *bytes = cutter;
    bool sequence = strcmp(type_of(cutter), "Sequence") == 0;
    if (sequence && read_sequence(tokenizer, json_object_get(cutter, "pretokenizers"), &bytes,
                                  err) < 0)
        return -1;
    if (strcmp(type_of(bytes), "ByteLevel") != 0)
        return err_set(err, ERR_INVALID, "pre_tokenizer is %s; ByteLevel is accepted",
                       type_of(bytes));
    if (!json_is_false(json_object_get(bytes, "add_prefix_space")))
        return err_set(err, ERR_INVALID, "pre_tokenizer.add_prefix_space is not false");
    if (!sequence && json_is_false(json_object_get(bytes, "use_regex")))
        return err_set(err, ERR_INVALID, "pre_tokenizer.use_regex is false, and nothing else cuts "
                       "texts");
    return 0;
}

/* Everything around the model: what we do the same way is accepted, the rest refused. */
static int check_surroundings(struct tokenizer *tokenizer, json_t *root, struct err *err)
{
    json_t *normalizer = json_object_get(root, "normalizer");
    json_t *cutter = json_object_get(root, "pre_tokenizer");
    const char *version = json_string_value(json_object_get(root, "version"));
    if (!version || strcmp(version, "1.0") != 0)
        return err_set(err, ERR_INVALID, "tokenizer.json version is '%s'; \"1.0\" is accepted",
                       version ? version : "absent");
    tokenizer->compose = !is_null(normalizer) && strcmp(type_of(normalizer), "NFC") == 0;
    if (!is_null(normalizer) && !tokenizer->compose)
        return err_set(err, ERR_INVALID, "normalizer is %s; none and NFC are accepted",
                       type_of(normalizer));
    return read_cutter(tokenizer, cutter, err);
}

static int check_model(json_t *model, struct err *err)
{
    static const char *const empty[] = {"unk_token", "continuing_subword_prefix",
                                        "end_of_word_suffix"};
    if (!json_is_object(model))
        return err_set(err, ERR_INVALID, "model is not an object");
    /* Old files have no type; merges tell a BPE. */
    if (json_object_get(model, "type") && strcmp(type_of(model), "BPE") != 0)
        return err_set(err, ERR_INVALID, "model.type is %s; BPE, WordPiece and Unigram are "
                       "accepted", type_of(model));
    for (size_t i = 0; i < ARRAY_COUNT(empty); i++) {
        json_t *value = json_object_get(model, empty[i]);
        if (!is_null(value) && json_string_length(value) > 0)
            return err_set(err, ERR_INVALID, "model.%s is '%s'; only none is accepted", empty[i],
                           json_string_value(value) ? json_string_value(value) : "not a text");
    }
    json_t *dropout = json_object_get(model, "dropout");
    if (!is_null(dropout) && json_number_value(dropout) != 0)
        return err_set(err, ERR_INVALID, "model.dropout is set; only none is accepted");
    return 0;
}

static int read_root(struct tokenizer *tokenizer, json_t *root, struct err *err)
{
    json_t *model = json_object_get(root, "model");
    const char *key;
    if (tokenizer_is_form(root))
        return tokenizer_read_forms(tokenizer, root, err);
    if (check_surroundings(tokenizer, root, err) < 0 || check_model(model, err) < 0)
        return -1;
    tokenizer->ignore_merges = json_is_true(json_object_get(model, "ignore_merges"));
    if (tokenizer_read_added(tokenizer, json_object_get(root, "added_tokens"), err) < 0 ||
        tokenizer_read_vocab(tokenizer, "model.vocab", json_object_get(model, "vocab"), &key,
                             err) < 0 ||
        read_merges(tokenizer, json_object_get(model, "merges"), err) < 0 ||
        tokenizer_finish(tokenizer, err) < 0 ||
        tokenizer_read_processor(tokenizer, json_object_get(root, "post_processor"), err) < 0)
        return -1;
    tokenizer_settle(tokenizer);
    return 0;
}

json_t *tokenizer_load_json(const char *json, size_t length, struct err *err)
{
    json_error_t why;
    json_t *root = json_loadb(json, length, JSON_REJECT_DUPLICATES, &why);
    if (!root) {
        err_set(err, ERR_PROTOCOL, "line %d column %d: %s", why.line, why.column, why.text);
        return NULL;
    }
    if (!json_is_object(root)) {
        json_decref(root);
        err_set(err, ERR_PROTOCOL, "not a JSON object");
        return NULL;
    }
    return root;
}

int tokenizer_parse(const char *json, size_t length, struct tokenizer **out, struct err *err)
{
    json_t *root = tokenizer_load_json(json, length, err);
    if (!root)
        return -1;
    struct tokenizer *tokenizer = tokenizer_new();
    int rc = read_root(tokenizer, root, err);
    json_decref(root);
    if (rc < 0) {
        tokenizer_free(tokenizer);
        return -1;
    }
    *out = tokenizer;
    return 0;
}

void tokenizer_put_text(struct buf *out, const char *text, size_t length)
{
    json_t *value = json_stringn_nocheck(text, length);
    char *dumped = json_dumps(value, JSON_ENCODE_ANY);
    buf_puts(out, dumped ? dumped : "\"\"");
    free(dumped);
    json_decref(value);
}

static void put_spelled(struct buf *out, const struct token *token, struct buf *scratch)
{
    buf_clear(scratch);
    spell_bytes(token->bytes, token->length, scratch);
    tokenizer_put_text(out, buf_text(scratch), scratch->length);
}

void tokenizer_put_added(struct buf *out, const struct tokenizer *tokenizer)
{
    buf_puts(out, "  \"added_tokens\": [");
    for (size_t i = 0; i < tokenizer->added_count; i++) {
        const struct added_token *added = &tokenizer->added[i];
        buf_printf(out, "%s\n    {\"id\": %u, \"content\": ", i ? "," : "", added->id);
        tokenizer_put_text(out, added->content, added->length);
        buf_printf(out, ", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, "
                        "\"normalized\": false, \"special\": %s}",
                   added->special ? "true" : "false");
    }
    buf_puts(out, "],\n");
}

static void put_model(struct buf *out, const struct tokenizer *tokenizer)
{
    struct buf scratch = {0};
    bool first = true;
    buf_printf(out, "  \"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, "
                    "\"continuing_subword_prefix\": \"\", \"end_of_word_suffix\": \"\", "
                    "\"fuse_unk\": false, \"byte_fallback\": false, \"ignore_merges\": %s,\n"
                    "    \"vocab\": {",
               tokenizer->ignore_merges ? "true" : "false");
    for (uint32_t id = 0; id < tokenizer->vocab_size; id++) {
        const struct token *token = &tokenizer->tokens[id];
        if (!token->bytes)
            continue;
        buf_puts(out, first ? "\n      " : ",\n      ");
        if (token->added)
            tokenizer_put_text(out, token->bytes, token->length);
        else
            put_spelled(out, token, &scratch);
        buf_printf(out, ": %u", id);
        first = false;
    }
    buf_puts(out, "},\n    \"merges\": [");
    for (size_t i = 0; i < tokenizer->merges.count; i++) {
        const struct merge *merge = &tokenizer->merges.merges[i];
        buf_clear(&scratch);
        spell_bytes(tokenizer->tokens[merge->left].bytes, tokenizer->tokens[merge->left].length,
                    &scratch);
        buf_putc(&scratch, ' ');
        spell_bytes(tokenizer->tokens[merge->right].bytes, tokenizer->tokens[merge->right].length,
                    &scratch);
        buf_puts(out, i ? ",\n      " : "\n      ");
        tokenizer_put_text(out, buf_text(&scratch), scratch.length);
    }
    buf_puts(out, "]}\n");
    buf_done(&scratch);
}

/* In the form of the files that such patterns come from. */
static void put_cutter(struct buf *out, enum piece_pattern pattern)
{
    const char *regex = piece_regex[pattern];
    buf_puts(out, "  \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [");
    if (regex) {
        buf_puts(out, "{\"type\": \"Split\", \"pattern\": {\"Regex\": ");
        tokenizer_put_text(out, regex, strlen(regex));
        buf_puts(out, "}, \"behavior\": \"Isolated\", \"invert\": false}");
    } else {
        buf_puts(out, "{\"type\": \"Digits\", \"individual_digits\": true}");
    }
    buf_printf(out, ", {\"type\": \"ByteLevel\", \"add_prefix_space\": false, "
                    "\"trim_offsets\": true, \"use_regex\": %s}]},\n", regex ? "false" : "true");
}

char *tokenizer_text(const struct tokenizer *tokenizer)
{
    static const char byte_level[] =
        "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": %s, "
        "\"use_regex\": true}";
    struct buf out = {0};
    buf_puts(&out, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n");
    tokenizer_put_added(&out, tokenizer);
    if (tokenizer->kind != TOKENIZER_BYTES) {
        tokenizer_put_forms(&out, tokenizer);
        return buf_take(&out);
    }
    buf_printf(&out, "  \"normalizer\": %s,\n",
               tokenizer->compose ? "{\"type\": \"NFC\"}" : "null");
    for (int i = 0; i < 3; i++) {
        static const char *const keys[] = {"pre_tokenizer", "post_processor", "decoder"};
        char value[160];
        if (i == 0 && tokenizer->pattern != PIECES_GPT2) {
            put_cutter(&out, tokenizer->pattern);
            continue;
        }
        if (i == 1 && tokenizer->pair.count > 0) {
            tokenizer_put_processor(&out, tokenizer);
            continue;
        }
        snprintf(value, sizeof value, byte_level, i == 1 ? "false" : "true");
        buf_printf(&out, "  \"%s\": %s,\n", keys[i], value);
    }
    put_model(&out, tokenizer);
    buf_puts(&out, "}\n");
    return buf_take(&out);
}
