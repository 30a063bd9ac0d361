/* options.c - see options.h. */
#include "worker/daemon/options.h"

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "common/base/roff.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum option_kind {
    OPTION_TEXT = 1,
    OPTION_SIZE,
    OPTION_DURATION,
    OPTION_FLAG,
    OPTION_ENDPOINTS,
    OPTION_LABEL
};

#define UNTIL_SPAN_MS_MAX 315360000000u /* ten years */
#define UNTIL_S_MAX       253402300799u /* 9999-12-31 */
#define ENDPOINTS_FILE_BYTES_MAX 4096u /* 16 endpoints of 255 characters */

#define AT(field) offsetof(struct options, field)

static const struct option {
    const char *name, *argument;
    enum option_kind kind;
    size_t offset;
    const char *environment; /* used when the option is not given; NULL: none */
    const char *help;
} table[] = {
    {"--coordinator", "ENDPOINT,...", OPTION_ENDPOINTS, 0, "ATHANOR_COORDINATOR",
     "coordinators to try in turn: tcp://HOST:PORT or ipc://PATH (default: those of "
     "coordinator.endpoints beside --keys)"},
    {"--keys", "FILE", OPTION_TEXT, AT(keys), "ATHANOR_KEYS",
     "secret key of this worker, made by --enrol or 'athanor keys'; required"},
    {"--server-key", "FILE|KEY", OPTION_TEXT, AT(server_key), "ATHANOR_SERVER_KEY",
     "public key of the coordinators (default: coordinator.pub beside --keys)"},
    {"--name", "NAME", OPTION_TEXT, AT(name), NULL,
     "name of this worker, as its key was enrolled (default: just that)"},
    {"--enrol", "FILE|-", OPTION_TEXT, AT(enrol), NULL,
     "make the key pair --keys, enrol it by the one-time token in FILE or on standard input, "
     "write coordinator.pub and coordinator.endpoints beside it, and end"},
    {"--state", "DIR", OPTION_TEXT, AT(state), "ATHANOR_WORKER_STATE",
     "attempts, spools and, unless --jobs-dir is given, job directories; required"},
    {"--jobs-dir", "DIR", OPTION_TEXT, AT(jobs_dir), NULL,
     "durable job directories, the same path on all workers that share jobs "
     "(default: STATE/jobs)"},
    {"--cores", "N|LIST", OPTION_TEXT, AT(cores), NULL,
     "cores offered: a number, or CPU numbers such as 0-3,8 or 2-2 (default: all)"},
    {"--memory", "SIZE", OPTION_SIZE, AT(memory_bytes), NULL,
     "memory offered, such as 64GiB (default: nine tenths of the machine)"},
    {"--gpus", "auto|none|fake:N|fake:FILE", OPTION_TEXT, AT(gpus), NULL,
     "GPUs offered: those that NVML finds, their slices where they are cut (MIG), none, or "
     "imaginary ones for tests: N, or as FILE describes (default: auto)"},
    {"--gpu-free-timeout", "DURATION", OPTION_DURATION, AT(gpu_free_timeout_ms), NULL,
     "how long a GPU may take to come free before and after an attempt; one that does not is kept "
     "from work until it is (default: 30s)"},
    {"--gpu-sample", "FILE", OPTION_TEXT, AT(gpu_sample), NULL,
     "write what the devices of --gpus do now into FILE, and leave"},
    {"--usage-every", "DURATION", OPTION_DURATION, AT(usage_every_ms), NULL,
     "how often each rank's cores, memory, I/O and GPUs become points of its series usage/... "
     "(default 10s, at least 1s)"},
    {"--gpu-check", "UUID", OPTION_TEXT, AT(gpu_check), NULL,
     "say whether nobody holds memory on this device of --gpus, and leave"},
    {"--links", "auto|none|ENDPOINT", OPTION_TEXT, AT(links), "ATHANOR_LINKS",
     "where workers of other nodes reach this one, for attempts on several nodes: "
     "tcp://ADDRESS:PORT, or the address that leads to the coordinator (default: auto)"},
    {"--label", "NAME=VALUE", OPTION_LABEL, 0, NULL, "for constraints of specs; may be repeated"},
    {"--engine", "FILE", OPTION_TEXT, AT(engine), NULL,
     "athanor-engine (default: beside this program)"},
    {"--shepherd", "FILE", OPTION_TEXT, AT(shepherd), NULL,
     "athanor-shepherd (default: beside this program)"},
    {"--tmp", "DIR", OPTION_TEXT, AT(tmp), "TMPDIR",
     "where attempts get their private TMPDIR (default: /tmp)"},
    {"--cgroups", "auto|v2|v1|none", OPTION_TEXT, AT(cgroups), NULL,
     "what holds attempts together: control groups of version 2 or 1, or only the shepherd "
     "(default: auto, the first that may be used)"},
    {"--shm", "auto|private|shared", OPTION_TEXT, AT(shm), NULL,
     "whether each attempt has a /dev/shm of its own, which goes with its last process, or the "
     "machine's, where jobs can share files, and leave them (default: auto, its own if we may)"},
    {"--prolog", "FILE", OPTION_TEXT, AT(prolog), NULL,
     "program to run before the ranks of each attempt start; if it fails the attempt is tried "
     "elsewhere and this node goes into quarantine"},
    {"--epilog", "FILE", OPTION_TEXT, AT(epilog), NULL,
     "program to run when no process of an attempt is left, before its cores are given away; if "
     "it fails this node goes into quarantine"},
    {"--hook-timeout", "DURATION", OPTION_DURATION, AT(hook_timeout_ms), NULL,
     "longest time of a prolog or epilog (default: 1m)"},
    {"--health", "DIR", OPTION_TEXT, AT(health), NULL,
     "programs that look after this node; while one fails nothing new starts here"},
    {"--health-every", "DURATION", OPTION_DURATION, AT(health_every_ms), NULL,
     "from the end of a round of health checks to the next; they run between attempts as well "
     "(default: 1m)"},
    {"--health-timeout", "DURATION", OPTION_DURATION, AT(health_timeout_ms), NULL,
     "longest time of one health check (default: 10s)"},
    {"--log-limit", "SIZE", OPTION_SIZE, AT(log_bytes_max), NULL,
     "output kept of one attempt here, if its job may leave as much (default: 256MiB)"},
    {"--code-cache", "SIZE", OPTION_SIZE, AT(code_cache_bytes), NULL,
     "archives of code kept for later attempts; the least recently used go (default: 2GiB)"},
    {"--copy-cache", "SIZE", OPTION_SIZE, AT(copy_cache_bytes), NULL,
     "checkpoints and datasets of other workers kept for later attempts and for others; the least "
     "recently used go (default: 20GiB)"},
    {"--copy-rate", "SIZE", OPTION_SIZE, AT(copy_rate), NULL,
     "bytes a second that others may read of checkpoints here (default: as fast as it goes)"},
    {"--job-user", "NAME", OPTION_TEXT, AT(job_user), NULL, "account that jobs run as; needs root"},
    {"--job-accounts", "same|FILE", OPTION_TEXT, AT(job_accounts), NULL,
     "run each job as the account named as who submitted it, or as FILE says: lines of a "
     "principal, "
     "or *, and an account; needs root"},
    {"--allow-root-jobs", NULL, OPTION_FLAG, AT(allow_root_jobs), NULL,
     "as root: jobs may run as root"},
    {"--stop-jobs", NULL, OPTION_FLAG, AT(stop_jobs), NULL,
     "stop jobs on SIGTERM (default: they run on and are found again)"},
    {"--until", "TIME", OPTION_TEXT, AT(until), NULL,
     "this node is ours until then: seconds since 1970, or +DURATION from now; jobs start only if "
     "they are over before, and SIGTERM means that the end has come"},
    {"--margin", "DURATION", OPTION_DURATION, AT(margin_ms), NULL,
     "so long before --until everything is over (default: 30s)"},
    {"--open-ended", NULL, OPTION_FLAG, AT(open_ended), NULL,
     "with --until: take jobs without a wall time too; they are requeued at the end"},
    {"--idle", "DURATION", OPTION_DURATION, AT(idle_ms), NULL,
     "leave when there was nothing to do for so long (default: stay)"},
    {"--verbose", NULL, OPTION_FLAG, AT(verbose), NULL, "log every message"},
    {"--help", NULL, OPTION_FLAG, AT(help), NULL, "this text"},
    {"--man", NULL, OPTION_FLAG, AT(man), NULL, "print athanor-worker(8) as roff"},
    {"--alive", NULL, OPTION_FLAG, AT(alive), NULL,
     "say how the worker that writes $ATHANOR_HEALTH_FILE fares; exit 0: it is alive"},
    {"--version", NULL, OPTION_FLAG, AT(version), NULL, "print the version"},
};

#define SYNOPSIS                                                                                   \
    "athanor-worker --keys FILE --state DIR [options]\n"                                           \
    "       athanor-worker --enrol FILE|- --keys FILE [--name NAME]"
static const char about[] =
    "Offers this node's cores, memory and GPUs to a coordinator and runs what it sends.\n"
    "May be restarted at any time: jobs run on and are found again.\n";

void options_help(FILE *out)
{
    fprintf(out, "usage: " SYNOPSIS "\n\n%s\n", about);
    for (size_t i = 0; i < ARRAY_COUNT(table); i++) {
        int width =
            fprintf(out, "  %s %s", table[i].name, table[i].argument ? table[i].argument : "");
        fprintf(out, "%*s%s", width < 32 ? 32 - width : 1, "", table[i].help);
        if (table[i].environment)
            fprintf(out, " [$%s]", table[i].environment);
        fputc('\n', out);
    }
}

void options_man(FILE *stream, const char *version)
{
    struct buf out = {0}, help = {0};
    roff_title(&out, "athanor-worker", 8, version, "offers this node to an Athanor cluster");
    roff_section(&out, "SYNOPSIS");
    roff_text(&out, SYNOPSIS);
    roff_section(&out, "DESCRIPTION");
    roff_text(&out, about);
    roff_section(&out, "OPTIONS");
    for (size_t i = 0; i < ARRAY_COUNT(table); i++) {
        buf_clear(&help);
        buf_puts(&help, table[i].help);
        if (table[i].environment)
            buf_printf(&help, " (variable %s)", table[i].environment);
        roff_item(&out, table[i].name, table[i].argument, help.bytes);
    }
    roff_section(&out, "EXIT STATUS");
    roff_text(&out, "0 ended as asked; 1 could not start or go on; 2 wrong options.");
    roff_section(&out, "SEE ALSO");
    roff_text(&out, "athanor(1), athanor-engine(1), athanor-coordinator(8)");
    fputs(out.bytes, stream);
    buf_done(&help);
    buf_done(&out);
}

/* ---- values ---------------------------------------------------------------------------------- */

static int endpoints_set(struct options *options, const char *value, struct err *err)
{
    char *copy = arena_strdup(&options->arena, value), *save = NULL;
    options->endpoint_count = 0;
    for (char *item = strtok_r(copy, ",", &save); item; item = strtok_r(NULL, ",", &save)) {
        if (options->endpoint_count == OPTIONS_ENDPOINTS_MAX)
            return err_set(err, ERR_INVALID, "at most %u endpoints", OPTIONS_ENDPOINTS_MAX);
        if (strncmp(item, "tcp://", 6) != 0 && strncmp(item, "ipc://", 6) != 0)
            return err_set(err, ERR_INVALID,
                           "'%s' is no endpoint, expected tcp://HOST:PORT or ipc://PATH", item);
        options->endpoints[options->endpoint_count++] = item;
    }
    return 0;
}

static int label_set(struct options *options, const char *value, struct err *err)
{
    const char *equals = strchr(value, '=');
    if (!equals || equals == value || !equals[1])
        return err_set(err, ERR_INVALID, "'%s', expected NAME=VALUE", value);
    if (options->label_count == OPTIONS_LABELS_MAX)
        return err_set(err, ERR_INVALID, "at most %u labels", OPTIONS_LABELS_MAX);
    options->labels[options->label_count++] =
        (struct option_label){arena_strndup(&options->arena, value, (size_t)(equals - value)),
                              arena_strdup(&options->arena, equals + 1)};
    return 0;
}

static int value_set(struct options *options, const struct option *option, const char *value,
                     struct err *err)
{
    void *field = (char *)options + option->offset;
    switch (option->kind) {
    case OPTION_TEXT:
        *(const char **)field = arena_strdup(&options->arena, value);
        return 0;
    case OPTION_SIZE:
        return parse_size_bytes(value, field, err);
    case OPTION_DURATION:
        return parse_duration_ms(value, field, err);
    case OPTION_FLAG:
        *(bool *)field = true;
        return 0;
    case OPTION_ENDPOINTS:
        return endpoints_set(options, value, err);
    case OPTION_LABEL:
        return label_set(options, value, err);
    }
    CHECK(!"an option has no kind");
    return -1;
}

static const struct option *option_find(const char *name, size_t length)
{
    for (size_t i = 0; i < ARRAY_COUNT(table); i++)
        if (strlen(table[i].name) == length && strncmp(table[i].name, name, length) == 0)
            return &table[i];
    return NULL;
}

static int option_unknown(const char *given, struct err *err)
{
    const char *nearest = table[0].name;
    for (size_t i = 1; i < ARRAY_COUNT(table); i++)
        if (text_distance(given, table[i].name) < text_distance(given, nearest))
            nearest = table[i].name;
    return err_set(err, ERR_INVALID, "'%s' is not an option, did you mean %s? See --help", given,
                   nearest);
}

/* --name VALUE or --name=VALUE; returns how many words were used. */
static int argument_read(struct options *options, char *const *words, int left, struct err *err)
{
    size_t length = strcspn(words[0], "=");
    const struct option *option = option_find(words[0], length);
    if (!option)
        return option_unknown(words[0], err);
    const char *value = words[0][length] ? words[0] + length + 1 : NULL;
    int used = 1;
    if (option->kind == OPTION_FLAG && value)
        return err_set(err, ERR_INVALID, "%s takes no value", option->name);
    if (option->kind != OPTION_FLAG && !value) {
        if (left < 2)
            return err_set(err, ERR_INVALID, "%s: %s is missing", option->name, option->argument);
        value = words[1];
        used = 2;
    }
    return value_set(options, option, value, err) < 0 ? err_wrap(err, "%s", option->name) : used;
}

/* ---- defaults -------------------------------------------------------------------------------- */

static int environment_read(struct options *options, struct err *err)
{
    for (size_t i = 0; i < ARRAY_COUNT(table); i++) {
        const char *value = table[i].environment ? getenv(table[i].environment) : NULL;
        if (value && value[0] && value_set(options, &table[i], value, err) < 0)
            return err_wrap(err, "$%s", table[i].environment);
    }
    return 0;
}

static const char *program_beside(struct options *options, const char *name)
{
    char self[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length <= 0)
        return name;
    self[length] = '\0';
    char *slash = strrchr(self, '/');
    return arena_printf(&options->arena, "%.*s/%s", (int)(slash - self), self, name);
}

static const char *absolute(struct options *options, const char *path)
{
    char folder[PATH_MAX];
    if (path[0] == '/' || !getcwd(folder, sizeof folder))
        return path;
    return arena_printf(&options->arena, "%s/%s", folder, path);
}

static const char *beside_keys(struct options *options, const char *name)
{
    const char *slash = strrchr(options->keys, '/');
    return arena_printf(&options->arena, "%.*s%s", slash ? (int)(slash - options->keys) + 1 : 0,
                        options->keys, name);
}

/* What --enrol has learned from the token. */
static int endpoints_default(struct options *options, struct err *err)
{
    char *text = NULL;
    size_t length;
    options->endpoints_file = beside_keys(options, "coordinator.endpoints");
    if (options->endpoint_count > 0 || !options->keys[0] ||
        !file_exists(options->endpoints_file))
        return 0;
    if (file_read(options->endpoints_file, ENDPOINTS_FILE_BYTES_MAX, &text, &length, err) < 0)
        return -1;
    text[strcspn(text, "\r\n")] = '\0';
    int rc = endpoints_set(options, text, err);
    mem_free(text);
    return rc < 0 ? err_wrap(err, "%s", options->endpoints_file) : 0;
}

static void defaults_set(struct options *options)
{
    options->state = absolute(options, options->state);
    options->jobs_dir = options->jobs_dir[0]
                            ? absolute(options, options->jobs_dir)
                            : arena_printf(&options->arena, "%s/jobs", options->state);
    const char **files[] = {&options->prolog, &options->epilog, &options->health};
    if (strcmp(options->job_accounts, "same") != 0 && options->job_accounts[0])
        options->job_accounts = absolute(options, options->job_accounts);
    for (size_t i = 0; i < ARRAY_COUNT(files); i++)
        if ((*files[i])[0])
            *files[i] = absolute(options, *files[i]);
    options->tmp = absolute(options, options->tmp[0] ? options->tmp : "/tmp");
    if (!options->engine[0])
        options->engine = program_beside(options, "athanor-engine");
    if (!options->shepherd[0])
        options->shepherd = program_beside(options, "athanor-shepherd");
    options->engine = absolute(options, options->engine);
    options->shepherd = absolute(options, options->shepherd);
    if (!options->server_key[0])
        options->server_key = beside_keys(options, "coordinator.pub");
}

static int shm_check(const struct options *options, struct err *err)
{
    static const char *const kinds[] = {"auto", "private", "shared"};
    for (size_t i = 0; i < ARRAY_COUNT(kinds); i++)
        if (strcmp(options->shm, kinds[i]) == 0)
            return 0;
    return err_set(err, ERR_INVALID, "--shm '%s', expected auto, private or shared", options->shm);
}

static int cgroups_read(struct options *options, struct err *err)
{
    static const struct {
        const char *name;
        enum cgroup_kind kind;
    } kinds[] = {
        {"auto", CGROUP_AUTO}, {"v2", CGROUP_V2}, {"v1", CGROUP_V1}, {"none", CGROUP_NONE}};
    for (size_t i = 0; i < ARRAY_COUNT(kinds); i++)
        if (strcmp(options->cgroups, kinds[i].name) == 0) {
            options->cgroup_kind = kinds[i].kind;
            return 0;
        }
    return err_set(err, ERR_INVALID, "--cgroups '%s', expected auto, v2, v1 or none",
                   options->cgroups);
}

/* Slurm's SLURM_JOB_END_TIME is in seconds since 1970. */
static int until_read(struct options *options, struct err *err)
{
    uint64_t number;
    bool relative = options->until[0] == '+';
    if (!options->until[0])
        return 0;
    if ((relative ? parse_duration_ms(options->until + 1, &number, err)
                  : parse_u64(options->until, &number, err)) < 0)
        return err_wrap(err, "--until: expected seconds since 1970, or +DURATION");
    if (number > (relative ? UNTIL_SPAN_MS_MAX : UNTIL_S_MAX))
        return err_set(err, ERR_INVALID, "--until '%s' is centuries away", options->until);
    options->until_us = relative ? clock_wall_us() + number * 1000 : number * 1000000;
    return 0;
}

static int required_check(const struct options *options, struct err *err)
{
    if (!options->keys[0])
        return err_set(err, ERR_INVALID,
                       "--keys is required: the file of this worker's secret key");
    if (options->enrol[0])
        return 0;
    if (options->endpoint_count == 0)
        return err_set(err, ERR_INVALID,
                       "--coordinator is required, such as tcp://HOST:7117, because --enrol has "
                       "left no file '%s'",
                       options->endpoints_file);
    if (!options->state[0])
        return err_set(err, ERR_INVALID, "--state is required: a directory on a local disk");
    if (options->usage_every_ms < 1000)
        return err_set(err, ERR_INVALID, "--usage-every: expected at least 1s");
    if (options->hook_timeout_ms == 0 || options->health_every_ms == 0 ||
        options->health_timeout_ms == 0)
        return err_set(err, ERR_INVALID,
                       "--hook-timeout, --health-every and --health-timeout: expected a duration "
                       "above 0, such as 30s");
    if (options->job_user[0] && geteuid() != 0)
        return err_set(err, ERR_INVALID, "--job-user %s: only root can run jobs as another account",
                       options->job_user);
    if (options->job_accounts[0] && geteuid() != 0)
        return err_set(err, ERR_INVALID,
                       "--job-accounts %s: only root can run jobs as other accounts",
                       options->job_accounts);
    if (options->job_accounts[0] && options->job_user[0])
        return err_set(err, ERR_INVALID, "--job-user and --job-accounts exclude each other");
    if (geteuid() == 0 && !options->job_user[0] && !options->job_accounts[0] &&
        !options->allow_root_jobs)
        return err_set(err, ERR_INVALID,
                       "running as root: name the account of jobs with --job-user, let them run as "
                       "who submitted them with --job-accounts, or say --allow-root-jobs");
    return 0;
}

int options_read(int count, char *const *arguments, struct options *out, struct err *err)
{
    struct options options = {.keys = "",
                              .server_key = "",
                              .name = "",
                              .enrol = "",
                              .until = "",
                              .margin_ms = 30000,
                              .state = "",
                              .jobs_dir = "",
                              .cores = "",
                              .gpus = "auto",
                              .engine = "",
                              .shepherd = "",
                              .tmp = "",
                              .job_user = "",
                              .job_accounts = "",
                              .links = "auto",
                              .shm = "auto",
                              .cgroups = "auto",
                              .prolog = "",
                              .epilog = "",
                              .health = "",
                              .gpu_check = "",
                              .gpu_sample = "",
                              .usage_every_ms = 10000,
                              .gpu_free_timeout_ms = 30000,
                              .hook_timeout_ms = 60000,
                              .health_every_ms = 60000,
                              .health_timeout_ms = 10000,
                              .log_bytes_max = (uint64_t)256 << 20,
                              .code_cache_bytes = (uint64_t)2 << 30,
                              .copy_cache_bytes = (uint64_t)20 << 30};
    int rc = environment_read(&options, err);
    for (int i = 1; rc == 0 && i < count;) {
        int used = argument_read(&options, arguments + i, count - i, err);
        if (used < 0)
            rc = -1;
        i += used;
    }
    bool serves = !options.help && !options.man && !options.version && !options.alive &&
                  !options.gpu_check[0] && !options.gpu_sample[0];
    if (rc == 0 && serves) {
        rc = endpoints_default(&options, err);
        if (rc == 0)
            rc = required_check(&options, err) < 0 || until_read(&options, err) < 0 ||
                         shm_check(&options, err) < 0
                     ? -1
                     : cgroups_read(&options, err);
        if (rc == 0)
            defaults_set(&options);
    }
    if (rc < 0)
        options_done(&options);
    else
        *out = options;
    return rc;
}

void options_done(struct options *options)
{
    arena_done(&options->arena);
    memset(options, 0, sizeof *options);
}
