/* client.h - what every verb needs: where the cluster is, the connection, how to print.
 *
 * The functions that return an exit code have printed what went wrong when it is not EXIT_DONE. */
#ifndef ATHANOR_CLIENT_CLIENT_H
#define ATHANOR_CLIENT_CLIENT_H

#include "client/cli.h"
#include "client/render/table.h"
#include "common/base/arena.h"
#include "common/net/keys.h"
#include "common/wire/wire.h"

struct loop;
struct peer;

struct client {
    struct arena arena; /* of everything, until the program ends */
    const struct verb *verb;
    const struct args *args;
    const char *home;
    struct style style; /* of stdout */
    uint64_t timeout_ms;
    struct loop *loop; /* NULL until connected */
    struct peer *peer;
    /* Set before the first request: what comes unasked, and that the session has ended. */
    void (*on_message)(void *user, const struct envelope *envelope, const struct message *message);
    void (*on_down)(void *user, const struct err *why);
    void *on_user;
};

int client_init(struct client *client, const struct args *args, struct err *err) WARN_UNUSED;
void client_done(struct client *client);

/* Where the cluster is, at most HOME_ENDPOINTS_MAX (home.h), and its key: by option, environment,
 * or the files of the home. */
int client_endpoints(struct client *client, const char **out, size_t *out_count,
                     struct err *err) WARN_UNUSED;
int client_server_key(struct client *client, char out[KEY_TEXT_SIZE], struct err *err) WARN_UNUSED;
const char *client_key_file(struct client *client); /* our own secret key's */

/* Prints "athanor VERB: text" to stderr and returns `code`. */
int client_fail(const struct client *client, enum exit_code code, const struct err *why);
int client_failf(const struct client *client, enum exit_code code, const char *format, ...)
    FORMAT(3, 4);
/* Writes everything to stdout; EXIT_LOCAL when that fails (a closed pipe is no failure). */
int client_print(const struct client *client, struct buf *out);

/* Sends a request, again when the connection breaks (but a retry), and returns its answer, which
 * must be of tag `expected`. EXIT_REFUSED for REFUSED, each refusal printed as "file:line:column:
 * path: text". */
int client_ask(struct client *client, const struct message *request, enum msg_tag expected,
               struct message *out_reply);
/* The same without printing, for polling: -1 when unreachable, with the reason in err; REFUSED is
 * an answer. The reply lives in `arena`. */
int client_try(struct client *client, const struct message *request, struct arena *arena,
               struct message *out_reply, struct err *err) WARN_UNUSED;
/* `file` names the place where a refusal gives a line but no file; may be "". */
void client_print_refusals(const char *file, const struct rec_refusal *refusals, size_t count);

/* ---- queries ------------------------------------------------------------------------------ */

/* Arguments of a QUERY or targets of a CONTROL, collected. NULL and "" values are left out. */
#define PAIRS_MAX 4096u
struct pairs {
    struct rec_name_value *items;
    size_t count, capacity;
};
void pairs_add(struct pairs *pairs, const char *name, const char *value);
void pairs_add_flag(struct pairs *pairs, const char *name, bool value); /* "true" or left out */
void pairs_done(struct pairs *pairs);

/* All rows up to `limit`, page by page, in the client's arena. */
int client_query(struct client *client, const char *name, const struct pairs *pairs, uint64_t limit,
                 struct msg_table *out);
/* One page after a cursor, in `arena`. */
int client_page(struct client *client, const char *name, const struct pairs *pairs, uint64_t limit,
                const char *after, struct arena *arena, struct msg_table *out);

/* The same for polling: -1 while the coordinator cannot be reached, with the reason in err and
 * nothing printed. */
int client_poll(struct client *client, const char *name, const struct pairs *pairs, uint64_t limit,
                struct arena *arena, struct msg_table *out, struct err *err) WARN_UNUSED;

/* The number of a job given by number, NAME or EXPERIMENT/NAME: a number is believed, a name means
 * its newest job. */
int client_job_id(struct client *client, const char *word, const char **out);

/* A reading verb in one call: queries and prints as --json, --column or a table. `none`: what to
 * say when there are no rows. */
#define OPTION_COLUMN                                                                              \
    {                                                                                              \
        "column", 0, VALUE_TEXT, "NAME", "print this column alone, one value a line", false        \
    }
int client_list(struct client *client, const char *query, const struct pairs *pairs, uint64_t limit,
                const struct heading *headings, size_t heading_count, const char *none);
/* Its second half, for verbs that change the table for people in between. */
int client_table(struct client *client, const struct msg_table *table,
                 const struct heading *headings, size_t heading_count, const char *none);
/* Whether the answer is for people: neither --json nor --column is given. */
bool client_for_people(const struct client *client);
/* For people: "RUNNING (node lost since ...)" where column node_lost_at says so. */
void client_tell_lost(struct client *client, struct msg_table *table);
/* For people: HELD in the place of the state of jobs that stand and are held. */
void client_tell_held(struct msg_table *table);

#endif
