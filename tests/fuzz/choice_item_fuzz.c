/* link: recipes */
/* choice_item_fuzz.c - any bytes as a line of multiple choice: refused with a reason or sound. */
#include "worker/recipes/eval/choices.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct choice_item item;
    struct err err = {0};

    if (choice_item_parse((const char *)bytes, size, &item, &err) < 0) {
        CHECK(err.kind != ERR_NONE && err.text[0]);
        return 0;
    }
    CHECK(item.count >= 2 && item.gold < item.count && item.context);
    CHECK(!item.label || item.label[item.gold]);
    choice_item_done(&item);
    return 0;
}
