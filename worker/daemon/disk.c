/* disk.c - a disk without room for what attempts have to say; see daemon.h.
 *
 * Shepherds and the daemon wait for room rather than lose an end. Whoever can make room has to hear
 * of it: the node counts as unhealthy while anybody waits, and gets nothing new. */
#include "common/base/log.h"
#include "common/base/mem.h"
#include "worker/daemon/daemon.h"

#include <inttypes.h>
#include <sys/statvfs.h>

#define DISK_FULL_BYTES ((uint64_t)256 << 10) /* a plan, a spec and the shepherd's log */

static char *full_text(const char *folder, uint64_t wanted_bytes)
{
    struct statvfs disk;
    if (statvfs(folder, &disk) < 0)
        return mem_strdup("");
    uint64_t bytes = (uint64_t)disk.f_bavail * disk.f_frsize;
    bool no_files = disk.f_files > 0 && disk.f_favail == 0;
    if (bytes >= wanted_bytes && !no_files)
        return mem_strdup("");
    return mem_printf("'%s' has %" PRIu64 " bytes and %" PRIu64 " files left", folder, bytes,
                      (uint64_t)disk.f_favail);
}

char *disk_full_text(const char *folder)
{
    return full_text(folder, DISK_FULL_BYTES);
}

/* As long as it is full, twice as much has to be free: each time that it becomes full counts. */
void disk_tick(struct daemon *daemon)
{
    bool first = !daemon->disk_text, was_full = !first && daemon->disk_text[0];
    char *full = full_text(daemon->attempts_dir, was_full ? 2 * DISK_FULL_BYTES : DISK_FULL_BYTES);
    bool is_full = full[0] && (was_full || daemon->attempt_count > 0);
    if (first || is_full != was_full) {
        mem_free(daemon->disk_text);
        daemon->disk_text =
            is_full ? mem_printf("disk full: %s; what %zu attempt%s here %s to say waits for room",
                                 full, daemon->attempt_count, daemon->attempt_count == 1 ? "" : "s",
                                 daemon->attempt_count == 1 ? "has" : "have")
                    : mem_strdup("");
        if (was_full)
            log_info("the disk has room again");
        /* What an earlier daemon may have said of attempts that we found is ours to take back. */
        if (is_full || was_full || (daemon->found_attempts && !daemon->health))
            health_tell(daemon);
    }
    mem_free(full);
}
