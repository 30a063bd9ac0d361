/* comm.h - the ranks of a job: MPI when WORLD_SIZE is over 1, nothing otherwise.
 *
 * Sums are taken in rank order, element by element, and every rank holds the same bits
 * afterwards, in every run. One communicator per process. */
#ifndef ATHANOR_ENGINE_COMM_H
#define ATHANOR_ENGINE_COMM_H

#include "worker/engine/tensor.h"

struct comm {
    int rank;
    int size;
    void *scratch;
    struct comm_channels *channels; /* of transfers that go on meanwhile: comm_channels.h */
};

/* Reads RANK and WORLD_SIZE. Errors: ERR_INVALID when MPI disagrees with them (the launcher
 * did not connect the ranks: every one would train alone), ERR_MEMORY. */
int comm_open(struct comm **out, struct err *err) WARN_UNUSED;
void comm_close(struct comm *comm);

/* Host memory, in place. */
void comm_sum_f32(struct comm *comm, float *values, int64_t count);
void comm_sum_f64(struct comm *comm, double *values, int64_t count);
void comm_sum_i64(struct comm *comm, int64_t *values, int64_t count);
void comm_max_f64(struct comm *comm, double *values, int64_t count);
void comm_broadcast(struct comm *comm, void *bytes, size_t length, int from_rank);
/* out: size * length bytes on every rank, in rank order. */
void comm_gather_all(struct comm *comm, const void *bytes, size_t length, void *out);
/* The same while the ranks do other work: begun on all ranks, each at its own time, and whole on a
 * rank when comm_gather_done says so there, which is once. One at a time; bytes and out must stay
 * until then. It moves on only while somebody asks. Other collectives may go on meanwhile. */
void comm_gather_begin(struct comm *comm, const void *bytes, size_t length, void *out);
bool comm_gather_done(struct comm *comm) WARN_UNUSED;
/* Each rank gives every rank a part of its own: bytes holds them in order of ranks, length[r] those
 * for rank r. *out (mem_free) receives what came, in order of ranks; out_length[r] is set to the
 * bytes from rank r. Errors, on all ranks: ERR_LIMIT when some rank sends or gets 2 GiB. */
int comm_exchange(struct comm *comm, const void *bytes, const size_t *length, void **out,
                  size_t *out_length, struct err *err) WARN_UNUSED;
/* comm_gather_all for parts of any lengths: all of them, in order of ranks. */
int comm_gather_parts(struct comm *comm, const void *bytes, size_t length, void **out,
                      size_t *out_length, struct err *err) WARN_UNUSED;
/* The same for rows of row_floats floats, where both sides know how many come: send[r] rows go to
 * rank r, receive[r] come from it, in order of ranks. comm NULL: one rank. */
void comm_exchange_rows(struct comm *comm, const float *from, const int64_t *send, float *to,
                        const int64_t *receive, int64_t row_floats);
/* The even share of `count` things that a rank of `size` has: *from..*to-1. */
static inline void comm_share(int64_t count, int size, int rank, int64_t *from, int64_t *to)
{
    *from = count * rank / size;
    *to = count * (rank + 1) / size;
}
void comm_barrier(struct comm *comm);
/* The gradients of a tensor (model->flat), through the host when it lives on a GPU. */
int comm_sum_grad(struct comm *comm, struct tensor *tensor, struct err *err) WARN_UNUSED;
/* Ends all ranks (MPI_Abort) after an error on this one; single process: returns. */
void comm_abort(struct comm *comm, int exit_code);

#endif
