/* critic.h - frozen judges of whether one sentence entails another, behind one interface.
 *
 *   oracle   exact, for the micro-world (text/microworld.h): 0 or 1
 *   lm_mi    a language model's information: (log p(y | x) - log p(y)) / tokens of y, in nats
 *
 * A score depends on its pair alone, never on what else is asked in the same call or on ranks. */
#ifndef ATHANOR_CRITIC_H
#define ATHANOR_CRITIC_H

#include "worker/engine/data/tokenizer.h"
#include "worker/engine/model.h"

struct critic;

struct critic_pair {
    const char *x, *y; /* does x entail y? UTF-8 */
};

struct critic *critic_oracle(void);
/* Borrows the model and its tokenizer. Pairs are cut to the model's context from the left of x.
 * Errors: ERR_MEMORY. */
int critic_lm_mi(const struct model *model, const struct tokenizer *tokenizer, struct critic **out,
                 struct err *err) WARN_UNUSED;
void critic_free(struct critic *critic); /* NULL is fine */

/* Higher is more entailed. out: count scores. Errors: ERR_MEMORY, ERR_INVALID. */
int critic_score(struct critic *critic, const struct critic_pair *pairs, size_t count, double *out,
                 struct err *err) WARN_UNUSED;
uint64_t critic_pair_count(const struct critic *critic); /* scored so far: the cost */

/* What a backend provides; for the files critic_*.c. */
struct critic_class {
    const char *name;
    int (*score)(struct critic *critic, const struct critic_pair *pairs, size_t count, double *out,
                 struct err *err);
    void (*free)(struct critic *critic);
};
struct critic {
    const struct critic_class *class;
    uint64_t scored;
};

#endif
