/* pool.c - see pool.h. */
#include "client/pilot/pool.h"

#include "common/base/mem.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

static const char *const end_names[END_END] = {[END_NONE] = "",
#define X(tag, name) [END_##tag] = name,
                                               ENDS(X)
#undef X
};

const char *end_name(enum end end)
{
    CHECK(end >= 0 && end < END_END);
    return end_names[end];
}

/* ---- what fits ------------------------------------------------------------------------------ */

static const char *label_of(const struct pool_config *config, const char *name)
{
    size_t length = strlen(name);
    for (size_t i = 0; i < config->labels.count; i++)
        if (strncmp(config->labels.items[i], name, length) == 0 &&
            config->labels.items[i][length] == '=')
            return config->labels.items[i] + length + 1;
    return NULL;
}

static bool value_fits(const char *label, const json_t *values)
{
    if (json_is_string(values))
        return strcmp(json_string_value(values), label) == 0;
    for (size_t i = 0; i < json_array_size(values); i++)
        if (json_is_string(json_array_get(values, i)) &&
            strcmp(json_string_value(json_array_get(values, i)), label) == 0)
            return true;
    return false;
}

static bool alternative_fits(const struct pool_config *config, json_t *alternative)
{
    const char *name;
    json_t *values;
    json_object_foreach(alternative, name, values)
    {
        const char *label = label_of(config, name);
        if (!label || !value_fits(label, values))
            return false;
    }
    return json_is_object(alternative);
}

/* An object of labels, or a list of alternatives. */
static bool constraint_fits(const struct pool_config *config, const char *text)
{
    if (!text || !*text || strcmp(text, "{}") == 0)
        return true;
    json_t *root = json_loads(text, 0, NULL);
    bool fits = json_is_object(root) && alternative_fits(config, root);
    for (size_t i = 0; !fits && i < json_array_size(root); i++)
        fits = alternative_fits(config, json_array_get(root, i));
    json_decref(root);
    return fits;
}

static uint64_t times_in(uint64_t room, uint64_t need)
{
    return need ? room / need : UINT64_MAX;
}

static uint64_t ranks_on_node(const struct pool_config *config, const struct demand *demand)
{
    uint64_t ranks = times_in(config->cores, demand->cores);
    ranks = min_u64(ranks, times_in(config->memory_bytes, demand->memory_bytes));
    ranks = min_u64(ranks, times_in(config->gpus, demand->gpus));
    return min_u64(ranks, demand->ranks);
}

static uint64_t nodes_of_job(const struct pool_config *config, const struct demand *demand)
{
    uint64_t ranks = ranks_on_node(config, demand);
    return ranks ? max_u64((demand->ranks + ranks - 1) / ranks, demand->nodes_min) : UINT64_MAX;
}

bool pool_fits(const struct pool_config *config, const struct demand *demand)
{
    uint64_t time_ms = config->time_ms - config->margin_ms;
    if (*config->queue && strcmp(config->queue, demand->queue) != 0)
        return false;
    if (demand->wall_ms ? demand->wall_ms > time_ms : !config->open_ended)
        return false;
    return nodes_of_job(config, demand) <= min_u64(config->nodes, demand->nodes_max) &&
           constraint_fits(config, demand->constraint);
}

#define WHOLE 1000000u /* a node, in parts */

static uint64_t part_of(uint64_t need, uint64_t room)
{
    if (need == 0)
        return 0;
    /* Bytes may have 50 bits; parts of a node need no more than 20. */
    while (room > UINT32_MAX) {
        room >>= 1;
        need = (need + 1) >> 1;
    }
    return (need * WHOLE + room - 1) / room;
}

static uint64_t parts_of_job(const struct pool_config *config, const struct demand *demand)
{
    if (nodes_of_job(config, demand) > 1)
        return nodes_of_job(config, demand) * WHOLE;
    uint64_t parts = part_of(demand->ranks * demand->cores, config->cores);
    parts = max_u64(parts, part_of(demand->ranks * demand->memory_bytes, config->memory_bytes));
    return max_u64(parts, config->gpus ? part_of(demand->ranks * demand->gpus, config->gpus) : 0);
}

uint64_t pool_nodes_wanted(const struct pool_config *config, const struct demand *demands,
                           size_t count, uint64_t *out_jobs)
{
    uint64_t parts = 0, jobs = 0;
    for (size_t i = 0; i < count; i++) {
        if (!pool_fits(config, &demands[i]))
            continue;
        jobs += demands[i].jobs;
        /* 10^9 jobs of a thousand nodes each stay below 2^60. */
        parts += min_u64(demands[i].jobs, 1000000000u) * parts_of_job(config, &demands[i]);
        parts = min_u64(parts, (uint64_t)1 << 60);
    }
    *out_jobs = jobs;
    return (parts + WHOLE - 1) / WHOLE;
}

/* ---- allocations ----------------------------------------------------------------------------- */

void pool_done(struct pool *pool)
{
    mem_free(pool->allocations);
}

struct allocation *pool_find(struct pool *pool, uint64_t id)
{
    for (size_t i = 0; i < pool->count; i++)
        if (pool->allocations[i].id == id)
            return &pool->allocations[i];
    return NULL;
}

struct allocation *pool_add(struct pool *pool, uint64_t id, uint32_t slot)
{
    VEC_RESERVE(pool->allocations, pool->count, pool->capacity);
    pool->allocations[pool->count] =
        (struct allocation){.id = id, .slot = slot, .state = ALLOCATION_WAITING, .listed = true};
    return &pool->allocations[pool->count++];
}

bool pool_slot_is_used(const struct pool *pool, uint32_t slot)
{
    for (size_t i = 0; i < pool->count; i++)
        if (pool->allocations[i].slot == slot)
            return true;
    return false;
}

uint32_t pool_free_slot(const struct pool *pool)
{
    for (uint32_t slot = 1; slot <= pool->config->allocations_max; slot++)
        if (!pool_slot_is_used(pool, slot))
            return slot;
    return 0;
}

static void waiting_take_back(const struct pool *pool, struct arena *arena,
                              struct pool_decision *out)
{
    uint64_t *ids = arena_alloc(arena, (pool->count + 1) * sizeof *ids);
    for (size_t i = 0; i < pool->count; i++)
        if (pool->allocations[i].state == ALLOCATION_WAITING)
            ids[out->cancel_count++] = pool->allocations[i].id;
    out->cancel = ids;
}

void pool_decide(struct pool *pool, uint64_t now_ms, struct arena *arena, struct pool_decision *out)
{
    const struct pool_config *config = pool->config;
    uint64_t waiting = 0, coming = 0; /* allocations; nodes that are asked for and not here yet */
    *out = (struct pool_decision){0};
    for (size_t i = 0; i < pool->count; i++) {
        const struct allocation *allocation = &pool->allocations[i];
        waiting += allocation->state == ALLOCATION_WAITING;
        if (allocation->state != ALLOCATION_ENDING && !allocation->joined)
            coming += config->nodes;
    }
    if (pool->wanted) {
        pool->unwanted_since_ms = 0;
        pool->wanted_since_ms = pool->wanted_since_ms ? pool->wanted_since_ms : now_ms;
    } else {
        pool->wanted_since_ms = 0;
        pool->unwanted_since_ms = pool->unwanted_since_ms ? pool->unwanted_since_ms : now_ms;
        if (now_ms - pool->unwanted_since_ms >= config->settle_ms)
            waiting_take_back(pool, arena, out);
        return;
    }
    if (now_ms < pool->backoff_until_ms || now_ms - pool->wanted_since_ms < config->settle_ms ||
        pool->wanted <= coming)
        return;
    uint64_t more = (pool->wanted - coming + config->nodes - 1) / config->nodes;
    more = min_u64(more, config->allocations_max - min_u64(pool->count, config->allocations_max));
    out->submit = min_u64(more, config->waiting_max - min_u64(waiting, config->waiting_max));
}

void pool_joined(struct pool *pool, struct allocation *allocation)
{
    if (!allocation->joined)
        pool->started++;
    allocation->joined = true;
    pool->failures = 0;
    pool->backoff_until_ms = 0;
    pool->trouble[0] = '\0';
}

/* Only what says that the pool cannot be had doubles the wait; one that was preempted, cancelled or
 * lost its node says nothing about the next, and waits once. */
static void back_off(struct pool *pool, enum end end, uint64_t now_ms)
{
    const struct pool_config *config = pool->config;
    uint64_t wait_ms = config->backoff_ms;
    if (end == END_REFUSED || end == END_NO_WORKER) {
        pool->failures++;
        for (uint64_t i = 1; i < pool->failures && wait_ms < config->backoff_max_ms; i++)
            wait_ms *= 2;
        wait_ms = min_u64(wait_ms, max_u64(config->backoff_max_ms, config->backoff_ms));
    }
    pool->backoff_until_ms = max_u64(pool->backoff_until_ms, now_ms + wait_ms);
}

void pool_ended(struct pool *pool, struct allocation *allocation, enum end end, uint64_t now_ms,
                const char *text)
{
    bool taken_back = end == END_CANCELLED && pool->unwanted_since_ms;
    bool joined = allocation && allocation->joined;
    if (end == END_NO_WORKER && joined)
        end = END_ENDED;
    pool->ends[end]++;
    if (!joined && !taken_back && end != END_ENDED) {
        back_off(pool, end, now_ms);
        snprintf(pool->trouble, sizeof pool->trouble, "%s: %s", end_name(end), text);
    }
    if (!allocation)
        return;
    size_t at = (size_t)(allocation - pool->allocations);
    memmove(allocation, allocation + 1, (--pool->count - at) * sizeof *allocation);
}
