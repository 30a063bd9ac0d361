/* node.h - a YAML document as a tree that remembers where everything stood.
 *
 * YAML 1.2's JSON-like core: mappings with text keys, lists, scalars, anchors. Refused: tags,
 * merge keys, several documents, duplicate keys, anything beyond the limits below. An alias is
 * the same node again, so the tree is a DAG and costs no memory; its walk is limited. */
#ifndef ATHANOR_SPEC_NODE_H
#define ATHANOR_SPEC_NODE_H

#include "common/base/arena.h"
#include "common/spec/errors.h"

#define NODE_DEPTH_MAX 32u       /* a spec needs 6; params of user programs may nest */
#define NODE_WALK_MAX 1048576u   /* nodes met by a walk, aliases followed: one for each byte of
                                    the largest document */
#define NODE_WALK_BYTES_MAX ((uint64_t)8 << 20) /* texts met by a walk */
#define NODE_ANCHORS_MAX 1000u   /* aliases x anchors comparisons stay below 10^7 */
#define NODE_ALIASES_MAX 10000u

enum node_kind { NODE_SCALAR = 1, NODE_LIST, NODE_MAP };

struct node_pair {
    struct node *key, *value; /* key is a scalar */
};

struct node {
    enum node_kind kind;
    bool plain;            /* scalar without quotes: only those can be numbers or true or null */
    uint32_t source;       /* 0: the document; n: the n-th --set */
    uint32_t line, column; /* from 1 */
    uint32_t height;       /* levels, this one included */
    uint64_t walk_count;   /* nodes of a walk from here, aliases followed */
    uint64_t walk_bytes;   /* of their texts */
    const char *text;      /* scalar: terminated UTF-8 without NUL */
    struct node **items;   /* list */
    struct node_pair *pairs; /* map, in the order written */
    size_t count, capacity;
};

struct node_source {
    const char *file; /* for messages */
    uint32_t source;
    const char *bytes;
    size_t length;
};

/* NULL after adding at least one error. Nodes live in arena. */
struct node *node_read(const struct node_source *source, struct arena *arena,
                       struct spec_errors *errors);
/* The value under a key, NULL when absent or when `map` is no map. */
struct node *node_get(const struct node *map, const char *key);
struct node *node_scalar_new(struct arena *arena, const char *text, bool plain);
struct node *node_map_new(struct arena *arena);
/* Sets or adds; the map must not be shared with an alias (node_copy). */
void node_put(struct arena *arena, struct node *map, struct node *key, struct node *value);
/* A copy whose children are shared with the original. */
struct node *node_copy(struct arena *arena, const struct node *node);
/* A plain empty scalar, ~ or null: nothing was written. */
bool node_is_null(const struct node *node);
const char *node_kind_text(const struct node *node); /* "a list", "a mapping", "text", "nothing" */

#endif
