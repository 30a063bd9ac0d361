/* arch.c - see arch.h. */
#include "worker/recipes/arch.h"

#include "common/base/mem.h"
#include "common/base/parse.h"

#include <string.h>

static void read_experts(const struct run *run, struct model_config *config)
{
    config->rope_theta = run_float(run, "rope_theta");
    config->experts = run_int(run, "experts");
    config->choices = run_int(run, "experts_per_token");
    config->shared_experts = run_int(run, "shared_experts");
    /* With one choice a gate after it is always 1, and nothing would teach the router. */
    config->gate_before = strcmp(run_string(run, "gate"), "before") == 0 || config->choices == 1;
    config->balance_loss = run_float(run, "balance_loss");
    config->z_loss = run_float(run, "z_loss");
    config->capacity_factor = run_float(run, "capacity_factor");
}

static void read_transnormer(const struct run *run, struct model_config *config)
{
    const char *lrpe = run_string(run, "lrpe"), *decay = run_string(run, "decay");

    config->lrpe = strcmp(lrpe, "none") == 0 ? LRPE_NONE
                   : strcmp(lrpe, "all") == 0 ? LRPE_ALL
                                              : LRPE_FIRST;
    config->decay = strcmp(decay, "none") == 0    ? DECAY_NONE
                    : strcmp(decay, "paper") == 0 ? DECAY_PAPER
                                                  : DECAY_ALIBI;
    config->ungated = !run_bool(run, "output_gate");
    config->plain_embedding = !run_bool(run, "scale_embedding");
}

int arch_config(const struct run *run, const struct corpus *corpus, struct model_config *out,
                struct err *err)
{
    struct model_config config = {
        .vocab_size = dataset_vocab_size(corpus->dataset),
        .context = run_int(run, "context"),
        .width = run_int(run, "d_model"),
        .layers = run_int(run, "layers"),
        .heads = run_int(run, "heads"),
        .kv_heads = run_int(run, "kv_heads"),
        .ffn_width = run_int(run, "d_ff"),
        .tied = run_bool(run, "tied"),
        .bos_token = corpus->begin_of_text,
        .eos_token = corpus->end_of_text,
    };

    if (model_family_parse(run_string(run, "arch"), &config.family, err) < 0)
        return -1;
    config.dropout = run_float(run, "dropout");
    if (config.family == MODEL_LLAMA) {
        config.rope_theta = run_float(run, "rope_theta");
        config.window = run_int(run, "window");
        config.qkv_bias = run_bool(run, "qkv_bias");
        config.alibi = strcmp(run_string(run, "positions"), "alibi") == 0;
    }
    if (config.family == MODEL_OPT) {
        config.post_norm = strcmp(run_string(run, "norm"), "after") == 0;
        config.embed_width = run_int(run, "d_embed");
    }
    if (config.family == MODEL_T5) {
        config.decoder_layers = run_int(run, "decoder_layers");
        config.bos_token = -1;
    }
    if (config.family == MODEL_MOE)
        read_experts(run, &config);
    if (config.family == MODEL_TRANSNORMER)
        read_transnormer(run, &config);
    if (model_config_complete(&config, err) < 0)
        return err_wrap(err, "shape of the new model");
    *out = config;
    return 0;
}

int arch_upscale(const char *range, int64_t layers, int64_t **out_map, int64_t *out_count,
                 struct err *err)
{
    const char *dash = strchr(range, '-');
    char first[24] = "";
    uint64_t from = 0, to = 0;
    struct err ignored;

    if (dash && (size_t)(dash - range) < sizeof first)
        memcpy(first, range, (size_t)(dash - range));
    if (!dash || parse_u64(first, &from, &ignored) < 0 || parse_u64(dash + 1, &to, &ignored) < 0 ||
        from >= to || to > (uint64_t)layers)
        return err_set(err, ERR_INVALID, "parameter 'upscale' is '%s', expected A-B with A below B "
                       "and B at most %lld, the blocks of the init model", range,
                       (long long)layers);
    *out_count = layers + (int64_t)(to - from);
    *out_map = mem_array((size_t)*out_count, sizeof **out_map);
    for (int64_t i = 0; i < *out_count; i++)
        (*out_map)[i] = i < (int64_t)to ? i : i - (int64_t)(to - from);
    return 0;
}
