/* source.c - see source.h. */
#include "worker/recipes/data/web/source.h"

#include "worker/recipes/data/web/chars.h"
#include "worker/recipes/data/web/html.h"

#include <math.h>
#include <string.h>

#define NONE NAN

static const struct {
    const char *name;
    double low, high;
} table[SOURCE_END] = {
#define SOURCE(id, name, stage, low, high, text) {#name, low, high},
#include "worker/recipes/data/web/source.def"
#undef SOURCE
};

const char *source_name(enum source_measure measure)
{
    CHECK(measure < SOURCE_END);
    return table[measure].name;
}

enum source_measure source_find(const char *name, size_t length)
{
    enum source_measure m = 0;

    while (m < SOURCE_END && (strlen(table[m].name) != length ||
                              strncmp(table[m].name, name, length) != 0))
        m++;
    return m;
}

void source_limits_init(struct source_limits *limits)
{
    for (int m = 0; m < SOURCE_END; m++) {
        limits->low[m] = isnan(table[m].low) ? -INFINITY : table[m].low;
        limits->high[m] = isnan(table[m].high) ? INFINITY : table[m].high;
    }
}

enum source_measure source_judge(const struct source_limits *limits,
                                 const double value[SOURCE_END])
{
    enum source_measure m = 0;

    while (m < SOURCE_END && !(value[m] < limits->low[m]) && !(value[m] > limits->high[m]))
        m++;
    return m;
}

static void clear(double out[SOURCE_END])
{
    for (int m = 0; m < SOURCE_END; m++)
        out[m] = NAN;
}

/* ---- lines and characters --------------------------------------------------------------- */

static void measure_lines(const struct document *document, double *out)
{
    const char *at = document->text, *end = at + document->length;
    size_t lines = 0, chars = 0, most = 0;

    for (const char *next; at < end; at = next, lines++) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        next = stop ? stop + 1 : end;
        stop = stop ? stop : end;
        stop -= stop > at && stop[-1] == '\r';
        size_t count = char_count(at, (size_t)(stop - at));
        chars += count;
        most = count > most ? count : most;
    }
    out[SOURCE_CODE_LINE_MEAN] = lines ? (double)chars / (double)lines : 0;
    out[SOURCE_CODE_LINE_MAX] = (double)most;
}

static bool is_digit(uint32_t c)
{
    if (c < 0x80)
        return c >= '0' && c <= '9';
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
    return category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO;
}

static void measure_chars(const struct document *document, double *out)
{
    enum kind { SPACE, WORD, SIGN } kind, before = SPACE;
    size_t letters = 0, digits = 0, tokens = 1, chars = 0, bytes;

    for (size_t at = 0; at < document->length; at += bytes, chars++, before = kind) {
        uint32_t c = char_at(document->text + at, document->length - at, &bytes);
        bool letter = char_is_letter(c), digit = !letter && is_digit(c);
        letters += letter;
        digits += digit;
        kind = letter || digit || c == '_' ? WORD : char_is_space(c) ? SPACE : SIGN;
        tokens += kind != SPACE && kind != before;
    }
    out[SOURCE_CODE_ALNUM] = chars ? (double)(letters + digits) / (double)chars : 0;
    out[SOURCE_CODE_ALPHA_TOKENS] = (double)letters / (double)tokens;
}

/* ---- comments --------------------------------------------------------------------------- */

struct scan {
    const char *text;
    size_t length, at;
    size_t comments; /* characters */
};

static bool looks_at(const struct scan *scan, const char *what)
{
    size_t bytes = strlen(what);

    return scan->length - scan->at >= bytes && memcmp(scan->text + scan->at, what, bytes) == 0;
}

static void count_comment(struct scan *scan, size_t from)
{
    scan->comments += char_count(scan->text + from, scan->at - from);
}

/* To the end of the line, which is not taken. */
static void line_comment(struct scan *scan)
{
    const char *end = memchr(scan->text + scan->at, '\n', scan->length - scan->at);
    size_t from = scan->at;

    scan->at = end ? (size_t)(end - scan->text) : scan->length;
    count_comment(scan, from);
}

/* Behind what closes it, or at the end; backslashes take the next byte with them. */
static void pass_string(struct scan *scan, const char *close, bool lines)
{
    scan->at += strlen(close);
    while (scan->at < scan->length && !looks_at(scan, close) &&
           (lines || scan->text[scan->at] != '\n'))
        scan->at += scan->text[scan->at] == '\\' && scan->at + 1 < scan->length ? 2 : 1;
    if (scan->at < scan->length && looks_at(scan, close))
        scan->at += strlen(close);
}

/* Whether only white space, and maybe the prefix of a string, stand before in this line. */
static bool begins_line(const struct scan *scan)
{
    size_t at = scan->at;

    while (at > 0 && scan->at - at < 2 && strchr("rRuUbBfF", scan->text[at - 1]))
        at--;
    while (at > 0 && (scan->text[at - 1] == ' ' || scan->text[at - 1] == '\t'))
        at--;
    return at == 0 || scan->text[at - 1] == '\n';
}

static void scan_python(struct scan *scan)
{
    static const char *const triples[] = {"\"\"\"", "'''"};
    int depth = 0;

    while (scan->at < scan->length) {
        char c = scan->text[scan->at];
        size_t from = scan->at;
        bool docstring = depth == 0 && begins_line(scan);
        if (c == '#') {
            line_comment(scan);
        } else if (looks_at(scan, triples[0]) || looks_at(scan, triples[1])) {
            pass_string(scan, triples[c == '\''], true);
            if (docstring)
                count_comment(scan, from);
        } else if (c == '"' || c == '\'') {
            pass_string(scan, c == '"' ? "\"" : "'", false);
        } else {
            depth += strchr("([{", c) ? 1 : strchr(")]}", c) && depth > 0 ? -1 : 0;
            scan->at++;
        }
    }
}

static void scan_slashes(struct scan *scan)
{
    while (scan->at < scan->length) {
        char c = scan->text[scan->at];
        size_t from = scan->at;
        if (looks_at(scan, "//")) {
            line_comment(scan);
        } else if (looks_at(scan, "/*")) {
            const char *end = memmem(scan->text + from + 2, scan->length - from - 2, "*/", 2);
            scan->at = end ? (size_t)(end - scan->text) + 2 : scan->length;
            count_comment(scan, from);
        } else if (c == '"' || c == '\'' || c == '`') {
            char close[2] = {c, 0};
            pass_string(scan, close, c == '`');
        } else {
            scan->at++;
        }
    }
}

/* The language by the name's ending, or else as the document calls it. */
static bool is_in(const struct document *document, const char *ext, const char *other,
                  const char *language)
{
    if (document->ext)
        return strcmp(document->ext, ext) == 0 || strcmp(document->ext, other) == 0;
    return document->lang && strcmp(document->lang, language) == 0;
}

static double comment_share(const struct document *document)
{
    struct scan scan = {.text = document->text, .length = document->length};
    size_t chars = char_count(document->text, document->length);

    if (is_in(document, "py", "pyw", "python"))
        scan_python(&scan);
    else if (is_in(document, "java", "java", "java") || is_in(document, "js", "mjs", "javascript"))
        scan_slashes(&scan);
    else
        return NAN;
    return chars ? (double)scan.comments / (double)chars : 0;
}

#define HTML_CHARS_MIN 100 /* a text of no more is none */

static double html_share(const struct document *document)
{
    struct html_skip none = {.count = 0};
    struct buf out = {0};

    if (!is_in(document, "html", "htm", "html"))
        return NAN;
    html_text(&none, document->text, document->length, &out);
    const char *text = buf_text(&out);
    size_t length = out.length;
    char_trim(&text, &length);
    size_t chars = char_count(text, length), all = char_count(document->text, document->length);
    buf_done(&out);
    return chars > HTML_CHARS_MIN ? (double)chars / (double)all : 0;
}

/* ---- the stages ------------------------------------------------------------------------- */

void source_code(const struct document *document, double out[SOURCE_END])
{
    clear(out);
    measure_lines(document, out);
    measure_chars(document, out);
    if (document->has_stars)
        out[SOURCE_CODE_STARS] = document->stars;
    out[SOURCE_CODE_COMMENTS] = comment_share(document);
    out[SOURCE_CODE_HTML_TEXT] = html_share(document);
}

void source_social(const struct document *document, double out[SOURCE_END])
{
    bool submission = document->type && strcmp(document->type, "submission") == 0;

    clear(out);
    out[submission ? SOURCE_SOCIAL_SUBMISSION : SOURCE_SOCIAL_COMMENT] =
        (double)char_count(document->text, document->length);
    if (document->has_votes)
        out[SOURCE_SOCIAL_VOTES] = document->votes;
}

void source_wiki(const struct document *document, double out[SOURCE_END])
{
    size_t words = 0, bytes;
    bool inside = false;

    clear(out);
    for (size_t at = 0; at < document->length; at += bytes) {
        bool space = char_is_space(char_at(document->text + at, document->length - at, &bytes));
        words += !space && !inside;
        inside = !space;
    }
    out[SOURCE_WIKI_WORDS] = (double)words;
}

bool source_is_xml(const struct document *document)
{
    static const char mark[] = "<?xml version=";
    size_t first = char_prefix(document->text, document->length, 100);

    return memmem(document->text, first, mark, sizeof mark - 1) != NULL;
}
