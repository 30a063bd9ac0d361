/* control.c - CONTROL messages; see control.h. */
#include "client/control.h"

#include "client/configure.h"
#include "common/base/clock.h"

#include <string.h>

static int send_control(struct client *client, const struct args *args, const char *action,
                        const struct pairs *targets)
{
    struct message request = {.tag = MSG_CONTROL}, reply;
    request.u.control = (struct msg_control){.action = action,
                                             .targets = targets->items,
                                             .targets_count = targets->count,
                                             .reason = args_text(args, "reason")};
    const char *by = args_text(args, "by");
    struct err err;
    if (by && time_parse(by[0] >= '0' && by[0] <= '9' && !strpbrk(by, ":-")
                             ? arena_printf(&client->arena, "+%s", by)
                             : by,
                         clock_wall_us(), &request.u.control.deadline_us, &err) < 0)
        return client_failf(client, EXIT_USAGE, "option --by: %s", err.text);
    int code = client_ask(client, &request, MSG_DONE, &reply);
    if (code != EXIT_DONE)
        return code;
    struct buf out = {0};
    if (*reply.u.done.text) {
        text_add_clean(&out, reply.u.done.text, 0);
        buf_putc(&out, '\n');
    }
    code = client_print(client, &out);
    buf_done(&out);
    return code;
}

int control_jobs(struct client *client, const struct args *args, const char *action)
{
    struct pairs targets = {0};
    int code = EXIT_DONE;
    for (size_t i = 0; i < args->word_count && code == EXIT_DONE; i++) {
        const char *id = NULL;
        code = client_job_id(client, args->words[i], &id);
        pairs_add(&targets, "job", id);
    }
    for (size_t i = 0; i < args->given_count; i++)
        if (strcmp(args->given[i].option->name, "experiment") == 0)
            pairs_add(&targets, "experiment", args->given[i].value);
    if (code == EXIT_DONE && targets.count == 0)
        code = client_failf(client, EXIT_USAGE, "name jobs, or --experiment NAME");
    if (code == EXIT_DONE)
        code = send_control(client, args, action, &targets);
    pairs_done(&targets);
    return code;
}

int control_workers(struct client *client, const struct args *args, const char *action)
{
    struct pairs targets = {0};
    for (size_t i = 0; i < args->word_count; i++)
        pairs_add(&targets, "worker", args->words[i]);
    int code = send_control(client, args, action, &targets);
    pairs_done(&targets);
    return code;
}
