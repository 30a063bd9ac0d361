/* postgres.c - a private PostgreSQL; see postgres.h.
 *
 * Whoever can enter HOME/db (mode 0700, also the socket's directory) is trusted: that is the user
 * of `up`, and root. There is no TCP port. */
#include "client/postgres.h"

#include "client/daemons.h"
#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/file.h"

#include <errno.h>
#include <glob.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define READY_MS        60000u
#define STOP_MS         60000u
#define RETRY_MS        300
#define DATABASE        "athanor"
#define SOCKET_PATH_MAX 107u /* sun_path */

static void pause_ms(long ms)
{
    const struct timespec pause = {ms / 1000, ms % 1000 * 1000000L};
    nanosleep(&pause, NULL);
}

/* ---- programs ----------------------------------------------------------------------------- */

static const char *on_path(struct arena *arena, const char *name)
{
    const char *path = getenv("PATH");
    for (const char *at = path; at && *at;) {
        size_t length = strcspn(at, ":");
        const char *file = arena_printf(arena, "%.*s/%s", (int)length, at, name);
        if (length && access(file, X_OK) == 0)
            return file;
        at += length + (at[length] == ':');
    }
    return NULL;
}

static const char *newest_version(struct arena *arena, const char *name)
{
    glob_t found;
    const char *best = NULL;
    long best_version = -1;
    if (glob(arena_printf(arena, "/usr/lib/postgresql/*/bin/%s", name), 0, NULL, &found) == 0)
        for (size_t i = 0; i < found.gl_pathc; i++) {
            long version = strtol(found.gl_pathv[i] + strlen("/usr/lib/postgresql/"), NULL, 10);
            if (version > best_version && access(found.gl_pathv[i], X_OK) == 0) {
                best_version = version;
                best = arena_strdup(arena, found.gl_pathv[i]);
            }
        }
    globfree(&found);
    return best;
}

int postgres_program(struct arena *arena, const char *name, const char **out, struct err *err)
{
    bool client = strcmp(name, "psql") == 0;
    const char *path = on_path(arena, name);
    if (!path)
        path = newest_version(arena, name);
    if (!path)
        return err_set(err, ERR_NOT_FOUND,
                       "'%s' is neither on PATH nor below /usr/lib/postgresql: install the package "
                       "postgresql%s%s",
                       name, client ? "-client" : "",
                       client ? "" : ", or set ATHANOR_DB to a server that runs already");
    *out = path;
    return 0;
}

/* ---- whose it is -------------------------------------------------------------------------- */

/* PostgreSQL refuses to run as root. */
static int account_find(struct daemon_account *out, struct err *err)
{
    *out = (struct daemon_account){0};
    if (geteuid() != 0)
        return 0;
    const struct passwd *entry = getpwnam("postgres");
    if (!entry)
        return err_set(
            err, ERR_NOT_FOUND,
            "there is no account 'postgres', and PostgreSQL does not run as root: install "
            "the package postgresql, or run as an ordinary user");
    *out = (struct daemon_account){entry->pw_uid, entry->pw_gid, "postgres"};
    return 0;
}

/* As root: every directory down to the home must let that account through. */
static int check_reachable(struct arena *arena, const char *home,
                           const struct daemon_account *account, struct err *err)
{
    char *path = arena_strdup(arena, home);
    size_t length = strlen(path);
    struct stat status;
    for (size_t i = 1; account->name && i <= length; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        char kept = path[i];
        path[i] = '\0';
        if (stat(path, &status) < 0)
            return err_errno(err, "looking at '%s'", path);
        bool open =
            status.st_mode & S_IXOTH || (status.st_uid == account->uid && status.st_mode & S_IXUSR);
        if (!open)
            return err_set(err, ERR_DENIED,
                           "directory '%s' cannot be entered by the account '%s', which runs the "
                           "database: choose another ATHANOR_HOME, or chmod o+x '%s'",
                           path, account->name, path);
        path[i] = kept;
    }
    return 0;
}

/* ---- making and starting ------------------------------------------------------------------ */

/* The first argument becomes the program's path: by it PostgreSQL's programs find each other and
 * their files when their directory is not on PATH, as on Debian. */
static int program_find(struct arena *arena, const char **arguments, struct daemon_spec *spec,
                        struct err *err)
{
    if (postgres_program(arena, arguments[0], &spec->program, err) < 0)
        return -1;
    arguments[0] = spec->program;
    spec->arguments = arguments;
    return 0;
}

static int run_program(struct arena *arena, const char *home, const struct daemon_account *account,
                       const char **arguments, struct err *err)
{
    struct daemon_spec spec = {.home = home, .name = "postgres-setup", .account = *account};
    return program_find(arena, arguments, &spec, err) < 0 ? -1 : daemon_run(arena, &spec, err);
}

/* initdb into a directory beside, renamed when it is complete. */
static int cluster_make(struct arena *arena, const char *home, const struct daemon_account *account,
                        struct err *err)
{
    const char *final = arena_printf(arena, "%s/db", home);
    const char *made = arena_printf(arena, "%s/db.new", home);
    const char *arguments[] = {"initdb",
                               "-D",
                               made,
                               "-U",
                               DATABASE,
                               "--auth-local=trust",
                               "--auth-host=reject",
                               "--encoding=UTF8",
                               "--locale=C.UTF-8",
                               NULL};
    if (file_exists(arena_printf(arena, "%s/PG_VERSION", final)))
        return 0;
    if (file_remove_tree(made, err) < 0)
        return -1;
    if (mkdir(made, 0700) < 0 || (account->name && chown(made, account->uid, account->gid) < 0))
        return err_errno(err, "making '%s'", made);
    if (run_program(arena, home, account, arguments, err) < 0)
        return err_wrap(err, "making the database");
    if (rename(made, final) < 0)
        return err_errno(err, "renaming '%s'", made);
    return 0;
}

static int server_start(struct arena *arena, const char *home, const struct daemon_account *account,
                        pid_t *out_pid, struct err *err)
{
    const char *data = arena_printf(arena, "%s/db", home);
    const char *arguments[] = {"postgres",
                               "-D",
                               data,
                               "-c",
                               arena_printf(arena, "unix_socket_directories=\"%s\"", data),
                               "-c",
                               "listen_addresses=",
                               "-c",
                               "max_connections=60",
                               "-c",
                               "shared_buffers=64MB",
                               "-c",
                               "max_wal_size=512MB",
                               "-c",
                               "logging_collector=off",
                               "-c",
                               "log_min_messages=warning",
                               "-c",
                               "cluster_name=athanor",
                               NULL};
    struct daemon_spec spec = {.home = home, .name = "postgres", .account = *account};
    if (program_find(arena, arguments, &spec, err) < 0)
        return -1;
    return daemon_start(arena, &spec, out_pid, err);
}

static int is_ready(struct arena *arena, const char *home, const struct daemon_account *account)
{
    struct err err;
    const char *arguments[] = {"pg_isready", "-q",       "-h", arena_printf(arena, "%s/db", home),
                               "-d",         "postgres", "-U", DATABASE,
                               NULL};
    return run_program(arena, home, account, arguments, &err);
}

/* Until it answers. A server that was killed may leave backends that hold its shared memory for
 * another moment: then it ends at once, and is started again. */
static int server_await(struct arena *arena, const char *home, const struct daemon_account *account,
                        pid_t *pid, struct err *err)
{
    uint64_t until_ms = clock_steady_ms() + READY_MS;
    while (is_ready(arena, home, account) < 0) {
        bool late = clock_steady_ms() >= until_ms;
        if (late)
            return err_set(err, ERR_TIMEOUT, "PostgreSQL is not ready after %u s:\n%s",
                           READY_MS / 1000, daemon_log_tail(arena, home, "postgres"));
        pause_ms(RETRY_MS / 3);
        if (daemon_find(arena, home, "postgres"))
            continue;
        pause_ms(RETRY_MS);
        if (server_start(arena, home, account, pid, err) < 0 &&
            clock_steady_ms() + READY_MS / 2 >= until_ms)
            return -1;
    }
    return 0;
}

static int database_make(struct arena *arena, const char *home,
                         const struct daemon_account *account, struct err *err)
{
    const char *data = arena_printf(arena, "%s/db", home);
    const char *exists[] = {"psql",   "-X", "-q",     "-h", data,       "-U",
                            DATABASE, "-d", DATABASE, "-c", "SELECT 1", NULL};
    const char *make[] = {"createdb", "-h", data, "-U", DATABASE, DATABASE, NULL};
    if (run_program(arena, home, account, exists, err) == 0)
        return 0;
    return run_program(arena, home, account, make, err);
}

static int conninfo_write(struct arena *arena, const char *home, struct err *err)
{
    struct buf text = {0};
    const char *data = arena_printf(arena, "%s/db", home);
    if (strlen(data) + strlen("/.s.PGSQL.5432") > SOCKET_PATH_MAX)
        return err_set(err, ERR_INVALID,
                       "'%s' is too long for a socket's path: choose a shorter ATHANOR_HOME", data);
    buf_puts(&text, "host='");
    for (const char *at = data; *at; at++) {
        if (*at == '\'' || *at == '\\')
            buf_putc(&text, '\\');
        buf_putc(&text, *at);
    }
    buf_puts(&text, "' user=" DATABASE " dbname=" DATABASE "\n");
    int rc =
        file_replace(arena_printf(arena, "%s/conninfo", home), text.bytes, text.length, 0600, err);
    buf_done(&text);
    return rc;
}

int postgres_up(struct arena *arena, const char *home, bool *out_started, pid_t *out_pid,
                struct err *err)
{
    struct daemon_account account;
    pid_t before = daemon_find(arena, home, "postgres"), pid = before;
    if (account_find(&account, err) < 0 || check_reachable(arena, home, &account, err) < 0 ||
        conninfo_write(arena, home, err) < 0)
        return -1;
    if (before == 0 && (cluster_make(arena, home, &account, err) < 0 ||
                        server_start(arena, home, &account, &pid, err) < 0))
        return -1;
    if (server_await(arena, home, &account, &pid, err) < 0 ||
        database_make(arena, home, &account, err) < 0)
        return -1;
    *out_pid = daemon_find(arena, home, "postgres");
    *out_started = *out_pid != before;
    return 0;
}

bool postgres_down(struct arena *arena, const char *home)
{
    return daemon_stop(arena, home, "postgres", SIGINT, STOP_MS);
}
