/* cluster.c - the wishes of `up`, kept; see cluster.h. */
#include "client/cluster.h"

#include "common/base/buf.h"
#include "common/base/file.h"
#include "common/base/mem.h"

#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define IPC_PATH_MAX 100u /* sun_path has 107 bytes; libzmq needs a few */

static const char *config_path(struct arena *arena, const char *home)
{
    return arena_printf(arena, "%s/up.json", home);
}

int cluster_load(struct arena *arena, const char *home, struct cluster *out, struct err *err)
{
    const char *path = config_path(arena, home);
    struct cluster cluster = {.workers = 1, .coordinators = 1};
    json_error_t why;
    json_t *root, *endpoint;
    size_t i;
    if (!file_exists(path)) {
        *out = cluster;
        return 0;
    }
    root = json_load_file(path, 0, &why);
    json_int_t workers = json_integer_value(json_object_get(root, "workers"));
    json_int_t cores = json_integer_value(json_object_get(root, "cores"));
    json_t *given = json_object_get(root, "coordinators"); /* absent before there were several */
    json_int_t coordinators = given ? json_integer_value(given) : 1;
    if (!root || workers < 0 || workers > (json_int_t)CLUSTER_WORKERS_MAX || cores < 0 ||
        coordinators < 1 || coordinators > (json_int_t)CLUSTER_COORDINATORS_MAX) {
        json_decref(root);
        return err_set(err, ERR_INVALID, "'%s' is damaged: remove it, and say again what you want",
                       path);
    }
    cluster.workers = (uint64_t)workers;
    cluster.cores = (uint64_t)cores;
    cluster.coordinators = (uint64_t)coordinators;
    cluster.external_db = json_is_true(json_object_get(root, "external_db"));
    json_array_foreach(json_object_get(root, "listen"), i, endpoint)
    {
        if (json_is_string(endpoint) && cluster.listen_count < HOME_ENDPOINTS_MAX)
            cluster.listen[cluster.listen_count++] =
                arena_strdup(arena, json_string_value(endpoint));
    }
    json_array_foreach(json_object_get(root, "others"), i, endpoint)
    {
        if (json_is_string(endpoint) && i + 1 < CLUSTER_COORDINATORS_MAX)
            cluster.others[i + 1] = arena_strdup(arena, json_string_value(endpoint));
    }
    json_decref(root);
    *out = cluster;
    return 0;
}

int cluster_save(struct arena *arena, const char *home, const struct cluster *cluster,
                 struct err *err)
{
    json_t *listen = json_array(), *others = json_array();
    for (size_t i = 1; i < CLUSTER_COORDINATORS_MAX && cluster->others[i]; i++)
        json_array_append_new(others, json_string(cluster->others[i]));
    for (size_t i = 0; i < cluster->listen_count; i++)
        json_array_append_new(listen, json_string(cluster->listen[i]));
    json_t *root = json_pack("{s:I, s:I, s:I, s:o, s:o, s:b}", "workers",
                             (json_int_t)cluster->workers, "cores", (json_int_t)cluster->cores,
                             "coordinators", (json_int_t)cluster->coordinators, "listen", listen,
                             "others", others, "external_db", (int)cluster->external_db);
    char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    CHECK(text);
    int rc = file_replace(config_path(arena, home), text, strlen(text), 0644, err);
    free(text);
    json_decref(root);
    return rc;
}

/* ---- endpoints ---------------------------------------------------------------------------- */

/* A port that is free now. Another program may take it before the coordinator does; then `up` says
 * so, and the next `up` tries another. */
static int free_port(struct err *err)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), port = -1;
    if (fd >= 0 && bind(fd, (struct sockaddr *)&address, length) == 0 &&
        getsockname(fd, (struct sockaddr *)&address, &length) == 0)
        port = ntohs(address.sin_port);
    else
        err_errno(err, "finding a free port");
    if (fd >= 0)
        close(fd);
    return port;
}

static int settle_port(struct arena *arena, const char **endpoint, struct err *err)
{
    const char *colon = strrchr(*endpoint, ':');
    if (strncmp(*endpoint, "tcp://", 6) != 0 || !colon ||
        (strcmp(colon, ":0") != 0 && strcmp(colon, ":*") != 0))
        return 0;
    int port = free_port(err);
    if (port < 0)
        return -1;
    *endpoint = arena_printf(arena, "%.*s:%d", (int)(colon - *endpoint), *endpoint, port);
    return 0;
}

/* What to connect to when somebody listens on every interface. */
static const char *reachable(struct arena *arena, const char *endpoint)
{
    if (strncmp(endpoint, "tcp://*:", 8) == 0)
        return arena_printf(arena, "tcp://127.0.0.1:%s", endpoint + 8);
    if (strncmp(endpoint, "tcp://0.0.0.0:", 14) == 0)
        return arena_printf(arena, "tcp://127.0.0.1:%s", endpoint + 14);
    return endpoint;
}

/* A unix socket in the home, or a port where its path would be too long. */
static const char *own_endpoint(struct arena *arena, const char *home, size_t index)
{
    const char *path =
        arena_printf(arena, "%s/run/%s.sock", home, cluster_coordinator_name(arena, index));
    return strlen(path) <= IPC_PATH_MAX ? arena_printf(arena, "ipc://%s", path)
                                        : "tcp://127.0.0.1:0";
}

/* Where a later coordinator listens: like the first one, on another port. */
static const char *other_endpoint(struct arena *arena, const char *home,
                                  const struct cluster *cluster, size_t index)
{
    for (size_t i = 0; i < cluster->listen_count; i++) {
        const char *colon = strrchr(cluster->listen[i], ':');
        if (strncmp(cluster->listen[i], "tcp://", 6) == 0 && colon)
            return arena_printf(arena, "%.*s:0", (int)(colon - cluster->listen[i]),
                                cluster->listen[i]);
    }
    return own_endpoint(arena, home, index);
}

/* Settles one endpoint and adds its line. */
static int endpoint_add(struct arena *arena, const char **endpoint, struct buf *text,
                        struct err *err)
{
    if (strncmp(*endpoint, "tcp://", 6) != 0 && strncmp(*endpoint, "ipc://", 6) != 0)
        return err_set(err, ERR_INVALID,
                       "cannot listen on '%s': expected tcp://ADDRESS:PORT or ipc://PATH",
                       *endpoint);
    if (settle_port(arena, endpoint, err) < 0)
        return -1;
    buf_printf(text, "%s\n", reachable(arena, *endpoint));
    return 0;
}

static int endpoints_settle(struct arena *arena, const char *home, struct cluster *cluster,
                            struct buf *text, struct err *err)
{
    if (cluster->listen_count == 0)
        cluster->listen[cluster->listen_count++] = own_endpoint(arena, home, 0);
    for (size_t i = 0; i < cluster->listen_count; i++)
        if (endpoint_add(arena, &cluster->listen[i], text, err) < 0)
            return -1;
    for (size_t i = 1; i < cluster->coordinators; i++) {
        if (!cluster->others[i])
            cluster->others[i] = other_endpoint(arena, home, cluster, i);
        if (endpoint_add(arena, &cluster->others[i], text, err) < 0)
            return -1;
    }
    return 0;
}

int cluster_endpoints(struct arena *arena, const char *home, struct cluster *cluster,
                      struct err *err)
{
    struct buf text = {0};
    int rc = endpoints_settle(arena, home, cluster, &text, err);
    if (rc == 0)
        rc = file_replace(arena_printf(arena, "%s/endpoints", home), text.bytes, text.length, 0644,
                          err);
    buf_done(&text);
    return rc;
}

const char *cluster_coordinator_name(struct arena *arena, size_t index)
{
    return index == 0 ? "coordinator" : arena_printf(arena, "coordinator-%zu", index + 1);
}

/* ---- workers ------------------------------------------------------------------------------ */

const char *cluster_worker_name(struct arena *arena, size_t index)
{
    return arena_printf(arena, "worker-%zu", index + 1);
}

/* CPUs that we may use, at most CPU_SETSIZE. */
static size_t allowed_cpus(int out[CPU_SETSIZE])
{
    cpu_set_t set;
    size_t count = 0;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) < 0)
        return 0;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &set))
            out[count++] = cpu;
    return count;
}

const char *cluster_worker_cpus(struct arena *arena, const struct cluster *cluster, size_t index)
{
    int cpus[CPU_SETSIZE];
    size_t total = allowed_cpus(cpus);
    struct buf list = {0};
    if (total == 0 || (cluster->workers <= 1 && cluster->cores == 0))
        return "";
    size_t each = cluster->cores ? cluster->cores : max_u64(total / cluster->workers, 1);
    each = min_u64(each, total);
    for (size_t i = 0; i < each; i++) { /* "2-2": a lone number would mean that many cores */
        int cpu = cpus[(index * each + i) % total];
        buf_printf(&list, each > 1 ? "%s%d" : "%s%d-%d", i ? "," : "", cpu, cpu);
    }
    const char *copy = arena_strdup(arena, buf_text(&list));
    buf_done(&list);
    return copy;
}

uint64_t cluster_worker_memory(const struct cluster *cluster)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    if (cluster->workers <= 1 || pages <= 0 || page <= 0)
        return 0;
    return (uint64_t)pages * (uint64_t)page / 10 * 9 / cluster->workers;
}
