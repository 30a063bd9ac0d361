/* build.c - see build.h. */
#include "worker/recipes/data/web/build.h"

#include "common/base/file.h"
#include "common/base/json_text.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "common/base/rng.h"
#include "worker/recipes/data/web/chars.h"
#include "worker/recipes/data/web/group.h"
#include "worker/recipes/data/web/limits.h"
#include "worker/recipes/data/web/mixing.h"
#include "worker/recipes/data/web/sorting.h"
#include "worker/recipes/data/web/web.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define CARD_BYTES_MAX   49152 /* a report's line has 65536 (report.h), other members 4 KiB */
#define CARD_SOURCES_MAX 32
#define CARD_CLUSTERS_MAX 16384 /* bytes */
#define CARD_LIMITS_MAX   8192  /* bytes: about ten languages */
#define CARD_CUTS_MAX     8192  /* bytes */
#define SAMPLES_MAX      20    /* of a filter: params.card_samples */
#define NAMED_MAX        20    /* malformed lines in the job's log */
#define RATE_MAX         64
#define STREAM_MIX       7     /* of rng_at, apart from the others */
#define STREAM_CUT       100

struct sample {
    uint64_t rank; /* the smallest of a filter are kept: a uniform draw, whatever the order */
    uint64_t number;
    char *id, *where, *text;
    double value;
};

struct source {
    char *name;
    char *part; /* "" when it has none of its own: no source is named, or too many are */
    double rate;
    int64_t in, count[FILTER_END];
};

struct build {
    struct web *web;
    struct source *sources;
    size_t source_count, source_capacity;
    struct sample samples[FILTER_END][SAMPLES_MAX];
    size_t sample_count[FILTER_END];
    struct sample cuts[EDIT_END][SAMPLES_MAX];
    size_t cut_count[EDIT_END];
    size_t samples_most;
    int64_t count[FILTER_END], bytes[FILTER_END], edits[EDIT_END];
    int64_t in, added;
};

/* ---- mixing ----------------------------------------------------------------------------- */

/* Item i of params.mix is SOURCE=RATE. */
static int mix_item(const struct run *run, size_t i, const char **out_source, size_t *out_length,
                    double *out_rate, struct err *err)
{
    const char *item = run_list_item(run, "mix", i), *equals = strrchr(item, '=');

    if (!equals || parse_f64(equals + 1, out_rate, err) < 0 || *out_rate < 0 ||
        *out_rate > RATE_MAX)
        return err_set(err, ERR_INVALID, "params.mix: '%s' is not SOURCE=RATE with a rate of 0 to "
                       "%d (above 1 repeats)", item, RATE_MAX);
    *out_source = item;
    *out_length = (size_t)(equals - item);
    return 0;
}

static double rate_of(const struct run *run, const char *source)
{
    struct err unused;
    const char *name;
    size_t length;
    double rate;

    for (size_t i = 0; i < run_list_count(run, "mix"); i++)
        if (mix_item(run, i, &name, &length, &rate, &unused) == 0 && strlen(source) == length &&
            strncmp(name, source, length) == 0)
            return rate;
    return 1;
}

int build_check(const struct web *web, struct err *err)
{
    const char *name;
    size_t length;
    double rate;

    for (size_t i = 0; i < run_list_count(web->run, "mix"); i++)
        if (mix_item(web->run, i, &name, &length, &rate, err) < 0)
            return -1;
    return 0;
}

/* How often a document is taken: a function of (seed, id). */
static unsigned copies_of(const struct build *build, const struct source *source, const char *id)
{
    struct hash hash;
    uint64_t bits;

    hash_bytes(id, strlen(id), &hash);
    memcpy(&bits, hash.bytes, sizeof bits);
    double whole = floor(source->rate), rest = source->rate - whole;
    double draw = rng_unit_at((uint64_t)run_int(build->web->run, "seed"), bits, STREAM_MIX);
    return (unsigned)whole + (draw < rest);
}

/* ---- sources ---------------------------------------------------------------------------- */

/* A part's name has letters, digits and "_.-" only, and is not one that always exists. */
static char *part_name(const char *source)
{
    static const char *const taken[] = {"all", "train", "valid"};
    char *name = mem_strndup(source, strnlen(source, 48));

    for (char *c = name; *c; c++)
        if (!((*c >= '0' && *c <= '9') || char_is_letter((uint8_t)*c) || strchr("_-", *c) ||
              (*c == '.' && c > name)))
            *c = '-';
    for (size_t t = 0; t < ARRAY_COUNT(taken); t++)
        if (strcmp(name, taken[t]) == 0) {
            char *longer = mem_printf("source-%s", name);
            mem_free(name);
            return longer;
        }
    return name;
}

static struct source *find_source(struct build *build, const char *name)
{
    for (size_t s = 0; s < build->source_count; s++)
        if (strcmp(build->sources[s].name, name) == 0)
            return &build->sources[s];
    VEC_RESERVE(build->sources, build->source_count, build->source_capacity);
    struct source *source = &build->sources[build->source_count++];
    *source = (struct source){.name = mem_strdup(name), .rate = rate_of(build->web->run, name)};
    bool own = *name && build->source_count <= BUILD_SOURCES_MAX;
    source->part = own ? part_name(name) : mem_strdup("");
    return source;
}

/* ---- samples of what was dropped -------------------------------------------------------- */

static void sample_done(struct sample *sample)
{
    mem_free(sample->id);
    mem_free(sample->where);
    mem_free(sample->text);
}

/* Where a sample of this rank belongs in a list; NULL: it is not drawn. */
static struct sample *place_of(const struct build *build, struct sample *list, size_t *count,
                               uint64_t rank)
{
    struct sample *place = NULL;

    if (*count < build->samples_most)
        return &list[(*count)++];
    for (size_t i = 0; i < *count; i++)
        if (!place || list[i].rank > place->rank)
            place = &list[i];
    if (!place || place->rank <= rank)
        return NULL;
    sample_done(place);
    return place;
}

static void take_sample(struct sample *place, uint64_t rank, uint64_t number,
                        const struct block_item *item, const char *text, size_t length)
{
    *place = (struct sample){rank, number, mem_strdup(item->id), mem_strdup(item->where),
                             mem_strndup(text, char_prefix(text, length, WEB_EXCERPT_CHARS)),
                             item->value};
}

/* What a GROUP stage or mix drops still has all of its text here. */
static void offer_sample(struct build *build, uint64_t number, const struct block_item *item)
{
    enum filter filter = item->verdict;
    uint64_t seed = (uint64_t)run_int(build->web->run, "seed");
    uint64_t rank = rng_at(seed, number, 11 + (uint64_t)filter);
    struct sample *place = place_of(build, build->samples[filter], &build->sample_count[filter],
                                    rank);

    if (filter == FILTER_MALFORMED && build->count[filter] <= NAMED_MAX)
        run_note(build->web->run, "malformed: %s %s", item->where, item->text);
    if (place)
        take_sample(place, rank, number, item, item->text, item->length);
}

struct cutting {
    struct build *build;
    uint64_t number;
    const struct block_item *item;
};

/* What a GROUP stage is about to cut. */
static void offer_cut(void *argument, enum edit edit, const char *text, size_t length)
{
    const struct cutting *cutting = argument;
    struct build *build = cutting->build;
    uint64_t seed = (uint64_t)run_int(build->web->run, "seed");
    uint64_t place_in_text = (uint64_t)(text - cutting->item->text);
    uint64_t rank = rng_at(seed, rng_at(seed, cutting->number, STREAM_CUT + edit), place_in_text);
    struct sample *place = place_of(build, build->cuts[edit], &build->cut_count[edit], rank);

    if (place)
        take_sample(place, rank, cutting->number, cutting->item, text, length);
}

/* ---- documents -------------------------------------------------------------------------- */

static int add_document(struct build *build, struct source *source, const char *id,
                        const struct block_item *item, struct err *err)
{
    struct preparation *preparation = &build->web->preparation;
    bool held_out = preparation_is_held_out(build->web->run, item->text, item->length);
    uint64_t document = preparation_add(preparation, id, item->text, item->length);

    build->added++;
    if (preparation_join(preparation, "all", document, err) < 0 ||
        preparation_join(preparation, held_out ? "valid" : "train", document, err) < 0)
        return -1;
    if (!*source->part)
        return 0;
    return preparation_join_split(preparation, source->part, held_out, document, err);
}

/* A document that is held out is taken once however high its rate: it only measures. */
static int add_copies(struct build *build, struct source *source, const struct block_item *item,
                      unsigned copies, struct err *err)
{
    if (preparation_is_held_out(build->web->run, item->text, item->length))
        copies = 1;
    for (unsigned c = 1; c <= copies; c++) {
        char *name = c == 1 ? mem_strdup(item->id) : mem_printf("%s#%u", item->id, c);
        int rc = add_document(build, source, name, item, err);
        mem_free(name);
        if (rc < 0)
            return -1;
    }
    return 0;
}

/* What the GROUP stages decided. */
static void apply_group(struct build *build, uint64_t number, struct block_item *item)
{
    struct cutting cutting = {build, number, item};
    const struct group_watch watch = {offer_cut, &cutting};
    const struct group *group = build->web->group;

    if (group && group->sorting)
        sorting_see(group->sorting, number, item);
    group_apply(group, number, item, &watch);
}

static int take_item(void *argument, size_t block, size_t index, struct block_item *item,
                     struct err *err)
{
    struct build *build = argument;
    uint64_t number = group_number(block, index);
    struct source *source = find_source(build, item->source);
    unsigned copies = 0;

    if (item->verdict == FILTER_KEPT)
        apply_group(build, number, item);
    if (item->verdict == FILTER_KEPT)
        item->verdict = mixing_judge(build->web->mixing, item);
    if (item->verdict == FILTER_KEPT) {
        copies = copies_of(build, source, item->id);
        item->verdict = copies ? FILTER_KEPT : FILTER_SAMPLED;
    }
    build->in++;
    source->in++;
    source->count[item->verdict]++;
    build->count[item->verdict]++;
    build->bytes[item->verdict] += (int64_t)item->bytes;
    for (enum edit e = 0; e < EDIT_END && item->verdict == FILTER_KEPT; e++)
        build->edits[e] += (int64_t)item->edits[e];
    if (item->verdict != FILTER_KEPT) {
        offer_sample(build, number, item);
        return 0;
    }
    return add_copies(build, source, item, copies, err);
}

/* ---- the card --------------------------------------------------------------------------- */

static void put_text(struct buf *out, const char *name, const char *text)
{
    buf_printf(out, "\"%s\": ", name);
    json_text_quote(out, text, strlen(text));
}

static void put_filters(struct buf *out, const struct build *build)
{
    buf_puts(out, ", \"filters\": [");
    for (enum filter f = 0, any = 0; f < FILTER_END; f++) {
        if (!build->count[f])
            continue;
        buf_printf(out, "%s{\"name\": \"%s\", \"documents\": %lld, \"bytes\": %lld, ",
                   any ? ", " : "", web_filter_name(build->web, f), (long long)build->count[f],
                   (long long)build->bytes[f]);
        put_text(out, "rule", web_filter_rule(build->web, f));
        buf_putc(out, '}');
        any = 1;
    }
    buf_puts(out, "], \"edits\": {");
    for (enum edit e = 0; e < EDIT_END; e++)
        buf_printf(out, "%s\"%s\": %lld", e ? ", " : "", edit_name(e), (long long)build->edits[e]);
    buf_putc(out, '}');
}

static void put_sources(struct buf *out, const struct build *build)
{
    buf_printf(out, ", \"source_count\": %zu, \"sources\": {", build->source_count);
    for (size_t s = 0; s < build->source_count && s < CARD_SOURCES_MAX; s++) {
        const struct source *source = &build->sources[s];
        buf_puts(out, s ? ", " : "");
        json_text_quote(out, source->name, strlen(source->name));
        buf_printf(out, ": {\"documents\": %lld, \"rate\": %.9g", (long long)source->in,
                   source->rate);
        for (enum filter f = 0; f < FILTER_END; f++)
            if (source->count[f])
                buf_printf(out, ", \"%s\": %lld", web_filter_name(build->web, f),
                           (long long)source->count[f]);
        buf_putc(out, '}');
    }
    buf_putc(out, '}');
}

static void put_sample(struct buf *out, const char *kind, const char *name,
                       const struct sample *sample)
{
    buf_printf(out, "{\"%s\": \"%s\", ", kind, name);
    put_text(out, "id", sample->id);
    buf_puts(out, ", ");
    put_text(out, "where", sample->where);
    if (isfinite(sample->value))
        buf_printf(out, ", \"value\": %.9g", sample->value);
    buf_puts(out, ", ");
    put_text(out, "text", sample->text);
    buf_putc(out, '}');
}

/* Samples side by side over the filters or edits, as many as the card's size allows. */
static void put_samples(struct buf *out, const struct build *build)
{
    struct buf one = {0};
    bool any = false;

    buf_puts(out, ", \"samples\": [");
    for (size_t i = 0; i < build->samples_most; i++)
        for (enum filter f = 0; f < FILTER_KEPT; f++) {
            if (i >= build->sample_count[f])
                continue;
            buf_clear(&one);
            put_sample(&one, "filter", web_filter_name(build->web, f), &build->samples[f][i]);
            if (out->length + one.length + 16 > CARD_BYTES_MAX)
                continue;
            buf_printf(out, "%s%s", any ? ", " : "", one.bytes);
            any = true;
        }
    buf_putc(out, ']');
    buf_done(&one);
}

/* Passages and paragraphs that GROUP stages cut. */
static void put_cuts(struct buf *out, const struct build *build)
{
    size_t end = out->length + CARD_CUTS_MAX;
    struct buf one = {0};
    bool any = false;

    buf_puts(out, ", \"cuts\": [");
    for (size_t i = 0; i < build->samples_most; i++)
        for (enum edit e = 0; e < EDIT_END; e++) {
            if (i >= build->cut_count[e])
                continue;
            buf_clear(&one);
            put_sample(&one, "edit", edit_name(e), &build->cuts[e][i]);
            if (out->length + one.length + 16 > end)
                continue;
            buf_printf(out, "%s%s", any ? ", " : "", one.bytes);
            any = true;
        }
    buf_putc(out, ']');
    buf_done(&one);
}

/* Members of the dataset's card; see preparation.card. */
static char *card(const struct build *build)
{
    const struct web *web = build->web;
    struct buf out = {0};

    buf_printf(&out, "\"web\": {\"pipeline\": \"%s\", \"documents\": %lld, \"kept\": %lld, "
               "\"added\": %lld, \"seed\": %lld, \"settings\": \"%s\", \"stages\": [",
               web->run->recipe->name, (long long)build->in, (long long)build->count[FILTER_KEPT],
               (long long)build->added, (long long)run_int(web->run, "seed"), web->settings);
    for (size_t s = 0; s < web->stage_count; s++)
        buf_printf(&out, "%s\"%s\"", s ? ", " : "", stage_name(web->stages[s]));
    buf_printf(&out, "], \"off\": [%s]", buf_text(&web->off));
    put_filters(&out, build);
    put_sources(&out, build);
    limits_card(web, CARD_LIMITS_MAX, &out);
    if (web->group && web->group->sorting) {
        buf_puts(&out, ", ");
        sorting_card(web->group->sorting, CARD_CLUSTERS_MAX, &out);
    }
    put_cuts(&out, build);
    put_samples(&out, build);
    buf_putc(&out, '}');
    return buf_take(&out);
}

/* ---- the whole -------------------------------------------------------------------------- */

static int check_result(const struct build *build, struct err *err)
{
    const struct run *run = build->web->run;
    double most = run_float(run, "decon_max_removal");
    int64_t hits = build->count[FILTER_DECONTAMINATED];

    if ((double)hits > most * (double)build->in)
        return err_set(err, ERR_LIMIT, "decon_max_removal: %lld of %lld documents hold paragraphs "
                       "of the eval sets, more than a share of %g; give fewer eval sets, or allow "
                       "more",
                       (long long)hits, (long long)build->in, most);
    if (!preparation_part(&build->web->preparation, "train"))
        return err_set(err, ERR_INVALID, "of %lld documents none is left to train on; the metrics "
                       "dropped_* and the blocks in '%s' say why each was dropped",
                       (long long)build->in, build->web->folder);
    return 0;
}

static void report(const struct build *build)
{
    struct run *run = build->web->run;
    char name[64];

    run_metric(run, "documents_kept", (double)build->count[FILTER_KEPT]);
    run_metric(run, "documents_added", (double)build->added);
    for (enum filter f = 0; f < FILTER_KEPT; f++) {
        snprintf(name, sizeof name, "dropped_%s", web_filter_name(build->web, f));
        if (build->count[f])
            run_metric(run, name, (double)build->count[f]);
    }
    for (enum edit e = 0; e < EDIT_END; e++)
        if (build->edits[e])
            run_metric(run, edit_name(e), (double)build->edits[e]);
    run_note(run, "%lld of %lld documents are kept", (long long)build->count[FILTER_KEPT],
             (long long)build->in);
}

static void build_done(struct build *build)
{
    for (size_t s = 0; s < build->source_count; s++) {
        mem_free(build->sources[s].name);
        mem_free(build->sources[s].part);
    }
    for (int f = 0; f < FILTER_END; f++)
        for (size_t i = 0; i < build->sample_count[f]; i++)
            sample_done(&build->samples[f][i]);
    for (int e = 0; e < EDIT_END; e++)
        for (size_t i = 0; i < build->cut_count[e]; i++)
            sample_done(&build->cuts[e][i]);
    mem_free(build->sources);
    mem_free(build);
}

static int write_clusters(const struct web *web, struct err *err)
{
    struct buf lines = {0};
    int rc = 0;

    if (!web->group || !web->group->sorting)
        return 0;
    char *path = mem_printf("%s/clusters.jsonl", web->folder);
    sorting_lines(web->group->sorting, &lines);
    rc = file_replace(path, buf_text(&lines), lines.length, 0644, err);
    mem_free(path);
    buf_done(&lines);
    return rc;
}

int build_gather(struct web *web, struct err *err)
{
    struct build *build = mem_zalloc(sizeof *build);
    int rc = 0;

    web->run->phase = "gather";
    build->web = web;
    build->samples_most = (size_t)run_int(web->run, "card_samples");
    CHECK(build->samples_most <= SAMPLES_MAX);
    for (size_t b = 0; b < web->list.block_count && rc == 0; b++)
        rc = web_block_read(web, b, take_item, build, err);
    if (rc == 0) {
        report(build);
        rc = check_result(build, err);
    }
    if (rc == 0)
        rc = write_clusters(web, err);
    if (rc == 0)
        web->preparation.card = card(build);
    build_done(build);
    return rc;
}
