/* spool.c - see spool.h. */
#include "worker/attempt/spool.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "worker/attempt/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC        0x53485441u /* "ATHS" */
#define CHECK_BYTES  16u
#define CHECK_OFFSET 24u /* magic, length, first_seq, count */

/* ---- segments -------------------------------------------------------------------------------- */

static char *segment_path(const char *folder, uint64_t first)
{
    return mem_printf("%s/spool-%020" PRIu64, folder, first);
}

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static bool segment_parse(const char *name, uint64_t *out_first)
{
    int used = 0;
    return strncmp(name, "spool-", 6) == 0 &&
           sscanf(name, "spool-%20" SCNu64 "%n", out_first, &used) == 1 && used == 26 &&
           !name[used];
}

bool spool_is_segment(const char *name)
{
    uint64_t first;
    return segment_parse(name, &first);
}

static bool is_unlinked(int fd)
{
    struct stat info;
    return fstat(fd, &info) == 0 && info.st_nlink == 0;
}

/* First sequences of all segments, ascending (mem_free). */
static int segments_list(const char *folder, uint64_t **out, size_t *out_count, struct err *err)
{
    DIR *dir = opendir(folder);
    if (!dir)
        return err_errno(err, "open folder '%s'", folder);
    uint64_t *list = NULL;
    size_t count = 0, capacity = 0;
    for (struct dirent *entry; (entry = readdir(dir));) {
        uint64_t first;
        if (!segment_parse(entry->d_name, &first))
            continue;
        VEC_RESERVE(list, count, capacity);
        list[count++] = first;
    }
    closedir(dir);
    if (count)
        qsort(list, count, sizeof *list, compare_u64);
    *out = list;
    *out_count = count;
    return 0;
}

/* ---- records --------------------------------------------------------------------------------- */

static void put_le(unsigned char *at, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        at[i] = (unsigned char)(value >> (8 * i));
}

static uint64_t get_le(const unsigned char *at, unsigned bytes)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

static void record_check(const unsigned char *record, size_t payload_bytes,
                         unsigned char out[CHECK_BYTES])
{
    struct hash_stream stream;
    struct hash hash;
    hash_start(&stream);
    hash_add(&stream, record, CHECK_OFFSET);
    hash_add(&stream, record + SPOOL_HEADER_BYTES, payload_bytes);
    hash_end(&stream, &hash);
    memcpy(out, hash.bytes, CHECK_BYTES);
}

/* Appends a record to `out`; nothing is added on failure. */
static int record_encode(uint64_t attempt_id, struct rec_report *reports, size_t count,
                         struct buf *out, struct err *err)
{
    size_t start = out->length;
    struct message message = {.tag = MSG_REPORT};
    message.u.report = (struct msg_report){.attempt_id = attempt_id,
                                           .node = 0,
                                           .reports = reports,
                                           .reports_count = count};
    struct envelope envelope = {.seq = 1};
    unsigned char header[SPOOL_HEADER_BYTES] = {0};
    buf_add(out, header, sizeof header);
    if (wire_encode(&envelope, &message, out, err) < 0) {
        out->length = start;
        return -1;
    }
    size_t payload = out->length - start - SPOOL_HEADER_BYTES;
    if (payload > SPOOL_RECORD_BYTES_MAX) {
        out->length = start;
        return err_set(err, ERR_LIMIT, "%zu reports take %zu bytes, at most %zu fit a record",
                       count, payload, (size_t)SPOOL_RECORD_BYTES_MAX);
    }
    unsigned char *record = (unsigned char *)out->bytes + start;
    put_le(record, MAGIC, 4);
    put_le(record + 4, payload, 4);
    put_le(record + 8, reports[0].seq, 8);
    put_le(record + 16, count, 8);
    record_check(record, payload, record + CHECK_OFFSET);
    return 0;
}

/* Length of the whole, checked record at `bytes`, or 0. */
static size_t record_whole(const unsigned char *bytes, size_t length)
{
    if (length < SPOOL_HEADER_BYTES || get_le(bytes, 4) != MAGIC)
        return 0;
    size_t payload = (size_t)get_le(bytes + 4, 4);
    if (payload > SPOOL_RECORD_BYTES_MAX || length - SPOOL_HEADER_BYTES < payload)
        return 0;
    unsigned char check[CHECK_BYTES];
    record_check(bytes, payload, check);
    return memcmp(check, bytes + CHECK_OFFSET, CHECK_BYTES) == 0 ? SPOOL_HEADER_BYTES + payload : 0;
}

int64_t spool_record_parse(const void *bytes, size_t length, struct arena *arena,
                           struct rec_report **out, size_t *out_count, struct err *err)
{
    size_t whole = record_whole(bytes, length);
    if (!whole)
        return 0;
    const unsigned char *record = bytes;
    struct envelope envelope;
    struct message message;
    if (wire_decode(record + SPOOL_HEADER_BYTES, whole - SPOOL_HEADER_BYTES, arena, &envelope,
                    &message, err) < 0)
        return err_wrap(err, "spool record");
    if (message.tag != MSG_REPORT)
        return err_set(err, ERR_PROTOCOL, "spool record holds '%s', not reports",
                       msg_name(message.tag));
    struct msg_report *report = &message.u.report;
    uint64_t first = get_le(record + 8, 8);
    if (report->reports_count == 0 || report->reports_count != get_le(record + 16, 8))
        return err_set(err, ERR_PROTOCOL, "spool record's count does not match its reports");
    for (size_t i = 0; i < report->reports_count; i++)
        if (report->reports[i].seq != first + i)
            return err_set(err, ERR_PROTOCOL, "spool record's sequence has a gap at %" PRIu64,
                           first + i);
    *out = report->reports;
    *out_count = report->reports_count;
    return (int64_t)whole;
}

/* ---- writing --------------------------------------------------------------------------------- */

/* Where the last whole record of a segment ends, and the sequence behind it. */
static int segment_end(int fd, uint64_t first, uint64_t *out_bytes, uint64_t *out_next,
                       struct err *err)
{
    unsigned char *record = mem_alloc(SPOOL_HEADER_BYTES + SPOOL_RECORD_BYTES_MAX);
    uint64_t offset = 0, next = first;
    int rc = 0;
    for (;;) {
        ssize_t got = pread(fd, record, SPOOL_HEADER_BYTES + SPOOL_RECORD_BYTES_MAX, (off_t)offset);
        if (got < 0) {
            rc = err_errno(err, "read spool");
            break;
        }
        size_t at = 0, whole;
        while ((whole = record_whole(record + at, (size_t)got - at)) &&
               get_le(record + at + 8, 8) == next) {
            next += get_le(record + at + 16, 8);
            at += whole;
        }
        if (at == 0)
            break;
        offset += at;
    }
    mem_free(record);
    if (rc == 0) {
        *out_bytes = offset;
        *out_next = next;
    }
    return rc;
}

/* A folder that cannot be listed cannot be written either: then the backlog is the bound. */
static void segments_count(struct spool_writer *spool)
{
    uint64_t *list = NULL;
    struct err err;
    if (segments_list(spool->folder, &list, &spool->segment_count, &err) < 0)
        spool->segment_count = 0;
    mem_free(list);
}

static int segment_open(struct spool_writer *spool, uint64_t first, int flags, struct err *err)
{
    char *path = segment_path(spool->folder, first);
    const int how = O_RDWR | O_APPEND | O_CLOEXEC | O_NOFOLLOW | flags;
    int fd = open(path, how, 0600);
    if (fd < 0 && errno == ENOENT && (flags & O_CREAT) && mkdir(spool->folder, 0700) == 0)
        fd = open(path, how, 0600); /* the folder was removed under us */
    int rc = fd < 0 ? err_errno(err, "open spool '%s'", path) : 0;
    mem_free(path);
    if (rc < 0)
        return -1;
    if (spool->fd >= 0)
        close(spool->fd);
    spool->fd = fd;
    spool->segment_first = first;
    spool->segment_bytes = 0;
    segments_count(spool);
    return 0;
}

static int writer_resume(struct spool_writer *spool, uint64_t first, struct err *err)
{
    uint64_t bytes = 0, next = first;
    if (segment_open(spool, first, 0, err) < 0 ||
        segment_end(spool->fd, first, &bytes, &next, err) < 0)
        return -1;
    if (ftruncate(spool->fd, (off_t)bytes) < 0)
        return err_errno(err, "cut the torn end of spool segment %" PRIu64, first);
    spool->segment_bytes = bytes;
    spool->next_seq = next;
    spool->written = next - 1;
    return 0;
}

/* After a power cut the spool may be older than what the coordinator has made durable. New
 * reports must not reuse those numbers, or they would be taken for repeats. */
static void writer_pass_acked(struct spool_writer *spool)
{
    uint64_t acked = folder_acked(spool->folder);
    if (acked < spool->next_seq)
        return;
    spool->next_seq = acked + 1;
    spool->written = acked;
    spool->segment_bytes = SPOOL_SEGMENT_BYTES; /* start a segment of its own */
}

int spool_open(const char *folder, uint64_t attempt_id, struct spool_writer *out, struct err *err)
{
    struct spool_writer spool = {.folder = mem_strdup(folder),
                                 .fd = -1,
                                 .next_seq = 1,
                                 .segment_max = SPOOL_SEGMENTS_MAX,
                                 .attempt_id = attempt_id};
    uint64_t *segments = NULL;
    size_t count = 0;
    int rc = segments_list(folder, &segments, &count, err);
    if (rc == 0 && count > 0)
        rc = writer_resume(&spool, segments[count - 1], err);
    mem_free(segments);
    if (rc < 0) {
        spool_close(&spool);
        return -1;
    }
    writer_pass_acked(&spool);
    *out = spool;
    return 0;
}

void spool_close(struct spool_writer *spool)
{
    if (spool->folder && spool->fd >= 0)
        close(spool->fd);
    mem_free(spool->folder);
    buf_done(&spool->backlog);
    memset(spool, 0, sizeof *spool);
}

/* A job can remove our folder. What comes then goes to a new segment of a new folder: an end that
 * nobody can read would leave the job running for ever. */
int spool_flush(struct spool_writer *spool, struct err *err)
{
    if (spool->backlog.length == 0)
        return 0;
    if ((spool->fd < 0 || spool->segment_bytes >= SPOOL_SEGMENT_BYTES || is_unlinked(spool->fd)) &&
        segment_open(spool, spool->backlog_first, O_CREAT, err) < 0)
        return -1;
    if (file_write_all(spool->fd, spool->backlog.bytes, spool->backlog.length, err) < 0) {
        /* Half a record may be in the file: readers take it for one that is not there yet. */
        if (ftruncate(spool->fd, (off_t)spool->segment_bytes) < 0)
            return err_errno(err, "take back a short write to the spool");
        return -1;
    }
    spool->segment_bytes += spool->backlog.length;
    spool->written = spool->next_seq - 1;
    buf_clear(&spool->backlog);
    return 0;
}

int spool_append(struct spool_writer *spool, struct rec_report *reports, size_t count,
                 struct err *err)
{
    if (count == 0 || count > REPORT_ITEMS_MAX)
        return err_set(err, ERR_LIMIT, "%zu reports in a record, expected 1 to %u", count,
                       REPORT_ITEMS_MAX);
    for (size_t i = 0; i < count; i++)
        reports[i].seq = spool->next_seq + i;
    bool first = spool->backlog.length == 0;
    if (record_encode(spool->attempt_id, reports, count, &spool->backlog, err) < 0)
        return -1;
    if (first)
        spool->backlog_first = spool->next_seq;
    spool->next_seq += count;
    return spool_flush(spool, err);
}

int spool_sync(struct spool_writer *spool, struct err *err)
{
    if (spool_flush(spool, err) < 0)
        return -1;
    if (spool->fd >= 0 && fdatasync(spool->fd) < 0)
        return err_errno(err, "fdatasync spool");
    return 0;
}

bool spool_is_full(struct spool_writer *spool)
{
    if (spool->segment_count >= spool->segment_max) /* old ones may be gone by now */
        segments_count(spool);
    return spool->backlog.length >= SPOOL_BACKLOG_BYTES_MAX ||
           spool->segment_count > spool->segment_max ||
           (spool->segment_count == spool->segment_max &&
            spool->segment_bytes >= SPOOL_SEGMENT_BYTES);
}

/* ---- reading --------------------------------------------------------------------------------- */

static int reader_segment(struct spool_reader *reader, uint64_t first, struct err *err)
{
    char *path = segment_path(reader->folder, first);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    int rc = fd < 0 ? err_errno(err, "open spool '%s'", path) : 0;
    mem_free(path);
    if (rc < 0)
        return -1;
    if (reader->fd >= 0)
        close(reader->fd);
    reader->fd = fd;
    reader->offset = reader->newest_seq = 0;
    reader->is_last_look = false;
    return 0;
}

/* Opens the segment that holds next_seq, when one is there. */
static int reader_seek(struct spool_reader *reader, struct err *err)
{
    uint64_t *segments;
    size_t count;
    if (segments_list(reader->folder, &segments, &count, err) < 0)
        return -1;
    int rc = 0;
    if (count > 0) {
        size_t at = 0;
        while (at + 1 < count && segments[at + 1] <= reader->next_seq)
            at++;
        if (segments[at] > reader->next_seq)
            reader->next_seq = segments[at];
        rc = reader_segment(reader, segments[at], err);
    }
    mem_free(segments);
    return rc;
}

int spool_reader_open(const char *folder, uint64_t after, struct spool_reader *out, struct err *err)
{
    struct spool_reader reader = {.folder = mem_strdup(folder), .fd = -1, .next_seq = after + 1};
    if (reader_seek(&reader, err) < 0) {
        spool_reader_close(&reader);
        return -1;
    }
    *out = reader;
    return 0;
}

void spool_reader_close(struct spool_reader *reader)
{
    if (reader->folder && reader->fd >= 0)
        close(reader->fd);
    mem_free(reader->folder);
    memset(reader, 0, sizeof *reader);
}

/* The folder was removed under the reader. Once a new one has segments nothing more comes to the
 * old: what is in it now is read, then the stream goes on in the new one, with a gap if need be. */
static int reader_leave(struct spool_reader *reader, struct err *err)
{
    uint64_t *segments;
    size_t count;
    struct err missing; /* nobody has made it again yet */
    if (segments_list(reader->folder, &segments, &count, &missing) < 0)
        return 0;
    mem_free(segments);
    if (count == 0)
        return 0;
    if (reader->is_last_look)
        return reader_seek(reader, err) < 0 ? -1 : 1;
    reader->is_last_look = true;
    return 1;
}

/* Returns 1 when the stream goes on, as in a segment named after the next sequence. */
static int reader_advance(struct spool_reader *reader, struct err *err)
{
    char *path = segment_path(reader->folder, reader->next_seq);
    bool there = reader->offset > 0 && file_exists(path);
    mem_free(path);
    if (there)
        return reader_segment(reader, reader->next_seq, err) < 0 ? -1 : 1;
    return is_unlinked(reader->fd) ? reader_leave(reader, err) : 0;
}

/* Reads the record at the reader's offset into `record` (malloc'ed by the caller). */
static ssize_t record_load(struct spool_reader *reader, struct buf *record, struct err *err)
{
    unsigned char header[SPOOL_HEADER_BYTES];
    ssize_t got = pread(reader->fd, header, sizeof header, (off_t)reader->offset);
    if (got < 0)
        return err_errno(err, "read spool");
    if (got < (ssize_t)sizeof header || get_le(header, 4) != MAGIC)
        return 0;
    size_t payload = (size_t)get_le(header + 4, 4);
    if (payload > SPOOL_RECORD_BYTES_MAX)
        return 0;
    buf_add(record, header, sizeof header);
    char chunk[65536];
    for (size_t at = 0; at < payload; at += (size_t)got) {
        got = pread(reader->fd, chunk, min_u64(sizeof chunk, payload - at),
                    (off_t)(reader->offset + sizeof header + at));
        if (got < 0)
            return err_errno(err, "read spool");
        if (got == 0)
            return 0;
        buf_add(record, chunk, (size_t)got);
    }
    return (ssize_t)record->length;
}

/* Drops reports before next_seq: those acknowledged before the reader was opened. */
static void skip_known(uint64_t next_seq, struct rec_report **reports, size_t *count)
{
    while (*count > 0 && (*reports)->seq < next_seq) {
        ++*reports;
        --*count;
    }
}

static int read_one(struct spool_reader *reader, struct arena *arena, struct rec_report **out,
                    size_t *out_count, struct err *err)
{
    struct buf record = {0};
    int64_t used = record_load(reader, &record, err);
    if (used > 0)
        used = spool_record_parse(record.bytes, record.length, arena, out, out_count, err);
    buf_done(&record);
    if (used <= 0)
        return (int)used;
    struct rec_report *last = *out + *out_count - 1;
    if ((*out)->seq > reader->next_seq)
        return err_set(err, ERR_PROTOCOL, "spool jumps from sequence %" PRIu64 " to %" PRIu64,
                       reader->next_seq - 1, (*out)->seq);
    reader->newest_offset = reader->offset;
    reader->newest_seq = (*out)->seq;
    reader->offset += (uint64_t)used;
    uint64_t behind = last->seq + 1;
    skip_known(reader->next_seq, out, out_count);
    reader->next_seq = max_u64(reader->next_seq, behind);
    return 1;
}

int spool_read(struct spool_reader *reader, struct arena *arena, struct rec_report **out,
               size_t *out_count, struct err *err)
{
    if (reader->fd < 0 && reader_seek(reader, err) < 0)
        return -1;
    if (reader->fd < 0)
        return 0;
    for (;;) {
        int rc = read_one(reader, arena, out, out_count, err);
        if (rc == 0)
            rc = reader_advance(reader, err);
        else if (rc > 0 && *out_count > 0)
            return 1;
        if (rc <= 0)
            return rc;
    }
}

bool spool_reader_back(struct spool_reader *reader, uint64_t after)
{
    if (after + 1 == reader->next_seq)
        return true;
    if (!reader->newest_seq || after + 1 < reader->newest_seq || after >= reader->next_seq)
        return false;
    reader->offset = reader->newest_offset;
    reader->next_seq = after + 1;
    return true;
}

int spool_last(const char *folder, uint64_t *out_seq, uint64_t *out_kind, struct err *err)
{
    uint64_t *segments, seq = 0, kind = 0;
    size_t segment_count, count;
    struct spool_reader reader;
    struct arena arena = {0};
    struct rec_report *reports;
    if (segments_list(folder, &segments, &segment_count, err) < 0)
        return -1;
    uint64_t newest = segment_count ? segments[segment_count - 1] : 1;
    mem_free(segments);
    if (spool_reader_open(folder, newest - 1, &reader, err) < 0)
        return -1;
    int rc;
    while ((rc = spool_read(&reader, &arena, &reports, &count, err)) > 0) {
        seq = reports[count - 1].seq;
        kind = reports[count - 1].kind;
        arena_reset(&arena);
    }
    arena_done(&arena);
    spool_reader_close(&reader);
    if (rc < 0)
        return -1;
    *out_seq = seq;
    *out_kind = kind;
    return 0;
}

int spool_drop(const char *folder, uint64_t acked, struct err *err)
{
    uint64_t *segments;
    size_t count;
    if (segments_list(folder, &segments, &count, err) < 0)
        return -1;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i + 1 < count && segments[i + 1] <= acked + 1; i++) {
        char *path = segment_path(folder, segments[i]);
        if (unlink(path) < 0 && errno != ENOENT)
            rc = err_errno(err, "remove '%s'", path);
        mem_free(path);
    }
    mem_free(segments);
    return rc;
}

uint64_t spool_bytes(const char *folder)
{
    uint64_t *segments = NULL, sum = 0;
    size_t count = 0;
    struct err err = {0};
    if (segments_list(folder, &segments, &count, &err) < 0)
        return 0;
    for (size_t i = 0; i < count; i++) {
        char *path = segment_path(folder, segments[i]);
        struct stat info;
        if (stat(path, &info) == 0)
            sum += (uint64_t)info.st_size;
        mem_free(path);
    }
    mem_free(segments);
    return sum;
}
