/* charbpe.c - see charbpe.h. */
#include "worker/engine/data/charbpe.h"

#include "common/base/mem.h"
#include "worker/engine/data/tokenizer_parts.h"

#include <string.h>

#define MARK "\xE2\x96\x81" /* U+2581 */
#define MARK_BYTES 3

int charbpe_finish(struct tokenizer *t, struct err *err)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        char name[8];

        snprintf(name, sizeof name, "<0x%02X>", byte);
        t->charbpe.byte_of[byte] = tokenizer_find(t, name, strlen(name));
        if (t->charbpe.byte_of[byte] == TOKENIZER_VOCAB_MAX)
            return err_set(err, ERR_INVALID, "byte_fallback is set, but there is no token %s",
                           name);
    }
    return 0;
}

static void put_marked(const struct charbpe *c, const char *text, size_t length, struct buf *out)
{
    if (c->mark_first)
        buf_puts(out, MARK);
    for (size_t i = 0; i < length; i++) {
        if (text[i] == ' ')
            buf_puts(out, MARK);
        else
            buf_putc(out, text[i]);
    }
}

static void add_character(const struct tokenizer *t, const char *text, size_t bytes,
                          struct token_list *out)
{
    uint32_t entry = byte_map_find(&t->vocab, text, bytes);

    if (entry != BYTE_MAP_NONE) {
        token_list_add(out, (uint32_t)t->vocab.entries[entry].value);
        return;
    }
    for (size_t i = 0; i < bytes; i++)
        token_list_add(out, t->charbpe.byte_of[(uint8_t)text[i]]);
}

void charbpe_encode(const struct tokenizer *t, const char *text, size_t length,
                    struct token_list *out)
{
    struct buf marked = {0};
    size_t first = out->count, count;

    if (length == 0)
        return;
    put_marked(&t->charbpe, text, length, &marked);
    for (size_t at = 0, bytes; at < marked.length; at += bytes) {
        bytes = tokenizer_char_bytes(marked.bytes + at, marked.length - at);
        add_character(t, marked.bytes + at, bytes, out);
    }
    buf_done(&marked);
    count = out->count - first;
    out->count = first + (count <= BPE_SCAN_MAX
                              ? bpe_merge_scan(&t->merges, out->ids + first, count)
                              : bpe_merge_heap(&t->merges, out->ids + first, count));
}

/* The byte that a token spells; -1 for other tokens. */
static int byte_of(const struct tokenizer *t, uint32_t id, const char *piece, size_t length)
{
    static const char digits[] = "0123456789ABCDEF";
    const char *high, *low;

    if (length != 6 || memcmp(piece, "<0x", 3) != 0)
        return -1;
    high = memchr(digits, piece[3], 16);
    low = memchr(digits, piece[4], 16);
    if (!high || !low)
        return -1;
    int byte = (int)(16 * (high - digits) + (low - digits));
    return t->charbpe.byte_of[byte] == id ? byte : -1;
}

void charbpe_decode(const struct tokenizer *t, const uint32_t *ids, size_t count, struct buf *out)
{
    for (size_t i = 0; i < count; i++) {
        size_t length;
        const char *piece = tokenizer_token(t, ids[i], &length);
        int byte = byte_of(t, ids[i], piece, length);

        if (byte >= 0) {
            buf_putc(out, (char)byte);
            continue;
        }
        for (size_t k = 0; k < length;) {
            bool mark = length - k >= MARK_BYTES && memcmp(piece + k, MARK, MARK_BYTES) == 0;

            if (!mark)
                buf_putc(out, piece[k]);
            else if (i > 0 || k > 0 || !t->charbpe.mark_first)
                buf_putc(out, ' ');
            k += mark ? MARK_BYTES : 1;
        }
    }
}
