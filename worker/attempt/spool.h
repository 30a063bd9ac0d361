/* spool.h - the report stream of one attempt on disk, between shepherd and daemon.
 *
 * Segments "spool-<first sequence, 20 digits>" of about SPOOL_SEGMENT_BYTES hold records:
 *   u32 magic "ATHS" | u32 payload_bytes | u64 first_seq | u64 report_count | u8 check[16] |
 *   payload
 * in little endian; payload is a REPORT message as framed by wire.h; check is the start of
 * BLAKE2b-256 over everything else of the record. A record that is short or does not check is
 * "not there yet" while a writer lives, and the torn end of the stream afterwards. */
#ifndef ATHANOR_ATTEMPT_SPOOL_H
#define ATHANOR_ATTEMPT_SPOOL_H

#include "common/wire/wire.h"

#define SPOOL_SEGMENT_BYTES    ((uint64_t)8 << 20)
/* 4 GiB of one attempt on one node that nobody has acknowledged. A report of ten values takes about
 * 340 bytes, so these are 120 million values: two weeks of a hundred a second. */
#define SPOOL_SEGMENTS_MAX     512u
#define SPOOL_RECORD_BYTES_MAX (REPORT_BYTES_MAX + REPORT_TEXT_BYTES_MAX)
#define SPOOL_HEADER_BYTES     40u
/* What a writer keeps in memory while the disk refuses writes; then spool_is_full. */
#define SPOOL_BACKLOG_BYTES_MAX ((size_t)4 << 20)

struct spool_writer {
    char *folder;
    int fd;            /* newest segment; -1: none yet */
    uint64_t next_seq; /* of the next report */
    uint64_t segment_bytes;
    uint64_t segment_first; /* sequence in the segment's name */
    size_t segment_count;   /* when a segment was last begun; the daemon removes old ones */
    size_t segment_max;     /* SPOOL_SEGMENTS_MAX */
    uint64_t attempt_id;
    struct buf backlog;     /* encoded records that are not in the file yet */
    uint64_t backlog_first; /* first sequence of the backlog */
    uint64_t written;       /* reports in the file */
};

/* Opens for appending behind the last whole record; a torn end is cut off. Only one process may
 * do so (README.md, invariant 3). Errors: ERR_IO. */
int spool_open(const char *folder, uint64_t attempt_id, struct spool_writer *out,
               struct err *err) WARN_UNUSED;
void spool_close(struct spool_writer *spool); /* zeroed structs are fine */
/* Appends one record of reports; their seq is filled in here. At most REPORT_ITEMS_MAX reports.
 * The record is kept in memory when the disk refuses it: then -1, and spool_flush tries again.
 * Errors: ERR_LIMIT, ERR_INVALID (not encodable: nothing is kept), ERR_IO (kept). */
int spool_append(struct spool_writer *spool, struct rec_report *reports, size_t count,
                 struct err *err) WARN_UNUSED;
int spool_flush(struct spool_writer *spool, struct err *err) WARN_UNUSED;
int spool_sync(struct spool_writer *spool, struct err *err) WARN_UNUSED; /* flush and fdatasync */
/* The backlog, or what is on disk, has reached its bound: stop taking reports until a flush
 * succeeds, or the coordinator has taken some. What must be said is appended nevertheless. */
bool spool_is_full(struct spool_writer *spool);

struct spool_reader {
    char *folder;
    int fd;            /* current segment; -1: none */
    uint64_t offset;   /* of the next record */
    uint64_t next_seq; /* of the next report to give out */
    uint64_t newest_offset, newest_seq; /* of the record given last; newest_seq 0: none */
    bool is_last_look; /* the segment was removed, and is left when it holds nothing more */
};

/* Starts behind sequence `after`, or at the oldest segment when that is newer. */
int spool_reader_open(const char *folder, uint64_t after, struct spool_reader *out,
                      struct err *err) WARN_UNUSED;
void spool_reader_close(struct spool_reader *reader);
/* The next record's reports, in `arena`; numbers are missing before them when the folder was
 * removed in the meantime and made again. Returns 1, or 0 when no whole record is there, or -1:
 * ERR_IO; ERR_PROTOCOL when a record checks but does not decode or has the wrong sequence. */
int spool_read(struct spool_reader *reader, struct arena *arena, struct rec_report **out,
               size_t *out_count, struct err *err) WARN_UNUSED;

/* Goes back to behind `after` when that lies within the record given last: then without reading
 * anything again but that record. Returns false, and has changed nothing, when it lies before. */
bool spool_reader_back(struct spool_reader *reader, uint64_t after);

/* Parses one record at `bytes`. Returns its length, 0 when it is not whole, -1 as spool_read.
 * Exposed for fuzzing. */
int64_t spool_record_parse(const void *bytes, size_t length, struct arena *arena,
                           struct rec_report **out, size_t *out_count, struct err *err) WARN_UNUSED;

/* Sequence and kind of the newest whole report; 0 and 0 when there is none. Reads the newest
 * segment. */
int spool_last(const char *folder, uint64_t *out_seq, uint64_t *out_kind,
               struct err *err) WARN_UNUSED;

/* Removes segments whose reports are all <= acked; the newest segment stays. */
int spool_drop(const char *folder, uint64_t acked, struct err *err) WARN_UNUSED;
/* Bytes of all segments. */
uint64_t spool_bytes(const char *folder);

/* Whether a file of this name in an attempt's folder belongs to its spool. */
bool spool_is_segment(const char *name);

#endif
