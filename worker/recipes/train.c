/* train.c - see train.h. */
#include "worker/recipes/train.h"

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "worker/engine/comm.h"
#include "worker/engine/io/adapters.h"
#include "worker/engine/lora.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int device_kind(const char *name, enum backend_kind *out, struct err *err)
{
    struct err why = {0};

    if (strcmp(name, "auto") != 0)
        return backend_parse(name, out, err);
    *out = backend_usable(BACKEND_CUDA, &why) ? BACKEND_CUDA : BACKEND_CPU;
    return 0;
}

int run_device_open(const struct run *run, struct device **out, struct err *err)
{
    struct device_config config = {.bf16 = run_bool(run, "bf16")};

    if (device_kind(run_string(run, "device"), &config.kind, err) < 0)
        return -1;
    if (config.bf16 && config.kind != BACKEND_CUDA)
        return err_set(err, ERR_INVALID,
                       "parameter 'bf16' is true, but the job computes on %s: "
                       "ask for a GPU or set it to false",
                       backend_find(config.kind)->name);
    return device_open(&config, out, err);
}

int run_model_open(const struct run *run, const char *input, struct device *device, bool trained,
                   struct model **out, struct err *err)
{
    const struct run_input *given = run_input(run, input);

    if (!given)
        return err_set(err, ERR_INVALID,
                       "input '%s' is missing; give it as "
                       "job:NAME/checkpoint:best or as a directory",
                       input);
    if ((adapters_alone(given->path) ? adapters_open : model_files_open)(given->path, device,
                                                                         !trained, out, err) < 0)
        return err_wrap(err, "input '%s' (%s)", input, given->ref);
    return 0;
}

int run_writer_open(const struct run *run, const char *input, struct device *device, bool trained,
                    struct model **out, struct err *err)
{
    if (run_model_open(run, input, device, trained, out, err) < 0)
        return -1;
    if ((*out)->config.family != MODEL_BERT)
        return 0;
    model_free(*out);
    *out = NULL;
    return err_set(err, ERR_INVALID, "input '%s' (%s) is a BERT, which reads texts but cannot "
                   "write them: give a language model", input, run_input(run, input)->ref);
}

static int check_batch(const struct trainer *trainer, struct err *err)
{
    int64_t ranks = trainer->run->rank_count;

    if (trainer->batch % ranks != 0)
        return err_set(err, ERR_INVALID,
                       "parameter 'batch' is %lld, which %lld ranks cannot share "
                       "equally: make it a multiple of %lld",
                       (long long)trainer->batch, (long long)ranks, (long long)ranks);
    if (trainer->pass_count > trainer->batch / ranks)
        return err_set(err, ERR_INVALID,
                       "parameter 'grad_accum' is %lld, but a rank has only %lld "
                       "rows of a batch: make it 1..%lld",
                       (long long)trainer->pass_count, (long long)(trainer->batch / ranks),
                       (long long)(trainer->batch / ranks));
    return 0;
}

int trainer_open(struct run *run, struct trainer *trainer, struct err *err)
{
    trainer->run = run;
    trainer->seed = (uint64_t)run_int(run, "seed");
    trainer->batch = run_int(run, "batch");
    trainer->pass_count = run_int(run, "grad_accum");
    if (check_batch(trainer, err) < 0 || run_device_open(run, &trainer->device, err) < 0)
        return -1;
    if (tape_new(trainer->device, TAPE_TRAIN, &trainer->tape, err) < 0)
        return -1;
    tape_recompute(trainer->tape, strcmp(run_string(run, "recompute"), "block") == 0);
    return 0;
}

void trainer_close(struct trainer *trainer)
{
    free(trainer->grad_host);
    mem_free(trainer->routing);
    tape_free(trainer->tape);
    optim_free(trainer->optim);
    reducer_free(trainer->reducer);
    lora_free(trainer->lora);
    model_free(trainer->model);
    device_close(trainer->device);
    memset(trainer, 0, sizeof *trainer);
}

/* What the optimiser changes and ranks sum. */
static struct model *trained_of(struct trainer *trainer)
{
    return trainer->lora ? lora_weights(trainer->lora) : trainer->model;
}

int trainer_adapt(struct trainer *trainer, struct err *err)
{
    struct run *run = trainer->run;
    const char *targets = run_string(run, "lora_targets");
    struct lora_config config = {.rank = run_int(run, "lora_rank"),
                                 .alpha = run_float(run, "lora_alpha"),
                                 .targets = *targets ? targets : NULL};

    if (lora_new(trainer->model, &config, trainer->seed, &trainer->lora, err) < 0)
        return err_wrap(err, "parameters 'lora_rank' and 'lora_targets'");
    run_note(run, "adapters of rank %lld: %lld numbers beside a model of %lld",
             (long long)config.rank, (long long)lora_weights(trainer->lora)->flat_count,
             (long long)model_weight_count(&trainer->model->config));
    return 0;
}

int trainer_start(struct trainer *trainer, struct err *err)
{
    struct run *run = trainer->run;
    struct optim_config config = {.beta1 = run_float(run, "beta1"),
                                  .beta2 = run_float(run, "beta2"),
                                  .weight_decay = run_float(run, "weight_decay"),
                                  .clip_norm = run_float(run, "clip")};

    trainer->schedule = (struct schedule_config){
        .learning_rate = run_float(run, "learning_rate"),
        .final_fraction = run_float(run, "final_fraction"),
        .steps = (int64_t)run->step_count,
        .warmup_steps = run_int(run, "warmup"),
    };
    if (schedule_parse(run_string(run, "schedule"), &trainer->schedule.kind, err) < 0)
        return -1;
    if (trainer->schedule.warmup_steps > trainer->schedule.steps)
        return err_set(err, ERR_INVALID,
                       "parameter 'warmup' is %lld, more than the job's %lld steps",
                       (long long)trainer->schedule.warmup_steps,
                       (long long)trainer->schedule.steps);
    if (reducer_new(run->comm, trained_of(trainer), 0, run_bool(run, "zero"), &trainer->reducer,
                    err) < 0)
        return -1;
    if (run->rank_count > 1 && trainer->device->backend->kind == BACKEND_CUDA)
        run_note(run, "gradients of %u ranks go by %s", run->rank_count,
                 reducer_path(trainer->reducer));
    return optim_new_shared(trainer->reducer, trained_of(trainer), &config, &trainer->optim, err);
}

int64_t trainer_pass_most(const struct trainer *trainer)
{
    int64_t share = trainer->batch / (int64_t)trainer->run->rank_count;

    return (share + trainer->pass_count - 1) / trainer->pass_count;
}

/* A rank's rows in consecutive pieces whose lengths differ by one at most. */
void trainer_share(const struct trainer *trainer, int64_t pass, uint64_t *out_first,
                   int64_t *out_count)
{
    uint64_t data_step = trainer->run->step + trainer->run->data_skip;
    uint64_t first, count;
    int64_t from, to;

    sampler_share(data_step, (uint64_t)trainer->batch, trainer->run->rank,
                  trainer->run->rank_count, &first, &count);
    from = (int64_t)count * pass / trainer->pass_count;
    to = (int64_t)count * (pass + 1) / trainer->pass_count;
    *out_first = first + (uint64_t)from;
    *out_count = to - from;
}

void trainer_documents(const struct trainer *trainer, struct corpus *corpus, uint64_t seed,
                       int64_t pass, struct pack *pack)
{
    int32_t *cells = pack->room;
    uint64_t first;
    int64_t count;

    pack_clear(pack);
    trainer_share(trainer, pass, &first, &count);
    for (int64_t i = 0; i < count; i++) {
        uint64_t item = sampler_item(seed, corpus->part->document_count, first + (uint64_t)i);
        int64_t length =
            corpus_document(corpus, (int64_t)item, pack->T, cells, cells + pack->T, NULL);
        CHECK(pack_add(pack, (int64_t)item, cells, cells + pack->T, length));
    }
}

/* Adds up what the routers of a pass say of themselves: means over layers and passes. */
static void note_experts(struct trainer *trainer, struct tensor *const *route)
{
    double share = 1 / (double)(trainer->pass_count * trainer->model->config.layers);
    float stats[ROUTE_STATS];

    for (int64_t i = 0; i < trainer->model->config.layers; i++) {
        tensor_read(route[i], stats);
        for (int k = 0; k < ROUTE_STATS; k++)
            trainer->route[k] += share * stats[k];
    }
}

/* Means over the ranks too, for what is counted on each. */
static void report_experts(struct trainer *trainer)
{
    if (trainer->model->config.family != MODEL_MOE)
        return;
    comm_sum_f64(trainer->run->comm, trainer->route, ROUTE_STATS);
    for (int k = 0; k < ROUTE_STATS; k++)
        trainer->route[k] /= (double)trainer->run->rank_count;
    run_metric(trainer->run, "balance_loss", trainer->route[ROUTE_STAT_BALANCE]);
    run_metric(trainer->run, "router_z", trainer->route[ROUTE_STAT_Z]);
    run_metric(trainer->run, "highest_load", trainer->route[ROUTE_STAT_HIGHEST_LOAD]);
    run_metric(trainer->run, "lowest_load", trainer->route[ROUTE_STAT_LOWEST_LOAD]);
    run_metric(trainer->run, "dropped", trainer->route[ROUTE_STAT_DROPPED]);
    memset(trainer->route, 0, sizeof trainer->route);
}

int trainer_states(struct trainer *trainer, const struct model_batch *rows,
                   struct model_states *states, struct err *err)
{
    bool routes = trainer->model->config.family == MODEL_MOE;
    struct model_batch batch = *rows;
    int rc;

    batch.dropout_seed = rng_at(trainer->seed, trainer->run->step,
                                (uint64_t)(trainer->pass * (int64_t)trainer->run->rank_count +
                                           trainer->run->rank));
    trainer->pass++;
    batch.share = 1 / (double)(trainer->pass_count * (int64_t)trainer->run->rank_count);
    batch.comm = trainer->run->comm;
    if (routes && !trainer->routing)
        trainer->routing = mem_array((size_t)trainer->model->config.layers,
                                     sizeof *trainer->routing);
    states->route = trainer->routing;
    tape_reset(trainer->tape);
    rc = model_forward(trainer->tape, trainer->model, &batch, states, err);
    if (rc == 0 && routes)
        note_experts(trainer, states->route);
    return rc;
}

int trainer_forward(struct trainer *trainer, const struct model_batch *rows,
                    struct tensor **out_hidden, struct err *err)
{
    struct model_states states = {0};
    int rc = trainer_states(trainer, rows, &states, err);

    *out_hidden = states.hidden;
    return rc;
}

int trainer_backward(struct trainer *trainer, struct err *err)
{
    if (trainer->pass == trainer->pass_count)
        reducer_follow(trainer->reducer, trainer->tape);
    return tape_backward(trainer->tape, err);
}

int trainer_stopped(struct run *run, struct err *err)
{
    err_wrap(err, "step %llu", (unsigned long long)run->step + 1);
    if (err->kind == ERR_LIMIT)
        run_diverged(run, run->step + 1, err->text);
    return -1;
}

int trainer_apply(struct trainer *trainer, struct err *err)
{
    struct run *run = trainer->run;
    double rate = schedule_rate(&trainer->schedule, (int64_t)run->step);
    double norm = 0;

    if (optim_step(trainer->optim, rate, &norm, err) < 0)
        return trainer_stopped(run, err);
    run_metric(run, "lr", rate);
    run_metric(run, "grad_norm", norm);
    report_experts(trainer);
    trainer->pass = 0;
    tape_reset(trainer->tape); /* now, so that the second step finds its memory joined */
    return 0;
}

int trainer_update(struct trainer *trainer, struct err *err)
{
    reducer_finish(trainer->reducer);
    return trainer_apply(trainer, err);
}

/* Model operations of a token, forward and backward: Chowdhery et al. 2022, appendix B. */
static double token_operations(const struct model_config *config)
{
    double attention = 12.0 * (double)config->layers * (double)config->heads *
                       (double)config->head_width * (double)config->context;

    return 6.0 * (double)model_active_count(config) + attention;
}

void trainer_speed(struct trainer *trainer, int64_t tokens)
{
    uint64_t now_us = clock_steady_us();
    double seconds = (double)(now_us - trainer->started_us) / 1e6;

    if (trainer->started_us != 0 && seconds > 0) {
        run_metric(trainer->run, "tokens_per_s", (double)tokens / seconds);
        run_metric(trainer->run, "gflops",
                   (double)tokens / seconds * token_operations(&trainer->model->config) / 1e9);
    }
    trainer->started_us = now_us;
}

/* In order of position: the same bits on every rank. */
static double norm_of(const float *values, int64_t count)
{
    double squares = 0;

    for (int64_t i = 0; i < count; i++)
        squares += (double)values[i] * (double)values[i];
    return sqrt(squares);
}

int trainer_grad_park(struct trainer *trainer, double *out_norm, struct err *err)
{
    struct tensor *flat = &trained_of(trainer)->flat;
    int64_t count = trained_of(trainer)->flat_count;

    if (!trainer->grad_host)
        trainer->grad_host = malloc((size_t)count * sizeof *trainer->grad_host);
    if (!trainer->grad_host)
        return err_set(err, ERR_MEMORY, "cannot allocate %lld bytes for a second gradient",
                       (long long)count * 4);
    tensor_read_grad(flat, trainer->grad_host);
    comm_sum_f32(trainer->run->comm, trainer->grad_host, count);
    *out_norm = norm_of(trainer->grad_host, count);
    model_zero_grad(trained_of(trainer));
    return 0;
}

int trainer_grad_join(struct trainer *trainer, double *out_norm, struct err *err)
{
    struct tensor *flat = &trained_of(trainer)->flat;
    int64_t count = trained_of(trainer)->flat_count;
    float *sum = malloc((size_t)count * sizeof *sum);

    if (!sum)
        return err_set(err, ERR_MEMORY, "cannot allocate %lld bytes to join two gradients",
                       (long long)count * 4);
    tensor_read_grad(flat, sum);
    comm_sum_f32(trainer->run->comm, sum, count);
    *out_norm = norm_of(sum, count);
    for (int64_t i = 0; i < count; i++)
        sum[i] += trainer->grad_host[i];
    flat->device->backend->from_host(flat->device, flat->grad, sum, (size_t)count * sizeof *sum);
    flat->device->backend->finish(flat->device);
    free(sum);
    return 0;
}

/* The merged model is made from the files just written, as any reader would make it. */
static int save_adapters(struct trainer *trainer, struct checkpoint_writer *writer,
                         struct err *err)
{
    const char *folder = checkpoint_folder(writer);
    struct model *merged = NULL;
    int rc;

    if (checkpoint_rank(writer) != 0)
        return 0;
    if (adapters_write(folder, trainer->lora, run_input(trainer->run, "init")->path, err) < 0)
        return -1;
    if (!run_bool(trainer->run, "merge"))
        return 0;
    if (model_clone_frozen(trainer->model, trainer->device, &merged, err) < 0)
        return -1;
    rc = adapters_merge(folder, merged, err);
    if (rc == 0)
        rc = model_files_write(folder, merged, err);
    model_free(merged);
    return rc;
}

int trainer_save(struct trainer *trainer, struct checkpoint_writer *writer, struct err *err)
{
    if (!trainer->lora)
        return training_save(writer, trainer->model, trainer->optim, err);
    if (save_adapters(trainer, writer, err) < 0)
        return -1;
    return training_save_optim(writer, trainer->optim, err);
}

int trainer_load(struct trainer *trainer, struct checkpoint_reader *reader, struct err *err)
{
    if (!trainer->lora)
        return training_load(reader, trainer->model, trainer->optim, err);
    if (adapters_read(checkpoint_path(reader), trainer->lora, err) < 0)
        return -1;
    return training_load_optim(reader, trainer->optim, err);
}
