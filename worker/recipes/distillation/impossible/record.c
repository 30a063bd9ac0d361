/* record.c - see record.h. */
#include "worker/recipes/distillation/impossible/record.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/parse.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of a context 20 bytes, at most 65,536 contexts a block. */
#define RECORD_BYTES_MAX ((size_t)4 << 20)

void record_done(struct record *record)
{
    mem_free(record->texts);
    *record = (struct record){0};
}

static int count_line(void *argument, const struct block_line *line, struct err *err)
{
    struct record *record = argument;

    (void)err;
    record->texts[record->contexts++] = line->text_hash;
    for (enum verdict v = 0; v < VERDICT_END; v++)
        record->count[v] += line->count[v];
    return 0;
}

int record_count(const char *bytes, size_t length, const char *settings, uint64_t contexts,
                 struct record *out, struct err *err)
{
    struct hash hash;

    record_done(out);
    out->texts = mem_array(contexts + 1, sizeof *out->texts);
    hash_bytes(bytes, length, &hash);
    hash_to_hex(&hash, out->hash);
    return block_parse(bytes, settings, contexts, count_line, out, err);
}

/* ---- numbers by name -------------------------------------------------------------------- */

/* Those that are plain numbers, written and read by one table. */
#define NUMBERS(X) \
    X(made) X(tokens) X(sample_us) X(critic_us) X(scored) X(cut) X(ms) X(rank) X(leases)

int record_write(const char *path, const char *settings, const struct record *record,
                 struct err *err)
{
    json_t *pool = json_object(), *texts = json_array();
    char hex[24];

    for (enum verdict v = 0; v < VERDICT_END; v++)
        json_object_set_new(pool, verdict_name(v), json_integer((json_int_t)record->count[v]));
    for (uint64_t i = 0; i < record->contexts; i++) {
        snprintf(hex, sizeof hex, "%016llx", (unsigned long long)record->texts[i]);
        json_array_append_new(texts, json_string(hex));
    }
    json_t *root = json_pack("{s:s, s:I, s:I, s:s, s:o, s:o}", "settings", settings, "block",
                             (json_int_t)record->block, "contexts", (json_int_t)record->contexts,
                             "hash", record->hash, "pool", pool, "texts", texts);
    CHECK(root);
#define SET(name) json_object_set_new(root, #name, json_integer((json_int_t)record->name));
    NUMBERS(SET)
#undef SET
    char *text = json_dumps(root, JSON_COMPACT);
    CHECK(text);
    int rc = file_create(path, text, strlen(text), 0644, err);
    free(text);
    json_decref(root);
    return rc;
}

static bool number_of(const json_t *root, const char *name, uint64_t *out)
{
    const json_t *value = json_object_get(root, name);

    *out = (uint64_t)json_integer_value(value);
    return json_is_integer(value) && json_integer_value(value) >= 0;
}

static bool take_texts(const json_t *list, struct record *out)
{
    out->texts = mem_array(out->contexts + 1, sizeof *out->texts);
    if (json_array_size(list) != out->contexts)
        return false;
    for (size_t i = 0; i < out->contexts; i++) {
        const char *hex = json_string_value(json_array_get(list, i));
        if (!hex || strlen(hex) != 16 || strspn(hex, "0123456789abcdef") != 16)
            return false;
        out->texts[i] = strtoull(hex, NULL, 16);
    }
    return true;
}

static bool take_fields(const json_t *root, struct record *out)
{
    const char *hash = json_string_value(json_object_get(root, "hash"));
    const json_t *pool = json_object_get(root, "pool");

    if (!hash || strlen(hash) != HASH_HEX_SIZE - 1)
        return false;
    memcpy(out->hash, hash, HASH_HEX_SIZE);
    for (enum verdict v = 0; v < VERDICT_END; v++)
        if (!number_of(pool, verdict_name(v), &out->count[v]))
            return false;
#define TAKE(name) \
    if (!number_of(root, #name, &out->name)) \
        return false;
    NUMBERS(TAKE)
#undef TAKE
    return take_texts(json_object_get(root, "texts"), out);
}

int record_read(const char *path, const char *settings, uint64_t block, uint64_t contexts,
                struct record *out, struct err *err)
{
    char *text;
    size_t length;

    *out = (struct record){.block = block, .contexts = contexts};
    if (file_read(path, RECORD_BYTES_MAX, &text, &length, err) < 0)
        return -1;
    json_t *root = json_loadb(text, length, 0, NULL);
    const char *made = json_string_value(json_object_get(root, "settings"));
    uint64_t number, count;
    int rc = 0;

    if (made && strcmp(made, settings) != 0)
        rc = err_set(err, ERR_STALE, "record '%s' is of other settings", path);
    else if (!made || !number_of(root, "block", &number) || number != block ||
             !number_of(root, "contexts", &count) || count != contexts || !take_fields(root, out))
        rc = err_set(err, ERR_PROTOCOL, "record '%s' is damaged", path);
    json_decref(root);
    mem_free(text);
    if (rc < 0)
        record_done(out);
    return rc;
}
