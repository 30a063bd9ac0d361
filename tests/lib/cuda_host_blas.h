/* cuda_host_blas.h - the calls of cuBLAS that the CUDA backend makes, as loops; see cuda_host.h. */
#ifndef ATHANOR_TESTS_CUDA_HOST_BLAS_H
#define ATHANOR_TESTS_CUDA_HOST_BLAS_H

typedef void *cublasHandle_t, *cublasLtHandle_t, *cublasLtMatmulDesc_t, *cublasLtMatrixLayout_t,
    *cublasLtMatmulPreference_t;
struct cublasLtMatmulAlgo_t { int none; };
struct cublasLtMatmulHeuristicResult_t { cublasLtMatmulAlgo_t algo; };
enum cublasStatus_t { CUBLAS_STATUS_SUCCESS, CUBLAS_STATUS_NOT_SUPPORTED };
enum cublasOperation_t { CUBLAS_OP_N, CUBLAS_OP_T };
enum cudaDataType_t { CUDA_R_32F, CUDA_R_16BF };
enum { CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT };
enum cublasLtEpilogue_t { CUBLASLT_EPILOGUE_DEFAULT, CUBLASLT_EPILOGUE_BIAS };
enum { CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE,
       CUBLASLT_MATMUL_DESC_BIAS_POINTER, CUBLASLT_MATMUL_DESC_TRANSA,
       CUBLASLT_MATMUL_DESC_TRANSB, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
       CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
       CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES };

#define HOST_BLAS_DONE(name) \
    template <typename... P> static inline cublasStatus_t name(P...) \
    { \
        return CUBLAS_STATUS_SUCCESS; \
    }
HOST_BLAS_DONE(cublasCreate)
HOST_BLAS_DONE(cublasDestroy)
HOST_BLAS_DONE(cublasSetStream)
HOST_BLAS_DONE(cublasSetWorkspace)
HOST_BLAS_DONE(cublasLtCreate)
HOST_BLAS_DONE(cublasLtDestroy)
HOST_BLAS_DONE(cublasLtMatmulDescCreate)
HOST_BLAS_DONE(cublasLtMatmulDescDestroy)
HOST_BLAS_DONE(cublasLtMatmulDescSetAttribute)
HOST_BLAS_DONE(cublasLtMatrixLayoutCreate)
HOST_BLAS_DONE(cublasLtMatrixLayoutDestroy)
HOST_BLAS_DONE(cublasLtMatmulPreferenceCreate)
HOST_BLAS_DONE(cublasLtMatmulPreferenceDestroy)
HOST_BLAS_DONE(cublasLtMatmulPreferenceSetAttribute)

template <typename... P> static inline cublasStatus_t cublasLtMatmulAlgoGetHeuristic(P...)
{
    return CUBLAS_STATUS_NOT_SUPPORTED; /* none found */
}

template <typename... P> static inline cublasStatus_t cublasLtMatmul(P...)
{
    return CUBLAS_STATUS_NOT_SUPPORTED; /* nobody may call it: no plan was found */
}

static inline const char *cublasGetStatusString(cublasStatus_t) { return "not on the host"; }

/* c (rows, columns) = op(a) op(b) + beta c, column-major as in BLAS. */
struct host_product {
    cublasOperation_t a_op, b_op;
    int rows, columns, inner, a_step, b_step, c_step;
    cudaDataType_t type;
    float alpha, beta;
};
void host_product_run(const struct host_product *p, const void *a, const void *b, float *c);

static inline cublasStatus_t cublasGemmEx(cublasHandle_t, cublasOperation_t a_op,
                                          cublasOperation_t b_op, int rows, int columns, int inner,
                                          const float *alpha, const void *a, cudaDataType_t type,
                                          int a_step, const void *b, cudaDataType_t, int b_step,
                                          const float *beta, void *c, cudaDataType_t, int c_step,
                                          int, int)
{
    struct host_product p = {a_op, b_op, rows, columns, inner, a_step, b_step, c_step, type, *alpha,
                             *beta};

    host_product_run(&p, a, b, (float *)c);
    return CUBLAS_STATUS_SUCCESS;
}

static inline cublasStatus_t cublasGemmBatchedEx(
    cublasHandle_t handle, cublasOperation_t a_op, cublasOperation_t b_op, int rows, int columns,
    int inner, const float *alpha, const void *const a[], cudaDataType_t type, int a_step,
    const void *const b[], cudaDataType_t b_type, int b_step, const float *beta, void *const c[],
    cudaDataType_t c_type, int c_step, int count, int compute, int algorithm)
{
    for (int i = 0; i < count; i++)
        cublasGemmEx(handle, a_op, b_op, rows, columns, inner, alpha, a[i], type, a_step, b[i],
                     b_type, b_step, beta, c[i], c_type, c_step, compute, algorithm);
    return CUBLAS_STATUS_SUCCESS;
}

#endif
