/* rows.c - see rows.h. */
#include "worker/recipes/rows.h"

#include "worker/engine/comm.h"
#include "worker/recipes/order.h"

#include <stdlib.h>
#include <string.h>

int rows_init(const struct trainer *trainer, struct corpus *corpus, const char *unit,
              struct rows *rows, struct err *err)
{
    int64_t T = trainer->model->config.context;
    int64_t most = trainer_pass_most(trainer);

    rows->trainer = trainer;
    rows->corpus = corpus;
    rows->documents = strcmp(unit, "documents") == 0;
    rows->weight = malloc((size_t)(most * T) * sizeof *rows->weight);
    if (!rows->weight)
        return err_set(err, ERR_MEMORY, "cannot allocate weights of %lld rows", (long long)most);
    if (rows->documents) {
        order_tell(trainer, corpus, trainer->seed, NULL);
        return pack_init(&rows->pack, T, most, err);
    }
    if (windows_init(&rows->windows, corpus->part, T, err) < 0)
        return -1;
    if (rows->windows.window_count == 0)
        return err_set(err, ERR_INVALID, "input '%s' has too few tokens for one window of %lld",
                       corpus->input, (long long)T);
    order_tell(trainer, corpus, trainer->seed, &rows->windows);
    return batch_init(&rows->batch, most, T, err);
}

void rows_done(struct rows *rows)
{
    free(rows->weight);
    pack_done(&rows->pack);
    batch_done(&rows->batch);
    windows_done(&rows->windows);
    memset(rows, 0, sizeof *rows);
}

void rows_fill(struct rows *rows, int64_t pass)
{
    const struct trainer *trainer = rows->trainer;
    uint64_t first;
    int64_t count;

    if (rows->documents) {
        trainer_documents(trainer, rows->corpus, trainer->seed, pass, &rows->pack);
        rows->target = rows->pack.target;
        rows->cells = pack_cells(&rows->pack);
        return;
    }
    trainer_share(trainer, pass, &first, &count);
    rows->batch.B = count; /* passes differ by one row at most; memory is for the largest */
    windows_fill(&rows->windows, trainer->seed, first, &rows->batch);
    rows->target = rows->batch.target;
    rows->cells = rows->batch.B * rows->batch.T;
}

int64_t rows_count(struct rows *rows)
{
    int64_t count = 0;

    for (int64_t pass = 0; pass < rows->trainer->pass_count; pass++) {
        rows_fill(rows, pass);
        count += rows->documents ? rows->pack.target_count : rows->batch.target_count;
    }
    comm_sum_i64(rows->trainer->run->comm, &count, 1);
    return count;
}

struct model_batch rows_batch(const struct rows *rows)
{
    if (rows->documents)
        return pack_batch(&rows->pack);
    return (struct model_batch){.B = rows->batch.B, .T = rows->batch.T, .token = rows->batch.token};
}

const float *rows_weigh(struct rows *rows, double each)
{
    for (int64_t i = 0; i < rows->cells; i++)
        rows->weight[i] = rows->target[i] >= 0 ? (float)each : 0.0f;
    return rows->weight;
}
