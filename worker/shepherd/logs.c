/* logs.c - see logs.h. */
#include "worker/shepherd/logs.h"

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/parse.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct stream {
    struct logs *logs;
    struct stream *next;
    int fd; /* -1: ended */
    struct poller_watch *watch;
    unsigned rank;
    const char *name;
    struct buf pending;
    uint64_t first_ms; /* of the oldest pending byte */
    uint64_t newest_ms;
    char line[LOG_LINE_KEPT + 1], last_line[LOG_LINE_KEPT + 1]; /* in progress; newest whole one */
    size_t line_length;
    struct buf kept; /* the newest LOG_END_BYTES at most of what came behind the limit */
    uint64_t cut;    /* all that came behind it */
};

struct logs {
    struct poller *poller;
    uint64_t bytes_max, bytes;
    bool noted, paused;
    logs_emit_fn *emit;
    void *user;
    struct stream *streams;
};

struct logs *logs_new(struct poller *poller, uint64_t bytes_max, logs_emit_fn *emit, void *user)
{
    struct logs *logs = mem_zalloc(sizeof *logs);
    *logs = (struct logs){.poller = poller, .bytes_max = bytes_max, .emit = emit, .user = user};
    return logs;
}

static void stream_end(struct stream *stream)
{
    if (stream->fd < 0)
        return;
    poller_remove(stream->watch);
    close(stream->fd);
    stream->fd = -1;
}

void logs_free(struct logs *logs)
{
    if (!logs)
        return;
    for (struct stream *stream = logs->streams, *next; stream; stream = next) {
        next = stream->next;
        stream_end(stream);
        buf_done(&stream->pending);
        buf_done(&stream->kept);
        mem_free(stream);
    }
    mem_free(logs);
}

static void emit_note(struct logs *logs, const struct stream *stream)
{
    char limit[PARSE_TEXT_SIZE], note[200];
    int length = snprintf(note, sizeof note,
                          "[athanor] the log limit is reached: %s was what this attempt could "
                          "leave here; of later output only the end is kept\n",
                          format_size_bytes(logs->bytes_max, limit));
    logs->emit(logs->user, stream->rank, stream->name, note, (size_t)length);
}

/* Behind the limit: the oldest go first, a fifth more than wanted at a time. */
static void stream_cut(struct stream *stream, const char *bytes, size_t length)
{
    stream->cut += length;
    buf_add(&stream->kept, bytes, length);
    if (stream->kept.length > LOG_END_BYTES + LOG_END_BYTES / 4)
        buf_drop(&stream->kept, stream->kept.length - LOG_END_BYTES);
}

/* The last words of a stream that was cut, from the beginning of a line on when one is there. */
static void stream_end_emit(struct stream *stream)
{
    struct logs *logs = stream->logs;
    char cut_text[PARSE_TEXT_SIZE], note[160];
    if (stream->cut == 0)
        return;
    if (stream->kept.length > LOG_END_BYTES)
        buf_drop(&stream->kept, stream->kept.length - LOG_END_BYTES);
    const char *line = stream->cut > stream->kept.length
                           ? memchr(stream->kept.bytes, '\n', stream->kept.length)
                           : NULL;
    if (line && line + 1 < stream->kept.bytes + stream->kept.length)
        buf_drop(&stream->kept, (size_t)(line + 1 - stream->kept.bytes));
    int length =
        snprintf(note, sizeof note, "[athanor] %s of %s were cut here, the end of it follows\n",
                 format_size_short(stream->cut - stream->kept.length, cut_text), stream->name);
    if (stream->cut > stream->kept.length)
        logs->emit(logs->user, stream->rank, stream->name, note, (size_t)length);
    logs->emit(logs->user, stream->rank, stream->name, stream->kept.bytes, stream->kept.length);
    buf_clear(&stream->kept);
    stream->cut = 0;
}

/* Hands out the first `length` pending bytes, as chunks of the allowed size. */
static void stream_emit(struct stream *stream, size_t length)
{
    struct logs *logs = stream->logs;
    for (size_t at = 0; at < length;) {
        size_t part = min_u64(length - at, LOG_CHUNK_BYTES);
        if (logs->bytes + part > logs->bytes_max) {
            if (!logs->noted)
                emit_note(logs, stream);
            logs->noted = true;
            stream_cut(stream, stream->pending.bytes + at, length - at);
            break;
        }
        logs->emit(logs->user, stream->rank, stream->name, stream->pending.bytes + at, part);
        logs->bytes += part;
        at += part;
    }
    buf_drop(&stream->pending, length);
    stream->first_ms = clock_steady_ms();
}

/* Bytes up to and with the last line end within the first `limit`; all of them when there is no
 * line end. */
static size_t cut_length(const struct buf *pending, size_t limit)
{
    size_t length = min_u64(pending->length, limit);
    const char *stop = memrchr(pending->bytes, '\n', length);
    return stop ? (size_t)(stop - pending->bytes) + 1 : length;
}

/* What Open MPI prints when a rank calls MPI_Abort, behind the rank's own message; that it did is
 * known without (help-mpi-api.txt of 4.1). */
static bool is_of_abort(const char *line)
{
    static const char *const begins[] = {
        "MPI_ABORT was invoked on rank ", "with errorcode ", "NOTE: invoking MPI_ABORT causes ",
        "You may or may not see output from other processes, depending on",
        "exactly when Open MPI kills them."};

    for (size_t i = 0; i < ARRAY_COUNT(begins); i++)
        if (strncmp(line, begins[i], strlen(begins[i])) == 0)
            return true;
    return false;
}

static bool line_says_something(const char *line)
{
    if (is_of_abort(line))
        return false;
    for (; *line; line++)
        if (isalnum((unsigned char)*line) || (unsigned char)*line >= 0x80)
            return true;
    return false; /* the rules that programs draw around their messages */
}

/* Remembers the newest line that says something, for the evidence of a failure. */
static void lines_note(struct stream *stream, const char *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (bytes[i] == '\n' || bytes[i] == '\r') {
            stream->line[stream->line_length] = '\0';
            if (line_says_something(stream->line))
                memcpy(stream->last_line, stream->line, stream->line_length + 1);
            stream->line_length = 0;
        } else if (stream->line_length < LOG_LINE_KEPT) {
            stream->line[stream->line_length++] = bytes[i];
        }
    }
}

static void stream_take(struct stream *stream, const char *bytes, size_t length)
{
    stream->newest_ms = clock_steady_ms();
    if (stream->pending.length == 0)
        stream->first_ms = stream->newest_ms;
    lines_note(stream, bytes, length);
    buf_add(&stream->pending, bytes, length);
    while (stream->pending.length >= LOG_CHUNK_BYTES)
        stream_emit(stream, cut_length(&stream->pending, LOG_CHUNK_BYTES));
}

/* Returns whether something was read. */
static bool stream_read(struct stream *stream)
{
    char bytes[65536];
    ssize_t got;
    do
        got = read(stream->fd, bytes, sizeof bytes);
    while (got < 0 && errno == EINTR);
    if (got < 0 && errno == EAGAIN)
        return false; /* a terminal whose last user has closed it says EIO: the end below */
    if (got > 0) {
        stream_take(stream, bytes, (size_t)got);
        return true;
    }
    stream_emit(stream, stream->pending.length);
    lines_note(stream, "\n", 1);
    stream_end(stream);
    return false;
}

static void stream_ready(void *user, short events)
{
    (void)events;
    stream_read(user);
}

void logs_add(struct logs *logs, int fd, unsigned rank, const char *name)
{
    struct stream *stream = mem_zalloc(sizeof *stream);
    stream->logs = logs;
    stream->fd = fd;
    stream->rank = rank;
    stream->name = name;
    stream->watch = poller_add(logs->poller, fd, logs->paused ? 0 : POLLIN, stream_ready, stream);
    struct stream **end = &logs->streams; /* in the order of adding: stdout before stderr */
    while (*end)
        end = &(*end)->next;
    *end = stream;
}

int logs_tick(struct logs *logs, uint64_t now_ms)
{
    int wait = -1;
    for (struct stream *stream = logs->streams; stream; stream = stream->next) {
        if (stream->pending.length > 0 && now_ms >= stream->first_ms + LOG_WAIT_MS)
            stream_emit(stream, cut_length(&stream->pending, stream->pending.length));
        if (stream->pending.length == 0)
            continue;
        uint64_t due = stream->first_ms + LOG_WAIT_MS;
        int left = due > now_ms ? (int)(due - now_ms) : 0;
        if (wait < 0 || left < wait)
            wait = left;
    }
    return wait;
}

void logs_pause(struct logs *logs, bool paused)
{
    if (logs->paused == paused)
        return;
    logs->paused = paused;
    for (struct stream *stream = logs->streams; stream; stream = stream->next)
        if (stream->fd >= 0)
            poller_set(stream->watch, paused ? 0 : POLLIN);
}

void logs_drain(struct logs *logs)
{
    for (struct stream *stream = logs->streams; stream; stream = stream->next) {
        while (stream->fd >= 0 && stream_read(stream))
            continue;
        stream_emit(stream, stream->pending.length);
        stream_end_emit(stream);
        lines_note(stream, "\n", 1);
    }
}

const char *logs_last_error(const struct logs *logs, unsigned rank)
{
    for (struct stream *stream = logs->streams; stream; stream = stream->next)
        if (stream->rank == rank && strcmp(stream->name, "stderr") == 0)
            return stream->last_line;
    return "";
}

uint64_t logs_newest_ms(const struct logs *logs, unsigned rank)
{
    uint64_t newest = 0;
    for (struct stream *stream = logs->streams; stream; stream = stream->next)
        if (stream->rank == rank)
            newest = max_u64(newest, stream->newest_ms);
    return newest;
}
