/* arch.h - the shape of a new model as parameters of a job. */
#ifndef ATHANOR_ARCH_H
#define ATHANOR_ARCH_H

#include "worker/recipes/corpus.h"

/* clang-format off */
/* Rows of a table; p goes before each name, as of the shape of a stage (stage.h). */
#define ARCH_PARAMS_OF(p, layers, width, heads, context) \
    {p "arch", PARAM_CHOICE, "gpt2", 0, 0, "gpt2|opt|llama|moe|transnormer|t5", \
     "architecture of a new model; t5: an encoder of the source and a decoder of the target, " \
     "where a separator divides them"}, \
    {p "layers", PARAM_INT, layers, 0, 1000, NULL, "blocks of a new model"}, \
    {p "decoder_layers", PARAM_INT, "0", 0, 1000, NULL, \
     "blocks of its decoder, where `layers` are those of its encoder; 0: as many (t5)"}, \
    {p "d_model", PARAM_INT, width, 0, 65536, NULL, "width of the residual stream"}, \
    {p "heads", PARAM_INT, heads, 0, 1024, NULL, "attention heads; divides d_model"}, \
    {p "kv_heads", PARAM_INT, "0", 0, 1024, NULL, \
     "heads of keys and values (llama), a divisor of heads; 0: as many as heads"}, \
    {p "d_ff", PARAM_INT, "0", 0, 1048576, NULL, \
     "width inside a feed-forward block, or an expert; 0: 4 (gpt2, opt), 8/3 (llama), 11/4 " \
     "(transnormer) times d_model, or 8/3 shared by the experts of a token (moe)"}, \
    {p "context", PARAM_INT, context, 0, 1048576, NULL, "most tokens the model sees at once"}, \
    {p "tied", PARAM_BOOL, "true", 0, 0, NULL, \
     "the output matrix is the embedding (gpt2, opt: always)"}, \
    {p "rope_theta", PARAM_FLOAT, "10000", 0, 1e9, NULL, \
     "base of the rotary angles (llama, moe)"}, \
    {p "positions", PARAM_CHOICE, "rope", 0, 0, "rope|alibi", \
     "how a token knows where it is: rotations, or biases by distance (llama)"}, \
    {p "norm", PARAM_CHOICE, "before", 0, 0, "before|after", \
     "where a block normalises: before each of its halves, or after (opt)"}, \
    {p "d_embed", PARAM_INT, "0", 0, 65536, NULL, \
     "width of the embedding, when it is not d_model; 0: d_model (opt)"}, \
    {p "window", PARAM_INT, "0", 0, 1048576, NULL, \
     "a token sees this many, itself included; 0: all (llama)"}, \
    {p "qkv_bias", PARAM_BOOL, "false", 0, 0, NULL, \
     "queries, keys and values have biases, as Qwen 2 has (llama; not with window or alibi)"}, \
    {p "dropout", PARAM_FLOAT, "0", 0, 0.95, NULL, \
     "in training, of embeddings and of what each half of a block adds"}, \
    {p "upscale", PARAM_STRING, "", 0, 0, NULL, \
     "A-B: blocks A to B-1 of the init model a second time behind themselves (depth up-scaling)"}, \
    {p "experts", PARAM_INT, "8", 1, 1024, NULL, "experts of a block (moe)"}, \
    {p "experts_per_token", PARAM_INT, "2", 1, 16, NULL, "experts that a token goes to (moe)"}, \
    {p "shared_experts", PARAM_INT, "0", 0, 64, NULL, "experts that every token goes to (moe)"}, \
    {p "gate", PARAM_CHOICE, "after", 0, 0, "after|before", \
     "softmax over the chosen experts, or its chosen part over all (moe; one expert: before)"}, \
    {p "balance_loss", PARAM_FLOAT, "0.01", 0, 10, NULL, \
     "weight of the loss that spreads tokens over experts (moe)"}, \
    {p "z_loss", PARAM_FLOAT, "0.001", 0, 10, NULL, \
     "weight of the loss that keeps the router's logits small (moe)"}, \
    {p "capacity_factor", PARAM_FLOAT, "0", 0, 100, NULL, \
     "in training an expert takes this times its equal share of tokens; 0: all (moe)"}, \
    {p "lrpe", PARAM_CHOICE, "first", 0, 0, "first|none|all", \
     "blocks with learned angles (transnormer)"}, \
    {p "decay", PARAM_CHOICE, "alibi", 0, 0, "alibi|paper|none", \
     "decay of linear attention by head (transnormer)"}, \
    {p "output_gate", PARAM_BOOL, "true", 0, 0, NULL, \
     "what linear attention gives is multiplied by a gate (transnormer)"}, \
    {p "scale_embedding", PARAM_BOOL, "true", 0, 0, NULL, \
     "embeddings are multiplied by the root of d_model (transnormer)"}

#define ARCH_PARAMS ARCH_PARAMS_OF("", "4", "128", "4", "128")

/* What an init model does not keep. Parameters of their own: a resolved job holds every parameter,
 * given or not, so `context` and `rope_theta` cannot tell whether they mean the init model. */
#define REACH_PARAMS \
    {"new_context", PARAM_INT, "0", 0, 1048576, NULL, \
     "most tokens that the init model sees at once from here on; 0: as many as before (not gpt2, " \
     "opt: they have learned a row for each position)"}, \
    {"new_rope_theta", PARAM_FLOAT, "0", 0, 1e9, NULL, \
     "base of the rotary angles of the init model from here on, larger for longer texts; 0: as " \
     "before (llama, moe)"}
/* clang-format on */

/* The shape that the parameters name, for the corpus's tokens. Errors: ERR_INVALID. */
int arch_config(const struct run *run, const struct corpus *corpus, struct model_config *out,
                struct err *err) WARN_UNUSED;

/* The blocks "A-B" of a model of `layers` blocks twice: map (mem_free) of *out_count blocks to
 * those they copy. Errors: ERR_INVALID, unless 0 <= A < B <= layers. */
int arch_upscale(const char *range, int64_t layers, int64_t **out_map, int64_t *out_count,
                 struct err *err) WARN_UNUSED;

#endif
