/* code.h - the code that jobs run: fetched once, kept by hash, unpacked for each attempt.
 *
 * STATE/code holds archives named by their hash. An attempt gets a tree of its own, unpacked from
 * the archive and checked against its hash while that is read: a job that changes its tree, or an
 * archive that went bad on the disk, harms nobody else. Fetching goes chunk by chunk beside
 * everything else; unpacking is done by threads, so that heartbeats never wait for a disk. */
#ifndef ATHANOR_DAEMON_CODE_H
#define ATHANOR_DAEMON_CODE_H

#include "common/base/err.h"
#include "common/wire/wire.h"

struct daemon;
struct code; /* of a daemon */

#define CODE_THREADS_MAX  2u /* --code-cache is by default 2 GiB, 32 archives of the largest size */
#define CODE_ASK_AGAIN_MS 15000u

enum code_state {
    CODE_NONE = 1, /* the job has no code */
    CODE_READY,    /* code_take gives it to the attempt */
    CODE_WAIT,     /* being fetched or unpacked; pending_wake comes when it has changed */
    CODE_FAILED,
};

/* Makes the folders, removes trees of an earlier life. */
int code_open(struct daemon *daemon, struct err *err) WARN_UNUSED;
void code_close(struct daemon *daemon); /* waits for its threads */

/* Whether the attempt's code is there, starting what it takes. err: of CODE_FAILED. */
enum code_state code_prepare(struct daemon *daemon, const struct msg_start *start,
                             struct err *err) WARN_UNUSED;
/* Moves the tree of a READY one into the attempt's folder, as FOLDER_CODE. */
int code_take(struct daemon *daemon, uint64_t attempt_id, const char *folder,
              struct err *err) WARN_UNUSED;
/* The attempt will not be started. */
void code_forget(struct daemon *daemon, uint64_t attempt_id);

void code_on_chunk(struct daemon *daemon, const struct msg_code_chunk *chunk);
/* True when it was the answer to a question of ours. */
bool code_on_refused(struct daemon *daemon, const struct msg_refused *refused);
void code_on_up(struct daemon *daemon); /* joined: asks again */
void code_tick(struct daemon *daemon);

#endif
