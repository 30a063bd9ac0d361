/* clock.h - the two clocks, read only at the edges (shell, daemon, shepherd, client).
 *
 * Core and policy never include this file: their events carry the time. */
#ifndef ATHANOR_CLOCK_H
#define ATHANOR_CLOCK_H

#include "common/base/base.h"

uint64_t clock_wall_us(void);  /* since 1970, UTC: for rows and people   */
uint64_t clock_wall_ms(void);
uint64_t clock_steady_ms(void); /* CLOCK_BOOTTIME: for leases and timers */
uint64_t clock_steady_us(void);

#endif
