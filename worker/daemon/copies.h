/* copies.h - checkpoints and datasets that lie on another worker's disk, fetched from there.
 *
 * START names, for each of those that an attempt reads, the workers that have it; the coordinator
 * has told those (COPY_PERMIT) who may have it and for how long. What is at its path here already
 * is used as it is: workers with a shared file system copy nothing.
 *
 * Fetching is file by file over the link between the daemons (worker/daemon/gang.h, CURVE): first
 * the index (manifest.json, dataset.json), whose hash is that of the whole, then every file it
 * lists, each hashed as it comes.
 * A link that breaks is made again and goes on where it was; a source whose bytes are wrong is left
 * for the next one. The copy is the attempt's own and goes with its folder. */
#ifndef ATHANOR_DAEMON_COPIES_H
#define ATHANOR_DAEMON_COPIES_H

#include "common/net/server.h"
#include "worker/daemon/code.h"

#define COPY_PIECE_BYTES  ((size_t)1 << 20)  /* of a file, in one message */
#define COPY_MANIFEST_MAX ((size_t)16 << 20) /* as the shepherd accepts */
#define COPY_FILES_MAX    100000u
#define COPY_WAIT_MS      120000u /* without a byte from a source, before the next is tried */
#define COPY_ASK_AGAIN_MS 500u    /* after a refusal: our permit may still be under way */
#define COPY_PERMITS_MAX  4096u   /* one for each START that reads from here */
#define COPY_ANSWERS_MAX  32u     /* requests being read: 32 MiB */

struct copies; /* of a daemon */

int copies_open(struct daemon *daemon, struct err *err) WARN_UNUSED;
void copies_close(struct daemon *daemon);

/* ---- fetching ----------------------------------------------------------------------------- */

/* Whether everything the attempt reads is here, starting what it takes; as code_prepare. ERR_STALE:
 * what the attempt was to resume from is not what was saved. */
enum code_state copies_prepare(struct daemon *daemon, const struct msg_start *start,
                               struct err *err) WARN_UNUSED;
/* START came again: a source that was away may be back. */
void copies_again(struct daemon *daemon, const struct msg_start *start);
/* Of a READY one: START with the paths that the copies will have in the attempt's folder. */
int copies_patch(struct daemon *daemon, const struct msg_start *start, struct arena *arena,
                 struct msg_start *out, struct err *err) WARN_UNUSED;
/* Moves them into the attempt's folder, as FOLDER_COPIES. */
int copies_take(struct daemon *daemon, uint64_t attempt_id, const char *folder,
                struct err *err) WARN_UNUSED;
void copies_forget(struct daemon *daemon, uint64_t attempt_id);

/* ---- giving (copies_serve.c) -------------------------------------------------------------- */

void copies_permit(struct daemon *daemon, const struct msg_copy_permit *permit);
bool copies_permits(const struct daemon *daemon, const char *public_key); /* anything at all */
/* A request from another daemon: read by a thread, answered when it has. */
void copies_serve(struct daemon *daemon, const struct server_source *from, uint64_t request_seq,
                  const struct msg_copy_get *get);
/* A plain relative path: what a manifest may name. */
bool copy_name_is_inside(const char *name);

struct serving;
int serving_open(struct daemon *daemon, struct serving **out, struct err *err) WARN_UNUSED;
void serving_close(struct serving *serving); /* NULL is fine; ends its thread */

struct fetching;
struct copies {
    char *folder; /* STATE/copies */
    struct fetching *fetching;
    struct serving *serving;
};

#endif
