/* check.c - athanor check */
#include "client/spec_file.h"
#include "client/verbs.h"

#include <jansson.h>
#include <stdlib.h>

static const struct option options[] = {SPEC_OPTIONS, OPTION_JSON};

/* The resolved jobs, as the coordinator sent them, laid out for reading. */
static void print_resolved(const char *text, struct buf *out)
{
    json_t *value = json_loads(text, JSON_DECODE_ANY, NULL);
    char *pretty = value ? json_dumps(value, JSON_INDENT(2) | JSON_ENCODE_ANY) : NULL;
    buf_printf(out, "%s\n", pretty ? pretty : text);
    free(pretty);
    json_decref(value);
}

static int run(struct client *client, const struct args *args)
{
    static const char no_key[16];
    struct message request, reply;
    struct buf out = {0};
    int code = spec_file_message(client, args, &request);
    if (code != EXIT_DONE)
        return code;
    request.u.submit.submit_key = (struct wire_bytes){no_key, sizeof no_key};
    request.u.submit.check_only = true;
    code = client_ask(client, &request, MSG_CHECKED, &reply);
    if (code != EXIT_DONE)
        return code;
    print_resolved(reply.u.checked.resolved, &out);
    code = client_print(client, &out);
    buf_done(&out);
    if (reply.u.checked.refusals_count == 0)
        return code;
    client_print_refusals(reply.u.checked.refusals, reply.u.checked.refusals_count);
    return client_failf(client, EXIT_REFUSED, "%zu thing%s in the way",
                        reply.u.checked.refusals_count,
                        reply.u.checked.refusals_count == 1 ? " is" : "s are");
}

const struct verb verb_check = {
    .name = "check",
    .words = "FILE",
    .summary = "try a spec without submitting it",
    .text =
        "Prints the spec with every default filled in, where its jobs could run now and what they "
        "may cost, and everything that stands in the way. Nothing is kept. Exits 4 when the spec "
        "would be refused or could not run.",
    .word_kind = WORD_FILE,
    .words_min = 1,
    .words_max = 1,
    VERB_OPTIONS(options),
    .run = run,
};
