/* stages.c - the LOCAL stages, one function each, and the keys of the SEEN ones. */
#include "common/base/json_text.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "worker/recipes/data/web/chars.h"
#include "worker/recipes/data/web/coherence.h"
#include "worker/recipes/data/web/decon.h"
#include "worker/recipes/data/web/limits.h"
#include "worker/recipes/data/web/repetition.h"
#include "worker/recipes/data/web/secrets.h"
#include "worker/recipes/data/web/trigram.h"
#include "worker/recipes/data/web/web.h"
#include "worker/recipes/text/words.h"

#include <math.h>
#include <string.h>
#include <strings.h>

#define STREAM_TOPIC 8 /* of rng_at, apart from that of mix */
#define KIND_GRAM    0x67726Du /* of keys: n-grams, which no whole unit equals */

static void attribute(struct item *item, const char *name, double value)
{
    if (item->attributes.length)
        buf_putc(&item->attributes, ',');
    buf_printf(&item->attributes, "\"%s\":%.9g", name, isfinite(value) ? value : 0);
}

static void drop(struct item *item, enum filter filter, double value)
{
    item->verdict = filter;
    item->value = value;
}

/* ---- classifiers ------------------------------------------------------------------------ */

static double score(struct web *web, const struct classifier *classifier, size_t label,
                    const char *text, size_t length)
{
    features_set(&web->features, classifier, text, length);
    classifier_predict(classifier, &web->features, web->p);
    return web->p[label];
}

/* The label of what is in web->p. */
static size_t likeliest(const struct web *web, const struct classifier *classifier)
{
    size_t best = 0;

    for (size_t l = 1; l < classifier->label_count; l++)
        best = web->p[l] > web->p[best] ? l : best;
    return best;
}

size_t stage_language(struct web *web, struct item *item)
{
    if (!web->langid)
        return 0;
    if (item->language == 0) {
        score(web, web->langid, 0, item->document.text, item->document.length);
        item->language = 1 + likeliest(web, web->langid);
    }
    return item->language - 1;
}

static int do_language(struct web *web, struct item *item, struct err *err)
{
    double p = score(web, web->langid, web->langid_label, item->document.text,
                     item->document.length);

    (void)err;
    item->language = 1 + likeliest(web, web->langid);
    attribute(item, "language", p);
    if (p < run_float(web->run, "language_min"))
        drop(item, FILTER_LANGUAGE, p);
    return 0;
}

/* The worst sentence decides. */
static int do_toxicity(struct web *web, struct item *item, struct err *err)
{
    const char *text = item->document.text;
    size_t length = item->document.length, begin, end = 0;
    double most = 0;

    (void)err;
    while (scorer_next_unit(SCORER_SENTENCE, text, length, &begin, &end)) {
        double p = score(web, web->toxicity, web->toxicity_label, text + begin, end - begin);
        most = p > most ? p : most;
    }
    attribute(item, "toxicity", most);
    if (most > run_float(web->run, "toxicity_max"))
        drop(item, FILTER_TOXICITY, most);
    return 0;
}

static int do_quality(struct web *web, struct item *item, struct err *err)
{
    double p = score(web, web->quality, web->quality_label, item->document.text,
                     item->document.length);

    (void)err;
    attribute(item, "quality", p);
    if (p < (double)web->quality->threshold[web->quality_label])
        drop(item, FILTER_QUALITY, p);
    return 0;
}

/* A unit of nothing but white space says nothing, and breaks no limit. */
static bool is_blank(const char *text, size_t length)
{
    char_trim(&text, &length);
    return length == 0;
}

static void do_scorer(struct web *web, const struct scorer *scorer, enum filter filter,
                      struct item *item)
{
    const char *text = item->document.text;
    size_t length = item->document.length, begin, end = 0;
    double worst = NAN;

    while (scorer_next_unit(scorer->unit, text, length, &begin, &end)) {
        if (is_blank(text + begin, end - begin))
            continue;
        double p = score(web, scorer->classifier, scorer->label_index, text + begin, end - begin);
        worst = isnan(worst) ? p : scorer_worse(scorer, worst, p);
        if (scorer->action == SCORER_CUT && scorer_breaks(scorer, p)) {
            spans_add(&item->spans, begin, end, NULL);
            item->edits[EDIT_SCORED]++;
        }
    }
    if (isnan(worst))
        return;
    attribute(item, scorer->name, worst);
    if (scorer->action == SCORER_DROP && scorer_breaks(scorer, worst))
        drop(item, filter, worst);
}

static int do_scores(struct web *web, struct item *item, struct err *err)
{
    (void)err;
    for (size_t i = 0; i < web->scorer_count && item->verdict == FILTER_KEPT; i++)
        do_scorer(web, &web->scorers[i], FILTER_SCORER_1 + (enum filter)i, item);
    return 0;
}

/* The likeliest label's share, by a draw that is a function of (seed, id). */
static int do_topic(struct web *web, struct item *item, struct err *err)
{
    const struct document *document = &item->document;
    const struct classifier *topic = web->topic;
    struct hash hash;
    uint64_t bits;

    (void)err;
    score(web, topic, 0, document->text, document->length);
    size_t best = likeliest(web, topic);
    buf_puts(&item->attributes, item->attributes.length ? ",\"topic\":" : "\"topic\":");
    json_text_quote(&item->attributes, topic->labels[best], strlen(topic->labels[best]));
    attribute(item, "topic_p", web->p[best]);
    hash_bytes(document->id, strlen(document->id), &hash);
    memcpy(&bits, hash.bytes, sizeof bits);
    if (rng_unit_at((uint64_t)run_int(web->run, "seed"), bits, STREAM_TOPIC) >=
        web->topic_keep[best])
        drop(item, FILTER_TOPIC, web->p[best]);
    return 0;
}

/* A text that is not coherent becomes its parts; those that are too short, or not coherent either,
 * are dropped, each by itself. */
static int do_coherence(struct web *web, struct item *item, struct err *err)
{
    struct coherent_part parts[COHERENCE_PARTS_MAX];
    double score;
    size_t count = coherence_parts(web->coherence, item->document.text, item->document.length,
                                   parts, &score);

    (void)err;
    if (!isnan(score))
        attribute(item, "coherence", score);
    if (count == 1)
        return 0;
    item->parts = mem_array(count, sizeof *item->parts);
    memcpy(item->parts, parts, count * sizeof *parts);
    item->part_count = count;
    return 0;
}

/* ---- addresses and characters ----------------------------------------------------------- */

static int do_blocked(struct web *web, struct item *item, struct err *err)
{
    (void)err;
    if (item->document.url && blocked_has(&web->blocked, item->document.url))
        drop(item, FILTER_BLOCKED, NAN);
    return 0;
}

static int do_garbled(struct web *web, struct item *item, struct err *err)
{
    double share = garbled_share(item->document.text, item->document.length);

    (void)err;
    attribute(item, "garbled", share);
    if (share > run_float(web->run, "garbled_max"))
        drop(item, FILTER_GARBLED, share);
    return 0;
}

/* ---- rules ------------------------------------------------------------------------------ */

void stage_look_at(struct web *web, const struct item *item)
{
    if (web->view.text != item->document.text || web->view.length != item->document.length)
        view_set(&web->view, item->document.text, item->document.length);
}

static int do_gopher(struct web *web, struct item *item, struct err *err)
{
    double value[GOPHER_END];

    (void)err;
    stage_look_at(web, item);
    gopher_measure(&web->view, web->variant, value);
    for (enum gopher_measure m = 0; m < GOPHER_END; m++)
        attribute(item, gopher_name(m), value[m]);
    enum gopher_measure broken = gopher_judge(limits_of(web, item), value);
    if (broken < GOPHER_END)
        drop(item, FILTER_GOPHER_WORDS + (enum filter)broken, value[broken]);
    return 0;
}

/* ---- other sources ---------------------------------------------------------------------- */

static bool is_listed(const struct run *run, const char *param, const char *name)
{
    for (size_t i = 0; name && i < run_list_count(run, param); i++)
        if (strcasecmp(run_list_item(run, param, i), name) == 0)
            return true;
    return false;
}

/* In the order of source.def, as the filters are. */
static void judge_source(struct web *web, struct item *item, const double value[SOURCE_END])
{
    static const enum filter filters_of[SOURCE_END] = {
#define SOURCE(id, name, stage, low, high, text) FILTER_##id,
#include "worker/recipes/data/web/source.def"
#undef SOURCE
    };

    for (enum source_measure m = 0; m < SOURCE_END; m++)
        if (!isnan(value[m]))
            attribute(item, source_name(m), value[m]);
    enum source_measure broken = source_judge(&web->source_limits, value);
    if (broken < SOURCE_END && item->verdict == FILTER_KEPT)
        drop(item, filters_of[broken], value[broken]);
}

static int do_code(struct web *web, struct item *item, struct err *err)
{
    const struct document *document = &item->document;
    double value[SOURCE_END];

    (void)err;
    if (is_listed(web->run, "code_formats", document->ext) ||
        is_listed(web->run, "code_formats", document->lang))
        drop(item, FILTER_CODE_DATA, NAN);
    else if (source_is_xml(document))
        drop(item, FILTER_CODE_XML, NAN);
    source_code(document, value);
    judge_source(web, item, value);
    return 0;
}

static int do_social(struct web *web, struct item *item, struct err *err)
{
    const struct document *document = &item->document;
    const char *forum = document->subreddit;
    double value[SOURCE_END];

    (void)err;
    if (document->deleted)
        drop(item, FILTER_SOCIAL_DELETED, NAN);
    else if (document->adult)
        drop(item, FILTER_SOCIAL_ADULT, NAN);
    else if (forum && byte_map_find(&web->forums, forum, strlen(forum)) != UINT32_MAX)
        drop(item, FILTER_SOCIAL_BLOCKED, NAN);
    source_social(document, value);
    judge_source(web, item, value);
    return 0;
}

static int do_wiki(struct web *web, struct item *item, struct err *err)
{
    double value[SOURCE_END];

    (void)err;
    source_wiki(&item->document, value);
    judge_source(web, item, value);
    return 0;
}

static int do_secrets(struct web *web, struct item *item, struct err *err)
{
    size_t found = secrets_count(item->document.text, item->document.length);

    (void)web;
    (void)err;
    attribute(item, "secrets", (double)found);
    if (found)
        drop(item, FILTER_SECRET, (double)found);
    return 0;
}

static int do_c4(struct web *web, struct item *item, struct err *err)
{
    static const struct {
        unsigned rule;
        enum filter filter;
    } drops[] = {{C4_NAUGHTY, FILTER_C4_NAUGHTY}, {C4_JS, FILTER_C4_JS},
                 {C4_LOREM, FILTER_C4_LOREM}, {C4_BRACE, FILTER_C4_BRACE},
                 {C4_MINSENTS, FILTER_C4_MINSENTS}};
    struct c4_result result;
    size_t before = item->spans.count;

    (void)err;
    stage_look_at(web, item);
    c4_check(&web->view, web->c4_rules, web->has_naughty ? &web->naughty : NULL, &item->spans,
             &result);
    attribute(item, "c4_nopunc_lines", (double)result.lines_nopunc);
    if (web->c4_rules & C4_MINWORDS)
        attribute(item, "c4_short_lines", (double)result.lines_minwords);
    item->edits[EDIT_LINES] += item->spans.count - before;
    for (size_t i = 0; i < ARRAY_COUNT(drops) && item->verdict == FILTER_KEPT; i++)
        if (result.broken & drops[i].rule)
            drop(item, drops[i].filter, NAN);
    return 0;
}

static int do_pii(struct web *web, struct item *item, struct err *err)
{
    static const enum edit edits[PII_KIND_END] = {EDIT_EMAIL, EDIT_PHONE, EDIT_IP};
    const char *action = run_string(web->run, "pii_action");
    struct pii_spans found = {0};

    (void)err;
    pii_find(item->document.text, item->document.length, &found);
    attribute(item, "pii", (double)found.count);
    bool drops = strcmp(action, "drop") == 0 && found.count > 0;
    if (strcmp(action, "off") != 0 &&
        (drops || (double)found.count > (double)run_int(web->run, "pii_max_mask")))
        drop(item, FILTER_PII, (double)found.count);
    for (size_t i = 0; i < found.count && strcmp(action, "mask") == 0; i++) {
        spans_add(&item->spans, found.items[i].begin, found.items[i].end,
                  pii_mask(found.items[i].kind));
        item->edits[edits[found.items[i].kind]]++;
    }
    pii_done(&found);
    return 0;
}

static int do_repetition(struct web *web, struct item *item, struct err *err)
{
    uint64_t most = repetition_most(item->document.text, item->document.length);

    (void)err;
    attribute(item, "repetition", (double)most);
    if (most >= (uint64_t)run_int(web->run, "repetition_max"))
        drop(item, FILTER_REPETITION, (double)most);
    return 0;
}

static int do_decontaminate(struct web *web, struct item *item, struct err *err)
{
    size_t hits = decon_hits(web, web->decon, item->document.text, item->document.length);

    (void)err;
    attribute(item, "eval_paragraphs", (double)hits);
    if (hits)
        drop(item, FILTER_DECONTAMINATED, (double)hits);
    return 0;
}

static int do_perplexity(struct web *web, struct item *item, struct err *err)
{
    double mean = trigram_mean(web->trigram, item->document.text, item->document.length);

    (void)err;
    attribute(item, "log_probability", mean);
    if (mean < trigram_limit(web->trigram, run_float(web->run, "perplexity_sigma")))
        drop(item, FILTER_PERPLEXITY, mean);
    return 0;
}

int stage_run(struct web *web, enum stage stage, struct item *item, struct err *err)
{
    static int (*const table[STAGE_END])(struct web *, struct item *, struct err *) = {
        [STAGE_LANGUAGE] = do_language,           [STAGE_GOPHER] = do_gopher,
        [STAGE_C4] = do_c4,                       [STAGE_TOXICITY] = do_toxicity,
        [STAGE_PII] = do_pii,                     [STAGE_REPETITION] = do_repetition,
        [STAGE_DECONTAMINATE] = do_decontaminate, [STAGE_PERPLEXITY] = do_perplexity,
        [STAGE_QUALITY] = do_quality,             [STAGE_SCORES] = do_scores,
        [STAGE_BLOCKED] = do_blocked,             [STAGE_GARBLED] = do_garbled,
        [STAGE_TOPIC] = do_topic,                 [STAGE_COHERENCE] = do_coherence,
        [STAGE_CODE] = do_code,                   [STAGE_SOCIAL] = do_social,
        [STAGE_WIKI] = do_wiki,                   [STAGE_SECRETS] = do_secrets,
    };

    CHECK(stage < STAGE_END && table[stage]);
    return table[stage](web, item, err);
}

/* ---- keys ------------------------------------------------------------------------------- */

struct key web_key(const struct web *web, const char *text, size_t length, uint64_t kind)
{
    struct words words = {0};
    struct key key;

    if (!web->whole_words) {
        char_trim(&text, &length);
        return key_of(text, length, kind);
    }
    words_split(&words, WORDS_ROUGE, text, length);
    key = key_of(words.word, words.count * sizeof *words.word, kind);
    words_done(&words);
    return key;
}

static void add_key(struct key_list *list, struct key key)
{
    VEC_RESERVE(list->items, list->count, list->capacity);
    list->items[list->count++] = key;
}

static void add_unit(struct seen_units *units, struct item *item, size_t begin, size_t end,
                     size_t keys)
{
    VEC_RESERVE(units->items, units->count, units->capacity);
    units->items[units->count++] = (struct seen_unit){item, begin, end, keys};
}

/* The n-grams of a paragraph, or the whole of one that has fewer than two; returns how many. */
static size_t add_paragraph(const struct web *web, const char *text, size_t length,
                            struct key_list *out)
{
    size_t n = (size_t)run_int(web->run, "dedup_ngram"), before = out->count;
    size_t stride = (size_t)run_int(web->run, "dedup_stride");
    struct words words = {0};

    if (n > 0)
        words_split(&words, web->whole_words ? WORDS_ROUGE : WORDS_SPACE, text, length);
    if (n > 0 && words.count >= n + stride)
        for (size_t i = 0; i + n <= words.count; i += stride)
            add_key(out, key_of(words.word + i, n * sizeof *words.word, KIND_GRAM));
    else
        add_key(out, web_key(web, text, length, STAGE_PARAGRAPH));
    words_done(&words);
    return out->count - before;
}

/* Blank paragraphs have no key: cutting all but the first would join the others. */
static void add_paragraphs(const struct web *web, struct item *item, struct key_list *out,
                           struct seen_units *out_units)
{
    const char *text = item->document.text;
    size_t length = item->document.length;

    for (size_t at = 0; at < length;) {
        const char *end = memchr(text + at, '\n', length - at), *trimmed = text + at;
        size_t next = end ? (size_t)(end - text) + 1 : length, bytes = next - at;
        char_trim(&trimmed, &bytes);
        if (bytes)
            add_unit(out_units, item, at, next, add_paragraph(web, trimmed, bytes, out));
        at = next;
    }
}

bool stage_unit_seen(const struct web *web, const struct seen_unit *unit, size_t seen)
{
    return seen > 0 && (double)seen >= run_float(web->run, "dedup_overlap") * (double)unit->keys;
}

void stage_keys(struct web *web, enum stage stage, struct item *item, struct key_list *out,
                struct seen_units *out_units)
{
    const struct document *document = &item->document;
    size_t before = out->count;

    if (stage == STAGE_PARAGRAPH) {
        add_paragraphs(web, item, out, out_units);
        return;
    }
    if (stage == STAGE_TITLE && document->title && *document->title)
        add_key(out, key_of(document->title, strlen(document->title), STAGE_TITLE));
    if (stage == STAGE_URL && document->url)
        add_key(out, key_of(document->url, strlen(document->url), STAGE_URL));
    else if (stage == STAGE_DOCUMENT && !web->whole_words)
        add_key(out, key_of(document->text, document->length, STAGE_DOCUMENT));
    else if (stage == STAGE_DOCUMENT)
        add_key(out, web_key(web, document->text, document->length, STAGE_DOCUMENT));
    if (out->count > before)
        add_unit(out_units, item, 0, document->length, out->count - before);
}
