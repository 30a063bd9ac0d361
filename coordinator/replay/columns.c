/* columns.c - rows and cells of delimited text. */
#include "coordinator/replay/columns.h"

#include "common/base/parse.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define SHOWN          "%.60s"  /* of a foreign text in a message */
#define CLOCK_PART_MAX 1000000u /* of days, hours, minutes or seconds */

/* Ends the quoted cell that starts behind `at` and takes doubled quotes apart. Returns behind the
 * closing quote, NULL when there is none. */
static char *unquote(char *at, const char *end, size_t *lines)
{
    char *to = at;
    for (; at < end; at++) {
        if (*at == '"' && at[1] != '"') {
            *to = '\0';
            return at + 1;
        }
        if (*at == '"')
            at++;
        *lines += *at == '\n';
        *to++ = *at;
    }
    return NULL;
}

/* Cuts one row into cells. Returns the count, or -1. */
static int row_cut(struct columns *c, char **cells, struct err *err)
{
    size_t count = 0, lines = 0;
    char *at = c->next;
    for (;;) {
        if (count == COLUMNS_MAX)
            return err_set(err, ERR_INVALID, "%s:%zu: more than %u columns", c->file, c->line,
                           COLUMNS_MAX);
        char *cell = at;
        if (at < c->end && *at == '"') {
            cell = at + 1;
            at = unquote(cell, c->end, &lines);
            if (!at || (at < c->end && *at != c->delimiter && *at != '\n' && *at != '\r'))
                return err_set(err, ERR_INVALID,
                               "%s:%zu: column %zu: a quoted cell must end with '\"' and be "
                               "followed by '%c' or the end of the line",
                               c->file, c->line, count + 1, c->delimiter);
        } else {
            while (at < c->end && *at != c->delimiter && *at != '\n')
                at++;
        }
        cells[count++] = cell;
        bool more = at < c->end && *at == c->delimiter;
        if (at < c->end && *at == '\r')
            *at++ = '\0';
        if (!more && at > cell && at[-1] == '\r')
            at[-1] = '\0';
        if (at < c->end)
            *at++ = '\0';
        if (!more)
            break;
    }
    c->next = at;
    c->line += lines;
    return (int)count;
}

int columns_open(struct columns *columns, const char *file, char *text, size_t length,
                 char delimiter, struct err *err)
{
    *columns = (struct columns){.file = file,
                                .line = 1,
                                .next = text,
                                .end = text + length,
                                .delimiter = delimiter,
                                .loose = -1};
    int count = row_cut(columns, columns->names, err);
    if (count < 0)
        return -1;
    columns->count = (size_t)count;
    return 0;
}

/* Puts the delimiters of the loose column back: cells between are one. */
static void row_join(struct columns *c, char **cells, size_t *count)
{
    size_t extra = *count - c->count, at = (size_t)c->loose;
    for (size_t i = at; i < at + extra; i++)
        cells[i][strlen(cells[i])] = c->delimiter; /* cells follow each other in the text */
    memmove(&cells[at + 1], &cells[at + 1 + extra], (*count - at - 1 - extra) * sizeof *cells);
    *count = c->count;
}

int columns_next(struct columns *c, struct err *err)
{
    for (;;) {
        if (c->next >= c->end)
            return 0;
        c->line++;
        if (*c->next != '\n' && strncmp(c->next, "\r\n", 2) != 0)
            break;
        c->next++;
    }
    size_t row = c->line;
    char *start = c->next;
    bool quoted = memchr(start, '"', strcspn(start, "\n")) != NULL;
    int got = row_cut(c, c->cells, err);
    if (got < 0)
        return -1;
    size_t count = (size_t)got;
    if (count > c->count && c->loose >= 0 && !quoted)
        row_join(c, c->cells, &count);
    /* A delimiter behind the last cell is sacct -p's habit. */
    if (count == c->count + 1 && *c->cells[count - 1] == '\0')
        count--;
    if (count != c->count)
        return err_set(err, ERR_INVALID, "%s:%zu: %zu columns, expected %zu as in the first line",
                       c->file, row, count, c->count);
    return 1;
}

int columns_find(const struct columns *columns, const char *name)
{
    for (size_t i = 0; i < columns->count; i++)
        if (strcasecmp(columns->names[i], name) == 0)
            return (int)i;
    return -1;
}

int columns_need(const struct columns *columns, const char *name, int *out, struct err *err)
{
    *out = columns_find(columns, name);
    if (*out < 0)
        return err_set(err, ERR_INVALID, "%s:1: there is no column '%s', which is needed",
                       columns->file, name);
    return 0;
}

const char *columns_text(const struct columns *columns, int column)
{
    return column < 0 ? "" : columns->cells[column];
}

int columns_refuse(const struct columns *columns, int column, const char *expected, struct err *err)
{
    return err_set(err, ERR_INVALID, "%s:%zu: column '" SHOWN "' is '" SHOWN "', expected %s",
                   columns->file, columns->line, columns->names[column],
                   columns_text(columns, column), expected);
}

int columns_u64(const struct columns *columns, int column, uint64_t otherwise, uint64_t *out,
                struct err *err)
{
    const char *text = columns_text(columns, column);
    *out = otherwise;
    if (*text == '\0')
        return 0;
    if (parse_u64(text, out, err) < 0)
        return columns_refuse(columns, column, "a whole number", err);
    return 0;
}

int columns_scaled(const struct columns *columns, int column, uint64_t otherwise, uint64_t scale,
                   uint64_t *out, struct err *err)
{
    const char *text = columns_text(columns, column);
    double value;
    *out = otherwise;
    if (*text == '\0')
        return 0;
    if (parse_f64(text, &value, err) < 0 || value < 0 || value * (double)scale > 1e18)
        return columns_refuse(columns, column, "a number that is not negative", err);
    *out = (uint64_t)llround(value * (double)scale);
    return 0;
}

int columns_time(const struct columns *columns, int column, uint64_t *out_ms, struct err *err)
{
    if (!text_time_ms(columns_text(columns, column), out_ms))
        return columns_refuse(columns, column, "a time such as 2022-02-14T08:15:45", err);
    return 0;
}

int columns_clock(const struct columns *columns, int column, uint64_t otherwise, uint64_t *out_ms,
                  struct err *err)
{
    const char *text = columns_text(columns, column);
    *out_ms = otherwise;
    if (*text && !text_clock_ms(text, out_ms))
        return columns_refuse(columns, column, "a duration such as 1-02:30:00 or 0:04:24", err);
    return 0;
}

int columns_read(struct trace *trace, const char *name, char *text, size_t length,
                 const struct columns_reader *reader, void *at, struct err *err)
{
    struct columns columns;
    if (columns_open(&columns, name, text, length, reader->delimiter, err) < 0 ||
        reader->open(&columns, at, err) < 0)
        return -1;
    int got;
    while ((got = columns_next(&columns, err)) > 0)
        if (reader->take(trace, &columns, at, err) < 0)
            return -1;
    return got;
}

bool columns_head_has(const char *head, char delimiter, const char *names)
{
    size_t length = strcspn(head, "\r\n");
    while (*names) {
        size_t wanted = strcspn(names, " ");
        bool found = false;
        for (const char *at = head; at < head + length && !found;) {
            size_t cell = 0;
            while (at + cell < head + length && at[cell] != delimiter)
                cell++;
            size_t quotes = cell >= 2 && *at == '"' && at[cell - 1] == '"';
            found = cell - 2 * quotes == wanted && strncasecmp(at + quotes, names, wanted) == 0;
            at += cell + 1;
        }
        if (!found)
            return false;
        names += wanted;
        names += *names == ' ';
    }
    return true;
}

/* ---- times ------------------------------------------------------------------------------- */

/* Exactly `digits` digits. */
static bool take_digits(const char **text, unsigned digits, unsigned *out)
{
    *out = 0;
    for (unsigned i = 0; i < digits; i++, (*text)++) {
        if (!isdigit((unsigned char)**text))
            return false;
        *out = *out * 10 + (unsigned)(**text - '0');
    }
    return true;
}

static bool take_char(const char **text, const char *one_of)
{
    if (**text == '\0' || !strchr(one_of, **text))
        return false;
    (*text)++;
    return true;
}

/* ".123456" in ms; nothing is 0. */
static bool take_fraction(const char **text, unsigned *out_ms)
{
    unsigned weight = 100;
    *out_ms = 0;
    if (**text != '.')
        return true;
    (*text)++;
    if (!isdigit((unsigned char)**text))
        return false;
    for (; isdigit((unsigned char)**text); (*text)++, weight /= 10)
        *out_ms += weight * (unsigned)(**text - '0');
    return true;
}

/* Days from 1970-01-01 to a day of the Gregorian calendar: H. Hinnant, "chrono-compatible
 * low-level date algorithms" (public domain), days_from_civil. */
static int64_t days_since_1970(int64_t year, unsigned month, unsigned day)
{
    year -= month <= 2;
    int64_t era = year / 400;
    int64_t year_of_era = year - era * 400;
    int64_t day_of_year = (153 * ((int64_t)month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * 146097 + day_of_era - 719468;
}

static bool take_offset(const char **text, int64_t *out_seconds)
{
    unsigned hours, minutes = 0;
    *out_seconds = 0;
    if (take_char(text, "Zz") || **text == '\0')
        return true;
    bool minus = **text == '-';
    if (!take_char(text, "+-") || !take_digits(text, 2, &hours))
        return false;
    take_char(text, ":");
    if (**text && !take_digits(text, 2, &minutes))
        return false;
    *out_seconds = ((int64_t)hours * 60 + minutes) * (minus ? -60 : 60);
    return true;
}

bool text_time_ms(const char *text, uint64_t *out_ms)
{
    unsigned year, month, day, hour, minute, second, fraction;
    int64_t offset;
    if (!take_digits(&text, 4, &year) || !take_char(&text, "-") || !take_digits(&text, 2, &month) ||
        !take_char(&text, "-") || !take_digits(&text, 2, &day) || !take_char(&text, "T ") ||
        !take_digits(&text, 2, &hour) || !take_char(&text, ":") ||
        !take_digits(&text, 2, &minute) || !take_char(&text, ":") ||
        !take_digits(&text, 2, &second) || !take_fraction(&text, &fraction) ||
        !take_offset(&text, &offset) || *text)
        return false;
    if (year < 1970 || month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 || minute > 59 ||
        second > 60)
        return false;
    int64_t seconds =
        days_since_1970(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - offset;
    if (seconds < 0)
        return false;
    *out_ms = (uint64_t)seconds * 1000 + fraction;
    return true;
}

bool text_clock_ms(const char *text, uint64_t *out_ms)
{
    uint64_t parts[4] = {0}; /* days and what follows, from the left */
    size_t count = 0;
    bool days = false;
    unsigned fraction;
    for (;;) {
        char *end;
        if (!isdigit((unsigned char)*text) || strlen(text) > 40)
            return false;
        parts[count++] = min_u64(strtoull(text, &end, 10), CLOCK_PART_MAX);
        text = end;
        if (*text == '-' && count == 1 && !days) {
            days = true;
            text++;
        } else if (*text == ':' && count < (days ? 4u : 3u)) {
            text++;
        } else {
            break;
        }
    }
    if (!take_fraction(&text, &fraction) || *text || count < 2)
        return false;
    uint64_t day = days ? parts[0] : 0, seconds = 0;
    size_t first = days;
    /* After days the parts are H[:MM[:SS]], otherwise [H:]MM:SS. */
    for (size_t i = first; i < count; i++)
        seconds = seconds * 60 + parts[i];
    for (size_t i = count - first; days && i < 3; i++)
        seconds *= 60;
    *out_ms = (day * 86400 + seconds) * 1000 + fraction;
    return true;
}
