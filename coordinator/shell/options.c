/* options.c - one table of options, for parsing and for --help. */
#include "coordinator/shell/options.h"

#include "common/base/buf.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/parse.h"
#include "common/base/roff.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum option_type {
    OPTION_TEXT = 1,
    OPTION_LIST,
    OPTION_FLAG,
    OPTION_DURATION,
    OPTION_COUNT,
    OPTION_SIZE,
    OPTION_PERMILLE, /* a decimal such as 1.5 */
    OPTION_LEVEL
};

struct option_row {
    const char *name, *value, *environment;
    enum option_type type;
    size_t offset, count_offset; /* fields of struct options */
    size_t limit;                /* OPTION_LIST */
    const char *help;
    const char *credential; /* OPTION_TEXT: its file in $CREDENTIALS_DIRECTORY; NULL: none */
};

#define AT(field) offsetof(struct options, field)

static const struct option_row rows[] = {
    {"--db", "CONNINFO", "ATHANOR_DB", OPTION_TEXT, AT(db), 0, 0,
     "PostgreSQL, as libpq reads it: postgresql://user@host/name or host=... dbname=..."},
    {"--db-password", "FILE", "ATHANOR_DB_PASSWORD_FILE", OPTION_TEXT, AT(db_password), 0, 0,
     "the password for --db, which others cannot read there as they might in an environment (by "
     "systemd: the credential athanor.db-password)",
     .credential = "athanor.db-password"},
    {"--listen", "ENDPOINT", "ATHANOR_LISTEN", OPTION_LIST, AT(listen), AT(listen_count),
     OPTIONS_LISTEN_MAX,
     "where to listen: tcp://ADDRESS:PORT or ipc:///PATH; may be repeated, or "
     "several separated by commas (default tcp://127.0.0.1:7117)"},
    {"--advertise", "ENDPOINT", "ATHANOR_ADVERTISE", OPTION_LIST, AT(advertise),
     AT(advertise_count), OPTIONS_LISTEN_MAX,
     "where workers and clients reach us, which standbys tell them (default: as --listen, with "
     "this host's name for 0.0.0.0)"},
    {"--key", "FILE", "ATHANOR_SERVER_KEY_FILE", OPTION_TEXT, AT(key), 0, 0,
     "our key pair; made when there is none, with FILE.pub beside it for workers and clients"},
    {"--secrets-key", "FILE", "ATHANOR_SECRETS_KEY_FILE", OPTION_TEXT, AT(secrets_key), 0, 0,
     "a key pair (`athanor keys new`) from which the key of stored secrets is derived, the same "
     "for all coordinators (default: that of --key; when that one is replaced, give the old one "
     "here until all secrets have been set again; by systemd: the credential athanor.secrets-key)",
     .credential = "athanor.secrets-key"},
    {"--admin", "NAME:FILE", NULL, OPTION_LIST, AT(admins), AT(admin_count), OPTIONS_ADMIN_MAX,
     "enrol the public key in FILE as administrator NAME, unless NAME has a key already"},
    {"--principals", "FILE", NULL, OPTION_TEXT, AT(principals), 0, 0,
     "enrol the keys of FILE: lines of NAME ROLE KEY; roles are user, operator, worker, admin, "
     "pilot"},
    {"--single", NULL, "ATHANOR_SINGLE", OPTION_FLAG, AT(single), 0, 0,
     "lead at once, without waiting for the lease of an earlier leader to expire"},
    {"--migrate", NULL, NULL, OPTION_FLAG, AT(migrate_only), 0, 0,
     "bring the database's schema up to date and end"},
    {"--leader-lease", "DURATION", NULL, OPTION_DURATION, AT(leader_ms), 0, 0,
     "a standby takes over this long after the leader's last sign of life (default 2s)"},
    {"--worker-lease", "DURATION", NULL, OPTION_DURATION, AT(worker_ms), 0, 0,
     "a worker silent this long is lost (default 30s)"},
    {"--heartbeat", "DURATION", NULL, OPTION_DURATION, AT(heartbeat_ms), 0, 0,
     "how often workers report to be alive (default 2s)"},
    {"--keep-history", "DURATION", NULL, OPTION_DURATION, AT(keep_ms), 0, 0,
     "drop metrics and logs older than this, in whole weeks (default: keep all)"},
    {"--queue", "COUNT", NULL, OPTION_COUNT, AT(queue), 0, 0,
     "messages that may wait for one peer before its session is ended (default 20000)"},
    {"--policy", "NAME", NULL, OPTION_TEXT, AT(policy), 0, 0,
     "scheduling policy (default fair); with --simulate one or several, separated by commas "
     "(default: all there are)"},
    {"--simulate", "TRACE", NULL, OPTION_TEXT, AT(simulate), 0, 0,
     "serve nobody: run a workload trace through the policies in simulated time, print waits, "
     "slowdowns, utilisation and fairness, and end. Reads SWF, Alibaba GPU 2023, Tiresias, Batsim, "
     "Slurm (sacct -P), LSF and what 'athanor history' writes, each also gzipped"},
    {"--machine", "FILE", NULL, OPTION_TEXT, AT(machine), 0, 0,
     "with --simulate: the nodes, a CSV with cores, memory_bytes, gpus, gpu_model, or Alibaba's"},
    {"--nodes", "COUNT", NULL, OPTION_COUNT, AT(nodes), 0, 0,
     "with --simulate: a machine of so many equal nodes (default: one, or what the trace says)"},
    {"--cores", "COUNT", NULL, OPTION_COUNT, AT(cores), 0, 0,
     "with --simulate: cores of each node"},
    {"--memory", "SIZE", NULL, OPTION_SIZE, AT(memory_bytes), 0, 0,
     "with --simulate: memory of each node (default: never short)"},
    {"--gpus", "COUNT", NULL, OPTION_COUNT, AT(gpus), 0, 0, "with --simulate: GPUs of each node"},
    {"--load", "FACTOR", NULL, OPTION_PERMILLE, AT(load_permille), 0, 0,
     "with --simulate: submits come this much faster than recorded, from 0.001 (default 1)"},
    {"--starts", "FILE", NULL, OPTION_TEXT, AT(starts), 0, 0,
     "with --simulate: also write every start as CSV"},
    {"--json", NULL, NULL, OPTION_FLAG, AT(json), 0, 0,
     "with --simulate: print JSON instead of a table"},
    {"--notify-secret", "FILE", "ATHANOR_NOTIFY_SECRET_FILE", OPTION_TEXT, AT(notify_secret), 0, 0,
     "webhooks are signed with what FILE holds: Athanor-Signature: sha256=HMAC of the body (by "
     "systemd: the credential athanor.notify-secret)",
     .credential = "athanor.notify-secret"},
    {"--notify-allow", "HOST", "ATHANOR_NOTIFY_ALLOW", OPTION_LIST, AT(notify_allow),
     AT(notify_allow_count), OPTIONS_ALLOW_MAX,
     "webhooks may go to HOST or HOST:PORT alone; may be repeated, or several separated by commas "
     "(default: anywhere but to this machine and link)"},
    {"--mail-command", "COMMAND", "ATHANOR_MAIL_COMMAND", OPTION_TEXT, AT(mail_command), 0, 0,
     "program that gets mails with their headers on standard input, such as '/usr/sbin/sendmail "
     "-t'; split at blanks, no shell (default: no mail)"},
    {"--mail-from", "ADDRESS", "ATHANOR_MAIL_FROM", OPTION_TEXT, AT(mail_from), 0, 0,
     "sender of mails (default athanor@ this host)"},
    {"--log-level", "LEVEL", "ATHANOR_LOG_LEVEL", OPTION_LEVEL, AT(log_level), 0, 0,
     "error, warn, info or debug (default info)"},
    {"--alive", NULL, NULL, OPTION_FLAG, AT(alive), 0, 0,
     "say how the coordinator that writes $ATHANOR_HEALTH_FILE fares; exit 0: it is alive"},
    {"--version", NULL, NULL, OPTION_FLAG, AT(version), 0, 0, "print the version and end"},
    {"--man", NULL, NULL, OPTION_FLAG, AT(man), 0, 0,
     "print athanor-coordinator(8) as roff and end"},
    {"--help", NULL, NULL, OPTION_FLAG, AT(help), 0, 0, "print this page and end"},
};

static int set_level(const char *text, uint64_t *out, struct err *err)
{
    static const char *const names[] = {"", "error", "warn", "info", "debug"};

    for (uint64_t i = 1; i < ARRAY_COUNT(names); i++)
        if (strcmp(names[i], text) == 0) {
            *out = i;
            return 0;
        }
    return err_set(err, ERR_INVALID, "'%.40s' is no log level, expected error, warn, info or debug",
                   text);
}

static int set_permille(const char *text, uint64_t *out, struct err *err)
{
    double value;

    if (parse_f64(text, &value, err) < 0 || !(value >= 0.001 && value <= 1000))
        return err_set(err, ERR_INVALID, "'%.40s' is no factor, expected 0.001..1000", text);
    *out = (uint64_t)(value * 1000 + 0.5);
    return 0;
}

/* Adds to a list; a comma separates entries, in place. */
static int add_list(const struct option_row *row, char *text, struct options *options,
                    struct err *err)
{
    const char **list = (const char **)(void *)((char *)options + row->offset);
    size_t *count = (size_t *)(void *)((char *)options + row->count_offset);

    for (char *part; (part = strsep(&text, ","));) {
        if (*count >= row->limit)
            return err_set(err, ERR_INVALID, "more than %zu values", row->limit);
        list[(*count)++] = part;
    }
    return 0;
}

static int set_value(const struct option_row *row, char *text, struct options *options,
                     struct err *err)
{
    char *field = (char *)options + row->offset;
    uint64_t *number = (uint64_t *)(void *)field;

    switch (row->type) {
    case OPTION_TEXT:
        *(const char **)(void *)field = text;
        return 0;
    case OPTION_LIST:
        return add_list(row, text, options, err);
    case OPTION_FLAG:
        *(bool *)(void *)field = true;
        return 0;
    case OPTION_DURATION:
        return parse_duration_ms(text, number, err);
    case OPTION_COUNT:
        return parse_u64(text, number, err);
    case OPTION_SIZE:
        return parse_size_bytes(text, number, err);
    case OPTION_PERMILLE:
        return set_permille(text, number, err);
    case OPTION_LEVEL:
        return set_level(text, number, err);
    }
    CHECK(!"every option type is set");
    return -1;
}

static const struct option_row *row_find(const char *name, size_t length)
{
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++)
        if (strlen(rows[i].name) == length && memcmp(rows[i].name, name, length) == 0)
            return &rows[i];
    return NULL;
}

/* Reads argv[*at], and the next one where the value is apart. */
static int parse_one(int argc, char **argv, int *at, struct options *options, struct err *err)
{
    char *argument = argv[*at], *equals = strchr(argument, '=');
    size_t length = equals ? (size_t)(equals - argument) : strlen(argument);
    const struct option_row *row = row_find(argument, length);
    char *value = equals ? equals + 1 : NULL;

    if (!row)
        return err_set(err, ERR_INVALID, "unknown option '%.80s', see --help", argument);
    if (row->type == OPTION_FLAG && value)
        return err_set(err, ERR_INVALID, "option '%s' takes no value", row->name);
    if (row->type != OPTION_FLAG && !value) {
        if (*at + 1 >= argc)
            return err_set(err, ERR_INVALID, "option '%s' needs a value: %s", row->name,
                           row->value);
        value = argv[++*at];
    }
    if (set_value(row, value, options, err) < 0)
        return err_wrap(err, "option '%s'", row->name);
    return 0;
}

/* The environment fills what the command line left open. */
static int read_environment(struct options *options, struct err *err)
{
    struct options empty = {0};

    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        const struct option_row *row = &rows[i];
        char *value = row->environment ? getenv(row->environment) : NULL;
        size_t probe = row->type == OPTION_LIST ? row->count_offset : row->offset;
        size_t size = row->type == OPTION_FLAG ? sizeof(bool) : sizeof(char *);
        if (!value || !*value || memcmp((char *)options + probe, (char *)&empty + probe, size) != 0)
            continue;
        if (set_value(row, value, options, err) < 0)
            return err_wrap(err, "variable '%s'", row->environment);
    }
    return 0;
}

/* What systemd's LoadCredential= has put there fills what is open still. */
static int read_credentials(struct options *options, struct err *err)
{
    static char paths[ARRAY_COUNT(rows)][512]; /* options borrow their texts */
    const char *folder = getenv("CREDENTIALS_DIRECTORY");

    for (size_t i = 0; folder && *folder && i < ARRAY_COUNT(rows); i++) {
        const char **field = (const char **)(void *)((char *)options + rows[i].offset);
        if (!rows[i].credential || *field)
            continue;
        int length = snprintf(paths[i], sizeof paths[i], "%s/%s", folder, rows[i].credential);
        if (length < 0 || (size_t)length >= sizeof paths[i])
            return err_set(err, ERR_LIMIT, "CREDENTIALS_DIRECTORY is too long");
        if (file_exists(paths[i]))
            *field = paths[i];
    }
    return 0;
}

/* Options of a simulation say nothing to a coordinator that serves. */
static int check_serving(const struct options *options, struct err *err)
{
    if (options->machine || options->starts || options->nodes || options->cores ||
        options->memory_bytes || options->gpus || options->load_permille || options->json)
        return err_set(err, ERR_INVALID,
                       "--machine, --nodes, --cores, --memory, --gpus, --load, --starts and --json "
                       "need --simulate TRACE");
    return 0;
}

static int check(const struct options *options, struct err *err)
{
    if (options->simulate)
        return 0;
    if (check_serving(options, err) < 0)
        return -1;
    if (!options->db)
        return err_set(err, ERR_INVALID,
                       "no database: give --db or set ATHANOR_DB (athanor up does both)");
    if (!options->key && !options->migrate_only)
        return err_set(err, ERR_INVALID, "no key: give --key FILE");
    if (options->leader_ms < 500)
        return err_set(err, ERR_INVALID,
                       "option '--leader-lease' is %llu ms, expected at least 500ms",
                       (unsigned long long)options->leader_ms);
    if (options->heartbeat_ms < 50)
        return err_set(err, ERR_INVALID, "option '--heartbeat' is %llu ms, expected at least 50ms",
                       (unsigned long long)options->heartbeat_ms);
    if (options->queue < 16 || options->queue > 1000000)
        return err_set(err, ERR_INVALID, "option '--queue' is %llu, expected 16..1000000",
                       (unsigned long long)options->queue);
    return 0;
}

int options_parse(int argc, char **argv, struct options *out, struct err *err)
{
    struct options options = {0};

    for (int i = 1; i < argc; i++)
        if (parse_one(argc, argv, &i, &options, err) < 0)
            return -1;
    if (read_environment(&options, err) < 0 || read_credentials(&options, err) < 0)
        return -1;
    if (options.listen_count == 0)
        options.listen[options.listen_count++] = "tcp://127.0.0.1:7117";
    options.leader_ms = options.leader_ms ? options.leader_ms : 2000;
    options.heartbeat_ms = options.heartbeat_ms ? options.heartbeat_ms : 2000;
    options.queue = options.queue ? options.queue : 20000;
    options.log_level = options.log_level ? options.log_level : LOG_LEVEL_INFO;
    if (!options.help && !options.man && !options.version && !options.alive &&
        check(&options, err) < 0)
        return -1;
    *out = options;
    return 0;
}

static const char about[] =
    "Stores experiments in PostgreSQL and dispatches their jobs to workers. Runs in\n"
    "the foreground, logs to standard error and ends on SIGTERM.\n";
static const char exits[] =
    "0 ended as asked; 1 could not start; 2 wrong options; 3 another\n"
    "coordinator leads now; 4 PostgreSQL refused rows. After 3 and 4 start it again:\n"
    "its state is in PostgreSQL.\n";
#define SYNOPSIS "athanor-coordinator --db CONNINFO --key FILE [options]"
#define SYNOPSIS_SIMULATE "athanor-coordinator --simulate TRACE [--policy NAME,...] [options]"

char *options_help(void)
{
    struct buf out = {0};

    buf_printf(&out, "usage: " SYNOPSIS "\n       " SYNOPSIS_SIMULATE "\n\n%s\noptions:\n", about);
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        const struct option_row *row = &rows[i];
        buf_printf(&out, "  %s%s%s%s%s%s\n      %s\n", row->name, row->value ? " " : "",
                   row->value ? row->value : "", row->environment ? "  [" : "",
                   row->environment ? row->environment : "", row->environment ? "]" : "",
                   row->help);
    }
    buf_printf(&out, "\nexit codes: %s", exits);
    return buf_take(&out);
}

char *options_man(const char *version)
{
    struct buf out = {0}, help = {0};

    roff_title(&out, "athanor-coordinator", 8, version,
               "stores experiments, dispatches their jobs");
    roff_section(&out, "SYNOPSIS");
    roff_text(&out, SYNOPSIS);
    roff_text(&out, SYNOPSIS_SIMULATE);
    roff_section(&out, "DESCRIPTION");
    roff_text(&out, about);
    roff_section(&out, "OPTIONS");
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        buf_clear(&help);
        buf_puts(&help, rows[i].help);
        if (rows[i].environment)
            buf_printf(&help, " (variable %s)", rows[i].environment);
        roff_item(&out, rows[i].name, rows[i].value, help.bytes);
    }
    roff_section(&out, "EXIT STATUS");
    roff_text(&out, exits);
    roff_section(&out, "SEE ALSO");
    roff_text(&out, "athanor(1), athanor-worker(8)");
    buf_done(&help);
    return buf_take(&out);
}
