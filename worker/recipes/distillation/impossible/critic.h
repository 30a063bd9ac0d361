/* critic.h - frozen judges of whether one sentence entails another, behind one interface.
 *
 *   oracle   exact, for the micro-world (text/microworld.h): 0 or 1
 *   lm_mi    a language model's information: (log p(y | x) - log p(y)) / tokens of y, in nats
 *   nli      an encoder's classifier: its probability that x entails y
 *   embed    cosine of two sentence vectors. It cannot tell directions, and "the dog bit the man"
 *            from "the man bit the dog" hardly: a filter before a critic, never the last word
 *
 * A score depends on its pair alone, never on ranks. The last bits of lm_mi's also depend on what
 * else is asked in the same call, beside which its texts are packed: so callers ask for a context's
 * or a document's pairs in calls of their own. */
#ifndef ATHANOR_CRITIC_H
#define ATHANOR_CRITIC_H

#include "worker/engine/data/bytemap.h"
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
/* The same with a model of its own, from a folder. ERR_INVALID for an encoder. */
int critic_lm_mi_open(const char *folder, struct device *device, struct critic **out,
                      struct err *err) WARN_UNUSED;
/* A folder with a BertForSequenceClassification or a RobertaForSequenceClassification. Which class
 * is entailment is read from id2label in its config.json, never assumed: ERR_INVALID when none is
 * called so, naming those that there are. Pairs that are too long lose the ends of the longer one
 * and are counted. */
int critic_nli(const char *folder, struct device *device, struct critic **out,
               struct err *err) WARN_UNUSED;
/* Any folder that embedder_open takes (worker/recipes/embed.h). Vectors are kept by sentence. */
int critic_embed(const char *folder, struct device *device, struct critic **out,
                 struct err *err) WARN_UNUSED;

/* What the name "auto" stands for: nli where the judge in `folder` is a classifier, else (NULL, or
 * any other model) lm_mi. Other names stand for themselves. */
const char *critic_resolve(const char *name, const char *folder);

/* By resolved name, as recipes offer them. folder: of the critic's own model, or NULL; model,
 * tokenizer: what lm_mi falls back to, or NULL. Errors: ERR_INVALID when what the critic needs is
 * missing. */
struct critic_choice {
    const char *name;
    const char *folder;
    struct device *device;
    const struct model *model;
    const struct tokenizer *tokenizer;
};
int critic_choose(const struct critic_choice *choice, struct critic **out,
                  struct err *err) WARN_UNUSED;
void critic_free(struct critic *critic); /* NULL is fine */

/* Higher is more entailed. out: count scores. Errors: ERR_MEMORY, ERR_INVALID. */
int critic_score(struct critic *critic, const struct critic_pair *pairs, size_t count, double *out,
                 struct err *err) WARN_UNUSED;
/* Between the two, calls are of one context: what lm_mi finds of a sentence by itself is kept for
 * the next of them. Some 50 bytes and the text, of at most FILTER_SAMPLES_MAX sentences: 1024 of
 * 400 bytes are half a MiB. It is forgotten with the context, so that scores depend on their own
 * context's questions alone, never on which contexts this rank has made before. */
void critic_context_begin(struct critic *critic);
void critic_context_end(struct critic *critic);
/* Whether scores are probabilities, whose threshold needs no calibration. */
bool critic_is_scaled(const struct critic *critic);
/* So far: pairs asked for, those that a model had to read (the others were remembered), and those
 * that were too long for it. */
uint64_t critic_asked_count(const struct critic *critic);
uint64_t critic_pair_count(const struct critic *critic);
uint64_t critic_cut_count(const struct critic *critic);

/* What a backend provides; for the files critic_*.c. */
struct critic_class {
    const char *name;
    bool scaled;
    bool remembers; /* scores are kept by pair: they must be the same bits in any company */
    int (*score)(struct critic *critic, const struct critic_pair *pairs, size_t count, double *out,
                 struct err *err);
    void (*free)(struct critic *critic);
};
struct critic {
    const struct critic_class *class;
    uint64_t asked, scored, cut;
    struct critic_memory *memory;
    bool in_context;
    struct byte_map alone; /* of the context's sentences; values: the backend's */
};

#endif
