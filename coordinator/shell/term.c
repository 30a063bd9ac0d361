/* term.c - one term of leadership: rows into memory, service, end.
 *
 * Begins with the lease just taken and ends in one of three ways (enum term_end). Everything that
 * was decided and not committed is forgotten at its end; whoever waits for it asks again. */
#include "coordinator/shell/shell.h"
#include "coordinator/shell/courier.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/net/notify.h"
#include "coordinator/store/loader.h"

#define MAINTAIN_MS       86400000u
#define MAINTAIN_RETRY_MS 600000u
#define COLLECT_MS        3600000u /* between looks for what nothing needs any more */

/* ---- what is loaded ------------------------------------------------------------------------- */

/* Loading a million jobs takes longer than the lease, which may be lost meanwhile. */
static bool on_pause(void *user)
{
    struct shell *shell = user;

    shell_mind_tenure(shell);
    notify_alive();
    return shell->leads;
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
    uint64_t from_ms = clock_steady_ms();

    shell->core = core_new(&config);
    if (loader_load(options->db, shell->core, clock_steady_ms(), clock_wall_us(), on_pause, shell,
                    &counts, &shell->wake_at_ms, err) < 0)
        return -1;
    shell->catalogue = catalogue_new();
    if (loader_catalogue(options->db, shell->catalogue, err) < 0)
        return -1;
    log_info("loaded in %llu ms: live jobs %zu, attempts %zu, workers %zu, recipes %zu",
             (unsigned long long)(clock_steady_ms() - from_ms), counts.jobs, counts.attempts,
             counts.workers, shell->catalogue->count);
    return 0;
}

/* ---- callbacks ------------------------------------------------------------------------------ */

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

    shell_mind_tenure(shell);
    shell_tick(shell);
    shell_commit(shell);
    shell_pump(shell);
    if (shell->stopping && shell_pending_batch(shell) == 0)
        shell_end_term(shell, TERM_ASKED);
}

static void on_wake(void *user)
{
    (void)user; /* the loop is awake: on_idle follows and ticks */
}

static void on_pg_timer(void *user)
{
    shell_pump(user);
}

static void on_tenure(void *user)
{
    shell_mind_tenure(user);
}

static void on_maintain(void *user)
{
    struct shell *shell = user;
    struct err err;

    if (!shell_leads(shell)) {
        loop_timer_start(shell->loop, &shell->maintain_timer, MAINTAIN_RETRY_MS);
        return;
    }
    if (reader_maintain(shell->reader, shell->options->keep_ms, &err) < 0)
        on_maintained(shell, &err);
    shell_pump(shell);
}

static void on_collect(void *user)
{
    struct shell *shell = user;

    if (shell_leads(shell))
        parked_collect(shell, NULL, 0, NULL);
    loop_timer_start(shell->loop, &shell->collect_timer, COLLECT_MS);
    shell_pump(shell);
}

static void on_end_timer(void *user)
{
    struct shell *shell = user;

    log_warn("ending with decisions that PostgreSQL has not taken: they will be made again");
    shell_end_term(shell, TERM_ASKED);
}

/* ---- beginning and ending ------------------------------------------------------------------- */

static struct loop_timer *timer_at(struct shell *shell, size_t index, loop_timer_fn **out_fire)
{
    const struct {
        struct loop_timer *timer;
        loop_timer_fn *fire;
    } timers[] = {
        {&shell->wake_timer, on_wake},         {&shell->tenure_timer, on_tenure},
        {&shell->pg_timer, on_pg_timer},       {&shell->commit_timer, on_pg_timer},
        {&shell->maintain_timer, on_maintain}, {&shell->collect_timer, on_collect},
        {&shell->end_timer, on_end_timer},     {&shell->exec_timer, exec_timer_fired},
    };

    if (index == ARRAY_COUNT(timers))
        return NULL;
    *out_fire = timers[index].fire;
    return timers[index].timer;
}

void term_init(struct shell *shell)
{
    struct loop_timer *timer;
    loop_timer_fn *fire;

    for (size_t i = 0; (timer = timer_at(shell, i, &fire)); i++) {
        timer->fire = fire;
        timer->user = shell;
    }
    shell->writer_watch.fd = -1;
    for (size_t i = 0; i < READER_LANES; i++)
        shell->lane_watches[i].fd = -1;
}

static void term_open(struct shell *shell)
{
    const struct reader_events events = {.user = shell,
                                         .on_table = on_table,
                                         .on_found = on_found,
                                         .on_maintained = on_maintained,
                                         .on_closing = on_closing};

    shell->writer = writer_open(shell->options->db, &shell->lease);
    shell->reader = reader_open(shell->options->db, &events);
    loop_set_idle(shell->loop, on_idle, shell);
    shell->dirty = true; /* a first TICK, which also starts the timer of the next */
    shell->paused = shell->suspended = shell->writer_down = false;
    shell->end = TERM_FAILED;
    loop_timer_start(shell->loop, &shell->maintain_timer, MAINTAIN_MS);
    loop_timer_start(shell->loop, &shell->collect_timer, COLLECT_MS);
    server_lead(shell->server, shell->lease.epoch);
    server_pause(shell->server, false);
    shell_mind_tenure(shell);
}

static void watch_end(struct pg_watch *watch)
{
    loop_remove(watch->watch);
    *watch = (struct pg_watch){.fd = -1};
}

static void term_close(struct shell *shell)
{
    struct loop_timer *timer;
    loop_timer_fn *fire;

    shell->leads = false;
    server_stand_by(shell->server, "this coordinator no longer leads", "");
    courier_stop(shell->courier);
    shell->courier = NULL;
    loop_set_idle(shell->loop, NULL, NULL);
    for (size_t i = 0; (timer = timer_at(shell, i, &fire)); i++)
        loop_timer_stop(timer);
    for (size_t i = 0; i < READER_LANES; i++)
        watch_end(&shell->lane_watches[i]);
    watch_end(&shell->writer_watch);
    reader_close(shell->reader);
    writer_close(shell->writer);
    parked_free(shell);
    answer_free(shell);
    execs_free(shell);
    recipes_free(shell);
    catalogue_free(shell->catalogue);
    core_free(shell->core);
    outbox_done(&shell->outbox);
    shell->reader = NULL;
    shell->writer = NULL;
    shell->catalogue = NULL;
    shell->core = NULL;
    server_pause(shell->server, false);
}

/* The lease went away before anything was served, or the database did: not our failure. */
static bool is_passing(const struct shell *shell, const struct err *err)
{
    return !shell->leads || err->kind == ERR_CLOSED || err->kind == ERR_STALE ||
           err->kind == ERR_TIMEOUT;
}

static int start_courier(struct shell *shell, struct err *err)
{
    const struct options *options = shell->options;
    struct courier_config config = {.db = options->db,
                                    .cluster_id = shell->cluster_id,
                                    .secret_file = options->notify_secret,
                                    .allowed = options->notify_allow,
                                    .allowed_count = options->notify_allow_count,
                                    .mail_command = options->mail_command,
                                    .mail_from = options->mail_from};

    return courier_start(&config, &shell->courier, err);
}

static enum term_end term_lead(struct shell *shell, struct err *err)
{
    uint64_t epoch = shell->lease.epoch;

    if (loader_prepare_history(shell->options->db, err) < 0 ||
        principals_refresh(shell, outbox_filling(&shell->outbox), err) < 0 ||
        secrets_refresh(shell, err) < 0 ||
        load_core(shell, err) < 0) {
        if (!is_passing(shell, err))
            return TERM_FAILED;
        log_warn("cannot lead epoch %llu: %s", (unsigned long long)epoch, err->text);
        return TERM_LEASE_LOST;
    }
    if (start_courier(shell, err) < 0)
        return TERM_FAILED;
    term_open(shell);
    if (!shell->leads) /* it passed on while we loaded; loop_run would not know of it */
        return TERM_LEASE_LOST;
    for (size_t i = 0; i < shell->options->listen_count; i++)
        log_info("leading epoch %llu, listening on %s", (unsigned long long)epoch,
                 server_endpoint(shell->server, i));
    notify_status("leading epoch %llu", (unsigned long long)epoch);
    notify_ready();
    return loop_run(shell->loop, err) < 0 ? TERM_FAILED : shell->end;
}

enum term_end term_serve(struct shell *shell, struct err *err)
{
    enum term_end end;

    outbox_init(&shell->outbox);
    shell->suspended = shell->release_due = false;
    loop_timer_stop(&shell->keeper_timer);
    watch_end(&shell->keeper_watch);
    shell->pulse = pulse_start(shell->keeper);
    shell->leads = true;
    end = term_lead(shell, err);
    term_close(shell);
    pulse_stop(shell->pulse);
    shell->pulse = NULL;
    return end;
}
