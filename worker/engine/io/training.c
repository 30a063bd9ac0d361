/* training.c - a model and its AdamW in a checkpoint; see training.h. */
#include "worker/engine/io/training.h"

#include "common/base/mem.h"
#include "worker/engine/spread.h"

#include <stdlib.h>
#include <string.h>

/* This rank's share of a flat tensor of `count` elements. */
static void share_of(const struct checkpoint_writer *writer, uint64_t count, uint64_t *begin,
                     uint64_t *end)
{
    uint64_t rank = checkpoint_rank(writer), ranks = checkpoint_rank_count(writer);
    *begin = count / ranks * rank + min_u64(rank, count % ranks);
    *end = *begin + count / ranks + (rank < count % ranks);
}

static int host_buffer(uint64_t count, float **out, struct err *err)
{
    float *values = calloc(count + 1, sizeof *values);
    if (!values)
        return err_set(err, ERR_MEMORY, "a host copy of the optimiser needs %llu bytes",
                       (unsigned long long)(count * sizeof *values));
    *out = values;
    return 0;
}

/* What this rank writes of its moments: segments and experts that only it holds, and of what all
 * hold its share. Returns how many of ranges, which has room for held_count + 1. */
static int64_t written_ranges(const struct checkpoint_writer *writer, const struct optim *optim,
                              struct optim_range *ranges)
{
    int64_t own = optim->model->own_count, shared = optim->model->flat_count - own;
    uint64_t begin, end;

    if (optim->reducer && reducer_owners_only(optim->reducer)) {
        memcpy(ranges, optim->held, (size_t)optim->held_count * sizeof *ranges);
        return optim->held_count;
    }
    share_of(writer, (uint64_t)shared, &begin, &end);
    ranges[0] = (struct optim_range){(int64_t)begin, (int64_t)(end - begin), (int64_t)begin};
    ranges[1] = (struct optim_range){shared, own, shared};
    return own > 0 ? 2 : 1;
}

/* The part of a range that is in a weight; false: none. */
static bool part_of(const struct optim_range *range, const struct model_weight *weight,
                    struct optim_range *out)
{
    int64_t from = range->at > weight->offset ? range->at : weight->offset;
    int64_t end = weight->offset + tensor_count(&weight->tensor);
    int64_t to = range->at + range->count < end ? range->at + range->count : end;

    *out = (struct optim_range){from, to - from, range->state + from - range->at};
    return from < to;
}

static int write_slice(struct checkpoint_writer *writer, const char *kind, int64_t at,
                       const struct optim_range *range, const float *values, struct err *err)
{
    return checkpoint_add_slice(writer, kind, "flat", (uint64_t)at, (uint64_t)(at + range->count),
                                values + range->state, err);
}

/* Numbered as in a model that has all experts: slices of ranks with different ones fit together. */
static int write_range(struct checkpoint_writer *writer, const char *kind,
                       const struct optim *optim, const struct optim_range *range,
                       const float *values, struct err *err)
{
    const struct model *model = optim->model;
    struct optim_range part;

    if (model->own_count == 0)
        return write_slice(writer, kind, range->at, range, values, err);
    for (int64_t i = 0; i < model->weight_count; i++)
        if (part_of(range, &model->weight[i], &part) &&
            write_slice(writer, kind, part.at + model->weight[i].shift, &part, values, err) < 0)
            return -1;
    return 0;
}

static int save_moment(struct checkpoint_writer *writer, const char *kind,
                       const struct optim *optim, const struct tensor *tensor, struct err *err)
{
    struct optim_range *ranges = mem_array((size_t)optim->held_count + 1, sizeof *ranges);
    int64_t count = written_ranges(writer, optim, ranges);
    float *values = NULL;
    int rc = host_buffer((uint64_t)tensor_count(tensor), &values, err);
    if (rc == 0)
        tensor_read(tensor, values);
    for (int64_t i = 0; i < count && rc == 0; i++)
        rc = write_range(writer, kind, optim, &ranges[i], values, err);
    free(values);
    mem_free(ranges);
    return rc;
}

/* Rank 0 collects the experts of all and writes what one rank would. */
static int save_spread(struct checkpoint_writer *writer, const struct model *model,
                       struct err *err)
{
    struct model *whole = NULL;
    int rc = spread_gather(model, checkpoint_rank(writer) == 0, &whole, err);
    if (rc == 0 && whole)
        rc = model_files_write(checkpoint_folder(writer), whole, err);
    model_free(whole);
    return rc;
}

/* Every rank reads the whole model and keeps its experts. */
static int load_spread(const char *folder, struct model *model, struct err *err)
{
    struct model *whole = NULL;
    if (model_files_open(folder, model->device, true, &whole, err) < 0)
        return -1;
    int rc = spread_take(model, whole, err);
    model_free(whole);
    return rc < 0 ? err_wrap(err, "model '%s'", folder) : 0;
}

int training_save(struct checkpoint_writer *writer, const struct model *model,
                  const struct optim *optim, struct err *err)
{
    if (model->config.expert_ranks > 1) {
        if (save_spread(writer, model, err) < 0)
            return -1;
    } else if (checkpoint_rank(writer) == 0 &&
               model_files_write(checkpoint_folder(writer), model, err) < 0) {
        return -1;
    }
    return optim ? training_save_optim(writer, optim, err) : 0;
}

int training_save_optim(struct checkpoint_writer *writer, const struct optim *optim,
                        struct err *err)
{
    checkpoint_put_int(writer, "optim.step", optim->step);
    if (save_moment(writer, "m", optim, &optim->m, err) < 0)
        return -1;
    return save_moment(writer, "v", optim, &optim->v, err);
}

/* Of a range what is in weights: padding between them is zero and need not be in the file. */
static int read_range(struct checkpoint_reader *reader, const char *kind,
                      const struct optim *optim, const struct optim_range *range, float *values,
                      struct err *err)
{
    const struct model *model = optim->model;
    struct optim_range part;

    for (int64_t i = 0; i < model->weight_count; i++) {
        const struct model_weight *weight = &model->weight[i];

        if (part_of(range, weight, &part) &&
            checkpoint_read_slice(reader, kind, "flat", (uint64_t)(part.at + weight->shift),
                                  (uint64_t)(part.at + weight->shift + part.count),
                                  values + part.state, err) < 0)
            return -1;
    }
    return 0;
}

static int load_moment(struct checkpoint_reader *reader, const char *kind,
                       const struct optim *optim, struct tensor *tensor, struct err *err)
{
    float *values = NULL;
    int rc = host_buffer((uint64_t)tensor_count(tensor), &values, err);
    for (int64_t i = 0; i < optim->held_count && rc == 0; i++)
        rc = read_range(reader, kind, optim, &optim->held[i], values, err);
    if (rc == 0)
        tensor_write(tensor, values);
    free(values);
    return rc;
}

int training_load(struct checkpoint_reader *reader, struct model *model, struct optim *optim,
                  struct err *err)
{
    bool spread = model->config.expert_ranks > 1;
    if ((spread ? load_spread : model_files_read)(checkpoint_path(reader), model, err) < 0)
        return -1;
    return optim ? training_load_optim(reader, optim, err) : 0;
}

int training_load_optim(struct checkpoint_reader *reader, struct optim *optim, struct err *err)
{
    if (checkpoint_get_int(reader, "optim.step", &optim->step, err) < 0 ||
        load_moment(reader, "m", optim, &optim->m, err) < 0)
        return -1;
    return load_moment(reader, "v", optim, &optim->v, err);
}
