/* courier.h - a thread that sends what the outbox of notifications holds, while its process leads.
 *
 * The loop never waits for it. At least once: what was sent, but not settled before the process
 * died, is sent again by the next leader under the same Idempotency-Key.
 *
 * A webhook gets a POST of the payload (jobspecs/README.md) with the headers Idempotency-Key:
 * CLUSTER-NUMBER and, with a secret, Athanor-Signature: sha256=HEX, the HMAC-SHA256 of the body.
 * Any answer 2xx means that it was taken. Redirects are not followed. Without an allow-list no
 * address of this machine or link is connected to; with one, no host that is not in it.
 *
 * Mail is a program of the operator's with the whole message on its standard input; addresses are
 * no arguments, and no shell sees them. */
#ifndef ATHANOR_SHELL_COURIER_H
#define ATHANOR_SHELL_COURIER_H

#include "common/base/err.h"

struct courier;

struct courier_config {
    const char *db;
    uint64_t cluster_id;
    const char *secret_file;    /* NULL: unsigned */
    const char *const *allowed; /* host or host:port; none: see above */
    size_t allowed_count;
    const char *mail_command; /* words separated by blanks; NULL: no mail */
    const char *mail_from;    /* NULL: athanor@ this host */
};

/* Errors: ERR_NOT_FOUND, ERR_INVALID (the secret). */
int courier_start(const struct courier_config *config, struct courier **out,
                  struct err *err) WARN_UNUSED;
/* Waits for what is being sent, at most COURIER_SEND_MS; NULL is fine. */
void courier_stop(struct courier *courier);

#define COURIER_SEND_MS 10000u

#endif
