/* link: client */
/* pilot_config_fuzz.c - any text is pools within their bounds, or errors with places. */
#include "client/pilot/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct pilot_config config;
    struct spec_errors errors = {0};
    if (length > PILOT_CONFIG_BYTES)
        return 0;
    if (pilot_config_read("f", (const char *)bytes, length, &config, &errors) == 0) {
        CHECK(config.pool_count > 0 && config.pool_count <= PILOT_POOLS_MAX && errors.count == 0);
        for (size_t i = 0; i < config.pool_count; i++)
            CHECK(config.pools[i].cores > 0 && config.pools[i].nodes > 0 &&
                  config.pools[i].margin_ms < config.pools[i].time_ms);
        pilot_config_done(&config);
    } else {
        CHECK(errors.count > 0);
    }
    spec_errors_done(&errors);
    return 0;
}
