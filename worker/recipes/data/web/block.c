/* block.c - the files of blocks read back; see web.h. */
#include "common/base/file.h"
#include "common/base/mem.h"
#include "worker/recipes/data/web/web.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

#define BLOCK_BYTES_MAX ((size_t)1 << 36)

char *web_block_path(const struct web *web, size_t block, const char *extension)
{
    return mem_printf("%s/block-%06zu.%s", web->folder, block, extension);
}

void block_item_done(struct block_item *item)
{
    mem_free(item->id);
    mem_free(item->source);
    mem_free(item->where);
    mem_free(item->text);
    json_decref(item->attributes);
    *item = (struct block_item){0};
}

static char *text_of(const json_t *root, const char *name)
{
    return mem_strdup(json_string_value(json_object_get(root, name)));
}

static int take_fields(const struct web *web, const json_t *root, struct block_item *out,
                       struct err *err)
{
    const char *verdict = json_string_value(json_object_get(root, "verdict"));
    const json_t *text = json_object_get(root, "text"), *value = json_object_get(root, "value");
    const json_t *edits = json_object_get(root, "edits");

    out->verdict = verdict ? web_filter_find(web, verdict) : FILTER_END;
    if (out->verdict == FILTER_END)
        return err_set(err, ERR_PROTOCOL, "no verdict that is known");
    if (!json_is_string(text))
        text = json_object_get(root, "excerpt");
    if (json_is_object(json_object_get(root, "attributes")))
        out->attributes = json_incref(json_object_get(root, "attributes"));
    out->id = text_of(root, "id");
    out->source = text_of(root, "source");
    out->where = text_of(root, "where");
    out->text = mem_strdup(json_string_value(text));
    if (!out->id || !out->source || !out->where || !out->text)
        return err_set(err, ERR_PROTOCOL, "id, source, where, or text is missing");
    out->length = json_string_length(text);
    out->bytes = (uint64_t)json_integer_value(json_object_get(root, "bytes"));
    out->value = json_is_number(value) ? json_number_value(value) : NAN;
    for (enum edit e = 0; e < EDIT_END; e++)
        out->edits[e] = (uint64_t)json_integer_value(json_object_get(edits, edit_name(e)));
    return 0;
}

int block_item_parse(const struct web *web, const char *line, size_t length,
                     struct block_item *out, struct err *err)
{
    json_error_t where;
    json_t *root = json_loadb(line, length, 0, &where);
    struct block_item item = {0};
    int rc = root ? take_fields(web, root, &item, err)
                  : err_set(err, ERR_PROTOCOL, "%s", where.text);

    if (rc == 0)
        *out = item;
    else
        block_item_done(&item);
    json_decref(root);
    return rc;
}

/* *out_count: documents that the head promises. */
static int check_head(const struct web *web, const char *line, size_t length, size_t *out_count,
                      struct err *err)
{
    json_error_t where;
    json_t *root = json_loadb(line, length, 0, &where);
    const char *settings = json_string_value(json_object_get(root, "settings"));
    int rc = 0;

    if (!settings)
        rc = err_set(err, ERR_PROTOCOL, "line 1: no settings");
    else if (strcmp(settings, web->settings) != 0)
        rc = err_set(err, ERR_STALE, "made with other settings");
    else
        *out_count = (size_t)json_integer_value(json_object_get(root, "documents"));
    json_decref(root);
    return rc;
}

static int visit_lines(const struct web *web, size_t block, const char *bytes,
                       block_item_visit visit, void *argument, struct err *err)
{
    size_t number = 0, promised = 0;

    for (const char *at = bytes, *end; (end = strchr(at, '\n')); at = end + 1, number++) {
        size_t length = (size_t)(end - at);
        struct block_item item;
        if (number == 0) {
            if (check_head(web, at, length, &promised, err) < 0)
                return -1;
            continue;
        }
        if (block_item_parse(web, at, length, &item, err) < 0)
            return err_wrap(err, "line %zu", number + 1);
        int rc = visit(argument, block, number - 1, &item, err);
        block_item_done(&item);
        if (rc < 0)
            return -1;
    }
    if (number == 0 || number - 1 != promised)
        return err_set(err, ERR_PROTOCOL, "has %zu lines instead of %zu", number, promised + 1);
    return 0;
}

int web_block_read(const struct web *web, size_t block, block_item_visit visit, void *argument,
                   struct err *err)
{
    char *path = web_block_path(web, block, "jsonl"), *bytes;
    size_t length;
    int rc = file_read(path, BLOCK_BYTES_MAX, &bytes, &length, err);

    if (rc == 0) {
        rc = visit_lines(web, block, bytes, visit, argument, err);
        mem_free(bytes);
        if (rc < 0)
            err_wrap(err, "block '%s'", path);
    }
    mem_free(path);
    return rc;
}
