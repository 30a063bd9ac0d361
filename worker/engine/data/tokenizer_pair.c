/* tokenizer_pair.c - vocab.json and merges.txt, as repositories of GPT-2, OPT and RoBERTa have them
 * where there is no tokenizer.json.
 *
 * The two say how texts are cut; which tokens are special and what is put around texts is in the
 * files beside them, or follows from the class that reads them. Source: transformers, what
 * GPT2Tokenizer and RobertaTokenizer take for granted (tokenization_gpt2.py,
 * tokenization_roberta.py) and GPT2Converter and RobertaConverter make of it
 * (convert_slow_tokenizer.py). A model of type opt puts its first token before texts also where no
 * file says so, as its configuration's "prefix" does. */
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "worker/engine/data/tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>

struct family {
    const char *name;
    bool framed; /* as RoBERTa: <s> A </s>, <s> A </s> </s> B </s> */
    bool begins; /* the first token before texts, unless add_bos_token says otherwise */
};

static const struct family classes[] = {
    {"GPT2Tokenizer", false, false},   {"GPT2TokenizerFast", false, false},
    {"RobertaTokenizer", true, false}, {"RobertaTokenizerFast", true, false},
    {"BartTokenizer", true, false},    {"BartTokenizerFast", true, false},
};

static const struct family model_types[] = {
    {"gpt2", false, false}, {"opt", false, true},      {"gpt_neo", false, false},
    {"gptj", false, false}, {"roberta", true, false}, {"bart", true, false},
};

/* What the classes take for granted; used where the vocabulary has it. */
static const char *const usual[2][TOKEN_ROLES] = {
    {[ROLE_BOS] = TOKENIZER_END_OF_TEXT, [ROLE_EOS] = TOKENIZER_END_OF_TEXT,
     [ROLE_UNK] = TOKENIZER_END_OF_TEXT},
    {[ROLE_BOS] = "<s>", [ROLE_EOS] = "</s>", [ROLE_UNK] = "<unk>", [ROLE_SEP] = "</s>",
     [ROLE_PAD] = "<pad>", [ROLE_CLS] = "<s>", [ROLE_MASK] = "<mask>"},
};

struct pair {
    const struct tokenizer_text *vocab_text, *merges_text;
    const struct tokenizer_sides *sides;
    struct tokenizer *tokenizer;
    json_t *vocab;
    json_t *added;       /* as in a tokenizer.json */
    json_t *added_by;    /* the same by text */
    json_int_t next;     /* the id of a token that has none yet */
    struct family family;
    json_t *role[TOKEN_ROLES]; /* owned: texts, or objects with a content */
};

/* ---- which tokens are special ------------------------------------------------------------- */

static const struct family *family_named(const struct family *list, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(list[i].name, name) == 0)
            return &list[i];
    return NULL;
}

static int find_family(struct pair *pair, struct err *err)
{
    json_t *config = pair->sides->root[SIDE_CONFIG];
    json_t *begins = json_object_get(config, "add_bos_token");
    const char *class = json_string_value(json_object_get(config, "tokenizer_class"));
    const char *type =
        json_string_value(json_object_get(pair->sides->root[SIDE_MODEL], "model_type"));
    const struct family *by_class =
        class ? family_named(classes, ARRAY_COUNT(classes), class) : NULL;
    const struct family *by_type =
        type ? family_named(model_types, ARRAY_COUNT(model_types), type) : NULL;
    if (class && !by_class)
        return err_set(err, ERR_INVALID, "tokenizer_config.json: tokenizer_class is %s; of "
                       "vocab.json and merges.txt GPT2Tokenizer, RobertaTokenizer and "
                       "BartTokenizer are accepted", class);
    if (!class && type && !by_type)
        return err_set(err, ERR_INVALID, "config.json: nothing is known of how a model of type %s "
                       "reads vocab.json and merges.txt; a tokenizer_config.json with "
                       "tokenizer_class would tell", type);
    if (json_is_true(json_object_get(config, "add_prefix_space")))
        return err_set(err, ERR_INVALID, "tokenizer_config.json: add_prefix_space is true; only "
                       "false is accepted");
    pair->family = by_class ? *by_class : by_type ? *by_type : classes[0];
    pair->family.begins = json_is_boolean(begins) ? json_is_true(begins)
                                                  : by_type && by_type->begins;
    return 0;
}

/* The text of an id, or NULL. */
static const char *vocab_text(const struct pair *pair, int64_t id)
{
    const char *key;
    json_t *value;
    json_object_foreach(pair->vocab, key, value)
        if (json_is_integer(value) && json_integer_value(value) == id)
            return key;
    return NULL;
}

static void find_roles(struct pair *pair)
{
    for (enum token_role role = 0; role < TOKEN_ROLES; role++) {
        json_t *named = tokenizer_sides_role(pair->sides, role);
        int64_t id = tokenizer_sides_id(pair->sides, role);
        const char *text = id >= 0 && !named ? vocab_text(pair, id) : NULL;
        const char *default_text = usual[pair->family.framed][role];
        if (named)
            pair->role[role] = json_incref(named);
        else if (text)
            pair->role[role] = json_string(text);
        else if (default_text && json_object_get(pair->vocab, default_text))
            pair->role[role] = json_string(default_text);
    }
}

static bool is_special(const struct pair *pair, const char *text)
{
    static const char key[] = "additional_special_tokens";
    size_t index;
    json_t *value;
    for (enum token_role role = 0; role < TOKEN_ROLES; role++)
        if (pair->role[role] && strcmp(tokenizer_token_text(pair->role[role]), text) == 0)
            return true;
    for (enum tokenizer_side side = SIDE_CONFIG; side <= SIDE_SPECIALS; side++)
        json_array_foreach(json_object_get(pair->sides->root[side], key), index, value) {
            const char *one = tokenizer_token_text(value);
            if (one && strcmp(one, text) == 0)
                return true;
        }
    return false;
}

/* token: its text, or an object with content and flags. id: -1 where nothing says it. */
static int add_token(struct pair *pair, const char *from, json_t *token, json_int_t id,
                     bool special, struct err *err)
{
    static const char *const flags[] = {"single_word", "lstrip", "rstrip"};
    const char *text = tokenizer_token_text(token);
    json_t *known = text ? json_object_get(pair->added_by, text) : NULL;
    json_t *listed = text ? json_object_get(pair->vocab, text) : NULL, *entry;
    if (!text)
        return err_set(err, ERR_INVALID, "%s names an added token without a text", from);
    if (known) {
        json_int_t before = json_integer_value(json_object_get(known, "id"));
        if (id >= 0 && id != before)
            return err_set(err, ERR_INVALID, "%s gives '%s' the id %lld, but it is %lld elsewhere",
                           from, text, (long long)id, (long long)before);
        return 0;
    }
    if (id < 0)
        id = json_is_integer(listed) ? json_integer_value(listed) : pair->next++;
    entry = json_pack("{s:I, s:s, s:b}", "id", id, "content", text, "special", special);
    CHECK(entry);
    for (size_t i = 0; i < ARRAY_COUNT(flags); i++)
        if (json_is_true(json_object_get(token, flags[i])))
            json_object_set_new(entry, flags[i], json_true());
    json_array_append_new(pair->added, entry);
    json_object_set(pair->added_by, text, entry);
    return 0;
}

/* {"50257": {"content": "<|im_end|>", "special": true, ...}} */
static int add_decoder(struct pair *pair, struct err *err)
{
    json_t *list = json_object_get(pair->sides->root[SIDE_CONFIG], "added_tokens_decoder"), *token;
    const char *key;
    struct err ignored;
    json_object_foreach(list, key, token) {
        uint64_t id;
        bool special = json_is_true(json_object_get(token, "special"));
        if (parse_u64(key, &id, &ignored) < 0 || id >= TOKENIZER_VOCAB_MAX)
            return err_set(err, ERR_INVALID, "tokenizer_config.json: added_tokens_decoder['%s'] "
                           "is not an id from 0 to %u", key, TOKENIZER_VOCAB_MAX - 1);
        if (add_token(pair, "tokenizer_config.json", token, (json_int_t)id, special, err) < 0)
            return -1;
    }
    return 0;
}

/* {"<|im_end|>": 50257} */
static int add_listed(struct pair *pair, struct err *err)
{
    const char *text;
    json_t *id;
    json_object_foreach(pair->sides->root[SIDE_ADDED], text, id) {
        json_t *token = json_string(text);
        int rc = -1;
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) >= (json_int_t)TOKENIZER_VOCAB_MAX)
            err_set(err, ERR_INVALID, "added_tokens.json: '%s' is not an id from 0 to %u", text,
                    TOKENIZER_VOCAB_MAX - 1);
        else
            rc = add_token(pair, "added_tokens.json", token, json_integer_value(id),
                           is_special(pair, text), err);
        json_decref(token);
        if (rc < 0)
            return -1;
    }
    return 0;
}

static void raise_next(struct pair *pair, json_t *list)
{
    const char *key;
    json_t *id;
    json_object_foreach(list, key, id)
        if (json_is_integer(id) && json_integer_value(id) >= pair->next &&
            json_integer_value(id) < (json_int_t)TOKENIZER_VOCAB_MAX)
            pair->next = json_integer_value(id) + 1;
}

/* In the order in which transformers gives new ones their ids. */
static int find_added(struct pair *pair, struct err *err)
{
    size_t index;
    json_t *token;
    raise_next(pair, pair->vocab);
    raise_next(pair, pair->sides->root[SIDE_ADDED]);
    if (add_decoder(pair, err) < 0 || add_listed(pair, err) < 0)
        return -1;
    json_array_foreach(pair->added, index, token)
        pair->next = (json_int_t)max_u64(
            (uint64_t)pair->next, (uint64_t)json_integer_value(json_object_get(token, "id")) + 1);
    for (enum token_role role = 0; role < TOKEN_ROLES; role++)
        if (pair->role[role] &&
            add_token(pair, "a role", pair->role[role], -1, true, err) < 0)
            return -1;
    for (enum tokenizer_side side = SIDE_CONFIG; side <= SIDE_SPECIALS; side++)
        json_array_foreach(
            json_object_get(pair->sides->root[side], "additional_special_tokens"), index, token)
            if (add_token(pair, "additional_special_tokens", token, -1, true, err) < 0)
                return -1;
    return 0;
}

/* ---- the two files ------------------------------------------------------------------------ */

/* The line of a member of a JSON text, spelled in one of the ways that writers have; 0: unknown. */
static size_t line_of(const char *text, const char *key)
{
    const char *at = NULL;
    for (int way = 0; way < 3 && !at; way++) {
        json_t *value = json_string(key);
        char *quoted = json_dumps(value, JSON_ENCODE_ANY | (way ? JSON_ENSURE_ASCII : 0));
        for (char *c = quoted; way == 2 && c && (c = strstr(c, "\\u")); c += 2)
            for (int i = 2; i < 6 && c[i]; i++)
                c[i] = c[i] >= 'A' && c[i] <= 'F' ? (char)(c[i] - 'A' + 'a') : c[i];
        at = quoted ? strstr(text, quoted) : NULL;
        free(quoted);
        json_decref(value);
    }
    size_t line = at != NULL;
    for (const char *c = text; at && c < at; c++)
        line += *c == '\n';
    return line;
}

/* An added token takes no other's id. *out_key: the entry whose id it is. */
static int check_ids(const struct pair *pair, const char **out_key, struct err *err)
{
    const struct tokenizer *t = pair->tokenizer;
    const char *key;
    json_t *value;
    json_object_foreach(pair->vocab, key, value) {
        json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        if (id < 0 || id >= (json_int_t)t->vocab_size || !t->tokens[id].added ||
            strcmp(t->tokens[id].bytes, key) == 0)
            continue;
        *out_key = key;
        return err_set(err, ERR_INVALID, "vocab['%s'] is id %lld, which the files beside it give "
                       "to '%s'", key, (long long)id, t->tokens[id].bytes);
    }
    return 0;
}

static int read_vocab(struct pair *pair, struct err *err)
{
    const char *key = NULL, *name = pair->vocab_text->name;
    if (check_ids(pair, &key, err) == 0 &&
        tokenizer_read_vocab(pair->tokenizer, "vocab", pair->vocab, &key, err) == 0)
        return 0;
    size_t line = key ? line_of(pair->vocab_text->text, key) : 0;
    return line ? err_wrap(err, "%s:%zu", name, line) : err_wrap(err, "%s", name);
}

/* One rule a line; lines that begin with #version, and empty ones, are skipped. */
static int read_merges(struct pair *pair, struct err *err)
{
    const char *at = pair->merges_text->text, *end = at + pair->merges_text->length;
    for (size_t line = 1; at < end; line++) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        size_t length = (size_t)((stop ? stop : end) - at);
        size_t kept = length - (length > 0 && at[length - 1] == '\r');
        bool skipped = kept == 0 || (kept >= 8 && memcmp(at, "#version", 8) == 0);
        if (!skipped && tokenizer_read_merge(pair->tokenizer, at, kept, err) < 0)
            return err_wrap(err, "%s:%zu", pair->merges_text->name, line);
        at = stop ? stop + 1 : end;
    }
    return 0;
}

static uint32_t role_id(const struct pair *pair, enum token_role role)
{
    const char *text = tokenizer_token_text(pair->role[role]);
    return text ? tokenizer_find(pair->tokenizer, text, strlen(text)) : TOKENIZER_VOCAB_MAX;
}

static int missing_role(const char *what, struct err *err)
{
    return err_set(err, ERR_INVALID, "%s is put around texts, but no file names it and the "
                   "vocabulary has none of the usual name", what);
}

/* What a tokenizer.json would have as post_processor. */
static int read_frame(struct pair *pair, struct err *err)
{
    uint32_t bos = role_id(pair, ROLE_BOS), cls = role_id(pair, ROLE_CLS);
    uint32_t sep = role_id(pair, ROLE_SEP);
    json_t *frame = NULL;
    if (pair->family.framed && (cls == TOKENIZER_VOCAB_MAX || sep == TOKENIZER_VOCAB_MAX))
        return missing_role("cls_token or sep_token", err);
    if (!pair->family.framed && pair->family.begins && bos == TOKENIZER_VOCAB_MAX)
        return missing_role("bos_token", err);
    if (pair->family.framed)
        frame = json_pack("{s:s, s:[s, I], s:[s, I]}", "type", "RobertaProcessing", "sep",
                          tokenizer_token_text(pair->role[ROLE_SEP]), (json_int_t)sep, "cls",
                          tokenizer_token_text(pair->role[ROLE_CLS]), (json_int_t)cls);
    else if (pair->family.begins)
        frame = json_pack("{s:s, s:[{s:{s:s, s:i}}, {s:{s:s, s:i}}],"
                          " s:[{s:{s:s, s:i}}, {s:{s:s, s:i}}, {s:{s:s, s:i}}],"
                          " s:{s:{s:[I]}}}",
                          "type", "TemplateProcessing",
                          "single", "SpecialToken", "id", "bos", "type_id", 0,
                          "Sequence", "id", "A", "type_id", 0,
                          "pair", "SpecialToken", "id", "bos", "type_id", 0,
                          "Sequence", "id", "A", "type_id", 0,
                          "Sequence", "id", "B", "type_id", 1,
                          "special_tokens", "bos", "ids", (json_int_t)bos);
    CHECK(frame || !(pair->family.framed || pair->family.begins));
    int rc = frame ? tokenizer_read_processor(pair->tokenizer, frame, err) : 0;
    json_decref(frame);
    return rc;
}

static int read_pair(struct pair *pair, struct err *err)
{
    struct tokenizer *t = pair->tokenizer;
    if (find_family(pair, err) < 0)
        return -1;
    find_roles(pair);
    if (find_added(pair, err) < 0 || tokenizer_read_added(t, pair->added, err) < 0 ||
        read_vocab(pair, err) < 0 || read_merges(pair, err) < 0)
        return -1;
    if (tokenizer_finish(t, err) < 0)
        return err_wrap(err, "%s", pair->vocab_text->name);
    for (enum token_role role = 0; role < TOKEN_ROLES; role++)
        t->role[role] = role_id(pair, role);
    if (read_frame(pair, err) < 0)
        return -1;
    tokenizer_settle(t);
    return 0;
}

int tokenizer_parse_pair(const struct tokenizer_text *vocab, const struct tokenizer_text *merges,
                         const struct tokenizer_sides *sides, struct tokenizer **out,
                         struct err *err)
{
    struct pair pair = {.vocab_text = vocab, .merges_text = merges, .sides = sides,
                        .vocab = tokenizer_load_json(vocab->text, vocab->length, err)};
    if (!pair.vocab)
        return err_wrap(err, "%s", vocab->name);
    pair.tokenizer = tokenizer_new();
    pair.added = json_array();
    pair.added_by = json_object();
    int rc = read_pair(&pair, err);
    for (size_t role = 0; role < TOKEN_ROLES; role++)
        json_decref(pair.role[role]);
    json_decref(pair.added_by);
    json_decref(pair.added);
    json_decref(pair.vocab);
    if (rc < 0) {
        tokenizer_free(pair.tokenizer);
        return -1;
    }
    *out = pair.tokenizer;
    return 0;
}

int tokenizer_read_pair(const char *vocab_path, const char *merges_path,
                        const struct tokenizer_sides *sides, struct tokenizer **out,
                        struct err *err)
{
    char *vocab = NULL, *merges = NULL;
    struct tokenizer_text texts[2] = {{vocab_path, NULL, 0}, {merges_path, NULL, 0}};
    int rc = -1;
    if (file_read(vocab_path, TOKENIZER_FILE_MAX, &vocab, &texts[0].length, err) < 0 ||
        file_read(merges_path, TOKENIZER_FILE_MAX, &merges, &texts[1].length, err) < 0)
        goto out;
    texts[0].text = vocab;
    texts[1].text = merges;
    rc = tokenizer_parse_pair(&texts[0], &texts[1], sides, out, err);
out:
    mem_free(vocab);
    mem_free(merges);
    return rc < 0 ? err_wrap(err, "tokenizer") : 0;
}

int tokenizer_read_gpt2(const char *vocab_path, const char *merges_path, struct tokenizer **out,
                        struct err *err)
{
    static const struct tokenizer_sides none;
    return tokenizer_read_pair(vocab_path, merges_path, &none, out, err);
}
