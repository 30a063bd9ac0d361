/* results.c - see results.h. */
#include "worker/recipes/eval/results.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/parse.h"

#include <math.h>
#include <string.h>

void results_init(struct results *results, struct run *run)
{
    *results = (struct results){.run = run};
    results_text(results, "evaluator", run->recipe->name);
    results_text(results, "evaluator_version", RESULTS_VERSION);
    results_text(results, "job", run->name);
}

void results_done(struct results *results)
{
    buf_done(&results->body);
    buf_done(&results->head);
}

/* Length of the valid UTF-8 sequence at text, or 0. */
static size_t sequence_length(const char *text, size_t length)
{
    for (size_t count = 1; count <= 4 && count <= length; count++) {
        if (text_is_utf8(text, count))
            return count;
    }
    return 0;
}

void json_put_text(struct buf *out, const char *text, size_t length)
{
    buf_putc(out, '"');
    while (length > 0) {
        size_t count = sequence_length(text, length);

        if (count == 0) {
            buf_puts(out, "\xEF\xBF\xBD");
            count = 1;
        } else if (count == 1 && ((unsigned char)*text < 0x20 || *text == '"' || *text == '\\')) {
            buf_printf(out, "\\u%04x", (unsigned)(unsigned char)*text);
        } else {
            buf_add(out, text, count);
        }
        text += count;
        length -= count;
    }
    buf_putc(out, '"');
}

static void put_name(struct buf *out, const char *name)
{
    if (out->length > 0)
        buf_puts(out, ", ");
    json_put_text(out, name, strlen(name));
    buf_puts(out, ": ");
}

static void put_number(struct buf *out, double value)
{
    if (isfinite(value))
        buf_printf(out, "%.17g", value);
    else
        buf_puts(out, "null");
}

void results_text(struct results *results, const char *name, const char *text)
{
    put_name(&results->head, name);
    json_put_text(&results->head, text, strlen(text));
}

void results_number(struct results *results, const char *name, double value)
{
    put_name(&results->head, name);
    put_number(&results->head, value);
}

void results_add(struct results *results, const char *name, double value)
{
    put_name(&results->body, name);
    put_number(&results->body, value);
    if (isfinite(value))
        run_metric(results->run, name, value);
}

void results_raw(struct results *results, const char *name, const char *json)
{
    put_name(&results->head, name);
    buf_puts(&results->head, json);
}

int results_write(struct results *results, const char *name, struct err *err)
{
    struct run *run = results->run;
    struct buf text = {0};
    char *path;
    int rc = -1;

    if (run->rank != 0)
        return 0;
    buf_printf(&text, "{%s,\n \"results\": {%s}}\n", buf_text(&results->head),
               buf_text(&results->body));
    path = mem_printf("%s/%s.json", run->job_dir, name);
    if (file_replace(path, text.bytes, text.length, 0644, err) == 0)
        rc = run_artifact(run, "evaluation", name, path, NULL, err);
    mem_free(path);
    buf_done(&text);
    return rc;
}
