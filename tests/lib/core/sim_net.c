/* sim_net.c - frames in flight: delayed, lost, doubled, reordered, cut off.
 *
 * A session delivers in order (as TCP does) unless the reorder fault is drawn, which then spares
 * JOIN and COPIES: the core counts on a session's JOIN coming first and on the newest list coming
 * last, and the real network keeps that. What is in flight when a session ends may still arrive,
 * as with a real socket. Real sessions have no gaps: a loss ends them. Here losses leave gaps,
 * which is harder, but for those of a fence and of a list, which nobody repeats before the next
 * join. */
#include "common/wire/wire.h"
#include "tests/lib/core/sim_inner.h"

#include <string.h>

/* ---- the heap of packets ----------------------------------------------------------------- */

static bool comes_before(const struct sim_packet *a, const struct sim_packet *b)
{
    return a->due_ms != b->due_ms ? a->due_ms < b->due_ms : a->order < b->order;
}

static void packet_push(struct sim *sim, struct sim_packet packet)
{
    VEC_RESERVE(sim->packets, sim->packet_count, sim->packet_capacity);
    size_t at = sim->packet_count++;
    for (; at > 0 && comes_before(&packet, &sim->packets[(at - 1) / 2]); at = (at - 1) / 2)
        sim->packets[at] = sim->packets[(at - 1) / 2];
    sim->packets[at] = packet;
}

static struct sim_packet packet_pop(struct sim *sim)
{
    struct sim_packet first = sim->packets[0];
    struct sim_packet last = sim->packets[--sim->packet_count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= sim->packet_count)
            break;
        if (child + 1 < sim->packet_count &&
            comes_before(&sim->packets[child + 1], &sim->packets[child]))
            child++;
        if (!comes_before(&sim->packets[child], &last))
            break;
        sim->packets[at] = sim->packets[child];
        at = child;
    }
    if (sim->packet_count)
        sim->packets[at] = last;
    return first;
}

/* ---- sending ----------------------------------------------------------------------------- */

bool net_is_cut(const struct sim *sim, uint32_t from, uint32_t to)
{
    return sim->cut_until_ms[from][to] > sim->now_ms;
}

static void packet_lost(struct sim *sim, struct sim_packet *packet)
{
    mem_free(packet->bytes);
    if (!packet->ends_session)
        return;
    uint32_t place = packet->from >= SIM_AT_WORKER ? packet->from : packet->to;
    struct sim_worker *worker = &sim->workers[place - SIM_AT_WORKER];
    if (worker->session == packet->session)
        worker_cut(sim, worker);
}

/* Draws what happens to the packet on its way. Takes its bytes. */
static void packet_send(struct sim *sim, struct sim_packet packet, bool spared)
{
    uint64_t *newest = &sim->newest_due_ms[packet.from][packet.to];
    bool reorder = !spared && sim_fault(sim, SIM_FAULT_REORDER);
    packet.due_ms = sim->now_ms + rng_below(&sim->rng, 10);
    if (sim_fault(sim, SIM_FAULT_DELAY))
        packet.due_ms += sim_between(sim, 100, 3000);
    if (!reorder)
        packet.due_ms = max_u64(packet.due_ms, *newest);
    if (sim_fault(sim, SIM_FAULT_LOSE) || net_is_cut(sim, packet.from, packet.to)) {
        packet_lost(sim, &packet);
        return;
    }
    if (!reorder)
        *newest = packet.due_ms;
    packet.order = ++sim->packet_order;
    packet_push(sim, packet);
    if (spared || !sim_fault(sim, SIM_FAULT_TWICE))
        return;
    packet.bytes = packet.bytes ? mem_strndup(packet.bytes, packet.length) : NULL;
    packet.due_ms += rng_below(&sim->rng, 300);
    packet.order = ++sim->packet_order;
    packet_push(sim, packet);
}

void net_send(struct sim *sim, uint32_t from, uint32_t to, uint64_t session, uint64_t epoch,
              const struct message *message)
{
    struct buf frame = {0};
    struct envelope envelope = {.epoch = epoch, .session = session, .seq = 1};
    struct err err;
    if (wire_encode(&envelope, message, &frame, &err) < 0) {
        sim_violation(sim, "%s cannot be sent: %s", msg_name(message->tag), err.text);
        return;
    }
    trace_bytes(sim, frame.bytes, frame.length);
    struct sim_packet packet = {
        .from = from, .to = to, .session = session, .epoch = epoch, .length = frame.length};
    packet.bytes = buf_take(&frame);
    packet.ends_session = message->tag == MSG_ATTEMPT_FENCE || message->tag == MSG_COPIES;
    packet_send(sim, packet, message->tag == MSG_WORKER_JOIN || message->tag == MSG_COPIES);
}

void net_request(struct sim *sim, uint32_t coordinator, size_t request)
{
    struct sim_packet packet = {
        .from = SIM_AT_PEOPLE, .to = SIM_AT_COORDINATOR + coordinator, .request = request};
    packet_send(sim, packet, false);
}

/* ---- arriving ---------------------------------------------------------------------------- */

/* Until when the process there is stopped; what arrives waits in its socket. */
static uint64_t asleep_until_ms(const struct sim *sim, uint32_t place)
{
    if (place < SIM_AT_WORKER)
        return sim->coordinators[place].paused_until_ms;
    return place < SIM_AT_PEOPLE ? sim->workers[place - SIM_AT_WORKER].paused_until_ms : 0;
}

static void deliver(struct sim *sim, const struct sim_packet *packet)
{
    struct envelope envelope;
    struct message message;
    struct err err;
    sim->result->messages++;
    if (!packet->bytes) {
        coordinator_on_request(sim, &sim->coordinators[packet->to], packet->request);
        return;
    }
    if (wire_decode(packet->bytes, packet->length, &sim->arena, &envelope, &message, &err) < 0) {
        sim_violation(sim, "a frame cannot be read: %s", err.text);
        return;
    }
    if (packet->to < SIM_AT_WORKER) {
        coordinator_on_packet(sim, &sim->coordinators[packet->to], packet, &message);
        return;
    }
    if (packet->to == SIM_AT_PEOPLE) {
        people_on_answer(sim, packet->from, &message);
        return;
    }
    struct sim_worker *worker = &sim->workers[packet->to - SIM_AT_WORKER];
    if (worker->session == packet->session && worker->link >= SIM_JOINING)
        worker_on_message(sim, worker, packet->epoch, &message);
}

void net_round(struct sim *sim)
{
    while (sim->packet_count && sim->packets[0].due_ms <= sim->now_ms && !sim->violated) {
        struct sim_packet packet = packet_pop(sim);
        uint64_t asleep = asleep_until_ms(sim, packet.to);
        if (asleep > sim->now_ms) {
            packet.due_ms = asleep;
            packet_push(sim, packet);
            continue;
        }
        if (net_is_cut(sim, packet.from, packet.to)) {
            packet_lost(sim, &packet);
            continue;
        }
        deliver(sim, &packet);
        mem_free(packet.bytes);
    }
}

/* ---- partitions -------------------------------------------------------------------------- */

/* One place or a group against all others, in one direction or both. The database is a place,
 * too: a coordinator can lose it and keep its workers. */
static void partition(struct sim *sim)
{
    uint64_t until = sim->now_ms + sim_between(sim, 50, 4000);
    bool one_way = rng_below(&sim->rng, 2), alone = rng_below(&sim->rng, 2);
    uint64_t side = alone ? (uint64_t)1 << rng_below(&sim->rng, SIM_PLACES)
                          : rng_below(&sim->rng, (uint64_t)1 << SIM_PLACES);
    for (uint32_t from = 0; from < SIM_PLACES; from++)
        for (uint32_t to = 0; to < SIM_PLACES; to++) {
            bool inside_from = side >> from & 1, inside_to = side >> to & 1;
            if (inside_from == inside_to || (one_way && inside_from))
                continue;
            sim->cut_until_ms[from][to] = max_u64(sim->cut_until_ms[from][to], until);
        }
    trace_line(sim, "partition %s of %llx until %llu", one_way ? "one way" : "both ways",
               (unsigned long long)side, (unsigned long long)until);
}

void net_faults(struct sim *sim)
{
    if (sim_fault(sim, SIM_FAULT_PARTITION))
        partition(sim);
}

void net_heal(struct sim *sim)
{
    memset(sim->cut_until_ms, 0, sizeof sim->cut_until_ms);
}

void net_done(struct sim *sim)
{
    for (size_t i = 0; i < sim->packet_count; i++)
        mem_free(sim->packets[i].bytes);
    mem_free(sim->packets);
}
