/* one_rank.c - what the engine calls of comm.c and reduce.c where there is no MPI: cuda.sh. There
 * is one rank, which has all rows already, and nobody makes a reducer. */
#include "worker/engine/comm.h"
#include "worker/engine/reduce.h"

#include "common/base/mem.h"

#include <string.h>

void comm_exchange_rows(struct comm *comm, const float *from, const int64_t *send, float *to,
                        const int64_t *receive, int64_t row_floats)
{
    CHECK(!comm && receive[0] == send[0]);
    memcpy(to, from, 4 * (size_t)(send[0] * row_floats));
}

void comm_gather_all(struct comm *comm, const void *bytes, size_t length, void *out)
{
    CHECK(!comm);
    memcpy(out, bytes, length);
}

void comm_sum_f32(struct comm *comm, float *values, int64_t count)
{
    CHECK(!comm && values && count >= 0);
}

/* Of a shared optimiser: there is none without a reducer. */
struct comm *reducer_comm(const struct reducer *reducer)
{
    CHECK(!reducer);
    return NULL;
}

bool reducer_owners_only(const struct reducer *reducer)
{
    CHECK(!reducer);
    return false;
}

int64_t reducer_bucket_count(const struct reducer *reducer)
{
    CHECK(!reducer);
    return 0;
}

void reducer_segment(const struct reducer *reducer, int64_t bucket, int rank, int64_t *from,
                     int64_t *to)
{
    CHECK(!reducer && bucket == 0 && rank == 0);
    *from = *to = 0;
}

void reducer_share_weights(struct reducer *reducer)
{
    CHECK(!reducer);
}
