/* json.c - what the core reads from JSON of others, without a tree.
 *
 * A text that PostgreSQL would refuse must never be persisted: the commit would fail and end the
 * leader, and the worker would send it again. */
#include "coordinator/core/state.h"

#include "common/base/json_text.h"

#include <stdlib.h>
#include <string.h>

bool json_is_storable(const char *text, size_t bytes_max)
{
    size_t length = text ? strlen(text) : 0;
    return length <= bytes_max && length > 0 && json_text_is_valid(text, length);
}

void json_quote(struct buf *out, const char *text)
{
    json_text_quote(out, text, strlen(text));
}

/* Walks over the members of the top-level object. Keys and texts stay as written. */
struct member {
    const char *name, *name_end; /* without quotes */
    const char *value, *value_end;
    const char *at, *end; /* the walk: on '{' or ',' while more may follow */
};

static struct member members_of(const char *text)
{
    const char *end = text + strlen(text);
    const char *at = json_text_space_end(text, end);
    return (struct member){.at = *at == '{' ? at : end, .end = end};
}

static bool member_next(struct member *member)
{
    const char *end = member->end, *at = member->at;
    if (*at != '{' && *at != ',')
        return false;
    const char *name = json_text_space_end(at + 1, end);
    const char *name_end = json_text_string_end(name, end);
    at = name_end ? json_text_space_end(name_end, end) : end;
    if (*at != ':')
        return false;
    const char *value = json_text_space_end(at + 1, end);
    const char *value_end = json_text_value_end(value, end);
    if (!value_end)
        return false;
    *member = (struct member){
        name + 1, name_end - 1, value, value_end, json_text_space_end(value_end, end), end};
    return true;
}

/* The member with a key without escapes. Of doubled keys the last one counts, as in jsonb. */
static bool member_find(const char *text, const char *key, struct member *out)
{
    struct member member = members_of(text);
    size_t length = strlen(key);
    bool found = false;
    while (member_next(&member))
        if ((size_t)(member.name_end - member.name) == length &&
            memcmp(member.name, key, length) == 0) {
            *out = member;
            found = true;
        }
    return found;
}

bool json_number(const char *text, const char *key, double *out)
{
    struct member member;
    if (!member_find(text, key, &member) || !strchr("-0123456789", *member.value))
        return false;
    *out = strtod(member.value, NULL);
    return true;
}

/* The inside of a text. */
static char *inside(struct arena *arena, const char *value, const char *end)
{
    return arena_strndup(arena, value + 1, (size_t)(end - value - 2));
}

bool json_text(const char *text, const char *key, struct arena *arena, const char **out)
{
    struct member member;
    if (!member_find(text, key, &member) || *member.value != '"' ||
        memchr(member.value, '\\', (size_t)(member.value_end - member.value)))
        return false; /* kinds and names need no escapes */
    *out = inside(arena, member.value, member.value_end);
    return true;
}

size_t json_texts(const char *text, struct arena *arena, const char ***out)
{
    const char *end = text + strlen(text);
    const char *at = json_text_space_end(text, end);
    size_t count = 0;
    *out = arena_alloc(arena, (strlen(text) / 3 + 1) * sizeof **out); /* "", at least */
    while (*at == '[' || *at == ',') {
        const char *value = json_text_space_end(at + 1, end);
        const char *value_end = json_text_value_end(value, end);
        if (!value_end)
            break;
        if (*value == '"')
            (*out)[count++] = inside(arena, value, value_end);
        at = json_text_space_end(value_end, end);
    }
    return count;
}

size_t json_pairs(const char *text, struct arena *arena, struct json_pair **out)
{
    struct member member = members_of(text);
    size_t count = 0;
    *out = arena_alloc(arena, (strlen(text) / 5 + 1) * sizeof **out); /* "":"", at least */
    while (member_next(&member))
        if (*member.value == '"')
            (*out)[count++] =
                (struct json_pair){arena_strndup(arena, member.name,
                                                 (size_t)(member.name_end - member.name)),
                                   inside(arena, member.value, member.value_end)};
    return count;
}
