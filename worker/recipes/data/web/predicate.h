/* predicate.h - conditions on what is known of a document, for params.mix_include and mix_exclude.
 *
 *   words < 80 and language < 0.7
 *   topic = ads or not (quality >= 0.5 and source != 'old books')
 *
 *   any := all { "or" all }                 NAME: of a table that the caller gives
 *   all := one { "and" one }                SIGN: < <= > >= = != (texts: = and != only)
 *   one := "not" one | "(" any ")"          VALUE: a number or, for texts, a word without white
 *        | NAME [SIGN VALUE]                       space, signs and parentheses, or 'any text'
 *
 * A name alone asks whether the document has it; comparing what it does not have is false with
 * every sign. "not" binds closest, then "and". The words and, or, not may be in capitals too. */
#ifndef ATHANOR_WEB_PREDICATE_H
#define ATHANOR_WEB_PREDICATE_H

#include "common/base/err.h"

#define PREDICATE_STEPS_MAX 256 /* conditions and words between them; parentheses open at once */

struct predicate_name {
    const char *name;
    const char *group; /* may stand before it, as in gopher.words; NULL: none */
    bool is_text;
};
struct predicate_value { /* of a name, in the table's order */
    bool known;
    double number;
    const char *text;
};

struct predicate;

/* Errors: ERR_INVALID with the column, what is wrong there and what would be accepted. */
int predicate_parse(const char *text, const struct predicate_name *names, size_t name_count,
                    struct predicate **out, struct err *err) WARN_UNUSED;
bool predicate_holds(const struct predicate *predicate, const struct predicate_value *values);
const char *predicate_text(const struct predicate *predicate); /* as it was given */
void predicate_free(struct predicate *predicate); /* NULL is fine */

#endif
