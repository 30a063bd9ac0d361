/* scorer.h - params.scorers: classifiers of the user's own, each with limits and what it does.
 *
 * An item is NAME=INPUT/LABEL followed by KEY=VALUE, apart by spaces:
 *
 *   hate=hate/hate max=0.4 unit=sentence action=cut
 *   edu=scorer_1/school min=auto
 *
 * INPUT is an input of the recipe that is a classifier (recipe data/classifier), LABEL one of its
 * labels. min, max: p(label) below or above breaks the scorer; `auto` is the threshold that the
 * classifier recorded for the label. unit: what is scored, document (the default), paragraph or
 * sentence. action: drop (the default) the document of which a unit breaks it, cut the unit, or
 * tag: p becomes an attribute and nothing else happens. NAME is that of the attribute and of the
 * filter in cards, views and metrics. Cards: data-dolma ("Toxicity"), data-yi-pipeline (safety
 * scorer). */
#ifndef ATHANOR_WEB_SCORER_H
#define ATHANOR_WEB_SCORER_H

#include "common/base/err.h"
#include "worker/recipes/data/web/classifier.h"

#define SCORERS_MAX      16 /* filters.def has a row for each */
#define SCORER_NAME_MAX  32

enum scorer_unit { SCORER_DOCUMENT = 1, SCORER_PARAGRAPH, SCORER_SENTENCE };
enum scorer_action { SCORER_DROP = 1, SCORER_CUT, SCORER_TAG };

struct scorer {
    char *name, *input, *label;
    double least, most; /* -INFINITY, INFINITY: no limit */
    bool least_auto, most_auto;
    enum scorer_unit unit;
    enum scorer_action action;
    char *rule;                    /* a sentence for cards; made by scorer_bind */
    struct classifier *classifier; /* borrowed; scorer_bind */
    size_t label_index;
};

/* Errors: ERR_INVALID, naming the item and what is wrong with it. */
int scorer_parse(const char *item, struct scorer *out, struct err *err) WARN_UNUSED;
/* Errors: ERR_INVALID when the classifier does not know the label; it lists its labels. */
int scorer_bind(struct scorer *scorer, struct classifier *classifier, struct err *err) WARN_UNUSED;
void scorer_done(struct scorer *scorer); /* a zeroed struct is fine */

/* The next unit of a text, [*begin, *end): call with *end where the last one ended (0 at first).
 * Units follow each other without gaps; a sentence ends at '\n', or at . ? ! before white space
 * or the end. False after the last one. */
bool scorer_next_unit(enum scorer_unit unit, const char *text, size_t length, size_t *begin,
                      size_t *end);

bool scorer_breaks(const struct scorer *scorer, double p);
/* What a document with units of p a and b is known by: the one nearer to breaking, or the greater
 * without limits. */
double scorer_worse(const struct scorer *scorer, double a, double b);

/* Labels of a classifier, with ", " between, at most 10 of them. mem_free. */
char *classifier_label_list(const struct classifier *classifier);

#endif
