/* mixing.c - see mixing.h. */
#include "worker/recipes/data/web/mixing.h"

#include "common/base/mem.h"
#include "worker/recipes/data/web/predicate.h"

#include <jansson.h>
#include <string.h>

#define NAMES_MAX 160
_Static_assert(3 + EDIT_END + GOPHER_END + SCORERS_MAX + SOURCE_END + 20 <= NAMES_MAX,
               "room for all names");
_Static_assert(FILTER_EXCLUDE_1 + MIXING_ITEMS_MAX == FILTER_SAMPLED, "a filter for each item");

/* The stage whose measure each row of source.def is. */
static const enum stage source_stages[SOURCE_END] = {
#define SOURCE(id, name, stage, low, high, text) STAGE_##stage,
#include "worker/recipes/data/web/source.def"
#undef SOURCE
};

/* What stages.c writes of a document; the measures of gopher.def and source.def and the scorers
 * come on top. */
static const struct {
    enum stage stage;
    const char *name;
    bool is_text;
} attributes[] = {
    {STAGE_LANGUAGE, "language", false},
    {STAGE_GARBLED, "garbled", false},
    {STAGE_C4, "c4_nopunc_lines", false},
    {STAGE_C4, "c4_short_lines", false},
    {STAGE_TOXICITY, "toxicity", false},
    {STAGE_SECRETS, "secrets", false},
    {STAGE_PII, "pii", false},
    {STAGE_REPETITION, "repetition", false},
    {STAGE_DECONTAMINATE, "eval_paragraphs", false},
    {STAGE_PERPLEXITY, "log_probability", false},
    {STAGE_QUALITY, "quality", false},
    {STAGE_COHERENCE, "coherence", false},
    {STAGE_TOPIC, "topic", true},
    {STAGE_TOPIC, "topic_p", false},
};

struct predicates {
    struct predicate *items[MIXING_ITEMS_MAX];
    size_t count;
};

struct mixing {
    struct predicate_name names[NAMES_MAX];
    struct predicate_value values[NAMES_MAX];
    size_t name_count, first_attribute; /* id, source, bytes and the edits come before */
    struct predicates include, exclude;
};

bool mixing_is_taken(const char *name)
{
    if (strcmp(name, "id") == 0 || strcmp(name, "source") == 0 || strcmp(name, "bytes") == 0)
        return true;
    for (enum edit e = 0; e < EDIT_END; e++)
        if (strcmp(edit_name(e), name) == 0)
            return true;
    for (size_t i = 0; i < ARRAY_COUNT(attributes); i++)
        if (strcmp(attributes[i].name, name) == 0)
            return true;
    for (enum gopher_measure m = 0; m < GOPHER_END; m++)
        if (strcmp(gopher_name(m), name) == 0)
            return true;
    if (source_find(name, strlen(name)) < SOURCE_END)
        return true;
    return false;
}

/* ---- names ------------------------------------------------------------------------------ */

static void add_name(struct mixing *mixing, const char *name, const char *group, bool is_text)
{
    CHECK(mixing->name_count < NAMES_MAX);
    mixing->names[mixing->name_count++] = (struct predicate_name){name, group, is_text};
}

static void add_stage(struct mixing *mixing, const struct web *web, enum stage stage)
{
    for (size_t i = 0; i < ARRAY_COUNT(attributes); i++)
        if (attributes[i].stage == stage)
            add_name(mixing, attributes[i].name, stage_name(stage), attributes[i].is_text);
    for (enum gopher_measure m = 0; stage == STAGE_GOPHER && m < GOPHER_END; m++)
        add_name(mixing, gopher_name(m), stage_name(stage), false);
    for (enum source_measure m = 0; m < SOURCE_END; m++)
        if (source_stages[m] == stage)
            add_name(mixing, source_name(m), stage_name(stage), false);
    for (size_t i = 0; stage == STAGE_SCORES && i < web->scorer_count; i++)
        add_name(mixing, web->scorers[i].name, stage_name(stage), false);
}

static void list_names(struct mixing *mixing, const struct web *web)
{
    add_name(mixing, "id", NULL, true);
    add_name(mixing, "source", NULL, true);
    add_name(mixing, "bytes", NULL, false);
    for (enum edit e = 0; e < EDIT_END; e++)
        add_name(mixing, edit_name(e), NULL, false);
    mixing->first_attribute = mixing->name_count;
    for (size_t s = 0; s < web->stage_count; s++)
        add_stage(mixing, web, web->stages[s]);
}

/* ---- items ------------------------------------------------------------------------------ */

static int read_items(const struct web *web, const struct mixing *mixing, const char *param,
                      struct predicates *out, struct err *err)
{
    size_t count = run_list_count(web->run, param);

    if (count > MIXING_ITEMS_MAX)
        return err_set(err, ERR_LIMIT, "params.%s: more than %d conditions; join some with or",
                       param, MIXING_ITEMS_MAX);
    for (size_t i = 0; i < count; i++) {
        const char *item = run_list_item(web->run, param, i);
        if (predicate_parse(item, mixing->names, mixing->name_count, &out->items[i], err) < 0)
            return err_wrap(err, "params.%s: '%s'", param, item);
        out->count++;
    }
    return 0;
}

int mixing_new(const struct web *web, struct mixing **out, struct err *err)
{
    struct mixing *mixing = mem_zalloc(sizeof *mixing);

    list_names(mixing, web);
    if (read_items(web, mixing, "mix_include", &mixing->include, err) < 0 ||
        read_items(web, mixing, "mix_exclude", &mixing->exclude, err) < 0) {
        mixing_free(mixing);
        return -1;
    }
    *out = mixing;
    return 0;
}

void mixing_free(struct mixing *mixing)
{
    if (!mixing)
        return;
    for (size_t i = 0; i < MIXING_ITEMS_MAX; i++) {
        predicate_free(mixing->include.items[i]);
        predicate_free(mixing->exclude.items[i]);
    }
    mem_free(mixing);
}

const char *mixing_rule(const struct mixing *mixing, enum filter filter)
{
    if (!mixing || filter < FILTER_EXCLUDE_1 ||
        filter >= FILTER_EXCLUDE_1 + mixing->exclude.count)
        return NULL;
    return predicate_text(mixing->exclude.items[filter - FILTER_EXCLUDE_1]);
}

/* ---- judging ---------------------------------------------------------------------------- */

static void take_values(struct mixing *mixing, const struct block_item *item)
{
    struct predicate_value *value = mixing->values;

    *value++ = (struct predicate_value){true, 0, item->id};
    *value++ = (struct predicate_value){true, 0, item->source};
    *value++ = (struct predicate_value){true, (double)item->bytes, NULL};
    for (enum edit e = 0; e < EDIT_END; e++)
        *value++ = (struct predicate_value){true, (double)item->edits[e], NULL};
    for (size_t i = mixing->first_attribute; i < mixing->name_count; i++) {
        const json_t *told = json_object_get(item->attributes, mixing->names[i].name);
        bool is_text = mixing->names[i].is_text;
        *value++ = (struct predicate_value){
            .known = is_text ? json_is_string(told) : json_is_number(told),
            .number = json_number_value(told),
            .text = json_string_value(told)};
    }
}

enum filter mixing_judge(struct mixing *mixing, const struct block_item *item)
{
    bool included = mixing->include.count == 0;

    if (included && mixing->exclude.count == 0)
        return FILTER_KEPT;
    take_values(mixing, item);
    for (size_t i = 0; i < mixing->include.count && !included; i++)
        included = predicate_holds(mixing->include.items[i], mixing->values);
    if (!included)
        return FILTER_NOT_INCLUDED;
    for (size_t i = 0; i < mixing->exclude.count; i++)
        if (predicate_holds(mixing->exclude.items[i], mixing->values))
            return FILTER_EXCLUDE_1 + (enum filter)i;
    return FILTER_KEPT;
}
