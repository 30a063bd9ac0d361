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

template <typename item>
static void product(const struct host_product *p, const item *a, const item *b, float *c)
{
    int64_t a_row = p->a_op ? p->a_step : 1, a_term = p->a_op ? 1 : p->a_step;
    int64_t b_column = p->b_op ? 1 : p->b_step, b_term = p->b_op ? p->b_step : 1;

    for (int64_t j = 0; j < p->columns; j++)
        for (int64_t i = 0; i < p->rows; i++) {
            float *out = c + j * p->c_step + i;
            double sum = 0;

            for (int64_t l = 0; l < p->inner; l++)
                sum += as_double(a[i * a_row + l * a_term]) *
                       as_double(b[j * b_column + l * b_term]);
            *out = (float)(p->alpha * sum + (p->beta != 0 ? p->beta * *out : 0));
        }
}

void host_product_run(const struct host_product *p, const void *a, const void *b, float *c)
{
    if (p->type == CUDA_R_16BF)
        product(p, (const __nv_bfloat16 *)a, (const __nv_bfloat16 *)b, c);
    else
        product(p, (const float *)a, (const float *)b, c);
}
