/* spec.h - job specs: from YAML to resolved jobs, and their JSON.
 *
 * spec_read checks everything that can be checked without a database and reports all errors at
 * once, each with its place. Jobs come out complete: defaults filled, arrays expanded, needs
 * resolved within the spec. References to things outside the spec stay for the coordinator
 * (job_index == SPEC_EXTERNAL). The language itself is described by the field table (field.h)
 * and in jobspecs/README.md. No function here reads a clock, a socket or, spec_text_load
 * excepted, a file. */
#ifndef ATHANOR_SPEC_H
#define ATHANOR_SPEC_H

#include "common/base/arena.h"
#include "common/base/err.h"
#include "common/base/kinds.h"
#include "common/spec/catalogue.h"
#include "common/spec/errors.h"
#include "common/spec/ref.h"

#define SPEC_TEXT_BYTES_MAX ((size_t)1 << 20) /* one document: 10,000 jobs of 100 bytes */
#define SPEC_JOBS_MAX 10000u                  /* after expanding arrays                   */
#define SPEC_NEEDS_MAX 100000u                /* edges of one spec: 10 for each of 10,000 */
#define SPEC_TRIALS_MAX 10000u                /* of all sweeps: read one by one, 1.2 KB each */
#define SPEC_GRID_MAX 1000000u                /* points of a grid that is drawn from: 4 MB */
#define SPEC_RESOURCE_MAX 1000000000000000u   /* of a sweep: steps, tokens, ... */
#define SPEC_NAME_BYTES_MAX 100u              /* job, experiment, dataset, label          */
#define SPEC_SECRETS_MAX 32u                  /* of a job: a descriptor each in every rank */
#define SPEC_EXTERNAL UINT32_MAX

enum spec_launcher {
    SPEC_LAUNCHER_AUTO = 1,
    SPEC_LAUNCHER_FORK,
    SPEC_LAUNCHER_PMIX,
    SPEC_LAUNCHER_MPIRUN
};
enum spec_disconnect { SPEC_DISCONNECT_WAIT = 1, SPEC_DISCONNECT_REPLACE };
enum spec_condition { SPEC_ON_SUCCESS = 1, SPEC_ON_FAILURE, SPEC_ON_ANY, SPEC_ON_ARTIFACT };
enum spec_best_mode { SPEC_BEST_MIN = 1, SPEC_BEST_MAX };
enum spec_sweep_method { SPEC_SWEEP_GRID = 1, SPEC_SWEEP_RANDOM, SPEC_SWEEP_ASHA };

enum spec_diverge_then { SPEC_DIVERGE_FAIL = 1, SPEC_DIVERGE_REWIND };

enum spec_placement { SPEC_PLACEMENT_PACK = 1, SPEC_PLACEMENT_SPREAD };

struct spec_resources {
    uint32_t ranks;
    uint32_t cores, gpus;          /* per rank */
    uint64_t memory_bytes;         /* per rank */
    uint32_t nodes_min, nodes_max; /* workers that the ranks may lie on, all at once; 0: 1 */
    uint32_t ranks_per_node;       /* at most; 0: as many as fit */
    bool exclusive;                /* nobody else on those workers */
    enum spec_placement placement; /* fewest workers, or as many as allowed */
    const char *gpu_model;         /* part of the model's name; "" or NULL: any */
};

/* When a job's numbers say that going on is pointless. */
struct spec_diverge {
    const char *metric;   /* "": no rule; "*": any, against which only not being finite counts */
    double above, below;  /* bounds that are still good; NAN: none */
    bool nan;             /* not finite is bad too */
    uint32_t reports;     /* in a row that must be bad */
    enum spec_diverge_then then;
    uint64_t skip;        /* batches of data beyond the one where it diverged; after a rewind */
};

/* Who is told when the job has ended. */
enum spec_end { SPEC_END_DONE = 1, SPEC_END_FAILED = 2, SPEC_END_CANCELLED = 4 }; /* bits */
struct spec_notify {
    uint32_t on;                /* of enum spec_end */
    const char *webhook, *mail; /* "" or NULL: nobody */
};

struct spec_limits {
    uint64_t wall_time_ms;  /* 0: none */
    uint64_t stop_grace_ms;
    uint64_t stall_ms;      /* 0: none */
    uint64_t log_bytes;     /* of all attempts on all nodes; 0: LOG_BYTES_DEFAULT */
};

struct spec_retry {
    uint32_t attempts;               /* in all, the first included */
    uint32_t causes;                 /* bit SPEC_CAUSE_BIT(cause) */
    uint64_t backoff_ms, backoff_max_ms;
    uint32_t memory_factor_permille; /* memory of the next attempt after oom; 1000: the same */
    uint64_t memory_max_bytes;       /* of a rank, after that; 0: no bound */
    bool elsewhere;                  /* not on the worker where it failed, if others can take it */
};
#define SPEC_CAUSE_BIT(cause) ((uint32_t)1 << (cause))

struct spec_checkpoint {
    uint64_t every_steps, every_ms;  /* both 0: only at the end; both set: whichever is first */
    uint32_t keep_last, keep_best;
    const char *best_metric;         /* "" when keep_best is 0 */
    enum spec_best_mode best_mode;
};

/* How long what a job leaves behind stays after its end; 0: as the cluster's settings say. */
struct spec_retention {
    uint64_t checkpoints_ms, artifacts_ms;
};

/* What one label of a worker must be. A plain value names what it may be, several of them what it
 * may be one of; the others are conditions that must all hold: "!x" (not x, or no such label),
 * "*" (any value), "!*" (no such label), ">=N" ">N" "<=N" "<N" (a whole number compared so). */
struct spec_label {
    const char *name;
    const char *const *values;
    size_t value_count;
    uint32_t alternative; /* a worker must fit all labels of one alternative; from 0, gapless */
};

/* Where a value was given, for refusals that come later; all 0: nowhere, or from JSON. */
struct spec_mark {
    uint32_t line, column;
    const char *set; /* "--set PATH=VALUE", as in spec_error.file; NULL: in the file */
};

struct spec_input {
    const char *name;      /* ATHANOR_INPUT_<NAME> */
    struct spec_ref ref;
    uint32_t job_index;    /* producer in the same spec, or SPEC_EXTERNAL */
    uint64_t job_id;       /* the coordinator's, kept in the JSON; 0 while unknown */
    uint32_t trial_count;  /* of a sweep, whose best trial is meant; job_* is the first; else 0 */
    struct spec_mark mark;
};

struct spec_need {
    const char *job;       /* name, or decimal id of an earlier job */
    enum spec_condition on;
    const char *artifact;  /* its name when `on` is SPEC_ON_ARTIFACT, else "" */
    bool implied;          /* by an input, not written by the user */
    uint32_t job_index;    /* in the same spec, or SPEC_EXTERNAL */
    uint64_t job_id;       /* as for inputs */
    struct spec_mark mark;
};

struct spec_variable {
    const char *name, *value;
    struct spec_mark mark; /* of a secret */
};

/* Code that the job runs, as it was when it was submitted (common/snapshot). */
struct spec_code {
    const char *folder; /* absolute, on the submitter's machine; "": no code */
    const char *hash;   /* of the archive, in hex */
    const char *cwd;    /* where the program starts: a folder in it, "": its top, "-": not in it */
};

struct spec_job {
    const char *name, *experiment, *description;
    const char *kind, *recipe; /* recipe "" for command */
    const char *queue, *project;
    struct spec_mark queue_mark, project_mark, wall_time_mark;
    struct spec_resources resources;
    struct spec_limits limits;
    struct spec_retry retry;
    struct spec_checkpoint checkpoint;
    struct spec_retention retention;
    struct spec_diverge diverge;
    struct spec_notify notify;
    int32_t priority;          /* -1000..1000, higher first */
    bool hold;
    enum spec_disconnect on_disconnect;
    enum spec_launcher launcher;
    bool pty; /* standard output of each rank is a terminal of its own */
    const struct spec_label *constraints;
    size_t constraint_count;
    struct spec_input *inputs; /* sorted by name */
    size_t input_count;
    struct spec_need *needs;
    size_t need_count;
    const char *const *outputs; /* names of datasets it writes; a data recipe's params.name */
    size_t output_count;
    const char *params;         /* JSON object, complete with the recipe's defaults */
    const char *const *command; /* program and arguments; empty unless kind is command */
    size_t command_count;
    const struct spec_variable *env; /* sorted by name */
    size_t env_count;
    const struct spec_variable *secrets; /* name in the job -> name of the secret; sorted */
    size_t secret_count;
    struct spec_code code;
    uint32_t array_index, array_count; /* array_count 0: not of an array */
    uint32_t trial_index, trial_count; /* trial_count 0: not of a sweep */
    uint32_t at_once;                  /* of its array or sweep; 0: as many as fit */
};

/* A job of the spec that became many: jobs[first_job .. first_job + trial_count) are its trials,
 * NAME-t0, NAME-t1, ... */
struct spec_sweep {
    const char *name;
    enum spec_sweep_method method;
    const char *metric;   /* what trials are compared by; "" when none was named */
    enum spec_best_mode mode;
    const char *resource; /* "step", or the metric whose value counts; asha only, as are: */
    uint64_t min_resource, max_resource;
    uint32_t reduction;
    uint32_t at_once;     /* 0: as many as fit */
    uint64_t seed;
    uint32_t first_job, trial_count;
    const char *space;    /* JSON object: path of a field -> values or distribution */
    const char **params;  /* of each trial, JSON object: path of a field -> value */
};

struct spec {
    struct arena arena;     /* holds everything below */
    const char *name;       /* of the pipeline, or of its only job; "" when none is given */
    const char *experiment; /* of every job; "default" when none is given */
    struct spec_job *jobs;  /* in the order written, arrays expanded; parents may come later */
    size_t job_count;
    struct spec_sweep *sweeps;
    size_t sweep_count;
};

struct spec_set { /* --set path=value; the value is YAML, such as 3e-4 or [a, b] */
    const char *path, *value;
};

/* What a client has packed of a folder that a spec names. */
struct spec_snapshot {
    const char *folder; /* as spec_folders gives it */
    const char *hash;   /* in hex */
};

struct spec_source {
    const char *name;   /* of the file, for messages */
    const char *bytes;
    size_t length;
    const char *folder; /* absolute: base of relative paths; NULL refuses relative paths */
    const struct spec_set *sets;
    size_t set_count;
    const struct spec_snapshot *snapshots; /* of every folder of code that the spec names */
    size_t snapshot_count;
};

/* The folders of code that the spec names, each once, as absolute paths in arena: what is to be
 * packed before the spec is read with their hashes. A text that is no spec has none: reading it
 * says what is wrong. */
size_t spec_folders(const struct spec_source *source, struct arena *arena, const char *const **out);

/* Reads, checks and resolves. 0: *out is the caller's (spec_free) and errors is empty; -1: errors
 * holds at least one. catalogue may be empty: then only kind `command` is known. */
int spec_read(const struct spec_source *source, const struct catalogue *catalogue,
              struct spec **out, struct spec_errors *errors) WARN_UNUSED;
void spec_free(struct spec *spec);

/* Splits "path=value"; *out points into text, which is cut at the '='. ERR_INVALID. */
int spec_set_split(char *text, struct spec_set *out, struct err *err) WARN_UNUSED;

/* A whole file, or standard input for "-" (mem_free). A larger one than SPEC_TEXT_BYTES_MAX is
 * refused after reading that much. Errors: ERR_NOT_FOUND, ERR_IO, ERR_LIMIT. */
int spec_text_load(const char *path, char **out_bytes, size_t *out_length,
                   struct err *err) WARN_UNUSED;

/* The resolved job as canonical JSON (sorted keys, shortest numbers): worker/README.md without
 * ids and paths, plus what only the coordinator reads (retry, needs, priority, ...). mem_free. */
char *spec_job_json(const struct spec_job *job);
/* Rebuilds a job from spec_job_json's text, also after jsonb reordered it; all in `arena`.
 * spec_job_json of the result is the same text. Errors: ERR_PROTOCOL. */
int spec_job_from_json(const char *text, struct arena *arena, struct spec_job *out,
                       struct err *err) WARN_UNUSED;

/* What of the resolved job decides its result, as canonical JSON: without what names or schedules
 * it (name, experiment, description, priority, hold, needs, queue, project, place in an array or
 * sweep, where its code was packed) and without its inputs, which are known by their content. NULL
 * when the result also hangs on files that no hash covers: kind data, kind command without code,
 * inputs file:PATH. mem_free. */
char *spec_job_identity(const struct spec_job *job);

struct spec_place { /* where an input was found */
    const char *name, *path;
    const char *part, *hash; /* NULL when it has none */
};

struct spec_run {
    uint64_t job_id, attempt_id;
    uint64_t attempt; /* from 1 */
    const struct spec_place *places;
    size_t place_count;
};

/* ATHANOR_SPEC: the resolved job with ids, and path, part and hash in its inputs (mem_free).
 * Errors: ERR_PROTOCOL (not a resolved job); ERR_INVALID (an input without a place). */
int spec_json_complete(const char *job_json, const struct spec_run *run, char **out,
                       struct err *err) WARN_UNUSED;

/* Every field with its type, range, default and meaning, for `--help` (mem_free). */
char *spec_fields_text(void);

/* "success" "failure" "any" "artifact:NAME", as specs and rows hold it; in arena or static. */
const char *spec_condition_text(struct arena *arena, enum spec_condition on, const char *artifact);
/* And back; *out_artifact points into text, or is "". False: no condition. */
bool spec_condition_read(const char *text, enum spec_condition *out, const char **out_artifact);
extern const char *const spec_end_names[3]; /* of enum spec_end, in the order of its bits */
const char *spec_sweep_method_name(enum spec_sweep_method method); /* "grid" "random" "asha" */
bool spec_metric_is_valid(const char *name);

/* ---- constraint.c ------------------------------------------------------------------------- */

/* NULL when `value` may stand in spec_label.values, else what is wrong with it. */
const char *spec_label_fault(const char *value);
/* Whether a worker whose label of that name has this value (NULL: has no such label) fits. */
bool spec_label_holds(const struct spec_label *label, const char *value);
/* Whether a GPU of this model is meant by resources.gpu_model: contains it, in any case. */
bool spec_gpu_model_fits(const char *wanted, const char *model);

#endif
