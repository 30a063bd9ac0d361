/* config_parts.h - the fields of a config.json, and the formats that are made of them.
 *
 * A format is one model_type of transformers (or of ours). Readers refuse what the engine does
 * not compute in the same way; errors name the field and what is accepted. */
#ifndef ATHANOR_CONFIG_PARTS_H
#define ATHANOR_CONFIG_PARTS_H

#include "worker/engine/model.h"

#include <jansson.h>

struct config_format {
    const char *model_type;
    enum model_family family;
    const char *(*architecture)(const struct model_config *config); /* transformers' class */
    bool (*holds)(const struct model_config *config); /* NULL: every config of the family */
    /* Everything but vocab_size, initializer_range, the tokens and tie_word_embeddings' text. */
    int (*read)(json_t *root, struct model_config *out, struct err *err);
    void (*put)(json_t *root, const struct model_config *config);
};

extern const struct config_format config_gpt2, config_opt, config_llama, config_bert;
extern const struct config_format config_roberta, config_kona;
extern const struct config_format config_mixtral, config_olmoe, config_moe;
extern const struct config_format config_transnormer, config_t5, config_mistral, config_alibi;
extern const struct config_format config_qwen2;

bool config_is_absent(json_t *value); /* also null */
/* A positive size; `fallback` when absent or null, which is refused when fallback is 0. */
int config_read_size(json_t *root, const char *field, int64_t fallback, int64_t *out,
                     struct err *err) WARN_UNUSED;
int config_read_positive(json_t *root, const char *field, double fallback, double *out,
                         struct err *err) WARN_UNUSED;
int config_read_bool(json_t *root, const char *field, bool fallback, bool *out,
                     struct err *err) WARN_UNUSED;
/* -1 when absent or outside the vocabulary. */
int config_read_token(json_t *root, const char *field, int64_t vocab_size, int32_t *out,
                      struct err *err) WARN_UNUSED;
/* eos_token_id, a number or a list: of the vocabulary's tokens the first MODEL_ENDS_MAX. Tokens as
 * before when absent or null. Errors: ERR_INVALID, ERR_LIMIT (more are listed). */
int config_read_ends(json_t *root, struct model_config *out, struct err *err) WARN_UNUSED;
json_t *config_ends_json(const struct model_config *config);
/* relu, silu (swish), gelu, gelu_new (gelu_pytorch_tanh), tanh. */
int config_read_activation(json_t *root, const char *field, enum activation fallback,
                           enum activation *out, struct err *err) WARN_UNUSED;
const char *config_activation_name(enum activation activation);
int config_expect_text(json_t *root, const char *field, const char *fallback,
                       const char *accepted, const char *also_accepted,
                       struct err *err) WARN_UNUSED;
int config_expect_bool(json_t *root, const char *field, bool accepted, struct err *err) WARN_UNUSED;
int config_expect_null(json_t *root, const char *field, struct err *err) WARN_UNUSED;

/* rope_theta and rope of out, whose context is known; see config_rope.c. A missing base, two that
 * differ, and a scaling that the engine does not compute are ERR_INVALID. */
int config_read_rope(json_t *root, struct model_config *out, struct err *err) WARN_UNUSED;
void config_put_rope(json_t *root, const struct model_config *config);

json_t *config_token_json(int32_t token);
/* Takes value, which must not be NULL. */
void config_put(json_t *root, const char *field, json_t *value);

#endif
