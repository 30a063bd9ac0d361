/* pairs_build.h - a dataset of pairs while it is put together: what pairs_build.c gathers and
 * pairs_card.c tells of it. */
#ifndef ATHANOR_PAIRS_BUILD_H
#define ATHANOR_PAIRS_BUILD_H

#include "common/base/arena.h"
#include "worker/engine/data/dataset_write.h"
#include "worker/recipes/distillation/impossible/pairs.h"

#include <jansson.h>

#define CARD_KEPT    10 /* examples of pairs that were kept   */
#define CARD_DROPPED 3  /* and of each reason to drop one     */
#define CARD_LENGTHS 17 /* contexts of 0 .. 15 sentences, and of more */
/* A card travels as one line of the report socket, of at most 64 KiB: 17 lengths x 13 counts of at
 * most 30 bytes are 7 KiB, 13 reasons of 110 bytes and the rest 5 KiB. So examples may have 24 KiB
 * as JSON: 10 kept ones and 3 of each of 10 reasons, 600 bytes each. What was said before them may
 * have 20 KiB, 500 bytes each. What has no room is left out. */
#define CARD_BYTES      ((size_t)24 << 10)
#define CARD_TEXT_BYTES ((size_t)20 << 10)

struct build {
    struct pairs *pairs;
    struct arena arena;
    struct dataset_document *documents;
    size_t count, capacity;
    uint64_t *train, *valid;
    size_t train_count, valid_count;
    struct byte_map seen;
    struct pairs_sum sum;
    uint64_t duplicates;
    struct {
        uint64_t contexts, count[VERDICT_END];
    } length[CARD_LENGTHS];
    struct buf export; /* pairs.jsonl */
    json_t *kept_samples, *dropped_samples;
    json_t *texts; /* of the examples' contexts, by number */
    unsigned dropped[VERDICT_END];
    size_t card_bytes, text_bytes; /* of examples; of texts */
};

/* The card as JSON (mem_free): {"pairs": {...}}. placed: also where the blocks lie, which is no
 * part of the dataset itself. */
char *pairs_card(const struct build *build, bool placed);

#endif
