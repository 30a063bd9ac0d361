/* spread.h - a mixture of experts over several ranks (expert parallelism).
 *
 * Every rank has an even share of the experts and all other weights. Its experts lie at the end of
 * its flat arrays (model.own_count), are not summed over ranks, and see the tokens of all ranks
 * (op_exchange): with P ranks weights, gradients and moments of experts take 1/P of the memory.
 * Only batches that all ranks run together may go through such a model (model_batch.comm), so
 * evaluations take a whole one. The ranks are those of the device's comm.
 * Lepikhin et al. 2020; Fedus et al. 2022, section 5. */
#ifndef ATHANOR_ENGINE_SPREAD_H
#define ATHANOR_ENGINE_SPREAD_H

#include "worker/engine/model.h"

/* This rank's part of a whole trainable model. Errors: ERR_INVALID (no experts, fewer than ranks),
 * ERR_MEMORY. */
int spread_new(const struct model *whole, struct comm *comm, struct model **out,
               struct err *err) WARN_UNUSED;
/* Weights of a whole model of the same shape. Errors: ERR_INVALID when it has another. */
int spread_take(struct model *spread, const struct model *whole, struct err *err) WARN_UNUSED;
/* The whole model without gradients where `keep` is set, NULL elsewhere; on all ranks together.
 * Takes 4 bytes a weight, and for a moment one weight of all experts. */
int spread_gather(const struct model *spread, bool keep, struct model **out,
                  struct err *err) WARN_UNUSED;

#endif
