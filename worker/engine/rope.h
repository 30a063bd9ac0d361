/* rope.h - angles of rotary positions, and how they are scaled for longer texts.
 *
 * At position p, element i of a head turns with element i + d/2 by p times a speed, which is
 * theta^(-2i/d) (Su et al. 2021) times keep + (1 - keep) / factor. What keep is depends on the
 * kind of scaling: 1 where a speed stays as it was learned, 0 where positions are squeezed. */
#ifndef ATHANOR_ENGINE_ROPE_H
#define ATHANOR_ENGINE_ROPE_H

#include "common/base/err.h"

enum rope_kind {
    ROPE_PLAIN = 0, /* keep is 1                                                              */
    ROPE_LINEAR,    /* keep is 0: Chen et al. 2023, position interpolation                    */
    ROPE_LLAMA3,    /* keep goes from 0 to 1 as an angle turns `slow` to `fast` times within the
                       original positions: Llama 3.1, as transformers documents it            */
    ROPE_YARN,      /* the same, but straight over the elements i between those that turn so
                       often (rounded outwards); cosines and sines times `attention`, so scores
                       times its square: Peng et al. 2023, sections 3.2 and 3.4               */
};

/* In brackets: the fields of config.json, of llama3 and of yarn where they differ. */
struct rope_scaling {
    enum rope_kind kind;
    double factor;    /* times as many positions, 1 or more (factor)                          */
    double slow;      /* turns (low_freq_factor, beta_slow)                                   */
    double fast;      /* more of them (high_freq_factor, beta_fast)                           */
    double attention; /* yarn; 0: 0.1 ln(factor) + 1 (attention_factor)                       */
    int64_t original; /* llama3, yarn: positions learned at first
                         (original_max_position_embeddings)                                   */
};

/* ERR_INVALID, naming the field, unless every number that the kind needs is possible. */
int rope_scaling_check(const struct rope_scaling *scaling, struct err *err) WARN_UNUSED;
bool rope_scaling_equal(const struct rope_scaling *a, const struct rope_scaling *b);

/* Fills (head_width / 2) with the angles from one position to the next. */
void rope_speeds(double *out, int64_t head_width, double theta,
                 const struct rope_scaling *scaling);
/* Fills (positions, head_width) with the cosines, then the sines, of every angle of the positions
 * from `first` on. */
void rope_turns(float *out_host, int64_t first, int64_t positions, int64_t head_width,
                double theta, const struct rope_scaling *scaling);

#endif
