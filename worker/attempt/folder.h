/* folder.h - names within an attempt's folder, its lock, and who holds it. See README.md. */
#ifndef ATHANOR_ATTEMPT_FOLDER_H
#define ATHANOR_ATTEMPT_FOLDER_H

#include "common/base/err.h"

#include <sys/types.h>

#define FOLDER_PLAN     "start.json"
#define FOLDER_LOCK     "lock"
#define FOLDER_SHEPHERD "shepherd"
#define FOLDER_RANKS    "ranks"
#define FOLDER_PLACES   "places"
#define FOLDER_ACKED    "acked"
#define FOLDER_CONTROL  "control"
#define FOLDER_SPEC     "spec.json"
#define FOLDER_RUN      "run"
#define FOLDER_LOG      "shepherd.log"

/* A process that cannot be confused with a later one of the same number. */
struct process_id {
    pid_t pid;
    uint64_t start_ticks; /* field 22 of /proc/PID/stat */
};

char *folder_file(const char *folder, const char *name); /* "<folder>/<name>", mem_free */

/* Writes a file whole: readers see all of it or nothing. Not synced: after a power cut no process
 * of the attempt is left to need it. */
int folder_write(const char *folder, const char *name, const char *text,
                 struct err *err) WARN_UNUSED;

/* Takes the lock. The returned descriptor holds it until it and all its copies are closed: pass
 * it to a child and the child holds it. Errors: ERR_EXISTS (another process holds it), ERR_IO. */
int folder_lock(const char *folder, int *out_fd, struct err *err) WARN_UNUSED;

/* "pid start_ticks" lines, as in `shepherd` and `ranks`. */
int folder_note_process(const char *folder, const char *file, struct process_id process,
                        struct err *err) WARN_UNUSED;
/* Reads them; *out is the caller's (mem_free). A missing file is an empty list; lines that
 * cannot be read are skipped, because the job's account may write there. */
int folder_processes(const char *folder, const char *file, struct process_id **out,
                     size_t *out_count, struct err *err) WARN_UNUSED;

/* Absolute directories to sweep, one line each; appended before each is made. */
int folder_note_place(const char *folder, const char *path, struct err *err) WARN_UNUSED;

/* The acknowledged sequence; 0 when none is recorded. Losing it only repeats reports. */
uint64_t folder_acked(const char *folder);
int folder_set_acked(const char *folder, uint64_t seq, struct err *err) WARN_UNUSED;

/* Path of a socket in the folder that fits sun_path whatever the folder's length: it goes through
 * a descriptor of the folder, which the caller closes when the socket is bound or connected. */
char *folder_socket_path(const char *folder, const char *name, int *out_folder_fd, struct err *err);

#endif
