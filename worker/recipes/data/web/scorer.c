/* scorer.c - see scorer.h. */
#include "worker/recipes/data/web/scorer.h"

#include "common/base/mem.h"
#include "common/base/parse.h"

#include <math.h>
#include <string.h>

#define LABELS_LISTED 10

static const char *const unit_names[] = {[SCORER_DOCUMENT] = "document",
                                         [SCORER_PARAGRAPH] = "paragraph",
                                         [SCORER_SENTENCE] = "sentence"};
static const char *const action_names[] = {
    [SCORER_DROP] = "drop", [SCORER_CUT] = "cut", [SCORER_TAG] = "tag"};

void scorer_done(struct scorer *scorer)
{
    mem_free(scorer->name);
    mem_free(scorer->input);
    mem_free(scorer->label);
    mem_free(scorer->rule);
    *scorer = (struct scorer){0};
}

/* ---- an item ---------------------------------------------------------------------------- */

static int refuse(const char *item, const char *why, struct err *err)
{
    return err_set(err, ERR_INVALID, "params.scorers: '%s' %s; expected NAME=INPUT/LABEL and then "
                   "min=P, max=P (0 to 1, or auto), unit=document|paragraph|sentence, "
                   "action=drop|cut|tag, as in 'hate=hate/hate max=0.4 unit=sentence action=cut'",
                   item, why);
}

static bool is_name(const char *text)
{
    return *text && strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789_") == strlen(text) &&
           strlen(text) <= SCORER_NAME_MAX;
}

/* The number of the name in a table that begins at 1; 0: none. */
static unsigned find_name(const char *const *names, size_t count, const char *name)
{
    for (unsigned i = 1; i < count; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    return 0;
}

static bool read_limit(const char *value, double *limit, bool *is_auto)
{
    struct err unused;

    *is_auto = strcmp(value, "auto") == 0;
    return *is_auto || (parse_f64(value, limit, &unused) == 0 && *limit >= 0 && *limit <= 1);
}

/* NULL, or what is wrong. */
static const char *read_option(char *option, struct scorer *out)
{
    char *value = strchr(option, '=');

    if (!value)
        return "has a word that is not KEY=VALUE";
    *value++ = 0;
    if (strcmp(option, "min") == 0)
        return read_limit(value, &out->least, &out->least_auto) ? NULL : "has a bad min";
    if (strcmp(option, "max") == 0)
        return read_limit(value, &out->most, &out->most_auto) ? NULL : "has a bad max";
    if (strcmp(option, "unit") == 0)
        return (out->unit = find_name(unit_names, ARRAY_COUNT(unit_names), value))
                   ? NULL : "has an unknown unit";
    if (strcmp(option, "action") == 0)
        return (out->action = find_name(action_names, ARRAY_COUNT(action_names), value))
                   ? NULL : "has an unknown action";
    return "has an unknown key";
}

static const char *read_head(const char *head, struct scorer *out)
{
    const char *equals = strchr(head, '='), *slash = equals ? strchr(equals, '/') : NULL;

    if (!slash || !slash[1] || slash == equals + 1)
        return "does not begin with NAME=INPUT/LABEL";
    out->name = mem_strndup(head, (size_t)(equals - head));
    out->input = mem_strndup(equals + 1, (size_t)(slash - equals - 1));
    out->label = mem_strdup(slash + 1);
    return is_name(out->name) ? NULL
                              : "has a name that is not 1 to 32 of a-z, 0-9 and _";
}

static const char *check(const struct scorer *scorer)
{
    bool limited = scorer->least_auto || scorer->most_auto || isfinite(scorer->least) ||
                   isfinite(scorer->most);

    if (!limited && scorer->action != SCORER_TAG)
        return "has no limit to break";
    if (scorer->action == SCORER_CUT && scorer->unit == SCORER_DOCUMENT)
        return "would cut whole documents: drop them, or give a unit";
    return NULL;
}

int scorer_parse(const char *item, struct scorer *out, struct err *err)
{
    struct scorer made = {.least = -INFINITY, .most = INFINITY, .unit = SCORER_DOCUMENT,
                          .action = SCORER_DROP};
    char *copy = mem_strdup(item), *rest = copy, *word;
    const char *wrong = NULL;

    for (bool first = true; !wrong && (word = strsep(&rest, " ")); first = first && !*word)
        if (*word)
            wrong = first ? read_head(word, &made) : read_option(word, &made);
    if (!wrong)
        wrong = made.name ? check(&made) : "is empty";
    mem_free(copy);
    if (!wrong) {
        *out = made;
        return 0;
    }
    scorer_done(&made);
    return refuse(item, wrong, err);
}

/* ---- its classifier --------------------------------------------------------------------- */

char *classifier_label_list(const struct classifier *classifier)
{
    struct buf out = {0};

    for (size_t l = 0; l < classifier->label_count && l < LABELS_LISTED; l++)
        buf_printf(&out, "%s%s", l ? ", " : "", classifier->labels[l]);
    if (classifier->label_count > LABELS_LISTED)
        buf_printf(&out, " and %zu more", classifier->label_count - LABELS_LISTED);
    return buf_take(&out);
}

static char *rule_of(const struct scorer *scorer)
{
    struct buf out = {0};

    buf_printf(&out, "p(%s) of inputs.%s", scorer->label, scorer->input);
    if (isfinite(scorer->least))
        buf_printf(&out, " below %.9g", scorer->least);
    if (isfinite(scorer->most))
        buf_printf(&out, "%s above %.9g", isfinite(scorer->least) ? " or" : "", scorer->most);
    buf_printf(&out, " for a %s", unit_names[scorer->unit]);
    return buf_take(&out);
}

int scorer_bind(struct scorer *scorer, struct classifier *classifier, struct err *err)
{
    size_t label = classifier_label(classifier, scorer->label);

    if (label == classifier->label_count) {
        char *known = classifier_label_list(classifier);
        err_set(err, ERR_INVALID, "params.scorers: '%s' asks for the label '%s', which the "
                "classifier inputs.%s does not know; it knows %s", scorer->name, scorer->label,
                scorer->input, known);
        mem_free(known);
        return -1;
    }
    scorer->classifier = classifier;
    scorer->label_index = label;
    if (scorer->least_auto)
        scorer->least = (double)classifier->threshold[label];
    if (scorer->most_auto)
        scorer->most = (double)classifier->threshold[label];
    scorer->rule = rule_of(scorer);
    return 0;
}

/* ---- scoring ---------------------------------------------------------------------------- */

bool scorer_next_unit(enum scorer_unit unit, const char *text, size_t length, size_t *begin,
                      size_t *end)
{
    size_t i = *end;

    if (i >= length)
        return false;
    *begin = i;
    if (unit == SCORER_DOCUMENT)
        i = length - 1;
    for (; i + 1 < length && text[i] != '\n'; i++)
        if (unit == SCORER_SENTENCE && memchr(".?!", text[i], 3) && memchr(" \n", text[i + 1], 2))
            break;
    *end = i + 1;
    return true;
}

bool scorer_breaks(const struct scorer *scorer, double p)
{
    return p < scorer->least || p > scorer->most;
}

double scorer_worse(const struct scorer *scorer, double a, double b)
{
    double over_a = fmax(scorer->least - a, a - scorer->most);
    double over_b = fmax(scorer->least - b, b - scorer->most);

    if (!isfinite(over_a)) /* no limit */
        return fmax(a, b);
    return over_b > over_a ? b : a;
}
