/* record.h - what a finished block reports of itself: the file block-NNNNNN.done beside it.
 *
 * It is written after the block, so a block with a record is whole, and ranks that only count
 * need not read blocks. It says the block's hash, by which the next attempt trusts it, and who
 * made it in which time, which is no part of the dataset.
 *
 *   {"settings": "...", "block": 17, "contexts": 64, "hash": "...", "pool": {"kept": 9, ...},
 *    "texts": ["0123456789abcdef", ...], "rank": 1, "leases": 1, "ms": 5120, "made": 64,
 *    "tokens": 30720, "sample_us": 4800000, "critic_us": 320000, "scored": 5400, "cut": 0}
 *
 * texts are the contexts' own hashes in order; made and what follows are of the contexts that this
 * rank made, without those that another had made already. */
#ifndef ATHANOR_RECORD_H
#define ATHANOR_RECORD_H

#include "common/base/hash.h"
#include "worker/recipes/distillation/impossible/block.h"

struct record {
    uint64_t block, contexts;
    uint64_t count[VERDICT_END];
    uint64_t *texts;          /* (contexts) */
    char hash[HASH_HEX_SIZE]; /* of the block's bytes */
    uint64_t rank, leases;    /* leases: given on it, ours included; 0: an older version's */
    uint64_t ms, made, tokens, sample_us, critic_us, scored, cut;
};
void record_done(struct record *record); /* a zeroed struct is fine */

/* Counts what a block says; `bytes` is the whole of it. Errors: those of block_parse. */
int record_count(const char *bytes, size_t length, const char *settings, uint64_t contexts,
                 struct record *out, struct err *err) WARN_UNUSED;
/* ERR_EXISTS: there is one already. */
int record_write(const char *path, const char *settings, const struct record *record,
                 struct err *err) WARN_UNUSED;
/* ERR_NOT_FOUND: no such file; ERR_STALE: of other settings; ERR_PROTOCOL: damaged. */
int record_read(const char *path, const char *settings, uint64_t block, uint64_t contexts,
                struct record *out, struct err *err) WARN_UNUSED;

#endif
