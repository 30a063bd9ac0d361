/* logs.h - what ranks print, cut into chunks at line ends.
 *
 * A chunk leaves when it holds LOG_CHUNK_BYTES, or LOG_WAIT_MS after its first byte: then up to
 * the last line end, or all of it when no line has ended for that long (a prompt, a progress
 * bar). Order is kept within a stream. Behind bytes_max of an attempt a note says so once, the rest
 * is read, and of each stream its newest LOG_END_BYTES, where the reason of a failure stands, are
 * emitted by logs_drain behind a note of how much was cut before them. */
#ifndef ATHANOR_SHEPHERD_LOGS_H
#define ATHANOR_SHEPHERD_LOGS_H

#include "common/base/buf.h"
#include "worker/shepherd/poller.h"

#define LOG_CHUNK_BYTES ((size_t)64 << 10) /* REPORT_TEXT_BYTES_MAX */
#define LOG_END_BYTES   ((size_t)16 << 10) /* x 2 streams x 1,024 ranks of a node: 32 MiB */
#define LOG_WAIT_MS     250u
#define LOG_LINE_KEPT   300u /* of the last stderr line, for evidence */

struct logs;

typedef void logs_emit_fn(void *user, unsigned rank, const char *stream, const char *bytes,
                          size_t length);

struct logs *logs_new(struct poller *poller, uint64_t bytes_max, logs_emit_fn *emit, void *user);
void logs_free(struct logs *logs);
/* Takes the descriptor. stream: "stdout" or "stderr". */
void logs_add(struct logs *logs, int fd, unsigned rank, const char *stream);
/* Emits what has waited long enough. Returns ms until the next is due, -1 when nothing waits. */
int logs_tick(struct logs *logs, uint64_t now_ms);
void logs_pause(struct logs *logs, bool paused);
/* Reads all pipes to what is there now and emits everything; last, for a stream that was cut, its
 * end. */
void logs_drain(struct logs *logs);
/* Last line on the rank's stderr that is not empty and not Open MPI's about MPI_Abort; "" when
 * there was none. */
const char *logs_last_error(const struct logs *logs, unsigned rank);
/* Steady time of the rank's newest output; 0: none yet. */
uint64_t logs_newest_ms(const struct logs *logs, unsigned rank);

#endif
