/* claims.c - see claims.h. */
#include "worker/daemon/claims.h"

#include "common/base/mem.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

bool claims_take(void *user, unsigned cpu)
{
    struct claims *claims = user;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    /* Abstract: the name starts with a zero byte. */
    int length = snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "athanor-cpu-%u", cpu);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
    if (bind(fd, (struct sockaddr *)&address, size) < 0) {
        close(fd);
        return false;
    }
    VEC_RESERVE(claims->fds, claims->count, claims->capacity);
    claims->fds[claims->count++] = fd;
    return true;
}

void claims_done(struct claims *claims)
{
    for (size_t i = 0; i < claims->count; i++)
        close(claims->fds[i]);
    mem_free(claims->fds);
    memset(claims, 0, sizeof *claims);
}
