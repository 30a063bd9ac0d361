/* arch.h - the shape of a new model as parameters of a job. */
#ifndef ATHANOR_ARCH_H
#define ATHANOR_ARCH_H

#include "worker/recipes/corpus.h"

/* clang-format off */
#define ARCH_PARAMS_SIZED(layers, width, heads, context) \
    {"arch", PARAM_CHOICE, "gpt2", 0, 0, "gpt2|llama", "architecture of a new model"}, \
    {"layers", PARAM_INT, layers, 0, 1000, NULL, "blocks of a new model"}, \
    {"d_model", PARAM_INT, width, 0, 65536, NULL, "width of the residual stream"}, \
    {"heads", PARAM_INT, heads, 0, 1024, NULL, "attention heads; divides d_model"}, \
    {"kv_heads", PARAM_INT, "0", 0, 1024, NULL, \
     "heads of keys and values (llama), a divisor of heads; 0: as many as heads"}, \
    {"d_ff", PARAM_INT, "0", 0, 1048576, NULL, \
     "width inside a feed-forward block; 0: 4 (gpt2) or 8/3 (llama) times d_model"}, \
    {"context", PARAM_INT, context, 0, 1048576, NULL, "most tokens the model sees at once"}, \
    {"tied", PARAM_BOOL, "true", 0, 0, NULL, \
     "the output matrix is the embedding (gpt2: always)"}, \
    {"rope_theta", PARAM_FLOAT, "10000", 0, 1e9, NULL, "base of the rotary angles (llama)"}

#define ARCH_PARAMS ARCH_PARAMS_SIZED("4", "128", "4", "128")
/* clang-format on */

/* The shape that the parameters name, for the corpus's tokens. Errors: ERR_INVALID. */
int arch_config(const struct run *run, const struct corpus *corpus, struct model_config *out,
                struct err *err) WARN_UNUSED;

#endif
