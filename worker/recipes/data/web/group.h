/* group.h - the stages that need all documents at once: near duplicates, repeated passages and
 * clusters (sorting.h).
 *
 * They see the edited texts of what is kept in the files of blocks, which every rank can read. What
 * they decide is few numbers: documents to drop and passages to cut, in order of the corpus. */
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
    uint64_t begin, end; /* bytes of the edited text */
};

struct group { /* the same on all ranks */
    uint64_t *dropped; /* ascending */
    size_t dropped_count;
    struct passage *passages; /* by document and place, apart */
    size_t passage_count;
    struct sorting *sorting; /* NULL without the stage cluster */
};

int group_run(struct web *web, enum stage stage, struct err *err) WARN_UNUSED;
void group_free(struct group *group); /* NULL is fine */
bool group_drops(const struct group *group, uint64_t document);
/* Passages of a document: their first and number. */
const struct passage *group_passages(const struct group *group, uint64_t document,
                                     size_t *out_count);

#endif
