/* tokenizer_sides.c - what lies beside a tokenizer: which special token is for what. */
#include "common/base/file.h"
#include "common/base/mem.h"
#include "worker/engine/data/tokenizer_parts.h"

#include <string.h>
#include <sys/stat.h>

static const char *const side_names[TOKENIZER_SIDES] = {
    [SIDE_CONFIG] = "tokenizer_config.json", [SIDE_SPECIALS] = "special_tokens_map.json",
    [SIDE_ADDED] = "added_tokens.json", [SIDE_GENERATION] = "generation_config.json",
    [SIDE_MODEL] = "config.json",
};

static const char *const role_names[TOKEN_ROLES] = {
    [ROLE_BOS] = "bos_token", [ROLE_EOS] = "eos_token", [ROLE_UNK] = "unk_token",
    [ROLE_SEP] = "sep_token", [ROLE_PAD] = "pad_token", [ROLE_CLS] = "cls_token",
    [ROLE_MASK] = "mask_token",
};

/* Roles that a model's own files name by id. */
static const char *const role_ids[TOKEN_ROLES] = {
    [ROLE_BOS] = "bos_token_id", [ROLE_EOS] = "eos_token_id", [ROLE_PAD] = "pad_token_id",
};

/* ---- reading ------------------------------------------------------------------------------ */

int tokenizer_sides_parse(struct tokenizer_sides *sides, enum tokenizer_side side,
                          const char *text, size_t length, struct err *err)
{
    sides->root[side] = tokenizer_load_json(text, length, err);
    return sides->root[side] ? 0 : err_wrap(err, "%s", side_names[side]);
}

int tokenizer_sides_read(struct tokenizer_sides *sides, const char *folder, struct err *err)
{
    int rc = 0;
    for (enum tokenizer_side side = 0; side < TOKENIZER_SIDES && rc == 0; side++) {
        char *path = mem_printf("%s/%s", folder, side_names[side]), *bytes = NULL;
        size_t length;
        if (file_exists(path))
            rc = file_read(path, TOKENIZER_FILE_MAX, &bytes, &length, err);
        if (bytes && tokenizer_sides_parse(sides, side, bytes, length, err) < 0)
            rc = err_wrap(err, "'%s'", folder);
        mem_free(bytes);
        mem_free(path);
    }
    return rc;
}

void tokenizer_sides_done(struct tokenizer_sides *sides)
{
    for (size_t i = 0; i < TOKENIZER_SIDES; i++)
        json_decref(sides->root[i]);
}

const char *tokenizer_token_text(json_t *value)
{
    return json_string_value(json_is_object(value) ? json_object_get(value, "content") : value);
}

json_t *tokenizer_sides_role(const struct tokenizer_sides *sides, enum token_role role)
{
    json_t *value = json_object_get(sides->root[SIDE_CONFIG], role_names[role]);
    if (!tokenizer_token_text(value))
        value = json_object_get(sides->root[SIDE_SPECIALS], role_names[role]);
    return tokenizer_token_text(value) ? value : NULL;
}

int64_t tokenizer_sides_id(const struct tokenizer_sides *sides, enum token_role role)
{
    static const enum tokenizer_side from[] = {SIDE_GENERATION, SIDE_MODEL};
    for (size_t i = 0; i < ARRAY_COUNT(from) && role_ids[role]; i++) {
        json_t *value = json_object_get(sides->root[from[i]], role_ids[role]);
        if (json_is_array(value))
            value = json_array_get(value, 0);
        if (json_is_integer(value) && json_integer_value(value) >= 0)
            return json_integer_value(value);
    }
    return -1;
}

/* Whether a number of a model's files may say what the token is for. A byte is no pad token:
 * T5s pad, and begin their answers, with number 0, be it text like any other. */
static bool may_be(const struct tokenizer *tokenizer, enum token_role role, int64_t id)
{
    return id >= 0 && id < (int64_t)tokenizer->vocab_size && tokenizer->tokens[id].bytes &&
           (role != ROLE_PAD || tokenizer->tokens[id].added || tokenizer->tokens[id].length > 1);
}

void tokenizer_take_sides(struct tokenizer *tokenizer, const struct tokenizer_sides *sides)
{
    for (enum token_role role = 0; role < TOKEN_ROLES; role++) {
        const char *text = tokenizer_token_text(tokenizer_sides_role(sides, role));
        int64_t id = tokenizer_sides_id(sides, role);
        uint32_t known = text ? tokenizer_find(tokenizer, text, strlen(text))
                              : TOKENIZER_VOCAB_MAX;
        if (!text && may_be(tokenizer, role, id))
            known = (uint32_t)id;
        if (known < TOKENIZER_VOCAB_MAX)
            tokenizer->role[role] = known;
    }
    tokenizer_settle(tokenizer);
}

/* A vocab.txt says nothing of its case; the file beside it may. */
static bool lowercases(const struct tokenizer_sides *sides)
{
    return !json_is_false(json_object_get(sides->root[SIDE_CONFIG], "do_lower_case"));
}

static bool has_end(const char *path, const char *end)
{
    size_t length = strlen(path), tail = strlen(end);
    return length >= tail && strcmp(path + length - tail, end) == 0;
}

/* What a tokenizer may be given as, and what else must lie beside it. */
static const struct {
    const char *name, *beside;
} forms[] = {{"tokenizer.json", NULL}, {"vocab.json", "merges.txt"}, {"vocab.txt", NULL},
             {"spiece.model", NULL},   {"tokenizer.model", NULL}};

static bool is_there(const char *folder, const char *name)
{
    char *path = mem_printf("%s/%s", folder, name);
    bool there = file_exists(path);
    mem_free(path);
    return there;
}

/* Its path (mem_free), or NULL. */
static char *file_in(const char *folder)
{
    for (size_t i = 0; i < ARRAY_COUNT(forms); i++)
        if (is_there(folder, forms[i].name) &&
            (!forms[i].beside || is_there(folder, forms[i].beside)))
            return mem_printf("%s/%s", folder, forms[i].name);
    return NULL;
}

bool tokenizer_is_in(const char *folder)
{
    char *file = file_in(folder);
    mem_free(file);
    return file != NULL;
}

static int read_one(const char *file, const struct tokenizer_sides *sides, struct tokenizer **out,
                    struct err *err)
{
    char *bytes = NULL;
    size_t length;
    if (file_read(file, TOKENIZER_FILE_MAX, &bytes, &length, err) < 0)
        return -1;
    int rc = has_end(file, ".model") ? tokenizer_parse_sentencepiece(bytes, length, out, err)
             : has_end(file, ".txt") ? tokenizer_parse_vocab(bytes, length, lowercases(sides), out,
                                                             err)
                                     : tokenizer_parse(bytes, length, out, err);
    mem_free(bytes);
    return rc < 0 ? err_wrap(err, "tokenizer '%s'", file) : 0;
}

static int read_form(const char *file, const char *folder, const struct tokenizer_sides *sides,
                     struct tokenizer **out, struct err *err)
{
    bool pair = has_end(file, "/vocab.json") || has_end(file, "/merges.txt");
    if (!pair)
        return read_one(file, sides, out, err);
    char *vocab = mem_printf("%s/vocab.json", folder);
    char *merges = mem_printf("%s/merges.txt", folder);
    int rc = tokenizer_read_pair(vocab, merges, sides, out, err);
    mem_free(vocab);
    mem_free(merges);
    return rc;
}

int tokenizer_read(const char *path, struct tokenizer **out, struct err *err)
{
    struct stat status;
    struct tokenizer_sides sides = {0};
    bool is_folder = stat(path, &status) == 0 && S_ISDIR(status.st_mode);
    const char *slash = strrchr(path, '/');
    char *file = is_folder ? file_in(path) : mem_printf("%s%s", slash ? "" : "./", path);
    char *folder = is_folder ? mem_strdup(path)
                             : mem_printf("%.*s", slash ? (int)(slash - path) : 1,
                                          slash ? path : ".");
    struct tokenizer *tokenizer = NULL;
    int rc = file ? 0
                  : err_set(err, ERR_NOT_FOUND, "'%s' holds no tokenizer: neither tokenizer.json, "
                            "nor vocab.json with merges.txt, nor vocab.txt, spiece.model or "
                            "tokenizer.model", path);
    if (rc == 0)
        rc = tokenizer_sides_read(&sides, *folder ? folder : "/", err);
    if (rc == 0)
        rc = read_form(file, folder, &sides, &tokenizer, err);
    if (rc == 0) {
        tokenizer_take_sides(tokenizer, &sides);
        *out = tokenizer;
    }
    tokenizer_sides_done(&sides);
    mem_free(folder);
    mem_free(file);
    return rc;
}

/* ---- writing ------------------------------------------------------------------------------ */

/* The class that reads it, and the texts that its roles usually have. */
static const struct side {
    const char *class_name, *extra;
    const char *usual[TOKEN_ROLES];
} sides_of[] = {
    [TOKENIZER_BYTES] = {"GPT2TokenizerFast", "\"add_prefix_space\": false",
                         {[ROLE_UNK] = TOKENIZER_END_OF_TEXT}},
    [TOKENIZER_WORDPIECE] = {"BertTokenizerFast", NULL,
                             {[ROLE_UNK] = "[UNK]", [ROLE_SEP] = "[SEP]", [ROLE_PAD] = "[PAD]",
                              [ROLE_CLS] = "[CLS]", [ROLE_MASK] = "[MASK]"}},
    [TOKENIZER_UNIGRAM] = {"PreTrainedTokenizerFast", NULL,
                           {[ROLE_UNK] = "<unk>", [ROLE_PAD] = "<pad>"}},
    [TOKENIZER_CHARBPE] = {"PreTrainedTokenizerFast", NULL,
                           {[ROLE_UNK] = "<unk>", [ROLE_PAD] = "<pad>"}},
};

/* TOKENIZER_VOCAB_MAX: no token has it. */
static uint32_t role_of(const struct tokenizer *tokenizer, enum token_role role)
{
    const char *usual = sides_of[tokenizer->kind].usual[role];
    bool bert = tokenizer->kind == TOKENIZER_WORDPIECE;
    bool begins = tokenizer->kind != TOKENIZER_UNIGRAM ||
                  tokenizer->begin_of_text != tokenizer->end_of_text;
    if (tokenizer->role[role] < TOKENIZER_VOCAB_MAX)
        return tokenizer->role[role];
    if (role == ROLE_BOS && !bert && begins)
        return tokenizer->begin_of_text;
    if (role == ROLE_EOS && !bert)
        return tokenizer->end_of_text;
    return usual ? tokenizer_find(tokenizer, usual, strlen(usual)) : TOKENIZER_VOCAB_MAX;
}

/* "role": "text" for each that a token has. */
static void put_roles(struct buf *out, const struct tokenizer *tokenizer)
{
    for (enum token_role role = 0; role < TOKEN_ROLES; role++) {
        uint32_t id = role_of(tokenizer, role);
        if (id == TOKENIZER_VOCAB_MAX)
            continue;
        buf_printf(out, "%s\n  \"%s\": ", out->length > 1 ? "," : "", role_names[role]);
        tokenizer_put_text(out, tokenizer->tokens[id].bytes, tokenizer->tokens[id].length);
    }
}

/* Special tokens that have no role, as control codes. */
static void put_additional(struct buf *out, const struct tokenizer *tokenizer)
{
    size_t count = 0;
    for (size_t a = 0; a < tokenizer->added_count; a++) {
        const struct added_token *added = &tokenizer->added[a];
        bool has_role = !added->special;
        for (enum token_role role = 0; role < TOKEN_ROLES; role++)
            has_role = has_role || role_of(tokenizer, role) == added->id;
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

/* A byte-level BPE with anything but its first token around texts has no class that says so. */
static const char *class_of(const struct tokenizer *tokenizer, bool *out_begins)
{
    const struct frame *frame = &tokenizer->single;
    *out_begins = tokenizer->kind == TOKENIZER_BYTES && frame->count == 2 &&
                  frame->item[0].part == FRAME_TOKEN;
    if (tokenizer->end_of_text == TOKENIZER_VOCAB_MAX ||
        (tokenizer->kind == TOKENIZER_BYTES && frame->count > 0 && !*out_begins))
        return "PreTrainedTokenizerFast";
    return sides_of[tokenizer->kind].class_name;
}

static void put_config(struct buf *out, const struct tokenizer *tokenizer, uint64_t context)
{
    const char *extra = sides_of[tokenizer->kind].extra;
    bool begins;
    buf_printf(out, "{\n  \"tokenizer_class\": \"%s\"", class_of(tokenizer, &begins));
    put_roles(out, tokenizer);
    if (begins)
        buf_puts(out, ",\n  \"add_bos_token\": true");
    if (extra)
        buf_printf(out, ",\n  %s", extra);
    if (tokenizer->kind == TOKENIZER_WORDPIECE)
        buf_printf(out, ",\n  \"do_lower_case\": %s",
                   tokenizer->wordpiece.lowercase ? "true" : "false");
    buf_printf(out, ",\n  \"model_max_length\": %llu\n}\n", (unsigned long long)context);
}

static int write_text(const char *folder, const char *name, const char *text, struct err *err)
{
    char *path = mem_printf("%s/%s", folder, name);
    int rc = file_replace(path, text, strlen(text), 0644, err);
    mem_free(path);
    return rc;
}

int tokenizer_write(const struct tokenizer *tokenizer, const char *folder, uint64_t context,
                    struct err *err)
{
    char *text = tokenizer_text(tokenizer);
    struct buf config = {0}, special = {0};
    put_config(&config, tokenizer, context);
    buf_puts(&special, "{");
    put_roles(&special, tokenizer);
    put_additional(&special, tokenizer);
    buf_puts(&special, "\n}\n");
    int rc = write_text(folder, "tokenizer.json", text, err);
    if (rc == 0)
        rc = write_text(folder, side_names[SIDE_CONFIG], buf_text(&config), err);
    if (rc == 0)
        rc = write_text(folder, side_names[SIDE_SPECIALS], buf_text(&special), err);
    buf_done(&config);
    buf_done(&special);
    mem_free(text);
    return rc;
}
