/* pmix_host.c - the module athanor-pmix.so; see pmix_host.h. What it uses of common/base comes from
 * the program that loads it. */
#include "worker/shepherd/pmix_host.h"

#include "common/base/buf.h"
#include "common/base/mem.h"

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
    int wake_fd;
    pthread_mutex_t lock; /* of what follows; the library's thread writes it */
    bool aborted;
    struct pmix_abort abort;
} host = {.wake_fd = -1, .lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- what the library asks of us (on its thread) --------------------------------------------- */

static pmix_status_t on_fence(const pmix_proc_t procs[], size_t proc_count,
                              const pmix_info_t info[], size_t info_count, char *bytes,
                              size_t length, pmix_modex_cbfunc_t done, void *cookie)
{
    (void)procs, (void)proc_count, (void)info, (void)info_count;
    if (done)
        done(PMIX_SUCCESS, bytes, length, cookie, NULL, NULL);
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

struct modex_request {
    pmix_modex_cbfunc_t done;
    void *cookie;
};

static void modex_answered(pmix_status_t status, char *bytes, size_t length, void *user)
{
    struct modex_request *request = user;
    request->done(status, bytes, length, request->cookie, NULL, NULL);
    mem_free(request);
}

/* Every rank is local: ask the library for what that rank has put. */
static pmix_status_t on_direct_modex(const pmix_proc_t *proc, const pmix_info_t info[],
                                     size_t info_count, pmix_modex_cbfunc_t done, void *cookie)
{
    (void)info, (void)info_count;
    struct modex_request *request = mem_alloc(sizeof *request);
    *request = (struct modex_request){done, cookie};
    pmix_status_t status = PMIx_server_dmodex_request(proc, modex_answered, request);
    if (status != PMIX_SUCCESS)
        mem_free(request);
    return status;
}

static pmix_server_module_t module = {
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
static void load_process(pmix_info_t *info, unsigned rank, const char *hostname)
{
    enum { FIELDS = 8 };
    pmix_data_array_t *array;
    PMIX_DATA_ARRAY_CREATE(array, FIELDS, PMIX_INFO);
    pmix_info_t *fields = array->array;
    load_rank(&fields[0], PMIX_RANK, rank);
    load_rank(&fields[1], PMIX_GLOBAL_RANK, rank);
    load_rank(&fields[2], PMIX_APP_RANK, rank);
    load_u32(&fields[3], PMIX_APPNUM, 0);
    load_u16(&fields[4], PMIX_LOCAL_RANK, (uint16_t)rank);
    load_u16(&fields[5], PMIX_NODE_RANK, (uint16_t)rank);
    load_u32(&fields[6], PMIX_NODEID, 0);
    load_text(&fields[7], PMIX_HOSTNAME, hostname);
    PMIX_INFO_LOAD(info, PMIX_PROC_DATA, array, PMIX_DATA_ARRAY);
    PMIX_DATA_ARRAY_FREE(array);
}

/* "0,1,2": the ranks of this node. The caller frees the buffer. */
static void rank_list(size_t count, struct buf *out)
{
    for (size_t i = 0; i < count; i++)
        buf_printf(out, "%s%zu", i ? "," : "", i);
}

static int namespace_register(const struct pmix_host_config *config, const char *hostname,
                              struct err *err)
{
    enum { JOB_FIELDS = 15 };
    uint32_t count = (uint32_t)config->rank_count;
    size_t info_count = JOB_FIELDS + config->rank_count;
    pmix_info_t *info;
    struct buf ranks = {0};
    char *node_map = NULL, *process_map = NULL;
    bool yes = true;
    rank_list(count, &ranks);
    pmix_status_t status = PMIx_generate_regex(hostname, &node_map);
    if (is_ok(status))
        status = PMIx_generate_ppn(buf_text(&ranks), &process_map);
    if (!is_ok(status)) {
        free(node_map);
        buf_done(&ranks);
        return failed("node map", status, err);
    }
    PMIX_INFO_CREATE(info, info_count);
    load_text(&info[0], PMIX_JOBID, config->nspace);
    load_u32(&info[1], PMIX_UNIV_SIZE, count);
    load_u32(&info[2], PMIX_JOB_SIZE, count);
    load_u32(&info[3], PMIX_JOB_NUM_APPS, 1);
    load_u32(&info[4], PMIX_LOCAL_SIZE, count);
    load_u32(&info[5], PMIX_NODE_SIZE, count);
    load_u32(&info[6], PMIX_MAX_PROCS, count);
    load_u32(&info[7], PMIX_NUM_NODES, 1);
    PMIX_INFO_LOAD(&info[8], PMIX_NODE_MAP, node_map, PMIX_REGEX);
    PMIX_INFO_LOAD(&info[9], PMIX_PROC_MAP, process_map, PMIX_REGEX);
    load_text(&info[10], PMIX_LOCAL_PEERS, buf_text(&ranks));
    load_text(&info[11], PMIX_TMPDIR, config->folder);
    load_text(&info[12], PMIX_NSDIR, config->folder);
    PMIX_INFO_LOAD(&info[13], PMIX_TDIR_RMCLEAN, &yes, PMIX_BOOL);
    load_rank(&info[14], PMIX_LOCALLDR, 0);
    for (unsigned rank = 0; rank < count; rank++)
        load_process(&info[JOB_FIELDS + rank], rank, hostname);
    status = PMIx_server_register_nspace(host.nspace, (int)count, info, info_count, NULL, NULL);
    PMIX_INFO_FREE(info, info_count);
    free(node_map);
    free(process_map);
    buf_done(&ranks);
    return is_ok(status) ? 0 : failed("register the namespace", status, err);
}

static int clients_register(size_t rank_count, struct err *err)
{
    for (unsigned rank = 0; rank < rank_count; rank++) {
        pmix_proc_t proc;
        PMIX_LOAD_PROCID(&proc, host.nspace, rank);
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
    char hostname[HOST_NAME_MAX + 1] = "";
    CHECK(host.wake_fd < 0); /* one per process */
    gethostname(hostname, sizeof hostname - 1);
    environment_prepare();
    host.wake_fd = config->wake_fd;
    PMIX_LOAD_NSPACE(host.nspace, config->nspace);
    pmix_info_t *info;
    PMIX_INFO_CREATE(info, 3);
    load_text(&info[0], PMIX_SERVER_TMPDIR, config->folder);
    load_text(&info[1], PMIX_SYSTEM_TMPDIR, config->folder);
    load_text(&info[2], PMIX_HOSTNAME, hostname);
    pmix_status_t status = PMIx_server_init(&module, info, 3);
    PMIX_INFO_FREE(info, 3);
    if (!is_ok(status))
        return failed("start the server", status, err);
    if (namespace_register(config, hostname, err) < 0)
        return -1;
    return clients_register(config->rank_count, err);
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

extern const struct pmix_host pmix_host_module;
const struct pmix_host pmix_host_module = {host_open, host_environment, host_aborted};
