/* adapters.h - low-rank adapters in files as peft reads and writes them.
 *
 *   adapter_config.json        {"peft_type": "LORA", "r", "lora_alpha", "target_modules",
 *                              "base_model_name_or_path", ...}
 *   adapter_model.safetensors  base_model.model.<name of the module>.lora_A.weight (r, in) and
 *                              .lora_B.weight (out, r)
 * What would change the sum W + (alpha / r) B A (dora, biases, whole modules, ranks by pattern) is
 * refused by name; rank-stabilised scales (alpha / sqrt(r)) are read. Source: peft's LoraConfig
 * and save_and_load.py. */
#ifndef ATHANOR_ADAPTERS_H
#define ATHANOR_ADAPTERS_H

#include "worker/engine/lora.h"

struct adapter_config {
    int64_t rank;
    double scale; /* of B A */
    char *base;   /* base_model_name_or_path; NULL when absent. mem_free */
};
/* Errors: ERR_PROTOCOL for damaged JSON; ERR_INVALID naming the field and what is accepted. */
int adapter_config_parse(const char *json, size_t length, struct adapter_config *out,
                         struct err *err) WARN_UNUSED;
void adapter_config_done(struct adapter_config *config);

/* Both files into an existing folder. base: where the model without them lies. */
int adapters_write(const char *folder, struct lora *lora, const char *base,
                   struct err *err) WARN_UNUSED;
/* Fills adapters of the same rank and targets. Errors: ERR_INVALID naming what differs. */
int adapters_read(const char *folder, struct lora *lora, struct err *err) WARN_UNUSED;
/* Adds a folder's adapters to a model's weights (host arithmetic in double). Errors: ERR_INVALID
 * for an adapter of a weight that the model does not have, or of another shape. */
int adapters_merge(const char *folder, struct model *model, struct err *err) WARN_UNUSED;

/* Whether a folder holds adapters and no model: then it is opened by adapters_open. */
bool adapters_alone(const char *folder);
/* The base model that the folder names, with its adapters merged. */
int adapters_open(const char *folder, struct device *device, bool frozen, struct model **out,
                  struct err *err) WARN_UNUSED;

#endif
