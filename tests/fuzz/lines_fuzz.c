/* link: common-net */
/* lines_fuzz.c - the same lines come out however the bytes are cut into pieces. */
#include "common/base/hash.h"
#include "common/net/lines.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

/* Feeds `piece` bytes at a time; returns how many lines came, -1 after an error. */
static int feed(const uint8_t *bytes, size_t length, size_t piece, struct hash *out)
{
    struct lines lines = {.limit_bytes = 64};
    struct hash_stream stream;
    struct err err;
    char *line;
    size_t line_length;
    int count = 0, rc = 0;
    hash_start(&stream);
    for (size_t at = 0; at < length && rc >= 0; at += piece) {
        lines_add(&lines, bytes + at, min_u64(piece, length - at));
        while ((rc = lines_next(&lines, &line, &line_length, &err)) > 0) {
            CHECK(strlen(line) == line_length && line_length <= 64);
            hash_add(&stream, line, line_length + 1);
            count++;
        }
    }
    hash_end(&stream, out);
    lines_done(&lines);
    return rc < 0 ? -1 : count;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct hash whole, pieces;
    int count = feed(bytes, length, length + 1, &whole);
    CHECK(feed(bytes, length, 3, &pieces) == count);
    CHECK(hash_equal(&whole, &pieces));
    return 0;
}
