/* ref.h - what an input refers to.
 *
 *   job:NAME/checkpoint:best    best by the job's keep-best metric; NAME may be a job id
 *   job:NAME/checkpoint:last    newest complete one
 *   job:NAME/checkpoint:150     the one saved after step 150
 *   job:SWEEP/checkpoint:best   of the best trial by the sweep's metric, when all ended; or :last
 *   dataset:NAME                a dataset, all parts
 *   dataset:NAME/PART           one part of it
 *   file:PATH                   a file or folder that the worker can open */
#ifndef ATHANOR_SPEC_REF_H
#define ATHANOR_SPEC_REF_H

#include "common/base/arena.h"
#include "common/base/err.h"

enum spec_ref_kind { SPEC_REF_CHECKPOINT = 1, SPEC_REF_DATASET, SPEC_REF_FILE };
enum spec_select { SPEC_SELECT_NONE = 0, SPEC_SELECT_BEST, SPEC_SELECT_LAST, SPEC_SELECT_STEP };

struct spec_ref {
    enum spec_ref_kind kind;
    const char *text;        /* as above, complete: file paths are absolute */
    const char *name;        /* of the job (or its decimal id), dataset or path */
    const char *part;        /* of a dataset; "" for all */
    enum spec_select select; /* of checkpoints */
    uint64_t step;           /* SPEC_SELECT_STEP */
};

/* Texts of *out live in arena. folder: base of relative paths, NULL refuses them.
 * Errors: ERR_INVALID with the accepted forms. */
int spec_ref_parse(const char *text, const char *folder, struct arena *arena,
                   struct spec_ref *out, struct err *err) WARN_UNUSED;

/* Names of jobs, experiments, datasets, parts: letters, digits, '.', '_', '-', starting with a
 * letter or digit, at most SPEC_NAME_BYTES_MAX. */
bool spec_name_is_valid(const char *name);
/* True for decimal digits only: job ids, which job names therefore may not be. */
bool spec_name_is_id(const char *name);

#endif
