/* lora.c - see lora.h. */
#include "worker/engine/lora.h"

#include "worker/engine/models/table.h"

#include "common/base/mem.h"
#include "common/base/rng.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define RANK_MAX 1024

/* One adapted matrix. The weight may be used alone, or as a stretch of a joined one. */
struct place {
    struct model_weight *weight;
    struct tensor *joined; /* NULL: never used so      */
    struct adapter alone, within;
};

struct lora {
    struct model *model;
    struct lora_config config;
    struct model weights; /* flat, weight, weight_count, flat_count, device */
    struct place *place;
    int64_t place_count;
};

static bool is_meant(const struct model_weight *weight, const char *targets)
{
    char part[MODEL_NAME_SIZE];

    if (weight->tensor.rank != 2 || weight->experts > 1 || !strchr(weight->name, '.') ||
        strstr(weight->name, "router") || strstr(weight->name, "angles") ||
        strstr(weight->name, ".bias") || strstr(weight->name, "ln") ||
        strspn(weight->name + strcspn(weight->name, "."), ".0123456789") < 3)
        return false;
    while (targets && *targets) {
        size_t length = strcspn(targets, ",");

        snprintf(part, sizeof part, ".%.*s.", (int)length, targets);
        if (strstr(weight->name, part))
            return true;
        targets += length + (targets[length] == ',');
        if (!*targets)
            return false;
    }
    return true;
}

/* The joined matrix that this weight is a stretch of, and where it begins there. */
static struct tensor *joined_of(struct model *model, int64_t index, int64_t *out_from)
{
    for (int64_t i = index; i >= 0 && i > index - 3; i--) {
        struct model_weight *first = &model->weight[i];
        int64_t rows = 0;

        if (first->joined.values) {
            for (int64_t k = i; k < index; k++)
                rows += model->weight[k].tensor.dim[0];
            *out_from = rows;
            return rows < first->joined.dim[0] ? &first->joined : NULL;
        }
    }
    return NULL;
}

void lora_file_name(const struct model_weight *of, char which, char out[MODEL_NAME_SIZE])
{
    size_t length = strlen(of->hf_name), tail = strlen(".weight");

    if (length > tail && strcmp(of->hf_name + length - tail, ".weight") == 0)
        length -= tail;
    snprintf(out, MODEL_NAME_SIZE, "base_model.model.%.*s.lora_%c.weight",
             (int)(length < 110 ? length : 110), of->hf_name, which);
}

static void name_weight(struct model_weight *out, const struct model_weight *of, char which)
{
    snprintf(out->name, sizeof out->name, "%.100s.lora_%c", of->name, which);
    lora_file_name(of, which, out->hf_name);
}

/* A (rank, columns), then B (rows, rank) of one matrix. */
static void add_pair(struct lora *lora, const struct model_weight *of)
{
    int64_t rank = lora->config.rank;

    for (int k = 0; k < 2; k++) {
        struct model_weight *weight = &lora->weights.weight[lora->weights.weight_count++];

        *weight = (struct model_weight){.experts = 1, .decays = true,
                                        .offset = lora->weights.flat_count};
        name_weight(weight, of, k == 0 ? 'A' : 'B');
        weight->tensor = (struct tensor){.device = lora->model->device, .dtype = DTYPE_F32,
                                         .rank = 2,
                                         .dim = {k == 0 ? rank : of->tensor.dim[0],
                                                 k == 0 ? of->tensor.dim[1] : rank, 1, 1}};
        lora->weights.flat_count += (tensor_count(&weight->tensor) + 15) / 16 * 16;
    }
}

static int choose_weights(struct lora *lora, struct err *err)
{
    struct model *model = lora->model;

    for (int64_t i = 0; i < model->weight_count; i++) {
        struct model_weight *weight = &model->weight[i];

        if (!is_meant(weight, lora->config.targets))
            continue;
        if (lora->config.rank >= weight->tensor.dim[0] ||
            lora->config.rank >= weight->tensor.dim[1])
            return err_set(err, ERR_INVALID, "adapter rank %lld of '%s', which is %lld by %lld: "
                           "expected less than both", (long long)lora->config.rank, weight->name,
                           (long long)weight->tensor.dim[0], (long long)weight->tensor.dim[1]);
        lora->place[lora->place_count++].weight = weight;
        add_pair(lora, weight);
    }
    if (lora->place_count == 0)
        return err_set(err, ERR_INVALID, "no weight is called '%s'; 'q,v' takes weights like %s",
                       lora->config.targets ? lora->config.targets : "",
                       model->weight[model->weight_count / 2].name);
    return 0;
}

static int allocate(struct lora *lora, struct err *err)
{
    struct model *w = &lora->weights;
    size_t size_bytes = 4 * (size_t)w->flat_count;
    void *memory;

    w->flat = (struct tensor){.device = w->device, .dtype = DTYPE_F32, .rank = 1,
                              .dim = {w->flat_count, 1, 1, 1}};
    if (device_alloc(w->device, size_bytes, &w->flat.values, err) < 0)
        return err_wrap(err, "adapters");
    w->device->backend->zero(w->device, w->flat.values, size_bytes);
    if (device_alloc(w->device, size_bytes, &memory, err) < 0)
        return err_wrap(err, "gradients of adapters");
    w->flat.grad = memory;
    w->flat.wants_grad = w->flat.grad_ready = w->flat.is_weight = true;
    model_zero_grad(w);
    return 0;
}

static void point(struct lora *lora, struct model_weight *weight)
{
    weight->tensor.values = tensor_f32(&lora->weights.flat) + weight->offset;
    weight->tensor.grad = lora->weights.flat.grad + weight->offset;
    weight->tensor.wants_grad = weight->tensor.grad_ready = weight->tensor.is_weight = true;
}

/* A as a linear layer's first values: normal with deviation 1 / sqrt(columns). B stays 0. */
static void fill(struct lora *lora, struct model_weight *weight, uint64_t seed, int64_t index)
{
    int64_t count = tensor_count(&weight->tensor);
    float *host = mem_array((size_t)count, sizeof *host);
    struct rng rng;

    rng_init(&rng, rng_at(seed, 0x10ca, (uint64_t)index));
    for (int64_t i = 0; i < count; i++)
        host[i] = (float)(rng_normal(&rng) / sqrt((double)weight->tensor.dim[1]));
    model_weight_write(weight, host);
    mem_free(host);
    (void)lora;
}

/* Puts the adapter into the weight and the joined matrix it lies in. */
static void attach(struct lora *lora, int64_t index)
{
    struct place *place = &lora->place[index];
    struct model_weight *pair = &lora->weights.weight[2 * index];
    int64_t from = 0;

    place->alone = (struct adapter){.a = &pair[0].tensor, .b = &pair[1].tensor,
                                    .scale = lora->config.alpha / (double)lora->config.rank};
    place->within = place->alone;
    place->weight->tensor.adapter = &place->alone;
    place->joined = joined_of(lora->model, place->weight - lora->model->weight, &from);
    if (!place->joined)
        return;
    place->within.from = from;
    place->within.next = place->joined->adapter;
    place->joined->adapter = &place->within;
}

int lora_new(struct model *model, const struct lora_config *config, uint64_t seed,
             struct lora **out, struct err *err)
{
    struct lora *lora;

    CHECK(model->flat.grad == NULL);
    if (config->rank < 1 || config->rank > RANK_MAX || config->alpha < 0)
        return err_set(err, ERR_INVALID, "adapters of rank %lld with alpha %g, expected 1..%d and "
                       "0 or more", (long long)config->rank, config->alpha, RANK_MAX);
    lora = mem_zalloc(sizeof *lora);
    lora->model = model;
    lora->config = *config;
    if (lora->config.alpha == 0)
        lora->config.alpha = (double)config->rank;
    lora->weights = (struct model){.device = model->device, .config = model->config,
                                   .table = model->table};
    lora->weights.weight = mem_array(2 * (size_t)model->weight_count, sizeof(struct model_weight));
    lora->place = mem_zalloc((size_t)model->weight_count * sizeof *lora->place);
    if (choose_weights(lora, err) < 0 || allocate(lora, err) < 0) {
        lora->place_count = 0;
        lora_free(lora);
        return -1;
    }
    for (int64_t i = 0; i < lora->weights.weight_count; i++)
        point(lora, &lora->weights.weight[i]);
    for (int64_t i = 0; i < lora->place_count; i++) {
        fill(lora, &lora->weights.weight[2 * i], seed, i);
        attach(lora, i);
    }
    *out = lora;
    return 0;
}

void lora_free(struct lora *lora)
{
    size_t size_bytes;

    if (!lora)
        return;
    size_bytes = 4 * (size_t)lora->weights.flat_count;
    lora->model->device->backend->finish(lora->model->device);
    for (int64_t i = 0; i < lora->place_count; i++) {
        lora->place[i].weight->tensor.adapter = NULL;
        if (lora->place[i].joined)
            lora->place[i].joined->adapter = NULL;
    }
    device_release(lora->model->device, lora->weights.flat.values, size_bytes);
    device_release(lora->model->device, lora->weights.flat.grad, size_bytes);
    mem_free(lora->weights.weight);
    mem_free(lora->place);
    mem_free(lora);
}

struct model *lora_weights(struct lora *lora)
{
    return &lora->weights;
}

const struct lora_config *lora_config_of(const struct lora *lora)
{
    return &lora->config;
}

/* W += scale B A, in double. */
static void merge_one(struct lora *lora, int64_t index)
{
    struct place *place = &lora->place[index];
    struct model_weight *a = &lora->weights.weight[2 * index], *b = a + 1;
    int64_t rows = place->weight->tensor.dim[0], columns = place->weight->tensor.dim[1];
    int64_t rank = lora->config.rank;
    float *W = mem_array((size_t)(rows * columns), 4), *A = mem_array((size_t)(rank * columns), 4);
    float *B = mem_array((size_t)(rows * rank), 4);

    model_weight_read(place->weight, W);
    model_weight_read(a, A);
    model_weight_read(b, B);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++) {
            double sum = 0;

            for (int64_t k = 0; k < rank; k++)
                sum += (double)B[r * rank + k] * A[k * columns + c];
            W[r * columns + c] = (float)(W[r * columns + c] + place->alone.scale * sum);
        }
    memset(B, 0, 4 * (size_t)(rows * rank));
    model_weight_write(place->weight, W);
    model_weight_write(b, B);
    mem_free(W);
    mem_free(A);
    mem_free(B);
}

void lora_merge(struct lora *lora)
{
    for (int64_t i = 0; i < lora->place_count; i++)
        merge_one(lora, i);
}
