/* json_tree.h - JSON read whole into an arena.
 *
 * For texts that are read by the hundred thousand and dropped at once: a standby that takes over
 * reads the specs of all jobs that live while everybody waits. A tree costs a pass to check, a
 * pass to build and few allocations: a third of what a library's objects cost with their tables. */
#ifndef ATHANOR_JSON_TREE_H
#define ATHANOR_JSON_TREE_H

#include "common/base/arena.h"
#include "common/base/err.h"

enum json_tree_kind {
    JSON_TREE_NULL = 1,
    JSON_TREE_FALSE,
    JSON_TREE_TRUE,
    JSON_TREE_INTEGER,
    JSON_TREE_REAL,
    JSON_TREE_STRING,
    JSON_TREE_ARRAY,
    JSON_TREE_OBJECT,
};

/* Everything lies in the arena of the reading, but `source`, which is the text that was read. */
struct json_tree {
    enum json_tree_kind kind;
    const char *key;  /* of a member of an object, else NULL */
    const char *text; /* JSON_TREE_STRING, else NULL */
    union {
        int64_t integer; /* JSON_TREE_INTEGER */
        double real;     /* JSON_TREE_REAL, finite */
        size_t count;    /* of items: JSON_TREE_ARRAY, JSON_TREE_OBJECT */
    };
    const struct json_tree *items; /* an object's by key, in the order of strcmp */
    const char *source;
    size_t source_length;
};

/* The bounds are those of json_text_is_valid; keys are unique, whole numbers fit int64_t, others a
 * double. Errors: ERR_PROTOCOL. */
int json_tree_read(const char *text, size_t length, struct arena *arena, struct json_tree *out,
                   struct err *err) WARN_UNUSED;

/* All of these take NULL, and what is of another kind, as nothing there. */
const struct json_tree *json_tree_get(const struct json_tree *object, const char *key);
/* Below a path with dots, as "retry.on". */
const struct json_tree *json_tree_at(const struct json_tree *object, const char *path);
bool json_tree_is(const struct json_tree *tree, enum json_tree_kind kind);
const char *json_tree_text(const struct json_tree *tree);     /* NULL: no string */
int64_t json_tree_integer(const struct json_tree *tree);      /* 0: no whole number */
size_t json_tree_count(const struct json_tree *tree);         /* of an array or object */

#endif
