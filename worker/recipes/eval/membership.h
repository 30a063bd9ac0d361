/* membership.h - how much of a document a model shows to know: pure functions of its scores.
 *
 * Definitions: card eval-unlearning (open-unlearning's metrics), with its two defects mended:
 * extraction strength is 0 when the last token is wrong. */
#ifndef ATHANOR_MEMBERSHIP_H
#define ATHANOR_MEMBERSHIP_H

#include "common/base/base.h"

/* Of tokens predicted one after another with the true prefix given; hit[i]: the likeliest
 * token was the right one. count tokens, the end of text excluded. */
/* 1 - k/count, k the shortest prefix after which all are right; 0 if the last is wrong. */
double extraction_strength(const bool *hit, int64_t count);
/* Share of hits; 0 for no tokens. */
double exact_memorisation(const bool *hit, int64_t count);

/* Mean of the floor(share * count), at least one, largest of nll (reordered in place): Min-K %
 * of Shi et al. 2024. Lower: more likely a member of the training data. */
double min_k_score(float *nll, int64_t count, double share);

/* Probability that a member scores below an outsider, ties counting half (Mann-Whitney).
 * Both arrays are sorted in place. NAN when one is empty. 1: members are fully told apart. */
double membership_auc(double *member, int64_t member_count, double *outsider,
                      int64_t outsider_count);

/* 100 (x - x_ref) / x_ref with x = 1 - AUC: 0 ideal, near -100 not unlearned, above 0 unlearned
 * more than retraining does. Shi et al. 2024 (MUSE). */
double privacy_leak(double auc, double reference_auc);

#endif
