/* link: common-base PkgConfig::JANSSON */
/* json_text_fuzz.c - what is taken for storable JSON, jansson takes too (it is at least as lenient
 * but for numbers); and any bytes quoted are JSON. */
#include "common/base/json_text.h"

#include <jansson.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    const char *text = (const char *)bytes;
    struct buf quoted = {0};

    if (length == 0)
        return 0;
    if (json_text_is_valid(text, length)) {
        json_error_t error;
        json_t *value = json_loadb(text, length, JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL, &error);
        CHECK(value || json_error_code(&error) == json_error_numeric_overflow);
        json_decref(value);
    }
    json_text_quote(&quoted, text, length);
    CHECK(json_text_is_valid(quoted.bytes, quoted.length));
    buf_done(&quoted);
    return 0;
}
