/* worker.c - liveness, joins and what a rejoin must reconcile. */
#include "coordinator/core/state.h"

#include "common/base/buf.h"

#include <string.h>

struct worker *worker_find(const struct core *core, uint64_t worker_id)
{
    struct worker *worker = NULL;
    HASH_FIND(hh_id, core->workers_by_id, &worker_id, sizeof worker_id, worker);
    return worker;
}

struct worker *worker_find_name(const struct core *core, const char *name)
{
    struct worker *worker = NULL;
    HASH_FIND(hh_name, core->workers_by_name, name, strlen(name), worker);
    return worker;
}

struct worker *worker_add(struct core *core, uint64_t worker_id, const char *name)
{
    struct worker *worker = mem_zalloc(sizeof *worker);
    worker->worker_id = worker_id;
    worker->name = mem_strdup(name);
    worker->state = WORKER_LEFT;
    worker->endpoint = mem_strdup("");
    worker->public_key = mem_strdup("");
    worker->timer = (struct timer){.kind = TIMER_WORKER, .id = worker_id};
    worker->index = core->worker_count;
    CHECK(!core->worker_count ||
          core->workers[core->worker_count - 1]->worker_id < worker_id);
    VEC_RESERVE(core->workers, core->worker_count, core->worker_capacity);
    core->workers[core->worker_count++] = worker;
    HASH_ADD(hh_id, core->workers_by_id, worker_id, sizeof worker->worker_id, worker);
    HASH_ADD_KEYPTR(hh_name, core->workers_by_name, worker->name, strlen(worker->name), worker);
    return worker;
}

void worker_labels_set(struct worker *worker, struct label *labels, size_t count)
{
    for (size_t i = 0; i < worker->label_count; i++) {
        mem_free(worker->labels[i].name);
        mem_free(worker->labels[i].value);
    }
    mem_free(worker->labels);
    worker->labels = labels;
    worker->label_count = count;
}

void worker_free(struct worker *worker)
{
    worker_labels_set(worker, NULL, 0);
    for (size_t i = 0; i < worker->gpu_count; i++)
        mem_free(worker->gpu_list[i].model);
    mem_free(worker->gpu_list);
    mem_free(worker->endpoint);
    mem_free(worker->public_key);
    mem_free(worker->name);
    mem_free(worker->host);
    mem_free(worker->labels_json);
    mem_free(worker->topology_json);
    mem_free(worker->drain_reason);
    incidents_free(worker);
    mem_free(worker->copies.items);
    mem_free(worker->engine);
    mem_free(worker);
}

void worker_mark(struct core *core, struct worker *worker)
{
    if (worker->dirty)
        return;
    worker->dirty = true;
    list_add(&core->dirty_workers, worker);
    if (core->some_avoid) /* without this one, there may be nobody else for them */
        core_mark_placement(core);
}

bool worker_is_usable(const struct worker *worker)
{
    return worker->joined && worker->state == WORKER_OK && !worker->drained &&
           !worker_kept_away(worker);
}

/* Room or usability grew: blocked classes look at it again. */
void worker_gained(struct core *core, struct worker *worker)
{
    if (!worker->changed) {
        worker->changed = true;
        list_add(&core->changed, worker);
    }
    core_mark_placement(core);
}

static uint64_t minus(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0; /* a worker may rejoin with less than it has given away */
}

struct policy_need worker_free_need(const struct worker *worker)
{
    return (struct policy_need){
        .cores = minus(worker->cores, worker->cores_used),
        .memory_bytes = minus(worker->memory_bytes, worker->memory_used),
        .gpus = minus(worker->gpus, worker->gpus_used),
    };
}

/* ---- liveness ---------------------------------------------------------------------------- */

uint64_t suspect_after_ms(const struct core *core)
{
    return min_u64(3 * core->config.heartbeat_ms, core->config.lease_ms / 2);
}

static bool worker_has_lease(const struct worker *worker)
{
    return worker->state == WORKER_OK || worker->state == WORKER_SUSPECT;
}

/* Lazily: a beat only moves seen_ms, the timer looks when it fires. */
void worker_timer_set(struct core *core, struct worker *worker)
{
    if (!worker_has_lease(worker)) {
        timer_clear(&core->timers, &worker->timer);
        return;
    }
    uint64_t wait = worker->state == WORKER_OK ? suspect_after_ms(core) : core->config.lease_ms;
    timer_set(&core->timers, &worker->timer, max_u64(worker->seen_ms + wait, 1));
}

static void worker_move(struct core *core, struct worker *worker, enum worker_event event)
{
    enum worker_state next = worker_next(worker->state, event);
    CHECK(next != WORKER_STATE_NONE);
    if (next != worker->state) {
        worker->state = next;
        worker->ended_at = worker_has_lease(worker) ? 0 : core->wall_us;
        worker_mark(core, worker);
        static const char *const names[] = {"", "worker_ok", "worker_suspect", "worker_lost",
                                            "worker_left"};
        history_add(core, names[next], 0, 0, worker->worker_id, NULL, worker->name);
        if (next == WORKER_OK)
            worker_gained(core, worker);
    }
    worker_timer_set(core, worker);
}

void worker_seen(struct core *core, struct worker *worker)
{
    worker->seen_ms = core->now_ms;
    if (worker->state == WORKER_SUSPECT)
        worker_move(core, worker, WORKER_ON_BEAT);
}

/* To be asked before the worker counts as seen again. What was before this leader began is known
 * of lost workers only. */
static uint64_t worker_heard_at(const struct core *core, const struct worker *worker)
{
    uint64_t silent_us = (core->now_ms - worker->seen_ms) * 1000;
    if (worker->state == WORKER_LOST && core->wall_us > worker->ended_at)
        silent_us = max_u64(silent_us,
                            core->wall_us - worker->ended_at + core->config.lease_ms * 1000);
    return core->wall_us > silent_us ? core->wall_us - silent_us : 0;
}

/* Attempts of a worker whose lease ran out. With `wait` they stay: the worker may come back
 * with them. One that is being stopped is not waited for. */
static void worker_attempts_lose(struct core *core, struct worker *worker, const char *evidence,
                                 bool all)
{
    struct part *next;
    for (struct part *part = worker->parts; part; part = next) {
        const struct attempt *attempt = part->attempt;
        next = part->next;
        if (attempt->state == ATTEMPT_STOPPING)
            part_lose(core, part, attempt->stop_cause, evidence);
        else if (all || attempt->job->on_disconnect != SPEC_DISCONNECT_WAIT)
            attempt_lose(core, part, CAUSE_WORKER_LOST, evidence);
    }
}

void worker_timer_due(struct core *core, struct worker *worker)
{
    uint64_t silent_ms = core->now_ms - worker->seen_ms;
    if (silent_ms >= core->config.lease_ms) {
        worker->heard_at = worker_heard_at(core, worker);
        worker_move(core, worker, WORKER_ON_EXPIRE);
        worker_attempts_lose(core, worker,
                             arena_printf(step_arena(core), "no sign of life from %s for %llu ms",
                                          worker->name, (unsigned long long)silent_ms),
                             false);
        return;
    }
    if (silent_ms >= suspect_after_ms(core) && worker->state == WORKER_OK)
        worker_move(core, worker, WORKER_ON_SILENCE);
    else
        worker_timer_set(core, worker);
}

/* ---- join -------------------------------------------------------------------------------- */

static bool label_is_fit(const struct msg_worker_join *join, size_t index)
{
    const struct rec_name_value *label = &join->labels[index];
    for (size_t i = 0; i < index; i++)
        if (strcmp(join->labels[i].name, label->name) == 0)
            return false;
    for (const char *c = label->value; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == '"' || *c == '\\')
            return false;
    return spec_name_is_valid(label->name) && strlen(label->value) <= 200;
}

/* A text that was left out is the same as an empty one. */
static const char *given(const char *text)
{
    return text ? text : "";
}

static bool texts_are_short(const struct msg_worker_join *join)
{
    bool short_enough = strlen(join->host) <= 255 && strlen(given(join->endpoint)) <= 255;
    for (size_t i = 0; i < join->devices_count; i++)
        short_enough &= strlen(join->devices[i].kind) <= 255 &&
                        strlen(join->devices[i].model) <= 255 &&
                        strlen(join->devices[i].uuid) <= 255;
    return short_enough;
}

static const char *join_fault(const struct core *core, const struct event_join *event,
                              struct arena *arena)
{
    const struct msg_worker_join *join = event->join;
    if (!spec_name_is_valid(join->name))
        return "worker name: expected letters, digits, '.', '_' and '-', at most 100";
    if (event->principal && strcmp(event->principal, join->name) != 0)
        return arena_printf(arena, "worker '%s' joined with the key of '%s'", join->name,
                            event->principal);
    if (join->cores < 1 || join->cores > WORKER_CORES_MAX)
        return arena_printf(arena, "cores is %llu, expected 1..%u",
                            (unsigned long long)join->cores, WORKER_CORES_MAX);
    if (join->memory_bytes > WORKER_MEMORY_MAX)
        return "memory_bytes is over 1 PiB";
    if (join->devices_count > WORKER_DEVICES_MAX || join->labels_count > WORKER_LABELS_MAX)
        return arena_printf(arena, "%zu devices and %zu labels, expected at most %u and %u",
                            join->devices_count, join->labels_count, WORKER_DEVICES_MAX,
                            WORKER_LABELS_MAX);
    for (size_t i = 0; i < join->devices_count; i++)
        if (join->devices[i].device_index > INT32_MAX ||
            join->devices[i].memory_bytes > WORKER_MEMORY_MAX)
            return arena_printf(arena, "device %zu: index or memory out of range", i);
    if (!texts_are_short(join))
        return "host, endpoint, or kind, model or uuid of a device is over 255 bytes";
    if (*given(join->public_key) && strlen(join->public_key) != KEY_TEXT_LENGTH)
        return arena_printf(arena, "public_key has %zu characters, expected %u",
                            strlen(join->public_key), KEY_TEXT_LENGTH);
    for (size_t i = 0; i < join->labels_count; i++)
        if (!label_is_fit(join, i))
            return arena_printf(arena,
                                "label %zu: expected a name like a worker's, given once, and a "
                                "value of at most 200 bytes without quotes and backslashes",
                                i);
    if (!worker_find_name(core, join->name) && core->worker_count >= core->config.workers_max)
        return arena_printf(arena, "%zu workers are known, which is the limit",
                            core->worker_count);
    return NULL;
}

static void labels_take(struct worker *worker, const struct msg_worker_join *join)
{
    struct buf json = {0};
    struct label *labels = mem_array(join->labels_count, sizeof *labels);
    buf_putc(&json, '{');
    for (size_t i = 0; i < join->labels_count; i++) {
        labels[i].name = mem_strdup(join->labels[i].name);
        labels[i].value = mem_strdup(join->labels[i].value);
        buf_puts(&json, i ? "," : "");
        json_quote(&json, labels[i].name);
        buf_putc(&json, ':');
        json_quote(&json, labels[i].value);
    }
    buf_putc(&json, '}');
    worker_labels_set(worker, labels, join->labels_count);
    text_set(&worker->labels_json, buf_text(&json));
    buf_done(&json);
}

static void device_write(struct core *core, const struct worker *worker, uint64_t index,
                         const char *kind, const char *model, const char *uuid, uint64_t bytes)
{
    struct row_worker_device row = {
        .worker_id = worker->worker_id,
        .device_index = index,
        .kind = kind,
        .model = model,
        .uuid = uuid,
        .memory_bytes = bytes,
    };
    effects_persist(core->effects, ROW_TABLE_worker_device, PERSIST_UPSERT, &row);
}

/* Its place in the list, in order of device_index; the one behind it when it is not there. */
static size_t gpu_place(const struct worker *worker, uint64_t device_index)
{
    size_t at = 0;
    while (at < worker->gpu_count && worker->gpu_list[at].device_index < device_index)
        at++;
    return at;
}

void worker_gpu_set(struct worker *worker, uint64_t device_index, const char *model)
{
    size_t at = gpu_place(worker, device_index);
    if (at < worker->gpu_count && worker->gpu_list[at].device_index == device_index) {
        text_set(&worker->gpu_list[at].model, model);
        return;
    }
    VEC_RESERVE(worker->gpu_list, worker->gpu_count, worker->gpu_capacity);
    memmove(worker->gpu_list + at + 1, worker->gpu_list + at,
            (worker->gpu_count++ - at) * sizeof *worker->gpu_list);
    worker->gpu_list[at] = (struct gpu){device_index, mem_strdup(model)};
}

uint64_t worker_gpus_of(const struct worker *worker, const char *model)
{
    uint64_t count = 0;
    for (size_t i = 0; i < worker->gpu_count; i++)
        count += spec_gpu_model_fits(model, worker->gpu_list[i].model);
    return count;
}

static bool join_has_gpu(const struct msg_worker_join *join, uint64_t device_index)
{
    for (size_t i = 0; i < join->devices_count; i++)
        if (join->devices[i].device_index == device_index &&
            strcmp(join->devices[i].kind, "gpu") == 0)
            return true;
    return false;
}

/* Rows of devices are never deleted: one that is gone is marked so. */
static void devices_take(struct core *core, struct worker *worker,
                         const struct msg_worker_join *join)
{
    for (size_t i = worker->gpu_count; i > 0; i--) {
        struct gpu gone = worker->gpu_list[i - 1];
        if (join_has_gpu(join, gone.device_index))
            continue;
        device_write(core, worker, gone.device_index, "gone", gone.model, "", 0);
        mem_free(gone.model);
        worker->gpu_count--;
        memmove(worker->gpu_list + i - 1, worker->gpu_list + i,
                (worker->gpu_count - (i - 1)) * sizeof gone);
    }
    for (size_t i = 0; i < join->devices_count; i++) {
        const struct rec_device *device = &join->devices[i];
        if (strcmp(device->kind, "gpu") == 0)
            worker_gpu_set(worker, device->device_index, device->model);
        device_write(core, worker, device->device_index, device->kind, device->model, device->uuid,
                     device->memory_bytes);
    }
    worker->gpus = worker->gpu_count;
}

static void join_take(struct core *core, struct worker *worker, const struct event_join *event)
{
    const struct msg_worker_join *join = event->join;
    worker->incarnation = join->incarnation;
    worker->cores = join->cores;
    worker->memory_bytes = join->memory_bytes;
    worker->shrunk = worker->cores_used > join->cores || worker->memory_used > join->memory_bytes;
    text_set(&worker->host, join->host);
    text_set(&worker->topology_json,
             json_is_storable(join->topology, REPORT_TEXT_BYTES_MAX) ? join->topology : "{}");
    bool is_hash = join->engine && strlen(join->engine) == HASH_HEX_SIZE - 1 &&
                   join->engine[strspn(join->engine, "0123456789abcdef")] == '\0';
    text_set(&worker->engine, is_hash ? join->engine : NULL);
    text_set(&worker->endpoint, given(join->endpoint));
    text_set(&worker->public_key, given(join->public_key));
    worker_until_set(core, worker, join->ends_in_ms, join->open_ended);
    labels_take(worker, join);
    core->topology_changed = true;
    devices_take(core, worker, join);
    worker->shrunk |= worker->gpus_used > worker->gpus;
    worker->joined = true;
    worker->peer = event->peer;
    worker->heard_at = worker_heard_at(core, worker);
    worker->seen_ms = core->now_ms;
    worker->joined_at = core->wall_us;
    worker_mark(core, worker);
    worker_gained(core, worker);
    if (worker_next(worker->state, WORKER_ON_JOIN) == worker->state)
        history_add(core, "worker_joined", 0, 0, worker->worker_id, NULL, worker->name);
    worker_move(core, worker, WORKER_ON_JOIN);
}

static void welcome(struct core *core, const struct worker *worker)
{
    struct msg_worker_welcome *welcome =
        &effects_release(core->effects, ADDRESS_WORKER, worker->peer, MSG_WORKER_WELCOME)
             ->u.worker_welcome;
    welcome->worker_id = worker->worker_id;
    welcome->epoch = core->config.epoch;
    welcome->lease_ms = core->config.lease_ms;
    welcome->heartbeat_ms = core->config.heartbeat_ms;
    welcome->node_stamp = worker->node_stamp;
}

/* What the worker holds: ours are confirmed, all others are fenced (invariant 5). A part that has
 * ended while its attempt goes on may still be listed: its stream is acknowledged. */
static void held_check(struct core *core, struct worker *worker,
                       const struct msg_worker_join *join)
{
    for (struct part *part = worker->parts; part; part = part->next)
        part->held = false;
    for (size_t i = 0; i < join->held_count; i++) {
        struct attempt *attempt = attempt_find(core, join->held[i].attempt_id);
        struct part *part = attempt ? attempt_part_on(attempt, worker) : NULL;
        if (!part || part->ended) { /* ended: given up while the worker was lost */
            attempt_fence(core, worker->peer, join->held[i].attempt_id);
        } else {
            part->held = true;
            part->confirmed = true;
        }
    }
}

/* Parts that we believe are there. Sessions deliver in order, so a confirmed one that the join
 * does not list is gone; an unconfirmed one may never have arrived. */
static void parts_reconcile(struct core *core, struct worker *worker)
{
    static const char *const without = "the worker came back without it";
    struct part *next;
    for (struct part *part = worker->parts; part; part = next) {
        struct attempt *attempt = part->attempt;
        bool stopping = attempt->state == ATTEMPT_STOPPING;
        next = part->next;
        if (stopping && part->held)
            attempt_stop(core, attempt, attempt->stop_cause);
        else if (stopping)
            part_lose(core, part, attempt->stop_cause, without);
        else if (!part->held && part->confirmed)
            attempt_lose(core, part, CAUSE_WORKER_LOST, without);
        else if (!part->held)
            part_send_start(core, part);
    }
}

void worker_on_join(struct core *core, const struct event_join *event)
{
    const char *fault = join_fault(core, event, step_arena(core));
    if (fault) {
        answer_refused(core, ADDRESS_WORKER, event->peer, event->request_seq, ERR_INVALID, fault,
                       NULL, 0);
        return;
    }
    struct worker *worker = worker_find_name(core, event->join->name);
    if (!worker) {
        worker = worker_add(core, ++core->ids.worker, event->join->name);
        worker->is_new = true;
    }
    join_take(core, worker, event);
    copies_take(core, worker, event->join->copies, event->join->copies_count);
    welcome(core, worker);
    held_check(core, worker, event->join);
    parts_reconcile(core, worker);
    checkpoint_drops_send(core, worker);
    removals_send(core, worker);
}

/* ---- beats and leave --------------------------------------------------------------------- */

/* Only the daemon that joined this leader last may speak for the worker. */
struct worker *worker_speaking(struct core *core, uint64_t peer, uint64_t request_seq,
                               uint64_t worker_id, uint64_t incarnation)
{
    struct worker *worker = worker_find(core, worker_id);
    if (worker && worker->joined && worker->incarnation == incarnation && worker->peer == peer &&
        worker_has_lease(worker))
        return worker;
    answer_refused(core, ADDRESS_WORKER, peer, request_seq, ERR_STALE,
                   "this worker is not joined here: join again", NULL, 0);
    return NULL;
}

void worker_on_heartbeat(struct core *core, const struct event_heartbeat *event)
{
    struct worker *worker =
        worker_speaking(core, event->peer, event->request_seq, event->heartbeat->worker_id,
                        event->heartbeat->incarnation);
    if (!worker)
        return;
    worker_seen(core, worker);
    if (event->heartbeat->ends_in_ms)
        worker_until_set(core, worker, event->heartbeat->ends_in_ms, worker->open_ended);
    effects_release(core->effects, ADDRESS_WORKER, event->peer, MSG_HEARTBEAT_ACK)
        ->u.heartbeat_ack.worker_id = worker->worker_id;
}

/* START and the leave have crossed: what it never began costs no attempt. */
static void parts_return(struct core *core, struct worker *worker)
{
    struct part *next;
    for (struct part *part = worker->parts; part; part = next) {
        struct attempt *attempt = part->attempt;
        next = part->next;
        if (attempt->state != ATTEMPT_STOPPING && !part->confirmed)
            attempt_stop(core, attempt, CAUSE_NODE_ENDED); /* its worker is gone: at once */
    }
}

void worker_on_leave(struct core *core, const struct event_leave *event)
{
    struct worker *worker = worker_speaking(core, event->peer, event->request_seq,
                                            event->leave->worker_id, event->leave->incarnation);
    if (!worker)
        return;
    worker->heard_at = core->wall_us;
    worker_move(core, worker, WORKER_ON_LEAVE);
    worker->joined = false;
    parts_return(core, worker);
    worker_attempts_lose(core, worker, "the worker left", true);
}
