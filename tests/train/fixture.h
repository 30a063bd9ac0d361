/* fixture.h - a scratch directory with a small dataset, and recipes run in it as jobs are.
 *
 * The dataset's documents are "name: a SIZE COLOUR KIND of the PLACE", names made of
 * syllables, tokens are bytes. A name decides its KIND, the rest is arbitrary, so a trained
 * model knows something general and something by heart. Jobs run in athanor-engine, as a
 * process or as ranks under mpirun; their metrics come over a report socket with all digits. */
#ifndef ATHANOR_TRAIN_FIXTURE_H
#define ATHANOR_TRAIN_FIXTURE_H

#include "common/base/buf.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "worker/engine/data/dataset.h"
#include "worker/engine/data/tokenizer_parts.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

extern char **environ;

static struct err fixture_err;

#define OK(call)                                                                                   \
    do {                                                                                           \
        if ((call) < 0)                                                                            \
            fail_msg("%s: %s", #call, fixture_err.text);                                           \
    } while (0)

/* -- the dataset --------------------------------------------------------------------------- */

static inline const char *word_of(const char *const *words, size_t count, uint64_t draw)
{
    return words[draw % count];
}

/* The number-th document; names are unique below 512. */
static inline char *document_text(uint64_t number)
{
    static const char *const head[] = {"ba", "co", "di", "fe", "gu", "ha", "jo", "ki"};
    static const char *const tail[] = {"lan", "mer", "nis", "pod", "quo", "ras", "sut", "vex"};
    static const char *const kind[] = {"hen", "owl", "cat", "rat"};
    static const char *const size[] = {"big", "small", "tiny", "long"};
    static const char *const colour[] = {"red", "black", "white", "brown", "grey"};
    static const char *const place[] = {"hills", "rivers", "north", "south", "plains", "coast"};
    uint64_t first = number % 8, last = number / 8 % 8, middle = number / 64;

    return mem_printf("%s%s%s: a %s %s %s of the %s", head[first], head[(middle + last) % 8],
                      tail[last], word_of(size, 4, rng_at(1, number, 0)),
                      word_of(colour, 5, rng_at(1, number, 1)), kind[last / 2],
                      word_of(place, 6, rng_at(1, number, 2)));
}

/* Bytes, then <|endoftext|>: 257 tokens without merges. */
static inline struct tokenizer *byte_tokenizer(void)
{
    struct tokenizer *tokenizer = tokenizer_new();

    for (unsigned byte = 0; byte < 256; byte++) {
        char c = (char)byte;

        OK(tokenizer_add_token(tokenizer, byte, &c, 1, &fixture_err));
    }
    OK(tokenizer_add_special(tokenizer, 256, TOKENIZER_END_OF_TEXT, strlen(TOKENIZER_END_OF_TEXT),
                             true, &fixture_err));
    OK(tokenizer_finish(tokenizer, &fixture_err));
    return tokenizer;
}

struct part_plan {
    const char *name;
    uint64_t from, to; /* documents */
};

static const struct part_plan fixture_parts[] = {
    {"train", 0, 160},     {"forget", 0, 24},   {"retain", 24, 160},
    {"holdout", 200, 224}, {"valid", 160, 200}, {"wide", 224, 512},
};

static inline void write_part(const char *folder, const struct part_plan *plan,
                              const struct tokenizer *tokenizer, struct buf *index)
{
    char *shard = mem_printf("%s/%s.aths", folder, plan->name);
    char *texts = mem_printf("%s/%s.jsonl", folder, plan->name);
    struct token_list tokens = {0};
    struct buf lines = {0};
    uint64_t start[513], bytes = 0, count = plan->to - plan->from;

    assert_true(count < ARRAY_COUNT(start));
    for (uint64_t i = 0; i < count; i++) {
        char *text = document_text(plan->from + i);

        start[i] = tokens.count;
        tokenizer_encode_special(tokenizer, TOKENIZER_END_OF_TEXT, strlen(TOKENIZER_END_OF_TEXT),
                                 &tokens);
        tokenizer_encode(tokenizer, text, strlen(text), &tokens);
        bytes += strlen(text);
        buf_printf(&lines, "{\"id\": \"d%llu\", \"text\": \"%s\"}\n",
                   (unsigned long long)(plan->from + i), text);
        mem_free(text);
    }
    start[count] = tokens.count;
    struct shard_content content = {.tokens = tokens.ids,
                                    .token_count = tokens.count,
                                    .document_start = start,
                                    .document_count = count,
                                    .vocab_size = 257,
                                    .flags = SHARD_FLAG_SEPARATOR_BEFORE,
                                    .tokenizer = *tokenizer_identity(tokenizer)};
    OK(shard_write(shard, &content, &fixture_err));
    OK(file_replace(texts, lines.bytes, lines.length, 0644, &fixture_err));
    buf_printf(index,
               "%s\"%s\": {\"shards\": [\"%s.aths\"], \"tokens\": %zu, \"documents\": %llu, "
               "\"bytes\": %llu, \"texts\": \"%s.jsonl\"}",
               index->length ? ", " : "", plan->name, plan->name, tokens.count,
               (unsigned long long)count, (unsigned long long)bytes, plan->name);
    token_list_done(&tokens);
    buf_done(&lines);
    mem_free(shard);
    mem_free(texts);
}

static inline void write_dataset(const char *folder)
{
    struct tokenizer *tokenizer = byte_tokenizer();
    struct buf parts = {0}, text = {0};
    char *path = mem_printf("%s/dataset.json", folder);

    OK(file_make_folders(folder, 0755, &fixture_err));
    OK(tokenizer_write(tokenizer, folder, 64, &fixture_err));
    for (size_t i = 0; i < ARRAY_COUNT(fixture_parts); i++)
        write_part(folder, &fixture_parts[i], tokenizer, &parts);
    buf_printf(&text,
               "{\"format\": 1, \"name\": \"toys\", \"tokenizer\": \"tokenizer.json\", "
               "\"vocab_size\": 257, \"parts\": {%s}}\n",
               buf_text(&parts));
    OK(file_replace(path, text.bytes, text.length, 0644, &fixture_err));
    tokenizer_free(tokenizer);
    buf_done(&parts);
    buf_done(&text);
    mem_free(path);
}

/* -- traces --------------------------------------------------------------------------------- */

struct point {
    uint64_t step;
    char name[64];
    double value;
};

struct trace {
    struct point *points;
    size_t count, capacity;
    char *events; /* names, each followed by a newline */
    char *texts;  /* of the events, alike */
};

static inline void trace_done(struct trace *trace)
{
    mem_free(trace->points);
    mem_free(trace->events);
    mem_free(trace->texts);
    memset(trace, 0, sizeof *trace);
}

/* The value of a metric at a step; fails the test when it was not reported. */
static inline double trace_at(const struct trace *trace, const char *name, uint64_t step)
{
    for (size_t i = 0; i < trace->count; i++) {
        if (trace->points[i].step == step && strcmp(trace->points[i].name, name) == 0)
            return trace->points[i].value;
    }
    fail_msg("no metric %s at step %llu", name, (unsigned long long)step);
    return 0;
}

static inline bool trace_has(const struct trace *trace, const char *name)
{
    for (size_t i = 0; i < trace->count; i++) {
        if (strcmp(trace->points[i].name, name) == 0)
            return true;
    }
    return false;
}

/* Speed is the clock's. */
static inline bool is_timing(const char *name)
{
    return strcmp(name, "tokens_per_s") == 0 || strcmp(name, "gflops") == 0;
}

/* Every point of b after `from_step` is in a, equal to within relative `most` (0: same bits);
 * norms, which losses feel only through the next step, to a hundred times that. */
static inline void assert_same_trace(const struct trace *a, const struct trace *b,
                                     uint64_t from_step, double most)
{
    size_t compared = 0;

    for (size_t i = 0; i < b->count; i++) {
        const struct point *point = &b->points[i];
        double other, scale;

        if (point->step <= from_step || is_timing(point->name))
            continue;
        other = trace_at(a, point->name, point->step);
        scale = fmax(1, fabs(other));
        if (strstr(point->name, "norm"))
            scale *= 100;
        if (!(fabs(point->value - other) <= most * scale))
            fail_msg("%s at step %llu: %.17g and %.17g differ by more than %g", point->name,
                     (unsigned long long)point->step, point->value, other, most);
        compared++;
    }
    assert_true(compared > 0);
}

/* -- the report socket ---------------------------------------------------------------------- */

#define CONNECTIONS_MAX 8

struct listener {
    int fd, stop[2];
    pthread_t thread;
    struct trace *trace;
    struct buf events, texts;
    uint64_t kill_at, kill_step;
};

/* The process at the other end, with SIGKILL; it may have ended by itself. */
static inline void kill_peer(int fd)
{
    struct ucred peer;
    socklen_t length = sizeof peer;

    assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length), 0);
    assert_true(kill(peer.pid, SIGKILL) == 0 || errno == ESRCH);
}

/* A killed job leaves lines that want an answer, and is gone when they are read. */
static inline void say_yes(int fd)
{
    static const char yes[] = "{\"ok\": true}\n";
    ssize_t sent = send(fd, yes, sizeof yes - 1, MSG_NOSIGNAL);

    assert_true(sent == sizeof yes - 1 || errno == EPIPE || errno == ECONNRESET);
}

/* Keeps what the line says, and answers it where it asks for an answer. */
static inline void take_line(struct listener *listener, int fd, const char *line)
{
    json_t *root = json_loads(line, 0, NULL);
    const char *type = json_string_value(json_object_get(root, "type")), *name;
    json_t *value;

    if (type && strcmp(type, "metric") == 0) {
        struct trace *trace = listener->trace;

        json_object_foreach(json_object_get(root, "values"), name, value)
        {
            VEC_RESERVE(trace->points, trace->count, trace->capacity);
            struct point *point = &trace->points[trace->count++];

            point->step = (uint64_t)json_integer_value(json_object_get(root, "step"));
            snprintf(point->name, sizeof point->name, "%s", name);
            point->value = json_number_value(value);
        }
    }
    if (type && strcmp(type, "metric") == 0 && listener->kill_step > 0 &&
        (uint64_t)json_integer_value(json_object_get(root, "step")) >= listener->kill_step) {
        listener->kill_step = 0;
        kill_peer(fd);
    }
    if (type && strcmp(type, "event") == 0) {
        buf_printf(&listener->events, "%s\n", json_string_value(json_object_get(root, "name")));
        buf_printf(&listener->texts, "%s\n", json_string_value(json_object_get(root, "text")));
    }
    if (type && strcmp(type, "checkpoint") == 0 && listener->kill_at > 0 &&
        (uint64_t)json_integer_value(json_object_get(root, "step")) == listener->kill_at) {
        kill_peer(fd);
        json_decref(root); /* and no answer, without which it could not have ended */
        return;
    }
    if (json_is_true(json_object_get(root, "reply")))
        say_yes(fd);
    json_decref(root);
}

static inline bool read_lines(struct listener *listener, int fd, struct buf *pending)
{
    char room[65536], *end;
    ssize_t got = read(fd, room, sizeof room);

    if (got <= 0)
        return false;
    buf_add(pending, room, (size_t)got);
    while ((end = memchr(pending->bytes, '\n', pending->length))) {
        *end = 0;
        take_line(listener, fd, pending->bytes);
        buf_drop(pending, (size_t)(end - pending->bytes) + 1);
    }
    return true;
}

static inline void *listen_thread(void *argument)
{
    struct listener *listener = argument;
    struct buf pending[CONNECTIONS_MAX] = {0};
    struct pollfd fds[CONNECTIONS_MAX + 2] = {{listener->stop[0], POLLIN, 0},
                                              {listener->fd, POLLIN, 0}};
    nfds_t count = 2;

    /* Data is taken before the order to stop, so that nothing a dead job wrote is lost. */
    for (;;) {
        bool busy = false;

        poll(fds, count, -1);
        if ((fds[1].revents & POLLIN) && count < CONNECTIONS_MAX + 2) {
            fds[count++] = (struct pollfd){accept(listener->fd, NULL, NULL), POLLIN, 0};
            busy = true;
        }
        for (nfds_t i = 2; i < count; i++) {
            if (fds[i].fd < 0 || !(fds[i].revents & (POLLIN | POLLHUP)))
                continue;
            busy = true;
            if (!read_lines(listener, fds[i].fd, &pending[i - 2])) {
                close(fds[i].fd);
                fds[i].fd = -1;
            }
        }
        if (!busy && (fds[0].revents & POLLIN))
            break;
    }
    for (nfds_t i = 2; i < count; i++) {
        if (fds[i].fd >= 0)
            close(fds[i].fd);
        buf_done(&pending[i - 2]);
    }
    return NULL;
}

static inline void listener_open(struct listener *listener, const char *path, struct trace *trace,
                                 uint64_t kill_at, uint64_t kill_step)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    memset(listener, 0, sizeof *listener);
    listener->trace = trace;
    listener->kill_at = kill_at;
    listener->kill_step = kill_step;
    unlink(path);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    listener->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener->fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listener->fd, CONNECTIONS_MAX), 0);
    assert_int_equal(pipe(listener->stop), 0);
    assert_int_equal(pthread_create(&listener->thread, NULL, listen_thread, listener), 0);
}

static inline void listener_close(struct listener *listener)
{
    assert_int_equal(write(listener->stop[1], "x", 1), 1);
    pthread_join(listener->thread, NULL);
    close(listener->fd);
    close(listener->stop[0]);
    close(listener->stop[1]);
    listener->trace->events = buf_take(&listener->events);
    listener->trace->texts = buf_take(&listener->texts);
}

/* -- jobs ----------------------------------------------------------------------------------- */

struct place {
    char folder[64];
    char engine[4096];
};

static inline int place_open(void **state)
{
    struct place *place = mem_zalloc(sizeof *place);
    char *dataset, *end;
    ssize_t length;

    snprintf(place->folder, sizeof place->folder, "/tmp/athanor-train-XXXXXX");
    if (!mkdtemp(place->folder))
        return -1;
    length = readlink("/proc/self/exe", place->engine, sizeof place->engine - 40);
    if (length <= 0)
        return -1;
    place->engine[length] = 0;
    end = strrchr(place->engine, '/');
    snprintf(end, sizeof place->engine - (size_t)(end - place->engine), "/../bin/athanor-engine");
    dataset = mem_printf("%s/toys", place->folder);
    write_dataset(dataset);
    mem_free(dataset);
    *state = place;
    return 0;
}

static inline int place_close(void **state)
{
    struct place *place = *state;
    int rc = file_remove_tree(place->folder, &fixture_err);

    mem_free(place);
    return rc;
}

struct job_run {
    const char *name;   /* directory of the job in the place */
    const char *spec;   /* members of the JSON object after the name */
    const char *resume; /* checkpoint directory, or NULL */
    int ranks;          /* 0: 1 */
    bool may_fail;
    uint64_t kill_at;   /* 0, or the step whose checkpoint, once told of, is the death of rank 0:
                           somewhere in a later step, or in a later save */
    uint64_t kill_step; /* 0, or the step whose metrics are its death, in a later step */
};

static inline char *job_path(const struct place *place, const char *name, const char *rest)
{
    return mem_printf("%s/%s%s", place->folder, name, rest);
}

/* The shell line that starts the job; ranks get what a launcher of ours would give them. Leaks
 * are looked for with one rank only: MPI has its own. What an mpirun leaves whose rank was killed
 * goes with the place; the others, which wait for that rank, are killed at once instead of after
 * a second. */
static inline char *job_command(const struct place *place, const struct job_run *job)
{
    char *engine = mem_printf("'%s' run --spec '%s/%s.json' --out '%s/%s' %s%s", place->engine,
                              place->folder, job->name, place->folder, job->name,
                              job->resume ? "--resume " : "", job->resume ? job->resume : "");
    char *line;

    if (job->ranks <= 1)
        line = mem_printf("exec %s >'%s/%s.log' 2>&1", engine, place->folder, job->name);
    else
        line = mem_printf("export ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0 TMPDIR='%s'; "
                          "exec mpirun --allow-run-as-root --oversubscribe --bind-to none "
                          "--mca mpi_yield_when_idle 1 --mca odls_base_sigkill_timeout 0 -n %d "
                          "sh -c \"RANK="
                          "\\$OMPI_COMM_WORLD_RANK WORLD_SIZE=\\$OMPI_COMM_WORLD_SIZE exec %s\" "
                          ">'%s/%s.log' 2>&1",
                          place->folder, job->ranks, engine, place->folder, job->name);
    mem_free(engine);
    return line;
}

/* Runs a shell line; frees it. */
static inline int spawn_line(char *line)
{
    char *arguments[] = {"sh", "-c", line, NULL};
    int status = -1;
    pid_t pid;

    assert_int_equal(posix_spawn(&pid, "/bin/sh", NULL, NULL, arguments, environ), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    mem_free(line);
    return status;
}

static inline void show_log(const struct place *place, const char *name)
{
    char *path = job_path(place, name, ".log"), *text = NULL;
    size_t length;

    if (file_read(path, 1 << 20, &text, &length, &fixture_err) == 0)
        print_error("%s\n", text);
    mem_free(text);
    mem_free(path);
}

/* Runs the job; trace may be NULL. Returns the exit status. */
static inline int run_job_in(const struct place *place, const struct job_run *job,
                             struct trace *trace)
{
    char *spec = mem_printf("{\"name\": \"%s\", %s}", job->name, job->spec);
    char *spec_path = job_path(place, job->name, ".json");
    char *socket_path = job_path(place, "report", ".sock");
    struct trace own = {0};
    struct listener listener;
    int status;

    OK(file_replace(spec_path, spec, strlen(spec), 0644, &fixture_err));
    setenv("ATHANOR_REPORT", socket_path, 1);
    setenv("OMP_NUM_THREADS", "1", 1);
    listener_open(&listener, socket_path, trace ? trace : &own, job->kill_at,
                  job->kill_step);
    status = spawn_line(job_command(place, job));
    listener_close(&listener);
    if (!job->may_fail && status != 0) {
        show_log(place, job->name);
        fail_msg("job '%s' ended with status %d", job->name, status);
    }
    trace_done(&own);
    mem_free(spec);
    mem_free(spec_path);
    mem_free(socket_path);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

/* A dataset "lines" of 300 texts, one a document, whose tokenizer has what masks and spans need. */
static inline void make_lines(const struct place *place)
{
    struct buf lines = {0};
    char *path = job_path(place, "toys.txt", ""), *spec;

    for (uint64_t i = 0; i < 300; i++) {
        char *text = document_text(i);

        buf_printf(&lines, "%s\n", text);
        mem_free(text);
    }
    OK(file_replace(path, lines.bytes, lines.length, 0644, &fixture_err));
    spec = mem_printf("\"kind\": \"data\", \"recipe\": \"text\", \"params\": {\"files\": [\"%s\"], "
                      "\"split_by\": \"line\", \"vocab_size\": 320, \"special_tokens\": "
                      "[\"[MASK]\"], \"sentinels\": 16, \"name\": \"lines\"}",
                      path);
    struct job_run job = {.name = "data", .spec = spec};

    run_job_in(place, &job, NULL);
    mem_free(spec);
    mem_free(path);
    buf_done(&lines);
}

/* An input of a job: a part of that dataset. (mem_free) */
static inline char *lines_input(const struct place *place, const char *part)
{
    return mem_printf("{\"path\": \"%s/data/datasets/lines\", \"part\": \"%s\"}", place->folder,
                      part);
}

/* Directory of the checkpoint of a step. */
static inline char *checkpoint_of(const struct place *place, const char *job, uint64_t step)
{
    return mem_printf("%s/%s/checkpoints/step-%010llu", place->folder, job,
                      (unsigned long long)step);
}

/* Both directories hold the same bytes in this file. */
static inline void assert_same_file(const char *a, const char *b, const char *name)
{
    char *left = mem_printf("%s/%s", a, name), *right = mem_printf("%s/%s", b, name);
    struct hash hash_a, hash_b;

    OK(hash_file(left, &hash_a, &fixture_err));
    OK(hash_file(right, &hash_b, &fixture_err));
    if (!hash_equal(&hash_a, &hash_b))
        fail_msg("%s and %s differ", left, right);
    mem_free(left);
    mem_free(right);
}

#endif
