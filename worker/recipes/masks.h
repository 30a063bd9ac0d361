/* masks.h - tokens hidden from an encoder, for it to tell: BERT's masked language model.
 *
 * Of each sequence (a document or a window) max(1, round(share n)) tokens are chosen; of these 80 %
 * become [MASK], 10 % any ordinary token, 10 % stay. With whole words a word is chosen or not as
 * one: words that would go over the number are passed over. Special tokens are never chosen.
 * The draws follow from (seed, position in the stream of sequences): a repeat of a document in a
 * later epoch has other masks, a resume or another number of ranks has the same.
 * Source: Devlin et al. 2019, section 3.1, and create_pretraining_data.py of its release. */
#ifndef ATHANOR_MASKS_H
#define ATHANOR_MASKS_H

#include "worker/recipes/rows.h"

/* clang-format off */
#define MASK_PARAMS \
    {"mask_share", PARAM_FLOAT, "0.15", 0.01, 0.9, NULL, "share of the tokens that are chosen"}, \
    {"mask_replace", PARAM_FLOAT, "0.8", 0, 1, NULL, "share of the chosen that become [MASK]"}, \
    {"mask_random", PARAM_FLOAT, "0.1", 0, 1, NULL, \
     "share of the chosen that become any other token; the rest stays"}, \
    {"whole_words", PARAM_BOOL, "false", 0, 0, NULL, "choose all tokens of a word, or none"}
/* clang-format on */

struct masks {
    double share, replace, random;
    bool whole_words;
    uint64_t seed;
    int32_t mask_token;
    uint8_t *kind;     /* (V) what a token is: special, part of a word ...               */
    int32_t *ordinary; /* ids that are not special                                       */
    int64_t ordinary_count;
    /* Of the pass now: */
    int64_t B, T;
    int32_t *last;      /* (B, T) last key that a cell sees: the end of its sequence     */
    int32_t *row;       /* (count) cells to tell, ascending within a sequence            */
    int32_t *truth;     /* (count) what stood there                                      */
    int64_t count;
    int32_t *sequence;  /* (sequence_count, 2): first cell and cells of each sequence    */
    int64_t sequence_count;
    int32_t *group;     /* scratch of one sequence: where its words begin, and their order */
    uint64_t *position; /* scratch of a pass: its documents' places in the stream        */
    struct model_batch batch; /* for model_forward                                        */
};

/* cells: of the largest pass. Errors: ERR_INVALID when the tokenizer has no [MASK] or <mask>, or
 * the shares exceed 1; ERR_MEMORY. */
int masks_init(const struct run *run, const struct corpus *corpus, int64_t cells, uint64_t seed,
               struct masks *out, struct err *err) WARN_UNUSED;
void masks_done(struct masks *masks); /* a zeroed struct is fine */

/* Fills rows with a pass and hides some of its tokens in place. */
void masks_fill(struct masks *masks, struct rows *rows, int64_t pass);
/* Tokens to tell in this step, over all passes and ranks, and all tokens that are read. */
int64_t masks_count(struct masks *masks, struct rows *rows, int64_t *out_read);
/* Hides tokens of a pack whose span i has position positions[i] in some stream. */
void masks_pack(struct masks *masks, struct pack *pack, uint64_t stream,
                const uint64_t *positions);

/* Losses of the hidden tokens, from the encoder's states: out_nll has room for count. In training,
 * each weighs `each` in the tape's loss. out_logits: NULL, or the (count, V) logits. */
int masks_loss(struct tape *tape, const struct model *model, const struct masks *masks,
               struct tensor *hidden, double each, float *out_nll, struct tensor **out_logits,
               struct err *err) WARN_UNUSED;

/* Metric val_loss after each `every` steps (0: none) and after the last: the mean loss over the
 * documents of `valid` (cut to the context) with masks that are always the same; the same bits for
 * any number of ranks. Nothing where `valid` is not open. */
int masks_report(struct run *run, const struct masks *masks, struct corpus *valid,
                 const struct model *model, int64_t every, struct err *err) WARN_UNUSED;

#endif
