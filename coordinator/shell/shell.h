/* shell.h - the coordinator's outside: sockets, timers, signals, transactions. It decides nothing.
 *
 *   message -> role and form checked (intake.c) -> event -> core_step -> outbox
 *   idle, or 5 ms after the first effect -> TICK -> one transaction (writer) -> outbox_release
 *
 * A process stands by (serve.c) until it gets the lease, then leads for a term (term.c) that ends
 * with the lease, an order to end, or trouble; after a lost lease it stands by again. Loop, server
 * and keeper live as long as the process, everything else of struct shell as long as the term.
 *
 * Questions are read from the database on other connections (answer.c); submits and controls that
 * speak of history wait until it has been looked up (parked.c). */
#ifndef ATHANOR_SHELL_SHELL_H
#define ATHANOR_SHELL_SHELL_H

#include "common/net/loop.h"
#include "common/net/server.h"
#include "common/spec/catalogue.h"
#include "coordinator/core/core.h"
#include "coordinator/shell/options.h"
#include "coordinator/shell/outbox.h"
#include "coordinator/shell/principals.h"
#include "coordinator/shell/pulse.h"
#include "coordinator/shell/secrets.h"
#include "coordinator/store/reader.h"
#include "coordinator/store/tenure.h"
#include "coordinator/store/writer.h"

#define COMMIT_WAIT_MS 5u /* DESIGN.md: commit when idle or after at most this */

/* Documented on the help page. */
enum exit_code {
    EXIT_ENDED = 0,
    EXIT_START = 1,
    EXIT_OPTIONS = 2,
    EXIT_FENCED = 3,
    EXIT_REFUSED = 4
};

/* How a term ended. */
enum term_end { TERM_ASKED = 1, TERM_LEASE_LOST, TERM_FAILED };

/* A libpq descriptor in the loop; it changes with each reconnect. */
struct pg_watch {
    struct loop_watch *watch;
    int fd; /* -1: none */
    unsigned events;
};

struct parked_list {
    struct parked *first, *last;
    size_t count;
};

struct texts {
    char **items; /* each mem_free */
    size_t count, capacity;
};

struct asked; /* a question under way (answer.c) */

struct shell {
    /* of the process */
    const struct options *options;
    struct loop *loop;
    struct server *server;
    struct keeper *keeper;
    struct principals *principals; /* never NULL while the server is open */
    struct secrets *secrets;       /* the same; read at the beginning of a term */
    uint64_t cluster_id;
    char keys_seen[LEASE_KEYS_SIZE];
    char told[300]; /* what was last logged of who leads */
    struct pg_watch keeper_watch;
    struct loop_timer keeper_timer, watchdog_timer;
    bool taken;    /* the lease; the loop ends, to lead */
    bool stopping; /* asked to end */
    int exit_code;

    /* of a term */
    struct lease lease;
    struct pulse *pulse; /* has the keeper meanwhile */
    struct courier *courier;
    struct tenure tenure;
    bool leads;            /* a term is under way */
    bool suspended;        /* the tenure is over, a renewal may still come */
    uint64_t suspended_ms; /* since when */
    bool release_due;      /* a batch has committed, its messages wait for the renewal */
    enum term_end end;
    struct core *core;
    struct writer *writer;
    struct reader *reader;
    struct outbox outbox;
    struct catalogue *catalogue;

    struct hash *catalogues_seen; /* texts that are part of `catalogue` already */
    size_t seen_count, seen_capacity;
    struct texts catalogues_new;    /* to be written with the next batch */
    struct texts catalogues_flying; /* in the batch under way */

    struct parked_list parked;
    struct asked *asked;
    struct exec *execs; /* programs that people run in jobs (exec.c) */
    size_t exec_count;
    uint64_t last_ticket;

    struct pg_watch writer_watch, lane_watches[READER_LANES];
    struct loop_timer wake_timer, tenure_timer, pg_timer, commit_timer, maintain_timer, end_timer,
        collect_timer, exec_timer;
    uint64_t wake_at_ms; /* as the core last asked */
    bool dirty;          /* the core has seen events since its last TICK */
    bool paused;         /* reading of sockets is suspended */
    bool writer_down;    /* said so in the log */
};

/* shell.c */
void shell_step(struct shell *shell, struct event *event); /* fills in the times */
/* Timers and placement, once for a burst of events, if they are due. */
void shell_tick(struct shell *shell);
void shell_commit(struct shell *shell); /* if there is something and it can */
/* Whether this process leads, by its own clock, at this moment. Without that nothing is sent or
 * written. */
bool shell_leads(const struct shell *shell);
/* Falls silent, resumes, or ends the term, as the tenure says. */
void shell_mind_tenure(struct shell *shell);
void shell_end_term(struct shell *shell, enum term_end end);
void watch_set(struct shell *shell, struct pg_watch *watch, int fd, bool wants_write,
               loop_ready_fn *ready);
void shell_pump(struct shell *shell); /* lets the database connections go on */
/* The number of the batch after which everything decided so far is durable; 0: it is now. */
uint64_t shell_pending_batch(const struct shell *shell);
void shell_refuse(struct shell *shell, uint64_t peer, uint64_t request_seq, const struct err *why);

/* intake.c */
void intake_message(void *user, const struct server_source *from, const struct envelope *envelope,
                    const struct message *message);

/* parked.c */
/* from NULL: because it is time; collect NULL: by what specs and settings say. */
void parked_collect(struct shell *shell, const struct server_source *from, uint64_t request_seq,
                    const struct msg_collect *collect);
void parked_submit(struct shell *shell, const struct server_source *from, uint64_t request_seq,
                   const struct msg_submit *submit);
void parked_control(struct shell *shell, const struct server_source *from, uint64_t request_seq,
                    const struct msg_control *control);
void parked_found(struct shell *shell, uint64_t ticket, const struct event_found *found,
                  const struct err *err);
void parked_committed(struct shell *shell); /* a batch has committed: lookups may go */
void parked_free(struct shell *shell);

/* answer.c */
void answer_query(struct shell *shell, const struct server_source *from, uint64_t request_seq,
                  const struct msg_query *query);
/* A chunk of an archive of code. */
void answer_code(struct shell *shell, const struct server_source *from, uint64_t request_seq,
                 const struct msg_code_get *get);
void answer_table(struct shell *shell, uint64_t ticket, const struct msg_table *table,
                  const struct err *err);
void answer_free(struct shell *shell);

/* exec.c */
void exec_open(struct shell *shell, const struct server_source *from, uint64_t request_seq,
               const struct msg_exec *exec);
/* DATA, CREDIT, RESIZE and ENDED of either side, on to the other. */
void exec_relay(struct shell *shell, const struct server_source *from,
                const struct message *message);
void exec_peer_gone(struct shell *shell, uint64_t peer);
void exec_timer_fired(void *user);
void execs_free(struct shell *shell);

/* secret.c */
int secrets_refresh(struct shell *shell, struct err *err) WARN_UNUSED;
void secret_change(struct shell *shell, const struct server_source *from, uint64_t request_seq,
                   const struct msg_secret_change *change);
void secret_get(struct shell *shell, const struct server_source *from, uint64_t request_seq,
                const struct msg_secret_get *get);

/* recipes.c */
/* Takes note of a joining worker's catalogue. Errors: ERR_PROTOCOL, ERR_LIMIT. */
int recipes_announced(struct shell *shell, const struct wire_bytes *text,
                      struct err *err) WARN_UNUSED;
void recipes_free(struct shell *shell);
void texts_free(struct texts *texts);

/* term.c */
void term_init(struct shell *shell);
/* Leads, from the rows, until the term ends. The lease was taken. err is set for TERM_FAILED. */
enum term_end term_serve(struct shell *shell, struct err *err);

/* serve.c */
/* Reads who is enrolled, and enrols whom the options name: into effects. On failure those of
 * before stay. */
int principals_refresh(struct shell *shell, struct effects *effects, struct err *err) WARN_UNUSED;
/* Lets the keeper go on; may take, renew or lose the lease. */
void keeper_pump(struct shell *shell);
/* Until a signal or trouble; returns an enum exit_code. Logs. */
int serve(const struct options *options);

#endif
