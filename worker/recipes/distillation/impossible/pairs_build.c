/* pairs_build.c - from blocks to a dataset: exact duplicates out, contexts split, card written. */
#include "worker/recipes/distillation/impossible/pairs_build.h"

#include "common/base/arena.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "worker/engine/comm.h"
#include "worker/engine/data/dataset_write.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHARD_TOKENS 100000000

/* A context's pairs are all in train or all in valid. */
static bool is_held_out(const struct pairs *pairs, uint64_t context)
{
    return rng_unit_at(pairs->filter.seed, context, UINT64_MAX) <
           run_float(pairs->run, "holdout_share");
}

static json_t *pair_object(const struct block_line *line, const struct kept_text *pair)
{
    return json_pack("{s:I, s:s, s:s, s:f, s:o, s:f}", "context", (json_int_t)line->context, "x",
                     pair->x, "y", pair->y, "forward", pair->forward, "reverse",
                     isnan(pair->reverse) ? json_null() : json_real(pair->reverse), "rouge",
                     pair->rouge);
}

/* Takes what `value` needs as JSON, and 24 bytes for a key, a colon and a comma. */
static bool has_room(const json_t *value, size_t *used, size_t most)
{
    size_t size = json_dumpb(value, NULL, 0, JSON_COMPACT | JSON_ENCODE_ANY) + 24;

    if (*used + size > most)
        return false;
    *used += size;
    return true;
}

/* An example for the card, and its context's text; false: no room for it. */
static bool add_example(struct build *build, json_t *list, json_t *example,
                        const struct block_line *line)
{
    char number[24];

    if (!has_room(example, &build->card_bytes, CARD_BYTES))
        return false;
    json_array_append(list, example);
    snprintf(number, sizeof number, "%llu", (unsigned long long)line->context);
    json_t *text = json_string(line->text);
    CHECK(text);
    if (!json_object_get(build->texts, number) &&
        has_room(text, &build->text_bytes, CARD_TEXT_BYTES))
        json_object_set(build->texts, number, text);
    json_decref(text);
    return true;
}

static void export_pair(struct build *build, const char *id, const struct block_line *line,
                        const struct kept_text *pair)
{
    json_t *object = pair_object(line, pair);
    char *text;

    json_object_set_new(object, "id", json_string(id));
    if (json_array_size(build->kept_samples) < CARD_KEPT)
        (void)add_example(build, build->kept_samples, object, line);
    text = json_dumps(object, JSON_COMPACT);
    CHECK(text);
    buf_puts(&build->export, text);
    buf_putc(&build->export, '\n');
    free(text);
    json_decref(object);
}

static void add_pair(struct build *build, const struct block_line *line,
                     const struct kept_text *pair)
{
    char *text = mem_printf("%s\n%s", pair->x, pair->y);
    size_t known = build->seen.count, length = strlen(text);
    char id[80];

    byte_map_put(&build->seen, text, length);
    if (build->seen.count == known) {
        build->duplicates++;
    } else {
        snprintf(id, sizeof id, "%llu.%zu.%zu", (unsigned long long)line->context, pair->x_sample,
                 pair->y_sample);
        VEC_RESERVE(build->documents, build->count, build->capacity);
        build->documents[build->count] = (struct dataset_document){
            .id = arena_strdup(&build->arena, id),
            .text = arena_strndup(&build->arena, text, length),
            .length = length};
        export_pair(build, id, line, pair);
        build->count++;
    }
    mem_free(text);
}

/* A few of each verdict, while the card has room. */
static void add_dropped(struct build *build, const struct block_line *line)
{
    if (!line->dropped_x || build->dropped[line->dropped] >= CARD_DROPPED)
        return;
    json_t *object = json_pack("{s:I, s:I, s:I, s:s, s:s, s:s}", "context",
                               (json_int_t)line->context, "x_sample",
                               (json_int_t)line->dropped_x_sample, "y_sample",
                               (json_int_t)line->dropped_y_sample, "x", line->dropped_x, "y",
                               line->dropped_y, "dropped", verdict_name(line->dropped));
    CHECK(object);
    if (add_example(build, build->dropped_samples, object, line))
        build->dropped[line->dropped]++;
    json_decref(object);
}

static int add_line(void *argument, const struct block_line *line, struct err *err)
{
    struct build *build = argument;
    size_t length = line->context_sentences < CARD_LENGTHS ? line->context_sentences
                                                            : CARD_LENGTHS - 1;

    (void)err;
    if (build->count >= build->pairs->target) /* wherever blocks end, the dataset ends here */
        return 0;
    build->sum.contexts++;
    build->length[length].contexts++;
    for (enum verdict v = 0; v < VERDICT_END; v++) {
        build->sum.count[v] += line->count[v];
        build->length[length].count[v] += line->count[v];
    }
    for (size_t i = 0; i < line->kept_count; i++)
        add_pair(build, line, &line->kept[i]);
    add_dropped(build, line);
    return 0;
}

static int read_blocks(struct build *build, struct err *err)
{
    for (uint64_t b = 0; b < build->pairs->block_count; b++) {
        char *path = pairs_block_path(build->pairs, b, "jsonl");
        int rc = build->count < build->pairs->target
                     ? block_read(path, build->pairs->header, pairs_block_size(build->pairs, b),
                                  add_line, build, err)
                     : 0;
        mem_free(path);
        if (rc < 0)
            return -1;
    }
    return 0;
}

static void split(struct build *build)
{
    build->train = mem_array(build->count + 1, sizeof *build->train);
    build->valid = mem_array(build->count + 1, sizeof *build->valid);
    for (size_t i = 0; i < build->count; i++) {
        uint64_t context = strtoull(build->documents[i].id, NULL, 10);
        if (is_held_out(build->pairs, context))
            build->valid[build->valid_count++] = i;
        else
            build->train[build->train_count++] = i;
    }
    if (build->train_count == 0) { /* a handful of contexts: better all of them than none */
        uint64_t *held = build->train;
        build->train = build->valid;
        build->valid = held;
        build->train_count = build->valid_count;
        build->valid_count = 0;
    }
}

/* ---- the dataset ------------------------------------------------------------------------ */

static int write_export(const struct build *build, const char *folder, struct err *err)
{
    char *path = mem_printf("%s/pairs.jsonl", folder);
    int rc = file_replace(path, buf_text(&build->export), build->export.length, 0644, err);

    mem_free(path);
    return rc;
}

static int write_dataset(struct build *build, const char *folder, const char *name, struct err *err)
{
    struct dataset_writer *writer = NULL;
    char *meta = pairs_card(build, false), *placed = pairs_card(build, true);
    int rc = dataset_writer_open(folder, name, build->pairs->tokenizer, build->documents,
                                 build->count, SHARD_TOKENS, &writer, err);

    if (rc == 0)
        rc = dataset_writer_part(writer, "train", build->train, build->train_count, err);
    if (rc == 0 && build->valid_count)
        rc = dataset_writer_part(writer, "valid", build->valid, build->valid_count, err);
    if (rc == 0)
        rc = write_export(build, dataset_writer_folder(writer), err);
    if (rc == 0)
        rc = dataset_writer_index(writer, meta, err);
    if (rc == 0)
        rc = dataset_writer_commit(writer, err);
    if (rc == 0)
        rc = run_artifact(build->pairs->run, "dataset", name, folder, placed, err);
    dataset_writer_close(writer);
    mem_free(placed);
    mem_free(meta);
    return rc;
}

static const char *name_of(const struct run *run)
{
    return *run_string(run, "name") ? run_string(run, "name") : run->name;
}

static int build_dataset(struct build *build, struct err *err)
{
    struct run *run = build->pairs->run;
    const char *name = name_of(run), *folder = build->pairs->built.folder;
    char *parent = mem_printf("%s/datasets", run->job_dir);
    int rc = file_make_folders(parent, 0755, err);

    if (rc == 0)
        rc = read_blocks(build, err);
    if (rc == 0 && build->count > 0) {
        split(build);
        rc = write_dataset(build, folder, name, err);
    }
    mem_free(parent);
    return rc;
}

static void build_done(struct build *build)
{
    arena_done(&build->arena);
    byte_map_done(&build->seen);
    buf_done(&build->export);
    mem_free(build->documents);
    mem_free(build->train);
    mem_free(build->valid);
    json_decref(build->kept_samples);
    json_decref(build->dropped_samples);
    json_decref(build->texts);
}

int pairs_build(struct pairs *pairs, struct err *err)
{
    struct run *run = pairs->run;
    struct build build = {.pairs = pairs,
                          .kept_samples = json_array(),
                          .dropped_samples = json_array(),
                          .texts = json_object()};
    uint64_t made[2], began = clock_steady_us();
    int rc = 0;

    run->phase = "build";
    pairs->built.folder = mem_printf("%s/datasets/%s", run->job_dir, name_of(run));
    if (run->rank == 0)
        rc = build_dataset(&build, err);
    if (rc == 0 && run->rank == 0)
        rc = lease_sweep(pairs->folder, err);
    made[0] = build.sum.contexts;
    made[1] = build.count;
    if (rc == 0) { /* where rank 0 failed, all ranks are ended with it */
        comm_broadcast(run->comm, made, sizeof made, 0);
        pairs->built.contexts = made[0];
        pairs->built.pairs = made[1];
    }
    if (rc == 0 && made[1] == 0)
        rc = run_gave_up(run, err, "min_yield",
                         "no pair of %llu contexts was kept; the metrics share_* and the blocks "
                         "in '%s' say why each was dropped", (unsigned long long)made[0],
                         pairs->folder);
    if (rc == 0 && run->rank == 0) {
        run_metric(run, "dataset_pairs", (double)build.count);
        run_metric(run, "dataset_duplicates", (double)build.duplicates);
        run_metric(run, "dataset_pairs_per_s",
                   (double)build.count / (double)(clock_steady_us() - began + 1) * 1e6);
        run_note(run, "%zu pairs of %llu contexts, %zu of them held out", build.count,
                 (unsigned long long)build.sum.contexts, build.valid_count);
    }
    build_done(&build);
    return rc;
}
