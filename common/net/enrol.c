/* enrol.c - see enrol.h. */
#include "common/net/enrol.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/net/loop.h"
#include "common/net/peer.h"

#include <string.h>
#include <unistd.h>

static int key_prepare(const char *path, struct keypair *out, bool *out_made, struct err *err)
{
    *out_made = !file_exists(path);
    if (!*out_made)
        return keypair_read(path, out, err);
    keypair_make(out);
    return keypair_write(path, out, err);
}

static void key_remove(const char *path)
{
    char *public_path = mem_printf("%s.pub", path);
    unlink(path);
    unlink(public_path);
    mem_free(public_path);
}

/* A node that belongs to one cluster is not taken into another by mistake. */
static int server_key_check(const struct enrol *enrol, struct err *err)
{
    char present[KEY_TEXT_SIZE];
    if (!file_exists(enrol->server_key))
        return 0;
    if (public_key_read(enrol->server_key, present, err) < 0)
        return -1;
    if (strcmp(present, enrol->token->server_key) != 0)
        return err_set(err, ERR_EXISTS,
                       "'%s' is the key of another cluster than the token's: remove it if this "
                       "machine no longer belongs there",
                       enrol->server_key);
    return 0;
}

static int cluster_write(const struct enrol *enrol, struct err *err)
{
    const struct token *token = enrol->token;
    struct buf text = {0};
    buf_printf(&text, "# public key of the coordinators\npublic-key = \"%s\"\n", token->server_key);
    int rc = file_replace(enrol->server_key, text.bytes, text.length, 0644, err);
    buf_clear(&text);
    for (size_t i = 0; i < token->endpoint_count; i++)
        buf_printf(&text, "%s%s", i ? "," : "", token->endpoints[i]);
    buf_putc(&text, '\n');
    if (rc == 0)
        rc = file_replace(enrol->endpoints, text.bytes, text.length, 0644, err);
    buf_done(&text);
    return rc;
}

static int refusal_take(const struct msg_refused *refused, struct err *err)
{
    for (int kind = 1; kind < ERR_KIND_END; kind++)
        if (strcmp(err_kind_name((enum err_kind)kind), refused->kind) == 0)
            return err_set(err, (enum err_kind)kind, "%s", refused->text);
    return err_set(err, ERR_DENIED, "%s", refused->text);
}

static int ask(const struct enrol *enrol, const struct keypair *keys, struct arena *arena,
               struct message *out_reply, struct err *err)
{
    const struct token *token = enrol->token;
    const char *endpoints[TOKEN_ENDPOINTS_MAX];
    struct peer_config config = {.endpoints = endpoints,
                                 .endpoint_count = token->endpoint_count,
                                 .server_key = token->server_key,
                                 .keys = &token->keys,
                                 .program = enrol->program,
                                 .version = enrol->version};
    struct message request = {.tag = MSG_ENROL,
                              .u.enrol = {.public_key = keys->public_key,
                                          .name = enrol->name,
                                          .otherwise = enrol->otherwise}};
    struct loop *loop = loop_new();
    struct peer *peer = NULL;
    for (size_t i = 0; i < token->endpoint_count; i++)
        endpoints[i] = token->endpoints[i];
    int rc = peer_open(loop, &config, &peer, err);
    if (rc == 0 && peer_request(peer, &request, true, enrol->timeout_ms, arena, out_reply, err) < 0)
        rc = err_wrap(err, "the token may be revoked or forgotten, or the coordinator be another "
                           "than it was made for");
    peer_close(peer);
    loop_free(loop);
    return rc;
}

int enrol_run(const struct enrol *enrol, struct arena *arena, const char **out_name,
              const char **out_role, struct err *err)
{
    struct keypair keys;
    struct message reply;
    bool made;
    if (server_key_check(enrol, err) < 0 || key_prepare(enrol->key, &keys, &made, err) < 0)
        return -1;
    int rc = ask(enrol, &keys, arena, &reply, err);
    keypair_wipe(&keys);
    if (rc < 0)
        return -1; /* it may have been carried out: the key stays */
    if (reply.tag != MSG_ENROLLED) {
        if (made)
            key_remove(enrol->key);
        return reply.tag == MSG_REFUSED
                   ? refusal_take(&reply.u.refused, err)
                   : err_set(err, ERR_PROTOCOL, "the coordinator answered with '%s'",
                             msg_name(reply.tag));
    }
    *out_name = reply.u.enrolled.name;
    *out_role = reply.u.enrolled.role;
    return cluster_write(enrol, err);
}
