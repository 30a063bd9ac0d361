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

static int save_moment(struct checkpoint_writer *writer, const char *kind,
                       const struct tensor *tensor, struct err *err)
{
    uint64_t count = (uint64_t)tensor_count(tensor), begin, end;
    float *values = NULL;
    if (host_buffer(count, &values, err) < 0)
        return -1;
    tensor_read(tensor, values);
    share_of(writer, count, &begin, &end);
    int rc = checkpoint_add_slice(writer, kind, "flat", begin, end, values + begin, err);
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
    if (save_moment(writer, "m", &optim->m, err) < 0)
        return -1;
    return save_moment(writer, "v", &optim->v, err);
}

static int load_moment(struct checkpoint_reader *reader, const char *kind, struct tensor *tensor,
                       struct err *err)
{
    uint64_t count = (uint64_t)tensor_count(tensor);
    float *values = NULL;
    if (host_buffer(count, &values, err) < 0)
        return -1;
    int rc = checkpoint_read_slice(reader, kind, "flat", 0, count, values, err);
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
        load_moment(reader, "m", &optim->m, err) < 0)
        return -1;
    return load_moment(reader, "v", &optim->v, err);
}
