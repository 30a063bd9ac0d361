/* link: engine-data */
/* llmc_fuzz.c - every token of an accepted file lies within it. */
#include "worker/engine/data/llmc.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct llmc_tokens file;
    struct err err;
    uint64_t sum = 0;
    if (llmc_parse(bytes, length, &file, &err) < 0)
        return 0;
    CHECK(llmc_is(bytes, length));
    CHECK(LLMC_HEADER_BYTES + file.count * file.token_bytes == length);
    for (uint64_t i = 0; i < file.count; i++)
        sum += llmc_token(&file, i);
    CHECK(sum < UINT64_MAX);
    return 0;
}
