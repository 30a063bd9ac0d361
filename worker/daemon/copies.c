/* copies.c - what attempts read that was made elsewhere; see copies.h. */
#include "worker/daemon/copies.h"

#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "worker/attempt/folder.h"
#include "worker/daemon/daemon.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct want {
    struct want *next;
    struct hash content;
};

struct copy_drop {
    struct copy_drop *next;
    uint64_t removal_id;
    struct hash content;
};

struct reading_attempt { /* that has not been given its copies yet */
    struct reading_attempt *next;
    uint64_t attempt_id;
    struct want *wants; /* what is not at its path */
};

static struct reading_attempt *attempt_reading(const struct daemon *daemon, uint64_t attempt_id)
{
    struct reading_attempt *reading = daemon->copies->attempts;
    while (reading && reading->attempt_id != attempt_id)
        reading = reading->next;
    return reading;
}

static bool reads(const struct reading_attempt *reading, const struct hash *content)
{
    for (const struct want *want = reading->wants; want; want = want->next)
        if (hash_equal(&want->content, content))
            return true;
    return false;
}

/* ---- who uses what --------------------------------------------------------------------------- */

static bool is_waited_for(const struct daemon *daemon, const struct hash *content)
{
    for (const struct reading_attempt *at = daemon->copies->attempts; at; at = at->next)
        if (reads(at, content))
            return true;
    return false;
}

static char *link_path(const char *folder, const struct hash *content)
{
    char hex[HASH_HEX_SIZE];
    hash_to_hex(content, hex);
    return mem_printf("%s/" FOLDER_COPIES "/%s", folder, hex);
}

/* The links are all there is to know, so a daemon that starts again knows it as well. */
static bool is_used(void *user, const struct hash *content)
{
    const struct daemon *daemon = user;
    bool used = is_waited_for(daemon, content);
    for (const struct attempt *attempt = daemon->attempts; attempt && !used;
         attempt = attempt->next) {
        struct stat info;
        char *path = link_path(attempt->folder, content);
        used = lstat(path, &info) == 0;
        mem_free(path);
    }
    return used;
}

/* The list without it first, so that nobody is sent here for it. */
static void drops_answer(struct daemon *daemon)
{
    for (struct copy_drop **at = &daemon->copies->drops; *at;) {
        struct copy_drop *drop = *at;
        if (!copy_cache_drop(daemon->copies->cache, &drop->content)) {
            at = &drop->next;
            continue;
        }
        copies_tell(daemon);
        removed_send(daemon, drop->removal_id, "");
        *at = drop->next;
        mem_free(drop);
    }
}

void copies_drop(struct daemon *daemon, const struct msg_remove *remove)
{
    struct copy_drop *drop = daemon->copies->drops;
    while (drop && drop->removal_id != remove->removal_id)
        drop = drop->next;
    if (!drop) {
        drop = mem_zalloc(sizeof *drop);
        *drop = (struct copy_drop){.next = daemon->copies->drops,
                                   .removal_id = remove->removal_id,
                                   .content = remove->content};
        daemon->copies->drops = drop;
    }
    drops_answer(daemon);
}

void copies_trim(struct daemon *daemon)
{
    if (!daemon->copies || !daemon->copies->cache)
        return;
    copy_cache_trim(daemon->copies->cache, 0);
    copies_tell(daemon);
    drops_answer(daemon);
}

/* ---- telling --------------------------------------------------------------------------------- */

struct rec_held_copy *copies_held(struct daemon *daemon, struct arena *arena, size_t *out_count)
{
    struct copies *copies = daemon->copies;
    const struct cached_copy *list = copy_cache_list(copies->cache, out_count);
    struct rec_held_copy *held = arena_alloc(arena, (*out_count + 1) * sizeof *held);
    for (size_t i = 0; i < *out_count; i++)
        held[i] = (struct rec_held_copy){.content = list[i].content,
                                         .size_bytes = list[i].size_bytes,
                                         .fetched_us = list[i].fetched_us,
                                         .is_dataset = list[i].is_dataset,
                                         .source = list[i].source};
    copies->told_version = copy_cache_version(copies->cache);
    return held;
}

/* Between a join and its answer the list waits for the answer. */
void copies_tell(struct daemon *daemon)
{
    struct copies *copies = daemon->copies;
    struct message message = {.tag = MSG_COPIES};
    struct arena arena = {0};
    struct err err;
    if (!daemon->worker_id || copies->told_version == copy_cache_version(copies->cache))
        return;
    message.u.copies = (struct msg_copies){.worker_id = daemon->worker_id,
                                           .incarnation = daemon->incarnation};
    message.u.copies.copies = copies_held(daemon, &arena, &message.u.copies.copies_count);
    if (peer_send(daemon->peer, &message, NULL, &err) < 0) {
        log_warn("%s is not sent: %s", msg_name(message.tag), err.text);
        copies->told_version = UINT64_MAX; /* with the next tick */
    }
    arena_done(&arena);
}

/* ---- attempts -------------------------------------------------------------------------------- */

/* Another one may lie at the same path: an earlier attempt of the job saved that step here. */
static bool is_here(const char *path, const struct hash *content)
{
    struct hash found;
    struct err err;
    bool here = false;
    for (int is_dataset = 0; is_dataset <= 1 && !here; is_dataset++) {
        char *file = mem_printf("%s/%s", path, copy_index_name(is_dataset));
        here = hash_file(file, &found, &err) == 0 && hash_equal(&found, content);
        mem_free(file);
    }
    return here;
}

static bool has_source(const struct msg_start *start, const struct hash *content)
{
    for (size_t i = 0; i < start->sources_count; i++)
        if (hash_equal(&start->sources[i].content, content))
            return true;
    return false;
}

/* With neither copy nor source there is only its path, and the start finds out. */
static void want_add(struct daemon *daemon, struct reading_attempt *reading,
                     const struct msg_start *start, const struct hash *content, const char *path)
{
    struct copy_cache *cache = daemon->copies->cache;
    if (hash_is_zero(content) || reads(reading, content) ||
        (!has_source(start, content) && !copy_cache_find(cache, content)) ||
        is_here(path, content))
        return;
    if (!copy_cache_find_whole(cache, content) && !has_source(start, content))
        return;
    struct want *want = mem_zalloc(sizeof *want);
    *want = (struct want){.next = reading->wants, .content = *content};
    reading->wants = want;
}

static struct reading_attempt *reading_new(struct daemon *daemon, const struct msg_start *start)
{
    struct reading_attempt *reading = mem_zalloc(sizeof *reading);
    reading->attempt_id = start->attempt_id;
    reading->next = daemon->copies->attempts;
    daemon->copies->attempts = reading;
    want_add(daemon, reading, start, &start->resume_content, start->resume_path);
    for (size_t i = 0; i < start->inputs_count; i++)
        want_add(daemon, reading, start, &start->inputs[i].content, start->inputs[i].path);
    return reading;
}

/* What is still on its way for nobody else is not waited for. */
static void reading_free(struct daemon *daemon, struct reading_attempt *gone)
{
    struct reading_attempt **at = &daemon->copies->attempts;
    while (*at != gone)
        at = &(*at)->next;
    *at = gone->next;
    for (struct want *want = gone->wants, *next; want; want = next) {
        next = want->next;
        struct copy_fetch *fetch = copy_fetch_find(daemon, &want->content);
        if (fetch && !is_waited_for(daemon, &want->content))
            copy_fetch_end(fetch);
        mem_free(want);
    }
    mem_free(gone);
}

enum code_state copies_prepare(struct daemon *daemon, const struct msg_start *start,
                               struct err *err)
{
    struct reading_attempt *reading = attempt_reading(daemon, start->attempt_id);
    enum code_state state = CODE_READY;
    if (!reading)
        reading = reading_new(daemon, start);
    for (const struct want *want = reading->wants; want; want = want->next) {
        if (copy_cache_find(daemon->copies->cache, &want->content))
            continue;
        struct copy_fetch *fetch = copy_fetch_want(daemon, start, &want->content);
        const struct err *failure = copy_fetch_failure(fetch);
        if (failure) {
            /* Wrong bytes where the newest checkpoint should be: the one before may be whole. */
            bool stale = failure->kind == ERR_PROTOCOL &&
                         hash_equal(&want->content, &start->resume_content);
            err_set(err, stale ? ERR_STALE : failure->kind, "%s", failure->text);
            reading_free(daemon, reading);
            return CODE_FAILED;
        }
        state = CODE_WAIT;
    }
    if (!reading->wants) {
        reading_free(daemon, reading);
        return CODE_NONE;
    }
    return state;
}

void copies_again(struct daemon *daemon, const struct msg_start *start)
{
    const struct reading_attempt *reading = attempt_reading(daemon, start->attempt_id);
    for (const struct want *want = reading ? reading->wants : NULL; want; want = want->next)
        if (copy_fetch_find(daemon, &want->content))
            copy_fetch_want(daemon, start, &want->content);
}

static const char *patched(const struct daemon *daemon, const struct reading_attempt *reading,
                           const struct hash *content, const char *path, struct arena *arena)
{
    if (!reads(reading, content))
        return path;
    char hex[HASH_HEX_SIZE];
    hash_to_hex(content, hex);
    return arena_printf(arena, "%s/%" PRIu64 "/" FOLDER_COPIES "/%s", daemon->attempts_dir,
                        reading->attempt_id, hex);
}

int copies_patch(struct daemon *daemon, const struct msg_start *start, struct arena *arena,
                 struct msg_start *out, struct err *err)
{
    const struct reading_attempt *reading = attempt_reading(daemon, start->attempt_id);
    if (start_copy(start, arena, out, err) < 0)
        return -1;
    if (!reading)
        return 0;
    out->resume_path = patched(daemon, reading, &out->resume_content, out->resume_path, arena);
    for (size_t i = 0; i < out->inputs_count; i++)
        out->inputs[i].path =
            patched(daemon, reading, &out->inputs[i].content, out->inputs[i].path, arena);
    return 0;
}

static int want_link(struct daemon *daemon, const struct want *want, const char *folder,
                     struct err *err)
{
    char *from = link_path(folder, &want->content);
    char *to = copy_cache_path(daemon->copies->cache, &want->content);
    int rc = symlink(to, from) < 0 ? err_errno(err, "put a copy at '%s'", from) : 0;
    mem_free(from);
    mem_free(to);
    return rc;
}

int copies_take(struct daemon *daemon, uint64_t attempt_id, const char *folder, struct err *err)
{
    struct reading_attempt *reading = attempt_reading(daemon, attempt_id);
    int rc = 0;
    if (!reading)
        return 0;
    char *links = folder_file(folder, FOLDER_COPIES);
    rc = mkdir(links, 0755) < 0 ? err_errno(err, "make '%s'", links) : 0;
    mem_free(links);
    for (const struct want *want = reading->wants; rc == 0 && want; want = want->next)
        rc = want_link(daemon, want, folder, err);
    reading_free(daemon, reading);
    return rc;
}

void copies_forget(struct daemon *daemon, uint64_t attempt_id)
{
    struct reading_attempt *reading = attempt_reading(daemon, attempt_id);
    if (reading)
        reading_free(daemon, reading);
}

/* ---- open and close ----------------------------------------------------------------------- */

int copies_open(struct daemon *daemon, struct err *err)
{
    struct copies *copies = daemon->copies = mem_zalloc(sizeof *copies);
    char *folder = folder_file(daemon->options->state, "copies");
    int rc = copy_cache_open(folder, daemon->options->copy_cache_bytes, is_used, daemon,
                             &copies->cache, err);
    mem_free(folder);
    copies_trim(daemon); /* --copy-cache may be less than it was */
    return rc < 0 ? -1 : serving_open(daemon, &copies->serving, err);
}

void copies_close(struct daemon *daemon)
{
    struct copies *copies = daemon->copies;
    if (!copies)
        return;
    while (copies->attempts)
        reading_free(daemon, copies->attempts);
    serving_close(copies->serving);
    for (struct copy_drop *drop = copies->drops, *next; drop; drop = next) {
        next = drop->next;
        mem_free(drop);
    }
    copy_cache_close(copies->cache);
    mem_free(copies);
    daemon->copies = NULL;
}
