/* tenure.h - until when a leader may believe that it leads; arithmetic alone, no clock.
 *
 * The database grants LEASE from the moment it reads a request; we count from the moment the
 * request was sent, which was earlier, and take off a tenth for clocks that run at different
 * speeds (crystals differ by 1 in 10,000, a clock under correction by 1 in 1,000). So our idea of
 * the lease ends before the database's, and an answer that came late does not stretch it.
 *
 *   sent          + 9/10 lease             + lease                    + 14/10 lease
 *    |--- leads ----|- silent: others may not lead yet, then may -------|- stands by again
 *
 * A leader whose tenure is over neither sends nor writes until a renewal proves that nobody has
 * taken over; when none comes it stands by again, so that its peers look for another. One that
 * was kept from running (stopped, or busy with loading) has asked nobody meanwhile: it waits for an
 * answer for a quarter of the lease from when it notices. All times are steady milliseconds. */
#ifndef ATHANOR_STORE_TENURE_H
#define ATHANOR_STORE_TENURE_H

#include "common/base/base.h"

struct tenure {
    uint64_t lease_ms;
    uint64_t until_ms;
};

void tenure_begin(struct tenure *tenure, uint64_t lease_ms, uint64_t sent_ms);
/* The database said yes to what was sent at sent_ms. */
void tenure_confirm(struct tenure *tenure, uint64_t sent_ms);
bool tenure_holds(const struct tenure *tenure, uint64_t now_ms);
/* From when on there is no more waiting for a renewal, by a leader that fell silent at silent_ms.
 */
uint64_t tenure_gives_up_ms(const struct tenure *tenure, uint64_t silent_ms);
/* How often to renew: five times a lease, so that four may fail. */
uint64_t tenure_renew_ms(uint64_t lease_ms);

#endif
