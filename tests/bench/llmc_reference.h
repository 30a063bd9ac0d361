/* llmc_reference.h - a training step of GPT-2 in plain loops, to measure the engine against.
 *
 * Built as llm.c's CPU trainer is (Karpathy 2024, train_gpt2.c), written anew from its structure
 * and from GPT-2's equations: C with OpenMP, f32 throughout, no library of products. One array each
 * of weights, gradients, moments, activations and their gradients; 16 kinds of weights, those of
 * blocks one layer after the other; a vocabulary rounded up to 128; scores and shares of attention
 * kept as T x T for each head; all logits and probabilities kept; every gradient added to what was
 * zeroed.
 * Products forward: eight rows of x share each read of a row of w, their sums in registers.
 * Backward: two passes, over rows for x and over columns for w and the bias.
 *
 * Where it differs from its model it is the faster one: the gradient of attention's softmax is
 * linear in T for each row (there: quadratic), and backward of attention and of the head, GELU,
 * sums and AdamW also use all threads. There is no clipping, as there.
 *
 * Out of memory ends the process. Threads: OpenMP's. */
#ifndef ATHANOR_TESTS_LLMC_REFERENCE_H
#define ATHANOR_TESTS_LLMC_REFERENCE_H

#include "common/base/base.h"

enum llmc_weight {
    LLMC_WTE, /* (V, C) and zeros up to the rounded vocabulary */
    LLMC_WPE, /* (context, C)                                  */
    LLMC_LN1_G, LLMC_LN1_B, LLMC_QKV_W, LLMC_QKV_B, LLMC_PROJ_W, LLMC_PROJ_B,
    LLMC_LN2_G, LLMC_LN2_B, LLMC_FC_W, LLMC_FC_B, LLMC_OUT_W, LLMC_OUT_B,
    LLMC_LNF_G, LLMC_LNF_B,
    LLMC_WEIGHT_END,
};

struct llmc_shape {
    int64_t V, context, C, layers, heads; /* vocabulary, positions, width */
    int64_t B, T;                         /* rows of a batch and their tokens */
};

struct llmc_adamw {
    float rate, beta1, beta2, eps, decay; /* decay of all weights alike */
};

struct llmc_reference;

struct llmc_reference *llmc_reference_new(const struct llmc_shape *shape); /* all weights zero */
void llmc_reference_free(struct llmc_reference *r);

/* Whether there is one of each layer; `layer` is not read where not. */
bool llmc_reference_in_layers(enum llmc_weight kind);
/* [out, in] row by row; *out_count without the padding of the vocabulary. */
float *llmc_reference_weight(struct llmc_reference *r, enum llmc_weight kind, int64_t layer,
                             int64_t *out_count);
const float *llmc_reference_grad(const struct llmc_reference *r, enum llmc_weight kind,
                                 int64_t layer);

/* token, target: B*T, each 0..V-1. Returns the mean of -log p(target), and keeps what backward
 * needs, which makes the gradients anew. update: Loshchilov and Hutter 2019, algorithm 2. */
double llmc_reference_forward(struct llmc_reference *r, const int32_t *token,
                              const int32_t *target);
void llmc_reference_backward(struct llmc_reference *r, const int32_t *token,
                             const int32_t *target);
void llmc_reference_update(struct llmc_reference *r, const struct llmc_adamw *adamw);

/* y (N, M) = x (N, K) w (M, K)' + b (M); b may be NULL. Backward adds to dx, dw and, where not
 * NULL, db. */
void llmc_reference_product(float *y, const float *x, const float *w, const float *b, int64_t N,
                            int64_t K, int64_t M);
void llmc_reference_product_backward(float *dx, float *dw, float *db, const float *dy,
                                     const float *x, const float *w, int64_t N, int64_t K,
                                     int64_t M);
void llmc_reference_threads(int count);

#endif
