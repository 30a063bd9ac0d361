/* tensor.h - a shaped array in the memory of one device, with room for its gradient.
 *
 * Row-major and dense. The last dimension is contiguous. Activations belong to a tape
 * and die at tape_reset; weights belong to a model. Nobody frees a tensor by itself. */
#ifndef ATHANOR_ENGINE_TENSOR_H
#define ATHANOR_ENGINE_TENSOR_H

#include "common/base/err.h"

struct device;
struct tensor;

/* A low-rank addition to a weight: rows from..from+rows-1 of W are W + scale b a. op_linear adds
 * it; see lora.h. */
struct adapter {
    struct tensor *a, *b; /* (rank, columns), (rows, rank) */
    int64_t from;
    double scale;
    const struct adapter *next;
};

enum dtype { DTYPE_F32 = 1, DTYPE_I32, DTYPE_END }; /* four bytes each */

#define TENSOR_RANK_MAX 4

struct tensor {
    struct device *device;
    enum dtype dtype;
    int rank;                     /* 1..TENSOR_RANK_MAX                                      */
    int64_t dim[TENSOR_RANK_MAX]; /* unused ones are 1                                       */
    void *values;                 /* device memory                                           */
    float *grad;                  /* device memory, same shape; NULL: none (yet)             */
    bool wants_grad;              /* backward must fill grad; set by ops from their inputs   */
    bool grad_ready;              /* grad holds values; false: the first writer overwrites   */
    bool is_weight;               /* grad is the model's, += over the whole optimiser step   */
    bool of_model;                /* a model's: who writes it by other ways than tensor_write
                                     tells packed_written (packed.h)                         */
    const struct adapter *adapter; /* of a weight; NULL: none                                */
};

int64_t tensor_count(const struct tensor *tensor);       /* elements                */
int64_t tensor_rows(const struct tensor *tensor);        /* product of all but last */
int64_t tensor_columns(const struct tensor *tensor);     /* last dimension          */

static inline float *tensor_f32(const struct tensor *tensor)
{
    return (float *)tensor->values;
}

static inline int32_t *tensor_i32(const struct tensor *tensor)
{
    return (int32_t *)tensor->values;
}

/* Host copies of all elements; the device's pending work is finished first. */
void tensor_read(const struct tensor *tensor, void *out_host);
void tensor_write(struct tensor *tensor, const void *host);
/* Gradient of all elements; zeros when backward has not reached the tensor. */
void tensor_read_grad(const struct tensor *tensor, float *out_host);

#endif
