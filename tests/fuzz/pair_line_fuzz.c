/* link: recipes */
/* pair_line_fuzz.c - an accepted line has two texts and a label, each on one line. */
#include "worker/recipes/data/pair_line.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct err err;
    struct pair_line line;
    if (pair_line_parse((const char *)bytes, length, &line, &err) == 0) {
        CHECK(*line.x && !strpbrk(line.x, "\n\r\t") && *line.y && !strpbrk(line.y, "\n\r\t"));
        CHECK(*line.label && strlen(line.label) <= PAIR_LABEL_MAX && !strchr(line.label, '\n'));
        pair_line_done(&line);
    }
    return 0;
}
