/* pairs.h - stages 0 to 3 of Impossible Distillation: contexts, samples, critics, a dataset.
 *
 * After each context a model writes many sentences; what continues the same context tends to mean
 * the same, so pairs of them that frozen critics accept become training data for a task that the
 * model itself cannot do (Jung et al. 2024, sections 2 and 3). With a student, the same critics
 * judge what it makes of the model's sentences instead: one round of self-distillation.
 *
 * Work is dealt in blocks of contexts: a rank takes a lease on the lowest block that nobody has
 * (lease.h), makes it alone, writes it as a whole file and a record of it (record.h), and takes the
 * next. Meanwhile each counts the records in order of blocks, and so all find the same last block:
 * what lies behind it is not used. Every draw depends on the number of its context. So the dataset
 * is the same bytes for any number of ranks and size of blocks, whoever made what and in which
 * order, and a killed run goes on with the blocks that are not whole. */
#ifndef ATHANOR_PAIRS_H
#define ATHANOR_PAIRS_H

#include "common/base/hash.h"
#include "worker/engine/data/bytemap.h"
#include "worker/engine/data/dataset.h"
#include "worker/recipes/distillation/impossible/block.h"
#include "worker/recipes/distillation/impossible/lease.h"
#include "worker/recipes/distillation/impossible/prefixes.h"
#include "worker/recipes/distillation/impossible/record.h"
#include "worker/recipes/distillation/impossible/sampler.h"
#include "worker/recipes/train.h"

#define PAIRS_CONTEXTS_FEW 200 /* fewer are too early for min_yield and min_distinct */

struct pairs {
    struct run *run;
    struct device *device;
    struct model *teacher, *student;           /* student: NULL in the first round */
    struct tokenizer *tokenizer, *student_tokenizer;
    struct sentence_sampler contexts, sentences, rewrites;
    struct critic *critic, *likeness;          /* likeness: NULL without a sentence encoder */
    const char *critic_name;                   /* resolved */
    struct filter filter;
    struct prefixes prefixes;    /* what contexts begin with; none: anything */
    struct dataset *source;      /* of contexts; NULL: the teacher writes them */
    struct dataset_texts texts;
    size_t *usable;              /* texts that are no repetition of an earlier one */
    size_t usable_count, repeated;
    uint64_t context_first, context_count; /* numbers first .. first + count - 1 */
    uint64_t block_contexts, block_count;
    size_t samples;
    bool sequential;     /* sequential.h */
    uint64_t target;             /* pairs after which to stop */
    char settings[HASH_HEX_SIZE];          /* what every outcome depends on */
    char header[HASH_HEX_SIZE + 24];       /* of block files: settings, and contexts a block */
    char *folder;                /* of blocks */
    struct pairs_sum {
        uint64_t contexts, count[VERDICT_END];
        uint64_t distinct; /* contexts that no earlier one equals */
    } sum;
    struct {
        uint64_t contexts; /* first .. first + contexts - 1 are in the dataset */
        uint64_t pairs;
        char *folder; /* of the dataset */
    } built;          /* on all ranks, after pairs_build */
    struct byte_map seen;   /* hashes of contexts: 8 bytes each */
    uint64_t tokens, sample_us, critic_us; /* of this rank and this attempt */
    uint64_t counted;       /* blocks 0 .. counted - 1 are in sum */
    bool over;              /* no block after them is wanted */
    struct peek {           /* what this rank knows of blocks counted, counted + 1, ... */
        bool done;
        uint64_t kept;
        struct lease_seen lease;
    } *peek;
    size_t peek_count, peek_capacity;
    struct lease_rules rules;
    struct hand {           /* the block that this rank has a lease on */
        bool held;
        uint64_t block, next; /* next: contexts of it that are made */
        uint64_t began_ms;
        struct buf bytes;     /* of the block, so far */
        struct record record; /* figures before it was begun, until it is done */
    } hand;
    unsigned idle;          /* times in turn that this rank found nothing to do */
    struct {                /* of all records that were counted */
        uint64_t made, tokens, sample_us, critic_us, scored, cut;
    } figures;
};

/* Opens models, critic and contexts, and finds what an earlier attempt left. */
int pairs_open(struct run *run, struct pairs *pairs, struct err *err) WARN_UNUSED;
void pairs_close(struct pairs *pairs); /* a zeroed struct is fine */

/* Ends as min_distinct where less of the contexts given than that differ. */
int pairs_check_source(struct pairs *pairs, struct err *err) WARN_UNUSED;
/* Sets the critic's threshold: from pairs of different contexts where it has no scale. */
int pairs_calibrate(struct pairs *pairs, struct err *err) WARN_UNUSED;
/* All ranks together, before any makes a block: removes what earlier attempts left that is of no
 * use, leases among it, and gives blocks that have none their records. */
int pairs_resume(struct pairs *pairs, struct err *err) WARN_UNUSED;
/* One piece of the work of ranks that are apart (recipe.h): counts the next block if it is done
 * (that ends a step), else makes one context, or takes a lease, or rests for some milliseconds.
 * With the last block all come together, and its step sets run->step_count. */
int pairs_work(struct pairs *pairs, struct err *err) WARN_UNUSED;
/* The half-made block, if any, for the next attempt. */
int pairs_put_down(struct pairs *pairs, struct err *err) WARN_UNUSED;
/* Rank 0 writes and announces the dataset. */
int pairs_build(struct pairs *pairs, struct err *err) WARN_UNUSED;

uint64_t pairs_block_size(const struct pairs *pairs, uint64_t number); /* contexts */
/* extension: jsonl, done, part; mem_free. */
char *pairs_block_path(const struct pairs *pairs, uint64_t number, const char *extension);
uint64_t pairs_block_first(const struct pairs *pairs, uint64_t number); /* context */
/* Makes a context and appends its line. */
int pairs_context(struct pairs *pairs, uint64_t context, struct buf *lines,
                  struct err *err) WARN_UNUSED;

/* Of all pairs, those that the critics accept: kept, or left out only because another like them
 * was kept. */
double pairs_accepted(const struct pairs *pairs);

/* Rows of the tables of every recipe that makes pairs. */
/* clang-format off */
#define PAIRS_PARAMS \
    {"task", PARAM_CHOICE, "paraphrase", 0, 0, "paraphrase|summarize", \
     "what a pair must be: the same said differently, or less of it"}, \
    {"samples", PARAM_INT, "100", 1, FILTER_SAMPLES_MAX, NULL, \
     "sentences after each context; with a student: rewrites of each sentence"}, \
    {"mode", PARAM_CHOICE, "parallel", 0, 0, "parallel|sequential_constrained", \
     "parallel: all pairs of samples; sequential_constrained: one sample and its rewrites, " \
     "decoded after it with its content words as constraints. A student's rewrites are samples"}, \
    {"temperature", PARAM_FLOAT, "0.7", 0.1, 2, NULL, "of these samples"}, \
    {"top_p", PARAM_FLOAT, "0.9", 0.01, 1, NULL, "mass of the tokens they are drawn from"}, \
    {"max_tokens", PARAM_INT, "100", 4, 4096, NULL, "most tokens of a sample"}, \
    {"separator", PARAM_CHOICE, "newline", 0, 0, "newline|none", \
     "what stands between a context and its sentence, as the teacher was trained"}, \
    {"no_repeat_ngram", PARAM_INT, "0", 0, 8, NULL, \
     "no sequence of so many tokens twice in a sample and what it follows; 0: off"}, \
    {"context_sentences", PARAM_INT, "5", 0, 16, NULL, \
     "most sentences of a context that the teacher writes; 0: only the prefix, or nothing"}, \
    {"context_sentences_min", PARAM_INT, "1", 0, 16, NULL, \
     "fewest; each number between is as likely"}, \
    {"context_temperature", PARAM_FLOAT, "1.0", 0.1, 2, NULL, "of these contexts"}, \
    {"context_top_p", PARAM_FLOAT, "0.9", 0.01, 1, NULL, \
     "mass of the tokens they are drawn from"}, \
    {"source_temperature", PARAM_FLOAT, "1.0", 0.1, 2, NULL, \
     "of the teacher's sentences that a student rewrites"}, \
    {"critic", PARAM_CHOICE, "auto", 0, 0, "auto|lm_mi|pmi|nli|oracle", \
     "who judges entailment: mutual information under the judge or else the teacher, for " \
     "summaries pmi also that of x after y, the judge's classes, or the micro-world's truth; " \
     "auto: nli if the judge is a classifier, else lm_mi"}, \
    {"tau", PARAM_FLOAT, "0", -100, 100, NULL, \
     "least score of an entailment; 0: 0.75 for oracle and nli, else what false_pass gives; " \
     "-100: no semantic critic"}, \
    {"saliency_tau", PARAM_FLOAT, "0", -100, 100, NULL, \
     "pmi: a summary y tells nats a token of x, at least this times its share of x's " \
     "characters; 0: what false_pass gives"}, \
    {"embed_min", PARAM_FLOAT, "-1", -1, 1, NULL, \
     "least cosine of a pair under the input embedder, asked before the critic; -1: not asked"}, \
    {"false_pass", PARAM_FLOAT, "0.05", 0.0001, 0.5, NULL, \
     "share of pairs from different contexts that a calibrated threshold lets pass"}, \
    {"ted_min", PARAM_FLOAT, "0", 0, 1000, NULL, \
     "least tree edit distance of a paraphrase, of trees by function words (text/tree_edit.h) " \
     "where the paper has a parser's and 12; 0: not asked"}, \
    {"rouge_max", PARAM_FLOAT, "0.75", 0, 1, NULL, "most ROUGE-L F of a paraphrase"}, \
    {"length_ratio_min", PARAM_FLOAT, "0.8", 0, 10, NULL, "least characters of y for one of x"}, \
    {"length_ratio_max", PARAM_FLOAT, "1.5", 0, 10, NULL, "most characters of y for one of x"}, \
    {"compression", PARAM_FLOAT, "0.8", 0.05, 1, NULL, \
     "a summary has fewer characters than this for one of its source"}, \
    {"numbers", PARAM_CHOICE, "both", 0, 0, "both|one_way|off", \
     "whose numerals must be in the other: one_way: only the target's in the source"}, \
    {"diversity", PARAM_BOOL, "true", 0, 0, NULL, \
     "keep one pair of each component of entailing sentences of a context"}, \
    {"diversity_tau", PARAM_FLOAT, "0", 0, 100, NULL, \
     "least score of an edge there; 0: 0.5 for oracle and nli, else tau"}, \
    {"keep", PARAM_CHOICE, "max_entail", 0, 0, "max_entail|min_reverse|min_rouge", \
     "which pair stands for a component"}, \
    {"pairs_per_context", PARAM_INT, "0", 0, 1e6, NULL, \
     "most pairs of a context, chosen at random; 0: all"}, \
    {"target_pairs", PARAM_INT, "400000", 1, 1e12, NULL, "stop when so many are kept"}, \
    {"max_contexts", PARAM_INT, "10000000", 1, 1e12, NULL, "stop after so many contexts"}, \
    {"first_context", PARAM_INT, "0", 0, 1e12, NULL, \
     "number of the first context: a later round takes fresh ones"}, \
    {"min_yield", PARAM_FLOAT, "1e-5", 0, 1, NULL, \
     "end as failed when, after 200 contexts, less of the pool than this is kept"}, \
    {"min_distinct", PARAM_FLOAT, "0.1", 0, 1, NULL, \
     "end as failed when, of 200 contexts or more, less than this share differ"}, \
    {"block", PARAM_INT, "64", 1, 65536, NULL, \
     "contexts of a step, of a file, and of a lease: one rank makes them"}, \
    {"lease_s", PARAM_FLOAT, "0", 0, 1e6, NULL, \
     "seconds after which a block that a rank has not finished is given to another; 0: four " \
     "times what the longest one took, at least 60"}, \
    {"holdout_share", PARAM_FLOAT, "0.1", 0, 0.9, NULL, \
     "share of the contexts whose pairs form the part valid"}, \
    {"name", PARAM_STRING, "", 0, 0, NULL, "name of the dataset; empty: the job's name"}, \
    {"seed", PARAM_INT, "1337", 0, 9e15, NULL, "of every draw"}, \
    DEVICE_PARAMS
#define PAIRS_INPUTS \
    {"teacher", INPUT_CHECKPOINT, true, "language model that writes the sentences"}, \
    {"contexts", INPUT_DATASET, false, \
     "documents to write after; without it the teacher writes contexts too"}, \
    {"prefixes", INPUT_FILE, false, \
     "a line each: what the contexts that the teacher writes begin with, as a dateline"}, \
    {"judge", INPUT_CHECKPOINT, false, \
     "the critic's own model: classifier of nli, or language model of lm_mi and pmi"}, \
    {"embedder", INPUT_CHECKPOINT, false, "sentence encoder that embed_min asks"}
/* clang-format on */

#endif
