/* principals.c - a sorted array: keys change rarely, there are some thousands at most, and every
 * received message looks one up. */
#include "coordinator/shell/principals.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/net/keys.h"
#include "common/spec/ref.h"

#include <stdlib.h>
#include <string.h>

#define PRINCIPALS_FILE_BYTES_MAX ((size_t)4 << 20) /* 20,000 lines of 200 bytes */

struct principal {
    char key[KEY_TEXT_SIZE];
    char *name;
    enum role role;
    uint64_t enrolled_us;
};

struct principals {
    struct principal *items; /* by key */
    size_t count, capacity;
};

struct principals *principals_new(void)
{
    return mem_zalloc(sizeof(struct principals));
}

void principals_free(struct principals *principals)
{
    if (!principals)
        return;
    for (size_t i = 0; i < principals->count; i++)
        mem_free(principals->items[i].name);
    mem_free(principals->items);
    mem_free(principals);
}

size_t principals_count(const struct principals *principals)
{
    return principals->count;
}

/* The first index whose key is not less. */
static size_t index_of(const struct principals *principals, const char *key)
{
    size_t low = 0, high = principals->count;

    while (low < high) {
        size_t middle = (low + high) / 2;
        if (strcmp(principals->items[middle].key, key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct principal *find(const struct principals *principals, const char *key)
{
    size_t index = index_of(principals, key);

    return index < principals->count && strcmp(principals->items[index].key, key) == 0
               ? &principals->items[index]
               : NULL;
}

static struct principal *put(struct principals *principals, const char *key)
{
    size_t index = index_of(principals, key);

    VEC_RESERVE(principals->items, principals->count, principals->capacity);
    memmove(principals->items + index + 1, principals->items + index,
            (principals->count - index) * sizeof *principals->items);
    principals->count++;
    principals->items[index] = (struct principal){0};
    memcpy(principals->items[index].key, key, KEY_TEXT_LENGTH);
    return &principals->items[index];
}

static void drop(struct principals *principals, size_t index)
{
    mem_free(principals->items[index].name);
    memmove(principals->items + index, principals->items + index + 1,
            (principals->count - index - 1) * sizeof *principals->items);
    principals->count--;
}

static void fill(struct principal *principal, const char *name, enum role role, uint64_t wall_us)
{
    char *copy = mem_strdup(name);

    mem_free(principal->name);
    principal->name = copy;
    principal->role = role;
    principal->enrolled_us = wall_us;
}

void principals_load(struct principals *principals, const struct row_principal *row)
{
    enum role role;
    struct err err;

    /* The table's constraints promise both. */
    CHECK(role_from_name(row->role, &role, &err) == 0);
    CHECK(strlen(row->public_key) == KEY_TEXT_LENGTH);
    struct principal *principal = find(principals, row->public_key);
    fill(principal ? principal : put(principals, row->public_key), row->name, role,
         row->enrolled_at);
}

const char *principals_find(const struct principals *principals, const char *public_key,
                            enum role *out_role)
{
    const struct principal *principal = find(principals, public_key);

    if (!principal)
        return NULL;
    *out_role = principal->role;
    return principal->name;
}

static int name_compare(const void *left, const void *right)
{
    return strcmp(*(const char *const *)left, *(const char *const *)right);
}

size_t principals_names(const struct principals *principals, struct arena *arena,
                        const char *const **out)
{
    const char **names = arena_alloc(arena, (principals->count + 1) * sizeof *names);
    size_t count = 0;

    for (size_t i = 0; i < principals->count; i++)
        names[i] = principals->items[i].name;
    qsort(names, principals->count, sizeof *names, name_compare);
    for (size_t i = 0; i < principals->count; i++)
        if (count == 0 || strcmp(names[count - 1], names[i]) != 0)
            names[count++] = names[i];
    *out = names;
    return count;
}

bool principals_has_name(const struct principals *principals, const char *name)
{
    for (size_t i = 0; i < principals->count; i++)
        if (strcmp(principals->items[i].name, name) == 0)
            return true;
    return false;
}

static void persist(const struct principal *principal, uint64_t revoked_us, struct effects *effects)
{
    struct row_principal row = {.public_key = principal->key,
                                .name = principal->name,
                                .role = role_name(principal->role),
                                .enrolled_at = principal->enrolled_us,
                                .revoked_at = revoked_us};

    effects_persist(effects, ROW_TABLE_principal, PERSIST_UPSERT, &row);
}

int principals_enrol(struct principals *principals, const char *name, const char *role_text,
                     const char *public_key, uint64_t wall_us, struct effects *effects,
                     bool *out_changed, struct err *err)
{
    enum role role;

    if (!spec_name_is_valid(name))
        return err_set(err, ERR_INVALID,
                       "'%.100s' is not a name for a principal, expected letters, digits, '.', '_' "
                       "and '-', starting with a letter or digit, at most 100 characters",
                       name);
    if (role_from_name(role_text, &role, err) < 0 || public_key_check(public_key, err) < 0)
        return -1;
    struct principal *principal = find(principals, public_key);
    if (principal && strcmp(principal->name, name) != 0)
        return err_set(err, ERR_EXISTS, "the key is enrolled for '%s', revoke it there first",
                       principal->name);
    if (principal && principal->role == role) {
        *out_changed = false;
        return 0;
    }
    if (!principal)
        principal = put(principals, public_key);
    fill(principal, name, role, wall_us);
    persist(principal, 0, effects);
    *out_changed = true;
    return 0;
}

int principals_revoke(struct principals *principals, const char *name, const char *public_key,
                      uint64_t wall_us, struct effects *effects, size_t *out_count, struct err *err)
{
    size_t count = 0;

    for (size_t i = principals->count; i-- > 0;) {
        const struct principal *principal = &principals->items[i];
        if (strcmp(principal->name, name) != 0 ||
            (*public_key && strcmp(principal->key, public_key) != 0))
            continue;
        persist(principal, wall_us, effects);
        drop(principals, i);
        count++;
    }
    if (count == 0)
        return err_set(err, ERR_NOT_FOUND, "no key of '%.100s'%s is enrolled", name,
                       *public_key ? " with this value" : "");
    *out_count = count;
    return 0;
}

static int read_line(struct principals *principals, char *line, uint64_t wall_us,
                     struct effects *effects, struct err *err)
{
    char *words[4] = {NULL};
    size_t count = 0;
    bool changed;

    line[strcspn(line, "\r")] = 0;
    if (*line == '#') /* only at the start: Z85 has a '#' of its own */
        return 0;
    for (char *save = NULL, *word = strtok_r(line, " \t", &save); word && count < 4;
         word = strtok_r(NULL, " \t", &save))
        words[count++] = word;
    if (count == 0)
        return 0;
    if (count != 3)
        return err_set(err, ERR_INVALID, "expected NAME ROLE KEY");
    return principals_enrol(principals, words[0], words[1], words[2], wall_us, effects, &changed,
                            err);
}

int principals_read_file(struct principals *principals, const char *path, uint64_t wall_us,
                         struct effects *effects, struct err *err)
{
    char *text = NULL;
    size_t length, number = 0;
    int rc = file_read(path, PRINCIPALS_FILE_BYTES_MAX, &text, &length, err);

    for (char *rest = text, *line; rc == 0 && (line = strsep(&rest, "\n"));) {
        number++;
        rc = read_line(principals, line, wall_us, effects, err);
    }
    if (rc < 0 && text)
        err_wrap(err, "%s:%zu", path, number);
    mem_free(text);
    return rc;
}
