/* folder.h - names within an attempt's folder, its lock, and who holds it. See README.md. */
#ifndef ATHANOR_ATTEMPT_FOLDER_H
#define ATHANOR_ATTEMPT_FOLDER_H

#include "common/base/err.h"

#include <sys/types.h>

#define FOLDER_PLAN     "start.json"
#define FOLDER_LOCK     "lock"
#define FOLDER_NOTES    "notes"
#define FOLDER_ACKED    "acked"
#define FOLDER_CONTROL  "control"
#define FOLDER_SPEC     "spec.json"
#define FOLDER_RUN      "run"
#define FOLDER_CODE     "code"
#define FOLDER_COPIES   "copies"
#define FOLDER_LOG      "shepherd.log"

/* A process that cannot be confused with a later one of the same number. */
struct process_id {
    pid_t pid;
    uint64_t start_ticks; /* field 22 of /proc/PID/stat */
};

char *folder_file(const char *folder, const char *name); /* "<folder>/<name>", mem_free */

#define FOLDER_TAG_SIZE 13 /* with its end */
/* Hexadecimal digits that tell the attempts of one daemon from those of others of this machine:
 * of the directory that holds their folders. cgroups and private directories carry it. */
void folder_tag(const char *attempts_dir, char out[FOLDER_TAG_SIZE]);

/* Writes a file whole: readers see all of it or nothing. Not synced: after a power cut no process
 * of the attempt is left to need it. */
int folder_write(const char *folder, const char *name, const char *text,
                 struct err *err) WARN_UNUSED;

/* Takes the lock. The returned descriptor holds it until it and all its copies are closed: pass
 * it to a child and the child holds it. Errors: ERR_EXISTS (another process holds it), ERR_IO. */
int folder_lock(const char *folder, int *out_fd, struct err *err) WARN_UNUSED;

/* What the shepherd notes for whoever sweeps behind it, in one file, because each file costs a
 * short attempt more than its content: "pid start_ticks" lines, the shepherd's own first, then its
 * ranks'; and absolute directories, appended before each is made. */
int folder_note_process(const char *folder, struct process_id process,
                        struct err *err) WARN_UNUSED;
int folder_note_place(const char *folder, const char *path, struct err *err) WARN_UNUSED;
/* Reads the processes; *out is the caller's (mem_free). A missing file is an empty list; lines
 * that cannot be read are skipped, because the job's account may write there. Attempts of versions
 * that had files of their own for shepherd, ranks and places are found as well. */
int folder_processes(const char *folder, struct process_id **out, size_t *out_count,
                     struct err *err) WARN_UNUSED;
/* All notes as text (mem_free); "" when there are none. */
int folder_notes(const char *folder, char **out, struct err *err) WARN_UNUSED;

/* The acknowledged sequence; 0 when none is recorded. Losing it only repeats reports. */
uint64_t folder_acked(const char *folder);
int folder_set_acked(const char *folder, uint64_t seq, struct err *err) WARN_UNUSED;

/* Path of a socket in the folder that fits sun_path whatever the folder's length: it goes through
 * a descriptor of the folder, which the caller closes when the socket is bound or connected. */
char *folder_socket_path(const char *folder, const char *name, int *out_folder_fd, struct err *err);

#endif
