/* repetition.c - see repetition.h: one walk, with the current run of each period. */
#include "worker/recipes/data/web/repetition.h"

#include "worker/engine/data/pieces.h"

#include <xxhash.h>

#define WINDOW 16 /* tokens remembered: a power of two above the longest period */

_Static_assert(WINDOW > REPETITION_PERIOD_MAX, "the window holds the longest period");

uint64_t repetition_most(const char *text, size_t length)
{
    uint64_t recent[WINDOW] = {0}, run[REPETITION_PERIOD_MAX + 1] = {0};
    uint64_t count = 0, most = 0;

    for (size_t at = 0; at < length; count++) {
        size_t bytes = piece_next(text + at, length - at);
        uint64_t token = XXH3_64bits(text + at, bytes);
        most = most ? most : 1;
        for (unsigned p = 1; p <= REPETITION_PERIOD_MAX && p <= count; p++) {
            run[p] = recent[(count - p) % WINDOW] == token ? run[p] + 1 : 0;
            most = max_u64(most, run[p] / p + 1);
        }
        recent[count % WINDOW] = token;
        at += bytes;
    }
    return most;
}
