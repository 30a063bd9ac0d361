/* run.c - the driver of recipes; see run.h and the life described in recipe.h.
 *
 * Decisions that end or save (stop, checkpoint, divergence) are agreed by all ranks after
 * each step, so that all act at the same one. Time decides only when to save and how often
 * to report progress, never what is computed. */
#include "worker/recipes/run.h"

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "worker/engine/comm.h"
#include "worker/engine/io/checkpoint.h"
#include "worker/engine/io/report.h"
#include "worker/recipes/job.h"
#include "worker/recipes/recipe.h"

#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define METRICS_MAX 1024 /* stages of one job have metrics of their own; REPORT_VALUES_MAX */
#define PROGRESS_MS 1000
#define FLUSH_MS 5000
#define STATE_ALIGN 64

struct metric {
    char *name;
    double value;
    bool fresh; /* set in the current step */
};

struct driver {
    struct run run;
    const struct job *job;
    const struct run_options *options;
    struct report *report;
    struct checkpoint_reader *resume;
    void *state;
    bool opened;   /* open was called: close must be */
    bool together; /* the failure was agreed on: all ranks leave by themselves */
    struct metric metrics[METRICS_MAX];
    size_t metric_count;
    struct err failure; /* of a call that cannot return one (run_metric, run_event) */
    char diverged[320]; /* "" while all metrics are finite */
    bool asked_to_stop; /* this rank was */
    bool stop, checkpoint_now;
    struct apart_wish {
        bool stop, ready;
    } wish, *wishes; /* of ranks that are apart; wishes: of all, while they are gathered */
    uint64_t saved_step;    /* of the newest checkpoint; UINT64_MAX: none */
    uint64_t saved_ms, progress_ms;
};

static volatile sig_atomic_t terminate_asked;

static void on_terminate(int signal_number)
{
    (void)signal_number;
    terminate_asked = 1;
}

/* Without SA_RESTART a blocked call returns; the step then ends and the flag is seen. */
static void catch_terminate(void)
{
    struct sigaction action = {.sa_handler = on_terminate, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static const struct param_value *value_of(const struct run *run, const char *name,
                                          enum param_type type, enum param_type other)
{
    const struct param *param;
    const struct param_value *value = job_value(run->job, name, &param);
    if (!value)
        check_failed(name, "parameter is not in the recipe's table", 0);
    CHECK(param->type == type || param->type == other);
    return value;
}

int64_t run_int(const struct run *run, const char *name)
{
    return value_of(run, name, PARAM_INT, PARAM_INT)->whole;
}

double run_float(const struct run *run, const char *name)
{
    return value_of(run, name, PARAM_FLOAT, PARAM_FLOAT)->real;
}

bool run_bool(const struct run *run, const char *name)
{
    return value_of(run, name, PARAM_BOOL, PARAM_BOOL)->truth;
}

const char *run_string(const struct run *run, const char *name)
{
    return value_of(run, name, PARAM_STRING, PARAM_CHOICE)->text;
}

size_t run_list_count(const struct run *run, const char *name)
{
    return value_of(run, name, PARAM_LIST, PARAM_LIST)->item_count;
}

const char *run_list_item(const struct run *run, const char *name, size_t index)
{
    const struct param_value *value = value_of(run, name, PARAM_LIST, PARAM_LIST);
    CHECK(index < value->item_count);
    return value->items[index];
}

const struct run_input *run_input(const struct run *run, const char *name)
{
    const struct recipe *recipe = run->recipe;
    for (size_t i = 0; i < recipe->input_count; i++)
        if (strcmp(recipe->inputs[i].name, name) == 0)
            return run->job->inputs[i].path ? &run->job->inputs[i] : NULL;
    check_failed(name, "input is not in the recipe's table", 0);
}

static struct metric *metric_find(struct driver *driver, const char *name)
{
    for (size_t i = 0; i < driver->metric_count; i++)
        if (strcmp(driver->metrics[i].name, name) == 0)
            return &driver->metrics[i];
    CHECK(driver->metric_count < METRICS_MAX);
    struct metric *metric = &driver->metrics[driver->metric_count++];
    metric->name = mem_strdup(name);
    return metric;
}

#define NAME_ROOM 256

/* Stages of one job would write over each other's metrics. */
static const char *full_name(const struct run *run, const char *name, char out[NAME_ROOM])
{
    snprintf(out, NAME_ROOM, "%s%s%s", run->stage ? run->stage : "", run->stage ? "/" : "", name);
    return out;
}

void run_metric(struct run *run, const char *name, double value)
{
    struct driver *driver = run->driver;
    char room[NAME_ROOM];
    if (!isfinite(value)) {
        if (!driver->diverged[0])
            snprintf(driver->diverged, sizeof driver->diverged,
                     "%s is not finite at step %llu: %g", full_name(run, name, room),
                     (unsigned long long)driver->run.step + 1,
                     isnan(value) ? fabs(value) : value); /* no NaN has a sign to show */
        return;
    }
    struct metric *metric = metric_find(driver, full_name(run, name, room));
    metric->value = value;
    metric->fresh = true;
}

bool run_metric_newest(const struct run *run, const char *name, double *out)
{
    const struct driver *driver = run->driver;
    char room[NAME_ROOM];
    full_name(run, name, room);
    for (size_t i = 0; i < driver->metric_count; i++)
        if (strcmp(driver->metrics[i].name, room) == 0) {
            *out = driver->metrics[i].value;
            return true;
        }
    return false;
}

/* Datasets have the names that specs give them; other things of several stages get the stage's. */
int run_artifact(struct run *run, const char *kind, const char *name, const char *path,
                 const char *meta_json, struct err *err)
{
    char room[NAME_ROOM];
    if (run->rank != 0)
        return 0;
    snprintf(room, sizeof room, "%s", name);
    if (run->stage && strcmp(kind, "dataset") != 0)
        snprintf(room, sizeof room, "%s-%s", run->stage, name);
    if (!report_is_connected(run->driver->report))
        run_note(run, "artifact %s '%s' at %s", kind, room, path);
    return report_artifact(run->driver->report, kind, room, path, meta_json, err);
}

int run_settle(struct run *run, struct err *err)
{
    if (report_flush(run->driver->report, FLUSH_MS, err) < 0)
        return -1;
    return report_settle(run->driver->report, FLUSH_MS, err);
}

static void event_report(struct run *run, const char *name, const char *text, uint64_t step)
{
    struct driver *driver = run->driver;
    if (run->rank == 0 && driver->failure.kind == ERR_NONE &&
        report_event(driver->report, name, text, step, &driver->failure) < 0)
        err_wrap(&driver->failure, "event '%s'", name);
}

void run_fact(struct run *run, const char *name, const char *text)
{
    event_report(run, name, text, 0);
}

static void event_send(struct run *run, const char *name, const char *text, uint64_t step)
{
    run_note(run, "%s: %s", name, text);
    event_report(run, name, text, step);
}

void run_event(struct run *run, const char *name, const char *text)
{
    event_send(run, name, text, 0);
}

/* A stage counts its own steps. What the step's metrics say comes first. */
void run_diverged(struct run *run, uint64_t step, const char *text)
{
    struct driver *driver = run->driver;
    char whole[1000];
    driver->together = true;
    snprintf(whole, sizeof whole, "%s%s%s", driver->diverged, driver->diverged[0] ? "; " : "",
             text);
    event_send(run, "diverged", whole, step + driver->run.step - run->step);
}

int run_gave_up(struct run *run, struct err *err, const char *name, const char *format, ...)
{
    char text[1500];
    va_list args;
    int length = snprintf(text, sizeof text, "%s: ", name);
    va_start(args, format);
    vsnprintf(text + length, sizeof text - (size_t)length, format, args);
    va_end(args);
    run->driver->together = true;
    event_send(run, "gave_up", text, 0);
    return err_set(err, ERR_LIMIT, "%s", text);
}

void run_note(struct run *run, const char *format, ...)
{
    va_list args;
    if (run->rank != 0)
        return;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
    fflush(stdout);
}

/* The metrics as report values; fresh_only: those of the current step. */
static size_t metric_values(const struct driver *driver, bool fresh_only,
                            struct report_value values[METRICS_MAX])
{
    size_t count = 0;
    for (size_t i = 0; i < driver->metric_count; i++)
        if (!fresh_only || driver->metrics[i].fresh)
            values[count++] =
                (struct report_value){driver->metrics[i].name, driver->metrics[i].value};
    return count;
}

static void print_metrics(const struct driver *driver, const struct report_value *values,
                          size_t count)
{
    if (driver->options->report_path && *driver->options->report_path)
        return;
    printf("step %llu/%llu", (unsigned long long)driver->run.step,
           (unsigned long long)driver->run.step_count);
    for (size_t i = 0; i < count; i++)
        printf(" %s=%.6g", values[i].name, values[i].value);
    putchar('\n');
    fflush(stdout);
}

static int send_metrics(struct driver *driver, struct err *err)
{
    struct report_value values[METRICS_MAX];
    size_t count = metric_values(driver, true, values);
    for (size_t i = 0; i < driver->metric_count; i++)
        driver->metrics[i].fresh = false;
    if (driver->run.rank != 0 || count == 0)
        return 0;
    print_metrics(driver, values, count);
    return report_metrics(driver->report, driver->run.step, values, count, err);
}

/* All ranks send it: the shepherd names the rank that went silent. */
static int send_progress(struct driver *driver, bool always, struct err *err)
{
    uint64_t now = clock_steady_ms();
    if (!always && now - driver->progress_ms < PROGRESS_MS)
        return 0;
    driver->progress_ms = now;
    return report_progress(driver->report, driver->run.step, driver->run.step_count,
                           driver->run.phase, err);
}

static int read_orders(struct driver *driver, struct err *err)
{
    struct report_order order;
    do {
        if (report_poll(driver->report, &order, err) < 0)
            return -1;
        driver->asked_to_stop = driver->asked_to_stop || order.kind == ORDER_STOP;
        driver->checkpoint_now = driver->checkpoint_now || order.kind == ORDER_CHECKPOINT;
        if (order.kind == ORDER_STOP)
            run_note(&driver->run, "asked to stop (%s)", order.text);
        if (order.kind == ORDER_REFUSED)
            return err_set(err, ERR_INVALID, "the shepherd refused a report: %s", order.text);
    } while (order.kind != ORDER_NONE);
    return 0;
}

/* One maximum over ranks: if any rank wants it, all do it. */
static void agree(struct driver *driver)
{
    double wishes[] = {driver->asked_to_stop || terminate_asked, driver->checkpoint_now,
                       driver->diverged[0] != 0};
    comm_max_f64(driver->run.comm, wishes, ARRAY_COUNT(wishes));
    driver->stop = wishes[0] > 0;
    driver->checkpoint_now = wishes[1] > 0;
    if (wishes[2] > 0 && !driver->diverged[0])
        snprintf(driver->diverged, sizeof driver->diverged,
                 "a metric is not finite on another rank at step %llu",
                 (unsigned long long)driver->run.step);
}

/* The same of ranks that are apart, by a gathering that goes on meanwhile: each hears of the n-th
 * one at its own time, but all hear the same, so that they stop or come together after the same
 * one, with none under way. */
static void agree_apart(struct driver *driver)
{
    struct run *run = &driver->run;
    bool stop = false, ready = true;
    if (!driver->wishes) {
        driver->wishes = mem_array(run->rank_count, sizeof *driver->wishes);
        driver->wish = (struct apart_wish){driver->asked_to_stop || terminate_asked,
                                           run->pace.ready};
        comm_gather_begin(run->comm, &driver->wish, sizeof driver->wish, driver->wishes);
    }
    if (!comm_gather_done(run->comm))
        return;
    for (unsigned r = 0; r < run->rank_count; r++) {
        stop = stop || driver->wishes[r].stop;
        ready = ready && driver->wishes[r].ready;
    }
    mem_free(driver->wishes);
    driver->wishes = NULL;
    driver->stop = stop;
    if (ready)
        run->pace.apart = run->pace.ready = false;
}

int run_save(struct run *run, void *state, const char *folder, char **out_path, struct err *err)
{
    struct checkpoint_writer *writer = NULL;
    int rc = -1;
    *out_path = mem_printf("%s/step-%010llu", folder, (unsigned long long)run->step);
    if (run->rank != 0)
        comm_barrier(run->comm);
    if (checkpoint_begin(folder, run->step, run->rank, run->rank_count, &writer, err) < 0)
        goto out;
    if (run->rank == 0)
        comm_barrier(run->comm);
    if (run->recipe->save(run, state, writer, err) < 0 || checkpoint_finish_rank(writer, err) < 0)
        goto out;
    comm_barrier(run->comm);
    if (run->rank == 0) {
        mem_free(*out_path);
        *out_path = NULL;
        if (checkpoint_commit(writer, out_path, err) < 0)
            goto out;
    }
    comm_barrier(run->comm);
    rc = 0;
out:
    checkpoint_writer_free(writer);
    if (rc < 0) {
        mem_free(*out_path);
        *out_path = NULL;
    }
    return rc;
}

static int report_saved(struct driver *driver, const char *path, uint64_t save_ms, struct err *err)
{
    struct report_value values[METRICS_MAX];
    size_t count = metric_values(driver, false, values);
    if (driver->run.rank != 0)
        return 0;
    run_note(&driver->run, "checkpoint of step %llu at %s", (unsigned long long)driver->run.step,
             path);
    return report_checkpoint(driver->report, driver->run.step, path, save_ms, values, count, err);
}

static int save_checkpoint(struct driver *driver, struct err *err)
{
    struct run *run = &driver->run;
    char *folder = mem_printf("%s/checkpoints", run->job_dir), *path = NULL;
    uint64_t began_ms = clock_steady_ms();
    int rc = run_save(run, driver->state, folder, &path, err);
    if (rc == 0)
        rc = report_saved(driver, path, clock_steady_ms() - began_ms, err);
    if (rc == 0) {
        driver->saved_step = run->step;
        driver->saved_ms = clock_steady_ms();
        driver->checkpoint_now = false;
    }
    mem_free(path);
    mem_free(folder);
    return rc;
}

static bool checkpoint_is_due(const struct driver *driver)
{
    uint64_t every = driver->job->checkpoint_every_steps;
    if (!driver->run.recipe->save || driver->run.resting || driver->saved_step == driver->run.step)
        return false;
    return driver->checkpoint_now || (every && driver->run.step % every == 0);
}

/* Rank 0's clock decides for all, through checkpoint_now and agree. */
static void note_time(struct driver *driver)
{
    uint64_t every = driver->job->checkpoint_every_ms;
    if (driver->run.rank == 0 && every && clock_steady_ms() - driver->saved_ms >= every)
        driver->checkpoint_now = true;
}

static int refuse_diverged(struct driver *driver, struct err *err)
{
    driver->together = true;
    event_send(&driver->run, "diverged", driver->diverged, driver->run.step);
    return err_set(err, ERR_LIMIT, "diverged: %s", driver->diverged);
}

static int do_step(struct driver *driver, struct err *err)
{
    struct run *run = &driver->run;
    run->pace.again = false;
    if (run->recipe->step(run, driver->state, err) < 0) {
        struct err late = {0}; /* the first error is the one that matters */
        run->step++;
        if (driver->together && send_metrics(driver, &late) < 0) /* how far it came */
            fprintf(stderr, "athanor-engine: %s\n", late.text);
        return driver->together ? -1
                                : err_wrap(err, "step %llu", (unsigned long long)run->step);
    }
    bool whole = !run->pace.again;
    run->step += whole;
    if (driver->failure.kind != ERR_NONE) {
        *err = driver->failure;
        return -1;
    }
    note_time(driver);
    if (read_orders(driver, err) < 0)
        return -1;
    if (run->pace.apart)
        agree_apart(driver);
    else
        agree(driver);
    if (whole && send_metrics(driver, err) < 0)
        return -1;
    if (driver->diverged[0] && !run->pace.apart)
        return refuse_diverged(driver, err);
    return send_progress(driver, whole && run->step == run->step_count, err);
}

static int run_steps(struct driver *driver, struct err *err)
{
    struct run *run = &driver->run;
    if (send_progress(driver, true, err) < 0)
        return -1;
    while (run->step < run->step_count && !driver->stop) {
        if (do_step(driver, err) < 0)
            return -1;
        bool last = run->step >= run->step_count || driver->stop;
        if (checkpoint_is_due(driver) && !last && save_checkpoint(driver, err) < 0)
            return -1;
    }
    if (!run->recipe->save || run->resting || driver->saved_step == run->step)
        return 0;
    return save_checkpoint(driver, err);
}

static int resume_from(struct driver *driver, struct err *err)
{
    struct run *run = &driver->run;
    const char *path = driver->options->resume;
    if (!path || !*path)
        return 0;
    if (!run->recipe->load)
        return err_set(err, ERR_INVALID, "recipe '%s' takes no checkpoints, so '%s' cannot be "
                       "resumed", run->recipe->name, path);
    if (checkpoint_open(path, &driver->resume, err) < 0)
        return -1;
    run->step = checkpoint_step(driver->resume);
    return 0;
}

static int load_state(struct driver *driver, struct err *err)
{
    struct run *run = &driver->run;
    if (!driver->resume)
        return 0;
    if (run->step > run->step_count)
        return err_set(err, ERR_INVALID, "the checkpoint is of step %llu, but the job has only "
                       "%llu", (unsigned long long)run->step, (unsigned long long)run->step_count);
    if (run->recipe->load(run, driver->state, driver->resume, err) < 0)
        return err_wrap(err, "resume");
    driver->saved_step = checkpoint_step(driver->resume);
    run_note(run, "resumed at step %llu of %llu from %s", (unsigned long long)run->step,
             (unsigned long long)run->step_count, driver->options->resume);
    return 0;
}

static int make_state(struct driver *driver, struct err *err)
{
    size_t bytes = (driver->run.recipe->state_size + STATE_ALIGN) / STATE_ALIGN * STATE_ALIGN;
    driver->state = aligned_alloc(STATE_ALIGN, bytes);
    if (!driver->state)
        return err_set(err, ERR_MEMORY, "the recipe's state needs %zu bytes", bytes);
    memset(driver->state, 0, bytes);
    return 0;
}

/* Of a run that was killed. Others wait: what they write looks the same until it is whole. */
static int sweep_leftovers(const struct run *run, struct err *err)
{
    int rc = 0;
    if (run->rank == 0) {
        char *folder = mem_printf("%s/checkpoints", run->job_dir);
        rc = checkpoint_sweep(folder, err) < 0 ? -1 : file_sweep_replaced(run->job_dir, err);
        mem_free(folder);
    }
    comm_barrier(run->comm);
    return rc;
}

static int drive(struct driver *driver, struct err *err)
{
    struct run *run = &driver->run;
    if (file_make_folders(run->job_dir, 0755, err) < 0 || sweep_leftovers(run, err) < 0 ||
        make_state(driver, err) < 0 || resume_from(driver, err) < 0)
        return -1;
    driver->opened = true;
    driver->saved_ms = clock_steady_ms();
    if (run->recipe->open(run, driver->state, err) < 0 || load_state(driver, err) < 0 ||
        run_steps(driver, err) < 0)
        return -1;
    return run_settle(run, err);
}

static void driver_done(struct driver *driver)
{
    if (driver->opened)
        driver->run.recipe->close(&driver->run, driver->state);
    for (size_t i = 0; i < driver->metric_count; i++)
        mem_free(driver->metrics[i].name);
    checkpoint_close(driver->resume);
    report_close(driver->report);
    free(driver->state);
}

int run_job(const struct job *job, const struct run_options *options, struct err *err)
{
    struct comm *comm = NULL;
    if (comm_open(&comm, err) < 0)
        return -1;
    struct driver driver = {
        .run = {.recipe = job->recipe, .comm = comm, .rank = (unsigned)comm->rank,
                .rank_count = (unsigned)comm->size, .name = job->name,
                .job_dir = options->job_dir, .run_dir = options->run_dir, .phase = "run",
                .data_skip = options->data_skip},
        .job = job,
        .options = options,
        .saved_step = UINT64_MAX,
    };
    driver.run.driver = &driver;
    driver.run.job = job;
    catch_terminate();
    int rc = report_open(options->report_path, driver.run.rank, &driver.report, err);
    if (rc == 0)
        rc = drive(&driver, err);
    if (rc < 0 && driver.report) {
        struct err late; /* the first error is the one that matters */
        if (report_flush(driver.report, FLUSH_MS, &late) < 0)
            fprintf(stderr, "athanor-engine: %s\n", late.text);
    }
    if (rc < 0 && comm->size > 1 && !driver.together) {
        /* The others may wait for this rank in a collective: end them with it. */
        fprintf(stderr, "athanor-engine: rank %d: %s\n", comm->rank, err->text);
        comm_abort(comm, EXIT_FAILURE);
    }
    driver_done(&driver);
    comm_close(comm);
    return rc;
}
