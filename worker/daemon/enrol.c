/* enrol.c - athanor-worker --enrol. */
#include "worker/daemon/daemon.h"

#include "common/net/enrol.h"

#include <limits.h>
#include <stdio.h>
#include <unistd.h>

#define ENROL_TIMEOUT_MS 60000u

int daemon_enrol(const struct options *options, struct err *err)
{
    struct token token;
    struct arena arena = {0};
    char host[HOST_NAME_MAX + 1] = "";
    const char *name, *role;
    gethostname(host, sizeof host - 1);
    if (token_read(options->enrol, &token, err) < 0)
        return err_wrap(err, "--enrol");
    struct enrol enrol = {.token = &token,
                          .name = options->name,
                          .otherwise = host,
                          .key = options->keys,
                          .server_key = options->server_key,
                          .endpoints = options->endpoints_file,
                          .program = "athanor-worker",
                          .version = ATHANOR_VERSION,
                          .timeout_ms = ENROL_TIMEOUT_MS};
    int rc = enrol_run(&enrol, &arena, &name, &role, err);
    if (rc == 0 && printf("enrolled as %s '%s'\n", role, name) < 0)
        rc = err_errno(err, "saying so");
    token_wipe(&token);
    arena_done(&arena);
    return rc;
}
