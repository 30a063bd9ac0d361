/* gc.c - athanor gc */
#include "client/client.h"
#include "client/verbs.h"

#include <inttypes.h>

static const struct option options[] = {
    {"dry-run", 0, VALUE_NONE, NULL, "list what would be removed, and remove nothing", false},
    {"older-than", 0, VALUE_DURATION, "DURATION",
     "only what was last used longer ago (default: the setting code_keep_ms, 30 days)", false},
    OPTION_JSON,
};

static const struct heading headings[] = {{"kind", NULL},       {"hash", NULL},
                                          {"size_bytes", "SIZE"}, {"account", NULL},
                                          {"used_at", "LAST USED"}, {"jobs", NULL}};

static int list(struct client *client, const struct args *args)
{
    struct pairs pairs = {0};
    if (args_has(args, "older-than"))
        pairs_add(&pairs, "keep_ms",
                  arena_printf(&client->arena, "%" PRIu64, args_duration_ms(args, "older-than", 0)));
    int code = client_list(client, "garbage", &pairs, UINT32_MAX, headings, ARRAY_COUNT(headings),
                           "nothing to remove");
    pairs_done(&pairs);
    return code;
}

static int run(struct client *client, const struct args *args)
{
    struct message request = {.tag = MSG_COLLECT}, reply;
    struct buf out = {0};
    if (args_has(args, "dry-run"))
        return list(client, args);
    request.u.collect = (struct msg_collect){
        .at_once = args_has(args, "older-than"),
        .keep_ms = args_duration_ms(args, "older-than", 0)};
    int code = client_ask(client, &request, MSG_DONE, &reply);
    if (code != EXIT_DONE)
        return code;
    if (args_has(args, "json"))
        buf_printf(&out, "{\"removed\": %" PRIu64 "}\n", reply.u.done.count);
    else
        buf_printf(&out, "%" PRIu64 " archive%s of code removed\n", reply.u.done.count,
                   reply.u.done.count == 1 ? "" : "s");
    code = client_print(client, &out);
    buf_done(&out);
    return code;
}

const struct verb verb_gc = {
    .name = "gc",
    .words = "",
    .summary = "remove stored code that nothing needs",
    .text = "Removes archives of code that no waiting or running job refers to and that were last "
            "used longer ago than the setting code_keep_ms says (`athanor quota weights "
            "code_keep_ms=N`; 30 days by default, 0 keeps them for ever). The coordinator does the "
            "same by itself every hour. A job whose code is gone keeps its results, but can be "
            "neither retried nor have its code back.",
    VERB_OPTIONS(options),
    .run = run,
};
