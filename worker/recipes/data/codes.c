/* codes.c - recipe data/codes: pairs with control codes before their sources.
 *
 * Which fifth a pair's length and abstractiveness are in (distillation/impossible/control.h) is
 * computed on the pairs to train on and said by tokens of its own, which the dataset's tokenizer
 * gets in addition: finetuning/sft widens a model that was trained without them. In the part
 * train each code is left out with a probability, so that a student also works without; what is
 * left out is drawn by (seed, pair). In valid every pair has its codes. */
#include "common/base/arena.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "worker/engine/data/dataset_write.h"
#include "worker/recipes/distillation/impossible/control.h"
#include "worker/recipes/recipe.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHARD_TOKENS 100000000

enum part { PART_TRAIN = 0, PART_VALID, PART_END };

struct pair {
    double value[CONTROL_END];
    unsigned bucket[CONTROL_END]; /* 0: no code of this kind */
};

struct codes {
    struct dataset *pairs;
    struct dataset_texts texts[PART_END];
    struct control control;
    struct tokenizer *tokenizer; /* of the pairs, with the codes */
    struct arena arena;
    struct dataset_document *documents; /* train, then valid */
    struct pair *pair;
    size_t count;
    uint64_t counts[CONTROL_END][CONTROL_BUCKETS + 1]; /* of train; 0: left out */
};

/* ---- reading ---------------------------------------------------------------------------- */

static int read_part(struct codes *codes, enum part part, const char *name, struct err *err)
{
    const struct dataset_part *found;

    if (dataset_part(codes->pairs, name, &found, err) < 0)
        return -1;
    return dataset_texts_read(found, &codes->texts[part], err);
}

static int codes_open(struct run *run, void *opaque, struct err *err)
{
    struct codes *codes = opaque;
    const struct run_input *given = run_input(run, "pairs");
    bool one = *given->part != 0;

    run->step_count = 1;
    codes->control.count = strcmp(run_string(run, "codes"), "len") == 0 ? 1 : CONTROL_END;
    if (dataset_open(given->path, &codes->pairs, err) < 0 ||
        read_part(codes, PART_TRAIN, one ? given->part : "train", err) < 0 ||
        (!one && dataset_has_part(codes->pairs, "valid") &&
         read_part(codes, PART_VALID, "valid", err) < 0))
        return err_wrap(err, "input 'pairs' (%s)", given->ref);
    return 0;
}

static int measure_pair(struct codes *codes, enum part part, size_t i, struct err *err)
{
    const struct dataset_text *item = &codes->texts[part].items[i];
    const char *newline = strrchr(item->text, '\n');
    struct pair *pair = &codes->pair[codes->count];

    if (!newline || newline == item->text || !newline[1])
        return err_set(err, ERR_INVALID, "document %zu ('%s') is no pair; a source, a newline and "
                       "its rewrite are expected", i, item->id);
    char *x = mem_strndup(item->text, (size_t)(newline - item->text));
    control_measure(x, newline + 1, pair->value);
    mem_free(x);
    codes->documents[codes->count++] = (struct dataset_document){
        .id = item->id, .text = item->text, .length = strlen(item->text)};
    return 0;
}

static int measure_pairs(struct codes *codes, struct err *err)
{
    size_t all = codes->texts[PART_TRAIN].count + codes->texts[PART_VALID].count;

    codes->documents = mem_array(all + 1, sizeof *codes->documents);
    codes->pair = mem_array(all + 1, sizeof *codes->pair);
    if (codes->texts[PART_TRAIN].count == 0)
        return err_set(err, ERR_INVALID, "input 'pairs' holds no documents");
    for (enum part part = 0; part < PART_END; part++)
        for (size_t i = 0; i < codes->texts[part].count; i++)
            if (measure_pair(codes, part, i, err) < 0)
                return -1;
    return 0;
}

/* ---- codes ------------------------------------------------------------------------------ */

static void set_limits(struct codes *codes)
{
    size_t count = codes->texts[PART_TRAIN].count;
    double *values = mem_array(count, sizeof *values);

    for (enum control_kind kind = 0; kind < codes->control.count; kind++) {
        for (size_t i = 0; i < count; i++)
            values[i] = codes->pair[i].value[kind];
        control_set_limits(&codes->control, kind, values, count);
    }
    mem_free(values);
}

static void choose_codes(struct run *run, struct codes *codes)
{
    uint64_t seed = (uint64_t)run_int(run, "seed");
    double drop = run_float(run, "drop");

    for (size_t i = 0; i < codes->count; i++)
        for (enum control_kind kind = 0; kind < codes->control.count; kind++) {
            struct pair *pair = &codes->pair[i];
            bool train = i < codes->texts[PART_TRAIN].count;
            if (!train || rng_unit_at(seed, i, kind) >= drop)
                pair->bucket[kind] = control_bucket(&codes->control, kind, pair->value[kind]);
            codes->counts[kind][pair->bucket[kind]] += train;
        }
}

static int widen_tokenizer(struct codes *codes, struct err *err)
{
    char token[CONTROL_END * CONTROL_BUCKETS][CONTROL_TOKEN_SIZE];
    const char *list[ARRAY_COUNT(token)];
    size_t count = 0;

    for (enum control_kind kind = 0; kind < codes->control.count; kind++)
        for (unsigned b = 1; b <= CONTROL_BUCKETS; b++, count++) {
            control_token(kind, b, token[count]);
            list[count] = token[count];
        }
    if (tokenizer_read(dataset_path(codes->pairs), &codes->tokenizer, err) < 0)
        return -1;
    return tokenizer_extend(&codes->tokenizer, list, count, err);
}

static void put_codes(struct codes *codes)
{
    for (size_t i = 0; i < codes->count; i++) {
        struct dataset_document *document = &codes->documents[i];
        uint32_t *ids = arena_alloc(&codes->arena, CONTROL_END * sizeof *ids);
        for (enum control_kind kind = 0; kind < codes->control.count; kind++) {
            char token[CONTROL_TOKEN_SIZE];
            if (!codes->pair[i].bucket[kind])
                continue;
            control_token(kind, codes->pair[i].bucket[kind], token);
            ids[document->code_count++] = tokenizer_find(codes->tokenizer, token, strlen(token));
        }
        document->codes = ids;
    }
}

/* ---- the dataset ------------------------------------------------------------------------ */

/* {"codes": {"drop", "len": {"limits", "counts", "left_out"}, ...}} */
static char *card(const struct run *run, const struct codes *codes)
{
    json_t *root = control_json(&codes->control), *wrapped;

    for (enum control_kind kind = 0; kind < codes->control.count; kind++) {
        json_t *counts = json_array(), *of = json_object_get(root, control_kind_name(kind));
        for (unsigned b = 1; b <= CONTROL_BUCKETS; b++)
            json_array_append_new(counts, json_integer((json_int_t)codes->counts[kind][b]));
        json_object_set_new(of, "counts", counts);
        json_object_set_new(of, "left_out", json_integer((json_int_t)codes->counts[kind][0]));
    }
    json_object_set_new(root, "drop", json_real(run_float(run, "drop")));
    json_object_set_new(root, "pairs", json_string(run_input(run, "pairs")->ref));
    wrapped = json_pack("{s:o}", "codes", root);
    char *text = json_dumps(wrapped, JSON_COMPACT), *out;
    CHECK(text);
    out = mem_strdup(text);
    free(text);
    json_decref(wrapped);
    return out;
}

static int write_parts(struct codes *codes, struct dataset_writer *writer, struct err *err)
{
    static const char *const names[PART_END] = {"train", "valid"};
    uint64_t *indices = mem_array(codes->count + 1, sizeof *indices);
    size_t from = 0;
    int rc = 0;

    for (size_t i = 0; i < codes->count; i++)
        indices[i] = i;
    for (enum part part = 0; part < PART_END && rc == 0; part++) {
        size_t count = codes->texts[part].count;
        if (count)
            rc = dataset_writer_part(writer, names[part], indices + from, count, err);
        from += count;
    }
    mem_free(indices);
    return rc;
}

static int write_dataset(struct run *run, struct codes *codes, struct err *err)
{
    const char *name = *run_string(run, "name") ? run_string(run, "name") : run->name;
    char *parent = mem_printf("%s/datasets", run->job_dir);
    char *folder = mem_printf("%s/%s", parent, name), *meta = card(run, codes);
    struct dataset_writer *writer = NULL;
    int rc = file_make_folders(parent, 0755, err);

    if (rc == 0)
        rc = dataset_writer_open(folder, name, codes->tokenizer, codes->documents, codes->count,
                                 SHARD_TOKENS, &writer, err);
    if (rc == 0)
        rc = write_parts(codes, writer, err);
    if (rc == 0)
        rc = dataset_writer_index(writer, meta, err);
    if (rc == 0)
        rc = dataset_writer_commit(writer, err);
    if (rc == 0)
        rc = run_artifact(run, "dataset", name, folder, meta, err);
    dataset_writer_close(writer);
    mem_free(meta);
    mem_free(folder);
    mem_free(parent);
    return rc;
}

static void report(struct run *run, const struct codes *codes)
{
    run_metric(run, "pairs", (double)codes->count);
    for (enum control_kind kind = 0; kind < codes->control.count; kind++)
        for (unsigned b = 1; b <= CONTROL_BUCKETS; b++) {
            char name[48];
            snprintf(name, sizeof name, "pairs_%s_%u", control_kind_name(kind), b);
            run_metric(run, name, (double)codes->counts[kind][b]);
            if (codes->counts[kind][b] == 0) {
                char *text = mem_printf("no pair to train on has the code <%s:%u>: too many are "
                                        "alike for fifths", control_kind_name(kind), b);
                run_event(run, "empty_code", text);
                mem_free(text);
            }
        }
}

static int codes_step(struct run *run, void *opaque, struct err *err)
{
    struct codes *codes = opaque;

    if (run->rank != 0)
        return 0;
    run->phase = "codes";
    if (measure_pairs(codes, err) < 0)
        return err_wrap(err, "input 'pairs' (%s)", run_input(run, "pairs")->ref);
    set_limits(codes);
    choose_codes(run, codes);
    if (widen_tokenizer(codes, err) < 0)
        return -1;
    put_codes(codes);
    report(run, codes);
    return write_dataset(run, codes, err);
}

static void codes_close(struct run *run, void *opaque)
{
    struct codes *codes = opaque;

    (void)run;
    for (enum part part = 0; part < PART_END; part++)
        dataset_texts_done(&codes->texts[part]);
    dataset_close(codes->pairs);
    tokenizer_free(codes->tokenizer);
    arena_done(&codes->arena);
    mem_free(codes->documents);
    mem_free(codes->pair);
}

static const struct param codes_params[] = {
    {"codes", PARAM_CHOICE, "len+abs", 0, 0, "len|len+abs",
     "what codes say: the length of the rewrite for one of its source, and how other its words "
     "are"},
    {"drop", PARAM_FLOAT, "0.1", 0, 1, NULL,
     "probability that a pair of the part train is without a code, of each kind"},
    {"name", PARAM_STRING, "", 0, 0, NULL, "name of the dataset; empty: the job's name"},
    {"seed", PARAM_INT, "1337", 0, 9e15, NULL, "draws which codes are left out"},
};

static const struct input codes_inputs[] = {
    {"pairs", INPUT_DATASET, true,
     "documents of a source, a newline and a rewrite: its parts train and valid, or the part "
     "named"},
};

const struct recipe recipe_data_codes = {
    .name = "codes",
    .kind = RECIPE_DATA,
    .version = 1,
    .summary = "Pairs with tokens before each source that tell length and abstractiveness",
    .source = "control codes after Jung et al. 2023 (v1, abstract); fifths and tokens: Athanor",
    .params = codes_params,
    .param_count = ARRAY_COUNT(codes_params),
    .inputs = codes_inputs,
    .input_count = ARRAY_COUNT(codes_inputs),
    .outputs = "dataset|metrics",
    .state_size = sizeof(struct codes),
    .open = codes_open,
    .step = codes_step,
    .close = codes_close,
};
