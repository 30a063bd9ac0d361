/* copies.c - the receiving end; see copies.h. */
#include "worker/daemon/copies.h"

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "worker/attempt/folder.h"
#include "worker/daemon/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct file { /* of a manifest */
    const char *name;
    uint64_t size_bytes;
    struct hash content;
};

struct copy {
    struct copy *next;
    struct fetching *fetching;
    struct hash content; /* of its index */
    const char *index;   /* the file that lists the others: manifest.json or dataset.json */
    char *path;          /* where it is put together */
    size_t source;       /* index in START's sources that is asked */
    bool done;

    struct peer *peer; /* to that source; NULL: not asked yet */
    struct loop_timer again;
    uint64_t heard_ms;
    struct buf manifest;
    struct arena arena; /* holds files */
    struct file *files;
    size_t file_count, at; /* at: the one being fetched */
    bool has_manifest;
    int fd; /* of that file; -1: none yet */
    uint64_t offset;
    struct hash_stream stream;
};

struct fetching { /* of one attempt */
    struct fetching *next;
    struct daemon *daemon;
    uint64_t attempt_id;
    char *folder;
    struct arena arena; /* holds start */
    struct msg_start start;
    struct copy *copies;
    bool failed;
    struct err why; /* of the last source that failed */
};

static void copy_ask(struct copy *copy);

/* ---- what is here ------------------------------------------------------------------------- */

static char *copy_name(const struct hash *content)
{
    char hex[HASH_HEX_SIZE];
    hash_to_hex(content, hex);
    return mem_strdup(hex);
}

static const char *what_of(const struct copy *copy)
{
    return copy->index[0] == 'd' ? "dataset" : "checkpoint";
}

/* Another one may lie at the same path: an earlier attempt of the job saved that step here. */
static bool is_here(const char *path, const char *index, const struct hash *content)
{
    struct hash found;
    struct err err;
    char *file = mem_printf("%s/%s", path, index);
    bool here = hash_file(file, &found, &err) == 0 && hash_equal(&found, content);
    mem_free(file);
    return here;
}

/* Index of the next source that has it, from `from`; sources_count: none. */
static size_t source_next(const struct msg_start *start, const struct hash *content, size_t from)
{
    size_t i = from;
    while (i < start->sources_count && !hash_equal(&start->sources[i].content, content))
        i++;
    return i;
}

static struct fetching *fetching_find(const struct daemon *daemon, uint64_t attempt_id)
{
    struct fetching *fetching = daemon->copies->fetching;
    while (fetching && fetching->attempt_id != attempt_id)
        fetching = fetching->next;
    return fetching;
}

/* ---- the manifest ------------------------------------------------------------------------- */

static int file_take(struct copy *copy, const json_t *entry, struct err *err)
{
    const char *name = json_string_value(json_object_get(entry, "name"));
    const char *hex = json_string_value(json_object_get(entry, "blake2b"));
    const json_t *size = json_object_get(entry, "size_bytes");
    struct file *file = &copy->files[copy->file_count];
    if (!name || !copy_name_is_inside(name) || strcmp(name, copy->index) == 0 ||
        !json_is_integer(size) || json_integer_value(size) < 0 || !hex ||
        hash_from_hex(hex, &file->content, err) < 0)
        return err_set(err, ERR_PROTOCOL, "its %s lists '%.100s' without size or hash",
                       copy->index, name ? name : "");
    file->name = arena_strdup(&copy->arena, name);
    file->size_bytes = (uint64_t)json_integer_value(size);
    copy->file_count++;
    return 0;
}

static int manifest_take(struct copy *copy, struct err *err)
{
    struct hash found;
    hash_bytes(copy->manifest.bytes, copy->manifest.length, &found);
    if (!hash_equal(&found, &copy->content))
        return err_set(err, ERR_PROTOCOL, "its %s has another hash", copy->index);
    json_t *root = json_loadb(copy->manifest.bytes, copy->manifest.length,
                              JSON_REJECT_DUPLICATES, NULL);
    const json_t *files = json_object_get(root, "files");
    size_t count = json_array_size(files);
    int rc = count > 0 && count <= COPY_FILES_MAX
                 ? 0
                 : err_set(err, ERR_PROTOCOL,
                           "its %s lists no files with their hashes, or more than %u: it can be "
                           "used where it was made or on a shared file system, or be made anew",
                           copy->index, COPY_FILES_MAX);
    if (rc == 0)
        copy->files = arena_alloc(&copy->arena, count * sizeof *copy->files);
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = file_take(copy, json_array_get(files, i), err);
    json_decref(root);
    copy->has_manifest = rc == 0;
    return rc;
}

/* ---- files -------------------------------------------------------------------------------- */

static int file_begin(struct copy *copy, struct err *err)
{
    char *path = mem_printf("%s/%s", copy->path, copy->files[copy->at].name);
    char *slash = strrchr(path, '/');
    *slash = '\0';
    int rc = file_make_folders(path, 0755, err);
    *slash = '/';
    if (rc == 0) {
        copy->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
        rc = copy->fd < 0 ? err_errno(err, "make '%s'", path) : 0;
    }
    copy->offset = 0;
    hash_start(&copy->stream);
    mem_free(path);
    return rc;
}

static int file_end(struct copy *copy, struct err *err)
{
    const struct file *file = &copy->files[copy->at];
    struct hash found;
    hash_end(&copy->stream, &found);
    close(copy->fd);
    copy->fd = -1;
    copy->at++;
    return hash_equal(&found, &file->content)
               ? 0
               : err_set(err, ERR_PROTOCOL, "its file '%s' has another hash", file->name);
}

/* The index comes last, so that a copy with one is whole. */
static int copy_end(struct copy *copy, struct err *err)
{
    char *path = mem_printf("%s/%s", copy->path, copy->index);
    int rc = file_replace(path, copy->manifest.bytes, copy->manifest.length, 0644, err);
    mem_free(path);
    if (rc < 0)
        return -1;
    copy->done = true;
    loop_timer_stop(&copy->again);
    pending_wake(copy->fetching->daemon);
    return 0;
}

/* Empty files need no asking. */
static int files_advance(struct copy *copy, struct err *err)
{
    while (copy->at < copy->file_count) {
        if (copy->fd < 0 && file_begin(copy, err) < 0)
            return -1;
        if (copy->offset < copy->files[copy->at].size_bytes)
            return 0;
        if (file_end(copy, err) < 0)
            return -1;
    }
    return copy_end(copy, err);
}

static int piece_take(struct copy *copy, const struct msg_copy_data *data, struct err *err)
{
    const struct file *file = &copy->files[copy->at];
    if (data->size_bytes != file->size_bytes || data->data.length == 0 ||
        data->data.length > file->size_bytes - copy->offset)
        return err_set(err, ERR_PROTOCOL, "its file '%s' has another size", file->name);
    if (file_write_all(copy->fd, data->data.bytes, data->data.length, err) < 0)
        return -1;
    hash_add(&copy->stream, data->data.bytes, data->data.length);
    copy->offset += data->data.length;
    return files_advance(copy, err);
}

static int manifest_piece(struct copy *copy, const struct msg_copy_data *data, struct err *err)
{
    if (data->size_bytes > COPY_MANIFEST_MAX || data->size_bytes == 0 || data->data.length == 0)
        return err_set(err, ERR_PROTOCOL, "its %s has %" PRIu64 " bytes", copy->index,
                       data->size_bytes);
    buf_add(&copy->manifest, data->data.bytes, data->data.length);
    if (copy->manifest.length < data->size_bytes)
        return 0;
    return manifest_take(copy, err) < 0 ? -1 : files_advance(copy, err);
}

/* ---- sources ------------------------------------------------------------------------------ */

static void copy_reset(struct copy *copy)
{
    loop_timer_stop(&copy->again);
    peer_close(copy->peer);
    copy->peer = NULL;
    if (copy->fd >= 0)
        close(copy->fd);
    copy->fd = -1;
    buf_clear(&copy->manifest);
    arena_done(&copy->arena);
    copy->files = NULL;
    copy->file_count = copy->at = 0;
    copy->has_manifest = false;
    copy->offset = 0;
}

static void copy_connect(struct copy *copy);

/* The source is of no use: the next one, from the start, or none. */
static void copy_leave(struct copy *copy, const struct err *why)
{
    struct fetching *fetching = copy->fetching;
    const struct rec_copy_source *source = &fetching->start.sources[copy->source];
    char hex[HASH_HEX_SIZE];
    hash_to_hex(&copy->content, hex);
    log_warn("attempt %" PRIu64 ": %s %.12s from worker '%s': %s", fetching->attempt_id,
             what_of(copy), hex, source->worker, why->text);
    /* Wrong bytes where the newest checkpoint should be: the one before may be whole. */
    bool stale = why->kind == ERR_PROTOCOL &&
                 hash_equal(&copy->content, &fetching->start.resume_content);
    err_set(&fetching->why, stale ? ERR_STALE : why->kind,
            "%s %.12s is not on this worker, and from '%s': %s", what_of(copy), hex,
            source->worker, why->text);
    copy_reset(copy);
    copy->source = source_next(&fetching->start, &copy->content, copy->source + 1);
    if (copy->source < fetching->start.sources_count) {
        copy_connect(copy);
        return;
    }
    fetching->failed = true;
    pending_wake(fetching->daemon);
}

static void on_source_up(void *user, const struct msg_welcome *welcome)
{
    (void)welcome;
    copy_ask(user);
}

static void on_source_message(void *user, const struct envelope *envelope,
                              const struct message *message)
{
    struct copy *copy = user;
    struct err err;
    uint64_t want = copy->has_manifest ? copy->offset : copy->manifest.length;
    (void)envelope;
    if (message->tag == MSG_REFUSED) {
        err_set(&copy->fetching->why, ERR_NOT_FOUND, "%s", message->u.refused.text);
        loop_timer_start(copy->fetching->daemon->loop, &copy->again, COPY_ASK_AGAIN_MS);
        return;
    }
    if (message->tag != MSG_COPY_DATA || message->u.copy_data.offset != want || copy->done)
        return;
    copy->heard_ms = clock_steady_ms();
    int rc = copy->has_manifest ? piece_take(copy, &message->u.copy_data, &err)
                                : manifest_piece(copy, &message->u.copy_data, &err);
    if (rc < 0)
        copy_leave(copy, &err);
    else if (!copy->done)
        copy_ask(copy);
}

static void on_again(void *user)
{
    struct copy *copy = user;
    struct err err;
    if (clock_steady_ms() - copy->heard_ms < COPY_WAIT_MS) {
        copy_ask(copy);
        return;
    }
    err_set(&err, ERR_TIMEOUT, "no answer for %u s%s%s", COPY_WAIT_MS / 1000,
            copy->fetching->why.kind ? ": " : "",
            copy->fetching->why.kind ? copy->fetching->why.text : "");
    copy_leave(copy, &err);
}

/* Asked again when no answer comes; two answers to one question are told apart by the offset. */
static void copy_ask(struct copy *copy)
{
    struct message message = {.tag = MSG_COPY_GET};
    struct err err;
    loop_timer_start(copy->fetching->daemon->loop, &copy->again, 10 * COPY_ASK_AGAIN_MS);
    message.u.copy_get = (struct msg_copy_get){
        .content = copy->content,
        .name = copy->has_manifest ? copy->files[copy->at].name : copy->index,
        .offset = copy->has_manifest ? copy->offset : copy->manifest.length,
        .length = COPY_PIECE_BYTES};
    if (copy->peer && peer_is_up(copy->peer) &&
        peer_send(copy->peer, &message, NULL, &err) < 0)
        loop_timer_start(copy->fetching->daemon->loop, &copy->again, COPY_ASK_AGAIN_MS);
}

/* Without an endpoint the source is away: a repeated START tells when it is back (copies_again). */
static void copy_connect(struct copy *copy)
{
    struct daemon *daemon = copy->fetching->daemon;
    const struct rec_copy_source *source = &copy->fetching->start.sources[copy->source];
    struct err err;
    struct peer_config config = {.endpoints = &source->endpoint,
                                 .endpoint_count = 1,
                                 .server_key = source->public_key,
                                 .keys = &daemon->keys,
                                 .program = "athanor-worker",
                                 .version = ATHANOR_VERSION,
                                 .user = copy,
                                 .on_up = on_source_up,
                                 .on_message = on_source_message};
    copy->heard_ms = clock_steady_ms();
    if (source->endpoint[0] && peer_open(daemon->loop, &config, &copy->peer, &err) < 0) {
        copy->peer = NULL;
        copy_leave(copy, &err);
        return;
    }
    copy_ask(copy);
}

/* ---- attempts ----------------------------------------------------------------------------- */

static void copy_want(struct fetching *fetching, const struct hash *content, const char *path)
{
    size_t source = source_next(&fetching->start, content, 0);
    if (hash_is_zero(content) || source == fetching->start.sources_count)
        return;
    const char *index =
        fetching->start.sources[source].is_dataset ? "dataset.json" : "manifest.json";
    if (is_here(path, index, content))
        return;
    for (const struct copy *known = fetching->copies; known; known = known->next)
        if (hash_equal(&known->content, content))
            return;
    struct copy *copy = mem_zalloc(sizeof *copy);
    char *name = copy_name(content);
    *copy = (struct copy){.next = fetching->copies,
                          .fetching = fetching,
                          .content = *content,
                          .index = index,
                          .path = mem_printf("%s/%s", fetching->folder, name),
                          .source = source,
                          .fd = -1};
    copy->again = (struct loop_timer){.fire = on_again, .user = copy};
    mem_free(name);
    fetching->copies = copy;
}

static void fetching_free(struct fetching *gone)
{
    struct fetching **at = &gone->daemon->copies->fetching;
    struct err err;
    while (*at != gone)
        at = &(*at)->next;
    *at = gone->next;
    for (struct copy *copy = gone->copies, *next; copy; copy = next) {
        next = copy->next;
        copy_reset(copy);
        buf_done(&copy->manifest);
        mem_free(copy->path);
        mem_free(copy);
    }
    if (file_remove_tree(gone->folder, &err) < 0)
        log_warn("%s", err.text);
    mem_free(gone->folder);
    arena_done(&gone->arena);
    mem_free(gone);
}

/* NULL after err_set. */
static struct fetching *fetching_new(struct daemon *daemon, const struct msg_start *start,
                                     struct err *err)
{
    struct fetching *fetching = mem_zalloc(sizeof *fetching);
    fetching->daemon = daemon;
    fetching->attempt_id = start->attempt_id;
    fetching->folder = mem_printf("%s/%" PRIu64, daemon->copies->folder, start->attempt_id);
    fetching->next = daemon->copies->fetching;
    daemon->copies->fetching = fetching;
    if (start_copy(start, &fetching->arena, &fetching->start, err) < 0 ||
        file_make_folders(fetching->folder, 0755, err) < 0) {
        fetching_free(fetching);
        return NULL;
    }
    copy_want(fetching, &start->resume_content, start->resume_path);
    for (size_t i = 0; i < start->inputs_count; i++)
        copy_want(fetching, &start->inputs[i].content, start->inputs[i].path);
    return fetching;
}

enum code_state copies_prepare(struct daemon *daemon, const struct msg_start *start,
                               struct err *err)
{
    if (start->sources_count == 0)
        return CODE_NONE;
    struct fetching *fetching = fetching_find(daemon, start->attempt_id);
    bool is_new = !fetching;
    if (is_new && !(fetching = fetching_new(daemon, start, err)))
        return CODE_FAILED;
    for (struct copy *copy = fetching->copies; is_new && copy; copy = copy->next)
        copy_connect(copy);
    if (fetching->failed) {
        *err = fetching->why;
        fetching_free(fetching);
        return CODE_FAILED;
    }
    for (const struct copy *copy = fetching->copies; copy; copy = copy->next)
        if (!copy->done)
            return CODE_WAIT;
    return CODE_READY;
}

/* A worker that was restarted is reached elsewhere. What has come so far stays: it is hashed. */
void copies_again(struct daemon *daemon, const struct msg_start *start)
{
    struct fetching *fetching = fetching_find(daemon, start->attempt_id);
    size_t count = fetching ? min_u64(fetching->start.sources_count, start->sources_count) : 0;
    for (size_t i = 0; i < count; i++) {
        struct rec_copy_source *known = &fetching->start.sources[i];
        const struct rec_copy_source *told = &start->sources[i];
        if (!hash_equal(&known->content, &told->content) || !told->endpoint[0] ||
            (strcmp(known->endpoint, told->endpoint) == 0 &&
             strcmp(known->public_key, told->public_key) == 0))
            continue;
        known->endpoint = arena_strdup(&fetching->arena, told->endpoint);
        known->public_key = arena_strdup(&fetching->arena, told->public_key);
        for (struct copy *copy = fetching->copies; copy; copy = copy->next) {
            if (copy->source != i || copy->done)
                continue;
            peer_close(copy->peer);
            copy->peer = NULL;
            copy_connect(copy);
        }
    }
}

static const char *patched(struct daemon *daemon, const struct fetching *fetching,
                           const struct hash *content, const char *path, struct arena *arena)
{
    for (const struct copy *copy = fetching->copies; copy; copy = copy->next) {
        if (!hash_equal(&copy->content, content))
            continue;
        char hex[HASH_HEX_SIZE];
        hash_to_hex(content, hex);
        return arena_printf(arena, "%s/%" PRIu64 "/%s/%s", daemon->attempts_dir,
                            fetching->attempt_id, FOLDER_COPIES, hex);
    }
    return path;
}

int copies_patch(struct daemon *daemon, const struct msg_start *start, struct arena *arena,
                 struct msg_start *out, struct err *err)
{
    const struct fetching *fetching = fetching_find(daemon, start->attempt_id);
    if (start_copy(start, arena, out, err) < 0)
        return -1;
    if (!fetching)
        return 0;
    out->resume_path =
        patched(daemon, fetching, &out->resume_content, out->resume_path, arena);
    for (size_t i = 0; i < out->inputs_count; i++)
        out->inputs[i].path =
            patched(daemon, fetching, &out->inputs[i].content, out->inputs[i].path, arena);
    return 0;
}

int copies_take(struct daemon *daemon, uint64_t attempt_id, const char *folder, struct err *err)
{
    struct fetching *fetching = fetching_find(daemon, attempt_id);
    if (!fetching)
        return 0;
    char *to = folder_file(folder, FOLDER_COPIES);
    int rc = rename(fetching->folder, to) < 0 ? err_errno(err, "put copies at '%s'", to) : 0;
    mem_free(to);
    fetching_free(fetching);
    return rc;
}

void copies_forget(struct daemon *daemon, uint64_t attempt_id)
{
    struct fetching *fetching = fetching_find(daemon, attempt_id);
    if (fetching)
        fetching_free(fetching);
}

/* ---- open and close ----------------------------------------------------------------------- */

int copies_open(struct daemon *daemon, struct err *err)
{
    struct copies *copies = daemon->copies = mem_zalloc(sizeof *copies);
    copies->folder = folder_file(daemon->options->state, "copies");
    if (file_remove_tree(copies->folder, err) < 0 ||
        file_make_folders(copies->folder, 0711, err) < 0)
        return -1;
    return serving_open(daemon, &copies->serving, err);
}

void copies_close(struct daemon *daemon)
{
    struct copies *copies = daemon->copies;
    if (!copies)
        return;
    while (copies->fetching)
        fetching_free(copies->fetching);
    serving_close(copies->serving);
    mem_free(copies->folder);
    mem_free(copies);
    daemon->copies = NULL;
}
