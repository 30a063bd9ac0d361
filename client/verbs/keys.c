/* keys.c - athanor keys */
#include "client/client.h"
#include "client/verbs.h"
#include "common/base/file.h"
#include "common/net/keys.h"

#include <string.h>

static const struct option options[] = {
    {"out", 'o', VALUE_FILE, "FILE", "new: where the secret key goes; the public one beside it",
     false},
    {"role", 0, VALUE_TEXT, "ROLE", "enrol: user, operator, worker or admin (default user)", false},
    {"all", 'a', VALUE_NONE, NULL, "ls: also revoked keys", false},
    OPTION_COLUMN,
    OPTION_JSON,
};

static const struct heading columns[] = {
    {"name", "PRINCIPAL"},     {"role", NULL}, {"public_key", NULL}, {"enrolled_at", "ENROLLED"},
    {"revoked_at", "REVOKED"},
};

static int keys_new(struct client *client, const struct args *args)
{
    const char *path = args_text(args, "out");
    struct keypair keys;
    struct err err;
    struct buf out = {0};
    if (!path && strchr(args->words[1], '/'))
        return client_failf(client, EXIT_USAGE,
                            "'%s' is no name of a principal; for another place see --out",
                            args->words[1]);
    if (!path)
        path = arena_printf(&client->arena, "%s.key", args->words[1]);
    keypair_make(&keys);
    if (keypair_write(path, &keys, &err) < 0)
        return client_fail(client, EXIT_LOCAL, &err);
    buf_printf(&out, "secret key  %s\npublic key  %s.pub\n            %s\n", path, path,
               keys.public_key);
    keypair_wipe(&keys);
    int code = client_print(client, &out);
    buf_done(&out);
    return code;
}

static int key_change(struct client *client, struct msg_key_change change)
{
    struct message request = {.tag = MSG_KEY_CHANGE, .u.key_change = change}, reply;
    struct buf out = {0};
    int code = client_ask(client, &request, MSG_DONE, &reply);
    if (code != EXIT_DONE)
        return code;
    text_add_clean(&out, reply.u.done.text, 0);
    buf_puts(&out, out.length ? "\n" : "");
    code = client_print(client, &out);
    buf_done(&out);
    return code;
}

static int keys_enrol(struct client *client, const struct args *args)
{
    char key[KEY_TEXT_SIZE];
    struct err err;
    const char *role = args_text(args, "role");
    if (args->word_count < 3)
        return client_failf(client, EXIT_USAGE,
                            "'keys enrol' needs PRINCIPAL and KEY: a .pub file, "
                            "or the 40 characters themselves");
    if (public_key_given(args->words[2], key, &err) < 0)
        return client_fail(client, EXIT_USAGE, &err);
    return key_change(client,
                      (struct msg_key_change){"enrol", args->words[1], role ? role : "user", key});
}

static int keys_ls(struct client *client, const struct args *args)
{
    struct pairs pairs = {0};
    pairs_add(&pairs, "name", args->word_count > 1 ? args->words[1] : NULL);
    pairs_add_flag(&pairs, "all", args_has(args, "all"));
    int code = client_list(client, "principals", &pairs, UINT32_MAX, columns, ARRAY_COUNT(columns),
                           "no keys");
    pairs_done(&pairs);
    return code;
}

static int run(struct client *client, const struct args *args)
{
    const char *action = args->words[0];
    bool named = args->word_count > 1;
    if (strcmp(action, "ls") == 0)
        return keys_ls(client, args);
    if (strcmp(action, "new") != 0 && strcmp(action, "enrol") != 0 && strcmp(action, "revoke") != 0)
        return client_failf(client, EXIT_USAGE,
                            "there is no 'keys %s', expected ls, new, enrol or "
                            "revoke",
                            action);
    if (!named)
        return client_failf(client, EXIT_USAGE, "'keys %s' needs the name of a principal", action);
    if (strcmp(action, "new") == 0)
        return keys_new(client, args);
    if (strcmp(action, "enrol") == 0)
        return keys_enrol(client, args);
    return key_change(client, (struct msg_key_change){"revoke", args->words[1], NULL, NULL});
}

const struct verb verb_keys = {
    .name = "keys",
    .words = "ls|new|enrol|revoke [PRINCIPAL [KEY]]",
    .summary = "make, enrol, list and revoke keys",
    .text =
        "Every connection is encrypted and known by its key; a key that is not enrolled gets no "
        "answer at all.\n\n"
        "keys new PRINCIPAL makes a key pair here and sends nothing. keys enrol PRINCIPAL KEY "
        "lets its holder in with a role: user (submits jobs and changes own ones), operator "
        "(changes all jobs and workers), admin (also keys), worker (a worker daemon of that "
        "name). keys revoke PRINCIPAL shuts it out at once, open connections included.\n\n"
        "To add a machine: make its key there with 'athanor keys new NAME --out worker.key', "
        "bring worker.key.pub here, 'athanor keys enrol NAME worker.key.pub --role worker', and "
        "start athanor-worker there with that key and the coordinator's public key.",
    .choices = "ls new enrol revoke",
    .words_min = 1,
    .words_max = 3,
    VERB_OPTIONS(options),
    .run = run,
};
