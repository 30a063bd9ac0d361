/* principals.h - whose keys are enrolled, in memory; the rows are in table `principal`. */
#ifndef ATHANOR_SHELL_PRINCIPALS_H
#define ATHANOR_SHELL_PRINCIPALS_H

#include "common/base/err.h"
#include "common/base/kinds.h"
#include "coordinator/core/effect.h"

struct principals;

struct principals *principals_new(void);
void principals_free(struct principals *principals);
size_t principals_count(const struct principals *principals);

/* From a row that is in the database. */
void principals_load(struct principals *principals, const struct row_principal *row);
/* NULL when the key is not enrolled. *out_role is set with it. */
const char *principals_find(const struct principals *principals, const char *public_key,
                            enum role *out_role);
/* The names of all enrolled keys, in arena: sorted, each once. */
size_t principals_names(const struct principals *principals, struct arena *arena,
                        const char *const **out);
bool principals_has_name(const struct principals *principals, const char *name);

/* Enrols a key, in memory and as a row for the next batch. *out_changed: false when it was enrolled
 * just so. Errors: ERR_INVALID (name, role, key), ERR_EXISTS (the key belongs to another name). */
int principals_enrol(struct principals *principals, const char *name, const char *role,
                     const char *public_key, uint64_t wall_us, struct effects *effects,
                     bool *out_changed, struct err *err) WARN_UNUSED;
/* Ends the keys of a name, or the one key when public_key is not "". *out_count: how many.
 * Errors: ERR_NOT_FOUND. */
int principals_revoke(struct principals *principals, const char *name, const char *public_key,
                      uint64_t wall_us, struct effects *effects, size_t *out_count,
                      struct err *err) WARN_UNUSED;
/* Lines of NAME ROLE KEY; a line that starts with '#' is a comment. Errors: ERR_INVALID with the
 * line's number. */
int principals_read_file(struct principals *principals, const char *path, uint64_t wall_us,
                         struct effects *effects, struct err *err) WARN_UNUSED;

#endif
