/* link: common-spec */
/* catalogue_fuzz.c - any bytes are a recipe catalogue or are refused; adding twice adds once. */
#include "common/spec/catalogue.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct catalogue *catalogue = catalogue_new();
    struct err err;
    if (catalogue_add(catalogue, (const char *)bytes, length, &err) == 0) {
        size_t count = catalogue->count;
        CHECK(catalogue_add(catalogue, (const char *)bytes, length, &err) == 0);
        CHECK(catalogue->count == count);
        for (size_t i = 0; i < count; i++) {
            const struct catalogue_recipe *recipe = &catalogue->recipes[i];
            CHECK(catalogue_find(catalogue, recipe->kind, recipe->name) == recipe);
        }
    } else {
        CHECK(err.text[0] != '\0' && catalogue->count == 0);
    }
    catalogue_free(catalogue);
    return 0;
}
