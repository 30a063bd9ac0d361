/* checkpoint_write.c - saving: temporary folder, hashes, manifest, rename; see checkpoint.h. */
#include "common/base/buf.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "worker/engine/data/tokenizer.h"
#include "worker/engine/io/checkpoint.h"
#include "worker/engine/io/safetensors.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define COPY_BYTES_MAX ((size_t)1 << 30)

struct checkpoint_writer {
    char *folder;    /* of all checkpoints */
    char *temporary; /* folder/tmp-step-... */
    char *final;     /* folder/step-... */
    uint64_t step;
    unsigned rank, rank_count;
    json_t *values; /* trainer.json's */
    struct st_array *slices;
    size_t slice_count, slice_capacity;
    bool committed;
};

int checkpoint_begin(const char *folder, uint64_t step, unsigned rank, unsigned rank_count,
                     struct checkpoint_writer **out, struct err *err)
{
    struct checkpoint_writer *writer = mem_zalloc(sizeof *writer);
    writer->folder = mem_strdup(folder);
    writer->temporary = mem_printf("%s/tmp-step-%010llu", folder, (unsigned long long)step);
    writer->final = mem_printf("%s/step-%010llu", folder, (unsigned long long)step);
    writer->step = step;
    writer->rank = rank;
    writer->rank_count = rank_count;
    writer->values = json_object();
    CHECK(writer->values);
    /* A leftover of a killed run is of no use: it has no manifest. */
    if (rank == 0 && (file_remove_tree(writer->temporary, err) < 0 ||
                      file_make_folders(writer->temporary, 0755, err) < 0)) {
        checkpoint_writer_free(writer);
        return err_wrap(err, "begin a checkpoint in '%s'", folder);
    }
    *out = writer;
    return 0;
}

unsigned checkpoint_rank(const struct checkpoint_writer *writer)
{
    return writer->rank;
}

unsigned checkpoint_rank_count(const struct checkpoint_writer *writer)
{
    return writer->rank_count;
}

const char *checkpoint_folder(const struct checkpoint_writer *writer)
{
    return writer->temporary;
}

int checkpoint_add_arrays(struct checkpoint_writer *writer, const struct named_array *arrays,
                          size_t count, struct err *err)
{
    if (writer->rank != 0)
        return 0;
    return arrays_write_folder(writer->temporary, arrays, count, MODEL_SHARD_BYTES, err);
}

int checkpoint_add_slice(struct checkpoint_writer *writer, const char *kind, const char *name,
                         uint64_t begin, uint64_t end, const float *values, struct err *err)
{
    CHECK(begin <= end);
    size_t bytes = (size_t)(end - begin) * sizeof *values;
    float *copy = malloc(bytes + 1);
    if (!copy)
        return err_set(err, ERR_MEMORY, "a copy of %s of '%s' needs %zu bytes", kind, name, bytes);
    memcpy(copy, values, bytes);
    VEC_RESERVE(writer->slices, writer->slice_count, writer->slice_capacity);
    writer->slices[writer->slice_count++] = (struct st_array){
        .name = mem_printf("%s:%s:%llu-%llu", kind, name, (unsigned long long)begin,
                           (unsigned long long)end),
        .type = ST_F32,
        .dim_count = 1,
        .shape = {end - begin},
        .values = copy,
    };
    return 0;
}

static void put_value(struct checkpoint_writer *writer, const char *name, json_t *value)
{
    CHECK(value && json_object_set_new(writer->values, name, value) == 0);
}

void checkpoint_put_int(struct checkpoint_writer *writer, const char *name, int64_t value)
{
    put_value(writer, name, json_integer(value));
}

void checkpoint_put_float(struct checkpoint_writer *writer, const char *name, double value)
{
    put_value(writer, name, json_real(value)); /* finite: json_real refuses the others */
}

void checkpoint_put_text(struct checkpoint_writer *writer, const char *name, const char *value)
{
    put_value(writer, name, json_string(value));
}

int checkpoint_add_file(struct checkpoint_writer *writer, const char *name, const void *bytes,
                        size_t length, struct err *err)
{
    CHECK(!strchr(name, '/') && name[0] != '.');
    if (writer->rank != 0)
        return 0;
    char *path = mem_printf("%s/%s", writer->temporary, name);
    int rc = file_replace(path, bytes, length, 0644, err);
    mem_free(path);
    return rc;
}

int checkpoint_copy_file(struct checkpoint_writer *writer, const char *name, const char *from,
                         struct err *err)
{
    char *bytes;
    size_t length;
    if (writer->rank != 0)
        return 0;
    if (file_read(from, COPY_BYTES_MAX, &bytes, &length, err) < 0)
        return -1;
    int rc = checkpoint_add_file(writer, name, bytes, length, err);
    mem_free(bytes);
    return rc;
}

#define LENGTH_UNKNOWN 1000000 /* of texts: what datasets say too */

static int convert_tokenizer(struct checkpoint_writer *writer, const char *from_folder,
                             struct err *err)
{
    struct tokenizer *tokenizer;
    if (!tokenizer_is_in(from_folder))
        return 0;
    if (tokenizer_read(from_folder, &tokenizer, err) < 0)
        return -1;
    int rc = tokenizer_write(tokenizer, writer->temporary, LENGTH_UNKNOWN, err);
    tokenizer_free(tokenizer);
    return rc;
}

int checkpoint_copy_tokenizer(struct checkpoint_writer *writer, const char *from_folder,
                              struct err *err)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json",
                                        "special_tokens_map.json"};
    int rc = 0;
    char *main_file = mem_printf("%s/%s", from_folder, names[0]);
    bool as_it_is = file_exists(main_file);
    mem_free(main_file);
    if (!as_it_is)
        return writer->rank == 0 ? convert_tokenizer(writer, from_folder, err) : 0;
    for (size_t i = 0; i < ARRAY_COUNT(names) && rc == 0; i++) {
        char *path = mem_printf("%s/%s", from_folder, names[i]);
        if (file_exists(path))
            rc = checkpoint_copy_file(writer, names[i], path, err);
        mem_free(path);
    }
    return rc;
}

int checkpoint_finish_rank(struct checkpoint_writer *writer, struct err *err)
{
    if (writer->slice_count == 0)
        return 0;
    char *path = mem_printf("%s/optim-%05u-of-%05u.safetensors", writer->temporary, writer->rank,
                            writer->rank_count);
    int rc = safetensors_write(path, writer->slices, writer->slice_count, err);
    mem_free(path);
    return rc;
}

static int write_json(const char *folder, const char *name, json_t *root, struct err *err)
{
    char *text = json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(17) | JSON_SORT_KEYS);
    CHECK(text);
    char *path = mem_printf("%s/%s", folder, name);
    int rc = file_replace(path, text, strlen(text), 0644, err);
    mem_free(path);
    free(text);
    json_decref(root);
    return rc;
}

static int write_trainer(struct checkpoint_writer *writer, struct err *err)
{
    json_t *root = json_pack("{s:i, s:I, s:i, s:O}", "format", 1, "step",
                             (json_int_t)writer->step, "rank_count", (int)writer->rank_count,
                             "values", writer->values);
    CHECK(root);
    return write_json(writer->temporary, "trainer.json", root, err);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Names of the folder's files, sorted. */
static int list_files(const char *folder, char ***out, size_t *out_count, struct err *err)
{
    char **names = NULL;
    size_t count = 0, capacity = 0;
    DIR *dir = opendir(folder);
    if (!dir)
        return err_errno(err, "list '%s'", folder);
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (entry->d_name[0] == '.')
            continue;
        VEC_RESERVE(names, count, capacity);
        names[count++] = mem_strdup(entry->d_name);
    }
    closedir(dir);
    if (count)
        qsort(names, count, sizeof *names, compare_names);
    *out = names;
    *out_count = count;
    return 0;
}

int checkpoint_sweep(const char *folder, struct err *err)
{
    char **names = NULL;
    size_t count = 0;
    int rc = 0;
    if (!file_exists(folder))
        return 0;
    if (list_files(folder, &names, &count, err) < 0)
        return -1;
    for (size_t i = 0; i < count; i++) {
        char *path = mem_printf("%s/%s", folder, names[i]);
        if (rc == 0 && strncmp(names[i], "tmp-step-", 9) == 0)
            rc = file_remove_tree(path, err);
        mem_free(path);
        mem_free(names[i]);
    }
    mem_free(names);
    return rc;
}

static int describe_file(const char *folder, const char *name, json_t *files, struct err *err)
{
    char *path = mem_printf("%s/%s", folder, name), hex[HASH_HEX_SIZE];
    struct hash hash;
    struct stat status;
    int rc = hash_file(path, &hash, err);
    if (rc == 0 && stat(path, &status) < 0)
        rc = err_errno(err, "read '%s'", path);
    mem_free(path);
    if (rc < 0)
        return -1;
    hash_to_hex(&hash, hex);
    json_t *entry = json_pack("{s:s, s:I, s:s}", "name", name, "size_bytes",
                              (json_int_t)status.st_size, "blake2b", hex);
    CHECK(entry && json_array_append_new(files, entry) == 0);
    return 0;
}

static int write_manifest(struct checkpoint_writer *writer, struct err *err)
{
    char **names = NULL;
    size_t count = 0;
    if (list_files(writer->temporary, &names, &count, err) < 0)
        return -1;
    json_t *files = json_array();
    int rc = 0;
    for (size_t i = 0; i < count; i++) {
        if (rc == 0)
            rc = describe_file(writer->temporary, names[i], files, err);
        mem_free(names[i]);
    }
    mem_free(names);
    json_t *root = json_pack("{s:i, s:I, s:i, s:o}", "format", 1, "step",
                             (json_int_t)writer->step, "rank_count", (int)writer->rank_count,
                             "files", files);
    CHECK(root);
    if (rc < 0) {
        json_decref(root);
        return -1;
    }
    return write_json(writer->temporary, "manifest.json", root, err);
}

/* The old directory of this step, if any, changes places with the new one, so that at no
 * moment there is none; then it is removed under the temporary name. */
static int publish(const struct checkpoint_writer *writer, struct err *err)
{
    if (rename(writer->temporary, writer->final) == 0)
        return file_sync_folder(writer->folder, err);
    if (errno != EEXIST && errno != ENOTEMPTY)
        return err_errno(err, "rename '%s' to '%s'", writer->temporary, writer->final);
    if (renameat2(AT_FDCWD, writer->temporary, AT_FDCWD, writer->final, RENAME_EXCHANGE) < 0)
        return err_errno(err, "exchange '%s' with '%s'", writer->temporary, writer->final);
    if (file_sync_folder(writer->folder, err) < 0)
        return -1;
    return file_remove_tree(writer->temporary, err);
}

int checkpoint_commit(struct checkpoint_writer *writer, char **out_path, struct err *err)
{
    CHECK(writer->rank == 0 && !writer->committed);
    if (write_trainer(writer, err) < 0 || write_manifest(writer, err) < 0 ||
        file_sync_folder(writer->temporary, err) < 0 || publish(writer, err) < 0)
        return err_wrap(err, "checkpoint of step %llu", (unsigned long long)writer->step);
    writer->committed = true;
    *out_path = mem_strdup(writer->final);
    return 0;
}

void checkpoint_writer_free(struct checkpoint_writer *writer)
{
    struct err ignored; /* a leftover is swept by the next begin of this step */
    if (!writer)
        return;
    if (writer->rank == 0 && !writer->committed &&
        file_remove_tree(writer->temporary, &ignored) < 0)
        err_clear(&ignored);
    for (size_t i = 0; i < writer->slice_count; i++) {
        mem_free((char *)writer->slices[i].name);
        free((void *)writer->slices[i].values);
    }
    mem_free(writer->slices);
    json_decref(writer->values);
    mem_free(writer->folder);
    mem_free(writer->temporary);
    mem_free(writer->final);
    mem_free(writer);
}
