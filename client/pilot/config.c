/* config.c - see config.h. */
#include "client/pilot/config.h"

#include "common/base/mem.h"
#include "common/base/parse.h"
#include "common/spec/node.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum kind { KIND_NAME = 1, KIND_PATH, KIND_COUNT, KIND_DURATION, KIND_SIZE, KIND_FLAG, KIND_WORDS };

struct row {
    const char *name;
    enum kind kind;
    size_t offset;
    uint64_t least, most;
    const char *initial; /* NULL: required; "": zero or empty */
    const char *help;
};

#define SECOND 1000u
#define MINUTE (60 * SECOND)
#define DAY    (1440ull * MINUTE)
#define TIB    ((uint64_t)1 << 40)

#define AT(field) offsetof(struct pilot_config, field)
static const struct row top_rows[] = {
    {"name", KIND_NAME, AT(name), 0, 60, NULL, "whom our key was enrolled for, with role pilot"},
    {"dir", KIND_PATH, AT(dir), 0, 0, NULL,
     "a directory that the nodes see at the same path: tokens, state, output of allocations"},
    {"jobs", KIND_PATH, AT(jobs_dir), 0, 0, "",
     "--jobs-dir of the workers: durable, the same on all nodes (default: DIR/jobs)"},
    {"interval", KIND_DURATION, AT(interval_ms), 100, 10 * MINUTE, "15s", "between two looks"},
    {"worker", KIND_PATH, AT(worker_program), 0, 0, "",
     "athanor-worker on the nodes (default: where it lies here)"},
};
#undef AT

#define AT(field) offsetof(struct pool_config, field)
static const struct row pool_rows[] = {
    {"time", KIND_DURATION, AT(time_ms), MINUTE, 365 * DAY, NULL, "wall time of an allocation"},
    {"margin", KIND_DURATION, AT(margin_ms), SECOND, DAY, "30s",
     "so long before its end everything on a node is over"},
    {"nodes", KIND_COUNT, AT(nodes), 1, PILOT_NODES_MAX, "1", "nodes of an allocation"},
    {"cores", KIND_COUNT, AT(cores), 1, 65536, NULL, "cores of a node"},
    {"memory", KIND_SIZE, AT(memory_bytes), 1 << 20, 1024 * TIB, NULL, "memory of a node"},
    {"gpus", KIND_COUNT, AT(gpus), 0, 1024, "0", "GPUs of a node"},
    {"allocations", KIND_COUNT, AT(allocations_max), 1, PILOT_ALLOCATIONS_MAX, "1",
     "at most so many, waiting and running"},
    {"waiting", KIND_COUNT, AT(waiting_max), 1, PILOT_ALLOCATIONS_MAX, "1",
     "at most so many of them waiting in Slurm's queue"},
    {"settle", KIND_DURATION, AT(settle_ms), 0, DAY, "30s",
     "how long jobs must wait before an allocation is asked for, or none wait before one that has "
     "not begun is taken back"},
    {"idle", KIND_DURATION, AT(idle_ms), SECOND, 365 * DAY, "5m",
     "a worker without work leaves after that"},
    {"backoff", KIND_DURATION, AT(backoff_ms), SECOND, DAY, "1m",
     "after an allocation that failed, doubled for each further one in a row"},
    {"backoff_max", KIND_DURATION, AT(backoff_max_ms), SECOND, 30 * DAY, "1h", "at most"},
    {"open_ended", KIND_FLAG, AT(open_ended), 0, 0, "false",
     "also for jobs without a wall time, which are requeued when the allocation ends"},
    {"queue", KIND_NAME, AT(queue), 0, 100, "", "only for jobs of this queue"},
    {"labels", KIND_WORDS, AT(labels), 0, 0, "", "NAME=VALUE of its workers, for constraints"},
    {"sbatch", KIND_WORDS, AT(sbatch), 0, 0, "",
     "further options of sbatch, such as --partition=gpu or --gres=gpu:4"},
    {"worker", KIND_WORDS, AT(worker), 0, 0, "", "further options of athanor-worker"},
};
#undef AT

static const char *const kind_names[] = {
    [KIND_NAME] = "NAME", [KIND_PATH] = "PATH", [KIND_COUNT] = "N",   [KIND_DURATION] = "TIME",
    [KIND_SIZE] = "SIZE", [KIND_FLAG] = "BOOL", [KIND_WORDS] = "LIST"};

struct reading {
    const char *file;
    struct arena *arena;
    struct spec_errors *errors;
    size_t found; /* errors */
};

static void refuse(struct reading *reading, const struct node *node, const char *path,
                   const char *format, ...) FORMAT(4, 5);
static void refuse(struct reading *reading, const struct node *node, const char *path,
                   const char *format, ...)
{
    char text[500];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    spec_errors_add(reading->errors,
                    &(struct spec_error){.file = reading->file,
                                         .line = node ? node->line : 0,
                                         .column = node ? node->column : 0,
                                         .path = path},
                    "%s", text);
    reading->found++;
}

/* Lower-case names that are part of job names, paths and workers' names. */
static bool is_name(const char *text, size_t most)
{
    size_t length = strlen(text);
    return length > 0 && length <= most && text[0] != '-' &&
           strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") ==
               length;
}

static bool is_line(const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < ' ' || *text == 127)
            return false;
    return true;
}

static void words_read(struct reading *reading, const struct node *node, const char *path,
                       struct pool_words *out)
{
    bool is_labels = strstr(path, ".labels") != NULL;
    if (node->kind != NODE_LIST || node->count > PILOT_WORDS_MAX) {
        refuse(reading, node, path, "expected a list of at most %u words", PILOT_WORDS_MAX);
        return;
    }
    out->items = arena_alloc(reading->arena, (node->count + 1) * sizeof *out->items);
    for (size_t i = 0; i < node->count; i++) {
        const struct node *item = node->items[i];
        const char *equals = item->kind == NODE_SCALAR ? strchr(item->text, '=') : NULL;
        if (item->kind != NODE_SCALAR || !*item->text || !is_line(item->text))
            refuse(reading, item, path, "expected a word");
        else if (is_labels && (!equals || equals == item->text || !equals[1]))
            refuse(reading, item, path, "'%.60s', expected NAME=VALUE", item->text);
        else
            out->items[out->count++] = arena_strdup(reading->arena, item->text);
    }
}

static int number_read(const struct row *row, const char *text, uint64_t *out, struct err *err)
{
    int rc = row->kind == KIND_COUNT      ? parse_u64(text, out, err)
             : row->kind == KIND_DURATION ? parse_duration_ms(text, out, err)
                                          : parse_size_bytes(text, out, err);
    if (rc == 0 && (*out < row->least || *out > row->most)) {
        char least[PARSE_TEXT_SIZE], most[PARSE_TEXT_SIZE];
        if (row->kind == KIND_DURATION)
            return err_set(err, ERR_INVALID, "is %s, expected %s to %s", text,
                           format_duration_ms(row->least, least),
                           format_duration_ms(row->most, most));
        if (row->kind == KIND_SIZE)
            return err_set(err, ERR_INVALID, "is %s, expected %s to %s", text,
                           format_size_bytes(row->least, least),
                           format_size_bytes(row->most, most));
        return err_set(err, ERR_INVALID, "is %s, expected %llu to %llu", text,
                       (unsigned long long)row->least, (unsigned long long)row->most);
    }
    return rc;
}

static void scalar_read(struct reading *reading, const struct node *node, const char *path,
                        const struct row *row, const char *text, void *field)
{
    struct err err = {0};
    if (row->kind == KIND_NAME && !is_name(text, row->most) && *text)
        refuse(reading, node, path,
               "'%.80s' is no name: expected letters, digits, '.', '_' and '-', at most %llu", text,
               (unsigned long long)row->most);
    else if (row->kind == KIND_PATH && *text && (*text != '/' || !is_line(text)))
        refuse(reading, node, path, "'%.80s', expected an absolute path", text);
    else if (row->kind == KIND_NAME || row->kind == KIND_PATH)
        *(const char **)field = arena_strdup(reading->arena, text);
    else if ((row->kind == KIND_FLAG ? parse_bool(text, field, &err)
                                     : number_read(row, text, field, &err)) < 0)
        refuse(reading, node, path, "%s", err.text);
}

static void row_read(struct reading *reading, const struct node *map, const char *base,
                     const struct row *row, void *object)
{
    const struct node *node = node_get(map, row->name);
    const char *path = arena_printf(reading->arena, "%s%s", base, row->name);
    void *field = (char *)object + row->offset;
    if (!node && !row->initial)
        refuse(reading, map, path, "is required: %s", row->help);
    else if (row->kind == KIND_WORDS && node)
        words_read(reading, node, path, field);
    else if (!node && row->kind != KIND_WORDS)
        scalar_read(reading, map, path, row, row->initial, field);
    else if (node && node->kind != NODE_SCALAR)
        refuse(reading, node, path, "is %s, expected %s", node_kind_text(node),
               kind_names[row->kind]);
    else if (node)
        scalar_read(reading, node, path, row, node->text, field);
}

static void rows_read(struct reading *reading, const struct node *map, const char *base,
                      const struct row *rows, size_t count, const char *besides, void *object)
{
    for (size_t i = 0; i < count; i++)
        row_read(reading, map, base, &rows[i], object);
    for (size_t k = 0; k < map->count; k++) {
        const struct node *key = map->pairs[k].key;
        const char *nearest = rows[0].name;
        bool known = strcmp(key->text, besides) == 0;
        for (size_t i = 0; i < count; i++) {
            known = known || strcmp(rows[i].name, key->text) == 0;
            if (text_distance(key->text, rows[i].name) < text_distance(key->text, nearest))
                nearest = rows[i].name;
        }
        if (!known)
            refuse(reading, key, arena_printf(reading->arena, "%s%.80s", base, key->text),
                   "is not a field, did you mean '%s'?", nearest);
    }
}

static void pool_read(struct reading *reading, const struct node_pair *pair,
                      struct pool_config *out)
{
    const char *name = pair->key->text;
    const char *base = arena_printf(reading->arena, "pools.%.80s.", name);
    *out = (struct pool_config){.name = arena_strdup(reading->arena, name)};
    if (!is_name(name, 30) || strchr(name, '-')) {
        refuse(reading, pair->key, base,
               "'%.80s' is no name for a pool: expected letters, digits, '.' and '_', at most 30",
               name);
    } else if (pair->value->kind != NODE_MAP) {
        refuse(reading, pair->value, base, "is %s, expected a mapping",
               node_kind_text(pair->value));
    } else {
        rows_read(reading, pair->value, base, pool_rows, ARRAY_COUNT(pool_rows), "", out);
        if (out->time_ms && out->margin_ms >= out->time_ms)
            refuse(reading, pair->value, base, "margin is not shorter than time");
    }
}

static void pools_read(struct reading *reading, const struct node *root, struct pilot_config *out)
{
    const struct node *pools = node_get(root, "pools");
    if (!pools || pools->kind != NODE_MAP || pools->count == 0 || pools->count > PILOT_POOLS_MAX) {
        refuse(reading, pools ? pools : root, "pools", "expected 1 to %u pools by name",
               PILOT_POOLS_MAX);
        return;
    }
    out->pools = arena_alloc(reading->arena, pools->count * sizeof *out->pools);
    for (size_t i = 0; i < pools->count; i++)
        pool_read(reading, &pools->pairs[i], &out->pools[out->pool_count++]);
}

int pilot_config_read(const char *file, const char *bytes, size_t length, struct pilot_config *out,
                      struct spec_errors *errors)
{
    struct pilot_config config = {0};
    struct reading reading = {.file = file, .arena = &config.arena, .errors = errors};
    const struct node_source source = {.file = file, .bytes = bytes, .length = length};
    struct node *root = node_read(&source, &config.arena, errors);
    if (root && root->kind != NODE_MAP)
        refuse(&reading, root, "", "is %s, expected a mapping", node_kind_text(root));
    else if (root) {
        rows_read(&reading, root, "", top_rows, ARRAY_COUNT(top_rows), "pools", &config);
        pools_read(&reading, root, &config);
    }
    if (!root || reading.found) {
        arena_done(&config.arena);
        return -1;
    }
    *out = config;
    return 0;
}

void pilot_config_done(struct pilot_config *config)
{
    arena_done(&config->arena);
    *config = (struct pilot_config){0};
}

static void rows_help(struct buf *out, const char *base, const struct row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct row *row = &rows[i];
        buf_printf(out, "%s%s (%s%s%s): %s.\n\n", base, row->name, kind_names[row->kind],
                   !row->initial   ? ", required"
                   : *row->initial ? ", default "
                                   : "",
                   row->initial ? row->initial : "", row->help);
    }
}

void pilot_config_help(struct buf *out)
{
    rows_help(out, "", top_rows, ARRAY_COUNT(top_rows));
    rows_help(out, "pools.NAME.", pool_rows, ARRAY_COUNT(pool_rows));
}
