/* charbpe.c - see charbpe.h. */
#include "worker/engine/data/charbpe.h"

#include "common/base/mem.h"
#include "worker/engine/data/metaspace.h"
#include "worker/engine/data/tokenizer_parts.h"

#include <string.h>

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
    if (t->charbpe.mark_first)
        buf_puts(&marked, METASPACE);
    metaspace_put(text, length, &marked);
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

void charbpe_decode(const struct tokenizer *t, const uint32_t *ids, size_t count, struct buf *out)
{
    for (size_t i = 0; i < count; i++) {
        size_t length;
        const char *piece = tokenizer_token(t, ids[i], &length);
        int byte = metaspace_byte(piece, length);

        if (byte >= 0 && t->charbpe.byte_of[byte] == ids[i])
            buf_putc(out, (char)byte);
        else
            metaspace_decode(piece, length, i == 0 && t->charbpe.mark_first, out);
    }
}
