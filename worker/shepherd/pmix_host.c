/* pmix_host.c - the module athanor-pmix.so; see pmix_host.h. What it uses of common/base comes from
 * the program that loads it. */
#include "worker/shepherd/pmix_host.h"

#include "common/base/buf.h"
#include "common/base/hash.h"
#include "common/base/mem.h"
#include "worker/gang/fence.h"

#include <limits.h>
#include <pmix.h>
#include <pmix_server.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct {
    pmix_nspace_t nspace;
    unsigned rank_count; /* on this node */
    const struct gang_plan *gang; /* NULL: one node */
    const struct gang_host *links;
    char hostname[HOST_NAME_MAX + 1];
    int wake_fd;
    pthread_mutex_t lock; /* of what follows; the library's thread writes it */
    bool aborted;
    struct pmix_abort abort;
    char refused[200];
} host = {.wake_fd = -1, .lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- what the library asks of us (on its thread) --------------------------------------------- */

/* ---- who is where ---------------------------------------------------------------------------- */

static unsigned node_count(void)
{
    return host.gang ? host.gang->node_count : 1;
}

static unsigned world_size(void)
{
    const struct gang_node *last = host.gang ? &host.gang->nodes[host.gang->node_count - 1] : NULL;
    return last ? last->first_rank + last->ranks : host.rank_count;
}

static unsigned own_node(void)
{
    return host.gang ? host.gang->node : 0;
}

static unsigned first_rank(unsigned node)
{
    return host.gang ? host.gang->nodes[node].first_rank : 0;
}

static unsigned ranks_of(unsigned node)
{
    return host.gang ? host.gang->nodes[node].ranks : host.rank_count;
}

static const char *name_of(unsigned node)
{
    return host.gang ? host.gang->nodes[node].name : host.hostname;
}

static bool is_local(unsigned rank)
{
    return rank - first_rank(own_node()) < ranks_of(own_node());
}

/* ---- fences ---------------------------------------------------------------------------------- */

struct modex_request { /* also of a fence: the library wants to be told the same way */
    pmix_modex_cbfunc_t done;
    void *cookie;
};

static void request_release(void *user)
{
    mem_free(user);
}

/* The library reads the bytes later, on its own thread, and then calls request_release. */
static void request_done(void *user, bool ok, const char *bytes, size_t length)
{
    struct modex_request *request = user;
    char *copy = mem_alloc(length + 1);
    if (length)
        memcpy(copy, bytes, length);
    request->done(ok ? PMIX_SUCCESS : PMIX_ERR_LOST_CONNECTION, copy, length, request->cookie,
                  request_release, copy);
    mem_free(request);
}

static struct modex_request *request_new(pmix_modex_cbfunc_t done, void *cookie)
{
    struct modex_request *request = mem_alloc(sizeof *request);
    *request = (struct modex_request){done, cookie};
    return request;
}

/* A name that all participants build alike: ranks in order, or their hash when there are many. */
static void fence_key(const pmix_proc_t procs[], size_t proc_count, struct buf *out)
{
    for (size_t i = 0; i < proc_count; i++)
        if (procs[i].rank == PMIX_RANK_WILDCARD) {
            buf_clear(out);
            buf_puts(out, "*");
            return;
        } else {
            buf_printf(out, "%s%u", i ? "," : "", procs[i].rank);
        }
    if (out->length <= FENCE_KEY_BYTES_MAX)
        return;
    struct hash hash;
    char hex[HASH_HEX_SIZE];
    hash_bytes(out->bytes, out->length, &hash);
    hash_to_hex(&hash, hex);
    buf_clear(out);
    buf_puts(out, hex);
}

static void fence_nodes(const pmix_proc_t procs[], size_t proc_count, unsigned char *out)
{
    for (size_t i = 0; i < proc_count; i++)
        for (unsigned node = 0; node < node_count(); node++)
            if (procs[i].rank == PMIX_RANK_WILDCARD ||
                procs[i].rank - first_rank(node) < ranks_of(node))
                node_set_add(out, node);
}

static pmix_status_t on_fence(const pmix_proc_t procs[], size_t proc_count,
                              const pmix_info_t info[], size_t info_count, char *bytes,
                              size_t length, pmix_modex_cbfunc_t done, void *cookie)
{
    (void)info, (void)info_count;
    if (!host.gang) {
        if (done)
            done(PMIX_SUCCESS, bytes, length, cookie, NULL, NULL);
        return PMIX_SUCCESS;
    }
    struct buf key = {0};
    unsigned char *nodes = mem_zalloc(GANG_SET_BYTES(node_count()));
    fence_key(procs, proc_count, &key);
    fence_nodes(procs, proc_count, nodes);
    host.links->fence(buf_text(&key), nodes, bytes, length, request_done,
                      request_new(done, cookie));
    mem_free(nodes);
    buf_done(&key);
    return PMIX_SUCCESS;
}

static pmix_status_t on_abort(const pmix_proc_t *proc, void *object, int status, const char text[],
                              pmix_proc_t procs[], size_t proc_count, pmix_op_cbfunc_t done,
                              void *cookie)
{
    (void)object, (void)procs, (void)proc_count;
    pthread_mutex_lock(&host.lock);
    if (!host.aborted) {
        host.aborted = true;
        host.abort.rank = proc->rank;
        host.abort.status = status;
        snprintf(host.abort.text, sizeof host.abort.text, "%s", text ? text : "");
    }
    pthread_mutex_unlock(&host.lock);
    uint64_t one = 1;
    ssize_t wrote = write(host.wake_fd, &one, sizeof one);
    (void)wrote; /* only fails when a wake-up is pending already */
    if (done)
        done(PMIX_SUCCESS, cookie);
    return PMIX_SUCCESS;
}

static pmix_status_t on_finalized(const pmix_proc_t *proc, void *object, pmix_op_cbfunc_t done,
                                  void *cookie)
{
    (void)proc, (void)object;
    if (done)
        done(PMIX_SUCCESS, cookie);
    return PMIX_SUCCESS;
}

struct local_question {
    gang_done *done;
    void *cookie;
};

static void local_answered(pmix_status_t status, char *bytes, size_t length, void *user)
{
    struct local_question *question = user;
    question->done(question->cookie, status == PMIX_SUCCESS, bytes, length);
    mem_free(question);
}

static void host_ask(unsigned rank, gang_done *done, void *cookie)
{
    pmix_proc_t proc;
    struct local_question *question = mem_alloc(sizeof *question);
    *question = (struct local_question){done, cookie};
    PMIX_LOAD_PROCID(&proc, host.nspace, rank);
    pmix_status_t status = PMIx_server_dmodex_request(&proc, local_answered, question);
    if (status != PMIX_SUCCESS)
        local_answered(status, NULL, 0, question);
}

static pmix_status_t on_direct_modex(const pmix_proc_t *proc, const pmix_info_t info[],
                                     size_t info_count, pmix_modex_cbfunc_t done, void *cookie)
{
    (void)info, (void)info_count;
    if (proc->rank >= world_size())
        return PMIX_ERR_NOT_FOUND;
    struct modex_request *request = request_new(done, cookie);
    if (is_local(proc->rank))
        host_ask(proc->rank, request_done, request);
    else
        host.links->ask(proc->rank, request_done, request);
    return PMIX_SUCCESS;
}

/* ---- what is not offered --------------------------------------------------------------------- */

/* For the attempt's evidence: the program itself says little more than "error". */
static pmix_status_t refuse(const pmix_proc_t *proc, const char *what)
{
    pthread_mutex_lock(&host.lock);
    if (!host.refused[0])
        snprintf(host.refused, sizeof host.refused,
                 "rank %u asked for %s, which the embedded launcher does not offer: use "
                 "'launcher: mpirun'",
                 proc->rank, what);
    pthread_mutex_unlock(&host.lock);
    return PMIX_ERR_NOT_SUPPORTED;
}

static pmix_status_t on_spawn(const pmix_proc_t *proc, const pmix_info_t job_info[],
                              size_t job_info_count, const pmix_app_t apps[], size_t app_count,
                              pmix_spawn_cbfunc_t done, void *cookie)
{
    (void)job_info, (void)job_info_count, (void)apps, (void)app_count, (void)done, (void)cookie;
    return refuse(proc, "new processes (MPI_Comm_spawn)");
}

static pmix_status_t on_publish(const pmix_proc_t *proc, const pmix_info_t info[],
                                size_t info_count, pmix_op_cbfunc_t done, void *cookie)
{
    (void)info, (void)info_count, (void)done, (void)cookie;
    return refuse(proc, "a public name (MPI_Publish_name, MPI_Comm_accept)");
}

static pmix_status_t on_lookup(const pmix_proc_t *proc, char **keys, const pmix_info_t info[],
                               size_t info_count, pmix_lookup_cbfunc_t done, void *cookie)
{
    (void)keys, (void)info, (void)info_count, (void)done, (void)cookie;
    return refuse(proc, "a public name (MPI_Lookup_name, MPI_Comm_connect)");
}

static pmix_status_t on_unpublish(const pmix_proc_t *proc, char **keys, const pmix_info_t info[],
                                  size_t info_count, pmix_op_cbfunc_t done, void *cookie)
{
    (void)keys, (void)info, (void)info_count, (void)done, (void)cookie;
    return refuse(proc, "the end of a public name (MPI_Unpublish_name)");
}

static pmix_server_module_t module = {
    .spawn = on_spawn,
    .publish = on_publish,
    .lookup = on_lookup,
    .unpublish = on_unpublish,
    .client_finalized = on_finalized,
    .abort = on_abort,
    .fence_nb = on_fence,
    .direct_modex = on_direct_modex,
};

/* ---- registering ----------------------------------------------------------------------------- */

static int failed(const char *what, pmix_status_t status, struct err *err)
{
    return err_set(err, ERR_IO, "PMIx: %s: %s", what, PMIx_Error_string(status));
}

static bool is_ok(pmix_status_t status)
{
    return status == PMIX_SUCCESS || status == PMIX_OPERATION_SUCCEEDED;
}

static void load_u32(pmix_info_t *info, const char *key, uint32_t value)
{
    PMIX_INFO_LOAD(info, key, &value, PMIX_UINT32);
}

static void load_u16(pmix_info_t *info, const char *key, uint16_t value)
{
    PMIX_INFO_LOAD(info, key, &value, PMIX_UINT16);
}

static void load_text(pmix_info_t *info, const char *key, const char *value)
{
    PMIX_INFO_LOAD(info, key, value, PMIX_STRING);
}

static void load_rank(pmix_info_t *info, const char *key, pmix_rank_t value)
{
    PMIX_INFO_LOAD(info, key, &value, PMIX_PROC_RANK);
}

/* What one rank is told about another. */
static void load_process(pmix_info_t *info, unsigned node, unsigned local)
{
    enum { FIELDS = 8 };
    pmix_data_array_t *array;
    unsigned rank = first_rank(node) + local;
    PMIX_DATA_ARRAY_CREATE(array, FIELDS, PMIX_INFO);
    pmix_info_t *fields = array->array;
    load_rank(&fields[0], PMIX_RANK, rank);
    load_rank(&fields[1], PMIX_GLOBAL_RANK, rank);
    load_rank(&fields[2], PMIX_APP_RANK, rank);
    load_u32(&fields[3], PMIX_APPNUM, 0);
    load_u16(&fields[4], PMIX_LOCAL_RANK, (uint16_t)local);
    load_u16(&fields[5], PMIX_NODE_RANK, (uint16_t)local);
    load_u32(&fields[6], PMIX_NODEID, node);
    load_text(&fields[7], PMIX_HOSTNAME, name_of(node));
    PMIX_INFO_LOAD(info, PMIX_PROC_DATA, array, PMIX_DATA_ARRAY);
    PMIX_DATA_ARRAY_FREE(array);
}

/* "0,1,2": the ranks of a node. */
static void rank_list(unsigned node, struct buf *out)
{
    for (unsigned i = 0; i < ranks_of(node); i++)
        buf_printf(out, "%s%u", i ? "," : "", first_rank(node) + i);
}

struct maps {
    char *nodes, *processes; /* of the library: free() */
};

/* "a,b" and "0,1;2": which nodes there are, and which ranks are on each. */
static int maps_make(struct maps *out, struct err *err)
{
    struct buf names = {0}, ranks = {0};
    for (unsigned node = 0; node < node_count(); node++) {
        buf_printf(&names, "%s%s", node ? "," : "", name_of(node));
        buf_puts(&ranks, node ? ";" : "");
        rank_list(node, &ranks);
    }
    *out = (struct maps){0};
    pmix_status_t status = PMIx_generate_regex(buf_text(&names), &out->nodes);
    if (is_ok(status))
        status = PMIx_generate_ppn(buf_text(&ranks), &out->processes);
    buf_done(&names);
    buf_done(&ranks);
    return is_ok(status) ? 0 : failed("node map", status, err);
}

enum { JOB_FIELDS = 16 };

static void load_job(const struct pmix_host_config *config, const struct maps *maps,
                     pmix_info_t *info)
{
    struct buf local = {0};
    bool yes = true;
    rank_list(own_node(), &local);
    load_text(&info[0], PMIX_JOBID, config->nspace);
    load_u32(&info[1], PMIX_UNIV_SIZE, world_size());
    load_u32(&info[2], PMIX_JOB_SIZE, world_size());
    load_u32(&info[3], PMIX_JOB_NUM_APPS, 1);
    load_u32(&info[4], PMIX_LOCAL_SIZE, host.rank_count);
    load_u32(&info[5], PMIX_NODE_SIZE, host.rank_count);
    load_u32(&info[6], PMIX_MAX_PROCS, world_size());
    load_u32(&info[7], PMIX_NUM_NODES, node_count());
    PMIX_INFO_LOAD(&info[8], PMIX_NODE_MAP, maps->nodes, PMIX_REGEX);
    PMIX_INFO_LOAD(&info[9], PMIX_PROC_MAP, maps->processes, PMIX_REGEX);
    load_text(&info[10], PMIX_LOCAL_PEERS, buf_text(&local));
    load_text(&info[11], PMIX_TMPDIR, config->folder);
    load_text(&info[12], PMIX_NSDIR, config->folder);
    PMIX_INFO_LOAD(&info[13], PMIX_TDIR_RMCLEAN, &yes, PMIX_BOOL);
    load_rank(&info[14], PMIX_LOCALLDR, first_rank(own_node()));
    load_u32(&info[15], PMIX_NODEID, own_node());
    buf_done(&local);
}

static int namespace_register(const struct pmix_host_config *config, struct err *err)
{
    size_t info_count = JOB_FIELDS + world_size(), at = JOB_FIELDS;
    struct maps maps;
    pmix_info_t *info;
    int rc = maps_make(&maps, err);
    if (rc == 0) {
        PMIX_INFO_CREATE(info, info_count);
        load_job(config, &maps, info);
        for (unsigned node = 0; node < node_count(); node++)
            for (unsigned local = 0; local < ranks_of(node); local++)
                load_process(&info[at++], node, local);
        pmix_status_t status = PMIx_server_register_nspace(host.nspace, (int)host.rank_count, info,
                                                           info_count, NULL, NULL);
        PMIX_INFO_FREE(info, info_count);
        rc = is_ok(status) ? 0 : failed("register the namespace", status, err);
    }
    free(maps.nodes);
    free(maps.processes);
    return rc;
}

static int clients_register(struct err *err)
{
    for (unsigned i = 0; i < host.rank_count; i++) {
        pmix_proc_t proc;
        PMIX_LOAD_PROCID(&proc, host.nspace, first_rank(own_node()) + i);
        pmix_status_t status =
            PMIx_server_register_client(&proc, geteuid(), getegid(), NULL, NULL, NULL);
        if (!is_ok(status))
            return failed("register a rank", status, err);
    }
    return 0;
}

/* The library reads these from our environment. `native` checks the peer's account on the socket
 * and needs no munge daemon; `hash` keeps the key-value store in memory: no files in /dev/shm. */
static void environment_prepare(void)
{
    setenv("PMIX_MCA_psec", "native", 1);
    setenv("PMIX_MCA_gds", "hash", 1);
    setenv("HWLOC_COMPONENTS", "-gl,-opencl,-cuda,-nvml,-rsmi,-levelzero", 0);
}

static int host_open(const struct pmix_host_config *config, struct err *err)
{
    CHECK(host.wake_fd < 0); /* one per process */
    gethostname(host.hostname, sizeof host.hostname - 1);
    host.rank_count = (unsigned)config->rank_count;
    host.gang = config->gang;
    host.links = config->links;
    environment_prepare();
    host.wake_fd = config->wake_fd;
    PMIX_LOAD_NSPACE(host.nspace, config->nspace);
    pmix_info_t *info;
    PMIX_INFO_CREATE(info, 3);
    load_text(&info[0], PMIX_SERVER_TMPDIR, config->folder);
    load_text(&info[1], PMIX_SYSTEM_TMPDIR, config->folder);
    load_text(&info[2], PMIX_HOSTNAME, name_of(own_node()));
    pmix_status_t status = PMIx_server_init(&module, info, 3);
    PMIX_INFO_FREE(info, 3);
    if (!is_ok(status))
        return failed("start the server", status, err);
    return namespace_register(config, err) < 0 ? -1 : clients_register(err);
}

static int host_environment(unsigned rank, void (*set)(void *user, const char *assignment),
                            void *user, struct err *err)
{
    pmix_proc_t proc;
    char **env = NULL;
    PMIX_LOAD_PROCID(&proc, host.nspace, rank);
    pmix_status_t status = PMIx_server_setup_fork(&proc, &env);
    if (!is_ok(status))
        return failed("set up a rank", status, err);
    for (char **at = env; at && *at; at++) {
        set(user, *at);
        free(*at);
    }
    free(env);
    return 0;
}

static bool host_aborted(struct pmix_abort *out)
{
    pthread_mutex_lock(&host.lock);
    bool aborted = host.aborted;
    *out = host.abort;
    pthread_mutex_unlock(&host.lock);
    return aborted;
}

/* Written once; read when no rank is left, or by one that may miss what is being written. */
static const char *host_refused(void)
{
    pthread_mutex_lock(&host.lock);
    bool refused = host.refused[0] != '\0';
    pthread_mutex_unlock(&host.lock);
    return refused ? host.refused : NULL;
}

extern const struct pmix_host pmix_host_module;
const struct pmix_host pmix_host_module = {host_open, host_ask, host_environment, host_aborted,
                                           host_refused};
