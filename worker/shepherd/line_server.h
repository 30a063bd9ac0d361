/* line_server.h - a unix socket that takes JSON lines: the report socket and the control socket.
 *
 * Only our own account and root are served. Each client is bounded: lines of LINE_BYTES_MAX,
 * 1 MiB of unread answers. At most client_max connections are open. Who comes when they are waits
 * in the kernel's queue (129 of them; connect makes others wait, or answers EAGAIN) until one
 * closes, which after a report is a matter of a millisecond: a thousand wait for less than a
 * second. When none has come or gone for LINE_SERVER_PATIENCE_MS although we read and answer, those
 * that are open are being kept, and who waits gets {"ok": false, "error": ...} and is closed. */
#ifndef ATHANOR_SHEPHERD_LINE_SERVER_H
#define ATHANOR_SHEPHERD_LINE_SERVER_H

#include "common/base/err.h"
#include "worker/shepherd/poller.h"

#define LINE_SERVER_PATIENCE_MS 10000u

struct line_server;

struct line_client {
    unsigned rank; /* for the owner's use; 0 at first */
    bool spoke;    /* has sent a line that was accepted: it may also be listening */
};

/* One line, terminated, without '\n'. Returns 0 when accepted, else -1 with the reason. */
typedef int line_server_fn(void *user, struct line_client *client, char *line, size_t length,
                           struct err *err);
/* A line was refused, or a client cut off: why. */
typedef void line_server_refused_fn(void *user, const struct line_client *client,
                                    const struct err *why);

struct line_server_config {
    const char *path;
    unsigned mode;
    size_t client_max; /* more wait */
    line_server_fn *on_line;
    line_server_refused_fn *on_refused;
    void *user;
};

int line_server_open(struct poller *poller, const struct line_server_config *config,
                     struct line_server **out, struct err *err) WARN_UNUSED;
void line_server_close(struct line_server *server); /* closes and removes the socket file */

/* Queues a line for one client. A client that does not read is cut off later. */
void line_client_send(struct line_client *client, const char *line);
/* The same of an answer, which waits while answers are held; in the order of what is answered. */
void line_client_answer(struct line_client *client, const char *line);
/* Holds answers back, and lets go of them: what they promise is not so yet. */
void line_server_hold(struct line_server *server, bool held);
/* Sends to every client that spoke; returns how many there were. */
size_t line_server_broadcast(struct line_server *server, const char *line);
/* Stops and resumes reading: backpressure while the spool cannot be written. */
void line_server_pause(struct line_server *server, bool paused);
/* To be called at least once a second: refuses who has waited for too long. NULL is fine. */
void line_server_tick(struct line_server *server, uint64_t now_ms);
/* Takes everything already sent to us, without waiting; of new connections too, also beyond
 * client_max: at the end, when all that may come is what waits. */
void line_server_drain(struct line_server *server);

#endif
