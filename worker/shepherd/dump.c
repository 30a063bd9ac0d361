/* dump.c - see dump.h. */
#include "worker/shepherd/dump.h"

#include "worker/attempt/spool.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

static const char *const kind_names[REPORT_KIND_END] = {
    [REPORT_STARTED] = "started",
    [REPORT_METRIC] = "metric",
    [REPORT_LOG] = "log",
    [REPORT_PROGRESS] = "progress",
    [REPORT_CHECKPOINT] = "checkpoint",
    [REPORT_ARTIFACT] = "artifact",
    [REPORT_EVENT] = "event",
    [REPORT_FINISHED] = "finished",
};

static void set_text(json_t *root, const char *name, const char *text, size_t length)
{
    if (length == 0)
        return;
    json_t *value = json_stringn(text, length);
    if (!value) { /* not UTF-8 */
        value = json_string("(bytes)");
        json_object_set_new(root, "size_bytes", json_integer((json_int_t)length));
    }
    json_object_set_new(root, name, value);
}

static void set_count(json_t *root, const char *name, uint64_t value)
{
    if (value)
        json_object_set_new(root, name, json_integer((json_int_t)value));
}

static json_t *report_json(const struct rec_report *report)
{
    json_t *root = json_object();
    bool known = report->kind > 0 && report->kind < REPORT_KIND_END;
    json_object_set_new(root, "seq", json_integer((json_int_t)report->seq));
    json_object_set_new(root, "kind", json_string(known ? kind_names[report->kind] : "unknown"));
    json_object_set_new(root, "rank", json_integer((json_int_t)report->rank));
    set_count(root, "step", report->step);
    set_count(root, "total", report->total);
    set_text(root, "name", report->name, strlen(report->name));
    if (report->kind == REPORT_METRIC)
        json_object_set_new(root, "value",
                            isfinite(report->value) ? json_real(report->value)
                                                    : json_string("not finite"));
    set_text(root, "text", report->text.bytes, report->text.length);
    set_text(root, "path", report->path, strlen(report->path));
    set_text(root, "cause", report->cause, strlen(report->cause));
    if (report->kind == REPORT_FINISHED)
        json_object_set_new(root, "code", json_integer((json_int_t)report->code));
    if (report->meta[0])
        json_object_set_new(root, "meta", json_loads(report->meta, 0, NULL));
    return root;
}

int dump_spool(const char *folder, FILE *out, struct err *err)
{
    struct spool_reader reader;
    if (spool_reader_open(folder, 0, &reader, err) < 0)
        return -1;
    struct arena arena = {0};
    struct rec_report *reports;
    size_t count;
    int rc;
    while ((rc = spool_read(&reader, &arena, &reports, &count, err)) > 0) {
        for (size_t i = 0; i < count; i++) {
            json_t *root = report_json(&reports[i]);
            json_dumpf(root, out, JSON_COMPACT);
            fputc('\n', out);
            json_decref(root);
        }
        arena_reset(&arena);
    }
    arena_done(&arena);
    spool_reader_close(&reader);
    return rc;
}
