/* field.h - the one description of a spec's fields. Internal.
 *
 * A row says where a field may stand, what it accepts, its default, where its value goes in
 * struct spec_job and under which name in the JSON, and its help. Reading YAML, writing and
 * reading JSON, error messages and `--help` all walk this table (fields.def.c lists it). */
#ifndef ATHANOR_SPEC_FIELD_H
#define ATHANOR_SPEC_FIELD_H

#include "common/base/buf.h"
#include "common/base/json_tree.h"
#include "common/spec/reader.h"

#include <jansson.h>

enum field_type {
    FIELD_COUNT = 1, /* uint32_t */
    FIELD_STEPS,     /* uint64_t */
    FIELD_INT,       /* int32_t */
    FIELD_FLAG,      /* bool */
    FIELD_DURATION,  /* uint64_t, milliseconds; "none" is 0 where min > 0 */
    FIELD_SIZE,      /* uint64_t, bytes */
    FIELD_FACTOR,    /* uint32_t, thousandths */
    FIELD_REAL,      /* double, finite; "none" is NAN */
    FIELD_TEXT,      /* const char *; max: its bytes */
    FIELD_NAME,      /* const char *; spec_name_is_valid */
    FIELD_CHOICE,    /* enum, from 1 in the order of `choices` */
    FIELD_CUSTOM,    /* `read` does it */
};

/* Where a field may stand. No scope: only in the JSON. */
enum field_scope {
    SCOPE_SINGLE = 1,   /* top of a spec of one job */
    SCOPE_PIPELINE = 2, /* top of a spec with `jobs:` */
    SCOPE_JOB = 4,      /* below jobs.NAME */
    SCOPE_DEFAULTS = 8, /* below `defaults:` */
};

#define FIELD_ROWS_MAX 96

/* One job as written, before arrays are expanded. */
struct draft {
    struct spec_job job;
    const struct node *node;  /* its mapping */
    const struct node *given[FIELD_ROWS_MAX]; /* value of each row, NULL: not written */
    const struct node **need_nodes; /* where each of job.needs was written */
    struct place place;       /* jobs.NAME, or the document */
    bool is_document;         /* then the place is not used */
    const struct catalogue_recipe *recipe;
    uint32_t first_index;     /* of its jobs in the spec; job.array_count of them, or one */
    bool failed;              /* an error was found: later checks skip it */
};

struct field {
    const char *path;    /* "resources.memory" */
    enum field_type type;
    unsigned scopes;
    size_t offset;       /* in struct spec_job */
    int64_t min, max;    /* inclusive */
    const char *initial; /* as YAML; NULL: none */
    const char *choices; /* FIELD_CHOICE: "wait|replace" */
    const char *json;    /* "resources.memory_bytes"; NULL: not written by the table */
    const char *absent;  /* what JSON of earlier versions, which lack it, means; NULL: required */
    bool late;           /* younger than the JSON: stands there only when it is not its default
                            (`initial`, else 0), so that jobs of older versions can be read */
    const char *form;    /* FIELD_CUSTOM: what is accepted, for messages and help */
    const char *help;
    void (*read)(struct reader *reader, const struct node *node, const struct place *place,
                 struct draft *draft);
};

extern const struct field fields[];
extern const size_t field_count;

/* Index of the row with this path (CHECK). */
size_t field_index(const char *path);
/* What the row accepts: "a whole number from 1 to 64"; in arena. */
const char *field_accepts(struct arena *arena, const struct field *field);
/* Fills in the defaults of every row. */
void fields_init(struct reader *reader, struct draft *draft);
/* Reads the mapping's fields into the draft; place NULL at the document. */
void fields_read(struct reader *reader, const struct node *map, const struct place *place,
                 enum field_scope scope, struct draft *draft);
/* The table's part of the JSON. Texts stay those of the tree. */
void fields_to_json(const struct spec_job *job, json_t *object);
int fields_from_json(const struct json_tree *object, struct arena *arena, struct spec_job *job,
                     struct err *err) WARN_UNUSED;

/* The draft's own place, for errors about it as a whole. */
const struct place *draft_place(const struct draft *draft);
bool draft_gives(const struct draft *draft, const char *path);
const struct node *draft_given(const struct draft *draft, const char *path);

/* ---- custom.c: fields with a form of their own -------------------------------------------- */

typedef void field_read(struct reader *reader, const struct node *node, const struct place *place,
                        struct draft *draft);
field_read read_version, read_nodes, read_constraint, read_causes, read_every, read_keep,
    read_inputs, read_needs, read_outputs, read_command, read_env, read_secrets, read_array,
    read_elsewhere, read_snapshot, read_cwd, read_notify;
/* The folder of code.snapshot as an absolute path without a slash at its end; in arena. */
const char *snapshot_folder(struct arena *arena, const char *text, const char *folder);

/* Addresses of notify, which the table takes for any text. */
void notify_check(struct reader *reader, const struct draft *draft);

/* ---- params.c ----------------------------------------------------------------------------- */

/* Checks kind, recipe, inputs and params against the catalogue and completes job.params. */
void draft_check(struct reader *reader, struct draft *draft);

/* A node as JSON, scalars by YAML's core schema. Recurses at most NODE_DEPTH_MAX deep. */
void node_put_json(struct reader *reader, struct buf *out, const struct node *node,
                   const struct place *place);

/* ---- sweep.c ------------------------------------------------------------------------------ */

struct sweep_plan;
/* Reads `sweep:` into *out, all but its name and first_job; in arena. NULL after refusing. */
struct sweep_plan *sweep_read(struct reader *reader, const struct node *node,
                              const struct place *place, struct spec_sweep *out);
/* The mapping of a trial: a copy of the job's with the trial's values; also notes them in
 * out->params[trial]. */
struct node *sweep_trial(struct sweep_plan *plan, struct node *job, uint32_t trial);

/* ---- graph.c ------------------------------------------------------------------------------ */

/* Resolves needs and references among the drafts, refuses cycles, sets first_index and expands
 * into spec->jobs. Only expands when no error was found so far. first_job of spec->sweeps is the
 * index of a draft before, of a job after. */
void graph_expand(struct reader *reader, struct draft *drafts, size_t draft_count,
                  struct spec *spec);

#endif
