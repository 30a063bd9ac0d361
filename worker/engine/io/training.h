/* training.h - a model and its optimiser in a checkpoint, for any number of ranks.
 *
 * m and v are one flat tensor each ("flat"). Where every rank holds all of it, rank r of P writes
 * the r-th of P equal shares; where each holds segments of its own (ZeRO-1), it writes those. A
 * reader takes what it holds itself out of whatever slices there are, so either kind of run goes on
 * from either kind of checkpoint, on any number of ranks. */
#ifndef ATHANOR_TRAINING_H
#define ATHANOR_TRAINING_H

#include "worker/engine/io/checkpoint.h"
#include "worker/engine/optim.h"

/* Adds weights, config.json, m, v and the optimiser's step. optim may be NULL (weights only).
 * Copies are owned by the writer. */
int training_save(struct checkpoint_writer *writer, const struct model *model,
                  const struct optim *optim, struct err *err) WARN_UNUSED;
/* The optimiser alone, where the weights are saved in another form. */
int training_save_optim(struct checkpoint_writer *writer, const struct optim *optim,
                        struct err *err) WARN_UNUSED;
int training_load_optim(struct checkpoint_reader *reader, struct optim *optim,
                        struct err *err) WARN_UNUSED;
/* The reverse, into a model and optimiser of the same config. optim may be NULL. */
int training_load(struct checkpoint_reader *reader, struct model *model, struct optim *optim,
                  struct err *err) WARN_UNUSED;

#endif
