/* serve.c - a coordinator's life: schema, lease, rows, service, end. */
#include "coordinator/shell/shell.h"

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/net/notify.h"
#include "coordinator/store/loader.h"
#include "coordinator/store/migrate.h"

#include <signal.h>
#include <string.h>
#include <time.h>

#define STANDBY_POLL_MS   250u
#define END_WAIT_MS       5000u
#define MAINTAIN_MS       86400000u
#define MAINTAIN_RETRY_MS 600000u

/* ---- becoming the leader -------------------------------------------------------------------- */

/* Sleeps, unless a signal asks to end. True: it does. */
static bool ended_while_waiting(uint64_t wait_ms)
{
    sigset_t signals;
    struct timespec wait = {.tv_sec = (time_t)(wait_ms / 1000),
                            .tv_nsec = (long)(wait_ms % 1000) * 1000000};

    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    return sigtimedwait(&signals, NULL, &wait) > 0;
}

/* SIGTERM waits until somebody takes it: here, or the loop's signalfd later. */
static void hold_signals(void)
{
    sigset_t signals;

    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, NULL);
}

/* 1: leads; 0: was asked to end; -1: trouble. */
static int wait_for_lease(struct shell *shell, struct err *err)
{
    struct lease_keeper *keeper = NULL;
    bool told = false;
    int taken = 0;

    if (lease_open(shell->options->db, shell->options->leader_ms, &keeper, err) < 0)
        return -1;
    while ((taken = lease_take(keeper, shell->options->single, &shell->lease, err)) != 1) {
        if (taken < 0)
            log_warn("cannot ask for the lease, trying again: %s", err->text);
        if (taken == 0 && !told) {
            log_info("standing by: %s leads", shell->lease.holder);
            notify_status("standing by");
            notify_ready();
            told = true;
        }
        notify_alive();
        if (ended_while_waiting(STANDBY_POLL_MS))
            break;
    }
    lease_close(keeper);
    return taken == 1;
}

/* ---- what is loaded ------------------------------------------------------------------------- */

static void each_principal(void *user, const struct row_principal *row)
{
    principals_load(user, row);
}

static int enrol_admin(struct shell *shell, const char *text, struct err *err)
{
    char key[KEY_TEXT_SIZE], name[128];
    const char *colon = strchr(text, ':');
    bool changed;

    if (!colon || colon == text || (size_t)(colon - text) >= sizeof name)
        return err_set(err, ERR_INVALID, "option '--admin' is '%.100s', expected NAME:FILE", text);
    memcpy(name, text, (size_t)(colon - text));
    name[colon - text] = 0;
    if (principals_has_name(shell->principals, name))
        return 0;
    if (public_key_read(colon + 1, key, err) < 0 ||
        principals_enrol(shell->principals, name, role_name(ROLE_ADMIN), key, clock_wall_us(),
                         outbox_filling(&shell->outbox), &changed, err) < 0)
        return err_wrap(err, "option '--admin %s'", text);
    log_info("enrolled administrator %s", name);
    return 0;
}

static int load_principals(struct shell *shell, struct err *err)
{
    const struct options *options = shell->options;

    shell->principals = principals_new();
    if (loader_principals(options->db, each_principal, shell->principals, err) < 0)
        return -1;
    for (size_t i = 0; i < options->admin_count; i++)
        if (enrol_admin(shell, options->admins[i], err) < 0)
            return -1;
    if (options->principals &&
        principals_read_file(shell->principals, options->principals, clock_wall_us(),
                             outbox_filling(&shell->outbox), err) < 0)
        return -1;
    if (principals_count(shell->principals) == 0)
        log_warn("no key is enrolled: nobody can talk to this coordinator, see --admin");
    return 0;
}

static int load_core(struct shell *shell, struct err *err)
{
    const struct options *options = shell->options;
    struct core_config config = {.epoch = shell->lease.epoch,
                                 .lease_ms = options->worker_ms,
                                 .heartbeat_ms = options->heartbeat_ms,
                                 .seed = shell->lease.cluster_id ^ shell->lease.epoch,
                                 .policy = options->policy};
    struct loader_counts counts;

    shell->core = core_new(&config);
    if (loader_load(options->db, shell->core, clock_steady_ms(), clock_wall_us(), &counts,
                    &shell->wake_at_ms, err) < 0)
        return -1;
    shell->catalogue = catalogue_new();
    if (loader_catalogue(options->db, shell->catalogue, err) < 0)
        return -1;
    log_info("loaded: live jobs %zu, attempts %zu, workers %zu, recipes %zu", counts.jobs,
             counts.attempts, counts.workers, shell->catalogue->count);
    return 0;
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

/* ---- callbacks ------------------------------------------------------------------------------ */

static bool on_principal(void *user, const char *public_key, struct server_principal *out)
{
    const struct shell *shell = user;
    const char *name = principals_find(shell->principals, public_key, &out->role);

    out->name = name;
    return name != NULL;
}

static void on_table(void *user, uint64_t ticket, const struct msg_table *table,
                     const struct err *err)
{
    answer_table(user, ticket, table, err);
}

static void on_found(void *user, uint64_t ticket, const struct event_found *found,
                     const struct err *err)
{
    parked_found(user, ticket, found, err);
}

static void on_maintained(void *user, const struct err *err)
{
    struct shell *shell = user;

    if (err)
        log_warn("partitions of history not made ahead, trying again later: %s", err->text);
    loop_timer_start(shell->loop, &shell->maintain_timer, err ? MAINTAIN_RETRY_MS : MAINTAIN_MS);
}

static void on_closing(void *user, size_t lane)
{
    struct shell *shell = user;

    loop_remove(shell->lane_watches[lane].watch);
    shell->lane_watches[lane] = (struct pg_watch){.fd = -1};
}

static void on_idle(void *user)
{
    struct shell *shell = user;

    shell_tick(shell);
    shell_commit(shell);
    shell_pump(shell);
    if (shell->stopping && shell_pending_batch(shell) == 0)
        loop_stop(shell->loop);
}

static void on_wake(void *user)
{
    (void)user; /* the loop is awake: on_idle follows and ticks */
}

static void on_pg_timer(void *user)
{
    shell_pump(user);
}

static void on_renew(void *user)
{
    struct shell *shell = user;

    loop_timer_start(shell->loop, &shell->renew_timer, shell->options->leader_ms / 3);
    shell_renew(shell);
    shell_pump(shell);
}

static void on_watchdog(void *user)
{
    struct shell *shell = user;

    notify_alive();
    loop_timer_start(shell->loop, &shell->watchdog_timer, notify_watchdog_ms());
}

static void on_maintain(void *user)
{
    struct shell *shell = user;
    struct err err;

    if (reader_maintain(shell->reader, shell->options->keep_ms, &err) < 0)
        on_maintained(shell, &err);
    shell_pump(shell);
}

static void on_end_timer(void *user)
{
    struct shell *shell = user;

    log_warn("ending with decisions that PostgreSQL has not taken: they will be made again");
    loop_stop(shell->loop);
}

static void on_signal(void *user, int signal_number)
{
    struct shell *shell = user;

    log_info("ending on %s", signal_number == SIGTERM ? "SIGTERM" : "SIGINT");
    notify_stopping();
    shell->stopping = true;
    loop_timer_start(shell->loop, &shell->end_timer, END_WAIT_MS);
    shell_pump(shell);
}

/* ---- service -------------------------------------------------------------------------------- */

static void timers_set(struct shell *shell)
{
    const struct {
        struct loop_timer *timer;
        loop_timer_fn *fire;
    } timers[] = {
        {&shell->wake_timer, on_wake},         {&shell->renew_timer, on_renew},
        {&shell->pg_timer, on_pg_timer},       {&shell->commit_timer, on_pg_timer},
        {&shell->watchdog_timer, on_watchdog}, {&shell->maintain_timer, on_maintain},
        {&shell->end_timer, on_end_timer},
    };

    for (size_t i = 0; i < ARRAY_COUNT(timers); i++) {
        timers[i].timer->fire = timers[i].fire;
        timers[i].timer->user = shell;
    }
}

static int open_server(struct shell *shell, const struct keypair *keys, struct err *err)
{
    const struct options *options = shell->options;
    struct server_config config = {.endpoints = options->listen,
                                   .endpoint_count = options->listen_count,
                                   .keys = keys,
                                   .cluster_id = shell->lease.cluster_id,
                                   .heartbeat_ms = options->heartbeat_ms,
                                   .queue_messages = (int)options->queue,
                                   .user = shell,
                                   .principal_find = on_principal,
                                   .on_message = intake_message};

    if (server_open(shell->loop, &config, &shell->server, err) < 0)
        return -1;
    server_lead(shell->server, shell->lease.epoch);
    for (size_t i = 0; i < options->listen_count; i++)
        log_info("leading epoch %llu, listening on %s", (unsigned long long)shell->lease.epoch,
                 server_endpoint(shell->server, i));
    return 0;
}

static int open_all(struct shell *shell, const struct keypair *keys, struct err *err)
{
    const struct reader_events events = {.user = shell,
                                         .on_table = on_table,
                                         .on_found = on_found,
                                         .on_maintained = on_maintained,
                                         .on_closing = on_closing};

    shell->loop = loop_new();
    timers_set(shell);
    shell->writer = writer_open(shell->options->db, &shell->lease);
    shell->reader = reader_open(shell->options->db, &events);
    if (loop_add_signal(shell->loop, SIGTERM, on_signal, shell, err) < 0 ||
        loop_add_signal(shell->loop, SIGINT, on_signal, shell, err) < 0 ||
        open_server(shell, keys, err) < 0)
        return -1;
    loop_set_idle(shell->loop, on_idle, shell);
    shell->dirty = true; /* a first TICK, which also starts the timer of the next */
    loop_timer_start(shell->loop, &shell->renew_timer, 0);
    loop_timer_start(shell->loop, &shell->maintain_timer, MAINTAIN_MS);
    if (notify_watchdog_ms())
        loop_timer_start(shell->loop, &shell->watchdog_timer, notify_watchdog_ms());
    return 0;
}

static void close_all(struct shell *shell)
{
    for (size_t i = 0; i < READER_LANES; i++)
        loop_remove(shell->lane_watches[i].watch);
    loop_remove(shell->writer_watch.watch);
    for (size_t i = 0; i < READER_LANES; i++)
        shell->lane_watches[i] = (struct pg_watch){.fd = -1};
    server_close(shell->server);
    reader_close(shell->reader);
    writer_close(shell->writer);
    parked_free(shell);
    answer_free(shell);
    recipes_free(shell);
    catalogue_free(shell->catalogue);
    core_free(shell->core);
    principals_free(shell->principals);
    outbox_done(&shell->outbox);
    if (shell->loop)
        loop_free(shell->loop);
}

static int lead(struct shell *shell, const struct keypair *keys, struct err *err)
{
    if (loader_prepare_history(shell->options->db, err) < 0 || load_principals(shell, err) < 0 ||
        load_core(shell, err) < 0 || open_all(shell, keys, err) < 0)
        return -1;
    notify_status("leading epoch %llu", (unsigned long long)shell->lease.epoch);
    notify_ready();
    if (loop_run(shell->loop, err) < 0)
        return -1;
    return 0;
}

static int prepare(const struct options *options, struct keypair *keys, struct err *err)
{
    size_t applied;

    if (migrate(options->db, migrations_embedded, migrations_embedded_count, &applied, err) < 0)
        return -1;
    if (applied > 0)
        log_info("applied %zu migrations", applied);
    return options->migrate_only ? 0 : read_keys(options->key, keys, err);
}

int serve(const struct options *options)
{
    struct shell shell = {.options = options, .exit_code = EXIT_ENDED};
    struct keypair keys = {0};
    struct err err;
    int leads;

    hold_signals();
    outbox_init(&shell.outbox);
    shell.writer_watch.fd = -1;
    for (size_t i = 0; i < READER_LANES; i++)
        shell.lane_watches[i].fd = -1;
    if (prepare(options, &keys, &err) < 0)
        goto failed;
    if (options->migrate_only)
        goto out;
    leads = wait_for_lease(&shell, &err);
    if (leads < 0)
        goto failed;
    if (leads == 0)
        goto out;
    if (lead(&shell, &keys, &err) < 0)
        goto failed;
    if (shell.exit_code == EXIT_ENDED && lease_release(options->db, &shell.lease, &err) < 0)
        log_warn("the lease stays ours until it expires: %s", err.text);
    goto out;
failed:
    log_error("%s", err.text);
    shell.exit_code = EXIT_START;
out:
    keypair_wipe(&keys);
    close_all(&shell);
    return shell.exit_code;
}
