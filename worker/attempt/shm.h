/* shm.h - a /dev/shm of an attempt's own.
 *
 * What programs leave in the machine's /dev/shm fills its memory, and only names that carry the
 * number of a process say whose it was. A mount of the attempt's own, in a mount namespace that
 * nobody else enters, is gone with the attempt's last process, whoever killed what. It is as large
 * as the machine's and counts against the attempt's memory in the same way. Needs CAP_SYS_ADMIN. */
#ifndef ATHANOR_ATTEMPT_SHM_H
#define ATHANOR_ATTEMPT_SHM_H

#include "common/base/err.h"

/* Of the calling process and what it starts from now on; mounts that the machine makes later are
 * still seen. Errors: ERR_IO, ERR_DENIED. */
int shm_make_private(struct err *err) WARN_UNUSED;
/* Whether that can be done here: tried in a child. Errors: why not. */
int shm_try_private(struct err *err) WARN_UNUSED;

#endif
