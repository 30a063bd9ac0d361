/* parse.c - numbers with units; see parse.h. */
#include "common/base/parse.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct unit {
    const char *name;
    uint64_t factor;
};

/* Largest first: formatting takes the first that divides. */
static const struct unit duration_units[] = {
    {"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1},
};
#define BINARY_SIZE_UNITS 4 /* the first four below */
static const struct unit size_units[] = {
    {"TiB", (uint64_t)1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20},   {"KiB", 1 << 10},
    {"TB", 1000000000000},      {"GB", 1000000000}, {"MB", 1000000}, {"KB", 1000}, {"B", 1},
};

int parse_u64(const char *text, uint64_t *out, struct err *err)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || *end != '\0' || errno)
        return err_set(err, ERR_INVALID, "'%.80s' is not a whole number from 0 to 2^64-1", text);
    *out = value;
    return 0;
}

int parse_i64(const char *text, int64_t *out, struct err *err)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    const char *digits = text[0] == '-' ? text + 1 : text;
    if (!isdigit((unsigned char)digits[0]) || *end != '\0' || errno)
        return err_set(err, ERR_INVALID, "'%.80s' is not a whole number", text);
    *out = value;
    return 0;
}

int parse_f64(const char *text, double *out, struct err *err)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || isspace((unsigned char)text[0]) || !isfinite(value))
        return err_set(err, ERR_INVALID, "'%.80s' is not a finite number", text);
    *out = value;
    return 0;
}

int parse_bool(const char *text, bool *out, struct err *err)
{
    if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
        return err_set(err, ERR_INVALID, "'%.80s' is not a truth value, expected true or false",
                       text);
    *out = text[0] == 't';
    return 0;
}

static const struct unit *unit_find(const struct unit *units, size_t count, const char *text,
                                    size_t length)
{
    for (size_t i = 0; i < count; i++)
        if (strlen(units[i].name) == length && strncmp(units[i].name, text, length) == 0)
            return &units[i];
    return NULL;
}

/* Reads one "number unit" from *at; false when it does not match or overflows. */
static bool quantity_read(const char **at, const struct unit *units, size_t count, uint64_t *sum)
{
    char *end;
    errno = 0;
    if (!isdigit((unsigned char)**at))
        return false;
    unsigned long long number = strtoull(*at, &end, 10);
    size_t length = 0;
    while (isalpha((unsigned char)end[length]))
        length++;
    const struct unit *unit = unit_find(units, count, end, length);
    uint64_t value;
    if (errno || !unit || __builtin_mul_overflow(number, unit->factor, &value) ||
        __builtin_add_overflow(*sum, value, sum))
        return false;
    *at = end + length;
    return true;
}

int parse_duration_ms(const char *text, uint64_t *out, struct err *err)
{
    uint64_t sum = 0;
    const char *at = text;
    do {
        if (!quantity_read(&at, duration_units, ARRAY_COUNT(duration_units), &sum))
            return err_set(err, ERR_INVALID,
                           "'%.80s' is not a duration, expected a number with a unit (ms, s, m, "
                           "h, d) such as 30s or 1h30m",
                           text);
    } while (*at != '\0');
    *out = sum;
    return 0;
}

int parse_size_bytes(const char *text, uint64_t *out, struct err *err)
{
    uint64_t sum = 0;
    const char *at = text;
    if (!quantity_read(&at, size_units, ARRAY_COUNT(size_units), &sum) || *at != '\0')
        return err_set(err, ERR_INVALID,
                       "'%.80s' is not a size, expected a whole number with a unit (B, KiB, MiB, "
                       "GiB, TiB, KB, MB, GB, TB) such as 512MiB",
                       text);
    *out = sum;
    return 0;
}

const char *format_duration_ms(uint64_t ms, char out[PARSE_TEXT_SIZE])
{
    size_t length = 0;
    out[0] = '\0';
    for (size_t i = 0; i < ARRAY_COUNT(duration_units); i++) {
        uint64_t number = ms / duration_units[i].factor;
        ms %= duration_units[i].factor;
        if (number > 0)
            length += (size_t)snprintf(out + length, PARSE_TEXT_SIZE - length, "%llu%s",
                                       (unsigned long long)number, duration_units[i].name);
    }
    if (length == 0)
        snprintf(out, PARSE_TEXT_SIZE, "0s");
    return out;
}

const char *format_size_bytes(uint64_t bytes, char out[PARSE_TEXT_SIZE])
{
    size_t i = 0;
    while (i < BINARY_SIZE_UNITS && (bytes == 0 || bytes % size_units[i].factor != 0))
        i++;
    const struct unit *unit = &size_units[i < BINARY_SIZE_UNITS ? i : ARRAY_COUNT(size_units) - 1];
    snprintf(out, PARSE_TEXT_SIZE, "%llu%s", (unsigned long long)(bytes / unit->factor),
             unit->name);
    return out;
}

const char *format_size_short(uint64_t bytes, char out[PARSE_TEXT_SIZE])
{
    for (size_t i = 0; i < BINARY_SIZE_UNITS; i++)
        if (bytes >= size_units[i].factor) {
            snprintf(out, PARSE_TEXT_SIZE, "%.3g %s",
                     (double)bytes / (double)size_units[i].factor, size_units[i].name);
            return out;
        }
    snprintf(out, PARSE_TEXT_SIZE, "%llu B", (unsigned long long)bytes);
    return out;
}

const char *format_duration_short(uint64_t ms, char out[PARSE_TEXT_SIZE])
{
    if (ms < 1000)
        snprintf(out, PARSE_TEXT_SIZE, "%llu ms", (unsigned long long)ms);
    else if (ms < 60000)
        snprintf(out, PARSE_TEXT_SIZE, "%.1f s", (double)ms / 1e3);
    else if (ms < 3600000)
        snprintf(out, PARSE_TEXT_SIZE, "%llum%02llus", (unsigned long long)(ms / 60000),
                 (unsigned long long)(ms / 1000 % 60));
    else if (ms < 86400000)
        snprintf(out, PARSE_TEXT_SIZE, "%lluh%02llum", (unsigned long long)(ms / 3600000),
                 (unsigned long long)(ms / 60000 % 60));
    else
        snprintf(out, PARSE_TEXT_SIZE, "%llud%02lluh", (unsigned long long)(ms / 86400000),
                 (unsigned long long)(ms / 3600000 % 24));
    return out;
}

/* Length of the UTF-8 sequence at `at`, 0 when invalid (overlong, surrogate, cut off). */
static size_t utf8_sequence(const unsigned char *at, size_t left)
{
    if (at[0] < 0x80)
        return 1;
    size_t length = at[0] >= 0xF0 ? 4 : at[0] >= 0xE0 ? 3 : 2;
    if (at[0] < 0xC2 || at[0] > 0xF4 || left < length)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((at[i] & 0xC0) != 0x80)
            return 0;
    bool overlong = (at[0] == 0xE0 && at[1] < 0xA0) || (at[0] == 0xF0 && at[1] < 0x90);
    bool outside = (at[0] == 0xED && at[1] > 0x9F) || (at[0] == 0xF4 && at[1] > 0x8F);
    return overlong || outside ? 0 : length;
}

bool text_is_utf8(const char *bytes, size_t length)
{
    for (size_t i = 0; i < length;) {
        size_t step = utf8_sequence((const unsigned char *)bytes + i, length - i);
        if (step == 0)
            return false;
        i += step;
    }
    return true;
}

#define DISTANCE_TEXT_MAX 63

unsigned text_distance(const char *a, const char *b)
{
    size_t rows = strlen(a), columns = strlen(b);
    if (rows > DISTANCE_TEXT_MAX || columns > DISTANCE_TEXT_MAX)
        return DISTANCE_TEXT_MAX + 1;
    unsigned cost[DISTANCE_TEXT_MAX + 1][DISTANCE_TEXT_MAX + 1];
    for (size_t i = 0; i <= rows; i++)
        cost[i][0] = (unsigned)i;
    for (size_t j = 0; j <= columns; j++)
        cost[0][j] = (unsigned)j;
    for (size_t i = 1; i <= rows; i++)
        for (size_t j = 1; j <= columns; j++) {
            unsigned best = cost[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            best = cost[i - 1][j] + 1 < best ? cost[i - 1][j] + 1 : best;
            best = cost[i][j - 1] + 1 < best ? cost[i][j - 1] + 1 : best;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                best = cost[i - 2][j - 2] + 1 < best ? cost[i - 2][j - 2] + 1 : best;
            cost[i][j] = best;
        }
    return cost[rows][columns];
}
