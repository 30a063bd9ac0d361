/* snapshot.c - archives of code: which are stored, how far those being sent have come, who needs
 * them.
 *
 * Chunks come in order, so that the number of those stored is all there is to know about a
 * transfer, and it is in the row: a client that was cut off, or meets another leader, offers again
 * and goes on. Each chunk is checked against the offered hashes, and those against the hash of the
 * whole, before it becomes a row. */
#include "coordinator/core/state.h"

#include "common/base/buf.h"
#include "common/base/chunks.h"

#include <stdlib.h>
#include <string.h>

static struct snapshot *snapshot_find(const struct core *core, const struct hash *content)
{
    struct snapshot *snapshot;
    HASH_FIND(hh, core->snapshots, content, sizeof *content, snapshot);
    return snapshot;
}

static void snapshot_mark(struct core *core, struct snapshot *snapshot)
{
    if (snapshot->dirty)
        return;
    snapshot->dirty = true;
    list_add(&core->dirty_snapshots, snapshot);
}

static bool is_complete(const struct snapshot *snapshot)
{
    return snapshot->chunks_stored == snapshot->chunk_count;
}

static struct snapshot *snapshot_add(struct core *core, uint64_t snapshot_id,
                                     const struct hash *content, uint64_t size_bytes,
                                     uint64_t chunks_stored, const void *chunks)
{
    struct snapshot *snapshot = mem_zalloc(sizeof *snapshot);
    *snapshot = (struct snapshot){.content = *content,
                                  .snapshot_id = snapshot_id,
                                  .size_bytes = size_bytes,
                                  .chunks_stored = chunks_stored,
                                  .chunk_count = chunks_count(size_bytes)};
    if (!is_complete(snapshot)) {
        snapshot->chunks = mem_array(snapshot->chunk_count, sizeof *snapshot->chunks);
        memcpy(snapshot->chunks, chunks, snapshot->chunk_count * sizeof *snapshot->chunks);
        core->uploads++;
    }
    HASH_ADD(hh, core->snapshots, content, sizeof snapshot->content, snapshot);
    return snapshot;
}

static void snapshot_free(struct snapshot *snapshot)
{
    mem_free(snapshot->chunks);
    mem_free(snapshot->account);
    mem_free(snapshot);
}

void core_load_snapshot(struct core *core, const struct row_snapshot *row)
{
    if (row->removed_at)
        return;
    CHECK(row->chunk_hashes.length == chunks_count(row->size_bytes) * HASH_BYTES);
    struct snapshot *snapshot =
        snapshot_add(core, row->snapshot_id, &row->content_hash, row->size_bytes,
                     row->chunks_stored, row->chunk_hashes.bytes);
    snapshot->created_at = row->created_at;
    snapshot->used_at = row->used_at;
    text_set(&snapshot->account, row->account ? row->account : "");
}

/* ---- transfers --------------------------------------------------------------------------- */

static void refuse(struct core *core, const struct event_code *event, enum err_kind kind,
                   const char *text)
{
    answer_refused(core, ADDRESS_CLIENT, event->client, event->request_seq, kind, text, NULL, 0);
}

/* What is stored may be told at once; this answer waits for the batch that makes it so. */
static void answer_state(struct core *core, const struct event_code *event,
                         const struct snapshot *snapshot)
{
    effects_release(core->effects, ADDRESS_CLIENT, event->client, MSG_CODE_STATE)->u.code_state =
        (struct msg_code_state){.request_seq = event->request_seq,
                                .stored = snapshot->chunks_stored,
                                .total = snapshot->chunk_count};
}

static bool offer_is_sound(const struct msg_code_offer *offer)
{
    struct hash whole, each[CHUNKS_MAX];
    size_t count = chunks_count(offer->size_bytes);
    if (count == 0 || offer->chunks.length != count * sizeof *each)
        return false;
    memcpy(each, offer->chunks.bytes, offer->chunks.length);
    chunks_hash(offer->size_bytes, each, count, &whole);
    return hash_equal(&whole, &offer->content);
}

/* NULL after refusing. */
static struct snapshot *snapshot_make(struct core *core, const struct event_code *event)
{
    const struct msg_code_offer *offer = event->offer;
    if (HASH_COUNT(core->snapshots) >= SNAPSHOTS_MAX || core->uploads >= UPLOADS_MAX) {
        refuse(core, event, ERR_LIMIT,
               arena_printf(step_arena(core),
                            "%u archives of code are stored, %llu of them not complete; at most "
                            "%u and %u are kept: `athanor gc` removes what nothing needs",
                            HASH_COUNT(core->snapshots), (unsigned long long)core->uploads,
                            SNAPSHOTS_MAX, UPLOADS_MAX));
        return NULL;
    }
    struct snapshot *snapshot = snapshot_add(core, ++core->ids.snapshot, &offer->content,
                                             offer->size_bytes, 0, offer->chunks.bytes);
    snapshot->is_new = true;
    snapshot->created_at = core->wall_us;
    text_set(&snapshot->account, event->account);
    struct row_snapshot row = {.snapshot_id = snapshot->snapshot_id,
                               .content_hash = snapshot->content,
                               .size_bytes = snapshot->size_bytes,
                               .chunk_hashes = {offer->chunks.bytes, offer->chunks.length},
                               .account = snapshot->account,
                               .created_at = snapshot->created_at,
                               .used_at = core->wall_us};
    effects_persist(core->effects, ROW_TABLE_snapshot, PERSIST_INSERT, &row);
    return snapshot;
}

void snapshot_on_offer(struct core *core, const struct event_code *event)
{
    if (!offer_is_sound(event->offer)) {
        refuse(core, event, ERR_INVALID,
               "the offered archive is empty, larger than 64 MiB, or its hash is not the one of "
               "its chunks");
        return;
    }
    struct snapshot *snapshot = snapshot_find(core, &event->offer->content);
    if (!snapshot)
        snapshot = snapshot_make(core, event);
    if (!snapshot)
        return;
    snapshot->used_at = core->wall_us;
    snapshot_mark(core, snapshot);
    answer_state(core, event, snapshot);
}

static void chunk_store(struct core *core, struct snapshot *snapshot,
                        const struct msg_code_put *put)
{
    struct row_snapshot_chunk row = {.snapshot_id = snapshot->snapshot_id,
                                     .chunk = put->chunk,
                                     .bytes = {put->data.bytes, put->data.length}};
    effects_persist(core->effects, ROW_TABLE_snapshot_chunk, PERSIST_INSERT, &row);
    snapshot->chunks_stored++;
    snapshot_mark(core, snapshot);
    if (!is_complete(snapshot))
        return;
    mem_free(snapshot->chunks);
    snapshot->chunks = NULL;
    core->uploads--;
}

void snapshot_on_put(struct core *core, const struct event_code *event)
{
    const struct msg_code_put *put = event->put;
    struct snapshot *snapshot = snapshot_find(core, &put->content);
    struct hash found;
    if (!snapshot || put->chunk > snapshot->chunks_stored || put->chunk >= snapshot->chunk_count) {
        refuse(core, event, ERR_NOT_FOUND,
               "this chunk was not asked for: offer the archive, then send its chunks in order");
        return;
    }
    if (put->chunk == snapshot->chunks_stored) {
        hash_bytes(put->data.bytes, put->data.length, &found);
        if (put->data.length != chunk_bytes(snapshot->size_bytes, (size_t)put->chunk) ||
            !hash_equal(&found, &snapshot->chunks[put->chunk])) {
            refuse(core, event, ERR_PROTOCOL,
                   "the chunk is not the one that was offered: its hash is another");
            return;
        }
        chunk_store(core, snapshot, put);
    }
    answer_state(core, event, snapshot);
}

/* ---- who needs them ---------------------------------------------------------------------- */

const char *snapshot_fault(const struct core *core, const struct hash *content)
{
    const struct snapshot *snapshot = snapshot_find(core, content);
    if (!snapshot)
        return "is not stored: it was never sent, or retention has removed it";
    return is_complete(snapshot) ? NULL : "has not been sent to its end";
}

void snapshot_hold(struct core *core, const struct hash *content)
{
    struct snapshot *snapshot = snapshot_find(core, content);
    if (snapshot)
        snapshot->jobs++;
}

void snapshot_release(struct core *core, const struct hash *content)
{
    struct snapshot *snapshot = snapshot_find(core, content);
    if (!snapshot)
        return;
    CHECK(snapshot->jobs > 0);
    snapshot->jobs--;
    snapshot->used_at = core->wall_us;
    snapshot_mark(core, snapshot);
}

/* ---- retention --------------------------------------------------------------------------- */

#define UPLOAD_KEEP_MS 86400000u /* a transfer that nobody has gone on with */

/* What a living job runs stays, whatever its age: it may be retried, or wait for weeks. */
static bool is_garbage(const struct core *core, const struct snapshot *snapshot, uint64_t keep_ms)
{
    uint64_t keep = is_complete(snapshot) ? keep_ms : min_u64(keep_ms, UPLOAD_KEEP_MS);
    return snapshot->jobs == 0 && !snapshot->dirty && snapshot->used_at <= core->wall_us &&
           core->wall_us - snapshot->used_at >= keep * 1000;
}

static void snapshot_remove(struct core *core, struct snapshot *snapshot)
{
    char hex[HASH_HEX_SIZE];
    struct row_snapshot row = {.snapshot_id = snapshot->snapshot_id,
                               .chunks_stored = snapshot->chunks_stored,
                               .used_at = snapshot->used_at,
                               .removed_at = core->wall_us};
    hash_to_hex(&snapshot->content, hex);
    effects_persist(core->effects, ROW_TABLE_snapshot, PERSIST_UPDATE, &row);
    history_add(core, "code_removed", 0, 0, 0, snapshot->account,
                arena_printf(step_arena(core), "%s, %llu bytes", hex,
                             (unsigned long long)snapshot->size_bytes));
    core->uploads -= !is_complete(snapshot);
    HASH_DEL(core->snapshots, snapshot);
    snapshot_free(snapshot);
}

/* uthash keeps the order of insertion, which is that of the ids. */
size_t snapshots_collect(struct core *core, uint64_t keep_ms, uint64_t *bytes)
{
    struct snapshot *snapshot, *next;
    size_t count = 0;
    HASH_ITER(hh, core->snapshots, snapshot, next)
    {
        if (!is_garbage(core, snapshot, keep_ms))
            continue;
        *bytes += snapshot->size_bytes;
        snapshot_remove(core, snapshot);
        count++;
    }
    return count;
}

/* ---- rows, dump, check ------------------------------------------------------------------- */

void snapshots_flush(struct core *core)
{
    for (size_t i = 0; i < core->dirty_snapshots.count; i++) {
        struct snapshot *snapshot = core->dirty_snapshots.items[i];
        struct row_snapshot row = {.snapshot_id = snapshot->snapshot_id,
                                   .chunks_stored = snapshot->chunks_stored,
                                   .used_at = snapshot->used_at};
        effects_persist(core->effects, ROW_TABLE_snapshot, PERSIST_UPDATE, &row);
        snapshot->dirty = false;
    }
    core->dirty_snapshots.count = 0;
}

void snapshots_done(struct core *core)
{
    struct snapshot *snapshot, *next;
    HASH_ITER(hh, core->snapshots, snapshot, next)
    {
        HASH_DEL(core->snapshots, snapshot);
        snapshot_free(snapshot);
    }
}

static int by_id(const void *left, const void *right)
{
    const struct snapshot *const *a = left, *const *b = right;
    return ((*a)->snapshot_id > (*b)->snapshot_id) - ((*a)->snapshot_id < (*b)->snapshot_id);
}

void snapshots_dump(const struct core *core, struct buf *out)
{
    size_t count = HASH_COUNT(core->snapshots), at = 0;
    struct snapshot **sorted = mem_array(count + 1, sizeof *sorted), *snapshot, *next;
    char hex[HASH_HEX_SIZE];
    HASH_ITER(hh, core->snapshots, snapshot, next)
    {
        sorted[at++] = snapshot;
    }
    qsort(sorted, count, sizeof *sorted, by_id);
    for (size_t i = 0; i < count; i++) {
        hash_to_hex(&sorted[i]->content, hex);
        buf_printf(out, "snapshot %llu %.8s size=%llu stored=%llu/%llu by %s jobs=%llu used=%llu\n",
                   (unsigned long long)sorted[i]->snapshot_id, hex,
                   (unsigned long long)sorted[i]->size_bytes,
                   (unsigned long long)sorted[i]->chunks_stored,
                   (unsigned long long)sorted[i]->chunk_count, sorted[i]->account,
                   (unsigned long long)sorted[i]->jobs, (unsigned long long)sorted[i]->used_at);
    }
    mem_free(sorted);
}

const char *snapshots_check(const struct core *core, struct arena *arena)
{
    struct snapshot *snapshot, *next;
    struct job *job, *next_job;
    uint64_t uploads = 0, held = 0, needed = 0;
    HASH_ITER(hh, core->snapshots, snapshot, next)
    {
        if (snapshot->chunks_stored > snapshot->chunk_count ||
            is_complete(snapshot) != (snapshot->chunks == NULL))
            return arena_printf(arena, "snapshot %llu has stored %llu of %llu chunks",
                                (unsigned long long)snapshot->snapshot_id,
                                (unsigned long long)snapshot->chunks_stored,
                                (unsigned long long)snapshot->chunk_count);
        uploads += !is_complete(snapshot);
        held += snapshot->jobs;
    }
    HASH_ITER(hh_id, core->jobs, job, next_job)
    {
        needed += job->code && !job_state_is_terminal(job->state) &&
                  snapshot_fault(core, job->code) == NULL;
    }
    if (uploads != core->uploads || held != needed)
        return arena_printf(arena, "snapshots are miscounted: %llu uploads, %llu of %llu jobs",
                            (unsigned long long)uploads, (unsigned long long)held,
                            (unsigned long long)needed);
    return NULL;
}
