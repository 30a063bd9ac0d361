/* build.h - from the files of blocks to a dataset: gathers what is kept, mixes, writes the card.
 *
 * Rank 0 reads the blocks in order, so the dataset's documents are in the order of the corpus. It
 * holds the kept texts and, later, their tokens: about 1 + 4/3 bytes for a byte of text at 3 bytes
 * a token (worker/engine/data/dataset_write.h). */
#ifndef ATHANOR_WEB_BUILD_H
#define ATHANOR_WEB_BUILD_H

#include "common/base/err.h"

struct web;

#define BUILD_SOURCES_MAX 100 /* of DATASET_PARTS_MAX parts: two each, and three that are always */

/* Checks params.mix. */
int build_check(const struct web *web, struct err *err) WARN_UNUSED;
/* Errors: ERR_LIMIT when more than decon_max_removal was dropped as contaminated, or nothing is
 * left; those of reading. */
int build_gather(struct web *web, struct err *err) WARN_UNUSED;

#endif
