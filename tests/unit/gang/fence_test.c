/* fence_test.c - fences over a tree of nodes that lose, double and reorder what they send. */
#include "worker/gang/fence.h"

#include "common/base/buf.h"
#include "common/base/mem.h"
#include "common/base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define NODES_MAX 300u
#define ROUNDS    4u

struct mail {
    unsigned to, from;
    bool up;
    char key[FENCE_KEY_BYTES_MAX + 1];
    uint64_t round;
    unsigned char nodes[GANG_SET_BYTES(NODES_MAX)];
    struct buf bytes;
};

struct cluster {
    struct rng rng;
    unsigned count, loss_percent;
    struct node {
        struct cluster *cluster;
        unsigned index;
        struct fences *fences;
        unsigned round; /* that it is in */
        bool waits;
        size_t got; /* bytes of the newest result */
    } nodes[NODES_MAX];
    struct mail *mails;
    size_t mail_count, mail_capacity, sent;
};

static void post(struct cluster *c, unsigned to, unsigned from, bool up,
                 const struct fence_name *name, const char *bytes, size_t length)
{
    unsigned copies = rng_below(&c->rng, 100) < c->loss_percent ? 0 : 1;
    copies += c->loss_percent && rng_below(&c->rng, 10) == 0;
    c->sent++;
    while (copies--) {
        VEC_RESERVE(c->mails, c->mail_count, c->mail_capacity);
        struct mail *mail = &c->mails[c->mail_count++];
        *mail = (struct mail){.to = to, .from = from, .up = up, .round = name->round};
        snprintf(mail->key, sizeof mail->key, "%s", name->key);
        memcpy(mail->nodes, name->nodes, GANG_SET_BYTES(c->count));
        buf_add(&mail->bytes, bytes, length);
    }
}

static void up(void *user, const struct fence_name *name, const char *bytes, size_t length)
{
    struct node *node = user;
    post(node->cluster, tree_parent(node->index), node->index, true, name, bytes, length);
}

static void down(void *user, unsigned child, const struct fence_name *name, const char *bytes,
                 size_t length)
{
    struct node *node = user;
    post(node->cluster, child, node->index, false, name, bytes, length);
}

static void done(void *user, void *cookie, bool ok, const char *bytes, size_t length)
{
    struct node *node = user;
    assert_ptr_equal(cookie, node);
    assert_true(ok);
    assert_true(node->waits);
    node->waits = false;
    node->got = length;
    (void)bytes;
}

static void cluster_make(struct cluster *c, unsigned count, uint64_t seed, unsigned loss_percent)
{
    *c = (struct cluster){.count = count, .loss_percent = loss_percent};
    rng_init(&c->rng, seed);
    for (unsigned i = 0; i < count; i++) {
        struct node *node = &c->nodes[i];
        const struct fence_actions actions = {node, up, down, done};
        node->cluster = c;
        node->index = i;
        node->fences = fences_new(i, count, &actions);
    }
}

static void cluster_free(struct cluster *c)
{
    for (unsigned i = 0; i < c->count; i++)
        fences_free(c->nodes[i].fences);
    for (size_t i = 0; i < c->mail_count; i++)
        buf_done(&c->mails[i].bytes);
    mem_free(c->mails);
}

static void deliver_one(struct cluster *c)
{
    struct err err;
    size_t i = (size_t)rng_below(&c->rng, c->mail_count);
    struct mail mail = c->mails[i];
    c->mails[i] = c->mails[--c->mail_count];
    struct fence_name name = {mail.key, mail.round, mail.nodes};
    struct fences *fences = c->nodes[mail.to].fences;
    int rc = mail.up ? fences_from_child(fences, mail.from, &name, mail.bytes.bytes,
                                         mail.bytes.length, &err)
                     : fences_from_parent(fences, &name, mail.bytes.bytes, mail.bytes.length,
                                          &err);
    assert_int_equal(rc, 0);
    buf_done(&mail.bytes);
}

/* Bytes of node i in round r: i + r of them, so that the sum tells whether all are there once. */
static void enter(struct cluster *c, unsigned i, const unsigned char *members)
{
    struct node *node = &c->nodes[i];
    char bytes[NODES_MAX + ROUNDS];
    memset(bytes, (int)('a' + i % 26), sizeof bytes);
    node->round++;
    node->waits = true;
    fences_enter(node->fences, "*", members, bytes, i + node->round, node);
}

static void fences_run(unsigned count, uint64_t seed, unsigned loss_percent, unsigned skip)
{
    struct cluster *c = mem_alloc(sizeof *c);
    unsigned char members[GANG_SET_BYTES(NODES_MAX)] = {0};
    cluster_make(c, count, seed, loss_percent);
    size_t sum = 0, member_count = 0;
    for (unsigned i = 0; i < count; i++)
        if (skip == 0 || i % skip != 0) {
            node_set_add(members, i);
            sum += i;
            member_count++;
        }
    for (unsigned steps = 0; steps < 4000000; steps++) {
        bool busy = false;
        unsigned i = (unsigned)rng_below(&c->rng, count);
        struct node *node = &c->nodes[i];
        if (node_set_has(members, i) && !node->waits && node->round < ROUNDS) {
            if (node->round)
                assert_int_equal(node->got, sum + member_count * node->round);
            enter(c, i, members);
        }
        if (c->mail_count)
            deliver_one(c);
        else
            fences_again(node->fences);
        for (unsigned k = 0; steps % 64 == 0 && k < count; k++)
            busy |= node_set_has(members, k) &&
                    (c->nodes[k].waits || c->nodes[k].round < ROUNDS);
        if (steps % 64 == 0 && !busy)
            break;
    }
    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(c->nodes[i].round, node_set_has(members, i) ? ROUNDS : 0);
        assert_false(c->nodes[i].waits);
        if (node_set_has(members, i))
            assert_int_equal(c->nodes[i].got, sum + member_count * ROUNDS);
    }
    cluster_free(c);
    mem_free(c);
}

static void a_fence_gathers_what_every_node_contributed(void **state)
{
    (void)state;
    const unsigned counts[] = {2, 3, 65, 66, 300};
    for (size_t i = 0; i < ARRAY_COUNT(counts); i++)
        fences_run(counts[i], 7 + i, 0, 0);
}

static void lost_doubled_and_reordered_messages_change_nothing(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++)
        fences_run(2 + (unsigned)(seed * 13 % 90), seed, 20, 0);
}

static void nodes_that_take_no_part_are_not_waited_for(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 10; seed++)
        fences_run(70 + (unsigned)seed, seed, 10, 2); /* node 0, the root, is not in it either */
}

static void a_star_costs_one_message_each_way(void **state)
{
    (void)state;
    struct cluster *c = mem_alloc(sizeof *c);
    unsigned char members[GANG_SET_BYTES(NODES_MAX)] = {0};
    cluster_make(c, 64, 1, 0);
    for (unsigned i = 0; i < 64; i++)
        node_set_add(members, i);
    for (unsigned i = 0; i < 64; i++)
        enter(c, i, members);
    while (c->mail_count)
        deliver_one(c);
    assert_int_equal(c->sent, 2 * 63);
    cluster_free(c);
    mem_free(c);
}

static void what_a_neighbour_cannot_have_meant_is_refused(void **state)
{
    (void)state;
    struct cluster *c = mem_alloc(sizeof *c);
    struct err err;
    unsigned char members[GANG_SET_BYTES(3)] = {7}, none[GANG_SET_BYTES(3)] = {0};
    cluster_make(c, 3, 1, 0);
    struct fence_name good = {"*", 1, members}, empty = {"", 1, members}, first = {"*", 0, members},
                      nobody = {"*", 1, none};
    struct fences *root = c->nodes[0].fences, *leaf = c->nodes[1].fences;
    assert_int_equal(fences_from_child(root, 3, &good, "x", 1, &err), -1);
    assert_string_equal(err.text, "node 3 is no child of node 0");
    assert_int_equal(fences_from_child(root, 0, &good, "x", 1, &err), -1);
    assert_int_equal(fences_from_child(root, 1, &empty, "x", 1, &err), -1);
    assert_int_equal(fences_from_child(root, 1, &first, "x", 1, &err), -1);
    assert_int_equal(fences_from_child(root, 1, &nobody, "x", 1, &err), -1);
    assert_int_equal(err.kind, ERR_PROTOCOL);
    assert_int_equal(fences_from_child(root, 1, &good, "x", FENCE_BYTES_MAX + 1, &err), -1);
    assert_int_equal(err.kind, ERR_LIMIT);
    assert_int_equal(fences_from_parent(leaf, &good, "x", 1, &err), -1);
    assert_string_equal(err.text, "a fence is over before node 1 entered it");
    cluster_free(c);
    mem_free(c);
}

static void the_tree_reaches_every_node_once(void **state)
{
    (void)state;
    const unsigned counts[] = {1, 2, 65, 66, 4096};
    for (size_t i = 0; i < ARRAY_COUNT(counts); i++) {
        unsigned reached = 1;
        for (unsigned node = 0; node < counts[i]; node++) {
            unsigned first, children = tree_children(node, counts[i], &first);
            reached += children;
            for (unsigned k = first; k < first + children; k++) {
                assert_int_equal(tree_parent(k), node);
                assert_true(tree_is_below(0, k));
                assert_int_equal(tree_parent(tree_step_down(0, k)), 0);
            }
        }
        assert_int_equal(reached, counts[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_tree_reaches_every_node_once),
        cmocka_unit_test(a_fence_gathers_what_every_node_contributed),
        cmocka_unit_test(lost_doubled_and_reordered_messages_change_nothing),
        cmocka_unit_test(nodes_that_take_no_part_are_not_waited_for),
        cmocka_unit_test(a_star_costs_one_message_each_way),
        cmocka_unit_test(what_a_neighbour_cannot_have_meant_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
