/* copy_cache.c - see copy_cache.h. */
#include "worker/daemon/copy_cache.h"

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "worker/daemon/copy_index.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEX_LENGTH (HASH_HEX_SIZE - 1)

struct copy_cache {
    char *folder;
    uint64_t budget_bytes, bytes, version;
    copy_in_use_fn *in_use;
    void *user;
    struct cached_copy *items; /* oldest use first */
    size_t count, capacity;
};

/* ---- names -------------------------------------------------------------------------------- */

static char *name_of(const struct copy_cache *cache, const struct hash *content, const char *end)
{
    char hex[HASH_HEX_SIZE];
    hash_to_hex(content, hex);
    return mem_printf("%s/%s%s", cache->folder, hex, end);
}

char *copy_cache_path(const struct copy_cache *cache, const struct hash *content)
{
    return name_of(cache, content, "");
}

char *copy_cache_part(const struct copy_cache *cache, const struct hash *content)
{
    return name_of(cache, content, ".part");
}

static struct cached_copy *item_find(const struct copy_cache *cache, const struct hash *content)
{
    for (size_t i = 0; i < cache->count; i++)
        if (hash_equal(&cache->items[i].content, content))
            return &cache->items[i];
    return NULL;
}

/* ---- files ---------------------------------------------------------------------------------- */

static struct timespec time_of(uint64_t us)
{
    return (struct timespec){(time_t)(us / 1000000), (long)(us % 1000000) * 1000};
}

static uint64_t us_of(struct timespec time)
{
    return (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_nsec / 1000;
}

typedef int each_file_fn(const char *path, uint64_t size_bytes, uint64_t time_us, struct err *err);

/* Every file of a copy, the index last; *out_bytes: of all together. */
static int files_walk(const char *path, bool is_dataset, uint64_t time_us, each_file_fn *each,
                      uint64_t *out_bytes, struct err *err)
{
    struct arena arena = {0};
    struct copy_file *files = NULL;
    size_t count = 0, length = 0;
    char *index = mem_printf("%s/%s", path, copy_index_name(is_dataset)), *bytes = NULL;
    int rc = file_read(index, COPY_MANIFEST_MAX, &bytes, &length, err);
    if (rc == 0)
        rc = copy_index_read(bytes, length, is_dataset, &arena, &files, &count, err);
    *out_bytes = length;
    for (size_t i = 0; rc == 0 && i < count; i++) {
        char *file = mem_printf("%s/%s", path, files[i].name);
        *out_bytes += files[i].size_bytes;
        rc = each(file, files[i].size_bytes, time_us, err);
        mem_free(file);
    }
    if (rc == 0)
        rc = each(index, length, time_us, err);
    arena_done(&arena);
    mem_free(bytes);
    mem_free(index);
    return rc;
}

static int file_seal(const char *path, uint64_t size_bytes, uint64_t time_us, struct err *err)
{
    struct timespec times[2] = {time_of(time_us), time_of(time_us)};
    (void)size_bytes;
    if (chmod(path, 0444) < 0 || utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW) < 0)
        return err_errno(err, "seal '%s'", path);
    return 0;
}

static int file_look(const char *path, uint64_t size_bytes, uint64_t time_us, struct err *err)
{
    struct stat info;
    if (lstat(path, &info) < 0)
        return err_errno(err, "look at '%s'", path);
    if (!S_ISREG(info.st_mode) || (uint64_t)info.st_size != size_bytes ||
        us_of(info.st_mtim) != time_us)
        return err_set(err, ERR_PROTOCOL, "'%s' has been changed", path);
    return 0;
}

/* The note goes first: a copy without one does not count. */
static bool item_remove(struct copy_cache *cache, size_t index)
{
    struct cached_copy *item = &cache->items[index];
    char *note = name_of(cache, &item->content, ".json");
    char *path = copy_cache_path(cache, &item->content);
    struct err err;
    bool gone = unlink(note) == 0 || errno == ENOENT;
    if (!gone)
        log_warn("copy '%s' stays: %s", path, strerror(errno));
    else if (file_remove_tree(path, &err) < 0)
        log_warn("%s", err.text);
    mem_free(note);
    mem_free(path);
    if (!gone)
        return false;
    cache->bytes -= item->size_bytes;
    cache->version++;
    cache->count--;
    memmove(item, item + 1, (cache->count - index) * sizeof *item);
    return true;
}

/* ---- what an earlier daemon has left --------------------------------------------------------- */

static bool note_read(const struct copy_cache *cache, struct cached_copy *item)
{
    char *path = name_of(cache, &item->content, ".json");
    struct stat info;
    json_t *note = lstat(path, &info) == 0 && S_ISREG(info.st_mode)
                       ? json_load_file(path, JSON_REJECT_DUPLICATES, NULL)
                       : NULL;
    const char *source = json_string_value(json_object_get(note, "source"));
    json_int_t size = json_integer_value(json_object_get(note, "size_bytes"));
    json_int_t fetched = json_integer_value(json_object_get(note, "fetched_us"));
    bool is_whole = source && strlen(source) < sizeof item->source && size > 0 && fetched > 0;
    if (is_whole) {
        memcpy(item->source, source, strlen(source) + 1);
        item->size_bytes = (uint64_t)size;
        item->fetched_us = (uint64_t)fetched;
        item->used_us = us_of(info.st_mtim);
        item->is_dataset = json_is_true(json_object_get(note, "dataset"));
    }
    json_decref(note);
    mem_free(path);
    return is_whole;
}

static int note_write(const struct copy_cache *cache, const struct cached_copy *item,
                      struct err *err)
{
    json_t *note = json_pack("{s:s, s:b, s:I, s:I}", "source", item->source, "dataset",
                             (int)item->is_dataset, "size_bytes", (json_int_t)item->size_bytes,
                             "fetched_us", (json_int_t)item->fetched_us);
    char *text = json_dumps(note, 0);
    char *path = name_of(cache, &item->content, ".json");
    int rc = text ? file_replace(path, text, strlen(text), 0600, err)
                  : err_set(err, ERR_INVALID, "the name of worker '%.100s' is no text",
                            item->source);
    mem_free(path);
    free(text);
    json_decref(note);
    return rc;
}

static int older_first(const void *left, const void *right)
{
    const struct cached_copy *a = left, *b = right;
    if (a->used_us != b->used_us)
        return a->used_us < b->used_us ? -1 : 1;
    return memcmp(&a->content, &b->content, sizeof a->content);
}

/* True: the name is that of a whole copy, or of the note of one. */
static bool name_take(struct copy_cache *cache, const char *name)
{
    struct cached_copy item = {0};
    struct err err;
    char hex[HASH_HEX_SIZE] = "";
    size_t length = strlen(name);
    bool is_note = length == HEX_LENGTH + 5 && strcmp(name + HEX_LENGTH, ".json") == 0;
    if (length != HEX_LENGTH && !is_note)
        return false;
    memcpy(hex, name, HEX_LENGTH);
    if (hash_from_hex(hex, &item.content, &err) < 0 || !note_read(cache, &item))
        return false;
    char *path = copy_cache_path(cache, &item.content);
    struct stat info;
    bool is_there = lstat(path, &info) == 0 && S_ISDIR(info.st_mode);
    mem_free(path);
    if (!is_there || is_note)
        return is_there;
    VEC_RESERVE(cache->items, cache->count, cache->capacity);
    cache->items[cache->count++] = item;
    cache->bytes += item.size_bytes;
    return true;
}

static int folder_take(struct copy_cache *cache, struct err *err)
{
    DIR *folder = opendir(cache->folder);
    if (!folder)
        return err_errno(err, "read '%s'", cache->folder);
    for (struct dirent *entry; (entry = readdir(folder));) {
        struct err why;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
            name_take(cache, entry->d_name))
            continue;
        char *path = mem_printf("%s/%s", cache->folder, entry->d_name);
        if (file_remove_tree(path, &why) < 0)
            log_warn("%s", why.text);
        mem_free(path);
    }
    closedir(folder);
    if (cache->count)
        qsort(cache->items, cache->count, sizeof *cache->items, older_first);
    return 0;
}

int copy_cache_open(const char *folder, uint64_t budget_bytes, copy_in_use_fn *in_use, void *user,
                    struct copy_cache **out, struct err *err)
{
    struct copy_cache *cache = mem_zalloc(sizeof *cache);
    *cache = (struct copy_cache){.folder = mem_strdup(folder),
                                 .budget_bytes = budget_bytes,
                                 .in_use = in_use,
                                 .user = user};
    if (file_make_folders(folder, 0711, err) < 0 || folder_take(cache, err) < 0) {
        copy_cache_close(cache);
        return -1;
    }
    *out = cache;
    return 0;
}

void copy_cache_close(struct copy_cache *cache)
{
    if (!cache)
        return;
    mem_free(cache->items);
    mem_free(cache->folder);
    mem_free(cache);
}

/* ---- using ---------------------------------------------------------------------------------- */

const struct cached_copy *copy_cache_list(const struct copy_cache *cache, size_t *out_count)
{
    *out_count = cache->count;
    return cache->items;
}

uint64_t copy_cache_version(const struct copy_cache *cache)
{
    return cache->version;
}

/* To the end of the list; later than all before it, also when the clock stands still. */
static struct cached_copy *item_use(struct copy_cache *cache, struct cached_copy *item)
{
    struct cached_copy used = *item;
    size_t index = (size_t)(item - cache->items);
    used.used_us = max_u64(clock_wall_us(), cache->items[cache->count - 1].used_us + 1);
    memmove(item, item + 1, (cache->count - 1 - index) * sizeof *item);
    cache->items[cache->count - 1] = used;
    struct timespec times[2] = {time_of(used.used_us), time_of(used.used_us)};
    char *note = name_of(cache, &used.content, ".json");
    if (utimensat(AT_FDCWD, note, times, AT_SYMLINK_NOFOLLOW) < 0)
        log_warn("'%s': %s", note, strerror(errno)); /* only the order after a restart is lost */
    mem_free(note);
    return &cache->items[cache->count - 1];
}

const struct cached_copy *copy_cache_find(struct copy_cache *cache, const struct hash *content)
{
    struct cached_copy *item = item_find(cache, content);
    return item ? item_use(cache, item) : NULL;
}

const struct cached_copy *copy_cache_find_whole(struct copy_cache *cache,
                                                const struct hash *content)
{
    struct cached_copy *item = item_find(cache, content);
    struct err err;
    struct hash found;
    uint64_t bytes;
    if (!item)
        return NULL;
    char *path = copy_cache_path(cache, content);
    char *index = mem_printf("%s/%s", path, copy_index_name(item->is_dataset));
    int rc = hash_file(index, &found, &err);
    if (rc == 0 && !hash_equal(&found, content))
        rc = err_set(&err, ERR_PROTOCOL, "'%s' has been changed", index);
    if (rc == 0)
        rc = files_walk(path, item->is_dataset, item->fetched_us, file_look, &bytes, &err);
    mem_free(index);
    mem_free(path);
    if (rc == 0)
        return item_use(cache, item);
    log_warn("a copy is thrown away: %s", err.text);
    item_remove(cache, (size_t)(item - cache->items));
    return NULL;
}

int copy_cache_keep(struct copy_cache *cache, const struct hash *content, bool is_dataset,
                    const char *source, struct err *err)
{
    struct cached_copy item = {
        .content = *content, .is_dataset = is_dataset, .fetched_us = clock_wall_us()};
    char *part = copy_cache_part(cache, content), *path = copy_cache_path(cache, content);
    item.used_us = item.fetched_us;
    memcpy(item.source, source, min_u64(strlen(source), sizeof item.source - 1));
    int rc = files_walk(part, is_dataset, item.fetched_us, file_seal, &item.size_bytes, err);
    if (rc == 0)
        rc = file_remove_tree(path, err); /* what could not be removed before */
    if (rc == 0 && rename(part, path) < 0)
        rc = err_errno(err, "keep '%s'", path);
    if (rc == 0)
        rc = note_write(cache, &item, err);
    mem_free(part);
    mem_free(path);
    if (rc < 0)
        return -1;
    VEC_RESERVE(cache->items, cache->count, cache->capacity);
    cache->items[cache->count++] = item;
    cache->bytes += item.size_bytes;
    cache->version++;
    item_use(cache, &cache->items[cache->count - 1]);
    return 0;
}

/* ---- removing -------------------------------------------------------------------------------- */

static bool is_too_much(const struct copy_cache *cache, uint64_t more_bytes)
{
    return cache->count > COPY_CACHE_MAX || more_bytes > cache->budget_bytes ||
           cache->bytes > cache->budget_bytes - more_bytes;
}

void copy_cache_trim(struct copy_cache *cache, uint64_t more_bytes)
{
    for (size_t i = 0; i < cache->count;) {
        const struct cached_copy *item = &cache->items[i];
        bool goes = (item->doomed || is_too_much(cache, more_bytes)) &&
                    !cache->in_use(cache->user, &item->content);
        if (!goes || !item_remove(cache, i))
            i++;
    }
}

bool copy_cache_drop(struct copy_cache *cache, const struct hash *content)
{
    struct cached_copy *item = item_find(cache, content);
    if (!item)
        return true;
    item->doomed = true;
    return !cache->in_use(cache->user, content) &&
           item_remove(cache, (size_t)(item - cache->items));
}
