/* code.c - see code.h. */
#include "worker/daemon/code.h"

#include "common/base/chunks.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/snapshot/snapshot.h"
#include "worker/attempt/folder.h"
#include "worker/daemon/daemon.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

/* An archive on its way here. */
struct fetch {
    struct fetch *next;
    struct hash content;
    char *path; /* of what has come so far */
    int fd;
    uint64_t chunk, count; /* next one wanted; count 0: not known yet */
    uint64_t seq;          /* of the question under way; 0: none */
    uint64_t asked_ms;
    bool failed;
    struct err why;
};

/* The code of one attempt. */
struct tree {
    struct tree *next;
    struct daemon *daemon;
    uint64_t attempt_id;
    struct hash content;
    char *archive, *path;
    pthread_t thread;
    bool running;   /* its thread is not joined yet */
    bool finished;  /* read and set under the lock of struct code */
    bool refetched; /* its archive was damaged and has been fetched anew */
    bool forgotten; /* to be removed when the thread has ended */
    int rc;
    struct err why;
};

struct code {
    char *folder, *trees;
    struct fetch *fetches;
    struct tree *trees_list;
    unsigned threads;
    int event_fd; /* a thread has ended */
    struct loop_watch *watch;
    pthread_mutex_t lock;
};

/* ---- names -------------------------------------------------------------------------------- */

static char *archive_path(const struct code *code, const struct hash *content)
{
    char hex[HASH_HEX_SIZE];
    hash_to_hex(content, hex);
    return mem_printf("%s/%s", code->folder, hex);
}

/* code.hash of the spec; false: the job has none. */
static bool content_of(const struct msg_start *start, struct hash *out)
{
    struct err err;
    json_t *spec = strstr(start->spec, "\"code\"") ? json_loads(start->spec, 0, NULL) : NULL;
    const char *hex = json_string_value(json_object_get(json_object_get(spec, "code"), "hash"));
    bool has = hex && hash_from_hex(hex, out, &err) == 0;
    json_decref(spec);
    return has;
}

static struct tree *tree_find(const struct code *code, uint64_t attempt_id)
{
    struct tree *tree = code->trees_list;
    while (tree && (tree->attempt_id != attempt_id || tree->forgotten))
        tree = tree->next;
    return tree;
}

static struct fetch *fetch_find(const struct code *code, const struct hash *content)
{
    struct fetch *fetch = code->fetches;
    while (fetch && !hash_equal(&fetch->content, content))
        fetch = fetch->next;
    return fetch;
}

/* ---- the cache ---------------------------------------------------------------------------- */

struct cached {
    char *name;
    uint64_t size_bytes;
    struct timespec used_at;
};

static int older_first(const void *left, const void *right)
{
    const struct timespec *a = &((const struct cached *)left)->used_at;
    const struct timespec *b = &((const struct cached *)right)->used_at;
    if (a->tv_sec != b->tv_sec)
        return a->tv_sec < b->tv_sec ? -1 : 1;
    return (a->tv_nsec > b->tv_nsec) - (a->tv_nsec < b->tv_nsec);
}

/* Attempts that wait for it will read it; those that run have trees of their own. */
static bool is_needed(const struct code *code, const char *name)
{
    char hex[HASH_HEX_SIZE];
    for (const struct tree *tree = code->trees_list; tree; tree = tree->next) {
        hash_to_hex(&tree->content, hex);
        if (strcmp(hex, name) == 0)
            return true;
    }
    return false;
}

static size_t cache_read(const struct code *code, struct cached **out, uint64_t *out_bytes)
{
    struct cached *list = NULL;
    size_t count = 0, capacity = 0;
    DIR *folder = opendir(code->folder);
    *out_bytes = 0;
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        struct stat info;
        if (strlen(entry->d_name) != HASH_HEX_SIZE - 1 ||
            fstatat(dirfd(folder), entry->d_name, &info, AT_SYMLINK_NOFOLLOW) < 0 ||
            !S_ISREG(info.st_mode))
            continue;
        VEC_RESERVE(list, count, capacity);
        list[count++] = (struct cached){mem_strdup(entry->d_name), (uint64_t)info.st_size,
                                        info.st_mtim};
        *out_bytes += (uint64_t)info.st_size;
    }
    if (folder)
        closedir(folder);
    *out = list;
    return count;
}

/* The least recently used go until the rest fits. */
static void cache_trim(struct daemon *daemon)
{
    struct code *code = daemon->code;
    struct cached *list;
    uint64_t bytes;
    size_t count = cache_read(code, &list, &bytes);
    if (count)
        qsort(list, count, sizeof *list, older_first);
    for (size_t i = 0; i < count; i++) {
        if (bytes > daemon->options->code_cache_bytes && !is_needed(code, list[i].name)) {
            char *path = mem_printf("%s/%s", code->folder, list[i].name);
            if (unlink(path) == 0)
                bytes -= list[i].size_bytes;
            mem_free(path);
        }
        mem_free(list[i].name);
    }
    mem_free(list);
}

/* ---- fetching ----------------------------------------------------------------------------- */

static void fetch_free(struct code *code, struct fetch *gone)
{
    struct fetch **at = &code->fetches;
    while (*at != gone)
        at = &(*at)->next;
    *at = gone->next;
    if (gone->fd >= 0) {
        close(gone->fd);
        unlink(gone->path);
    }
    mem_free(gone->path);
    mem_free(gone);
}

static void fetch_fail(struct daemon *daemon, struct fetch *fetch)
{
    fetch->failed = true;
    fetch->seq = 0;
    err_wrap(&fetch->why, "fetching the code");
    pending_wake(daemon);
}

static void fetch_ask(struct daemon *daemon, struct fetch *fetch)
{
    struct message message = {.tag = MSG_CODE_GET};
    struct err err;
    if (fetch->failed || !daemon->worker_id)
        return; /* code_on_up asks */
    message.u.code_get =
        (struct msg_code_get){.content = fetch->content, .chunk = fetch->chunk};
    fetch->asked_ms = clock_steady_ms();
    if (peer_send(daemon->peer, &message, &fetch->seq, &err) < 0)
        fetch->seq = 0; /* code_tick tries again */
}

static void fetch_begin(struct daemon *daemon, const struct hash *content)
{
    struct code *code = daemon->code;
    struct fetch *fetch = mem_zalloc(sizeof *fetch);
    char *archive = archive_path(code, content);
    fetch->content = *content;
    fetch->path = mem_printf("%s.part", archive);
    mem_free(archive);
    fetch->next = code->fetches;
    code->fetches = fetch;
    fetch->fd = open(fetch->path, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fetch->fd < 0) {
        err_errno(&fetch->why, "make '%s'", fetch->path);
        fetch_fail(daemon, fetch);
        return;
    }
    fetch_ask(daemon, fetch);
}

/* The hashes come with each chunk, and make up the hash that the job names. */
static int chunk_check(const struct fetch *fetch, const struct msg_code_chunk *chunk,
                       struct err *err)
{
    struct hash whole, found, each[CHUNKS_MAX];
    size_t count = chunks_count(chunk->size_bytes);
    if (count == 0 || chunk->chunks.length != count * sizeof *each || chunk->chunk >= count)
        return err_set(err, ERR_PROTOCOL, "the coordinator sent no chunk of an archive");
    memcpy(each, chunk->chunks.bytes, chunk->chunks.length);
    chunks_hash(chunk->size_bytes, each, count, &whole);
    hash_bytes(chunk->data.bytes, chunk->data.length, &found);
    if (!hash_equal(&whole, &fetch->content) || !hash_equal(&found, &each[chunk->chunk]) ||
        chunk->data.length != chunk_bytes(chunk->size_bytes, (size_t)chunk->chunk))
        return err_set(err, ERR_PROTOCOL, "chunk %" PRIu64 " is damaged: its hash is another",
                       chunk->chunk);
    return 0;
}

static int fetch_finish(struct daemon *daemon, struct fetch *fetch, struct err *err)
{
    char *path = archive_path(daemon->code, &fetch->content);
    int rc = 0;
    if (fsync(fetch->fd) < 0 || rename(fetch->path, path) < 0)
        rc = err_errno(err, "keep '%s'", path);
    mem_free(path);
    if (rc < 0)
        return -1;
    close(fetch->fd);
    fetch->fd = -1;
    fetch_free(daemon->code, fetch);
    cache_trim(daemon);
    pending_wake(daemon);
    return 0;
}

void code_on_chunk(struct daemon *daemon, const struct msg_code_chunk *chunk)
{
    struct fetch *fetch = fetch_find(daemon->code, &chunk->content);
    if (!fetch || fetch->failed || chunk->chunk != fetch->chunk)
        return; /* asked for twice */
    fetch->seq = 0;
    if (chunk_check(fetch, chunk, &fetch->why) < 0 ||
        file_write_all(fetch->fd, chunk->data.bytes, chunk->data.length, &fetch->why) < 0) {
        fetch_fail(daemon, fetch);
        return;
    }
    fetch->count = chunks_count(chunk->size_bytes);
    if (++fetch->chunk < fetch->count)
        fetch_ask(daemon, fetch);
    else if (fetch_finish(daemon, fetch, &fetch->why) < 0)
        fetch_fail(daemon, fetch);
}

bool code_on_refused(struct daemon *daemon, const struct msg_refused *refused)
{
    struct fetch *fetch = daemon->code->fetches;
    while (fetch && (fetch->seq == 0 || fetch->seq != refused->request_seq))
        fetch = fetch->next;
    if (!fetch)
        return false;
    fetch->seq = 0;
    if (strcmp(refused->kind, err_kind_name(ERR_NOT_FOUND)) != 0)
        return true; /* too many questions, or no database just now: code_tick asks again */
    err_set(&fetch->why, ERR_NOT_FOUND, "%s", refused->text);
    fetch_fail(daemon, fetch);
    return true;
}

void code_on_up(struct daemon *daemon)
{
    for (struct fetch *fetch = daemon->code->fetches; fetch; fetch = fetch->next)
        fetch_ask(daemon, fetch);
}

void code_tick(struct daemon *daemon)
{
    uint64_t now_ms = clock_steady_ms();
    for (struct fetch *fetch = daemon->code->fetches; fetch; fetch = fetch->next)
        if (fetch->seq == 0 || now_ms - fetch->asked_ms >= CODE_ASK_AGAIN_MS)
            fetch_ask(daemon, fetch);
}

/* ---- unpacking ---------------------------------------------------------------------------- */

/* Reads the archive twice: what is unpacked is what was hashed, because nobody else writes to it
 * and it is open already. */
static int unpack(const struct tree *tree, struct err *err)
{
    struct snapshot_counts counts;
    struct chunks *chunks = mem_alloc(sizeof *chunks);
    int fd = open(tree->archive, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    int rc = fd < 0 ? err_errno(err, "read the code '%s'", tree->archive)
                    : chunks_of_file(fd, chunks, err);
    if (rc == 0 && !hash_equal(&chunks->whole, &tree->content))
        rc = err_set(err, ERR_PROTOCOL, "the archive '%s' is damaged: its hash is another",
                     tree->archive);
    if (rc == 0 && mkdir(tree->path, 0755) < 0)
        rc = err_errno(err, "make '%s'", tree->path);
    if (rc == 0)
        rc = snapshot_extract(fd, tree->path, true, &counts, err);
    if (fd >= 0)
        close(fd);
    mem_free(chunks);
    return rc;
}

static void *unpack_thread(void *user)
{
    struct tree *tree = user;
    struct code *code = tree->daemon->code;
    struct err why = {0};
    uint64_t one = 1;
    int rc = unpack(tree, &why);
    pthread_mutex_lock(&code->lock);
    tree->rc = rc;
    tree->why = why;
    tree->finished = true;
    pthread_mutex_unlock(&code->lock);
    ssize_t wrote = write(code->event_fd, &one, sizeof one);
    (void)wrote; /* a full counter wakes the loop as well */
    return NULL;
}

static void unpack_begin(struct tree *tree)
{
    struct code *code = tree->daemon->code;
    if (code->threads >= CODE_THREADS_MAX)
        return; /* the next one that ends wakes us */
    int error = pthread_create(&tree->thread, NULL, unpack_thread, tree);
    if (error) {
        errno = error;
        err_errno(&tree->why, "start a thread that unpacks code");
        tree->rc = -1;
        tree->finished = true;
        return;
    }
    utimensat(AT_FDCWD, tree->archive, NULL, 0); /* used now; else it only goes sooner */
    tree->running = true;
    code->threads++;
}

static void tree_remove(struct tree *tree)
{
    struct tree **at = &tree->daemon->code->trees_list;
    struct err err;
    while (*at != tree)
        at = &(*at)->next;
    *at = tree->next;
    if (tree->path[0] && file_remove_tree(tree->path, &err) < 0)
        log_warn("%s", err.text);
    mem_free(tree->archive);
    mem_free(tree->path);
    mem_free(tree);
}

static bool tree_has_finished(struct tree *tree)
{
    struct code *code = tree->daemon->code;
    pthread_mutex_lock(&code->lock);
    bool finished = tree->finished;
    pthread_mutex_unlock(&code->lock);
    return finished;
}

/* What lay on our disk went bad, or was thrown away for that a moment ago: once more from the
 * coordinator. */
static void tree_retry(struct tree *tree)
{
    struct err err;
    if (tree->rc == 0 || tree->refetched ||
        (tree->why.kind != ERR_PROTOCOL && tree->why.kind != ERR_NOT_FOUND) ||
        file_remove_tree(tree->path, &err) < 0)
        return;
    log_warn("attempt %" PRIu64 ": %s; fetching it again", tree->attempt_id, tree->why.text);
    tree->refetched = true;
    tree->finished = false;
}

/* A damaged archive is thrown away. */
static void tree_end(struct tree *tree)
{
    pthread_join(tree->thread, NULL);
    tree->running = false;
    tree->daemon->code->threads--;
    if (tree->rc < 0 && tree->why.kind == ERR_PROTOCOL)
        unlink(tree->archive);
    tree_retry(tree);
    if (tree->forgotten)
        tree_remove(tree);
}

static void on_thread_end(void *user, unsigned events)
{
    struct daemon *daemon = user;
    uint64_t count;
    ssize_t got = read(daemon->code->event_fd, &count, sizeof count);
    (void)events, (void)got;
    for (struct tree *tree = daemon->code->trees_list, *next; tree; tree = next) {
        next = tree->next;
        if (tree->running && tree_has_finished(tree))
            tree_end(tree);
    }
    pending_wake(daemon);
}

/* ---- attempts ----------------------------------------------------------------------------- */

static struct tree *tree_add(struct daemon *daemon, uint64_t attempt_id, const struct hash *content)
{
    struct tree *tree = mem_zalloc(sizeof *tree);
    *tree = (struct tree){.next = daemon->code->trees_list,
                          .daemon = daemon,
                          .attempt_id = attempt_id,
                          .content = *content,
                          .archive = archive_path(daemon->code, content),
                          .path = mem_printf("%s/%" PRIu64, daemon->code->trees, attempt_id)};
    daemon->code->trees_list = tree;
    return tree;
}

static enum code_state tree_fail(struct tree *tree, const struct err *why, struct err *err)
{
    *err = *why;
    tree_remove(tree);
    return CODE_FAILED;
}

enum code_state code_prepare(struct daemon *daemon, const struct msg_start *start, struct err *err)
{
    struct code *code = daemon->code;
    struct hash content;
    if (!content_of(start, &content))
        return CODE_NONE;
    struct tree *tree = tree_find(code, start->attempt_id);
    if (!tree)
        tree = tree_add(daemon, start->attempt_id, &content);
    if (tree->running)
        return CODE_WAIT;
    if (tree->finished && tree->rc == 0)
        return CODE_READY;
    if (tree->finished)
        return tree_fail(tree, &tree->why, err);
    struct fetch *fetch = fetch_find(code, &content);
    if (fetch && fetch->failed) {
        struct err why = fetch->why;
        fetch_free(code, fetch);
        return tree_fail(tree, &why, err);
    }
    if (!fetch && file_exists(tree->archive))
        unpack_begin(tree);
    else if (!fetch)
        fetch_begin(daemon, &content);
    return CODE_WAIT;
}

/* A folder that is moved to another one changes its "..", which takes the right to write. */
int code_take(struct daemon *daemon, uint64_t attempt_id, const char *folder, struct err *err)
{
    struct tree *tree = tree_find(daemon->code, attempt_id);
    if (!tree)
        return 0;
    char *to = folder_file(folder, FOLDER_CODE);
    int rc = chmod(tree->path, 0755) < 0 || rename(tree->path, to) < 0 || chmod(to, 0555) < 0
                 ? err_errno(err, "put the code at '%s'", to)
                 : 0;
    mem_free(to);
    if (rc == 0)
        tree->path[0] = '\0';
    tree_remove(tree);
    return rc;
}

void code_forget(struct daemon *daemon, uint64_t attempt_id)
{
    struct tree *tree = tree_find(daemon->code, attempt_id);
    if (!tree)
        return;
    tree->forgotten = true;
    if (!tree->running)
        tree_remove(tree);
}

/* ---- open and close ----------------------------------------------------------------------- */

/* Whatever was under way when the last daemon ended. */
static void parts_remove(const struct code *code)
{
    DIR *folder = opendir(code->folder);
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        const char *dot = strrchr(entry->d_name, '.');
        if (dot && strcmp(dot, ".part") == 0)
            unlinkat(dirfd(folder), entry->d_name, 0);
    }
    if (folder)
        closedir(folder);
}

int code_open(struct daemon *daemon, struct err *err)
{
    struct code *code = daemon->code = mem_zalloc(sizeof *code);
    code->folder = folder_file(daemon->options->state, "code");
    code->trees = folder_file(code->folder, "trees");
    code->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pthread_mutex_init(&code->lock, NULL);
    if (code->event_fd < 0)
        return err_errno(err, "make an eventfd");
    if (file_remove_tree(code->trees, err) < 0 ||
        file_make_folders(code->trees, 0711, err) < 0)
        return -1;
    parts_remove(code);
    cache_trim(daemon);
    code->watch = loop_add_fd(daemon->loop, code->event_fd, LOOP_READ, on_thread_end, daemon);
    return 0;
}

void code_close(struct daemon *daemon)
{
    struct code *code = daemon->code;
    if (!code)
        return;
    while (code->trees_list) {
        struct tree *tree = code->trees_list;
        if (tree->running)
            pthread_join(tree->thread, NULL);
        tree_remove(tree);
    }
    while (code->fetches)
        fetch_free(code, code->fetches);
    loop_remove(code->watch);
    if (code->event_fd >= 0)
        close(code->event_fd);
    pthread_mutex_destroy(&code->lock);
    mem_free(code->folder);
    mem_free(code->trees);
    mem_free(code);
    daemon->code = NULL;
}
