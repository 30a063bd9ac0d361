/* mixing.h - params.mix_include and mix_exclude: which documents take part in the mixture, by what
 * the stages wrote of them (predicate.h). Source: card data-dolma, "Mixer and sampling".
 *
 * A document is left out when mix_include has items and none of them holds, or when one of
 * mix_exclude does: the first is what it is counted by. They ask for the attributes in the files of
 * blocks (numbers of 9 digits), id and source (texts), bytes (of the text as it was read) and the
 * edits by their names (0 without any). An attribute may have its stage before it: gopher.words. */
#ifndef ATHANOR_WEB_MIXING_H
#define ATHANOR_WEB_MIXING_H

#include "worker/recipes/data/web/web.h"

#define MIXING_ITEMS_MAX 16 /* of each list; filters.def has a row for each of mix_exclude */

struct mixing;

/* Knows the attributes of the stages that web->stages has. Errors: ERR_INVALID naming the
 * parameter, the item and the column; ERR_LIMIT. */
int mixing_new(const struct web *web, struct mixing **out, struct err *err) WARN_UNUSED;
void mixing_free(struct mixing *mixing); /* NULL is fine */
/* FILTER_KEPT, or what leaves it out. */
enum filter mixing_judge(struct mixing *mixing, const struct block_item *item);
/* The condition that a filter of mix_exclude is for; NULL: none of them. */
const char *mixing_rule(const struct mixing *mixing, enum filter filter);
/* Whether a name stands for something else already than a scorer of the job's own. */
bool mixing_is_taken(const char *name);

#endif
