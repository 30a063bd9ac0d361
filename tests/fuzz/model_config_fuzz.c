/* link: engine-io */
/* model_config_fuzz.c - an accepted config.json is sound, and its own text reads back. */
#include "common/base/mem.h"
#include "worker/engine/io/model_files.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct err err;
    struct model_config config, again;
    if (model_config_parse((const char *)bytes, length, &config, &err) < 0)
        return 0;
    CHECK(config.vocab_size > 0 && config.width > 0 && config.heads > 0 && config.layers > 0);
    CHECK(config.heads % config.kv_heads == 0 && config.head_width > 0);
    CHECK(config.family != MODEL_LLAMA || config.rope_theta > 0);
    char *text = model_config_text(&config);
    CHECK(model_config_parse(text, strlen(text), &again, &err) == 0);
    CHECK(again.width == config.width && again.ffn_width == config.ffn_width);
    CHECK(rope_scaling_equal(&again.rope, &config.rope));
    mem_free(text);
    return 0;
}
