/* link: engine-data */
/* pieces_fuzz.c - pieces cover any bytes, and merging by scan and by heap agrees. */
#include "worker/engine/data/bpe.h"
#include "worker/engine/data/pieces.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

/* The first bytes make rules, so that the fuzzer chooses them too. */
static void make_rules(const uint8_t *bytes, size_t length, struct merge_table *table)
{
    for (size_t i = 0; i + 1 < length && i < 32; i += 2) {
        uint32_t id = 256 + (uint32_t)table->count;
        merge_table_add(table, (struct merge){bytes[i] % 4 ? bytes[i] : id - 1, bytes[i + 1], id});
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct merge_table table = {0};
    make_rules(bytes, length, &table);
    for (size_t at = 0; at < length;) {
        size_t piece = piece_next((const char *)bytes + at, length - at);
        CHECK(piece >= 1 && piece <= length - at);
        if (piece <= BPE_SCAN_MAX) {
            uint32_t scan[BPE_SCAN_MAX], heap[BPE_SCAN_MAX];
            for (size_t i = 0; i < piece; i++)
                scan[i] = heap[i] = bytes[at + i];
            size_t count = bpe_merge_scan(&table, scan, piece);
            CHECK(bpe_merge_heap(&table, heap, piece) == count);
            CHECK(memcmp(scan, heap, count * sizeof *scan) == 0);
        }
        at += piece;
    }
    for (enum piece_pattern pattern = 0; pattern < PIECES_END; pattern++)
        for (size_t at = 0, piece; at < length; at += piece) {
            piece = piece_next_of(pattern, (const char *)bytes + at, length - at);
            CHECK(piece >= 1 && piece <= length - at);
        }
    merge_table_done(&table);
    return 0;
}
