/* bar.c - progress bars; see bar.h. */
#include "client/render/bar.h"

void bar_add(struct buf *out, uint64_t done, uint64_t total, unsigned columns)
{
    static const char *const eighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    uint64_t filled = 0;
    if (total > 0)
        filled = (uint64_t)((double)min_u64(done, total) / (double)total * columns * 8);
    buf_puts(out, "▕");
    unsigned used = 0;
    for (; used < filled / 8; used++)
        buf_puts(out, "█");
    if (filled % 8) {
        buf_puts(out, eighths[filled % 8]);
        used++;
    }
    for (; used < columns; used++)
        buf_putc(out, ' ');
    buf_puts(out, "▏");
}
