/* retention.c - checkpoints and artifacts of jobs that have ended, removed when nothing needs them,
 * and with the last of a content the copies that workers keep of it.
 *
 * What may go is judged over the whole history, which only the database has: LOOKUP_GARBAGE
 * (athanor.retention_list). The answer is of a moment after everything decided so far was durable,
 * and it is applied in one step, so the one thing that can have come between is a job that was
 * submitted meanwhile: whatever such a job reads is in memory, and what is in memory stays.
 *
 * The row of what goes says so first, together with an order to its worker, which stands until the
 * worker has answered: it is sent again whenever that one joins. */
#include "coordinator/core/state.h"

#include <stdlib.h>
#include <string.h>

struct removal {
    uint64_t removal_id, worker_id;
    char *path;
    struct hash content;
    UT_hash_handle hh;
};

static struct removal *removal_add(struct core *core, const struct row_removal *row)
{
    struct removal *removal = mem_zalloc(sizeof *removal);
    *removal = (struct removal){.removal_id = row->removal_id,
                                .worker_id = row->worker_id,
                                .path = mem_strdup(row->path),
                                .content = row->content_hash};
    HASH_ADD(hh, core->removals, removal_id, sizeof removal->removal_id, removal);
    return removal;
}

static void removal_drop(struct core *core, struct removal *removal)
{
    HASH_DEL(core->removals, removal);
    mem_free(removal->path);
    mem_free(removal);
}

void core_load_removal(struct core *core, const struct row_removal *row)
{
    CHECK(row->done_at == 0);
    removal_add(core, row);
}

static void removal_send(struct core *core, const struct worker *worker,
                         const struct removal *removal)
{
    effects_release(core->effects, ADDRESS_WORKER, worker->peer, MSG_REMOVE)->u.remove =
        (struct msg_remove){.removal_id = removal->removal_id,
                            .path = arena_strdup(step_arena(core), removal->path),
                            .content = removal->content};
}

/* uthash keeps the order of insertion, which is that of the ids. */
void removals_send(struct core *core, const struct worker *worker)
{
    for (const struct removal *at = core->removals; at; at = at->hh.next)
        if (at->worker_id == worker->worker_id)
            removal_send(core, worker, at);
}

/* ---- collecting -------------------------------------------------------------------------- */

struct collected {
    size_t snapshots, checkpoints, artifacts, copies;
    uint64_t bytes;
};

/* A content of which an original stays after all. */
struct staying {
    struct hash content;
    UT_hash_handle hh;
};

static bool is_copy(const struct row_removal *order)
{
    return strcmp(order->kind, "copy") == 0;
}

/* Of a copy the worker's word says so (copy.c). */
static void object_mark(struct core *core, const struct row_removal *order)
{
    struct row_checkpoint checkpoint = {.checkpoint_id = order->object_id,
                                        .removed_at = core->wall_us};
    struct row_artifact artifact = {.artifact_id = order->object_id, .removed_at = core->wall_us};
    if (is_copy(order))
        return;
    if (strcmp(order->kind, "checkpoint") == 0)
        effects_persist(core->effects, ROW_TABLE_checkpoint, PERSIST_UPDATE, &checkpoint);
    else
        effects_persist(core->effects, ROW_TABLE_artifact, PERSIST_UPDATE, &artifact);
}

/* False: it stays after all. */
static bool order_take(struct core *core, const struct row_removal *found,
                       struct collected *collected)
{
    struct worker *worker = worker_find(core, found->worker_id);
    if ((!is_copy(found) && job_find(core, found->job_id)) || !worker ||
        !worker_is_reachable(worker) ||
        HASH_COUNT(core->removals) >= REMOVALS_MAX)
        return false;
    struct row_removal row = *found;
    row.removal_id = ++core->ids.removal;
    row.ordered_at = core->wall_us;
    row.done_at = 0;
    object_mark(core, &row);
    effects_persist(core->effects, ROW_TABLE_removal, PERSIST_INSERT, &row);
    removal_send(core, worker, removal_add(core, &row));
    collected->bytes += row.size_bytes;
    if (is_copy(&row))
        collected->copies++;
    else if (strcmp(row.kind, "checkpoint") == 0)
        collected->checkpoints++;
    else
        collected->artifacts++;
    return true;
}

static bool is_of_kind(const struct msg_collect *collect, const char *kind)
{
    return !collect->at_once || strcmp(*collect->kind ? collect->kind : "code", kind) == 0;
}

/* Originals first: a copy goes only if all of its content that were found to go did, for a job may
 * have come meanwhile that reads one of them. */
static void found_take_all(struct core *core, const struct event_collect *event,
                           struct collected *collected)
{
    const struct event_found *found = &event->found;
    struct staying *staying = NULL, *known;
    for (size_t i = 0; i < found->removal_count; i++) {
        const struct row_removal *order = &found->removals[i];
        if (is_copy(order) ||
            (is_of_kind(event->collect, order->kind) && order_take(core, order, collected)))
            continue;
        known = arena_alloc(step_arena(core), sizeof *known);
        *known = (struct staying){.content = order->content_hash};
        HASH_ADD(hh, staying, content, sizeof known->content, known);
    }
    for (size_t i = 0; i < found->removal_count; i++) {
        const struct row_removal *order = &found->removals[i];
        HASH_FIND(hh, staying, &order->content_hash, sizeof order->content_hash, known);
        if (is_copy(order) && !known)
            order_take(core, order, collected);
    }
    HASH_CLEAR(hh, staying);
}

/* What there is to know before: with at_once only of the kind that is meant. */
size_t retention_lookups(const struct event_collect *event, struct arena *arena,
                         struct core_lookup **out)
{
    const struct msg_collect *collect = event->collect;
    if (!event->is_operator ||
        (!is_of_kind(collect, "checkpoint") && !is_of_kind(collect, "artifact")))
        return 0;
    *out = arena_alloc(arena, sizeof **out);
    **out = (struct core_lookup){.kind = LOOKUP_GARBAGE,
                                 .name = collect->at_once ? collect->kind : "",
                                 .experiment = "",
                                 .job_id = min_u64(collect->keep_ms, INT64_MAX / 1000)};
    return 1;
}

void retention_on_collect(struct core *core, const struct event_collect *event)
{
    const struct msg_collect *collect = event->collect;
    struct collected collected = {0};
    if (!event->is_operator) {
        answer_refused(core, ADDRESS_CLIENT, event->client, event->request_seq, ERR_DENIED,
                       "only operators and admins remove what is stored", NULL, 0);
        return;
    }
    uint64_t keep_ms = collect->at_once ? collect->keep_ms
                                        : (uint64_t)core->settings[SETTING_CODE_KEEP_MS];
    if (is_of_kind(collect, "code") && (collect->at_once || keep_ms > 0))
        collected.snapshots =
            snapshots_collect(core, min_u64(keep_ms, INT64_MAX / 1000), &collected.bytes);
    found_take_all(core, event, &collected);
    size_t count = collected.snapshots + collected.checkpoints + collected.artifacts +
                   collected.copies;
    const char *text = arena_printf(
        step_arena(core), "code %zu, checkpoints %zu, artifacts %zu, copies %zu, bytes %llu",
        collected.snapshots, collected.checkpoints, collected.artifacts, collected.copies,
        (unsigned long long)collected.bytes);
    core->collections += count > 0;
    if (count)
        history_add(core, "collected", 0, 0, 0, event->account, text);
    if (event->client)
        effects_release(core->effects, ADDRESS_CLIENT, event->client, MSG_DONE)->u.done =
            (struct msg_done){.request_seq = event->request_seq, .count = count, .text = text};
}

/* ---- the worker's word ------------------------------------------------------------------- */

void retention_on_removed(struct core *core, const struct event_removed *event)
{
    const struct msg_removed *removed = event->removed;
    struct removal *removal = NULL;
    struct worker *worker = worker_speaking(core, event->peer, event->request_seq,
                                            removed->worker_id, removed->incarnation);
    if (!worker)
        return;
    worker_seen(core, worker);
    HASH_FIND(hh, core->removals, &removed->removal_id, sizeof removed->removal_id, removal);
    if (!removal || removal->worker_id != worker->worker_id)
        return; /* a repeat */
    if (*removed->failure) { /* stands: tried again when it joins */
        history_add(core, "removal_failed", 0, 0, worker->worker_id, NULL,
                    text_clean(step_arena(core), removed->failure, strlen(removed->failure),
                               TEXT_KEPT_MAX));
        return;
    }
    struct row_removal row = {.removal_id = removal->removal_id, .done_at = core->wall_us};
    effects_persist(core->effects, ROW_TABLE_removal, PERSIST_UPDATE, &row);
    removal_drop(core, removal);
}

/* ---- looking in -------------------------------------------------------------------------- */

static int by_id(const void *left, const void *right)
{
    const struct removal *const *a = left, *const *b = right;
    return ((*a)->removal_id > (*b)->removal_id) - ((*a)->removal_id < (*b)->removal_id);
}

void removals_dump(const struct core *core, struct buf *out)
{
    size_t count = HASH_COUNT(core->removals), at = 0;
    const struct removal **sorted = mem_array(count + 1, sizeof *sorted);
    char hex[HASH_HEX_SIZE];
    for (const struct removal *removal = core->removals; removal; removal = removal->hh.next)
        sorted[at++] = removal;
    qsort(sorted, count, sizeof *sorted, by_id);
    for (size_t i = 0; i < count; i++) {
        hash_to_hex(&sorted[i]->content, hex);
        buf_printf(out, "removal %llu worker=%llu %s %.8s\n",
                   (unsigned long long)sorted[i]->removal_id,
                   (unsigned long long)sorted[i]->worker_id, sorted[i]->path, hex);
    }
    mem_free(sorted);
}

void removals_done(struct core *core)
{
    struct removal *removal, *next;
    HASH_ITER(hh, core->removals, removal, next)
    {
        removal_drop(core, removal);
    }
}
