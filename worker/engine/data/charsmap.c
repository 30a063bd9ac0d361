/* charsmap.c - see charsmap.h. */
#include "worker/engine/data/charsmap.h"

#include <string.h>

static uint32_t little_u32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

int charsmap_open(const void *bytes, size_t length, struct charsmap *out, struct err *err)
{
    const uint8_t *at = bytes;
    uint32_t trie_bytes;

    *out = (struct charsmap){0};
    if (length == 0)
        return 0;
    trie_bytes = length >= 4 ? little_u32(at) : 0;
    if (length < 4 || trie_bytes == 0 || trie_bytes % 4 != 0 || trie_bytes > length - 4)
        return err_set(err, ERR_PROTOCOL, "normalisation map of %zu bytes names a trie of %u",
                       length, trie_bytes);
    *out = (struct charsmap){.trie = at + 4, .unit_count = trie_bytes / 4,
                             .texts = (const char *)at + 4 + trie_bytes,
                             .text_bytes = length - 4 - trie_bytes};
    if (out->text_bytes == 0 || out->texts[out->text_bytes - 1] != '\0')
        return err_set(err, ERR_PROTOCOL, "the texts of the normalisation map do not end");
    return 0;
}

/* The fields of a unit of a darts-clone array. */
static uint32_t unit_offset(uint32_t unit)
{
    return (unit >> 10) << ((unit & 0x200u) >> 6);
}

static bool unit_at(const struct charsmap *map, uint32_t node, uint32_t *out)
{
    if (node >= map->unit_count)
        return false;
    *out = little_u32(map->trie + 4 * (size_t)node);
    return true;
}

size_t charsmap_match(const struct charsmap *map, const char *text, size_t length,
                      const char **out_text, size_t *out_length)
{
    uint32_t node = 0, unit;
    size_t found = 0;

    if (!map->trie || !unit_at(map, 0, &unit))
        return 0;
    node ^= unit_offset(unit);
    for (size_t i = 0; i < length; i++) {
        uint32_t leaf;

        node ^= (uint8_t)text[i];
        if (!unit_at(map, node, &unit) || (unit & 0x800000FFu) != (uint8_t)text[i])
            break;
        node ^= unit_offset(unit);
        if (!((unit >> 8) & 1) || !unit_at(map, node, &leaf))
            continue;
        leaf &= 0x7FFFFFFFu;
        if (leaf >= map->text_bytes)
            continue;
        *out_text = map->texts + leaf;
        *out_length = strlen(*out_text);
        found = i + 1;
    }
    return found;
}

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void base64_write(const void *bytes, size_t length, struct buf *out)
{
    const uint8_t *at = bytes;

    for (size_t i = 0; i < length; i += 3) {
        size_t part = length - i < 3 ? length - i : 3;
        uint32_t word = (uint32_t)at[i] << 16;

        if (part > 1)
            word |= (uint32_t)at[i + 1] << 8;
        if (part > 2)
            word |= at[i + 2];
        for (size_t k = 0; k < 4; k++)
            buf_putc(out, k <= part ? alphabet[word >> (18 - 6 * k) & 63] : '=');
    }
}

int base64_read(const char *text, size_t length, struct buf *out, struct err *err)
{
    size_t padding = 0;

    while (padding < 2 && padding < length && text[length - 1 - padding] == '=')
        padding++;
    if (length % 4 != 0)
        return err_set(err, ERR_PROTOCOL, "base 64 of %zu characters, expected a multiple of 4",
                       length);
    for (size_t i = 0; i < length; i += 4) {
        uint32_t word = 0;
        size_t kept = i + 4 == length ? 3 - padding : 3;

        for (size_t k = 0; k < 4; k++) {
            const char *at = text[i + k] ? strchr(alphabet, text[i + k]) : NULL;
            bool filler = i + k >= length - padding;

            if (!at && !filler)
                return err_set(err, ERR_PROTOCOL, "character %zu is not base 64", i + k);
            word = word << 6 | (filler ? 0 : (uint32_t)(at - alphabet));
        }
        for (size_t k = 0; k < kept; k++)
            buf_putc(out, (char)(word >> (16 - 8 * k)));
    }
    return 0;
}
