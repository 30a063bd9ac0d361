/* llmc.c - see llmc.h. */
#include "worker/engine/data/llmc.h"

#include <string.h>

static const struct format {
    int32_t magic, version;
    size_t token_bytes;
} formats[] = {{20240520, 1, 2}, {20240801, 7, 4}};

static int32_t header_at(const void *bytes, size_t index)
{
    int32_t value;
    memcpy(&value, (const char *)bytes + index * sizeof value, sizeof value);
    return value;
}

static const struct format *format_of(const void *bytes, size_t length)
{
    for (size_t i = 0; i < ARRAY_COUNT(formats) && length >= sizeof(int32_t); i++)
        if (header_at(bytes, 0) == formats[i].magic)
            return &formats[i];
    return NULL;
}

bool llmc_is(const void *bytes, size_t length)
{
    return format_of(bytes, length) != NULL;
}

int llmc_parse(const void *bytes, size_t length, struct llmc_tokens *out, struct err *err)
{
    const struct format *format = format_of(bytes, length);
    if (!format || length < LLMC_HEADER_BYTES)
        return err_set(err, ERR_PROTOCOL, "no token file of llm.c: its header of %d bytes is %s",
                       LLMC_HEADER_BYTES, format ? "cut off" : "another");
    int32_t version = header_at(bytes, 1), count = header_at(bytes, 2);
    uint64_t have = (length - LLMC_HEADER_BYTES) / format->token_bytes;
    if (version != format->version)
        return err_set(err, ERR_PROTOCOL, "a token file of llm.c of version %d; %d is accepted "
                       "with magic %d", version, format->version, format->magic);
    if (count < 0 || (uint64_t)count != have ||
        have * format->token_bytes != length - LLMC_HEADER_BYTES)
        return err_set(err, ERR_PROTOCOL, "a token file of llm.c that promises %d tokens of %zu "
                       "bytes and holds %zu bytes of them", count, format->token_bytes,
                       length - LLMC_HEADER_BYTES);
    *out = (struct llmc_tokens){(const uint8_t *)bytes + LLMC_HEADER_BYTES, format->token_bytes,
                                have};
    return 0;
}

uint32_t llmc_token(const struct llmc_tokens *file, uint64_t index)
{
    const uint8_t *at = file->tokens + index * file->token_bytes;
    uint16_t narrow;
    uint32_t wide;
    if (file->token_bytes == sizeof narrow) {
        memcpy(&narrow, at, sizeof narrow);
        return narrow;
    }
    memcpy(&wide, at, sizeof wide);
    return wide;
}
