/* document.c - see document.h. */
#include "worker/recipes/data/web/document.h"

#include "common/base/buf.h"
#include "common/base/mem.h"
#include "worker/recipes/data/web/chars.h"
#include "worker/recipes/data/web/stream.h"
#include "worker/recipes/data/web/warc.h"

#include <errno.h>
#include <glob.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define READ_BYTES ((size_t)1 << 18)

void document_done(struct document *document)
{
    mem_free(document->id);
    mem_free(document->text);
    mem_free(document->source);
    mem_free(document->url);
    mem_free(document->title);
    mem_free(document->ext);
    mem_free(document->lang);
    mem_free(document->type);
    mem_free(document->subreddit);
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

/* A field of the line, or of its metadata. */
static const json_t *field(const json_t *root, const char *name)
{
    const json_t *value = json_object_get(root, name);

    return value ? value : json_object_get(json_object_get(root, "metadata"), name);
}

static char *lower_text(const json_t *root, const char *name)
{
    size_t length;
    char *text = take_text(field(root, name), &length);

    for (char *c = text; c && *c; c++)
        *c = *c >= 'A' && *c <= 'Z' ? (char)(*c | 0x20) : *c;
    return text;
}

static bool take_number(const json_t *root, const char *name, double *out)
{
    const json_t *value = field(root, name);

    if (!json_is_number(value))
        return false;
    *out = json_number_value(value);
    return true;
}

/* Of `ext`, with a dot or without, or of the last name in `path`. */
static char *take_ext(const json_t *root)
{
    char *text = lower_text(root, "ext"), *path = text ? NULL : lower_text(root, "path");
    const char *slash = path ? strrchr(path, '/') : NULL, *dot = path ? strrchr(path, '.') : NULL;
    char *ext = NULL;

    if (text)
        ext = mem_strdup(text + (*text == '.'));
    else if (dot && (!slash || dot > slash))
        ext = mem_strdup(dot + 1);
    mem_free(text);
    mem_free(path);
    return ext;
}

static bool says_deleted(const char *text)
{
    size_t length = strlen(text);

    char_trim(&text, &length);
    return (length == 9 && memcmp(text, "[deleted]", 9) == 0) ||
           (length == 9 && memcmp(text, "[removed]", 9) == 0);
}

static void take_facts(const json_t *root, struct document *out)
{
    const char *author = json_string_value(field(root, "author"));
    size_t unused;

    out->title = take_text(field(root, "title"), &unused);
    out->ext = take_ext(root);
    out->lang = lower_text(root, "lang");
    out->type = lower_text(root, "type");
    out->subreddit = lower_text(root, "subreddit");
    out->has_stars = take_number(root, "stars", &out->stars) ||
                     take_number(root, "max_stars_count", &out->stars);
    out->has_votes = take_number(root, "votes", &out->votes) ||
                     take_number(root, "score", &out->votes);
    out->adult = json_is_true(field(root, "over_18"));
    out->deleted = json_is_true(field(root, "deleted")) || (author && says_deleted(author)) ||
                   says_deleted(out->text);
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
    take_facts(root, out);
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

/* What a file is, by its first bytes: gzip, and within it or plain a web archive. */
static int look_into(const char *path, struct document_file *file, struct err *err)
{
    struct stream stream;
    struct buf first = {0};
    struct stat about;
    uint64_t got;

    if (stat(path, &about) < 0)
        return err_errno(err, "read '%s'", path);
    if (!S_ISREG(about.st_mode))
        return err_set(err, ERR_INVALID, "'%s' is no regular file", path);
    if (stream_open(path, &stream, err) < 0)
        return -1;
    int rc = stream_bytes(&stream, 5, &first, &got, err);
    file->bytes = (uint64_t)about.st_size;
    file->gzip = rc == 0 && !gzdirect(stream.file);
    file->archive = got == 5 && memcmp(first.bytes, "WARC/", 5) == 0;
    buf_done(&first);
    stream_close(&stream);
    return rc;
}

/* Neither gzip nor an archive can be entered in its middle: such a file is one block. */
static int add_file(struct document_list *list, const char *path, uint64_t block_bytes,
                    struct err *err)
{
    struct document_file file = {0};

    if (look_into(path, &file, err) < 0)
        return -1;
    if (file.archive && !list->has_archive && html_check_encodings(err) < 0)
        return err_wrap(err, "read '%s'", path);
    if (list->file_count >= DOCUMENT_FILES_MAX)
        return err_set(err, ERR_LIMIT, "more than %d files", DOCUMENT_FILES_MAX);
    for (uint64_t at = 0; at < file.bytes; at += block_bytes) {
        bool last = file.gzip || file.archive || file.bytes - at <= block_bytes;
        VEC_RESERVE(list->blocks, list->block_count, list->block_capacity);
        list->blocks[list->block_count++] = (struct document_block){
            (uint32_t)list->file_count, at, last ? UINT64_MAX : at + block_bytes};
        if (last)
            break;
    }
    VEC_RESERVE(list->files, list->file_count, list->file_capacity);
    file.path = mem_strdup(path);
    list->files[list->file_count++] = file;
    list->has_archive = list->has_archive || file.archive;
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

static int visit_line(const struct document_file *file, const struct stream *stream,
                      uint64_t number, document_visit visit, void *argument, struct err *err)
{
    struct document document = {0};
    struct err why = {0};
    struct document_line line = {.file = file, .number = number};

    if (document_parse(stream->line.bytes, stream->line.length, &document, &why) < 0)
        line.malformed = why.text;
    else
        line.document = &document;
    int rc = visit(argument, &line, err);
    document_done(&document);
    return rc;
}

static int read_lines(const struct document_file *file, struct stream *stream,
                      const struct document_block *block, document_visit visit, void *argument,
                      struct err *err)
{
    uint64_t number = 0;
    bool more = true;

    if (block->begin > 0 && /* the line that began before is the other block's */
        (stream_seek(stream, block->begin - 1, err) < 0 || stream_line(stream, &more, err) < 0 ||
         count_lines(file, stream->offset, &number, err) < 0))
        return -1;
    while (more && stream->offset < block->end) {
        if (stream_line(stream, &more, err) < 0)
            return -1;
        number += more;
        if (more && !is_blank(&stream->line) &&
            visit_line(file, stream, number, visit, argument, err) < 0)
            return -1;
    }
    return 0;
}

/* ---- web archives ----------------------------------------------------------------------- */

struct records {
    const struct document_list *list;
    const struct document_file *file;
    struct stream stream;
    uint64_t number; /* of the record, from 1 */
    struct buf header, content, text;
    document_visit visit;
    void *argument;
};

static int tell(struct records *records, struct document *document, const char *malformed,
                const char *no_page, struct err *err)
{
    struct document_line line = {.file = records->file, .number = records->number,
                                 .document = document, .malformed = malformed,
                                 .no_page = no_page};

    return records->visit(records->argument, &line, err);
}

/* The header's lines up to the blank one. *why: not whole (constant). */
static int read_header(struct records *records, const char **why, struct err *err)
{
    struct stream *stream = &records->stream;

    buf_clear(&records->header);
    for (bool more;;) {
        if (stream_line(stream, &more, err) < 0)
            return -1;
        if (!more)
            *why = "the file ends within a record's header";
        else if (records->header.length + stream->line.length > WARC_HEADER_MAX)
            *why = "a record's header has more than 1 MiB";
        if (*why || is_blank(&stream->line))
            return 0;
        buf_add(&records->header, buf_text(&stream->line), stream->line.length);
        buf_putc(&records->header, '\n');
    }
}

static int take_page(struct records *records, const struct warc_header *header, struct err *err)
{
    struct document document = {0};

    buf_clear(&records->text);
    const char *wrong = header->length > WARC_RECORD_MAX
                            ? "a record of more than 256 MiB"
                            : warc_page_text(header, &records->list->skip,
                                             buf_text(&records->content), records->content.length,
                                             &records->text);
    document.id = mem_strdup(*header->id ? header->id : header->uri);
    document.url = *header->uri ? mem_strdup(header->uri) : NULL;
    document.source = mem_strdup("");
    document.length = records->text.length;
    document.text = mem_strndup(buf_text(&records->text), records->text.length);
    int rc = tell(records, &document, NULL, wrong, err);
    document_done(&document);
    return rc;
}

/* A record behind its version line. */
static int read_record(struct records *records, struct err *err)
{
    struct warc_header header = {0};
    struct err why = {0};
    const char *torn = NULL;
    uint64_t got = 0;

    records->number++;
    buf_clear(&records->content);
    if (read_header(records, &torn, err) < 0)
        return -1;
    if (!torn &&
        warc_header_parse(buf_text(&records->header), records->header.length, &header, &why) < 0)
        torn = why.text;
    if (torn)
        return tell(records, NULL, torn, NULL, err);
    bool wanted = warc_is_document(&header) && header.length <= WARC_RECORD_MAX;
    int rc = stream_bytes(&records->stream, header.length, wanted ? &records->content : NULL, &got,
                          err);
    if (rc == 0 && got < header.length)
        rc = tell(records, NULL, "the file ends within a record", NULL, err);
    else if (rc == 0 && warc_is_document(&header))
        rc = take_page(records, &header, err);
    warc_header_done(&header);
    return rc;
}

/* Lines between records are blank. What else stands there is one malformed record, to the next line
 * that begins one. */
static int read_records(struct records *records, struct err *err)
{
    struct stream *stream = &records->stream;
    bool more = true, lost = false;

    for (;;) {
        if (stream_line(stream, &more, err) < 0)
            return -1;
        if (!more)
            return 0;
        if (warc_is_version(buf_text(&stream->line), stream->line.length)) {
            lost = false;
            if (read_record(records, err) < 0)
                return -1;
        } else if (!lost && !is_blank(&stream->line)) {
            lost = true;
            records->number++;
            if (tell(records, NULL, "no record of WARC/1.0 or 1.1 begins here", NULL, err) < 0)
                return -1;
        }
    }
}

static int read_archive(const struct document_list *list, const struct document_file *file,
                        document_visit visit, void *argument, struct err *err)
{
    struct records records = {.list = list, .file = file, .visit = visit, .argument = argument};
    int rc = stream_open(file->path, &records.stream, err);

    if (rc == 0)
        rc = read_records(&records, err);
    stream_close(&records.stream);
    buf_done(&records.header);
    buf_done(&records.content);
    buf_done(&records.text);
    return rc;
}

int document_read(const struct document_list *list, size_t block, document_visit visit,
                  void *argument, struct err *err)
{
    CHECK(block < list->block_count);
    const struct document_block *range = &list->blocks[block];
    const struct document_file *file = &list->files[range->file];
    struct stream stream;

    if (file->archive)
        return read_archive(list, file, visit, argument, err);
    if (stream_open(file->path, &stream, err) < 0)
        return -1;
    int rc = read_lines(file, &stream, range, visit, argument, err);
    stream_close(&stream);
    return rc;
}
