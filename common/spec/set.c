/* set.c - `--set path=value` on the tree, before anything is checked.
 *
 * A path names fields with dots between; names that hold dots themselves (job names may) are
 * matched first by the longest name that exists, items of lists by their number. Every map on
 * the way is copied, because an alias may share it with another job. */
#include "common/spec/reader.h"

#include "common/base/parse.h"

#include <string.h>

int spec_set_split(char *text, struct spec_set *out, struct err *err)
{
    char *equals = strchr(text, '=');
    if (!equals || equals == text)
        return err_set(err, ERR_INVALID,
                       "--set '%.100s' is not path=value, such as params.steps=200", text);
    *equals = '\0';
    *out = (struct spec_set){.path = text, .value = equals + 1};
    return 0;
}

/* A walk along one path. `at` is where the next map or list hangs. */
struct set_walk {
    struct reader *reader;
    const struct node *where; /* place of errors and of what is made */
    const char *rest; /* of the path, not yet walked */
    struct node **at; /* slot of the node reached */
    struct place place;
};

static bool walk_refuse(struct set_walk *walk, const char *message)
{
    reader_refuse(walk->reader, walk->where, NULL, "%s", message);
    return false;
}

/* Length of the longest prefix of the path that is a key of the map; 0 when none is. */
static size_t prefix_known(const struct node *map, const char *path)
{
    size_t longest = 0;
    for (size_t i = 0; i < map->count; i++) {
        size_t length = strlen(map->pairs[i].key->text);
        if (length > longest && strncmp(path, map->pairs[i].key->text, length) == 0 &&
            (path[length] == '.' || path[length] == '\0'))
            longest = length;
    }
    return longest;
}

static void place_copy(struct node *to, const struct node *from)
{
    to->source = from->source;
    to->line = from->line;
    to->column = from->column;
}

static bool step_into_list(struct set_walk *walk, const char *segment)
{
    struct node *list = node_copy(walk->reader->arena, *walk->at);
    struct err err;
    uint64_t index;
    if (parse_u64(segment, &index, &err) < 0 || index >= list->count)
        return walk_refuse(walk, arena_printf(walk->reader->arena,
                                              "%s is not an item of this list: it has %zu, "
                                              "counted from 0",
                                              quoted(walk->reader, segment), list->count));
    *walk->at = list;
    walk->at = &list->items[index];
    return true;
}

/* Only jobs may not be made this way: a mistyped name would become a second, empty job. */
static bool job_is_new(struct set_walk *walk, const struct node *map, const char *path,
                       const char *segment)
{
    size_t walked = (size_t)(walk->rest - path);
    if (walked != strlen("jobs.") || strncmp(path, "jobs.", walked) != 0)
        return false;
    struct nearest nearest = nearest_of(walk->reader, segment);
    for (size_t i = 0; i < map->count; i++)
        nearest_offer(&nearest, map->pairs[i].key->text);
    walk_refuse(walk, arena_printf(walk->reader->arena, "no job is called %s%s",
                                   quoted(walk->reader, segment),
                                   nearest_hint(walk->reader, &nearest)));
    return true;
}

static bool step_into_map(struct set_walk *walk, const char *path, const char *segment)
{
    struct arena *arena = walk->reader->arena;
    struct node *map = node_copy(arena, *walk->at);
    if (!node_get(map, segment)) {
        if (job_is_new(walk, map, path, segment))
            return false;
        struct node *key = node_scalar_new(arena, segment, true);
        struct node *empty = node_map_new(arena);
        place_copy(key, walk->where);
        place_copy(empty, walk->where);
        node_put(arena, map, key, empty);
    }
    *walk->at = map;
    for (size_t i = 0; i < map->count; i++)
        if (strcmp(map->pairs[i].key->text, segment) == 0)
            walk->at = &map->pairs[i].value;
    return true;
}

static bool step(struct set_walk *walk, const char *path)
{
    struct node *node = *walk->at;
    if (node_is_null(node)) { /* "params:" with nothing below it yet */
        node = *walk->at = node_map_new(walk->reader->arena);
        place_copy(node, walk->where);
    }
    size_t length = node->kind == NODE_MAP ? prefix_known(node, walk->rest) : 0;
    if (length == 0)
        length = strcspn(walk->rest, ".");
    const char *segment = arena_strndup(walk->reader->arena, walk->rest, length);
    if (length == 0)
        return walk_refuse(walk, "the path has an empty part");
    bool done = false;
    if (node->kind == NODE_MAP)
        done = step_into_map(walk, path, segment);
    else if (node->kind == NODE_LIST)
        done = step_into_list(walk, segment);
    else
        walk_refuse(walk, arena_printf(walk->reader->arena,
                                       "nothing can be set below the value %s",
                                       shown(walk->reader, node)));
    walk->rest += length + (walk->rest[length] == '.');
    return done;
}

static struct node *value_read(struct reader *reader, const struct spec_set *set, uint32_t source)
{
    if (set->value[0] == '\0') { /* `--set description=` empties a text */
        struct node *empty = node_scalar_new(reader->arena, "", false);
        empty->source = source;
        return empty;
    }
    struct node_source text = {.file = set_name(reader, source),
                               .source = source,
                               .bytes = set->value,
                               .length = strlen(set->value)};
    struct node *value = node_read(&text, reader->arena, reader->errors);
    reader->error_count += value == NULL;
    return value;
}

#define SET_STEPS_MAX (NODE_DEPTH_MAX / 2) /* with the value's own levels still below the walk's */

bool tree_set(struct reader *reader, struct node **root, const char *path, struct node *value,
              const struct node *where)
{
    struct set_walk walk = {.reader = reader, .where = where, .rest = path, .at = root};
    unsigned steps = 0;
    do {
        if (++steps > SET_STEPS_MAX)
            return walk_refuse(&walk, "the path has more than 16 parts");
        if (!step(&walk, path))
            return false;
    } while (*walk.rest != '\0');
    *walk.at = value;
    return true;
}

static void set_apply(struct reader *reader, struct node **root, const struct spec_set *set,
                      uint32_t source)
{
    struct node where = {.source = source};
    if (!text_is_utf8(set->path, strlen(set->path))) {
        reader_refuse(reader, &where, NULL, "the path is not UTF-8");
        return;
    }
    struct node *value = value_read(reader, set, source);
    if (value)
        (void)tree_set(reader, root, set->path, value, &where);
}

struct node *sets_apply(struct reader *reader, struct node *root)
{
    for (size_t i = 0; i < reader->source->set_count; i++)
        set_apply(reader, &root, &reader->source->sets[i], (uint32_t)i + 1);
    return root;
}
