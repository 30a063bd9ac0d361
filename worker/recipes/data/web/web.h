/* web.h - the pipelines of web text: from JSON lines to a dataset, over any number of ranks.
 *
 * A block of documents (document.h) is read by one rank, goes through the stages of the job and is
 * written as one file: a line for each document, with its attributes and its verdict. Stages that
 * ask whether something was seen before are asked by all ranks together, a round of blocks at a
 * time, in the order of the corpus (seen.h). What needs all documents at once (near duplicates,
 * repeated passages) follows, then rank 0 gathers what is kept into a dataset.
 *
 * Every decision is a function of the corpus, the parameters and the seed: the files of blocks and
 * the dataset are the same bytes for any number of ranks, and a killed run goes on after its last
 * whole block. README.md states memory and order. */
#ifndef ATHANOR_WEB_H
#define ATHANOR_WEB_H

#include "common/base/hash.h"
#include "worker/recipes/data/prepare.h"
#include "worker/recipes/data/web/blocked.h"
#include "worker/recipes/data/web/c4.h"
#include "worker/recipes/data/web/classifier.h"
#include "worker/recipes/data/web/document.h"
#include "worker/recipes/data/web/gopher.h"
#include "worker/recipes/data/web/pii.h"
#include "worker/recipes/data/web/scorer.h"
#include "worker/recipes/data/web/seen.h"
#include "worker/recipes/data/web/source.h"

enum filter {
#define FILTER(id, name, rule) FILTER_##id,
#define GOPHER(id, name, low, high, low2, high2, text) FILTER_GOPHER_##id,
#define SOURCE(id, name, stage, low, high, text) FILTER_##id,
#include "worker/recipes/data/web/filters.def"
#undef FILTER
#undef GOPHER
#undef SOURCE
    FILTER_END,
};

enum stage {
#define STAGE(id, name, kind, card) STAGE_##id,
#include "worker/recipes/data/web/stages.def"
#undef STAGE
    STAGE_END,
};
enum stage_kind { STAGE_LOCAL = 1, STAGE_SEEN, STAGE_GROUP };
const char *stage_name(enum stage stage);
enum stage web_stage_find(const char *name); /* STAGE_END: none */
enum stage_kind stage_kind(enum stage stage);

#define WEB_INPUTS_MAX 24 /* rows of WEB_INPUTS (params.h) */

/* What is edited in documents that are kept, counted. */
enum edit {
    EDIT_LINES = 0,
    EDIT_PARAGRAPHS,
    EDIT_PASSAGES,
    EDIT_NEAR_PARAGRAPHS,
    EDIT_SCORED,
    EDIT_EMAIL,
    EDIT_PHONE,
    EDIT_IP,
    EDIT_END,
};
const char *edit_name(enum edit edit);

#define WEB_EXCERPT_CHARS 160 /* of a dropped document, in files of blocks and in cards */

/* A document on its way through the stages. */
struct item {
    struct document document; /* zeroed when malformed */
    uint64_t line;            /* of its file */
    char *malformed;          /* why, or why it is no page; NULL */
    enum filter verdict;      /* FILTER_KEPT so far */
    double value;             /* the measure that decided; NAN: none */
    struct spans spans;
    uint64_t edits[EDIT_END];
    struct buf attributes;    /* members of a JSON object */
    size_t language;             /* label of langid, plus 1; 0: not asked yet */
    struct coherent_part *parts; /* documents that it is split into; NULL: it stays whole */
    size_t part_count;
};

void item_done(struct item *item); /* a zeroed struct is fine */

struct coherence;     /* coherence.h */
struct coherent_part;
struct mixing; /* mixing.h */
struct decon;   /* decon.h */
struct trigram; /* trigram.h */
struct language_limits; /* limits.h */

struct web {
    struct run *run;
    struct document_list list;
    enum stage stages[STAGE_END];
    size_t stage_count, local_count; /* the first local_count are not GROUP */
    struct buf off;                  /* names of stages left out for want of an input: JSON items */
    uint64_t rounds;
    char settings[HASH_HEX_SIZE]; /* of everything that a block's outcome depends on */
    char *folder;                 /* of block files */
    /* what stages use */
    struct classifier *classifiers[WEB_INPUTS_MAX]; /* by input; NULL: not asked */
    struct classifier *langid, *toxicity, *quality, *topic; /* of them */
    size_t langid_label, toxicity_label, quality_label;
    struct scorer scorers[SCORERS_MAX];
    size_t scorer_count;
    double topic_keep[CLASSIFIER_LABELS_MAX]; /* by label of topic */
    struct gopher_limits limits; /* where languages have none of their own: limits.h */
    struct language_limits *languages; /* by label of langid, or one; NULL: none */
    size_t language_count;
    bool draws_limits, limits_by_language;
    enum gopher_variant variant;
    unsigned c4_rules;
    struct byte_map naughty;
    bool has_naughty, whole_words; /* whole_words: keys of words, not of bytes */
    struct blocked blocked;
    struct source_limits source_limits;
    struct byte_map forums; /* of forum_lists, in lower case */
    struct hash_stream lists; /* of what block_lists, forum_lists, naughty_words held: settings */
    struct decon *decon;
    struct trigram *trigram;
    struct coherence *coherence;
    struct mixing *mixing;
    struct seen seen[STAGE_END];
    struct bloom_plan bloom;
    bool has_bloom;
    /* reused from document to document */
    struct view view;
    struct features features;
    float p[CLASSIFIER_LABELS_MAX];
    /* what has been done */
    int64_t count[FILTER_END], bytes_read, bytes_kept;
    uint64_t busy_us; /* of this rank's processor in this attempt */
    struct group *group;      /* what the GROUP stages decided; rank 0 (group.h) */
    struct preparation preparation;
};

/* Those of the job's own scorers and of its mix_exclude included; web NULL: of filters.def. */
const char *web_filter_name(const struct web *web, enum filter filter); /* "gopher_words" */
const char *web_filter_rule(const struct web *web, enum filter filter);
enum filter web_filter_find(const struct web *web, const char *name); /* FILTER_END: none */

/* Checks parameters, finds blocks, opens classifiers and references; sets run->step_count. */
int web_open(struct run *run, struct web *web, struct err *err) WARN_UNUSED;
void web_close(struct web *web); /* a zeroed struct is fine */
int web_step(struct web *web, struct err *err) WARN_UNUSED;

/* ---- parts, in the order of a run ---- */

/* Runs a LOCAL stage on a document that is kept so far. */
int stage_run(struct web *web, enum stage stage, struct item *item, struct err *err) WARN_UNUSED;
/* The likeliest label of langid; 0 without it. */
size_t stage_language(struct web *web, struct item *item);
/* Sets web->view to the item's text, if it is not there already. */
void stage_look_at(struct web *web, const struct item *item);
/* The keys of a SEEN stage and the units that they belong to, appended. A paragraph has one key or,
 * with params.dedup_ngram, one for each n-gram of its words (web_key's words) at every
 * dedup_stride-th word; if those are fewer than two, one of the whole. Source: card data-dolma,
 * "N-gram mode"; allenai/dolma's deduper takes the n-gram at the second word too, whatever the
 * stride. */
struct key_list {
    struct key *items;
    size_t count, capacity;
};
/* What is asked of as a whole: a document, or a paragraph by all of its keys. */
struct seen_unit {
    struct item *item;
    size_t begin, end; /* bytes of its text */
    size_t keys;
};
struct seen_units {
    struct seen_unit *items;
    size_t count, capacity;
};
void stage_keys(struct web *web, enum stage stage, struct item *item, struct key_list *out,
                struct seen_units *out_units);
/* Whether a unit came before, of whose keys so many did. */
bool stage_unit_seen(const struct web *web, const struct seen_unit *unit, size_t seen);
/* The key of a text as params.normalise says. */
struct key web_key(const struct web *web, const char *text, size_t length, uint64_t kind);

/* Makes the blocks of a round, unless they are there, and reports. */
int round_run(struct web *web, uint64_t round, struct err *err) WARN_UNUSED;

/* A line of a block file. */
struct block_item {
    char *id, *source, *where;
    char *text; /* edited, when kept; else the beginning of the text */
    size_t length;
    uint64_t bytes; /* of the text as it was read */
    enum filter verdict;
    double value;
    uint64_t edits[EDIT_END];
    struct json_t *attributes; /* an object of jansson's; NULL: none */
};
typedef int (*block_item_visit)(void *argument, size_t block, size_t index,
                                struct block_item *item, struct err *err);
/* Errors: ERR_NOT_FOUND, ERR_STALE (other settings), ERR_PROTOCOL naming file and line. The visitor
 * may take the texts (set NULL). */
int web_block_read(const struct web *web, size_t block, block_item_visit visit, void *argument,
                   struct err *err) WARN_UNUSED;
char *web_block_path(const struct web *web, size_t block, const char *extension); /* mem_free */
/* One line, for web_block_read and fuzzing (web NULL: no scorers). Errors: ERR_PROTOCOL. */
int block_item_parse(const struct web *web, const char *line, size_t length,
                     struct block_item *out, struct err *err) WARN_UNUSED;
void block_item_done(struct block_item *item);


#endif
