/* score.c - see score.h. */
#include "worker/recipes/score.h"

#include "common/base/mem.h"
#include "worker/engine/comm.h"

#include <stdlib.h>
#include <string.h>

/* Cells of a block: enough rows for full matrix products, few enough for their memory. */
#define BLOCK_CELLS 2048

int scorer_open(struct comm *comm, struct device *device, int64_t T, struct scorer *out,
                struct err *err)
{
    struct scorer fresh = {.comm = comm};
    int64_t rows = T >= BLOCK_CELLS ? 1 : BLOCK_CELLS / T;
    size_t cells = (size_t)(rows * T);

    if (tape_new(device, TAPE_INFER, &fresh.tape, err) < 0 ||
        tape_new(device, TAPE_INFER, &fresh.teacher_tape, err) < 0 ||
        pack_init(&fresh.pack, T, rows, err) < 0) {
        scorer_close(&fresh);
        return -1;
    }
    fresh.token = malloc((size_t)T * sizeof *fresh.token);
    fresh.target = malloc((size_t)T * sizeof *fresh.target);
    fresh.nll = malloc(cells * sizeof *fresh.nll);
    fresh.kd = malloc(cells * sizeof *fresh.kd);
    fresh.weight = calloc(cells, sizeof *fresh.weight);
    fresh.argmax = malloc(cells * sizeof *fresh.argmax);
    if (!fresh.token || !fresh.target || !fresh.nll || !fresh.kd || !fresh.weight ||
        !fresh.argmax) {
        scorer_close(&fresh);
        return err_set(err, ERR_MEMORY, "cannot allocate scores of %zu tokens", cells);
    }
    *out = fresh;
    return 0;
}

void scorer_close(struct scorer *scorer)
{
    tape_free(scorer->tape);
    tape_free(scorer->teacher_tape);
    pack_done(&scorer->pack);
    sourced_done(&scorer->sourced);
    free(scorer->token);
    free(scorer->target);
    free(scorer->nll);
    free(scorer->kd);
    free(scorer->weight);
    free(scorer->argmax);
    memset(scorer, 0, sizeof *scorer);
}

static bool add_item(struct scorer *scorer, const struct score_source *source, int64_t item)
{
    int64_t number = item * source->total / source->count;
    int64_t count =
        source->fill(source->argument, number, scorer->pack.T, scorer->token, scorer->target);

    return pack_add(&scorer->pack, item, scorer->token, scorer->target, count);
}

int score_plan_init(struct scorer *scorer, const struct score_source *source,
                    struct score_plan *out, struct err *err)
{
    struct score_plan plan = {0};

    plan.first = malloc((size_t)(source->count + 1) * sizeof *plan.first);
    if (!plan.first)
        return err_set(err, ERR_MEMORY, "cannot plan the scoring of %lld sequences",
                       (long long)source->count);
    plan.first[0] = 0;
    pack_clear(&scorer->pack);
    for (int64_t item = 0; item < source->count; item++) {
        if (add_item(scorer, source, item))
            continue;
        plan.first[++plan.block_count] = item;
        pack_clear(&scorer->pack);
        CHECK(add_item(scorer, source, item)); /* an empty block takes any item */
    }
    if (source->count > 0)
        plan.first[++plan.block_count] = source->count;
    *out = plan;
    return 0;
}

void score_plan_done(struct score_plan *plan)
{
    free(plan->first);
    memset(plan, 0, sizeof *plan);
}

/* Fills nll, argmax and, with a teacher, kd for all cells of the pack. */
static int score_pack(struct scorer *scorer, const struct model *model, const struct model *teacher,
                      struct err *err)
{
    const struct pack *pack = &scorer->pack;
    struct loss_values values = {.nll = scorer->nll, .argmax = scorer->argmax};
    struct loss_head loss = {.head = model->head, .target = pack->target};

    if (teacher) {
        if (documents_forward(scorer->teacher_tape, teacher, pack, &scorer->sourced,
                              &loss.teacher_hidden, err) < 0)
            return -1;
        loss.teacher_head = teacher->head;
        loss.divergence = DIVERGENCE_FORWARD_KL;
        loss.kd_weight = scorer->weight;
        values.kd = scorer->kd;
    }
    if (documents_forward(scorer->tape, model, pack, &scorer->sourced, &loss.hidden, err) < 0)
        return -1;
    return loss_head(scorer->tape, &loss, &values, err);
}

static void visit_pack(const struct scorer *scorer, bool with_teacher, score_visit visit,
                       void *argument)
{
    for (int64_t i = 0; i < scorer->pack.span_count; i++) {
        const struct pack_span *span = &scorer->pack.span[i];
        struct score_item item = {.item = span->item,
                                  .count = span->count,
                                  .target = scorer->pack.target + span->start,
                                  .nll = scorer->nll + span->start,
                                  .kd = with_teacher ? scorer->kd + span->start : NULL,
                                  .argmax = scorer->argmax + span->start};
        visit(argument, &item);
    }
}

int score_blocks(struct scorer *scorer, const struct score_source *source,
                 const struct score_plan *plan, int64_t from, int64_t to, const struct model *model,
                 const struct model *teacher, score_visit visit, void *argument, struct err *err)
{
    for (int64_t block = from; block < to; block++) {
        if (block % scorer->comm->size != scorer->comm->rank)
            continue;
        pack_clear(&scorer->pack);
        for (int64_t item = plan->first[block]; item < plan->first[block + 1]; item++)
            CHECK(add_item(scorer, source, item));
        if (score_pack(scorer, model, teacher, err) < 0)
            return -1;
        visit_pack(scorer, teacher != NULL, visit, argument);
    }
    return 0;
}

/* Sums per item, so that the grand total is taken in item order whatever the ranks. */
static void visit_sum(void *argument, const struct score_item *item)
{
    struct score_sum *sum = (struct score_sum *)argument + item->item;

    for (int64_t i = 0; i < item->count; i++) {
        if (item->target[i] < 0)
            continue;
        sum->nll += (double)item->nll[i];
        sum->kd += item->kd ? (double)item->kd[i] : 0;
        sum->tokens += 1;
    }
}

static int sum_items(struct scorer *scorer, const struct score_source *source,
                     const struct model *model, const struct model *teacher,
                     struct score_sum *out_items, struct err *err)
{
    struct score_plan plan = {0};
    int rc = -1;

    if (score_plan_init(scorer, source, &plan, err) < 0)
        return -1;
    if (score_blocks(scorer, source, &plan, 0, plan.block_count, model, teacher, visit_sum,
                     out_items, err) < 0)
        goto out;
    comm_sum_f64(scorer->comm, &out_items->nll, 3 * source->count);
    rc = 0;
out:
    score_plan_done(&plan);
    return rc;
}

_Static_assert(sizeof(struct score_sum) == 3 * sizeof(double), "summed as an array of doubles");

int score_total(struct scorer *scorer, const struct score_source *source, const struct model *model,
                const struct model *teacher, struct score_sum *out, struct err *err)
{
    struct score_sum *items = calloc((size_t)source->count + 1, sizeof *items);
    struct score_sum total = {0};
    int rc = -1;

    if (!items)
        return err_set(err, ERR_MEMORY, "cannot allocate sums of %lld sequences",
                       (long long)source->count);
    if (sum_items(scorer, source, model, teacher, items, err) < 0)
        goto out;
    for (int64_t i = 0; i < source->count; i++) {
        total.nll += items[i].nll;
        total.kd += items[i].kd;
        total.tokens += items[i].tokens;
    }
    *out = total;
    rc = 0;
out:
    free(items);
    return rc;
}

int score_each(struct scorer *scorer, const struct score_source *source, const struct model *model,
               double *out_nll, struct err *err)
{
    struct score_sum *items = calloc((size_t)source->count + 1, sizeof *items);
    int rc = -1;

    if (!items)
        return err_set(err, ERR_MEMORY, "cannot allocate sums of %lld sequences",
                       (long long)source->count);
    if (sum_items(scorer, source, model, NULL, items, err) == 0) {
        for (int64_t i = 0; i < source->count; i++)
            out_nll[i] = items[i].nll;
        rc = 0;
    }
    free(items);
    return rc;
}

static int64_t fill_document(void *argument, int64_t number, int64_t T, int32_t *token,
                             int32_t *target)
{
    return corpus_document(argument, number, T, token, target, NULL);
}

struct score_source score_documents(struct corpus *corpus, int64_t most)
{
    int64_t total = corpus_count(corpus);

    return (struct score_source){most > 0 && most < total ? most : total, total, fill_document,
                                 corpus};
}

static int64_t fill_window(void *argument, int64_t number, int64_t T, int32_t *token,
                           int32_t *target)
{
    const struct windows *windows = argument;
    int64_t item = 0;
    struct batch row = {.B = 1, .T = windows->T, .token = token, .target = target, .item = &item};

    CHECK(windows->T <= T);
    CHECK(windows_fill_ordered(windows, (uint64_t)number, &row) == 1);
    return windows->T;
}

struct score_source score_windows(const struct windows *windows)
{
    return (struct score_source){windows->window_count, windows->window_count, fill_window,
                                 (void *)windows};
}
