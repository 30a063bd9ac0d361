/* address.h - where this node can be reached by others. IPv4 and names that resolve to it. */
#ifndef ATHANOR_DAEMON_ADDRESS_H
#define ATHANOR_DAEMON_ADDRESS_H

#include "worker/daemon/options.h"

/* What --links says, as an endpoint to bind and the address in it. "auto": the address from which
 * this node reaches its coordinator, 127.0.0.1 for ipc://. Both are the caller's (mem_free).
 * Errors: ERR_INVALID, ERR_NOT_FOUND (name does not resolve), ERR_IO. */
int address_links(const struct options *options, char **out_endpoint, char **out_address,
                  struct err *err) WARN_UNUSED;
/* "10.0.0.1" of "tcp://10.0.0.1:7118"; mem_free. */
char *address_of_endpoint(const char *endpoint);
/* A listening socket at a port that the system chooses. */
int address_listen(const char *address, int *out_fd, unsigned *out_port,
                   struct err *err) WARN_UNUSED;
/* A port that is free now. Another program may take it before rank 0 does: torch programs then
 * fail to start and are retried, as under every launcher that chooses a port. */
int address_free_port(const char *address, unsigned *out_port, struct err *err) WARN_UNUSED;

#endif
