/* report.h - a rank's side of the report socket (protocol: worker/README.md).
 *
 * Nothing here makes training wait: lines are queued and sent as the socket takes them, and
 * orders are read when polled. A lost connection is tried again once a second, with the
 * unsent lines kept. Only a queue of over REPORT_QUEUE_MAX waits for room, at most
 * REPORT_WAIT_MS, and then fails: dropping metrics silently is not an option.
 * Without a socket (standalone) there is nobody to report to: every call succeeds. */
#ifndef ATHANOR_REPORT_H
#define ATHANOR_REPORT_H

#include "common/base/err.h"

#define REPORT_LINE_MAX 65536
#define REPORT_QUEUE_MAX ((size_t)64 << 20)
#define REPORT_WAIT_MS 10000

struct report;

enum report_order_kind {
    ORDER_NONE = 0,
    ORDER_STOP,
    ORDER_CHECKPOINT,
    ORDER_REFUSED,
    ORDER_ACCEPTED,
};

/* One line from the shepherd. report_poll keeps ORDER_ACCEPTED to itself. */
struct report_order {
    enum report_order_kind kind;
    uint64_t grace_ms; /* ORDER_STOP */
    char text[256];    /* ORDER_STOP: the cause; ORDER_REFUSED: why a line of ours was refused */
};

struct report_value {
    const char *name;
    double value; /* finite */
};

/* socket_path NULL or "": standalone. Connects and says hello; a shepherd that is not there
 * is an error here, later ones are retried. */
int report_open(const char *socket_path, unsigned rank, struct report **out,
                struct err *err) WARN_UNUSED;
bool report_is_connected(const struct report *report);
int report_metrics(struct report *report, uint64_t step, const struct report_value *values,
                   size_t count, struct err *err) WARN_UNUSED;
int report_progress(struct report *report, uint64_t step, uint64_t total, const char *phase,
                    struct err *err) WARN_UNUSED;
/* save_ms: how long the ranks were busy saving. */
int report_checkpoint(struct report *report, uint64_t step, const char *path, uint64_t save_ms,
                      const struct report_value *metrics, size_t count,
                      struct err *err) WARN_UNUSED;
/* meta_json: text of an object, or NULL. ERR_INVALID when it is not one. */
int report_artifact(struct report *report, const char *kind, const char *name, const char *path,
                    const char *meta_json, struct err *err) WARN_UNUSED;
/* step: what it is about; 0: nothing of the kind. */
int report_event(struct report *report, const char *name, const char *text, uint64_t step,
                 struct err *err) WARN_UNUSED;
/* Sends what the socket takes and reads the next order; ORDER_NONE when there is none. */
int report_poll(struct report *report, struct report_order *out, struct err *err) WARN_UNUSED;
/* Waits at most wait_ms for the answers to checkpoints and artifacts. A refusal is an error
 * (ERR_INVALID); no answer in time is not: the lines were delivered. */
int report_settle(struct report *report, uint64_t wait_ms, struct err *err) WARN_UNUSED;
/* Sends everything that is queued, waiting at most wait_ms. ERR_TIMEOUT states what is left. */
int report_flush(struct report *report, uint64_t wait_ms, struct err *err) WARN_UNUSED;
void report_close(struct report *report);

/* Reads one line of the shepherd's. Unknown types are ORDER_NONE. ERR_PROTOCOL: not an object. */
int report_order_parse(const char *line, size_t length, struct report_order *out,
                       struct err *err) WARN_UNUSED;

#endif
