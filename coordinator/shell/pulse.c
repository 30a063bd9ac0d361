/* pulse.c - see pulse.h. */
#include "coordinator/shell/pulse.h"

#include "common/base/clock.h"
#include "common/base/mem.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>

struct pulse {
    struct keeper *keeper;
    pthread_t thread;
    _Atomic uint64_t alive_ms, confirmed_ms;
    atomic_bool stop, lost;
};

static void take_news(struct pulse *pulse)
{
    enum keeper_news news;

    while ((news = keeper_step(pulse->keeper, clock_steady_ms())) != KEEPER_NOTHING) {
        if (news == KEEPER_RENEWED)
            atomic_store(&pulse->confirmed_ms, keeper_sent_ms(pulse->keeper));
        else if (news == KEEPER_LOST)
            atomic_store(&pulse->lost, true);
        if (news == KEEPER_LOST)
            return;
    }
}

static void *beat(void *user)
{
    struct pulse *pulse = user;

    while (!atomic_load(&pulse->stop) && !atomic_load(&pulse->lost)) {
        struct pollfd fd = {.fd = keeper_fd(pulse->keeper),
                            .events = (short)(POLLIN |
                                              (keeper_wants_write(pulse->keeper) ? POLLOUT : 0))};
        poll(&fd, 1, PULSE_POLL_MS);
        if (clock_steady_ms() < atomic_load(&pulse->alive_ms) + PULSE_HANG_MS)
            take_news(pulse);
    }
    return NULL;
}

struct pulse *pulse_start(struct keeper *keeper)
{
    struct pulse *pulse = mem_zalloc(sizeof *pulse);

    pulse->keeper = keeper;
    atomic_store(&pulse->alive_ms, clock_steady_ms());
    CHECK(pthread_create(&pulse->thread, NULL, beat, pulse) == 0);
    return pulse;
}

void pulse_stop(struct pulse *pulse)
{
    if (!pulse)
        return;
    atomic_store(&pulse->stop, true);
    pthread_join(pulse->thread, NULL);
    mem_free(pulse);
}

void pulse_alive(struct pulse *pulse, uint64_t now_ms)
{
    atomic_store(&pulse->alive_ms, now_ms);
}

uint64_t pulse_confirmed_ms(const struct pulse *pulse)
{
    return atomic_load(&pulse->confirmed_ms);
}

bool pulse_lost(const struct pulse *pulse)
{
    return atomic_load(&pulse->lost);
}
