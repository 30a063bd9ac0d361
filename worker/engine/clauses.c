/* clauses.c - see clauses.h. */
#include "worker/engine/clauses.h"

#include "common/base/mem.h"

#define NODES_MAX 1000000

static int32_t child_of(const struct clauses *clauses, int32_t node, int32_t token)
{
    int32_t child = clauses->node[node].child;

    while (child && clauses->node[child].token != token)
        child = clauses->node[child].next;
    return child;
}

static int32_t go_to(const struct clauses *clauses, int32_t node, int32_t token)
{
    int32_t child = child_of(clauses, node, token);

    while (!child && node) {
        node = clauses->node[node].fail;
        child = child_of(clauses, node, token);
    }
    return child;
}

struct clause_state clauses_advance(const struct clauses *clauses, struct clause_state state,
                                    int32_t token, bool *out_never)
{
    int32_t node = go_to(clauses, state.node, token);

    *out_never = clauses->node[node].never;
    return (struct clause_state){node, state.met | clauses->node[node].here};
}

static void add_phrase(struct clauses *clauses, const struct phrase *phrase)
{
    uint64_t bit = phrase->clause == CLAUSE_NEVER ? 0 : UINT64_C(1) << phrase->clause;
    int32_t node = 0;

    for (int64_t t = 0; t < phrase->count; t++) {
        int32_t child = child_of(clauses, node, phrase->token[t]);
        if (!child) {
            child = clauses->count++;
            clauses->node[child] = (struct clause_node){.token = phrase->token[t],
                                                        .next = clauses->node[node].child};
            clauses->node[node].child = child;
        }
        node = child;
        clauses->node[node].below |= bit;
    }
    clauses->node[node].here |= bit;
    clauses->node[node].never |= phrase->clause == CLAUSE_NEVER;
    clauses->all |= bit;
}

/* Suffixes, shorter nodes first: a queue of nodes in order of depth. */
static void link_suffixes(struct clauses *clauses)
{
    int32_t *queue = mem_array((size_t)clauses->count, sizeof *queue), filled = 1;

    for (int32_t at = 0; at < filled; at++) {
        int32_t node = queue[at];
        for (int32_t c = clauses->node[node].child; c; c = clauses->node[c].next) {
            struct clause_node *child = &clauses->node[c];
            child->fail = node ? go_to(clauses, clauses->node[node].fail, child->token) : 0;
            child->here |= clauses->node[child->fail].here;
            child->never |= clauses->node[child->fail].never;
            queue[filled++] = c;
        }
    }
    mem_free(queue);
}

static int check_phrases(const struct phrase *phrases, int64_t count, uint64_t *out_nodes,
                         struct err *err)
{
    *out_nodes = 1;
    for (int64_t i = 0; i < count; i++) {
        if (phrases[i].count < 1)
            return err_set(err, ERR_INVALID, "phrase %lld is empty", (long long)i);
        if (phrases[i].clause < CLAUSE_NEVER || phrases[i].clause >= CLAUSES_MAX)
            return err_set(err, ERR_INVALID, "phrase %lld is of clause %d, expected 0..%d or %d",
                           (long long)i, (int)phrases[i].clause, CLAUSES_MAX - 1, CLAUSE_NEVER);
        *out_nodes += (uint64_t)phrases[i].count;
    }
    if (*out_nodes > NODES_MAX)
        return err_set(err, ERR_LIMIT, "phrases of %llu tokens in all; at most %d are taken",
                       (unsigned long long)*out_nodes - 1, NODES_MAX - 1);
    return 0;
}

int clauses_new(const struct phrase *phrases, int64_t count, struct clauses **out,
                struct err *err)
{
    struct clauses *clauses;
    uint64_t nodes;

    if (check_phrases(phrases, count, &nodes, err) < 0)
        return -1;
    clauses = mem_zalloc(sizeof *clauses);
    clauses->node = mem_array(nodes, sizeof *clauses->node);
    clauses->count = 1;
    for (int64_t i = 0; i < count; i++)
        add_phrase(clauses, &phrases[i]);
    link_suffixes(clauses);
    while (clauses->clause_count < CLAUSES_MAX && clauses->all >> clauses->clause_count & 1)
        clauses->clause_count++;
    if (clauses->clause_count < CLAUSES_MAX && clauses->all >> clauses->clause_count) {
        err_set(err, ERR_INVALID, "clause %lld has no phrase, but a later one has",
                (long long)clauses->clause_count);
        clauses_free(clauses);
        return -1;
    }
    *out = clauses;
    return 0;
}

void clauses_free(struct clauses *clauses)
{
    if (!clauses)
        return;
    mem_free(clauses->node);
    mem_free(clauses);
}

int64_t clauses_count(const struct clauses *clauses)
{
    return clauses->clause_count;
}

uint64_t clauses_met(const struct clauses *clauses, const int32_t *token, int64_t count)
{
    struct clause_state state = {0};
    bool never;

    for (int64_t t = 0; t < count; t++)
        state = clauses_advance(clauses, state, token[t], &never);
    return state.met;
}
