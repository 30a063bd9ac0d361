/* serve.c - a coordinator's life: schema, keys, standing by, terms of leadership, end. */
#include "coordinator/shell/shell.h"

#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/net/notify.h"
#include "coordinator/store/loader.h"
#include "coordinator/store/migrate.h"
#include "coordinator/store/pg.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define END_WAIT_MS        5000u
#define PASSWORD_BYTES_MAX 1024u
#define START_AGAIN_MS     500u
#define START_REFUSALS_MAX 6u /* 3 s: it may have come back a moment ago, and be crowded */

/* ---- whose keys are enrolled ---------------------------------------------------------------- */

static void each_principal(void *user, const struct row_principal *row)
{
    principals_load(user, row);
}

static int enrol_admin(struct principals *principals, const char *text, struct effects *effects,
                       struct err *err)
{
    char key[KEY_TEXT_SIZE], name[128];
    const char *colon = strchr(text, ':');
    bool changed;

    if (!colon || colon == text || (size_t)(colon - text) >= sizeof name)
        return err_set(err, ERR_INVALID, "option '--admin' is '%.100s', expected NAME:FILE", text);
    memcpy(name, text, (size_t)(colon - text));
    name[colon - text] = 0;
    if (principals_has_name(principals, name))
        return 0;
    if (public_key_read(colon + 1, key, err) < 0 ||
        principals_enrol(principals, name, role_name(ROLE_ADMIN), key, clock_wall_us(), effects,
                         &changed, err) < 0)
        return err_wrap(err, "option '--admin %s'", text);
    log_debug("enrolled administrator %s", name);
    return 0;
}

static int enrol_options(struct principals *principals, const struct options *options,
                         struct effects *effects, struct err *err)
{
    for (size_t i = 0; i < options->admin_count; i++)
        if (enrol_admin(principals, options->admins[i], effects, err) < 0)
            return -1;
    return options->principals ? principals_read_file(principals, options->principals,
                                                      clock_wall_us(), effects, err)
                               : 0;
}

int principals_refresh(struct shell *shell, struct effects *effects, struct err *err)
{
    struct principals *fresh = principals_new();

    if (loader_principals(shell->options->db, each_principal, fresh, err) < 0 ||
        enrol_options(fresh, shell->options, effects, err) < 0) {
        principals_free(fresh);
        return -1;
    }
    principals_free(shell->principals);
    shell->principals = fresh;
    return 0;
}

/* Whom a standby tells who leads: as if it led, but no row is written. */
static int principals_follow(struct shell *shell, struct err *err)
{
    struct effects effects;
    int rc;

    effects_init(&effects);
    rc = principals_refresh(shell, &effects, err);
    effects_done(&effects);
    return rc;
}

/* A standby knows whom to tell who leads. The keeper has just had an answer, so this will not wait
 * for a server that is away. */
static void follow_keys(struct shell *shell, const struct keeper_leader *leader)
{
    struct err err;

    if (strcmp(shell->keys_seen, leader->keys) == 0)
        return;
    if (principals_follow(shell, &err) < 0) {
        log_warn("the enrolled keys are not read: %s", err.text);
        return;
    }
    memcpy(shell->keys_seen, leader->keys, sizeof shell->keys_seen);
}

/* ---- standing by ---------------------------------------------------------------------------- */

/* Says to peers, systemd and the log who leads, when that has changed. */
static void tell(struct shell *shell, const char *what, const char *leader)
{
    char text[sizeof shell->told];

    snprintf(text, sizeof text, "this coordinator stands by, %s", what);
    if (strcmp(text, shell->told) == 0)
        return;
    memcpy(shell->told, text, sizeof shell->told);
    log_info("standing by: %s", what);
    notify_status("standing by: %s", what);
    notify_ready();
    server_stand_by(shell->server, text, leader);
}

static void on_follows(struct shell *shell)
{
    const struct keeper_leader *leader = keeper_leader(shell->keeper);
    char what[200];

    follow_keys(shell, leader);
    if (*leader->holder)
        snprintf(what, sizeof what, "%s leads epoch %llu", leader->holder,
                 (unsigned long long)leader->epoch);
    else
        snprintf(what, sizeof what, "nobody leads now");
    tell(shell, what, leader->endpoints);
}

static void on_news(struct shell *shell, enum keeper_news news)
{
    switch (news) {
    case KEEPER_NOTHING:
        break;
    case KEEPER_FOLLOWS:
        on_follows(shell);
        break;
    case KEEPER_TAKEN:
        shell->lease = *keeper_lease(shell->keeper);
        tenure_begin(&shell->tenure, shell->lease.lease_ms, keeper_sent_ms(shell->keeper));
        shell->taken = true;
        loop_stop(shell->loop);
        break;
    case KEEPER_RENEWED: /* of the pulse, while a term lasts */
    case KEEPER_LOST:
        break;
    }
}

static void on_keeper_ready(void *user, unsigned events)
{
    (void)events;
    keeper_pump(user);
}

static void on_keeper_timer(void *user)
{
    keeper_pump(user);
}

void keeper_pump(struct shell *shell)
{
    enum keeper_news news;
    uint64_t now_ms, at_ms;

    do {
        news = keeper_step(shell->keeper, clock_steady_ms());
        on_news(shell, news);
    } while (news != KEEPER_NOTHING && !shell->taken);
    if (shell->taken)
        return; /* the pulse goes on */
    if (*keeper_trouble(shell->keeper))
        tell(shell, "without its database", "");
    watch_set(shell, &shell->keeper_watch, keeper_fd(shell->keeper),
              keeper_wants_write(shell->keeper), on_keeper_ready);
    now_ms = clock_steady_ms();
    at_ms = keeper_wake_ms(shell->keeper);
    loop_timer_start(shell->loop, &shell->keeper_timer, at_ms > now_ms ? at_ms - now_ms : 0);
}

/* 0: the lease is taken, or we were asked to end. */
static int stand_by(struct shell *shell, struct err *err)
{
    shell->taken = false;
    shell->told[0] = 0;
    shell->keys_seen[0] = 0;
    keeper_follow(shell->keeper);
    keeper_pump(shell);
    return shell->taken || shell->stopping ? 0 : loop_run(shell->loop, err);
}

/* ---- the process ---------------------------------------------------------------------------- */

static void on_signal(void *user, int signal_number)
{
    struct shell *shell = user;

    log_info("ending on %s", signal_number == SIGTERM ? "SIGTERM" : "SIGINT");
    notify_stopping();
    shell->stopping = true;
    if (shell->leads) {
        loop_timer_start(shell->loop, &shell->end_timer, END_WAIT_MS);
        shell_pump(shell);
    } else {
        loop_stop(shell->loop);
    }
}

static void on_watchdog(void *user)
{
    struct shell *shell = user;

    notify_alive();
    loop_timer_start(shell->loop, &shell->watchdog_timer, notify_watchdog_ms());
}

static bool on_principal(void *user, const char *public_key, struct server_principal *out)
{
    const struct shell *shell = user;
    const char *name = principals_find(shell->principals, public_key, &out->role);

    out->name = name;
    return name != NULL;
}

static void on_gone(void *user, uint64_t peer, const struct err *why)
{
    (void)why;
    exec_peer_gone(user, peer);
}

static bool on_may_send(void *user)
{
    return shell_leads(user);
}

/* SIGTERM waits until the loop takes it. */
static void hold_signals(void)
{
    sigset_t signals;

    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, NULL);
}

static int read_keys(const char *path, struct keypair *out, struct err *err)
{
    if (file_exists(path))
        return keypair_read(path, out, err);
    keypair_make(out);
    if (keypair_write(path, out, err) < 0)
        return -1;
    log_info("made the key pair %s", path);
    return 0;
}

/* The schema, who we are, and whose keys are enrolled: a key that is not known yet would get no
 * answer. */
static int read_database(struct shell *shell, uint64_t *out_cluster_id, struct err *err)
{
    const struct options *options = shell->options;
    size_t applied;

    if (migrate(options->db, migrations_embedded, migrations_embedded_count, &applied, err) < 0)
        return -1;
    if (applied > 0)
        log_info("applied %zu migrations", applied);
    if (options->migrate_only)
        return 0;
    if (loader_cluster_id(options->db, out_cluster_id, err) < 0)
        return -1;
    return principals_follow(shell, err);
}

/* False: we were asked to end. Nobody takes signals but us before the loop runs. */
static bool pause_start(uint64_t ms)
{
    const struct timespec time = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};
    sigset_t signals;

    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    return sigtimedwait(&signals, NULL, &time) < 0;
}

/* A database that is away is waited for, as it is later: who starts during an outage is the one to
 * lead after it. One that answers and does not let us in is no outage. */
static int await_database(struct shell *shell, uint64_t *out_cluster_id, struct err *err)
{
    char said[sizeof err->text] = "";
    unsigned refusals = 0;

    while (read_database(shell, out_cluster_id, err) < 0) {
        bool away = err->kind == ERR_CLOSED || err->kind == ERR_TIMEOUT;
        if (away && !pause_start(0)) { /* connecting takes its time, and so does what follows */
            shell->stopping = true;
            return 0;
        }
        refusals = away && !loader_is_answered(shell->options->db) ? 0 : refusals + 1;
        if (!away || shell->options->migrate_only || refusals == START_REFUSALS_MAX)
            return -1;
        if (strcmp(said, err->text) != 0)
            log_warn("waiting for the database: %s", err->text);
        memcpy(said, err->text, sizeof said);
        notify_status("waiting for the database");
        if (!pause_start(START_AGAIN_MS)) {
            shell->stopping = true;
            return 0;
        }
    }
    return 0;
}

static int open_secrets(struct shell *shell, const struct keypair *keys, struct err *err)
{
    const char *path = shell->options->secrets_key;
    struct keypair at_rest = *keys;
    int rc = path ? keypair_read(path, &at_rest, err) : 0;

    if (rc < 0)
        err_wrap(err, "option '--secrets-key'");
    else
        rc = secrets_new(keys, &at_rest, &shell->secrets, err);
    keypair_wipe(&at_rest);
    return rc;
}

/* A line; read before the first connection. */
static int read_password(const char *path, struct err *err)
{
    char *text = NULL;
    size_t length;

    if (!path)
        return 0;
    if (secret_file_check("password file", path, err) < 0 ||
        file_read(path, PASSWORD_BYTES_MAX, &text, &length, err) < 0)
        return err_wrap(err, "option '--db-password'");
    text[strcspn(text, "\r\n")] = '\0';
    int rc = text[0] ? 0 : err_set(err, ERR_INVALID, "option '--db-password': '%s' is empty", path);
    if (rc == 0)
        pg_password_set(text);
    explicit_bzero(text, length);
    mem_free(text);
    return rc;
}

static int prepare(struct shell *shell, struct keypair *keys, uint64_t *out_cluster_id,
                   struct err *err)
{
    shell->principals = principals_new();
    if (read_password(shell->options->db_password, err) < 0 ||
        await_database(shell, out_cluster_id, err) < 0)
        return -1;
    if (shell->stopping || shell->options->migrate_only)
        return 0;
    return read_keys(shell->options->key, keys, err) < 0 ? -1 : open_secrets(shell, keys, err);
}

static int open_server(struct shell *shell, const struct keypair *keys, uint64_t cluster_id,
                       struct err *err)
{
    const struct options *options = shell->options;
    struct server_config config = {.endpoints = options->listen,
                                   .endpoint_count = options->listen_count,
                                   .keys = keys,
                                   .cluster_id = cluster_id,
                                   .heartbeat_ms = options->heartbeat_ms,
                                   .queue_messages = (int)options->queue,
                                   .user = shell,
                                   .principal_find = on_principal,
                                   .on_message = intake_message,
                                   .may_send = on_may_send,
                                   .on_gone = on_gone};

    return server_open(shell->loop, &config, &shell->server, err);
}

/* Where others reach us: as told, or where we listen, with this host's name for "everywhere". */
static void add_advertised(struct buf *out, const char *endpoint)
{
    static const char *const everywhere[] = {"tcp://0.0.0.0:", "tcp://[::]:", "tcp://*:"};
    char host[256] = "localhost";

    if (out->length)
        buf_puts(out, ",");
    gethostname(host, sizeof host - 1);
    for (size_t i = 0; i < ARRAY_COUNT(everywhere); i++) {
        size_t length = strlen(everywhere[i]);
        if (strncmp(endpoint, everywhere[i], length) == 0) {
            buf_printf(out, "tcp://%s:%s", host, endpoint + length);
            return;
        }
    }
    buf_puts(out, endpoint);
}

static void open_keeper(struct shell *shell)
{
    const struct options *options = shell->options;
    struct keeper_config config = {.conninfo = options->db,
                                   .version = ATHANOR_VERSION,
                                   .program = migrations_embedded_count,
                                   .lease_ms = options->leader_ms,
                                   .by_force = options->single};
    struct buf endpoints = {0};

    for (size_t i = 0; i < options->advertise_count; i++)
        add_advertised(&endpoints, options->advertise[i]);
    for (size_t i = 0; options->advertise_count == 0 && i < options->listen_count; i++)
        add_advertised(&endpoints, server_endpoint(shell->server, i));
    config.endpoints = buf_text(&endpoints);
    shell->keeper = keeper_open(&config);
    buf_done(&endpoints);
}

static int open_process(struct shell *shell, const struct keypair *keys, uint64_t cluster_id,
                        struct err *err)
{
    shell->loop = loop_new();
    shell->cluster_id = cluster_id;
    shell->keeper_timer.fire = on_keeper_timer;
    shell->watchdog_timer.fire = on_watchdog;
    shell->keeper_timer.user = shell->watchdog_timer.user = shell;
    shell->keeper_watch.fd = -1;
    term_init(shell);
    if (loop_add_signal(shell->loop, SIGTERM, on_signal, shell, err) < 0 ||
        loop_add_signal(shell->loop, SIGINT, on_signal, shell, err) < 0 ||
        open_server(shell, keys, cluster_id, err) < 0)
        return -1;
    if (principals_count(shell->principals) == 0)
        log_warn("no key is enrolled: nobody can talk to this coordinator, see --admin");
    open_keeper(shell);
    if (notify_watchdog_ms())
        loop_timer_start(shell->loop, &shell->watchdog_timer, notify_watchdog_ms());
    return 0;
}

static void close_process(struct shell *shell)
{
    loop_remove(shell->keeper_watch.watch);
    server_close(shell->server);
    keeper_close(shell->keeper);
    principals_free(shell->principals);
    secrets_free(shell->secrets);
    pg_password_set(NULL);
    if (shell->loop)
        loop_free(shell->loop);
}

/* Stands by and leads by turns, until told to end. */
static int live(struct shell *shell, struct err *err)
{
    for (;;) {
        if (stand_by(shell, err) < 0)
            return -1;
        if (!shell->taken)
            return 0;
        switch (term_serve(shell, err)) {
        case TERM_ASKED:
            return 0;
        case TERM_FAILED:
            return -1;
        case TERM_LEASE_LOST:
            break;
        }
        if (shell->stopping)
            return 0;
        if (shell->options->single) {
            shell->exit_code = EXIT_FENCED;
            return 0;
        }
    }
}

int serve(const struct options *options)
{
    struct shell shell = {.options = options, .exit_code = EXIT_ENDED};
    struct keypair keys = {0};
    struct err err;
    uint64_t cluster_id = 0;

    hold_signals();
    if (prepare(&shell, &keys, &cluster_id, &err) < 0 ||
        (!options->migrate_only && !shell.stopping &&
         (open_process(&shell, &keys, cluster_id, &err) < 0 || live(&shell, &err) < 0))) {
        log_error("%s", err.text);
        shell.exit_code = EXIT_START;
    }
    if (shell.keeper && shell.exit_code == EXIT_ENDED &&
        lease_leave(options->db, keeper_lease(shell.keeper), &err) < 0)
        log_warn("the lease stays ours until it expires: %s", err.text);
    keypair_wipe(&keys);
    close_process(&shell);
    return shell.exit_code;
}
