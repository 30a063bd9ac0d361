/* link: engine-data */
/* wordnet_fuzz.c - an accepted record has its lemmas, pointers and gloss. */
#include "worker/engine/data/wordnet.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct err err;
    struct arena arena = {0};
    struct synset synset;
    if (wordnet_record_parse(&arena, (const char *)bytes, length, &synset, &err) == 0) {
        CHECK(synset.lemma_count >= 1 && synset.gloss && synset.lexfile < WORDNET_LEXFILE_END);
        for (size_t i = 0; i < synset.lemma_count; i++)
            CHECK(strlen(synset.lemmas[i]) <= length && !strchr(synset.lemmas[i], '_'));
        for (size_t i = 0; i < synset.pointer_count; i++)
            CHECK(synset.pointers[i].file < WORDNET_FILE_END);
    }
    arena_done(&arena);
    return 0;
}
