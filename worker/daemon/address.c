/* address.c - see address.h. */
#include "worker/daemon/address.h"

#include "common/base/mem.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define LISTEN_BACKLOG 128

char *address_of_endpoint(const char *endpoint)
{
    const char *host = strncmp(endpoint, "tcp://", 6) == 0 ? endpoint + 6 : endpoint;
    const char *colon = strrchr(host, ':');
    return mem_strndup(host, colon ? (size_t)(colon - host) : strlen(host));
}

static int resolve(const char *host, struct sockaddr_in *out, struct err *err)
{
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found = NULL;
    int rc = getaddrinfo(host, NULL, &hints, &found);
    if (rc != 0 || !found)
        return err_set(err, ERR_NOT_FOUND, "'%s': %s", host, gai_strerror(rc));
    memcpy(out, found->ai_addr, sizeof *out);
    freeaddrinfo(found);
    return 0;
}

/* Connecting a datagram socket sends nothing: it asks the kernel for the route. */
static int address_towards(const char *host, char **out, struct err *err)
{
    struct sockaddr_in there, here;
    socklen_t length = sizeof here;
    char text[INET_ADDRSTRLEN];
    if (resolve(host, &there, err) < 0)
        return -1;
    there.sin_port = htons(7117);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool found = fd >= 0 && connect(fd, (struct sockaddr *)&there, sizeof there) == 0 &&
                 getsockname(fd, (struct sockaddr *)&here, &length) == 0 &&
                 inet_ntop(AF_INET, &here.sin_addr, text, sizeof text);
    int rc = found ? 0 : err_errno(err, "find the way to '%s'", host);
    if (fd >= 0)
        close(fd);
    if (found)
        *out = mem_strdup(text);
    return rc;
}

static int address_auto(const struct options *options, char **out, struct err *err)
{
    const char *coordinator = options->endpoints[0];
    if (strncmp(coordinator, "tcp://", 6) != 0) {
        *out = mem_strdup("127.0.0.1");
        return 0;
    }
    char *host = address_of_endpoint(coordinator);
    int rc = address_towards(host, out, err);
    mem_free(host);
    return rc;
}

int address_links(const struct options *options, char **out_endpoint, char **out_address,
                  struct err *err)
{
    char *address = NULL;
    if (strcmp(options->links, "auto") == 0) {
        if (address_auto(options, &address, err) < 0)
            return -1;
        *out_endpoint = mem_printf("tcp://%s:*", address);
    } else {
        if (strncmp(options->links, "tcp://", 6) != 0 || !strrchr(options->links + 6, ':'))
            return err_set(err, ERR_INVALID,
                           "'%s', expected auto, none, tcp://ADDRESS:PORT or tcp://ADDRESS:*",
                           options->links);
        address = address_of_endpoint(options->links);
        if (strcmp(address, "*") == 0 || strcmp(address, "0.0.0.0") == 0) {
            mem_free(address);
            return err_set(err, ERR_INVALID,
                           "'%s': name the one address at which other nodes reach this one",
                           options->links);
        }
        *out_endpoint = mem_strdup(options->links);
    }
    mem_free(*out_address);
    *out_address = address;
    return 0;
}

static int bind_any(const char *address, int *out_fd, unsigned *out_port, struct err *err)
{
    struct sockaddr_in at;
    socklen_t length = sizeof at;
    if (resolve(address, &at, err) < 0)
        return -1;
    at.sin_port = 0;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) < 0 ||
        getsockname(fd, (struct sockaddr *)&at, &length) < 0) {
        err_errno(err, "open a port at %s", address);
        if (fd >= 0)
            close(fd);
        return -1;
    }
    *out_fd = fd;
    *out_port = ntohs(at.sin_port);
    return 0;
}

int address_listen(const char *address, int *out_fd, unsigned *out_port, struct err *err)
{
    if (bind_any(address, out_fd, out_port, err) < 0)
        return -1;
    if (listen(*out_fd, LISTEN_BACKLOG) == 0)
        return 0;
    err_errno(err, "listen at %s", address);
    close(*out_fd);
    *out_fd = -1;
    return -1;
}

int address_free_port(const char *address, unsigned *out_port, struct err *err)
{
    int fd;
    if (bind_any(address, &fd, out_port, err) < 0)
        return -1;
    close(fd);
    return 0;
}
