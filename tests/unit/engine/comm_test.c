/* comm_test.c - ranks: the program starts itself under mpirun and checks sums, buckets of
 * gradients and shared optimisers there.
 *
 * Child mode is chosen by --rank. RANK and WORLD_SIZE are what a shepherd would set; under
 * mpirun they are copied from its own variables. */
#include "tests/unit/engine/small_models.h"
#include "worker/engine/optim.h"
#include "worker/engine/spread.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHILD_CHECK(statement) \
    do { \
        if (!(statement)) { \
            fprintf(stderr, "rank %d: not true: %s\n", comm->rank, #statement); \
            failed = 1; \
        } \
    } while (0)

static int check_sums(struct comm *comm)
{
    static float values[3000001], expected[3000001];
    int64_t counts[2] = {comm->rank + 1, 10};
    double highest = -5.0 - comm->rank;
    int failed = 0, all[8];

    for (int i = 0; i < 3000001; i++) {
        expected[i] = 0;
        for (int r = 0; r < comm->size; r++)
            expected[i] += (float)rng_unit_at(1, (uint64_t)r, (uint64_t)i);
        values[i] = (float)rng_unit_at(1, (uint64_t)comm->rank, (uint64_t)i);
    }
    comm_sum_f32(comm, values, 3000001);
    CHILD_CHECK(memcmp(values, expected, sizeof values) == 0); /* rank order, bit for bit */
    comm_sum_i64(comm, counts, 2);
    CHILD_CHECK(counts[0] == comm->size * (comm->size + 1) / 2 && counts[1] == 10 * comm->size);
    comm_max_f64(comm, &highest, 1);
    CHILD_CHECK(highest == -5.0);
    comm_gather_all(comm, &comm->rank, sizeof(int), all);
    for (int r = 0; r < comm->size; r++)
        CHILD_CHECK(all[r] == r);
    comm_gather_begin(comm, &comm->rank, sizeof(int), all);
    comm_max_f64(comm, &highest, 1); /* other collectives go on meanwhile */
    while (!comm_gather_done(comm))
        ;
    for (int r = 0; r < comm->size; r++)
        CHILD_CHECK(all[r] == r);
    comm_broadcast(comm, counts, sizeof counts, comm->size - 1);
    comm_barrier(comm);
    return failed;
}

/* The gradient of a batch split over the ranks equals the gradient of the whole batch on one.
 * 1e-5 of the largest entry: sums of the rows are grouped differently. */
static int check_gradient(struct comm *comm)
{
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model *model = small_model(device, &small_gpt2, 2);
    struct tape *tape = small_tape(device, TAPE_TRAIN);
    int failed = 0;
    struct small_batch whole, mine;
    float *expected, *got, scale = 0, most = 0;
    struct err err;

    small_batch_fill(&whole, small_gpt2.vocab_size, 3);
    mine = whole;
    small_loss(tape, model, &whole);
    expected = small_grads(model);
    model_zero_grad(model);
    for (int i = 0; i < SMALL_N; i++)
        if (i / SMALL_T % comm->size != comm->rank) /* rows of other ranks */
            mine.target[i] = -1;
    mine.batch.token = mine.token;
    small_loss(tape, model, &mine);
    must(comm_sum_grad(comm, &model->flat, &err));
    got = small_grads(model);
    for (int64_t i = 0; i < model->flat_count; i++) {
        most = fmaxf(most, fabsf(got[i] - expected[i]));
        scale = fmaxf(scale, fabsf(expected[i]));
    }
    CHILD_CHECK(scale > 0 && most <= 1e-5f * scale);
    mem_free(expected);
    mem_free(got);
    tape_free(tape);
    model_free(model);
    device_close(device);
    return failed;
}

/* One step's gradient of this rank: its rows of two batches, in two passes of which the last one
 * is followed by the reducer (NULL: by none). */
static void two_passes(struct comm *comm, struct tape *tape, struct model *model,
                       struct reducer *reducer, uint64_t seed)
{
    struct small_batch b;
    struct model_states states = {0};
    struct loss_values values = {0};
    struct loss_head loss = {.head = model->head, .target = b.target, .ce_weight = b.weight};
    struct err err;

    small_batch_fill(&b, model->config.vocab_size, seed + (uint64_t)comm->rank);
    small_loss(tape, model, &b);
    small_batch_fill(&b, model->config.vocab_size, 100 * seed + (uint64_t)comm->rank);
    tape_reset(tape);
    must(model_forward(tape, model, &b.batch, &states, &err));
    loss.hidden = states.hidden;
    must(loss_head(tape, &loss, &values, &err));
    if (reducer)
        reducer_follow(reducer, tape);
    must(tape_backward(tape, &err));
}

/* Sums by buckets that overlap backward have the bits of the plain sum, whatever their size. */
static int check_buckets(struct comm *comm, const struct model_config *config, size_t bucket_bytes)
{
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model *model = small_model(device, config, 2);
    struct tape *tape = small_tape(device, TAPE_TRAIN);
    struct reducer *reducer = NULL;
    size_t bytes = 4 * (size_t)model->flat_count;
    float *plain, *bucketed;
    int failed = 0;
    struct err err;

    must(reducer_new(comm, model, bucket_bytes, false, &reducer, &err));
    two_passes(comm, tape, model, NULL, 5);
    must(comm_sum_grad(comm, &model->flat, &err));
    plain = small_grads(model);
    for (int round = 0; round < 2; round++) { /* followed, and not */
        model_zero_grad(model);
        two_passes(comm, tape, model, round == 0 ? reducer : NULL, 5);
        reducer_finish(reducer);
        bucketed = small_grads(model);
        CHILD_CHECK(memcmp(plain, bucketed, bytes) == 0);
        CHILD_CHECK(reducer_bucket_count(reducer) == 1 ||
                    (reducer_overlapped(reducer) > 0) == (round == 0));
        mem_free(bucketed);
    }
    mem_free(plain);
    reducer_free(reducer);
    tape_free(tape);
    model_free(model);
    device_close(device);
    return failed;
}

/* Three steps; weights afterwards (mem_free). *out_state: elements with moments on this rank. */
static float *train_three(struct comm *comm, const struct model_config *config, bool zero,
                          double norm[3], int64_t *out_state)
{
    struct optim_config adamw = {.weight_decay = 0.1, .clip_norm = 0.5};
    struct device *device = small_device(BACKEND_CPU, 2);
    struct model *model = small_model(device, config, 2);
    struct tape *tape = small_tape(device, TAPE_TRAIN);
    struct reducer *reducer = NULL;
    struct optim *optim = NULL;
    float *weights = mem_array((size_t)model->flat_count, sizeof *weights);
    struct err err;

    must(reducer_new(comm, model, 4096, zero, &reducer, &err));
    must(optim_new_shared(reducer, model, &adamw, &optim, &err));
    for (int step = 0; step < 3; step++) {
        two_passes(comm, tape, model, reducer, 7 + (uint64_t)step);
        reducer_finish(reducer);
        must(optim_step(optim, 1e-2, &norm[step], &err));
    }
    tensor_read(&model->flat, weights);
    *out_state = tensor_count(&optim->m);
    optim_free(optim);
    reducer_free(reducer);
    tape_free(tape);
    model_free(model);
    device_close(device);
    return weights;
}

/* ZeRO-1: the same bits from about a rank's share of the moments, on all ranks together all. */
static int check_zero(struct comm *comm, const struct model_config *config)
{
    int64_t whole, share, sum;
    double norm[2][3];
    float *plain = train_three(comm, config, false, norm[0], &whole);
    float *zero = train_three(comm, config, true, norm[1], &share);
    int failed = 0;

    CHILD_CHECK(memcmp(plain, zero, 4 * (size_t)whole) == 0);
    CHILD_CHECK(memcmp(norm[0], norm[1], sizeof norm[0]) == 0);
    sum = share;
    comm_sum_i64(comm, &sum, 1);
    CHILD_CHECK(sum == whole);
    CHILD_CHECK((double)share <= 1.1 * (double)whole / comm->size);
    mem_free(plain);
    mem_free(zero);
    return failed;
}

/* Links as a GPU's backend has them, made of blocking calls: a segment that is not this rank's is
 * spoilt where only its owner is to have the sum. */
static struct comm *linked;

static bool links_usable(struct err *why_not)
{
    (void)why_not;
    return true;
}

static int links_new_id(void *out, struct err *err)
{
    (void)err;
    memcpy(out, "id", 3);
    return 0;
}

/* The last rank cannot, where its id says so: then none may. */
static const char *unable = "";

static int links_open(struct device *device, int rank, int size, const void *id, void **out,
                      struct err *err)
{
    (void)device;
    if (strcmp(id, "id") != 0 || (*unable && rank == size - 1))
        return err_set(err, ERR_IO, "rank %d cannot", rank);
    *out = linked;
    return 0;
}

static void links_close(void *links)
{
    (void)links;
}

static void links_sum(void *links, float *values, const int64_t *edge, bool owners_only)
{
    struct comm *comm = links;

    comm_sum_f32(comm, values + edge[0], edge[comm->size] - edge[0]);
    for (int64_t i = edge[0]; i < edge[comm->size]; i++)
        if (owners_only && (i < edge[comm->rank] || i >= edge[comm->rank + 1]))
            values[i] = NAN;
}

static void links_share(void *links, float *values, const int64_t *edge)
{
    struct comm *comm = links;

    for (int r = 0; r < comm->size; r++)
        comm_broadcast(comm, values + edge[r], 4 * (size_t)(edge[r + 1] - edge[r]), r);
}

static void links_join(void *links)
{
    (void)links;
}

static const struct rank_links blocking_links = {
    .name = "blocking", .id_bytes = 3, .usable = links_usable, .new_id = links_new_id,
    .open = links_open, .close = links_close, .sum = links_sum, .share = links_share,
    .join = links_join};

/* Ranks that sum by links of their devices train to the same bits; where one has none, by MPI. */
static int check_links(struct comm *comm, bool zero, const char *who_cannot)
{
    struct device *device = small_device(BACKEND_CPU, 1);
    const struct backend *plain = device->backend;
    struct backend with_links = *plain;
    float *weights[2];
    double norm[2];
    int failed = 0;

    linked = comm;
    unable = who_cannot;
    with_links.links = &blocking_links;
    for (int i = 0; i < 2; i++) {
        struct optim_config adamw = {.clip_norm = 0.5};
        struct reducer *reducer = NULL;
        struct optim *optim = NULL;
        struct err err;

        device->backend = i == 0 ? plain : &with_links;
        struct model *model = small_model(device, &small_gpt2, 2);
        struct tape *tape = small_tape(device, TAPE_TRAIN);
        must(reducer_new(comm, model, 4096, zero, &reducer, &err));
        CHILD_CHECK(strcmp(reducer_path(reducer), i == 0 || *unable ? "mpi" : "blocking") == 0);
        must(optim_new_shared(reducer, model, &adamw, &optim, &err));
        two_passes(comm, tape, model, reducer, 7);
        reducer_finish(reducer);
        must(optim_step(optim, 1e-2, &norm[i], &err));
        weights[i] = mem_array((size_t)model->flat_count, sizeof(float));
        tensor_read(&model->flat, weights[i]);
        if (i == 1)
            CHILD_CHECK(memcmp(weights[0], weights[1], 4 * (size_t)model->flat_count) == 0);
        optim_free(optim);
        reducer_free(reducer);
        tape_free(tape);
        model_free(model);
    }
    CHILD_CHECK(norm[0] == norm[1]);
    mem_free(weights[0]);
    mem_free(weights[1]);
    device->backend = plain;
    device_close(device);
    return failed;
}

/* One rank whose gradient is not a number: all refuse the step. */
static int check_divergence(struct comm *comm, bool zero)
{
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model *model = small_model(device, &small_gpt2, 2);
    struct reducer *reducer = NULL;
    struct optim *optim = NULL;
    int failed = 0;
    double norm;
    struct err err;

    must(reducer_new(comm, model, 4096, zero, &reducer, &err));
    must(optim_new_shared(reducer, model, &(struct optim_config){0}, &optim, &err));
    if (comm->rank == comm->size - 1)
        model->flat.grad[model->flat_count / 2] = NAN;
    reducer_finish(reducer);
    CHILD_CHECK(optim_step(optim, 1e-2, &norm, &err) == -1 && err.kind == ERR_LIMIT);
    CHILD_CHECK(optim->step == 0);
    optim_free(optim);
    reducer_free(reducer);
    model_free(model);
    device_close(device);
    return failed;
}

static const struct model_config small_moe = {
    .family = MODEL_MOE, .vocab_size = 53, .context = 24, .width = 24, .layers = 2, .heads = 6,
    .kv_heads = 2, .head_width = 8, .ffn_width = 16, .experts = 7, .choices = 2,
    .shared_experts = 1, .balance_loss = 0.3, .z_loss = 0.1, .init_std = 0.2, .bos_token = -1,
    .eos_token = -1};

/* How a step of the test below goes: the last rank may have no targets, hence no gradient. */
struct moe_plan {
    bool zero, idles;
    bool recomputes, tight; /* tight: experts take few tokens more than their share */
};

/* One training step of this rank's rows, as a trainer makes it; whole weights (mem_free), and the
 * sum of the experts' balance over layers. */
static float *moe_step(struct comm *comm, struct device *device, const struct model_config *config,
                       const struct moe_plan *plan, double *norm, double *balance)
{
    struct optim_config adamw = {.weight_decay = 0.1, .clip_norm = 0.5};
    struct model *model = small_model(device, config, 2), *whole = NULL;
    struct tape *tape = small_tape(device, TAPE_TRAIN);
    struct tensor *route[2];
    struct model_states states = {.route = route};
    struct reducer *reducer = NULL;
    struct optim *optim = NULL;
    struct small_batch b;
    struct loss_values values = {0};
    struct loss_head loss = {.head = model->head, .target = b.target, .ce_weight = b.weight};
    float stats[ROUTE_STATS], *weights;
    struct err err;

    tape_recompute(tape, plan->recomputes);
    must(reducer_new(comm, model, 4096, plan->zero, &reducer, &err));
    must(optim_new_shared(reducer, model, &adamw, &optim, &err));
    small_batch_fill(&b, config->vocab_size, 31 + (uint64_t)comm->rank);
    for (int i = 0; i < SMALL_N && plan->idles && comm->rank == comm->size - 1; i++)
        b.target[i] = -1;
    b.batch.share = 1.0 / comm->size;
    b.batch.comm = comm;
    must(model_forward(tape, model, &b.batch, &states, &err));
    loss.hidden = states.hidden;
    must(loss_head(tape, &loss, &values, &err));
    *balance = 0;
    for (int i = 0; i < 2; i++) {
        tensor_read(route[i], stats);
        *balance += stats[ROUTE_STAT_BALANCE];
    }
    reducer_follow(reducer, tape);
    must(tape_backward(tape, &err));
    reducer_finish(reducer);
    must(optim_step(optim, 1e-3, norm, &err));
    if (config->expert_ranks > 1)
        must(spread_gather(model, true, &whole, &err));
    weights = mem_array((size_t)(whole ? whole : model)->flat_count, sizeof *weights);
    tensor_read(&(whole ? whole : model)->flat, weights);
    model_free(whole);
    optim_free(optim);
    reducer_free(reducer);
    tape_free(tape);
    model_free(model);
    return weights;
}

/* Experts on all ranks give what all experts on each rank give, to rounding: 2e-3 of a step of
 * 1e-3, since AdamW's first step of a gradient near 0 has the size of any other. */
static int check_experts(struct comm *comm, struct moe_plan plan)
{
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model_config config = small_moe;
    struct model *whole = small_model(device, &config, 2);
    double norm[2], balance[2];
    float *all = moe_step(comm, device, &config, &plan, &norm[0], &balance[0]), *spread;
    int64_t far = 0;
    int failed = 0;

    device->comm = comm;
    config.expert_ranks = comm->size;
    config.expert_rank = comm->rank;
    spread = moe_step(comm, device, &config, &plan, &norm[1], &balance[1]);
    for (int64_t i = 0; i < whole->flat_count; i++)
        far += fabsf(all[i] - spread[i]) > 2e-6f;
    CHILD_CHECK(far <= whole->flat_count / 1000);
    CHILD_CHECK(fabs(norm[0] - norm[1]) <= 1e-5 * norm[0]);
    CHILD_CHECK(fabs(balance[0] - balance[1]) <= 1e-6 * balance[0]);
    CHILD_CHECK(memcmp(all, tensor_f32(&whole->flat), 4 * (size_t)whole->flat_count) != 0);
    mem_free(all);
    mem_free(spread);
    model_free(whole);
    device_close(device);
    return failed;
}

/* Blocks that are computed again in backward: the same bits, experts here or on all ranks. */
static int check_recompute(struct comm *comm, struct moe_plan plan, bool spreads)
{
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model_config config = small_moe;
    struct model *whole = small_model(device, &config, 2);
    double norm[2], balance[2];
    float *weights[2];
    int failed = 0;

    device->comm = comm;
    config.capacity_factor = plan.tight ? 1.1 : 0;
    if (spreads) {
        config.expert_ranks = comm->size;
        config.expert_rank = comm->rank;
    }
    for (int i = 0; i < 2; i++) {
        plan.recomputes = i == 1;
        weights[i] = moe_step(comm, device, &config, &plan, &norm[i], &balance[i]);
    }
    CHILD_CHECK(memcmp(weights[0], weights[1], 4 * (size_t)whole->flat_count) == 0);
    CHILD_CHECK(norm[0] == norm[1] && balance[0] == balance[1]);
    mem_free(weights[0]);
    mem_free(weights[1]);
    model_free(whole);
    device_close(device);
    return failed;
}

/* Every assignment of every rank arrives at some rank, and comes back to where it was. */
static int check_tokens(struct comm *comm)
{
    enum { N = 29, E = 7, D = 5, K = 2 };
    struct device *device = small_device(BACKEND_CPU, 1);
    struct tape *tape = small_tape(device, TAPE_INFER);
    struct route_config config = {.choices = K};
    float logits[N * E], x[N * D], back[N * K * D], sent[N * K * D];
    struct tensor *there, *dispatched;
    struct spread spread;
    struct route route;
    int64_t rows;
    int failed = 0;

    device->comm = comm;
    for (int i = 0; i < N * E; i++)
        logits[i] = (float)rng_unit_at(9, (uint64_t)comm->rank, (uint64_t)i);
    for (int i = 0; i < N * D; i++)
        x[i] = (float)(1000 * comm->rank + i);
    CHILD_CHECK(op_route(tape, tape_f32(tape, logits, N, E), &config, &route));
    dispatched = op_dispatch(tape, tape_f32(tape, x, N, D), &route);
    CHILD_CHECK(op_spread(tape, &route, &spread));
    rows = spread.rows;
    comm_sum_i64(comm, &rows, 1);
    CHILD_CHECK(rows == (int64_t)comm->size * N * K);
    there = op_exchange(tape, dispatched, &spread, false);
    CHILD_CHECK(tensor_i32(spread.here.starts)[spread.here.experts] == spread.rows);
    tensor_read(dispatched, sent);
    tensor_read(op_exchange(tape, there, &spread, true), back);
    CHILD_CHECK(memcmp(sent, back, sizeof back) == 0);
    for (int64_t r = 1; r < spread.here.starts->dim[0]; r++) /* ranks in order within an expert */
        for (int64_t i = tensor_i32(spread.here.starts)[r - 1] + 1;
             i < tensor_i32(spread.here.starts)[r]; i++)
            CHILD_CHECK(tensor_f32(there)[i * D] > tensor_f32(there)[(i - 1) * D]);
    tape_free(tape);
    device_close(device);
    return failed;
}

static int check_training(struct comm *comm)
{
    return check_buckets(comm, &small_gpt2, 0) | check_buckets(comm, &small_gpt2, 4096) |
           check_buckets(comm, &small_llama, 1000) | check_buckets(comm, &small_llama, 64) |
           check_zero(comm, &small_gpt2) | check_zero(comm, &small_llama) |
           check_divergence(comm, false) | check_divergence(comm, true) |
           check_links(comm, false, "") | check_links(comm, true, "") |
           check_links(comm, true, "last") | check_tokens(comm) |
           check_experts(comm, (struct moe_plan){.zero = false}) |
           check_experts(comm, (struct moe_plan){.zero = true}) |
           check_experts(comm, (struct moe_plan){.idles = true}) |
           check_recompute(comm, (struct moe_plan){.tight = true}, false) |
           check_recompute(comm, (struct moe_plan){.tight = true, .zero = true}, true) |
           check_recompute(comm, (struct moe_plan){.idles = true}, true);
}

static int rank_main(void)
{
    struct comm *comm;
    struct err err;
    int failed;

    setenv("RANK", getenv("OMPI_COMM_WORLD_RANK"), 1);
    setenv("WORLD_SIZE", getenv("OMPI_COMM_WORLD_SIZE"), 1);
    if (comm_open(&comm, &err) < 0) {
        fprintf(stderr, "comm_open: %s\n", err.text);
        return 1;
    }
    failed = check_sums(comm) | check_gradient(comm) | check_training(comm);
    comm_close(comm);
    return failed;
}

#define NO_MPIRUN 127

/* Exit code of `mpirun -n count self --rank`; NO_MPIRUN when it is not installed. */
static int run_ranks(const char *count)
{
    char self[256];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    int status;
    pid_t pid;

    assert_true(length > 0);
    self[length] = 0;
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        setenv("OMPI_MCA_mpi_yield_when_idle", "1", 1);
        setenv("ASAN_OPTIONS", "detect_leaks=0", 1); /* MPI's own, at exit */
        execlp("mpirun", "mpirun", "--allow-run-as-root", "--oversubscribe", "-n", count, self,
               "--rank", (char *)NULL);
        _exit(NO_MPIRUN);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void ranks_add_in_rank_order_and_agree_with_one_rank(void **state)
{
    int rc = run_ranks("2");

    (void)state;
    if (rc == NO_MPIRUN) {
        print_message("skipped: mpirun is not installed\n");
        skip();
    }
    assert_int_equal(rc, 0);
    assert_int_equal(run_ranks("3"), 0);
}

static void one_process_needs_no_launcher(void **state)
{
    struct comm *comm = NULL;
    double value = 3;
    struct err err;

    (void)state;
    unsetenv("RANK");
    unsetenv("WORLD_SIZE");
    must(comm_open(&comm, &err));
    assert_true(comm->rank == 0 && comm->size == 1);
    comm_sum_f64(comm, &value, 1);
    assert_true(value == 3);
    comm_close(comm);
}

static void wrong_environments_are_refused(void **state)
{
    struct comm *comm = NULL;
    struct err err;

    (void)state;
    setenv("RANK", "2", 1);
    setenv("WORLD_SIZE", "2", 1);
    assert_int_equal(comm_open(&comm, &err), -1);
    assert_int_equal(err.kind, ERR_INVALID);
    setenv("WORLD_SIZE", "two", 1);
    assert_int_equal(comm_open(&comm, &err), -1);
    assert_non_null(strstr(err.text, "WORLD_SIZE"));
    unsetenv("RANK");
    unsetenv("WORLD_SIZE");
}

/* Started without a launcher, MPI is a world of one: that must not train alone in silence. */
static void ranks_that_are_not_connected_are_refused(void **state)
{
    int status;
    pid_t pid = fork();

    (void)state;
    assert_true(pid >= 0);
    if (pid == 0) {
        struct comm *comm = NULL;
        struct err err;

        setenv("RANK", "1", 1);
        setenv("WORLD_SIZE", "2", 1);
        setenv("OMPI_MCA_ess_singleton_isolated", "1", 1); /* no daemon that outlives the test */
        _exit(comm_open(&comm, &err) == -1 && err.kind == ERR_INVALID &&
                      strstr(err.text, "did not connect")
                  ? 0
                  : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

int main(int count, char **words)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_add_in_rank_order_and_agree_with_one_rank),
        cmocka_unit_test(one_process_needs_no_launcher),
        cmocka_unit_test(wrong_environments_are_refused),
        cmocka_unit_test(ranks_that_are_not_connected_are_refused),
    };

    if (count > 1 && strcmp(words[1], "--rank") == 0)
        return rank_main();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
