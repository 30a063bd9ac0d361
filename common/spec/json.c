/* json.c - canonical JSON; see json.h. */
#include "common/spec/json.h"

#include "common/base/mem.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void json_put_text(struct buf *out, const char *text)
{
    static const char *const escapes[0x20] = {
        ['\n'] = "\\n", ['\t'] = "\\t", ['\r'] = "\\r", ['\b'] = "\\b", ['\f'] = "\\f",
    };
    buf_putc(out, '"');
    for (const char *at = text; *at; at++) {
        unsigned char c = (unsigned char)*at;
        if (c == '"' || c == '\\')
            buf_printf(out, "\\%c", c);
        else if (c < 0x20 && escapes[c])
            buf_puts(out, escapes[c]);
        else if (c < 0x20)
            buf_printf(out, "\\u%04x", c);
        else
            buf_putc(out, *at);
    }
    buf_putc(out, '"');
}

void json_put_float(struct buf *out, double number)
{
    char text[64];
    CHECK(isfinite(number));
    if (number == floor(number) && fabs(number) <= JSON_FLOAT_MAX) {
        buf_printf(out, "%.1f", number == 0 ? 0.0 : number); /* jsonb has no -0 */
        return;
    }
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, number);
        if (strtod(text, NULL) == number)
            break;
    }
    buf_puts(out, text);
}

static int key_compare(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The object's keys, sorted (mem_free); they belong to the object. */
static const char **keys_sorted(const json_t *object)
{
    json_t *readable = (json_t *)(uintptr_t)object; /* jansson iterates without const */
    const char **keys = mem_array(json_object_size(object) + 1, sizeof *keys);
    size_t count = 0;
    for (void *at = json_object_iter(readable); at; at = json_object_iter_next(readable, at))
        keys[count++] = json_object_iter_key(at);
    qsort(keys, count, sizeof *keys, key_compare);
    return keys;
}

static void value_put(struct buf *out, const json_t *value, unsigned depth);

static void object_put(struct buf *out, const json_t *object, unsigned depth)
{
    const char **keys = keys_sorted(object);
    buf_putc(out, '{');
    for (size_t i = 0; keys[i]; i++) {
        buf_puts(out, i ? ", " : "");
        json_put_text(out, keys[i]);
        buf_puts(out, ": ");
        value_put(out, json_object_get(object, keys[i]), depth + 1);
    }
    buf_putc(out, '}');
    mem_free(keys);
}

static void array_put(struct buf *out, const json_t *array, unsigned depth)
{
    buf_putc(out, '[');
    for (size_t i = 0; i < json_array_size(array); i++) {
        buf_puts(out, i ? ", " : "");
        value_put(out, json_array_get(array, i), depth + 1);
    }
    buf_putc(out, ']');
}

/* Recurses at most JSON_DEPTH_MAX deep: json_read and node.c refuse deeper input. */
static void value_put(struct buf *out, const json_t *value, unsigned depth)
{
    CHECK(depth <= JSON_DEPTH_MAX);
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        object_put(out, value, depth);
        break;
    case JSON_ARRAY:
        array_put(out, value, depth);
        break;
    case JSON_STRING:
        json_put_text(out, json_string_value(value));
        break;
    case JSON_INTEGER:
        buf_printf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        break;
    case JSON_REAL:
        json_put_float(out, json_real_value(value));
        break;
    case JSON_TRUE:
        buf_puts(out, "true");
        break;
    case JSON_FALSE:
        buf_puts(out, "false");
        break;
    case JSON_NULL:
        buf_puts(out, "null");
        break;
    }
}

void json_put(struct buf *out, const json_t *value)
{
    value_put(out, value, 1);
}

/* Deepest nesting of brackets outside of strings; cheap, and before jansson recurses. */
static unsigned depth_of(const char *bytes, size_t length)
{
    unsigned depth = 0, deepest = 0;
    bool quoted = false;
    for (size_t i = 0; i < length; i++) {
        if (quoted && bytes[i] == '\\')
            i++;
        else if (bytes[i] == '"')
            quoted = !quoted;
        else if (!quoted && (bytes[i] == '{' || bytes[i] == '['))
            deepest = ++depth > deepest ? depth : deepest;
        else if (!quoted && (bytes[i] == '}' || bytes[i] == ']') && depth > 0)
            depth--;
    }
    return deepest;
}

int json_read(const char *bytes, size_t length, json_t **out, struct err *err)
{
    json_error_t problem;
    if (depth_of(bytes, length) > JSON_DEPTH_MAX)
        return err_set(err, ERR_PROTOCOL, "JSON nests deeper than %d levels", JSON_DEPTH_MAX);
    json_t *value = json_loadb(bytes, length, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &problem);
    if (!value)
        return err_set(err, ERR_PROTOCOL, "JSON line %d column %d: %s", problem.line,
                       problem.column, problem.text);
    *out = value;
    return 0;
}
