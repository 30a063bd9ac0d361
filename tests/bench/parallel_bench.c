/* link: engine-core
 *
 * parallel_bench.c - one training step on 1 rank, on 1 rank with 2 threads and on 2 ranks.
 *
 *   parallel_bench [--steps N] [--layers N]
 *
 * Starts itself under mpirun. The batch is the same for all rows of the table (strong scaling), a
 * rank takes its share. Times are the best of N steps on rank 0; GPT-2 of about 14 M weights.
 * ms-cpu: processor time of all ranks, those that wait included, which poll. ms-open: what a step
 * still waits for gradients of others when its backward has ended; where nothing overlaps, that is
 * the whole reduction (all ranks then begin it together), so 1 less the ratio of the two is the
 * share that overlaps. Bytes are what the device has counted: before the first step weights,
 * gradients and moments, beside the arithmetic of worker/engine/README.md; then the peak. */
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "worker/engine/optim.h"
#include "worker/engine/spread.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ROWS 8
#define TOKENS 128

struct plan {
    const char *name;
    int ranks;
    unsigned threads;
    bool overlaps, zero, experts, spreads;
};

static const struct plan plans[] = {
    {"1 rank", 1, 1, false, false, false, false},
    {"1 rank, 2 threads", 1, 2, false, false, false, false},
    {"2 ranks", 2, 1, false, false, false, false},
    {"2 ranks, overlapped", 2, 1, true, false, false, false},
    {"2 ranks, overlapped, zero", 2, 1, true, true, false, false},
    {"experts, 1 rank", 1, 1, false, false, true, false},
    {"experts, 2 ranks", 2, 1, true, false, true, false},
    {"experts, 2 ranks, spread", 2, 1, true, false, true, true},
    {"experts, 2 ranks, spread, zero", 2, 1, true, true, true, true},
};

static void must(int rc, const struct err *err)
{
    if (rc == 0)
        return;
    fprintf(stderr, "parallel_bench: %s\n", err->text);
    exit(1);
}

struct job {
    const struct plan *plan;
    struct comm *comm;
    struct device *device;
    struct model *model;
    struct tape *tape;
    struct reducer *reducer;
    struct optim *optim;
    int32_t token[ROWS * TOKENS], target[ROWS * TOKENS];
    float weight[ROWS * TOKENS];
};

static struct model_config shape_of(const struct job *job, int64_t layers)
{
    struct model_config shape = {.family = MODEL_GPT2, .vocab_size = 8192, .context = TOKENS,
                                 .width = 384, .layers = layers, .heads = 6, .tied = true};

    if (job->plan->experts)
        shape = (struct model_config){.family = MODEL_MOE, .vocab_size = 8192, .context = TOKENS,
                                      .width = 256, .layers = layers, .heads = 4, .experts = 8,
                                      .choices = 2, .ffn_width = 352, .tied = true,
                                      .balance_loss = 0.01};
    if (job->plan->spreads) {
        shape.expert_ranks = job->comm->size;
        shape.expert_rank = job->comm->rank;
    }
    return shape;
}

static void job_open(struct job *job, const struct plan *plan, int64_t layers)
{
    struct device_config where = {.kind = BACKEND_CPU, .threads = plan->threads};
    struct optim_config adamw = {.weight_decay = 0.1, .clip_norm = 1};
    struct model_config shape;
    struct err err;

    *job = (struct job){.plan = plan};
    must(comm_open(&job->comm, &err), &err);
    must(device_open(&where, &job->device, &err), &err);
    job->device->comm = job->comm;
    shape = shape_of(job, layers);
    must(model_new(job->device, &shape, 1, &job->model, &err), &err);
    must(reducer_new(job->comm, job->model, 0, plan->zero, &job->reducer, &err), &err);
    must(optim_new_shared(job->reducer, job->model, &adamw, &job->optim, &err), &err);
    must(tape_new(job->device, TAPE_TRAIN, &job->tape, &err), &err);
    for (int i = 0; i < ROWS * TOKENS; i++) {
        job->token[i] = (int32_t)(rng_at(1, (uint64_t)i, 0) % 8192);
        job->target[i] = (int32_t)(rng_at(1, (uint64_t)i, 1) % 8192);
        job->weight[i] = 1.0f / (ROWS * TOKENS);
    }
}

static void job_close(struct job *job)
{
    tape_free(job->tape);
    optim_free(job->optim);
    reducer_free(job->reducer);
    model_free(job->model);
    device_close(job->device);
    comm_close(job->comm);
}

struct times {
    double wall_ms, cpu_ms, open_ms;
};

static double cpu_ms_now(void)
{
    struct timespec cpu;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    return 1e3 * (double)cpu.tv_sec + 1e-6 * (double)cpu.tv_nsec;
}

/* Ends the reduction; milliseconds that it took. */
static double reduce(struct job *job)
{
    uint64_t start_us;

    if (!job->plan->overlaps)
        comm_barrier(job->comm);
    start_us = clock_steady_us();
    reducer_finish(job->reducer);
    return 1e-3 * (double)(clock_steady_us() - start_us);
}

static double step(struct job *job)
{
    int64_t rows = ROWS / job->comm->size, first = rows * job->comm->rank * TOKENS;
    struct model_batch batch = {.B = rows, .T = TOKENS, .token = job->token + first,
                                .share = 1.0 / job->comm->size, .comm = job->comm};
    struct model_states states = {0};
    struct loss_values values = {0};
    struct loss_head loss = {.head = job->model->head, .target = job->target + first,
                             .ce_weight = job->weight + first};
    double norm, open_ms;
    struct err err;

    tape_reset(job->tape);
    must(model_forward(job->tape, job->model, &batch, &states, &err), &err);
    loss.hidden = states.hidden;
    must(loss_head(job->tape, &loss, &values, &err), &err);
    if (job->plan->overlaps)
        reducer_follow(job->reducer, job->tape);
    must(tape_backward(job->tape, &err), &err);
    open_ms = reduce(job);
    must(optim_step(job->optim, 1e-4, &norm, &err), &err);
    return open_ms;
}

static double lower(double a, double b)
{
    return a < b ? a : b;
}

/* Each the best of so many steps: they need not be of the same one. */
static struct times best_of(struct job *job, int steps)
{
    struct times best = {1e30, 1e30, 1e30};

    for (int i = 0; i < steps; i++) {
        uint64_t start_us;
        double cpu_ms;

        comm_barrier(job->comm);
        cpu_ms = cpu_ms_now();
        start_us = clock_steady_us();
        best.open_ms = lower(best.open_ms, step(job));
        best.wall_ms = lower(best.wall_ms, 1e-3 * (double)(clock_steady_us() - start_us));
        cpu_ms = cpu_ms_now() - cpu_ms;
        comm_sum_f64(job->comm, &cpu_ms, 1);
        best.cpu_ms = lower(best.cpu_ms, cpu_ms);
    }
    return best;
}

/* Bytes of weights, gradients and moments by the arithmetic. */
static double state_bytes(const struct job *job)
{
    double own = 16.0 * (double)job->model->own_count;
    double shared = (double)(job->model->flat_count - job->model->own_count);

    return own + shared * (job->plan->zero ? 8 + 8.0 / job->comm->size : 16);
}

static int rank_main(const struct plan *plan, int steps, int64_t layers)
{
    struct job *job = mem_zalloc(sizeof *job);
    struct times best;
    uint64_t state;

    if (getenv("OMPI_COMM_WORLD_RANK")) {
        setenv("RANK", getenv("OMPI_COMM_WORLD_RANK"), 1);
        setenv("WORLD_SIZE", getenv("OMPI_COMM_WORLD_SIZE"), 1);
    }
    job_open(job, plan, layers);
    state = job->device->used_bytes;
    step(job);
    best = best_of(job, steps);
    if (job->comm->rank == 0)
        printf("%-31s %8.1f ms %8.1f ms-cpu %8.0f tok/s %6.1f ms-open  "
               "%3lld of %lld buckets early  state %6.1f MiB (arithmetic %6.1f)  peak %6.1f MiB\n",
               plan->name, best.wall_ms, best.cpu_ms, ROWS * TOKENS * 1e3 / best.wall_ms,
               best.open_ms,
               (long long)reducer_overlapped(job->reducer),
               (long long)reducer_bucket_count(job->reducer), (double)state / 1048576,
               state_bytes(job) / 1048576, (double)job->device->peak_bytes / 1048576);
    fflush(stdout);
    job_close(job);
    mem_free(job);
    return 0;
}

/* Starts this program once more, as one process or as ranks. */
static int run_plan(size_t number, const char *steps, const char *layers)
{
    char self[4096], ranks[16], plan[24];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    int status = -1;
    pid_t pid;

    if (length <= 0)
        return -1;
    self[length] = 0;
    snprintf(ranks, sizeof ranks, "%d", plans[number].ranks);
    snprintf(plan, sizeof plan, "%zu", number);
    pid = fork();
    if (pid == 0) {
        if (plans[number].ranks == 1)
            execl(self, self, "--rank", plan, steps, layers, (char *)NULL);
        else
            execlp("mpirun", "mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to",
                   "none", "--mca", "mpi_yield_when_idle", "1", "-n", ranks, self, "--rank", plan,
                   steps, layers, (char *)NULL);
        _exit(127);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
        return fprintf(stderr, "parallel_bench: '%s' did not run (mpirun installed?)\n",
                       plans[number].name), -1;
    return 0;
}

int main(int count, char **words)
{
    const char *steps = "5", *layers = "6";

    if (count == 5 && strcmp(words[1], "--rank") == 0)
        return rank_main(&plans[atoi(words[2])], atoi(words[3]), atoi(words[4]));
    for (int i = 1; i < count; i++) {
        if (i + 1 < count && strcmp(words[i], "--steps") == 0)
            steps = words[++i];
        else if (i + 1 < count && strcmp(words[i], "--layers") == 0)
            layers = words[++i];
        else
            return fprintf(stderr, "usage: parallel_bench [--steps N] [--layers N]\n"), 2;
    }
    for (size_t i = 0; i < ARRAY_COUNT(plans); i++)
        if (run_plan(i, steps, layers) < 0)
            return 1;
    return 0;
}
