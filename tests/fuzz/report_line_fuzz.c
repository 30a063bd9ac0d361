/* link: worker-shepherd */
/* report_line_fuzz.c - lines of the report socket, from any program. */
#include "worker/shepherd/report_line.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct arena arena = {0};
    struct report_line line;
    struct err err = {0};
    if (report_line_parse((const char *)bytes, length, &arena, &line, &err) == 0) {
        CHECK(line.kind > 0 && line.kind < LINE_KIND_END);
        CHECK(line.value_count <= REPORT_VALUES_MAX);
        CHECK(line.name && line.path && line.text && line.meta);
    } else {
        CHECK(err.kind == ERR_INVALID && err.text[0]);
    }
    arena_done(&arena);
    return 0;
}
