/* dataset.c - opening a dataset directory; see dataset.h. */
#include "worker/engine/data/dataset.h"

#include "common/base/file.h"
#include "common/base/mem.h"

#include <jansson.h>
#include <string.h>

#define INDEX_BYTES_MAX ((size_t)16 << 20)
#define TEXTS_BYTES_MAX ((size_t)1 << 34)

struct dataset {
    char *path;
    struct dataset_index index;
    struct tokenizer *tokenizer;
    struct dataset_part parts[DATASET_PARTS_MAX]; /* as index.parts; mapped when shards is set */
};

static bool file_name_is_safe(const char *name)
{
    return name && *name && !strchr(name, '/') && strcmp(name, "..") != 0 &&
           strcmp(name, ".") != 0 && strlen(name) < 256;
}

static int read_count(json_t *part, const char *name, const char *field, uint64_t *out,
                      struct err *err)
{
    json_t *value = json_object_get(part, field);
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return err_set(err, ERR_INVALID, "parts.%s.%s is not a count", name, field);
    *out = (uint64_t)json_integer_value(value);
    return 0;
}

static int read_shard_names(json_t *part, struct dataset_index_part *out, struct err *err)
{
    json_t *shards = json_object_get(part, "shards"), *shard;
    size_t i, count = json_array_size(shards);
    if (!json_is_array(shards) || count == 0 || count > DATASET_SHARDS_MAX)
        return err_set(err, ERR_INVALID, "parts.%s.shards has %zu entries; 1 to %d are accepted",
                       out->name, count, DATASET_SHARDS_MAX);
    out->shards = mem_array(count, sizeof *out->shards);
    json_array_foreach(shards, i, shard) {
        if (!file_name_is_safe(json_string_value(shard)))
            return err_set(err, ERR_INVALID, "parts.%s.shards[%zu] is not a plain file name",
                           out->name, i);
        out->shards[out->shard_count++] = mem_strdup(json_string_value(shard));
    }
    return 0;
}

static int read_part(const char *name, json_t *part, struct dataset_index_part *out,
                     struct err *err)
{
    json_t *texts = json_object_get(part, "texts");
    out->name = mem_strdup(name);
    if (texts && !file_name_is_safe(json_string_value(texts)))
        return err_set(err, ERR_INVALID, "parts.%s.texts is not a plain file name", name);
    if (texts)
        out->texts = mem_strdup(json_string_value(texts));
    if (read_shard_names(part, out, err) < 0 ||
        read_count(part, name, "tokens", &out->tokens, err) < 0 ||
        read_count(part, name, "documents", &out->documents, err) < 0 ||
        read_count(part, name, "bytes", &out->bytes, err) < 0)
        return -1;
    return 0;
}

static int read_index(json_t *root, struct dataset_index *out, struct err *err)
{
    json_t *vocab = json_object_get(root, "vocab_size"), *parts = json_object_get(root, "parts");
    const char *name = json_string_value(json_object_get(root, "name"));
    const char *tokenizer = json_string_value(json_object_get(root, "tokenizer"));
    const char *part_name;
    json_t *part;
    if (!json_is_integer(json_object_get(root, "format")) ||
        json_integer_value(json_object_get(root, "format")) != DATASET_FORMAT)
        return err_set(err, ERR_PROTOCOL, "format is not %d", DATASET_FORMAT);
    if (!name || !file_name_is_safe(tokenizer))
        return err_set(err, ERR_INVALID, "name or tokenizer (a plain file name) is missing");
    if (!json_is_integer(vocab) || json_integer_value(vocab) < 1 ||
        json_integer_value(vocab) > (json_int_t)TOKENIZER_VOCAB_MAX)
        return err_set(err, ERR_INVALID, "vocab_size is not from 1 to %u", TOKENIZER_VOCAB_MAX);
    if (!json_is_object(parts) || json_object_size(parts) > DATASET_PARTS_MAX)
        return err_set(err, ERR_INVALID, "parts is not an object of at most %d parts",
                       DATASET_PARTS_MAX);
    out->name = mem_strdup(name);
    out->tokenizer = mem_strdup(tokenizer);
    out->vocab_size = (uint32_t)json_integer_value(vocab);
    out->parts = mem_array(json_object_size(parts) + 1, sizeof *out->parts);
    json_object_foreach(parts, part_name, part)
        if (read_part(part_name, part, &out->parts[out->part_count++], err) < 0)
            return -1;
    return 0;
}

int dataset_index_parse(const char *json, size_t length, struct dataset_index *out,
                        struct err *err)
{
    json_error_t why;
    json_t *root = json_loadb(json, length, JSON_REJECT_DUPLICATES, &why);
    if (!root)
        return err_set(err, ERR_PROTOCOL, "line %d column %d: %s", why.line, why.column, why.text);
    struct dataset_index index = {0};
    int rc = read_index(root, &index, err);
    json_decref(root);
    if (rc < 0)
        dataset_index_done(&index);
    else
        *out = index;
    return rc;
}

void dataset_index_done(struct dataset_index *index)
{
    for (size_t p = 0; p < index->part_count; p++) {
        struct dataset_index_part *part = &index->parts[p];
        for (size_t i = 0; i < part->shard_count; i++)
            mem_free(part->shards[i]);
        mem_free(part->shards);
        mem_free(part->name);
        mem_free(part->texts);
    }
    mem_free(index->parts);
    mem_free(index->name);
    mem_free(index->tokenizer);
    *index = (struct dataset_index){0};
}

static int read_files(struct dataset *dataset, struct err *err)
{
    char *bytes = NULL, *path = mem_printf("%s/dataset.json", dataset->path);
    size_t length;
    int rc = file_read(path, INDEX_BYTES_MAX, &bytes, &length, err);
    if (rc == 0 && dataset_index_parse(bytes, length, &dataset->index, err) < 0)
        rc = err_wrap(err, "'%s'", path);
    mem_free(bytes);
    mem_free(path);
    if (rc < 0)
        return -1;
    path = mem_printf("%s/%s", dataset->path, dataset->index.tokenizer);
    rc = tokenizer_read(path, &dataset->tokenizer, err);
    mem_free(path);
    if (rc < 0)
        return -1;
    if (tokenizer_vocab_size(dataset->tokenizer) != dataset->index.vocab_size)
        return err_set(err, ERR_INVALID, "'%s': vocab_size is %u but its tokenizer has %u ids",
                       dataset->path, dataset->index.vocab_size,
                       tokenizer_vocab_size(dataset->tokenizer));
    if (tokenizer_end_of_text(dataset->tokenizer) >= TOKENIZER_VOCAB_MAX)
        return err_set(err, ERR_INVALID, "'%s': the tokenizer has nothing that ends texts, as "
                       TOKENIZER_END_OF_TEXT " does", dataset->path);
    return 0;
}

int dataset_open(const char *path, struct dataset **out, struct err *err)
{
    struct dataset *dataset = mem_zalloc(sizeof *dataset);
    dataset->path = mem_strdup(path);
    if (read_files(dataset, err) < 0) {
        dataset_close(dataset);
        return err_wrap(err, "open dataset '%s'", path);
    }
    *out = dataset;
    return 0;
}

static void part_unmap(struct dataset_part *part)
{
    for (size_t i = 0; part->shards && i < part->shard_count; i++)
        shard_close(part->shards[i]);
    mem_free(part->shards);
    mem_free(part->document_base);
    mem_free((char *)part->texts_path);
    *part = (struct dataset_part){0};
}

void dataset_close(struct dataset *dataset)
{
    if (!dataset)
        return;
    for (size_t p = 0; p < dataset->index.part_count; p++)
        part_unmap(&dataset->parts[p]);
    dataset_index_done(&dataset->index);
    tokenizer_free(dataset->tokenizer);
    mem_free(dataset->path);
    mem_free(dataset);
}

const char *dataset_name(const struct dataset *dataset)
{
    return dataset->index.name;
}

const char *dataset_path(const struct dataset *dataset)
{
    return dataset->path;
}

uint32_t dataset_vocab_size(const struct dataset *dataset)
{
    return dataset->index.vocab_size;
}

const struct tokenizer *dataset_tokenizer(const struct dataset *dataset)
{
    return dataset->tokenizer;
}

/* The tokens were made by this tokenizer, all ids exist, and the mark is as promised. */
static int check_shard(const struct dataset *dataset, const struct shard *shard, struct err *err)
{
    if (!hash_equal(&shard->tokenizer, tokenizer_identity(dataset->tokenizer)))
        return err_set(err, ERR_INVALID, "shard '%s' was written with another tokenizer than the "
                       "dataset's", shard->path);
    for (uint64_t i = 0; i < shard->token_count; i++)
        if (shard_token(shard, i) >= dataset->index.vocab_size)
            return err_set(err, ERR_PROTOCOL, "shard '%s': token %llu is id %u of a vocabulary "
                           "of %u", shard->path, (unsigned long long)i, shard_token(shard, i),
                           dataset->index.vocab_size);
    return 0;
}

static int part_map(struct dataset *dataset, const struct dataset_index_part *index,
                    struct dataset_part *part, struct err *err)
{
    part->name = index->name;
    part->dataset = dataset;
    part->byte_count = index->bytes;
    part->shards = mem_array(index->shard_count, sizeof *part->shards);
    part->document_base = mem_array(index->shard_count + 1, sizeof *part->document_base);
    if (index->texts)
        part->texts_path = mem_printf("%s/%s", dataset->path, index->texts);
    for (size_t i = 0; i < index->shard_count; i++) {
        char *path = mem_printf("%s/%s", dataset->path, index->shards[i]);
        int rc = shard_open(path, &part->shards[i], err);
        mem_free(path);
        if (rc < 0)
            return -1;
        part->shard_count = i + 1;
        if (check_shard(dataset, part->shards[i], err) < 0)
            return -1;
        part->token_count += part->shards[i]->token_count;
        part->document_count += part->shards[i]->document_count;
        part->document_base[i + 1] = part->document_count;
    }
    if (part->token_count != index->tokens || part->document_count != index->documents)
        return err_set(err, ERR_PROTOCOL, "dataset.json promises %llu tokens in %llu documents; "
                       "the shards hold %llu in %llu", (unsigned long long)index->tokens,
                       (unsigned long long)index->documents,
                       (unsigned long long)part->token_count,
                       (unsigned long long)part->document_count);
    return 0;
}

static size_t part_find(const struct dataset *dataset, const char *name)
{
    size_t p = 0;
    while (p < dataset->index.part_count && strcmp(dataset->index.parts[p].name, name) != 0)
        p++;
    return p;
}

bool dataset_has_part(const struct dataset *dataset, const char *name)
{
    return part_find(dataset, name) < dataset->index.part_count;
}

static int refuse_part(const struct dataset *dataset, const char *name, struct err *err)
{
    struct buf known = {0};
    for (size_t p = 0; p < dataset->index.part_count; p++)
        buf_printf(&known, "%s%s", p ? ", " : "", dataset->index.parts[p].name);
    int rc = err_set(err, ERR_NOT_FOUND, "dataset '%s' has no part '%s'; it has %s",
                     dataset->path, name, buf_text(&known));
    buf_done(&known);
    return rc;
}

int dataset_part(struct dataset *dataset, const char *name, const struct dataset_part **out,
                 struct err *err)
{
    size_t p = part_find(dataset, name);
    if (p == dataset->index.part_count)
        return refuse_part(dataset, name, err);
    struct dataset_part *part = &dataset->parts[p];
    if (!part->shards && part_map(dataset, &dataset->index.parts[p], part, err) < 0) {
        part_unmap(part);
        return err_wrap(err, "part '%s'", name);
    }
    *out = part;
    return 0;
}

size_t dataset_shard_of(const struct dataset_part *part, uint64_t index)
{
    CHECK(index < part->document_count);
    size_t low = 0, high = part->shard_count - 1;
    while (low < high) {
        size_t middle = (low + high + 1) / 2;
        if (part->document_base[middle] <= index)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

void dataset_document(const struct dataset_part *part, uint64_t index, struct token_list *out)
{
    size_t at = dataset_shard_of(part, index);
    const struct shard *shard = part->shards[at];
    uint64_t local = index - part->document_base[at];
    uint64_t begin = shard->document_start[local], end = shard->document_start[local + 1];
    out->count = 0;
    if ((shard->flags & SHARD_FLAG_SEPARATOR_AFTER) && begin < end)
        end--;
    for (uint64_t i = begin; i < end; i++) {
        VEC_RESERVE(out->ids, out->count, out->capacity);
        out->ids[out->count++] = shard_token(shard, i);
    }
}

static int read_text_line(const char *line, size_t length, struct dataset_text *out,
                          struct err *err)
{
    json_error_t why;
    json_t *root = json_loadb(line, length, JSON_REJECT_DUPLICATES, &why);
    const char *id = json_string_value(json_object_get(root, "id"));
    const char *text = json_string_value(json_object_get(root, "text"));
    int rc = 0;
    if (!id || !text)
        rc = err_set(err, ERR_PROTOCOL, "not an object with id and text");
    else
        *out = (struct dataset_text){mem_strdup(id), mem_strdup(text)};
    json_decref(root);
    return rc;
}

int dataset_texts_read(const struct dataset_part *part, struct dataset_texts *out,
                       struct err *err)
{
    if (!part->texts_path)
        return err_set(err, ERR_NOT_FOUND, "part '%s' has no texts", part->name);
    struct dataset_texts texts = {0};
    size_t length, capacity = 0;
    char *bytes;
    if (file_read(part->texts_path, TEXTS_BYTES_MAX, &bytes, &length, err) < 0)
        return -1;
    int rc = 0;
    for (char *line = bytes; rc == 0 && line < bytes + length;) {
        char *end = memchr(line, '\n', (size_t)(bytes + length - line));
        end = end ? end : bytes + length;
        VEC_RESERVE(texts.items, texts.count, capacity);
        rc = read_text_line(line, (size_t)(end - line), &texts.items[texts.count], err);
        texts.count += rc == 0;
        line = end + 1;
    }
    mem_free(bytes);
    if (rc == 0 && texts.count != part->document_count)
        rc = err_set(err, ERR_PROTOCOL, "%zu texts for %llu documents", texts.count,
                     (unsigned long long)part->document_count);
    if (rc < 0) {
        err_wrap(err, "'%s' line %zu", part->texts_path, texts.count + 1);
        dataset_texts_done(&texts);
        return -1;
    }
    *out = texts;
    return 0;
}

void dataset_texts_done(struct dataset_texts *texts)
{
    for (size_t i = 0; i < texts->count; i++) {
        mem_free(texts->items[i].id);
        mem_free(texts->items[i].text);
    }
    mem_free(texts->items);
    *texts = (struct dataset_texts){0};
}
