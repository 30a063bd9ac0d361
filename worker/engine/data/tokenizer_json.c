/* tokenizer_json.c - tokenizer.json, vocab.json and merges.txt, read and written. */
#include "common/base/file.h"
#include "common/base/mem.h"
#include "worker/engine/data/pieces.h"
#include "worker/engine/data/tokenizer_parts.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <utf8proc.h>

#define TOKENIZER_FILE_MAX ((size_t)256 << 20)

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

/* Entries that are added tokens too (GPT-2 lists <|endoftext|>) stay out of merging. */
static int read_vocab(struct tokenizer *tokenizer, json_t *vocab, struct err *err)
{
    const char *key;
    json_t *value;
    struct buf bytes = {0};
    int rc = -1;
    if (!json_is_object(vocab))
        return err_set(err, ERR_INVALID, "model.vocab is not an object of text to id");
    json_object_foreach(vocab, key, value) {
        json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        if (id < 0 || id >= (json_int_t)TOKENIZER_VOCAB_MAX) {
            err_set(err, ERR_INVALID, "model.vocab['%s'] is not an id from 0 to %u", key,
                    TOKENIZER_VOCAB_MAX - 1);
            goto out;
        }
        if (tokenizer_check_added(tokenizer, key, (uint32_t)id, err) < 0)
            goto out;
        if (is_added_id(tokenizer, (uint32_t)id))
            continue;
        if (!spelled_bytes(key, strlen(key), &bytes)) {
            err_set(err, ERR_INVALID, "model.vocab['%s'] is not in the byte alphabet; only "
                    "byte-level vocabularies are accepted", key);
            goto out;
        }
        if (tokenizer_add_token(tokenizer, (uint32_t)id, buf_text(&bytes), bytes.length, err) < 0)
            goto out;
    }
    rc = 0;
out:
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

static int read_merge_text(struct tokenizer *tokenizer, const char *text, size_t length,
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
            rc = read_merge_text(tokenizer, json_string_value(merge), json_string_length(merge),
                                 err);
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
    if (strcmp(type_of(cutter), "ByteLevel") != 0)
        return err_set(err, ERR_INVALID, "pre_tokenizer is %s; ByteLevel is accepted",
                       type_of(cutter));
    if (!json_is_false(json_object_get(cutter, "add_prefix_space")))
        return err_set(err, ERR_INVALID, "pre_tokenizer.add_prefix_space is not false");
    if (json_is_false(json_object_get(cutter, "use_regex")))
        return err_set(err, ERR_INVALID, "pre_tokenizer.use_regex is false; only GPT-2's pattern "
                       "is accepted");
    return 0;
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
    if (tokenizer_is_form(root))
        return tokenizer_read_forms(tokenizer, root, err);
    if (check_surroundings(tokenizer, root, err) < 0 || check_model(model, err) < 0)
        return -1;
    tokenizer->ignore_merges = json_is_true(json_object_get(model, "ignore_merges"));
    if (tokenizer_read_added(tokenizer, json_object_get(root, "added_tokens"), err) < 0 ||
        read_vocab(tokenizer, json_object_get(model, "vocab"), err) < 0 ||
        read_merges(tokenizer, json_object_get(model, "merges"), err) < 0 ||
        tokenizer_finish(tokenizer, err) < 0)
        return -1;
    return tokenizer_read_processor(tokenizer, json_object_get(root, "post_processor"), err);
}

static json_t *load_json(const char *json, size_t length, struct err *err)
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
    json_t *root = load_json(json, length, err);
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

/* A vocab.txt says nothing of its case; the file beside it may. */
static bool lowercases(const char *vocab_path)
{
    const char *slash = strrchr(vocab_path, '/');
    char *path = mem_printf("%.*s/tokenizer_config.json",
                            slash ? (int)(slash - vocab_path) : 1, slash ? vocab_path : ".");
    char *bytes = NULL;
    size_t length;
    struct err ignored;
    bool lower = true;
    if (file_read(path, TOKENIZER_FILE_MAX, &bytes, &length, &ignored) == 0) {
        json_t *root = json_loadb(bytes, length, 0, NULL);
        lower = !json_is_false(json_object_get(root, "do_lower_case"));
        json_decref(root);
    }
    mem_free(bytes);
    mem_free(path);
    return lower;
}

static bool has_end(const char *path, const char *end)
{
    size_t length = strlen(path), tail = strlen(end);
    return length >= tail && strcmp(path + length - tail, end) == 0;
}

static char *file_in(const char *folder)
{
    static const char *const names[] = {"tokenizer.json", "vocab.txt", "spiece.model",
                                        "tokenizer.model"};
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        char *path = mem_printf("%s/%s", folder, names[i]);
        if (file_exists(path))
            return path;
        mem_free(path);
    }
    return mem_printf("%s/tokenizer.json", folder);
}

int tokenizer_read(const char *path, struct tokenizer **out, struct err *err)
{
    struct stat status;
    bool folder = stat(path, &status) == 0 && S_ISDIR(status.st_mode);
    char *file = folder ? file_in(path) : mem_strdup(path), *bytes = NULL;
    size_t length;
    int rc = file_read(file, TOKENIZER_FILE_MAX, &bytes, &length, err);
    if (rc == 0) {
        if (has_end(file, ".model"))
            rc = tokenizer_parse_sentencepiece(bytes, length, out, err);
        else if (has_end(file, ".txt"))
            rc = tokenizer_parse_vocab(bytes, length, lowercases(file), out, err);
        else
            rc = tokenizer_parse(bytes, length, out, err);
        if (rc < 0)
            err_wrap(err, "tokenizer '%s'", file);
    }
    mem_free(bytes);
    mem_free(file);
    return rc;
}

/* merges.txt: one rule a line; a first line "#version" and empty lines are skipped. */
static int read_merge_lines(struct tokenizer *tokenizer, char *text, struct err *err)
{
    char *rest = text, *line;
    for (bool first = true; (line = strsep(&rest, "\n")); first = false) {
        size_t length = strlen(line);
        if (length && line[length - 1] == '\r')
            length--;
        if (length == 0 || (first && strncmp(line, "#version", 8) == 0))
            continue;
        if (read_merge_text(tokenizer, line, length, err) < 0)
            return -1;
    }
    return 0;
}

static int read_gpt2_texts(struct tokenizer *tokenizer, const char *vocab, size_t vocab_length,
                           char *merges, struct err *err)
{
    json_t *root = load_json(vocab, vocab_length, err);
    if (!root)
        return -1;
    json_t *end = json_object_get(root, TOKENIZER_END_OF_TEXT);
    int rc = 0;
    if (json_is_integer(end) && json_integer_value(end) >= 0 &&
        json_integer_value(end) < (json_int_t)TOKENIZER_VOCAB_MAX)
        rc = tokenizer_add_special(tokenizer, (uint32_t)json_integer_value(end),
                                   TOKENIZER_END_OF_TEXT, strlen(TOKENIZER_END_OF_TEXT), true,
                                   err);
    if (rc == 0)
        rc = read_vocab(tokenizer, root, err);
    json_decref(root);
    if (rc == 0)
        rc = read_merge_lines(tokenizer, merges, err);
    return rc == 0 ? tokenizer_finish(tokenizer, err) : -1;
}

int tokenizer_read_gpt2(const char *vocab_path, const char *merges_path, struct tokenizer **out,
                        struct err *err)
{
    char *vocab = NULL, *merges = NULL;
    size_t vocab_length, merges_length;
    struct tokenizer *tokenizer = tokenizer_new();
    int rc = -1;
    if (file_read(vocab_path, TOKENIZER_FILE_MAX, &vocab, &vocab_length, err) < 0 ||
        file_read(merges_path, TOKENIZER_FILE_MAX, &merges, &merges_length, err) < 0)
        goto out;
    if (read_gpt2_texts(tokenizer, vocab, vocab_length, merges, err) < 0) {
        err_wrap(err, "tokenizer '%s' with '%s'", vocab_path, merges_path);
        goto out;
    }
    *out = tokenizer;
    tokenizer = NULL;
    rc = 0;
out:
    tokenizer_free(tokenizer);
    mem_free(vocab);
    mem_free(merges);
    return rc;
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

static int write_text(const char *folder, const char *name, const char *text, struct err *err)
{
    char *path = mem_printf("%s/%s", folder, name);
    int rc = file_replace(path, text, strlen(text), 0644, err);
    mem_free(path);
    return rc;
}

/* The class that reads it, and what its special tokens are for. */
static const struct side {
    const char *class_name, *extra;
    const char *names[6][2]; /* role, text */
} sides[] = {
    [TOKENIZER_BYTES] = {"GPT2TokenizerFast", "\"add_prefix_space\": false",
                         {{"bos_token", TOKENIZER_END_OF_TEXT},
                          {"eos_token", TOKENIZER_END_OF_TEXT},
                          {"unk_token", TOKENIZER_END_OF_TEXT}}},
    [TOKENIZER_WORDPIECE] = {"BertTokenizerFast", NULL,
                             {{"unk_token", "[UNK]"}, {"sep_token", "[SEP]"},
                              {"pad_token", "[PAD]"}, {"cls_token", "[CLS]"},
                              {"mask_token", "[MASK]"}}},
    [TOKENIZER_UNIGRAM] = {"PreTrainedTokenizerFast", NULL,
                           {{"bos_token", "<s>"}, {"eos_token", "</s>"}, {"unk_token", "<unk>"},
                            {"pad_token", "<pad>"}}},
    [TOKENIZER_CHARBPE] = {"PreTrainedTokenizerFast", NULL,
                           {{"bos_token", "<s>"}, {"eos_token", "</s>"}, {"unk_token", "<unk>"},
                            {"pad_token", "<pad>"}}},
};

/* "role": "text" for each token that the tokenizer has. */
static void put_roles(struct buf *out, const struct tokenizer *tokenizer, const struct side *side)
{
    for (size_t i = 0; i < ARRAY_COUNT(side->names) && side->names[i][0]; i++) {
        const char *text = side->names[i][1];
        if (tokenizer_find(tokenizer, text, strlen(text)) == TOKENIZER_VOCAB_MAX)
            continue;
        buf_printf(out, "%s\n  \"%s\": \"%s\"", out->length > 1 ? "," : "", side->names[i][0],
                   text);
    }
}

/* Special tokens that have no role, as control codes. */
static void put_additional(struct buf *out, const struct tokenizer *tokenizer,
                           const struct side *side)
{
    size_t count = 0;
    for (size_t a = 0; a < tokenizer->added_count; a++) {
        const struct added_token *added = &tokenizer->added[a];
        bool has_role = !added->special;
        for (size_t i = 0; i < ARRAY_COUNT(side->names) && side->names[i][0]; i++)
            has_role = has_role || strcmp(side->names[i][1], added->content) == 0;
        if (has_role)
            continue;
        if (count++ == 0)
            buf_printf(out, "%s\n  \"additional_special_tokens\": [", out->length > 1 ? "," : "");
        else
            buf_puts(out, ", ");
        tokenizer_put_text(out, added->content, added->length);
    }
    if (count)
        buf_putc(out, ']');
}

static int write_side_files(const struct tokenizer *tokenizer, const char *folder,
                            uint64_t context, struct err *err)
{
    bool has_end = tokenizer->end_of_text < TOKENIZER_VOCAB_MAX;
    const struct side *side = &sides[tokenizer->kind];
    struct buf config = {0}, special = {0}, generation = {0};
    buf_printf(&config, "{\n  \"tokenizer_class\": \"%s\"",
               has_end ? side->class_name : "PreTrainedTokenizerFast");
    put_roles(&config, tokenizer, side);
    if (side->extra)
        buf_printf(&config, ",\n  %s", side->extra);
    if (tokenizer->kind == TOKENIZER_WORDPIECE)
        buf_printf(&config, ",\n  \"do_lower_case\": %s",
                   tokenizer->wordpiece.lowercase ? "true" : "false");
    buf_printf(&config, ",\n  \"model_max_length\": %llu\n}\n", (unsigned long long)context);
    buf_puts(&special, "{");
    put_roles(&special, tokenizer, side);
    put_additional(&special, tokenizer, side);
    buf_puts(&special, "\n}\n");
    if (tokenizer->kind == TOKENIZER_BYTES && has_end)
        buf_printf(&generation, "{\"bos_token_id\": %u, \"eos_token_id\": %u}\n",
                   tokenizer->end_of_text, tokenizer->end_of_text);
    else
        buf_puts(&generation, "{}\n");
    int rc = write_text(folder, "tokenizer_config.json", buf_text(&config), err);
    if (rc == 0)
        rc = write_text(folder, "special_tokens_map.json", buf_text(&special), err);
    if (rc == 0)
        rc = write_text(folder, "generation_config.json", buf_text(&generation), err);
    buf_done(&config);
    buf_done(&special);
    buf_done(&generation);
    return rc;
}

int tokenizer_write(const struct tokenizer *tokenizer, const char *folder, uint64_t context,
                    struct err *err)
{
    char *text = tokenizer_text(tokenizer);
    int rc = write_text(folder, "tokenizer.json", text, err);
    mem_free(text);
    return rc == 0 ? write_side_files(tokenizer, folder, context, err) : -1;
}
