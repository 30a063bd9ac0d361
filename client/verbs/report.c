/* report.c - athanor report: a job's own words to its shepherd (worker/README.md). */
#include "client/client.h"
#include "client/manifest.h"
#include "client/verbs.h"
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "common/net/lines.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CONNECT_AGAIN_MS 20

static const struct option options[] = {
    {"step", 's', VALUE_COUNT, "N", "metric, checkpoint: the step it belongs to", false},
    {"phase", 0, VALUE_TEXT, "NAME", "progress: what is being done", false},
    {"took", 0, VALUE_DURATION, "DURATION", "checkpoint: how long the ranks were busy saving",
     false},
    {"metric", 'm', VALUE_PAIR, "NAME=VALUE", "checkpoint: a value to choose the best by", true},
    {"kind", 0, VALUE_TEXT, "KIND", "artifact: dataset, model, file ... (default file)", false},
    {"meta", 0, VALUE_TEXT, "JSON", "artifact: an object kept with it", false},
    {"field", 0, VALUE_PAIR, "NAME=VALUE", "event: kept with it", true},
    {"rank", 'r', VALUE_COUNT, "RANK", "as another rank (default: RANK of the environment)", false},
};

static int bad_number(struct client *client, const char *text)
{
    return client_failf(client, EXIT_USAGE, "'%s' is not of the form NAME=NUMBER", text);
}

/* Adds NAME=NUMBER to an object; NaN and infinities are sent as texts. */
static bool add_value(json_t *values, const char *pair)
{
    const char *equals = strchr(pair, '=');
    char *end;
    if (!equals || equals == pair || !equals[1])
        return false;
    double value = strtod(equals + 1, &end);
    if (*end)
        return false;
    char *name = mem_strndup(pair, (size_t)(equals - pair));
    json_t *number = isfinite(value) ? json_real(value)
                                     : json_string(isnan(value) ? "NaN"
                                                   : value > 0  ? "Infinity"
                                                                : "-Infinity");
    bool added = json_object_set_new(values, name, number) == 0;
    mem_free(name);
    return added;
}

static void set_step(json_t *line, const struct args *args)
{
    json_object_set_new(line, "step", json_integer((json_int_t)args_count(args, "step", 0)));
}

static int build_metric(struct client *client, const struct args *args, json_t *line)
{
    json_t *values = json_object();
    json_object_set_new(line, "values", values);
    set_step(line, args);
    if (!args_has(args, "step") || args->word_count < 2)
        return client_failf(client, EXIT_USAGE, "usage: report metric --step N NAME=VALUE...");
    for (size_t i = 1; i < args->word_count; i++)
        if (!add_value(values, args->words[i]))
            return bad_number(client, args->words[i]);
    return EXIT_DONE;
}

static int build_progress(struct client *client, const struct args *args, json_t *line)
{
    static const char *const names[] = {"", "step", "total"};
    const char *phase = args_text(args, "phase");
    uint64_t number;
    struct err err;
    if (args->word_count < 2 || args->word_count > 3)
        return client_failf(client, EXIT_USAGE,
                            "usage: report progress STEP [TOTAL] [--phase NAME]");
    for (size_t i = 1; i < args->word_count; i++) {
        if (parse_u64(args->words[i], &number, &err) < 0)
            return client_fail(client, EXIT_USAGE, &err);
        json_object_set_new(line, names[i], json_integer((json_int_t)number));
    }
    if (phase)
        json_object_set_new(line, "phase", json_string(phase));
    return EXIT_DONE;
}

/* The path as the shepherd sees it: absolute, because its directory is another. */
static int set_path(struct client *client, json_t *line, const char *path)
{
    char *real = realpath(path, NULL);
    if (!real)
        return client_failf(client, EXIT_USAGE, "'%s': %s", path, strerror(errno));
    json_object_set_new(line, "path", json_string(real));
    free(real);
    return EXIT_DONE;
}

/* Before anything is hashed: the shepherd would refuse it anyway, and '/' takes long. */
static int check_inside(struct client *client, const json_t *line)
{
    const char *path = json_string_value(json_object_get(line, "path"));
    const char *folder = getenv("ATHANOR_JOB_DIR");
    char *real = folder ? realpath(folder, NULL) : NULL;
    size_t length = real ? strlen(real) : 0;
    bool inside = !real || (strncmp(path, real, length) == 0 && path[length] == '/');
    free(real);
    return inside ? EXIT_DONE
                  : client_failf(client, EXIT_REFUSED,
                                 "'%s' is not below ATHANOR_JOB_DIR '%s', where what is to be kept "
                                 "belongs",
                                 path, folder);
}

static int build_checkpoint(struct client *client, const struct args *args, json_t *line)
{
    json_t *metrics = json_object();
    struct err err;
    json_object_set_new(line, "metrics", metrics);
    set_step(line, args);
    if (args_has(args, "took"))
        json_object_set_new(line, "save_ms",
                            json_integer((json_int_t)args_duration_ms(args, "took", 0)));
    if (!args_has(args, "step") || args->word_count != 2)
        return client_failf(client, EXIT_USAGE,
                            "usage: report checkpoint --step N PATH [--metric NAME=VALUE] "
                            "[--took DURATION]");
    for (size_t i = 0; i < args->given_count; i++)
        if (strcmp(args->given[i].option->name, "metric") == 0 &&
            !add_value(metrics, args->given[i].value))
            return bad_number(client, args->given[i].value);
    int code = set_path(client, line, args->words[1]);
    if (code == EXIT_DONE)
        code = check_inside(client, line);
    if (code == EXIT_DONE && manifest_write(args->words[1], args_count(args, "step", 0), &err) < 0)
        code = client_fail(client, EXIT_LOCAL, &err);
    return code;
}

static int build_artifact(struct client *client, const struct args *args, json_t *line)
{
    const char *kind = args_text(args, "kind"), *meta = args_text(args, "meta");
    if (args->word_count != 3)
        return client_failf(client, EXIT_USAGE,
                            "usage: report artifact NAME PATH [--kind KIND] [--meta JSON]");
    json_object_set_new(line, "kind", json_string(kind ? kind : "file"));
    json_object_set_new(line, "name", json_string(args->words[1]));
    if (meta) {
        json_t *object = json_loads(meta, 0, NULL);
        if (!json_is_object(object)) {
            json_decref(object);
            return client_failf(client, EXIT_USAGE, "--meta '%s' is not a JSON object", meta);
        }
        json_object_set_new(line, "meta", object);
    }
    return set_path(client, line, args->words[2]);
}

static int build_event(struct client *client, const struct args *args, json_t *line)
{
    json_t *fields = json_object();
    json_object_set_new(line, "fields", fields);
    if (args->word_count < 2 || args->word_count > 3)
        return client_failf(client, EXIT_USAGE,
                            "usage: report event NAME [TEXT] [--field NAME=VALUE]");
    json_object_set_new(line, "name", json_string(args->words[1]));
    json_object_set_new(line, "text", json_string(args->word_count > 2 ? args->words[2] : ""));
    for (size_t i = 0; i < args->given_count; i++) {
        if (strcmp(args->given[i].option->name, "field") != 0)
            continue;
        const char *equals = strchr(args->given[i].value, '=');
        char *name = mem_strndup(args->given[i].value, (size_t)(equals - args->given[i].value));
        json_object_set_new(fields, name, json_string(equals + 1));
        mem_free(name);
    }
    return EXIT_DONE;
}

static const struct kind {
    const char *name;
    int (*build)(struct client *client, const struct args *args, json_t *line);
} kinds[] = {
    {"metric", build_metric},     {"progress", build_progress}, {"checkpoint", build_checkpoint},
    {"artifact", build_artifact}, {"event", build_event},
};

/* ---- the conversation --------------------------------------------------------------------- */

/* Without --timeout for as long as the shepherd lives: one that waits for a slow or full disk takes
 * our words later, a job must not fail for that, and its own limits hold meanwhile. One that has
 * ended closes the socket. */
static uint64_t patience_end_ms(const struct client *client)
{
    return args_has(client->args, "timeout") ? clock_steady_ms() + client->timeout_ms : UINT64_MAX;
}

static int wait_for(int fd, short events, uint64_t until_ms, struct err *err)
{
    struct pollfd item = {fd, events, 0};
    uint64_t now_ms = clock_steady_ms();
    if (now_ms >= until_ms)
        return err_set(err, ERR_TIMEOUT,
                       "the shepherd has not answered within --timeout; it may take the report "
                       "yet");
    if (poll(&item, 1, (int)min_u64(until_ms - now_ms, 1000)) < 0 && errno != EINTR)
        return err_errno(err, "waiting for the shepherd");
    return 0;
}

/* Whether a line is the answer to ours: stop and checkpoint_now may come between. */
static bool is_answer(const char *text, bool *out_ok, char *out_error, size_t size)
{
    json_t *line = json_loads(text, 0, NULL);
    const json_t *ok = json_object_get(line, "ok");
    const char *error = json_string_value(json_object_get(line, "error"));
    bool is = json_is_boolean(ok);
    *out_ok = json_is_true(ok);
    snprintf(out_error, size, "%s", error ? error : "");
    json_decref(line);
    return is;
}

static int receive_answer(struct client *client, int fd, uint64_t until_ms)
{
    struct lines lines = {0};
    struct err err;
    char *text, error[500];
    size_t length;
    bool ok = false;
    int rc = 0, code = EXIT_DONE;
    for (;;) {
        while ((rc = lines_next(&lines, &text, &length, &err)) > 0)
            if (is_answer(text, &ok, error, sizeof error))
                goto out;
        if (rc == 0 && lines.ended)
            rc = err_set(&err, ERR_CLOSED, "the shepherd closed the connection");
        if (rc < 0 || wait_for(fd, POLLIN, until_ms, &err) < 0 ||
            lines_fill(&lines, fd, &err) < 0) {
            code = client_fail(client, EXIT_UNREACHABLE, &err);
            break;
        }
    }
out:
    lines_done(&lines);
    if (rc > 0 && !ok)
        code = client_failf(client, EXIT_REFUSED, "%s", error);
    return code;
}

static int send_lines(struct client *client, int fd, const char *hello, const char *line,
                      uint64_t until_ms)
{
    struct lines_out out = {0};
    struct err err;
    int rc = hello ? lines_put(&out, hello, &err) : 0;
    if (rc == 0)
        rc = lines_put(&out, line, &err);
    while (rc == 0 && (rc = lines_flush(&out, fd, &err)) == 0 && out.buf.length > 0)
        rc = wait_for(fd, POLLOUT, until_ms, &err);
    lines_out_done(&out);
    if (rc < 0 && err.kind != ERR_CLOSED) /* closed: it may have said why before */
        return client_fail(client, EXIT_UNREACHABLE, &err);
    return receive_answer(client, fd, until_ms);
}

/* So many programs at once that the line of those who wait for the shepherd is full: in turn. */
static int connect_in_turn(const char *path, uint64_t until_ms, int *out_fd, struct err *err)
{
    while (unix_connect(path, out_fd, err) < 0) {
        if (err->kind != ERR_LIMIT || clock_steady_ms() >= until_ms)
            return -1;
        poll(NULL, 0, CONNECT_AGAIN_MS);
    }
    return 0;
}

static int tell_shepherd(struct client *client, const struct args *args, json_t *line)
{
    const char *path = getenv("ATHANOR_REPORT"), *rank = args_text(args, "rank"), *hello = NULL;
    struct err err;
    uint64_t number;
    int fd;
    if (!path || !*path)
        return client_failf(client, EXIT_USAGE,
                            "ATHANOR_REPORT is not set: this verb works within a job");
    if (!rank)
        rank = getenv("RANK");
    if (rank && parse_u64(rank, &number, &err) == 0)
        hello = arena_printf(&client->arena, "{\"type\": \"hello\", \"rank\": %llu}",
                             (unsigned long long)number);
    json_object_set_new(line, "reply", json_true());
    char *text = json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(17));
    if (!text)
        return client_failf(client, EXIT_USAGE, "the words are not valid UTF-8");
    int code = EXIT_DONE;
    uint64_t until_ms = patience_end_ms(client);
    if (strlen(text) > LINE_BYTES_MAX)
        code = client_failf(client, EXIT_USAGE, "the report has %zu bytes, at most %zu are taken",
                            strlen(text), LINE_BYTES_MAX);
    else if (connect_in_turn(path, until_ms, &fd, &err) < 0)
        code = client_fail(client, EXIT_UNREACHABLE, &err);
    else {
        code = send_lines(client, fd, hello, text, until_ms);
        close(fd);
    }
    free(text);
    return code;
}

static int run(struct client *client, const struct args *args)
{
    for (size_t i = 0; i < ARRAY_COUNT(kinds); i++) {
        if (strcmp(kinds[i].name, args->words[0]) != 0)
            continue;
        json_t *line = json_object();
        json_object_set_new(line, "type", json_string(kinds[i].name));
        int code = kinds[i].build(client, args, line);
        if (code == EXIT_DONE)
            code = tell_shepherd(client, args, line);
        json_decref(line);
        return code;
    }
    return client_failf(client, EXIT_USAGE,
                        "there is no 'report %s', expected metric, progress, "
                        "checkpoint, artifact or event",
                        args->words[0]);
}

const struct verb verb_report = {
    .name = "report",
    .words = "KIND ARGUMENT...",
    .summary = "report from within a job",
    .text = "For programs and scripts that run as jobs. KIND is one of:\n\n"
            "report metric --step N NAME=VALUE...\n\n"
            "report progress STEP [TOTAL] [--phase NAME]\n\n"
            "report checkpoint --step N PATH [--metric NAME=VALUE] [--took DURATION]: hashes the "
            "files below PATH, "
            "writes manifest.json and registers the checkpoint; PATH lies below ATHANOR_JOB_DIR\n\n"
            "report artifact NAME PATH [--kind KIND] [--meta JSON]\n\n"
            "report event NAME [TEXT] [--field NAME=VALUE]\n\n"
            "Returns when the report is accepted, which with a full disk is when there is room "
            "again; --timeout bounds that (default: none). Exits 4 with the reason when it is "
            "refused.",
    .choices = "metric progress checkpoint artifact event",
    .words_min = 1,
    .words_max = UINT_MAX,
    VERB_OPTIONS(options),
    .run = run,
};
