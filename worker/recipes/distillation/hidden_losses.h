/* hidden_losses.h - distances of hidden states and attention scores, with their gradients.
 *
 * Host numbers in, sums in double; gradients are added for the student, weight times the value
 * being the loss. Sources: Sanh et al. 2019 (cosine), Jiao et al. 2020, eq. 7 and 8 (squares of
 * hidden states and of scores before the softmax). */
#ifndef ATHANOR_HIDDEN_LOSSES_H
#define ATHANOR_HIDDEN_LOSSES_H

#include "common/base/base.h"

/* 1 - cos(s, t) of two vectors; a vector of zeros has cosine 0 and no gradient. */
double hidden_cosine(const float *s, const float *t, int64_t width, double weight, float *grad);
/* sum (s - t)^2. */
double hidden_square(const float *s, const float *t, int64_t width, double weight, float *grad);

/* tau^2 KL(softmax(t / tau) || softmax(s / tau)) of two rows of V logits; an entry of -infinity in
 * the teacher counts as probability 0. */
double hidden_soften(const float *s, const float *t, int64_t V, double tau, double weight,
                     float *grad);

/* Queries and keys of n tokens, heads side by side: the sum over heads and pairs of tokens of
 * (q_s k_s / sqrt(d_s) - q_t k_t / sqrt(d_t))^2. Rows are heads * width apart. */
struct attention_side {
    const float *q, *k; /* (n, heads * width) */
    int64_t width;      /* of a head */
};
double hidden_scores(const struct attention_side *student, const struct attention_side *teacher,
                     int64_t n, int64_t heads, double weight, float *grad_q, float *grad_k);

#endif
