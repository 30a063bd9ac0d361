/* document.c - see document.h. zlib reads plain files through the same calls. */
#include "worker/recipes/data/web/document.h"

#include "common/base/buf.h"
#include "common/base/mem.h"

#include <errno.h>
#include <glob.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

#define READ_BYTES ((size_t)1 << 18)

void document_done(struct document *document)
{
    mem_free(document->id);
    mem_free(document->text);
    mem_free(document->source);
    mem_free(document->url);
    *document = (struct document){0};
}

/* ---- one line --------------------------------------------------------------------------- */

/* A copy without zero characters; NULL when it is no string. */
static char *take_text(const json_t *value, size_t *out_length)
{
    const char *text = json_string_value(value);
    size_t length = json_string_length(value);
    struct buf out = {0};

    if (!text)
        return NULL;
    if (!memchr(text, 0, length)) {
        *out_length = length;
        return mem_strndup(text, length);
    }
    for (size_t i = 0; i < length; i++) {
        if (text[i])
            buf_putc(&out, text[i]);
        else
            buf_puts(&out, "\xEF\xBF\xBD");
    }
    *out_length = out.length;
    return buf_take(&out);
}

static int take_fields(const json_t *root, struct document *out, struct err *err)
{
    const json_t *url = json_object_get(root, "url");
    size_t unused;

    if (!json_is_object(root))
        return err_set(err, ERR_PROTOCOL, "is no JSON object");
    if (!json_is_string(json_object_get(root, "id")))
        return err_set(err, ERR_PROTOCOL, "has no text 'id'");
    if (!json_is_string(json_object_get(root, "text")))
        return err_set(err, ERR_PROTOCOL, "has no text 'text'");
    if (!json_is_string(url))
        url = json_object_get(json_object_get(root, "metadata"), "url");
    out->id = take_text(json_object_get(root, "id"), &unused);
    out->text = take_text(json_object_get(root, "text"), &out->length);
    out->source = take_text(json_object_get(root, "source"), &unused);
    out->url = take_text(url, &unused);
    if (!out->source)
        out->source = mem_strdup("");
    return 0;
}

int document_parse(const char *line, size_t length, struct document *out, struct err *err)
{
    json_error_t where;
    json_t *root = json_loadb(line, length, JSON_ALLOW_NUL, &where);

    if (!root)
        return err_set(err, ERR_PROTOCOL, "is no JSON: %s at column %d", where.text, where.column);
    *out = (struct document){0};
    int rc = take_fields(root, out, err);
    json_decref(root);
    return rc;
}

/* ---- files and blocks ------------------------------------------------------------------- */

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), bytes = strlen(end);

    return length >= bytes && strcmp(text + length - bytes, end) == 0;
}

static int add_file(struct document_list *list, const char *path, uint64_t block_bytes,
                    struct err *err)
{
    struct stat about;
    unsigned char first[2] = {0};
    FILE *stream = fopen(path, "rb");

    if (!stream || fstat(fileno(stream), &about) < 0) {
        err_errno(err, "read '%s'", path);
        if (stream)
            fclose(stream);
        return -1;
    }
    size_t got = fread(first, 1, 2, stream);
    fclose(stream);
    if (!S_ISREG(about.st_mode))
        return err_set(err, ERR_INVALID, "'%s' is no regular file", path);
    if (ends_with(path, ".warc") || ends_with(path, ".warc.gz"))
        return err_set(err, ERR_INVALID, "'%s' is an archive of web pages (WARC); documents are "
                       "read as JSON lines with \"id\" and \"text\"", path);
    if (list->file_count >= DOCUMENT_FILES_MAX)
        return err_set(err, ERR_LIMIT, "more than %d files", DOCUMENT_FILES_MAX);
    bool gzip = got == 2 && first[0] == 0x1F && first[1] == 0x8B;
    uint64_t bytes = (uint64_t)about.st_size;
    for (uint64_t at = 0; at < bytes; at += block_bytes) {
        bool last = gzip || bytes - at <= block_bytes;
        VEC_RESERVE(list->blocks, list->block_count, list->block_capacity);
        list->blocks[list->block_count++] = (struct document_block){
            (uint32_t)list->file_count, at, last ? UINT64_MAX : at + block_bytes};
        if (last)
            break;
    }
    VEC_RESERVE(list->files, list->file_count, list->file_capacity);
    list->files[list->file_count++] = (struct document_file){mem_strdup(path), bytes, gzip};
    return 0;
}

int document_list_add(struct document_list *list, const char *pattern, uint64_t block_bytes,
                      struct err *err)
{
    glob_t found = {0};
    int rc = 0, status = glob(pattern, 0, NULL, &found);

    if (status == GLOB_NOMATCH)
        rc = err_set(err, ERR_NOT_FOUND, "no file matches '%s'", pattern);
    else if (status != 0)
        rc = err_set(err, ERR_IO, "the pattern '%s' could not be read", pattern);
    for (size_t i = 0; i < found.gl_pathc && rc == 0; i++)
        rc = add_file(list, found.gl_pathv[i], block_bytes, err);
    globfree(&found);
    return rc;
}

void document_list_done(struct document_list *list)
{
    for (size_t i = 0; i < list->file_count; i++)
        mem_free(list->files[i].path);
    mem_free(list->files);
    mem_free(list->blocks);
    *list = (struct document_list){0};
}

/* ---- reading a block -------------------------------------------------------------------- */

struct lines {
    const struct document_file *file;
    gzFile stream;
    char *room;      /* READ_BYTES */
    size_t at, held; /* in the room */
    uint64_t offset; /* of room[at] in the (decompressed) file */
    struct buf line;
};

static int fill(struct lines *lines, struct err *err)
{
    int got = gzread(lines->stream, lines->room, READ_BYTES), code;

    lines->at = 0;
    lines->held = got > 0 ? (size_t)got : 0;
    if (got < 0) {
        const char *why = gzerror(lines->stream, &code);
        return code == Z_ERRNO ? err_errno(err, "read '%s'", lines->file->path)
                               : err_set(err, ERR_PROTOCOL, "'%s' is damaged: %s",
                                         lines->file->path, why);
    }
    /* zlib reports a file that ends within a stream only here. */
    if (got == 0 && gzerror(lines->stream, &code) && code == Z_BUF_ERROR)
        return err_set(err, ERR_PROTOCOL, "'%s' is damaged: it ends too early", lines->file->path);
    return 0;
}

/* The next line without its end in lines->line. *out: false at the end of the file. */
static int next_line(struct lines *lines, bool *out, struct err *err)
{
    buf_clear(&lines->line);
    for (bool any = false;;) {
        if (lines->at == lines->held && fill(lines, err) < 0)
            return -1;
        if (lines->held == 0) {
            *out = any;
            return 0;
        }
        any = true;
        const char *from = lines->room + lines->at;
        const char *end = memchr(from, '\n', lines->held - lines->at);
        size_t bytes = end ? (size_t)(end - from) : lines->held - lines->at;
        buf_add(&lines->line, from, bytes);
        lines->at += bytes + (end != NULL);
        lines->offset += bytes + (end != NULL);
        if (lines->line.length > DOCUMENT_LINE_MAX)
            return err_set(err, ERR_PROTOCOL, "'%s': a line has more than %zu bytes",
                           lines->file->path, DOCUMENT_LINE_MAX);
        if (end) {
            *out = true;
            return 0;
        }
    }
}

/* What lies before a block is counted once, at the speed of memory: every line has its number. */
static int count_lines(const struct document_file *file, uint64_t until, uint64_t *out,
                       struct err *err)
{
    char *room = mem_alloc(READ_BYTES);
    FILE *stream = fopen(file->path, "rb");
    int rc = stream ? 0 : err_errno(err, "read '%s'", file->path);

    *out = 0;
    for (uint64_t at = 0; at < until && rc == 0;) {
        size_t want = (size_t)min_u64(READ_BYTES, until - at), got = fread(room, 1, want, stream);
        if (got == 0)
            rc = err_set(err, ERR_IO, "'%s' has become shorter", file->path);
        for (size_t i = 0; i < got; i++)
            *out += room[i] == '\n';
        at += got;
    }
    if (stream)
        fclose(stream);
    mem_free(room);
    return rc;
}

static bool is_blank(const struct buf *line)
{
    return strspn(buf_text(line), " \t\r") >= line->length;
}

static int visit_line(struct lines *lines, uint64_t number, document_visit visit, void *argument,
                      struct err *err)
{
    struct document document = {0};
    struct err why = {0};
    struct document_line line = {.file = lines->file, .number = number};

    if (document_parse(lines->line.bytes, lines->line.length, &document, &why) < 0)
        line.malformed = why.text;
    else
        line.document = &document;
    int rc = visit(argument, &line, err);
    document_done(&document);
    return rc;
}

static int read_lines(struct lines *lines, const struct document_block *block,
                      document_visit visit, void *argument, struct err *err)
{
    uint64_t number;
    bool more = true;

    if (block->begin > 0) { /* the line that began before is the other block's */
        lines->offset = block->begin - 1;
        if (gzseek(lines->stream, (z_off_t)lines->offset, SEEK_SET) < 0)
            return err_errno(err, "read '%s'", lines->file->path);
        if (next_line(lines, &more, err) < 0 ||
            count_lines(lines->file, lines->offset, &number, err) < 0)
            return -1;
    } else {
        number = 0;
    }
    while (more && lines->offset < block->end) {
        if (next_line(lines, &more, err) < 0)
            return -1;
        number += more;
        if (more && !is_blank(&lines->line) &&
            visit_line(lines, number, visit, argument, err) < 0)
            return -1;
    }
    return 0;
}

int document_read(const struct document_list *list, size_t block, document_visit visit,
                  void *argument, struct err *err)
{
    CHECK(block < list->block_count);
    const struct document_block *range = &list->blocks[block];
    struct lines lines = {.file = &list->files[range->file], .room = mem_alloc(READ_BYTES)};
    int rc;

    errno = 0;
    lines.stream = gzopen(lines.file->path, "rb");
    if (lines.stream)
        rc = read_lines(&lines, range, visit, argument, err);
    else
        rc = err_errno(err, "read '%s'", lines.file->path);
    if (lines.stream)
        gzclose(lines.stream);
    buf_done(&lines.line);
    mem_free(lines.room);
    return rc;
}
