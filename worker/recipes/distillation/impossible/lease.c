/* lease.c - see lease.h. */
#include "worker/recipes/distillation/impossible/lease.h"

#include "common/base/file.h"
#include "common/base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LEASE_BYTES_MAX 4096

static char *lease_path(const struct lease_rules *rules, uint64_t block, unsigned turn)
{
    return mem_printf("%s/block-%06llu.lease-%u", rules->folder, (unsigned long long)block, turn);
}

uint64_t lease_limit_ms(const struct lease_rules *rules, uint64_t given_ms)
{
    uint64_t known = max_u64(given_ms, LEASE_MARGIN * rules->longest_ms);

    if (rules->given_ms)
        return rules->given_ms;
    return known ? max_u64(known, LEASE_LEAST_MS) : UINT64_MAX;
}

static int lease_read(const struct lease_rules *rules, uint64_t block, unsigned turn,
                      struct lease_seen *out, struct err *err)
{
    char *path = lease_path(rules, block, turn), *text = NULL;
    size_t length;
    int rc = file_read(path, LEASE_BYTES_MAX, &text, &length, err);

    if (rc == 0) {
        json_t *root = json_loadb(text, length, 0, NULL);
        const json_t *rank = json_object_get(root, "rank"), *ms = json_object_get(root, "ms");
        if (!json_is_integer(rank) || !json_is_integer(ms) || json_integer_value(rank) < 0 ||
            json_integer_value(ms) < 0)
            rc = err_set(err, ERR_PROTOCOL, "lease '%s' is damaged", path);
        out->turn = turn;
        out->rank = (unsigned)json_integer_value(rank);
        out->given_ms = (uint64_t)json_integer_value(ms);
        json_decref(root);
    }
    mem_free(text);
    mem_free(path);
    return rc;
}

/* The leases after the one that was seen last. */
static int look(const struct lease_rules *rules, uint64_t block, uint64_t now_ms,
                struct lease_seen *seen, struct err *err)
{
    for (;;) {
        struct lease_seen next = {.since_ms = now_ms};
        if (lease_read(rules, block, seen->turn + 1, &next, err) < 0) {
            if (err->kind != ERR_NOT_FOUND)
                return -1;
            err_clear(err);
            return 0;
        }
        *seen = next;
    }
}

int lease_take(const struct lease_rules *rules, uint64_t block, uint64_t now_ms,
               struct lease_seen *seen, bool *out_taken, struct err *err)
{
    struct lease_seen own = {.rank = rules->rank, .since_ms = now_ms,
                             .given_ms = LEASE_MARGIN * rules->own_ms};
    char text[96];

    *out_taken = false;
    if (look(rules, block, now_ms, seen, err) < 0)
        return -1;
    if (seen->turn && now_ms - seen->since_ms < lease_limit_ms(rules, seen->given_ms))
        return 0;
    own.turn = seen->turn + 1;
    char *path = lease_path(rules, block, own.turn);
    int length = snprintf(text, sizeof text, "{\"rank\": %u, \"ms\": %llu}\n", own.rank,
                          (unsigned long long)own.given_ms);
    int rc = file_create(path, text, (size_t)length, 0644, err);
    mem_free(path);
    if (rc == 0) {
        *seen = own;
        *out_taken = true;
    } else if (err->kind == ERR_EXISTS) { /* another was faster; its file is read next time */
        err_clear(err);
        rc = 0;
    }
    return rc;
}

/* Parts of blocks are what versions had whose ranks made each block together. */
static bool is_swept(const char *name)
{
    return strncmp(name, "block-", 6) == 0 &&
           (strstr(name, ".lease-") || strstr(name, ".jsonl.part-"));
}

int lease_sweep(const char *folder, struct err *err)
{
    DIR *dir = opendir(folder);
    int rc = 0;

    if (!dir)
        return err_errno(err, "open folder '%s'", folder);
    for (struct dirent *entry; rc == 0 && (entry = readdir(dir));)
        if (is_swept(entry->d_name) &&
            unlinkat(dirfd(dir), entry->d_name, 0) < 0 && errno != ENOENT)
            rc = err_errno(err, "remove '%s/%s'", folder, entry->d_name);
    closedir(dir);
    return rc;
}
