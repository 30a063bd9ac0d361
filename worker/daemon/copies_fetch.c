/* copies_fetch.c - one checkpoint or dataset on its way here; see copies.h.
 *
 * One source is asked at a time. Its turn ends when its bytes are wrong, which is for good, or when
 * it has said nothing for a while and another one that can be reached is there. Turns get longer
 * with each round, so that sources which are all slow are waited for in the end. The file that was
 * under way begins anew at the next source, so that its hash is of one source's bytes. */
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "worker/daemon/copies.h"
#include "worker/daemon/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct source {
    char *worker, *endpoint, *public_key; /* endpoint "": away */
    bool bad;   /* gave wrong bytes, or cannot be connected to */
    bool wrong; /* the former */
    char *why; /* what kept it from giving at its newest turn; NULL: nothing yet */
};

struct copy_fetch {
    struct copy_fetch *next;
    struct daemon *daemon;
    struct hash content; /* of its index */
    bool is_dataset, done, failed;
    struct err why;
    char *path; /* where it is put together */
    struct source *sources;
    size_t source_count, source_capacity;
    size_t at;          /* the one that is asked */
    unsigned turns;     /* so far */
    uint64_t turn_ms;   /* when it was heard last, or its turn began */
    uint64_t heard_ms;  /* when any was heard last */
    bool refused;       /* its newest answer */

    struct peer *peer; /* to that source; NULL: not asked yet */
    struct loop_timer again;
    struct buf index;
    struct arena arena; /* holds files */
    struct copy_file *files;
    size_t file_count, file_at; /* file_at: the one being fetched */
    bool has_index;
    int fd; /* of that file; -1: none yet */
    uint64_t offset;
    struct hash_stream stream;
};

static void fetch_ask(struct copy_fetch *fetch);
static bool is_connected(const struct copy_fetch *fetch);
static void fetch_turn(struct copy_fetch *fetch);

struct copy_fetch *copy_fetch_find(const struct daemon *daemon, const struct hash *content)
{
    struct copy_fetch *fetch = daemon->copies->fetches;
    while (fetch && !hash_equal(&fetch->content, content))
        fetch = fetch->next;
    return fetch;
}

static const char *what_of(const struct copy_fetch *fetch)
{
    return fetch->is_dataset ? "dataset" : "checkpoint";
}

/* ---- files -------------------------------------------------------------------------------- */

static int file_begin(struct copy_fetch *fetch, struct err *err)
{
    char *path = mem_printf("%s/%s", fetch->path, fetch->files[fetch->file_at].name);
    char *slash = strrchr(path, '/');
    *slash = '\0';
    int rc = file_make_folders(path, 0755, err);
    *slash = '/';
    if (rc == 0) {
        fetch->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
        rc = fetch->fd < 0 ? err_errno(err, "make '%s'", path) : 0;
    }
    fetch->offset = 0;
    hash_start(&fetch->stream);
    mem_free(path);
    return rc;
}

static void file_close(struct copy_fetch *fetch)
{
    if (fetch->fd >= 0)
        close(fetch->fd);
    fetch->fd = -1;
    fetch->offset = 0;
}

/* Kept for later, so on the disk before it counts; most of it is there already (piece_take). */
static int file_end(struct copy_fetch *fetch, struct err *err)
{
    const struct copy_file *file = &fetch->files[fetch->file_at];
    struct hash found;
    hash_end(&fetch->stream, &found);
    int rc = fsync(fetch->fd) < 0 ? err_errno(err, "write '%s'", file->name) : 0;
    file_close(fetch);
    if (rc == 0 && !hash_equal(&found, &file->content))
        rc = err_set(err, ERR_PROTOCOL, "its file '%s' has another hash", file->name);
    if (rc == 0)
        fetch->file_at++;
    return rc;
}

/* The index comes last. */
static int fetch_finish(struct copy_fetch *fetch, struct err *err)
{
    struct daemon *daemon = fetch->daemon;
    struct copy_cache *cache = daemon->copies->cache;
    char *path = mem_printf("%s/%s", fetch->path, copy_index_name(fetch->is_dataset));
    int rc = file_replace(path, fetch->index.bytes, fetch->index.length, 0644, err);
    mem_free(path);
    if (rc == 0)
        rc = copy_cache_keep(cache, &fetch->content, fetch->is_dataset,
                             fetch->sources[fetch->at].worker, err);
    if (rc < 0)
        return -1;
    fetch->done = true;
    loop_timer_stop(&fetch->again);
    copies_trim(daemon);
    pending_wake(daemon);
    return 0;
}

/* Empty files need no asking. */
static int files_advance(struct copy_fetch *fetch, struct err *err)
{
    while (fetch->file_at < fetch->file_count) {
        if (fetch->fd < 0 && file_begin(fetch, err) < 0)
            return -1;
        if (fetch->offset < fetch->files[fetch->file_at].size_bytes)
            return 0;
        if (file_end(fetch, err) < 0)
            return -1;
    }
    return fetch_finish(fetch, err);
}

static int piece_take(struct copy_fetch *fetch, const struct msg_copy_data *data, struct err *err)
{
    const struct copy_file *file = &fetch->files[fetch->file_at];
    if (data->size_bytes != file->size_bytes || data->data.length == 0 ||
        data->data.length > file->size_bytes - fetch->offset)
        return err_set(err, ERR_PROTOCOL, "its file '%s' has another size", file->name);
    if (file_write_all(fetch->fd, data->data.bytes, data->data.length, err) < 0)
        return -1;
    /* Begins to write, waits for nothing: only a hint, fsync follows. */
    sync_file_range(fetch->fd, (off_t)fetch->offset, (off_t)data->data.length,
                    SYNC_FILE_RANGE_WRITE);
    hash_add(&fetch->stream, data->data.bytes, data->data.length);
    fetch->offset += data->data.length;
    return files_advance(fetch, err);
}

static int index_take(struct copy_fetch *fetch, struct err *err)
{
    struct hash found;
    uint64_t bytes = fetch->index.length;
    hash_bytes(fetch->index.bytes, fetch->index.length, &found);
    if (!hash_equal(&found, &fetch->content))
        return err_set(err, ERR_PROTOCOL, "its %s has another hash",
                       copy_index_name(fetch->is_dataset));
    if (copy_index_read(fetch->index.bytes, fetch->index.length, fetch->is_dataset, &fetch->arena,
                        &fetch->files, &fetch->file_count, err) < 0)
        return -1;
    fetch->has_index = true;
    for (size_t i = 0; i < fetch->file_count; i++)
        bytes += min_u64(fetch->files[i].size_bytes, UINT64_MAX - bytes);
    copy_cache_trim(fetch->daemon->copies->cache, bytes); /* room for it before it comes */
    return files_advance(fetch, err);
}

static int index_piece(struct copy_fetch *fetch, const struct msg_copy_data *data, struct err *err)
{
    if (data->size_bytes > COPY_MANIFEST_MAX || data->size_bytes == 0 || data->data.length == 0)
        return err_set(err, ERR_PROTOCOL, "its %s has %" PRIu64 " bytes",
                       copy_index_name(fetch->is_dataset), data->size_bytes);
    buf_add(&fetch->index, data->data.bytes, data->data.length);
    return fetch->index.length < data->size_bytes ? 0 : index_take(fetch, err);
}

/* ---- turns -------------------------------------------------------------------------------- */

/* The turn is over. What has come of its present file, or of the index, is thrown away. */
static void source_leave(struct copy_fetch *fetch)
{
    loop_timer_stop(&fetch->again);
    peer_close(fetch->peer);
    fetch->peer = NULL;
    file_close(fetch);
    if (!fetch->has_index)
        buf_clear(&fetch->index);
}

static void text_replace(char **text, const char *with)
{
    char *copy = mem_strdup(with);
    mem_free(*text);
    *text = copy;
}

static void source_blame(struct copy_fetch *fetch, const char *why)
{
    struct source *source = &fetch->sources[fetch->at];
    char hex[HASH_HEX_SIZE];
    hash_to_hex(&fetch->content, hex);
    text_replace(&source->why, why);
    log_warn("%s %.12s from worker '%s': %s", what_of(fetch), hex, source->worker, why);
}

/* Every source is named, with what kept it from giving. */
static void fetch_fail(struct copy_fetch *fetch, enum err_kind kind)
{
    struct buf text = {0};
    char hex[HASH_HEX_SIZE];
    hash_to_hex(&fetch->content, hex);
    buf_printf(&text, "%s %.12s is not on this worker", what_of(fetch), hex);
    for (size_t i = 0; i < fetch->source_count; i++) {
        const struct source *source = &fetch->sources[i];
        buf_printf(&text, "%s from '%s': %s", i ? ";" : ", and", source->worker,
                   source->why            ? source->why
                   : !source->endpoint[0] ? "it is away"
                                          : "it was not asked");
    }
    err_set(&fetch->why, kind, "%s", buf_text(&text));
    buf_done(&text);
    fetch->failed = true;
    pending_wake(fetch->daemon);
}

/* Index of the next one that may be asked, cyclically from behind the present one; the count when
 * there is none but perhaps the present one. */
static size_t source_next(const struct copy_fetch *fetch)
{
    for (size_t i = 1; i < fetch->source_count; i++) {
        size_t at = (fetch->at + i) % fetch->source_count;
        if (!fetch->sources[at].bad && fetch->sources[at].endpoint[0])
            return at;
    }
    return fetch->source_count;
}

/* This source has nothing more to give. */
static void source_is_bad(struct copy_fetch *fetch, const struct err *why)
{
    bool all_bad = true, all_wrong = true;
    source_blame(fetch, why->text);
    fetch->sources[fetch->at].bad = true;
    fetch->sources[fetch->at].wrong = why->kind == ERR_PROTOCOL;
    source_leave(fetch);
    for (size_t i = 0; i < fetch->source_count; i++) {
        all_bad = all_bad && fetch->sources[i].bad;
        all_wrong = all_wrong && fetch->sources[i].wrong;
    }
    if (all_bad) {
        fetch_fail(fetch, all_wrong ? ERR_PROTOCOL : ERR_NOT_FOUND);
        return;
    }
    size_t next = source_next(fetch);
    for (size_t i = 0; next == fetch->source_count; i++)
        if (!fetch->sources[i].bad)
            next = i; /* away: waited for */
    fetch->at = next;
    fetch_turn(fetch);
}

/* Of what was taken in: wrong bytes are the source's fault, anything else (a full disk) is ours. */
static void fetch_fault(struct copy_fetch *fetch, const struct err *why)
{
    if (why->kind == ERR_PROTOCOL) {
        source_is_bad(fetch, why);
        return;
    }
    source_leave(fetch);
    fetch->why = *why;
    fetch->failed = true;
    err_wrap(&fetch->why, "copying a %s here", what_of(fetch));
    pending_wake(fetch->daemon);
}

static void on_source_up(void *user, const struct msg_welcome *welcome)
{
    (void)welcome;
    fetch_ask(user);
}

static void on_source_message(void *user, const struct envelope *envelope,
                              const struct message *message)
{
    struct copy_fetch *fetch = user;
    struct err err;
    uint64_t want = fetch->has_index ? fetch->offset : fetch->index.length;
    (void)envelope;
    if (message->tag == MSG_REFUSED && !fetch->done) {
        fetch->refused = true;
        text_replace(&fetch->sources[fetch->at].why, message->u.refused.text);
        loop_timer_start(fetch->daemon->loop, &fetch->again, COPY_ASK_AGAIN_MS);
        return;
    }
    if (message->tag != MSG_COPY_DATA || message->u.copy_data.offset != want || fetch->done)
        return;
    fetch->refused = false;
    fetch->heard_ms = fetch->turn_ms = clock_steady_ms();
    int rc = fetch->has_index ? piece_take(fetch, &message->u.copy_data, &err)
                              : index_piece(fetch, &message->u.copy_data, &err);
    if (rc < 0)
        fetch_fault(fetch, &err);
    else if (!fetch->done)
        fetch_ask(fetch);
}

static bool is_connected(const struct copy_fetch *fetch)
{
    return fetch->peer && peer_is_up(fetch->peer);
}

/* Doubled after each round, so that slow ones are waited for at last. */
static uint64_t turn_length(const struct copy_fetch *fetch)
{
    uint64_t rounds = min_u64(fetch->turns / fetch->source_count, 10);
    bool gives = !fetch->refused && is_connected(fetch);
    return (uint64_t)(gives ? COPY_TURN_MS : COPY_REFUSED_MS) << rounds;
}

static void turn_is_over(struct copy_fetch *fetch, uint64_t silent_ms, size_t next)
{
    struct source *source = &fetch->sources[fetch->at];
    if (!fetch->refused) {
        char *why = mem_printf("no answer for %" PRIu64 " s", silent_ms / 1000);
        source_blame(fetch, why);
        mem_free(why);
    } else {
        log_warn("worker '%s' refuses a copy: %s", source->worker, source->why);
    }
    source_leave(fetch);
    fetch->at = next;
    fetch_turn(fetch);
}

static void on_again(void *user)
{
    struct copy_fetch *fetch = user;
    struct source *source = &fetch->sources[fetch->at];
    uint64_t now_ms = clock_steady_ms(), silent_ms = now_ms - fetch->turn_ms;
    size_t next = source_next(fetch);
    bool is_away = !source->endpoint[0];
    if (now_ms - fetch->heard_ms >= COPY_WAIT_MS) {
        char *why = mem_printf("%s for %u s%s%s", is_away ? "away" : "no answer",
                               COPY_WAIT_MS / 1000, fetch->refused ? ": " : "",
                               fetch->refused ? source->why : "");
        source_blame(fetch, why);
        mem_free(why);
        source_leave(fetch);
        fetch_fail(fetch, ERR_TIMEOUT);
    } else if (next < fetch->source_count && (is_away || silent_ms >= turn_length(fetch))) {
        turn_is_over(fetch, silent_ms, next);
    } else {
        fetch_ask(fetch);
    }
}

/* Asked again when no answer comes; two answers to one question are told apart by the offset. */
static void fetch_ask(struct copy_fetch *fetch)
{
    struct message message = {.tag = MSG_COPY_GET};
    struct err err;
    loop_timer_start(fetch->daemon->loop, &fetch->again,
                     is_connected(fetch) ? 10 * COPY_ASK_AGAIN_MS : COPY_REFUSED_MS);
    message.u.copy_get =
        (struct msg_copy_get){.content = fetch->content,
                              .name = fetch->has_index ? fetch->files[fetch->file_at].name
                                                       : copy_index_name(fetch->is_dataset),
                              .offset = fetch->has_index ? fetch->offset : fetch->index.length,
                              .length = COPY_PIECE_BYTES};
    if (is_connected(fetch) &&
        peer_send(fetch->peer, &message, NULL, &err) < 0)
        loop_timer_start(fetch->daemon->loop, &fetch->again, COPY_ASK_AGAIN_MS);
}

static int source_connect(struct copy_fetch *fetch, struct err *err)
{
    struct daemon *daemon = fetch->daemon;
    struct source *source = &fetch->sources[fetch->at];
    const char *endpoint = source->endpoint;
    struct peer_config config = {.endpoints = &endpoint,
                                 .endpoint_count = 1,
                                 .server_key = source->public_key,
                                 .keys = &daemon->keys,
                                 .program = "athanor-worker",
                                 .version = ATHANOR_VERSION,
                                 .user = fetch,
                                 .on_up = on_source_up,
                                 .on_message = on_source_message};
    if (!endpoint[0])
        return 0; /* away: a repeated START tells when it is back */
    if (peer_open(daemon->loop, &config, &fetch->peer, err) == 0)
        return 0;
    fetch->peer = NULL;
    return -1;
}

static void fetch_turn(struct copy_fetch *fetch)
{
    struct err err;
    fetch->turns++;
    fetch->refused = false;
    fetch->turn_ms = clock_steady_ms();
    if (fetch->has_index && files_advance(fetch, &err) < 0)
        fetch_fault(fetch, &err);
    else if (!fetch->done && source_connect(fetch, &err) < 0)
        source_is_bad(fetch, &err);
    else if (!fetch->done)
        fetch_ask(fetch);
}

/* ---- beginning and ending ------------------------------------------------------------------ */

static struct source *source_find(struct copy_fetch *fetch, const char *worker)
{
    for (size_t i = 0; i < fetch->source_count; i++)
        if (strcmp(fetch->sources[i].worker, worker) == 0)
            return &fetch->sources[i];
    return NULL;
}

/* A worker that was restarted is reached elsewhere. What has come so far stays: it is hashed. */
static void source_take(struct copy_fetch *fetch, const struct rec_copy_source *told)
{
    struct source *known = source_find(fetch, told->worker);
    if (!known) {
        VEC_RESERVE(fetch->sources, fetch->source_count, fetch->source_capacity);
        fetch->sources[fetch->source_count++] =
            (struct source){.worker = mem_strdup(told->worker),
                            .endpoint = mem_strdup(told->endpoint),
                            .public_key = mem_strdup(told->public_key)};
        return;
    }
    if (!told->endpoint[0] || (strcmp(known->endpoint, told->endpoint) == 0 &&
                               strcmp(known->public_key, told->public_key) == 0))
        return;
    text_replace(&known->endpoint, told->endpoint);
    text_replace(&known->public_key, told->public_key);
    if (known != &fetch->sources[fetch->at] || fetch->turns == 0 || fetch->done || fetch->failed)
        return;
    source_leave(fetch);
    fetch_turn(fetch);
}

static struct copy_fetch *fetch_new(struct daemon *daemon, const struct hash *content)
{
    struct copy_fetch *fetch = mem_zalloc(sizeof *fetch);
    *fetch = (struct copy_fetch){.next = daemon->copies->fetches,
                                 .daemon = daemon,
                                 .content = *content,
                                 .path = copy_cache_part(daemon->copies->cache, content),
                                 .heard_ms = clock_steady_ms(),
                                 .fd = -1};
    fetch->again = (struct loop_timer){.fire = on_again, .user = fetch};
    daemon->copies->fetches = fetch;
    return fetch;
}

/* One that is done stays till its last attempt goes; its copy may have been removed since. */
struct copy_fetch *copy_fetch_want(struct daemon *daemon, const struct msg_start *start,
                                   const struct hash *content)
{
    struct copy_fetch *fetch = copy_fetch_find(daemon, content);
    struct err err;
    if (fetch && fetch->done) {
        copy_fetch_end(fetch);
        fetch = NULL;
    }
    if (!fetch)
        fetch = fetch_new(daemon, content);
    for (size_t i = 0; i < start->sources_count && !fetch->failed; i++) {
        if (!hash_equal(&start->sources[i].content, content))
            continue;
        fetch->is_dataset = start->sources[i].is_dataset;
        source_take(fetch, &start->sources[i]);
    }
    if (fetch->turns > 0 || fetch->failed)
        return fetch;
    if (fetch->source_count == 0) { /* its copy was thrown away, and nobody has another */
        fetch_fail(fetch, ERR_NOT_FOUND);
    } else if (file_make_folders(fetch->path, 0755, &err) < 0) {
        fetch->why = err;
        fetch->failed = true;
    } else {
        while (fetch->at + 1 < fetch->source_count && !fetch->sources[fetch->at].endpoint[0])
            fetch->at++; /* the first that can be reached */
        if (!fetch->sources[fetch->at].endpoint[0])
            fetch->at = 0;
        fetch_turn(fetch);
    }
    return fetch;
}

const struct err *copy_fetch_failure(const struct copy_fetch *fetch)
{
    return fetch->failed ? &fetch->why : NULL;
}

void copy_fetch_end(struct copy_fetch *gone)
{
    struct copy_fetch **at = &gone->daemon->copies->fetches;
    struct err err;
    while (*at != gone)
        at = &(*at)->next;
    *at = gone->next;
    source_leave(gone);
    if (file_remove_tree(gone->path, &err) < 0)
        log_warn("%s", err.text);
    for (size_t i = 0; i < gone->source_count; i++) {
        mem_free(gone->sources[i].worker);
        mem_free(gone->sources[i].endpoint);
        mem_free(gone->sources[i].public_key);
        mem_free(gone->sources[i].why);
    }
    mem_free(gone->sources);
    buf_done(&gone->index);
    arena_done(&gone->arena);
    mem_free(gone->path);
    mem_free(gone);
}
