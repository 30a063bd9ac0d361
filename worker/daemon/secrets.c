/* secrets.c - see secrets.h. */
#include "worker/daemon/secrets.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/net/sealed.h"
#include "common/spec/spec.h"
#include "worker/daemon/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

struct attempt_secrets {
    struct attempt_secrets *next;
    uint64_t attempt_id;
    struct arena arena; /* holds names */
    const struct spec_variable *names;
    size_t name_count;
    struct keypair *keys; /* clear_value's memory; NULL when they are here */
    struct clear_value keys_memory;
    uint64_t seq;         /* of the question under way; 0: none */
    uint64_t asked_ms;
    struct secret_fds got;
    bool ready, failed;
    struct err why;
};

void secret_fds_close(struct secret_fds *fds)
{
    for (size_t i = 0; i < fds->count; i++)
        close(fds->fds[i]);
    mem_free(fds->fds);
    *fds = (struct secret_fds){0};
}

static struct attempt_secrets *secrets_find(const struct daemon *daemon, uint64_t attempt_id)
{
    struct attempt_secrets *secrets = daemon->secrets;
    while (secrets && secrets->attempt_id != attempt_id)
        secrets = secrets->next;
    return secrets;
}

static void secrets_free(struct attempt_secrets *secrets)
{
    clear_value_done(&secrets->keys_memory);
    secret_fds_close(&secrets->got);
    arena_done(&secrets->arena);
    mem_free(secrets);
}

/* ---- asking ---------------------------------------------------------------------------------- */

/* A session that is not up, or a full queue: asked again later. */
static void secrets_ask(struct daemon *daemon, struct attempt_secrets *secrets)
{
    struct message message = {.tag = MSG_SECRET_GET};
    struct err err = {0};
    if (!daemon->worker_id || secrets->ready || secrets->failed)
        return;
    message.u.secret_get = (struct msg_secret_get){.attempt_id = secrets->attempt_id,
                                                   .public_key = secrets->keys->public_key};
    secrets->asked_ms = clock_steady_ms();
    if (peer_send(daemon->peer, &message, &secrets->seq, &err) < 0)
        secrets->seq = 0;
}

static int secrets_new(struct daemon *daemon, const struct msg_start *start,
                       const struct spec_job *spec, struct arena *arena,
                       struct attempt_secrets **out, struct err *err)
{
    struct clear_value memory;
    if (clear_value_new(sizeof(struct keypair), &memory, err) < 0)
        return -1;
    struct attempt_secrets *secrets = mem_zalloc(sizeof *secrets);
    *secrets = (struct attempt_secrets){.next = daemon->secrets,
                                        .attempt_id = start->attempt_id,
                                        .arena = *arena,
                                        .names = spec->secrets,
                                        .name_count = spec->secret_count,
                                        .keys = (struct keypair *)(void *)memory.bytes,
                                        .keys_memory = memory};
    *arena = (struct arena){0};
    keypair_make(secrets->keys);
    daemon->secrets = secrets;
    *out = secrets;
    return 0;
}

enum code_state secrets_prepare(struct daemon *daemon, const struct msg_start *start,
                                struct err *err)
{
    struct attempt_secrets *secrets = secrets_find(daemon, start->attempt_id);
    struct arena arena = {0};
    struct spec_job spec;
    if (!secrets && !strstr(start->spec, "\"secrets\""))
        return CODE_NONE; /* nearly all: not worth reading the spec once more */
    if (!secrets) {
        int rc = spec_job_from_json(start->spec, &arena, &spec, err);
        if (rc == 0 && spec.secret_count == 0) {
            arena_done(&arena);
            return CODE_NONE;
        }
        if (rc == 0)
            rc = secrets_new(daemon, start, &spec, &arena, &secrets, err);
        arena_done(&arena);
        if (rc < 0)
            return CODE_FAILED;
        secrets_ask(daemon, secrets);
    }
    if (secrets->failed)
        *err = secrets->why;
    return secrets->failed ? CODE_FAILED : secrets->ready ? CODE_READY : CODE_WAIT;
}

void secrets_on_up(struct daemon *daemon)
{
    for (struct attempt_secrets *secrets = daemon->secrets; secrets; secrets = secrets->next)
        secrets_ask(daemon, secrets);
}

void secrets_tick(struct daemon *daemon)
{
    uint64_t now_ms = clock_steady_ms();
    for (struct attempt_secrets *secrets = daemon->secrets; secrets; secrets = secrets->next)
        if (now_ms - secrets->asked_ms >= SECRETS_ASK_AGAIN_MS)
            secrets_ask(daemon, secrets);
}

/* ---- the answer ------------------------------------------------------------------------------ */

static int write_all(int fd, const struct clear_value *value)
{
    for (size_t done = 0; done < value->length;) {
        ssize_t wrote = write(fd, value->bytes + done, value->length - done);
        if (wrote < 0 && errno != EINTR)
            return -1;
        done += wrote > 0 ? (size_t)wrote : 0;
    }
    return 0;
}

/* Nothing can change it afterwards, whoever holds it. */
static int memfd_make(const char *name, const struct clear_value *value, int *out, struct err *err)
{
    int fd = memfd_create("athanor-secret", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || fchmod(fd, 0400) < 0 || write_all(fd, value) < 0 ||
        fcntl(fd, F_ADD_SEALS, SEALS) < 0) {
        err_errno(err, "make a descriptor for the secret %s", name);
        if (fd >= 0)
            close(fd);
        return -1;
    }
    *out = fd;
    return 0;
}

static int secret_open(const struct attempt_secrets *secrets, const char *name,
                       const struct msg_secrets *message, int *out, struct err *err)
{
    struct clear_value value;
    size_t i = 0;
    while (i < message->secrets_count && strcmp(message->secrets[i].name, name) != 0)
        i++;
    if (i == message->secrets_count)
        return err_set(err, ERR_PROTOCOL, "the coordinator sent no secret for %s", name);
    const struct wire_bytes *box = &message->secrets[i].sealed;
    if (sealed_open(secrets->keys, box->bytes, box->length, &value, err) < 0)
        return err_wrap(err, "secret for %s", name);
    int rc = memfd_make(name, &value, out, err);
    clear_value_done(&value);
    return rc;
}

static void secrets_end(struct attempt_secrets *secrets, int rc)
{
    clear_value_done(&secrets->keys_memory);
    secrets->keys = NULL;
    secrets->seq = 0;
    secrets->ready = rc == 0;
    secrets->failed = rc < 0;
}

void secrets_on_arrival(struct daemon *daemon, const struct msg_secrets *message)
{
    struct attempt_secrets *secrets = secrets_find(daemon, message->attempt_id);
    if (!secrets || secrets->ready || secrets->failed || secrets->seq != message->request_seq)
        return; /* forgotten, or the answer to a question of an earlier session */
    struct secret_fds *got = &secrets->got;
    int rc = 0;
    got->fds = mem_array(secrets->name_count, sizeof *got->fds);
    for (size_t i = 0; rc == 0 && i < secrets->name_count; i++) {
        rc = secret_open(secrets, secrets->names[i].name, message, &got->fds[i], &secrets->why);
        got->count += rc == 0;
    }
    secrets_end(secrets, rc);
    pending_wake(daemon);
}

/* What will not get better by asking again ends the attempt, with the reason. */
bool secrets_on_refused(struct daemon *daemon, const struct msg_refused *refused)
{
    struct attempt_secrets *secrets = daemon->secrets;
    while (secrets && (secrets->seq == 0 || secrets->seq != refused->request_seq))
        secrets = secrets->next;
    if (!secrets)
        return false;
    secrets->seq = 0;
    bool final = strcmp(refused->kind, err_kind_name(ERR_NOT_FOUND)) == 0 ||
                 strcmp(refused->kind, err_kind_name(ERR_DENIED)) == 0;
    if (!final) {
        log_warn("attempt %" PRIu64 ": its secrets are refused for now: %s", secrets->attempt_id,
                 refused->text);
        return true;
    }
    err_set(&secrets->why, ERR_NOT_FOUND, "secrets: %s", refused->text);
    secrets_end(secrets, -1);
    pending_wake(daemon);
    return true;
}

/* ---- the attempt ----------------------------------------------------------------------------- */

int secrets_take(struct daemon *daemon, uint64_t attempt_id, const struct account *account,
                 struct secret_fds *out, struct err *err)
{
    struct attempt_secrets *secrets = secrets_find(daemon, attempt_id);
    *out = (struct secret_fds){0};
    if (!secrets)
        return 0;
    CHECK(secrets->ready);
    for (size_t i = 0; i < secrets->got.count; i++)
        if (account->uid != geteuid() &&
            fchown(secrets->got.fds[i], account->uid, account->gid) < 0)
            return err_errno(err, "give the secret %s to the account '%s'",
                             secrets->names[i].name, account->name);
    *out = secrets->got;
    secrets->got = (struct secret_fds){0};
    return 0;
}

const char *secrets_name(const struct daemon *daemon, uint64_t attempt_id, size_t index)
{
    const struct attempt_secrets *secrets = secrets_find(daemon, attempt_id);
    return secrets && index < secrets->name_count ? secrets->names[index].name : NULL;
}

void secrets_forget(struct daemon *daemon, uint64_t attempt_id)
{
    struct attempt_secrets **at = &daemon->secrets;
    while (*at && (*at)->attempt_id != attempt_id)
        at = &(*at)->next;
    struct attempt_secrets *gone = *at;
    if (!gone)
        return;
    *at = gone->next;
    secrets_free(gone);
}

void secrets_close(struct daemon *daemon)
{
    while (daemon->secrets)
        secrets_forget(daemon, daemon->secrets->attempt_id);
}
