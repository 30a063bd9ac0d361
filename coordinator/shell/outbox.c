/* outbox.c - see outbox.h. */
#include "coordinator/shell/outbox.h"

#include "common/base/log.h"

void outbox_init(struct outbox *outbox)
{
    *outbox = (struct outbox){0};
    effects_init(&outbox->sets[0]);
    effects_init(&outbox->sets[1]);
}

void outbox_done(struct outbox *outbox)
{
    effects_done(&outbox->sets[0]);
    effects_done(&outbox->sets[1]);
}

struct effects *outbox_filling(struct outbox *outbox)
{
    return &outbox->sets[outbox->filling];
}

bool outbox_is_empty(const struct outbox *outbox)
{
    const struct effects *filling = &outbox->sets[outbox->filling];

    return filling->persist_count == 0 && filling->release_count == 0;
}

bool outbox_has_rows(const struct outbox *outbox)
{
    return outbox->sets[outbox->filling].persist_count > 0;
}

bool outbox_is_full(const struct outbox *outbox)
{
    const struct effects *filling = &outbox->sets[outbox->filling];

    return filling->persist_count >= OUTBOX_ROWS_MAX ||
           filling->arena.used_bytes >= OUTBOX_BYTES_MAX;
}

const struct effects *outbox_begin(struct outbox *outbox)
{
    CHECK(!outbox->flying);
    outbox->flying = true;
    outbox->begun++;
    outbox->since_ms = 0;
    outbox->filling = 1 - outbox->filling;
    return &outbox->sets[1 - outbox->filling];
}

/* A peer that is gone repeats its request or its join; what it was owed is decided anew. */
static void send_one(struct server *server, const struct outgoing *outgoing)
{
    struct err err;

    if (server_send(server, outgoing->peer, &outgoing->message, &err) == 0 ||
        err.kind == ERR_CLOSED)
        return;
    log_warn("%s not sent to peer %llu: %s", msg_name(outgoing->message.tag),
             (unsigned long long)outgoing->peer, err.text);
    uint64_t request_seq;
    if (outgoing->to == ADDRESS_CLIENT && msg_request_seq(&outgoing->message, &request_seq))
        server_refuse(server, outgoing->peer, request_seq, &err);
}

void outbox_release(struct outbox *outbox, struct server *server)
{
    struct effects *effects = &outbox->sets[1 - outbox->filling];

    CHECK(outbox->flying);
    for (size_t i = 0; i < effects->release_count; i++)
        send_one(server, &effects->release[i]);
    effects_reset(effects);
    outbox->flying = false;
}

void outbox_answer(struct server *server, uint64_t peer, uint64_t request_seq,
                   const struct message *message)
{
    struct err err;

    if (server_send(server, peer, message, &err) < 0 && err.kind != ERR_CLOSED)
        server_refuse(server, peer, request_seq, &err);
}
