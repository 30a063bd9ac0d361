/* limits.c - see limits.h. */
#include "worker/recipes/data/web/limits.h"

#include "common/base/json_text.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "common/base/rng.h"
#include "worker/engine/comm.h"
#include "worker/recipes/data/web/quantile.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STREAM_SAMPLE    10 /* of rng_at, apart from those of mix, topic and clusters */
#define METRIC_LANGUAGES 4  /* whose limits are metrics */

/* ---- params.limits ---------------------------------------------------------------------- */

struct limit_item {
    char *language; /* NULL: all */
    enum gopher_measure measure;
    double low, high;
};

static enum gopher_measure measure_named(const char *name, size_t length)
{
    enum gopher_measure m = 0;

    while (m < GOPHER_END && (strlen(gopher_name(m)) != length ||
                              strncmp(gopher_name(m), name, length) != 0))
        m++;
    return m;
}

int limits_parse_sides(const char *sides, double *out_low, double *out_high, struct err *err)
{
    const char *colon = strchr(sides, ':');
    int rc = 0;

    *out_low = -INFINITY;
    *out_high = INFINITY;
    if (!colon)
        return err_set(err, ERR_INVALID, "'%s' is not LOW:HIGH", sides);
    char *low = mem_strndup(sides, (size_t)(colon - sides));
    if (*low)
        rc = parse_f64(low, out_low, err);
    if (rc == 0 && colon[1])
        rc = parse_f64(colon + 1, out_high, err);
    mem_free(low);
    return rc;
}

static int parse_item(const char *item, struct limit_item *out, struct err *err)
{
    const char *equals = strchr(item, '='), *colon = equals ? strchr(equals, ':') : NULL;
    const char *slash = memchr(item, '/', equals ? (size_t)(equals - item) : strlen(item));
    const char *name = slash ? slash + 1 : item;

    *out = (struct limit_item){.measure = GOPHER_END};
    if (colon)
        out->measure = measure_named(name, (size_t)(equals - name));
    if (out->measure == GOPHER_END)
        return err_set(err, ERR_INVALID, "params.limits: '%s' is not MEASURE=LOW:HIGH, or "
                       "LANGUAGE/MEASURE=LOW:HIGH, with a measure of the Gopher rules, such as "
                       "words=50:100000 or top_2=:0.2", item);
    if (limits_parse_sides(equals + 1, &out->low, &out->high, err) < 0)
        return err_wrap(err, "params.limits: '%s'", item);
    out->language = slash ? mem_strndup(item, (size_t)(slash - item)) : NULL;
    return 0;
}

static void set_limit(struct gopher_limits *limits, const struct limit_item *item)
{
    limits->low[item->measure] = item->low;
    limits->high[item->measure] = item->high;
}

/* What params say of a language, over what is there: first of all languages, then of this. */
static void pin(const struct run *run, struct language_limits *language)
{
    for (int own = 0; own < 2; own++)
        for (size_t i = 0; i < run_list_count(run, "limits"); i++) {
            struct limit_item item;
            struct err unused;
            if (parse_item(run_list_item(run, "limits", i), &item, &unused) < 0)
                continue; /* limits_read has refused it */
            if (own ? item.language && strcmp(item.language, language->language) == 0
                    : !item.language)
                set_limit(&language->limits, &item);
            mem_free(item.language);
        }
}

int limits_read(struct web *web, struct err *err)
{
    const struct run *run = web->run;

    web->draws_limits = strcmp(run_string(run, "rules_mode"), "quantile") == 0;
    gopher_limits_init(&web->limits, web->variant);
    for (size_t i = 0; i < run_list_count(run, "limits"); i++) {
        struct limit_item item;
        bool own;
        if (parse_item(run_list_item(run, "limits", i), &item, err) < 0)
            return -1;
        own = item.language != NULL;
        mem_free(item.language);
        if (!own)
            set_limit(&web->limits, &item);
        else if (!run_input(run, "langid"))
            return err_set(err, ERR_INVALID, "params.limits: '%s' is of a language, but "
                           "inputs.langid, the classifier that tells languages, is not given",
                           run_list_item(run, "limits", i));
        web->limits_by_language = web->limits_by_language || own;
    }
    return 0;
}

static int check_languages(const struct web *web, struct err *err)
{
    const struct run *run = web->run;

    for (size_t i = 0; i < run_list_count(run, "limits"); i++) {
        struct limit_item item;
        if (parse_item(run_list_item(run, "limits", i), &item, err) < 0)
            return -1;
        bool known = !item.language ||
                     classifier_label(web->langid, item.language) < web->langid->label_count;
        mem_free(item.language);
        if (known)
            continue;
        char *labels = classifier_label_list(web->langid);
        err_set(err, ERR_INVALID, "params.limits: '%s' is of a language that the classifier "
                "inputs.langid does not know; it knows %s", run_list_item(run, "limits", i),
                labels);
        mem_free(labels);
        return -1;
    }
    return 0;
}

int limits_open(struct web *web, struct err *err)
{
    const struct run *run = web->run;
    bool by_language = web->draws_limits || web->limits_by_language;

    if (!by_language)
        return 0;
    if (web->langid && check_languages(web, err) < 0)
        return -1;
    web->language_count = web->langid ? web->langid->label_count : 1;
    web->languages = mem_array(web->language_count, sizeof *web->languages);
    for (size_t l = 0; l < web->language_count; l++) {
        struct language_limits *language = &web->languages[l];
        language->language = web->langid ? web->langid->labels[l] : "";
        gopher_limits_init(&language->limits, web->variant);
        pin(run, language);
    }
    return 0;
}

void limits_close(struct web *web)
{
    mem_free(web->languages);
}

const struct gopher_limits *limits_of(struct web *web, struct item *item)
{
    if (!web->languages)
        return &web->limits;
    return &web->languages[stage_language(web, item)].limits;
}

/* ---- the sample ------------------------------------------------------------------------- */

struct drawing {
    struct web *web;
    struct measured *measured; /* by language */
    size_t before;             /* stages before gopher */
};

static bool is_sampled(const struct run *run, const char *id)
{
    struct hash hash;
    uint64_t bits;

    hash_bytes(id, strlen(id), &hash);
    memcpy(&bits, hash.bytes, sizeof bits);
    return rng_unit_at((uint64_t)run_int(run, "seed"), bits, STREAM_SAMPLE) <
           run_float(run, "rules_sample");
}

static int measure_line(void *argument, struct document_line *line, struct err *err)
{
    struct drawing *drawing = argument;
    struct web *web = drawing->web;
    struct item item = {.line = line->number, .value = NAN, .verdict = FILTER_KEPT};
    double value[GOPHER_END];
    int rc = 0;

    if (!line->document || line->no_page || !is_sampled(web->run, line->document->id))
        return 0;
    item.document = *line->document;
    *line->document = (struct document){0};
    web->view.text = NULL; /* another document, maybe where the last one was */
    for (size_t s = 0; s < drawing->before && rc == 0 && item.verdict == FILTER_KEPT; s++)
        if (stage_kind(web->stages[s]) == STAGE_LOCAL)
            rc = stage_run(web, web->stages[s], &item, err);
    if (rc == 0 && item.verdict == FILTER_KEPT) {
        stage_look_at(web, &item);
        gopher_measure(&web->view, web->variant, value);
        measured_add(&drawing->measured[stage_language(web, &item)], value);
    }
    item_done(&item);
    return rc < 0 ? err_wrap(err, "%s:%llu", line->file->path, (unsigned long long)line->number)
                  : 0;
}

static int measure_own_blocks(struct drawing *drawing, struct err *err)
{
    struct web *web = drawing->web;
    const struct run *run = web->run;

    while (drawing->before < web->local_count && web->stages[drawing->before] != STAGE_GOPHER)
        drawing->before++;
    for (size_t b = run->rank; b < web->list.block_count; b += run->rank_count)
        if (document_read(&web->list, b, measure_line, drawing, err) < 0)
            return -1;
    web->view.text = NULL;
    return 0;
}

/* Sums of all ranks; histograms of the languages that have enough documents. */
static void share(struct drawing *drawing, int64_t least)
{
    struct web *web = drawing->web;
    int64_t *documents = mem_array(web->language_count, sizeof *documents);

    for (size_t l = 0; l < web->language_count; l++)
        documents[l] = drawing->measured[l].documents;
    comm_sum_i64(web->run->comm, documents, (int64_t)web->language_count);
    for (size_t l = 0; l < web->language_count; l++) {
        struct measured *measured = &drawing->measured[l];
        measured->documents = web->languages[l].documents = documents[l];
        if (documents[l] < least)
            continue;
        if (!measured->bins)
            measured->bins = mem_array(GOPHER_END * HISTOGRAM_BINS, sizeof *measured->bins);
        comm_sum_i64(web->run->comm, measured->bins, (int64_t)(GOPHER_END * HISTOGRAM_BINS));
    }
    mem_free(documents);
}

static int decide(struct drawing *drawing, int64_t least, struct err *err)
{
    struct web *web = drawing->web;
    const struct run *run = web->run;
    int64_t sampled = 0, most = 0;
    bool any = false;

    for (size_t l = 0; l < web->language_count; l++) {
        struct language_limits *language = &web->languages[l];
        sampled += language->documents;
        most = language->documents > most ? language->documents : most;
        if (language->documents < least)
            continue;
        measured_limits(&drawing->measured[l], run_float(run, "rules_q_low"),
                        run_float(run, "rules_q_high"), &language->limits);
        pin(run, language);
        language->drawn = any = true;
    }
    if (any)
        return 0;
    return err_set(err, ERR_INVALID, "params.rules_mode is quantile, but of the %lld documents of "
                   "the sample (rules_sample %g) no language has rules_sample_min (%lld): the most "
                   "are %lld. Raise rules_sample, or take rules_mode: fixed", (long long)sampled,
                   run_float(run, "rules_sample"), (long long)least, (long long)most);
}

/* ---- what was found --------------------------------------------------------------------- */

/* Indices of languages in the sample, those with many documents first. */
static size_t *by_documents(const struct web *web, size_t *out_count)
{
    size_t *order = mem_array(web->language_count, sizeof *order), count = 0;

    for (size_t l = 0; l < web->language_count; l++) {
        size_t at = count;
        if (web->languages[l].documents == 0)
            continue;
        for (; at > 0 && web->languages[order[at - 1]].documents < web->languages[l].documents;
             at--)
            order[at] = order[at - 1];
        order[at] = l;
        count++;
    }
    *out_count = count;
    return order;
}

static void put_side(struct buf *out, double limit)
{
    if (isfinite(limit))
        buf_printf(out, "%.17g", limit);
}

/* As params.limits takes it. */
static void tell(struct run *run, const struct language_limits *language)
{
    const struct gopher_limits *limits = &language->limits;
    struct buf text = {0};

    for (enum gopher_measure m = 0; m < GOPHER_END; m++) {
        if (!isfinite(limits->low[m]) && !isfinite(limits->high[m]))
            continue;
        buf_printf(&text, "%s%s%s%s=", text.length ? ", " : "", language->language,
                   *language->language ? "/" : "", gopher_name(m));
        put_side(&text, limits->low[m]);
        buf_putc(&text, ':');
        put_side(&text, limits->high[m]);
    }
    run_note(run, "limits %s %lld documents: %s", language->drawn ? "drawn from"
             : "as published, too few in the sample with", (long long)language->documents,
             buf_text(&text));
    buf_done(&text);
}

static void tell_metrics(struct run *run, const struct language_limits *language)
{
    const struct gopher_limits *limits = &language->limits;
    char name[96];

    for (enum gopher_measure m = 0; m < GOPHER_END; m++)
        for (int high = 0; high < 2; high++) {
            double limit = high ? limits->high[m] : limits->low[m];
            snprintf(name, sizeof name, "limit_%s_%s%s%.24s", gopher_name(m), high ? "high" : "low",
                     *language->language ? "_" : "", language->language);
            if (isfinite(limit))
                run_metric(run, name, limit);
        }
}

static void report(struct web *web)
{
    size_t count, *order = by_documents(web, &count), told = 0;

    for (size_t i = 0; i < count; i++) {
        const struct language_limits *language = &web->languages[order[i]];
        tell(web->run, language);
        if (language->drawn && told++ < METRIC_LANGUAGES)
            tell_metrics(web->run, language);
    }
    mem_free(order);
}

int limits_draw(struct web *web, struct err *err)
{
    struct drawing drawing = {.web = web};
    int64_t least = run_int(web->run, "rules_sample_min");

    web->run->phase = "limits";
    drawing.measured = mem_array(web->language_count, sizeof *drawing.measured);
    int rc = measure_own_blocks(&drawing, err);
    if (rc == 0) {
        share(&drawing, least);
        rc = decide(&drawing, least, err);
    }
    if (rc == 0)
        report(web);
    for (size_t l = 0; l < web->language_count; l++)
        measured_done(&drawing.measured[l]);
    mem_free(drawing.measured);
    return rc;
}

/* ---- the card --------------------------------------------------------------------------- */

static void put_number(struct buf *out, double limit)
{
    if (isfinite(limit))
        put_side(out, limit);
    else
        buf_puts(out, "null");
}

static void put_language(const struct language_limits *language, struct buf *out)
{
    bool any = false;

    buf_puts(out, "{\"language\": ");
    json_text_quote(out, language->language, strlen(language->language));
    buf_printf(out, ", \"documents\": %lld, \"drawn\": %s, \"measures\": {",
               (long long)language->documents, language->drawn ? "true" : "false");
    for (enum gopher_measure m = 0; m < GOPHER_END; m++) {
        double low = language->limits.low[m], high = language->limits.high[m];
        if (!isfinite(low) && !isfinite(high))
            continue;
        buf_printf(out, "%s\"%s\": [", any ? ", " : "", gopher_name(m));
        put_number(out, low);
        buf_puts(out, ", ");
        put_number(out, high);
        buf_putc(out, ']');
        any = true;
    }
    buf_puts(out, "}}");
}

void limits_card(const struct web *web, size_t most, struct buf *out)
{
    const struct run *run = web->run;
    size_t count, *order, begin = out->length;
    struct buf one = {0};

    if (!web->draws_limits)
        return;
    order = by_documents(web, &count);
    buf_printf(out, ", \"limits\": {\"q_low\": %.9g, \"q_high\": %.9g, \"sample\": %.9g, "
               "\"language_count\": %zu, \"languages\": [", run_float(run, "rules_q_low"),
               run_float(run, "rules_q_high"), run_float(run, "rules_sample"), count);
    for (size_t i = 0; i < count; i++) {
        buf_clear(&one);
        put_language(&web->languages[order[i]], &one);
        if (out->length - begin + one.length + 8 > most)
            break;
        buf_printf(out, "%s%s", i ? ", " : "", one.bytes);
    }
    buf_puts(out, "]}");
    buf_done(&one);
    mem_free(order);
}
