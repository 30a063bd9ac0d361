/* job.h - the resolved job (ATHANOR_SPEC, worker/README.md) as its recipe's table reads it. */
#ifndef ATHANOR_ENGINE_JOB_H
#define ATHANOR_ENGINE_JOB_H

#include "worker/recipes/recipe.h"

struct param_value {
    int64_t whole;
    double real;
    bool truth;
    char *text;
    char **items;
    size_t item_count;
};

struct job {
    const struct recipe *recipe;
    char *name;
    struct param_value *values; /* recipe->param_count */
    struct run_input *inputs;   /* recipe->input_count; path NULL: not given */
    uint64_t checkpoint_every_steps, checkpoint_every_ms; /* 0: not by this */
};

/* Reads a spec. Parameters that it leaves out take their defaults, so that people can write
 * small specs for standalone runs. Errors: ERR_PROTOCOL for damaged JSON; ERR_INVALID and
 * ERR_NOT_FOUND naming field, value and what is accepted. */
int job_parse(const char *json, size_t length, struct job *out, struct err *err) WARN_UNUSED;
void job_done(struct job *job);

/* The value of the parameter of that name, and its line of the table; NULL: there is none. */
const struct param_value *job_value(const struct job *job, const char *name,
                                    const struct param **out);

/* The default of a parameter that has one; a table with a bad text is our error (CHECK). */
void param_value_default(const struct param *param, struct param_value *out);
void param_value_done(struct param_value *value);

#endif
