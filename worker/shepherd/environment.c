/* environment.c - see environment.h. */
#include "worker/shepherd/environment.h"

#include "common/base/buf.h"
#include "common/base/mem.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <inttypes.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

/* Inherited by name; a '*' ends a prefix. */
static const char *const allowed[] = {
    "PATH",         "HOME",        "USER",      "LOGNAME",   "SHELL",
    "LANG",         "LANGUAGE",    "LC_*",      "TZ",        "LD_LIBRARY_PATH",
    "PYTHONPATH",   "VIRTUAL_ENV", "CUDA_HOME", "CUDA_PATH", "SSL_CERT_FILE",
    "SSL_CERT_DIR",
};

static bool name_is(const char *item, const char *name, size_t length)
{
    return strncmp(item, name, length) == 0 && item[length] == '=';
}

static size_t item_find(const struct environment *environment, const char *name, size_t length)
{
    size_t i = 0;
    while (i < environment->count && !name_is(environment->items[i], name, length))
        i++;
    return i;
}

void environment_assign(struct environment *environment, const char *assignment)
{
    size_t at = item_find(environment, assignment, strcspn(assignment, "="));
    if (at < environment->count) {
        mem_free(environment->items[at]);
        environment->items[at] = mem_strdup(assignment);
        return;
    }
    if (environment->count + 2 > environment->capacity) {
        environment->capacity = environment->capacity ? 2 * environment->capacity : 64;
        environment->items =
            mem_grow(environment->items, environment->capacity, sizeof *environment->items);
    }
    environment->items[environment->count++] = mem_strdup(assignment);
    environment->items[environment->count] = NULL;
}

void environment_set(struct environment *environment, const char *name, const char *format, ...)
{
    va_list args;
    char *value;
    va_start(args, format);
    int length = vasprintf(&value, format, args);
    va_end(args);
    CHECK(length >= 0);
    char *assignment = mem_printf("%s=%s", name, value);
    free(value);
    environment_assign(environment, assignment);
    mem_free(assignment);
}

const char *environment_get(const struct environment *environment, const char *name)
{
    size_t at = item_find(environment, name, strlen(name));
    return at < environment->count ? environment->items[at] + strlen(name) + 1 : NULL;
}

void environment_done(struct environment *environment)
{
    for (size_t i = 0; i < environment->count; i++)
        mem_free(environment->items[i]);
    mem_free(environment->items);
    memset(environment, 0, sizeof *environment);
}

static bool is_allowed(const char *item)
{
    for (size_t i = 0; i < ARRAY_COUNT(allowed); i++) {
        size_t length = strlen(allowed[i]);
        if (allowed[i][length - 1] == '*' ? strncmp(item, allowed[i], length - 1) == 0
                                          : name_is(item, allowed[i], length))
            return true;
    }
    return false;
}

static void set_inherited(struct environment *out)
{
    environment_assign(out, "PATH=/usr/local/bin:/usr/bin:/bin");
    environment_assign(out, "LANG=C.UTF-8");
    for (char **item = environ; *item; item++)
        if (is_allowed(*item))
            environment_assign(out, *item);
}

static uint32_t ipv4_of(const struct sockaddr *address)
{
    return ((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr;
}

/* The interface of this node that has exactly this address; "" when none has. */
static const char *interface_find(const char *address, char out[IF_NAMESIZE])
{
    struct ifaddrs *all = NULL;
    struct in_addr wanted;
    out[0] = '\0';
    if (inet_pton(AF_INET, address, &wanted) != 1 || getifaddrs(&all) < 0)
        return out;
    for (const struct ifaddrs *at = all; at; at = at->ifa_next)
        if (at->ifa_addr && at->ifa_addr->sa_family == AF_INET &&
            ipv4_of(at->ifa_addr) == wanted.s_addr)
            snprintf(out, IF_NAMESIZE, "%.*s", IF_NAMESIZE - 1, at->ifa_name);
    freeifaddrs(all);
    return out;
}

/* The network that holds our address on this node, as "10.0.0.0/24". */
static const char *network_find(const char *address, char out[ENVIRONMENT_NETWORK_SIZE])
{
    struct ifaddrs *all = NULL;
    struct in_addr wanted;
    snprintf(out, ENVIRONMENT_NETWORK_SIZE, "%s/32", address);
    if (inet_pton(AF_INET, address, &wanted) != 1 || getifaddrs(&all) < 0)
        return out;
    for (const struct ifaddrs *at = all; at; at = at->ifa_next) {
        if (!at->ifa_addr || at->ifa_addr->sa_family != AF_INET || !at->ifa_netmask)
            continue;
        uint32_t mask = ipv4_of(at->ifa_netmask);
        struct in_addr network = {ipv4_of(at->ifa_addr) & mask};
        char text[INET_ADDRSTRLEN];
        if ((wanted.s_addr & mask) == network.s_addr &&
            inet_ntop(AF_INET, &network, text, sizeof text))
            snprintf(out, ENVIRONMENT_NETWORK_SIZE, "%s/%d", text, __builtin_popcount(mask));
    }
    freeifaddrs(all);
    return out;
}

const char *environment_network(const struct plan *plan, char out[ENVIRONMENT_NETWORK_SIZE])
{
    if (plan->gang)
        return network_find(plan->gang->nodes[plan->gang->node].address, out);
    snprintf(out, ENVIRONMENT_NETWORK_SIZE, "127.0.0.0/8");
    return out;
}

/* Open MPI 4.1 under direct launch. Measured reasons:
 * - without a marker of a known launcher every rank becomes a singleton of size 1; jsrun's is
 *   the one that selects PMIx and leaves binding to us, and changes nothing else;
 * - ranks that spin on a shared core slowed an allreduce 18-fold; yielding costs one system call
 *   a poll when nobody else wants the core, so it is always on: other workers, or people, may
 *   use the core without our knowing;
 * - jobs of one node collided in the shared-memory directory, so each gets its own;
 * - the TCP component picks bridges of containers and hangs, so it is told a network. */
static void set_mpi(const struct plan *plan, const struct environment_places *places,
                    struct environment *out)
{
    char network[ENVIRONMENT_NETWORK_SIZE];
    environment_network(plan, network);
    environment_assign(out, "JSM_JSRUN_PORT=1");
    environment_assign(out, "OMPI_MCA_mpi_yield_when_idle=1");
    environment_set(out, "OMPI_MCA_btl_tcp_if_include", "%s", network);
    environment_assign(out, "OMPI_MCA_btl_base_warn_component_unused=0");
    environment_assign(out, "OMPI_MCA_mpi_show_handle_leaks=0");
    if (places->shared_memory[0]) {
        environment_set(out, "OMPI_MCA_btl_vader_backing_directory", "%s", places->shared_memory);
        environment_set(out, "OMPI_MCA_btl_sm_backing_directory", "%s", places->shared_memory);
    }
    environment_set(out, "OMPI_MCA_orte_tmpdir_base", "%s", places->tmp);
}

/* "0,1;2,3": of each rank of this node. */
static void set_shares(const struct plan *plan, struct environment *out)
{
    struct buf cpus = {0}, gpus = {0};
    for (size_t i = 0; i < plan->rank_count; i++) {
        for (size_t k = 0; k < plan->ranks[i].cpu_count; k++)
            buf_printf(&cpus, "%s%u", k ? "," : i ? ";" : "", plan->ranks[i].cpus[k]);
        if (i && plan->ranks[i].cpu_count == 0)
            buf_puts(&cpus, ";");
        buf_printf(&gpus, "%s%s", i ? ";" : "", plan->ranks[i].gpus);
    }
    environment_set(out, "ATHANOR_RANK_CPUS", "%s", buf_text(&cpus));
    environment_set(out, "ATHANOR_RANK_GPUS", "%s", buf_text(&gpus));
    environment_set(out, "ATHANOR_GPU_KIND", "%s", plan->gpu_kind);
    buf_done(&cpus);
    buf_done(&gpus);
}

/* mpirun gives every variable of its own that begins with OMPI_ to ranks on all nodes: what is of
 * one node only goes under a name of ours (rsh.c). */
static void set_mpirun(const struct plan *plan, const struct environment_places *places,
                       struct environment *out)
{
    static const char *const as_root[] = {"OMPI_ALLOW_RUN_AS_ROOT=1",
                                          "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
                                          "PRTE_ALLOW_RUN_AS_ROOT=1",
                                          "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM=1"};
    for (size_t i = 0; geteuid() == 0 && i < ARRAY_COUNT(as_root); i++)
        environment_assign(out, as_root[i]);
    environment_set(out, "ATHANOR_LAUNCH", "%s/.launch", places->tmp);
    environment_set(out, "ATHANOR_SET_OMPI_MCA_btl_vader_backing_directory", "%s",
                    places->shared_memory);
    environment_set(out, "ATHANOR_SET_OMPI_MCA_btl_sm_backing_directory", "%s",
                    places->shared_memory);
    set_shares(plan, out);
}

/* Left alone Gloo takes the interface that the node's name resolves to, often loopback, and NCCL
 * one that may be a bridge of containers: ranks then wait for each other for ever. Both want a
 * name, not a network; '=' makes NCCL take it whole. An address that no interface has, because a
 * translation lies between, leaves the choice to them. */
static void set_interface(const struct plan *plan, struct environment *out)
{
    char name[IF_NAMESIZE];
    if (!plan->gang || !*interface_find(plan->gang->nodes[plan->gang->node].address, name))
        return;
    environment_set(out, "GLOO_SOCKET_IFNAME", "%s", name);
    environment_set(out, "TP_SOCKET_IFNAME", "%s", name);
    environment_set(out, "NCCL_SOCKET_IFNAME", "=%s", name);
}

static void set_defaults(const struct plan *plan, const struct environment_places *places,
                         struct environment *out)
{
    static const char *const thread_names[] = {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS",
                                               "MKL_NUM_THREADS"};
    for (size_t i = 0; i < ARRAY_COUNT(thread_names); i++)
        environment_set(out, thread_names[i], "%" PRIu64, plan->cores ? plan->cores : 1);
    /* Output that stays in a buffer until the end looks like a hang to whoever follows the log. */
    environment_assign(out, "PYTHONUNBUFFERED=1");
    set_interface(plan, out);
    if (plan->launcher == PLAN_PMIX)
        set_mpi(plan, places, out);
    else if (plan->launcher == PLAN_MPIRUN)
        set_mpirun(plan, places, out);
}

static void set_torch(const struct plan *plan, const struct environment_places *places,
                      unsigned rank, struct environment *out)
{
    const char *master = plan->gang ? plan->gang->nodes[0].address : "127.0.0.1";
    environment_set(out, "NODE_RANK", "%u", plan->gang ? plan->gang->node : 0);
    environment_set(out, "MASTER_ADDR", "%s", master);
    environment_set(out, "MASTER_PORT", "%u", places->master_port);
    if (plan->launcher == PLAN_MPIRUN)
        return; /* mpirun numbers its ranks */
    environment_set(out, "RANK", "%u", plan->first_rank + rank);
    environment_set(out, "WORLD_SIZE", "%u", plan->world_size);
    environment_set(out, "LOCAL_RANK", "%u", rank);
    environment_set(out, "LOCAL_WORLD_SIZE", "%zu", plan->rank_count);
    if (plan->launcher != PLAN_PMIX)
        return;
    environment_set(out, "OMPI_COMM_WORLD_RANK", "%u", plan->first_rank + rank);
    environment_set(out, "OMPI_COMM_WORLD_SIZE", "%u", plan->world_size);
    environment_set(out, "OMPI_COMM_WORLD_LOCAL_RANK", "%u", rank);
    environment_set(out, "OMPI_COMM_WORLD_LOCAL_SIZE", "%zu", plan->rank_count);
}

/* ROCm counts what ROCR_VISIBLE_DEVICES leaves from 0 again for HIP, which otherwise obeys CUDA's
 * variable (ROCm's documentation, "GPU isolation techniques"); -1 hides all. */
static void set_gpus(const struct plan *plan, unsigned rank, struct environment *out)
{
    const char *gpus = plan->ranks[rank].gpus;
    struct buf numbers = {0};
    size_t count = gpus[0] ? 1 : 0;
    if (strcmp(plan->gpu_kind, "amd") != 0) {
        environment_set(out, "CUDA_VISIBLE_DEVICES", "%s", gpus);
        return;
    }
    for (const char *at = gpus; *at; at++)
        count += *at == ',';
    for (size_t i = 0; i < count; i++)
        buf_printf(&numbers, "%s%zu", i ? "," : "", i);
    environment_set(out, "ROCR_VISIBLE_DEVICES", "%s", count ? gpus : "-1");
    environment_set(out, "HIP_VISIBLE_DEVICES", "%s", count ? buf_text(&numbers) : "-1");
    environment_set(out, "CUDA_VISIBLE_DEVICES", "%s", count ? buf_text(&numbers) : "");
    buf_done(&numbers);
}

static void set_contract(const struct plan *plan, const struct environment_places *places,
                         unsigned rank, struct environment *out)
{
    environment_set(out, "ATHANOR_SPEC", "%s", places->spec);
    environment_set(out, "ATHANOR_REPORT", "%s", places->report);
    if (plan->memory_bytes)
        environment_set(out, "ATHANOR_RANK_MEMORY_BYTES", "%" PRIu64, plan->memory_bytes);
    environment_set(out, "ATHANOR_JOB_ID", "%" PRIu64, plan->job_id);
    environment_set(out, "ATHANOR_JOB_NAME", "%s", plan->job_name);
    environment_set(out, "ATHANOR_ATTEMPT_ID", "%" PRIu64, plan->attempt_id);
    environment_set(out, "ATHANOR_ATTEMPT", "%" PRIu64, plan->attempt);
    environment_set(out, "ATHANOR_RUN_DIR", "%s", places->run_dir);
    environment_set(out, "ATHANOR_JOB_DIR", "%s", plan->job_dir);
    environment_set(out, "ATHANOR_RESUME", "%s", plan->resume);
    environment_set(out, "ATHANOR_DATA_SKIP", "%" PRIu64, plan->data_skip);
    environment_set(out, "TMPDIR", "%s", places->tmp);
    environment_set(out, "PWD", "%s", plan->cwd[0] ? plan->cwd : places->run_dir);
    if (plan->code[0])
        environment_set(out, "ATHANOR_CODE", "%s", plan->code);
    set_gpus(plan, rank, out);
    for (size_t i = 0; i < plan->input_count; i++) {
        char *name = mem_printf("ATHANOR_INPUT_%s", plan->inputs[i].name);
        environment_set(out, name, "%s", plan->inputs[i].value);
        mem_free(name);
    }
    set_torch(plan, places, rank, out);
}

void environment_build(const struct plan *plan, const struct environment_places *places,
                       unsigned rank, struct environment *out)
{
    set_inherited(out);
    set_defaults(plan, places, out);
    for (size_t i = 0; i < plan->env_count; i++)
        environment_set(out, plan->env[i].name, "%s", plan->env[i].value);
    set_contract(plan, places, rank, out);
}
