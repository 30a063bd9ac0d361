/* submit.h - what the files of a submit share. Private to core/submit*.c.
 *
 *   submit.c         the entry: limits, repeats, refusals
 *   submit_plan.c    what each need and input means; changes nothing
 *   submit_make.c    jobs, edges and rows from the plan
 *   submit_check.c   the plan as an answer, for a dry run
 *   submit_lookup.c  what history the plan will need */
#ifndef ATHANOR_CORE_SUBMIT_H
#define ATHANOR_CORE_SUBMIT_H

#include "coordinator/core/state.h"

/* Different jobs and datasets outside of the spec that one submit may name. A plan looks each
 * name of a spec (SPEC_NEEDS_MAX) up among those found: 10^8 comparisons, half a second. */
#define SUBMIT_OUTSIDE_MAX 1000u

/* A dependency being worked out: the parent is a job of the same spec or one in memory. */
struct planned_edge {
    uint64_t parent_id;
    struct job *parent; /* NULL: of the same spec */
    enum spec_condition condition;
    const char *artifact; /* for SPEC_ON_ARTIFACT */
    bool implied, reads;
};

struct planned_job {
    struct spec_job spec; /* with ids in its inputs and needs */
    struct planned_edge *edges; /* in the order of the spec, one a parent */
    size_t edge_count, edge_capacity;
    struct reuse_input *contents; /* of the inputs; only with --reuse */
    struct job *reused;           /* identical and in memory; NULL: it runs */
};

struct submit_pass {
    struct core *core;
    const struct event_submit *event;
    struct arena *arena;
    struct experiment *experiment; /* NULL: new */
    uint64_t first_job_id;
    struct planned_job *jobs;
    bool *is_wanted; /* of each job: an input means the best trial of the sweep that begins here */
    struct rec_refusal *refusals;
    size_t refusal_count, refused_count;
    bool unplannable;    /* too large: not even a dry run looks at its jobs */
    const char *dataset; /* newest one looked for, and what it means */
    struct job *dataset_job;
    size_t edge_total; /* of all jobs; at most SPEC_NEEDS_MAX */
};

/* One more reason against the submit. `mark`: where what is refused was given, or submit_nowhere.
 * Texts in the pass's arena, or static. */
void submit_refuse(struct submit_pass *pass, struct spec_mark mark, const char *path,
                   const char *text);
extern const struct spec_mark submit_nowhere;
/* Whether a spec names more than SUBMIT_OUTSIDE_MAX. */
bool submit_names_too_much(const struct core *core, const struct event_submit *event,
                           struct arena *arena);
/* Fills pass->jobs. What cannot be resolved, or could never start, is refused. */
void submit_plan(struct submit_pass *pass);
/* The plan comes true and is answered. Nothing of it was refused. */
void submit_make(struct submit_pass *pass);
void submit_answer_made(struct submit_pass *pass, uint64_t first_job_id, const char *experiment,
                        bool repeated);
/* Tells what the plan would come to, refused or not. */
void submit_answer_checked(struct submit_pass *pass);

#endif
