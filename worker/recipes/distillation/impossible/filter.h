/* filter.h - which of the pairs of sentences sampled after one context are kept.
 *
 * Cheap filters first, then the critic forward, then in reverse on what is left, then one pair
 * for each component of the graph of entailments (Jung et al. 2024, section 3; order and ties:
 * ours). All work is on distinct texts; counts are of ordered pairs of samples, so that
 *   samples x (samples - 1), or samples - 1 when only the source is rewritten,
 * is the sum of the counts over all verdicts. */
#ifndef ATHANOR_FILTER_H
#define ATHANOR_FILTER_H

#include "worker/recipes/distillation/impossible/critic.h"

enum verdict {
#define VERDICT(NAME, name, letter, text) VERDICT_##NAME,
#include "worker/recipes/distillation/impossible/verdicts.def"
#undef VERDICT
    VERDICT_END,
};

const char *verdict_name(enum verdict verdict);
char verdict_letter(enum verdict verdict);

enum pair_task { TASK_PARAPHRASE = 1, TASK_SUMMARIZE };
enum numbers_rule { NUMBERS_OFF = 1, NUMBERS_ONE_WAY, NUMBERS_BOTH };
enum keep_rule { KEEP_MAX_ENTAIL = 1, KEEP_MIN_REVERSE, KEEP_MIN_ROUGE };

struct filter {
    enum pair_task task;
    bool source_only; /* only pairs whose x is sample 0: it was rewritten as the others */
    double ratio_min, ratio_max; /* characters of y / characters of x; summaries: below ratio_max */
    enum numbers_rule numbers;   /* one way: y has no numeral that x lacks */
    double rouge_max;            /* ROUGE-L F; paraphrases only */
    double ted_min;              /* tree_edit.h; paraphrases only; 0: not asked */
    struct critic *likeness;     /* asked before the critic, or NULL */
    double likeness_min;         /* least score there */
    double tau;                  /* least score of an entailment */
    bool asks_saliency;          /* summaries: y => x scores at least saliency_tau times */
    double saliency_tau;         /* characters of y / characters of x                    */
    double diversity_tau;        /* least score of an edge; INFINITY: no diversity filter */
    enum keep_rule keep;
    size_t most;                 /* pairs of a context, a random choice of them; 0: all */
    uint64_t seed;               /* breaks ties and chooses, with the context's number */
};

#define FILTER_SAMPLES_MAX 1024 /* 1024^2 scores of 8 bytes: 8 MiB a context */

struct kept_pair {
    size_t x, y; /* sample numbers */
    double forward, reverse, rouge; /* reverse: NAN when nobody asked */
};

struct filtered {
    uint64_t count[VERDICT_END]; /* ordered pairs of samples */
    size_t *distinct;            /* sample number of each distinct text, ascending */
    size_t distinct_count;
    enum verdict *verdict; /* (distinct_count, distinct_count): of x = row, y = column;
                              VERDICT_END: not in the pool */
    struct kept_pair *kept; /* ascending by (x, y) */
    size_t kept_count;
};

/* samples: `count` texts, "" for one that the gate refused (sentence.h). Errors: the critic's;
 * ERR_LIMIT for more than FILTER_SAMPLES_MAX. */
int filter_context(const struct filter *filter, struct critic *critic, uint64_t context,
                   const char *const *samples, size_t count, struct filtered *out,
                   struct err *err) WARN_UNUSED;
void filtered_done(struct filtered *filtered); /* a zeroed struct is fine */

#endif
