/* lines.h - bounded text lines over unix stream sockets, with the peer's credentials.
 *
 * Shared by the shepherd's report socket and the link between daemon and shepherd. Lines end in
 * '\n'; what they hold (JSON) is the caller's business. */
#ifndef ATHANOR_LINES_H
#define ATHANOR_LINES_H

#include "common/base/buf.h"
#include "common/base/err.h"

#include <sys/types.h>

#define LINE_BYTES_MAX ((size_t)64 << 10) /* worker/README.md: lines are at most 64 KiB */

/* A zeroed struct with limit_bytes set is a valid empty reader. */
struct lines {
    struct buf buf;
    size_t limit_bytes; /* longest line without its '\n'; 0: LINE_BYTES_MAX */
    size_t taken;       /* bytes of buf already given out */
    bool ended;         /* the peer closed its side */
};

/* Reads what is there, at most 256 KiB. Returns 1 when bytes came, 0 when none are there now or
 * the stream ended (see ended), -1 with ERR_IO. Any kind of descriptor, blocking or not. */
int lines_fill(struct lines *lines, int fd, struct err *err) WARN_UNUSED;
/* Adds bytes read elsewhere. */
void lines_add(struct lines *lines, const void *bytes, size_t length);
/* Takes the next complete line, terminated, without '\n' (nor '\r' before it); it is valid until
 * the next call on `lines`. Returns 1 with a line, 0 when none is complete, -1: ERR_LIMIT when the
 * line is longer than the limit, ERR_PROTOCOL when it holds a zero byte. After an error the
 * stream cannot be trusted: close it. An unfinished line at the end of the stream is not given. */
int lines_next(struct lines *lines, char **out_line, size_t *out_length,
               struct err *err) WARN_UNUSED;
void lines_done(struct lines *lines);

/* Bytes waiting to be written to a non-blocking descriptor; watch LOOP_WRITE while not empty. */
struct lines_out {
    struct buf buf;
    size_t limit_bytes; /* 0: 4 MiB; a reader slower than that is cut off */
};
/* Queues `line` and '\n'. Errors: ERR_LIMIT. */
int lines_put(struct lines_out *out, const char *line, struct err *err) WARN_UNUSED;
/* Writes what the descriptor takes. Errors: ERR_CLOSED (peer went away), ERR_IO. */
int lines_flush(struct lines_out *out, int fd, struct err *err) WARN_UNUSED;
void lines_out_done(struct lines_out *out);

struct unix_peer {
    pid_t pid;
    uid_t uid;
    gid_t gid;
};

/* All descriptors are close-on-exec and non-blocking. `path` is at most 107 bytes (sun_path). */
/* Listens; a leftover socket file that nobody listens on is replaced, else ERR_EXISTS. */
int unix_listen(const char *path, unsigned mode, int *out_fd, struct err *err) WARN_UNUSED;
/* Returns 1 with a connection and the kernel's word on who it is, 0 when none waits, or -1. */
int unix_accept(int listen_fd, int *out_fd, struct unix_peer *out_peer,
                struct err *err) WARN_UNUSED;
/* Errors: ERR_NOT_FOUND (no such file), ERR_CLOSED (nobody listens), ERR_LIMIT (the listener has
 * more connections waiting than it takes, try again), ERR_IO. */
int unix_connect(const char *path, int *out_fd, struct err *err) WARN_UNUSED;
/* SO_PEERCRED of a connected unix socket. */
int unix_peer_of(int fd, struct unix_peer *out, struct err *err) WARN_UNUSED;
/* Accepts root and `allowed`; otherwise ERR_DENIED naming both. */
int unix_peer_check(const struct unix_peer *peer, uid_t allowed, struct err *err) WARN_UNUSED;

#endif
