/* principals.c - a sorted array: keys change rarely, there are some thousands at most, and every
 * received message looks one up. */
#include "coordinator/shell/principals.h"

#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/mem.h"
#include "common/net/keys.h"
#include "common/spec/ref.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PRINCIPALS_FILE_BYTES_MAX ((size_t)4 << 20) /* 20,000 lines of 200 bytes */

/* What a one-time token gives, and to whom it was given. */
struct grant {
    enum role role;
    char *name; /* "": whoever has it chooses */
    uint64_t expires_us, used_us;
    char used_by[KEY_TEXT_SIZE];
};

struct principal {
    char key[KEY_TEXT_SIZE];
    char *name;
    enum role role;
    uint64_t enrolled_us;
    struct grant *grant; /* of tokens only */
};

struct principals {
    struct principal *items; /* by key */
    size_t count, capacity;
};

struct principals *principals_new(void)
{
    return mem_zalloc(sizeof(struct principals));
}

static void principal_clear(struct principal *principal)
{
    if (principal->grant)
        mem_free(principal->grant->name);
    mem_free(principal->grant);
    mem_free(principal->name);
}

void principals_free(struct principals *principals)
{
    if (!principals)
        return;
    for (size_t i = 0; i < principals->count; i++)
        principal_clear(&principals->items[i]);
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
    principal_clear(&principals->items[index]);
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

static void grant_load(struct principal *principal, const struct row_principal *row)
{
    struct grant *grant = mem_zalloc(sizeof *grant);
    struct err err;

    CHECK(role_from_name(row->grants, &grant->role, &err) == 0);
    grant->name = mem_strdup(row->grants_name);
    grant->expires_us = row->expires_at;
    grant->used_us = row->used_at;
    snprintf(grant->used_by, sizeof grant->used_by, "%s", row->used_by);
    principal->grant = grant;
}

void principals_load(struct principals *principals, const struct row_principal *row)
{
    enum role role;
    struct err err;

    /* The table's constraints promise both. */
    CHECK(role_from_name(row->role, &role, &err) == 0);
    CHECK(strlen(row->public_key) == KEY_TEXT_LENGTH);
    struct principal *principal = find(principals, row->public_key);
    if (!principal)
        principal = put(principals, row->public_key);
    fill(principal, row->name, role, row->enrolled_at);
    if (role == ROLE_TOKEN && !principal->grant)
        grant_load(principal, row);
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

    size_t all = 0;

    for (size_t i = 0; i < principals->count; i++)
        if (principals->items[i].role != ROLE_TOKEN)
            names[all++] = principals->items[i].name;
    qsort(names, all, sizeof *names, name_compare);
    for (size_t i = 0; i < all; i++)
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
                                .revoked_at = revoked_us,
                                .grants = "",
                                .grants_name = "",
                                .used_by = ""};

    if (principal->grant) {
        row.grants = role_name(principal->grant->role);
        row.grants_name = principal->grant->name;
        row.expires_at = principal->grant->expires_us;
        row.used_at = principal->grant->used_us;
        row.used_by = principal->grant->used_by;
    }
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
    if (role == ROLE_TOKEN)
        return err_set(err, ERR_INVALID, "a token is not enrolled, 'athanor keys token' makes one");
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

/* A name, and the tokens that would still enrol somebody under it. */
static bool is_meant(const struct principal *principal, const char *name)
{
    const struct grant *grant = principal->grant;

    return strcmp(principal->name, name) == 0 ||
           (grant && !grant->used_us && strcmp(grant->name, name) == 0);
}

int principals_revoke(struct principals *principals, const char *name, const char *public_key,
                      uint64_t wall_us, struct effects *effects, size_t *out_count, struct err *err)
{
    size_t count = 0;

    for (size_t i = principals->count; i-- > 0;) {
        const struct principal *principal = &principals->items[i];
        if (!is_meant(principal, name) ||
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

/* ---- one-time tokens ------------------------------------------------------------------------ */

static bool time_is_over(uint64_t at_us, uint64_t more_ms, uint64_t wall_us)
{
    return at_us + more_ms * 1000 < wall_us;
}

/* Tokens that were used or have expired are still answered for a while, so that their holders hear
 * why; then their rows end. */
static size_t tokens_sweep(struct principals *principals, uint64_t wall_us, struct effects *effects)
{
    size_t left = 0;

    for (size_t i = principals->count; i-- > 0;) {
        const struct principal *principal = &principals->items[i];
        if (!principal->grant)
            continue;
        left++;
        if (!time_is_over(principal->grant->expires_us, TOKEN_REMEMBER_MS, wall_us))
            continue;
        persist(principal, wall_us, effects);
        drop(principals, i);
        left--;
    }
    return left;
}

static int token_check(const struct principals *principals, const struct token_wanted *wanted,
                       enum role *out_role, struct err *err)
{
    if (role_from_name(wanted->role, out_role, err) < 0 ||
        public_key_check(wanted->public_key, err) < 0)
        return -1;
    if (*out_role == ROLE_TOKEN)
        return err_set(err, ERR_INVALID, "a token grants a role of its own, not 'token'");
    if (*wanted->name && !spec_name_is_valid(wanted->name))
        return err_set(err, ERR_INVALID, "'%.100s' is not a name for a principal", wanted->name);
    if (wanted->ttl_ms < TOKEN_TTL_MIN_MS || wanted->ttl_ms > TOKEN_TTL_MAX_MS)
        return err_set(err, ERR_INVALID, "a token lives for 1s to 30d, not for %llu ms",
                       (unsigned long long)wanted->ttl_ms);
    if (find(principals, wanted->public_key))
        return err_set(err, ERR_EXISTS, "this key is enrolled already");
    return 0;
}

int principals_token(struct principals *principals, const struct token_wanted *wanted,
                     uint64_t wall_us, struct effects *effects, char out_name[TOKEN_NAME_SIZE],
                     struct err *err)
{
    struct hash hash;
    char hex[HASH_HEX_SIZE];
    enum role role;

    if (token_check(principals, wanted, &role, err) < 0)
        return -1;
    if (tokens_sweep(principals, wall_us, effects) >= TOKENS_MAX)
        return err_set(err, ERR_LIMIT,
                       "there are %u tokens already: they are forgotten a day after they expire, "
                       "or when they are revoked",
                       TOKENS_MAX);
    hash_bytes(wanted->public_key, KEY_TEXT_LENGTH, &hash);
    hash_to_hex(&hash, hex);
    snprintf(out_name, TOKEN_NAME_SIZE, "token-%.12s", hex);
    struct principal *principal = put(principals, wanted->public_key);
    fill(principal, out_name, ROLE_TOKEN, wall_us);
    principal->grant = mem_zalloc(sizeof *principal->grant);
    principal->grant->role = role;
    principal->grant->name = mem_strdup(wanted->name);
    principal->grant->expires_us = wall_us + wanted->ttl_ms * 1000;
    persist(principal, 0, effects);
    return 0;
}

/* Whether the token may enrol a key now, and under which name. */
static int use_check(const struct principals *principals, const struct principal *token,
                     const struct token_use *use, uint64_t wall_us, const char **out_name,
                     struct err *err)
{
    const struct grant *grant = token->grant;
    const char *name = *grant->name ? grant->name : *use->name ? use->name : use->otherwise;

    if (grant->used_us)
        return err_set(err, ERR_DENIED, "%s was used already, for another key: ask for a new token",
                       token->name);
    if (time_is_over(grant->expires_us, 0, wall_us))
        return err_set(err, ERR_DENIED, "%s has expired: ask for a new token", token->name);
    if (*use->name && strcmp(name, use->name) != 0)
        return err_set(err, ERR_DENIED, "%s enrols '%s' only, not '%.100s'", token->name, name,
                       use->name);
    if (!*name)
        return err_set(err, ERR_INVALID, "%s leaves the name to you: give one with --name",
                       token->name);
    if (!*grant->name && principals_has_name(principals, name))
        return err_set(err, ERR_EXISTS,
                       "the name '%.100s' is taken, and only a token made for it may add a key: "
                       "choose another with --name",
                       name);
    *out_name = name;
    return 0;
}

int principals_use_token(struct principals *principals, const struct token_use *use,
                         uint64_t wall_us, struct effects *effects, const char **out_name,
                         enum role *out_role, struct err *err)
{
    const struct principal *token = find(principals, use->token_key);
    const char *name = NULL;
    bool changed;

    if (!token || !token->grant)
        return err_set(err, ERR_DENIED, "this key is not a token's");
    struct grant *grant = token->grant; /* stays where it is when the array moves */
    if (grant->used_us && strcmp(grant->used_by, use->public_key) == 0) {
        *out_name = principals_find(principals, use->public_key, out_role);
        return *out_name ? 0
                         : err_set(err, ERR_DENIED, "the key that %s enrolled was revoked since",
                                   token->name);
    }
    if (use_check(principals, token, use, wall_us, &name, err) < 0 ||
        principals_enrol(principals, name, role_name(grant->role), use->public_key, wall_us,
                         effects, &changed, err) < 0)
        return -1;
    grant->used_us = wall_us;
    memcpy(grant->used_by, use->public_key, KEY_TEXT_SIZE);
    persist(find(principals, use->token_key), 0, effects);
    *out_name = principals_find(principals, use->public_key, out_role);
    return 0;
}

bool principals_are_workers(const struct principals *principals, const char *name)
{
    for (size_t i = 0; i < principals->count; i++) {
        const struct principal *principal = &principals->items[i];
        if (strcmp(principal->name, name) == 0 && principal->role != ROLE_WORKER)
            return false;
    }
    return true;
}

/* ---- the file of --principals --------------------------------------------------------------- */

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
