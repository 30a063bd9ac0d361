/* stream.c - see stream.h. zlib reads plain files through the same calls. */
#include "worker/recipes/data/web/stream.h"

#include "common/base/mem.h"

#include <errno.h>
#include <string.h>

#define READ_BYTES ((size_t)1 << 18)

int stream_open(const char *path, struct stream *out, struct err *err)
{
    errno = 0;
    gzFile file = gzopen(path, "rb");

    if (!file)
        return err_errno(err, "read '%s'", path);
    *out = (struct stream){.path = path, .file = file, .room = mem_alloc(READ_BYTES)};
    return 0;
}

void stream_close(struct stream *stream)
{
    if (stream->file)
        gzclose(stream->file);
    buf_done(&stream->line);
    mem_free(stream->room);
    *stream = (struct stream){0};
}

int stream_seek(struct stream *stream, uint64_t offset, struct err *err)
{
    if (gzseek(stream->file, (z_off_t)offset, SEEK_SET) < 0)
        return err_errno(err, "read '%s'", stream->path);
    stream->offset = offset;
    stream->at = stream->held = 0;
    return 0;
}

static int fill(struct stream *stream, struct err *err)
{
    int got = gzread(stream->file, stream->room, READ_BYTES), code;

    stream->at = 0;
    stream->held = got > 0 ? (size_t)got : 0;
    if (got < 0) {
        const char *why = gzerror(stream->file, &code);
        return code == Z_ERRNO ? err_errno(err, "read '%s'", stream->path)
                               : err_set(err, ERR_PROTOCOL, "'%s' is damaged: %s",
                                         stream->path, why);
    }
    /* zlib reports a file that ends within a stream only here. */
    if (got == 0 && gzerror(stream->file, &code) && code == Z_BUF_ERROR)
        return err_set(err, ERR_PROTOCOL, "'%s' is damaged: it ends too early", stream->path);
    return 0;
}

/* The next line without its end in stream->line. *out: false at the end of the file. */
int stream_line(struct stream *stream, bool *out, struct err *err)
{
    buf_clear(&stream->line);
    for (bool any = false;;) {
        if (stream->at == stream->held && fill(stream, err) < 0)
            return -1;
        if (stream->held == 0) {
            *out = any;
            return 0;
        }
        any = true;
        const char *from = stream->room + stream->at;
        const char *end = memchr(from, '\n', stream->held - stream->at);
        size_t bytes = end ? (size_t)(end - from) : stream->held - stream->at;
        buf_add(&stream->line, from, bytes);
        stream->at += bytes + (end != NULL);
        stream->offset += bytes + (end != NULL);
        if (stream->line.length > STREAM_LINE_MAX)
            return err_set(err, ERR_PROTOCOL, "'%s': a line has more than %zu bytes",
                           stream->path, STREAM_LINE_MAX);
        if (end) {
            *out = true;
            return 0;
        }
    }
}

int stream_bytes(struct stream *stream, uint64_t count, struct buf *out, uint64_t *out_count,
                 struct err *err)
{
    uint64_t left = count;

    while (left > 0) {
        if (stream->at == stream->held && fill(stream, err) < 0)
            return -1;
        if (stream->held == 0)
            break;
        size_t bytes = (size_t)min_u64(left, stream->held - stream->at);
        if (out)
            buf_add(out, stream->room + stream->at, bytes);
        stream->at += bytes;
        stream->offset += bytes;
        left -= bytes;
    }
    *out_count = count - left;
    return 0;
}
