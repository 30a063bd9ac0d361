/* texts.h - all texts of a pattern of files, for what is learned or compared with.
 *
 * .jsonl: the documents' texts (document.h) or, with TEXTS_STRINGS, every string within each
 * line's value, whatever its shape. .gz, .warc: documents. .json: every string within it.
 * .csv: every field. Anything else is plain text, cut at blank lines. */
#ifndef ATHANOR_WEB_TEXTS_H
#define ATHANOR_WEB_TEXTS_H

#include "common/base/err.h"

enum texts_mode { TEXTS_DOCUMENTS = 1, TEXTS_STRINGS };

typedef int (*texts_visit)(void *argument, const char *text, size_t length, struct err *err);
/* Errors: those of visit; ERR_NOT_FOUND when no file matches; ERR_PROTOCOL naming the file. */
int texts_read(const char *pattern, enum texts_mode mode, texts_visit visit, void *argument,
               struct err *err) WARN_UNUSED;
/* The strings of one JSON value, or the fields of CSV (RFC 4180): for texts_read and fuzzing. */
int texts_of_json(const char *json, size_t length, texts_visit visit, void *argument,
                  struct err *err) WARN_UNUSED;
int texts_of_csv(const char *csv, size_t length, texts_visit visit, void *argument,
                 struct err *err) WARN_UNUSED;

#endif
