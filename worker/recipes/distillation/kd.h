/* kd.h - a student and a frozen teacher over the same tokens, as logit_kd, gkd and seq_kd share it.
 *
 *   L = alpha tau^2 D(teacher || student; tau) + (1 - alpha) CE
 *
 * as means over the targets of the whole batch. The teacher runs on a tape of its own that records
 * nothing. State: student, AdamW moments and the step number. Prompts are no targets: neither
 * term sees them. The recipe's table needs KD_PARAMS, the inputs data, teacher, student and valid
 * (the last two optional), and `steps`, `eval_every` and TRAIN_PARAMS. */
#ifndef ATHANOR_KD_H
#define ATHANOR_KD_H

#include "worker/recipes/score.h"
#include "worker/recipes/train.h"

/* clang-format off */
/* Rows about the divergence; loss and alpha with their defaults. */
#define KD_LOSS_PARAMS(loss, alpha) \
    {"loss", PARAM_CHOICE, loss, 0, 0, "fkl|rkl|jsd|sfkl|srkl|tv|ce", \
     "divergence from the teacher; ce: none, the student alone"}, \
    {"temperature", PARAM_FLOAT, "1", 0.25, 20, NULL, "temperature of both distributions"}, \
    {"alpha", PARAM_FLOAT, alpha, 0, 1, NULL, \
     "share of the divergence; the rest is cross-entropy"}, \
    {"beta", PARAM_FLOAT, "0.5", 0, 1, NULL, "weight of the teacher in jsd's mixture"}, \
    {"beta_rescale", PARAM_BOOL, "false", 0, 0, NULL, \
     "divide jsd by beta (1 - beta), so that its size goes over into those of fkl and rkl"}, \
    {"skew", PARAM_FLOAT, "0.1", 0.01, 0.5, NULL, "weight of the teacher in sfkl and srkl"}
/* Rows about the student. */
#define KD_STUDENT_PARAMS \
    {"student_init", PARAM_CHOICE, "scratch", 0, 0, "scratch|teacher-layers|checkpoint", \
     "new weights, evenly spaced blocks of the teacher, or the input `student`"}, \
    {"arch", PARAM_CHOICE, "teacher", 0, 0, "teacher|t5", \
     "a new student is of the teacher's kind, or an encoder and a decoder of `layers` each, " \
     "which read prompts and write responses"}, \
    {"layers", PARAM_INT, "0", 0, 1000, NULL, "student's blocks; 0: as the teacher"}, \
    {"d_model", PARAM_INT, "0", 0, 65536, NULL, "student's width; 0: as the teacher"}, \
    {"heads", PARAM_INT, "0", 0, 1024, NULL, "student's attention heads; 0: as the teacher"}, \
    {"kv_heads", PARAM_INT, "0", 0, 1024, NULL, \
     "student's heads of keys and values; 0: as the teacher, or as heads where that is set"}, \
    {"d_ff", PARAM_INT, "0", 0, 1048576, NULL, \
     "student's feed-forward width; 0: as the teacher"}, \
    {"context", PARAM_INT, "0", 0, 1048576, NULL, \
     "most tokens the student sees at once, not more than the teacher; 0: as the teacher"}
/* clang-format on */

struct kd {
    struct trainer trainer;
    struct scorer scorer;
    struct corpus train, valid;
    struct windows valid_windows;
    struct model *teacher;
    struct tape *teacher_tape;
    struct sourced sourced; /* of a student with an encoder */
    float *kd_weight, *ce_weight; /* a cell of the largest pass each */
    enum divergence divergence;   /* DIVERGENCE_NONE: plain cross-entropy, the control arm */
    double alpha, temperature, beta, scale;
    int64_t eval_every;
    bool documents;
};

/* Everything but rows. The loss is what the recipe's KD_LOSS_PARAMS say. unit: "windows" or
 * "documents"; separator: NULL or "" to train on all tokens, else as corpus_mask_prompts.
 * Errors: ERR_INVALID and those of the files. */
int kd_open(struct run *run, struct kd *kd, const char *unit, const char *separator,
            struct err *err) WARN_UNUSED;
/* The same of a recipe whose kd->divergence, alpha, temperature, beta and scale are set already. */
int kd_open_as(struct run *run, struct kd *kd, const char *unit, const char *separator,
               struct err *err) WARN_UNUSED;
void kd_close(struct kd *kd); /* a zeroed struct is fine */

/* Cells of one pass, and how its targets are weighed. */
struct kd_rows {
    struct model_batch batch;
    const int32_t *target; /* batch.B * batch.T; -1: none */
    const struct pack *pack; /* the documents that batch is of; NULL: windows */
    bool sampled; /* written by the student: cross-entropy would teach it its own words, so only
                     the divergence counts, with its weight alpha */
    /* Not NULL: sets the weights of -log q of each cell's target from these values, beside the
     * divergence with its weight alpha. */
    void (*weigh)(void *context, const float *nll, float *weight);
    void *context;
};
/* Means over the step's targets. */
struct kd_sums {
    double loss;
    double ce, kd; /* unscaled by alpha */
};
/* Forward and backward of one pass; adds to sums. target_count: targets of the whole step, over
 * all passes and ranks. */
int kd_pass(struct kd *kd, const struct kd_rows *rows, int64_t target_count, struct kd_sums *sums,
            struct err *err) WARN_UNUSED;
/* -log p of the pack's targets under a model, without gradient; out_nll: a float a cell. */
int kd_read(struct kd *kd, const struct model *model, const struct pack *pack, float *out_nll,
            struct err *err) WARN_UNUSED;
/* Sums over ranks, metrics loss, ce_loss and kd_loss, the update, and where it is due val_loss and
 * kl_to_teacher: forward KL at temperature 1, whatever the loss is. */
int kd_finish(struct kd *kd, int64_t target_count, struct kd_sums *sums,
              struct err *err) WARN_UNUSED;

int kd_save(struct kd *kd, struct checkpoint_writer *writer, struct err *err) WARN_UNUSED;
int kd_load(struct kd *kd, struct checkpoint_reader *reader, struct err *err) WARN_UNUSED;

/* The teacher's block that block `block` of the student starts from: both ends are kept, the rest
 * evenly spaced. 12 to 6 gives 0 2 4 7 9 11, DistilBERT's choice (Sanh et al. 2019, code). */
int64_t student_origin(int64_t block, int64_t student_layers, int64_t teacher_layers);
/* Fills the student from those blocks. Errors: ERR_INVALID when shapes differ. */
int student_copy_layers(struct model *student, struct model *teacher, struct err *err) WARN_UNUSED;
/* The teacher's shape where the student's parameters are 0. */
int student_config(const struct run *run, const struct model *teacher, struct model_config *out,
                   struct err *err) WARN_UNUSED;

#endif
