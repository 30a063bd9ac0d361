/* keys.c - athanor keys */
#include "client/client.h"
#include "client/home.h"
#include "client/verbs.h"
#include "common/base/file.h"
#include "common/net/enrol.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

static const struct option options[] = {
    {"out", 'o', VALUE_FILE, "FILE",
     "new: where the secret key goes, the public one beside it; token: a file of mode 600 for the "
     "token instead of the terminal",
     false},
    {"role", 0, VALUE_TEXT, "ROLE",
     "enrol, token: user, operator, worker, admin or pilot (default user)", false},
    {"name", 0, VALUE_TEXT, "NAME",
     "token: whom it enrols (default: a name of the holder's choice that is not taken); accept: "
     "the name to ask for",
     false},
    {"ttl", 0, VALUE_DURATION, "TIME", "token: how long it may be used (default 1h, at most 30d)",
     false},
    {"at", 0, VALUE_TEXT, "HOST:PORT,...",
     "token: where its holder reaches the coordinators (default: where we do)", false},
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
    return key_change(client, (struct msg_key_change){.action = "enrol",
                                                      .principal = args->words[1],
                                                      .role = role ? role : "user",
                                                      .public_key = key});
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

/* ---- one-time tokens ------------------------------------------------------------------------ */

static const struct heading token_columns[] = {
    {"name", "TOKEN"},   {"grants", "ROLE"},        {"grants_name", "FOR"}, {"state", NULL},
    {"made_at", "MADE"}, {"expires_at", "EXPIRES"}, {"used_at", "USED"},    {"used_by", "KEY"},
};

static int token_places(struct client *client, const struct args *args, struct token *token,
                        struct err *err)
{
    const char *at = args_text(args, "at"), *places[HOME_ENDPOINTS_MAX];
    size_t count = 0;
    int rc = at ? home_endpoints_split(&client->arena, at, places, &count, err)
                : client_endpoints(client, places, &count, err);
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = token_add_endpoint(token, places[i], strlen(places[i]), err);
    if (rc == 0 && count == 0)
        rc = err_set(err, ERR_INVALID, "option --at names nothing, expected HOST:PORT");
    return rc < 0 && at ? err_wrap(err, "option --at") : rc;
}

static bool is_local(const char *endpoint)
{
    return strncmp(endpoint, "ipc://", 6) == 0 || strstr(endpoint, "//127.") ||
           strstr(endpoint, "//localhost:") || strstr(endpoint, "//[::1]");
}

/* The secret half is made here and goes to nobody but whom it is given to. */
static int token_show(struct client *client, const struct args *args, const struct token *token,
                      const char *name)
{
    const char *path = args_text(args, "out");
    struct buf text = {0};
    struct err err;
    int code = EXIT_DONE;
    token_write(token, &text);
    buf_putc(&text, '\n');
    if (!path)
        code = client_print(client, &text);
    else if (file_replace(path, text.bytes, text.length, 0600, &err) < 0)
        code = client_fail(client, EXIT_LOCAL, &err);
    sodium_memzero(text.bytes, text.length);
    buf_done(&text);
    if (code == EXIT_DONE && client_for_people(client))
        fprintf(stderr, "%s: good once; 'athanor keys revoke %s' ends it sooner\n", name, name);
    if (code == EXIT_DONE && is_local(token->endpoints[0]))
        fprintf(stderr, "it leads to %s, which is this machine only: see --at\n",
                token->endpoints[0]);
    return code;
}

static int keys_token(struct client *client, const struct args *args)
{
    const char *role = args_text(args, "role"), *name = args_text(args, "name");
    struct token token = {0};
    struct message request = {.tag = MSG_KEY_CHANGE}, reply;
    struct err err;
    if (client_server_key(client, token.server_key, &err) < 0 ||
        token_places(client, args, &token, &err) < 0)
        return client_fail(client, EXIT_USAGE, &err);
    keypair_make(&token.keys);
    request.u.key_change = (struct msg_key_change){
        .action = "token",
        .principal = name ? name : "",
        .role = !role || strcmp(role, "client") == 0 ? "user" : role,
        .public_key = token.keys.public_key,
        .ttl_ms = args_duration_ms(args, "ttl", 3600000),
    };
    int code = client_ask(client, &request, MSG_DONE, &reply);
    if (code == EXIT_DONE)
        code = token_show(client, args, &token, reply.u.done.text);
    token_wipe(&token);
    return code;
}

static int keys_tokens(struct client *client, const struct args *args)
{
    struct pairs pairs = {0};
    pairs_add_flag(&pairs, "all", args_has(args, "all"));
    int code = client_list(client, "tokens", &pairs, UINT32_MAX, token_columns,
                           ARRAY_COUNT(token_columns), "no tokens");
    pairs_done(&pairs);
    return code;
}

/* The home becomes that of a client of the token's cluster. */
static int keys_accept(struct client *client, const struct args *args)
{
    const char *name = args_text(args, "name"), *enrolled, *role;
    struct enrol enrol = {.name = name ? name : "",
                          .otherwise = home_user(&client->arena),
                          .key = client_key_file(client),
                          .server_key =
                              arena_printf(&client->arena, "%s/keys/server.key.pub", client->home),
                          .endpoints = arena_printf(&client->arena, "%s/endpoints", client->home),
                          .program = "athanor",
                          .version = ATHANOR_VERSION,
                          .timeout_ms = client->timeout_ms};
    struct token token;
    struct err err;
    struct buf out = {0};
    if (token_read(args->words[1], &token, &err) < 0)
        return client_fail(client, EXIT_USAGE, &err);
    enrol.token = &token;
    int rc = file_make_folders(arena_printf(&client->arena, "%s/keys", client->home), 0755, &err);
    if (rc == 0)
        rc = enrol_run(&enrol, &client->arena, &enrolled, &role, &err);
    token_wipe(&token);
    if (rc < 0)
        return client_fail(client,
                           err.kind == ERR_TIMEOUT ? EXIT_UNREACHABLE
                           : err.kind == ERR_IO    ? EXIT_LOCAL
                                                   : EXIT_REFUSED,
                           &err);
    buf_printf(&out, "enrolled as %s '%s'\n", role, enrolled);
    int code = client_print(client, &out);
    buf_done(&out);
    return code;
}

static int run_named(struct client *client, const struct args *args, const char *action)
{
    if (strcmp(action, "new") == 0)
        return keys_new(client, args);
    if (strcmp(action, "enrol") == 0)
        return keys_enrol(client, args);
    if (strcmp(action, "accept") == 0)
        return keys_accept(client, args);
    return key_change(client,
                      (struct msg_key_change){.action = "revoke", .principal = args->words[1]});
}

static int run(struct client *client, const struct args *args)
{
    static const char *const named[] = {"new", "enrol", "revoke", "accept"};
    const char *action = args->words[0];
    if (strcmp(action, "ls") == 0)
        return keys_ls(client, args);
    if (strcmp(action, "token") == 0)
        return keys_token(client, args);
    if (strcmp(action, "tokens") == 0)
        return keys_tokens(client, args);
    for (size_t i = 0; i < ARRAY_COUNT(named); i++)
        if (strcmp(action, named[i]) == 0)
            return args->word_count > 1
                       ? run_named(client, args, action)
                       : client_failf(client, EXIT_USAGE, "'keys %s' needs %s", action,
                                      strcmp(action, "accept") == 0 ? "a file with a token, or '-'"
                                                                    : "the name of a principal");
    return client_failf(client, EXIT_USAGE,
                        "there is no 'keys %s', expected ls, new, enrol, revoke, token, tokens or "
                        "accept",
                        action);
}

const struct verb verb_keys = {
    .name = "keys",
    .words = "ACTION [PRINCIPAL [KEY]]",
    .summary = "make, enrol, list and revoke keys, and one-time tokens",
    .text =
        "Every connection is encrypted and known by its key; a key that is not enrolled gets no "
        "answer at all. ACTION is ls, new, enrol, revoke, token, tokens or accept.\n\n"
        "keys new PRINCIPAL makes a key pair here and sends nothing. keys enrol PRINCIPAL KEY "
        "lets its holder in with a role: user (submits jobs and changes own ones), operator "
        "(changes all jobs and workers), admin (also keys), worker (a worker daemon of that "
        "name), pilot (asks, and brings in workers whose names begin with its own and a '-'). keys "
        "revoke PRINCIPAL shuts it out at once, open connections included, with tokens for it.\n\n"
        "keys token makes a one-time token: whoever has it may enrol one key, with --role, "
        "once, within --ttl. It is shown once and holds the coordinators' address and public key. "
        "keys "
        "tokens lists the tokens, and what became of them; keys revoke TOKEN-NAME ends one. keys "
        "accept FILE (or - for standard input) makes this home a client of the token's cluster.\n\n"
        "To add a machine: 'athanor keys token --role worker --name NAME --out token', bring the "
        "file there, and 'athanor-worker --enrol token --keys /etc/athanor/worker.key'. Without "
        "tokens: make the key there with 'athanor keys new NAME --out worker.key', bring "
        "worker.key.pub here, 'athanor keys enrol NAME worker.key.pub --role worker', and start "
        "athanor-worker there with that key and the coordinator's public key.",
    .choices = "ls new enrol revoke token tokens accept",
    .words_min = 1,
    .words_max = 3,
    VERB_OPTIONS(options),
    .run = run,
};
