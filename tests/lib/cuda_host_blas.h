/* cuda_host_blas.h - the calls of cuBLAS that the CUDA backend makes, as loops; see cuda_host.h. */
#ifndef ATHANOR_TESTS_CUDA_HOST_BLAS_H
#define ATHANOR_TESTS_CUDA_HOST_BLAS_H

typedef void *cublasHandle_t, *cublasLtHandle_t, *cublasLtMatmulPreference_t;
struct cublasLtMatmulAlgo_t { int none; };
struct cublasLtMatmulHeuristicResult_t { cublasLtMatmulAlgo_t algo; };
enum cublasStatus_t { CUBLAS_STATUS_SUCCESS, CUBLAS_STATUS_NOT_SUPPORTED };
enum cublasOperation_t { CUBLAS_OP_N, CUBLAS_OP_T };
enum cudaDataType_t { CUDA_R_32F, CUDA_R_16BF };
enum { CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT };
enum cublasLtEpilogue_t { CUBLASLT_EPILOGUE_DEFAULT, CUBLASLT_EPILOGUE_BIAS,
                          CUBLASLT_EPILOGUE_GELU_AUX_BIAS, CUBLASLT_EPILOGUE_DGELU };
enum { CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE,
       CUBLASLT_MATMUL_DESC_BIAS_POINTER, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER,
       CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, CUBLASLT_MATMUL_DESC_TRANSA,
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
HOST_BLAS_DONE(cublasLtMatmulPreferenceDestroy)
HOST_BLAS_DONE(cublasLtMatmulPreferenceSetAttribute)

static inline cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *out)
{
    *out = NULL;
    return CUBLAS_STATUS_SUCCESS;
}

static inline const char *cublasGetStatusString(cublasStatus_t) { return "not on the host"; }

/* c (rows, columns) = op(a) op(b) + beta c, column-major as in BLAS. */
struct host_product {
    cublasOperation_t a_op, b_op;
    int rows, columns, inner, a_step, b_step, c_step;
    cudaDataType_t type;
    float alpha, beta;
    cudaDataType_t c_type;
    cublasLtEpilogue_t epilogue;
    const void *bias; /* of c's type, a number for each row */
    void *aux;        /* of c's type                        */
    int64_t aux_step;
};
void host_product_run(const struct host_product *p, const void *a, const void *b, void *c);

static inline cublasStatus_t cublasGemmEx(cublasHandle_t, cublasOperation_t a_op,
                                          cublasOperation_t b_op, int rows, int columns, int inner,
                                          const float *alpha, const void *a, cudaDataType_t type,
                                          int a_step, const void *b, cudaDataType_t, int b_step,
                                          const float *beta, void *c, cudaDataType_t c_type,
                                          int c_step, int, int)
{
    struct host_product p = {a_op, b_op, rows, columns, inner, a_step, b_step, c_step, type, *alpha,
                             *beta, c_type, CUBLASLT_EPILOGUE_DEFAULT, NULL, NULL, 0};

    host_product_run(&p, a, b, c);
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

/* cuBLASLt: what is described is what is run. It has an algorithm where every side and stride is a
 * multiple of 8, which is what its epilogues ask for; so the table's odd sizes take the other way.
 * Of epilogues it checks what the manual demands. */
struct host_layout {
    cudaDataType_t type;
    uint64_t rows, columns;
    int64_t step;
};
struct host_description {
    cublasOperation_t a_op, b_op;
    cublasLtEpilogue_t epilogue;
    cudaDataType_t bias_type;
    const void *bias;
    void *aux;
    int64_t aux_step;
};
typedef struct host_layout *cublasLtMatrixLayout_t;
typedef struct host_description *cublasLtMatmulDesc_t;

static inline cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *out, int,
                                                      cudaDataType_t)
{
    *out = new host_description();
    return CUBLAS_STATUS_SUCCESS;
}

static inline cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t description)
{
    delete description;
    return CUBLAS_STATUS_SUCCESS;
}

static inline cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *out,
                                                        cudaDataType_t type, uint64_t rows,
                                                        uint64_t columns, int64_t step)
{
    *out = new host_layout{type, rows, columns, step};
    return CUBLAS_STATUS_SUCCESS;
}

static inline cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
    delete layout;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t description, int attribute,
                                              const void *value, size_t size);
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t description,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t, int wanted,
                                              cublasLtMatmulHeuristicResult_t *out, int *found);
cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t description,
                              const float *alpha, const void *a, cublasLtMatrixLayout_t a_layout,
                              const void *b, cublasLtMatrixLayout_t b_layout, const float *beta,
                              const void *c, cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *,
                              void *workspace, size_t workspace_bytes, cudaStream_t);

#endif
