/* main.c - athanor-shepherd: runs one attempt on one node from its folder, and outlives whoever
 * started it. See README.md. */
#include "common/base/log.h"
#include "worker/attempt/folder.h"
#include "worker/shepherd/dump.h"
#include "worker/shepherd/run.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
    "usage: athanor-shepherd [--lock-fd N] FOLDER\n"
    "       athanor-shepherd --dump FOLDER\n"
    "\n"
    "Runs the attempt that FOLDER/start.json describes and writes its report stream to\n"
    "FOLDER/spool-*. Started by athanor-worker; by hand it is good for trying a plan.\n"
    "  --lock-fd N   descriptor that already holds the lock of FOLDER\n"
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

int main(int count, char **arguments)
{
    const char *folder = NULL, *lock = NULL;
    bool dump = false;
    for (int i = 1; i < count; i++) {
        if (strcmp(arguments[i], "--help") == 0) {
            fputs(usage, stdout);
            return 0;
        }
        if (strcmp(arguments[i], "--lock-fd") == 0 && i + 1 < count)
            lock = arguments[++i];
        else if (strcmp(arguments[i], "--dump") == 0)
            dump = true;
        else if (!folder && arguments[i][0] != '-')
            folder = arguments[i];
        else
            folder = "";
    }
    if (!folder || !folder[0]) {
        fputs(usage, stderr);
        return 2;
    }
    struct err err = {0};
    log_init("athanor-shepherd", LOG_LEVEL_INFO);
    if (dump && dump_spool(folder, stdout, &err) == 0)
        return 0;
    if (dump) {
        log_error("%s", err.text);
        return 1;
    }
    setsid(); /* fails when we lead a session already, which is as good */
    if (lock_take(folder, lock, &err) < 0 || run_attempt(folder, &err) < 0) {
        log_error("%s", err.text);
        return 1;
    }
    return 0;
}
