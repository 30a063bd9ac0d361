/* cluster.h - documents as vectors, and their clusters: k-means on the sphere, the same for any
 * number of ranks.
 *
 * A vector has length 1 and is kept as 16-bit integers (1 is CLUSTER_ONE), sums are 64-bit
 * integers: they do not depend on their order, so centres, owners and what is decided by them are
 * the same bits however the documents lie on ranks. Card data-yi-pipeline ("clusters", S6); means
 * on the sphere: Dhillon and Modha 2001.
 *
 * Without an encoder a vector is the words of a text, each with weight (1 + ln tf) ln(N / df), at
 * four places of 256 with signs by its hash (a sparse random projection: Achlioptas 2003), so that
 * texts with rare words in common are near each other. */
#ifndef ATHANOR_WEB_CLUSTER_H
#define ATHANOR_WEB_CLUSTER_H

#include "common/base/err.h"
#include "worker/recipes/text/words.h"

struct comm; /* worker/engine/comm.h */

#define CLUSTER_ONE     32767
#define CLUSTER_WIDTH   256       /* of words' vectors */
#define CLUSTER_BUCKETS ((size_t)1 << 18) /* words are counted in: 2 MiB */
#define CLUSTER_K_AUTO  10000     /* most clusters that are chosen by the number of documents */

/* In how many documents each word is. A zeroed struct is empty. */
struct word_spread {
    int64_t *documents; /* CLUSTER_BUCKETS */
    int64_t count;      /* of documents */
    struct words words; /* room */
};
void word_spread_add(struct word_spread *spread, const char *text, size_t length);
void word_spread_sum(struct word_spread *spread, struct comm *comm); /* over all ranks */
void word_spread_done(struct word_spread *spread);

struct vectors {
    int16_t *items; /* (count, width) */
    size_t count, capacity, width;
};
/* Appends a vector of any length, or of all zeros; it is scaled to length 1. */
void vectors_add(struct vectors *vectors, const float *values);
void vectors_add_text(struct vectors *vectors, struct word_spread *spread, const char *text,
                      size_t length);
void vectors_done(struct vectors *vectors);

/* ceil(sqrt(N / 2)), at most CLUSTER_K_AUTO and at least 1: the card's. */
size_t cluster_count(int64_t documents);

struct clusters {
    size_t count, width;
    int16_t *centres; /* (count, width); the same on all ranks */
    uint32_t *owners; /* of this rank's vectors: the centre with the greatest product, ties: the
                         first */
    int64_t *sizes;   /* documents of all ranks */
    unsigned rounds;  /* until no owner changed, or the most */
};
/* order[i]: of this rank's vector i, unlike that of any other of any rank; the vectors of the
 * `count` smallest are the first centres. Errors: ERR_LIMIT of an exchange. */
int clusters_find(struct comm *comm, const struct vectors *vectors, const uint64_t *order,
                  size_t count, unsigned rounds_max, struct clusters *out,
                  struct err *err) WARN_UNUSED;
void clusters_done(struct clusters *clusters); /* a zeroed struct is fine */

#endif
