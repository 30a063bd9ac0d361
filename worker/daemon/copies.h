/* copies.h - checkpoints and datasets that lie on other workers' disks, fetched from there.
 *
 * START names, for each of those that an attempt reads, the workers that have it, the best first;
 * the coordinator has told those (COPY_PERMIT) who may have it and for how long. What is at its
 * path here already is used as it is: workers with a shared file system copy nothing.
 *
 * Fetching (copies_fetch.c) is file by file over the link between the daemons
 * (worker/daemon/gang.h, CURVE): first the index (manifest.json, dataset.json), whose hash is that
 * of the whole, then every file it lists, each hashed as it comes. A source that is away, says
 * nothing or is slow gives its turn to the next and gets another one later; one whose bytes are
 * wrong is asked no more. Files that have come stay, whoever is asked for the rest.
 *
 * What has come is kept (copy_cache.h) for later attempts and for other workers, which the
 * coordinator is told (COPIES). An attempt has links to its copies in its folder, FOLDER_COPIES;
 * as long as they are there, or it waits for its start, its copies stay. */
#ifndef ATHANOR_DAEMON_COPIES_H
#define ATHANOR_DAEMON_COPIES_H

#include "common/net/server.h"
#include "worker/daemon/code.h"
#include "worker/daemon/copy_cache.h"
#include "worker/daemon/copy_index.h"

#define COPY_PIECE_BYTES  ((size_t)1 << 20)  /* of a file, in one message */
#define COPY_WAIT_MS      120000u /* without a byte from any source, before the attempt fails */
#define COPY_TURN_MS      10000u  /* of a source without a byte, while others have not had theirs */
#define COPY_REFUSED_MS   3000u   /* the same, when it refuses or cannot be connected to */
#define COPY_ASK_AGAIN_MS 500u    /* after a refusal: our permit may still be under way */
#define COPY_PERMITS_MAX  4096u   /* one for each START that reads from here */
#define COPY_ANSWERS_MAX  32u     /* requests being read: 32 MiB */

struct copies; /* of a daemon */

int copies_open(struct daemon *daemon, struct err *err) WARN_UNUSED;
void copies_close(struct daemon *daemon);

/* ---- attempts ----------------------------------------------------------------------------- */

/* Whether everything the attempt reads is here, starting what it takes; as code_prepare. ERR_STALE:
 * what the attempt was to resume from is not what was saved. */
enum code_state copies_prepare(struct daemon *daemon, const struct msg_start *start,
                               struct err *err) WARN_UNUSED;
/* START came again: a source that was away may be back, or there are more. */
void copies_again(struct daemon *daemon, const struct msg_start *start);
/* Of a READY one: START with the paths that the copies will have in the attempt's folder. */
int copies_patch(struct daemon *daemon, const struct msg_start *start, struct arena *arena,
                 struct msg_start *out, struct err *err) WARN_UNUSED;
/* Links them into the attempt's folder, as FOLDER_COPIES. */
int copies_take(struct daemon *daemon, uint64_t attempt_id, const char *folder,
                struct err *err) WARN_UNUSED;
void copies_forget(struct daemon *daemon, uint64_t attempt_id);
/* An attempt is gone: what nothing uses any more may be too much. */
void copies_trim(struct daemon *daemon);

/* ---- telling ------------------------------------------------------------------------------ */

/* All that is kept, for WORKER_JOIN. */
struct rec_held_copy *copies_held(struct daemon *daemon, struct arena *arena, size_t *out_count);
/* A REMOVE of a copy: it goes when no attempt uses it, and is answered then. A daemon that ends
 * before is told again. */
void copies_drop(struct daemon *daemon, const struct msg_remove *remove);
/* Sends COPIES when what is kept is not what was told in this session. */
void copies_tell(struct daemon *daemon);

/* ---- fetching (copies_fetch.c) ------------------------------------------------------------- */

struct copy_fetch; /* of one content, for any number of attempts */

/* What brings it here, begun if need be; with the sources of START, which may be new ones. */
struct copy_fetch *copy_fetch_want(struct daemon *daemon, const struct msg_start *start,
                                   const struct hash *content);
struct copy_fetch *copy_fetch_find(const struct daemon *daemon, const struct hash *content);
/* NULL: it goes on. Else why every source has failed: ERR_PROTOCOL when the bytes of all were
 * wrong. */
const struct err *copy_fetch_failure(const struct copy_fetch *fetch);
void copy_fetch_end(struct copy_fetch *fetch); /* and what has come of it */

/* ---- giving (copies_serve.c) -------------------------------------------------------------- */

void copies_permit(struct daemon *daemon, const struct msg_copy_permit *permit);
bool copies_permits(const struct daemon *daemon, const char *public_key); /* anything at all */
/* A request from another daemon: read by a thread, answered when it has. */
void copies_serve(struct daemon *daemon, const struct server_source *from, uint64_t request_seq,
                  const struct msg_copy_get *get);

struct serving;
int serving_open(struct daemon *daemon, struct serving **out, struct err *err) WARN_UNUSED;
void serving_close(struct serving *serving); /* NULL is fine; ends its thread */

struct reading_attempt;
struct copies {
    struct copy_cache *cache; /* STATE/copies */
    struct copy_fetch *fetches;
    struct reading_attempt *attempts; /* that wait for their start */
    struct serving *serving;
    uint64_t told_version; /* of the cache */
    struct copy_drop *drops; /* that wait for attempts */
};

#endif
