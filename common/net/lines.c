/* lines.c - bounded lines and unix sockets; see lines.h. */
#include "common/net/lines.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define FILL_BYTES_MAX    ((size_t)256 << 10)
#define OUT_BYTES_DEFAULT ((size_t)4 << 20)
#define LISTEN_BACKLOG    128

/* ---- reading ------------------------------------------------------------------------------ */

static size_t limit_of(const struct lines *lines)
{
    return lines->limit_bytes ? lines->limit_bytes : LINE_BYTES_MAX;
}

void lines_add(struct lines *lines, const void *bytes, size_t length)
{
    if (lines->taken == lines->buf.length) {
        buf_clear(&lines->buf);
        lines->taken = 0;
    }
    buf_add(&lines->buf, bytes, length);
}

int lines_fill(struct lines *lines, int fd, struct err *err)
{
    char bytes[16384];
    size_t total = 0;
    while (total < FILL_BYTES_MAX) {
        ssize_t count = read(fd, bytes, sizeof bytes);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            break;
        if (count < 0 && errno != ECONNRESET)
            return err_errno(err, "reading a line");
        if (count <= 0) {
            lines->ended = true;
            break;
        }
        lines_add(lines, bytes, (size_t)count);
        total += (size_t)count;
        if ((size_t)count < sizeof bytes)
            break; /* a blocking descriptor must not be asked again */
    }
    return total > 0;
}

int lines_next(struct lines *lines, char **out_line, size_t *out_length, struct err *err)
{
    /* Dropping what was taken at once would move the rest for each short line. */
    if (lines->taken > FILL_BYTES_MAX) {
        buf_drop(&lines->buf, lines->taken);
        lines->taken = 0;
    }
    size_t left = lines->buf.length - lines->taken;
    if (left == 0)
        return 0;
    char *start = lines->buf.bytes + lines->taken;
    char *stop = memchr(start, '\n', left);
    size_t length = stop ? (size_t)(stop - start) : left;
    if (length > limit_of(lines))
        return err_set(err, ERR_LIMIT, "a line has more than %zu bytes", limit_of(lines));
    if (memchr(start, '\0', length))
        return err_set(err, ERR_PROTOCOL, "a line holds a zero byte");
    if (!stop)
        return 0;
    lines->taken += length + 1;
    if (length > 0 && start[length - 1] == '\r')
        length--;
    start[length] = '\0';
    *out_line = start;
    *out_length = length;
    return 1;
}

void lines_done(struct lines *lines)
{
    buf_done(&lines->buf);
    lines->taken = 0;
}

/* ---- writing ------------------------------------------------------------------------------ */

int lines_put(struct lines_out *out, const char *line, struct err *err)
{
    size_t limit = out->limit_bytes ? out->limit_bytes : OUT_BYTES_DEFAULT;
    size_t length = strlen(line);
    if (length >= limit || out->buf.length + length + 1 > limit)
        return err_set(err, ERR_LIMIT, "%zu bytes wait for a reader that does not read",
                       out->buf.length);
    buf_add(&out->buf, line, length);
    buf_putc(&out->buf, '\n');
    return 0;
}

int lines_flush(struct lines_out *out, int fd, struct err *err)
{
    size_t sent = 0;
    int rc = 0;
    while (sent < out->buf.length) {
        ssize_t count =
            send(fd, out->buf.bytes + sent, out->buf.length - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            break;
        if (count < 0 && (errno == EPIPE || errno == ECONNRESET))
            rc = err_set(err, ERR_CLOSED, "the peer closed the socket");
        else if (count < 0)
            rc = err_errno(err, "writing a line");
        if (rc < 0)
            break;
        sent += (size_t)count;
    }
    buf_drop(&out->buf, sent);
    return rc;
}

void lines_out_done(struct lines_out *out)
{
    buf_done(&out->buf);
}

/* ---- unix sockets ------------------------------------------------------------------------- */

static int address_of(const char *path, struct sockaddr_un *out, struct err *err)
{
    size_t length = strlen(path);
    *out = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (length == 0 || length >= sizeof out->sun_path)
        return err_set(err, ERR_INVALID,
                       "socket path '%s' has %zu bytes, the system takes 1 to %zu: use a shorter "
                       "directory",
                       path, length, sizeof out->sun_path - 1);
    memcpy(out->sun_path, path, length + 1);
    return 0;
}

static int socket_new(int *out_fd, struct err *err)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_errno(err, "making a unix socket");
    *out_fd = fd;
    return 0;
}

int unix_connect(const char *path, int *out_fd, struct err *err)
{
    struct sockaddr_un address;
    int fd = -1;
    if (address_of(path, &address, err) < 0 || socket_new(&fd, err) < 0)
        return -1;
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) {
        *out_fd = fd;
        return 0;
    }
    int reason = errno;
    close(fd);
    errno = reason;
    if (reason == ECONNREFUSED)
        return err_set(err, ERR_CLOSED, "nobody listens on '%s'", path);
    if (reason == EAGAIN)
        return err_set(err, ERR_LIMIT, "connecting to '%s': %d others wait for it already", path,
                       LISTEN_BACKLOG);
    return err_errno(err, "connecting to '%s'", path);
}

/* Removes the socket file of a listener that is gone. */
static int leftover_remove(const char *path, struct err *err)
{
    struct stat status;
    struct err why;
    int fd = -1;
    if (lstat(path, &status) < 0)
        return errno == ENOENT ? 0 : err_errno(err, "looking at '%s'", path);
    if (!S_ISSOCK(status.st_mode))
        return err_set(err, ERR_EXISTS, "'%s' exists and is not a socket", path);
    if (unix_connect(path, &fd, &why) == 0) {
        close(fd);
        return err_set(err, ERR_EXISTS, "somebody listens on '%s' already", path);
    }
    if (why.kind != ERR_CLOSED)
        return err_set(err, ERR_EXISTS, "'%s' seems to be in use: %s", path, why.text);
    if (unlink(path) < 0 && errno != ENOENT)
        return err_errno(err, "removing the old socket '%s'", path);
    return 0;
}

int unix_listen(const char *path, unsigned mode, int *out_fd, struct err *err)
{
    struct sockaddr_un address;
    int fd = -1;
    if (address_of(path, &address, err) < 0 || leftover_remove(path, err) < 0 ||
        socket_new(&fd, err) < 0)
        return -1;
    /* Nobody may connect between bind and chmod: the file is born without any permission. */
    mode_t before = umask(0777);
    int bound = bind(fd, (struct sockaddr *)&address, sizeof address);
    int reason = errno;
    umask(before);
    errno = reason;
    if (bound < 0 || chmod(path, (mode_t)mode) < 0 || listen(fd, LISTEN_BACKLOG) < 0) {
        err_errno(err, "listening on '%s'", path);
        close(fd);
        return -1;
    }
    *out_fd = fd;
    return 0;
}

int unix_peer_of(int fd, struct unix_peer *out, struct err *err)
{
    struct ucred credentials;
    socklen_t length = sizeof credentials;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) < 0)
        return err_errno(err, "asking who connected");
    *out = (struct unix_peer){credentials.pid, credentials.uid, credentials.gid};
    return 0;
}

int unix_accept(int listen_fd, int *out_fd, struct unix_peer *out_peer, struct err *err)
{
    int fd;
    do
        fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    while (fd < 0 && (errno == EINTR || errno == ECONNABORTED));
    if (fd < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return 0;
    if (fd < 0)
        return err_errno(err, "accepting a connection");
    if (unix_peer_of(fd, out_peer, err) < 0) {
        close(fd);
        return -1;
    }
    *out_fd = fd;
    return 1;
}

int unix_peer_check(const struct unix_peer *peer, uid_t allowed, struct err *err)
{
    if (peer->uid == allowed || peer->uid == 0)
        return 0;
    return err_set(err, ERR_DENIED, "process %d of user %u may not connect, only user %u and root",
                   (int)peer->pid, (unsigned)peer->uid, (unsigned)allowed);
}
