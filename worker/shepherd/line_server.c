/* line_server.c - see line_server.h. */
#include "worker/shepherd/line_server.h"

#include "common/base/mem.h"
#include "common/net/lines.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ANSWER_BYTES_MAX ((size_t)1 << 20)

struct client {
    struct line_client shared; /* first: line_client_send casts */
    struct line_server *server;
    struct client *next;
    int fd; /* -1: gone, freed by the next accept or pass */
    struct poller_watch *watch;
    struct lines in;
    struct lines_out out;
    struct lines_out held; /* answers that wait */
};

struct line_server {
    struct line_server_config config;
    char *path;
    struct poller *poller;
    int fd;
    struct poller_watch *watch;
    struct client *clients; /* newest first */
    size_t client_count;
    bool paused, held;
    bool moved;         /* a client came or went since the last tick */
    uint64_t full_ms;   /* since when there is no room and nobody comes or goes; 0: not so */
};

static bool is_full(const struct line_server *server)
{
    return server->client_count >= server->config.client_max;
}

/* Who cannot be taken waits in the kernel. */
static void server_wants(struct line_server *server)
{
    poller_set(server->watch, is_full(server) ? 0 : POLLIN);
}

static void client_drop(struct client *client)
{
    if (client->fd < 0)
        return;
    poller_remove(client->watch);
    client->watch = NULL;
    close(client->fd);
    client->fd = -1;
    client->server->client_count--;
    client->server->moved = true;
    server_wants(client->server);
}

static void clients_reap(struct line_server *server)
{
    for (struct client **at = &server->clients; *at;) {
        struct client *client = *at;
        if (client->fd >= 0) {
            at = &client->next;
            continue;
        }
        *at = client->next;
        lines_done(&client->in);
        lines_out_done(&client->out);
        lines_out_done(&client->held);
        mem_free(client);
    }
}

static void client_wants(struct client *client)
{
    if (client->fd < 0)
        return;
    short events = client->server->paused || client->in.ended ? 0 : POLLIN;
    if (client->out.buf.length > 0)
        events |= POLLOUT;
    poller_set(client->watch, events);
}

static void client_flush(struct client *client)
{
    struct err err = {0};
    if (client->fd >= 0 && lines_flush(&client->out, client->fd, &err) < 0)
        client_drop(client); /* it went away; what it sent has been read */
    client_wants(client);
}

static void client_refuse(struct client *client, const struct err *why)
{
    const struct line_server_config *config = &client->server->config;
    config->on_refused(config->user, &client->shared, why);
}

/* Handles the complete lines that are there. A stream that cannot be trusted is closed. */
static void client_lines(struct client *client)
{
    const struct line_server_config *config = &client->server->config;
    for (;;) {
        struct err err = {0};
        char *line;
        size_t length;
        int rc = lines_next(&client->in, &line, &length, &err);
        if (rc == 0 || client->fd < 0)
            return;
        if (rc < 0) {
            client_refuse(client, &err);
            client_drop(client);
            return;
        }
        if (length == 0)
            continue;
        if (config->on_line(config->user, &client->shared, line, length, &err) < 0)
            client_refuse(client, &err);
        else
            client->shared.spoke = true;
    }
}

/* A peer that closed its writing side gets its answers, also those that wait. */
static void client_end(struct client *client)
{
    if (client->fd < 0 || !client->in.ended || client->held.buf.length > 0)
        return;
    client_flush(client);
    client_drop(client);
}

/* until_empty: read on; otherwise one bounded helping, so that no client starves the others. */
static void client_read(struct client *client, bool until_empty)
{
    struct err err = {0};
    int rc;
    do {
        rc = lines_fill(&client->in, client->fd, &err);
        client_lines(client);
    } while (until_empty && rc > 0 && client->fd >= 0);
    if (client->fd >= 0 && rc < 0)
        client_drop(client);
    client_end(client);
}

static void client_ready(void *user, short events)
{
    struct client *client = user;
    if (client->in.ended && (events & (POLLHUP | POLLERR)))
        client_drop(client); /* nobody is there for what waits */
    else if (events & (POLLIN | POLLHUP | POLLERR))
        client_read(client, false);
    client_flush(client);
}

static void client_add(struct line_server *server, int fd)
{
    struct client *client = mem_zalloc(sizeof *client);
    client->server = server;
    client->fd = fd;
    client->out.limit_bytes = client->held.limit_bytes = ANSWER_BYTES_MAX;
    client->watch =
        poller_add(server->poller, fd, server->paused ? 0 : POLLIN, client_ready, client);
    client->next = server->clients;
    server->clients = client;
    server->client_count++;
    server->moved = true;
    server_wants(server);
}

/* Takes a connection that waits. Returns whether there was one; *out_fd: -1 when it is nobody we
 * serve. */
static bool server_accept(struct line_server *server, int *out_fd)
{
    struct unix_peer peer;
    struct line_client nobody = {0};
    struct err err = {0};
    *out_fd = -1;
    int rc = unix_accept(server->fd, out_fd, &peer, &err);
    bool served = rc > 0 && unix_peer_check(&peer, geteuid(), &err) == 0;
    if (err.kind != ERR_NONE)
        server->config.on_refused(server->config.user, &nobody, &err);
    if (rc > 0 && !served) {
        close(*out_fd);
        *out_fd = -1;
    }
    return rc > 0;
}

static void server_ready(void *user, short events)
{
    struct line_server *server = user;
    int fd;
    (void)events;
    clients_reap(server);
    if (server_accept(server, &fd) && fd >= 0)
        client_add(server, fd);
}

/* The answer comes before anything was asked: who writes first meets a closed connection, but finds
 * it there to be read. */
static void refuse_crowded(struct line_server *server, int fd)
{
    struct line_client nobody = {0};
    struct err err = {0};
    char line[300];
    err_set(&err, ERR_LIMIT,
            "%zu connections are open, which is the most, and none was closed for %u s: close "
            "those that are done",
            server->client_count, LINE_SERVER_PATIENCE_MS / 1000);
    int length = snprintf(line, sizeof line, "{\"ok\": false, \"error\": \"%s\"}\n", err.text);
    ssize_t sent = send(fd, line, (size_t)length, MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)sent; /* a new connection has room for a line; who has gone needs none */
    close(fd);
    server->config.on_refused(server->config.user, &nobody, &err);
}

void line_server_tick(struct line_server *server, uint64_t now_ms)
{
    int fd;
    if (!server)
        return;
    bool stuck = is_full(server) && !server->moved && !server->paused && !server->held;
    server->moved = false;
    if (!stuck)
        server->full_ms = 0;
    else if (server->full_ms == 0)
        server->full_ms = now_ms;
    else if (now_ms - server->full_ms >= LINE_SERVER_PATIENCE_MS)
        while (server_accept(server, &fd))
            if (fd >= 0)
                refuse_crowded(server, fd);
}

int line_server_open(struct poller *poller, const struct line_server_config *config,
                     struct line_server **out, struct err *err)
{
    int fd;
    if (unix_listen(config->path, config->mode, &fd, err) < 0)
        return -1;
    struct line_server *server = mem_zalloc(sizeof *server);
    server->config = *config;
    server->path = mem_strdup(config->path);
    server->poller = poller;
    server->fd = fd;
    server->watch = poller_add(poller, fd, POLLIN, server_ready, server);
    *out = server;
    return 0;
}

void line_server_close(struct line_server *server)
{
    if (!server)
        return;
    for (struct client *client = server->clients; client; client = client->next)
        client_drop(client);
    clients_reap(server);
    poller_remove(server->watch);
    close(server->fd);
    unlink(server->path);
    mem_free(server->path);
    mem_free(server);
}

static void client_put(struct client *client, struct lines_out *out, const char *line)
{
    struct err err = {0};
    if (client->fd < 0)
        return;
    if (lines_put(out, line, &err) < 0) {
        client_refuse(client, &err);
        client_drop(client);
        return;
    }
    client_flush(client);
}

void line_client_send(struct line_client *shared, const char *line)
{
    struct client *client = (struct client *)shared;
    client_put(client, &client->out, line);
}

void line_client_answer(struct line_client *shared, const char *line)
{
    struct client *client = (struct client *)shared;
    client_put(client, client->server->held ? &client->held : &client->out, line);
}

/* What is held goes behind what was sent meanwhile. Each is bounded, so their sum is, too. */
static void client_let_go(struct client *client)
{
    buf_add(&client->out.buf, client->held.buf.bytes, client->held.buf.length);
    buf_clear(&client->held.buf);
    client_flush(client);
    client_end(client);
}

void line_server_hold(struct line_server *server, bool held)
{
    if (server->held == held)
        return;
    server->held = held;
    for (struct client *client = server->clients; client && !held; client = client->next)
        if (client->fd >= 0 && client->held.buf.length > 0)
            client_let_go(client);
}

size_t line_server_broadcast(struct line_server *server, const char *line)
{
    size_t listeners = 0;
    for (struct client *client = server->clients; client; client = client->next) {
        if (client->fd < 0 || !client->shared.spoke)
            continue;
        line_client_send(&client->shared, line);
        listeners += client->fd >= 0;
    }
    return listeners;
}

void line_server_pause(struct line_server *server, bool paused)
{
    if (server->paused == paused)
        return;
    server->paused = paused;
    for (struct client *client = server->clients; client; client = client->next)
        client_wants(client);
}

void line_server_drain(struct line_server *server)
{
    bool paused = server->paused;
    int fd;
    server->paused = false;
    while (server_accept(server, &fd))
        if (fd >= 0)
            client_add(server, fd);
    for (struct client *client = server->clients; client; client = client->next)
        if (client->fd >= 0 && !client->in.ended)
            client_read(client, true);
    server->paused = paused;
    clients_reap(server);
}
