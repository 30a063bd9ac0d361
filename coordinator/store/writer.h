/* writer.h - one transaction at a time, without blocking the loop.
 *
 * A batch begins with athanor.batch_begin(holder, epoch, number), which refuses when another
 * coordinator leads, records the batch's number and renews the lease, all in the transaction of
 * the rows. Statements go out in libpq's pipeline mode, COMMIT with them; groups of many new rows
 * go by binary COPY, which cannot be pipelined, between the pipeline and COMMIT.
 *
 * Outcomes:
 *   committed    the batch is durable: release its messages
 *   failed       PostgreSQL refused the rows themselves. Memory has run ahead of the database and
 *                cannot be rolled back: the process ends and starts again from rows
 *   fenced       another coordinator leads: the process ends
 * Anything else is no outcome: when the connection breaks, or the server is out of space or
 * restarting, the writer reconnects (WRITER_BACKOFF_*), reads the lease row, and either finds the
 * batch's number there (it had committed) or sends the same batch again, which the caller keeps
 * until then. */
#ifndef ATHANOR_STORE_WRITER_H
#define ATHANOR_STORE_WRITER_H

#include "coordinator/core/effect.h"
#include "coordinator/store/lease.h"

#define WRITER_BACKOFF_MIN_MS 50u
#define WRITER_BACKOFF_MAX_MS 1000u
#define WRITER_COPY_ROWS_MIN  32u /* from here on a COPY's round trip is cheaper than unnest */

struct writer;

enum writer_outcome { WRITER_PENDING = 1, WRITER_COMMITTED, WRITER_FAILED, WRITER_FENCED };

struct writer_batch {
    const struct effects *effects; /* its rows; NULL: none */
    const char *const *catalogues; /* JSON of recipes to remember (worker/README.md) */
    size_t catalogue_count;
};

/* Begins to connect. lease: as taken; copied. */
struct writer *writer_open(const char *conninfo, const struct lease *lease);
void writer_close(struct writer *writer);

bool writer_is_idle(const struct writer *writer); /* connected, nothing in flight */
bool writer_is_connected(const struct writer *writer);
/* Starts a batch; call writer_step until an outcome. Requires writer_is_idle. The batch is
 * borrowed until the outcome. */
void writer_commit(struct writer *writer, const struct writer_batch *batch, uint64_t now_ms);
/* Goes on as far as possible without blocking. now_ms: steady. err is set for FAILED and FENCED. */
enum writer_outcome writer_step(struct writer *writer, uint64_t now_ms,
                                struct err *err) WARN_UNUSED;

/* What to wait for. fd -1: nothing but the time. It may change with each call of writer_step. */
int writer_fd(const struct writer *writer);
bool writer_wants_write(const struct writer *writer);
uint64_t writer_wake_ms(const struct writer *writer); /* 0: none */
/* When the newest committed batch was sent: it proves that we led then (tenure.h). */
uint64_t writer_sent_ms(const struct writer *writer);
/* Why the newest connection was lost or refused; "" while all is well. */
const char *writer_trouble(const struct writer *writer);

struct writer_stats {
    uint64_t batches, rows, copied_rows, statements, reconnects, resolved, resent;
};
const struct writer_stats *writer_stats(const struct writer *writer);

/* The backend's process id, for tests; 0 while not connected. */
int writer_backend_pid(const struct writer *writer);

#endif
