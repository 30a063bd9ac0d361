/* link: recipes */
/* web_fuzz.c - any bytes as a line of documents, an eval set, a classifier and a block's line; and
 * as a text that all rules look at: what they cut and mask lies within it. */
#include "common/base/mem.h"
#include "worker/recipes/data/web/c4.h"
#include "worker/recipes/data/web/classifier.h"
#include "worker/recipes/data/web/gopher.h"
#include "worker/recipes/data/web/minhash.h"
#include "worker/recipes/data/web/pii.h"
#include "worker/recipes/data/web/repeats.h"
#include "worker/recipes/data/web/repetition.h"
#include "worker/recipes/data/web/rows.h"
#include "worker/recipes/data/web/scorer.h"
#include "worker/recipes/data/web/secrets.h"
#include "worker/recipes/data/web/source.h"
#include "worker/recipes/data/web/texts.h"
#include "worker/recipes/data/web/web.h"

#include <math.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static int within(void *argument, const char *text, size_t length, struct err *err)
{
    (void)err;
    (void)text;
    *(size_t *)argument += length;
    return 0;
}

/* Bytes as a file of each language that is looked into. */
static void measure_source(const char *text, size_t length)
{
    static char *const endings[] = {"py", "java", "html", NULL};
    double value[SOURCE_END];

    for (size_t i = 0; i < ARRAY_COUNT(endings); i++) {
        struct document document = {.text = (char *)text, .length = length, .ext = endings[i]};
        source_code(&document, value);
        CHECK(!(value[SOURCE_CODE_COMMENTS] > 1) && value[SOURCE_CODE_ALNUM] <= 1);
        source_wiki(&document, value);
        CHECK(value[SOURCE_WIKI_WORDS] <= (double)length);
    }
    CHECK(secrets_count(text, length) <= length);
}

static void parse_all(const char *text, size_t length)
{
    struct err err;
    struct document document;
    struct block_item item;
    struct classifier *classifier;
    size_t total = 0;

    if (document_parse(text, length, &document, &err) == 0) {
        CHECK(strlen(document.text) == document.length && document.id && document.source);
        document_done(&document);
    }
    if (texts_of_csv(text, length, within, &total, &err) == 0)
        CHECK(total <= length);
    if (texts_of_json(text, length, within, &total, &err) < 0)
        CHECK(err.kind == ERR_PROTOCOL);
    if (classifier_parse(text, length, &classifier, &err) == 0) {
        CHECK(classifier_label(classifier, classifier->labels[0]) == 0);
        classifier_free(classifier);
    }
    if (block_item_parse(NULL, text, length, &item, &err) == 0) {
        CHECK(item.verdict < FILTER_END);
        block_item_done(&item);
    }
}

/* The first line asks, the rest is the table; and an item of scorers. */
static void parse_rows(const char *text, size_t length)
{
    const char *newline = memchr(text, '\n', length);
    size_t total = 0, rest = newline ? length - (size_t)(newline + 1 - text) : 0;
    struct scorer scorer;
    struct err err;

    struct blocked blocked = {0};
    blocked_add(&blocked, text, length);
    total += blocked_has(&blocked, text);
    blocked_done(&blocked);
    CHECK(garbled_share(text, length) <= 1);
    if (newline) {
        char *query = mem_strndup(text, (size_t)(newline - text));
        if (rows_of_csv(query, newline + 1, rest, within, &total, &err) < 0)
            CHECK(err.kind == ERR_PROTOCOL || err.kind == ERR_INVALID);
        if (rows_of_json_lines(query, newline + 1, rest, within, &total, &err) < 0)
            CHECK(err.kind == ERR_PROTOCOL || err.kind == ERR_INVALID);
        mem_free(query);
    }
    if (scorer_parse(text, &scorer, &err) == 0) {
        CHECK(scorer.name && *scorer.input && *scorer.label);
        scorer_done(&scorer);
    }
}

static void look(const char *text, size_t length)
{
    struct view view = {0};
    struct spans spans = {0};
    struct pii_spans found = {0};
    struct c4_result c4;
    struct buf out = {0};
    double value[GOPHER_END];

    view_set(&view, text, length);
    for (enum gopher_variant v = GOPHER_DOLMA; v <= GOPHER_DATATROVE; v++) {
        gopher_measure(&view, v, value);
        for (int m = 0; m < GOPHER_END; m++)
            CHECK(isfinite(value[m]) && value[m] >= 0);
    }
    c4_check(&view, 127, NULL, &spans, &c4);
    pii_find(text, length, &found);
    for (size_t i = 0; i < found.count; i++) {
        CHECK(found.items[i].begin < found.items[i].end && found.items[i].end <= length);
        spans_add(&spans, found.items[i].begin, found.items[i].end, pii_mask(found.items[i].kind));
    }
    spans_apply(&spans, text, length, &out);
    CHECK(out.length <= length + 24 * found.count);
    CHECK(repetition_most(text, length) <= length + 1);
    view_done(&view);
    spans_done(&spans);
    pii_done(&found);
    buf_done(&out);
}

static void compare(const char *text, size_t length)
{
    struct shingles shingles = {0};
    struct corpus_words words = {0};
    struct word_ranges ranges = {0};

    shingles_set(&shingles, 5, text, length);
    for (size_t i = 1; i < shingles.count; i++)
        CHECK(shingles.items[i - 1] < shingles.items[i]);
    corpus_words_add(&words, text, length);
    corpus_words_add(&words, text, length);
    repeats_find(&words, 8, true, 0, 1, &ranges);
    CHECK(words.count < 16 || ranges.count > 0);
    for (size_t i = 0; i < ranges.count; i++) {
        size_t begin, end;
        word_range_bytes(text, length, ranges.items[i].begin, ranges.items[i].end, &begin, &end);
        CHECK(begin < end && end <= length);
    }
    shingles_done(&shingles);
    corpus_words_done(&words);
    mem_free(ranges.items);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    char *text = mem_strndup((const char *)bytes, length);

    memcpy(text, bytes, length);
    parse_all(text, length);
    measure_source(text, length);
    parse_rows(text, length);
    look(text, length);
    compare(text, length);
    mem_free(text);
    return 0;
}
