/* main.c - athanor-worker: see README.md, and --help. */
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/net/notify.h"
#include "worker/daemon/daemon.h"

#include <stdio.h>
#include <string.h>

/* 0: nobody holds memory on it; 1: somebody does, or it cannot be known; said on stdout. */
static int gpu_check(const struct options *options)
{
    struct inventory inventory = {0};
    struct err err = {0};
    int rc = inventory_take_gpus(options->gpus, &inventory, &err);
    size_t at = 0;
    while (rc == 0 && at < inventory.gpu_count &&
           strcmp(inventory.gpus[at].uuid, options->gpu_check) != 0)
        at++;
    if (rc == 0)
        rc = at < inventory.gpu_count
                 ? inventory_gpu_is_free(&inventory.gpus[at], &err)
                 : err_set(&err, ERR_NOT_FOUND, "%s is not there any more", options->gpu_check);
    if (rc < 0)
        puts(err.text);
    inventory_done(&inventory);
    return rc < 0 ? 1 : 0;
}

/* One sample for all shepherds of the node. */
static int gpu_sample(const struct options *options)
{
    struct inventory inventory = {0};
    struct buf text = {0};
    struct err err = {0};
    int rc = inventory_take_gpus(options->gpus, &inventory, &err);
    if (rc == 0)
        rc = inventory_gpu_usage(&inventory, &text, &err);
    if (rc == 0)
        rc = file_replace(options->gpu_sample, text.bytes, text.length, 0644, &err);
    if (rc < 0)
        puts(err.text);
    buf_done(&text);
    inventory_done(&inventory);
    return rc < 0 ? 1 : 0;
}

int main(int count, char **arguments)
{
    struct options options;
    struct err err = {0};
    if (options_read(count, arguments, &options, &err) < 0) {
        fprintf(stderr, "athanor-worker: %s\n", err.text);
        return 2;
    }
    if (options.alive) {
        options_done(&options);
        return notify_health();
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
    if (options.gpu_check[0] || options.gpu_sample[0]) {
        int code = options.gpu_check[0] ? gpu_check(&options) : gpu_sample(&options);
        options_done(&options);
        return code;
    }
    log_init("athanor-worker", options.verbose ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO);
    int rc = options.enrol[0]               ? daemon_enrol(&options, &err)
             : init_if_first(&err) < 0 ? -1
                                       : daemon_run(&options, &err);
    if (rc < 0)
        log_error("%s", err.text);
    options_done(&options);
    return rc < 0 ? 1 : 0;
}
