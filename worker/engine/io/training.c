/* training.c - a model and its AdamW in a checkpoint; see training.h. */
#include "worker/engine/io/training.h"

#include "common/base/mem.h"

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
    float *values = malloc(count * sizeof *values + 1);
    if (!values)
        return err_set(err, ERR_MEMORY, "a host copy of the optimiser needs %llu bytes",
                       (unsigned long long)(count * sizeof *values));
    *out = values;
    return 0;
}

/* A rank that holds everything writes its share of it. */
static struct optim_range written_range(const struct checkpoint_writer *writer,
                                        const struct optim *optim, int64_t i)
{
    uint64_t begin, end;

    if (optim->reducer && reducer_owners_only(optim->reducer))
        return optim->held[i];
    share_of(writer, (uint64_t)optim->model->flat_count, &begin, &end);
    return (struct optim_range){(int64_t)begin, (int64_t)(end - begin), (int64_t)begin};
}

static int save_moment(struct checkpoint_writer *writer, const char *kind,
                       const struct optim *optim, const struct tensor *tensor, struct err *err)
{
    float *values = NULL;
    int rc = 0;
    if (host_buffer((uint64_t)tensor_count(tensor), &values, err) < 0)
        return -1;
    tensor_read(tensor, values);
    for (int64_t i = 0; i < optim->held_count && rc == 0; i++) {
        struct optim_range range = written_range(writer, optim, i);
        rc = checkpoint_add_slice(writer, kind, "flat", (uint64_t)range.at,
                                  (uint64_t)(range.at + range.count), values + range.state, err);
    }
    free(values);
    return rc;
}

int training_save(struct checkpoint_writer *writer, const struct model *model,
                  const struct optim *optim, struct err *err)
{
    if (checkpoint_rank(writer) == 0 &&
        model_files_write(checkpoint_folder(writer), model, err) < 0)
        return -1;
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

static int load_moment(struct checkpoint_reader *reader, const char *kind,
                       const struct optim *optim, struct tensor *tensor, struct err *err)
{
    float *values = NULL;
    int rc = 0;
    if (host_buffer((uint64_t)tensor_count(tensor), &values, err) < 0)
        return -1;
    for (int64_t i = 0; i < optim->held_count && rc == 0; i++) {
        const struct optim_range *range = &optim->held[i];
        rc = checkpoint_read_slice(reader, kind, "flat", (uint64_t)range->at,
                                   (uint64_t)(range->at + range->count), values + range->state,
                                   err);
    }
    if (rc == 0)
        tensor_write(tensor, values);
    free(values);
    return rc;
}

int training_load(struct checkpoint_reader *reader, struct model *model, struct optim *optim,
                  struct err *err)
{
    if (model_files_read(checkpoint_path(reader), model, err) < 0)
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
