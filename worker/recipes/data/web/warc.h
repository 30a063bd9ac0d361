/* warc.h - records of web archives: WARC/1.0 and 1.1 (ISO 28500:2017), and the pages within them.
 *
 * A record is a version line, header lines, a blank line and Content-Length bytes. Documents are
 *   response    whose content is application/http: status 200, of type HTML or plain text (without
 *               a type: what begins like HTML); chunks joined, gzip and deflate undone
 *   conversion  text/plain, as in Common Crawl's WET files
 *   resource    HTML or text that was fetched by http
 * Requests, metadata, warcinfo, revisits and the like are no documents and counted nowhere. */
#ifndef ATHANOR_WEB_WARC_H
#define ATHANOR_WEB_WARC_H

#include "common/base/buf.h"
#include "common/base/err.h"
#include "worker/recipes/data/web/html.h"

#define WARC_HEADER_MAX ((size_t)1 << 20)  /* bytes of a record's header, or of HTTP's */
#define WARC_RECORD_MAX ((size_t)256 << 20) /* of a record's content: Common Crawl cuts at 1 MiB */
#define WARC_PAGE_MAX   ((size_t)32 << 20) /* of a page when unpacked: a bomb is no page */

enum warc_type { WARC_OTHER = 0, WARC_RESPONSE, WARC_CONVERSION, WARC_RESOURCE };

struct warc_header {
    enum warc_type type;
    uint64_t length;              /* Content-Length */
    char *uri, *id, *media_type;  /* without <>; "" where the header has none */
};

/* Whether a line begins a record: "WARC/1.0" or "WARC/1.1" (0.17 and 0.18, of before the standard,
 * are read too). */
bool warc_is_version(const char *line, size_t length);
/* The header lines, as they lie in the file, without the blank line. Errors: ERR_PROTOCOL. */
int warc_header_parse(const char *lines, size_t length, struct warc_header *out,
                      struct err *err) WARN_UNUSED;
void warc_header_done(struct warc_header *header); /* a zeroed struct is fine */

/* Whether the record may be a document: only then its content is of use. */
bool warc_is_document(const struct warc_header *header);
/* Appends the text of such a record's page. NULL, or why it is no page (constant). */
const char *warc_page_text(const struct warc_header *header, const struct html_skip *skip,
                           const char *content, size_t length, struct buf *out);

#endif
