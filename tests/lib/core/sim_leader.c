/* sim_leader.c - coordinators: standbys, the shell's part of the leader, and their deaths. */
#include "tests/lib/core/sim_inner.h"

#include <string.h>

/* Peers tell worker and session, as the shell's tokens tell connections. People are peer 1. */
static uint64_t peer_of(uint32_t worker, uint64_t session)
{
    return (uint64_t)(worker + 1) << 32 | session;
}

void coordinator_init(struct sim *sim, uint32_t index)
{
    struct sim_coordinator *coordinator = &sim->coordinators[index];
    coordinator->index = index;
    coordinator->role = SIM_STANDBY;
    coordinator->config = sim->config;
    effects_init(&coordinator->sets[0]);
    effects_init(&coordinator->sets[1]);
}

void coordinator_done(struct sim_coordinator *coordinator)
{
    core_free(coordinator->core);
    effects_done(&coordinator->sets[0]);
    effects_done(&coordinator->sets[1]);
    mem_free(coordinator->parked);
}

struct effects *coordinator_flying(struct sim_coordinator *coordinator)
{
    return &coordinator->sets[1 - coordinator->filling];
}

static struct effects *filling(struct sim_coordinator *coordinator)
{
    return &coordinator->sets[coordinator->filling];
}

static bool filling_is_empty(const struct sim_coordinator *coordinator)
{
    const struct effects *effects = &coordinator->sets[coordinator->filling];
    return effects->persist_count == 0 && effects->release_count == 0;
}

bool coordinator_is_quiet(const struct sim_coordinator *coordinator)
{
    return coordinator->transaction.phase == SIM_IDLE && filling_is_empty(coordinator) &&
           coordinator->parked_count == 0;
}

struct sim_coordinator *coordinator_true(struct sim *sim)
{
    for (uint32_t i = 0; i < sim->swarm.coordinators; i++)
        if (sim->coordinators[i].role == SIM_LEADING &&
            sim->coordinators[i].config.epoch == sim->database.epoch)
            return &sim->coordinators[i];
    return NULL;
}

/* ---- life and death ---------------------------------------------------------------------- */

/* From the committed rows, under the next epoch. */
static void lead(struct sim *sim, struct sim_coordinator *coordinator)
{
    uint64_t now_ms = clock_ms(sim, &coordinator->clock);
    coordinator->role = SIM_LEADING;
    coordinator->core = memory_db_load(sim->database.rows, &coordinator->config, now_ms,
                                       clock_us(sim, &coordinator->clock), &coordinator->wake_ms);
    coordinator->begun_ms = now_ms;
    coordinator->lease_until_ms = now_ms + sim->swarm.leader_ms * 9 / 10;
    memset(coordinator->sessions, 0, sizeof coordinator->sessions);
    trace_line(sim, "c%u leads, epoch %llu", coordinator->index,
               (unsigned long long)coordinator->config.epoch);
}

/* What was not committed is gone, and so is what was not released. When the host stays, peers
 * see their sessions break at once; when it goes, they find out by silence. */
static void die(struct sim *sim, struct sim_coordinator *coordinator, const char *why)
{
    bool host_stays = rng_below(&sim->rng, 2);
    trace_line(sim, "c%u dies: %s", coordinator->index, why);
    database_orphan(sim, coordinator);
    core_free(coordinator->core);
    coordinator->core = NULL;
    coordinator->role = SIM_DOWN;
    coordinator->parked_count = 0;
    coordinator->paused_until_ms = 0;
    effects_reset(&coordinator->sets[0]);
    effects_reset(&coordinator->sets[1]);
    coordinator->up_ms = sim->now_ms + rng_below(&sim->rng, 800);
    for (uint32_t i = 0; host_stays && i < sim->swarm.workers; i++)
        if (sim->workers[i].target == coordinator->index)
            worker_cut(sim, &sim->workers[i]);
}

/* ---- steps ------------------------------------------------------------------------------- */

static void checks_after_step(struct sim *sim, const struct core *core)
{
    struct core_counts counts;
    if (sim->options.bug)
        return; /* the judge outside must find it */
    const char *broken = core_check(core, true, &sim->arena);
    if (broken)
        sim_violation(sim, "%s", broken);
    core_counts(core, &counts);
    if (counts.placements_refused)
        sim_violation(sim, "the core refused a placement of policy %s", sim->config.policy);
}

/* Nothing is placed on a node that is drained, in quarantine, or says that it is ill. */
static void placements_check(struct sim *sim, const struct core *core,
                             const struct effects *effects, size_t from)
{
    struct core_worker_view view;
    for (size_t i = from; i < effects->persist_count; i++) {
        const struct persist *persist = &effects->persist[i];
        if (persist->table != ROW_TABLE_attempt || persist->op != PERSIST_INSERT)
            continue;
        const struct row_attempt *row = persist->row;
        for (size_t k = 0; core_worker_at(core, k, &view); k++)
            if (view.worker_id == row->worker_id && (view.drained || view.kept_away))
                sim_violation(sim, "attempt %llu is placed on %s, which is kept from work",
                              (unsigned long long)row->attempt_id, view.name);
    }
}

static void step(struct sim *sim, struct sim_coordinator *coordinator, struct event *event)
{
    static const char *const names[] = {"",          "tick",  "submit",  "control",  "join",
                                        "heartbeat", "leave", "reports", "configure",
                                        "node report"};
    struct effects *effects = filling(coordinator);
    size_t rows = effects->persist_count, messages = effects->release_count;
    event->now_ms = clock_ms(sim, &coordinator->clock);
    event->wall_us = clock_us(sim, &coordinator->clock);
    trace_line(sim, "c%u %s", coordinator->index,
               event->kind < ARRAY_COUNT(names) ? names[event->kind] : "event");
    bug_before_step(sim, coordinator->core, event);
    core_step(coordinator->core, event, effects);
    bug_after_step(sim, coordinator->core, event);
    coordinator->wake_ms = effects->wake_at_ms;
    coordinator->dirty = event->kind != EVENT_TICK;
    sim->result->steps++;
    trace_effects(sim, coordinator->index, effects, rows, messages);
    checks_after_step(sim, coordinator->core);
    placements_check(sim, coordinator->core, effects, rows);
}

void coordinator_on_packet(struct sim *sim, struct sim_coordinator *coordinator,
                           const struct sim_packet *packet, const struct message *message)
{
    uint32_t index = packet->from - SIM_AT_WORKER;
    uint64_t *newest = &coordinator->sessions[index];
    if (coordinator->role != SIM_LEADING) { /* nobody listens there: the connection is refused */
        struct sim_worker *worker = &sim->workers[index];
        if (worker->session == packet->session && worker->target == coordinator->index)
            worker_cut(sim, worker);
        return;
    }
    if (packet->session < *newest)
        return; /* the shell drops frames of sessions that were succeeded */
    if (packet->epoch > coordinator->config.epoch)
        coordinator->begun_ms = 0; /* somebody knows a later leader: look at the lease now */
    struct event event = {0};
    uint64_t peer = peer_of(index, packet->session);
    switch ((int)message->tag) {
    case MSG_WORKER_JOIN:
        *newest = packet->session;
        event.kind = EVENT_WORKER_JOIN;
        event.join = (struct event_join){.peer = peer, .join = &message->u.worker_join};
        break;
    case MSG_HEARTBEAT:
        event.kind = EVENT_HEARTBEAT;
        event.heartbeat =
            (struct event_heartbeat){.peer = peer, .heartbeat = &message->u.heartbeat};
        break;
    case MSG_WORKER_LEAVE:
        event.kind = EVENT_WORKER_LEAVE;
        event.leave = (struct event_leave){.peer = peer, .leave = &message->u.worker_leave};
        break;
    case MSG_COPIES:
        event.kind = EVENT_COPIES;
        event.copies = (struct event_copies){.peer = peer, .copies = &message->u.copies};
        break;
    case MSG_NODE_REPORT:
        event.kind = EVENT_NODE_REPORT;
        event.node_report =
            (struct event_node_report){.peer = peer, .report = &message->u.node_report};
        break;
    default:
        event.kind = EVENT_REPORTS;
        event.reports = (struct event_reports){.peer = peer, .reports = &message->u.report};
    }
    step(sim, coordinator, &event);
}

/* ---- requests of people ------------------------------------------------------------------ */

/* Steps with what the lookups find. False: it must wait until all that was decided is durable. */
static bool lookup_and_step(struct sim *sim, struct sim_coordinator *coordinator,
                            struct event *event, struct event_found *found)
{
    struct core_lookup *lookups = NULL;
    size_t count = core_lookups(coordinator->core, event, &sim->arena, &lookups);
    bool needs_commit = false;
    for (size_t i = 0; i < count; i++)
        needs_commit |= lookups[i].kind != LOOKUP_SUBMIT;
    if (needs_commit && !(coordinator->transaction.phase == SIM_IDLE &&
                          filling_is_empty(coordinator)))
        return false;
    if (sim->options.bug == SIM_BUG_DOUBLE_SUBMIT)
        count = 0;
    memory_db_lookup(sim->database.rows, lookups, count, &sim->arena, found);
    step(sim, coordinator, event);
    return true;
}

static bool submit_step(struct sim *sim, struct sim_coordinator *coordinator, size_t index)
{
    const struct sim_submit *submit = &sim->submits[index];
    struct event event = {.kind = EVENT_SUBMIT,
                          .submit = {.client = 1,
                                     .request_seq = index + 1,
                                     .account = submit->account,
                                     .submit_key = submit->key,
                                     .spec = submit->spec,
                                     .source = "simulated"}};
    return lookup_and_step(sim, coordinator, &event, &event.submit.found);
}

static bool control_step(struct sim *sim, struct sim_coordinator *coordinator, size_t index)
{
    const struct sim_request *request = &sim->requests[index];
    struct rec_name_value target = {.name = request->target, .value = request->value};
    struct msg_control control = {
        .action = request->action, .targets = &target, .targets_count = 1, .reason = "drawn"};
    control.deadline_us = request->deadline_us;
    struct event event = {.kind = EVENT_CONTROL,
                          .control = {.client = 1,
                                      .request_seq = SIM_SUBMITS_MAX + 1 + index,
                                      .account = "root",
                                      .may_act_for_others = true,
                                      .control = &control}};
    return lookup_and_step(sim, coordinator, &event, &event.control.found);
}

/* One setting, or those of a window. */
static size_t settings_of(struct sim *sim, const struct sim_request *request,
                          struct rec_name_value out[4])
{
    size_t count = 0;
    if (request->scope_part)
        out[count++] = (struct rec_name_value){request->scope_part, request->scope_name};
    if (request->setting && strcmp(request->setting, "gpu_ms") == 0)
        out[count++] = (struct rec_name_value){"period_ms", "86400000"};
    if (request->setting)
        out[count++] = (struct rec_name_value){request->setting, request->to};
    if (request->until_us) {
        out[count++] = (struct rec_name_value){
            "from", arena_printf(&sim->arena, "%llu", (unsigned long long)request->from_us)};
        out[count++] = (struct rec_name_value){
            "until", arena_printf(&sim->arena, "%llu", (unsigned long long)request->until_us)};
    }
    return count;
}

static void configure_step(struct sim *sim, struct sim_coordinator *coordinator, size_t index)
{
    const struct sim_request *request = &sim->requests[index];
    struct rec_name_value settings[4];
    struct msg_configure configure = {.table = request->target,
                                      .action = request->action,
                                      .name = request->value,
                                      .settings = settings,
                                      .settings_count = settings_of(sim, request, settings)};
    struct event event = {.kind = EVENT_CONFIGURE,
                          .configure = {.client = 1,
                                        .request_seq = SIM_SUBMITS_MAX + 1 + index,
                                        .account = "root",
                                        .is_operator = true,
                                        .configure = &configure}};
    step(sim, coordinator, &event);
}

static bool request_step(struct sim *sim, struct sim_coordinator *coordinator, size_t index)
{
    const struct sim_request *request = &sim->requests[index];
    switch (request->kind) {
    case SIM_SUBMIT:
        return submit_step(sim, coordinator, request->submit);
    case SIM_CONTROL:
        return control_step(sim, coordinator, index);
    case SIM_CONFIGURE:
        configure_step(sim, coordinator, index);
    }
    return true;
}

void coordinator_on_request(struct sim *sim, struct sim_coordinator *coordinator, size_t request)
{
    if (coordinator->role != SIM_LEADING || request_step(sim, coordinator, request))
        return;
    VEC_RESERVE(coordinator->parked, coordinator->parked_count, coordinator->parked_capacity);
    coordinator->parked[coordinator->parked_count++] = request;
}

static void parked_round(struct sim *sim, struct sim_coordinator *coordinator)
{
    while (coordinator->parked_count && !sim->violated &&
           request_step(sim, coordinator, coordinator->parked[0])) {
        coordinator->parked_count--;
        memmove(coordinator->parked, coordinator->parked + 1,
                coordinator->parked_count * sizeof *coordinator->parked);
    }
}

/* ---- commit and release ------------------------------------------------------------------ */

static void release_one(struct sim *sim, struct sim_coordinator *coordinator,
                        const struct outgoing *outgoing)
{
    uint32_t from = SIM_AT_COORDINATOR + coordinator->index;
    judge_release(sim, outgoing);
    if (sim_has_bug(sim, SIM_BUG_NO_FENCE) && outgoing->message.tag == MSG_ATTEMPT_FENCE)
        return;
    if (outgoing->to == ADDRESS_CLIENT)
        net_send(sim, from, SIM_AT_PEOPLE, 0, coordinator->config.epoch, &outgoing->message);
    else
        net_send(sim, from, SIM_AT_WORKER + (uint32_t)(outgoing->peer >> 32) - 1,
                 outgoing->peer & UINT32_MAX, coordinator->config.epoch, &outgoing->message);
}

/* The leader may die amid the release. */
static void release(struct sim *sim, struct sim_coordinator *coordinator)
{
    struct effects *effects = coordinator_flying(coordinator);
    size_t count = effects->release_count;
    bool dies = sim_fault(sim, SIM_FAULT_KILL_RELEASE);
    size_t cut = dies ? rng_below(&sim->rng, count + 1) : count;
    for (size_t i = 0; i < cut && !sim->violated; i++)
        release_one(sim, coordinator, &effects->release[i]);
    coordinator->transaction.phase = SIM_IDLE;
    effects_reset(effects);
    if (dies)
        die(sim, coordinator, "amid a release");
}

static void committed(struct sim *sim, struct sim_coordinator *coordinator)
{
    coordinator->lease_until_ms = coordinator->begun_ms + sim->swarm.leader_ms * 9 / 10;
    release(sim, coordinator);
    if (coordinator->role == SIM_LEADING && filling_is_empty(coordinator) && !sim->violated &&
        coordinator == coordinator_true(sim) && rng_below(&sim->rng, 40) == 0)
        judge_rebuilt(sim, coordinator);
}

/* The lease row tells what became of the batch. */
static void look_again(struct sim *sim, struct sim_coordinator *coordinator)
{
    const struct sim_database *database = &sim->database;
    if (!database_reaches(sim, coordinator->index)) {
        coordinator->transaction.due_ms = sim->now_ms + 50;
        return;
    }
    if (sim_has_bug(sim, SIM_BUG_UNKNOWN_IS_DONE))
        committed(sim, coordinator);
    else if (database->epoch != coordinator->config.epoch)
        die(sim, coordinator, "another leads");
    else if (database->batch >= coordinator->batch && !sim_has_bug(sim, SIM_BUG_UNKNOWN_IS_NOT))
        committed(sim, coordinator);
    else
        database_send(sim, coordinator);
}

static void answered(struct sim *sim, struct sim_coordinator *coordinator)
{
    if (net_is_cut(sim, SIM_AT_DATABASE, SIM_AT_COORDINATOR + coordinator->index)) {
        coordinator->transaction.phase = SIM_CUT_OFF;
        return;
    }
    switch (coordinator->transaction.outcome) {
    case SIM_COMMITTED:
    case SIM_WRITTEN: /* by the same batch, sent before the connection broke */
        committed(sim, coordinator);
        break;
    case SIM_REFUSED: /* memory is ahead of the rows: the process ends */
        die(sim, coordinator, "a batch was refused");
        break;
    case SIM_FENCED:
        die(sim, coordinator, "another leads");
        break;
    }
}

static void writer_round(struct sim *sim, struct sim_coordinator *coordinator)
{
    const struct sim_transaction *transaction = &coordinator->transaction;
    if (transaction->due_ms > sim->now_ms)
        return;
    if (transaction->phase == SIM_ANSWERED)
        answered(sim, coordinator);
    else if (transaction->phase == SIM_CUT_OFF)
        look_again(sim, coordinator);
}

static void batch_begin(struct sim *sim, struct sim_coordinator *coordinator)
{
    coordinator->filling = 1 - coordinator->filling;
    coordinator->batch++;
    coordinator->begun_ms = clock_ms(sim, &coordinator->clock);
    const struct effects *effects = coordinator_flying(coordinator);
    for (size_t i = 0; sim_has_bug(sim, SIM_BUG_EARLY_RELEASE) && i < effects->release_count; i++)
        release_one(sim, coordinator, &effects->release[i]);
    database_send(sim, coordinator);
}

/* Messages that no row covers need no transaction, as long as we surely lead. */
static void commit_round(struct sim *sim, struct sim_coordinator *coordinator)
{
    uint64_t now_ms = clock_ms(sim, &coordinator->clock);
    bool renew = now_ms >= coordinator->begun_ms + sim->swarm.leader_ms / 3;
    if (coordinator->transaction.phase != SIM_IDLE || (filling_is_empty(coordinator) && !renew))
        return;
    if (filling(coordinator)->persist_count == 0 && now_ms < coordinator->lease_until_ms &&
        !renew) {
        coordinator->filling = 1 - coordinator->filling;
        release(sim, coordinator);
    } else {
        batch_begin(sim, coordinator);
    }
}

/* ---- rounds ------------------------------------------------------------------------------ */

static void leading_round(struct sim *sim, struct sim_coordinator *coordinator)
{
    writer_round(sim, coordinator);
    if (coordinator->role != SIM_LEADING || sim->violated)
        return;
    parked_round(sim, coordinator);
    bool due = coordinator->wake_ms &&
               coordinator->wake_ms <= clock_ms(sim, &coordinator->clock);
    if (coordinator->dirty || due) {
        struct event tick = {.kind = EVENT_TICK};
        step(sim, coordinator, &tick);
    }
    if (!sim->violated)
        commit_round(sim, coordinator);
}

static void standby_round(struct sim *sim, struct sim_coordinator *coordinator)
{
    uint64_t now_ms = clock_ms(sim, &coordinator->clock);
    if (now_ms < coordinator->try_ms)
        return;
    coordinator->try_ms = now_ms + sim->swarm.leader_ms / 4 + 1;
    if (database_reaches(sim, coordinator->index) &&
        database_lease_take(sim, coordinator, sim_fault(sim, SIM_FAULT_FORCE)))
        lead(sim, coordinator);
}

void coordinator_round(struct sim *sim, struct sim_coordinator *coordinator)
{
    if (sim->violated || coordinator->paused_until_ms > sim->now_ms)
        return;
    if (coordinator->role == SIM_DOWN && sim->now_ms >= coordinator->up_ms)
        coordinator->role = SIM_STANDBY;
    if (coordinator->role == SIM_DOWN)
        return;
    if (coordinator->role == SIM_LEADING && sim_fault(sim, SIM_FAULT_KILL)) {
        die(sim, coordinator, "killed");
    } else if (sim_fault(sim, SIM_FAULT_PAUSE)) {
        coordinator->paused_until_ms = sim->now_ms + sim_between(sim, 50, 4000);
        trace_line(sim, "c%u is stopped until %llu", coordinator->index,
                   (unsigned long long)coordinator->paused_until_ms);
    } else if (coordinator->role == SIM_STANDBY) {
        standby_round(sim, coordinator);
    } else if (coordinator->role == SIM_LEADING) {
        leading_round(sim, coordinator);
    }
}

void coordinator_heal(struct sim *sim, struct sim_coordinator *coordinator)
{
    coordinator->paused_until_ms = min_u64(coordinator->paused_until_ms, sim->now_ms);
    coordinator->up_ms = min_u64(coordinator->up_ms, sim->now_ms);
}
