/* link: engine-io */
/* adapter_config_fuzz.c - any bytes as an adapter_config.json: refused with a reason or read. */
#include "worker/engine/io/adapters.h"

#include "common/base/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct adapter_config config;
    struct err err = {0};

    if (adapter_config_parse((const char *)bytes, size, &config, &err) < 0) {
        CHECK(err.kind != ERR_NONE && err.text[0]);
        return 0;
    }
    CHECK(config.rank > 0 && config.scale > 0);
    adapter_config_done(&config);
    return 0;
}
