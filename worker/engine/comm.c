/* comm.c - ranks over MPI, with sums in a fixed order.
 *
 * MPI_Allreduce may add in another order from run to run or by message size. Here each rank
 * owns a segment, receives everyone's part of it, adds them as rank 0 + 1 + 2 ..., and the
 * sums are gathered: the traffic of a ring allreduce, with bits that never change. */
#include "worker/engine/comm.h"

#include "worker/engine/backend.h"
#include "worker/engine/comm_channels.h"

#include "common/base/mem.h"
#include "common/base/parse.h"

#include <stdlib.h>
#include <string.h>

/* Values per round: bounds the scratch to about 16 MiB, however large the model. */
#define ROUND ((int64_t)1 << 20)

static int read_number(const char *name, uint64_t fallback, uint64_t *out, struct err *err)
{
    const char *text = getenv(name);

    *out = fallback;
    if (!text || !*text)
        return 0;
    if (parse_u64(text, out, err) < 0)
        return err_wrap(err, "environment variable %s", name);
    return 0;
}

static int connect_ranks(struct comm *comm, uint64_t rank, uint64_t size, struct err *err)
{
    int given;

    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &given) != MPI_SUCCESS)
        return err_set(err, ERR_IO, "MPI_Init failed for rank %llu of %llu",
                       (unsigned long long)rank, (unsigned long long)size);
    MPI_Comm_rank(MPI_COMM_WORLD, &comm->rank);
    MPI_Comm_size(MPI_COMM_WORLD, &comm->size);
    if ((uint64_t)comm->size != size || (uint64_t)comm->rank != rank) {
        if (comm->size == 1)
            MPI_Finalize(); /* nobody to wait for; what it keeps in TMPDIR goes */
        return err_set(err, ERR_INVALID,
                       "MPI says rank %d of %d, but RANK=%llu and WORLD_SIZE=%llu: the launcher "
                       "did not connect the ranks, each would train alone",
                       comm->rank, comm->size, (unsigned long long)rank, (unsigned long long)size);
    }
    return 0;
}

static struct comm_channels *open_channels(void)
{
    struct comm_channels *channels = mem_alloc(sizeof *channels);

    MPI_Comm_dup(MPI_COMM_WORLD, &channels->sums);
    MPI_Comm_dup(MPI_COMM_WORLD, &channels->copies);
    MPI_Comm_dup(MPI_COMM_WORLD, &channels->asides);
    channels->aside = MPI_REQUEST_NULL;
    return channels;
}

int comm_open(struct comm **out, struct err *err)
{
    struct comm *comm;
    uint64_t rank, size;

    if (read_number("RANK", 0, &rank, err) < 0 || read_number("WORLD_SIZE", 1, &size, err) < 0)
        return -1;
    if (size < 1 || rank >= size || size > 1 << 20)
        return err_set(err, ERR_INVALID, "RANK=%llu with WORLD_SIZE=%llu, expected RANK below it",
                       (unsigned long long)rank, (unsigned long long)size);
    comm = mem_zalloc(sizeof *comm);
    comm->size = 1;
    if (size > 1) {
        if (connect_ranks(comm, rank, size, err) < 0) {
            mem_free(comm);
            return -1;
        }
        comm->scratch = mem_alloc(sizeof(double) * 2 * (size_t)(ROUND + comm->size));
        comm->channels = open_channels();
    }
    *out = comm;
    return 0;
}

void comm_close(struct comm *comm)
{
    if (!comm)
        return;
    if (comm->size > 1) {
        MPI_Comm_free(&comm->channels->sums);
        MPI_Comm_free(&comm->channels->copies);
        MPI_Comm_free(&comm->channels->asides);
        MPI_Finalize();
    }
    mem_free(comm->channels);
    mem_free(comm->scratch);
    mem_free(comm);
}

/* How values of one type are added: in rank order, into the first part. */
struct reduction {
    MPI_Datatype type;
    size_t item_bytes;
    void (*fold)(void *sum, const void *part, int64_t count);
};

#define FOLD(name, TYPE, statement) \
    static void name(void *sum, const void *part, int64_t count) \
    { \
        TYPE *a = sum; \
        const TYPE *b = part; \
\
        for (int64_t i = 0; i < count; i++) \
            statement; \
    }

FOLD(fold_f32, float, a[i] += b[i])
FOLD(fold_f64, double, a[i] += b[i])
FOLD(fold_i64, int64_t, a[i] += b[i])
FOLD(fold_max, double, a[i] = b[i] > a[i] ? b[i] : a[i])

/* One round: `count` values, split evenly; the last segments may be short or empty. */
static void reduce_round(struct comm *comm, char *values, int64_t count,
                         const struct reduction *r)
{
    int64_t segment = (count + comm->size - 1) / comm->size;
    size_t segment_bytes = (size_t)segment * r->item_bytes;
    char *padded = comm->scratch, *parts = padded + (size_t)comm->size * segment_bytes;

    memcpy(padded, values, (size_t)count * r->item_bytes);
    memset(padded + (size_t)count * r->item_bytes, 0,
           (size_t)(segment * comm->size - count) * r->item_bytes);
    MPI_Alltoall(padded, (int)segment, r->type, parts, (int)segment, r->type, MPI_COMM_WORLD);
    for (int rank = 1; rank < comm->size; rank++)
        r->fold(parts, parts + (size_t)rank * segment_bytes, segment);
    MPI_Allgather(parts, (int)segment, r->type, padded, (int)segment, r->type, MPI_COMM_WORLD);
    memcpy(values, padded, (size_t)count * r->item_bytes);
}

static void reduce(struct comm *comm, void *values, int64_t count, const struct reduction *r)
{
    if (comm->size == 1)
        return;
    for (int64_t at = 0; at < count; at += ROUND)
        reduce_round(comm, (char *)values + (size_t)at * r->item_bytes,
                     count - at < ROUND ? count - at : ROUND, r);
}

void comm_sum_f32(struct comm *comm, float *values, int64_t count)
{
    reduce(comm, values, count, &(struct reduction){MPI_FLOAT, sizeof(float), fold_f32});
}

void comm_sum_f64(struct comm *comm, double *values, int64_t count)
{
    reduce(comm, values, count, &(struct reduction){MPI_DOUBLE, sizeof(double), fold_f64});
}

void comm_sum_i64(struct comm *comm, int64_t *values, int64_t count)
{
    reduce(comm, values, count, &(struct reduction){MPI_INT64_T, sizeof(int64_t), fold_i64});
}

void comm_max_f64(struct comm *comm, double *values, int64_t count)
{
    reduce(comm, values, count, &(struct reduction){MPI_DOUBLE, sizeof(double), fold_max});
}

/* MPI counts are int; longer messages go in parts. */
#define PART_BYTES ((size_t)1 << 30)

void comm_broadcast(struct comm *comm, void *bytes, size_t length, int from_rank)
{
    if (comm->size == 1)
        return;
    for (size_t at = 0; at < length; at += PART_BYTES)
        MPI_Bcast((char *)bytes + at, (int)min_u64(PART_BYTES, length - at), MPI_BYTE, from_rank,
                  MPI_COMM_WORLD);
}

void comm_gather_all(struct comm *comm, const void *bytes, size_t length, void *out)
{
    CHECK(length <= PART_BYTES);
    if (comm->size == 1)
        memcpy(out, bytes, length);
    else
        MPI_Allgather(bytes, (int)length, MPI_BYTE, out, (int)length, MPI_BYTE, MPI_COMM_WORLD);
}

void comm_gather_begin(struct comm *comm, const void *bytes, size_t length, void *out)
{
    CHECK(length <= PART_BYTES);
    if (comm->size == 1)
        memcpy(out, bytes, length);
    else
        MPI_Iallgather(bytes, (int)length, MPI_BYTE, out, (int)length, MPI_BYTE,
                       comm->channels->asides, &comm->channels->aside);
}

bool comm_gather_done(struct comm *comm)
{
    int done = 1;

    if (comm->size > 1)
        MPI_Test(&comm->channels->aside, &done, MPI_STATUS_IGNORE);
    return done;
}

/* ---- parts of any length ---------------------------------------------------------------- */

static size_t sum_of(const size_t *length, int count)
{
    size_t sum = 0;

    for (int r = 0; r < count; r++)
        sum += length[r];
    return sum;
}

/* MPI's counts and places are int. All ranks must agree before any of them waits for the rest. */
static int check_sizes(struct comm *comm, size_t sent, size_t got, struct err *err)
{
    double most = (double)(sent > got ? sent : got);

    comm_max_f64(comm, &most, 1);
    if (most <= INT32_MAX)
        return 0;
    return err_set(err, ERR_LIMIT, "a rank would exchange %.0f bytes at once, at most %d can be; "
                   "use more ranks or smaller blocks", most, INT32_MAX);
}

static void set_places(const size_t *length, int count, int *counts, int *places)
{
    for (int r = 0, at = 0; r < count; at += counts[r++]) {
        counts[r] = (int)length[r];
        places[r] = at;
    }
}

int comm_exchange(struct comm *comm, const void *bytes, const size_t *length, void **out,
                  size_t *out_length, struct err *err)
{
    int size = comm->size;

    if (size == 1) {
        *out = mem_alloc(length[0] + 1);
        memcpy(*out, bytes, length[0]);
        out_length[0] = length[0];
        return 0;
    }
    size_t *arriving = mem_array((size_t)size, sizeof *arriving);
    MPI_Alltoall(length, sizeof *length, MPI_BYTE, arriving, sizeof *length, MPI_BYTE,
                 MPI_COMM_WORLD);
    int rc = check_sizes(comm, sum_of(length, size), sum_of(arriving, size), err);
    if (rc == 0) {
        int *room = mem_array(4 * (size_t)size, sizeof *room);
        set_places(length, size, room, room + size);
        set_places(arriving, size, room + 2 * size, room + 3 * size);
        *out = mem_alloc(sum_of(arriving, size) + 1);
        MPI_Alltoallv(bytes, room, room + size, MPI_BYTE, *out, room + 2 * size, room + 3 * size,
                      MPI_BYTE, MPI_COMM_WORLD);
        memcpy(out_length, arriving, (size_t)size * sizeof *arriving);
        mem_free(room);
    }
    mem_free(arriving);
    return rc;
}

void comm_exchange_rows(struct comm *comm, const float *from, const int64_t *send, float *to,
                        const int64_t *receive, int64_t row_floats)
{
    if (!comm || comm->size == 1) {
        memcpy(to, from, 4 * (size_t)(send[0] * row_floats));
        return;
    }
    int size = comm->size, *room = mem_array(4 * (size_t)size, sizeof *room);
    MPI_Datatype row;

    for (int r = 0, sent = 0, got = 0; r < size; r++) {
        room[r] = (int)send[r];
        room[size + r] = sent;
        room[2 * size + r] = (int)receive[r];
        room[3 * size + r] = got;
        sent += (int)send[r];
        got += (int)receive[r];
    }
    MPI_Type_contiguous((int)row_floats, MPI_FLOAT, &row);
    MPI_Type_commit(&row);
    MPI_Alltoallv(from, room, room + size, row, to, room + 2 * size, room + 3 * size, row,
                  MPI_COMM_WORLD);
    MPI_Type_free(&row);
    mem_free(room);
}

int comm_gather_parts(struct comm *comm, const void *bytes, size_t length, void **out,
                      size_t *out_length, struct err *err)
{
    int size = comm->size;
    size_t *lengths = mem_array((size_t)size, sizeof *lengths);

    comm_gather_all(comm, &length, sizeof length, lengths);
    size_t total = sum_of(lengths, size);
    int rc = check_sizes(comm, length, total, err);
    if (rc == 0) {
        int *room = mem_array(2 * (size_t)size, sizeof *room);
        set_places(lengths, size, room, room + size);
        *out = mem_alloc(total + 1);
        if (size == 1)
            memcpy(*out, bytes, length);
        else
            MPI_Allgatherv(bytes, (int)length, MPI_BYTE, *out, room, room + size, MPI_BYTE,
                           MPI_COMM_WORLD);
        *out_length = total;
        mem_free(room);
    }
    mem_free(lengths);
    return rc;
}

void comm_barrier(struct comm *comm)
{
    if (comm->size > 1)
        MPI_Barrier(MPI_COMM_WORLD);
}

static bool on_host(const struct tensor *tensor)
{
    return tensor->device->backend->kind != BACKEND_CUDA;
}

int comm_sum_grad(struct comm *comm, struct tensor *tensor, struct err *err)
{
    struct device *device = tensor->device;
    int64_t count = tensor_count(tensor);
    float *host;

    if (comm->size == 1)
        return 0;
    if (on_host(tensor)) {
        comm_sum_f32(comm, tensor->grad, count);
        return 0;
    }
    host = malloc(4 * (size_t)count);
    if (!host)
        return err_set(err, ERR_MEMORY, "%lld bytes are wanted to sum gradients on the host",
                       4 * (long long)count);
    device->backend->to_host(device, host, tensor->grad, 4 * (size_t)count);
    comm_sum_f32(comm, host, count);
    device->backend->from_host(device, tensor->grad, host, 4 * (size_t)count);
    device->backend->finish(device);
    free(host);
    return 0;
}

void comm_abort(struct comm *comm, int exit_code)
{
    if (comm && comm->size > 1)
        MPI_Abort(MPI_COMM_WORLD, exit_code);
}
