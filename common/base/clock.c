/* clock.c - see clock.h. */
#include "common/base/clock.h"

#include <time.h>

static uint64_t clock_us(clockid_t id)
{
    struct timespec now;
    CHECK(clock_gettime(id, &now) == 0);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

uint64_t clock_wall_us(void)
{
    return clock_us(CLOCK_REALTIME);
}

uint64_t clock_wall_ms(void)
{
    return clock_wall_us() / 1000;
}

uint64_t clock_steady_us(void)
{
    return clock_us(CLOCK_BOOTTIME);
}

uint64_t clock_steady_ms(void)
{
    return clock_steady_us() / 1000;
}
