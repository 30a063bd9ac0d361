/* dataset_write.c - see dataset_write.h. */
#include "worker/engine/data/dataset_write.h"

#include "common/base/file.h"
#include "common/base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct dataset_writer {
    char *folder, *temporary, *name;
    const struct tokenizer *tokenizer;
    const struct dataset_document *documents;
    size_t count;
    uint64_t shard_tokens;
    struct token_list tokens; /* of all documents, separators included */
    uint64_t *start;          /* count + 1 */
    json_t *parts;
    json_t *hashed; /* by name: entries of "files"; a file is written once, and hashed once */
    bool committed;
};

/* Where one token both begins and ends texts, one between them is enough. */
static bool has_end(const struct dataset_writer *writer)
{
    return tokenizer_begin_of_text(writer->tokenizer) != tokenizer_end_of_text(writer->tokenizer);
}

static void encode_documents(struct dataset_writer *writer)
{
    uint32_t begin = tokenizer_begin_of_text(writer->tokenizer);
    uint32_t end = tokenizer_end_of_text(writer->tokenizer);
    struct token_list *tokens = &writer->tokens;
    writer->start = mem_array(writer->count + 1, sizeof *writer->start);
    for (size_t i = 0; i < writer->count; i++) {
        token_list_add(tokens, begin);
        for (size_t c = 0; c < writer->documents[i].code_count; c++)
            token_list_add(tokens, writer->documents[i].codes[c]);
        tokenizer_encode(writer->tokenizer, writer->documents[i].text,
                         writer->documents[i].length, tokens);
        if (has_end(writer))
            token_list_add(tokens, end);
        writer->start[i + 1] = tokens->count;
    }
}

int dataset_writer_open(const char *folder, const char *name, const struct tokenizer *tokenizer,
                        const struct dataset_document *documents, size_t count,
                        uint64_t shard_tokens, struct dataset_writer **out, struct err *err)
{
    if (tokenizer_end_of_text(tokenizer) >= TOKENIZER_VOCAB_MAX)
        return err_set(err, ERR_INVALID, "the tokenizer has nothing that ends texts, as "
                       TOKENIZER_END_OF_TEXT " does, to put between documents");
    struct dataset_writer *writer = mem_zalloc(sizeof *writer);
    writer->folder = mem_strdup(folder);
    writer->temporary = mem_printf("%s.tmp", folder);
    writer->name = mem_strdup(name);
    writer->tokenizer = tokenizer;
    writer->documents = documents;
    writer->count = count;
    writer->shard_tokens = shard_tokens;
    writer->parts = json_object();
    writer->hashed = json_object();
    CHECK(writer->parts && writer->hashed);
    if (file_remove_tree(writer->temporary, err) < 0 ||
        file_make_folders(writer->temporary, 0755, err) < 0 ||
        tokenizer_write(tokenizer, writer->temporary, 1000000, err) < 0) {
        dataset_writer_close(writer);
        return err_wrap(err, "make dataset '%s'", folder);
    }
    encode_documents(writer);
    *out = writer;
    return 0;
}

uint64_t dataset_writer_tokens(const struct dataset_writer *writer)
{
    return writer->tokens.count;
}

const char *dataset_writer_folder(const struct dataset_writer *writer)
{
    return writer->temporary;
}

static bool part_name_is_plain(const char *name)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-";
    size_t length = strlen(name);
    return length >= 1 && length <= 64 && name[0] != '.' && strspn(name, letters) == length;
}

/* Documents indices[0 .. count) as one shard. */
static int write_shard(const struct dataset_writer *writer, const char *path,
                       const uint64_t *indices, size_t count, struct err *err)
{
    struct token_list tokens = {0};
    uint64_t *start = mem_array(count + 1, sizeof *start);
    struct hash_stream source;
    hash_start(&source);
    for (size_t i = 0; i < count; i++) {
        const struct dataset_document *document = &writer->documents[indices[i]];
        uint64_t from = writer->start[indices[i]], to = writer->start[indices[i] + 1];
        for (uint64_t t = from; t < to; t++) {
            VEC_RESERVE(tokens.ids, tokens.count, tokens.capacity);
            tokens.ids[tokens.count++] = writer->tokens.ids[t];
        }
        start[i + 1] = tokens.count;
        hash_add(&source, document->text, document->length);
        hash_add(&source, "\n", 1);
    }
    struct shard_content content = {
        .tokens = tokens.ids,
        .token_count = tokens.count,
        .document_start = start,
        .document_count = count,
        .vocab_size = tokenizer_vocab_size(writer->tokenizer),
        .flags = SHARD_FLAG_SEPARATOR_BEFORE | (has_end(writer) ? SHARD_FLAG_SEPARATOR_AFTER : 0),
        .tokenizer = *tokenizer_identity(writer->tokenizer),
    };
    hash_end(&source, &content.source);
    int rc = shard_write(path, &content, err);
    token_list_done(&tokens);
    mem_free(start);
    return rc;
}

static int write_shards(struct dataset_writer *writer, const char *name, const uint64_t *indices,
                        size_t count, json_t *shards, struct err *err)
{
    for (size_t from = 0, number = 0; from < count; number++) {
        uint64_t tokens = 0;
        size_t to = from;
        while (to < count && (to == from || tokens < writer->shard_tokens)) {
            tokens += writer->start[indices[to] + 1] - writer->start[indices[to]];
            to++;
        }
        char *file = mem_printf("%s-%05zu.aths", name, number);
        char *path = mem_printf("%s/%s", writer->temporary, file);
        int rc = write_shard(writer, path, indices + from, to - from, err);
        CHECK(json_array_append_new(shards, json_string(file)) == 0);
        mem_free(path);
        mem_free(file);
        if (rc < 0)
            return -1;
        from = to;
    }
    return 0;
}

/* The texts of a document's codes, where it has any: for people, readers take text alone. */
static int put_codes(const struct dataset_writer *writer, const struct dataset_document *document,
                     json_t *line)
{
    json_t *codes = json_array();
    size_t length;

    for (size_t c = 0; c < document->code_count; c++) {
        const char *text = tokenizer_token(writer->tokenizer, document->codes[c], &length);
        json_array_append_new(codes, json_stringn(text, length));
    }
    return json_object_set_new(line, "codes", codes);
}

static int write_texts(const struct dataset_writer *writer, const char *path,
                       const uint64_t *indices, size_t count, struct err *err)
{
    struct buf out = {0};
    int rc = 0;
    for (size_t i = 0; i < count && rc == 0; i++) {
        const struct dataset_document *document = &writer->documents[indices[i]];
        json_t *line = json_pack("{s:s, s:s%}", "id", document->id, "text", document->text,
                                 document->length);
        if (line && document->code_count)
            CHECK(put_codes(writer, document, line) == 0);
        char *text = line ? json_dumps(line, JSON_COMPACT) : NULL;
        if (text)
            buf_printf(&out, "%s\n", text);
        else
            rc = err_set(err, ERR_INVALID, "document '%s' is not UTF-8", document->id);
        free(text);
        json_decref(line);
    }
    if (rc == 0)
        rc = file_replace(path, buf_text(&out), out.length, 0644, err);
    buf_done(&out);
    return rc;
}

int dataset_writer_part(struct dataset_writer *writer, const char *name, const uint64_t *indices,
                        size_t count, struct err *err)
{
    uint64_t tokens = 0, bytes = 0;
    CHECK(count > 0);
    if (!part_name_is_plain(name) || json_object_get(writer->parts, name))
        return err_set(err, ERR_INVALID, "part name '%s' is used twice or not of 1 to 64 letters, "
                       "digits, '_', '.' and '-'", name);
    for (size_t i = 0; i < count; i++) {
        CHECK(indices[i] < writer->count);
        tokens += writer->start[indices[i] + 1] - writer->start[indices[i]];
        bytes += writer->documents[indices[i]].length;
    }
    json_t *shards = json_array();
    char *texts = mem_printf("%s.jsonl", name);
    char *path = mem_printf("%s/%s", writer->temporary, texts);
    int rc = write_shards(writer, name, indices, count, shards, err);
    if (rc == 0)
        rc = write_texts(writer, path, indices, count, err);
    json_t *part = json_pack("{s:o, s:I, s:I, s:I, s:s}", "shards", shards, "tokens",
                             (json_int_t)tokens, "documents", (json_int_t)count, "bytes",
                             (json_int_t)bytes, "texts", texts);
    CHECK(part && json_object_set_new(writer->parts, name, part) == 0);
    mem_free(path);
    mem_free(texts);
    return rc;
}

/* ---- files, so that another worker can fetch and check them ------------------------------- */

static int file_describe(const char *path, const char *name, json_t **out, struct err *err)
{
    struct hash content;
    struct stat info;
    char hex[HASH_HEX_SIZE];
    if (stat(path, &info) < 0)
        return err_errno(err, "look at '%s'", path);
    if (!S_ISREG(info.st_mode))
        return err_set(err, ERR_INVALID, "'%s' is no file: a dataset is a flat folder", path);
    if (hash_file(path, &content, err) < 0)
        return -1;
    hash_to_hex(&content, hex);
    *out = json_pack("{s:s, s:I, s:s}", "name", name, "size_bytes", (json_int_t)info.st_size,
                     "blake2b", hex);
    return *out ? 0 : err_set(err, ERR_INVALID, "the name of '%s' is not UTF-8", path);
}

static int is_covered(const struct dirent *entry)
{
    return entry->d_name[0] != '.' && strcmp(entry->d_name, "dataset.json") != 0;
}

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

/* Every file of the folder but dataset.json itself, in order of name: the same form as a
 * checkpoint's manifest. */
static int files_describe(struct dataset_writer *writer, json_t *files, struct err *err)
{
    struct dirent **entries;
    int count = scandir(writer->temporary, &entries, is_covered, by_bytes), rc = 0;
    if (count < 0)
        return err_errno(err, "list '%s'", writer->temporary);
    for (int i = 0; i < count; i++) {
        const char *name = entries[i]->d_name;
        json_t *entry = json_incref(json_object_get(writer->hashed, name));
        if (rc == 0 && !entry) {
            char *path = mem_printf("%s/%s", writer->temporary, name);
            rc = file_describe(path, name, &entry, err);
            if (rc == 0)
                CHECK(json_object_set(writer->hashed, name, entry) == 0);
            mem_free(path);
        }
        if (rc == 0)
            CHECK(json_array_append(files, entry) == 0);
        json_decref(entry);
        free(entries[i]);
    }
    free(entries);
    return rc;
}

int dataset_writer_index(struct dataset_writer *writer, const char *extra_json, struct err *err)
{
    json_t *root = json_pack("{s:i, s:s, s:s, s:I, s:O}", "format", DATASET_FORMAT, "name",
                             writer->name, "tokenizer", "tokenizer.json", "vocab_size",
                             (json_int_t)tokenizer_vocab_size(writer->tokenizer), "parts",
                             writer->parts);
    json_t *files = json_array();
    int rc = files_describe(writer, files, err);
    CHECK(root && json_object_set_new(root, "files", files) == 0);
    if (rc < 0) {
        json_decref(root);
        return -1;
    }
    json_t *extra = extra_json ? json_loads(extra_json, JSON_REJECT_DUPLICATES, NULL) : NULL;
    CHECK(!extra_json || json_is_object(extra));
    CHECK(!extra || json_object_update_missing(root, extra) == 0);
    json_decref(extra);
    char *text = json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(12));
    CHECK(text);
    char *path = mem_printf("%s/dataset.json", writer->temporary);
    rc = file_replace(path, text, strlen(text), 0644, err);
    mem_free(path);
    free(text);
    json_decref(root);
    return rc;
}

int dataset_writer_commit(struct dataset_writer *writer, struct err *err)
{
    if (file_sync_folder(writer->temporary, err) < 0)
        return -1;
    if (rename(writer->temporary, writer->folder) < 0) {
        if (errno != EEXIST && errno != ENOTEMPTY)
            return err_errno(err, "rename '%s' to '%s'", writer->temporary, writer->folder);
        /* The old dataset changes places with the new one: at no moment there is none. */
        if (renameat2(AT_FDCWD, writer->temporary, AT_FDCWD, writer->folder, RENAME_EXCHANGE) < 0)
            return err_errno(err, "exchange '%s' with '%s'", writer->temporary, writer->folder);
        if (file_remove_tree(writer->temporary, err) < 0)
            return -1;
    }
    writer->committed = true;
    return 0;
}

void dataset_writer_close(struct dataset_writer *writer)
{
    struct err ignored; /* a leftover is removed by the next writer of this folder */
    if (!writer)
        return;
    if (!writer->committed && file_remove_tree(writer->temporary, &ignored) < 0)
        err_clear(&ignored);
    token_list_done(&writer->tokens);
    mem_free(writer->start);
    json_decref(writer->parts);
    json_decref(writer->hashed);
    mem_free(writer->folder);
    mem_free(writer->temporary);
    mem_free(writer->name);
    mem_free(writer);
}
