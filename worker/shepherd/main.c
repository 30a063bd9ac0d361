/* main.c - athanor-shepherd: runs one attempt on one node from its folder, and outlives whoever
 * started it. See README.md. */
#include "common/base/log.h"
#include "worker/attempt/folder.h"
#include "worker/attempt/shm.h"
#include "worker/shepherd/dump.h"
#include "worker/shepherd/nursery.h"
#include "worker/shepherd/run.h"

#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

static const char usage[] =
    "usage: athanor-shepherd [--lock-fd N] [--listen-fd N] [--secrets-fd N] [--user NAME]\n"
    "                        [--private-shm] FOLDER\n"
    "       athanor-shepherd --nursery N [FOLDER]\n"
    "       athanor-shepherd --dump FOLDER\n"
    "\n"
    "Runs the attempt that FOLDER/start.json describes and writes its report stream to\n"
    "FOLDER/spool-*. Started by athanor-worker; by hand it is good for trying a plan.\n"
    "  --lock-fd N   descriptor that already holds the lock of FOLDER\n"
    "  --listen-fd N socket at which shepherds of other nodes connect\n"
    "  --secrets-fd N the first of the descriptors that hold the plan's secrets\n"
    "  --user NAME   account to become first; needs root\n"
    "  --private-shm a /dev/shm of the attempt's own; needs root\n"
    "  --nursery N   fork a shepherd for each request at the socket N, until it is closed;\n"
    "                FOLDER: where the attempts' folders are, for who looks at processes\n"
    "  --dump        print the report stream of FOLDER as JSON lines instead\n"
    "  --help        this text\n"
    "Exit code: 0 when FINISHED was written, whatever the attempt's cause; 1 otherwise.\n";

/* The lock must not be inherited by ranks: they would keep it after our death. */
static int lock_take(const char *folder, const char *given, struct err *err)
{
    int fd;
    if (!given)
        return folder_lock(folder, &fd, err); /* held until the process ends */
    fd = atoi(given);
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        return err_errno(err, "--lock-fd %s", given);
    return 0;
}

/* Becomes the job's account for good: nothing of a job is handled with other rights. */
static int user_become(const char *name, struct err *err)
{
    const struct passwd *account = getpwnam(name);
    if (!account)
        return err_set(err, ERR_NOT_FOUND, "--user %s: no such account", name);
    if (initgroups(name, account->pw_gid) < 0 ||
        setresgid(account->pw_gid, account->pw_gid, account->pw_gid) < 0 ||
        setresuid(account->pw_uid, account->pw_uid, account->pw_uid) < 0)
        return err_errno(err, "--user %s", name);
    /* What follows from here on cannot gain rights, also not by setuid programs. */
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return err_errno(err, "--user %s: give up new privileges", name);
    prctl(PR_SET_DUMPABLE, 1); /* the change took our own /proc entries from us */
    umask(022);                /* the daemon's own says nothing about this account */
    setenv("HOME", account->pw_dir, 1);
    setenv("USER", name, 1);
    setenv("LOGNAME", name, 1);
    setenv("SHELL", account->pw_shell[0] ? account->pw_shell : "/bin/sh", 1);
    return 0;
}

struct options {
    const char *folder, *lock_fd, *listen_fd, *secrets_fd, *user, *nursery;
    bool private_shm, dump, help, wrong;
};

static void options_read(int count, char **arguments, struct options *out)
{
    struct {
        const char *name, **value;
    } valued[] = {{"--lock-fd", &out->lock_fd},
                  {"--listen-fd", &out->listen_fd},
                  {"--secrets-fd", &out->secrets_fd},
                  {"--user", &out->user},
                  {"--nursery", &out->nursery}};
    for (int i = 1; i < count; i++) {
        bool taken = false;
        for (size_t k = 0; k < ARRAY_COUNT(valued) && i + 1 < count; k++)
            if (!taken && strcmp(arguments[i], valued[k].name) == 0) {
                *valued[k].value = arguments[++i];
                taken = true;
            }
        if (taken)
            continue;
        if (strcmp(arguments[i], "--help") == 0)
            out->help = true;
        else if (strcmp(arguments[i], "--private-shm") == 0)
            out->private_shm = true;
        else if (strcmp(arguments[i], "--dump") == 0)
            out->dump = true;
        else if (!out->folder && arguments[i][0] != '-')
            out->folder = arguments[i];
        else
            out->wrong = true;
    }
}

static int attempt_do(const struct options *options, struct err *err)
{
    setsid(); /* fails when we lead a session already, which is as good */
    if (options->private_shm && shm_make_private(err) < 0)
        return -1;
    if (options->user && user_become(options->user, err) < 0)
        return -1;
    if (lock_take(options->folder, options->lock_fd, err) < 0)
        return -1;
    const struct run_fds fds = {
        .listen = options->listen_fd ? atoi(options->listen_fd) : -1,
        .secrets = options->secrets_fd ? atoi(options->secrets_fd) : -1,
    };
    if (fds.listen >= 0 && fcntl(fds.listen, F_SETFD, FD_CLOEXEC) < 0)
        return err_errno(err, "--listen-fd %s", options->listen_fd);
    return run_attempt(options->folder, &fds, err);
}

static int attempt_end(int rc, const struct err *err)
{
    if (rc < 0)
        log_error("%s", err->text);
    return rc < 0 ? 1 : 0;
}

/* The life of a shepherd that the nursery has forked. */
static int attempt_live(const char *folder, const char *user, int lock_fd, bool private_shm)
{
    struct err err = {0};
    char lock_text[16];
    snprintf(lock_text, sizeof lock_text, "%d", lock_fd);
    struct options options = {
        .folder = folder, .lock_fd = lock_text, .user = user[0] ? user : NULL,
        .private_shm = private_shm};
    return attempt_end(attempt_do(&options, &err), &err);
}

int main(int count, char **arguments)
{
    struct options options = {0};
    struct err err = {0};
    options_read(count, arguments, &options);
    if (options.help) {
        fputs(usage, stdout);
        return 0;
    }
    if ((!options.folder && !options.nursery) || options.wrong) {
        fputs(usage, stderr);
        return 2;
    }
    log_init("athanor-shepherd", LOG_LEVEL_INFO);
    if (options.nursery)
        return attempt_end(nursery_serve(atoi(options.nursery), attempt_live, &err), &err);
    return attempt_end(
        options.dump ? dump_spool(options.folder, stdout, &err) : attempt_do(&options, &err), &err);
}
