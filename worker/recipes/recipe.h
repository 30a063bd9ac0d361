/* recipe.h - a method as one struct: what it accepts, and how one step of it goes.
 *
 * A recipe is a file worker/recipes/<kind>/<name>.c whose last lines are
 *     const struct recipe recipe_<kind>_<name> = { ... };
 * plus one line in recipes.def. The parameter table is its only description: it
 * validates specs at submit, prints `athanor recipes NAME` and fills the catalogue.
 *
 * Life, on every rank (run.c): open, load (only when resuming), then step until
 * run->step == run->step_count, with save at checkpoints and once at the end, close.
 * All ranks call all of it in the same order, so that a recipe may use run->comm inside;
 * a failure on one rank ends the run on all. Recipes include the engine and common/base,
 * never MPI or BLAS. Results must depend on the spec alone, not on the number of ranks
 * (beyond summation order), the clock or anything unseeded. */
#ifndef ATHANOR_RECIPE_H
#define ATHANOR_RECIPE_H

#include "common/base/err.h"

struct comm;              /* worker/engine/comm.h */
struct checkpoint_writer; /* worker/engine/io/checkpoint.h */
struct checkpoint_reader;
struct run;

enum recipe_kind {
    RECIPE_DATA = 1,
    RECIPE_PRETRAINING,
    RECIPE_FINETUNING,
    RECIPE_DISTILLATION,
    RECIPE_UNLEARNING,
    RECIPE_EVAL,
    RECIPE_KIND_END,
};

enum param_type {
    PARAM_INT = 1,
    PARAM_FLOAT,
    PARAM_BOOL,
    PARAM_STRING,
    PARAM_CHOICE, /* a string out of `choices` */
    PARAM_LIST,   /* of strings                */
    PARAM_TYPE_END,
};

struct param {
    const char *name;
    enum param_type type;
    const char *initial; /* the default as text; NULL: the parameter is required.
                            PARAM_LIST: items separated by ';', "" is the empty list */
    double min, max;     /* inclusive, for int and float; min == max: no bounds */
    const char *choices; /* PARAM_CHOICE: "cosine|linear|constant" */
    const char *help;    /* one sentence, with the unit */
};

enum input_type { INPUT_DATASET = 1, INPUT_CHECKPOINT, INPUT_FILE, INPUT_TYPE_END };

struct input {
    const char *name;
    enum input_type type;
    bool required;
    const char *help;
};

struct recipe {
    const char *name;
    enum recipe_kind kind;
    int version; /* raised whenever the same spec gives other numbers */
    const char *summary;
    const char *source; /* paper and equation, or "Athanor" */
    const struct param *params;
    size_t param_count;
    const struct input *inputs;
    size_t input_count;
    const char *outputs; /* "checkpoint", "dataset", "metrics", joined by '|' */
    size_t state_size;   /* `state` below: zeroed, 64-byte aligned memory of this size */

    /* Checks what the table cannot, allocates, and sets run->step_count. May raise run->step to
     * what an earlier attempt has left whole as files, even past the resume point. */
    int (*open)(struct run *run, void *state, struct err *err);
    /* Restores what save wrote; run->step is set already. NULL iff save is NULL. */
    int (*load)(struct run *run, void *state, struct checkpoint_reader *reader, struct err *err);
    /* Does step number run->step + 1 (the driver counts it afterwards), or a piece of it
     * (run->pace.again), and reports metrics. */
    int (*step)(struct run *run, void *state, struct err *err);
    /* Adds this rank's share to the checkpoint. NULL: the recipe takes none. */
    int (*save)(struct run *run, void *state, struct checkpoint_writer *writer, struct err *err);
    /* Releases everything; also called after a failed open, with what it left. */
    void (*close)(struct run *run, void *state);
};

struct job; /* worker/recipes/job.h */

/* How the ranks go through steps. A recipe may set `apart` in a step, on all ranks: from the end of
 * that step on each goes through steps at its own pace, and nothing in them may wait for another
 * rank. To come together again a rank sets `ready` and `again` until the driver unsets `apart`,
 * which happens on all ranks once all are ready. A stop ends all of them where they are, in a piece
 * of a step. */
struct run_pace {
    bool apart, ready;
    bool again; /* a step sets it: this was a piece of it only, call it once more */
};

struct run_input {
    const struct input *input;
    const char *ref;  /* as the spec wrote it: "dataset:glosses/animals" */
    const char *path; /* directory or file                               */
    const char *part; /* "" unless the reference named one                */
    const char *hash; /* "" unless recorded                               */
};

/* What a recipe sees of its job. Fields are the driver's except where noted. */
struct run {
    const struct recipe *recipe;
    struct comm *comm;
    unsigned rank, rank_count;
    uint64_t step;        /* steps completed, those before the resume included */
    uint64_t data_skip;   /* batches left out after divergence: step s reads batch s + data_skip */
    uint64_t step_count;  /* steps in all; set by open */
    const char *name;     /* the job's name */
    const char *job_dir;  /* durable: checkpoints and artifacts; exists */
    const char *run_dir;  /* scratch, removed after the attempt */
    const char *phase;    /* shown with progress; a recipe may set it to a text that stays */
    struct run_pace pace;
    bool resting;         /* a recipe with `save` may set it: nothing to save now */
    const char *stage;    /* of a part of another recipe's job (stage.h): its name; else NULL */
    const struct job *job;
    struct driver *driver;
};

/* Parameters, already complete and checked against the table. The name and the type
 * must be in the recipe's table (CHECK). Texts live as long as the run. */
int64_t run_int(const struct run *run, const char *name);
double run_float(const struct run *run, const char *name);
bool run_bool(const struct run *run, const char *name);
const char *run_string(const struct run *run, const char *name); /* string and choice */
size_t run_list_count(const struct run *run, const char *name);
const char *run_list_item(const struct run *run, const char *name, size_t index);

/* The input of that name; NULL when it is optional and the spec does not give it. */
const struct run_input *run_input(const struct run *run, const char *name);

/* Records one value of this step; the last value of a name in one step wins. Call it on
 * all ranks with the same value (only rank 0 sends). A value that is not finite ends the
 * run after this step as `diverged`, naming metric and step. Kept until replaced: a
 * checkpoint carries the newest value of every metric. */
void run_metric(struct run *run, const char *name, double value);
/* The newest value of a metric of this run; only rank 0 has those that only it recorded. */
bool run_metric_newest(const struct run *run, const char *name, double *out) WARN_UNUSED;
/* Announces an artifact directory or file (rank 0 sends). meta_json: an object's text, or NULL. */
int run_artifact(struct run *run, const char *kind, const char *name, const char *path,
                 const char *meta_json, struct err *err) WARN_UNUSED;
/* An event for people. */
void run_event(struct run *run, const char *name, const char *text);
/* The same for SQL only, not for the log: there may be many. */
void run_fact(struct run *run, const char *name, const char *text);
/* The numbers of this step are none: a rewind goes back to before it. To be called on all ranks,
 * which leave together: the recipe's step must fail then. */
void run_diverged(struct run *run, uint64_t step, const char *text);
/* It cannot work with what it was given: the attempt ends as `gave_up`, with "NAME: text" as its
 * evidence, after the metrics of this step were sent. Returns -1 with that as err (ERR_LIMIT). To
 * be called on all ranks, which leave together; `return run_gave_up(...)`. */
int run_gave_up(struct run *run, struct err *err, const char *name, const char *format, ...)
    FORMAT(4, 5);
/* Waits until everything said so far is with the shepherd, artifacts accepted. */
int run_settle(struct run *run, struct err *err) WARN_UNUSED;
/* Makes folder/step-N of the state that the recipe saves (all ranks). *out_path: mem_free; the
 * same on all ranks. */
int run_save(struct run *run, void *state, const char *folder, char **out_path,
             struct err *err) WARN_UNUSED;
/* One line on stdout from rank 0: becomes part of the job's log. */
void run_note(struct run *run, const char *format, ...) FORMAT(2, 3);

#endif
