/* packed.h - copies of weights in the order in which products of few rows read them.
 *
 * Decoding multiplies the same weights thousands of times with few rows. The kernel wants the
 * numbers of some columns of the result side by side; weights lie the other way, so without a copy
 * it puts each stretch in order before it uses it, which for one row takes longer than the product.
 * A device therefore keeps copies, by address. Either way each element is the same sum in the same
 * order: copies change no bit, so they are made and dropped as memory allows.
 *
 * A copy takes as much as the weight (4 bytes a number, columns rounded up to whole panels) and is
 * made at the ninth product since the weight was written, outside of training, whose weights live
 * for one step only. It counts as memory of the device, and is made only while all that the device
 * has stays below three quarters of device_config.memory_bytes; when the device runs short anyway,
 * all copies are dropped and no more are made.
 *
 * Where products take bf16 (device_config.bf16) a model has a copy of another kind: all its weights
 * rounded, in their order, 2 bytes each, made with the model and released with it. It is the
 * operand of every product with a weight, forward and backward. OP_ADAMW writes it in its own
 * pass; after every other write it is made anew at once, so a kernel need not ask its age. */
#ifndef ATHANOR_ENGINE_PACKED_H
#define ATHANOR_ENGINE_PACKED_H

#include "worker/engine/backend.h"

/* Above this many rows the BLAS, which puts both operands in order for each call, is as fast. */
#define PACKED_ROWS 128

/* Before a product of `rows` rows with w (M, K), whose `of_model` is set; makes the copy when it is
 * time. Does nothing where the backend wants none or memory is short. */
void packed_use(struct device *device, const struct tensor *w, int64_t rows);
/* The copy of the weight (M, K) that lies at w, or NULL. For kernels. */
const float *packed_find(const struct device *device, const void *w, int64_t M, int64_t K);
/* What lies there was written: rounded copies are made anew now, others when they are next wanted.
 * Told by tensor_write and ranks that share weights. */
void packed_written(struct device *device, const void *from, size_t size_bytes);
/* The same when OP_ADAMW wrote it, and the rounded copy with it. Told by the optimiser. */
void packed_updated(struct device *device, const void *from, size_t size_bytes);
/* What lies there is released: so are its copies. */
void packed_forget(struct device *device, const void *from, size_t size_bytes);
/* All of them, for good; whether there were any. */
bool packed_give_up(struct device *device);
uint64_t packed_bytes(const struct device *device); /* of all copies now */
void packed_free(struct device *device);            /* at device_close   */

/* Gives the weights of a model (a flat array) their rounded copy, with room for `zeros` numbers
 * behind it. Does nothing where no product takes bf16. Errors: ERR_MEMORY. */
int packed_round(struct device *device, const struct tensor *flat, int64_t zeros, struct err *err)
    WARN_UNUSED;

#endif
