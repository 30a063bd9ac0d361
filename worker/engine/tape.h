/* tape.h - records ops in the forward pass and replays them backwards.
 *
 * A tape owns the activations of one step in an arena of device memory. The first step
 * grows the arena; tape_reset then joins it into one block of the size that was needed, so
 * later steps allocate nothing, on the host neither (tape_host). Who wants that of the second
 * step too resets at the end of the first (trainer_apply). In backward, what an op's
 * gradient no longer needs is used again for the gradients of earlier ops.
 *
 * Failure is sticky: after the first one (out of memory) ops do nothing and return NULL,
 * NULL inputs are ignored, and tape_check reports it. So a model reads without checks.
 *
 * The loss of a tape is the sum of its terminal ops (see loss.h), each already weighted by
 * the caller; backward therefore starts with gradient 1 from every one of them. */
#ifndef ATHANOR_ENGINE_TAPE_H
#define ATHANOR_ENGINE_TAPE_H

#include "worker/engine/backend.h"

enum tape_mode {
    TAPE_TRAIN = 1, /* records; activations are kept until tape_reset                */
    TAPE_INFER,     /* records nothing; models fold activations away block by block */
};

struct tape;

int tape_new(struct device *device, enum tape_mode mode, struct tape **out, struct err *err)
    WARN_UNUSED;
void tape_free(struct tape *tape);
/* TAPE_TRAIN: keeps of each block only what it gives to the next and how op_route has decided, and
 * computes the rest again in backward: the same bits for a third more work (Chen et al. 2016). A
 * block is what models put between tape_mark and tape_fold; nothing else of it may be read
 * afterwards. Rows that op_exchange moved between ranks travel again: all ranks fold the same
 * blocks in the same order. It stays so over resets. */
void tape_recompute(struct tape *tape, bool blocks);
/* Forgets the step. All tensors of the tape are gone. */
void tape_reset(struct tape *tape);
/* 0, or -1 with the first failure since the last reset. */
int tape_check(const struct tape *tape, struct err *err) WARN_UNUSED;
/* Replays backward; gradients of weights are added to the models' flat gradients. Outputs of
 * ops are gone afterwards (their memory is used again): read hidden states before. */
int tape_backward(struct tape *tape, struct err *err) WARN_UNUSED;
/* What the next tape_backward will replay, last one first; valid until it ends. */
const struct op_call *tape_calls(const struct tape *tape, size_t *out_count);
/* In the next tape_backward only, after each call: call number calls_left, counted from 0, and all
 * later ones have added their gradients. For reduce.c. */
typedef void (*tape_watcher)(void *argument, size_t calls_left);
void tape_watch(struct tape *tape, tape_watcher watcher, void *argument);

struct device *tape_device(const struct tape *tape);
bool tape_records(const struct tape *tape);
size_t tape_bytes(const struct tape *tape); /* arena size now */

/* A tensor of the step, values undefined. dims beyond rank are not read. */
struct tensor *tape_tensor(struct tape *tape, enum dtype dtype, int rank, const int64_t *dim);
struct tensor *tape_matrix(struct tape *tape, int64_t rows, int64_t columns);
/* Host numbers into the step. NULL stays NULL (an absent optional input). */
struct tensor *tape_i32(struct tape *tape, const int32_t *host, int64_t count);
struct tensor *tape_f32(struct tape *tape, const float *host, int64_t rows, int64_t columns);

/* Zeroed room on the host for what is worked out before it goes into the step; gone at the next
 * tape_reset. As the arena it is planned in the first step. Never NULL. */
void *tape_host(struct tape *tape, int64_t count, size_t item_bytes);

/* Adds a gradient that the caller computed (rows*columns floats on the host) to a hidden
 * tensor: any loss on hidden states, from outside. Call before tape_backward. */
void tape_seed(struct tape *tape, struct tensor *tensor, const float *host_grad);

/* The beginning and the end of a block. Inference: gives back what was allocated since the mark,
 * except `keep`, whose values move to the mark. Training: see tape_recompute; else nothing. */
size_t tape_mark(struct tape *tape);
struct tensor *tape_fold(struct tape *tape, size_t mark, struct tensor *keep);

/* Runs and records; for ops.c. Fills call->out itself: dims given per output. */
void tape_run(struct tape *tape, struct op_call *call);
/* For ops.c: sets the sticky failure. */
void tape_fail(struct tape *tape, enum err_kind kind, const char *format, ...) FORMAT(3, 4);
bool tape_failed(const struct tape *tape);

#endif
