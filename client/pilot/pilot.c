/* pilot.c - see pilot.h. */
#include "client/pilot/pilot.h"

#include "client/home.h"
#include "client/pilot/slurm.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "common/net/token.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#define SLURM_TIMEOUT_MS 30000u
#define SCRIPT           "athanor-allocation"
#define TOKEN_TTL_MS     (7ull * 86400 * 1000) /* Slurm may let an allocation wait for days */

int pilot_open(struct client *client, const struct pilot_config *config, struct pilot *out,
               struct err *err)
{
    struct arena arena = {0};
    *out = (struct pilot){.client = client, .config = config};
    int rc = file_make_folders(arena_printf(&arena, "%s/log", config->dir), 0755, err);
    arena_done(&arena);
    if (rc < 0)
        return -1;
    out->pools = mem_array(config->pool_count, sizeof *out->pools);
    for (size_t i = 0; i < config->pool_count; i++)
        out->pools[i] = (struct pool){.config = &config->pools[i]};
    status_recall(out);
    return 0;
}

void pilot_close(struct pilot *pilot)
{
    for (size_t i = 0; pilot->pools && i < pilot->config->pool_count; i++)
        pool_done(&pilot->pools[i]);
    mem_free(pilot->pools);
}

/* ---- asking the coordinator ------------------------------------------------------------------ */

static int ask(struct pilot *pilot, const struct message *request, enum msg_tag expected,
               struct arena *arena, struct message *reply, struct err *err)
{
    if (client_try(pilot->client, request, arena, reply, err) < 0)
        return -1;
    if (reply->tag == MSG_REFUSED)
        return err_set(err,
                       strcmp(reply->u.refused.kind, err_kind_name(ERR_NOT_FOUND)) == 0
                           ? ERR_NOT_FOUND
                           : ERR_DENIED,
                       "the coordinator refuses: %s", reply->u.refused.text);
    if (reply->tag != expected)
        return err_set(err, ERR_PROTOCOL, "the coordinator answers with '%s'",
                       msg_name(reply->tag));
    return expected == MSG_TABLE ? table_check(&reply->u.table, err) : 0;
}

/* All pages of a query. */
static int query(struct pilot *pilot, const char *name, struct arena *arena, struct msg_table *out,
                 struct err *err)
{
    struct message request = {.tag = MSG_QUERY, .u.query = {.name = name}}, reply;
    *out = (struct msg_table){0};
    do {
        if (ask(pilot, &request, MSG_TABLE, arena, &reply, err) < 0)
            return err_wrap(err, "query '%s'", name);
        if (out->columns_count == 0)
            *out = reply.u.table;
        else if (out->columns_count == reply.u.table.columns_count)
            table_append(out, &reply.u.table, arena);
        request.u.query.after = reply.u.table.next;
    } while (reply.u.table.next && *reply.u.table.next && table_rows(&reply.u.table) > 0);
    return 0;
}

static struct demand *demands_of(const struct msg_table *table, struct arena *arena)
{
    struct demand *demands = arena_alloc(arena, (table_rows(table) + 1) * sizeof *demands);
    for (size_t row = 0; row < table_rows(table); row++)
        demands[row] = (struct demand){.jobs = table_u64(table, row, "jobs"),
                                       .ranks = table_u64(table, row, "ranks"),
                                       .cores = table_u64(table, row, "cores"),
                                       .memory_bytes = table_u64(table, row, "memory_bytes"),
                                       .gpus = table_u64(table, row, "gpus"),
                                       .nodes_min = table_u64(table, row, "nodes_min"),
                                       .nodes_max = table_u64(table, row, "nodes_max"),
                                       .wall_ms = table_u64(table, row, "wall_ms"),
                                       .queue = table_text(table, row, "queue"),
                                       .gpu_model = table_text(table, row, "gpu_model"),
                                       .constraint = table_text(table, row, "constraint")};
    return demands;
}

/* ---- what there is --------------------------------------------------------------------------- */

static const char *worker_name(const struct pilot *pilot, const struct pool *pool, uint32_t slot,
                               uint64_t node, struct arena *arena)
{
    return arena_printf(arena, "%s-%s-%u-%" PRIu64, pilot->config->name, pool->config->name, slot,
                        node);
}

static uint64_t slurm_job_of(const char *labels)
{
    json_t *root = json_loads(labels, 0, NULL);
    const char *text = json_string_value(json_object_get(root, "slurm_job"));
    uint64_t id = 0;
    struct err err;
    if (text && parse_u64(text, &id, &err) < 0)
        id = 0;
    json_decref(root);
    return id;
}

static void workers_count(struct pilot *pilot, struct pool *pool, const struct msg_table *workers,
                          struct arena *arena)
{
    const char *prefix = arena_printf(arena, "%s-%s-", pilot->config->name, pool->config->name);
    for (size_t i = 0; i < pool->count; i++)
        pool->allocations[i].workers = 0;
    for (size_t row = 0; row < table_rows(workers); row++) {
        const char *state = table_text(workers, row, "state");
        if (strncmp(table_text(workers, row, "name"), prefix, strlen(prefix)) != 0 ||
            (strcmp(state, "OK") != 0 && strcmp(state, "SUSPECT") != 0))
            continue;
        struct allocation *allocation =
            pool_find(pool, slurm_job_of(table_text(workers, row, "labels")));
        if (!allocation)
            continue;
        allocation->workers++;
        pool_joined(pool, allocation);
    }
}

static const char *slot_dir(const struct pilot *pilot, const struct pool *pool, uint32_t slot,
                            struct arena *arena)
{
    return arena_printf(arena, "%s/%s-%u", pilot->config->dir, pool->config->name, slot);
}

/* Keys and tokens of earlier allocations of the slot end. That there are none is no fault. */
static int slot_clear(struct pilot *pilot, const struct pool *pool, uint32_t slot,
                      struct arena *arena, struct err *err)
{
    for (uint64_t node = 0; node < pool->config->nodes; node++) {
        struct message request = {.tag = MSG_KEY_CHANGE}, reply;
        request.u.key_change =
            (struct msg_key_change){.action = "revoke",
                                    .principal = worker_name(pilot, pool, slot, node, arena)};
        if (ask(pilot, &request, MSG_DONE, arena, &reply, err) < 0 && err->kind != ERR_NOT_FOUND)
            return err_wrap(err, "ending the key of %s", request.u.key_change.principal);
    }
    return file_remove_tree(slot_dir(pilot, pool, slot, arena), err);
}

/* 0: the name is not that of a slot's folder. */
static uint32_t slot_of_name(const struct pool *pool, const char *name)
{
    size_t length = strlen(pool->config->name);
    uint64_t slot;
    struct err err;
    if (strncmp(name, pool->config->name, length) != 0 || name[length] != '-' ||
        parse_u64(name + length + 1, &slot, &err) < 0 || slot > UINT32_MAX)
        return 0;
    return (uint32_t)slot;
}

/* Clears slots without an allocation: of one that is over, or was refused, or ended while no pilot
 * ran or the coordinator was away. The folder goes last, so that its presence says enough. */
static void slots_sweep(struct pilot *pilot, const struct pool *pool, struct arena *arena)
{
    DIR *folder = opendir(pilot->config->dir);
    struct err err;
    if (!folder) {
        log_warn("pool %s: reading '%s': %s", pool->config->name, pilot->config->dir,
                 strerror(errno));
        return;
    }
    for (struct dirent *entry; (entry = readdir(folder));) {
        uint32_t slot = slot_of_name(pool, entry->d_name);
        if (slot > 0 && !pool_slot_is_used(pool, slot) &&
            slot_clear(pilot, pool, slot, arena, &err) < 0)
            log_warn("pool %s: slot %u: %s", pool->config->name, slot, err.text);
    }
    closedir(folder);
}

static void allocation_over(struct pool *pool, struct allocation *allocation, struct arena *arena)
{
    const char *id = arena_printf(arena, "%" PRIu64, allocation->id), *reason = "";
    const char *words[] = {"scontrol", "show", "job", "-o", id, NULL};
    struct buf out = {0};
    struct err err;
    enum end end = END_UNKNOWN;
    if (command_run(words, SLURM_TIMEOUT_MS, &out, &err) == 0)
        end = slurm_parse_end(buf_text(&out), out.length, arena, &reason);
    buf_done(&out);
    log_info("pool %s: allocation %s is over (%s)", pool->config->name, id, reason);
    pool_ended(pool, allocation, end, clock_steady_ms(),
               arena_printf(arena, "allocation %s: %s", id, reason));
}

static void allocations_take(struct pilot *pilot, struct pool *pool, const struct slurm_job *jobs,
                             size_t count)
{
    for (size_t i = 0; i < pool->count; i++)
        pool->allocations[i].listed = false;
    for (size_t i = 0; i < count; i++) {
        uint32_t slot = slurm_slot(jobs[i].name, pilot->config->name, pool->config->name);
        struct allocation *allocation = pool_find(pool, jobs[i].id);
        if (slot == 0)
            continue;
        if (!allocation)
            allocation = pool_add(pool, jobs[i].id, slot); /* of before our start */
        allocation->state = jobs[i].state;
        allocation->listed = true;
    }
}

static int slurm_look(struct pilot *pilot, struct arena *arena, struct err *err)
{
    static const char *const words[] = {"squeue", "--me", "-h", "-o", "%i|%T|%j", NULL};
    struct buf out = {0};
    struct slurm_job *jobs = NULL;
    size_t count = 0;
    int rc = command_run(words, SLURM_TIMEOUT_MS, &out, err);
    if (rc == 0)
        rc = slurm_parse_queue(buf_text(&out), out.length, arena, &jobs, &count, err);
    for (size_t i = 0; rc == 0 && i < pilot->config->pool_count; i++)
        allocations_take(pilot, &pilot->pools[i], jobs, count);
    buf_done(&out);
    return rc;
}

static void overs_take(struct pool *pool, struct arena *arena)
{
    for (size_t i = pool->count; i > 0; i--)
        if (!pool->allocations[i - 1].listed)
            allocation_over(pool, &pool->allocations[i - 1], arena);
}

/* ---- asking for more --------------------------------------------------------------------------
 */

static int token_make(struct pilot *pilot, const char *name, const char *path, struct arena *arena,
                      struct err *err)
{
    const char *places[HOME_ENDPOINTS_MAX];
    size_t count = 0;
    struct token token = {0};
    struct buf text = {0};
    struct message request = {.tag = MSG_KEY_CHANGE}, reply;
    int rc = client_server_key(pilot->client, token.server_key, err);
    if (rc == 0)
        rc = client_endpoints(pilot->client, places, &count, err);
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = token_add_endpoint(&token, places[i], strlen(places[i]), err);
    keypair_make(&token.keys);
    request.u.key_change = (struct msg_key_change){.action = "token",
                                                   .principal = name,
                                                   .role = "worker",
                                                   .public_key = token.keys.public_key,
                                                   .ttl_ms = TOKEN_TTL_MS};
    if (rc == 0)
        rc = ask(pilot, &request, MSG_DONE, arena, &reply, err);
    if (rc == 0) {
        token_write(&token, &text);
        buf_putc(&text, '\n');
        rc = file_replace(path, text.bytes, text.length, 0600, err);
        sodium_memzero(text.bytes, text.length);
    }
    buf_done(&text);
    token_wipe(&token);
    return rc < 0 ? err_wrap(err, "a token for %s", name) : 0;
}

/* The program and its options, a line each; the rest is said by SLURM_* on the node. */
static int arguments_write(struct pilot *pilot, const struct pool *pool, const char *dir,
                           struct arena *arena, struct err *err)
{
    const struct pool_config *config = pool->config;
    const char *programs;
    struct buf out = {0};
    if (home_programs(arena, &programs, err) < 0)
        return -1;
    if (*pilot->config->worker_program)
        buf_printf(&out, "%s\n", pilot->config->worker_program);
    else
        buf_printf(&out, "%s/athanor-worker\n", programs);
    buf_printf(&out, "--memory\n%" PRIu64 "B\n--margin\n%" PRIu64 "ms\n--idle\n%" PRIu64 "ms\n",
               config->memory_bytes, config->margin_ms, config->idle_ms);
    buf_printf(&out, "--gpus\n%s\n--jobs-dir\n", config->gpus ? "auto" : "none");
    if (*pilot->config->jobs_dir)
        buf_printf(&out, "%s\n", pilot->config->jobs_dir);
    else
        buf_printf(&out, "%s/jobs\n", pilot->config->dir);
    if (config->open_ended)
        buf_puts(&out, "--open-ended\n");
    for (size_t i = 0; i < config->labels.count; i++)
        buf_printf(&out, "--label\n%s\n", config->labels.items[i]);
    for (size_t i = 0; i < config->worker.count; i++)
        buf_printf(&out, "%s\n", config->worker.items[i]);
    int rc = file_replace(arena_printf(arena, "%s/worker.arguments", dir), out.bytes, out.length,
                          0600, err);
    buf_done(&out);
    return rc;
}

static int slot_prepare(struct pilot *pilot, const struct pool *pool, uint32_t slot,
                        struct arena *arena, struct err *err)
{
    const char *dir = slot_dir(pilot, pool, slot, arena);
    if (slot_clear(pilot, pool, slot, arena, err) < 0 || file_make_folders(dir, 0700, err) < 0 ||
        arguments_write(pilot, pool, dir, arena, err) < 0)
        return -1;
    for (uint64_t node = 0; node < pool->config->nodes; node++)
        if (token_make(pilot, worker_name(pilot, pool, slot, node, arena),
                       arena_printf(arena, "%s/token.%" PRIu64, dir, node), arena, err) < 0)
            return -1;
    return 0;
}

static int sbatch(struct pilot *pilot, const struct pool *pool, uint32_t slot, struct arena *arena,
                  uint64_t *out_id, struct err *err)
{
    const struct pool_config *config = pool->config;
    const char *words[PILOT_WORDS_MAX + 16];
    size_t count = 0;
    char *script = NULL;
    struct buf out = {0};
    if (file_module(SCRIPT, &script, err) < 0)
        return -1;
    const char *fixed[] = {"sbatch",
                           "--parsable",
                           "--no-requeue",
                           "--ntasks-per-node=1",
                           arena_printf(arena, "--job-name=athanor-%s-%s-%u", pilot->config->name,
                                        config->name, slot),
                           arena_printf(arena, "--nodes=%" PRIu64, config->nodes),
                           arena_printf(arena, "--cpus-per-task=%" PRIu64, config->cores),
                           arena_printf(arena, "--time=%" PRIu64,
                                        (config->time_ms + 59999) / 60000),
                           arena_printf(arena, "--output=%s/log/%s-%u-%%j.out", pilot->config->dir,
                                        config->name, slot)};
    for (size_t i = 0; i < ARRAY_COUNT(fixed); i++)
        words[count++] = fixed[i];
    for (size_t i = 0; i < config->sbatch.count; i++)
        words[count++] = config->sbatch.items[i];
    words[count++] = script;
    words[count++] = "batch";
    words[count++] = slot_dir(pilot, pool, slot, arena);
    words[count++] = script;
    words[count] = NULL;
    int rc = command_run(words, SLURM_TIMEOUT_MS, &out, err);
    if (rc == 0) {
        char *last = out.bytes ? strrchr(buf_text(&out), '\n') : NULL;
        char *id = out.bytes ? out.bytes : (char[]){""};
        if (last)
            *last = '\0'; /* warnings may stand before */
        if ((last = strrchr(id, '\n')))
            id = last + 1;
        id[strcspn(id, ";")] = '\0';
        rc = parse_u64(id, out_id, err) < 0 ? err_wrap(err, "sbatch") : 0;
    }
    buf_done(&out);
    mem_free(script);
    return rc;
}

static void submit(struct pilot *pilot, struct pool *pool, struct arena *arena)
{
    uint32_t slot = pool_free_slot(pool);
    uint64_t id;
    struct err err;
    if (slot == 0)
        return;
    if (slot_prepare(pilot, pool, slot, arena, &err) < 0) { /* Slurm has no part in this */
        snprintf(pool->trouble, sizeof pool->trouble, "%s", err.text);
        log_warn("pool %s: %s", pool->config->name, err.text);
        return;
    }
    if (sbatch(pilot, pool, slot, arena, &id, &err) < 0) {
        log_warn("pool %s: %s", pool->config->name, err.text);
        pool_ended(pool, NULL, END_REFUSED, clock_steady_ms(), err.text);
        return;
    }
    log_info("pool %s: asked for allocation %" PRIu64 ", %" PRIu64 " jobs wait", pool->config->name,
             id, pool->jobs);
    pool_add(pool, id, slot);
    pool->submitted++;
}

static void cancel(const struct pool *pool, uint64_t id, struct arena *arena)
{
    const char *words[] = {"scancel", arena_printf(arena, "%" PRIu64, id), NULL};
    struct buf out = {0};
    struct err err;
    log_info("pool %s: taking back allocation %" PRIu64 ", nobody waits", pool->config->name, id);
    if (command_run(words, SLURM_TIMEOUT_MS, &out, &err) < 0)
        log_warn("pool %s: %s", pool->config->name, err.text);
    buf_done(&out);
}

/* ---- one look ----------------------------------------------------------------------------------
 */

/* What a pool can serve is not asked of the next one too, unless this one has to wait. */
static void demands_take(const struct pool *pool, struct demand *demands, size_t count)
{
    const struct pool_config *config = pool->config;
    if (pool->backoff_until_ms > clock_steady_ms() ||
        pool->wanted > config->allocations_max * config->nodes)
        return;
    for (size_t i = 0; i < count; i++)
        if (pool_fits(config, &demands[i]))
            demands[i].jobs = 0;
}

static void pool_look(struct pilot *pilot, struct pool *pool, struct demand *demands, size_t count,
                      struct arena *arena)
{
    struct pool_decision decision;
    overs_take(pool, arena);
    pool->wanted = pool_nodes_wanted(pool->config, demands, count, &pool->jobs);
    pool_decide(pool, clock_steady_ms(), arena, &decision);
    demands_take(pool, demands, count);
    for (size_t i = 0; i < decision.cancel_count; i++)
        cancel(pool, decision.cancel[i], arena);
    for (uint64_t i = 0; i < decision.submit && pool->backoff_until_ms <= clock_steady_ms(); i++)
        submit(pilot, pool, arena);
    slots_sweep(pilot, pool, arena);
}

static int look(struct pilot *pilot, struct arena *arena, struct err *err)
{
    struct msg_table backlog, workers;
    if (query(pilot, "backlog", arena, &backlog, err) < 0 ||
        query(pilot, "workers", arena, &workers, err) < 0 || slurm_look(pilot, arena, err) < 0)
        return -1;
    struct demand *demands = demands_of(&backlog, arena);
    for (size_t i = 0; i < pilot->config->pool_count; i++) {
        workers_count(pilot, &pilot->pools[i], &workers, arena);
        pool_look(pilot, &pilot->pools[i], demands, table_rows(&backlog), arena);
    }
    return 0;
}

void pilot_look(struct pilot *pilot)
{
    struct arena arena = {0};
    struct err err = {0};
    bool was_well = !pilot->trouble[0];
    if (look(pilot, &arena, &err) < 0) {
        snprintf(pilot->trouble, sizeof pilot->trouble, "%s", err.text);
        if (was_well)
            log_warn("%s", err.text);
    } else {
        pilot->trouble[0] = '\0';
        if (!was_well)
            log_info("coordinator and Slurm answer again");
    }
    if (status_write(pilot, &err) < 0)
        log_warn("%s", err.text);
    arena_done(&arena);
}
