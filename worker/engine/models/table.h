/* table.h - what an architecture states about itself: its weights, and its forward pass.
 *
 * To add one: a file in this folder, a line in model_tables (model_config.c), an enum value. */
#ifndef ATHANOR_ENGINE_MODELS_TABLE_H
#define ATHANOR_ENGINE_MODELS_TABLE_H

#include "worker/engine/model.h"

/* What dimensions are written in; size_of in model_layout.c resolves them. */
enum dim {
    DIM_NONE = 0,
    DIM_VOCAB,
    DIM_CONTEXT,
    DIM_PLACES,    /* context, and the two rows before it of RoBERTa and OPT */
    DIM_WIDTH,
    DIM_QUERIES,   /* heads * head_width                */
    DIM_KEYS,      /* kv_heads * head_width             */
    DIM_QKV,       /* queries + 2 keys                  */
    DIM_FFN,
    DIM_TYPES,
    DIM_LABELS,
    DIM_HALF,      /* width / 2                         */
    DIM_HALF_QKV,  /* 3 width / 2                       */
    DIM_HEADS,
    DIM_HEAD_WIDTH,
    DIM_BUCKETS,
    DIM_EXPERTS,
    DIM_EXPERTS_IN,  /* experts * 2 * ffn_width         */
    DIM_EXPERTS_OUT, /* experts * width                 */
    DIM_SHARED,      /* shared_experts * ffn_width      */
    DIM_QKVU,        /* 4 width                         */
    DIM_EMBED,       /* embed_width, or width           */
};

/* When a row is there at all. */
enum need {
    NEED_ALWAYS = 0,
    NEED_UNTIED, /* config.tied is false                */
    NEED_POOLER, /* config.top is not MODEL_TOP_TOKENS  */
    NEED_TOKENS, /* config.top is MODEL_TOP_TOKENS      */
    NEED_LABELS,
    NEED_GATED,  /* config.gated; or not               */
    NEED_PLAIN,
    NEED_SHARED, /* shared experts                      */
    NEED_QK_NORM,
    NEED_ANGLES, /* this block has LRPE                 */
    NEED_GPT2,   /* config.family is that; is the other */
    NEED_OPT,
    NEED_PRE_NORM, /* config.post_norm is false         */
    NEED_NARROW, /* config.embed_width is set           */
    NEED_QKV_BIAS,
};

enum init {
    INIT_ZERO = 1,
    INIT_ONE,
    INIT_NORMAL,
    INIT_RESIDUAL, /* normal / sqrt(2 layers)                          */
    INIT_UNIT,     /* standard deviation 1                             */
    INIT_FAN_IN,   /* 1 / sqrt(columns)                                */
    INIT_QUERY,    /* 1 / sqrt(columns * head width): T5 has no scale  */
    INIT_ANGLES,   /* 10000^(-2 j / columns) in column j               */
};

struct kv_cache;

struct weight_row {
    const char *name;    /* "%d" is the block's number */
    const char *hf_name; /* "a|b" and "%e": rows of the matrix are pieces of their own in files:
                            for each expert e, a and then b                              */
    enum dim dim[2];     /* [out, in], or [width]      */
    enum init init;
    bool hf_transposed;
    enum need need;
    bool no_decay;
    const char *hf_other; /* the name in the family's other format, or NULL: that of OLMoE
                             (config.qk_norm), of RoBERTa (config.roberta), of OPT
                             (table.other_format), where nothing is transposed            */
    int joins;           /* this and the next joins-1 rows are also used as one matrix */
};

/* Rows before the blocks, of each block, and after them; this is also the flat order. */
struct model_table {
    enum model_family family;
    const char *name; /* HF model_type */
    const struct weight_row *before, *block, *second, *after; /* second: a decoder's blocks */
    int before_count, block_count, second_count, after_count;
    bool rotary;         /* positions are rotations (model->turns)                        */
    bool other_format;   /* files have the names hf_other                                 */
    bool sees_both_ways; /* an encoder: tokens see the whole row unless the batch says so */
    void (*defaults)(struct model_config *config);                       /* or NULL */
    int (*check)(const struct model_config *config, struct err *err);    /* or NULL */
    /* cache NULL: a whole batch. Fills states; failures go to the tape. */
    void (*forward)(struct tape *tape, const struct model *model, const struct model_batch *batch,
                    struct kv_cache *cache, struct model_states *states);
    /* Numbers that a cache keeps of each row in tensor `which` of a layer, as [a, b]; false: no
     * such tensor. NULL: keys and values, [capacity, kv width] in 0 and 1. */
    bool (*kept)(const struct model_config *config, int64_t layer, int which, int64_t capacity,
                 int64_t out[2]);
    /* Encoders: their own vector of each row (B, width) from the last states. */
    struct tensor *(*pooled)(struct tape *tape, const struct model *model,
                             const struct model_batch *batch, struct tensor *hidden);
};

extern const struct model_table model_table_gpt2;
extern const struct model_table model_table_llama;
extern const struct model_table model_table_bert;
extern const struct model_table model_table_kona;
extern const struct model_table model_table_moe;
extern const struct model_table model_table_transnormer;
extern const struct model_table model_table_t5;
extern const struct model_table model_table_opt;

const struct model_table *model_table_of(enum model_family family);

/* For the families' checks. */
int model_size_check(const char *name, int64_t value, int64_t most, struct err *err) WARN_UNUSED;
int model_plain_heads_check(const struct model_config *config, struct err *err) WARN_UNUSED;
int model_tied_check(const struct model_config *config, struct err *err) WARN_UNUSED;

/* model_layout.c: weights of a table, their places in the flat arrays, their first values. */
int64_t layout_count(const struct model_table *table, const struct model_config *config);
int64_t layout_rows(const struct model *model);
void layout_weights(struct model *model); /* weight, row, flat_count                 */
void layout_point(struct model *model);   /* tensors into the allocated flat arrays  */
void layout_init(struct model *model, uint64_t seed);
/* Weights of `to`, whose block i is block map[i] of `from`. */
void layout_copy(const struct model *from, const int64_t *map, struct model *to);

/* Weight `row` of the table before the blocks, of block i, after the blocks; NULL when the
 * configuration needs no such weight. */
struct tensor *model_before(const struct model *model, int row);
struct tensor *model_block(const struct model *model, int64_t i, int row);
struct tensor *model_joined(const struct model *model, int64_t i, int row);
struct tensor *model_second(const struct model *model, int64_t i, int row);
struct tensor *model_second_joined(const struct model *model, int64_t i, int row);
struct tensor *model_after(const struct model *model, int row);

struct heads model_heads(const struct model_config *config);

/* Attention over the batch, or through the cache when there is one. */
struct tensor *model_attend(struct tape *tape, const struct model *model,
                            const struct model_batch *batch, struct kv_cache *cache,
                            int64_t layer, struct tensor *qkv, struct tensor *first);

/* batch->first on the device, or the later of it and the start of the model's window. */
struct tensor *model_first(struct tape *tape, const struct model *model,
                           const struct model_batch *batch);
/* x, in training with config.dropout; site tells the places of one pass apart. */
struct tensor *model_drop(struct tape *tape, const struct model *model,
                          const struct model_batch *batch, struct tensor *x, int64_t site);
/* ALiBi's slopes (Press et al. 2022): powers of 2^(-8/n); between powers of two, every other one
 * of the next power. */
double model_alibi_slope(int64_t head, int64_t heads);

/* For states->layer: remembers the stream before block i (or after the last). */
void model_remember(struct model_states *states, int64_t i, struct tensor *x);

/* The batch's positions on the device; counted from 0 in each row when it gives none. */
struct tensor *model_positions(struct tape *tape, const struct model_batch *batch);
/* Their rows in a table of DIM_PLACES. */
struct tensor *model_places(struct tape *tape, const struct model *model,
                            const struct model_batch *batch);
/* Rows of such a table before that of the first position. */
int64_t model_places_before(const struct model_config *config);

/* Attention of an encoder's block, qkv packed: every token sees the tokens of its row that
 * count (batch->length), or those that batch->first and last name. */
struct tensor *model_attend_all(struct tape *tape, const struct model *model,
                                const struct model_batch *batch, struct tensor *qkv);
struct tensor *model_attend_heads(struct tape *tape, const struct model_batch *batch,
                                  struct tensor *qkv, struct heads heads);
/* The batch's token types, or zeros; the numbers of each row's first token. */
struct tensor *model_types(struct tape *tape, const struct model_batch *batch);
struct tensor *model_first_rows(struct tape *tape, const struct model_batch *batch);
/* Last visible key of each token by `length`; NULL when there are no lengths. */
struct tensor *model_last_by_length(struct tape *tape, const int32_t *length, int64_t B,
                                    int64_t Tq, int64_t Tk);

/* bert.c, for encoder.c. */
struct tensor *bert_tokens(struct tape *tape, const struct model *model, struct tensor *states);
struct tensor *bert_labels(struct tape *tape, const struct model *model, struct tensor *pooled);
/* t5.c, for cache.c: the encoder's states as keys and values of every decoder layer, kept. */
int t5_read(struct tape *tape, const struct model *model, const struct model_batch *batch,
            struct kv_cache *cache, struct err *err) WARN_UNUSED;
/* kona.c: frequency i of its sine table. */
double kona_frequency(int64_t i, int64_t count);

/* The shared core of model_forward and kv_cache_extend. */
int model_run(struct tape *tape, const struct model *model, const struct model_batch *batch,
              struct kv_cache *cache, struct model_states *states, struct err *err) WARN_UNUSED;

/* Constants of a step: C ones; the row 0..T-1 of each token, for causal op_attend. */
struct tensor *model_ones(struct tape *tape, int64_t C);
struct tensor *model_causal_last(struct tape *tape, int64_t B, int64_t T);

/* cache.c: one layer through a cache. Each layer keeps up to CACHE_KEPT tensors. */
#define CACHE_KEPT 3
struct tensor *kv_cache_kept(struct kv_cache *cache, int64_t layer, int which); /* NULL: none */
struct tensor *kv_cache_start(const struct kv_cache *cache); /* (B) tokens held before the call */
struct tensor *kv_cache_take(const struct kv_cache *cache);  /* (B) tokens of it that count     */
int64_t kv_cache_capacity(const struct kv_cache *cache);
const int32_t *kv_cache_source_length(const struct kv_cache *cache); /* NULL: all */
struct tensor *kv_cache_attend(struct tape *tape, struct kv_cache *cache, int64_t layer,
                               struct tensor *qkv, int64_t B, int64_t T);

#endif
