/* copies_serve.c - what other workers may read of this one's disk; see copies.h.
 *
 * Files are read by one thread, so that a slow disk delays other copies alone, never a heartbeat.
 * --copy-rate is kept by that thread's pauses. */
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "worker/daemon/copies.h"
#include "worker/daemon/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct permit {
    struct permit *next;
    struct hash content;
    char public_key[KEY_TEXT_SIZE];
    char *path;
    uint64_t until_ms;
};

struct reading { /* a request and, once the thread has been there, its answer */
    struct reading *next;
    uint64_t peer_id, request_seq;
    char *path, *name;
    uint64_t offset, length, size_bytes;
    char *bytes;
    int rc;
    struct err why;
};

struct serving {
    struct daemon *daemon;
    struct permit *permits;
    size_t permit_count;
    size_t under_way;
    int event_fd;
    struct loop_watch *watch;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct reading *wanted, **wanted_end, *done; /* under the lock */
    bool ending;
};

/* ---- the thread --------------------------------------------------------------------------- */

/* Below the checkpoint and through no link: what a job has put there leads nowhere else. */
static int open_inside(const char *path, const char *name)
{
    struct open_how how = {.flags = O_RDONLY | O_NONBLOCK | O_CLOEXEC,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
    int folder = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return -1;
    int fd = (int)syscall(SYS_openat2, folder, name, &how, sizeof how);
    int error = errno;
    close(folder);
    errno = error;
    return fd;
}

static int piece_read(int fd, struct reading *reading, struct err *err)
{
    struct stat info;
    size_t have = 0;
    if (fstat(fd, &info) < 0 || !S_ISREG(info.st_mode))
        return err_set(err, ERR_INVALID, "'%s' is no file", reading->name);
    reading->size_bytes = (uint64_t)info.st_size;
    while (have < reading->length) {
        ssize_t got = pread(fd, reading->bytes + have, reading->length - have,
                            (off_t)(reading->offset + have));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_errno(err, "read '%s'", reading->name);
        if (got == 0)
            break;
        have += (size_t)got;
    }
    reading->length = have;
    return 0;
}

static void read_one(struct reading *reading)
{
    int fd = open_inside(reading->path, reading->name);
    reading->bytes = mem_alloc(reading->length + 1);
    reading->rc = fd < 0 ? err_errno(&reading->why, "read '%s'", reading->name)
                         : piece_read(fd, reading, &reading->why);
    if (fd >= 0)
        close(fd);
}

static void pace(uint64_t bytes, uint64_t rate)
{
    if (rate == 0)
        return;
    uint64_t ns = (uint64_t)((double)bytes / (double)rate * 1e9);
    struct timespec pause = {(time_t)(ns / 1000000000), (long)(ns % 1000000000)};
    nanosleep(&pause, NULL);
}

static struct reading *wanted_take(struct serving *serving)
{
    pthread_mutex_lock(&serving->lock);
    while (!serving->wanted && !serving->ending)
        pthread_cond_wait(&serving->wake, &serving->lock);
    struct reading *reading = serving->ending ? NULL : serving->wanted;
    if (reading) {
        serving->wanted = reading->next;
        if (!serving->wanted)
            serving->wanted_end = &serving->wanted;
    }
    pthread_mutex_unlock(&serving->lock);
    return reading;
}

static void *serve_thread(void *user)
{
    struct serving *serving = user;
    uint64_t one = 1;
    for (struct reading *reading; (reading = wanted_take(serving));) {
        read_one(reading);
        uint64_t length = reading->length;
        pthread_mutex_lock(&serving->lock);
        reading->next = serving->done;
        serving->done = reading;
        pthread_mutex_unlock(&serving->lock);
        ssize_t wrote = write(serving->event_fd, &one, sizeof one);
        (void)wrote; /* a full counter wakes the loop as well */
        pace(length, serving->daemon->options->copy_rate);
    }
    return NULL;
}

/* ---- the loop ----------------------------------------------------------------------------- */

static void reading_free(struct reading *reading)
{
    mem_free(reading->path);
    mem_free(reading->name);
    mem_free(reading->bytes);
    mem_free(reading);
}

static void reading_answer(struct daemon *daemon, const struct reading *reading)
{
    struct message answer = {.tag = MSG_COPY_DATA};
    struct err err;
    answer.u.copy_data = (struct msg_copy_data){.request_seq = reading->request_seq,
                                                .offset = reading->offset,
                                                .size_bytes = reading->size_bytes,
                                                .data = {reading->bytes, reading->length}};
    if (reading->rc < 0)
        server_refuse(daemon->neighbours, reading->peer_id, reading->request_seq, &reading->why);
    else if (server_send(daemon->neighbours, reading->peer_id, &answer, &err) < 0)
        log_warn("copy for another worker: %s", err.text);
}

static void on_read(void *user, unsigned events)
{
    struct serving *serving = user;
    uint64_t count;
    ssize_t got = read(serving->event_fd, &count, sizeof count);
    (void)events, (void)got;
    pthread_mutex_lock(&serving->lock);
    struct reading *done = serving->done;
    serving->done = NULL;
    pthread_mutex_unlock(&serving->lock);
    for (struct reading *next; done; done = next) {
        next = done->next;
        reading_answer(serving->daemon, done);
        reading_free(done);
        serving->under_way--;
    }
}

/* ---- permits ------------------------------------------------------------------------------ */

static void permit_remove(struct serving *serving, struct permit **at)
{
    struct permit *gone = *at;
    *at = gone->next;
    mem_free(gone->path);
    mem_free(gone);
    serving->permit_count--;
}

static void permits_expire(struct serving *serving, uint64_t now_ms)
{
    for (struct permit **at = &serving->permits; *at;) {
        if ((*at)->until_ms <= now_ms)
            permit_remove(serving, at);
        else
            at = &(*at)->next;
    }
}

static struct permit *permit_find(const struct serving *serving, const struct hash *content,
                                  const char *public_key)
{
    struct permit *permit = serving ? serving->permits : NULL;
    while (permit && !(hash_equal(&permit->content, content) &&
                       strcmp(permit->public_key, public_key) == 0))
        permit = permit->next;
    return permit;
}

/* A repeat makes it last longer. */
void copies_permit(struct daemon *daemon, const struct msg_copy_permit *given)
{
    struct serving *serving = daemon->copies->serving;
    uint64_t now_ms = clock_steady_ms();
    if (!serving || strlen(given->public_key) >= KEY_TEXT_SIZE ||
        (given->path[0] && given->path[0] != '/'))
        return;
    permits_expire(serving, now_ms);
    struct permit *permit = permit_find(serving, &given->content, given->public_key);
    if (!permit && serving->permit_count < COPY_PERMITS_MAX) {
        permit = mem_zalloc(sizeof *permit);
        permit->content = given->content;
        memcpy(permit->public_key, given->public_key, strlen(given->public_key) + 1);
        permit->next = serving->permits;
        serving->permits = permit;
        serving->permit_count++;
    }
    if (!permit)
        return; /* asked for again with the next START */
    mem_free(permit->path);
    permit->path = mem_strdup(given->path);
    permit->until_ms = now_ms + given->span_ms;
}

bool copies_permits(const struct daemon *daemon, const char *public_key)
{
    const struct serving *serving = daemon->copies ? daemon->copies->serving : NULL;
    uint64_t now_ms = clock_steady_ms();
    for (const struct permit *at = serving ? serving->permits : NULL; at; at = at->next)
        if (at->until_ms > now_ms && strcmp(at->public_key, public_key) == 0)
            return true;
    return false;
}

/* NULL after err_set: where it lies here. An empty path means the copy that we keep. */
static char *permit_path(struct daemon *daemon, const struct permit *permit, struct err *err)
{
    if (permit->path[0])
        return mem_strdup(permit->path);
    if (copy_cache_find(daemon->copies->cache, &permit->content))
        return copy_cache_path(daemon->copies->cache, &permit->content);
    err_set(err, ERR_NOT_FOUND, "this worker keeps no copy of it any more");
    return NULL;
}

void copies_serve(struct daemon *daemon, const struct server_source *from, uint64_t request_seq,
                  const struct msg_copy_get *get)
{
    struct serving *serving = daemon->copies->serving;
    const struct permit *permit = permit_find(serving, &get->content, from->public_key);
    struct err err = {0};
    char *path = NULL;
    if (!permit || permit->until_ms <= clock_steady_ms())
        err_set(&err, ERR_NOT_FOUND, "the coordinator has not permitted this copy (yet)");
    else if (!copy_name_is_inside(get->name) || get->offset > INT64_MAX ||
             get->length > COPY_PIECE_BYTES)
        err_set(&err, ERR_INVALID, "no piece of a file within the checkpoint");
    else if (serving->under_way >= COPY_ANSWERS_MAX)
        err_set(&err, ERR_LIMIT, "%u pieces are being read already", COPY_ANSWERS_MAX);
    else
        path = permit_path(daemon, permit, &err);
    if (!path) {
        server_refuse(daemon->neighbours, from->peer_id, request_seq, &err);
        return;
    }
    struct reading *reading = mem_zalloc(sizeof *reading);
    *reading = (struct reading){.peer_id = from->peer_id,
                                .request_seq = request_seq,
                                .path = path,
                                .name = mem_strdup(get->name),
                                .offset = get->offset,
                                .length = get->length};
    serving->under_way++;
    pthread_mutex_lock(&serving->lock);
    *serving->wanted_end = reading;
    serving->wanted_end = &reading->next;
    pthread_cond_signal(&serving->wake);
    pthread_mutex_unlock(&serving->lock);
}

/* ---- open and close ----------------------------------------------------------------------- */

int serving_open(struct daemon *daemon, struct serving **out, struct err *err)
{
    struct serving *serving = mem_zalloc(sizeof *serving);
    serving->daemon = daemon;
    serving->wanted_end = &serving->wanted;
    pthread_mutex_init(&serving->lock, NULL);
    pthread_cond_init(&serving->wake, NULL);
    serving->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int error = serving->event_fd < 0
                    ? errno
                    : pthread_create(&serving->thread, NULL, serve_thread, serving);
    if (error) {
        errno = error;
        err_errno(err, "start the thread that reads for other workers");
        if (serving->event_fd >= 0)
            close(serving->event_fd);
        mem_free(serving);
        return -1;
    }
    serving->watch = loop_add_fd(daemon->loop, serving->event_fd, LOOP_READ, on_read, serving);
    *out = serving;
    return 0;
}

static void readings_free(struct reading *list)
{
    for (struct reading *next; list; list = next) {
        next = list->next;
        reading_free(list);
    }
}

void serving_close(struct serving *serving)
{
    if (!serving)
        return;
    pthread_mutex_lock(&serving->lock);
    serving->ending = true;
    pthread_cond_signal(&serving->wake);
    pthread_mutex_unlock(&serving->lock);
    pthread_join(serving->thread, NULL);
    loop_remove(serving->watch);
    close(serving->event_fd);
    readings_free(serving->wanted);
    readings_free(serving->done);
    while (serving->permits)
        permit_remove(serving, &serving->permits);
    pthread_cond_destroy(&serving->wake);
    pthread_mutex_destroy(&serving->lock);
    mem_free(serving);
}
