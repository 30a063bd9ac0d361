/* projection.h - learned maps from a student's width to its teacher's, one for each pair of layers.
 *
 * They are no part of the student: they have an optimiser of their own (clipped by themselves) and
 * lie in checkpoints as slices "projection", not in model.safetensors. */
#ifndef ATHANOR_PROJECTION_H
#define ATHANOR_PROJECTION_H

#include "worker/engine/io/checkpoint.h"
#include "worker/engine/optim.h"

struct comm;
struct projection;

/* `count` matrices (to, from), normal with deviation 1 / sqrt(from). Errors: ERR_MEMORY. */
int projection_new(struct device *device, int64_t count, int64_t from, int64_t to, uint64_t seed,
                   const struct optim_config *config, struct projection **out,
                   struct err *err) WARN_UNUSED;
void projection_free(struct projection *projection);
struct tensor *projection_weight(struct projection *projection, int64_t index);
/* Sums gradients over ranks and updates. Errors: ERR_LIMIT when they are not finite. */
int projection_update(struct projection *projection, struct comm *comm, double learning_rate,
                      struct err *err) WARN_UNUSED;
int projection_save(struct projection *projection, struct checkpoint_writer *writer,
                    struct err *err) WARN_UNUSED;
int projection_load(struct projection *projection, struct checkpoint_reader *reader,
                    struct err *err) WARN_UNUSED;

#endif
