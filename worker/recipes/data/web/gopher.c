/* gopher.c - see gopher.h.
 *
 * Lines and n-grams are counted by their 64-bit hashes in one open table that is reused: a text
 * of 10^6 words has 5 * 10^11 pairs of n-grams, two of which share a hash with probability
 * 3 * 10^-8. */
#include "worker/recipes/data/web/gopher.h"

#include "common/base/mem.h"
#include "worker/recipes/data/web/chars.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define NONE NAN /* in the table: no limit */

static const struct {
    const char *name, *text;
    double low[2], high[2]; /* by variant - 1 */
} table[GOPHER_END] = {
#define GOPHER(id, name, low, high, low2, high2, text) \
    [GOPHER_##id] = {#name, text, {low, low2}, {high, high2}},
#include "worker/recipes/data/web/gopher.def"
#undef GOPHER
};

const char *gopher_name(enum gopher_measure measure)
{
    CHECK(measure < GOPHER_END);
    return table[measure].name;
}

const char *gopher_text(enum gopher_measure measure)
{
    CHECK(measure < GOPHER_END);
    return table[measure].text;
}

void gopher_limits_init(struct gopher_limits *limits, enum gopher_variant variant)
{
    for (int m = 0; m < GOPHER_END; m++) {
        double low = table[m].low[variant - 1], high = table[m].high[variant - 1];
        limits->low[m] = isnan(low) ? -INFINITY : low;
        limits->high[m] = isnan(high) ? INFINITY : high;
    }
}

enum gopher_measure gopher_judge(const struct gopher_limits *limits,
                                 const double value[GOPHER_END])
{
    enum gopher_measure m = 0;

    while (m < GOPHER_END && value[m] >= limits->low[m] && value[m] <= limits->high[m])
        m++;
    return m;
}

/* ---- counting --------------------------------------------------------------------------- */

/* Slots of three numbers: hash (0: free), count, characters of one. */
struct counter {
    uint64_t *slot;
    size_t mask;
};

static struct counter counter_make(struct view *view, size_t items)
{
    size_t slots = 16;

    while (slots < 2 * items)
        slots *= 2;
    if (view->scratch_capacity < 3 * slots) {
        mem_free(view->scratch);
        view->scratch_capacity = 3 * slots;
        view->scratch = mem_array(view->scratch_capacity, sizeof *view->scratch);
    }
    memset(view->scratch, 0, 3 * slots * sizeof *view->scratch);
    return (struct counter){view->scratch, slots - 1};
}

/* Counts one more of this hash; returns its slot: hash, count, characters. */
static uint64_t *counter_add(struct counter *counter, uint64_t hash, uint64_t chars)
{
    hash += hash == 0;
    size_t at = (size_t)(hash ^ hash >> 32) & counter->mask;
    uint64_t *slot;

    while ((slot = counter->slot + 3 * at)[0] && slot[0] != hash)
        at = (at + 1) & counter->mask;
    slot[0] = hash;
    slot[1]++;
    slot[2] = chars;
    return slot;
}

static uint64_t gram_hash(const struct view *view, size_t first, size_t n)
{
    uint64_t hash = n;

    for (size_t i = first; i < first + n; i++)
        hash = (hash ^ view->words[i].hash) * 0x9E3779B97F4A7C15u, hash ^= hash >> 29;
    return hash;
}

static uint64_t gram_chars(const struct view *view, size_t first, size_t n)
{
    uint64_t chars = 0;

    for (size_t i = first; i < first + n; i++)
        chars += view->words[i].chars;
    return chars;
}

static double share(double part, double whole)
{
    return whole > 0 ? part / whole : 0;
}

/* count * characters of the most frequent n-gram; `gap` is added between its words. Two walks:
 * the first finds the highest count, the second the first n-gram that has it. */
static double top_gram(struct view *view, size_t n, uint64_t gap, double whole)
{
    size_t grams = view->word_count >= n ? view->word_count - n + 1 : 0;
    struct counter counter = counter_make(view, grams);
    uint64_t best = 0, chars = 0;

    for (size_t i = 0; i < grams; i++) {
        uint64_t count = counter_add(&counter, gram_hash(view, i, n), 0)[1];
        best = count > best ? count : best;
    }
    for (size_t i = 0; i < grams && !chars; i++) {
        uint64_t *slot = counter_add(&counter, gram_hash(view, i, n), 0);
        if (--slot[1] == best)
            chars = gram_chars(view, i, n) + gap * (n - 1);
    }
    return share((double)(best * chars), whole);
}

/* Characters in n-grams that occur more than once, of those in all. */
static double repeated_grams(struct view *view, size_t n)
{
    size_t grams = view->word_count >= n ? view->word_count - n + 1 : 0;
    struct counter counter = counter_make(view, grams);
    uint64_t all = 0, repeated = 0;

    for (size_t i = 0; i < grams; i++) {
        uint64_t chars = gram_chars(view, i, n);
        uint64_t count = counter_add(&counter, gram_hash(view, i, n), chars)[1];
        all += chars;
        repeated += count > 2 ? chars : count == 2 ? 2 * chars : 0;
    }
    return share((double)repeated, (double)all);
}

/* datatrove: left to right, skipping n words after a hit, of the document's characters. */
static double repeated_grams_scanned(struct view *view, size_t n)
{
    struct counter counter = counter_make(view, view->word_count);
    uint64_t repeated = 0;

    for (size_t i = 0; i + n <= view->word_count;) {
        uint64_t *slot = counter_add(&counter, gram_hash(view, i, n), 0);
        if (slot[1] > 1)
            repeated += gram_chars(view, i, n);
        i += slot[1] > 1 ? n : 1;
    }
    return share((double)repeated, (double)view->char_count);
}

/* ---- lines ------------------------------------------------------------------------------ */

static bool ends_with(const char *text, size_t length, const char *end)
{
    size_t bytes = strlen(end);

    return length >= bytes && memcmp(text + length - bytes, end, bytes) == 0;
}

#define ELLIPSIS "\xE2\x80\xA6"
#define BULLET   "\xE2\x80\xA2"

static void measure_lines(struct view *view, double *out)
{
    struct counter counter = counter_make(view, view->line_count);
    uint64_t bullets = 0, ellipses = 0, repeated = 0, chars = 0;

    for (size_t i = 0; i < view->line_count; i++) {
        const struct view_line *line = &view->lines[i];
        const char *text = view->text + line->at;
        uint64_t count = counter_add(&counter, line->hash, line->chars)[1];
        bullets += line->bytes > 0 && (text[0] == '*' || text[0] == '-');
        ellipses += ends_with(text, line->bytes, ELLIPSIS);
        repeated += count > 2 ? 1 : count == 2 ? 2 : 0;
        chars += count > 2 ? line->chars : count == 2 ? 2 * (uint64_t)line->chars : 0;
    }
    double lines = (double)view->line_count;
    out[GOPHER_BULLETS] = (double)bullets / lines;
    out[GOPHER_ELLIPSIS_LINES] = (double)ellipses / lines;
    out[GOPHER_DUP_LINES] = (double)repeated / lines;
    out[GOPHER_DUP_LINE_CHARS] = share((double)chars, (double)view->word_chars);
}

/* Pieces between runs of at least `newlines` newlines, and those seen before. */
static void measure_pieces(struct view *view, const char *text, size_t length, size_t newlines,
                           double *out_count, double *out_chars)
{
    struct counter counter = counter_make(view, view->line_count);
    uint64_t pieces = 0, repeated = 0, chars = 0;

    for (size_t at = 0; at <= length; pieces++) {
        size_t end = at, run = 0;
        while (end < length) {
            while (end + run < length && text[end + run] == '\n')
                run++;
            if (run >= newlines)
                break;
            end += run ? run : 1;
            run = 0;
        }
        uint64_t count = counter_add(&counter, XXH3_64bits(text + at, end - at), 0)[1];
        repeated += count > 1;
        chars += count > 1 ? char_count(text + at, end - at) : 0;
        at = end + (run ? run : 1);
        if (end == length)
            at = length + 1;
    }
    *out_count = share((double)repeated, (double)pieces);
    *out_chars = share((double)chars, (double)view->char_count);
}

static void measure_lines_datatrove(struct view *view, double *out)
{
    const char *text = view->text;
    size_t length = view->length, lines = view->line_count, bullets = 0, ellipses = 0;

    lines -= view->lines[lines - 1].bytes == 0; /* str.splitlines has no empty last line */
    for (size_t i = 0; i < lines; i++) {
        const char *line = text + view->lines[i].at;
        size_t bytes = view->lines[i].bytes;
        char_trim(&line, &bytes);
        bullets += bytes > 0 && (line[0] == '-' || (bytes >= 3 && memcmp(line, BULLET, 3) == 0));
        ellipses += ends_with(line, bytes, "...") || ends_with(line, bytes, ELLIPSIS);
    }
    out[GOPHER_BULLETS] = share((double)bullets, (double)lines);
    out[GOPHER_ELLIPSIS_LINES] = share((double)ellipses, (double)lines);
    measure_pieces(view, text, length, 1, &out[GOPHER_DUP_LINES], &out[GOPHER_DUP_LINE_CHARS]);
    char_trim(&text, &length);
    measure_pieces(view, text, length, 2, &out[GOPHER_DUP_PARAGRAPHS],
                   &out[GOPHER_DUP_PARAGRAPH_CHARS]);
}

/* ---- words ------------------------------------------------------------------------------ */

static int required_index(const char *word, size_t bytes)
{
    static const char *const required[] = {"the", "be", "to", "of", "and", "that", "have", "with"};

    for (size_t i = 0; i < ARRAY_COUNT(required); i++)
        if (strlen(required[i]) == bytes && memcmp(word, required[i], bytes) == 0)
            return (int)i;
    return -1;
}

/* statistics.median of the words' lengths, from a histogram: words of 4096 characters and more
 * count as 4096, which no limit can tell apart. */
static double median_length(const struct view *view)
{
    uint32_t histogram[4097] = {0};
    size_t n = view->word_count, seen = 0, low = 0, high = 0;

    for (size_t i = 0; i < n; i++)
        histogram[view->words[i].chars < 4096 ? view->words[i].chars : 4096]++;
    for (size_t c = 0; c <= 4096; c++) {
        size_t before = seen;
        seen += histogram[c];
        if (before <= (n - 1) / 2 && (n - 1) / 2 < seen)
            low = c;
        if (before <= n / 2 && n / 2 < seen)
            high = c;
    }
    return (double)(low + high) / 2;
}

static uint64_t occurrences(const struct view *view, const char *what)
{
    const char *at = view->text, *end = view->text + view->length;
    uint64_t count = 0;

    while ((at = memmem(at, (size_t)(end - at), what, strlen(what)))) {
        count++;
        at += strlen(what);
    }
    return count;
}

static void measure_words(const struct view *view, double *out)
{
    uint64_t symbols = 0, letters = 0, required = 0;
    double n = (double)view->word_count;

    for (size_t i = 0; i < view->word_count; i++) {
        const struct view_word *word = &view->words[i];
        symbols += word->symbol;
        letters += word->letter;
        required += required_index(view->text + word->at, word->bytes) >= 0;
    }
    out[GOPHER_WORDS] = n;
    out[GOPHER_WORD_LENGTH] = median_length(view);
    out[GOPHER_SYMBOLS] = (double)symbols / n;
    out[GOPHER_LETTERS] = (double)letters / n;
    out[GOPHER_REQUIRED] = (double)required;
}

static void measure_words_datatrove(const struct view *view, double *out)
{
    uint64_t plain = 0, plain_chars = 0, letters = 0;
    unsigned required = 0;
    double n = (double)view->word_count;

    for (size_t i = 0; i < view->word_count; i++) {
        const struct view_word *word = &view->words[i];
        int index = required_index(view->text + word->at, word->bytes);
        plain += word->plain;
        plain_chars += word->plain ? word->chars : 0;
        letters += word->letter;
        required |= index >= 0 ? 1u << index : 0;
    }
    out[GOPHER_WORDS] = (double)plain;
    out[GOPHER_WORD_LENGTH] = share((double)plain_chars, (double)plain);
    out[GOPHER_SYMBOLS] = (double)occurrences(view, "#") / n;
    out[GOPHER_ELLIPSES] = (double)(occurrences(view, "...") + occurrences(view, ELLIPSIS)) / n;
    out[GOPHER_LETTERS] = (double)letters / n;
    out[GOPHER_REQUIRED] = (double)__builtin_popcount(required);
}

void gopher_measure(struct view *view, enum gopher_variant variant, double out[GOPHER_END])
{
    bool dolma = variant == GOPHER_DOLMA;
    double whole = dolma ? (double)view->word_chars : (double)view->char_count;

    memset(out, 0, GOPHER_END * sizeof *out);
    if (view->word_count == 0)
        return;
    (dolma ? measure_words : measure_words_datatrove)(view, out);
    (dolma ? measure_lines : measure_lines_datatrove)(view, out);
    for (size_t n = 2; n <= 4; n++)
        out[GOPHER_TOP_2 + n - 2] = top_gram(view, n, dolma ? 0 : 1, whole);
    for (size_t n = 5; n <= 10; n++)
        out[GOPHER_DUP_5 + n - 5] = (dolma ? repeated_grams : repeated_grams_scanned)(view, n);
}
