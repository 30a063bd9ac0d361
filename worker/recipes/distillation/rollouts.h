/* rollouts.h - what a sampled text says about the reverse KL of whole texts (Gu et al. 2023).
 *
 *   grad KL(q || p) = E_y[ sum_t grad KL(q_t || p_t) ] - E_y[ sum_t w_t R_{t+1} grad log q(y_t) ]
 *   r_t = log p(y_t) - log q(y_t),  R_{t+1} = r_{t+1} + ... + r_n
 *
 * for texts y of the student q, w_t = 1. The first term needs no sample of its token; that R begins
 * after t keeps r_t from being counted in both. Texts of the mixture a p + (1 - a) q, which bring
 * what the student would rarely write, need weights: exact is the ratio of whole texts, whose
 * spread grows with their length; the method's is the ratio of the token alone, biased by design.
 */
#ifndef ATHANOR_ROLLOUTS_H
#define ATHANOR_ROLLOUTS_H

#include "common/base/base.h"

/* out[t] = R_{t+1} of n rewards; per_token: divided by the n - t - 1 rewards in it, so that long
 * texts do not weigh more. The last is 0. */
void rollout_returns(const double *reward, int64_t n, bool per_token, double *out);
/* q / (a p + (1 - a) q) of one token; mix: a. */
double rollout_weight(double log_q, double log_p, double mix);
/* log(a p + (1 - a) q) of V tokens from logits of both, in place of the student's. */
void rollout_mix(float *student, const float *teacher, int64_t V, double mix);
/* What multiplies grad log q(y_t) of a text that an older student wrote: gain times the ratio of
 * new and old probability, or 0 where the ratio has gone as far as `most` from 1 in the direction
 * that the gain wants (Schulman et al. 2017, eq. 7). */
double rollout_slope(double gain, double ratio, double most);

#endif
