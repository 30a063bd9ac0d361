/* links_test.c - seventy shepherds, more than one level of the tree, each a process of its own
 * that holds nothing but the links: fences, questions, errands and an end between nodes at its
 * leaves. */
#include "worker/gang/gang.h"

#include "common/base/mem.h"
#include "common/net/keys.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define NODES      70u /* 65 to 69 hang below node 1 */
#define LEAF       69u
#define OTHER_LEAF 30u
#define SECONDS    60u /* then a node gives up, and the test has failed */

struct place { /* where the children of a node connect */
    int fd;
    char endpoint[64];
    struct keypair keys;
};

/* ---- one node -------------------------------------------------------------------------------- */

static unsigned own;
static const struct gang_host *host;

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool done, ok;
    char text[64];
    size_t length;
} answer = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, false, "", 0};

/* Not cmocka's: this is another process, whose exit code says which step failed. */
static void need(bool truth, int step)
{
    if (truth)
        return;
    fprintf(stderr, "node %u: step %d failed\n", own, step);
    _exit(step);
}

static void on_answer(void *cookie, bool ok, const char *bytes, size_t length)
{
    (void)cookie;
    pthread_mutex_lock(&answer.lock);
    answer.done = true;
    answer.ok = ok;
    answer.length = length;
    snprintf(answer.text, sizeof answer.text, "%.*s", (int)min_u64(length, 63), bytes ? bytes : "");
    pthread_cond_signal(&answer.changed);
    pthread_mutex_unlock(&answer.lock);
}

static void answer_await(int step)
{
    pthread_mutex_lock(&answer.lock);
    while (!answer.done)
        pthread_cond_wait(&answer.changed, &answer.lock);
    answer.done = false;
    bool ok = answer.ok;
    pthread_mutex_unlock(&answer.lock);
    need(ok, step);
}

static void tell_rank(unsigned rank, gang_done *done, void *cookie)
{
    char text[32];
    snprintf(text, sizeof text, "I am %u", rank);
    done(cookie, true, text, strlen(text));
}

/* Each contributes its number of bytes: the sum says that all are there, once. */
static void fence(const char *key, const unsigned char *nodes, int step)
{
    char bytes[NODES];
    size_t sum = 0;
    memset(bytes, 'a', sizeof bytes);
    if (!node_set_has(nodes, own))
        return;
    for (unsigned i = 0; i < NODES; i++)
        sum += node_set_has(nodes, i) ? i : 0;
    host->fence(key, nodes, bytes, own, on_answer, NULL);
    answer_await(step);
    need(answer.length == sum, step + 1);
}

static void wake_await(int wake_fd)
{
    struct pollfd ready = {.fd = wake_fd, .events = POLLIN};
    uint64_t count;
    poll(&ready, 1, -1);
    need(read(wake_fd, &count, sizeof count) == (ssize_t)sizeof count, 30);
}

static void errand(int wake_fd)
{
    char *words;
    if (own == 0) {
        host->exec(LEAF, "sh words", on_answer, NULL);
        answer_await(31);
        need(strcmp(answer.text, "7") == 0, 32);
    } else if (own == LEAF) {
        while (!(words = host->wanted()))
            wake_await(wake_fd);
        need(strcmp(words, "sh words") == 0, 33);
        mem_free(words);
        host->executed(true, "7");
    }
}

static void end_everywhere(int wake_fd)
{
    struct gang_end end = {.node = LEAF, .cause = "signal", .grace_ms = 5, .text = "rank 69 died"};
    if (own == LEAF) {
        end.began_ms = 1;
        host->end(&end);
        return;
    }
    memset(&end, 0, sizeof end);
    while (!host->ended(&end))
        wake_await(wake_fd);
    need(end.node == LEAF && end.grace_ms == 5 && strcmp(end.cause, "signal") == 0 &&
             strcmp(end.text, "rank 69 died") == 0,
         40);
}

static void node_live(const struct gang_plan *plan, int listen_fd)
{
    unsigned char all[GANG_SET_BYTES(NODES)] = {0}, some[GANG_SET_BYTES(NODES)] = {0};
    struct gang_config config = {.plan = plan,
                                 .listen_fd = listen_fd,
                                 .wake_fd = eventfd(0, EFD_CLOEXEC),
                                 .ask_local = tell_rank};
    struct err err = {0};
    for (unsigned i = 0; i < NODES; i++)
        node_set_add(all, i);
    node_set_add(some, 1);
    node_set_add(some, OTHER_LEAF);
    node_set_add(some, 66);
    need(host->open(&config, &err) == 0, 10);
    fence("*", all, 11);
    fence("*", all, 13);
    fence("some", some, 15);
    if (own == LEAF || own == OTHER_LEAF) {
        unsigned other = own == LEAF ? OTHER_LEAF : LEAF;
        char expected[32];
        host->ask(other, on_answer, NULL);
        answer_await(20);
        snprintf(expected, sizeof expected, "I am %u", other);
        need(strcmp(answer.text, expected) == 0, 21);
    }
    errand(config.wake_fd);
    fence("*", all, 35);
    end_everywhere(config.wake_fd);
    host->close();
    _exit(0);
}

/* ---- all of them ----------------------------------------------------------------------------- */

static void module_load(void)
{
    char self[PATH_MAX], path[PATH_MAX + 32];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    need(length > 0, 2);
    self[length] = '\0';
    snprintf(path, sizeof path, "%s/../bin/" GANG_HOST_MODULE, dirname(self));
    void *module = dlopen(path, RTLD_NOW);
    if (!module)
        fprintf(stderr, "%s\n", dlerror());
    need(module != NULL, 3);
    host = dlsym(module, GANG_HOST_SYMBOL);
    need(host != NULL, 4);
}

static void place_make(struct place *place)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof at;
    place->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(place->fd, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(place->fd, 128), 0);
    assert_int_equal(getsockname(place->fd, (struct sockaddr *)&at, &length), 0);
    snprintf(place->endpoint, sizeof place->endpoint, "tcp://127.0.0.1:%u", ntohs(at.sin_port));
    keypair_make(&place->keys);
}

static struct gang_link link_of(const struct place *place)
{
    return (struct gang_link){place->endpoint, place->keys.public_key, place->keys.secret_key};
}

static pid_t node_start(unsigned node, const struct place places[2], const struct gang_node *nodes)
{
    struct gang_link none = {"", "", ""};
    unsigned first;
    bool parent = tree_children(node, NODES, &first) > 0;
    struct gang_plan plan = {.node = node,
                             .node_count = NODES,
                             .nodes = nodes,
                             .own = parent ? link_of(&places[node]) : none,
                             .parent = node ? link_of(&places[tree_parent(node)]) : none,
                             .silence_ms = 1000 * SECONDS};
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    alarm(SECONDS);
    own = node;
    module_load();
    node_live(&plan, parent ? places[node].fd : -1);
    _exit(1);
}

static void leaves_of_a_tree_of_two_levels_reach_each_other(void **state)
{
    struct place places[2];
    struct gang_node nodes[NODES];
    char names[NODES][8];
    pid_t pids[NODES];
    (void)state;
    place_make(&places[0]);
    place_make(&places[1]);
    for (unsigned i = 0; i < NODES; i++) {
        snprintf(names[i], sizeof names[i], "n%u", i);
        nodes[i] = (struct gang_node){
            .name = names[i], .address = "127.0.0.1", .first_rank = i, .ranks = 1};
    }
    for (unsigned i = 0; i < NODES; i++)
        pids[i] = node_start(i, places, nodes);
    close(places[0].fd);
    close(places[1].fd);
    for (unsigned i = 0; i < NODES; i++) {
        int status = -1;
        assert_true(pids[i] > 0);
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(leaves_of_a_tree_of_two_levels_reach_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
