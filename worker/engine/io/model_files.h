/* model_files.h - a model directory as transformers reads and writes it: config.json and
 * model.safetensors (or shards named by model.safetensors.index.json).
 *
 * One format per model_type: config_*.c. Files may hold more heads of a BERT than its class asks
 * for; these are left alone.
 * Names in files are Hugging Face's. Our arrays are always [out, in]; arrays marked
 * transposed (GPT-2's Conv1D, four per layer) are turned here, in both directions. RoPE
 * rotates halves in both worlds: no permutation. Source: transformers'
 * configuration_gpt2.py, configuration_llama.py and modeling files. */
#ifndef ATHANOR_MODEL_FILES_H
#define ATHANOR_MODEL_FILES_H

#include "worker/engine/model.h"

/* Errors: ERR_PROTOCOL for damaged JSON, ERR_INVALID naming the field and what is accepted:
 * another model_type or activation, rotary base absent, given twice with different values or
 * scaled, biases in llama, sizes that do not divide. */
int model_config_parse(const char *json, size_t length, struct model_config *out,
                       struct err *err) WARN_UNUSED;
/* Of a folder: config.json, and what ends texts by its generation_config.json, if that says it. */
int model_config_read(const char *folder, struct model_config *out, struct err *err) WARN_UNUSED;
/* The config.json text of a complete config (mem_free). rope_theta is written at both places
 * and the type as torch_dtype and dtype, so that old and new readers agree. */
char *model_config_text(const struct model_config *config);
/* The generation_config.json of it (mem_free): where transformers begins and ends texts. */
char *model_generation_text(const struct model_config *config);

/* One parameter: Hugging Face name ("transformer.h.0.attn.c_attn.weight"), our shape. */
struct named_array {
    const char *name;
    bool transposed; /* the file holds [in, out]; dim_count must be 2 */
    unsigned dim_count;
    uint64_t shape[4]; /* ours: [out, in] */
    float *values;     /* host, row-major, prod(shape) floats */
};

/* Writes F32 safetensors to the file `path`, synced. Tied output matrices must not be listed. */
int arrays_write(const char *path, const struct named_array *arrays, size_t count,
                 struct err *err) WARN_UNUSED;
/* The same as the weights of a folder: model.safetensors, or above most_bytes of values the files
 * model-00001-of-0000N.safetensors, each of at most so many unless one array alone has more, and
 * model.safetensors.index.json, as transformers cuts them. A model.safetensors or an index that the
 * folder has of the other form is removed. */
int arrays_write_folder(const char *folder, const struct named_array *arrays, size_t count,
                        uint64_t most_bytes, struct err *err) WARN_UNUSED;
#define MODEL_SHARD_BYTES UINT64_C(5000000000) /* transformers' max_shard_size, "5GB" */
/* Fills every array from folder/model.safetensors or the shards of its index. F32, F16 and BF16
 * are widened. Names without "transformer." or "model." are accepted; stored mask buffers and
 * rotary tables are ignored, and so is lm_head.weight when tied.
 * Errors name the tensor: missing, of another shape or type, or in the file but not listed. */
int arrays_read(const char *folder, bool tied, const struct named_array *arrays, size_t count,
                struct err *err) WARN_UNUSED;

/* The same for a whole model: config.json, generation_config.json (of a decoder) and weights, above
 * MODEL_SHARD_BYTES in shards, in an existing folder. */
int model_files_write(const char *folder, const struct model *model, struct err *err) WARN_UNUSED;
/* Fills the model's weights; its config must equal the folder's (ERR_INVALID names the field). */
int model_files_read(const char *folder, struct model *model, struct err *err) WARN_UNUSED;
/* config + model_new or model_new_frozen + weights. */
int model_files_open(const char *folder, struct device *device, bool frozen, struct model **out,
                     struct err *err) WARN_UNUSED;

#endif
