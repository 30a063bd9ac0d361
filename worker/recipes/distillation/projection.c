/* projection.c - see projection.h. The maps are a model without a forward pass, as adapters are
 * (engine/lora.c), so that the optimiser and the ranks' sum take them as they take any. */
#include "worker/recipes/distillation/projection.h"

#include "common/base/mem.h"
#include "common/base/rng.h"
#include "worker/engine/comm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct projection {
    struct model weights; /* flat, weight, weight_count, flat_count, device */
    struct optim *optim;
};

static int allocate(struct model *w, struct err *err)
{
    size_t size_bytes = 4 * (size_t)w->flat_count;
    void *memory;

    w->flat = (struct tensor){.device = w->device, .dtype = DTYPE_F32, .rank = 1,
                              .dim = {w->flat_count, 1, 1, 1}};
    if (device_alloc(w->device, size_bytes, &w->flat.values, err) < 0)
        return err_wrap(err, "projections");
    w->device->backend->zero(w->device, w->flat.values, size_bytes);
    if (device_alloc(w->device, size_bytes, &memory, err) < 0)
        return err_wrap(err, "gradients of projections");
    w->flat.grad = memory;
    w->flat.wants_grad = w->flat.grad_ready = w->flat.is_weight = true;
    model_zero_grad(w);
    return 0;
}

static void fill(struct model_weight *weight, uint64_t seed, uint64_t index)
{
    int64_t count = tensor_count(&weight->tensor);
    float *host = mem_array((size_t)count, sizeof *host);
    struct rng rng;

    rng_init(&rng, rng_at(seed, 0x70726f6a, index));
    for (int64_t i = 0; i < count; i++)
        host[i] = (float)(rng_normal(&rng) / sqrt((double)weight->tensor.dim[1]));
    model_weight_write(weight, host);
    mem_free(host);
}

int projection_new(struct device *device, int64_t count, int64_t from, int64_t to, uint64_t seed,
                   const struct optim_config *config, struct projection **out, struct err *err)
{
    struct projection *projection = mem_zalloc(sizeof *projection);
    struct model *w = &projection->weights;
    int64_t step = (from * to + 15) / 16 * 16;

    *w = (struct model){.device = device, .flat_count = count * step, .weight_count = count};
    w->weight = mem_zalloc((size_t)count * sizeof *w->weight);
    if (allocate(w, err) < 0) {
        projection_free(projection);
        return -1;
    }
    for (int64_t i = 0; i < count; i++) {
        struct model_weight *weight = &w->weight[i];

        *weight = (struct model_weight){.experts = 1, .decays = true, .offset = i * step};
        snprintf(weight->name, sizeof weight->name, "projection.%lld", (long long)i);
        weight->tensor = (struct tensor){.device = device, .dtype = DTYPE_F32, .rank = 2,
                                         .dim = {to, from, 1, 1},
                                         .values = tensor_f32(&w->flat) + i * step,
                                         .grad = w->flat.grad + i * step, .wants_grad = true,
                                         .grad_ready = true, .is_weight = true};
        fill(weight, seed, (uint64_t)i);
    }
    if (optim_new(w, config, &projection->optim, err) < 0) {
        projection_free(projection);
        return -1;
    }
    *out = projection;
    return 0;
}

void projection_free(struct projection *projection)
{
    size_t size_bytes;

    if (!projection)
        return;
    size_bytes = 4 * (size_t)projection->weights.flat_count;
    optim_free(projection->optim);
    device_release(projection->weights.device, projection->weights.flat.values, size_bytes);
    device_release(projection->weights.device, projection->weights.flat.grad, size_bytes);
    mem_free(projection->weights.weight);
    mem_free(projection);
}

struct tensor *projection_weight(struct projection *projection, int64_t index)
{
    return &projection->weights.weight[index].tensor;
}

int projection_update(struct projection *projection, struct comm *comm, double learning_rate,
                      struct err *err)
{
    double norm;

    if (comm_sum_grad(comm, &projection->weights.flat, err) < 0 ||
        optim_step(projection->optim, learning_rate, &norm, err) < 0)
        return err_wrap(err, "projections");
    return 0;
}

/* What of the projections goes to a checkpoint under which kind. */
struct part {
    const char *kind;
    struct tensor *tensor;
};

static void parts_of(struct projection *projection, struct part out[3])
{
    out[0] = (struct part){"w", &projection->weights.flat};
    out[1] = (struct part){"m", &projection->optim->m};
    out[2] = (struct part){"v", &projection->optim->v};
}

int projection_save(struct projection *projection, struct checkpoint_writer *writer,
                    struct err *err)
{
    int64_t count = projection->weights.flat_count;
    float *host;
    struct part parts[3];
    int rc = 0;

    if (checkpoint_rank(writer) != 0)
        return 0;
    host = mem_array((size_t)count, sizeof *host);
    parts_of(projection, parts);
    for (size_t i = 0; i < 3 && rc == 0; i++) {
        tensor_read(parts[i].tensor, host);
        rc = checkpoint_add_slice(writer, parts[i].kind, "projection", 0, (uint64_t)count, host,
                                  err);
    }
    mem_free(host);
    return rc;
}

int projection_load(struct projection *projection, struct checkpoint_reader *reader,
                    struct err *err)
{
    int64_t count = projection->weights.flat_count;
    float *host = mem_array((size_t)count, sizeof *host);
    struct part parts[3];
    int rc = 0;

    parts_of(projection, parts);
    for (size_t i = 0; i < 3 && rc == 0; i++) {
        rc = checkpoint_read_slice(reader, parts[i].kind, "projection", 0, (uint64_t)count, host,
                                   err);
        if (rc == 0)
            tensor_write(parts[i].tensor, host);
    }
    mem_free(host);
    return rc == 0 ? checkpoint_get_int(reader, "optim.step", &projection->optim->step, err) : -1;
}
