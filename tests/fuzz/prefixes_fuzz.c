/* link: recipes */
/* prefixes_fuzz.c - accepted prefixes are text, no blanks at its ends, and read the same again. */
#include "common/base/buf.h"
#include "common/base/parse.h"
#include "worker/recipes/distillation/impossible/prefixes.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct err err;
    struct prefixes prefixes, again;
    struct buf text = {0};

    if (prefixes_parse((const char *)bytes, length, &prefixes, &err) < 0)
        return 0;
    for (size_t i = 0; i < prefixes.count; i++) {
        size_t size = strlen(prefixes.items[i]);
        CHECK(size > 0 && size <= PREFIX_BYTES_MAX && text_is_utf8(prefixes.items[i], size));
        buf_printf(&text, " %s\n", prefixes.items[i]);
    }
    CHECK(prefixes_parse(buf_text(&text), text.length, &again, &err) == 0);
    CHECK(again.count == prefixes.count);
    for (size_t i = 0; i < again.count; i++)
        CHECK(strcmp(again.items[i], prefixes.items[i]) == 0);
    prefixes_done(&again);
    prefixes_done(&prefixes);
    buf_done(&text);
    return 0;
}
