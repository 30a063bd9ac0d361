/* gang.c - see gang.h. */
#include "worker/daemon/gang.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/net/server.h"
#include "worker/daemon/address.h"
#include "worker/daemon/daemon.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

/* One attempt that waits for word from its parent's daemon. */
struct meeting {
    struct meeting *next;
    struct daemon *daemon;
    uint64_t attempt_id, epoch, until_ms;
    struct arena arena; /* holds start */
    struct msg_start start;
    struct peer *peer;
    struct loop_timer timer;
    struct err last; /* why it does not work yet */
};

/* ---- START ----------------------------------------------------------------------------------- */

bool gang_has_parent(const struct msg_start *start)
{
    return start->nodes_count > 1 && start->node > 0;
}

int gang_ranks(const struct msg_start *start, uint64_t *out, struct err *err)
{
    uint64_t sum = 0;
    *out = start->ranks;
    if (start->nodes_count <= 1)
        return 0;
    for (size_t i = 0; i < start->nodes_count; i++) {
        const struct rec_attempt_node *node = &start->nodes[i];
        if (node->first_rank != sum || node->ranks == 0 || node->ranks > PLAN_RANKS_MAX)
            return err_set(err, ERR_PROTOCOL, "node %zu: ranks from %" PRIu64 ", expected %" PRIu64,
                           i, node->first_rank, sum);
        sum += node->ranks;
    }
    if (start->nodes_count > GANG_NODES_MAX || start->node >= start->nodes_count ||
        sum != start->ranks)
        return err_set(err, ERR_PROTOCOL,
                       "node %" PRIu64 " of %zu nodes with %" PRIu64 " of %" PRIu64
                       " ranks; at most %u nodes",
                       start->node, start->nodes_count, sum, start->ranks, GANG_NODES_MAX);
    *out = start->nodes[start->node].ranks;
    return 0;
}

/* ---- being asked ----------------------------------------------------------------------------- */

static bool principal_find(void *user, const char *public_key, struct server_principal *out)
{
    const struct daemon *daemon = user;
    *out = (struct server_principal){"neighbour", ROLE_WORKER};
    for (const struct attempt *attempt = daemon->attempts; attempt; attempt = attempt->next)
        for (unsigned i = 0; attempt->gang && i < attempt->gang->node_count; i++)
            if (strcmp(attempt->gang->public_keys[i], public_key) == 0)
                return true;
    return copies_permits(daemon, public_key);
}

/* The attempt whose node `meet->node`, a child of ours, has the key of the one who asks. */
static const struct attempt_gang *gang_of(struct daemon *daemon, const struct server_source *from,
                                          const struct msg_gang_meet *meet)
{
    const struct attempt *attempt = attempt_find(daemon, meet->attempt_id);
    const struct attempt_gang *gang = attempt ? attempt->gang : NULL;
    if (!gang || meet->node == 0 || meet->node >= gang->node_count ||
        tree_parent((unsigned)meet->node) != gang->node ||
        strcmp(gang->public_keys[meet->node], from->public_key) != 0)
        return NULL;
    return gang;
}

static void on_asked(void *user, const struct server_source *from, const struct envelope *envelope,
                     const struct message *message)
{
    struct daemon *daemon = user;
    struct err err = {0};
    if (message->tag == MSG_COPY_GET) {
        copies_serve(daemon, from, envelope->seq, &message->u.copy_get);
        return;
    }
    const struct msg_gang_meet *meet = &message->u.gang_meet;
    const struct attempt_gang *gang =
        message->tag == MSG_GANG_MEET ? gang_of(daemon, from, meet) : NULL;
    if (!gang) {
        err_set(&err, ERR_NOT_FOUND, "this node has no part in that attempt");
        server_refuse(daemon->neighbours, from->peer_id, envelope->seq, &err);
        return;
    }
    struct message met = {.tag = MSG_GANG_MET,
                          .u.gang_met = {.request_seq = envelope->seq,
                                         .endpoint = gang->endpoint,
                                         .public_key = gang->keys.public_key,
                                         .secret_key = gang->keys.secret_key,
                                         .master_port = gang->master_port}};
    if (server_send(daemon->neighbours, from->peer_id, &met, &err) < 0)
        log_warn("attempt %" PRIu64 ": answer to node %" PRIu64 ": %s", meet->attempt_id,
                 meet->node, err.text);
}

int gang_open(struct daemon *daemon, const struct keypair *keys, struct err *err)
{
    const struct options *options = daemon->options;
    char *endpoint = NULL;
    daemon->keys = *keys;
    daemon->links_address = mem_strdup("");
    if (strcmp(options->links, "none") == 0)
        return 0;
    if (address_links(options, &endpoint, &daemon->links_address, err) < 0)
        return err_wrap(err, "--links");
    struct server_config config = {.endpoints = (const char *const *)&endpoint,
                                   .endpoint_count = 1,
                                   .keys = keys,
                                   .user = daemon,
                                   .principal_find = principal_find,
                                   .on_message = on_asked};
    int rc = server_open(daemon->loop, &config, &daemon->neighbours, err);
    mem_free(endpoint);
    if (rc < 0)
        return err_wrap(err, "--links");
    server_lead(daemon->neighbours, 0); /* nobody else could */
    /* The socket names IPv4 addresses as IPv6 does, which programs of ranks need not know. */
    const char *port = strrchr(server_endpoint(daemon->neighbours, 0), ':');
    daemon->links_endpoint = mem_printf("tcp://%s%s", daemon->links_address, port);
    return 0;
}

const char *gang_endpoint(const struct daemon *daemon)
{
    return daemon->links_endpoint ? daemon->links_endpoint : "";
}

const char *gang_public_key(const struct daemon *daemon)
{
    return daemon->neighbours ? daemon->keys.public_key : "";
}

/* ---- asking ---------------------------------------------------------------------------------- */

static struct meeting **meeting_at(struct daemon *daemon, uint64_t attempt_id)
{
    struct meeting **at = &daemon->meetings;
    while (*at && (*at)->attempt_id != attempt_id)
        at = &(*at)->next;
    return at;
}

bool gang_is_meeting(const struct daemon *daemon, uint64_t attempt_id)
{
    const struct meeting *meeting = daemon->meetings;
    while (meeting && meeting->attempt_id != attempt_id)
        meeting = meeting->next;
    return meeting != NULL;
}

static struct meeting *meeting_unlink(struct daemon *daemon, uint64_t attempt_id)
{
    struct meeting **at = meeting_at(daemon, attempt_id), *meeting = *at;
    if (meeting)
        *at = meeting->next;
    return meeting;
}

static void meeting_free(struct meeting *meeting)
{
    loop_timer_stop(&meeting->timer);
    peer_close(meeting->peer);
    arena_done(&meeting->arena);
    mem_free(meeting);
}

/* From a timer: never within a callback of the peer that it closes. */
static void meeting_fail(struct meeting *meeting, enum cause cause, const char *text)
{
    struct daemon *daemon = meeting->daemon;
    meeting_unlink(daemon, meeting->attempt_id);
    start_failed(daemon, &meeting->start, meeting->epoch, cause, text);
    meeting_free(meeting);
}

void gang_meet_stop(struct daemon *daemon, uint64_t attempt_id, enum cause cause)
{
    struct meeting *meeting = *meeting_at(daemon, attempt_id);
    if (meeting)
        meeting_fail(meeting, cause, "stopped before its ranks were started");
}

void gang_meet_fence(struct daemon *daemon, uint64_t attempt_id)
{
    struct meeting *meeting = meeting_unlink(daemon, attempt_id);
    if (meeting)
        meeting_free(meeting);
}

void gang_close(struct daemon *daemon)
{
    for (struct meeting *meeting; (meeting = daemon->meetings);)
        gang_meet_fence(daemon, meeting->attempt_id);
    server_close(daemon->neighbours);
    daemon->neighbours = NULL;
    keypair_wipe(&daemon->keys);
    mem_free(daemon->links_address);
    mem_free(daemon->links_endpoint);
}

static const struct rec_attempt_node *parent_of(const struct meeting *meeting)
{
    return &meeting->start.nodes[tree_parent((unsigned)meeting->start.node)];
}

static void meet_send(struct meeting *meeting)
{
    struct err err = {0};
    struct message message = {.tag = MSG_GANG_MEET,
                              .u.gang_meet = {meeting->attempt_id, meeting->start.node}};
    if (peer_send(meeting->peer, &message, NULL, &err) < 0)
        meeting->last = err;
}

static void on_up(void *user, const struct msg_welcome *welcome)
{
    (void)welcome;
    meet_send(user);
}

static void on_down(void *user, const struct err *why)
{
    struct meeting *meeting = user;
    meeting->last = *why;
}

static void on_answer(void *user, const struct envelope *envelope, const struct message *message)
{
    struct meeting *meeting = user;
    struct daemon *daemon = meeting->daemon;
    (void)envelope;
    if (message->tag == MSG_GANG_MET && meeting_unlink(daemon, meeting->attempt_id)) {
        start_met(daemon, &meeting->start, meeting->epoch, &message->u.gang_met);
        meeting->until_ms = 0; /* over; freed by its timer, for this is its peer calling */
        loop_timer_start(daemon->loop, &meeting->timer, 0);
    } else if (message->tag == MSG_REFUSED) {
        err_set(&meeting->last, ERR_NOT_FOUND, "%s", message->u.refused.text);
    }
}

static int peer_make(struct meeting *meeting, struct err *err)
{
    const struct rec_attempt_node *parent = parent_of(meeting);
    struct peer_config config = {.endpoints = &parent->endpoint,
                                 .endpoint_count = 1,
                                 .server_key = parent->public_key,
                                 .keys = &meeting->daemon->keys,
                                 .program = "athanor-worker",
                                 .version = ATHANOR_VERSION,
                                 .user = meeting,
                                 .on_up = on_up,
                                 .on_down = on_down,
                                 .on_message = on_answer};
    return peer_open(meeting->daemon->loop, &config, &meeting->peer, err);
}

/* A daemon that has not had its own START yet does not know our key and says nothing at all, so
 * that a connection which is not up by now is made anew. */
static void on_meeting_due(void *user)
{
    struct meeting *meeting = user;
    struct daemon *daemon = meeting->daemon;
    struct err err = {0};
    if (meeting->until_ms == 0) {
        meeting_free(meeting);
        return;
    }
    if (clock_steady_ms() >= meeting->until_ms) {
        const struct rec_attempt_node *parent = parent_of(meeting);
        err_set(&err, ERR_TIMEOUT, "worker '%s' could not be reached at %s: %s", parent->name,
                parent->endpoint, meeting->last.text);
        meeting_fail(meeting, CAUSE_LAUNCH_FAILED, err.text);
        return;
    }
    if (meeting->peer && peer_is_up(meeting->peer)) {
        meet_send(meeting);
    } else {
        peer_close(meeting->peer);
        meeting->peer = NULL;
        if (peer_make(meeting, &err) < 0) {
            meeting_fail(meeting, CAUSE_LAUNCH_FAILED, err.text);
            return;
        }
    }
    loop_timer_start(daemon->loop, &meeting->timer, GANG_MEET_AGAIN_MS);
}

void gang_meet(struct daemon *daemon, const struct msg_start *start, uint64_t epoch)
{
    struct err err = {0};
    uint64_t ranks;
    struct meeting *meeting = mem_zalloc(sizeof *meeting);
    meeting->daemon = daemon;
    meeting->attempt_id = start->attempt_id;
    meeting->epoch = epoch;
    meeting->until_ms = clock_steady_ms() + GANG_MEET_MS;
    meeting->timer.fire = on_meeting_due;
    meeting->timer.user = meeting;
    if (gang_ranks(start, &ranks, &err) < 0 ||
        start_copy(start, &meeting->arena, &meeting->start, &err) < 0) {
        start_failed(daemon, start, epoch, CAUSE_LAUNCH_FAILED, err.text);
        meeting_free(meeting);
        return;
    }
    meeting->next = daemon->meetings;
    daemon->meetings = meeting;
    on_meeting_due(meeting);
}

/* The parent's daemon may have been restarted since, and be reached elsewhere now. */
void gang_meet_again(struct daemon *daemon, const struct msg_start *start)
{
    struct meeting *meeting = *meeting_at(daemon, start->attempt_id);
    if (start->nodes_count != meeting->start.nodes_count || start->node != meeting->start.node)
        return;
    struct rec_attempt_node *known = &meeting->start.nodes[tree_parent((unsigned)start->node)];
    const struct rec_attempt_node *told = &start->nodes[tree_parent((unsigned)start->node)];
    if (strcmp(known->endpoint, told->endpoint) == 0 &&
        strcmp(known->public_key, told->public_key) == 0)
        return;
    known->endpoint = arena_strdup(&meeting->arena, told->endpoint);
    known->public_key = arena_strdup(&meeting->arena, told->public_key);
    peer_close(meeting->peer);
    meeting->peer = NULL; /* the timer makes the next */
}

/* ---- our end --------------------------------------------------------------------------------- */

static struct attempt_gang *gang_new(unsigned node, unsigned node_count)
{
    struct attempt_gang *gang = mem_zalloc(sizeof *gang);
    gang->node = node;
    gang->node_count = node_count;
    gang->endpoint = "";
    gang->public_keys = arena_alloc(&gang->arena, node_count * sizeof *gang->public_keys);
    return gang;
}

void gang_free(struct attempt_gang *gang)
{
    if (!gang)
        return;
    keypair_wipe(&gang->keys);
    arena_done(&gang->arena);
    mem_free(gang);
}

static int own_end_make(struct daemon *daemon, struct attempt_gang *gang, int *out_listen_fd,
                        struct err *err)
{
    unsigned first, port;
    if (gang->node == 0 && address_free_port(daemon->links_address, &gang->master_port, err) < 0)
        return -1;
    if (tree_children(gang->node, gang->node_count, &first) == 0)
        return 0;
    if (address_listen(daemon->links_address, out_listen_fd, &port, err) < 0)
        return -1;
    gang->endpoint = arena_printf(&gang->arena, "tcp://%s:%u", daemon->links_address, port);
    keypair_make(&gang->keys);
    return 0;
}

int gang_prepare(struct daemon *daemon, const struct msg_start *start,
                 const struct msg_gang_met *met, struct attempt_gang **out, int *out_listen_fd,
                 struct err *err)
{
    *out = NULL;
    *out_listen_fd = -1;
    if (start->nodes_count <= 1)
        return 0;
    if (!daemon->neighbours)
        return err_set(err, ERR_INVALID, "this worker takes no part in attempts on several nodes "
                                         "(--links none)");
    struct attempt_gang *gang = gang_new((unsigned)start->node, (unsigned)start->nodes_count);
    for (unsigned i = 0; i < gang->node_count; i++)
        gang->public_keys[i] = arena_strdup(&gang->arena, start->nodes[i].public_key);
    gang->master_port = met ? (unsigned)met->master_port : 0;
    *out = gang; /* the attempt's from now on, also when this fails */
    return own_end_make(daemon, gang, out_listen_fd, err);
}

/* ---- the plan -------------------------------------------------------------------------------- */

static json_t *link_json(const char *endpoint, const char *public_key, const char *secret_key)
{
    return json_pack("{s:s, s:s, s:s}", "endpoint", endpoint, "public_key", public_key,
                     "secret_key", secret_key);
}

static json_t *nodes_json(const struct msg_start *start)
{
    json_t *nodes = json_array();
    for (size_t i = 0; i < start->nodes_count; i++) {
        const struct rec_attempt_node *node = &start->nodes[i];
        char *address = address_of_endpoint(node->endpoint);
        json_array_append_new(
            nodes, json_pack("{s:s, s:s, s:s, s:I, s:I}", "name", node->name, "address", address,
                             "public_key", node->public_key, "first_rank",
                             (json_int_t)node->first_rank, "ranks", (json_int_t)node->ranks));
        mem_free(address);
    }
    return nodes;
}

json_t *gang_plan_json(const struct daemon *daemon, const struct msg_start *start,
                       const struct msg_gang_met *met, const struct attempt_gang *gang)
{
    json_t *root = json_pack(
        "{s:I, s:o, s:I, s:I, s:o}", "node", (json_int_t)gang->node, "nodes", nodes_json(start),
        "master_port", (json_int_t)gang->master_port, "silence_ms",
        (json_int_t)(daemon->lease_ms ? daemon->lease_ms : PLAN_SILENCE_MS_DEFAULT), "own",
        link_json(gang->endpoint, gang->keys.public_key, gang->keys.secret_key));
    if (root && met)
        json_object_set_new(root, "parent",
                            link_json(met->endpoint, met->public_key, met->secret_key));
    return root;
}

struct attempt_gang *gang_from_plan(const struct plan *plan)
{
    const struct gang_plan *from = plan->gang;
    if (!from)
        return NULL;
    struct attempt_gang *gang = gang_new(from->node, from->node_count);
    for (unsigned i = 0; i < from->node_count; i++)
        gang->public_keys[i] = arena_strdup(&gang->arena, from->nodes[i].public_key);
    gang->endpoint = arena_strdup(&gang->arena, from->own.endpoint);
    snprintf(gang->keys.public_key, sizeof gang->keys.public_key, "%s", from->own.public_key);
    snprintf(gang->keys.secret_key, sizeof gang->keys.secret_key, "%s", from->own.secret_key);
    gang->master_port = from->master_port;
    return gang;
}
