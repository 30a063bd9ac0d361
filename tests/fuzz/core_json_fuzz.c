/* link: coordinator-core */
/* JSON of workers: whatever is called storable must have balanced structure, and reading from
 * any text must stay within it. */
#include "common/base/json_text.h"
#include "common/base/mem.h"
#include "coordinator/core/state.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena = {0};
    char *text = mem_strndup((const char *)data, size);
    double number;
    const char *value;
    struct json_pair *pairs;
    bool storable = json_is_storable(text, 1 << 16);
    json_number(text, "loss", &number);
    json_text(text, "kind", &arena, &value);
    json_pairs(text, &arena, &pairs);
    if (storable) {
        char *twice = mem_printf("[%s, %s]", text, text);
        size_t depth = 0;
        for (const char *c = text; *c; c++)
            depth += *c == '[' || *c == '{';
        CHECK(depth >= JSON_TEXT_DEPTH_MAX - 1 || json_is_storable(twice, 1 << 18));
        mem_free(twice);
    }
    mem_free(text);
    arena_done(&arena);
    return 0;
}
