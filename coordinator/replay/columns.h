/* columns.h - delimited text with names in its first row: CSV, and sacct's bars.
 *
 * Quoted cells as in RFC 4180. The text is cut up in place; cells live as long as it does. Names
 * are matched without regard to case. Messages name file, line and column. */
#ifndef ATHANOR_REPLAY_COLUMNS_H
#define ATHANOR_REPLAY_COLUMNS_H

#include "common/base/err.h"

#define COLUMNS_MAX 256u

struct columns {
    const char *file;
    size_t line; /* of the row, from 1 */
    char *next, *end;
    char delimiter;
    /* Column that may hold delimiters unquoted, such as sacct's JobName: takes what is too much
     * in a row. -1: none. */
    int loose;
    size_t count;
    char *names[COLUMNS_MAX];
    char *cells[COLUMNS_MAX];
};

/* Reads the first row. text[length] must be 0. Errors: ERR_INVALID. */
int columns_open(struct columns *columns, const char *file, char *text, size_t length,
                 char delimiter, struct err *err) WARN_UNUSED;
/* The next row that is not empty: 1; 0 at the end; -1 and err when it does not fit the names. */
int columns_next(struct columns *columns, struct err *err) WARN_UNUSED;

int columns_find(const struct columns *columns, const char *name); /* -1: there is none */
/* The same for one that must be there. */
int columns_need(const struct columns *columns, const char *name, int *out,
                 struct err *err) WARN_UNUSED;
/* "" for column -1. */
const char *columns_text(const struct columns *columns, int column);

/* "FILE:LINE: column 'NAME' is 'TEXT', expected <expected>". */
int columns_refuse(const struct columns *columns, int column, const char *expected,
                   struct err *err);
/* Numbers; an empty cell or column -1 is `otherwise`. */
int columns_u64(const struct columns *columns, int column, uint64_t otherwise, uint64_t *out,
                struct err *err) WARN_UNUSED;
/* Decimal seconds or other numbers times `scale`, rounded; not negative. */
int columns_scaled(const struct columns *columns, int column, uint64_t otherwise, uint64_t scale,
                   uint64_t *out, struct err *err) WARN_UNUSED;
/* "2022-02-14T08:15:45", "2017-01-01 00:01:26" or with fractions and a UTC offset: ms since 1970,
 * taken as UTC when no offset is given. */
int columns_time(const struct columns *columns, int column, uint64_t *out_ms,
                 struct err *err) WARN_UNUSED;
/* "[D-]H:MM:SS[.fraction]", "MM:SS": ms. */
int columns_clock(const struct columns *columns, int column, uint64_t otherwise, uint64_t *out_ms,
                  struct err *err) WARN_UNUSED;

/* Reads a whole table of jobs: `open` finds the columns it wants into *at, which is zero, `take`
 * adds the job of a row. Errors: theirs, and those of columns_open and columns_next. */
struct trace;
struct columns_reader {
    char delimiter;
    int (*open)(struct columns *columns, void *at, struct err *err);
    int (*take)(struct trace *trace, const struct columns *columns, const void *at,
                struct err *err);
};
int columns_read(struct trace *trace, const char *name, char *text, size_t length,
                 const struct columns_reader *reader, void *at, struct err *err) WARN_UNUSED;

/* Whether the first line of `head` has all these names, separated by blanks; for `matches`. */
bool columns_head_has(const char *head, char delimiter, const char *names);

/* The parsers behind columns_time and columns_clock; false: not of the form. */
bool text_time_ms(const char *text, uint64_t *out_ms);
bool text_clock_ms(const char *text, uint64_t *out_ms);

#endif
