/* embed.c - see embed.h. */
#include "worker/recipes/embed.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "worker/engine/io/safetensors.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

#define TABLE_TOKENS_MAX 512 /* of a text, as its makers' programs read */

struct embedder {
    struct encoder encoder; /* of its tokenizer only where there is a table */
    enum encode_what what;
    float *table;           /* (rows, width), or NULL */
    size_t rows, width;
    uint32_t unknown;       /* the id that stands for what the vocabulary lacks */
};

/* ---- opening ---------------------------------------------------------------------------- */

static int read_type(const char *folder, bool *out_table, struct err *err)
{
    char *path = mem_printf("%s/config.json", folder), *bytes = NULL;
    size_t length;

    *out_table = false;
    if (!file_exists(path)) { /* npm's has none */
        mem_free(path);
        return 0;
    }
    int rc = file_read(path, 1 << 20, &bytes, &length, err);
    if (rc == 0) {
        json_error_t why;
        json_t *root = json_loadb(bytes, length, 0, &why);
        const char *type = json_string_value(json_object_get(root, "model_type"));
        if (!root)
            rc = err_set(err, ERR_PROTOCOL, "'%s' line %d column %d: %s", path, why.line,
                         why.column, why.text);
        *out_table = type && strcmp(type, "model2vec") == 0;
        json_decref(root);
    }
    mem_free(bytes);
    mem_free(path);
    return rc;
}

static int read_numbers(const struct safetensors *file, const struct st_entry *entry, float *out,
                        struct err *err)
{
    uint64_t count = st_entry_count(entry);

    if (entry->type != ST_I8)
        return safetensors_read_f32(file, entry, 0, count, out, err);
    for (uint64_t i = 0; i < count; i++)
        out[i] = (float)(int8_t)file->data[entry->begin + i];
    return 0;
}

static int take_table(struct embedder *embedder, const struct safetensors *file, struct err *err)
{
    const struct st_entry *entry = &file->entries[0];
    uint64_t ids = tokenizer_vocab_size(embedder->encoder.tokenizer);

    if (file->count != 1 || strcmp(entry->name, "embeddings") != 0 || entry->dim_count != 2)
        return err_set(err, ERR_INVALID, "a table of token vectors is one matrix 'embeddings'; "
                       "this file holds %zu tensors, the first is '%s'", file->count,
                       file->count ? entry->name : "none");
    if (entry->shape[0] < ids || entry->shape[1] == 0)
        return err_set(err, ERR_INVALID, "'embeddings' has %llu rows of %llu numbers; the "
                       "tokenizer has %llu ids", (unsigned long long)entry->shape[0],
                       (unsigned long long)entry->shape[1], (unsigned long long)ids);
    embedder->rows = (size_t)entry->shape[0];
    embedder->width = (size_t)entry->shape[1];
    embedder->table = mem_array(embedder->rows * embedder->width, sizeof *embedder->table);
    return read_numbers(file, entry, embedder->table, err);
}

static uint32_t find_unknown(const struct tokenizer *tokenizer)
{
    static const char *const names[] = {"[UNK]", "<unk>"};

    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        uint32_t id = tokenizer_find(tokenizer, names[i], strlen(names[i]));
        if (id != TOKENIZER_VOCAB_MAX)
            return id;
    }
    return TOKENIZER_VOCAB_MAX;
}

static int open_table(const char *folder, struct embedder *embedder, struct err *err)
{
    char *path = mem_printf("%s/model.safetensors", folder);
    struct safetensors file;
    int rc = tokenizer_read(folder, &embedder->encoder.tokenizer, err);

    if (rc == 0 && (rc = safetensors_open(path, &file, err)) == 0) {
        rc = take_table(embedder, &file, err);
        safetensors_close(&file);
        if (rc < 0)
            err_wrap(err, "'%s'", path);
    }
    mem_free(path);
    if (rc == 0)
        embedder->unknown = find_unknown(embedder->encoder.tokenizer);
    return rc;
}

static int open_encoder(const char *folder, struct device *device, struct embedder *embedder,
                        struct err *err)
{
    if (encoder_open(folder, device, &embedder->encoder, err) < 0)
        return -1;
    bool own = embedder->encoder.model->config.family == MODEL_KONA;
    embedder->what = own ? ENCODE_OWN : ENCODE_MEAN;
    embedder->width = (size_t)encoder_columns(&embedder->encoder, embedder->what);
    return 0;
}

int embedder_open(const char *folder, struct device *device, struct embedder **out,
                  struct err *err)
{
    struct embedder *embedder = mem_zalloc(sizeof *embedder);
    bool table;

    if (read_type(folder, &table, err) < 0 ||
        (table ? open_table(folder, embedder, err) : open_encoder(folder, device, embedder, err)) <
            0) {
        embedder_close(embedder);
        return -1;
    }
    *out = embedder;
    return 0;
}

void embedder_close(struct embedder *embedder)
{
    if (!embedder)
        return;
    encoder_close(&embedder->encoder);
    mem_free(embedder->table);
    mem_free(embedder);
}

size_t embedder_width(const struct embedder *embedder)
{
    return embedder->width;
}

uint64_t embedder_text_count(const struct embedder *embedder)
{
    return embedder->encoder.texts;
}

uint64_t embedder_cut_count(const struct embedder *embedder)
{
    return embedder->encoder.cut;
}

/* ---- vectors ---------------------------------------------------------------------------- */

static void look_up(struct embedder *embedder, const char *text, struct token_list *ids)
{
    size_t kept = 0;

    ids->count = 0;
    tokenizer_encode(embedder->encoder.tokenizer, text, strlen(text), ids);
    for (size_t i = 0; i < ids->count; i++)
        if (ids->ids[i] != embedder->unknown && ids->ids[i] < embedder->rows)
            ids->ids[kept++] = ids->ids[i];
    embedder->encoder.texts++;
    embedder->encoder.cut += kept > TABLE_TOKENS_MAX;
    ids->count = kept > TABLE_TOKENS_MAX ? TABLE_TOKENS_MAX : kept;
}

static void make_unit(float *vector, size_t width)
{
    double squares = 0;

    for (size_t i = 0; i < width; i++)
        squares += (double)vector[i] * (double)vector[i];
    for (size_t i = 0; i < width && squares > 0; i++)
        vector[i] = (float)((double)vector[i] / sqrt(squares));
}

static void mean_of_table(struct embedder *embedder, const struct token_list *ids, float *out)
{
    memset(out, 0, embedder->width * sizeof *out);
    for (size_t t = 0; t < ids->count; t++)
        for (size_t i = 0; i < embedder->width; i++)
            out[i] += embedder->table[ids->ids[t] * embedder->width + i];
    make_unit(out, embedder->width);
}

struct rows_out {
    float *out;
    size_t width;
};

static void take_row(void *argument, size_t index, const float *values, size_t rows)
{
    struct rows_out *to = argument;

    (void)rows;
    memcpy(to->out + index * to->width, values, to->width * sizeof *values);
}

static struct encode_text *alone(const char *const *texts, size_t count)
{
    struct encode_text *items = mem_array(count + 1, sizeof *items);

    for (size_t i = 0; i < count; i++)
        items[i].x = texts[i];
    return items;
}

int embedder_vectors(struct embedder *embedder, const char *const *texts, size_t count, float *out,
                     struct err *err)
{
    struct rows_out to = {out, embedder->width};
    struct token_list ids = {0};

    if (!embedder->table) {
        struct encode_text *items = alone(texts, count);
        int rc = encode(&embedder->encoder, items, count, embedder->what, take_row, &to, err);
        mem_free(items);
        return rc;
    }
    for (size_t i = 0; i < count; i++) {
        look_up(embedder, texts[i], &ids);
        mean_of_table(embedder, &ids, out + i * embedder->width);
    }
    token_list_done(&ids);
    return 0;
}

static void visit_table(struct embedder *embedder, const char *const *texts, size_t count,
                        encode_visit visit, void *argument)
{
    size_t width = embedder->width;
    float *values = mem_array(TABLE_TOKENS_MAX * width, sizeof *values);
    struct token_list ids = {0};

    for (size_t i = 0; i < count; i++) {
        look_up(embedder, texts[i], &ids);
        for (size_t t = 0; t < ids.count; t++)
            memcpy(values + t * width, embedder->table + ids.ids[t] * width,
                   width * sizeof *values);
        visit(argument, i, values, ids.count);
    }
    token_list_done(&ids);
    mem_free(values);
}

int embedder_tokens(struct embedder *embedder, const char *const *texts, size_t count,
                    encode_visit visit, void *argument, struct err *err)
{
    if (embedder->table) {
        visit_table(embedder, texts, count, visit, argument);
        return 0;
    }
    struct encode_text *items = alone(texts, count);
    int rc = encode(&embedder->encoder, items, count, ENCODE_STATES, visit, argument, err);
    mem_free(items);
    return rc;
}

double embed_cosine(const float *a, const float *b, size_t width)
{
    double dot = 0, aa = 0, bb = 0;

    for (size_t i = 0; i < width; i++) {
        dot += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    return aa > 0 && bb > 0 ? dot / sqrt(aa * bb) : 0;
}
