/* pulse.h - a thread that renews the lease while its process leads.
 *
 * The loop may be busy for longer than a lease: a submit of ten thousand jobs, the rows of a
 * million at the start, a machine with too much to do. A second thread drives the keeper meanwhile
 * and touches nothing else. It beats only as long as the loop gives signs of life, so that a leader
 * that hangs is replaced PULSE_HANG_MS and a lease later; SIGSTOP stops both threads. */
#ifndef ATHANOR_SHELL_PULSE_H
#define ATHANOR_SHELL_PULSE_H

#include "coordinator/store/lease.h"

#define PULSE_HANG_MS 60000u
#define PULSE_POLL_MS 50

struct pulse;

/* The keeper belongs to the thread until pulse_stop. */
struct pulse *pulse_start(struct keeper *keeper);
/* Waits for the thread; NULL is fine. */
void pulse_stop(struct pulse *pulse);

/* The loop lives. */
void pulse_alive(struct pulse *pulse, uint64_t now_ms);
/* When the newest renewal that was granted had been sent; 0: none yet. */
uint64_t pulse_confirmed_ms(const struct pulse *pulse);
/* The lease has passed on. */
bool pulse_lost(const struct pulse *pulse);

#endif
