/* base.h - what every file may assume: integer types, CHECK, small macros.
 *
 * CHECK states what must be true and stays on in release. It is for
 * programmer errors only; foreign input is refused, never CHECKed. */
#ifndef ATHANOR_BASE_H
#define ATHANOR_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARRAY_COUNT(array) (sizeof(array) / sizeof((array)[0]))

#define WARN_UNUSED __attribute__((warn_unused_result))
#define FORMAT(string_at, first_at) __attribute__((format(printf, string_at, first_at)))
#define NORETURN __attribute__((noreturn))

/* Ends the process with the broken statement on stderr (SIGABRT, core if enabled). */
NORETURN void check_failed(const char *statement, const char *file, int line);

#define CHECK(statement) \
    do { \
        if (!(statement)) \
            check_failed(#statement, __FILE__, __LINE__); \
    } while (0)

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline int64_t min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t max_i64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

#endif
