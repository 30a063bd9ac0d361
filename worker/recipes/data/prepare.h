/* prepare.h - what the data recipes share: documents, parts, tokenizer, dataset, baselines.
 *
 * A recipe's first step gathers documents and says which part each belongs to; the other
 * three are the same for all: train or read the tokenizer, write the parts, measure the
 * baselines and publish. Only rank 0 works; the others keep in step.
 *
 * A deterministic share of the documents is held out before anything is trained: whether a
 * document is in is a function of (seed, its text) alone. Held-out documents are never in
 * `train`, so `valid` measures generalisation and NAME_holdout (the held-out documents of a
 * named part) are the non-members that membership inference needs. */
#ifndef ATHANOR_PREPARE_H
#define ATHANOR_PREPARE_H

#include "common/base/arena.h"
#include "worker/engine/data/dataset_write.h"
#include "worker/recipes/recipe.h"

#define PREPARE_STEPS 4

struct prepared_part {
    char *name;
    uint64_t *indices;
    size_t count, capacity;
};

struct preparation {
    struct arena arena; /* texts of documents */
    struct dataset_document *documents;
    size_t count, capacity;
    struct prepared_part parts[DATASET_PARTS_MAX];
    size_t part_count;
    uint64_t bytes;
    struct tokenizer *tokenizer;
    struct dataset_writer *writer;
    char *folder; /* of the dataset, final */
    char *card;   /* further members of the dataset's card, '"name": value, ...'; NULL: none */
};

/* The parameters that every data recipe has, for its table. */
#define PREPARE_PARAMS \
    {"name", PARAM_STRING, "", 0, 0, NULL, \
     "name of the dataset; empty: the job's name"}, \
    {"holdout_share", PARAM_FLOAT, "0.1", 0, 0.9, NULL, \
     "share of the documents that is never trained on: the part valid, and NAME_holdout"}, \
    {"seed", PARAM_INT, "1337", 0, 9e15, NULL, "chooses which documents are held out"}, \
    {"tokenizer", PARAM_STRING, "", 0, 0, NULL, \
     "tokenizer.json, or a folder with one, to use instead of training one"}, \
    {"vocab_size", PARAM_INT, "2048", 257, TOKENIZER_VOCAB_MAX, NULL, \
     "ids of the byte-level BPE that is trained on the part train, <|endoftext|> included"}, \
    {"pattern", PARAM_CHOICE, "gpt2", 0, 0, "gpt2|cl100k|digits", \
     "how its texts are cut before merging: as GPT-2 does; as Llama 3 does (numbers by three); " \
     "gpt2 with every digit alone"}, \
    {"max_piece_bytes", PARAM_INT, "512", 16, 65536, NULL, \
     "longer pieces, as of texts without white space, are split when it is trained"}, \
    {"train_bytes", PARAM_INT, "2000000000", 100000, 1e15, NULL, \
     "it is trained on about so much: documents chosen by a hash of their text"}, \
    {"min_frequency", PARAM_INT, "2", 1, 1e12, NULL, \
     "the rarest pair of tokens that is still merged"}, \
    {"special_tokens", PARAM_LIST, "", 0, 0, NULL, \
     "tokens without a text of their own that the tokenizer gets, such as [MASK]"}, \
    {"sentinels", PARAM_INT, "0", 0, 1000, NULL, \
     "how many tokens <extra_id_0>, <extra_id_1>, ... it gets, for span_corruption"}, \
    {"shard_tokens", PARAM_INT, "100000000", 10000, 1099511627776.0, NULL, \
     "tokens after which a new shard file is begun"}

/* Copies id and text; bytes that are not UTF-8 become U+FFFD. Returns the document's number. */
uint64_t preparation_add(struct preparation *preparation, const char *id, const char *text,
                         size_t length);
bool preparation_is_held_out(const struct run *run, const char *text, size_t length);
/* Appends the document to a part, which is made when it is new. ERR_LIMIT: too many parts. */
int preparation_join(struct preparation *preparation, const char *part, uint64_t document,
                     struct err *err) WARN_UNUSED;
/* The same for "PART" or "PART_holdout", whichever the document belongs to. */
int preparation_join_split(struct preparation *preparation, const char *part, bool held_out,
                           uint64_t document, struct err *err) WARN_UNUSED;
const struct prepared_part *preparation_part(const struct preparation *preparation,
                                             const char *name); /* NULL: none */

/* Steps 2, 3 and 4: `number` is run->step + 1. */
int preparation_step(struct run *run, struct preparation *preparation, uint64_t number,
                     struct err *err) WARN_UNUSED;
void preparation_done(struct preparation *preparation);

#endif
