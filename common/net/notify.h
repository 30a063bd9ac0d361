/* notify.h - telling a supervisor how a daemon fares: systemd by sd_notify, others by the file that
 * ATHANOR_HEALTH_FILE names, which the daemon's own loop writes anew every two seconds. Without
 * either all is a no-op. */
#ifndef ATHANOR_NOTIFY_H
#define ATHANOR_NOTIFY_H

#include "common/base/base.h"

void notify_ready(void);
void notify_stopping(void);
void notify_status(const char *format, ...) FORMAT(1, 2);
/* The interval in ms at which to call notify_alive: half of WatchdogSec, and at most two seconds
 * for the file; 0: nobody asks. */
uint64_t notify_watchdog_ms(void);
void notify_alive(void);
/* What `--alive` does: says what the file holds. 0 as an exit code when the daemon was alive within
 * NOTIFY_STALE_MS, else 1, with a text on stderr. */
#define NOTIFY_STALE_MS 15000u
int notify_health(void);

#endif
