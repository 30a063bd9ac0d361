/* link: worker-attempt */
/* spool_record_fuzz.c - records of a spool: written by us, but on a disk and within the reach of
 * the job's account. Input that does not check is given a right check, so that the payload is
 * reached too. */
#include "worker/attempt/spool.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static void parse(const uint8_t *bytes, size_t length)
{
    struct arena arena = {0};
    struct rec_report *reports;
    struct err err = {0};
    size_t count;
    int64_t used = spool_record_parse(bytes, length, &arena, &reports, &count, &err);
    CHECK(used >= -1 && used <= (int64_t)length);
    for (size_t i = 0; used > 0 && i < count; i++)
        CHECK(reports[i].name && reports[i].meta);
    arena_done(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    uint8_t record[4096] = "ATHS";
    struct hash_stream stream;
    struct hash hash;
    parse(bytes, length);
    if (length > sizeof record - SPOOL_HEADER_BYTES)
        return 0;
    record[4] = (uint8_t)length;
    record[5] = (uint8_t)(length >> 8);
    record[8] = record[16] = 1; /* one report, number 1 */
    memcpy(record + SPOOL_HEADER_BYTES, bytes, length);
    hash_start(&stream);
    hash_add(&stream, record, 24);
    hash_add(&stream, record + SPOOL_HEADER_BYTES, length);
    hash_end(&stream, &hash);
    memcpy(record + 24, hash.bytes, 16);
    parse(record, SPOOL_HEADER_BYTES + length);
    return 0;
}
