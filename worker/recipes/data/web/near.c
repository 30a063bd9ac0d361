/* near.c - see near.h. A unit's number is that of its document or, for a paragraph, its block and
 * its place among the paragraphs of all documents that the stage sees there. */
#include "worker/recipes/data/web/near.h"

#include "common/base/mem.h"
#include "worker/engine/comm.h"
#include "worker/recipes/data/web/minhash.h"
#include "worker/recipes/distillation/impossible/components.h"

#include <stdlib.h>
#include <string.h>

#define KIND_SHINGLES 0x736867u /* of keys */

struct band_key {
    uint64_t key, unit;
};
struct pair {
    uint64_t a, b; /* a < b */
};
struct pairs {
    struct pair *items;
    size_t count, capacity;
};
struct numbers { /* ascending, without repetitions */
    uint64_t *items;
    size_t count;
};

_Static_assert(sizeof(struct band_key) == 16 && sizeof(struct pair) == 16, "two numbers each");

struct near {
    struct web *web;
    bool paragraphs;
    size_t min_words; /* 0 for documents */
    struct minhash minhash;
    struct shingles shingles; /* room */
    /* this rank's units that are no copies and not dropped: number, bands keys */
    uint64_t *rows;
    size_t count, capacity, row;
    struct numbers dropped; /* the same on all ranks */
    int64_t copies, candidates, found;
};

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static int compare_two(const void *a, const void *b)
{
    int first = compare_u64(a, b);

    return first ? first : compare_u64((const uint64_t *)a + 1, (const uint64_t *)b + 1);
}

static bool has_number(const struct numbers *numbers, uint64_t number)
{
    return numbers->count > 0 &&
           bsearch(&number, numbers->items, numbers->count, sizeof number, compare_u64);
}

static void sort_numbers(struct numbers *numbers)
{
    size_t kept = 0;

    if (numbers->count > 1)
        qsort(numbers->items, numbers->count, sizeof *numbers->items, compare_u64);
    for (size_t i = 0; i < numbers->count; i++)
        if (kept == 0 || numbers->items[i] != numbers->items[kept - 1])
            numbers->items[kept++] = numbers->items[i];
    numbers->count = kept;
}

/* ---- units ------------------------------------------------------------------------------ */

struct unit {
    uint64_t number, document;
    const char *text;
    size_t begin, length; /* bytes of the document's text */
};
typedef void (*unit_visit)(void *argument, const struct unit *unit);

struct walk {
    const struct near *near;
    unit_visit visit;
    void *argument;
    uint64_t paragraph; /* of the block */
};

static int walk_paragraphs(struct walk *walk, size_t block, uint64_t document,
                           const struct block_item *item, struct err *err)
{
    for (size_t at = 0, next; at < item->length; at = next) {
        const char *end = memchr(item->text + at, '\n', item->length - at);
        next = end ? (size_t)(end - item->text) + 1 : item->length;
        if (walk->paragraph > UINT32_MAX)
            return err_set(err, ERR_LIMIT, "block %zu has more than 2^32 paragraphs; a smaller "
                           "block_bytes or smaller files help", block);
        struct unit unit = {group_number(block, (size_t)walk->paragraph++), document,
                            item->text + at, at, next - at};
        walk->visit(walk->argument, &unit);
    }
    return 0;
}

static int walk_item(void *argument, size_t block, size_t index, struct block_item *item,
                     struct err *err)
{
    struct walk *walk = argument;
    uint64_t document = group_number(block, index);

    group_apply(walk->near->web->group, document, item, NULL);
    if (item->verdict != FILTER_KEPT)
        return 0;
    if (walk->near->paragraphs)
        return walk_paragraphs(walk, block, document, item, err);
    struct unit unit = {document, document, item->text, 0, item->length};
    walk->visit(walk->argument, &unit);
    return 0;
}

static int walk_block(const struct near *near, size_t block, unit_visit visit, void *argument,
                      struct err *err)
{
    struct walk walk = {near, visit, argument, 0};

    return web_block_read(near->web, block, walk_item, &walk, err);
}

/* ---- copies and signatures -------------------------------------------------------------- */

struct signing {
    struct near *near;
    struct key_list keys; /* of the rows of a round */
    struct numbers copies;
    size_t copy_capacity;
};

static void sign(void *argument, const struct unit *unit)
{
    struct signing *signing = argument;
    struct near *near = signing->near;
    struct shingles *shingles = &near->shingles;

    shingles_set(shingles, near->minhash.ngram, unit->text, unit->length);
    if (shingles->words < near->min_words)
        return;
    if (near->count == near->capacity) {
        near->capacity = near->capacity ? 2 * near->capacity : 64;
        near->rows = mem_grow(near->rows, near->capacity, near->row * sizeof *near->rows);
    }
    uint64_t *row = near->rows + near->count * near->row;
    if (!minhash_keys(&near->minhash, shingles, row + 1))
        return;
    row[0] = unit->number;
    near->count++;
    VEC_RESERVE(signing->keys.items, signing->keys.count, signing->keys.capacity);
    signing->keys.items[signing->keys.count++] =
        key_of(shingles->items, shingles->count * sizeof *shingles->items, KIND_SHINGLES);
}

/* Of the round's rows those that came before are copies. */
static void leave_copies(struct signing *signing, const bool *seen)
{
    struct near *near = signing->near;
    size_t count = signing->keys.count, first = near->count - count;

    near->count = first;
    for (size_t i = 0; i < count; i++) {
        const uint64_t *row = near->rows + (first + i) * near->row;
        if (seen[i]) {
            VEC_RESERVE(signing->copies.items, signing->copies.count, signing->copy_capacity);
            signing->copies.items[signing->copies.count++] = row[0];
        } else {
            memmove(near->rows + near->count++ * near->row, row, near->row * sizeof *row);
        }
    }
}

/* Rank r has block round * P + r, so keys come in the order of the corpus. */
static int sign_round(struct signing *signing, struct seen *seen, uint64_t round, struct err *err)
{
    const struct web *web = signing->near->web;
    size_t block = (size_t)round * web->run->rank_count + web->run->rank;
    int rc = 0;

    signing->keys.count = 0;
    if (block < web->list.block_count &&
        walk_block(signing->near, block, sign, signing, err) < 0)
        return -1;
    bool *answer = mem_array(signing->keys.count + 1, sizeof *answer);
    /* All of one's shingles are not above a share of 1. */
    if (run_float(web->run, "minhash_jaccard") < 1)
        rc = seen_ask(seen, signing->keys.items, signing->keys.count, answer, err);
    if (rc == 0)
        leave_copies(signing, answer);
    mem_free(answer);
    return rc;
}

/* Replaces this rank's numbers by those of all. */
static int share_numbers(struct web *web, struct numbers *numbers, struct err *err)
{
    uint64_t none = 0, *all = NULL;
    size_t bytes;

    if (comm_gather_parts(web->run->comm, numbers->items ? numbers->items : &none,
                          numbers->count * sizeof *all, (void **)&all, &bytes, err) < 0)
        return -1;
    mem_free(numbers->items);
    *numbers = (struct numbers){all, bytes / sizeof *all};
    sort_numbers(numbers);
    return 0;
}

static int sign_all(struct near *near, struct err *err)
{
    struct web *web = near->web;
    struct signing signing = {.near = near};
    struct seen seen;
    int rc = seen_init(&seen, web->run->comm, NULL, err);

    for (uint64_t round = 0; round < web->rounds && rc == 0; round++)
        rc = sign_round(&signing, &seen, round, err);
    seen_done(&seen);
    if (rc == 0)
        rc = share_numbers(web, &signing.copies, err);
    near->dropped = signing.copies;
    near->copies = (int64_t)signing.copies.count;
    mem_free(signing.keys.items);
    return rc;
}

/* ---- candidates ------------------------------------------------------------------------- */

/* The keys of a band to their owners. */
static int route(const struct near *near, unsigned band, struct band_key **out, size_t *out_count,
                 struct err *err)
{
    size_t ranks = near->web->run->rank_count, total = 0;
    size_t *send = mem_array(ranks, sizeof *send), *came = mem_array(ranks, sizeof *came);
    size_t *next = mem_array(ranks, sizeof *next);
    struct band_key *grouped = mem_array(near->count + 1, sizeof *grouped);

    for (size_t i = 0; i < near->count; i++)
        send[near->rows[i * near->row + 1 + band] % ranks] += sizeof *grouped;
    for (size_t r = 1; r < ranks; r++)
        next[r] = next[r - 1] + send[r - 1] / sizeof *grouped;
    for (size_t i = 0; i < near->count; i++) {
        const uint64_t *row = near->rows + i * near->row;
        grouped[next[row[1 + band] % ranks]++] = (struct band_key){row[1 + band], row[0]};
    }
    int rc = comm_exchange(near->web->run->comm, grouped, send, (void **)out, came, err);
    for (size_t r = 0; r < ranks && rc == 0; r++)
        total += came[r] / sizeof **out;
    *out_count = total;
    mem_free(send);
    mem_free(came);
    mem_free(next);
    mem_free(grouped);
    return rc;
}

static void sort_pairs(struct pairs *pairs)
{
    size_t kept = 0;

    if (pairs->count > 1)
        qsort(pairs->items, pairs->count, sizeof *pairs->items, compare_two);
    for (size_t i = 0; i < pairs->count; i++)
        if (kept == 0 || compare_two(&pairs->items[i], &pairs->items[kept - 1]) != 0)
            pairs->items[kept++] = pairs->items[i];
    pairs->count = kept;
}

/* Whether some bucket was too large for all of its pairs. */
static bool pair_buckets(struct band_key *keys, size_t count, struct pairs *out)
{
    bool full = false;

    if (count > 1)
        qsort(keys, count, sizeof *keys, compare_two);
    for (size_t i = 0, end; i < count; i = end) {
        for (end = i + 1; end < count && keys[end].key == keys[i].key;)
            end++;
        full = full || end - i > NEAR_PARTNERS + 1;
        for (size_t b = i + 1; b < end; b++)
            for (size_t a = i; a < b && a < i + NEAR_PARTNERS; a++) {
                VEC_RESERVE(out->items, out->count, out->capacity);
                out->items[out->count++] = (struct pair){keys[a].unit, keys[b].unit};
            }
    }
    sort_pairs(out);
    return full;
}

/* Replaces this rank's pairs by those of all, sorted and without repetitions. */
static int share_pairs(struct web *web, struct pairs *pairs, struct err *err)
{
    struct pair none = {0, 0}, *all = NULL;
    size_t bytes;

    if (comm_gather_parts(web->run->comm, pairs->items ? pairs->items : &none,
                          pairs->count * sizeof *all, (void **)&all, &bytes, err) < 0)
        return -1;
    mem_free(pairs->items);
    *pairs = (struct pairs){all, bytes / sizeof *all, bytes / sizeof *all};
    sort_pairs(pairs);
    return 0;
}

/* *out_full, on all ranks: some bucket was too large. */
static int find_candidates(const struct near *near, struct pairs *out, bool *out_full,
                           struct err *err)
{
    int64_t full = 0;

    for (unsigned band = 0; band < near->minhash.bands; band++) {
        struct band_key *keys = NULL;
        size_t count;
        if (route(near, band, &keys, &count, err) < 0)
            return -1;
        full += pair_buckets(keys, count, out);
        mem_free(keys);
    }
    comm_sum_i64(near->web->run->comm, &full, 1);
    *out_full = full > 0;
    return share_pairs(near->web, out, err);
}

/* ---- verification ----------------------------------------------------------------------- */

/* The sets of the units in some pairs. */
struct wanted {
    struct numbers units;
    struct shingles *sets;
    unsigned ngram;
};

static void take_set(void *argument, const struct unit *unit)
{
    struct wanted *wanted = argument;
    const uint64_t *at = wanted->units.count
                             ? bsearch(&unit->number, wanted->units.items, wanted->units.count,
                                       sizeof unit->number, compare_u64) : NULL;

    if (at)
        shingles_set(&wanted->sets[at - wanted->units.items], wanted->ngram, unit->text,
                     unit->length);
}

static struct numbers units_of(const struct pair *pairs, size_t count)
{
    struct numbers units = {mem_array(2 * count + 1, sizeof *units.items), 2 * count};

    for (size_t i = 0; i < count; i++) {
        units.items[2 * i] = pairs[i].a;
        units.items[2 * i + 1] = pairs[i].b;
    }
    sort_numbers(&units);
    return units;
}

static size_t place_of(const struct numbers *numbers, uint64_t number)
{
    const uint64_t *at = bsearch(&number, numbers->items, numbers->count, sizeof number,
                                 compare_u64);

    CHECK(at);
    return (size_t)(at - numbers->items);
}

static int read_sets(const struct near *near, struct wanted *wanted, struct err *err)
{
    for (size_t i = 0; i < wanted->units.count;) {
        uint64_t block = wanted->units.items[i] >> 32;
        if (walk_block(near, (size_t)block, take_set, wanted, err) < 0)
            return -1;
        while (i < wanted->units.count && wanted->units.items[i] >> 32 == block)
            i++;
    }
    return 0;
}

/* Keeps the pairs above the threshold; each rank judges a consecutive share of them. */
static int verify(const struct near *near, struct pairs *pairs, struct err *err)
{
    const struct run *run = near->web->run;
    double least = run_float(run, "minhash_jaccard");
    size_t from = pairs->count * run->rank / run->rank_count;
    size_t to = pairs->count * (run->rank + 1) / run->rank_count;
    struct pairs kept = {0};

    if (least == 0)
        return 0;
    struct wanted wanted = {.units = units_of(pairs->items + from, to - from),
                            .ngram = near->minhash.ngram};
    wanted.sets = mem_array(wanted.units.count + 1, sizeof *wanted.sets);
    int rc = read_sets(near, &wanted, err);
    for (size_t i = from; i < to && rc == 0; i++) {
        const struct pair *pair = &pairs->items[i];
        if (shingles_jaccard(&wanted.sets[place_of(&wanted.units, pair->a)],
                             &wanted.sets[place_of(&wanted.units, pair->b)]) <= least)
            continue;
        VEC_RESERVE(kept.items, kept.count, kept.capacity);
        kept.items[kept.count++] = *pair;
    }
    for (size_t i = 0; i < wanted.units.count; i++)
        shingles_done(&wanted.sets[i]);
    mem_free(wanted.sets);
    mem_free(wanted.units.items);
    mem_free(pairs->items);
    *pairs = kept;
    return rc == 0 ? share_pairs(near->web, pairs, err) : -1;
}

/* ---- components ------------------------------------------------------------------------- */

/* Of each component the first unit stays; returns how many do not. */
static size_t drop_all_but_first(struct near *near, const struct pairs *pairs)
{
    struct numbers nodes = units_of(pairs->items, pairs->count), *dropped = &near->dropped;
    struct components components;
    size_t before = dropped->count;

    components_init(&components, nodes.count);
    for (size_t i = 0; i < pairs->count; i++)
        components_join(&components, place_of(&nodes, pairs->items[i].a),
                        place_of(&nodes, pairs->items[i].b));
    bool *taken = mem_array(nodes.count + 1, sizeof *taken);
    dropped->items = mem_grow(dropped->items, before + nodes.count + 1, sizeof *dropped->items);
    for (size_t i = 0; i < nodes.count; i++) { /* ascending, so the first comes first */
        size_t root = components_find(&components, i);
        if (taken[root])
            dropped->items[dropped->count++] = nodes.items[i];
        taken[root] = true;
    }
    size_t more = dropped->count - before;
    sort_numbers(dropped);
    mem_free(taken);
    components_done(&components);
    mem_free(nodes.items);
    return more;
}

static void forget_dropped(struct near *near)
{
    size_t kept = 0;

    for (size_t i = 0; i < near->count; i++) {
        const uint64_t *row = near->rows + i * near->row;
        if (!has_number(&near->dropped, row[0]))
            memmove(near->rows + kept++ * near->row, row, near->row * sizeof *row);
    }
    near->count = kept;
}

static int search(struct near *near, struct err *err)
{
    bool again = true;

    while (again) {
        struct pairs pairs = {0};
        bool full = false;
        int rc = find_candidates(near, &pairs, &full, err);
        near->candidates += (int64_t)pairs.count;
        if (rc == 0)
            rc = verify(near, &pairs, err);
        if (rc == 0) {
            near->found += (int64_t)pairs.count;
            again = drop_all_but_first(near, &pairs) > 0 && full;
            forget_dropped(near);
        }
        mem_free(pairs.items);
        if (rc < 0)
            return -1;
    }
    return 0;
}

static int find_near(struct near *near, struct err *err)
{
    const struct run *run = near->web->run;

    if (minhash_init(&near->minhash, (unsigned)run_int(run, "minhash_bands"),
                     (unsigned)run_int(run, "minhash_rows"),
                     (unsigned)run_int(run, "minhash_ngram"), (uint64_t)run_int(run, "seed"),
                     err) < 0)
        return -1;
    near->row = 1 + near->minhash.bands;
    return sign_all(near, err) < 0 ? -1 : search(near, err);
}

static void near_done(struct near *near)
{
    minhash_done(&near->minhash);
    shingles_done(&near->shingles);
    mem_free(near->rows);
    mem_free(near->dropped.items);
}

int near_documents(struct web *web, uint64_t **out_dropped, size_t *out_count, struct err *err)
{
    struct near near = {.web = web};
    int rc = find_near(&near, err);

    if (rc == 0) {
        run_metric(web->run, "near_dup_copies", (double)near.copies);
        run_metric(web->run, "near_dup_candidates", (double)near.candidates);
        run_metric(web->run, "near_dup_pairs", (double)near.found);
        run_metric(web->run, "dropped_near_dup", (double)near.dropped.count);
        *out_dropped = near.dropped.items;
        *out_count = near.dropped.count;
        near.dropped.items = NULL;
    }
    near_done(&near);
    return rc;
}

/* ---- paragraphs to cut ------------------------------------------------------------------ */

struct finding {
    const struct near *near;
    struct passage *items;
    size_t count, capacity;
};

static void find_passage(void *argument, const struct unit *unit)
{
    struct finding *finding = argument;

    if (!has_number(&finding->near->dropped, unit->number))
        return;
    VEC_RESERVE(finding->items, finding->count, finding->capacity);
    finding->items[finding->count++] =
        (struct passage){unit->document, unit->begin, unit->begin + unit->length};
}

static int compare_passages(const void *a, const void *b)
{
    return compare_two(a, b); /* document, begin */
}

/* Each rank finds those of its blocks. */
static int find_passages(const struct near *near, struct passage **out, size_t *out_count,
                         struct err *err)
{
    const struct run *run = near->web->run;
    const struct numbers *dropped = &near->dropped;
    struct finding finding = {.near = near};
    struct passage none = {0, 0, 0};
    size_t bytes;
    int rc = 0;

    for (size_t i = 0; i < dropped->count && rc == 0;) {
        uint64_t block = dropped->items[i] >> 32;
        if (block % run->rank_count == run->rank)
            rc = walk_block(near, (size_t)block, find_passage, &finding, err);
        while (i < dropped->count && dropped->items[i] >> 32 == block)
            i++;
    }
    if (rc == 0)
        rc = comm_gather_parts(run->comm, finding.items ? finding.items : &none,
                               finding.count * sizeof none, (void **)out, &bytes, err);
    mem_free(finding.items);
    if (rc < 0)
        return -1;
    *out_count = bytes / sizeof **out;
    if (*out_count > 1)
        qsort(*out, *out_count, sizeof **out, compare_passages);
    return 0;
}

int near_paragraphs(struct web *web, struct passage **out, size_t *out_count, struct err *err)
{
    struct near near = {.web = web, .paragraphs = true,
                        .min_words = (size_t)run_int(web->run, "minhash_min_words")};
    int rc = find_near(&near, err);

    if (rc == 0)
        rc = find_passages(&near, out, out_count, err);
    if (rc == 0) {
        run_metric(web->run, "near_paragraph_copies", (double)near.copies);
        run_metric(web->run, "near_paragraph_candidates", (double)near.candidates);
        run_metric(web->run, "near_paragraph_pairs", (double)near.found);
        run_metric(web->run, edit_name(EDIT_NEAR_PARAGRAPHS), (double)*out_count);
    }
    near_done(&near);
    return rc;
}
