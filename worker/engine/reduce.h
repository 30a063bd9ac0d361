/* reduce.h - gradients summed over the ranks bucket by bucket, while backward still runs.
 *
 * A bucket is a stretch of the model's flat gradient, counted from its end, since backward ends
 * with the first weights. Each bucket is cut into one segment a rank. A sum has two halves: every
 * rank gives every other that one's segment and adds what it gets in rank order (reduce-scatter),
 * then the owners' sums go to all (all-gather). Bits do not depend on timing, on the size of a
 * bucket, or on whether anything overlapped: they are those of comm_sum_f32.
 *
 * Elements that only this rank has (model.own_count: its experts) are nobody else's business.
 *
 * A device whose backend has links (rank_links: NCCL on GPUs) sums there, if those of all ranks can
 * be opened; the order of the sum is then that of the links, the same in all that is said above.
 *
 * With `owners_only` the second half is left out; a rank then holds sums in its own segments and
 * terms of its own elsewhere, which is what ZeRO-1 needs (Rajbhandari et al. 2020, section 5). */
#ifndef ATHANOR_ENGINE_REDUCE_H
#define ATHANOR_ENGINE_REDUCE_H

#include "worker/engine/comm.h"
#include "worker/engine/model.h"

struct reducer;

/* Of bucket_bytes; 0: an eighth of the flat array, between 256 KiB and 8 MiB. Of P ranks, a bucket
 * of 8 MiB is 2 (P - 1) messages of 8 MiB / P each way: at 1.25 GB/s and 30 us a message, 8 ranks
 * spend 11.7 ms on bytes and 0.4 ms on messages; the last bucket, which nothing hides, is 1/60 of
 * GPT-2 124M. An eighth lets small models overlap at all. */
#define REDUCE_BUCKET_MOST  ((size_t)8 << 20)
#define REDUCE_BUCKET_LEAST ((size_t)256 << 10)

/* Beside the gradient it takes 4 buckets of host memory, and on a GPU without links a host copy of
 * the flat array. comm and model must outlive it. Errors: ERR_MEMORY. */
int reducer_new(struct comm *comm, struct model *model, size_t bucket_bytes, bool owners_only,
                struct reducer **out, struct err *err) WARN_UNUSED;
void reducer_free(struct reducer *reducer);

/* Buckets are summed as the next tape_backward of this tape completes them. All other gradients
 * of the step must be there. Between the last op's forward and tape_backward. */
void reducer_follow(struct reducer *reducer, struct tape *tape);
/* Starts what has not started and waits for all of it: the step's gradients are summed. On all
 * ranks, also without reducer_follow, once a step. */
void reducer_finish(struct reducer *reducer);
/* Every rank's segments of the weights go to all ranks. */
void reducer_share_weights(struct reducer *reducer);

struct comm *reducer_comm(const struct reducer *reducer);
bool reducer_owners_only(const struct reducer *reducer);
int64_t reducer_bucket_count(const struct reducer *reducer);
/* Elements *from..*to-1 of the flat array: what `rank` owns of a bucket; may be empty. */
void reducer_segment(const struct reducer *reducer, int64_t bucket, int rank, int64_t *from,
                     int64_t *to);
/* How the bytes go: "mpi", "mpi through host memory" from a GPU, or "nccl". */
const char *reducer_path(const struct reducer *reducer);
/* Buckets whose sum had begun before reducer_finish, in the last step: what overlapped. */
int64_t reducer_overlapped(const struct reducer *reducer);

#endif
