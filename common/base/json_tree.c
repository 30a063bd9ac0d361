/* json_tree.c - see json_tree.h. The text is checked first, so that building can trust it. */
#include "common/base/json_tree.h"

#include "common/base/json_text.h"
#include "common/base/mem.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct builder {
    const char *at, *end;
    char *strings; /* where the next one goes: decoded, with its zero, none is longer than quoted */
    struct arena *arena;
    struct json_tree *open; /* items of what is not closed yet, innermost last */
    size_t open_count, open_capacity;
    const char *wrong; /* NULL: nothing yet */
};

/* ---- strings ---------------------------------------------------------------------------- */

static unsigned hex4(const char *at)
{
    char digits[5] = {at[0], at[1], at[2], at[3], '\0'};

    return (unsigned)strtoul(digits, NULL, 16);
}

static char *utf8_put(char *out, unsigned point)
{
    if (point < 0x80) {
        *out++ = (char)point;
    } else if (point < 0x800) {
        *out++ = (char)(0xC0 | point >> 6);
        *out++ = (char)(0x80 | (point & 0x3F));
    } else if (point < 0x10000) {
        *out++ = (char)(0xE0 | point >> 12);
        *out++ = (char)(0x80 | (point >> 6 & 0x3F));
        *out++ = (char)(0x80 | (point & 0x3F));
    } else {
        *out++ = (char)(0xF0 | point >> 18);
        *out++ = (char)(0x80 | (point >> 12 & 0x3F));
        *out++ = (char)(0x80 | (point >> 6 & 0x3F));
        *out++ = (char)(0x80 | (point & 0x3F));
    }
    return out;
}

/* `at` is behind the 'u'; returns behind the escape, which may be a pair of surrogates. */
static const char *unicode_escape(const char *at, char **out)
{
    unsigned point = hex4(at);

    at += 4;
    if (point >= 0xD800 && point <= 0xDBFF) {
        point = 0x10000 + ((point - 0xD800) << 10) + (hex4(at + 2) - 0xDC00);
        at += 6;
    }
    *out = utf8_put(*out, point);
    return at;
}

/* The string at the opening quote. */
static const char *string_build(struct builder *builder)
{
    static const char plain[128] = {
        ['b'] = '\b', ['f'] = '\f', ['n'] = '\n', ['r'] = '\r', ['t'] = '\t',
        ['"'] = '"',  ['/'] = '/',  ['\\'] = '\\',
    };
    const char *at = builder->at + 1;
    char *text = builder->strings, *out = text;

    while (*at != '"') {
        if (*at != '\\') {
            *out++ = *at++;
        } else if (at[1] == 'u') {
            at = unicode_escape(at + 2, &out);
        } else {
            *out++ = plain[(unsigned char)at[1]];
            at += 2;
        }
    }
    *out++ = '\0';
    builder->strings = out;
    builder->at = at + 1;
    return text;
}

/* ---- values ----------------------------------------------------------------------------- */

static void space_skip(struct builder *builder)
{
    while (builder->at < builder->end && (*builder->at == ' ' || *builder->at == '\n' ||
                                          *builder->at == '\t' || *builder->at == '\r'))
        builder->at++;
}

static void number_build(struct builder *builder, struct json_tree *tree)
{
    char digits[JSON_TEXT_NUMBER_MAX + 1]; /* the source need not end with a zero */
    size_t length = 0;
    bool whole = true;

    for (const char *at = builder->at; at < builder->end && strchr("+-.0123456789eE", *at); at++) {
        whole = whole && *at != '.' && *at != 'e' && *at != 'E';
        digits[length++] = *at;
    }
    digits[length] = '\0';
    builder->at += length;
    errno = 0;
    tree->kind = whole ? JSON_TREE_INTEGER : JSON_TREE_REAL;
    if (whole)
        tree->integer = strtoll(digits, NULL, 10);
    else
        tree->real = strtod(digits, NULL);
    if (whole ? errno == ERANGE : !isfinite(tree->real))
        builder->wrong = "a number is out of range";
}

static int key_compare(const void *a, const void *b)
{
    const struct json_tree *left = a, *right = b;

    return strcmp(left->key, right->key);
}

/* Insertion for the few members that objects have, which mostly are in order. */
static void members_sort(struct json_tree *items, size_t count)
{
    if (count > 64) {
        qsort(items, count, sizeof *items, key_compare);
        return;
    }
    for (size_t i = 1; i < count; i++) {
        struct json_tree item = items[i];
        size_t at = i;
        for (; at > 0 && strcmp(items[at - 1].key, item.key) > 0; at--)
            items[at] = items[at - 1];
        items[at] = item;
    }
}

/* Takes the items above `base` off the stack. */
static void items_close(struct builder *builder, struct json_tree *tree, size_t base)
{
    size_t count = builder->open_count - base;
    struct json_tree *items = arena_alloc(builder->arena, count * sizeof *items);

    if (count)
        memcpy(items, builder->open + base, count * sizeof *items);
    builder->open_count = base;
    tree->items = items;
    tree->count = count;
    if (tree->kind != JSON_TREE_OBJECT)
        return;
    members_sort(items, count);
    for (size_t i = 1; i < count; i++)
        if (strcmp(items[i - 1].key, items[i].key) == 0)
            builder->wrong = "an object has two members of one name";
}

static void value_build(struct builder *builder, struct json_tree *tree);

/* Recurses with value_build, at most JSON_TEXT_DEPTH_MAX deep: the text was checked. */
static void items_build(struct builder *builder, struct json_tree *tree, char closer)
{
    size_t base = builder->open_count;

    builder->at++;
    for (space_skip(builder); *builder->at != closer; space_skip(builder)) {
        struct json_tree item = {0};
        if (*builder->at == ',') {
            builder->at++;
            space_skip(builder);
        }
        if (closer == '}') {
            item.key = string_build(builder);
            space_skip(builder);
            builder->at++; /* the colon */
            space_skip(builder);
        }
        value_build(builder, &item);
        VEC_RESERVE(builder->open, builder->open_count, builder->open_capacity);
        builder->open[builder->open_count++] = item;
    }
    builder->at++;
    items_close(builder, tree, base);
}

static void word_build(struct builder *builder, struct json_tree *tree, enum json_tree_kind kind,
                       size_t length)
{
    tree->kind = kind;
    builder->at += length;
}

static void value_build(struct builder *builder, struct json_tree *tree)
{
    tree->source = builder->at;
    switch (*builder->at) {
    case '{':
        tree->kind = JSON_TREE_OBJECT;
        items_build(builder, tree, '}');
        break;
    case '[':
        tree->kind = JSON_TREE_ARRAY;
        items_build(builder, tree, ']');
        break;
    case '"':
        tree->kind = JSON_TREE_STRING;
        tree->text = string_build(builder);
        break;
    case 't':
        word_build(builder, tree, JSON_TREE_TRUE, 4);
        break;
    case 'f':
        word_build(builder, tree, JSON_TREE_FALSE, 5);
        break;
    case 'n':
        word_build(builder, tree, JSON_TREE_NULL, 4);
        break;
    default:
        number_build(builder, tree);
    }
    tree->source_length = (size_t)(builder->at - tree->source);
}

int json_tree_read(const char *text, size_t length, struct arena *arena, struct json_tree *out,
                   struct err *err)
{
    struct builder builder = {.at = text, .end = text + length, .arena = arena};

    if (!json_text_is_valid(text, length))
        return err_set(err, ERR_PROTOCOL,
                       "not JSON in UTF-8 without zeros, nested at most %u levels deep",
                       JSON_TEXT_DEPTH_MAX);
    builder.strings = arena_alloc(arena, length);
    *out = (struct json_tree){0};
    space_skip(&builder);
    value_build(&builder, out);
    mem_free(builder.open);
    return builder.wrong ? err_set(err, ERR_PROTOCOL, "JSON: %s", builder.wrong) : 0;
}

/* ---- looking up ------------------------------------------------------------------------- */

static const struct json_tree *member_get(const struct json_tree *object, const char *key,
                                          size_t length)
{
    size_t low = 0, high = json_tree_is(object, JSON_TREE_OBJECT) ? object->count : 0;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const char *there = object->items[middle].key;
        int order = strncmp(there, key, length);
        if (order == 0 && there[length] == '\0')
            return &object->items[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

const struct json_tree *json_tree_get(const struct json_tree *object, const char *key)
{
    return member_get(object, key, strlen(key));
}

const struct json_tree *json_tree_at(const struct json_tree *object, const char *path)
{
    for (;;) {
        size_t length = strcspn(path, ".");
        object = member_get(object, path, length);
        if (path[length] == '\0' || !object)
            return object;
        path += length + 1;
    }
}

bool json_tree_is(const struct json_tree *tree, enum json_tree_kind kind)
{
    return tree && tree->kind == kind;
}

const char *json_tree_text(const struct json_tree *tree)
{
    return tree ? tree->text : NULL;
}

int64_t json_tree_integer(const struct json_tree *tree)
{
    return json_tree_is(tree, JSON_TREE_INTEGER) ? tree->integer : 0;
}

size_t json_tree_count(const struct json_tree *tree)
{
    return json_tree_is(tree, JSON_TREE_ARRAY) || json_tree_is(tree, JSON_TREE_OBJECT)
               ? tree->count
               : 0;
}
