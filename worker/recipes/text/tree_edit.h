/* tree_edit.h - how differently two sentences are built: edit distance of their trees, without a
 * parser.
 *
 * A parser gives constituents; these trees have only what closed classes of words show. Read from
 * the left, a function word opens a bracket that holds all up to the next one: function words in a
 * row nest, and the first after another word begins again at the root.
 *
 *   near the coast , the thief hides it    (S (near (the .)) (the . .) (it))
 *
 * Function words are labels, every other word is the same leaf, so that another word for a thing is
 * no difference of structure. Distances are of unit costs to insert, delete and rename (Zhang and
 * Shasha 1989). They are smaller than those of constituents, which have a node for each phrase and
 * each part of speech: thresholds for a parser mean nothing here. English; words of another
 * language are all leaves, and what is left is the difference of lengths. */
#ifndef ATHANOR_TREE_EDIT_H
#define ATHANOR_TREE_EDIT_H

#include "worker/recipes/text/words.h"

struct tree {
    size_t count;    /* nodes, in postorder: the root is last */
    uint64_t *label; /* (count) */
    size_t *first;   /* (count) the leftmost leaf below a node, itself for a leaf */
};

/* Of words as WORDS_ROUGE cuts them; no words: the root alone. */
void tree_of_words(const struct words *words, struct tree *out);
/* parent[i]: of node i in the order in which nodes are met from the top, parent[i] < i, and
 * parent[0] is the root's own, 0; children stand in order. For trees from elsewhere. */
void tree_of_parents(const uint64_t *label, const size_t *parent, size_t count, struct tree *out);
void tree_done(struct tree *tree); /* a zeroed struct is fine */

/* Operations that make b of a; symmetric. Time count_a x count_b x the lesser of depth and leaves
 * of each, memory 16 bytes for each pair of nodes. */
size_t tree_edit_distance(const struct tree *a, const struct tree *b);

#endif
