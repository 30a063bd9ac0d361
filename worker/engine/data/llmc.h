/* llmc.h - token files of llm.c, as its dev/data scripts write them (fineweb, edu_fineweb, ...).
 *
 * 256 int32, little-endian: magic, version, number of tokens, zeros; then the tokens, as u16 with
 * magic 20240520 and version 1 (GPT-2), as u32 with magic 20240801 and version 7 (Llama 3). Each
 * document begins with <|endoftext|>, and may go on in the next file.
 * Source: dev/data/data_common.py of github.com/karpathy/llm.c. */
#ifndef ATHANOR_LLMC_H
#define ATHANOR_LLMC_H

#include "common/base/err.h"

#define LLMC_HEADER_BYTES 1024

struct llmc_tokens {
    const uint8_t *tokens; /* in the bytes that were parsed; not aligned */
    size_t token_bytes;    /* 2 or 4 */
    uint64_t count;
};

/* Whether the file is one of these at all, by its first four bytes. */
bool llmc_is(const void *bytes, size_t length);
/* Errors: ERR_PROTOCOL (another version, or not as long as it says). */
int llmc_parse(const void *bytes, size_t length, struct llmc_tokens *out,
               struct err *err) WARN_UNUSED;
uint32_t llmc_token(const struct llmc_tokens *file, uint64_t index); /* index < count */

#endif
