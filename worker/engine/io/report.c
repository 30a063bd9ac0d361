/* report.c - queueing and sending of report lines; see report.h. */
#include "worker/engine/io/report.h"

#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/json_text.h"
#include "common/base/mem.h"
#include "common/base/parse.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define RETRY_MS 1000

struct report {
    char *path; /* NULL: standalone */
    unsigned rank;
    int fd; /* -1 while not connected */
    uint64_t retry_at_ms;
    struct buf out, in;
    struct buf line; /* being written */
    size_t sent; /* bytes of the first line in `out` that are gone already */
    unsigned awaited; /* lines sent with "reply" and not answered on this connection */
};

static json_t *hello_json(unsigned rank)
{
    return json_pack("{s:s, s:i}", "type", "hello", "rank", (int)rank);
}

static int connect_socket(struct report *report, struct err *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(report->path) >= sizeof address.sun_path)
        return err_set(err, ERR_INVALID, "the report socket's path '%s' is longer than %zu bytes",
                       report->path, sizeof address.sun_path - 1);
    memcpy(address.sun_path, report->path, strlen(report->path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_errno(err, "make a socket");
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        err_errno(err, "connect to the report socket '%s'", report->path);
        close(fd);
        return -1;
    }
    report->fd = fd;
    return 0;
}

static int refuse_values(struct err *err)
{
    return err_set(err, ERR_INVALID, "a report holds a text that is not UTF-8, or a number that is "
                   "not finite");
}

/* Puts a line at the very front (hello) or at the end of the queue. */
static int put_text(struct report *report, const char *text, bool at_front, struct err *err)
{
    size_t length = strlen(text);
    if (length + 1 > REPORT_LINE_MAX)
        return err_set(err, ERR_LIMIT, "a report of %zu bytes; at most %d are accepted",
                       length + 1, REPORT_LINE_MAX);
    if (at_front) {
        struct buf whole = {0};
        buf_printf(&whole, "%s\n", text);
        buf_add(&whole, report->out.bytes, report->out.length);
        buf_done(&report->out);
        report->out = whole;
    } else {
        buf_printf(&report->out, "%s\n", text);
    }
    return 0;
}

/* Steals root. */
static int put_line(struct report *report, json_t *root, bool at_front, struct err *err)
{
    char *text = root ? json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(root);
    if (!text)
        return refuse_values(err);
    int rc = put_text(report, text, at_front, err);
    free(text);
    return rc;
}

static void disconnect(struct report *report)
{
    close(report->fd);
    report->fd = -1;
    report->sent = 0; /* a half-sent line is sent again, whole */
    report->awaited = 0;
    buf_clear(&report->in);
    report->retry_at_ms = clock_steady_ms() + RETRY_MS;
}

static void reconnect(struct report *report)
{
    struct err ignored; /* tried again in a second; a queue that fills up is the error */
    if (clock_steady_ms() < report->retry_at_ms)
        return;
    report->retry_at_ms = clock_steady_ms() + RETRY_MS;
    if (connect_socket(report, &ignored) == 0 &&
        put_line(report, hello_json(report->rank), true, &ignored) < 0)
        disconnect(report);
}

/* Removes the lines that were sent completely. */
static void drop_sent(struct report *report, size_t sent)
{
    size_t whole = 0;
    for (size_t i = 0; i < sent; i++)
        if (report->out.bytes[i] == '\n')
            whole = i + 1;
    buf_drop(&report->out, whole);
    report->sent = sent - whole;
}

static void send_some(struct report *report)
{
    if (!report->path)
        return;
    if (report->fd < 0)
        reconnect(report);
    while (report->fd >= 0 && report->sent < report->out.length) {
        ssize_t got = send(report->fd, report->out.bytes + report->sent,
                           report->out.length - report->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (got < 0)
            disconnect(report);
        else
            drop_sent(report, report->sent + (size_t)got);
    }
}

/* Waits until the socket takes bytes again, or a moment while there is none. */
static void wait_for_room(struct report *report, uint64_t wait_ms)
{
    struct pollfd waiting = {.fd = report->fd, .events = POLLOUT};
    poll(&waiting, report->fd >= 0 ? 1 : 0, (int)min_u64(wait_ms, 100));
}

static int send_until(struct report *report, size_t left_max, uint64_t wait_ms, struct err *err)
{
    uint64_t deadline = clock_steady_ms() + wait_ms;
    if (!report->path)
        return 0;
    for (;;) {
        send_some(report);
        if (report->out.length <= left_max)
            return 0;
        uint64_t now = clock_steady_ms();
        if (now >= deadline)
            return err_set(err, ERR_TIMEOUT, "the shepherd did not take %zu bytes of reports "
                           "within %llu ms", report->out.length, (unsigned long long)wait_ms);
        wait_for_room(report, deadline - now);
    }
}

static int queue(struct report *report, json_t *root, struct err *err)
{
    bool reply = json_is_true(json_object_get(root, "reply"));
    if (!report->path) {
        json_decref(root);
        return 0;
    }
    if (put_line(report, root, false, err) < 0)
        return -1;
    report->awaited += reply;
    return send_until(report, REPORT_QUEUE_MAX, REPORT_WAIT_MS, err);
}

int report_open(const char *socket_path, unsigned rank, struct report **out, struct err *err)
{
    struct report *report = mem_zalloc(sizeof *report);
    report->fd = -1;
    report->rank = rank;
    if (socket_path && *socket_path) {
        report->path = mem_strdup(socket_path);
        if (connect_socket(report, err) < 0 ||
            put_line(report, hello_json(rank), true, err) < 0) {
            report_close(report);
            return -1;
        }
        send_some(report);
    }
    *out = report;
    return 0;
}

bool report_is_connected(const struct report *report)
{
    return report->fd >= 0;
}

static json_t *values_json(const struct report_value *values, size_t count)
{
    json_t *object = json_object();
    for (size_t i = 0; i < count; i++)
        if (json_object_set_new(object, values[i].name, json_real(values[i].value)) < 0) {
            json_decref(object);
            return NULL;
        }
    return object;
}

static int add_text(struct buf *line, const char *text, struct err *err)
{
    if (!text_is_utf8(text, strlen(text)))
        return refuse_values(err);
    json_text_quote(line, text, strlen(text));
    return 0;
}

/* All digits; whole numbers too are written as real ones, as jansson writes them. */
static int add_real(struct buf *line, double value, struct err *err)
{
    char text[32];
    if (!isfinite(value))
        return refuse_values(err);
    snprintf(text, sizeof text, "%.17g", value);
    buf_puts(line, text);
    if (!strpbrk(text, ".e"))
        buf_puts(line, ".0");
    return 0;
}

/* Sends what is in the report's line. Metrics and progress, which come with every step, are
 * written there without a tree: a step takes nothing from the heap. */
static int queue_line(struct report *report, struct err *err)
{
    if (put_text(report, buf_text(&report->line), false, err) < 0)
        return -1;
    return send_until(report, REPORT_QUEUE_MAX, REPORT_WAIT_MS, err);
}

int report_metrics(struct report *report, uint64_t step, const struct report_value *values,
                   size_t count, struct err *err)
{
    struct buf *line = &report->line;
    if (!report->path)
        return 0;
    buf_clear(line);
    buf_printf(line, "{\"type\":\"metric\",\"step\":%llu,\"values\":{",
               (unsigned long long)step);
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            buf_putc(line, ',');
        if (add_text(line, values[i].name, err) < 0)
            return -1;
        buf_putc(line, ':');
        if (add_real(line, values[i].value, err) < 0)
            return -1;
    }
    buf_puts(line, "}}");
    return queue_line(report, err);
}

int report_progress(struct report *report, uint64_t step, uint64_t total, const char *phase,
                    struct err *err)
{
    struct buf *line = &report->line;
    if (!report->path)
        return 0;
    buf_clear(line);
    buf_printf(line, "{\"type\":\"progress\",\"step\":%llu,\"total\":%llu,\"phase\":",
               (unsigned long long)step, (unsigned long long)total);
    if (add_text(line, phase, err) < 0)
        return -1;
    buf_putc(line, '}');
    return queue_line(report, err);
}

int report_checkpoint(struct report *report, uint64_t step, const char *path, uint64_t save_ms,
                      const struct report_value *metrics, size_t count, struct err *err)
{
    return queue(report, json_pack("{s:s, s:I, s:s, s:I, s:b, s:o}", "type", "checkpoint", "step",
                                   (json_int_t)step, "path", path, "save_ms", (json_int_t)save_ms,
                                   "reply", 1, "metrics", values_json(metrics, count)), err);
}

int report_artifact(struct report *report, const char *kind, const char *name, const char *path,
                    const char *meta_json, struct err *err)
{
    json_t *meta = meta_json ? json_loads(meta_json, 0, NULL) : json_object();
    if (!json_is_object(meta)) {
        json_decref(meta);
        return err_set(err, ERR_INVALID, "the meta text of artifact '%s' is not a JSON object",
                       name);
    }
    return queue(report, json_pack("{s:s, s:s, s:s, s:s, s:b, s:o}", "type", "artifact", "kind",
                                   kind, "name", name, "path", path, "reply", 1, "meta", meta),
                 err);
}

int report_event(struct report *report, const char *name, const char *text, uint64_t step,
                 struct err *err)
{
    json_t *line =
        json_pack("{s:s, s:s, s:s, s:{}}", "type", "event", "name", name, "text", text, "fields");
    if (line && step)
        json_object_set_new(line, "step", json_integer((json_int_t)step));
    return queue(report, line, err);
}

static void order_text(json_t *value, struct report_order *out)
{
    const char *text = json_string_value(value);
    snprintf(out->text, sizeof out->text, "%s", text ? text : "");
}

int report_order_parse(const char *line, size_t length, struct report_order *out, struct err *err)
{
    json_error_t why;
    json_t *root = json_loadb(line, length, 0, &why);
    const char *type = json_string_value(json_object_get(root, "type"));
    json_t *grace = json_object_get(root, "grace_ms");
    struct report_order order = {0};
    if (!json_is_object(root)) {
        json_decref(root);
        return err_set(err, ERR_PROTOCOL, "the shepherd sent a line that is not a JSON object");
    }
    if (type && strcmp(type, "stop") == 0) {
        order.kind = ORDER_STOP;
        order_text(json_object_get(root, "cause"), &order);
        if (json_is_integer(grace) && json_integer_value(grace) > 0)
            order.grace_ms = (uint64_t)json_integer_value(grace);
    } else if (type && strcmp(type, "checkpoint_now") == 0) {
        order.kind = ORDER_CHECKPOINT;
    } else if (json_is_boolean(json_object_get(root, "ok"))) {
        bool refused = json_is_false(json_object_get(root, "ok"));
        order.kind = refused ? ORDER_REFUSED : ORDER_ACCEPTED;
        order_text(json_object_get(root, "error"), &order);
    }
    json_decref(root);
    *out = order;
    return 0;
}

static void receive_some(struct report *report)
{
    char chunk[4096];
    while (report->fd >= 0 && report->in.length <= REPORT_LINE_MAX) {
        ssize_t got = recv(report->fd, chunk, sizeof chunk, MSG_DONTWAIT);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (got <= 0)
            disconnect(report);
        else
            buf_add(&report->in, chunk, (size_t)got);
    }
}

int report_poll(struct report *report, struct report_order *out, struct err *err)
{
    *out = (struct report_order){0};
    if (!report->path)
        return 0;
    send_some(report);
    if (report->in.length == 0 || !memchr(report->in.bytes, '\n', report->in.length))
        receive_some(report);
    while ((out->kind == ORDER_NONE || out->kind == ORDER_ACCEPTED) && report->in.length > 0) {
        out->kind = ORDER_NONE;
        char *end = memchr(report->in.bytes, '\n', report->in.length);
        if (!end && report->in.length > REPORT_LINE_MAX)
            return err_set(err, ERR_PROTOCOL, "the shepherd sent a line of over %d bytes",
                           REPORT_LINE_MAX);
        if (!end)
            break;
        size_t length = (size_t)(end - report->in.bytes);
        int rc = report_order_parse(report->in.bytes, length, out, err);
        buf_drop(&report->in, length + 1);
        if (rc < 0)
            return -1;
        bool answer = out->kind == ORDER_ACCEPTED || out->kind == ORDER_REFUSED;
        report->awaited -= answer && report->awaited > 0;
    }
    if (out->kind == ORDER_ACCEPTED)
        out->kind = ORDER_NONE;
    return 0;
}

int report_settle(struct report *report, uint64_t wait_ms, struct err *err)
{
    uint64_t deadline = clock_steady_ms() + wait_ms, now = deadline - wait_ms;
    while (report->awaited > 0 && report->fd >= 0 && now < deadline) {
        struct pollfd waiting = {.fd = report->fd, .events = POLLIN};
        struct report_order order;
        poll(&waiting, 1, (int)min_u64(deadline - now, 100));
        if (report_poll(report, &order, err) < 0)
            return -1;
        if (order.kind == ORDER_REFUSED)
            return err_set(err, ERR_INVALID, "the shepherd refused a report: %s", order.text);
        now = clock_steady_ms();
    }
    return 0;
}

int report_flush(struct report *report, uint64_t wait_ms, struct err *err)
{
    return send_until(report, 0, wait_ms, err);
}

void report_close(struct report *report)
{
    if (!report)
        return;
    if (report->fd >= 0)
        close(report->fd);
    buf_done(&report->out);
    buf_done(&report->in);
    buf_done(&report->line);
    mem_free(report->path);
    mem_free(report);
}
