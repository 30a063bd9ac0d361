/* prefixes.c - see prefixes.h. */
#include "worker/recipes/distillation/impossible/prefixes.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/parse.h"

#include <string.h>

static int take_line(struct prefixes *out, size_t *capacity, char *line, size_t length,
                     size_t number, struct err *err)
{
    if (memchr(line, 0, length) || !text_is_utf8(line, length))
        return err_set(err, ERR_INVALID, "line %zu is not UTF-8 text", number);
    while (length && strchr(" \t\r", line[length - 1]))
        length--;
    for (; length && strchr(" \t", *line); length--)
        line++;
    if (length > PREFIX_BYTES_MAX)
        return err_set(err, ERR_INVALID, "line %zu has %zu bytes; at most %u are accepted", number,
                       length, PREFIX_BYTES_MAX);
    line[length] = 0;
    if (length == 0 || *line == '#')
        return 0;
    VEC_RESERVE(out->items, out->count, *capacity);
    out->items[out->count++] = line;
    return 0;
}

static int take_lines(struct prefixes *out, size_t length, struct err *err)
{
    size_t capacity = 0, number = 1;

    for (char *at = out->bytes, *stop = at + length; at < stop; number++) {
        char *end = memchr(at, '\n', (size_t)(stop - at));
        end = end ? end : stop;
        if (take_line(out, &capacity, at, (size_t)(end - at), number, err) < 0)
            return -1;
        at = end + 1;
    }
    return out->count ? 0 : err_set(err, ERR_INVALID, "there is no prefix in it");
}

int prefixes_parse(const char *bytes, size_t length, struct prefixes *out, struct err *err)
{
    *out = (struct prefixes){.bytes = mem_alloc(length + 1)};
    memcpy(out->bytes, bytes, length);
    out->bytes[length] = 0;
    int rc = take_lines(out, length, err);
    if (rc < 0)
        prefixes_done(out);
    return rc;
}

int prefixes_read(const char *path, struct prefixes *out, struct err *err)
{
    char *bytes;
    size_t length;

    if (file_read(path, PREFIXES_BYTES_MAX, &bytes, &length, err) < 0)
        return -1;
    int rc = prefixes_parse(bytes, length, out, err);
    mem_free(bytes);
    return rc < 0 ? err_wrap(err, "prefixes '%s'", path) : 0;
}

void prefixes_done(struct prefixes *prefixes)
{
    mem_free(prefixes->items);
    mem_free(prefixes->bytes);
    *prefixes = (struct prefixes){0};
}
