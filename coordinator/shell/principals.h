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
/* Ends the keys of a name and the tokens for it, or the one key when public_key is not "".
 * *out_count: how many.
 * Errors: ERR_NOT_FOUND. */
int principals_revoke(struct principals *principals, const char *name, const char *public_key,
                      uint64_t wall_us, struct effects *effects, size_t *out_count,
                      struct err *err) WARN_UNUSED;

/* ---- one-time tokens: principals whose key pair is good for enrolling one key ---------------- */

#define TOKEN_TTL_MIN_MS  1000u
#define TOKEN_TTL_MAX_MS  (30ull * 86400 * 1000)
#define TOKEN_REMEMBER_MS (86400ull * 1000) /* after it expired: its holder is told so */
#define TOKENS_MAX        4096u             /* a pilot's 1,000 nodes, enrolled four times a day */
#define TOKEN_NAME_SIZE   24u

struct token_wanted {
    const char *name; /* whom it enrols; "": whoever has it chooses a name that is not taken */
    const char *role; /* of that principal */
    const char *public_key;
    uint64_t ttl_ms;
};

/* Adds a token, in memory and as a row; out_name is how it is listed and revoked. Errors:
 * ERR_INVALID, ERR_EXISTS (the key), ERR_LIMIT. */
int principals_token(struct principals *principals, const struct token_wanted *wanted,
                     uint64_t wall_us, struct effects *effects, char out_name[TOKEN_NAME_SIZE],
                     struct err *err) WARN_UNUSED;
struct token_use {
    const char *token_key, *public_key; /* the token's, and the one to enrol */
    const char *name;                   /* demanded; "": as the token says, */
    const char *otherwise;              /*     or this where it says nothing */
};

/* Enrols a key by a token. The same key may come again, also later than the token lived: an answer
 * may get lost. *out_name: as long as the key is enrolled.
 * Errors: ERR_DENIED (used, expired, another name), ERR_EXISTS (name or key), ERR_INVALID. */
int principals_use_token(struct principals *principals, const struct token_use *use,
                         uint64_t wall_us, struct effects *effects, const char **out_name,
                         enum role *out_role, struct err *err) WARN_UNUSED;
/* Whether all keys of the name, if there are any, are workers'. */
bool principals_are_workers(const struct principals *principals, const char *name);

/* Lines of NAME ROLE KEY; a line that starts with '#' is a comment. Errors: ERR_INVALID with the
 * line's number. */
int principals_read_file(struct principals *principals, const char *path, uint64_t wall_us,
                         struct effects *effects, struct err *err) WARN_UNUSED;

#endif
