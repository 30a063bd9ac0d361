/* node.c - libyaml's events into nodes, without recursion; see node.h.
 *
 * The stack of open mappings and lists is an array of NODE_DEPTH_MAX frames. Every limit is
 * checked when an event arrives, so a hostile document costs at most one pass over its text. */
#include "common/spec/node.h"

#include "common/base/buf.h"
#include "common/base/mem.h"
#include "common/base/parse.h"

#include <stdlib.h>
#include <string.h>
#include <yaml.h>

struct frame {
    struct node *node;
    struct node *key; /* of a map, waiting for its value */
    const char *anchor;
};

struct anchor {
    const char *name;
    struct node *node; /* NULL while it is still open: an alias to it would be a cycle */
};

struct reading {
    const struct node_source *source;
    struct arena *arena;
    struct spec_errors *errors;
    struct node *root;
    struct frame frames[NODE_DEPTH_MAX];
    uint32_t depth;
    struct anchor anchors[NODE_ANCHORS_MAX];
    size_t anchor_count, alias_count, document_count;
    bool failed, stopped; /* stopped: going on would be pointless or dangerous */
};

/* ---- places and errors ------------------------------------------------------------------ */

static void path_put(struct buf *path, const struct reading *reading)
{
    for (uint32_t i = 0; i < reading->depth; i++) {
        const struct frame *frame = &reading->frames[i];
        if (frame->node->kind == NODE_MAP && frame->key)
            buf_printf(path, "%s%.100s", path->length ? "." : "", frame->key->text);
        else if (frame->node->kind == NODE_LIST)
            buf_printf(path, "[%zu]", frame->node->count);
    }
}

static void refuse(struct reading *reading, uint32_t line, uint32_t column, const char *message)
{
    struct buf path = {0};
    path_put(&path, reading);
    bool in_document = reading->source->source == 0;
    struct spec_error place = {
        .source = reading->source->source,
        .file = reading->source->file,
        .line = in_document ? line : 0,
        .column = in_document ? column : 0,
        .path = buf_text(&path),
    };
    spec_errors_add(reading->errors, &place, "%s", message);
    buf_done(&path);
    reading->failed = true;
}

static void refuse_event(struct reading *reading, const yaml_event_t *event, const char *message)
{
    refuse(reading, (uint32_t)event->start_mark.line + 1, (uint32_t)event->start_mark.column + 1,
           message);
}

static void stop_at(struct reading *reading, const yaml_event_t *event, const char *message)
{
    refuse_event(reading, event, message);
    reading->stopped = true;
}

/* ---- building --------------------------------------------------------------------------- */

static struct node *node_new(struct reading *reading, enum node_kind kind,
                             const yaml_event_t *event)
{
    struct node *node = arena_alloc(reading->arena, sizeof *node);
    node->kind = kind;
    node->source = reading->source->source;
    node->line = (uint32_t)event->start_mark.line + 1;
    node->column = (uint32_t)event->start_mark.column + 1;
    node->height = 1;
    node->walk_count = 1;
    return node;
}

static void *grown(struct arena *arena, const void *items, size_t *capacity, size_t item_bytes)
{
    size_t wider = *capacity ? 2 * *capacity : 4;
    void *moved = arena_alloc(arena, wider * item_bytes);
    if (*capacity)
        memcpy(moved, items, *capacity * item_bytes);
    *capacity = wider;
    return moved;
}

static void pair_add(struct arena *arena, struct node *map, struct node *key, struct node *value)
{
    if (map->count == map->capacity)
        map->pairs = grown(arena, map->pairs, &map->capacity, sizeof *map->pairs);
    map->pairs[map->count++] = (struct node_pair){key, value};
}

static void item_add(struct arena *arena, struct node *list, struct node *item)
{
    if (list->count == list->capacity)
        list->items = grown(arena, list->items, &list->capacity, sizeof *list->items);
    list->items[list->count++] = item;
}

static void weigh(struct node *parent, const struct node *child)
{
    parent->walk_count += child->walk_count;
    parent->walk_bytes += child->walk_bytes;
    if (child->height + 1 > parent->height)
        parent->height = child->height + 1;
}

/* Puts a complete node into the innermost open one, or makes it the root. */
static void node_place(struct reading *reading, const yaml_event_t *event, struct node *node)
{
    if (reading->depth == 0) {
        reading->root = node;
        return;
    }
    struct frame *frame = &reading->frames[reading->depth - 1];
    if (frame->node->kind == NODE_LIST) {
        item_add(reading->arena, frame->node, node);
        weigh(frame->node, node);
    } else if (frame->key) {
        pair_add(reading->arena, frame->node, frame->key, node);
        weigh(frame->node, node);
        frame->key = NULL;
    } else if (node->kind != NODE_SCALAR) {
        stop_at(reading, event, "a field's name must be text, not a list or a mapping");
    } else {
        frame->node->walk_count++;
        frame->node->walk_bytes += node->walk_bytes;
        frame->key = node;
    }
    if (frame->node->walk_count > NODE_WALK_MAX)
        stop_at(reading, event, "too many values when aliases are followed: at most 1048576");
    else if (frame->node->walk_bytes > NODE_WALK_BYTES_MAX)
        stop_at(reading, event, "too much text when aliases are followed: at most 8 MiB");
}

static void anchor_open(struct reading *reading, const yaml_event_t *event, const char *name)
{
    if (!name)
        return;
    if (reading->anchor_count == NODE_ANCHORS_MAX) {
        stop_at(reading, event, "too many anchors: at most 1000");
        return;
    }
    struct anchor *anchor = &reading->anchors[reading->anchor_count++];
    anchor->name = arena_strdup(reading->arena, name);
    anchor->node = NULL;
}

static void anchor_close(struct reading *reading, const char *name, struct node *node)
{
    for (size_t i = reading->anchor_count; name && i-- > 0;)
        if (!reading->anchors[i].node && strcmp(reading->anchors[i].name, name) == 0) {
            reading->anchors[i].node = node;
            return;
        }
}

static void on_alias(struct reading *reading, const yaml_event_t *event)
{
    const char *name = (const char *)event->data.alias.anchor;
    struct anchor *anchor = NULL;
    for (size_t i = reading->anchor_count; !anchor && i-- > 0;)
        if (strcmp(reading->anchors[i].name, name) == 0)
            anchor = &reading->anchors[i];
    if (++reading->alias_count > NODE_ALIASES_MAX)
        stop_at(reading, event, "too many aliases: at most 10000");
    else if (!anchor)
        stop_at(reading, event, "this alias names no anchor above it");
    else if (!anchor->node)
        stop_at(reading, event, "this alias lies within what it names: a value cannot hold itself");
    else if (reading->depth + anchor->node->height > NODE_DEPTH_MAX)
        stop_at(reading, event, "nested deeper than 32 levels when aliases are followed");
    else
        node_place(reading, event, anchor->node);
}

static void on_scalar(struct reading *reading, const yaml_event_t *event)
{
    const char *value = (const char *)event->data.scalar.value;
    size_t length = event->data.scalar.length;
    if (memchr(value, '\0', length)) {
        stop_at(reading, event, "text may not contain the character NUL");
        return;
    }
    struct node *node = node_new(reading, NODE_SCALAR, event);
    node->plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    node->text = arena_strndup(reading->arena, value, length);
    node->walk_bytes = length;
    anchor_open(reading, event, (const char *)event->data.scalar.anchor);
    anchor_close(reading, (const char *)event->data.scalar.anchor, node);
    if (!reading->stopped)
        node_place(reading, event, node);
}

static void on_open(struct reading *reading, const yaml_event_t *event, enum node_kind kind,
                    const char *anchor)
{
    if (reading->depth == NODE_DEPTH_MAX) {
        stop_at(reading, event, "nested deeper than 32 levels");
        return;
    }
    anchor_open(reading, event, anchor);
    struct frame *frame = &reading->frames[reading->depth++];
    *frame = (struct frame){.node = node_new(reading, kind, event),
                            .anchor = arena_strdup(reading->arena, anchor)};
}

/* ---- duplicate keys --------------------------------------------------------------------- */

static int pair_compare(const void *left, const void *right)
{
    const struct node *a = (*(struct node_pair *const *)left)->key;
    const struct node *b = (*(struct node_pair *const *)right)->key;
    int order = strcmp(a->text, b->text);
    if (order == 0)
        order = a->line != b->line ? (a->line > b->line) - (a->line < b->line)
                                   : (a->column > b->column) - (a->column < b->column);
    return order;
}

/* Sorting keeps this n log n: comparing all pairs of a hostile mapping would take minutes. */
static void duplicates_refuse(struct reading *reading, struct node *map)
{
    struct node_pair **sorted = mem_array(map->count + 1, sizeof *sorted);
    for (size_t i = 0; i < map->count; i++)
        sorted[i] = &map->pairs[i];
    qsort(sorted, map->count, sizeof *sorted, pair_compare);
    for (size_t i = 1; i < map->count; i++) {
        struct node *first = sorted[i - 1]->key, *again = sorted[i]->key;
        if (strcmp(first->text, again->text) != 0)
            continue;
        struct buf message = {0};
        buf_printf(&message, "'%.80s' is given twice, first in line %u", again->text, first->line);
        refuse(reading, again->line, again->column, buf_text(&message));
        buf_done(&message);
    }
    mem_free(sorted);
}

static void on_close(struct reading *reading, const yaml_event_t *event)
{
    struct frame *frame = &reading->frames[reading->depth - 1];
    struct node *node = frame->node;
    reading->depth--;
    if (node->kind == NODE_MAP)
        duplicates_refuse(reading, node);
    anchor_close(reading, frame->anchor, node);
    node_place(reading, event, node);
}

/* ---- events ----------------------------------------------------------------------------- */

static const char *event_tag(const yaml_event_t *event)
{
    const yaml_char_t *tag = NULL;
    if (event->type == YAML_SCALAR_EVENT)
        tag = event->data.scalar.tag;
    else if (event->type == YAML_SEQUENCE_START_EVENT)
        tag = event->data.sequence_start.tag;
    else if (event->type == YAML_MAPPING_START_EVENT)
        tag = event->data.mapping_start.tag;
    return (const char *)tag;
}

static void on_event(struct reading *reading, const yaml_event_t *event)
{
    if (event_tag(event))
        refuse_event(reading, event, "tags such as !!str are not used here: leave it out, and "
                                     "write text that looks like a number in quotes");
    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        if (++reading->document_count > 1)
            stop_at(reading, event, "a second document starts here: one spec holds one document "
                                    "(several jobs go under `jobs:`)");
        break;
    case YAML_ALIAS_EVENT:
        on_alias(reading, event);
        break;
    case YAML_SCALAR_EVENT:
        on_scalar(reading, event);
        break;
    case YAML_SEQUENCE_START_EVENT:
        on_open(reading, event, NODE_LIST, (const char *)event->data.sequence_start.anchor);
        break;
    case YAML_MAPPING_START_EVENT:
        on_open(reading, event, NODE_MAP, (const char *)event->data.mapping_start.anchor);
        break;
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        on_close(reading, event);
        break;
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_STREAM_END_EVENT:
    case YAML_DOCUMENT_END_EVENT:
        break;
    }
}

/* The byte at a mark: libyaml counts lines and characters, all before it is valid UTF-8. */
static char byte_at(const struct node_source *source, const yaml_mark_t *mark)
{
    const char *at = source->bytes, *end = source->bytes + source->length;
    for (size_t line = 0; line < mark->line && at < end; line++) {
        const char *next = memchr(at, '\n', (size_t)(end - at));
        at = next ? next + 1 : end;
    }
    return at + mark->column < end ? at[mark->column] : '\0';
}

/* Line and column of a byte: the reader of libyaml only knows its offset. */
static void offset_locate(const struct node_source *source, size_t offset, uint32_t *line,
                          uint32_t *column)
{
    *line = *column = 1;
    for (size_t i = 0; i < offset && i < source->length; i++) {
        bool ends = source->bytes[i] == '\n';
        *line += ends;
        *column = ends ? 1 : *column + ((source->bytes[i] & 0xC0) != 0x80);
    }
}

static void syntax_place_put(struct buf *message, const struct node_source *source, uint32_t line,
                             uint32_t column)
{
    uint32_t last_line, last_column;
    offset_locate(source, source->length, &last_line, &last_column);
    if (line > last_line || (line == last_line && column >= last_column))
        buf_puts(message, " at the end of the value");
    else
        buf_printf(message, " at line %u, column %u of the value", line, column);
}

static void refuse_syntax(struct reading *reading, const yaml_parser_t *parser)
{
    uint32_t line = (uint32_t)parser->problem_mark.line + 1;
    uint32_t column = (uint32_t)parser->problem_mark.column + 1;
    struct buf message = {0};
    if (parser->error == YAML_READER_ERROR)
        offset_locate(reading->source, parser->problem_offset, &line, &column);
    buf_puts(&message, "not valid YAML");
    if (reading->source->source > 0) /* its place is the --set, which has no lines */
        syntax_place_put(&message, reading->source, line, column);
    buf_printf(&message, ": %s", parser->problem ? parser->problem : "unreadable");
    if (parser->error != YAML_READER_ERROR && parser->context)
        buf_printf(&message, " (%s from line %zu)", parser->context,
                   parser->context_mark.line + 1);
    if (byte_at(reading->source, &parser->problem_mark) == '\t')
        buf_puts(&message, "; indent with spaces, not with tabs");
    reading->depth = 0; /* a syntax error belongs to no field */
    refuse(reading, line, column, buf_text(&message));
    reading->stopped = true;
    buf_done(&message);
}

static void events_read(struct reading *reading)
{
    yaml_parser_t parser;
    CHECK(yaml_parser_initialize(&parser));
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const unsigned char *)reading->source->bytes,
                                 reading->source->length);
    for (bool ended = false; !ended && !reading->stopped;) {
        yaml_event_t event;
        if (!yaml_parser_parse(&parser, &event)) {
            refuse_syntax(reading, &parser);
            break;
        }
        ended = event.type == YAML_STREAM_END_EVENT;
        on_event(reading, &event);
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
}

/* Refuses the first byte that begins no character. */
static bool utf8_refused(struct reading *reading)
{
    const struct node_source *source = reading->source;
    if (text_is_utf8(source->bytes, source->length))
        return false;
    size_t good = 0;
    for (size_t at = 0; at < source->length;) {
        size_t step = 1;
        while (step <= 4 && at + step <= source->length &&
               !text_is_utf8(source->bytes + at, step))
            step++;
        if (step > 4 || at + step > source->length)
            break;
        at += step;
        good = at;
    }
    uint32_t line, column;
    offset_locate(source, good, &line, &column);
    refuse(reading, line, column, "this byte is not UTF-8: save the file in that encoding");
    return true;
}

struct node *node_read(const struct node_source *source, struct arena *arena,
                       struct spec_errors *errors)
{
    struct reading *reading = mem_zalloc(sizeof *reading);
    reading->source = source;
    reading->arena = arena;
    reading->errors = errors;
    if (!utf8_refused(reading))
        events_read(reading);
    if (!reading->failed && !reading->root)
        refuse(reading, 0, 0, "the document is empty");
    struct node *root = reading->failed ? NULL : reading->root;
    mem_free(reading);
    return root;
}

/* ---- using ------------------------------------------------------------------------------ */

struct node *node_get(const struct node *map, const char *key)
{
    for (size_t i = 0; map->kind == NODE_MAP && i < map->count; i++)
        if (strcmp(map->pairs[i].key->text, key) == 0)
            return map->pairs[i].value;
    return NULL;
}

struct node *node_scalar_new(struct arena *arena, const char *text, bool plain)
{
    struct node *node = arena_alloc(arena, sizeof *node);
    *node = (struct node){.kind = NODE_SCALAR, .plain = plain, .height = 1, .walk_count = 1};
    node->text = arena_strdup(arena, text);
    return node;
}

struct node *node_map_new(struct arena *arena)
{
    struct node *node = arena_alloc(arena, sizeof *node);
    *node = (struct node){.kind = NODE_MAP, .height = 1, .walk_count = 1};
    return node;
}

void node_put(struct arena *arena, struct node *map, struct node *key, struct node *value)
{
    CHECK(map->kind == NODE_MAP);
    for (size_t i = 0; i < map->count; i++)
        if (strcmp(map->pairs[i].key->text, key->text) == 0) {
            map->pairs[i].value = value;
            return;
        }
    pair_add(arena, map, key, value);
}

struct node *node_copy(struct arena *arena, const struct node *node)
{
    struct node *copy = arena_alloc(arena, sizeof *copy);
    *copy = *node;
    copy->capacity = node->count;
    if (node->count > 0 && node->kind == NODE_MAP) {
        copy->pairs = arena_alloc(arena, node->count * sizeof *copy->pairs);
        memcpy(copy->pairs, node->pairs, node->count * sizeof *copy->pairs);
    } else if (node->count > 0) {
        copy->items = arena_alloc(arena, node->count * sizeof *copy->items);
        memcpy(copy->items, node->items, node->count * sizeof(struct node *));
    }
    return copy;
}

bool node_is_null(const struct node *node)
{
    return node->kind == NODE_SCALAR && node->plain &&
           (node->text[0] == '\0' || strcmp(node->text, "~") == 0 ||
            strcmp(node->text, "null") == 0);
}

const char *node_kind_text(const struct node *node)
{
    if (node_is_null(node))
        return "nothing";
    return node->kind == NODE_LIST ? "a list" : node->kind == NODE_MAP ? "a mapping" : "text";
}
