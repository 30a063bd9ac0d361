/* links.c - the module athanor-gang.so; see gang.h. What it uses of common/base comes from the
 * program that loads it. */
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/net/peer.h"
#include "common/net/server.h"
#include "worker/gang/fence.h"
#include "worker/gang/gang.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum command_kind {
    COMMAND_FENCE = 1,
    COMMAND_ASK,
    COMMAND_TOLD,
    COMMAND_END,
    COMMAND_EXEC,
    COMMAND_EXECUTED,
    COMMAND_CLOSE
};

/* What other threads want, handed over under the lock. */
struct command {
    struct command *next;
    enum command_kind kind;
    char *key;
    unsigned char *nodes;
    unsigned rank;
    bool ok;
    uint64_t node, ask_id; /* TOLD: to whom */
    gang_done *done;
    void *cookie;
    char *bytes;
    size_t length;
};

struct ask {
    struct ask *next;
    uint64_t ask_id;
    unsigned rank;
    char *words; /* of an exec, which is asked of `target`; else NULL */
    unsigned target;
    gang_done *done;
    void *cookie;
};

/* What node 0 has asked us to run. Its repeats are answered once there is an end. */
enum errand_state { ERRAND_NONE = 0, ERRAND_NEW, ERRAND_RUNS, ERRAND_ENDED };

struct neighbour { /* a child, or the parent */
    uint64_t peer_id; /* of the server; 0: not here */
    uint64_t heard_ms;
    bool met, left;
};

struct fence_waiter {
    gang_done *done;
    void *cookie;
};

static struct {
    struct gang_config config;
    const struct gang_plan *plan;
    pthread_t thread;
    int command_fd;
    pthread_mutex_t lock; /* of what follows */
    struct command *commands, **commands_end;
    bool is_lost, all_met;
    char lost_text[1000];
    bool has_end;
    struct gang_end end; /* the oldest one known */
    struct {
        enum errand_state state;
        uint64_t ask_id;
        char *words;
        bool ok;
        char text[200];
    } errand;

    /* of the thread */
    struct loop *loop;
    struct server *server;
    struct peer *peer;
    struct fences *fences;
    struct ask *asks;
    uint64_t ask_id;
    struct neighbour parent, *children;
    struct err parent_err; /* why it cannot be reached */
    unsigned first_child, child_count;
    struct loop_timer beat_timer, again_timer;
} gang = {.lock = PTHREAD_MUTEX_INITIALIZER, .command_fd = -1};

unsigned gang_node_of(const struct gang_plan *plan, unsigned rank)
{
    for (unsigned i = 0; i < plan->node_count; i++)
        if (rank - plan->nodes[i].first_rank < plan->nodes[i].ranks)
            return i;
    return plan->node_count;
}

static char *bytes_copy(const char *bytes, size_t length)
{
    char *copy = mem_alloc(length + 1);
    if (length)
        memcpy(copy, bytes, length);
    return copy;
}

/* ---- sending --------------------------------------------------------------------------------- */

/* What cannot be sent now is sent again by a timer, or its loss is noticed by silence. */
static void send_parent(const struct message *message)
{
    struct err err;
    if (gang.peer && peer_is_up(gang.peer) && peer_send(gang.peer, message, NULL, &err) < 0)
        log_warn("%s to the parent node: %s", msg_name(message->tag), err.text);
}

static void send_child(unsigned node, const struct message *message)
{
    struct err err;
    struct neighbour *child = &gang.children[node - gang.first_child];
    if (child->peer_id && server_send(gang.server, child->peer_id, message, &err) < 0)
        child->peer_id = 0; /* it will come again */
}

/* Towards a node anywhere in the tree. */
static void send_towards(unsigned node, const struct message *message)
{
    if (tree_is_below(gang.plan->node, node))
        send_child(tree_step_down(gang.plan->node, node), message);
    else
        send_parent(message);
}

static void send_neighbours(const struct message *message)
{
    send_parent(message);
    for (unsigned i = 0; i < gang.child_count; i++)
        send_child(gang.first_child + i, message);
}

static void end_tell(void)
{
    pthread_mutex_lock(&gang.lock);
    bool has_end = gang.has_end;
    struct gang_end end = gang.end;
    pthread_mutex_unlock(&gang.lock);
    uint64_t now_ms = clock_steady_ms();
    struct message message = {
        .tag = MSG_GANG_END,
        .u.gang_end = {end.node, end.cause, now_ms - min_u64(now_ms, end.began_ms), end.grace_ms,
                       end.text}};
    if (has_end)
        send_neighbours(&message);
}

/* The end first: it may be the last that a neighbour hears of us. */
static void beat(bool leaving)
{
    struct message message = {.tag = MSG_GANG_BEAT,
                              .u.gang_beat = {.node = gang.plan->node, .leaving = leaving}};
    end_tell();
    send_neighbours(&message);
}

/* ---- losses ---------------------------------------------------------------------------------- */

static void wake(void)
{
    uint64_t one = 1;
    ssize_t wrote = write(gang.config.wake_fd, &one, sizeof one);
    (void)wrote; /* only fails when a wake-up is pending already */
}

/* Whether it is older than what was known, and no repeat. */
static bool end_take(const struct gang_end *end)
{
    pthread_mutex_lock(&gang.lock);
    bool taken = !gang.has_end ||
                 (end->node != gang.end.node && end->began_ms < gang.end.began_ms);
    if (taken)
        gang.end = *end;
    gang.has_end = true;
    pthread_mutex_unlock(&gang.lock);
    return taken;
}

static void on_end(const struct msg_gang_end *message)
{
    uint64_t now_ms = clock_steady_ms();
    if (message->node >= gang.plan->node_count || message->node == gang.plan->node)
        return;
    struct gang_end end = {.node = (unsigned)message->node,
                           .began_ms = now_ms - min_u64(now_ms, message->age_ms),
                           .grace_ms = message->grace_ms};
    snprintf(end.cause, sizeof end.cause, "%s", message->cause);
    snprintf(end.text, sizeof end.text, "%s", message->text);
    if (!end_take(&end))
        return;
    end_tell();
    wake();
}

static void lose(unsigned node, uint64_t silent_ms)
{
    pthread_mutex_lock(&gang.lock);
    bool first = !gang.is_lost;
    gang.is_lost = true;
    if (first)
        snprintf(gang.lost_text, sizeof gang.lost_text,
                 "no sign of life of node %u (%s) on node %u (%s) for %llu ms%s%.400s", node,
                 gang.plan->nodes[node].name, gang.plan->node,
                 gang.plan->nodes[gang.plan->node].name, (unsigned long long)silent_ms,
                 node < gang.plan->node && gang.parent_err.text[0] ? ": " : "",
                 node < gang.plan->node ? gang.parent_err.text : "");
    pthread_mutex_unlock(&gang.lock);
    if (first)
        wake();
}

static void neighbour_check(const struct neighbour *neighbour, unsigned node, uint64_t now_ms)
{
    if (!neighbour->left && now_ms - neighbour->heard_ms >= gang.plan->silence_ms)
        lose(node, now_ms - neighbour->heard_ms);
}

static void on_beat_due(void *user)
{
    (void)user;
    uint64_t now_ms = clock_steady_ms();
    beat(false);
    if (gang.plan->node > 0)
        neighbour_check(&gang.parent, tree_parent(gang.plan->node), now_ms);
    for (unsigned i = 0; i < gang.child_count; i++)
        neighbour_check(&gang.children[i], gang.first_child + i, now_ms);
    loop_timer_start(gang.loop, &gang.beat_timer,
                     max_u64(gang.plan->silence_ms / GANG_BEATS, 20));
}

/* ---- fences ---------------------------------------------------------------------------------- */

static struct message fence_message(enum msg_tag tag, const struct fence_name *name,
                                    const char *bytes, size_t length)
{
    struct message message = {.tag = tag};
    struct wire_bytes nodes = {(const char *)name->nodes, GANG_SET_BYTES(gang.plan->node_count)};
    if (tag == MSG_GANG_FENCE)
        message.u.gang_fence =
            (struct msg_gang_fence){name->key, name->round, nodes, {bytes, length}};
    else
        message.u.gang_fenced =
            (struct msg_gang_fenced){name->key, name->round, nodes, {bytes, length}};
    return message;
}

static void fence_up(void *user, const struct fence_name *name, const char *bytes, size_t length)
{
    (void)user;
    struct message message = fence_message(MSG_GANG_FENCE, name, bytes, length);
    send_parent(&message);
}

static void fence_down(void *user, unsigned child, const struct fence_name *name,
                       const char *bytes, size_t length)
{
    (void)user;
    struct message message = fence_message(MSG_GANG_FENCED, name, bytes, length);
    send_child(child, &message);
}

static void fence_done(void *user, void *cookie, bool ok, const char *bytes, size_t length)
{
    struct fence_waiter *waiter = cookie;
    (void)user;
    waiter->done(waiter->cookie, ok, bytes, length);
    mem_free(waiter);
}

static int fence_name_read(const char *key, uint64_t round, const struct wire_bytes *nodes,
                           struct fence_name *out, struct err *err)
{
    *out = (struct fence_name){key, round, (const unsigned char *)nodes->bytes};
    if (nodes->length == GANG_SET_BYTES(gang.plan->node_count))
        return 0;
    return err_set(err, ERR_PROTOCOL, "a set of %zu bytes for %u nodes", nodes->length,
                   gang.plan->node_count);
}

/* ---- asking ---------------------------------------------------------------------------------- */

static void ask_send(const struct ask *ask)
{
    struct message exec = {
        .tag = MSG_GANG_EXEC,
        .u.gang_exec = {gang.plan->node, ask->ask_id, ask->target, ask->words ? ask->words : ""}};
    if (ask->words) {
        send_towards(ask->target, &exec);
        return;
    }
    struct message message = {
        .tag = MSG_GANG_ASK,
        .u.gang_ask = {.node = gang.plan->node, .ask_id = ask->ask_id, .rank = ask->rank}};
    send_towards(gang_node_of(gang.plan, ask->rank), &message);
}

static void ask_start(const struct command *command)
{
    struct ask *ask = mem_alloc(sizeof *ask);
    *ask = (struct ask){.next = gang.asks,
                        .ask_id = ++gang.ask_id,
                        .rank = command->rank,
                        .words = command->kind == COMMAND_EXEC ? mem_strdup(command->key) : NULL,
                        .target = (unsigned)command->node,
                        .done = command->done,
                        .cookie = command->cookie};
    gang.asks = ask;
    ask_send(ask);
}

static void ask_settle(uint64_t ask_id, bool ok, const char *bytes, size_t length)
{
    for (struct ask **at = &gang.asks; *at; at = &(*at)->next) {
        struct ask *ask = *at;
        if (ask->ask_id != ask_id)
            continue;
        *at = ask->next;
        ask->done(ask->cookie, ok, bytes, length);
        mem_free(ask->words);
        mem_free(ask);
        return;
    }
}

struct question { /* of another node about a rank of ours */
    uint64_t node, ask_id;
};

static void command_post(struct command *command);

static void local_told(void *cookie, bool ok, const char *bytes, size_t length)
{
    struct question *question = cookie;
    struct command *command = mem_zalloc(sizeof *command);
    command->kind = COMMAND_TOLD;
    command->node = question->node;
    command->ask_id = question->ask_id;
    command->ok = ok;
    command->bytes = bytes_copy(bytes, length);
    command->length = length;
    mem_free(question);
    command_post(command);
}

static void on_ask(const struct msg_gang_ask *ask, const struct message *message)
{
    unsigned node = gang_node_of(gang.plan, (unsigned)min_u64(ask->rank, UINT32_MAX));
    if (node == gang.plan->node) {
        struct question *question = mem_alloc(sizeof *question);
        *question = (struct question){ask->node, ask->ask_id};
        gang.config.ask_local((unsigned)ask->rank, local_told, question);
    } else if (node < gang.plan->node_count) {
        send_towards(node, message);
    }
}

static void on_tell(const struct msg_gang_tell *tell, const struct message *message)
{
    if (tell->node == gang.plan->node)
        ask_settle(tell->ask_id, tell->ok, tell->data.bytes, tell->data.length);
    else if (tell->node < gang.plan->node_count)
        send_towards((unsigned)tell->node, message);
}

static void tell(const struct command *command)
{
    struct message message = {.tag = MSG_GANG_TELL,
                              .u.gang_tell = {.node = command->node,
                                              .ask_id = command->ask_id,
                                              .ok = command->ok,
                                              .data = {command->bytes, command->length}}};
    if (command->node < gang.plan->node_count)
        send_towards((unsigned)command->node, &message);
}

/* ---- errands --------------------------------------------------------------------------------- */

static void errand_tell(uint64_t ask_id, bool ok, const char *text)
{
    struct command told = {.kind = COMMAND_TOLD,
                           .ask_id = ask_id,
                           .ok = ok,
                           .bytes = (char *)text, /* only read */
                           .length = strlen(text)};
    tell(&told);
}

static void on_exec(const struct msg_gang_exec *exec, const struct message *message)
{
    char text[200];
    if (exec->target != gang.plan->node) {
        if (exec->target < gang.plan->node_count)
            send_towards((unsigned)exec->target, message);
        return;
    }
    pthread_mutex_lock(&gang.lock);
    bool fresh = gang.errand.state == ERRAND_NONE;
    bool other = !fresh && gang.errand.ask_id != exec->ask_id;
    bool ended = gang.errand.state == ERRAND_ENDED, ok = gang.errand.ok;
    if (fresh) {
        gang.errand.state = ERRAND_NEW;
        gang.errand.ask_id = exec->ask_id;
        gang.errand.words = mem_strdup(exec->words);
    }
    snprintf(text, sizeof text, "%s", gang.errand.text);
    pthread_mutex_unlock(&gang.lock);
    if (fresh)
        wake();
    else if (other)
        errand_tell(exec->ask_id, false, "this node runs a daemon of mpirun already");
    else if (ended)
        errand_tell(exec->ask_id, ok, text);
}

static void errand_end(const struct command *command)
{
    errand_tell(command->ask_id, command->ok, command->bytes);
}

/* ---- messages -------------------------------------------------------------------------------- */

static void complain(const struct err *err)
{
    log_warn("another node of this attempt: %s", err->text);
}

static struct neighbour *child_of_peer(uint64_t peer_id, unsigned *out_node)
{
    for (unsigned i = 0; i < gang.child_count; i++)
        if (gang.children[i].peer_id == peer_id) {
            *out_node = gang.first_child + i;
            return &gang.children[i];
        }
    return NULL;
}

/* A parent is met once it has been told of us, with whatever is said to it until we close. */
static void meet(struct neighbour *neighbour)
{
    if (neighbour->met)
        return;
    neighbour->met = true;
    bool all = gang.plan->node == 0 || gang.parent.met;
    for (unsigned i = 0; i < gang.child_count; i++)
        all = all && gang.children[i].met;
    pthread_mutex_lock(&gang.lock);
    gang.all_met = all;
    pthread_mutex_unlock(&gang.lock);
    if (all)
        wake();
}

static void child_beat(const struct server_source *from, const struct msg_gang_beat *beat)
{
    if (beat->node < gang.first_child || beat->node - gang.first_child >= gang.child_count)
        return;
    struct neighbour *child = &gang.children[beat->node - gang.first_child];
    child->peer_id = from->peer_id;
    child->heard_ms = clock_steady_ms();
    child->left |= beat->leaving;
    meet(child);
}

static void on_child(void *user, const struct server_source *from, const struct envelope *envelope,
                     const struct message *message)
{
    struct err err = {0};
    struct fence_name name;
    unsigned node = 0;
    (void)user, (void)envelope;
    if (message->tag == MSG_GANG_BEAT) {
        child_beat(from, &message->u.gang_beat);
        return;
    }
    struct neighbour *child = child_of_peer(from->peer_id, &node);
    if (!child)
        return; /* not introduced: it sends again after its first beat */
    child->heard_ms = clock_steady_ms();
    const struct msg_gang_fence *fence = &message->u.gang_fence;
    if (message->tag == MSG_GANG_END)
        on_end(&message->u.gang_end);
    else if (message->tag == MSG_GANG_ASK)
        on_ask(&message->u.gang_ask, message);
    else if (message->tag == MSG_GANG_TELL)
        on_tell(&message->u.gang_tell, message);
    else if (message->tag == MSG_GANG_EXEC)
        on_exec(&message->u.gang_exec, message);
    else if (message->tag == MSG_GANG_FENCE &&
             (fence_name_read(fence->key, fence->round, &fence->nodes, &name, &err) < 0 ||
              fences_from_child(gang.fences, node, &name, fence->data.bytes, fence->data.length,
                                &err) < 0))
        complain(&err);
}

static void on_parent(void *user, const struct envelope *envelope, const struct message *message)
{
    struct err err = {0};
    struct fence_name name;
    const struct msg_gang_fenced *fenced = &message->u.gang_fenced;
    (void)user, (void)envelope;
    gang.parent.heard_ms = clock_steady_ms();
    if (message->tag == MSG_GANG_BEAT)
        gang.parent.left |= message->u.gang_beat.leaving;
    else if (message->tag == MSG_GANG_END)
        on_end(&message->u.gang_end);
    else if (message->tag == MSG_GANG_ASK)
        on_ask(&message->u.gang_ask, message);
    else if (message->tag == MSG_GANG_TELL)
        on_tell(&message->u.gang_tell, message);
    else if (message->tag == MSG_GANG_EXEC)
        on_exec(&message->u.gang_exec, message);
    else if (message->tag == MSG_GANG_FENCED &&
             (fence_name_read(fenced->key, fenced->round, &fenced->nodes, &name, &err) < 0 ||
              fences_from_parent(gang.fences, &name, fenced->data.bytes, fenced->data.length,
                                 &err) < 0))
        complain(&err);
}

static void again(void)
{
    fences_again(gang.fences);
    for (const struct ask *ask = gang.asks; ask; ask = ask->next)
        ask_send(ask);
}

static void on_again_due(void *user)
{
    (void)user;
    again();
    loop_timer_start(gang.loop, &gang.again_timer, GANG_AGAIN_MS);
}

static void on_parent_up(void *user, const struct msg_welcome *welcome)
{
    (void)user, (void)welcome;
    gang.parent.heard_ms = clock_steady_ms();
    beat(false);
    again();
    meet(&gang.parent);
}

static void on_parent_down(void *user, const struct err *why)
{
    (void)user;
    gang.parent_err = *why;
}

static bool principal_find(void *user, const char *public_key, struct server_principal *out)
{
    (void)user;
    *out = (struct server_principal){"gang", ROLE_WORKER};
    return strcmp(public_key, gang.plan->own.public_key) == 0;
}

/* ---- commands -------------------------------------------------------------------------------- */

static void command_post(struct command *command)
{
    uint64_t one = 1;
    pthread_mutex_lock(&gang.lock);
    *gang.commands_end = command;
    gang.commands_end = &command->next;
    pthread_mutex_unlock(&gang.lock);
    ssize_t wrote = write(gang.command_fd, &one, sizeof one);
    (void)wrote; /* only fails when a wake-up is pending already */
}

static void command_free(struct command *command)
{
    mem_free(command->key);
    mem_free(command->nodes);
    mem_free(command->bytes);
    mem_free(command);
}

static void fence_start(const struct command *command)
{
    struct fence_waiter *waiter = mem_alloc(sizeof *waiter);
    *waiter = (struct fence_waiter){command->done, command->cookie};
    fences_enter(gang.fences, command->key, command->nodes, command->bytes, command->length,
                 waiter);
}

static void command_do(const struct command *command)
{
    switch (command->kind) {
    case COMMAND_FENCE:
        fence_start(command);
        break;
    case COMMAND_ASK:
    case COMMAND_EXEC:
        ask_start(command);
        break;
    case COMMAND_EXECUTED:
        errand_end(command);
        break;
    case COMMAND_TOLD:
        tell(command);
        break;
    case COMMAND_END:
        end_tell();
        break;
    case COMMAND_CLOSE:
        beat(true);
        loop_stop(gang.loop);
        break;
    }
}

static void on_command(void *user, unsigned events)
{
    uint64_t count;
    (void)user, (void)events;
    ssize_t got = read(gang.command_fd, &count, sizeof count);
    (void)got; /* the list says what there is */
    for (;;) {
        pthread_mutex_lock(&gang.lock);
        struct command *command = gang.commands;
        if (command) {
            gang.commands = command->next;
            if (!gang.commands)
                gang.commands_end = &gang.commands;
        }
        pthread_mutex_unlock(&gang.lock);
        if (!command)
            return;
        command_do(command);
        command_free(command);
    }
}

/* ---- opening and closing --------------------------------------------------------------------- */

static void keys_of(const struct gang_link *link, struct keypair *out)
{
    snprintf(out->public_key, sizeof out->public_key, "%s", link->public_key);
    snprintf(out->secret_key, sizeof out->secret_key, "%s", link->secret_key);
}

static int server_start(struct err *err)
{
    struct keypair keys;
    keys_of(&gang.plan->own, &keys);
    struct server_config config = {.endpoints = &gang.plan->own.endpoint,
                                   .endpoint_count = 1,
                                   .keys = &keys,
                                   .listen_fd = gang.config.listen_fd,
                                   .principal_find = principal_find,
                                   .on_message = on_child};
    int rc = server_open(gang.loop, &config, &gang.server, err);
    keypair_wipe(&keys);
    if (rc == 0)
        server_lead(gang.server, 0); /* nobody else could */
    return rc;
}

static int peer_start(struct err *err)
{
    struct keypair keys;
    keys_of(&gang.plan->parent, &keys);
    struct peer_config config = {.endpoints = &gang.plan->parent.endpoint,
                                 .endpoint_count = 1,
                                 .server_key = gang.plan->parent.public_key,
                                 .keys = &keys,
                                 .program = "athanor-shepherd",
                                 .version = "",
                                 .on_up = on_parent_up,
                                 .on_down = on_parent_down,
                                 .on_message = on_parent};
    int rc = peer_open(gang.loop, &config, &gang.peer, err);
    keypair_wipe(&keys);
    return rc;
}

static void *thread_run(void *user)
{
    struct err err;
    (void)user;
    if (loop_run(gang.loop, &err) < 0)
        log_error("links to other nodes: %s", err.text);
    return NULL;
}

static void neighbours_prepare(void)
{
    uint64_t now_ms = clock_steady_ms();
    gang.child_count =
        tree_children(gang.plan->node, gang.plan->node_count, &gang.first_child);
    gang.children = mem_array(gang.child_count + 1, sizeof *gang.children);
    for (unsigned i = 0; i < gang.child_count; i++)
        gang.children[i] = (struct neighbour){.heard_ms = now_ms};
    gang.all_met = gang.child_count == 0 && gang.plan->node == 0;
    gang.parent = (struct neighbour){.heard_ms = now_ms};
}

static int links_open(struct err *err)
{
    gang.loop = loop_new();
    gang.beat_timer.fire = on_beat_due;
    gang.again_timer.fire = on_again_due;
    loop_add_fd(gang.loop, gang.command_fd, LOOP_READ, on_command, NULL);
    if (gang.child_count > 0 && server_start(err) < 0)
        return -1;
    if (gang.plan->node > 0 && peer_start(err) < 0)
        return -1;
    loop_timer_start(gang.loop, &gang.beat_timer, 0);
    loop_timer_start(gang.loop, &gang.again_timer, GANG_AGAIN_MS);
    int rc = pthread_create(&gang.thread, NULL, thread_run, NULL);
    if (rc == 0)
        return 0;
    errno = rc;
    return err_errno(err, "start a thread for the links to other nodes");
}

static int host_open(const struct gang_config *config, struct err *err)
{
    CHECK(!gang.plan); /* one per process */
    const struct fence_actions actions = {NULL, fence_up, fence_down, fence_done};
    gang.config = *config;
    gang.plan = config->plan;
    gang.commands_end = &gang.commands;
    gang.command_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (gang.command_fd < 0)
        return err_errno(err, "make an eventfd");
    gang.fences = fences_new(gang.plan->node, gang.plan->node_count, &actions);
    neighbours_prepare();
    return links_open(err);
}

static void host_fence(const char *key, const unsigned char *nodes, const char *bytes,
                       size_t length, gang_done *done, void *cookie)
{
    struct command *command = mem_zalloc(sizeof *command);
    size_t set = GANG_SET_BYTES(gang.plan->node_count);
    command->kind = COMMAND_FENCE;
    command->key = mem_strdup(key);
    command->nodes = mem_alloc(set);
    memcpy(command->nodes, nodes, set);
    command->bytes = bytes_copy(bytes, length);
    command->length = length;
    command->done = done;
    command->cookie = cookie;
    command_post(command);
}

static void host_ask(unsigned rank, gang_done *done, void *cookie)
{
    struct command *command = mem_zalloc(sizeof *command);
    command->kind = COMMAND_ASK;
    command->rank = rank;
    command->done = done;
    command->cookie = cookie;
    command_post(command);
}

static bool host_lost(char *out_text, size_t size)
{
    pthread_mutex_lock(&gang.lock);
    bool lost = gang.is_lost;
    snprintf(out_text, size, "%s", gang.lost_text);
    pthread_mutex_unlock(&gang.lock);
    return lost;
}

static void host_exec(unsigned node, const char *words, gang_done *done, void *cookie)
{
    struct command *command = mem_zalloc(sizeof *command);
    command->kind = COMMAND_EXEC;
    command->node = node;
    command->key = mem_strdup(words);
    command->done = done;
    command->cookie = cookie;
    command_post(command);
}

static char *host_wanted(void)
{
    char *words = NULL;
    pthread_mutex_lock(&gang.lock);
    if (gang.errand.state == ERRAND_NEW) {
        gang.errand.state = ERRAND_RUNS;
        words = gang.errand.words;
        gang.errand.words = NULL;
    }
    pthread_mutex_unlock(&gang.lock);
    return words;
}

static void host_executed(bool ok, const char *text)
{
    struct command *command = mem_zalloc(sizeof *command);
    command->kind = COMMAND_EXECUTED;
    command->ok = ok;
    command->bytes = mem_strdup(text);
    pthread_mutex_lock(&gang.lock);
    gang.errand.state = ERRAND_ENDED;
    gang.errand.ok = ok;
    snprintf(gang.errand.text, sizeof gang.errand.text, "%s", text);
    command->ask_id = gang.errand.ask_id;
    pthread_mutex_unlock(&gang.lock);
    command_post(command);
}

static void host_end(const struct gang_end *end)
{
    struct command *command = mem_zalloc(sizeof *command);
    command->kind = COMMAND_END;
    end_take(end);
    command_post(command);
}

static bool host_ended(struct gang_end *out)
{
    pthread_mutex_lock(&gang.lock);
    bool ended = gang.has_end;
    *out = gang.end;
    pthread_mutex_unlock(&gang.lock);
    return ended;
}

static bool host_met(void)
{
    pthread_mutex_lock(&gang.lock);
    bool met = gang.all_met;
    pthread_mutex_unlock(&gang.lock);
    return met;
}

/* The process ends afterwards; ranks that waited for an answer have ended before. */
static void host_close(void)
{
    struct command *command = mem_zalloc(sizeof *command);
    command->kind = COMMAND_CLOSE;
    command_post(command);
    pthread_join(gang.thread, NULL);
    peer_close(gang.peer);
    server_close(gang.server);
    fences_free(gang.fences);
    loop_free(gang.loop);
    close(gang.command_fd);
    mem_free(gang.children);
}

extern const struct gang_host gang_host_module;
const struct gang_host gang_host_module = {
    host_open, host_fence, host_ask,  host_lost,   host_end,     host_ended,
    host_met,  host_exec,  host_wanted, host_executed, host_close};
