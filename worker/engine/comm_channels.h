/* comm_channels.h - MPI communicators for transfers that go on while the ranks compute.
 *
 * Collectives of one communicator must start in the same order on all ranks. Sums start in the
 * order of buckets and so do copies, but how far they are apart depends on timing: hence two, and
 * one for ranks that agree on something while each is at other work.
 * Only comm.c and reduce.c include this. */
#ifndef ATHANOR_ENGINE_COMM_CHANNELS_H
#define ATHANOR_ENGINE_COMM_CHANNELS_H

#include "worker/engine/comm.h"

#include <mpi.h>

struct comm_channels {
    MPI_Comm sums, copies, asides;
    MPI_Request aside; /* of comm_gather_begin */
};

#endif
