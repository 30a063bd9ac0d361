/* err.h - why something failed, as a kind for code and a text for people.
 *
 * Fallible functions return 0 or -1 and take `struct err *err` last. The
 * caller owns the struct, usually on its stack; nothing is allocated. */
#ifndef ATHANOR_ERR_H
#define ATHANOR_ERR_H

#include "common/base/base.h"

enum err_kind {
    ERR_NONE = 0,
    ERR_INVALID,   /* the caller's input is wrong: text says what would be accepted */
    ERR_NOT_FOUND, /* named thing does not exist                                    */
    ERR_EXISTS,    /* named thing is there already                                  */
    ERR_IO,        /* the operating system refused: text has strerror               */
    ERR_PROTOCOL,  /* foreign bytes are damaged, or of a newer format               */
    ERR_DENIED,    /* authenticated, but not allowed                                */
    ERR_LIMIT,     /* a stated limit would be passed                                */
    ERR_TIMEOUT,
    ERR_CLOSED,    /* the peer went away                                            */
    ERR_MEMORY,    /* engine only: text states bytes wanted                         */
    ERR_STALE,     /* an older epoch, attempt or session                            */
    ERR_KIND_END,
};

struct err {
    enum err_kind kind;
    char text[1000]; /* always terminated; truncated with "..." */
};

/* Sets kind and text; returns -1, so that refusing is one line. */
int err_set(struct err *err, enum err_kind kind, const char *format, ...) FORMAT(3, 4);
/* Same, with ": " and strerror(errno) appended; kind ERR_IO (ENOENT: ERR_NOT_FOUND). */
int err_errno(struct err *err, const char *format, ...) FORMAT(2, 3);
/* Puts "<context>: " before the text; returns -1. Requires an error set (CHECK). */
int err_wrap(struct err *err, const char *format, ...) FORMAT(2, 3);
void err_clear(struct err *err);
const char *err_kind_name(enum err_kind kind);

#endif
