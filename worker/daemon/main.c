/* main.c - athanor-worker: see README.md, and --help. */
#include "common/base/log.h"
#include "worker/daemon/daemon.h"

#include <stdio.h>

int main(int count, char **arguments)
{
    struct options options;
    struct err err = {0};
    if (options_read(count, arguments, &options, &err) < 0) {
        fprintf(stderr, "athanor-worker: %s\n", err.text);
        return 2;
    }
    if (options.help || options.man || options.version) {
        if (options.help)
            options_help(stdout);
        else if (options.man)
            options_man(stdout, "Athanor " ATHANOR_VERSION);
        else
            puts("athanor-worker " ATHANOR_VERSION);
        options_done(&options);
        return 0;
    }
    log_init("athanor-worker", options.verbose ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO);
    int rc = options.enrol[0] ? daemon_enrol(&options, &err) : daemon_run(&options, &err);
    if (rc < 0)
        log_error("%s", err.text);
    options_done(&options);
    return rc < 0 ? 1 : 0;
}
