/* link: recipes */
/* predicate_fuzz.c - any text as a condition over documents: what is accepted judges documents that
 * have everything and those that have nothing, and is accepted again as it was given. */
#include "common/base/mem.h"
#include "worker/recipes/data/web/predicate.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    static const struct predicate_name names[] = {
        {"words", "gopher", false}, {"language", "language", false}, {"topic", "topic", true},
        {"source", NULL, true}};
    static const struct predicate_value all[] = {
        {true, 50, NULL}, {true, 0.5, NULL}, {true, 0, "ads"}, {true, 0, "books"}};
    static const struct predicate_value none[ARRAY_COUNT(names)];
    char *text = mem_strndup((const char *)bytes, strnlen((const char *)bytes, length));
    struct predicate *one, *two;
    struct err err;

    if (predicate_parse(text, names, ARRAY_COUNT(names), &one, &err) < 0) {
        CHECK(err.kind == ERR_INVALID && strncmp(err.text, "column ", 7) == 0);
    } else {
        CHECK(strcmp(predicate_text(one), text) == 0);
        CHECK(predicate_parse(predicate_text(one), names, ARRAY_COUNT(names), &two, &err) == 0);
        CHECK(predicate_holds(one, all) == predicate_holds(two, all));
        CHECK(predicate_holds(one, none) == predicate_holds(two, none));
        predicate_free(one);
        predicate_free(two);
    }
    mem_free(text);
    return 0;
}
