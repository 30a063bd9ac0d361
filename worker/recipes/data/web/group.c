/* group.c - see group.h. */
#include "worker/recipes/data/web/group.h"

#include "common/base/mem.h"
#include "worker/engine/comm.h"
#include "worker/recipes/data/web/minhash.h"
#include "worker/recipes/data/web/repeats.h"
#include "worker/recipes/data/web/sorting.h"
#include "worker/recipes/distillation/impossible/components.h"

#include <stdlib.h>
#include <string.h>

/* A bucket of m documents has m (m - 1) / 2 pairs. Above this many, each is paired with the first
 * ones only: they are what it would be joined with anyway. */
#define BUCKET_PARTNERS 32

struct band_key {
    uint64_t key, document;
};
struct pair {
    uint64_t a, b; /* a < b */
};
struct pairs_list {
    struct pair *items;
    size_t count, capacity;
};

void group_free(struct group *group)
{
    if (!group)
        return;
    mem_free(group->dropped);
    mem_free(group->passages);
    sorting_free(group->sorting);
    mem_free(group);
}

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static int compare_two(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;

    if (x[0] != y[0])
        return x[0] < y[0] ? -1 : 1;
    return (x[1] > y[1]) - (x[1] < y[1]);
}

_Static_assert(sizeof(struct band_key) == 16 && sizeof(struct pair) == 16, "two numbers each");

bool group_drops(const struct group *group, uint64_t document)
{
    return group->dropped_count > 0 && bsearch(&document, group->dropped, group->dropped_count,
                                               sizeof document, compare_u64) != NULL;
}

const struct passage *group_passages(const struct group *group, uint64_t document,
                                     size_t *out_count)
{
    size_t low = 0, high = group->passage_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (group->passages[middle].document < document)
            low = middle + 1;
        else
            high = middle;
    }
    size_t end = low;
    while (end < group->passage_count && group->passages[end].document == document)
        end++;
    *out_count = end - low;
    return group->passages + low;
}

/* ---- near duplicates: candidates -------------------------------------------------------- */

struct signing {
    struct web *web;
    struct minhash minhash;
    struct shingles shingles;
    struct band_key *keys;
    size_t count, capacity;
    uint64_t *room;
};

static int sign(void *argument, size_t block, size_t index, struct block_item *item,
                struct err *err)
{
    struct signing *signing = argument;
    uint64_t document = group_number(block, index);

    (void)err;
    if (item->verdict != FILTER_KEPT || group_drops(signing->web->group, document))
        return 0;
    shingles_set(&signing->shingles, signing->minhash.ngram, item->text, item->length);
    if (!minhash_keys(&signing->minhash, &signing->shingles, signing->room))
        return 0;
    for (unsigned b = 0; b < signing->minhash.bands; b++) {
        VEC_RESERVE(signing->keys, signing->count, signing->capacity);
        signing->keys[signing->count++] = (struct band_key){signing->room[b], document};
    }
    return 0;
}

/* Keys of this rank's blocks to their owners. */
static int route(struct web *web, struct signing *signing, struct band_key **out, size_t *out_count,
                 struct err *err)
{
    size_t ranks = web->run->rank_count, total = 0;
    size_t *send = mem_array(ranks, sizeof *send), *came = mem_array(ranks, sizeof *came);
    size_t *next = mem_array(ranks, sizeof *next);
    struct band_key *grouped = mem_array(signing->count + 1, sizeof *grouped);

    for (size_t i = 0; i < signing->count; i++)
        send[signing->keys[i].key % ranks] += sizeof *grouped;
    for (size_t r = 1; r < ranks; r++)
        next[r] = next[r - 1] + send[r - 1] / sizeof *grouped;
    for (size_t i = 0; i < signing->count; i++)
        grouped[next[signing->keys[i].key % ranks]++] = signing->keys[i];
    int rc = comm_exchange(web->run->comm, grouped, send, (void **)out, came, err);
    for (size_t r = 0; r < ranks && rc == 0; r++)
        total += came[r] / sizeof **out;
    *out_count = total;
    mem_free(send);
    mem_free(came);
    mem_free(next);
    mem_free(grouped);
    return rc;
}

static void sort_pairs(struct pairs_list *pairs)
{
    size_t kept = 0;

    if (pairs->count > 1)
        qsort(pairs->items, pairs->count, sizeof *pairs->items, compare_two);
    for (size_t i = 0; i < pairs->count; i++)
        if (kept == 0 || compare_two(&pairs->items[i], &pairs->items[kept - 1]) != 0)
            pairs->items[kept++] = pairs->items[i];
    pairs->count = kept;
}

static void pair_buckets(struct band_key *keys, size_t count, struct pairs_list *out)
{
    if (count > 1)
        qsort(keys, count, sizeof *keys, compare_two);
    for (size_t i = 0, end; i < count; i = end) {
        for (end = i + 1; end < count && keys[end].key == keys[i].key;)
            end++;
        for (size_t b = i + 1; b < end; b++)
            for (size_t a = i; a < b && a < i + BUCKET_PARTNERS; a++) {
                VEC_RESERVE(out->items, out->count, out->capacity);
                out->items[out->count++] = (struct pair){keys[a].document, keys[b].document};
            }
    }
    sort_pairs(out);
}

/* Replaces this rank's pairs by those of all, sorted and without repetitions. */
static int share_pairs(struct web *web, struct pairs_list *pairs, struct err *err)
{
    struct pair none = {0, 0}, *all = NULL;
    size_t bytes;

    if (comm_gather_parts(web->run->comm, pairs->items ? pairs->items : &none,
                          pairs->count * sizeof *all, (void **)&all, &bytes, err) < 0)
        return -1;
    mem_free(pairs->items);
    *pairs = (struct pairs_list){all, bytes / sizeof *all, bytes / sizeof *all};
    sort_pairs(pairs);
    return 0;
}

static int find_candidates(struct web *web, struct pairs_list *out, struct err *err)
{
    const struct run *run = web->run;
    struct signing signing = {.web = web};
    struct band_key *keys = NULL;
    size_t count = 0;
    int rc = minhash_init(&signing.minhash, (unsigned)run_int(run, "minhash_bands"),
                          (unsigned)run_int(run, "minhash_rows"),
                          (unsigned)run_int(run, "minhash_ngram"), (uint64_t)run_int(run, "seed"),
                          err);

    signing.room = mem_array(signing.minhash.bands + 1, sizeof *signing.room);
    for (size_t b = run->rank; b < web->list.block_count && rc == 0; b += run->rank_count)
        rc = web_block_read(web, b, sign, &signing, err);
    if (rc == 0)
        rc = route(web, &signing, &keys, &count, err);
    if (rc == 0) {
        pair_buckets(keys, count, out);
        rc = share_pairs(web, out, err);
    }
    mem_free(keys);
    mem_free(signing.keys);
    mem_free(signing.room);
    shingles_done(&signing.shingles);
    minhash_done(&signing.minhash);
    return rc;
}

/* ---- near duplicates: verification ------------------------------------------------------ */

/* The sets of the documents in some pairs. */
struct wanted {
    uint64_t *documents; /* ascending */
    struct shingles *sets;
    size_t count;
    unsigned ngram;
};

static int take_set(void *argument, size_t block, size_t index, struct block_item *item,
                    struct err *err)
{
    struct wanted *wanted = argument;
    uint64_t document = group_number(block, index);
    uint64_t *at = bsearch(&document, wanted->documents, wanted->count, sizeof document,
                           compare_u64);

    (void)err;
    if (at)
        shingles_set(&wanted->sets[at - wanted->documents], wanted->ngram, item->text,
                     item->length);
    return 0;
}

static void want(struct wanted *wanted, const struct pair *pairs, size_t count)
{
    size_t kept = 0;

    wanted->documents = mem_array(2 * count + 1, sizeof *wanted->documents);
    for (size_t i = 0; i < count; i++) {
        wanted->documents[2 * i] = pairs[i].a;
        wanted->documents[2 * i + 1] = pairs[i].b;
    }
    if (count)
        qsort(wanted->documents, 2 * count, sizeof *wanted->documents, compare_u64);
    for (size_t i = 0; i < 2 * count; i++)
        if (kept == 0 || wanted->documents[i] != wanted->documents[kept - 1])
            wanted->documents[kept++] = wanted->documents[i];
    wanted->count = kept;
    wanted->sets = mem_array(kept + 1, sizeof *wanted->sets);
}

static const struct shingles *set_of(const struct wanted *wanted, uint64_t document)
{
    const uint64_t *at = bsearch(&document, wanted->documents, wanted->count, sizeof document,
                                 compare_u64);

    CHECK(at);
    return &wanted->sets[at - wanted->documents];
}

static int read_sets(struct web *web, struct wanted *wanted, struct err *err)
{
    for (size_t i = 0; i < wanted->count;) {
        uint64_t block = wanted->documents[i] >> 32;
        if (web_block_read(web, (size_t)block, take_set, wanted, err) < 0)
            return -1;
        while (i < wanted->count && wanted->documents[i] >> 32 == block)
            i++;
    }
    return 0;
}

/* Keeps the pairs above the threshold; each rank judges a consecutive share of them. */
static int verify(struct web *web, struct pairs_list *pairs, struct err *err)
{
    const struct run *run = web->run;
    double least = run_float(run, "minhash_jaccard");
    size_t from = pairs->count * run->rank / run->rank_count;
    size_t to = pairs->count * (run->rank + 1) / run->rank_count;
    struct wanted wanted = {.ngram = (unsigned)run_int(run, "minhash_ngram")};
    struct pairs_list kept = {0};

    if (least == 0)
        return 0;
    want(&wanted, pairs->items + from, to - from);
    int rc = read_sets(web, &wanted, err);
    for (size_t i = from; i < to && rc == 0; i++) {
        const struct pair *pair = &pairs->items[i];
        if (shingles_jaccard(set_of(&wanted, pair->a), set_of(&wanted, pair->b)) <= least)
            continue;
        VEC_RESERVE(kept.items, kept.count, kept.capacity);
        kept.items[kept.count++] = *pair;
    }
    for (size_t i = 0; i < wanted.count; i++)
        shingles_done(&wanted.sets[i]);
    mem_free(wanted.sets);
    mem_free(wanted.documents);
    mem_free(pairs->items);
    *pairs = kept;
    return rc == 0 ? share_pairs(web, pairs, err) : -1;
}

/* ---- near duplicates: components -------------------------------------------------------- */

static size_t place_of(const struct wanted *nodes, uint64_t document)
{
    return (size_t)((const uint64_t *)bsearch(&document, nodes->documents, nodes->count,
                                              sizeof document, compare_u64) - nodes->documents);
}

/* Of each component the first document stays. */
static void drop_all_but_first(struct group *group, const struct pairs_list *pairs)
{
    struct wanted nodes = {0};
    struct components components;

    want(&nodes, pairs->items, pairs->count);
    components_init(&components, nodes.count);
    for (size_t i = 0; i < pairs->count; i++)
        components_join(&components, place_of(&nodes, pairs->items[i].a),
                        place_of(&nodes, pairs->items[i].b));
    bool *taken = mem_array(nodes.count + 1, sizeof *taken);
    group->dropped = mem_array(nodes.count + 1, sizeof *group->dropped);
    for (size_t i = 0; i < nodes.count; i++) { /* ascending, so the first comes first */
        size_t root = components_find(&components, i);
        if (taken[root])
            group->dropped[group->dropped_count++] = nodes.documents[i];
        taken[root] = true;
    }
    mem_free(taken);
    components_done(&components);
    mem_free(nodes.documents);
    mem_free(nodes.sets);
}

static int run_minhash(struct web *web, struct err *err)
{
    struct run *run = web->run;
    struct pairs_list pairs = {0};

    run->phase = "near duplicates";
    int rc = find_candidates(web, &pairs, err);
    if (rc == 0) {
        run_metric(run, "near_dup_candidates", (double)pairs.count);
        rc = verify(web, &pairs, err);
    }
    if (rc == 0) {
        drop_all_but_first(web->group, &pairs);
        run_metric(run, "near_dup_pairs", (double)pairs.count);
        run_metric(run, "dropped_near_dup", (double)web->group->dropped_count);
    }
    mem_free(pairs.items);
    return rc;
}

/* ---- repeated passages ------------------------------------------------------------------ */

struct reading {
    struct web *web;
    struct corpus_words words;
    uint64_t *documents; /* of each text */
    size_t count, capacity;
    struct word_ranges ranges;
    size_t next; /* range whose bytes are to be found */
};

static int add_words(void *argument, size_t block, size_t index, struct block_item *item,
                     struct err *err)
{
    struct reading *reading = argument;
    const struct group *group = reading->web->group;
    uint64_t document = group_number(block, index);

    (void)err;
    if (item->verdict != FILTER_KEPT || group_drops(group, document) ||
        (group->sorting && sorting_drops(group->sorting, document)))
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
    struct group *group = reading->web->group;
    uint64_t document = group_number(block, index);

    (void)err;
    for (; reading->next < reading->ranges.count; reading->next++) {
        const struct word_range *range = &reading->ranges.items[reading->next];
        size_t begin, end;
        if (reading->documents[range->text] != document)
            break;
        word_range_bytes(item->text, item->length, range->begin, range->end, &begin, &end);
        group->passages[group->passage_count++] = (struct passage){document, begin, end};
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

static int run_exact(struct web *web, struct err *err)
{
    struct run *run = web->run;
    struct reading reading = {.web = web};
    int rc;

    run->phase = "repeated passages";
    rc = read_all(&reading, add_words, err);
    if (rc == 0) {
        repeats_find(&reading.words, (size_t)run_int(run, "exact_min_words"),
                     strcmp(run_string(run, "exact_keep"), "first") == 0, run->rank,
                     run->rank_count, &reading.ranges);
        rc = share_ranges(&reading, err);
    }
    if (rc == 0) {
        web->group->passages = mem_array(reading.ranges.count + 1, sizeof *web->group->passages);
        rc = read_all(&reading, find_bytes, err);
        run_metric(run, "passages_cut", (double)reading.ranges.count);
    }
    corpus_words_done(&reading.words);
    mem_free(reading.documents);
    mem_free(reading.ranges.items);
    return rc;
}

int group_run(struct web *web, enum stage stage, struct err *err)
{
    if (!web->group)
        web->group = mem_zalloc(sizeof *web->group);
    if (stage == STAGE_CLUSTER) {
        web->run->phase = "clusters";
        return sorting_run(web, &web->group->sorting, err);
    }
    return stage == STAGE_MINHASH ? run_minhash(web, err) : run_exact(web, err);
}
