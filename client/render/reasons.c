/* reasons.c - see reasons.h. */
#include "client/render/reasons.h"

#include <string.h>

#define LABEL_COLUMNS 12

/* A text of any length, broken at blanks before the terminal's edge. */
static void add_paragraph(struct buf *out, const char *text, const struct style *style)
{
    unsigned width = style->terminal && style->columns > 2 * LABEL_COLUMNS ? style->columns : 1000;
    unsigned column = 2 + LABEL_COLUMNS;
    while (*text) {
        size_t length = strcspn(text, " ");
        const char *word = text;
        if (column + 1 + length > width && column > 2 + LABEL_COLUMNS) {
            buf_printf(out, "\n%*s", 2 + LABEL_COLUMNS, "");
            column = 2 + LABEL_COLUMNS;
        } else if (column > 2 + LABEL_COLUMNS) {
            buf_putc(out, ' ');
            column++;
        }
        struct buf clean = {0};
        buf_add(&clean, word, length);
        text_add_clean(out, buf_text(&clean), 0);
        column += text_width(buf_text(&clean));
        buf_done(&clean);
        text += length + strspn(text + length, " ");
    }
}

static void add_reason(struct buf *out, const struct msg_table *table, size_t row,
                       const struct style *style)
{
    const char *remedy = table_text(table, row, "remedy");
    buf_printf(out, "  %s%-*s%s", tint_on(style, TINT_STRONG), LABEL_COLUMNS,
               table_text(table, row, "reason"), tint_off(style, TINT_STRONG));
    add_paragraph(out, table_text(table, row, "detail"), style);
    buf_putc(out, '\n');
    if (!*remedy || strcmp(remedy, "nothing") == 0)
        return;
    buf_printf(out, "%s%*s", tint_on(style, TINT_QUIET), 2 + LABEL_COLUMNS, "");
    add_paragraph(out, remedy, style);
    buf_printf(out, "%s\n", tint_off(style, TINT_QUIET));
}

void reasons_add(struct buf *out, const struct msg_table *table, const struct style *style)
{
    for (size_t row = 0; row < table_rows(table); row++)
        add_reason(out, table, row, style);
    if (!*table_text(table, 0, "starts"))
        return;
    buf_printf(out, "  %s%-*s%s", tint_on(style, TINT_STRONG), LABEL_COLUMNS, "starts",
               tint_off(style, TINT_STRONG));
    add_paragraph(out, table_text(table, 0, "starts"), style);
    buf_putc(out, '\n');
}
