/* report_line.h - one JSON line of the report protocol (worker/README.md) as a struct.
 *
 * Numbers that JSON cannot write are accepted as the texts "NaN", "Infinity", "-Infinity", as
 * null (NaN), and bare as Python's json module writes them: a diverging run must be able to say
 * so. Unknown fields are ignored, unknown types refused. */
#ifndef ATHANOR_SHEPHERD_REPORT_LINE_H
#define ATHANOR_SHEPHERD_REPORT_LINE_H

#include "common/base/arena.h"
#include "common/base/err.h"

#define REPORT_VALUES_MAX     1024u /* metrics of one line; a line has 64 KiB */
#define REPORT_NAME_BYTES_MAX 200u  /* metric, artifact, event and phase names */

enum report_line_kind {
    LINE_HELLO = 1,
    LINE_METRIC,
    LINE_PROGRESS,
    LINE_CHECKPOINT,
    LINE_ARTIFACT,
    LINE_EVENT,
    LINE_KIND_END,
};

struct report_value {
    const char *name;
    double value;
};

struct report_line {
    enum report_line_kind kind;
    bool has_rank, reply;
    uint64_t rank;
    uint64_t step, total;      /* metric, progress, checkpoint; event: 0 when not told */
    uint64_t save_ms;          /* checkpoint: how long saving it took; 0: not told */
    const char *name;          /* phase; artifact and event names; "" */
    const char *path;          /* checkpoint, artifact */
    const char *text;          /* event */
    const char *meta;          /* JSON object: checkpoint metrics, artifact meta and kind, fields */
    const char *artifact_kind; /* artifact: "dataset", ... */
    struct report_value *values; /* metric */
    size_t value_count;
};

/* Everything in *out lives in `arena`. Errors: ERR_INVALID naming field, value and what would be
 * accepted; then only out->reply is set: for a line that is no JSON, when it mentions "reply". */
int report_line_parse(const char *line, size_t length, struct arena *arena, struct report_line *out,
                      struct err *err) WARN_UNUSED;

#endif
