/* backend.h - what a kind of device can do: memory, and one kernel pair per op.
 *
 * A backend is a constant table of functions. Three exist: `reference` (plain C, double
 * accumulation: the truth the others are tested against), `cpu` (BLAS and vector kernels
 * on a thread pool) and `cuda` (when built, and a device is present). A device is one open
 * backend with its threads, its memory limit and its scratch.
 *
 * A kernel never allocates activations, never fails, and gives bit-identical results from
 * run to run for a fixed thread count: reductions have a fixed order. */
#ifndef ATHANOR_ENGINE_BACKEND_H
#define ATHANOR_ENGINE_BACKEND_H

#include "worker/engine/tensor.h"

/* OP(NAME, inputs, outputs, differentiable, whole numbers, real numbers): see ops.h. */
enum op {
#define OP(NAME, inputs, outputs, differentiable, wholes, reals) OP_##NAME,
#include "worker/engine/ops.def"
#undef OP
    OP_END
};

#define OP_INPUTS_MAX 7
#define OP_OUTPUTS_MAX 6
#define OP_WHOLES_MAX 6
#define OP_REALS_MAX 8

/* One call of an op: what the tape records and what kernels read. Optional inputs are NULL. */
struct op_call {
    enum op op;
    struct tensor *in[OP_INPUTS_MAX];
    struct tensor *out[OP_OUTPUTS_MAX];
    int64_t whole[OP_WHOLES_MAX];
    double real[OP_REALS_MAX];
};

/* forward fills out[*].values. backward reads out[*].grad and adds to in[*].grad where it
 * is not NULL; grad_ready says whether to add or to overwrite (see device_grad). */
typedef void (*op_kernel)(struct device *device, const struct op_call *call);

struct op_kernels {
    op_kernel forward;
    op_kernel backward;
    /* Scratch bytes that both need at most; NULL: none. Reserved before forward. */
    size_t (*scratch)(const struct device *device, const struct op_call *call);
    /* OP_LINEAR: w (M, K) in the order in which products of few rows read it, and how much that
     * takes; NULL: copies are of no use (packed.h). */
    void (*pack)(struct device *device, const struct tensor *w, float *out);
    size_t (*packed_bytes)(int64_t M, int64_t K);
};

/* Sums between the devices of several ranks without a way through host memory (NCCL). edge has
 * ranks + 1 entries: elements edge[r]..edge[r+1]-1 of values are rank r's segment, maybe none. All
 * ranks call the same in the same order; sum and share begin after what their device was told so
 * far, and go on while it is told more. */
struct rank_links {
    const char *name;
    size_t id_bytes; /* of what one rank makes and all need */
    bool (*usable)(struct err *why_not);
    int (*new_id)(void *out, struct err *err);
    int (*open)(struct device *device, int rank, int size, const void *id, void **out,
                struct err *err);
    void (*close)(void *links);
    /* Each segment's sum over ranks: with its owner, or with all. */
    void (*sum)(void *links, float *values, const int64_t *edge, bool owners_only);
    void (*share)(void *links, float *values, const int64_t *edge); /* from owners to all */
    void (*join)(void *links); /* what the device is told next comes after all of it */
};

enum backend_kind { BACKEND_REFERENCE = 1, BACKEND_CPU, BACKEND_CUDA, BACKEND_KIND_END };

struct backend {
    enum backend_kind kind;
    const char *name; /* "reference", "cpu", "cuda" */
    int (*open)(struct device *device, struct err *err);
    void (*close)(struct device *device);
    void *(*alloc)(struct device *device, size_t size_bytes); /* NULL when there is no more */
    void (*release)(struct device *device, void *memory);
    void (*zero)(struct device *device, void *memory, size_t size_bytes);
    void (*copy)(struct device *device, void *to, const void *from, size_t size_bytes);
    void (*to_host)(struct device *device, void *host, const void *from, size_t size_bytes);
    void (*from_host)(struct device *device, void *to, const void *host, size_t size_bytes);
    void (*finish)(struct device *device); /* waits for pending kernels */
    /* Rounds to bf16, to nearest, ties to even; NULL: no product here takes bf16. */
    void (*round)(struct device *device, const float *from, void *to, int64_t count);
    const struct op_kernels *ops;          /* OP_END entries            */
    const struct rank_links *links;        /* NULL: ranks meet in host memory */
};

struct comm;

/* The bf16 copy of the weights of one model (packed.h says who makes it and who keeps it true). */
struct rounded {
    const float *from;
    int64_t count; /* of weights                                              */
    int64_t room;  /* of numbers in the copy: behind the weights come zeros   */
    void *copy;
    struct rounded *next;
};

/* Products with the head may end at the next multiple of so many rows: tensor cores want that. */
#define ROUNDED_ROWS 64

struct device_config {
    enum backend_kind kind;
    unsigned threads;            /* of this rank, the caller's included; 0: OMP_NUM_THREADS or 1 */
    uint64_t memory_limit_bytes; /* of all allocations; 0: none. Job's resources.memory_bytes    */
    uint64_t memory_bytes;       /* that the rank may have, for packed.h;
                                    0: ATHANOR_RANK_MEMORY_BYTES, or no bound                    */
    unsigned index;              /* which GPU of the visible ones                                */
    bool bf16;                   /* matrix products in bf16 with f32 sums; cuda only             */
};

struct device {
    const struct backend *backend;
    struct device_config config;
    uint64_t used_bytes;
    uint64_t peak_bytes;
    void *scratch; /* grown only between ops, by device_scratch_reserve */
    size_t scratch_bytes;
    struct threads *threads;
    struct packed *packed;   /* copies of weights; NULL: none. packed.h      */
    struct rounded *rounded; /* copies in bf16, of each model; NULL: none     */
    void (*weights_written)(struct device *device, const void *from, size_t size_bytes);
    struct comm *comm; /* of OP_EXCHANGE, set by the caller; NULL: one rank */
    void *state;   /* the backend's own */
};

/* The table of a kind, or NULL when it is not part of this build. cuda is loaded when asked for. */
const struct backend *backend_find(enum backend_kind kind);
int backend_parse(const char *name, enum backend_kind *out, struct err *err) WARN_UNUSED;
/* Whether the machine can open it now (for cuda: driver and device present). Says why not. */
bool backend_usable(enum backend_kind kind, struct err *why_not);

/* Errors: ERR_NOT_FOUND (no cuda module, no such GPU), ERR_MEMORY. */
int device_open(const struct device_config *config, struct device **out, struct err *err)
    WARN_UNUSED;
void device_close(struct device *device);
bool device_supports(const struct device *device, enum op op, bool backward);
/* Memory of the device, counted against its limit. ERR_MEMORY states bytes wanted and used. */
int device_alloc(struct device *device, size_t size_bytes, void **out, struct err *err)
    WARN_UNUSED;
void device_release(struct device *device, void *memory, size_t size_bytes);
int device_scratch_reserve(struct device *device, size_t size_bytes, struct err *err) WARN_UNUSED;

/* For kernels: the gradient to add to. When it holds nothing yet it is zeroed, or, with
 * `overwrites`, left as it is and *overwrites set: the kernel must then store, not add. */
float *device_grad(struct device *device, struct tensor *tensor, bool *overwrites);

/* For kernels: the copy of `count` weights from w on, or NULL. Inline: the CUDA module needs it. */
static inline void *rounded_find(const struct device *device, const void *w, int64_t count)
{
    for (const struct rounded *r = device->rounded; r; r = r->next) {
        int64_t at = (const float *)w - r->from;

        if ((const float *)w >= r->from && at < r->count && at + count <= r->room)
            return (uint16_t *)r->copy + at;
    }
    return NULL;
}

const char *op_name(enum op op);
bool op_differentiable(enum op op);
void op_forward(struct device *device, const struct op_call *call);
void op_backward(struct device *device, const struct op_call *call);

#endif
