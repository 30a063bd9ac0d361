/* metaspace.c - see metaspace.h. */
#include "worker/engine/data/metaspace.h"

#include <string.h>

void metaspace_put(const char *text, size_t length, struct buf *out)
{
    for (size_t i = 0; i < length; i++) {
        if (text[i] == ' ')
            buf_puts(out, METASPACE);
        else
            buf_putc(out, text[i]);
    }
}

bool metaspace_begins(const char *text, size_t length)
{
    return length >= METASPACE_BYTES && memcmp(text, METASPACE, METASPACE_BYTES) == 0;
}

void metaspace_decode(const char *piece, size_t length, bool drop_first, struct buf *out)
{
    for (size_t k = 0; k < length;) {
        bool mark = metaspace_begins(piece + k, length - k);

        if (!mark)
            buf_putc(out, piece[k]);
        else if (k > 0 || !drop_first)
            buf_putc(out, ' ');
        k += mark ? METASPACE_BYTES : 1;
    }
}

int metaspace_byte(const char *piece, size_t length)
{
    static const char digits[] = "0123456789ABCDEF";
    const char *high, *low;

    if (length != 6 || memcmp(piece, "<0x", 3) != 0 || piece[5] != '>')
        return -1;
    high = memchr(digits, piece[3], 16);
    low = memchr(digits, piece[4], 16);
    return high && low ? (int)(16 * (high - digits) + (low - digits)) : -1;
}
