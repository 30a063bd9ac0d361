/* sim_net.c - frames in flight: delayed, lost, doubled, reordered.
 *
 * A session delivers in order (as TCP does) unless the reorder fault is drawn, which then spares
 * JOIN: the core counts on a session's JOIN coming first, and the real network keeps that. */
#include "common/wire/wire.h"
#include "tests/lib/core/sim_inner.h"

#include <string.h>

static uint64_t newest_due(const struct sim *sim, uint32_t worker, bool to_leader)
{
    uint64_t due = 0;
    for (size_t i = 0; i < sim->packet_count; i++)
        if (sim->packets[i].worker == worker && sim->packets[i].to_leader == to_leader)
            due = max_u64(due, sim->packets[i].due_ms);
    return due;
}

static void packet_add(struct sim *sim, struct sim_packet packet, const struct buf *frame,
                       bool in_order)
{
    packet.due_ms = sim->now_ms + rng_below(&sim->rng, 10);
    if (in_order)
        packet.due_ms =
            max_u64(packet.due_ms, newest_due(sim, packet.worker, packet.to_leader));
    packet.order = ++sim->packet_order;
    packet.bytes = mem_strndup(frame->bytes, frame->length);
    packet.length = frame->length;
    VEC_RESERVE(sim->packets, sim->packet_count, sim->packet_capacity);
    sim->packets[sim->packet_count++] = packet;
}

void sim_send(struct sim *sim, uint32_t worker, bool to_leader, uint64_t session, uint64_t epoch,
              const struct message *message)
{
    struct buf frame = {0};
    struct envelope envelope = {.epoch = epoch, .session = session, .seq = 1};
    struct err err;
    if (wire_encode(&envelope, message, &frame, &err) < 0) {
        sim_violation(sim, arena_printf(&sim->arena, "%s cannot be sent: %s",
                                        msg_name(message->tag), err.text));
        return;
    }
    struct sim_packet packet = {
        .to_leader = to_leader, .worker = worker, .session = session, .epoch = epoch};
    bool is_join = message->tag == MSG_WORKER_JOIN;
    bool reorder = !is_join && sim_chance(sim, sim->chances.reorder);
    bool twice = !is_join && sim_chance(sim, sim->chances.twice);
    bool lose = sim_chance(sim, sim->chances.lose);
    sim->result->lost += lose;
    sim->result->doubled += !lose && twice;
    sim->result->reordered += !lose && reorder;
    if (!lose)
        packet_add(sim, packet, &frame, !reorder);
    if (!lose && twice)
        packet_add(sim, packet, &frame, false);
    buf_done(&frame);
}

void sim_session_cut(struct sim *sim, uint32_t worker)
{
    size_t kept = 0;
    for (size_t i = 0; i < sim->packet_count; i++) {
        if (sim->packets[i].worker == worker)
            mem_free(sim->packets[i].bytes);
        else
            sim->packets[kept++] = sim->packets[i];
    }
    sim->packet_count = kept;
}

static size_t first_due(const struct sim *sim)
{
    size_t best = SIZE_MAX;
    for (size_t i = 0; i < sim->packet_count; i++) {
        const struct sim_packet *packet = &sim->packets[i];
        if (packet->due_ms > sim->now_ms)
            continue;
        const struct sim_packet *other = best == SIZE_MAX ? NULL : &sim->packets[best];
        if (!other || packet->due_ms < other->due_ms ||
            (packet->due_ms == other->due_ms && packet->order < other->order))
            best = i;
    }
    return best;
}

static void deliver(struct sim *sim, const struct sim_packet *packet)
{
    struct envelope envelope;
    struct message message;
    struct err err;
    if (wire_decode(packet->bytes, packet->length, &sim->arena, &envelope, &message, &err) < 0) {
        sim_violation(sim, arena_printf(&sim->arena, "a frame cannot be read: %s", err.text));
        return;
    }
    struct sim_worker *worker = &sim->workers[packet->worker];
    if (packet->to_leader)
        leader_on_packet(sim, packet->worker, packet->session, &message);
    else if (worker->session == packet->session && worker->link >= SIM_JOINING)
        worker_on_message(sim, worker, packet->epoch, &message);
}

void sim_packets_due(struct sim *sim)
{
    for (size_t i = first_due(sim); i != SIZE_MAX; i = first_due(sim)) {
        struct sim_packet packet = sim->packets[i];
        sim->packets[i] = sim->packets[--sim->packet_count];
        deliver(sim, &packet);
        mem_free(packet.bytes);
    }
}

void sim_net_done(struct sim *sim)
{
    for (size_t i = 0; i < sim->packet_count; i++)
        mem_free(sim->packets[i].bytes);
    mem_free(sim->packets);
}
