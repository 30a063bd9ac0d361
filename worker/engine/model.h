/* model.h - models from one table of parameters per architecture.
 *
 * The table (models/) drives allocation, initialisation, file names, optimiser state and
 * gradient checks. All weights lie in one flat array, all gradients in another with the
 * same offsets; a tensor is a slice. Weights of linear layers are [out, in]. */
#ifndef ATHANOR_ENGINE_MODEL_H
#define ATHANOR_ENGINE_MODEL_H

#include "worker/engine/loss.h"
#include "worker/engine/ops.h"
#include "worker/engine/rope.h"

enum model_family {
    MODEL_GPT2 = 1,
    MODEL_LLAMA,
    MODEL_BERT, /* encoder; see encoder.h                                            */
    MODEL_KONA, /* the small sentence encoder that npm installs; see models/kona.c   */
    MODEL_MOE,  /* Llama with experts for feed-forward blocks: Mixtral, OLMoE        */
    MODEL_TRANSNORMER, /* linear attention with decay                                */
    MODEL_T5,   /* encoder and decoder; hidden states are the decoder's              */
    MODEL_OPT,  /* GPT-2 with ReLU; see models/gpt2.c                                */
    MODEL_FAMILY_END,
};

/* What an encoder has above its last block. */
enum model_top {
    MODEL_TOP_POOLER = 0, /* tanh of a linear map of the first token's state         */
    MODEL_TOP_TOKENS,     /* predictions of masked tokens                            */
    MODEL_TOP_LABELS,     /* the pooler, and a linear map of it to classes           */
};

/* Blocks of a TransNormer whose queries and keys carry learned angles, and its decay by head:
 * the slopes of ALiBi that its code has, or those that its paper prints. */
enum model_lrpe { LRPE_FIRST = 0, LRPE_NONE, LRPE_ALL };
enum model_decay { DECAY_ALIBI = 0, DECAY_PAPER, DECAY_NONE };

/* Names of classes that a configuration carries along: of the first ones, and short ones. */
#define MODEL_LABELS_NAMED 16
#define MODEL_LABEL_SIZE   32

/* Tokens of which each ends a text. */
#define MODEL_ENDS_MAX 8

struct model_config {
    enum model_family family;
    int64_t vocab_size;
    int64_t context;     /* most positions                                                */
    int64_t width;       /* D                                                             */
    int64_t layers;
    int64_t heads;
    int64_t kv_heads;    /* 0: heads. GPT-2, OPT: must equal heads                        */
    int64_t head_width;  /* 0: width / heads                                              */
    int64_t ffn_width;   /* 0: 4 * width (GPT-2), 8/3 * width rounded up to 32 (Llama)    */
    double norm_eps;     /* 0: 1e-5                                                       */
    double rope_theta;   /* 0: 10000; Llama, MoE                                          */
    struct rope_scaling rope; /* Llama, MoE: for longer texts than it learned first       */
    double init_std;     /* 0: 0.02                                                       */
    bool tied;           /* head is the token embedding; GPT-2, OPT: must be true         */
    int32_t bos_token;   /* -1: none. The engine only carries these along                 */
    int32_t eos_token;
    bool has_pad;
    int32_t pad_token;
    int32_t end_token[MODEL_ENDS_MAX]; /* all that its files name: at any of them searches and
                                          samples that have a stop_token end a text too; the
                                          first is eos_token                              */
    int64_t end_count;
    int64_t token_types; /* BERT; 0: 2                                                    */
    enum model_top top;  /* BERT                                                          */
    int64_t labels;      /* BERT with MODEL_TOP_LABELS                                    */
    char label_name[MODEL_LABELS_NAMED][MODEL_LABEL_SIZE]; /* of class i; "": LABEL_i      */
    bool roberta;        /* BERT: positions begin at row 2, as Liu et al. 2019; labels only */
    enum activation activation; /* BERT; 0: gelu. T5; 0: relu, or gelu_tanh when gated.
                                   OPT; 0: relu                                           */
    bool post_norm;      /* OPT: norms come after each half of a block, none after the last */
    int64_t embed_width; /* OPT: width of embedding and head, so of hidden; 0: width      */
    int64_t decoder_layers;  /* T5; 0: layers                                             */
    bool gated;              /* T5: feed-forward blocks of version 1.1                    */
    int64_t buckets;         /* T5; 0: 32 relative positions, of distances                */
    int64_t bucket_span;     /* T5; 0: up to 128                                          */
    int64_t experts;         /* MoE; 0: 8. ffn_width is that of one expert                */
    int64_t choices;         /* MoE; 0: 2. Experts of each token                          */
    int64_t shared_experts;  /* MoE: experts of every token, beside                       */
    bool gate_before;        /* MoE: gates are parts of the softmax over all experts      */
    bool qk_norm;            /* MoE: RMS norms of all queries and of all keys (OLMoE)     */
    double capacity_factor;  /* MoE; 0: no limit. In training an expert takes this times its
                                equal share of tokens; the weakest gates over it are dropped  */
    double balance_loss;     /* MoE: weights of the losses of op_route, sums over layers  */
    double z_loss;
    int64_t expert_ranks;    /* MoE: this many ranks have even shares of the experts, of which this
                                model has those of expert_rank; 0: all. spread.h; not in files */
    int64_t expert_rank;
    int64_t window;          /* Llama: a token sees this many, itself included; 0: all    */
    bool alibi;              /* Llama: biases by distance instead of rotations            */
    bool qkv_bias;           /* Llama: queries, keys and values have biases (Qwen 2); not with
                                window or alibi                                           */
    double dropout;          /* decoders, in training: of embeddings and of each branch   */
    enum model_lrpe lrpe;    /* TransNormer                                               */
    enum model_decay decay;
    bool plain_embedding;    /* TransNormer: embeddings are not multiplied by sqrt(width) */
    bool ungated;            /* TransNormer: without the gate on attention's output       */
};

/* Fills zeros with the defaults above and refuses what no model can be: ERR_INVALID. */
int model_config_complete(struct model_config *config, struct err *err) WARN_UNUSED;
/* Whether `token` ends texts where stop_token (-1: no token) does; and how many do. */
bool model_is_end(const struct model_config *config, int32_t stop_token, int32_t token);
int64_t model_end_count(const struct model_config *config, int32_t stop_token);
const char *model_family_name(enum model_family family); /* "gpt2", …: HF model_type */
int model_family_parse(const char *name, enum model_family *out, struct err *err) WARN_UNUSED;
int64_t model_weight_count(const struct model_config *config); /* trainable numbers */

int64_t model_active_count(const struct model_config *config); /* those that one token uses */

#define MODEL_NAME_SIZE 160

struct model_weight {
    char name[MODEL_NAME_SIZE];    /* "block.3.qkv.weight"                               */
    char hf_name[MODEL_NAME_SIZE]; /* "transformer.h.3.attn.c_attn.weight"               */
    bool hf_transposed;            /* the file holds [in, out] (GPT-2's Conv1D)          */
    int64_t experts;               /* files hold the rows in this many groups of pieces  */
    bool decays;                   /* weight decay applies (matrices only)               */
    int64_t offset;                /* elements into the flat arrays                      */
    int64_t shift;                 /* offset + shift: in a model that has all experts    */
    bool own;                      /* other ranks have other experts in its place        */
    struct tensor tensor;          /* slice of weights and, unless frozen, of gradients  */
    struct tensor joined;          /* this and the next ones as one matrix; see models/  */
};

struct model {
    struct model_config config;    /* complete                                           */
    struct device *device;
    struct tensor flat;            /* (flat_count): values, grad; grad NULL when frozen  */
    int64_t flat_count;            /* includes zero padding between weights              */
    int64_t own_count;             /* the last ones of them, which no other rank has     */
    struct model_weight *weight;   /* in table order                                     */
    int64_t weight_count;
    int64_t *row;                  /* of the table's numbered rows: its weight, or -1    */
    struct tensor *head;           /* (V, D), for loss.h                                 */
    struct tensor *turns;          /* (context, head_width) of op_rope; NULL without        */
    const struct model_table *table;
};

/* Weights depend on (seed, name) only: not on ranks, threads or family order.
 * Errors: ERR_INVALID, ERR_MEMORY. */
int model_new(struct device *device, const struct model_config *config, uint64_t seed,
              struct model **out, struct err *err) WARN_UNUSED;
/* The same weights without gradients: reference or teacher. May be on another device. */
int model_clone_frozen(const struct model *model, struct device *device, struct model **out,
                       struct err *err) WARN_UNUSED;
/* As model_new with all weights zero and no gradients: to be filled from a file. */
int model_new_frozen(struct device *device, const struct model_config *config,
                     struct model **out, struct err *err) WARN_UNUSED;
/* Depth up-scaling: a trainable model whose block i is block map[i] of `from`, and all else the
 * same (Yi, section 7.3; Kim et al. 2023). Errors: ERR_INVALID (a block that is not there). */
int model_deepen(const struct model *from, const int64_t *map, int64_t layers,
                 struct model **out, struct err *err) WARN_UNUSED;
/* A trainable model that knows vocab_size tokens, the first of them as `from` does. A new token's
 * row is the mean of the known ones, which bounds what it takes of their probability (Hewitt
 * 2021), and a draw by (seed, name) that tells it from other new ones.
 * Errors: ERR_INVALID (fewer than from knows). */
int model_widen(const struct model *from, int64_t vocab_size, uint64_t seed, struct model **out,
                struct err *err) WARN_UNUSED;
/* In place, before any tape has seen the model: the same weights for `context` positions (0: as
 * many as before), with rotary angles of base `rope_theta` (0: as before), as Yi goes on with long
 * texts (section 7.1; Xiong et al. 2023, adjusted base frequency). Their scaling stays. After an
 * error it is as it was: ERR_INVALID (learned rows of positions; no rotary angles), ERR_MEMORY. */
int model_reach(struct model *model, int64_t context, double rope_theta,
                struct err *err) WARN_UNUSED;
void model_free(struct model *model);

/* By engine name or HF name (also without the leading "transformer." or "model."); NULL. */
struct model_weight *model_weight_find(struct model *model, const char *name);
/* Host copies in the engine's layout [out, in]; count floats as tensor_count. */
void model_weight_read(const struct model_weight *weight, float *out_host);
void model_weight_write(struct model_weight *weight, const float *host);
void model_zero_grad(struct model *model);
/* A weight may be several tensors in files, equal stretches of its rows: how many, and the Hugging
 * Face name of each. */
int64_t model_weight_parts(const struct model_weight *weight);
void model_weight_part_name(const struct model_weight *weight, int64_t part,
                            char out[MODEL_NAME_SIZE]);

struct comm;

struct model_batch {
    int64_t B, T;
    const int32_t *token;    /* B*T, 0..V-1                                                 */
    const int32_t *position; /* B*T, or NULL: 0..T-1 in each row                            */
    const int32_t *first;    /* B*T, or NULL: first key index a token may see (op_attention) */
    const int32_t *last;     /* B*T, or NULL: last key index a token may see: itself in decoders
                                (more for a prefix seen both ways), T-1 in encoders         */
    const int32_t *length;   /* B, or NULL: tokens of each row that count; the rest is padding,
                                which nobody sees. Encoders only; decoders need none        */
    const int32_t *type;     /* B*T, or NULL: 0. Token types of BERT                        */
    int64_t S;               /* T5: the encoder's tokens, B*S, and how many of each row count
                                (NULL: all)                                               */
    const int32_t *source, *source_length;
    uint64_t dropout_seed;   /* of this batch, where it trains (share > 0)                  */
    double share;            /* in training, this batch's share of the step (1 / passes over all
                                ranks): weighs losses that layers add. 0: none, no capacity   */
    struct comm *comm;       /* in training, the ranks that run a batch at this time, whose tokens
                                are balanced over experts together; NULL: each its own        */
};

struct model_states {
    struct tensor *hidden;   /* (B*T, D) after the final norm: what loss.h and logits take;
                                (B*T, embed_width) where that is set                        */
    struct tensor **layer;   /* in: NULL, or room for layers+1; out: (B*T, D) residual stream
                                before block i, [layers] after the last, before the norm    */
    struct tensor **route;   /* in: NULL, or room for layers; out: MoE: ROUTE_STATS numbers    */
    struct tensor *encoded;  /* out: T5: (B*S, D) the encoder's states                        */
};

/* Runs the model. Frozen models record nothing that flows into their weights.
 * Errors: ERR_INVALID (token or position out of range, T over context), ERR_MEMORY. */
int model_forward(struct tape *tape, const struct model *model, const struct model_batch *batch,
                  struct model_states *states, struct err *err) WARN_UNUSED;
/* All logits (N, V): for evaluation and small checks; training uses loss_head. */
struct tensor *model_logits(struct tape *tape, const struct model *model, struct tensor *hidden);

#endif
