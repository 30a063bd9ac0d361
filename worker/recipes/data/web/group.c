/* group.c - see group.h. */
#include "worker/recipes/data/web/group.h"

#include "common/base/mem.h"
#include "worker/engine/comm.h"
#include "worker/recipes/data/web/chars.h"
#include "worker/recipes/data/web/near.h"
#include "worker/recipes/data/web/repeats.h"
#include "worker/recipes/data/web/sorting.h"

#include <stdlib.h>
#include <string.h>

void group_free(struct group *group)
{
    if (!group)
        return;
    for (size_t i = 0; i < group->layer_count; i++) {
        mem_free(group->layers[i].dropped);
        mem_free(group->layers[i].passages);
    }
    sorting_free(group->sorting);
    mem_free(group);
}

/* ---- layers over a document ------------------------------------------------------------- */

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static bool is_dropped(const struct group *group, const struct layer *layer, uint64_t document)
{
    if (layer->stage == STAGE_CLUSTER)
        return sorting_drops(group->sorting, document);
    return layer->dropped_count > 0 && bsearch(&document, layer->dropped, layer->dropped_count,
                                               sizeof document, compare_u64);
}

/* The passages of a document: their first and number. */
static const struct passage *passages_of(const struct layer *layer, uint64_t document,
                                         size_t *out_count)
{
    size_t low = 0, high = layer->passage_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (layer->passages[middle].document < document)
            low = middle + 1;
        else
            high = middle;
    }
    size_t end = low;
    while (end < layer->passage_count && layer->passages[end].document == document)
        end++;
    *out_count = end - low;
    return layer->passages + low;
}

/* What a stage does to documents, and to those that it leaves nothing of. */
static const struct {
    enum filter drops, empties;
    enum edit edit;
} effects[STAGE_END] = {
    [STAGE_MINHASH] = {.drops = FILTER_MINHASH},
    [STAGE_MINHASH_PARAGRAPH] = {.empties = FILTER_NEAR_PARAGRAPHS,
                                 .edit = EDIT_NEAR_PARAGRAPHS},
    [STAGE_EXACT] = {.empties = FILTER_PASSAGES, .edit = EDIT_PASSAGES},
    [STAGE_CLUSTER] = {.drops = FILTER_CLUSTER},
};

static void cut_passages(const struct layer *layer, uint64_t number, struct block_item *item,
                         const struct group_watch *watch)
{
    enum edit edit = effects[layer->stage].edit;
    struct spans spans = {0};
    struct buf out = {0};
    size_t count;
    const struct passage *passage = passages_of(layer, number, &count);

    for (size_t i = 0; i < count; i++) {
        CHECK(passage[i].end <= item->length);
        spans_add(&spans, passage[i].begin, passage[i].end, NULL);
        if (watch)
            watch->cut(watch->argument, edit, item->text + passage[i].begin,
                       passage[i].end - passage[i].begin);
    }
    spans_apply(&spans, item->text, item->length, &out);
    spans_done(&spans);
    const char *text = buf_text(&out);
    size_t length = out.length;
    char_trim(&text, &length);
    item->edits[edit] += count;
    if (count > 0 && length == 0) {
        item->verdict = effects[layer->stage].empties;
    } else if (count > 0) {
        mem_free(item->text);
        item->length = out.length;
        item->text = buf_take(&out);
    }
    buf_done(&out);
}

void group_apply(const struct group *group, uint64_t number, struct block_item *item,
                 const struct group_watch *watch)
{
    for (size_t i = 0; group && i < group->layer_count && item->verdict == FILTER_KEPT; i++) {
        const struct layer *layer = &group->layers[i];
        if (is_dropped(group, layer, number))
            item->verdict = effects[layer->stage].drops;
        else if (layer->passage_count > 0)
            cut_passages(layer, number, item, watch);
    }
}

/* ---- near duplicates -------------------------------------------------------------------- */

static int run_near(struct web *web, struct layer *out, struct err *err)
{
    if (out->stage == STAGE_MINHASH)
        return near_documents(web, &out->dropped, &out->dropped_count, err);
    return near_paragraphs(web, &out->passages, &out->passage_count, err);
}

/* ---- repeated passages ------------------------------------------------------------------ */

struct reading {
    struct web *web;
    struct corpus_words words;
    uint64_t *documents; /* of each text */
    size_t count, capacity;
    struct word_ranges ranges;
    size_t next; /* range whose bytes are to be found */
    struct layer *out;
};

static int add_words(void *argument, size_t block, size_t index, struct block_item *item,
                     struct err *err)
{
    struct reading *reading = argument;
    uint64_t document = group_number(block, index);

    (void)err;
    group_apply(reading->web->group, document, item, NULL);
    if (item->verdict != FILTER_KEPT)
        return 0;
    corpus_words_add(&reading->words, item->text, item->length);
    VEC_RESERVE(reading->documents, reading->count, reading->capacity);
    reading->documents[reading->count++] = document;
    return 0;
}

static int share_ranges(struct reading *reading, struct err *err)
{
    struct word_range none = {0, 0, 0}, *all = NULL;
    size_t bytes;

    if (comm_gather_parts(reading->web->run->comm,
                          reading->ranges.items ? reading->ranges.items : &none,
                          reading->ranges.count * sizeof *all, (void **)&all, &bytes, err) < 0)
        return -1;
    mem_free(reading->ranges.items);
    reading->ranges = (struct word_ranges){all, bytes / sizeof *all, bytes / sizeof *all};
    word_ranges_merge(&reading->ranges);
    return 0;
}

/* Ranges come in order of documents, as blocks are read. */
static int find_bytes(void *argument, size_t block, size_t index, struct block_item *item,
                      struct err *err)
{
    struct reading *reading = argument;
    struct layer *out = reading->out;
    uint64_t document = group_number(block, index);

    (void)err;
    group_apply(reading->web->group, document, item, NULL);
    for (; reading->next < reading->ranges.count; reading->next++) {
        const struct word_range *range = &reading->ranges.items[reading->next];
        size_t begin, end;
        if (reading->documents[range->text] != document)
            break;
        word_range_bytes(item->text, item->length, range->begin, range->end, &begin, &end);
        out->passages[out->passage_count++] = (struct passage){document, begin, end};
    }
    return 0;
}

static int read_all(struct reading *reading, block_item_visit visit, struct err *err)
{
    for (size_t b = 0; b < reading->web->list.block_count; b++)
        if (web_block_read(reading->web, b, visit, reading, err) < 0)
            return -1;
    return 0;
}

static int run_exact(struct web *web, struct layer *out, struct err *err)
{
    struct run *run = web->run;
    struct reading reading = {.web = web, .out = out};
    int rc = read_all(&reading, add_words, err);

    if (rc == 0) {
        repeats_find(&reading.words, (size_t)run_int(run, "exact_min_words"),
                     strcmp(run_string(run, "exact_keep"), "first") == 0, run->rank,
                     run->rank_count, &reading.ranges);
        rc = share_ranges(&reading, err);
    }
    if (rc == 0) {
        out->passages = mem_array(reading.ranges.count + 1, sizeof *out->passages);
        rc = read_all(&reading, find_bytes, err);
        run_metric(run, "passages_cut", (double)reading.ranges.count);
    }
    corpus_words_done(&reading.words);
    mem_free(reading.documents);
    mem_free(reading.ranges.items);
    return rc;
}

/* ---- a stage ---------------------------------------------------------------------------- */

int group_run(struct web *web, enum stage stage, struct err *err)
{
    struct layer layer = {.stage = stage};
    int rc;

    if (!web->group)
        web->group = mem_zalloc(sizeof *web->group);
    web->run->phase = stage == STAGE_CLUSTER ? "clusters"
                      : stage == STAGE_EXACT ? "repeated passages" : "near duplicates";
    rc = stage == STAGE_CLUSTER ? sorting_run(web, &web->group->sorting, err)
         : stage == STAGE_EXACT ? run_exact(web, &layer, err) : run_near(web, &layer, err);
    if (rc == 0) {
        web->group->layers[web->group->layer_count++] = layer;
    } else {
        mem_free(layer.dropped);
        mem_free(layer.passages);
    }
    return rc;
}
