/* links.cu - sums between the GPUs of several ranks by NCCL; see struct rank_links in backend.h.
 *
 * NCCL is loaded when it is wanted, so that the module also loads where it is not installed. Work
 * goes to a stream of its own behind an event of the device's stream: the host never waits. Every
 * segment is reduced to its owner and, where all are to have it, sent on from there, so that both
 * ways of training get the same bits; the order of the sum is NCCL's, which is fixed for one
 * version, one topology and one length. */
#include "worker/engine/cuda/cuda.h"

#if __has_include(<nccl.h>)
#include <nccl.h>

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* FUNCTION(name): what is used of NCCL. */
#define FUNCTIONS \
    FUNCTION(GetUniqueId) \
    FUNCTION(CommInitRank) \
    FUNCTION(CommDestroy) \
    FUNCTION(GroupStart) \
    FUNCTION(GroupEnd) \
    FUNCTION(Reduce) \
    FUNCTION(Broadcast) \
    FUNCTION(GetErrorString)

struct nccl {
#define FUNCTION(name) decltype(&nccl##name) name;
    FUNCTIONS
#undef FUNCTION
};

struct links {
    struct device *device;
    const struct nccl *nccl;
    ncclComm_t comm;
    cudaStream_t stream;
    cudaEvent_t told, done; /* by the device's stream, by this one */
    int rank, size;
};

static const struct nccl *load(struct err *err)
{
    static struct nccl nccl;
    static bool is_loaded;
    void *library;

    if (is_loaded)
        return &nccl;
    library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        err_set(err, ERR_NOT_FOUND, "nccl: %s", dlerror());
        return NULL;
    }
#define FUNCTION(name) \
    nccl.name = (decltype(nccl.name))dlsym(library, "nccl" #name); \
    if (!nccl.name) { \
        err_set(err, ERR_NOT_FOUND, "nccl: libnccl.so.2 has no nccl" #name); \
        return NULL; \
    }
    FUNCTIONS
#undef FUNCTION
    is_loaded = true;
    return &nccl;
}

/* A failing transfer is a broken machine or a lost rank: says so and ends the process. */
static void check(const struct nccl *nccl, ncclResult_t result, const char *call, int line)
{
    char text[400];

    if (result == ncclSuccess)
        return;
    snprintf(text, sizeof text, "%s: %s", call, nccl->GetErrorString(result));
    check_failed(text, __FILE__, line);
}
#define NCCL_CHECK(links, call) check((links)->nccl, (links)->nccl->call, #call, __LINE__)

static int links_new_id(void *out, struct err *err)
{
    const struct nccl *nccl = load(err);
    ncclResult_t result;

    if (!nccl)
        return -1;
    result = nccl->GetUniqueId((ncclUniqueId *)out);
    if (result != ncclSuccess)
        return err_set(err, ERR_IO, "nccl: making an id: %s", nccl->GetErrorString(result));
    return 0;
}

static bool links_usable(struct err *why_not)
{
    return load(why_not) != NULL;
}

static void links_close(void *state)
{
    struct links *links = (struct links *)state;

    if (!links)
        return;
    if (links->comm)
        links->nccl->CommDestroy(links->comm);
    if (links->told)
        cudaEventDestroy(links->told);
    if (links->done)
        cudaEventDestroy(links->done);
    if (links->stream)
        cudaStreamDestroy(links->stream);
    free(links);
}

static int links_open(struct device *device, int rank, int size, const void *id, void **out,
                      struct err *err)
{
    struct links *links = (struct links *)calloc(1, sizeof *links);
    ncclUniqueId unique;
    ncclResult_t result;

    if (!links)
        return err_set(err, ERR_MEMORY, "nccl: %zu bytes", sizeof *links);
    links->device = device;
    links->nccl = load(err);
    links->rank = rank;
    links->size = size;
    memcpy(&unique, id, sizeof unique);
    if (!links->nccl)
        goto fail;
    CUDA_CHECK(cudaStreamCreateWithFlags(&links->stream, cudaStreamNonBlocking));
    CUDA_CHECK(cudaEventCreateWithFlags(&links->told, cudaEventDisableTiming));
    CUDA_CHECK(cudaEventCreateWithFlags(&links->done, cudaEventDisableTiming));
    result = links->nccl->CommInitRank(&links->comm, size, unique, rank);
    if (result != ncclSuccess) {
        err_set(err, ERR_IO, "nccl: joining as rank %d of %d: %s", rank, size,
                links->nccl->GetErrorString(result));
        goto fail;
    }
    *out = links;
    return 0;
fail:
    links_close(links);
    return -1;
}

/* What the device was told so far comes before what follows on this stream. */
static void follow_device(struct links *links)
{
    CUDA_CHECK(cudaEventRecord(links->told, gpu_of(links->device)->stream));
    CUDA_CHECK(cudaStreamWaitEvent(links->stream, links->told, 0));
}

static void broadcast(struct links *links, float *values, const int64_t *edge)
{
    NCCL_CHECK(links, GroupStart());
    for (int r = 0; r < links->size; r++)
        if (edge[r + 1] > edge[r])
            NCCL_CHECK(links, Broadcast(values + edge[r], values + edge[r],
                                        (size_t)(edge[r + 1] - edge[r]), ncclFloat32, r,
                                        links->comm, links->stream));
    NCCL_CHECK(links, GroupEnd());
}

static void links_sum(void *state, float *values, const int64_t *edge, bool owners_only)
{
    struct links *links = (struct links *)state;

    follow_device(links);
    NCCL_CHECK(links, GroupStart());
    for (int r = 0; r < links->size; r++)
        if (edge[r + 1] > edge[r])
            NCCL_CHECK(links, Reduce(values + edge[r], values + edge[r],
                                     (size_t)(edge[r + 1] - edge[r]), ncclFloat32, ncclSum, r,
                                     links->comm, links->stream));
    NCCL_CHECK(links, GroupEnd());
    if (!owners_only)
        broadcast(links, values, edge);
}

static void links_share(void *state, float *values, const int64_t *edge)
{
    struct links *links = (struct links *)state;

    follow_device(links);
    broadcast(links, values, edge);
}

static void links_join(void *state)
{
    struct links *links = (struct links *)state;

    CUDA_CHECK(cudaEventRecord(links->done, links->stream));
    CUDA_CHECK(cudaStreamWaitEvent(gpu_of(links->device)->stream, links->done, 0));
}

static const struct rank_links nccl_links = {
    .name = "nccl", .id_bytes = sizeof(ncclUniqueId), .usable = links_usable,
    .new_id = links_new_id, .open = links_open, .close = links_close, .sum = links_sum,
    .share = links_share, .join = links_join,
};

extern const struct rank_links *const cuda_links = &nccl_links;
#else
extern const struct rank_links *const cuda_links = NULL;
#endif
