/* roff.c - see roff.h. */
#include "common/base/roff.h"

/* One line's worth of characters that roff would change or obey. */
static void add_escaped(struct buf *out, const char *text, bool line_start)
{
    for (const char *at = text; *at; at++) {
        if (line_start && *at == '.')
            buf_puts(out, "\\&.");
        else if (*at == '\\')
            buf_puts(out, "\\e");
        else if (*at == '-')
            buf_puts(out, "\\-");
        else if (*at == '\'')
            buf_puts(out, "\\(aq");
        else if (*at == '"')
            buf_puts(out, "\\(dq");
        else
            buf_putc(out, *at);
        line_start = *at == '\n';
    }
}

void roff_title(struct buf *out, const char *name, int section, const char *about,
                const char *summary)
{
    buf_puts(out, ".TH \"");
    for (const char *at = name; *at; at++)
        buf_putc(out, *at >= 'a' && *at <= 'z' ? (char)(*at - 'a' + 'A') : *at);
    buf_printf(out, "\" %d \"\" \"%s\"\n.SH NAME\n", section, about);
    add_escaped(out, name, true);
    buf_puts(out, " \\- ");
    add_escaped(out, summary, false);
    buf_putc(out, '\n');
}

void roff_section(struct buf *out, const char *title)
{
    buf_puts(out, ".SH ");
    add_escaped(out, title, false);
    buf_putc(out, '\n');
}

void roff_subsection(struct buf *out, const char *title)
{
    buf_puts(out, ".SS ");
    add_escaped(out, title, false);
    buf_putc(out, '\n');
}

void roff_text(struct buf *out, const char *text)
{
    struct buf escaped = {0};

    add_escaped(&escaped, text, true);
    for (const char *at = buf_text(&escaped); *at; at++) {
        if (at[0] == '\n' && at[1] == '\n') {
            buf_puts(out, "\n.PP\n");
            while (at[1] == '\n')
                at++;
        } else {
            buf_putc(out, *at);
        }
    }
    buf_putc(out, '\n');
    buf_done(&escaped);
}

void roff_block(struct buf *out, const char *text)
{
    buf_puts(out, ".PP\n.nf\n");
    add_escaped(out, text, true);
    buf_puts(out, "\n.fi\n");
}

void roff_item(struct buf *out, const char *term, const char *value, const char *text)
{
    buf_puts(out, ".TP\n\\fB");
    add_escaped(out, term, false);
    buf_puts(out, "\\fR");
    if (value) {
        buf_puts(out, " \\fI");
        add_escaped(out, value, false);
        buf_puts(out, "\\fR");
    }
    buf_putc(out, '\n');
    roff_text(out, text);
}
