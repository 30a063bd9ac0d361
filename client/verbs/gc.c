/* gc.c - athanor gc */
#include "client/client.h"
#include "client/verbs.h"

#include <inttypes.h>
#include <string.h>

static const struct option options[] = {
    {"dry-run", 0, VALUE_NONE, NULL, "list what would be removed, and remove nothing", false},
    {"all", 'a', VALUE_NONE, NULL, "list the rest, too, each with what keeps it; removes nothing",
     false},
    {"kind", 0, VALUE_TEXT, "KIND", "only code, checkpoint or artifact (default with --older-than: "
     "code)", false},
    {"older-than", 0, VALUE_DURATION, "DURATION",
     "what was last used longer ago, whatever specs and settings say", false},
    OPTION_JSON,
};

static const struct heading headings[] = {{"kind", NULL},     {"id", NULL},
                                          {"job_id", "JOB"},  {"name", NULL},
                                          {"size_bytes", "SIZE"}, {"worker", NULL},
                                          {"used_at", "LAST USED"}, {"goes", NULL},
                                          {"why", "WHY IT STAYS"}};

static bool kind_is_known(const char *kind)
{
    return !kind || strcmp(kind, "code") == 0 || strcmp(kind, "checkpoint") == 0 ||
           strcmp(kind, "artifact") == 0;
}

static int list(struct client *client, const struct args *args)
{
    struct pairs pairs = {0};
    bool all = args_has(args, "all");
    if (args_has(args, "older-than"))
        pairs_add(&pairs, "keep_ms",
                  arena_printf(&client->arena, "%" PRIu64,
                               args_duration_ms(args, "older-than", 0)));
    pairs_add(&pairs, "kind", args_text(args, "kind"));
    pairs_add_flag(&pairs, "all", all);
    int code = client_list(client, "garbage", &pairs, UINT32_MAX, headings,
                           ARRAY_COUNT(headings) - (all ? 0 : 2),
                           all ? "nothing is stored" : "nothing to remove");
    pairs_done(&pairs);
    return code;
}

static int run(struct client *client, const struct args *args)
{
    struct message request = {.tag = MSG_COLLECT}, reply;
    struct buf out = {0};
    const char *kind = args_text(args, "kind");
    if (!kind_is_known(kind))
        return client_failf(client, EXIT_USAGE,
                            "--kind is '%s', expected code, checkpoint or artifact", kind);
    if (args_has(args, "dry-run") || args_has(args, "all"))
        return list(client, args);
    if (kind && !args_has(args, "older-than"))
        return client_failf(client, EXIT_USAGE, "--kind needs --older-than, or --dry-run");
    request.u.collect =
        (struct msg_collect){.at_once = args_has(args, "older-than"),
                             .keep_ms = args_duration_ms(args, "older-than", 0),
                             .kind = kind ? kind : ""};
    int code = client_ask(client, &request, MSG_DONE, &reply);
    if (code != EXIT_DONE)
        return code;
    if (args_has(args, "json"))
        buf_printf(&out, "{\"removed\": %" PRIu64 "}\n", reply.u.done.count);
    else
        buf_printf(&out, "removed: %s\n", reply.u.done.text);
    code = client_print(client, &out);
    buf_done(&out);
    return code;
}

const struct verb verb_gc = {
    .name = "gc",
    .words = "",
    .summary = "remove what nothing needs any more, or list it with what keeps the rest",
    .text =
        "Removes archives of code, checkpoints and artifacts (datasets among them) whose time is "
        "over. The coordinator does the same by itself every hour.\n\n"
        "How long something stays is counted from the end of its job or of the last one that used "
        "it: of checkpoints and artifacts what the spec says (`retention:`), else the settings "
        "checkpoint_keep_ms and artifact_keep_ms, which are 0, for ever, until somebody changes "
        "them; of code the setting code_keep_ms, 30 days (`athanor quota weights NAME=N`). Metrics "
        "and logs go by week with the coordinator's --keep-history.\n\n"
        "Nothing goes, whatever its age and also with --older-than, while its job waits or runs, "
        "or one that descends from it: through needs:, inputs that were read, or results that "
        "were taken by submit --reuse. A job of which something went is no longer reused. Files "
        "are removed by the worker that made them, when it is there; no path ever leads to half "
        "of them. Copies that other workers keep of a checkpoint or dataset go with it, when no "
        "run uses them, and stay while it stays.",
    VERB_OPTIONS(options),
    .run = run,
};
