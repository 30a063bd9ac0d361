/* tenure.c - see tenure.h. */
#include "coordinator/store/tenure.h"

void tenure_begin(struct tenure *tenure, uint64_t lease_ms, uint64_t sent_ms)
{
    *tenure = (struct tenure){.lease_ms = lease_ms};
    tenure_confirm(tenure, sent_ms);
}

void tenure_confirm(struct tenure *tenure, uint64_t sent_ms)
{
    tenure->until_ms = max_u64(tenure->until_ms, sent_ms + tenure->lease_ms / 10 * 9);
}

bool tenure_holds(const struct tenure *tenure, uint64_t now_ms)
{
    return now_ms < tenure->until_ms;
}

uint64_t tenure_gives_up_ms(const struct tenure *tenure, uint64_t silent_ms)
{
    return max_u64(tenure->until_ms + tenure->lease_ms / 2, silent_ms + tenure->lease_ms / 4);
}

uint64_t tenure_renew_ms(uint64_t lease_ms)
{
    return lease_ms / 5;
}
