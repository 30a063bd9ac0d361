/* notify.h - telling systemd how a daemon fares (sd_notify). Without systemd all is a no-op. */
#ifndef ATHANOR_NOTIFY_H
#define ATHANOR_NOTIFY_H

#include "common/base/base.h"

void notify_ready(void);
void notify_stopping(void);
void notify_status(const char *format, ...) FORMAT(1, 2);
/* Half of WatchdogSec in ms, the interval at which to call notify_alive; 0: no watchdog. */
uint64_t notify_watchdog_ms(void);
void notify_alive(void);

#endif
