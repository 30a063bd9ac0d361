/* copy.c - what can be had from where: originals, and copies that other workers keep.
 *
 * A checkpoint or dataset lies on the worker that made it. A worker that has fetched it keeps a
 * copy, by content, and tells all that it keeps at each join and whenever that changes; what it
 * does not name is gone. Rows say what was told last (copy.removed_at), and are also the record of
 * what was fetched from where. A copy is a hint: its worker may have lost it since, and whoever
 * asks there in vain asks the next source.
 *
 * Memory: COPIES_MAX x 250 B = 50 MB. */
#include "coordinator/core/state.h"

#include "common/base/parse.h"

#include <stdlib.h>
#include <string.h>

#define FETCHED_US_MAX 4102444800000000u /* 2100-01-01: a node's clock may be anywhere */

struct copy_key {
    uint64_t worker_id; /* compared as bytes: no padding */
    struct hash content;
};

struct copy {
    struct copy_key key;
    uint64_t copy_id, size_bytes, fetched_at;
    struct worker *worker;
    struct copied *of;
    bool is_dataset, told;
    char *source;
    struct copy *next, *previous; /* of the content, in order of worker_id */
    UT_hash_handle hh;
};

/* A content of which there are copies. */
struct copied {
    struct hash content;
    struct copy *first;
    size_t count;
    UT_hash_handle hh;
};

static struct copied *copied_find(const struct core *core, const struct hash *content)
{
    struct copied *copied = NULL;
    HASH_FIND(hh, core->copied, content, sizeof *content, copied);
    return copied;
}

static struct copy *copy_find(const struct core *core, const struct worker *worker,
                              const struct hash *content)
{
    struct copy_key key = {.worker_id = worker->worker_id, .content = *content};
    struct copy *copy = NULL;
    HASH_FIND(hh, core->copies, &key, sizeof key, copy);
    return copy;
}

/* ---- the lists ------------------------------------------------------------------------------- */

static void content_link(struct core *core, struct copy *copy)
{
    struct copied *copied = copied_find(core, &copy->key.content);
    struct copy *behind = NULL;
    if (!copied) {
        copied = mem_zalloc(sizeof *copied);
        copied->content = copy->key.content;
        HASH_ADD(hh, core->copied, content, sizeof copied->content, copied);
    }
    for (struct copy *at = copied->first; at && at->key.worker_id < copy->key.worker_id;
         at = at->next)
        behind = at;
    copy->of = copied;
    copy->previous = behind;
    copy->next = behind ? behind->next : copied->first;
    if (copy->next)
        copy->next->previous = copy;
    if (behind)
        behind->next = copy;
    else
        copied->first = copy;
    copied->count++;
}

static void content_unlink(struct core *core, struct copy *copy)
{
    struct copied *copied = copy->of;
    if (copy->next)
        copy->next->previous = copy->previous;
    if (copy->previous)
        copy->previous->next = copy->next;
    else
        copied->first = copy->next;
    if (--copied->count > 0)
        return;
    HASH_DEL(core->copied, copied);
    mem_free(copied);
}

static void copy_add(struct core *core, struct worker *worker, const struct row_copy *row)
{
    struct copy *copy = mem_zalloc(sizeof *copy);
    *copy = (struct copy){.key = {.worker_id = worker->worker_id, .content = row->content_hash},
                          .copy_id = row->copy_id,
                          .size_bytes = row->size_bytes,
                          .fetched_at = row->fetched_at,
                          .worker = worker,
                          .is_dataset = strcmp(row->kind, "dataset") == 0,
                          .told = true,
                          .source = mem_strdup(row->source ? row->source : "")};
    HASH_ADD(hh, core->copies, key, sizeof copy->key, copy);
    content_link(core, copy);
    list_add(&worker->copies, copy);
}

static void copy_free(struct core *core, struct copy *copy)
{
    HASH_DEL(core->copies, copy);
    content_unlink(core, copy);
    mem_free(copy->source);
    mem_free(copy);
}

void core_load_copy(struct core *core, const struct row_copy *row)
{
    struct worker *worker = worker_find(core, row->worker_id);
    CHECK(worker != NULL && row->removed_at == 0);
    copy_add(core, worker, row);
}

void copies_done(struct core *core)
{
    struct copy *copy, *next;
    HASH_ITER(hh, core->copies, copy, next)
    {
        copy_free(core, copy);
    }
}

/* ---- what a worker tells --------------------------------------------------------------------- */

/* A time that the column takes. */
static uint64_t fetched_at(const struct rec_held_copy *told)
{
    return max_u64(min_u64(told->fetched_us, FETCHED_US_MAX), 1);
}

/* One of the same content that came at another time is another copy: it was gone between. */
static bool is_known(const struct copy *copy, const struct rec_held_copy *told)
{
    return copy && copy->fetched_at == fetched_at(told);
}

/* Those not told any more; in order of copy_id, which is that of their coming. */
static void untold_remove(struct core *core, struct worker *worker)
{
    size_t kept = 0;
    for (size_t i = 0; i < worker->copies.count; i++) {
        struct copy *copy = worker->copies.items[i];
        if (copy->told) {
            worker->copies.items[kept++] = copy;
            continue;
        }
        struct row_copy row = {.copy_id = copy->copy_id, .removed_at = core->wall_us};
        effects_persist(core->effects, ROW_TABLE_copy, PERSIST_UPDATE, &row);
        copy_free(core, copy);
    }
    worker->copies.count = kept;
}

static void copy_make(struct core *core, struct worker *worker, const struct rec_held_copy *told)
{
    const char *source = told->source ? told->source : "";
    if (copy_find(core, worker, &told->content) || hash_is_zero(&told->content) ||
        HASH_COUNT(core->copies) >= COPIES_MAX)
        return;
    struct row_copy row = {
        .copy_id = ++core->ids.copy,
        .worker_id = worker->worker_id,
        .content_hash = told->content,
        .kind = told->is_dataset ? "dataset" : "checkpoint",
        .size_bytes = min_u64(told->size_bytes, INT64_MAX),
        .source = text_clean(step_arena(core), source, strlen(source), SPEC_NAME_BYTES_MAX),
        .fetched_at = fetched_at(told),
        .told_at = core->wall_us,
    };
    effects_persist(core->effects, ROW_TABLE_copy, PERSIST_INSERT, &row);
    copy_add(core, worker, &row);
}

void copies_take(struct core *core, struct worker *worker, const struct rec_held_copy *list,
                 size_t count)
{
    count = min_u64(count, COPIES_PER_WORKER_MAX);
    for (size_t i = 0; i < worker->copies.count; i++)
        ((struct copy *)worker->copies.items[i])->told = false;
    for (size_t i = 0; i < count; i++) {
        struct copy *copy = copy_find(core, worker, &list[i].content);
        if (is_known(copy, &list[i]))
            copy->told = true;
    }
    untold_remove(core, worker);
    for (size_t i = 0; i < count; i++)
        copy_make(core, worker, &list[i]);
}

void copies_on_copies(struct core *core, const struct event_copies *event)
{
    const struct msg_copies *told = event->copies;
    struct worker *worker = worker_speaking(core, event->peer, event->request_seq,
                                            told->worker_id, told->incarnation);
    if (!worker)
        return;
    worker_seen(core, worker);
    copies_take(core, worker, told->copies, told->copies_count);
}

/* ---- what an attempt reads ------------------------------------------------------------------- */

/* And where it was made. */
struct wanted {
    struct hash content;
    const char *path;
    uint64_t worker_id, size_bytes;
    bool is_dataset;
};

static void wanted_checkpoint(const struct checkpoint *checkpoint, struct wanted *out)
{
    *out = (struct wanted){.content = checkpoint->content,
                           .path = checkpoint->path,
                           .worker_id = checkpoint->worker_id,
                           .size_bytes = checkpoint->size_bytes};
}

/* False: nothing that could be copied. */
static bool input_wanted(const struct core *core, const struct input *input, struct wanted *out)
{
    const struct job *job = input->checkpoint_id || input->artifact_id
                                ? job_find(core, input->source_job_id)
                                : NULL;
    const struct checkpoint *checkpoint =
        job ? checkpoint_by_id(job, input->checkpoint_id) : NULL;
    const struct artifact *artifact = job ? artifact_by_id(job, input->artifact_id) : NULL;
    if (artifact)
        *out = (struct wanted){.worker_id = artifact->worker_id,
                               .size_bytes = artifact->size_bytes,
                               .is_dataset = true};
    else if (checkpoint)
        wanted_checkpoint(checkpoint, out);
    else
        return false;
    out->content = input->content;
    out->path = input->path;
    return !hash_is_zero(&out->content);
}

/* ---- sources of a START ---------------------------------------------------------------------- */

#define SOURCES_MAX  4u  /* of one content: as many permits go out with each START */
#define SOURCES_LOOK 64u /* copies looked at for them */
#define COPY_SPAN_MS 600000u /* a permit; each repeat of START, every few seconds, renews it */

struct source {
    const struct worker *worker;
    const char *path; /* "": its copy */
    uint32_t cost;    /* smaller first */
};

/* Away behind all others; then by the network between: the same switch, rack, neither. */
static uint32_t source_cost(const struct worker *source, const struct worker *reader)
{
    uint32_t cost = POLICY_LEVELS;
    for (size_t level = POLICY_LEVELS; level > 0; level--)
        if (source->group[level - 1] == reader->group[level - 1])
            cost = (uint32_t)level - 1;
    return cost + (worker_is_reachable(source) ? 0 : POLICY_LEVELS + 1);
}

/* Into the list of the best so far; of equals the first to come. */
static void source_put(struct source list[SOURCES_MAX], size_t *count, const struct worker *worker,
                       const char *path, const struct worker *reader)
{
    struct source source = {worker, path, 0};
    if (worker == reader || !worker->endpoint[0])
        return;
    source.cost = source_cost(worker, reader);
    size_t at = *count;
    while (at > 0 && list[at - 1].cost > source.cost)
        at--;
    if (at == SOURCES_MAX)
        return;
    *count = min_u64(*count + 1, SOURCES_MAX);
    memmove(list + at + 1, list + at, (*count - at - 1) * sizeof *list);
    list[at] = source;
}

/* Attempts begin at different copies, so that what many read is not given by one worker alone. */
static size_t sources_find(const struct core *core, const struct attempt *attempt,
                           const struct worker *reader, const struct wanted *wanted,
                           struct source out[SOURCES_MAX])
{
    const struct copied *copied = copied_find(core, &wanted->content);
    const struct worker *maker = worker_find(core, wanted->worker_id);
    const struct copy *copy = copied ? copied->first : NULL;
    size_t copies = copied ? copied->count : 0, first = attempt->attempt_id % (copies + 1);
    size_t count = 0;
    for (size_t i = 0; i < first; i++)
        copy = copy->next;
    for (size_t i = 0; i <= copies && i < SOURCES_LOOK; i++) {
        if (copy && copy->worker != maker)
            source_put(out, &count, copy->worker, "", reader);
        if (!copy && maker)
            source_put(out, &count, maker, wanted->path, reader);
        copy = copy ? copy->next : copied ? copied->first : NULL;
    }
    return count;
}

/* The worker is told, and named as a source; while it is away without an endpoint, and a repeat of
 * START tells when it is back. Where both see it at its path nothing is copied, which only they
 * can know. What no hash covers cannot be copied. */
static void source_name(struct core *core, const struct worker *reader, const struct wanted *wanted,
                        const struct source *source, struct rec_copy_source *out)
{
    struct arena *arena = step_arena(core);
    bool is_there = worker_is_reachable(source->worker);
    *out = (struct rec_copy_source){
        .content = wanted->content,
        .worker = arena_strdup(arena, source->worker->name),
        .endpoint = is_there ? arena_strdup(arena, source->worker->endpoint) : "",
        .public_key = arena_strdup(arena, source->worker->public_key),
        .is_dataset = wanted->is_dataset};
    if (!is_there)
        return;
    effects_release(core->effects, ADDRESS_WORKER, source->worker->peer, MSG_COPY_PERMIT)
        ->u.copy_permit = (struct msg_copy_permit){.content = wanted->content,
                                                   .path = arena_strdup(arena, source->path),
                                                   .public_key =
                                                       arena_strdup(arena, reader->public_key),
                                                   .span_ms = COPY_SPAN_MS};
}

size_t copies_sources(struct core *core, const struct part *part,
                      const struct checkpoint *resume, struct rec_copy_source **out)
{
    const struct job *job = part->attempt->job;
    const struct worker *reader = part->worker;
    struct wanted wanted;
    struct source sources[SOURCES_MAX];
    size_t count = 0;
    *out = arena_alloc(step_arena(core), (job->input_count + 1) * SOURCES_MAX * sizeof **out);
    if (!reader->public_key[0])
        return 0;
    for (size_t i = 0; i <= job->input_count; i++) {
        bool is_resume = i == job->input_count;
        if (is_resume ? !resume : !input_wanted(core, &job->inputs[i], &wanted))
            continue;
        if (is_resume)
            wanted_checkpoint(resume, &wanted);
        if (hash_is_zero(&wanted.content))
            continue;
        size_t found = sources_find(core, part->attempt, reader, &wanted, sources);
        for (size_t k = 0; k < found; k++)
            source_name(core, reader, &wanted, &sources[k], &(*out)[count++]);
    }
    return count;
}

/* ---- who has it ------------------------------------------------------------------------------ */

/* As input_resolve would find it now. */
static bool input_wanted_now(const struct core *core, const struct input *input,
                             struct wanted *out)
{
    const struct job *source = input->source_job_id ? job_find(core, input->source_job_id) : NULL;
    const struct checkpoint *checkpoint =
        source && input->ref.kind == SPEC_REF_CHECKPOINT ? input_checkpoint(source, &input->ref)
                                                         : NULL;
    const struct artifact *artifact = source && input->ref.kind == SPEC_REF_DATASET
                                          ? artifact_dataset(source, input->ref.name)
                                          : NULL;
    if (checkpoint)
        wanted_checkpoint(checkpoint, out);
    else if (artifact)
        *out = (struct wanted){.content = artifact->content,
                               .worker_id = artifact->worker_id,
                               .size_bytes = artifact->size_bytes};
    return (checkpoint || artifact) && !hash_is_zero(&out->content);
}

static void holder_add(struct policy_holder *list, size_t *count, const struct worker *worker,
                       uint64_t bytes)
{
    size_t at = 0;
    while (at < *count && list[at].worker_index != worker->index)
        at++;
    if (at == POLICY_HOLDERS_MAX)
        return;
    if (at == *count)
        list[(*count)++] = (struct policy_holder){.worker_index = worker->index};
    list[at].bytes += min_u64(max_u64(bytes, 1), UINT64_MAX - list[at].bytes);
}

/* Whoever made it and the first that keep copies: 64 of them for a job with one input. */
static void wanted_holders(const struct core *core, const struct wanted *wanted,
                           struct policy_holder *list, size_t *count)
{
    const struct worker *maker = worker_find(core, wanted->worker_id);
    const struct copied *copied = copied_find(core, &wanted->content);
    size_t looked = 0;
    if (maker)
        holder_add(list, count, maker, wanted->size_bytes);
    for (const struct copy *copy = copied ? copied->first : NULL;
         copy && looked++ < POLICY_HOLDERS_MAX; copy = copy->next)
        if (copy->worker != maker)
            holder_add(list, count, copy->worker, wanted->size_bytes);
}

static int most_first(const void *left, const void *right)
{
    const struct policy_holder *a = left, *b = right;
    if (a->bytes != b->bytes)
        return a->bytes > b->bytes ? -1 : 1;
    return (a->worker_index > b->worker_index) - (a->worker_index < b->worker_index);
}

size_t copies_holders(const struct core *core, const struct job *job,
                      struct policy_holder out[POLICY_HOLDERS_MAX])
{
    const struct checkpoint *resume = checkpoint_resume(job);
    struct wanted wanted;
    size_t count = 0;
    if (resume && !hash_is_zero(&resume->content)) {
        wanted_checkpoint(resume, &wanted);
        wanted_holders(core, &wanted, out, &count);
    }
    for (size_t i = 0; i < job->input_count; i++)
        if (input_wanted_now(core, &job->inputs[i], &wanted))
            wanted_holders(core, &wanted, out, &count);
    if (count)
        qsort(out, count, sizeof *out, most_first);
    return count;
}

/* ---- saying so ------------------------------------------------------------------------------- */

#define PLACES_TOLD 4u /* workers of one content */
#define INPUTS_TOLD 5u /* contents */

struct where {
    const struct core *core;
    const struct class *class;
    struct arena *arena;
    const char *text;
    size_t told;
    bool elsewhere; /* some worker that may take the job has not got all of it */
    bool cut_off;   /* of something no holder is there */
};

static const char *holder_text(const struct worker *worker, struct arena *arena)
{
    const char *why = !worker_is_reachable(worker) ? " (away)"
                      : worker->drained            ? " (drained)"
                      : worker_kept_away(worker)   ? " (kept from work)"
                                                   : "";
    return arena_printf(arena, "%s%s", worker->name, why);
}

static bool holds(const struct core *core, const struct worker *worker,
                  const struct wanted *wanted)
{
    return worker->worker_id == wanted->worker_id || copy_find(core, worker, &wanted->content);
}

static const char *places_text(const struct core *core, const struct wanted *wanted,
                               struct arena *arena, bool *out_there)
{
    const struct worker *maker = worker_find(core, wanted->worker_id);
    const struct copied *copied = copied_find(core, &wanted->content);
    const char *text = maker ? arena_printf(arena, "made on %s", holder_text(maker, arena))
                             : "made on a worker that is gone";
    size_t copies = 0, more = 0;
    *out_there = maker && worker_is_reachable(maker);
    for (const struct copy *copy = copied ? copied->first : NULL; copy; copy = copy->next) {
        *out_there = *out_there || worker_is_reachable(copy->worker);
        if (copy->worker == maker)
            continue;
        if (copies == PLACES_TOLD)
            more++;
        else
            text = arena_printf(arena, "%s%s%s", text, copies++ ? ", " : ", copied to ",
                                holder_text(copy->worker, arena));
    }
    return more ? arena_printf(arena, "%s and %zu more", text, more) : text;
}

static void where_add(struct where *where, const struct wanted *wanted, const char *name)
{
    const struct core *core = where->core;
    char size[PARSE_TEXT_SIZE];
    bool there;
    if (where->told == INPUTS_TOLD)
        return;
    const char *places = places_text(core, wanted, where->arena, &there);
    where->text = arena_printf(where->arena, "%s%s%s (%s) was %s", where->text,
                               where->told++ ? "; " : "", name,
                               format_size_short(wanted->size_bytes, size), places);
    where->cut_off = where->cut_off || !there;
    for (size_t i = 0; i < core->worker_count; i++)
        where->elsewhere = where->elsewhere || (worker_is_usable(core->workers[i]) &&
                                                class_allows(where->class, core->workers[i]) &&
                                                !holds(core, core->workers[i], wanted));
}

const char *copies_why(const struct core *core, const struct job *job, const struct class *class,
                       struct arena *arena, const char **out_remedy)
{
    const struct checkpoint *resume = checkpoint_resume(job);
    struct where where = {core, class, arena, "", 0, false, false};
    struct wanted wanted;
    if (resume && !hash_is_zero(&resume->content)) {
        wanted_checkpoint(resume, &wanted);
        where_add(&where, &wanted,
                  arena_printf(arena, "its checkpoint of step %llu",
                               (unsigned long long)resume->step));
    }
    for (size_t i = 0; i < job->input_count; i++)
        if (input_wanted_now(core, &job->inputs[i], &wanted))
            where_add(&where, &wanted, arena_printf(arena, "input '%s'", job->inputs[i].name));
    *out_remedy = where.cut_off
                      ? "a worker that has it comes back: until then only one that sees the same "
                        "path can run the job"
                      : "of workers that would do equally well the one with most of it gets the "
                        "job, any other copies it first unless it sees the same path";
    return where.told && (where.elsewhere || where.cut_off) ? where.text : NULL;
}

/* ---- looking in ------------------------------------------------------------------------------ */

void copies_dump(const struct worker *worker, struct buf *out)
{
    char hex[HASH_HEX_SIZE];
    for (size_t i = 0; i < worker->copies.count; i++) {
        const struct copy *copy = worker->copies.items[i];
        hash_to_hex(&copy->key.content, hex);
        buf_printf(out, "  copy %llu %s %.8s size=%llu from '%s' at=%llu\n",
                   (unsigned long long)copy->copy_id, copy->is_dataset ? "dataset" : "checkpoint",
                   hex, (unsigned long long)copy->size_bytes, copy->source,
                   (unsigned long long)copy->fetched_at);
    }
}
