/* code.c - code.snapshot: folders that the client packs before it submits. */
#include "common/spec/field.h"

#include "common/base/mem.h"

#include <string.h>

#define FOLDER_BYTES_MAX 4095u /* PATH_MAX of Linux, less the terminator */
#define CWD_BYTES_MAX    1000u

const char *snapshot_folder(struct arena *arena, const char *text, const char *folder)
{
    size_t length = strlen(text);
    while (length > 1 && text[length - 1] == '/')
        length--;
    for (; length > 2 && text[0] == '.' && text[1] == '/'; length -= 2)
        text += 2;
    if (length == 1 && text[0] == '.')
        return arena_strdup(arena, folder);
    return text[0] == '/' ? arena_strndup(arena, text, length)
                          : arena_printf(arena, "%s/%.*s", folder, (int)length, text);
}

static bool is_text(const struct node *node)
{
    return node->kind == NODE_SCALAR && !node_is_null(node) && node->text[0] != '\0';
}

void read_snapshot(struct reader *reader, const struct node *node, const struct place *place,
                   struct draft *draft)
{
    const struct spec_source *source = reader->source;
    if (!is_text(node)) {
        reader_refuse(reader, node, place, "is %s, expected a folder of code",
                      shown(reader, node));
        return;
    }
    if (!source->folder && node->text[0] != '/') {
        reader_refuse(reader, node, place,
                      "is %s, which is relative, and the submitter's folder is not known; expected "
                      "an absolute path",
                      shown(reader, node));
        return;
    }
    const char *folder = snapshot_folder(reader->arena, node->text, source->folder);
    if (strlen(folder) > FOLDER_BYTES_MAX) {
        reader_refuse(reader, node, place, "makes a path of %zu bytes, at most %u are accepted",
                      strlen(folder), FOLDER_BYTES_MAX);
        return;
    }
    for (size_t i = 0; i < source->snapshot_count; i++) {
        if (strcmp(source->snapshots[i].folder, folder) != 0)
            continue;
        draft->job.code.folder = folder;
        draft->job.code.hash = arena_strdup(reader->arena, source->snapshots[i].hash);
        return;
    }
    reader_refuse(reader, node, place,
                  "is %s, which the client has not packed: `athanor submit` and `athanor check` do",
                  shown(reader, node));
}

/* A path of plain names: what is looked up in the snapshot stays in it. */
static bool is_plain_path(const char *text)
{
    size_t length = strlen(text);
    if (length > CWD_BYTES_MAX || text[0] == '/' || text[length - 1] == '/' || strstr(text, "//"))
        return false;
    for (const char *name = text; name; name = strchr(name, '/')) {
        name += *name == '/';
        size_t bytes = strcspn(name, "/");
        if (bytes <= 2 && strspn(name, ".") >= bytes)
            return false;
    }
    return true;
}

void read_cwd(struct reader *reader, const struct node *node, const struct place *place,
              struct draft *draft)
{
    if (!is_text(node) || !is_plain_path(node->text))
        reader_refuse(reader, node, place,
                      "is %s, expected a folder within the snapshot such as src, without . and .., "
                      "or '-' for ATHANOR_RUN_DIR",
                      shown(reader, node));
    else
        draft->job.code.cwd = node->text;
}

/* ---- before reading ------------------------------------------------------------------------ */

struct folders {
    struct arena *arena;
    const char *base; /* of relative paths */
    const char **items;
    size_t count, capacity;
};

static void folder_add(struct folders *folders, const struct node *node)
{
    if (!node || !is_text(node) || (node->text[0] != '/' && !folders->base))
        return;
    const char *folder = snapshot_folder(folders->arena, node->text, folders->base);
    for (size_t i = 0; i < folders->count; i++)
        if (strcmp(folders->items[i], folder) == 0)
            return;
    VEC_RESERVE(folders->items, folders->count, folders->capacity);
    folders->items[folders->count++] = folder;
}

static const struct node *map_get(const struct node *map, const char *key)
{
    return map && map->kind == NODE_MAP ? node_get(map, key) : NULL;
}

/* Of a job as written: its own, and those that a sweep tries. */
static void job_folders(struct folders *folders, const struct node *job)
{
    folder_add(folders, map_get(map_get(job, "code"), "snapshot"));
    const struct node *over = map_get(map_get(job, "sweep"), "over");
    const struct node *tried = map_get(over, "code.snapshot");
    for (size_t i = 0; tried && tried->kind == NODE_LIST && i < tried->count; i++)
        folder_add(folders, tried->items[i]);
}

size_t spec_folders(const struct spec_source *source, struct arena *arena, const char *const **out)
{
    struct spec_errors errors = {0};
    struct arena scratch = {0};
    struct reader reader = {.source = source, .arena = &scratch, .errors = &errors};
    struct node_source text = {
        .file = source->name, .bytes = source->bytes, .length = source->length};
    struct folders folders = {.arena = arena, .base = source->folder};
    struct node *root =
        source->length <= SPEC_TEXT_BYTES_MAX ? node_read(&text, &scratch, &errors) : NULL;
    if (root && root->kind == NODE_MAP) {
        root = sets_apply(&reader, root);
        const struct node *jobs = map_get(root, "jobs");
        job_folders(&folders, root);
        job_folders(&folders, map_get(root, "defaults"));
        for (size_t i = 0; jobs && jobs->kind == NODE_MAP && i < jobs->count; i++)
            job_folders(&folders, jobs->pairs[i].value);
    }
    const char **kept = arena_alloc(arena, (folders.count + 1) * sizeof *kept);
    if (folders.count)
        memcpy(kept, folders.items, folders.count * sizeof *kept);
    *out = kept;
    mem_free(folders.items);
    spec_errors_done(&errors);
    arena_done(&scratch);
    return folders.count;
}
