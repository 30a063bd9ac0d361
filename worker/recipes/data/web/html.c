/* html.c - see html.h. Section names in quotes are those of the WHATWG HTML standard. */
#include "worker/recipes/data/web/html.h"

#include "worker/recipes/data/web/chars.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define NAME_MAX_BYTES 32 /* of elements that matter, and of character references */

/* ---- elements --------------------------------------------------------------------------- */

/* Their content is text to the end tag, and not shown. */
static const char *const raw[] = {"iframe",   "noembed",  "noframes", "script",
                                  "style",    "textarea", "title"};
/* Not shown without scripts, or not as text. */
static const char *const unseen[] = {"audio",    "canvas", "datalist", "noscript", "object",
                                     "select",   "svg",    "template", "video"};
/* Sorted. They begin and end lines. */
static const char *const blocks[] = {
    "address", "article", "aside",  "blockquote", "body",   "br",       "caption", "center",
    "dd",      "details", "dialog", "dir",        "div",    "dl",       "dt",      "fieldset",
    "figcaption", "figure", "footer", "form",     "h1",     "h2",       "h3",      "h4",
    "h5",      "h6",      "head",   "header",     "hgroup", "hr",       "html",    "legend",
    "li",      "listing", "main",   "menu",       "nav",    "ol",       "option",  "p",
    "plaintext", "pre",   "search", "section",    "summary", "table",   "tbody",   "tfoot",
    "thead",   "title",   "tr",     "ul",         "xmp"};

static int compare_name(const void *key, const void *item)
{
    return strcmp(key, *(const char *const *)item);
}

static bool is_in(const char *const *list, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(list[i], name) == 0)
            return true;
    return false;
}

/* ---- tags ------------------------------------------------------------------------------- */

struct tag {
    char name[NAME_MAX_BYTES + 1]; /* lower case; cut, and then none that matters */
    bool end, closed;              /* </name>, <name/> */
};

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r' && c != '\v');
}

static bool is_letter(char c)
{
    return (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
}

/* "Attribute name state" and on: from behind the tag's name to behind its '>'; length when it is
 * not closed. */
static size_t tag_end(const char *html, size_t length, size_t at, bool *closed)
{
    *closed = false;
    while (at < length) {
        char c = html[at++];
        if (c == '>')
            return at;
        *closed = c == '/';
        if (is_space(c) || c == '/')
            continue;
        while (at < length && !is_space(html[at]) && !memchr("/>=", html[at], 3))
            at++; /* its name, the first byte of which may be anything */
        while (at < length && is_space(html[at]))
            at++;
        if (at == length || html[at] != '=')
            continue;
        for (at++; at < length && is_space(html[at]);)
            at++;
        if (at < length && (html[at] == '"' || html[at] == '\'')) {
            const char *quote = memchr(html + at + 1, html[at], length - at - 1);
            at = quote ? (size_t)(quote - html) + 1 : length;
        } else {
            while (at < length && !is_space(html[at]) && html[at] != '>')
                at++;
        }
    }
    return at;
}

/* From '<' to behind the tag. 0: it is none, or it is not closed (which ends the page). */
static size_t read_tag(const char *html, size_t length, size_t at, struct tag *out)
{
    size_t begin = at + 1, count = 0;

    out->end = begin < length && html[begin] == '/';
    begin += out->end;
    for (at = begin; at < length && !is_space(html[at]) && !memchr("/>", html[at], 2); at++)
        if (count < NAME_MAX_BYTES)
            out->name[count++] = (char)(is_letter(html[at]) ? html[at] | 0x20 : html[at]);
    out->name[at - begin <= NAME_MAX_BYTES ? count : 0] = 0;
    return tag_end(html, length, at, &out->closed);
}

/* Behind a comment ("<!--"), or behind what is taken for one ("<!", "<?", "</1"). */
static size_t comment_end(const char *html, size_t length, size_t at)
{
    if (length - at < 4 || memcmp(html + at, "<!--", 4) != 0) {
        const char *end = memchr(html + at, '>', length - at);
        return end ? (size_t)(end - html) + 1 : length;
    }
    if (at + 4 < length && html[at + 4] == '>')
        return at + 5;
    for (size_t i = at + 4; i + 1 < length; i++) {
        const char *dash = memchr(html + i, '-', length - i);
        if (!dash)
            break;
        i = (size_t)(dash - html);
        size_t left = length - i;
        if (left >= 3 && memcmp(dash, "-->", 3) == 0)
            return i + 3;
        if (left >= 4 && memcmp(dash, "--!>", 4) == 0)
            return i + 4;
        if (i == at + 4 && left >= 2 && dash[1] == '>') /* <!---> */
            return i + 2;
    }
    return length;
}

/* Behind the end tag of a raw element; length without one. */
static size_t raw_end(const char *html, size_t length, size_t at, const char *name)
{
    size_t bytes = strlen(name);

    for (const char *from; (from = memchr(html + at, '<', length - at));) {
        at = (size_t)(from - html) + 1;
        if (length - at <= bytes + 1 || html[at] != '/' ||
            strncasecmp(html + at + 1, name, bytes) != 0)
            continue;
        char next = html[at + 1 + bytes];
        bool closed;
        if (is_space(next) || next == '/' || next == '>')
            return tag_end(html, length, at + 1 + bytes, &closed);
    }
    return length;
}

/* ---- what is shown ---------------------------------------------------------------------- */

enum gap { GAP_NONE = 0, GAP_SPACE, GAP_LINE };

struct page {
    const struct html_skip *skip;
    struct buf *out;
    size_t begin; /* of this page in out */
    enum gap gap; /* before the next character */
    unsigned pre; /* open <pre> */
    /* Elements to leave out: those of skip, then the unseen. */
    size_t ends_left[HTML_SKIP_MAX + ARRAY_COUNT(unseen)];
    size_t skipped; /* which one is open; none when depth is 0 */
    size_t depth;
};

#define SKIPPED_NONE SIZE_MAX

static size_t skip_index(const struct page *page, const char *name)
{
    for (size_t i = 0; i < page->skip->count; i++)
        if (strcmp(page->skip->names[i], name) == 0)
            return i;
    for (size_t i = 0; i < ARRAY_COUNT(unseen); i++)
        if (strcmp(unseen[i], name) == 0)
            return page->skip->count + i;
    return SKIPPED_NONE;
}

static void flush_gap(struct page *page)
{
    if (page->out->length > page->begin) {
        bool at_line = page->out->bytes[page->out->length - 1] == '\n';
        if (page->gap == GAP_LINE && !at_line)
            buf_putc(page->out, '\n');
        else if (page->gap == GAP_SPACE && !at_line)
            buf_putc(page->out, ' ');
    }
    page->gap = GAP_NONE;
}

static void add_gap(struct page *page, enum gap gap)
{
    page->gap = gap > page->gap ? gap : page->gap;
}

static void show(struct page *page, const char *bytes, size_t length)
{
    for (size_t i = 0; i < length;) {
        size_t from = i;
        while (i < length && (uint8_t)bytes[i] > ' ' && bytes[i] != 0x7F)
            i++;
        if (i > from) {
            flush_gap(page);
            buf_add(page->out, bytes + from, i - from);
        } else if (is_space(bytes[i]) && page->pre && bytes[i] != '\r') {
            bool merges = bytes[i] == '\n' && page->gap == GAP_LINE;
            flush_gap(page);
            if (page->out->length > page->begin && !merges)
                buf_putc(page->out, bytes[i]);
            i++;
        } else {
            if (is_space(bytes[i]))
                add_gap(page, GAP_SPACE);
            i++; /* controls are not shown */
        }
    }
}

/* ---- character references --------------------------------------------------------------- */

struct entity {
    const char *name, *text;
    bool bare;
};

static const struct entity entities[] = {
#define ENTITY(name, text, bare) {name, text, bare},
#include "worker/recipes/data/web/entities.def"
#undef ENTITY
};

static int compare_entity(const void *key, const void *item)
{
    return strcmp(key, ((const struct entity *)item)->name);
}

static const struct entity *find_entity(const char *name)
{
    return bsearch(name, entities, ARRAY_COUNT(entities), sizeof *entities, compare_entity);
}

/* "Named character reference state": the longest name, of which some need no semicolon. Returns the
 * bytes behind '&' that it takes; 0: none. */
static size_t show_named(struct page *page, const char *text, size_t length)
{
    char name[NAME_MAX_BYTES + 1];
    size_t count = 0;

    while (count < length && count < NAME_MAX_BYTES &&
           (is_letter(text[count]) || (text[count] >= '0' && text[count] <= '9')))
        count++;
    for (size_t n = count; n >= 2; n--) {
        bool full = n == count && n < length && text[n] == ';';
        memcpy(name, text, n);
        name[n] = 0;
        const struct entity *entity = find_entity(name);
        if (!entity || (!full && !entity->bare))
            continue;
        show(page, entity->text, strlen(entity->text));
        return n + full;
    }
    return 0;
}

/* "Numeric character reference end state". */
static uint32_t numeric_point(uint32_t point)
{
    static const uint16_t windows[32] = {
        0x20AC, 0x81,   0x201A, 0x0192, 0x201E, 0x2026, 0x2020, 0x2021, 0x02C6, 0x2030, 0x0160,
        0x2039, 0x0152, 0x8D,   0x017D, 0x8F,   0x90,   0x2018, 0x2019, 0x201C, 0x201D, 0x2022,
        0x2013, 0x2014, 0x02DC, 0x2122, 0x0161, 0x203A, 0x0153, 0x9D,   0x017E, 0x0178};

    if (point == 0 || point > 0x10FFFF || (point >= 0xD800 && point < 0xE000))
        return 0xFFFD;
    return point >= 0x80 && point < 0xA0 ? windows[point - 0x80] : point;
}

static unsigned digit_of(char c, unsigned base)
{
    unsigned digit = c >= '0' && c <= '9' ? (unsigned)(c - '0')
                     : is_letter(c)       ? (unsigned)((c | 0x20) - 'a') + 10
                                          : base;

    return digit < base ? digit : base;
}

static size_t show_numeric(struct page *page, const char *text, size_t length)
{
    bool hex = length > 1 && (text[1] | 0x20) == 'x';
    unsigned base = hex ? 16 : 10;
    size_t at = hex ? 2 : 1, first = at;
    uint32_t point = 0;
    utf8proc_uint8_t bytes[4];

    for (unsigned digit; at < length && (digit = digit_of(text[at], base)) < base; at++)
        point = point > 0x10FFFF ? point : point * base + digit;
    if (at == first)
        return 0;
    utf8proc_ssize_t count =
        utf8proc_encode_char((utf8proc_int32_t)numeric_point(point), bytes);
    show(page, (const char *)bytes, (size_t)count);
    return at + (at < length && text[at] == ';');
}

static void show_text(struct page *page, const char *text, size_t length)
{
    while (length > 0 && page->depth == 0) {
        const char *mark = memchr(text, '&', length);
        size_t bytes = mark ? (size_t)(mark - text) : length, taken = 0;
        show(page, text, bytes);
        if (!mark)
            return;
        text += bytes + 1;
        length -= bytes + 1;
        if (length > 0)
            taken = *text == '#' ? show_numeric(page, text, length)
                                 : show_named(page, text, length);
        if (taken == 0)
            show(page, "&", 1);
        text += taken;
        length -= taken;
    }
}

/* ---- the page --------------------------------------------------------------------------- */

/* An end tag that is still to come must close it; nested ones of its name count only as far as
 * there are end tags for them. */
static void open_skipped(struct page *page, size_t index)
{
    if (page->ends_left[index] <= page->depth)
        return;
    page->skipped = index;
    page->depth++;
}

static void count_skipped(struct page *page, const struct tag *tag)
{
    size_t index = skip_index(page, tag->name);

    if (index == SKIPPED_NONE)
        return;
    if (!tag->end) {
        if (page->depth == 0 || page->skipped == index)
            open_skipped(page, index);
        return;
    }
    page->ends_left[index]--;
    if (page->depth > 0 && page->skipped == index)
        page->depth--;
}

static void take_tag(struct page *page, const struct tag *tag)
{
    count_skipped(page, tag);
    if (page->depth > 0)
        return;
    if (bsearch(tag->name, blocks, ARRAY_COUNT(blocks), sizeof *blocks, compare_name))
        add_gap(page, GAP_LINE);
    else if (strcmp(tag->name, "td") == 0 || strcmp(tag->name, "th") == 0)
        add_gap(page, GAP_SPACE);
    if (strcmp(tag->name, "pre") == 0)
        page->pre = tag->end ? page->pre - (page->pre > 0) : page->pre + 1;
}

/* The next '<' that begins a tag or a comment; length: none. */
static size_t next_markup(const char *html, size_t length, size_t at)
{
    for (const char *mark; at < length; at++) {
        mark = memchr(html + at, '<', length - at);
        at = mark ? (size_t)(mark - html) : length;
        if (at + 1 < length && (is_letter(html[at + 1]) || memchr("!/?", html[at + 1], 3)))
            return at;
    }
    return length;
}

/* Both passes go over the same tags: the first only counts the end tags that skipping needs. */
static void walk(struct page *page, const char *html, size_t length, bool counting)
{
    for (size_t at = 0, next; at < length; at = next) {
        size_t open = next_markup(html, length, at);
        struct tag tag = {.name = ""};
        if (!counting)
            show_text(page, html + at, open - at);
        if (open == length)
            return;
        bool is_tag = is_letter(html[open + 1]) ||
                      (html[open + 1] == '/' && open + 2 < length && is_letter(html[open + 2]));
        next = is_tag ? read_tag(html, length, open, &tag) : comment_end(html, length, open);
        if (!is_tag)
            continue;
        if (!tag.end && is_in(raw, ARRAY_COUNT(raw), tag.name))
            next = raw_end(html, length, next, tag.name);
        size_t index = counting && tag.end ? skip_index(page, tag.name) : SKIPPED_NONE;
        if (index != SKIPPED_NONE)
            page->ends_left[index]++;
        if (!counting)
            take_tag(page, &tag);
    }
}

void html_text(const struct html_skip *skip, const char *html, size_t length, struct buf *out)
{
    struct page page = {.skip = skip, .out = out, .begin = out->length};

    CHECK(skip->count <= HTML_SKIP_MAX);
    walk(&page, html, length, true);
    walk(&page, html, length, false);
}
