/* pair_line.c - see pair_line.h. */
#include "worker/recipes/data/pair_line.h"

#include "common/base/mem.h"

#include <jansson.h>
#include <string.h>

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static char *in_one_line(const char *text, size_t length)
{
    char *out = mem_alloc(length + 1);
    size_t n = 0;

    for (size_t i = 0; i < length; i++) {
        if (!is_space(text[i]))
            out[n++] = text[i];
        else if (n && out[n - 1] != ' ')
            out[n++] = ' ';
    }
    while (n && out[n - 1] == ' ')
        n--;
    out[n] = 0;
    return out;
}

static int take_text(json_t *root, const char *name, size_t most, char **out, struct err *err)
{
    json_t *value = json_object_get(root, name);
    size_t length = json_string_length(value);

    if (!json_is_string(value) || length == 0 || length > most ||
        strlen(json_string_value(value)) != length)
        return err_set(err, ERR_INVALID, "'%s' is %s; a text of 1 to %zu bytes without U+0000 is "
                       "accepted", name,
                       !value                   ? "missing"
                       : !json_is_string(value) ? "no text"
                       : length == 0            ? "empty"
                                                : "too long, or holds U+0000",
                       most);
    *out = in_one_line(json_string_value(value), length);
    if (!**out)
        return err_set(err, ERR_INVALID, "'%s' is blank", name);
    return 0;
}

static int take_label(json_t *root, char **out, struct err *err)
{
    json_t *value = json_object_get(root, "label");

    if (!json_is_integer(value))
        return take_text(root, "label", PAIR_LABEL_MAX, out, err);
    *out = mem_printf("%lld", (long long)json_integer_value(value));
    return 0;
}

int pair_line_parse(const char *line, size_t length, struct pair_line *out, struct err *err)
{
    struct pair_line fresh = {0};
    json_error_t why;
    json_t *root = json_loadb(line, length, JSON_REJECT_DUPLICATES, &why);
    int rc = 0;

    if (!root)
        return err_set(err, ERR_PROTOCOL, "column %d: %s", why.column, why.text);
    if (!json_is_object(root))
        rc = err_set(err, ERR_INVALID, "not a JSON object");
    if (rc == 0 && (take_text(root, "x", PAIR_TEXT_MAX, &fresh.x, err) < 0 ||
                    take_text(root, "y", PAIR_TEXT_MAX, &fresh.y, err) < 0 ||
                    take_label(root, &fresh.label, err) < 0))
        rc = -1;
    json_decref(root);
    if (rc < 0)
        pair_line_done(&fresh);
    else
        *out = fresh;
    return rc;
}

void pair_line_done(struct pair_line *line)
{
    mem_free(line->x);
    mem_free(line->y);
    mem_free(line->label);
    *line = (struct pair_line){0};
}
