/* secrets.h - the secrets of accounts and projects: encrypted in memory as in their tables.
 *
 * A value comes in a sealed box for the coordinators' key, is encrypted again for the database, and
 * leaves in a sealed box for the worker that starts the job. It is in clear only in between, for
 * the time of one call, in locked memory (common/net/sealed.h).
 *
 * The key of the database's values is no file of its own: it is derived from a secret CURVE key (by
 * BLAKE2b, keyed), by default the coordinators' own, which all coordinators of a cluster hold
 * anyway. Each row says which key it needs, so that a wrong one is told apart from damage. */
#ifndef ATHANOR_SHELL_SECRETS_H
#define ATHANOR_SHELL_SECRETS_H

#include "common/net/sealed.h"
#include "common/wire/wire.h"
#include "coordinator/core/effect.h"
#include "coordinator/core/event.h"

#define SECRETS_OF_OWNER_MAX 256u /* of SECRETS_MAX: nobody can take them all */
#define SECRET_KEY_ID_SIZE   17u

struct secret_owner {
    bool is_project;
    const char *name; /* of the account or project */
};

struct secrets;

/* own: whose boxes are opened. at_rest: from which the database's key is derived. Both are copied.
 * Errors: ERR_LIMIT, ERR_INVALID. */
int secrets_new(const struct keypair *own, const struct keypair *at_rest, struct secrets **out,
                struct err *err) WARN_UNUSED;
void secrets_free(struct secrets *secrets);
void secrets_clear(struct secrets *secrets); /* before a term loads them anew */
void secrets_load(struct secrets *secrets, const struct row_secret *row);
void secrets_load_shared(struct secrets *secrets, const struct row_project_secret *row);
const char *secrets_key_id(const struct secrets *secrets);

struct secret_change {
    struct secret_owner owner;
    const char *name;
    const char *by; /* the account that asks */
    uint64_t wall_us;
};

/* Sets a value, in memory and as a row for the next batch. Errors: ERR_INVALID (name, empty value),
 * ERR_PROTOCOL (the box), ERR_LIMIT. */
int secrets_set(struct secrets *secrets, const struct secret_change *change,
                const struct wire_bytes *box, struct effects *effects, struct err *err) WARN_UNUSED;
/* Errors: ERR_NOT_FOUND. */
int secrets_remove(struct secrets *secrets, const struct secret_change *change,
                   struct effects *effects, struct err *err) WARN_UNUSED;

size_t secrets_count(const struct secrets *secrets, struct secret_owner owner);
/* The names of an account's secrets, then those of the projects (sorted, each once); in arena,
 * sorted as the core wants them. */
size_t secrets_names(const struct secrets *secrets, const char *account,
                     const char *const *projects, size_t project_count, struct arena *arena,
                     const struct secret_name **out);
/* Appends a value as a box for public_key: the account's own or, where it has none of that name,
 * the project's ("": of no project). Errors: ERR_NOT_FOUND; ERR_DENIED: it was encrypted with
 * another key, is damaged or another's; ERR_INVALID (public_key). */
int secrets_give(const struct secrets *secrets, const char *account, const char *project,
                 const char *name, const char *public_key, struct buf *out,
                 struct err *err) WARN_UNUSED;

#endif
