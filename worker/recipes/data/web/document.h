/* document.h - documents as JSON lines or in web archives, in blocks that ranks can read alone.
 *
 * A line is an object with the texts "id" and "text", and maybe "source", and these fields, which
 * may also stand in an object "metadata"; the rest is ignored, blank lines are none:
 *   url                        text
 *   title                      text: of a book or page
 *   ext, else path             text: a file's ending, or its name, of code
 *   lang                       text: the language or format of code, such as Python
 *   stars, max_stars_count     number: of a repository
 *   type                       text: comment or submission
 *   votes, score               number
 *   subreddit                  text
 *   over_18                    true: for adults
 *   deleted, author            true, or the text [deleted]; also a text that is [deleted] or
 *                              [removed]
 * Endings, languages and subreddits are compared in lower case (ASCII). What is not is malformed:
 * counted and named FILE:LINE, or refused, as the job says. A zero character within a text
 * becomes U+FFFD. Files whose name ends in .gz, or that are gzip, are decompressed.
 *
 * A file that begins with "WARC/" is a web archive (warc.h): its pages are the documents, their
 * text made of HTML (html.h), id the record's and url the page's.
 *
 * A block is the lines that begin within a range of bytes of one file. Gzip and archives cannot be
 * entered in their middle, so such a file is one block: its decompressed texts are then what a rank
 * holds. */
#ifndef ATHANOR_WEB_DOCUMENT_H
#define ATHANOR_WEB_DOCUMENT_H

#include "common/base/err.h"
#include "worker/recipes/data/web/html.h"

#define DOCUMENT_FILES_MAX 1000000

struct document {
    char *id, *text; /* terminated UTF-8 without zero characters */
    char *source;    /* "" without one */
    char *url;       /* NULL without one */
    size_t length;   /* of text */
    char *title, *ext, *lang, *type, *subreddit; /* NULL: not told. ext without its dot */
    double stars, votes;
    bool has_stars, has_votes, adult, deleted;
};
/* Reads one line. Errors: ERR_PROTOCOL, saying what is wrong with it. */
int document_parse(const char *line, size_t length, struct document *out,
                   struct err *err) WARN_UNUSED;
void document_done(struct document *document); /* a zeroed struct is fine */

struct document_file {
    char *path;
    uint64_t bytes; /* on disk */
    bool gzip, archive;
};
struct document_block {
    uint32_t file;
    uint64_t begin, end; /* bytes; UINT64_MAX: to the end */
};
struct document_list {
    struct document_file *files;
    size_t file_count, file_capacity;
    struct document_block *blocks;
    size_t block_count, block_capacity;
    struct html_skip skip; /* elements to leave out of pages; the caller's to set */
    bool has_archive;
};
/* Adds the files of a shell pattern, sorted by name, cut into blocks of at least one line.
 * Errors: ERR_NOT_FOUND when nothing matches, ERR_LIMIT, ERR_IO, ERR_PROTOCOL for damaged gzip. */
int document_list_add(struct document_list *list, const char *pattern, uint64_t block_bytes,
                      struct err *err) WARN_UNUSED;
void document_list_done(struct document_list *list);

/* One line of a block, or record of an archive: a document, or why it is none. */
struct document_line {
    const struct document_file *file;
    uint64_t number;           /* in the file, from 1 */
    struct document *document; /* NULL: malformed. The visitor may take its texts (set NULL) */
    const char *malformed;     /* why */
    const char *no_page;       /* why what a crawler got is no page: then a document without text */
};
typedef int (*document_visit)(void *argument, struct document_line *line, struct err *err);
/* Calls visit for each line that is not blank. Errors: those of visit; ERR_IO; ERR_PROTOCOL for
 * damaged gzip or a line over STREAM_LINE_MAX, naming the file. */
int document_read(const struct document_list *list, size_t block, document_visit visit,
                  void *argument, struct err *err) WARN_UNUSED;

#endif
