/* version.c - athanor version */
#include "client/client.h"
#include "client/verbs.h"

static int run(struct client *client, const struct args *args)
{
    struct buf out = {0};
    (void)args;
    buf_printf(&out, "athanor %s, protocol %d\n", ATHANOR_VERSION, WIRE_PROTOCOL);
    int code = client_print(client, &out);
    buf_done(&out);
    return code;
}

const struct verb verb_version = {
    .name = "version",
    .words = "",
    .summary = "print the version",
    .text = "Prints the version of this program and of the protocol it speaks.",
    .run = run,
};
