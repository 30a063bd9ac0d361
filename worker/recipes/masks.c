/* masks.c - see masks.h. */
#include "worker/recipes/masks.h"

#include "common/base/mem.h"
#include "common/base/rng.h"
#include "worker/engine/comm.h"
#include "worker/engine/data/metaspace.h"
#include "worker/engine/encoder.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TRAIN_STREAM 0x6d61736b00u /* "mask" */
#define VALID_STREAM 0x6d61736b01u
#define VALID_ROWS   16 /* of a validation block */

/* What is known of a token. */
enum {
    KIND_SPECIAL = 1,   /* never chosen, never drawn                                */
    KIND_CONTINUES = 2, /* belongs to the word before                               */
    KIND_LETTERS = 4,   /* begins with a letter: continues what ends with one       */
    KIND_OPEN = 8,      /* ends with a letter                                       */
};

/* -- the vocabulary ------------------------------------------------------------------------- */

static bool is_letter(unsigned char c)
{
    return c >= 0x80 || isalnum(c) || c == '\'';
}

/* Words of byte-level tokens: runs of letters, digits and bytes beyond ASCII. WordPiece and
 * models with marks for spaces say it themselves. */
static uint8_t kind_of(enum tokenizer_kind kind, const char *text, size_t length)
{
    if (length == 0)
        return KIND_SPECIAL;
    if (kind == TOKENIZER_WORDPIECE)
        return length > 2 && text[0] == '#' && text[1] == '#' ? KIND_CONTINUES : 0;
    if (kind == TOKENIZER_UNIGRAM || kind == TOKENIZER_CHARBPE)
        return metaspace_begins(text, length) ? 0 : KIND_CONTINUES;
    return (uint8_t)((is_letter((unsigned char)text[0]) ? KIND_LETTERS : 0) |
                     (is_letter((unsigned char)text[length - 1]) ? KIND_OPEN : 0));
}

static void note_special(struct masks *masks, const struct tokenizer *tokenizer, const char *text)
{
    uint32_t id = tokenizer_find(tokenizer, text, strlen(text));

    if (id < tokenizer_vocab_size(tokenizer))
        masks->kind[id] = KIND_SPECIAL;
}

static void read_vocabulary(struct masks *masks, const struct tokenizer *tokenizer)
{
    static const char *const specials[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]",
                                           "<pad>", "<unk>", "<s>", "</s>", "<mask>",
                                           TOKENIZER_END_OF_TEXT};
    uint32_t V = tokenizer_vocab_size(tokenizer);
    char sentinel[32];

    for (uint32_t id = 0; id < V; id++) {
        size_t length;
        const char *text = tokenizer_token(tokenizer, id, &length);

        masks->kind[id] = kind_of(tokenizer_kind(tokenizer), text, length);
    }
    for (size_t i = 0; i < ARRAY_COUNT(specials); i++)
        note_special(masks, tokenizer, specials[i]);
    if (tokenizer_begin_of_text(tokenizer) < V)
        masks->kind[tokenizer_begin_of_text(tokenizer)] = KIND_SPECIAL;
    if (tokenizer_end_of_text(tokenizer) < V)
        masks->kind[tokenizer_end_of_text(tokenizer)] = KIND_SPECIAL;
    for (int i = 0;; i++) {
        snprintf(sentinel, sizeof sentinel, "<extra_id_%d>", i);
        if (tokenizer_find(tokenizer, sentinel, strlen(sentinel)) >= V)
            break;
        note_special(masks, tokenizer, sentinel);
    }
    for (uint32_t id = 0; id < V; id++)
        if (masks->kind[id] != KIND_SPECIAL)
            masks->ordinary[masks->ordinary_count++] = (int32_t)id;
}

static int find_mask(struct masks *masks, const struct corpus *corpus, struct err *err)
{
    const struct tokenizer *tokenizer = dataset_tokenizer(corpus->dataset);
    uint32_t V = tokenizer_vocab_size(tokenizer);
    uint32_t id = tokenizer_find(tokenizer, "[MASK]", 6);

    if (id >= V)
        id = tokenizer_find(tokenizer, "<mask>", 6);
    if (id >= V)
        return err_set(err, ERR_INVALID, "the tokenizer of '%s' has no token [MASK] or <mask>: "
                       "prepare the dataset with special_tokens: [\"[MASK]\"]",
                       dataset_path(corpus->dataset));
    masks->mask_token = (int32_t)id;
    return 0;
}

int masks_init(const struct run *run, const struct corpus *corpus, int64_t cells, uint64_t seed,
               struct masks *out, struct err *err)
{
    size_t V = dataset_vocab_size(corpus->dataset), room = (size_t)cells;

    *out = (struct masks){.share = run_float(run, "mask_share"),
                          .replace = run_float(run, "mask_replace"),
                          .random = run_float(run, "mask_random"),
                          .whole_words = run_bool(run, "whole_words"),
                          .seed = seed};
    if (out->replace + out->random > 1)
        return err_set(err, ERR_INVALID, "parameters 'mask_replace' (%g) and 'mask_random' (%g) "
                       "are shares of the same tokens: their sum must be at most 1",
                       out->replace, out->random);
    if (find_mask(out, corpus, err) < 0)
        return -1;
    out->kind = malloc(V);
    out->ordinary = malloc(V * sizeof *out->ordinary);
    out->last = malloc(room * sizeof *out->last);
    out->row = malloc(room * sizeof *out->row);
    out->truth = malloc(room * sizeof *out->truth);
    out->sequence = malloc(2 * room * sizeof *out->sequence);
    out->group = malloc((room + 1) * sizeof *out->group);
    out->position = malloc(room * sizeof *out->position);
    if (!out->kind || !out->ordinary || !out->last || !out->row || !out->truth ||
        !out->sequence || !out->group || !out->position)
        return err_set(err, ERR_MEMORY, "cannot allocate masks of %zu tokens", room);
    read_vocabulary(out, dataset_tokenizer(corpus->dataset));
    return 0;
}

void masks_done(struct masks *masks)
{
    free(masks->kind);
    free(masks->ordinary);
    free(masks->last);
    free(masks->row);
    free(masks->truth);
    free(masks->sequence);
    free(masks->group);
    free(masks->position);
    memset(masks, 0, sizeof *masks);
}

/* -- one sequence --------------------------------------------------------------------------- */

static bool is_special(const struct masks *masks, int32_t token)
{
    return masks->kind[token] == KIND_SPECIAL;
}

static bool continues(const struct masks *masks, int32_t before, int32_t token)
{
    uint8_t kind = masks->kind[token];

    if (is_special(masks, before))
        return false;
    return (kind & KIND_CONTINUES) || ((kind & KIND_LETTERS) && (masks->kind[before] & KIND_OPEN));
}

/* Where the choosable groups of a sequence begin, as cells; group[n] is one past the last's.
 * A group ends at the next special token or the next group. */
static int64_t find_groups(struct masks *masks, const int32_t *token, int64_t count)
{
    int64_t groups = 0;

    for (int64_t i = 0; i < count; i++) {
        if (is_special(masks, token[i]))
            continue;
        if (i > 0 && masks->whole_words && continues(masks, token[i - 1], token[i]))
            continue;
        masks->group[groups++] = (int32_t)i;
    }
    return groups;
}

static int64_t group_end(const struct masks *masks, const int32_t *token, int64_t count,
                         int64_t begin)
{
    int64_t end = begin + 1;

    while (masks->whole_words && end < count && !is_special(masks, token[end]) &&
           continues(masks, token[end - 1], token[end]))
        end++;
    return end;
}

static int32_t replacement(const struct masks *masks, int32_t token, struct rng *rng)
{
    double u = rng_unit(rng);

    if (u < masks->replace)
        return masks->mask_token;
    if (u < masks->replace + masks->random && masks->ordinary_count > 0)
        return masks->ordinary[rng_below(rng, (uint64_t)masks->ordinary_count)];
    return token;
}

/* Notes what the chosen cells of a group hold; they are hidden when all groups are chosen, so
 * that words keep their ends. */
static void choose(struct masks *masks, int64_t start, const int32_t *token, int64_t begin,
                   int64_t end)
{
    for (int64_t i = begin; i < end; i++) {
        masks->row[masks->count] = (int32_t)(start + i);
        masks->truth[masks->count++] = token[i];
    }
}

/* token: the sequence's cells, which are cells start .. of the pass. */
static void mask_sequence(struct masks *masks, int32_t *token, int64_t start, int64_t count,
                          uint64_t stream, uint64_t position)
{
    int64_t groups = find_groups(masks, token, count), first = masks->count;
    int64_t wanted = (int64_t)floor(masks->share * (double)count + 0.5);
    struct rng rng;

    rng_init(&rng, rng_at(masks->seed, stream, position));
    wanted = wanted < 1 ? 1 : wanted;
    for (int64_t i = groups - 1; i > 0; i--) {
        int64_t j = (int64_t)rng_below(&rng, (uint64_t)i + 1);
        int32_t held = masks->group[i];

        masks->group[i] = masks->group[j];
        masks->group[j] = held;
    }
    for (int64_t g = 0; g < groups && masks->count - first < wanted; g++) {
        int64_t begin = masks->group[g], end = group_end(masks, token, count, begin);

        if (masks->count - first + end - begin <= wanted)
            choose(masks, start, token, begin, end);
    }
    for (int64_t i = first; i < masks->count; i++)
        token[masks->row[i] - start] = replacement(masks, masks->truth[i], &rng);
}

/* -- passes --------------------------------------------------------------------------------- */

static void see_sequence(struct masks *masks, int64_t start, int64_t count)
{
    int64_t end = start % masks->T + count - 1;

    for (int64_t i = 0; i < count; i++)
        masks->last[start + i] = (int32_t)end;
    masks->sequence[2 * masks->sequence_count] = (int32_t)start;
    masks->sequence[2 * masks->sequence_count++ + 1] = (int32_t)count;
}

static void begin_pass(struct masks *masks, int64_t B, int64_t T)
{
    masks->B = B;
    masks->T = T;
    masks->count = 0;
    masks->sequence_count = 0;
    for (int64_t n = 0; n < B * T; n++) /* padding sees itself alone */
        masks->last[n] = (int32_t)(n % T);
}

void masks_pack(struct masks *masks, struct pack *pack, uint64_t stream,
                const uint64_t *positions)
{
    begin_pass(masks, pack->rows, pack->T);
    for (int64_t i = 0; i < pack->span_count; i++) {
        const struct pack_span *span = &pack->span[i];

        mask_sequence(masks, pack->token + span->start, span->start, span->count, stream,
                      positions[i]);
        see_sequence(masks, span->start, span->count);
    }
    masks->batch = pack_batch(pack);
    masks->batch.last = masks->last;
}

/* Tokens of a window that are not padding; what follows them sees the text, but nothing sees it. */
static int64_t window_length(const struct batch *batch, int64_t row)
{
    int64_t count = batch->T;

    while (count > 0 && batch->target[row * batch->T + count - 1] < 0)
        count--;
    return count;
}

static void mask_windows(struct masks *masks, struct batch *batch, uint64_t first)
{
    begin_pass(masks, batch->B, batch->T);
    for (int64_t row = 0; row < batch->B; row++) {
        int64_t count = window_length(batch, row);

        if (count == 0)
            continue;
        mask_sequence(masks, batch->token + row * batch->T, row * batch->T, count, TRAIN_STREAM,
                      first + (uint64_t)row);
        see_sequence(masks, row * batch->T, count);
    }
    masks->batch = (struct model_batch){.B = batch->B, .T = batch->T, .token = batch->token,
                                        .last = masks->last};
}

void masks_fill(struct masks *masks, struct rows *rows, int64_t pass)
{
    uint64_t first;
    int64_t count;

    rows_fill(rows, pass);
    trainer_share(rows->trainer, pass, &first, &count);
    if (!rows->documents) {
        mask_windows(masks, &rows->batch, first);
        return;
    }
    for (int64_t i = 0; i < count; i++)
        masks->position[i] = first + (uint64_t)i;
    masks_pack(masks, &rows->pack, TRAIN_STREAM, masks->position);
}

int64_t masks_count(struct masks *masks, struct rows *rows, int64_t *out_read)
{
    int64_t counts[2] = {0, 0};

    for (int64_t pass = 0; pass < rows->trainer->pass_count; pass++) {
        masks_fill(masks, rows, pass);
        counts[0] += masks->count;
        for (int64_t i = 0; i < masks->sequence_count; i++)
            counts[1] += masks->sequence[2 * i + 1];
    }
    comm_sum_i64(rows->trainer->run->comm, counts, 2);
    *out_read = counts[1];
    return counts[0];
}

/* -- losses --------------------------------------------------------------------------------- */

int masks_loss(struct tape *tape, const struct model *model, const struct masks *masks,
               struct tensor *hidden, double each, float *out_nll, struct tensor **out_logits,
               struct err *err)
{
    struct tensor *chosen, *logits, *nll;
    float *weight;

    if (out_logits)
        *out_logits = NULL;
    if (masks->count == 0)
        return tape_check(tape, err);
    chosen = op_gather(tape, hidden, tape_i32(tape, masks->row, masks->count));
    logits = encoder_tokens(tape, model, chosen);
    nll = op_nll(tape, logits, tape_i32(tape, masks->truth, masks->count));
    if (tape_check(tape, err) < 0)
        return -1;
    tensor_read(nll, out_nll);
    if (tape_records(tape) && each != 0) {
        weight = tape_host(tape, masks->count, sizeof *weight);
        for (int64_t i = 0; i < masks->count; i++)
            weight[i] = (float)each;
        tape_seed(tape, nll, weight);
    }
    if (out_logits)
        *out_logits = logits;
    return tape_check(tape, err);
}

/* A validation in progress: documents packed into blocks, whose losses go to their places. */
struct validation {
    struct masks masks;
    struct corpus *corpus;
    const struct model *model;
    struct tape *tape;
    struct pack pack;
    uint64_t *position; /* of the block's documents */
    double *sums;       /* (documents, 2): loss and tokens */
};

static int score_block(struct validation *v, struct err *err)
{
    struct model_states states = {0};
    float *nll;
    int rc;

    masks_pack(&v->masks, &v->pack, VALID_STREAM, v->position);
    nll = mem_array((size_t)v->masks.count + 1, sizeof *nll);
    tape_reset(v->tape);
    rc = model_forward(v->tape, v->model, &v->masks.batch, &states, err);
    if (rc == 0)
        rc = masks_loss(v->tape, v->model, &v->masks, states.hidden, 0, nll, NULL, err);
    for (int64_t s = 0, i = 0; rc == 0 && s < v->pack.span_count; s++) {
        const struct pack_span *span = &v->pack.span[s];

        for (; i < v->masks.count && v->masks.row[i] >= span->start &&
               v->masks.row[i] < span->start + span->count; i++) {
            v->sums[2 * span->item] += nll[i];
            v->sums[2 * span->item + 1] += 1;
        }
    }
    mem_free(nll);
    return rc;
}

static int score_documents_of_rank(struct run *run, struct validation *v, struct err *err)
{
    int64_t T = v->pack.T, block = 0, count = corpus_count(v->corpus);
    int32_t *cells = mem_array(2 * (size_t)T, sizeof *cells);
    int rc = 0;

    for (int64_t item = 0; item <= count && rc == 0; item++) {
        int64_t length = 0;

        if (item < count)
            length = corpus_document(v->corpus, item, T, cells, cells + T, NULL);
        if (item < count && pack_add(&v->pack, item, cells, cells + T, length)) {
            v->position[v->pack.span_count - 1] = (uint64_t)item;
            continue;
        }
        if (v->pack.span_count > 0 && block++ % run->rank_count == run->rank)
            rc = score_block(v, err);
        pack_clear(&v->pack);
        if (item < count) {
            CHECK(pack_add(&v->pack, item, cells, cells + T, length));
            v->position[0] = (uint64_t)item;
        }
    }
    mem_free(cells);
    return rc;
}

/* Scratch of its own, so that a training pass is not disturbed; the vocabulary is shared. */
static int validation_open(const struct masks *masks, struct corpus *corpus,
                           const struct model *model, struct validation *v, struct err *err)
{
    size_t cells = (size_t)(VALID_ROWS * model->config.context);

    *v = (struct validation){.masks = *masks, .corpus = corpus, .model = model};
    v->masks.last = mem_array(cells, sizeof *v->masks.last);
    v->masks.row = mem_array(cells, sizeof *v->masks.row);
    v->masks.truth = mem_array(cells, sizeof *v->masks.truth);
    v->masks.sequence = mem_array(2 * cells, sizeof *v->masks.sequence);
    v->masks.group = mem_array(cells + 1, sizeof *v->masks.group);
    v->position = mem_array(cells, sizeof *v->position);
    v->sums = mem_zalloc(2 * (size_t)corpus_count(corpus) * sizeof *v->sums);
    if (pack_init(&v->pack, model->config.context, VALID_ROWS, err) < 0)
        return -1;
    return tape_new(model->device, TAPE_INFER, &v->tape, err);
}

static void validation_close(struct validation *v)
{
    tape_free(v->tape);
    pack_done(&v->pack);
    mem_free(v->sums);
    mem_free(v->position);
    mem_free(v->masks.last);
    mem_free(v->masks.row);
    mem_free(v->masks.truth);
    mem_free(v->masks.sequence);
    mem_free(v->masks.group);
}

/* Mean loss over the documents of a corpus. */
static int validate(struct run *run, const struct masks *masks, struct corpus *corpus,
                    const struct model *model, double *out_loss, struct err *err)
{
    int64_t documents = corpus_count(corpus);
    double nll = 0, tokens = 0;
    struct validation v;
    int rc = validation_open(masks, corpus, model, &v, err);

    if (rc == 0)
        rc = score_documents_of_rank(run, &v, err);
    if (rc == 0) {
        comm_sum_f64(run->comm, v.sums, 2 * documents);
        for (int64_t i = 0; i < documents; i++) {
            nll += v.sums[2 * i];
            tokens += v.sums[2 * i + 1];
        }
        *out_loss = tokens > 0 ? nll / tokens : 0;
    }
    validation_close(&v);
    return rc;
}

int masks_report(struct run *run, const struct masks *masks, struct corpus *valid,
                 const struct model *model, int64_t every, struct err *err)
{
    uint64_t done = run->step + 1;
    double loss = 0;

    if (!corpus_is_open(valid))
        return 0;
    if (done != run->step_count && (every == 0 || done % (uint64_t)every != 0))
        return 0;
    if (validate(run, masks, valid, model, &loss, err) < 0)
        return -1;
    run_metric(run, "val_loss", loss);
    if (done == run->step_count)
        run_note(run, "val_loss %.4f nats a hidden token", loss);
    return 0;
}
