/* until.c - a node that is ours for a while: an allocation of another scheduler, a pod that may be
 * evicted.
 *
 * With --until the coordinator is told at each join how long we have (until the time given, less
 * --margin), and places and stops accordingly. At that moment, or on SIGTERM, nothing new is taken;
 * the coordinator is told that the end is near, saves and stops what runs, and the daemon leaves
 * when nothing is left. With --idle it leaves when there was nothing to do for so long. */
#include "worker/daemon/daemon.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/net/notify.h"

#include <inttypes.h>

#define TAKEN_MS 20000u /* Slurm and Kubernetes wait 30 s from SIGTERM to SIGKILL */
#define FORCE_MS 5000u

static uint64_t left_ms(const struct daemon *daemon)
{
    uint64_t now_ms = clock_steady_ms();
    return daemon->until_ms > now_ms ? daemon->until_ms - now_ms : 1;
}

uint64_t until_ends_in_ms(const struct daemon *daemon)
{
    return daemon->until_ms ? left_ms(daemon) : 0;
}

static void until_tell(struct daemon *daemon)
{
    struct message message = {.tag = MSG_HEARTBEAT};
    struct err err = {0};
    message.u.heartbeat = (struct msg_heartbeat){.worker_id = daemon->worker_id,
                                                 .incarnation = daemon->incarnation,
                                                 .ends_in_ms = left_ms(daemon)};
    if (daemon->worker_id && peer_send(daemon->peer, &message, NULL, &err) < 0)
        log_warn("%s", err.text);
}

/* The coordinator cannot be reached, or a program does not end. */
static void force(void *user)
{
    struct daemon *daemon = user;
    if (!daemon->forced)
        for (struct attempt *attempt = daemon->attempts; attempt; attempt = attempt->next)
            if (attempt->state == ATTEMPT_RUNNING)
                control_stop(attempt, CAUSE_NODE_ENDED, FORCE_MS / 2);
    if (daemon->forced || daemon->attempt_count == 0)
        daemon_leave(daemon);
    daemon->forced = true;
    loop_timer_start(daemon->loop, &daemon->until_timer, FORCE_MS);
}

bool until_leave(struct daemon *daemon)
{
    if (!daemon->options->until_us)
        return false;
    notify_stopping();
    daemon->leaving = true;
    log_info("the time of this node is over, attempts: %zu", daemon->attempt_count);
    if (daemon->attempt_count == 0) {
        daemon_leave(daemon);
        return true;
    }
    daemon->until_ms = min_u64(daemon->until_ms, clock_steady_ms() + TAKEN_MS);
    until_tell(daemon);
    daemon->until_timer.fire = force;
    loop_timer_start(daemon->loop, &daemon->until_timer, TAKEN_MS);
    return true;
}

static void until_due(void *user)
{
    (void)until_leave(user);
}

void until_open(struct daemon *daemon)
{
    const struct options *options = daemon->options;
    uint64_t now_us = clock_wall_us(), end_us = options->until_us;
    daemon->busy_ms = clock_steady_ms();
    daemon->until_timer = (struct loop_timer){.fire = until_due, .user = daemon};
    if (!end_us)
        return;
    end_us -= min_u64(end_us, options->margin_ms * 1000);
    uint64_t left = end_us > now_us ? (end_us - now_us) / 1000 : 1;
    daemon->until_ms = clock_steady_ms() + left;
    log_info("this node is ours for %" PRIu64 " s", left / 1000);
    loop_timer_start(daemon->loop, &daemon->until_timer, left);
}

void until_tick(struct daemon *daemon)
{
    uint64_t now_ms = clock_steady_ms();
    if (daemon->attempt_count > 0 || daemon->pending)
        daemon->busy_ms = now_ms;
    if (daemon->options->idle_ms && !daemon->leaving &&
        now_ms - daemon->busy_ms >= daemon->options->idle_ms) {
        log_info("nothing to do for %" PRIu64 " s, leaving", daemon->options->idle_ms / 1000);
        notify_stopping();
        daemon->leaving = true;
        daemon_leave(daemon);
    }
}
