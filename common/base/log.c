/* log.c - see log.h. */
#include "common/base/log.h"

#include "common/base/buf.h"
#include "common/base/clock.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static struct {
    const char *component;
    enum log_level most;
    bool journal;
} config = {"athanor", LOG_LEVEL_INFO, false};

void log_init(const char *component, enum log_level most)
{
    config.component = component;
    config.most = most;
    config.journal = getenv("JOURNAL_STREAM") != NULL;
}

static void prefix_write(struct buf *line, enum log_level level)
{
    static const char *const names[] = {"", "error", "warn", "info", "debug"};
    static const int journal_priority[] = {0, 3, 4, 6, 7};
    if (config.journal) {
        buf_printf(line, "<%d>", journal_priority[level]);
        return;
    }
    uint64_t us = clock_wall_us();
    time_t seconds = (time_t)(us / 1000000);
    struct tm utc;
    gmtime_r(&seconds, &utc);
    char stamp[32];
    strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &utc);
    buf_printf(line, "%s.%03uZ %-5s %s ", stamp, (unsigned)(us / 1000 % 1000), names[level],
               config.component);
}

void log_line(enum log_level level, const char *format, ...)
{
    if (level > config.most)
        return;
    char text[4096];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    struct buf line = {0};
    prefix_write(&line, level);
    buf_puts(&line, text);
    buf_putc(&line, '\n');
    ssize_t wrote = write(STDERR_FILENO, line.bytes, line.length); /* one call: lines stay whole */
    (void)wrote; /* nowhere left to say it */
    buf_done(&line);
}
