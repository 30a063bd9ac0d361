/* gemm.h - matrix products, split over the rank's threads by rows or columns of the result.
 *
 * The BLAS itself runs one thread per call (backend.c sets that): one pool for everything,
 * and every element of the result is summed by one thread in one order. */
#ifndef ATHANOR_ENGINE_CPU_GEMM_H
#define ATHANOR_ENGINE_CPU_GEMM_H

#include "worker/engine/cpu/kernels/kernels.h"

#include <cblas.h>

struct gemm {
    bool a_transposed, b_transposed;
    int64_t rows, columns, inner;
    const float *a;
    int64_t a_stride;
    const float *b;
    int64_t b_stride;
    float *c;
    int64_t c_stride;
    bool accumulates; /* c += a b, else c = a b */
    const float *bias; /* per column, added at the end; NULL: none */
};

/* Splits the longer side of c over the threads. */
void KERNEL(gemm_run)(struct device *device, const struct gemm *gemm);
/* The same for few rows (packed.h), a not transposed, b transposed, c overwritten: few.c. */
void KERNEL(few_run)(struct device *device, const struct gemm *gemm);

/* On the calling thread: for use inside a share of other work. */
static inline void gemm_single(const struct gemm *g)
{
    cblas_sgemm(CblasRowMajor, g->a_transposed ? CblasTrans : CblasNoTrans,
                g->b_transposed ? CblasTrans : CblasNoTrans, (int)g->rows, (int)g->columns,
                (int)g->inner, 1.0f, g->a, (int)g->a_stride, g->b, (int)g->b_stride,
                g->accumulates ? 1.0f : 0.0f, g->c, (int)g->c_stride);
}

#endif
