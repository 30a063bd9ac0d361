/* train.h - what training recipes share: device, model, optimiser, and the end of a step.
 *
 * A step of a recipe: fill its rows; count targets over all ranks; for each pass
 * trainer_forward, a loss from loss.h whose weights hold all normalisation, trainer_backward;
 * then trainer_update. The trainer's state is the model, the optimiser and run->step. */
#ifndef ATHANOR_TRAIN_H
#define ATHANOR_TRAIN_H

#include "worker/engine/data/sampler.h"
#include "worker/engine/io/training.h"
#include "worker/recipes/corpus.h"
#include "worker/recipes/pack.h"

/* Rows of the parameter table for every recipe that runs a model. */
/* clang-format off */
#define DEVICE_PARAMS \
    {"device", PARAM_CHOICE, "auto", 0, 0, "auto|cpu|cuda|reference", \
     "where to compute; auto takes a GPU that the job was given, else the CPU"}, \
    {"bf16", PARAM_BOOL, "false", 0, 0, NULL, \
     "matrix products in bfloat16 with float32 sums; GPU only"}

/* Rows for every recipe that trains: defaults of rate, batch and decay as text; p goes before each
 * name, as of the training of a stage (stage.h). */
#define TRAIN_PARAMS(rate, schedule, batch, decay) \
    TRAIN_PARAMS_OF("", rate, schedule, batch, decay), \
    {"seed", PARAM_INT, "0", 0, 9e15, NULL, "seed of data order and new weights"}, \
    DEVICE_PARAMS
#define TRAIN_PARAMS_OF(p, rate, schedule, batch, decay) \
    {p "learning_rate", PARAM_FLOAT, rate, 0, 1, NULL, "peak learning rate of AdamW"}, \
    {p "schedule", PARAM_CHOICE, schedule, 0, 0, "cosine|linear|constant|wsd", \
     "learning rate over the steps, after the warm-up"}, \
    {p "warmup", PARAM_INT, "0", 0, 1e9, NULL, "steps of linear warm-up"}, \
    {p "final_fraction", PARAM_FLOAT, "0.1", 0, 1, NULL, \
     "learning rate of the last step as a fraction of the peak"}, \
    {p "batch", PARAM_INT, batch, 1, 1e6, NULL, \
     "rows (windows or documents) of one step over all ranks; a multiple of the ranks"}, \
    {p "grad_accum", PARAM_INT, "1", 1, 1e6, NULL, \
     "passes a rank's share of the batch is cut into, to save memory"}, \
    {p "weight_decay", PARAM_FLOAT, decay, 0, 1, NULL, "decoupled weight decay of matrices"}, \
    {p "beta1", PARAM_FLOAT, "0.9", 0.001, 0.9999, NULL, "AdamW's first moment"}, \
    {p "beta2", PARAM_FLOAT, "0.95", 0.001, 0.99999, NULL, "AdamW's second moment"}, \
    {p "clip", PARAM_FLOAT, "1.0", 0, 1e6, NULL, \
     "gradient norm above which gradients are scaled down; 0: never"}, \
    {p "zero", PARAM_BOOL, "false", 0, 0, NULL, \
     "ranks share AdamW's moments (ZeRO-1): 8 bytes a weight become 8 / ranks; the same results"}, \
    {p "recompute", PARAM_CHOICE, "none", 0, 0, "none|block", \
     "block: backward computes each block again instead of keeping its activations: a third more " \
     "work, the same results, memory of one block"}
/* clang-format on */

/* Rows for recipes that can train adapters of a model instead of the model. */
#define LORA_PARAMS \
    {"lora_rank", PARAM_INT, "0", 0, 1024, NULL, \
     "rank of adapters that are trained while the model itself stays; 0: train the model"}, \
    {"lora_alpha", PARAM_FLOAT, "0", 0, 1e6, NULL, \
     "adapters count alpha / rank times; 0: once"}, \
    {"lora_targets", PARAM_STRING, "", 0, 0, NULL, \
     "weights of blocks that get adapters, as q,v; empty: every matrix of a block"}, \
    {"merge", PARAM_BOOL, "true", 0, 0, NULL, \
     "checkpoints also hold the model with its adapters added, which is what other jobs read; " \
     "false: adapters alone, beside a base that must stay where it is"}
/* clang-format on */

struct trainer {
    struct run *run;
    struct device *device;
    struct tape *tape;
    struct model *model;
    struct lora *lora;   /* NULL: the model itself is trained              */
    struct reducer *reducer; /* of the gradients of what is trained        */
    struct optim *optim;
    struct schedule_config schedule;
    uint64_t seed;
    int64_t batch;       /* rows of a step over all ranks               */
    int64_t pass_count;  /* of this rank in a step                      */
    uint64_t started_us; /* of the step, for its speed                  */
    float *grad_host;    /* first term of two; see trainer_grad_park    */
    int64_t pass;        /* forward passes of this step so far          */
    struct tensor **routing; /* of a pass's blocks of experts           */
    double route[ROUTE_STATS]; /* of a step's experts so far            */
};

/* Opens the device that `device` and `bf16` name. Errors: ERR_INVALID, ERR_NOT_FOUND. */
int run_device_open(const struct run *run, struct device **out, struct err *err) WARN_UNUSED;

/* Device, tape and parameters. Refuses a batch that the ranks cannot share (ERR_INVALID). */
int trainer_open(struct run *run, struct trainer *trainer, struct err *err) WARN_UNUSED;
void trainer_close(struct trainer *trainer); /* a zeroed struct is fine */
/* Puts adapters into the model, which must be frozen, as LORA_PARAMS say.
 * Between opening the model and trainer_start. Errors: ERR_INVALID. */
int trainer_adapt(struct trainer *trainer, struct err *err) WARN_UNUSED;
/* The optimiser and the schedule of run->step_count steps; the model must be set. */
int trainer_start(struct trainer *trainer, struct err *err) WARN_UNUSED;

/* Positions of the shuffled stream that this rank's pass number `pass` takes in this step. */
void trainer_share(const struct trainer *trainer, int64_t pass, uint64_t *out_first,
                   int64_t *out_count);
int64_t trainer_pass_most(const struct trainer *trainer); /* rows of the largest pass */

/* Fills the pack with the documents of this pass, shuffled by seed. */
void trainer_documents(const struct trainer *trainer, struct corpus *corpus, uint64_t seed,
                       int64_t pass, struct pack *pack);

/* Starts a pass: a fresh tape and the model's last hidden states. */
int trainer_forward(struct trainer *trainer, const struct model_batch *rows,
                    struct tensor **out_hidden, struct err *err) WARN_UNUSED;
/* The same with more states than the last: states->layer as model.h says. */
int trainer_states(struct trainer *trainer, const struct model_batch *rows,
                   struct model_states *states, struct err *err) WARN_UNUSED;
/* tape_backward of a pass. In the step's last pass the ranks' sums begin while it runs; recipes
 * with more backward passes in a step than forward passes call tape_backward instead. */
int trainer_backward(struct trainer *trainer, struct err *err) WARN_UNUSED;
/* Sums gradients over ranks, clips, updates; metrics lr and grad_norm. A gradient that is not
 * finite is reported as `diverged` and ends the run (ERR_LIMIT). */
int trainer_update(struct trainer *trainer, struct err *err) WARN_UNUSED;
/* After an optim_step that failed: names the step, and reports `diverged` where the gradient was
 * not finite, which is so on all ranks. Returns -1. */
int trainer_stopped(struct run *run, struct err *err);
/* Metrics tokens_per_s and gflops (6 N + 12 L D T operations a token) for `tokens` of all ranks
 * since trainer_share of pass 0. */
void trainer_speed(struct trainer *trainer, int64_t tokens);

/* Puts the gradient aside, so that the norm of each of two terms can be told:
 *   backward of term A | trainer_grad_park (its norm) | backward of B | trainer_grad_join.
 * Norms are those of the sums over ranks. After join the gradient is the sum over ranks of
 * both terms on every rank, and trainer_update must be told so by trainer_apply instead. */
int trainer_grad_park(struct trainer *trainer, double *out_norm, struct err *err) WARN_UNUSED;
int trainer_grad_join(struct trainer *trainer, double *out_norm, struct err *err) WARN_UNUSED;
int trainer_apply(struct trainer *trainer, struct err *err) WARN_UNUSED;

/* With adapters: adapter_config.json and adapter_model.safetensors, whose base is the folder of
 * the input `init`, and the merged model where `merge` says so. */
int trainer_save(struct trainer *trainer, struct checkpoint_writer *writer,
                 struct err *err) WARN_UNUSED;
int trainer_load(struct trainer *trainer, struct checkpoint_reader *reader,
                 struct err *err) WARN_UNUSED;

/* The model of a checkpoint input. trained: with gradients. A folder of adapters alone is its base
 * model with the adapters merged. */
int run_model_open(const struct run *run, const char *input, struct device *device, bool trained,
                   struct model **out, struct err *err) WARN_UNUSED;
/* The same of a model that is to write texts or give them a probability: ERR_INVALID for a BERT. */
int run_writer_open(const struct run *run, const char *input, struct device *device, bool trained,
                    struct model **out, struct err *err) WARN_UNUSED;

#endif
