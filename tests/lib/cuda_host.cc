/* cuda_host.cc - blocks of fibers, memory and products of cuda_host.h. */
#include <map>
#include <vector>

struct dim3 threadIdx, blockIdx, blockDim, gridDim;

#define WARP_LANES 32
#define THREADS_MAX 1024
#define STACK_BYTES ((size_t)64 << 10)

enum stand { RUNNING, AT_WARP, AT_BLOCK, DONE };

struct fiber {
    ucontext_t start;
    jmp_buf at;
    bool begun;
    enum stand stand;
};

static struct {
    std::vector<struct fiber> fibers;
    std::vector<char> stacks;
    jmp_buf scheduler;
    const std::function<void()> *thread;
    unsigned current;
    uint32_t warp_value[THREADS_MAX]; /* what lanes gave; read after the whole warp has */
    uint32_t warp_seen[THREADS_MAX];
    int block_count, block_seen;
    bool backwards;
} host;

static void die(const char *what)
{
    fprintf(stderr, "cuda_host: block %u, thread %u: %s\n", blockIdx.x, host.current, what);
    abort();
}

/* Leaves the fiber until the scheduler lets it go on. Jumps cost no system call. */
static void wait_as(enum stand stand)
{
    struct fiber *fiber = &host.fibers[host.current];

    fiber->stand = stand;
    if (_setjmp(fiber->at) == 0)
        _longjmp(host.scheduler, 1);
}

/* A fiber serves thread after thread, block after block. */
static void fiber_main()
{
    for (;;) {
        (*host.thread)();
        wait_as(DONE);
    }
}

static void fiber_resume(unsigned index)
{
    struct fiber *fiber = &host.fibers[index];

    host.current = threadIdx.x = index;
    fiber->stand = RUNNING;
    if (_setjmp(host.scheduler) != 0)
        return;
    if (fiber->begun)
        _longjmp(fiber->at, 1);
    fiber->begun = true;
    getcontext(&fiber->start);
    fiber->start.uc_stack.ss_sp = &host.stacks[index * STACK_BYTES];
    fiber->start.uc_stack.ss_size = STACK_BYTES;
    makecontext(&fiber->start, fiber_main, 0);
    setcontext(&fiber->start);
}

const uint32_t *host_warp(uint32_t value)
{
    host.warp_value[host.current] = value;
    wait_as(AT_WARP);
    return host.warp_seen + host.current / WARP_LANES * WARP_LANES;
}

int host_block(int value)
{
    host.block_count += value != 0;
    wait_as(AT_BLOCK);
    return host.block_seen;
}

/* Runs the lanes of a warp until all stand at the block's barrier or are done. */
static void warp_run(unsigned first, unsigned lanes)
{
    for (;;) {
        unsigned at_warp = 0;

        for (unsigned i = 0; i < lanes; i++) {
            unsigned lane = first + (host.backwards ? lanes - 1 - i : i);

            if (host.fibers[lane].stand == RUNNING)
                fiber_resume(lane);
            at_warp += host.fibers[lane].stand == AT_WARP;
        }
        if (at_warp == 0)
            return;
        if (at_warp != WARP_LANES)
            die("an operation of the warp without all its lanes");
        memcpy(host.warp_seen + first, host.warp_value + first, 4 * WARP_LANES);
        for (unsigned i = 0; i < lanes; i++)
            host.fibers[first + i].stand = RUNNING;
    }
}

static void block_run(unsigned threads)
{
    unsigned warps = (threads + WARP_LANES - 1) / WARP_LANES, waiting;

    for (unsigned i = 0; i < threads; i++)
        host.fibers[i].stand = RUNNING;
    do {
        host.block_count = 0;
        for (unsigned w = 0; w < warps; w++) {
            unsigned first = (host.backwards ? warps - 1 - w : w) * WARP_LANES;

            warp_run(first, first + WARP_LANES < threads ? WARP_LANES : threads - first);
        }
        waiting = 0;
        for (unsigned i = 0; i < threads; i++) {
            waiting += host.fibers[i].stand == AT_BLOCK;
            if (host.fibers[i].stand == AT_BLOCK)
                host.fibers[i].stand = RUNNING;
        }
        if (waiting != 0 && waiting != threads)
            die("a barrier without all threads of the block");
        host.block_seen = host.block_count;
    } while (waiting != 0);
}

void host_run(unsigned blocks, unsigned threads, const std::function<void()> &thread)
{
    if (blocks == 0 || threads == 0 || threads > THREADS_MAX)
        die("a launch that no GPU takes");
    if (host.fibers.empty()) {
        host.fibers.resize(THREADS_MAX);
        host.stacks.resize(THREADS_MAX * STACK_BYTES);
    }
    host.thread = &thread;
    host.backwards = !host.backwards;
    blockDim = {threads, 1, 1};
    gridDim = {blocks, 1, 1};
    for (unsigned b = 0; b < blocks; b++) {
        blockIdx.x = host.backwards ? blocks - 1 - b : b;
        block_run(threads);
    }
}

#define PAGE_BYTES ((size_t)4096)

static std::map<void *, std::pair<char *, size_t>> allocated; /* memory: its pages */

/* The array ends at a page that nobody may touch (or up to 15 bytes before it). */
cudaError_t cudaMalloc(void **out, size_t size)
{
    size_t room = (size + 15) / 16 * 16, pages = (room + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    void *base = mmap(NULL, pages + PAGE_BYTES, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (base == MAP_FAILED || mprotect((char *)base + pages, PAGE_BYTES, PROT_NONE) != 0)
        return cudaErrorMemoryAllocation;
    *out = (char *)base + pages - room;
    memset(*out, 0xff, room); /* NaN as f32, -1 as i32 */
    allocated[*out] = {(char *)base, pages + PAGE_BYTES};
    return cudaSuccess;
}

cudaError_t cudaFree(void *memory)
{
    auto found = allocated.find(memory);

    if (found == allocated.end())
        die("freeing what is not allocated");
    munmap(found->second.first, found->second.second);
    allocated.erase(found);
    return cudaSuccess;
}

static double as_double(float v) { return v; }
static double as_double(__nv_bfloat16 v) { return (float)v; }

/* GELU by tanh, as cuBLASLt has it, and its slope: written apart from the kernels' own. */
static double gelu(double x)
{
    return x / 2 * (1 + tanh(0.79788456080286536 * (x + 0.044715 * x * x * x)));
}

static double gelu_slope_of(double x)
{
    double t = tanh(0.79788456080286536 * (x + 0.044715 * x * x * x));

    return (1 + t) / 2 + x / 2 * (1 - t * t) * 0.79788456080286536 * (1 + 3 * 0.044715 * x * x);
}

/* What becomes of element (i, j), still exact. */
template <typename item>
static double finished(const struct host_product *p, int64_t i, int64_t j, double sum)
{
    item *aux = (item *)p->aux + j * p->aux_step + i;

    if (p->epilogue == CUBLASLT_EPILOGUE_DGELU)
        return sum * gelu_slope_of(as_double(*aux));
    if (p->epilogue == CUBLASLT_EPILOGUE_DEFAULT)
        return sum;
    sum += as_double(((const item *)p->bias)[i]);
    if (p->epilogue == CUBLASLT_EPILOGUE_BIAS)
        return sum;
    *aux = (item)(float)sum;
    return gelu(sum);
}

template <typename item, typename c_item>
static void product(const struct host_product *p, const item *a, const item *b, c_item *c)
{
    int64_t a_row = p->a_op ? p->a_step : 1, a_term = p->a_op ? 1 : p->a_step;
    int64_t b_column = p->b_op ? 1 : p->b_step, b_term = p->b_op ? p->b_step : 1;

    for (int64_t j = 0; j < p->columns; j++)
        for (int64_t i = 0; i < p->rows; i++) {
            c_item *out = c + j * p->c_step + i;
            double sum = 0;

            for (int64_t l = 0; l < p->inner; l++)
                sum += as_double(a[i * a_row + l * a_term]) *
                       as_double(b[j * b_column + l * b_term]);
            sum = p->alpha * sum + (p->beta != 0 ? p->beta * as_double(*out) : 0);
            *out = (c_item)(float)finished<c_item>(p, i, j, sum);
        }
}

void host_product_run(const struct host_product *p, const void *a, const void *b, void *c)
{
    if (p->type == CUDA_R_16BF && p->c_type == CUDA_R_16BF)
        product(p, (const __nv_bfloat16 *)a, (const __nv_bfloat16 *)b, (__nv_bfloat16 *)c);
    else if (p->type == CUDA_R_16BF)
        product(p, (const __nv_bfloat16 *)a, (const __nv_bfloat16 *)b, (float *)c);
    else if (p->c_type == CUDA_R_32F)
        product(p, (const float *)a, (const float *)b, (float *)c);
    else
        die("a product of floats in bf16");
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t description, int attribute,
                                              const void *value, size_t size)
{
    const struct { int attribute; void *to; size_t size; } known[] = {
        {CUBLASLT_MATMUL_DESC_TRANSA, &description->a_op, sizeof description->a_op},
        {CUBLASLT_MATMUL_DESC_TRANSB, &description->b_op, sizeof description->b_op},
        {CUBLASLT_MATMUL_DESC_EPILOGUE, &description->epilogue, sizeof description->epilogue},
        {CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &description->bias_type,
         sizeof description->bias_type},
        {CUBLASLT_MATMUL_DESC_BIAS_POINTER, &description->bias, sizeof description->bias},
        {CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &description->aux, sizeof description->aux},
        {CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &description->aux_step,
         sizeof description->aux_step},
    };

    for (const auto &one : known) {
        if (one.attribute != attribute)
            continue;
        if (size != one.size)
            die("an attribute of another size");
        memcpy(one.to, value, size);
        return CUBLAS_STATUS_SUCCESS;
    }
    return CUBLAS_STATUS_NOT_SUPPORTED;
}

static bool is_even(cublasLtMatrixLayout_t layout)
{
    return layout->rows % 8 == 0 && layout->columns % 8 == 0 && layout->step % 8 == 0;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t description,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t,
                                              cublasLtMatmulPreference_t, int,
                                              cublasLtMatmulHeuristicResult_t *, int *found)
{
    bool gelu_epilogue = description->epilogue == CUBLASLT_EPILOGUE_GELU_AUX_BIAS ||
                         description->epilogue == CUBLASLT_EPILOGUE_DGELU;

    *found = is_even(a) && is_even(b) && is_even(c);
    if (gelu_epilogue && (c->type != CUDA_R_16BF || description->aux_step % 8 != 0 ||
                          description->aux_step < (int64_t)c->rows || !description->aux))
        *found = 0;
    return *found ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t description,
                              const float *alpha, const void *a, cublasLtMatrixLayout_t a_layout,
                              const void *b, cublasLtMatrixLayout_t b_layout, const float *beta,
                              const void *c, cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t, const cublasLtMatmulAlgo_t *, void *, size_t,
                              cudaStream_t)
{
    uint64_t inner = description->a_op ? a_layout->rows : a_layout->columns;
    bool wants_bias = description->epilogue == CUBLASLT_EPILOGUE_BIAS ||
                      description->epilogue == CUBLASLT_EPILOGUE_GELU_AUX_BIAS;
    struct host_product p = {description->a_op, description->b_op, (int)c_layout->rows,
                             (int)c_layout->columns, (int)inner, (int)a_layout->step,
                             (int)b_layout->step, (int)c_layout->step, a_layout->type, *alpha,
                             *beta, c_layout->type, description->epilogue, description->bias,
                             description->aux, description->aux_step};

    if (c != d || inner != (description->b_op ? b_layout->columns : b_layout->rows) ||
        a_layout->type != b_layout->type)
        die("a product whose sides do not meet");
    if (wants_bias && (!description->bias || description->bias_type != c_layout->type))
        die("a bias that is not of the result's type");
    host_product_run(&p, a, b, d);
    return CUBLAS_STATUS_SUCCESS;
}
