/* notify.c - sd_notify by libsystemd, and the health file; see notify.h.
 *
 * Failures are ignored on purpose: without NOTIFY_SOCKET there is nobody to tell, and a daemon
 * must not fare worse because its supervisor's socket is full. */
#include "common/net/notify.h"

#include "common/base/clock.h"
#include "common/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#define HEALTH_MS 2000u

static char status_now[500] = "alive";

static const char *health_file(void)
{
    const char *path = getenv("ATHANOR_HEALTH_FILE");
    return path && *path ? path : NULL;
}

static void health_write(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0)
        return; /* whoever looks will miss it */
    (void)!write(fd, status_now, strlen(status_now));
    close(fd);
}

void notify_ready(void)
{
    (void)sd_notify(0, "READY=1");
}

void notify_stopping(void)
{
    (void)sd_notify(0, "STOPPING=1");
}

void notify_alive(void)
{
    (void)sd_notify(0, "WATCHDOG=1");
    if (health_file())
        health_write(health_file());
}

void notify_status(const char *format, ...)
{
    char text[500];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    (void)sd_notifyf(0, "STATUS=%s", text);
    memcpy(status_now, text, sizeof status_now);
}

uint64_t notify_watchdog_ms(void)
{
    uint64_t interval_us = 0, wanted_ms = health_file() ? HEALTH_MS : 0;
    if (sd_watchdog_enabled(0, &interval_us) <= 0)
        return wanted_ms;
    uint64_t half_ms = max_u64(interval_us / 2000, 1);
    return wanted_ms ? min_u64(half_ms, wanted_ms) : half_ms;
}

int notify_health(void)
{
    const char *path = health_file();
    struct stat status;
    char text[sizeof status_now] = "";
    if (!path) {
        fputs("ATHANOR_HEALTH_FILE is not set: it names the file that the daemon writes\n", stderr);
        return 1;
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || fstat(fd, &status) < 0 || read(fd, text, sizeof text - 1) < 0) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        if (fd >= 0)
            close(fd);
        return 1;
    }
    close(fd);
    uint64_t at_ms =
        (uint64_t)status.st_mtim.tv_sec * 1000 + (uint64_t)status.st_mtim.tv_nsec / 1000000;
    uint64_t now_ms = clock_wall_us() / 1000;
    if (now_ms > at_ms + NOTIFY_STALE_MS) {
        fprintf(stderr, "silent for %llu s; before: %s\n",
                (unsigned long long)((now_ms - at_ms) / 1000), text);
        return 1;
    }
    puts(text);
    return 0;
}
