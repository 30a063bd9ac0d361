/* style.c - colours, widths, and texts from outside made harmless; see style.h. */
#include "client/render/style.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <utf8proc.h>

static unsigned columns_of(FILE *out)
{
    struct winsize size;
    const char *text = getenv("COLUMNS");
    if (ioctl(fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col;
    long columns = text ? strtol(text, NULL, 10) : 0;
    return columns > 0 && columns < 10000 ? (unsigned)columns : 80;
}

static bool wants_color(bool terminal, const char *when)
{
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
    if (when && strcmp(when, "always") == 0)
        return true;
    if (when && strcmp(when, "never") == 0)
        return false;
    return terminal && !(no && *no) && !(term && strcmp(term, "dumb") == 0);
}

struct style style_of(FILE *out, const char *when)
{
    bool terminal = isatty(fileno(out));
    return (struct style){terminal, wants_color(terminal, when), columns_of(out)};
}

const char *tint_on(const struct style *style, enum tint tint)
{
    static const char *const sequences[TINT_END] = {
        [TINT_NONE] = "",         [TINT_GOOD] = "\033[32m", [TINT_BAD] = "\033[31m",
        [TINT_BUSY] = "\033[36m", [TINT_QUIET] = "\033[2m", [TINT_STRONG] = "\033[1m",
    };
    return style->color ? sequences[tint] : "";
}

const char *tint_off(const struct style *style, enum tint tint)
{
    return style->color && tint != TINT_NONE ? "\033[0m" : "";
}

enum tint tint_of_state(const char *state)
{
    static const struct {
        const char *state;
        enum tint tint;
    } tints[] = {
        {"succeeded", TINT_GOOD}, {"failed", TINT_BAD},     {"cancelled", TINT_QUIET},
        {"running", TINT_BUSY},   {"stopping", TINT_BUSY},  {"placed", TINT_BUSY},
        {"ok", TINT_GOOD},        {"suspect", TINT_BAD},    {"lost", TINT_BAD},
        {"left", TINT_QUIET},     {"backoff", TINT_STRONG}, {"started", TINT_GOOD},
        {"held", TINT_QUIET},
    };
    if (strchr(state, '('))
        return TINT_BAD;
    for (size_t i = 0; i < ARRAY_COUNT(tints); i++)
        if (strcasecmp(state, tints[i].state) == 0)
            return tints[i].tint;
    return TINT_NONE;
}

/* Takes one code point; a byte that is not UTF-8 counts as one of unknown value (-1). */
static size_t next_point(const char *text, size_t left, utf8proc_int32_t *out)
{
    utf8proc_ssize_t used =
        utf8proc_iterate((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)left, out);
    if (used > 0)
        return (size_t)used;
    *out = -1;
    return 1;
}

static unsigned width_of(utf8proc_int32_t point)
{
    if (point < 0)
        return 1;
    int width = utf8proc_charwidth(point);
    return width > 0 ? (unsigned)width : 0;
}

static bool is_control(utf8proc_int32_t point)
{
    /* C0, DEL, C1, and the marks that reorder a line (bidirectional embeddings and isolates). */
    return point < 0x20 || (point >= 0x7f && point < 0xa0) ||
           (point >= 0x202a && point <= 0x202e) || (point >= 0x2066 && point <= 0x2069);
}

unsigned text_width(const char *text)
{
    unsigned width = 0;
    for (size_t left = strlen(text), used; left > 0; left -= used, text += used) {
        utf8proc_int32_t point;
        used = next_point(text, left, &point);
        width += is_control(point) ? 1 : width_of(point);
    }
    return width;
}

void text_add_clean(struct buf *out, const char *text, unsigned columns)
{
    bool cut = columns > 0 && text_width(text) > columns;
    unsigned room = cut ? columns - 1 : UINT32_MAX, width = 0;
    for (size_t left = strlen(text), used; left > 0; left -= used, text += used) {
        utf8proc_int32_t point;
        used = next_point(text, left, &point);
        unsigned needed = is_control(point) ? 1 : width_of(point);
        if (width + needed > room)
            break;
        width += needed;
        if (point == '\n' || point == '\t' || point == '\r')
            buf_putc(out, ' ');
        else if (is_control(point))
            buf_putc(out, '?');
        else
            buf_add(out, text, used);
    }
    if (cut)
        buf_puts(out, "…");
}

void text_add_output(struct buf *out, const char *text, size_t length)
{
    for (size_t used; length > 0; length -= used, text += used) {
        utf8proc_int32_t point;
        used = next_point(text, length, &point);
        if (is_control(point) && point != '\n' && point != '\t')
            buf_putc(out, '?');
        else
            buf_add(out, text, used);
    }
}
