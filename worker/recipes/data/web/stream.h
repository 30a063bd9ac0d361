/* stream.h - a file read in pieces, plain or gzip of any number of members, by lines or bytes. */
#ifndef ATHANOR_WEB_STREAM_H
#define ATHANOR_WEB_STREAM_H

#include "common/base/buf.h"
#include "common/base/err.h"

#include <zlib.h>

#define STREAM_LINE_MAX ((size_t)256 << 20) /* bytes of a line: no published corpus has longer */

struct stream {
    const char *path; /* borrowed */
    gzFile file;
    char *room;
    size_t at, held; /* in the room */
    uint64_t offset; /* of room[at] in the (decompressed) file */
    struct buf line;
};

/* Errors: ERR_NOT_FOUND, ERR_IO. */
int stream_open(const char *path, struct stream *out, struct err *err) WARN_UNUSED;
void stream_close(struct stream *stream); /* a zeroed struct is fine */
/* Plain files only. */
int stream_seek(struct stream *stream, uint64_t offset, struct err *err) WARN_UNUSED;
/* The next line without its '\n' in stream->line; *out: false at the end of the file. Errors:
 * ERR_IO; ERR_PROTOCOL for damaged gzip or a line of more than STREAM_LINE_MAX. */
int stream_line(struct stream *stream, bool *out, struct err *err) WARN_UNUSED;
/* Appends the next bytes to out (NULL: passes over them); fewer at the end of the file. */
int stream_bytes(struct stream *stream, uint64_t count, struct buf *out, uint64_t *out_count,
                 struct err *err) WARN_UNUSED;

#endif
