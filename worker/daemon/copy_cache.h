/* copy_cache.h - whole copies of checkpoints and datasets of other workers, by content.
 *
 * FOLDER/HASH is a copy, HASH that of its index; FOLDER/HASH.json says whose it was, when it came
 * and how large it is, and its time of change is when it was used last. FOLDER/HASH.part is one on
 * its way. A copy counts only with both names, and with every file of its index there, in the size
 * and with the time of change that it was given when it had been hashed: a file that somebody has
 * written to since is found out, and the copy thrown away.
 *
 * Copies beyond the budget go, the least recently used first, but none that is in use; so a copy
 * larger than the budget lives as long as what uses it. */
#ifndef ATHANOR_DAEMON_COPY_CACHE_H
#define ATHANOR_DAEMON_COPY_CACHE_H

#include "common/base/err.h"
#include "common/base/hash.h"

#define COPY_CACHE_MAX 1000u /* copies: told in one message of 1,000 x 200 B = 200 kB */

struct cached_copy {
    struct hash content;
    bool is_dataset;
    uint64_t size_bytes;   /* of all its files */
    uint64_t fetched_us, used_us;
    char source[101];      /* name of the worker that gave the last of it */
    bool doomed;           /* goes when nothing uses it */
};

struct copy_cache;
typedef bool copy_in_use_fn(void *user, const struct hash *content);

/* Takes what an earlier one has left and removes what is not whole. in_use is asked before a copy
 * is removed. Errors: the folder cannot be made or read. */
int copy_cache_open(const char *folder, uint64_t budget_bytes, copy_in_use_fn *in_use, void *user,
                    struct copy_cache **out, struct err *err) WARN_UNUSED;
void copy_cache_close(struct copy_cache *cache); /* copies stay; NULL is fine */

/* All of them, oldest use first; until the next call that changes something. */
const struct cached_copy *copy_cache_list(const struct copy_cache *cache, size_t *out_count);
/* Grows whenever the list has gained or lost a copy. */
uint64_t copy_cache_version(const struct copy_cache *cache);
/* NULL: not here. Marks it as used now. */
const struct cached_copy *copy_cache_find(struct copy_cache *cache, const struct hash *content);
/* The same after a look at every file; one that has changed is removed and not found. */
const struct cached_copy *copy_cache_find_whole(struct copy_cache *cache,
                                                const struct hash *content);
char *copy_cache_path(const struct copy_cache *cache, const struct hash *content); /* mem_free */
char *copy_cache_part(const struct copy_cache *cache, const struct hash *content); /* mem_free */
/* What lies at copy_cache_part is whole and synced: it becomes a copy. */
int copy_cache_keep(struct copy_cache *cache, const struct hash *content, bool is_dataset,
                    const char *source, struct err *err) WARN_UNUSED;
/* Until so many bytes more are within the budget. */
void copy_cache_trim(struct copy_cache *cache, uint64_t more_bytes);
/* True: it is gone or was never here. False: it is in use and goes as soon as it is not. */
bool copy_cache_drop(struct copy_cache *cache, const struct hash *content);

#endif
