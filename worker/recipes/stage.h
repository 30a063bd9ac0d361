/* stage.h - a recipe run as one stage of another recipe's job.
 *
 * A stage is a job of its own in the folder stages/NAME of the outer one: the same code with the
 * same parameters makes the same bytes, alone or as a stage. Its metrics are NAME/METRIC.
 *
 * A parameter of the stage is, in this order: what the plan says; the outer parameter called
 * PREFIX + its name, for the prefixes of the plan in order; the outer parameter of its name and
 * type; its default. An input is what the plan says, or the outer input of its name.
 *
 * When all its steps are done, the model that it trained is saved in stages/NAME/checkpoints, and
 * done.json, which is written last, holds its steps, what it left for later stages (values) and a
 * hash of its resolved spec. An attempt that finds it passes the stage over. */
#ifndef ATHANOR_STAGE_H
#define ATHANOR_STAGE_H

#include "worker/recipes/job.h"

#include <jansson.h>

#define STAGE_PREFIXES_MAX 3
#define STAGE_VALUES_MAX   8

struct stage_plan {
    const char *name; /* of the folder; letters, digits and '-' */
    const char *kind, *recipe;
    const char *prefix[STAGE_PREFIXES_MAX]; /* NULL after the last */
    json_t *params; /* object of those that the plan decides */
    json_t *inputs; /* object of name: {"path", "ref", "part", "hash"} */
};
void stage_plan_done(struct stage_plan *plan); /* its params and inputs */
/* Adds an input; NULL texts are "". */
void stage_plan_input(struct stage_plan *plan, const char *input, const char *path,
                      const char *ref, const char *part, const char *hash);

/* What a stage left; plain memory, so that ranks can send it to each other. */
struct stage_record {
    uint64_t steps;
    double values[STAGE_VALUES_MAX];
};

struct stage {
    struct run run; /* as the stage's recipe sees it */
    struct job job;
    void *state;    /* of the stage's recipe */
    char *name, *folder;
    char key[68];   /* hash of the resolved spec */
    bool opened;
};

/* Resolves the plan. Errors: those of job_parse, naming the stage. */
int stage_resolve(struct run *outer, const struct stage_plan *plan, struct stage *stage,
                  struct err *err) WARN_UNUSED;
/* Whether an earlier attempt has done it; the same on all ranks. */
int stage_find(struct stage *stage, bool *out_done, struct stage_record *out,
               struct err *err) WARN_UNUSED;
/* Opens the recipe; stage->run.step_count is known then. Stages that cannot be told apart from the
 * outer's table (a bad input) end as the recipe does. */
int stage_open(struct stage *stage, struct err *err) WARN_UNUSED;
int stage_step(struct stage *stage, struct err *err) WARN_UNUSED;
/* After the last step, with the same record on all ranks: saves the model, says that it is done. */
int stage_finish(struct stage *stage, const struct stage_record *record,
                 struct err *err) WARN_UNUSED;
void stage_close(struct stage *stage); /* a zeroed struct is fine */

/* Folder of the model that a stage of `steps` steps has saved (mem_free). */
char *stage_model(const struct run *outer, const char *name, uint64_t steps);
/* Folder of a file or dataset below that of a stage (mem_free). */
char *stage_path(const struct run *outer, const char *name, const char *rest);

#endif
