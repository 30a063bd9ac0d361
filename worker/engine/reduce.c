/* reduce.c - see reduce.h.
 *
 * Buckets start in order on every rank, whenever each rank is ready, and are folded and copied in
 * that order. MPI moves bytes only while it is called: the watcher of backward does that after
 * each op. At most SLOTS buckets are between their start and their fold. */
#include "worker/engine/reduce.h"

#include "worker/engine/backend.h"
#include "worker/engine/comm_channels.h"

#include "common/base/mem.h"

#include <stdlib.h>
#include <string.h>

#define SLOTS 4
#define ALIGN_FLOATS 16 /* segments begin at whole vectors and cache lines */

/* One bucket's transfer; MPI reads the counts until it is done. */
struct bucket {
    size_t ready_at; /* complete once this many calls of backward are left, or fewer */
    MPI_Request sum, copy;
    int *count, *place;         /* of each rank's segment within the bucket */
    int *own_count, *own_place; /* of this rank's segment, as it comes from each rank */
};

struct reducer {
    struct comm *comm;
    struct model *model;
    bool owners_only;
    int64_t bucket_floats, bucket_count;
    struct bucket *bucket;
    int *numbers;       /* behind count, place, ... */
    float *room[SLOTS]; /* of parts that arrive */
    float *host;        /* NULL, or the copy of a GPU's flat array */
    const struct rank_links *ops;
    void *links;        /* NULL: by MPI */
    int64_t *edge;      /* of a bucket's segments, for links */
    int64_t started, folded, copied; /* buckets so far */
    int64_t overlapped;
};

static bool on_host(const struct reducer *reducer)
{
    return reducer->model->device->backend->kind != BACKEND_CUDA;
}

/* Elements that every rank has. */
static int64_t shared_count(const struct reducer *reducer)
{
    return reducer->model->flat_count - reducer->model->own_count;
}

static void bucket_range(const struct reducer *reducer, int64_t bucket, int64_t *from, int64_t *to)
{
    *to = shared_count(reducer) - bucket * reducer->bucket_floats;
    *from = *to > reducer->bucket_floats ? *to - reducer->bucket_floats : 0;
}

void reducer_segment(const struct reducer *reducer, int64_t bucket, int rank, int64_t *from,
                     int64_t *to)
{
    int64_t begin, end, size = reducer->comm->size, share;

    bucket_range(reducer, bucket, &begin, &end);
    share = ((end - begin + size - 1) / size + ALIGN_FLOATS - 1) / ALIGN_FLOATS * ALIGN_FLOATS;
    *from = begin + rank * share < end ? begin + rank * share : end;
    *to = *from + share < end ? *from + share : end;
}

static int64_t bucket_floats_of(const struct model *model, size_t bucket_bytes)
{
    uint64_t bytes = 4 * (uint64_t)(model->flat_count - model->own_count) / 8;

    if (bucket_bytes == 0)
        bucket_bytes = min_u64(max_u64(bytes, REDUCE_BUCKET_LEAST), REDUCE_BUCKET_MOST);
    return (int64_t)max_u64(bucket_bytes / 4 / ALIGN_FLOATS, 1) * ALIGN_FLOATS;
}

static void plan_bucket(struct reducer *reducer, int64_t number)
{
    struct bucket *bucket = &reducer->bucket[number];
    int size = reducer->comm->size;
    int64_t begin, end, from, to, own_from, own_to;

    bucket->count = reducer->numbers + number * 4 * size;
    bucket->place = bucket->count + size;
    bucket->own_count = bucket->place + size;
    bucket->own_place = bucket->own_count + size;
    bucket_range(reducer, number, &begin, &end);
    reducer_segment(reducer, number, reducer->comm->rank, &own_from, &own_to);
    for (int rank = 0; rank < size; rank++) {
        reducer_segment(reducer, number, rank, &from, &to);
        bucket->count[rank] = (int)(to - from);
        bucket->place[rank] = (int)(from - begin);
        bucket->own_count[rank] = (int)(own_to - own_from);
        bucket->own_place[rank] = rank * (int)(own_to - own_from);
    }
}

static int take_rooms(struct reducer *reducer, struct err *err)
{
    /* Segments are rounded up: a rank's parts of a bucket may be a little more than the bucket. */
    size_t floats = (size_t)reducer->bucket_floats +
                    (size_t)reducer->comm->size * ALIGN_FLOATS;

    for (int i = 0; i < SLOTS; i++)
        if (!(reducer->room[i] = malloc(4 * floats)))
            return err_set(err, ERR_MEMORY, "%zu bytes are wanted to sum gradients over ranks",
                           SLOTS * 4 * floats);
    if (on_host(reducer))
        return 0;
    reducer->host = malloc(4 * (size_t)shared_count(reducer));
    if (!reducer->host)
        return err_set(err, ERR_MEMORY, "%lld bytes are wanted to sum gradients on the host",
                       4 * (long long)shared_count(reducer));
    return 0;
}

/* Whether all ranks can. */
static bool all_can(struct comm *comm, bool can)
{
    double failed = !can;

    comm_max_f64(comm, &failed, 1);
    return failed == 0;
}

/* Links where all ranks have them; otherwise none on any rank, and MPI does it. */
static void open_links(struct reducer *reducer)
{
    struct comm *comm = reducer->comm;
    struct device *device = reducer->model->device;
    struct err ignored;
    char *id;
    bool can;

    reducer->ops = device->backend->links;
    if (!all_can(comm, reducer->ops && reducer->ops->usable(&ignored)))
        return;
    id = mem_alloc(reducer->ops->id_bytes);
    can = comm->rank != 0 || reducer->ops->new_id(id, &ignored) == 0;
    if (all_can(comm, can)) {
        comm_broadcast(comm, id, reducer->ops->id_bytes, 0);
        can = reducer->ops->open(device, comm->rank, comm->size, id, &reducer->links,
                                 &ignored) == 0;
        if (!all_can(comm, can)) {
            reducer->ops->close(reducer->links);
            reducer->links = NULL;
        }
    }
    mem_free(id);
    if (reducer->links)
        reducer->edge = mem_array((size_t)comm->size + 1, sizeof *reducer->edge);
}

int reducer_new(struct comm *comm, struct model *model, size_t bucket_bytes, bool owners_only,
                struct reducer **out, struct err *err)
{
    struct reducer *reducer = mem_zalloc(sizeof *reducer);
    int64_t count = model->flat_count - model->own_count;

    CHECK(model->flat.grad != NULL);
    reducer->comm = comm;
    reducer->model = model;
    reducer->owners_only = owners_only && comm->size > 1;
    reducer->bucket_floats = bucket_floats_of(model, bucket_bytes);
    reducer->bucket_count = (count + reducer->bucket_floats - 1) / reducer->bucket_floats;
    *out = reducer;
    if (comm->size == 1)
        return 0;
    reducer->bucket = mem_array((size_t)reducer->bucket_count, sizeof *reducer->bucket);
    reducer->numbers = mem_array((size_t)(reducer->bucket_count * 4 * comm->size),
                                 sizeof *reducer->numbers);
    for (int64_t i = 0; i < reducer->bucket_count; i++)
        plan_bucket(reducer, i);
    open_links(reducer);
    if (reducer->links || take_rooms(reducer, err) == 0)
        return 0;
    reducer_free(reducer);
    return -1;
}

void reducer_free(struct reducer *reducer)
{
    if (!reducer)
        return;
    for (int i = 0; i < SLOTS; i++)
        free(reducer->room[i]);
    free(reducer->host);
    if (reducer->links)
        reducer->ops->close(reducer->links);
    mem_free(reducer->edge);
    mem_free(reducer->bucket);
    mem_free(reducer->numbers);
    mem_free(reducer);
}

/* -- one bucket ----------------------------------------------------------------------------- */

/* The array whose segments travel: gradients or weights, or their copy on the host. */
static float *array_of(const struct reducer *reducer, float *device_values)
{
    return reducer->host ? reducer->host : device_values;
}

static void start_sum(struct reducer *reducer, int64_t number)
{
    struct bucket *bucket = &reducer->bucket[number];
    float *grad = array_of(reducer, reducer->model->flat.grad);
    int64_t from, to;

    bucket_range(reducer, number, &from, &to);
    MPI_Ialltoallv(grad + from, bucket->count, bucket->place, MPI_FLOAT,
                   reducer->room[number % SLOTS], bucket->own_count, bucket->own_place, MPI_FLOAT,
                   reducer->comm->channels->sums, &bucket->sum);
}

static void start_copy(struct reducer *reducer, int64_t number, float *values)
{
    struct bucket *bucket = &reducer->bucket[number];
    int64_t from, to;

    bucket_range(reducer, number, &from, &to);
    MPI_Iallgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, values + from, bucket->count,
                    bucket->place, MPI_FLOAT, reducer->comm->channels->copies, &bucket->copy);
}

/* Rank 0 + 1 + 2 ..., element by element. */
static void fold(struct reducer *reducer, int64_t number)
{
    const float *part = reducer->room[number % SLOTS];
    float *sum = array_of(reducer, reducer->model->flat.grad);
    int64_t from, to, count;

    reducer_segment(reducer, number, reducer->comm->rank, &from, &to);
    count = to - from;
    sum += from;
    memcpy(sum, part, 4 * (size_t)count);
    for (int rank = 1; rank < reducer->comm->size; rank++) {
        part += count;
        for (int64_t i = 0; i < count; i++)
            sum[i] += part[i];
    }
}

static bool is_done(MPI_Request *request, bool waits)
{
    int done = 1;

    if (waits)
        MPI_Wait(request, MPI_STATUS_IGNORE);
    else
        MPI_Test(request, &done, MPI_STATUS_IGNORE);
    return done;
}

static const int64_t *edges_of(struct reducer *reducer, int64_t number)
{
    int size = reducer->comm->size;

    for (int rank = 0; rank < size; rank++)
        reducer_segment(reducer, number, rank, &reducer->edge[rank], &reducer->edge[rank + 1]);
    return reducer->edge;
}

/* -- all of them ---------------------------------------------------------------------------- */

/* Moves every bucket as far as it goes when calls_left calls of backward are still to come. */
static void advance(struct reducer *reducer, size_t calls_left, bool waits)
{
    while (reducer->started < reducer->bucket_count &&
           reducer->started - reducer->folded < SLOTS &&
           calls_left <= reducer->bucket[reducer->started].ready_at)
        start_sum(reducer, reducer->started++);
    while (reducer->folded < reducer->started &&
           is_done(&reducer->bucket[reducer->folded].sum, waits)) {
        fold(reducer, reducer->folded);
        if (!reducer->owners_only)
            start_copy(reducer, reducer->folded, array_of(reducer, reducer->model->flat.grad));
        reducer->folded++;
    }
    if (reducer->owners_only)
        reducer->copied = reducer->folded;
    while (reducer->copied < reducer->folded &&
           is_done(&reducer->bucket[reducer->copied].copy, waits))
        reducer->copied++;
}

static void advance_links(struct reducer *reducer, size_t calls_left)
{
    for (; reducer->started < reducer->bucket_count &&
           calls_left <= reducer->bucket[reducer->started].ready_at;
         reducer->started++)
        reducer->ops->sum(reducer->links, reducer->model->flat.grad,
                          edges_of(reducer, reducer->started), reducer->owners_only);
}

static void watch(void *argument, size_t calls_left)
{
    struct reducer *reducer = argument;

    if (reducer->links)
        advance_links(reducer, calls_left);
    else
        advance(reducer, calls_left, false);
}

/* The earliest call that adds to a bucket is the last that backward replays. */
static void note_use(struct reducer *reducer, const struct tensor *tensor, size_t call)
{
    const struct tensor *flat = &reducer->model->flat;
    int64_t at = tensor->grad - flat->grad, end = at + tensor_count(tensor);
    int64_t count = shared_count(reducer);

    for (int64_t i = (count - end) / reducer->bucket_floats;
         i <= (count - at - 1) / reducer->bucket_floats; i++)
        if (call < reducer->bucket[i].ready_at)
            reducer->bucket[i].ready_at = call;
}

static bool is_ours(const struct reducer *reducer, const struct tensor *tensor)
{
    const struct tensor *flat = &reducer->model->flat;

    return tensor && tensor->is_weight && tensor->grad >= flat->grad &&
           tensor->grad < flat->grad + shared_count(reducer);
}

void reducer_follow(struct reducer *reducer, struct tape *tape)
{
    const struct op_call *call;
    size_t count;

    if (reducer->comm->size == 1 || reducer->host)
        return;
    CHECK(reducer->started == 0);
    for (int64_t i = 0; i < reducer->bucket_count; i++)
        reducer->bucket[i].ready_at = SIZE_MAX;
    call = tape_calls(tape, &count);
    for (size_t i = 0; i < count; i++)
        for (int k = 0; k < OP_INPUTS_MAX; k++)
            if (is_ours(reducer, call[i].in[k]))
                note_use(reducer, call[i].in[k], i);
    tape_watch(tape, watch, reducer);
}

static void copy_in(struct reducer *reducer, const float *device_values)
{
    struct device *device = reducer->model->device;

    if (reducer->host)
        device->backend->to_host(device, reducer->host, device_values,
                                 4 * (size_t)shared_count(reducer));
}

static void copy_out(struct reducer *reducer, float *device_values)
{
    struct device *device = reducer->model->device;

    if (!reducer->host)
        return;
    device->backend->from_host(device, device_values, reducer->host,
                               4 * (size_t)shared_count(reducer));
    device->backend->finish(device);
}

void reducer_finish(struct reducer *reducer)
{
    if (reducer->comm->size == 1)
        return;
    reducer->overlapped = reducer->started;
    if (reducer->links) {
        advance_links(reducer, 0);
        reducer->ops->join(reducer->links);
        reducer->started = 0;
        return;
    }
    copy_in(reducer, reducer->model->flat.grad);
    while (reducer->copied < reducer->bucket_count)
        advance(reducer, 0, true);
    reducer->started = reducer->folded = reducer->copied = 0;
    copy_out(reducer, reducer->model->flat.grad);
}

void reducer_share_weights(struct reducer *reducer)
{
    float *values = array_of(reducer, tensor_f32(&reducer->model->flat));

    if (reducer->comm->size == 1)
        return;
    if (reducer->links) {
        for (int64_t i = 0; i < reducer->bucket_count; i++)
            reducer->ops->share(reducer->links, values, edges_of(reducer, i));
        reducer->ops->join(reducer->links);
        return;
    }
    copy_in(reducer, tensor_f32(&reducer->model->flat));
    for (int64_t i = 0; i < reducer->bucket_count; i++)
        start_copy(reducer, i, values);
    for (int64_t i = 0; i < reducer->bucket_count; i++)
        is_done(&reducer->bucket[i].copy, true);
    copy_out(reducer, tensor_f32(&reducer->model->flat));
}

/* -- facts ---------------------------------------------------------------------------------- */

struct comm *reducer_comm(const struct reducer *reducer)
{
    return reducer->comm;
}

bool reducer_owners_only(const struct reducer *reducer)
{
    return reducer->owners_only;
}

int64_t reducer_bucket_count(const struct reducer *reducer)
{
    return reducer->bucket_count;
}

const char *reducer_path(const struct reducer *reducer)
{
    if (reducer->links)
        return reducer->ops->name;
    return reducer->host ? "mpi through host memory" : "mpi";
}

int64_t reducer_overlapped(const struct reducer *reducer)
{
    return reducer->overlapped;
}
