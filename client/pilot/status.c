/* status.c - status.json: what a pilot last saw and did, for people and for its own next start. */
#include "client/pilot/pilot.h"

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/parse.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define STATUS_BYTES_MAX ((size_t)4 << 20)

const char *status_file(const struct pilot_config *config, struct arena *arena)
{
    return arena_printf(arena, "%s/status.json", config->dir);
}

static const char *state_of(const struct pool *pool, uint64_t now_ms)
{
    uint64_t waiting = 0, running = 0;
    for (size_t i = 0; i < pool->count; i++) {
        waiting += pool->allocations[i].state == ALLOCATION_WAITING;
        running += pool->allocations[i].state == ALLOCATION_RUNNING;
    }
    return pool->backoff_until_ms > now_ms ? "backoff"
           : waiting                       ? "waiting"
           : running                       ? "running"
           : pool->wanted                  ? "wanted"
                                           : "idle";
}

static json_t *allocation_json(const struct allocation *allocation)
{
    static const char *const states[] = {"", "waiting", "running", "ending"};
    return json_pack("{s:I, s:I, s:s, s:I}", "slurm_job", (json_int_t)allocation->id, "slot",
                     (json_int_t)allocation->slot, "state", states[allocation->state], "workers",
                     (json_int_t)allocation->workers);
}

static json_t *pool_json(const struct pool *pool, uint64_t now_ms)
{
    uint64_t left_ms = pool->backoff_until_ms > now_ms ? pool->backoff_until_ms - now_ms : 0;
    json_t *list = json_array(), *ends = json_object();
    for (size_t i = 0; i < pool->count; i++)
        json_array_append_new(list, allocation_json(&pool->allocations[i]));
    for (enum end end = END_NONE + 1; end < END_END; end++)
        json_object_set_new(ends, end_name(end), json_integer((json_int_t)pool->ends[end]));
    return json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:o, s:o}", "pool",
                     pool->config->name, "state", state_of(pool, now_ms), "jobs",
                     (json_int_t)pool->jobs, "nodes_wanted", (json_int_t)pool->wanted, "failures",
                     (json_int_t)pool->failures, "backoff_until_us",
                     (json_int_t)(left_ms ? clock_wall_us() + left_ms * 1000 : 0), "submitted",
                     (json_int_t)pool->submitted, "started", (json_int_t)pool->started, "trouble",
                     text_is_utf8(pool->trouble, strlen(pool->trouble)) ? pool->trouble : "?",
                     "ends", ends, "allocations", list);
}

int status_write(const struct pilot *pilot, struct err *err)
{
    struct arena arena = {0};
    json_t *pools = json_array();
    uint64_t now_ms = clock_steady_ms();
    for (size_t i = 0; i < pilot->config->pool_count; i++)
        json_array_append_new(pools, pool_json(&pilot->pools[i], now_ms));
    json_t *root =
        json_pack("{s:s, s:I, s:s, s:o}", "name", pilot->config->name, "at_us",
                  (json_int_t)clock_wall_us(), "trouble",
                  text_is_utf8(pilot->trouble, strlen(pilot->trouble)) ? pilot->trouble : "?",
                  "pools", pools);
    CHECK(root != NULL);
    char *text = json_dumps(root, JSON_INDENT(1));
    CHECK(text != NULL);
    int rc = file_replace(status_file(pilot->config, &arena), text, strlen(text), 0644, err);
    free(text);
    json_decref(root);
    arena_done(&arena);
    return rc;
}

static int status_load(const struct pilot_config *config, json_t **out, struct err *err)
{
    struct arena arena = {0};
    char *text = NULL;
    size_t length;
    json_error_t why;
    int rc = file_read(status_file(config, &arena), STATUS_BYTES_MAX, &text, &length, err);
    if (rc == 0 && !(*out = json_loadb(text ? text : "", length, 0, &why)))
        rc = err_set(err, ERR_PROTOCOL, "%s:%d: %s", status_file(config, &arena), why.line,
                     why.text);
    mem_free(text);
    arena_done(&arena);
    return rc;
}

static uint64_t number_of(const json_t *object, const char *key)
{
    json_int_t value = json_integer_value(json_object_get(object, key));
    return value > 0 ? (uint64_t)value : 0;
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static void pool_recall(struct pool *pool, const json_t *saved)
{
    uint64_t until_us = number_of(saved, "backoff_until_us"), now_us = clock_wall_us();
    const json_t *ends = json_object_get(saved, "ends");
    uint64_t left_ms = until_us > now_us ? (until_us - now_us) / 1000 : 0;
    pool->failures = min_u64(number_of(saved, "failures"), 1000);
    if (left_ms) /* the clock may have been set */
        pool->backoff_until_ms = clock_steady_ms() + min_u64(left_ms, pool->config->backoff_max_ms);
    pool->submitted = number_of(saved, "submitted");
    pool->started = number_of(saved, "started");
    snprintf(pool->trouble, sizeof pool->trouble, "%s", text_of(saved, "trouble"));
    for (enum end end = END_NONE + 1; end < END_END; end++)
        pool->ends[end] = number_of(ends, end_name(end));
}

void status_recall(struct pilot *pilot)
{
    json_t *root = NULL, *saved;
    struct err err;
    size_t at;
    if (status_load(pilot->config, &root, &err) < 0)
        return;
    json_array_foreach(json_object_get(root, "pools"), at,
                       saved) for (size_t i = 0; i < pilot->config->pool_count;
                                   i++) if (strcmp(pilot->config->pools[i].name,
                                                   text_of(saved, "pool")) == 0)
        pool_recall(&pilot->pools[i], saved);
    json_decref(root);
}

/* ---- for people --------------------------------------------------------------------------------
 */

static const struct rec_column columns[] = {
    {"pool", "text"},   {"state", "text"},       {"jobs", "int"},      {"nodes_wanted", "int"},
    {"waiting", "int"}, {"running", "int"},      {"workers", "int"},   {"submitted", "int"},
    {"started", "int"}, {"failures", "int"},     {"retry_at", "time"}, {"trouble", "text"},
    {"ends", "json"},   {"allocations", "json"}, {"looked_at", "time"}};

static struct rec_cell number_cell(struct arena *arena, uint64_t number)
{
    return (struct rec_cell){.text = arena_printf(arena, "%llu", (unsigned long long)number)};
}

static struct rec_cell time_cell(struct arena *arena, uint64_t at_us)
{
    time_t seconds = (time_t)(at_us / 1000000);
    struct tm parts;
    char text[40];
    if (at_us == 0 || !gmtime_r(&seconds, &parts) ||
        !strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S+00", &parts))
        return (struct rec_cell){.is_null = true, .text = ""};
    return (struct rec_cell){.text = arena_strdup(arena, text)};
}

static struct rec_cell json_cell(struct arena *arena, const json_t *value)
{
    char *text = value ? json_dumps(value, JSON_COMPACT) : NULL;
    struct rec_cell cell = {.text = arena_strdup(arena, text ? text : "null")};
    free(text);
    return cell;
}

static void pool_cells(const json_t *root, const json_t *pool, struct arena *arena,
                       struct rec_cell *out)
{
    uint64_t waiting = 0, running = 0, workers = 0;
    const char *trouble = text_of(root, "trouble");
    json_t *allocation, *list = json_object_get(pool, "allocations");
    size_t at;
    json_array_foreach(list, at, allocation)
    {
        waiting += strcmp(text_of(allocation, "state"), "waiting") == 0;
        running += strcmp(text_of(allocation, "state"), "running") == 0;
        workers += number_of(allocation, "workers");
    }
    const struct rec_cell cells[] = {
        {.text = arena_strdup(arena, text_of(pool, "pool"))},
        {.text = arena_strdup(arena, text_of(pool, "state"))},
        number_cell(arena, number_of(pool, "jobs")),
        number_cell(arena, number_of(pool, "nodes_wanted")),
        number_cell(arena, waiting),
        number_cell(arena, running),
        number_cell(arena, workers),
        number_cell(arena, number_of(pool, "submitted")),
        number_cell(arena, number_of(pool, "started")),
        number_cell(arena, number_of(pool, "failures")),
        time_cell(arena, number_of(pool, "backoff_until_us")),
        {.text = arena_strdup(arena, *trouble ? trouble : text_of(pool, "trouble"))},
        json_cell(arena, json_object_get(pool, "ends")),
        json_cell(arena, list),
        time_cell(arena, number_of(root, "at_us")),
    };
    _Static_assert(ARRAY_COUNT(cells) == ARRAY_COUNT(columns), "a cell per column");
    memcpy(out, cells, sizeof cells);
}

int status_table(const struct pilot_config *config, struct arena *arena, struct msg_table *out,
                 struct err *err)
{
    json_t *root = NULL, *pool;
    size_t at;
    if (status_load(config, &root, err) < 0)
        return err_wrap(err, "no pilot has looked yet");
    json_t *pools = json_object_get(root, "pools");
    *out = (struct msg_table){.columns = arena_alloc(arena, sizeof columns),
                              .columns_count = ARRAY_COUNT(columns),
                              .next = ""};
    memcpy(out->columns, columns, sizeof columns);
    out->cells = arena_alloc(arena, (json_array_size(pools) + 1) * ARRAY_COUNT(columns) *
                                        sizeof *out->cells);
    json_array_foreach(pools, at, pool)
    {
        pool_cells(root, pool, arena, out->cells + out->cells_count);
        out->cells_count += ARRAY_COUNT(columns);
    }
    json_decref(root);
    return 0;
}
