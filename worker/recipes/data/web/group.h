/* group.h - the stages that need all documents at once: near duplicates (near.h), repeated
 * passages and clusters (sorting.h).
 *
 * They see what is kept in the files of blocks, which every rank can read, as the GROUP stages
 * before left it. What each decides is few numbers, a layer: documents to drop and passages to
 * cut, in order of the corpus. */
#ifndef ATHANOR_WEB_GROUP_H
#define ATHANOR_WEB_GROUP_H

#include "worker/recipes/data/web/web.h"

/* A place in the corpus: documents are ordered by it. */
static inline uint64_t group_number(size_t block, size_t index)
{
    return (uint64_t)block << 32 | (uint64_t)index;
}

struct passage {
    uint64_t document;
    uint64_t begin, end; /* bytes of the text as the layers before left it */
};

struct layer {
    enum stage stage;
    uint64_t *dropped; /* ascending */
    size_t dropped_count;
    struct passage *passages; /* by document and place, apart */
    size_t passage_count;
};

struct group { /* the same on all ranks */
    struct layer layers[STAGE_END]; /* of the stages that have run, in their order */
    size_t layer_count;
    struct sorting *sorting; /* NULL without the stage cluster, or before it */
};

int group_run(struct web *web, enum stage stage, struct err *err) WARN_UNUSED;
void group_free(struct group *group); /* NULL is fine */

/* Called for each passage before it is cut, if not NULL. */
struct group_watch {
    void (*cut)(void *argument, enum edit edit, const char *text, size_t length);
    void *argument;
};
/* What the stages so far make of a document: its verdict, text and edits. One that is dropped, or
 * of which nothing is left, keeps the text it had. group NULL: nothing. */
void group_apply(const struct group *group, uint64_t number, struct block_item *item,
                 const struct group_watch *watch);

#endif
