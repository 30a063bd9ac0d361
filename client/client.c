/* client.c - connection, requests and output of the verbs; see client.h. */
#include "client/client.h"

#include "client/home.h"
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/net/peer.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TIMEOUT_MS_DEFAULT 10000u

int client_init(struct client *client, const struct args *args, struct err *err)
{
    const char *color = args_text(args, "color");
    *client = (struct client){.verb = args->verb, .args = args};
    if (color && strcmp(color, "auto") != 0 && strcmp(color, "always") != 0 &&
        strcmp(color, "never") != 0)
        return err_set(err, ERR_INVALID, "option --color is '%s', expected auto, always or never",
                       color);
    client->style = style_of(stdout, color);
    client->timeout_ms = args_duration_ms(args, "timeout", TIMEOUT_MS_DEFAULT);
    return home_find(&client->arena, args_text(args, "home"), &client->home, err);
}

void client_done(struct client *client)
{
    peer_close(client->peer);
    loop_free(client->loop);
    arena_done(&client->arena);
}

/* ---- output ------------------------------------------------------------------------------- */

static void print_error(const struct client *client, const char *text)
{
    struct buf clean = {0};
    text_add_output(&clean, text, strlen(text));
    fprintf(stderr, "athanor%s%s: %s\n", client->verb ? " " : "",
            client->verb ? client->verb->name : "", buf_text(&clean));
    buf_done(&clean);
}

int client_fail(const struct client *client, enum exit_code code, const struct err *why)
{
    print_error(client, why->text);
    return code;
}

int client_failf(const struct client *client, enum exit_code code, const char *format, ...)
{
    char text[1000];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    print_error(client, text);
    return code;
}

int client_print(const struct client *client, struct buf *out)
{
    bool failed = out->length && fwrite(out->bytes, 1, out->length, stdout) != out->length;
    failed = fflush(stdout) != 0 || failed;
    buf_clear(out);
    if (failed && errno == EPIPE)
        return EXIT_DONE;
    return failed ? client_failf(client, EXIT_LOCAL, "writing the output: %s", strerror(errno))
                  : EXIT_DONE;
}

/* ---- connecting --------------------------------------------------------------------------- */

int client_endpoints(struct client *client, const char **out, size_t *out_count, struct err *err)
{
    const char *given = getenv("ATHANOR_COORDINATOR");
    *out_count = 0;
    for (size_t i = 0; i < client->args->given_count; i++)
        if (strcmp(client->args->given[i].option->name, "coordinator") == 0 &&
            home_endpoints_split(&client->arena, client->args->given[i].value, out, out_count,
                                 err) < 0)
            return -1;
    if (*out_count > 0)
        return 0;
    if (given && *given)
        return home_endpoints_split(&client->arena, given, out, out_count, err);
    if (home_endpoints(&client->arena, client->home, out, out_count, err) == 0)
        return 0;
    return err_set(err, ERR_NOT_FOUND,
                   "there is no cluster in '%s': start one with 'athanor up', or name another with "
                   "ATHANOR_HOME or ATHANOR_COORDINATOR",
                   client->home);
}

/* The option, the environment, or the file in the home. */
static const char *setting(struct client *client, const char *option, const char *variable,
                           const char *file)
{
    const char *value = args_text(client->args, option);
    if (!value)
        value = getenv(variable);
    return value && *value ? value : arena_printf(&client->arena, "%s/keys/%s", client->home, file);
}

const char *client_key_file(struct client *client)
{
    return setting(client, "key", "ATHANOR_KEY", "client.key");
}

int client_server_key(struct client *client, char out[KEY_TEXT_SIZE], struct err *err)
{
    return public_key_given(
        setting(client, "server-key", "ATHANOR_SERVER_KEY", "server.key.pub"), out, err);
}

static int find_keys(struct client *client, struct keypair *keys, char server_key[KEY_TEXT_SIZE],
                     struct err *err)
{
    if (keypair_read(client_key_file(client), keys, err) < 0)
        return -1;
    return client_server_key(client, server_key, err);
}

static int connect_once(struct client *client, struct err *err)
{
    const char *endpoints[HOME_ENDPOINTS_MAX];
    char server_key[KEY_TEXT_SIZE];
    struct keypair keys;
    struct peer_config config = {.endpoints = endpoints,
                                 .server_key = server_key,
                                 .keys = &keys,
                                 .program = "athanor",
                                 .version = ATHANOR_VERSION,
                                 .user = client->on_user,
                                 .on_down = client->on_down,
                                 .on_message = client->on_message};
    if (client->peer)
        return 0;
    if (client_endpoints(client, endpoints, &config.endpoint_count, err) < 0 ||
        find_keys(client, &keys, server_key, err) < 0)
        return -1;
    if (!client->loop)
        client->loop = loop_new();
    int rc = peer_open(client->loop, &config, &client->peer, err);
    keypair_wipe(&keys);
    return rc;
}

/* ---- requests ----------------------------------------------------------------------------- */

/* What may be sent again after a lost answer: submits have their key, and most others say what is
 * to be so. A retry that had arrived might reopen a job that has failed anew since. */
static bool may_repeat(const struct message *request)
{
    return request->tag != MSG_CONTROL || strcmp(request->u.control.action, "retry") != 0;
}

int client_try(struct client *client, const struct message *request, struct arena *arena,
               struct message *out_reply, struct err *err)
{
    if (connect_once(client, err) < 0)
        return -1;
    return peer_request(client->peer, request, may_repeat(request), client->timeout_ms, arena,
                        out_reply, err);
}

void client_print_refusals(const char *file, const struct rec_refusal *refusals, size_t count)
{
    struct buf text = {0};
    for (size_t i = 0; i < count; i++) {
        const struct rec_refusal *refusal = &refusals[i];
        const char *place = *refusal->file ? refusal->file : refusal->line ? file : "";
        if (*place)
            buf_printf(&text, "%s:", place);
        if (refusal->line)
            buf_printf(&text, "%llu:%llu:", (unsigned long long)refusal->line,
                       (unsigned long long)refusal->column);
        buf_printf(&text, "%s%s%s%s\n",
                   text.length && text.bytes[text.length - 1] == ':' ? " " : "", refusal->path,
                   *refusal->path ? ": " : "", refusal->text);
    }
    struct buf clean = {0};
    text_add_output(&clean, buf_text(&text), text.length);
    fputs(buf_text(&clean), stderr);
    buf_done(&clean);
    buf_done(&text);
}

static int ask_in(struct client *client, const struct message *request, enum msg_tag expected,
                  struct arena *arena, struct message *out_reply)
{
    struct message reply;
    struct err err;
    if (client_try(client, request, arena, &reply, &err) < 0) {
        bool ours = err.kind == ERR_INVALID || err.kind == ERR_LIMIT;
        return client_fail(client, ours ? EXIT_USAGE : EXIT_UNREACHABLE, &err);
    }
    if (reply.tag == MSG_REFUSED) {
        const char *file = request->tag == MSG_SUBMIT ? request->u.submit.file : "";
        const struct msg_refused *refused = &reply.u.refused;
        bool once =
            refused->refusals_count == 1 && strcmp(refused->refusals[0].text, refused->text) == 0;
        if (!once) /* else the text says it all */
            client_print_refusals(file, refused->refusals, refused->refusals_count);
        return client_failf(client, EXIT_REFUSED, "%s", refused->text);
    }
    if (reply.tag != expected)
        return client_failf(client, EXIT_UNREACHABLE,
                            "the coordinator answered '%s' with '%s': is it of another version?",
                            msg_name(request->tag), msg_name(reply.tag));
    *out_reply = reply;
    return EXIT_DONE;
}

int client_ask(struct client *client, const struct message *request, enum msg_tag expected,
               struct message *out_reply)
{
    return ask_in(client, request, expected, &client->arena, out_reply);
}

/* ---- queries ------------------------------------------------------------------------------ */

void pairs_add(struct pairs *pairs, const char *name, const char *value)
{
    if (!value || !*value)
        return;
    CHECK(pairs->count < WIRE_LIST_ITEMS_MAX);
    VEC_RESERVE(pairs->items, pairs->count, pairs->capacity);
    pairs->items[pairs->count++] = (struct rec_name_value){name, value};
}

void pairs_add_flag(struct pairs *pairs, const char *name, bool value)
{
    pairs_add(pairs, name, value ? "true" : NULL);
}

void pairs_done(struct pairs *pairs)
{
    mem_free(pairs->items);
    *pairs = (struct pairs){0};
}

static struct message query_message(const char *name, const struct pairs *pairs, uint64_t limit,
                                    const char *after)
{
    struct message message = {.tag = MSG_QUERY};
    message.u.query = (struct msg_query){.name = name, .limit = limit, .after = after};
    if (pairs) {
        message.u.query.arguments = pairs->items;
        message.u.query.arguments_count = pairs->count;
    }
    return message;
}

int client_page(struct client *client, const char *name, const struct pairs *pairs, uint64_t limit,
                const char *after, struct arena *arena, struct msg_table *out)
{
    struct message request = query_message(name, pairs, min_u64(limit, QUERY_ROWS_MAX), after);
    struct message reply;
    struct err err;
    int code = ask_in(client, &request, MSG_TABLE, arena, &reply);
    if (code != EXIT_DONE)
        return code;
    if (table_check(&reply.u.table, &err) < 0)
        return client_fail(client, EXIT_UNREACHABLE, &err);
    *out = reply.u.table;
    return EXIT_DONE;
}

int client_poll(struct client *client, const char *name, const struct pairs *pairs, uint64_t limit,
                struct arena *arena, struct msg_table *out, struct err *err)
{
    struct message request = query_message(name, pairs, min_u64(limit, QUERY_ROWS_MAX), NULL);
    struct message reply;
    if (client_try(client, &request, arena, &reply, err) < 0)
        return -1;
    if (reply.tag == MSG_REFUSED)
        return client_failf(client, EXIT_REFUSED, "%s", reply.u.refused.text);
    if (reply.tag != MSG_TABLE || table_check(&reply.u.table, err) < 0)
        return client_failf(client, EXIT_UNREACHABLE, "the answer is not understood");
    *out = reply.u.table;
    return EXIT_DONE;
}

int client_query(struct client *client, const char *name, const struct pairs *pairs, uint64_t limit,
                 struct msg_table *out)
{
    struct msg_table table = {0}, page = {0};
    do {
        int code = client_page(client, name, pairs, limit - table_rows(&table), page.next,
                               &client->arena, &page);
        if (code != EXIT_DONE)
            return code;
        if (table.columns_count == 0)
            table = page;
        else if (table.columns_count == page.columns_count)
            table_append(&table, &page, &client->arena);
    } while (page.next && *page.next && table_rows(&page) > 0 && table_rows(&table) < limit);
    *out = table;
    return EXIT_DONE;
}

int client_job_id(struct client *client, const char *word, const char **out)
{
    struct pairs pairs = {0};
    struct msg_table table;
    const char *slash = strchr(word, '/');
    if (*word && strspn(word, "0123456789") == strlen(word)) {
        *out = word;
        return EXIT_DONE;
    }
    if (slash)
        pairs_add(&pairs, "experiment",
                  arena_strndup(&client->arena, word, (size_t)(slash - word)));
    pairs_add(&pairs, "name", slash ? slash + 1 : word);
    bool named = slash ? slash > word && slash[1] : *word;
    int code = named ? client_query(client, "jobs", &pairs, 1, &table) : EXIT_DONE;
    pairs_done(&pairs);
    if (code != EXIT_DONE)
        return code;
    if (!named || table_rows(&table) == 0)
        return client_failf(client, EXIT_REFUSED, "there is no job '%s'", word);
    *out = table_text(&table, 0, "job_id");
    return EXIT_DONE;
}

bool client_for_people(const struct client *client)
{
    return !args_has(client->args, "json") && !args_text(client->args, "column");
}

int client_table(struct client *client, const struct msg_table *table,
                 const struct heading *headings, size_t heading_count, const char *none)
{
    const char *column = args_text(client->args, "column");
    struct buf out = {0};
    int code;
    if (column && table_column(table, column) < 0) {
        for (size_t i = 0; i < table->columns_count; i++)
            buf_printf(&out, "%s%s", i ? ", " : "", table->columns[i].name);
        code = client_failf(client, EXIT_USAGE, "there is no column '%s', expected one of %s",
                            column, buf_text(&out));
        buf_done(&out);
        return code;
    }
    if (args_has(client->args, "json"))
        table_print_json(table, &out);
    else if (column)
        table_print_column(table, column, &out);
    else if (table_rows(table) == 0 && client->style.terminal)
        buf_printf(&out, "%s\n", none);
    else
        table_print(table, headings, heading_count, &client->style, &out);
    code = client_print(client, &out);
    buf_done(&out);
    return code;
}

int client_list(struct client *client, const char *query, const struct pairs *pairs, uint64_t limit,
                const struct heading *headings, size_t heading_count, const char *none)
{
    struct msg_table table;
    int code = client_query(client, query, pairs, limit, &table);
    return code == EXIT_DONE ? client_table(client, &table, headings, heading_count, none) : code;
}

/* ---- jobs that are held ------------------------------------------------------------------- */

void client_tell_held(struct msg_table *table)
{
    int state = table_column(table, "state"), held = table_column(table, "held");
    if (state < 0 || held < 0)
        return;
    for (size_t row = 0; row < table_rows(table); row++) {
        struct rec_cell *cells = table->cells + row * table->columns_count;
        const char *now = cells[state].text;
        bool stands = strcmp(now, "READY") == 0 || strcmp(now, "WAITING") == 0 ||
                      strcmp(now, "BACKOFF") == 0;
        if (stands && *cells[held].text == 't')
            cells[state].text = "HELD";
    }
}

/* ---- lost nodes --------------------------------------------------------------------------- */

void client_tell_lost(struct client *client, struct msg_table *table)
{
    int state = table_column(table, "state"), lost = table_column(table, "node_lost_at");
    if (state < 0 || lost < 0)
        return;
    for (size_t row = 0; row < table_rows(table); row++) {
        struct rec_cell *cells = table->cells + row * table->columns_count;
        if (!cells[lost].is_null)
            cells[state].text =
                arena_printf(&client->arena, "%s (node lost since %s)", cells[state].text,
                             value_text(&table->columns[lost], &cells[lost], &client->arena));
    }
}
