/* table.h - what an architecture states about itself: its weights, and its forward pass.
 *
 * To add one: a file in this folder, a line in model_tables (model.c), an enum value. */
#ifndef ATHANOR_ENGINE_MODELS_TABLE_H
#define ATHANOR_ENGINE_MODELS_TABLE_H

#include "worker/engine/model.h"

/* What dimensions are written in; size_of in model.c resolves them. */
enum dim {
    DIM_NONE = 0,
    DIM_VOCAB,
    DIM_CONTEXT,
    DIM_WIDTH,
    DIM_QUERIES,   /* heads * head_width                */
    DIM_KEYS,      /* kv_heads * head_width             */
    DIM_QKV,       /* queries + 2 keys                  */
    DIM_FFN,
};

enum init { INIT_ZERO = 1, INIT_ONE, INIT_NORMAL, INIT_RESIDUAL /* normal / sqrt(2 layers) */ };

struct kv_cache;

struct weight_row {
    const char *name;    /* "%d" is the block's number */
    const char *hf_name;
    enum dim dim[2];     /* [out, in], or [width]      */
    enum init init;
    bool hf_transposed;
    bool untied_only;    /* absent when config.tied    */
    int joins;           /* this and the next joins-1 rows are also used as one matrix */
};

/* Rows before the blocks, of each block, and after them; this is also the flat order. */
struct model_table {
    enum model_family family;
    const char *name; /* HF model_type */
    const struct weight_row *before, *block, *after;
    int before_count, block_count, after_count;
    /* cache NULL: a whole batch. Fills states; failures go to the tape. */
    void (*forward)(struct tape *tape, const struct model *model, const struct model_batch *batch,
                    struct kv_cache *cache, struct model_states *states);
};

extern const struct model_table model_table_gpt2;
extern const struct model_table model_table_llama;

/* Weight `row` of the table before the blocks, of block i, after the blocks. */
struct tensor *model_before(const struct model *model, int row);
struct tensor *model_block(const struct model *model, int64_t i, int row);
struct tensor *model_joined(const struct model *model, int64_t i, int row);
struct tensor *model_after(const struct model *model, int row);

struct heads model_heads(const struct model_config *config);

/* Attention over the batch, or through the cache when there is one. */
struct tensor *model_attend(struct tape *tape, const struct model *model,
                            const struct model_batch *batch, struct kv_cache *cache,
                            int64_t layer, struct tensor *qkv, struct tensor *first);

/* For states->layer: remembers the stream before block i (or after the last). */
void model_remember(struct model_states *states, int64_t i, struct tensor *x);

/* The batch's positions on the device; counted from 0 in each row when it gives none. */
struct tensor *model_positions(struct tape *tape, const struct model_batch *batch);

/* The shared core of model_forward and kv_cache_extend. */
int model_run(struct tape *tape, const struct model *model, const struct model_batch *batch,
              struct kv_cache *cache, struct model_states *states, struct err *err) WARN_UNUSED;

/* generate.c: attention of one layer through a cache. */
struct tensor *kv_cache_attend(struct tape *tape, struct kv_cache *cache, int64_t layer,
                               struct tensor *qkv, int64_t B, int64_t T);

#endif
