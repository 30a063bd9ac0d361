/* html.h - the text of a web page: what a reader would see of it, without markup.
 *
 * Pages are cut into tags, comments and text as browsers do (WHATWG, "Tokenization", without its
 * tree): quoted attributes may hold '>', the content of script and style is no markup, character
 * references are replaced, whatever is left open ends with the page. Block elements begin lines,
 * cells of a row are apart by a space, white space is one space (in <pre> it stays).
 *
 * A library was weighed and left: libxml2's parser is of HTML 4 and takes quadratic time on a tag
 * of many attributes and on deep nesting, which a hostile page would have; gumbo is no longer kept.
 * One pass over the bytes takes linear time whatever they are.
 *
 * Charset: a byte order mark, else the one of the HTTP header, else of a <meta> within the first
 * 1,024 bytes, else UTF-8 where the bytes are, else windows-1252; names as the WHATWG Encoding
 * Standard maps them, conversion by iconv. Bytes that are no character become U+FFFD. */
#ifndef ATHANOR_WEB_HTML_H
#define ATHANOR_WEB_HTML_H

#include "common/base/buf.h"
#include "common/base/err.h"

#define HTML_SKIP_MAX 16 /* names of elements to leave out */

/* Elements that are left out with all that is within them, beside script, style and others that are
 * never seen (html.c, "unseen"). One whose end tag is missing is not left out. */
struct html_skip {
    const char *names[HTML_SKIP_MAX]; /* lower case, borrowed */
    size_t count;
};

/* Appends the text of a page in UTF-8 without zero characters. */
void html_text(const struct html_skip *skip, const char *html, size_t length, struct buf *out);

/* Appends a page's bytes as UTF-8 without zero characters or a byte order mark. declared: the HTTP
 * header's charset, or NULL. html: look for a <meta>. Returns the name of the charset that was used
 * (constant). */
const char *html_decode(const char *declared, bool html, const char *bytes, size_t length,
                        struct buf *out);
/* Whether this machine's iconv has every encoding of the table: html_decode CHECKs it. Errors:
 * ERR_NOT_FOUND. */
int html_check_encodings(struct err *err) WARN_UNUSED;

#endif
