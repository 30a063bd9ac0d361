/* pg.h - a private PostgreSQL server for one test program.
 *
 * Lives in a temporary folder, listens on a unix socket there and nowhere else, and is ended by
 * its pid. As root it runs as user postgres, which the server itself insists on. Where PostgreSQL
 * is not installed pg_start returns false after saying SKIP. */
#ifndef ATHANOR_TESTS_LIB_PG_H
#define ATHANOR_TESTS_LIB_PG_H

#include "common/base/file.h"

#include <libpq-fe.h>

#include <fcntl.h>
#include <glob.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PG_WAIT_TRIES 3000 /* of 10 ms */

struct pg_server {
    char folder[200];
    char bin[200];
    pid_t pid;
    unsigned databases;
    char conninfo[512]; /* of the newest database */
    bool durable;       /* set before pg_start: fsync as in earnest, for benchmarks */
};

static void pg_pause(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
}

static void pg_become_postgres(void)
{
    struct passwd *postgres = getuid() == 0 ? getpwnam("postgres") : NULL;

    if (postgres &&
        (setgroups(0, NULL) < 0 || setgid(postgres->pw_gid) < 0 || setuid(postgres->pw_uid) < 0))
        _exit(126);
}

static pid_t pg_spawn(const struct pg_server *server, char *const argv[])
{
    pid_t pid = fork();

    if (pid != 0)
        return pid;
    char log[300], program[300];
    snprintf(log, sizeof log, "%s/log", server->folder);
    snprintf(program, sizeof program, "%s/%s", server->bin, argv[0]);
    prctl(PR_SET_PDEATHSIG, SIGQUIT);
    pg_become_postgres();
    prctl(PR_SET_PDEATHSIG, SIGQUIT); /* setuid forgets it */
    int fd = open(log, O_CREAT | O_WRONLY | O_APPEND, 0644);
    if (fd < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0)
        _exit(126);
    execv(program, argv);
    _exit(127);
}

static bool pg_find(struct pg_server *server)
{
    glob_t found;
    bool ok = glob("/usr/lib/postgresql/*/bin/postgres", 0, NULL, &found) == 0;

    if (ok) {
        const char *path = found.gl_pathv[found.gl_pathc - 1];
        snprintf(server->bin, sizeof server->bin, "%.*s", (int)(strrchr(path, '/') - path), path);
    }
    globfree(&found);
    return ok;
}

static bool pg_answers(const struct pg_server *server)
{
    char conninfo[300];

    snprintf(conninfo, sizeof conninfo, "host=%s user=postgres dbname=postgres", server->folder);
    return PQping(conninfo) == PQPING_OK;
}

/* Starts the server process and waits until it answers. */
static bool pg_launch(struct pg_server *server)
{
    char data[300], sockets[300];

    snprintf(data, sizeof data, "%s/data", server->folder);
    snprintf(sockets, sizeof sockets, "unix_socket_directories=%s", server->folder);
    char *argv[] = {"postgres",
                    "-D",
                    data,
                    "-c",
                    "listen_addresses=",
                    "-c",
                    sockets,
                    "-c",
                    "max_connections=40",
                    "-c",
                    "shared_buffers=64MB",
                    "-c",
                    server->durable ? "fsync=on" : "fsync=off",
                    NULL};
    server->pid = pg_spawn(server, argv);
    for (int i = 0; i < PG_WAIT_TRIES; i++) {
        if (pg_answers(server))
            return true;
        if (waitpid(server->pid, NULL, WNOHANG) == server->pid)
            return false;
        pg_pause();
    }
    return false;
}

static bool pg_start(struct pg_server *server)
{
    const char *base = getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
    char data[300];
    int status = -1;

    if (!pg_find(server)) {
        printf("SKIP: PostgreSQL's server programs are not installed\n");
        return false;
    }
    snprintf(server->folder, sizeof server->folder, "%s/athanor-pg-XXXXXX", base);
    if (!mkdtemp(server->folder) || chmod(server->folder, 0777) < 0)
        return false;
    snprintf(data, sizeof data, "%s/data", server->folder);
    char *argv[] = {"initdb",   "-D",        data, "-A",   "trust",      "-U",
                    "postgres", "--no-sync", "-E", "UTF8", "--locale=C", NULL};
    pid_t pid = pg_spawn(server, argv);
    if (waitpid(pid, &status, 0) != pid || status != 0 || !pg_launch(server)) {
        printf("PostgreSQL did not start, see %s/log\n", server->folder);
        return false;
    }
    return true;
}

static void pg_kill(struct pg_server *server, int signal_number)
{
    if (server->pid > 0) {
        kill(server->pid, signal_number);
        waitpid(server->pid, NULL, 0);
        server->pid = 0;
    }
}

static void pg_stop(struct pg_server *server)
{
    struct err err;

    pg_kill(server, SIGQUIT);
    if (*server->folder && file_remove_tree(server->folder, &err) < 0)
        printf("%s\n", err.text);
}

static PGconn *pg_open(const char *conninfo)
{
    PGconn *pg = PQconnectdb(conninfo);

    if (PQstatus(pg) != CONNECTION_OK) {
        printf("%s", PQerrorMessage(pg));
        abort();
    }
    return pg;
}

/* Runs one statement and returns its first value in a static buffer, "" for none. */
FORMAT(2, 3) static const char *pg_ask(const char *conninfo, const char *format, ...)
{
    static char answer[2000];
    char sql[4000];
    va_list args;

    va_start(args, format);
    vsnprintf(sql, sizeof sql, format, args);
    va_end(args);
    PGconn *pg = pg_open(conninfo);
    PGresult *result = PQexec(pg, sql);
    ExecStatusType status = PQresultStatus(result);
    if (status == PGRES_TUPLES_OK)
        snprintf(answer, sizeof answer, "%s", PQntuples(result) ? PQgetvalue(result, 0, 0) : "");
    else
        snprintf(answer, sizeof answer, "%s",
                 status == PGRES_COMMAND_OK ? "" : PQresultErrorMessage(result));
    PQclear(result);
    PQfinish(pg);
    return answer;
}

/* Makes an empty database; server->conninfo names it. */
static const char *pg_database(struct pg_server *server)
{
    char admin[300];

    snprintf(admin, sizeof admin, "host=%s user=postgres dbname=postgres", server->folder);
    pg_ask(admin, "CREATE DATABASE t%u", ++server->databases);
    snprintf(server->conninfo, sizeof server->conninfo, "host=%s user=postgres dbname=t%u",
             server->folder, server->databases);
    return server->conninfo;
}

#endif
