/* warc.c - see warc.h. */
#include "worker/recipes/data/web/warc.h"

#include "common/base/mem.h"
#include "common/base/parse.h"

#include <string.h>
#include <strings.h>
#include <zlib.h>

/* ---- header lines ----------------------------------------------------------------------- */

/* One "Name: value" of a header, folded lines joined; value without space at its ends. */
struct field {
    const char *name;
    size_t name_length;
    char *value;
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static char *take_value(const char *from, const char *end)
{
    struct buf out = {0};

    while (from < end && is_blank(*from))
        from++;
    while (end > from && is_blank(end[-1]))
        end--;
    for (; from < end; from++) /* the line ends of a folded value, and zeros, are spaces */
        buf_putc(&out, *from && *from != '\r' && *from != '\n' ? *from : ' ');
    if (!out.bytes)
        return mem_strdup("");
    return buf_take(&out);
}

/* The field at *at; false at the end. A line without ':' is left out. out->value: mem_free. */
static bool next_field(const char **at, const char *end, struct field *out)
{
    while (*at < end) {
        const char *line = *at, *stop = line, *colon;
        do {
            const char *newline = memchr(stop, '\n', (size_t)(end - stop));
            stop = newline ? newline + 1 : end;
        } while (stop < end && (*stop == ' ' || *stop == '\t'));
        *at = stop;
        colon = memchr(line, ':', (size_t)(stop - line));
        if (!colon)
            continue;
        *out = (struct field){line, (size_t)(colon - line), take_value(colon + 1, stop)};
        return true;
    }
    return false;
}

static bool field_is(const struct field *field, const char *name)
{
    return field->name_length == strlen(name) &&
           strncasecmp(field->name, name, field->name_length) == 0;
}

/* ---- a record's header ------------------------------------------------------------------ */

bool warc_is_version(const char *line, size_t length)
{
    static const char *const versions[] = {"WARC/1.0", "WARC/1.1", "WARC/0.17", "WARC/0.18"};

    while (length > 0 && is_blank(line[length - 1]))
        length--;
    for (size_t i = 0; i < ARRAY_COUNT(versions); i++)
        if (strlen(versions[i]) == length && memcmp(versions[i], line, length) == 0)
            return true;
    return false;
}

void warc_header_done(struct warc_header *header)
{
    mem_free(header->uri);
    mem_free(header->id);
    mem_free(header->media_type);
    *header = (struct warc_header){0};
}

/* Takes the value, without <> around it. */
static void take_text(char **out, char *value)
{
    size_t length = strlen(value);

    mem_free(*out);
    *out = length >= 2 && *value == '<' && value[length - 1] == '>'
               ? mem_strndup(value + 1, length - 2) : mem_strdup(value);
    mem_free(value);
}

static enum warc_type type_of(const char *name)
{
    static const char *const names[] = {[WARC_RESPONSE] = "response",
                                        [WARC_CONVERSION] = "conversion",
                                        [WARC_RESOURCE] = "resource"};

    for (size_t t = WARC_RESPONSE; t < ARRAY_COUNT(names); t++)
        if (strcasecmp(names[t], name) == 0)
            return (enum warc_type)t;
    return WARC_OTHER;
}

static int take_field(struct field *field, struct warc_header *header, bool *has_type,
                      bool *has_length, struct err *err)
{
    struct err unused;
    int rc = 0;

    if (field_is(field, "WARC-Target-URI")) {
        take_text(&header->uri, field->value);
        return 0;
    }
    if (field_is(field, "WARC-Record-ID")) {
        take_text(&header->id, field->value);
        return 0;
    }
    if (field_is(field, "Content-Type")) {
        take_text(&header->media_type, field->value);
        return 0;
    }
    if (field_is(field, "WARC-Type")) {
        header->type = type_of(field->value);
        *has_type = true;
    } else if (field_is(field, "Content-Length")) {
        if (parse_u64(field->value, &header->length, &unused) < 0)
            rc = err_set(err, ERR_PROTOCOL, "Content-Length '%.40s' is no number", field->value);
        *has_length = true;
    }
    mem_free(field->value);
    return rc;
}

int warc_header_parse(const char *lines, size_t length, struct warc_header *out, struct err *err)
{
    struct warc_header header = {.uri = mem_strdup(""), .id = mem_strdup(""),
                                 .media_type = mem_strdup("")};
    const char *at = lines;
    struct field field;
    bool has_type = false, has_length = false;
    int rc = 0;

    while (rc == 0 && next_field(&at, lines + length, &field))
        rc = take_field(&field, &header, &has_type, &has_length, err);
    if (rc == 0 && !has_type)
        rc = err_set(err, ERR_PROTOCOL, "the record has no WARC-Type");
    if (rc == 0 && !has_length)
        rc = err_set(err, ERR_PROTOCOL, "the record has no Content-Length");
    if (rc == 0)
        *out = header;
    else
        warc_header_done(&header);
    return rc;
}

/* ---- media types ------------------------------------------------------------------------ */

enum media { MEDIA_OTHER = 0, MEDIA_NONE, MEDIA_HTML, MEDIA_TEXT };

static enum media media_of(const char *type)
{
    static const struct {
        const char *name;
        enum media media;
    } known[] = {{"text/html", MEDIA_HTML},
                 {"application/xhtml+xml", MEDIA_HTML},
                 {"text/plain", MEDIA_TEXT}};
    size_t length = strcspn(type, " \t;,");

    if (length == 0)
        return MEDIA_NONE;
    for (size_t i = 0; i < ARRAY_COUNT(known); i++)
        if (strlen(known[i].name) == length && strncasecmp(known[i].name, type, length) == 0)
            return known[i].media;
    return MEDIA_OTHER;
}

/* The charset of a media type, to its end; NULL without. */
static const char *charset_of(const char *type)
{
    for (const char *at = type; (at = strchr(at, ';')); at++) {
        const char *name = at + 1 + strspn(at + 1, " \t");
        if (strncasecmp(name, "charset=", 8) == 0)
            return name + 8;
    }
    return NULL;
}

static bool begins_like_html(const char *bytes, size_t length)
{
    while (length > 0 && is_blank(*bytes))
        bytes++, length--;
    return (length >= 14 && strncasecmp(bytes, "<!doctype html", 14) == 0) ||
           (length >= 5 && strncasecmp(bytes, "<html", 5) == 0);
}

bool warc_is_document(const struct warc_header *header)
{
    const char *type = header->media_type;

    if (header->type == WARC_RESPONSE)
        return strncasecmp(type, "application/http", 16) == 0;
    if (header->type == WARC_CONVERSION)
        return media_of(type) == MEDIA_TEXT;
    return header->type == WARC_RESOURCE && strncasecmp(header->uri, "http", 4) == 0 &&
           (media_of(type) == MEDIA_HTML || media_of(type) == MEDIA_TEXT);
}

/* ---- what HTTP wrapped ------------------------------------------------------------------ */

struct response {
    unsigned status;
    char *type, *encoding, *transfer; /* "" where there is none */
    size_t body;                      /* offset */
};

static void response_done(struct response *response)
{
    mem_free(response->type);
    mem_free(response->encoding);
    mem_free(response->transfer);
}

/* False when it does not begin as a response of HTTP does. */
static bool read_response(const char *bytes, size_t length, struct response *out)
{
    const char *end = bytes + length, *line = memchr(bytes, '\n', length), *stop;
    struct field field;

    *out = (struct response){.type = mem_strdup(""), .encoding = mem_strdup(""),
                             .transfer = mem_strdup("")};
    if (!line || strncasecmp(bytes, "HTTP/", 5) != 0)
        return false;
    const char *space = memchr(bytes, ' ', (size_t)(line - bytes));
    for (; space && space < line && *space == ' ';)
        space++;
    for (; space && space < line && *space >= '0' && *space <= '9' && out->status < 1000; space++)
        out->status = out->status * 10 + (unsigned)(*space - '0');
    const char *at = line + 1;
    for (stop = at; stop < end; stop = line + 1) { /* to the blank line */
        line = memchr(stop, '\n', (size_t)(end - stop));
        if (!line)
            return false;
        if (line == stop || (line == stop + 1 && *stop == '\r'))
            break;
    }
    out->body = stop < end ? (size_t)(line + 1 - bytes) : length;
    while (next_field(&at, stop, &field)) {
        if (field_is(&field, "Content-Type"))
            take_text(&out->type, field.value);
        else if (field_is(&field, "Content-Encoding"))
            take_text(&out->encoding, field.value);
        else if (field_is(&field, "Transfer-Encoding"))
            take_text(&out->transfer, field.value);
        else
            mem_free(field.value);
    }
    return true;
}

/* Joins chunks (RFC 9112, section 7.1). False when they are none: crawlers join them and leave the
 * header as it was. A last chunk that is cut off keeps what there is. */
static bool join_chunks(const char *bytes, size_t length, struct buf *out)
{
    for (size_t at = 0; at < length;) {
        uint64_t size = 0;
        size_t digits = 0;
        for (; at < length && digits < 16; at++, digits++) {
            char c = (char)(bytes[at] | 0x20);
            if (bytes[at] >= '0' && bytes[at] <= '9')
                size = size * 16 + (uint64_t)(bytes[at] - '0');
            else if (c >= 'a' && c <= 'f')
                size = size * 16 + (uint64_t)(c - 'a') + 10;
            else
                break;
        }
        const char *newline = memchr(bytes + at, '\n', length - at);
        if (digits == 0 || !newline)
            return out->length > 0;
        if (size == 0)
            return true;
        at = (size_t)(newline - bytes) + 1;
        size_t take = size < length - at ? (size_t)size : length - at;
        buf_add(out, bytes + at, take);
        at += take;
        for (size_t ends = 0; at < length && ends < 2 && memchr("\r\n", bytes[at], 2); ends++)
            at++;
    }
    return out->length > 0;
}

/* NULL, or why not. What is damaged after some of it keeps that; what does not begin as packed is
 * taken as it is: crawlers unpack and leave the header. */
static const char *unpack(const char *bytes, size_t length, bool raw, struct buf *out)
{
    z_stream stream = {.next_in = (Bytef *)bytes, .avail_in = (uInt)length};
    char room[16384];
    int rc = inflateInit2(&stream, raw ? -MAX_WBITS : MAX_WBITS + 32);

    CHECK(rc == Z_OK);
    do {
        stream.next_out = (Bytef *)room;
        stream.avail_out = sizeof room;
        rc = inflate(&stream, Z_NO_FLUSH);
        buf_add(out, room, sizeof room - stream.avail_out);
    } while (rc == Z_OK && out->length <= WARC_PAGE_MAX);
    inflateEnd(&stream);
    return out->length > WARC_PAGE_MAX ? "a page of more than 32 MiB when unpacked" : NULL;
}

static const char *unpack_any(const char *encoding, const char *bytes, size_t length,
                              struct buf *out)
{
    const char *wrong;

    if (strcasecmp(encoding, "gzip") != 0 && strcasecmp(encoding, "x-gzip") != 0 &&
        strcasecmp(encoding, "deflate") != 0)
        return "packed in a way that is not read (Content-Encoding)";
    wrong = unpack(bytes, length, false, out);
    if (!wrong && out->length == 0 && strcasecmp(encoding, "deflate") == 0)
        wrong = unpack(bytes, length, true, out);
    if (!wrong && out->length == 0)
        buf_add(out, bytes, length);
    return wrong;
}

/* ---- pages ------------------------------------------------------------------------------ */

static const char *page_text(const char *type, const struct html_skip *skip, const char *bytes,
                             size_t length, struct buf *out)
{
    enum media media = media_of(type);
    struct buf decoded = {0};

    if (media == MEDIA_NONE && begins_like_html(bytes, length))
        media = MEDIA_HTML;
    if (media != MEDIA_HTML && media != MEDIA_TEXT)
        return "neither HTML nor text";
    if (length > WARC_PAGE_MAX)
        return "a page of more than 32 MiB";
    html_decode(charset_of(type), media == MEDIA_HTML, bytes, length, &decoded);
    if (media == MEDIA_HTML)
        html_text(skip, buf_text(&decoded), decoded.length, out);
    else
        buf_add(out, buf_text(&decoded), decoded.length);
    buf_done(&decoded);
    return NULL;
}

static const char *response_text(const struct response *response, const struct html_skip *skip,
                                 const char *bytes, size_t length, struct buf *out)
{
    struct buf joined = {0}, unpacked = {0};
    const char *wrong = NULL;

    if (response->status != 200)
        return "its status is not 200";
    if (media_of(response->type) == MEDIA_OTHER)
        return "neither HTML nor text";
    if (strcasecmp(response->transfer, "chunked") == 0 && join_chunks(bytes, length, &joined)) {
        bytes = joined.bytes;
        length = joined.length;
    }
    if (*response->encoding && strcasecmp(response->encoding, "identity") != 0) {
        wrong = unpack_any(response->encoding, bytes, length, &unpacked);
        bytes = buf_text(&unpacked);
        length = unpacked.length;
    }
    if (!wrong)
        wrong = page_text(response->type, skip, bytes, length, out);
    buf_done(&joined);
    buf_done(&unpacked);
    return wrong;
}

const char *warc_page_text(const struct warc_header *header, const struct html_skip *skip,
                           const char *content, size_t length, struct buf *out)
{
    struct response response;

    if (header->type != WARC_RESPONSE)
        return page_text(header->media_type, skip, content, length, out);
    const char *wrong = read_response(content, length, &response)
                            ? response_text(&response, skip, content + response.body,
                                            length - response.body, out)
                            : "no response of HTTP";
    response_done(&response);
    return wrong;
}
