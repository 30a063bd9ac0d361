/* sorting.h - the stage cluster: groups what is kept by meaning, scores the groups, and decides of
 * each how much of it stays.
 *
 * Every kept document gets a vector (cluster.h) and, where the job gives the classifier quality,
 * its p. A cluster's label is the mean p of all its documents (the card has 64 samples of each:
 * ours is cheap). Clusters are numbered by size, the largest 0. Nothing is dropped unless asked:
 * look at web/clusters.jsonl of the job, or the card, and name clusters in cluster_keep, or a share
 * of the worst in cluster_drop_pct; the same corpus gives the same numbers. */
#ifndef ATHANOR_WEB_SORTING_H
#define ATHANOR_WEB_SORTING_H

#include "common/base/buf.h"
#include "worker/recipes/data/web/web.h"

#define SORTING_SAMPLES 3 /* of a cluster, for people to judge it by */

struct sorting_sample {
    uint64_t number; /* group_number */
    size_t cluster;
    char *id, *text; /* set by sorting_see */
};

struct sorted_cluster {
    int64_t documents, words;
    double label; /* NAN without a classifier */
    double rate;  /* of documents to keep */
};

struct sorting { /* the same on all ranks, but for the samples' texts */
    struct sorted_cluster *clusters;
    size_t cluster_count;
    uint64_t *dropped; /* documents, ascending */
    size_t dropped_count;
    struct sorting_sample *samples; /* by number */
    size_t sample_count;
};

/* Checks params.cluster_keep. */
int sorting_check(const struct run *run, struct err *err) WARN_UNUSED;
/* All ranks. Errors: those of blocks and exchanges; ERR_INVALID when cluster_keep names a cluster
 * that there is not. */
int sorting_run(struct web *web, struct sorting **out, struct err *err) WARN_UNUSED;
void sorting_free(struct sorting *sorting); /* NULL is fine */
bool sorting_drops(const struct sorting *sorting, uint64_t document);

/* Rank 0: takes the text of a document that is a sample; then "clusters": [...] for the card, at
 * most `most` bytes, the worst clusters first; and the whole as a line a cluster. */
void sorting_see(struct sorting *sorting, uint64_t number, const struct block_item *item);
void sorting_card(const struct sorting *sorting, size_t most, struct buf *out);
void sorting_lines(const struct sorting *sorting, struct buf *out);

#endif
