/* names.c - filters, stages and edits by name; see web.h. */
#include "worker/recipes/data/web/mixing.h"
#include "worker/recipes/data/web/web.h"

#include <math.h>
#include <string.h>

/* ---- names ------------------------------------------------------------------------------ */

static const struct {
    const char *name, *rule;
} filters[FILTER_END] = {
#define FILTER(id, name, rule) {#name, rule},
#define GOPHER(id, name, low, high, low2, high2, text) {"gopher_" #name, text},
#define SOURCE(id, name, stage, low, high, text) {#name, text},
#include "worker/recipes/data/web/filters.def"
#undef FILTER
#undef GOPHER
#undef SOURCE
};

_Static_assert(FILTER_SCORER_1 + SCORERS_MAX == FILTER_TOPIC, "a filter for each scorer");

/* The scorer whose filter it is; NULL: another filter. */
static const struct scorer *scorer_of(const struct web *web, enum filter filter)
{
    if (!web || filter < FILTER_SCORER_1 || filter >= FILTER_SCORER_1 + web->scorer_count)
        return NULL;
    return &web->scorers[filter - FILTER_SCORER_1];
}

const char *web_filter_name(const struct web *web, enum filter filter)
{
    const struct scorer *scorer = scorer_of(web, filter);

    CHECK(filter < FILTER_END);
    return scorer ? scorer->name : filters[filter].name;
}

const char *web_filter_rule(const struct web *web, enum filter filter)
{
    const struct scorer *scorer = scorer_of(web, filter);
    const char *excluded = web ? mixing_rule(web->mixing, filter) : NULL;

    CHECK(filter < FILTER_END);
    return scorer ? scorer->rule : excluded ? excluded : filters[filter].rule;
}

enum filter web_filter_find(const struct web *web, const char *name)
{
    enum filter f = 0;

    while (f < FILTER_END && strcmp(web_filter_name(web, f), name) != 0)
        f++;
    return f;
}

static const struct {
    const char *name;
    enum stage_kind kind;
} stages[STAGE_END] = {
#define STAGE(id, name, kind, card) {#name, STAGE_##kind},
#include "worker/recipes/data/web/stages.def"
#undef STAGE
};

const char *stage_name(enum stage stage)
{
    CHECK(stage < STAGE_END);
    return stages[stage].name;
}

enum stage_kind stage_kind(enum stage stage)
{
    CHECK(stage < STAGE_END);
    return stages[stage].kind;
}

const char *edit_name(enum edit edit)
{
    static const char *const names[EDIT_END] = {"lines_cut",  "paragraphs_cut",
                                                "passages_cut", "near_paragraphs_cut",
                                                "scored_cut",
                                                "emails_masked", "phones_masked", "ips_masked"};

    CHECK(edit < EDIT_END);
    return names[edit];
}

enum stage web_stage_find(const char *name)
{
    enum stage s = 0;

    while (s < STAGE_END && strcmp(stages[s].name, name) != 0)
        s++;
    return s;
}
