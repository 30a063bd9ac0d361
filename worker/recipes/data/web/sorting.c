/* sorting.c - see sorting.h. */
#include "worker/recipes/data/web/sorting.h"

#include "common/base/json_text.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "common/base/rng.h"
#include "worker/engine/comm.h"
#include "worker/recipes/data/web/chars.h"
#include "worker/recipes/data/web/cluster.h"
#include "worker/recipes/data/web/group.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LABEL_ONE   1e6 /* p as an integer: sums do not depend on their order */
#define STREAM_DRAW 9   /* of rng_at, apart from those of topics and mix */
#define STREAM_SEED 13

struct member { /* a document of this rank */
    uint64_t number, draw; /* draw: of its id */
    int64_t p, words;
};

struct working {
    struct web *web;
    struct word_spread spread;
    struct vectors vectors;
    struct member *members;
    size_t count, capacity;
    uint64_t *order; /* of each member, by the seed */
    struct clusters clusters;
    uint32_t *name;  /* of each cluster: by size */
    struct sorting *out;
};

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

/* ---- documents -------------------------------------------------------------------------- */

static bool is_wanted(const struct working *working, size_t block, size_t index,
                      struct block_item *item)
{
    group_apply(working->web->group, group_number(block, index), item, NULL);
    return item->verdict == FILTER_KEPT;
}

static int count_words(void *argument, size_t block, size_t index, struct block_item *item,
                       struct err *err)
{
    struct working *working = argument;

    (void)err;
    if (is_wanted(working, block, index, item))
        word_spread_add(&working->spread, item->text, item->length);
    return 0;
}

static int add_member(void *argument, size_t block, size_t index, struct block_item *item,
                      struct err *err)
{
    struct working *working = argument;
    struct web *web = working->web;
    struct hash hash;
    struct member member = {.number = group_number(block, index)};

    (void)err;
    if (!is_wanted(working, block, index, item))
        return 0;
    vectors_add_text(&working->vectors, &working->spread, item->text, item->length);
    member.words = (int64_t)working->spread.words.count;
    hash_bytes(item->id, strlen(item->id), &hash);
    memcpy(&member.draw, hash.bytes, sizeof member.draw);
    if (web->quality) {
        features_set(&web->features, web->quality, item->text, item->length);
        classifier_predict(web->quality, &web->features, web->p);
        member.p = (int64_t)nearbyint((double)web->p[web->quality_label] * LABEL_ONE);
    }
    VEC_RESERVE(working->members, working->count, working->capacity);
    working->members[working->count++] = member;
    return 0;
}

static int read_own(struct working *working, block_item_visit visit, struct err *err)
{
    const struct web *web = working->web;

    for (size_t b = web->run->rank; b < web->list.block_count; b += web->run->rank_count)
        if (web_block_read(web, b, visit, working, err) < 0)
            return -1;
    return 0;
}

static int find_clusters(struct working *working, struct err *err)
{
    struct run *run = working->web->run;
    int64_t asked = run_int(run, "cluster_k");

    working->vectors.width = CLUSTER_WIDTH;
    if (read_own(working, count_words, err) < 0)
        return -1;
    word_spread_sum(&working->spread, run->comm);
    if (read_own(working, add_member, err) < 0)
        return -1;
    working->order = mem_array(working->count + 1, sizeof *working->order);
    for (size_t i = 0; i < working->count; i++)
        working->order[i] =
            rng_at((uint64_t)run_int(run, "seed"), working->members[i].number, STREAM_SEED);
    return clusters_find(run->comm, &working->vectors, working->order,
                         asked ? (size_t)asked : cluster_count(working->spread.count),
                         (unsigned)run_int(run, "cluster_rounds"), &working->clusters, err);
}

/* ---- names and labels ------------------------------------------------------------------- */

struct sized {
    int64_t documents;
    uint32_t index;
};

static int compare_size(const void *a, const void *b)
{
    const struct sized *x = a, *y = b;

    if (x->documents != y->documents)
        return x->documents > y->documents ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

/* Numbers clusters by their size; empty ones get no number of their own. */
static void name_clusters(struct working *working)
{
    const struct clusters *clusters = &working->clusters;
    struct sorting *out = working->out;
    struct sized *sized = mem_array(clusters->count + 1, sizeof *sized);

    for (size_t c = 0; c < clusters->count; c++)
        sized[c] = (struct sized){clusters->sizes[c], (uint32_t)c};
    if (clusters->count > 1)
        qsort(sized, clusters->count, sizeof *sized, compare_size);
    working->name = mem_array(clusters->count + 1, sizeof *working->name);
    out->clusters = mem_array(clusters->count + 1, sizeof *out->clusters);
    for (size_t c = 0; c < clusters->count; c++) {
        working->name[sized[c].index] = (uint32_t)c;
        out->clusters[c] = (struct sorted_cluster){sized[c].documents, 0, NAN, 1};
        out->cluster_count += sized[c].documents > 0;
    }
    mem_free(sized);
}

static size_t cluster_of(const struct working *working, size_t member)
{
    return working->name[working->clusters.owners[member]];
}

static void label_clusters(struct working *working)
{
    struct sorting *out = working->out;
    int64_t *sums = mem_array(2 * working->clusters.count + 1, sizeof *sums);

    for (size_t i = 0; i < working->count; i++) {
        sums[2 * cluster_of(working, i)] += working->members[i].p;
        sums[2 * cluster_of(working, i) + 1] += working->members[i].words;
    }
    comm_sum_i64(working->web->run->comm, sums, 2 * (int64_t)working->clusters.count);
    for (size_t c = 0; c < out->cluster_count; c++) {
        struct sorted_cluster *cluster = &out->clusters[c];
        cluster->words = sums[2 * c + 1];
        if (working->web->quality)
            cluster->label = (double)sums[2 * c] / LABEL_ONE / (double)cluster->documents;
    }
    mem_free(sums);
}

/* ---- decisions -------------------------------------------------------------------------- */

/* Item i of params.cluster_keep is CLUSTER=RATE. */
static int keep_item(const struct run *run, size_t i, uint64_t *out_cluster, double *out_rate,
                     struct err *err)
{
    const char *item = run_list_item(run, "cluster_keep", i), *equals = strchr(item, '=');
    struct err unused;
    char *number = equals ? mem_strndup(item, (size_t)(equals - item)) : NULL;
    bool good = number && parse_u64(number, out_cluster, &unused) == 0 &&
                parse_f64(equals + 1, out_rate, &unused) == 0 && *out_rate >= 0 && *out_rate <= 1;

    mem_free(number);
    if (good)
        return 0;
    return err_set(err, ERR_INVALID, "params.cluster_keep: '%s' is not CLUSTER=RATE, a cluster's "
                   "number and a rate of 0 to 1", item);
}

int sorting_check(const struct run *run, struct err *err)
{
    uint64_t cluster;
    double rate;

    for (size_t i = 0; i < run_list_count(run, "cluster_keep"); i++)
        if (keep_item(run, i, &cluster, &rate, err) < 0)
            return -1;
    return 0;
}

/* Those of the lowest labels, ties: the smaller ones. */
static void drop_worst(struct sorting *out, double percent)
{
    size_t many = (size_t)floor((double)out->cluster_count * percent / 100);

    for (; many > 0; many--) {
        struct sorted_cluster *worst = NULL;
        for (size_t c = 0; c < out->cluster_count; c++) {
            struct sorted_cluster *cluster = &out->clusters[c];
            if (cluster->rate > 0 && (!worst || cluster->label <= worst->label))
                worst = cluster;
        }
        worst->rate = 0;
    }
}

static int decide(struct working *working, struct err *err)
{
    const struct run *run = working->web->run;
    struct sorting *out = working->out;
    uint64_t cluster;
    double rate;

    if (working->web->quality)
        drop_worst(out, run_float(run, "cluster_drop_pct"));
    for (size_t i = 0; i < run_list_count(run, "cluster_keep"); i++) {
        if (keep_item(run, i, &cluster, &rate, err) < 0)
            return -1;
        if (cluster >= out->cluster_count)
            return err_set(err, ERR_INVALID, "params.cluster_keep: '%s': there are %zu clusters, "
                           "numbered from 0", run_list_item(run, "cluster_keep", i),
                           out->cluster_count);
        out->clusters[cluster].rate = rate;
    }
    return 0;
}

/* ---- what all ranks know ---------------------------------------------------------------- */

static int share_dropped(struct working *working, struct err *err)
{
    const struct run *run = working->web->run;
    struct sorting *out = working->out;
    uint64_t *mine = mem_array(working->count + 1, sizeof *mine);
    size_t count = 0, bytes;

    for (size_t i = 0; i < working->count; i++) {
        const struct member *member = &working->members[i];
        double rate = out->clusters[cluster_of(working, i)].rate;
        if (rng_unit_at((uint64_t)run_int(run, "seed"), member->draw, STREAM_DRAW) >= rate)
            mine[count++] = member->number;
    }
    int rc = comm_gather_parts(run->comm, mine, count * sizeof *mine, (void **)&out->dropped,
                               &bytes, err);
    mem_free(mine);
    if (rc < 0)
        return -1;
    out->dropped_count = bytes / sizeof *out->dropped;
    if (out->dropped_count > 1)
        qsort(out->dropped, out->dropped_count, sizeof *out->dropped, compare_u64);
    return 0;
}

struct candidate {
    uint64_t cluster, order, number;
};

static int compare_candidate(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;

    if (x->cluster != y->cluster)
        return x->cluster < y->cluster ? -1 : 1;
    if (x->order != y->order)
        return x->order < y->order ? -1 : 1;
    return (x->number > y->number) - (x->number < y->number);
}

/* Sorts, and leaves the first few of each cluster. */
static size_t leave_few(struct candidate *list, size_t count)
{
    size_t kept = 0, of_cluster = 0;

    if (count > 1)
        qsort(list, count, sizeof *list, compare_candidate);
    for (size_t i = 0; i < count; i++) {
        of_cluster = i > 0 && list[i].cluster == list[i - 1].cluster ? of_cluster + 1 : 0;
        if (of_cluster < SORTING_SAMPLES)
            list[kept++] = list[i];
    }
    return kept;
}

static int compare_sample(const void *a, const void *b)
{
    return compare_u64(&((const struct sorting_sample *)a)->number,
                       &((const struct sorting_sample *)b)->number);
}

static int share_samples(struct working *working, struct err *err)
{
    struct sorting *out = working->out;
    struct candidate *mine = mem_array(working->count + 1, sizeof *mine), *all = NULL;
    size_t bytes;

    for (size_t i = 0; i < working->count; i++)
        mine[i] = (struct candidate){cluster_of(working, i), working->order[i],
                                     working->members[i].number};
    size_t few = leave_few(mine, working->count);
    int rc = comm_gather_parts(working->web->run->comm, mine, few * sizeof *mine, (void **)&all,
                               &bytes, err);
    mem_free(mine);
    if (rc < 0)
        return -1;
    out->sample_count = leave_few(all, bytes / sizeof *all);
    out->samples = mem_array(out->sample_count + 1, sizeof *out->samples);
    for (size_t i = 0; i < out->sample_count; i++)
        out->samples[i] = (struct sorting_sample){.number = all[i].number,
                                                  .cluster = (size_t)all[i].cluster};
    if (out->sample_count > 1)
        qsort(out->samples, out->sample_count, sizeof *out->samples, compare_sample);
    mem_free(all);
    return 0;
}

int sorting_run(struct web *web, struct sorting **out, struct err *err)
{
    struct working working = {.web = web, .out = mem_zalloc(sizeof *working.out)};
    int rc = find_clusters(&working, err);

    if (rc == 0) {
        name_clusters(&working);
        label_clusters(&working);
        rc = decide(&working, err);
    }
    if (rc == 0 && (rc = share_dropped(&working, err)) == 0)
        rc = share_samples(&working, err);
    if (rc == 0) {
        run_metric(web->run, "clusters", (double)working.out->cluster_count);
        run_metric(web->run, "cluster_rounds", (double)working.clusters.rounds);
        run_metric(web->run, "dropped_cluster", (double)working.out->dropped_count);
        *out = working.out;
    } else {
        sorting_free(working.out);
    }
    word_spread_done(&working.spread);
    vectors_done(&working.vectors);
    clusters_done(&working.clusters);
    mem_free(working.members);
    mem_free(working.order);
    mem_free(working.name);
    return rc;
}

void sorting_free(struct sorting *sorting)
{
    if (!sorting)
        return;
    for (size_t i = 0; i < sorting->sample_count; i++) {
        mem_free(sorting->samples[i].id);
        mem_free(sorting->samples[i].text);
    }
    mem_free(sorting->samples);
    mem_free(sorting->clusters);
    mem_free(sorting->dropped);
    mem_free(sorting);
}

bool sorting_drops(const struct sorting *sorting, uint64_t document)
{
    return sorting->dropped_count > 0 && bsearch(&document, sorting->dropped,
                                                 sorting->dropped_count, sizeof document,
                                                 compare_u64);
}

/* ---- the report ------------------------------------------------------------------------- */

void sorting_see(struct sorting *sorting, uint64_t number, const struct block_item *item)
{
    struct sorting_sample key = {.number = number};
    struct sorting_sample *sample =
        sorting->sample_count ? bsearch(&key, sorting->samples, sorting->sample_count,
                                        sizeof key, compare_sample) : NULL;

    if (!sample || sample->id)
        return;
    sample->id = mem_strdup(item->id);
    sample->text = mem_strndup(item->text,
                               char_prefix(item->text, item->length, WEB_EXCERPT_CHARS));
}

static void put_cluster(const struct sorting *sorting, size_t c, struct buf *out)
{
    const struct sorted_cluster *cluster = &sorting->clusters[c];
    bool any = false;

    buf_printf(out, "{\"cluster\": %zu, \"documents\": %lld, \"words\": %lld", c,
               (long long)cluster->documents, (long long)cluster->words);
    if (isfinite(cluster->label))
        buf_printf(out, ", \"label\": %.9g", cluster->label);
    buf_printf(out, ", \"rate\": %.9g, \"samples\": [", cluster->rate);
    for (size_t i = 0; i < sorting->sample_count; i++) {
        const struct sorting_sample *sample = &sorting->samples[i];
        if (sample->cluster != c || !sample->id)
            continue;
        buf_puts(out, any ? ", {\"id\": " : "{\"id\": ");
        json_text_quote(out, sample->id, strlen(sample->id));
        buf_puts(out, ", \"text\": ");
        json_text_quote(out, sample->text, strlen(sample->text));
        buf_putc(out, '}');
        any = true;
    }
    buf_puts(out, "]}");
}

void sorting_lines(const struct sorting *sorting, struct buf *out)
{
    for (size_t c = 0; c < sorting->cluster_count; c++) {
        put_cluster(sorting, c, out);
        buf_putc(out, '\n');
    }
}

struct ranked {
    double label;
    size_t cluster;
};

static int compare_ranked(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;

    if (x->label != y->label)
        return x->label < y->label ? -1 : 1;
    return (x->cluster > y->cluster) - (x->cluster < y->cluster);
}

void sorting_card(const struct sorting *sorting, size_t most, struct buf *out)
{
    struct ranked *ranked = mem_array(sorting->cluster_count + 1, sizeof *ranked);
    struct buf one = {0};
    size_t begin = out->length;

    for (size_t c = 0; c < sorting->cluster_count; c++) /* without labels: the largest first */
        ranked[c] = (struct ranked){isfinite(sorting->clusters[c].label)
                                        ? sorting->clusters[c].label : 0, c};
    if (sorting->cluster_count > 1)
        qsort(ranked, sorting->cluster_count, sizeof *ranked, compare_ranked);
    buf_printf(out, "\"cluster_count\": %zu, \"clusters\": [", sorting->cluster_count);
    for (size_t i = 0; i < sorting->cluster_count; i++) {
        buf_clear(&one);
        put_cluster(sorting, ranked[i].cluster, &one);
        if (out->length - begin + one.length + 8 > most)
            break;
        buf_printf(out, "%s%s", i ? ", " : "", one.bytes);
    }
    buf_putc(out, ']');
    buf_done(&one);
    mem_free(ranked);
}
