/* link: client */
/* conninfo_fuzz.c - no connection string makes the splitter read beyond its end, and taking the
 * password out twice finds none the second time. */
#include "client/conninfo.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct arena arena = {0};
    struct err err = {0};
    const char *rest, *again, *password;
    const char *text = arena_strndup(&arena, (const char *)bytes, length);
    if (conninfo_split(&arena, text, &rest, &password, &err) == 0) {
        CHECK(strlen(rest) <= 2 * strlen(text)); /* a space between what stood without one */
        CHECK(conninfo_split(&arena, rest, &again, &password, &err) == 0 && !password);
    }
    arena_done(&arena);
    return 0;
}
