/* source.h - Dolma's rules for code, social media and encyclopedias, in numbers.
 *
 * source.def states measures and limits. Lines end at '\n' (a '\r' before it is not counted, nor is
 * an empty last line), letters are Unicode's L, digits N; a token is a run of letters, digits and
 * '_', or a run of what is neither that nor white space, and one is added to their number, as
 * allenai/dolma counts the pieces between them.
 *
 * Comments are counted where the language is known: in Python from '#' to the end of the line, and
 * triple-quoted strings that begin a line outside of brackets; in Java and JavaScript // and slash
 * star, both outside of strings (a quote or // within a regular expression of JavaScript is taken
 * for one). The text of HTML is html.h's.
 *
 * What a document is told by fields of its line (document.h): a measure of a field that it lacks is
 * NAN and drops nothing. What says nothing of its type is a comment.
 *
 * Source: card data-dolma, "Code", "Social", "Wiki". */
#ifndef ATHANOR_WEB_SOURCE_H
#define ATHANOR_WEB_SOURCE_H

#include "worker/recipes/data/web/document.h"

enum source_measure {
#define SOURCE(id, name, stage, low, high, text) SOURCE_##id,
#include "worker/recipes/data/web/source.def"
#undef SOURCE
    SOURCE_END,
};

struct source_limits {
    double low[SOURCE_END], high[SOURCE_END]; /* -INFINITY, INFINITY: no limit */
};

const char *source_name(enum source_measure measure);
enum source_measure source_find(const char *name, size_t length); /* SOURCE_END: none */
void source_limits_init(struct source_limits *limits);

/* All measures of a stage are set, those of the others NAN. */
void source_code(const struct document *document, double out[SOURCE_END]);
void source_social(const struct document *document, double out[SOURCE_END]);
void source_wiki(const struct document *document, double out[SOURCE_END]);
/* The first measure beyond its limit, in the table's order; SOURCE_END: none. */
enum source_measure source_judge(const struct source_limits *limits,
                                 const double value[SOURCE_END]);

/* Whether a text is XML by its first 100 characters. */
bool source_is_xml(const struct document *document);

#endif
