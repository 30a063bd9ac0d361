/* model_files.h - a model directory as transformers reads and writes it: config.json and
 * model.safetensors (or shards with model.safetensors.index.json).
 *
 * Families: gpt2 (GPT2LMHeadModel) and llama (LlamaForCausalLM; also Yi, Mistral without
 * sliding window, TinyLlama). Names are Hugging Face's; our arrays are always [out, in],
 * so the four Conv1D weights per gpt2 layer are transposed here, in both directions.
 * RoPE rotates halves in both worlds: no permutation. Source: methods of transformers'
 * configuration_gpt2.py / configuration_llama.py and their modeling files. */
#ifndef ATHANOR_MODEL_FILES_H
#define ATHANOR_MODEL_FILES_H

#include "common/base/err.h"

enum model_family { MODEL_GPT2 = 1, MODEL_LLAMA, MODEL_FAMILY_END };

struct model_config {
    enum model_family family;
    uint64_t vocab_size;
    uint64_t context;         /* n_positions, max_position_embeddings              */
    uint64_t hidden_size;     /* n_embd                                            */
    uint64_t layer_count;
    uint64_t head_count;
    uint64_t kv_head_count;   /* = head_count for gpt2                             */
    uint64_t head_size;       /* hidden_size / head_count unless config has head_dim */
    uint64_t ffn_size;        /* n_inner (4D when null), intermediate_size         */
    double norm_eps;
    double rope_theta;        /* llama only; 0 for gpt2                            */
    double initializer_range; /* 0.02 when absent                                  */
    bool tied;                /* the output matrix is the embedding                */
    int64_t bos_token_id;     /* -1: none                                          */
    int64_t eos_token_id;
};

/* Errors: ERR_PROTOCOL for damaged JSON, ERR_INVALID naming field and what is accepted:
 * another model_type or activation, rotary base absent, given twice with different
 * values or scaled, dropout that changes inference, sizes that do not divide. */
int model_config_parse(const char *json, size_t length, struct model_config *out,
                       struct err *err) WARN_UNUSED;
int model_config_read(const char *folder, struct model_config *out, struct err *err) WARN_UNUSED;
/* The config.json text for `config` (mem_free). Writes rope_theta at both places and the
 * type as torch_dtype and dtype, so that old and new readers agree. */
char *model_config_text(const struct model_config *config);

/* One parameter: Hugging Face name ("transformer.h.0.attn.c_attn.weight"), our shape. */
struct named_array {
    const char *name;
    unsigned dim_count;
    uint64_t shape[4];
    float *values; /* row-major, prod(shape) floats */
};

/* True for the gpt2 weights that Hugging Face stores as [in, out]. */
bool model_array_is_transposed(enum model_family family, const char *name);

/* model.safetensors (F32) at `path`. Tied output matrices must not be in the list. */
int model_files_write(const char *path, enum model_family family,
                      const struct named_array *arrays, size_t count,
                      struct err *err) WARN_UNUSED;
/* Fills every array from folder/model.safetensors or the shards of its index. F32, F16 and
 * BF16 are widened. gpt2 names without "transformer." are accepted, stored mask buffers and
 * rotary tables ignored, lm_head ignored when tied. Errors name the tensor: missing, of
 * another shape or type, or present in the file but unknown to the list. */
int model_files_read(const char *folder, const struct model_config *config,
                     const struct named_array *arrays, size_t count, struct err *err) WARN_UNUSED;

#endif
