/* reader.c - places, errors and hints of one reading; see reader.h. */
#include "common/spec/reader.h"

#include "common/base/buf.h"
#include "common/base/parse.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define PLACE_DEPTH_MAX (NODE_DEPTH_MAX + 8)
#define QUOTE_BYTES_MAX 60
#define SET_PATH_BYTES  100

const char *place_text(struct arena *arena, const struct place *place)
{
    const struct place *chain[PLACE_DEPTH_MAX];
    size_t count = 0;
    for (; place && count < PLACE_DEPTH_MAX; place = place->up)
        chain[count++] = place;
    struct buf text = {0};
    while (count-- > 0) {
        if (chain[count]->key)
            buf_printf(&text, "%s%.100s", text.length ? "." : "", chain[count]->key);
        else
            buf_printf(&text, "[%zu]", chain[count]->index);
    }
    char *path = arena_strdup(arena, buf_text(&text));
    buf_done(&text);
    return path;
}

/* The first `most` bytes of the text, and the rest of a character that was begun. */
static int cut_length(const char *text, size_t most)
{
    size_t length = strnlen(text, most);
    while (length >= most && (text[length] & 0xC0) == 0x80)
        length++;
    return (int)length;
}

/* Written once each: 10,000 jobs may have got a value from the same one. */
const char *set_name(struct reader *reader, uint32_t source)
{
    const struct spec_set *set = &reader->source->sets[source - 1];
    if (!reader->set_names)
        reader->set_names =
            arena_alloc(reader->arena, reader->source->set_count * sizeof *reader->set_names);
    int path = cut_length(set->path, SET_PATH_BYTES);
    int value = cut_length(set->value, QUOTE_BYTES_MAX);
    if (!reader->set_names[source - 1])
        reader->set_names[source - 1] =
            arena_printf(reader->arena, "--set %.*s%s=%.*s%s", path, set->path,
                         set->path[path] ? "..." : "", value, set->value,
                         set->value[value] ? "..." : "");
    return reader->set_names[source - 1];
}

struct spec_mark reader_mark(struct reader *reader, const struct node *node)
{
    if (node && node->source > 0)
        return (struct spec_mark){.set = set_name(reader, node->source)};
    return node ? (struct spec_mark){.line = node->line, .column = node->column}
                : (struct spec_mark){0};
}

bool reader_is_full(const struct reader *reader)
{
    return reader->errors->count == SPEC_ERRORS_MAX;
}

void reader_refuse(struct reader *reader, const struct node *node, const struct place *place,
                   const char *format, ...)
{
    va_list args;
    char message[2000];
    reader->error_count++;
    if (reader_is_full(reader)) { /* 100,000 wrong keys must not cost 100,000 texts */
        reader->errors->dropped++;
        return;
    }
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    struct spec_error at = {
        .file = reader->source->name,
        .path = place_text(reader->arena, place),
    };
    if (node && node->source > 0) {
        at.source = node->source;
        at.file = set_name(reader, node->source);
    } else if (node) {
        at.line = node->line;
        at.column = node->column;
    }
    spec_errors_add(reader->errors, &at, "%s", message);
}

const char *quoted(struct reader *reader, const char *text)
{
    int length = cut_length(text, QUOTE_BYTES_MAX);
    return arena_printf(reader->arena, "'%.*s%s'", length, text,
                        text[length] != '\0' ? "..." : "");
}

const char *shown(struct reader *reader, const struct node *node)
{
    if (node->kind != NODE_SCALAR || node_is_null(node))
        return node_kind_text(node);
    return quoted(reader, node->text);
}

struct nearest nearest_of(const struct reader *reader, const char *wanted)
{
    return (struct nearest){.wanted = reader_is_full(reader) ? NULL : wanted};
}

void nearest_offer(struct nearest *nearest, const char *name)
{
    if (!nearest->wanted || nearest->offers++ >= NEAREST_OFFERS_MAX)
        return;
    unsigned distance = text_distance(nearest->wanted, name);
    if (!nearest->best || distance < nearest->distance) {
        nearest->best = name;
        nearest->distance = distance;
    }
}

const char *nearest_hint(struct reader *reader, const struct nearest *nearest)
{
    if (!nearest->best)
        return "";
    /* One edit in a short name, up to a third of a longer one: more is no longer a typo, nor is
     * a name of which no letter is left. */
    unsigned length = (unsigned)strlen(nearest->wanted), allowed = 1 + length / 3;
    if (nearest->distance > allowed || nearest->distance >= length)
        return "";
    return arena_printf(reader->arena, ", did you mean '%s'?", nearest->best);
}
