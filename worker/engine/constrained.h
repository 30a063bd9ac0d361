/* constrained.h - beam search for texts that contain given words: NeuroLogic decoding.
 *
 * What a text must contain is in conjunctive normal form: it must meet every clause, and meets a
 * clause by containing one of its phrases. Candidates, pruning and grouping: Lu et al. 2021 and
 * their code (zero_shot/topK.py), with the settings of theirs for GPT-2 as defaults.
 *
 * A step extends K texts. Candidates are the K likeliest extensions of all texts and, where fewer
 * than prune - 1 extensions of all are likelier, the tokens that begin or go on a phrase of an
 * unmet clause and the K likeliest tokens of each text. Of these stay the ones that meet at most
 * `tolerance` clauses fewer than the one with the most. They are ordered by
 *   log p / tokens - beta log(unmet clauses, at least 1)
 * within groups that meet the same clauses, and taken from all groups in turn: the first of each,
 * then the second of each. (Their code weighs by how far a phrase has come, not by unmet clauses.)
 * A text may end where all clauses are met and the end is among the K early_stop likeliest tokens
 * there, or where the end is the likeliest token of all: it is then kept for the case that no text
 * meets as many clauses. log p is always the model's own, whatever is forbidden. */
#ifndef ATHANOR_ENGINE_CONSTRAINED_H
#define ATHANOR_ENGINE_CONSTRAINED_H

#include "worker/engine/generate.h"

#define CLAUSES_MAX 64
#define CLAUSE_NEVER (-1) /* of a phrase that no text may contain */

struct phrase {
    const int32_t *token;
    int64_t count;  /* at least 1 */
    int32_t clause; /* 0 .. CLAUSES_MAX-1, or CLAUSE_NEVER */
};

struct clauses;

/* Clause numbers must be without gaps. count 0: no clauses.
 * Errors: ERR_INVALID (empty phrase, clause out of range or without a phrase), ERR_LIMIT. */
int clauses_new(const struct phrase *phrases, int64_t count, struct clauses **out,
                struct err *err) WARN_UNUSED;
void clauses_free(struct clauses *clauses); /* NULL is fine */
int64_t clauses_count(const struct clauses *clauses);
/* Bit c: the text contains a phrase of clause c. */
uint64_t clauses_met(const struct clauses *clauses, const int32_t *token, int64_t count);

enum token_role { ROLE_PLAIN = 0, ROLE_BANNED, ROLE_ENDS /* ends a text, and is part of it */ };

struct constrained_config {
    int64_t beams; /* 1..1024 */
    int64_t most_tokens;
    int32_t stop_token;  /* ends a text, and is no part of it (struct sampling); -1: none */
    const uint8_t *role; /* (V) an enum token_role each; NULL: all plain */
    int64_t prune;       /* 0: never */
    int64_t tolerance;
    double beta;
    double early_stop;
    int64_t no_repeat; /* no so many tokens twice in a text; 0: they may */
    bool ungrouped;    /* by rank alone, for comparison */
};
#define CONSTRAINED_DEFAULTS \
    .beams = 20, .stop_token = -1, .prune = 50, .tolerance = 2, .beta = 0, .early_stop = 1.5, \
    .no_repeat = 3

struct constrained_text {
    int32_t *token; /* given by the caller, room for most_tokens                    */
    int64_t count;  /* out; without the stop token                                  */
    double log_p;   /* out: of the tokens, and of the stop token where there was one */
    uint64_t met;   /* out: clauses                                                 */
    bool ended;     /* out: by the stop token or one that ends texts                */
};

/* Fills up to `beams` texts, those that meet more clauses first, then by log p / tokens (the stop
 * token counts). *out_count: how many. Everything that the search keeps is allocated before its
 * first step. Errors: as beam_search. */
int constrained_search(const struct model *model, const struct prompt *prompt,
                       const struct clauses *clauses, const struct constrained_config *config,
                       struct constrained_text *out_texts, int64_t *out_count,
                       struct err *err) WARN_UNUSED;

#endif
