/* spread.c - see spread.h. */
#include "worker/engine/spread.h"

#include "worker/engine/comm.h"

#include "common/base/mem.h"

/* A whole model and a spread one have the same weights in the same order; those of experts have
 * fewer rows in the latter. */
static int check_shapes(const struct model *spread, const struct model *whole, struct err *err)
{
    bool same = whole->config.family == spread->config.family &&
                whole->config.experts == spread->config.experts &&
                whole->weight_count == spread->weight_count;

    for (int64_t i = 0; i < spread->weight_count && same; i++) {
        const struct model_weight *a = &spread->weight[i], *b = &whole->weight[i];

        same = a->tensor.dim[1] == b->tensor.dim[1] &&
               (a->own || a->tensor.dim[0] == b->tensor.dim[0]) &&
               a->offset + a->shift >= b->offset &&
               a->offset + a->shift + tensor_count(&a->tensor) <=
                   b->offset + tensor_count(&b->tensor);
    }
    return same ? 0 : err_set(err, ERR_INVALID, "the model has another shape");
}

int spread_take(struct model *spread, const struct model *whole, struct err *err)
{
    if (check_shapes(spread, whole, err) < 0)
        return -1;
    for (int64_t i = 0; i < spread->weight_count; i++) {
        const struct model_weight *from = &whole->weight[i];
        struct model_weight *to = &spread->weight[i];
        float *host = mem_array((size_t)tensor_count(&from->tensor), sizeof *host);

        model_weight_read(from, host);
        model_weight_write(to, host + (to->offset + to->shift - from->offset));
        to->tensor.device->backend->finish(to->tensor.device);
        mem_free(host);
    }
    return 0;
}

int spread_new(const struct model *whole, struct comm *comm, struct model **out, struct err *err)
{
    struct model_config config = whole->config;
    struct model *model;

    if (config.family != MODEL_MOE)
        return err_set(err, ERR_INVALID, "a model of family %s has no experts to spread",
                       model_family_name(config.family));
    config.expert_ranks = comm->size;
    config.expert_rank = comm->rank;
    if (model_new(whole->device, &config, 0, &model, err) < 0)
        return -1;
    model->device->comm = comm;
    if (spread_take(model, whole, err) < 0) {
        model_free(model);
        return -1;
    }
    *out = model;
    return 0;
}

/* One weight of all ranks, in order of ranks and so of experts. */
static int gather_weight(const struct model_weight *weight, struct model_weight *to,
                         struct err *err)
{
    size_t bytes = 4 * (size_t)tensor_count(&weight->tensor), got;
    float *host = mem_array(bytes / 4, sizeof *host);
    void *all = NULL;
    int rc = 0;

    model_weight_read(weight, host);
    if (weight->own)
        rc = comm_gather_parts(weight->tensor.device->comm, host, bytes, &all, &got, err);
    if (rc == 0 && to) {
        model_weight_write(to, all ? all : host);
        to->tensor.device->backend->finish(to->tensor.device);
    }
    mem_free(host);
    mem_free(all);
    return rc;
}

int spread_gather(const struct model *spread, bool keep, struct model **out, struct err *err)
{
    struct model_config config = spread->config;
    struct model *whole = NULL;

    config.expert_ranks = config.expert_rank = 0;
    if (keep && model_new_frozen(spread->device, &config, &whole, err) < 0)
        return -1;
    for (int64_t i = 0; i < spread->weight_count; i++)
        if (gather_weight(&spread->weight[i], keep ? &whole->weight[i] : NULL, err) < 0) {
            model_free(whole);
            return -1;
        }
    *out = whole;
    return 0;
}
