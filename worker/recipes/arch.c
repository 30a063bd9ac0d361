/* arch.c - see arch.h. */
#include "worker/recipes/arch.h"

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
        .bos_token = corpus->end_of_text,
        .eos_token = corpus->end_of_text,
    };

    if (model_family_parse(run_string(run, "arch"), &config.family, err) < 0)
        return -1;
    if (config.family == MODEL_LLAMA)
        config.rope_theta = run_float(run, "rope_theta");
    if (model_config_complete(&config, err) < 0)
        return err_wrap(err, "shape of the new model");
    *out = config;
    return 0;
}
