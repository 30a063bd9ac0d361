/* tree_edit.c - see tree_edit.h. */
#include "worker/recipes/text/tree_edit.h"

#include "common/base/mem.h"
#include "worker/recipes/text/function_words.h"

/* ---- building --------------------------------------------------------------------------- */

#define LEAF 0 /* the label of other words; XXH3 of a word is 0 with probability 2^-64 */

static bool is_known(const struct words *known, uint64_t word)
{
    for (size_t i = 0; i < known->count; i++)
        if (known->word[i] == word)
            return true;
    return false;
}

/* From sizes of subtrees, without recursion: words may nest as deep as there are words. */
static void number_nodes(const size_t *parent, const uint64_t *label, size_t count,
                         struct tree *out)
{
    size_t *below = mem_array(count, sizeof *below); /* nodes of a subtree */
    size_t *place = mem_array(count, sizeof *place); /* where a subtree begins in postorder */
    size_t *taken = mem_array(count, sizeof *taken); /* of it, by children so far */

    for (size_t i = count; i-- > 0;) {
        below[i]++;
        if (i)
            below[parent[i]] += below[i];
    }
    for (size_t i = 0; i < count; i++) {
        if (i) {
            place[i] = place[parent[i]] + taken[parent[i]];
            taken[parent[i]] += below[i];
        }
        size_t number = place[i] + below[i] - 1;
        out->label[number] = label[i];
        out->first[number] = place[i]; /* what comes first below a node in postorder */
    }
    mem_free(below);
    mem_free(place);
    mem_free(taken);
}

void tree_of_parents(const uint64_t *label, const size_t *parent, size_t count, struct tree *out)
{
    *out = (struct tree){.count = count,
                         .label = mem_array(count, sizeof *out->label),
                         .first = mem_array(count, sizeof *out->first)};
    number_nodes(parent, label, count, out);
}

void tree_of_words(const struct words *words, struct tree *out)
{
    uint64_t *label = mem_array(words->count + 1, sizeof *label);
    size_t *parent = mem_array(words->count + 1, sizeof *parent), open = 0;
    struct words known = {0};
    bool after_other = true;

    function_words_split(&known);
    for (size_t i = 0; i < words->count; i++) {
        bool opens = is_known(&known, words->word[i]);
        if (opens && after_other)
            open = 0;
        label[i + 1] = opens ? words->word[i] : LEAF;
        parent[i + 1] = open;
        if (opens)
            open = i + 1;
        after_other = !opens;
    }
    tree_of_parents(label, parent, words->count + 1, out);
    words_done(&known);
    mem_free(label);
    mem_free(parent);
}

void tree_done(struct tree *tree)
{
    mem_free(tree->label);
    mem_free(tree->first);
    *tree = (struct tree){0};
}

/* ---- distance --------------------------------------------------------------------------- */

static size_t least(size_t a, size_t b, size_t c)
{
    size_t ab = a < b ? a : b;

    return ab < c ? ab : c;
}

/* A node that no later one shares its leftmost leaf with: the root, and what has a left sibling. */
static size_t *key_roots(const struct tree *tree, size_t *out_count)
{
    size_t *roots = mem_array(tree->count, sizeof *roots), count = 0;

    for (size_t i = 0; i < tree->count; i++) {
        bool last = true;
        for (size_t later = i + 1; later < tree->count && last; later++)
            last = tree->first[later] != tree->first[i];
        if (last)
            roots[count++] = i;
    }
    *out_count = count;
    return roots;
}

/* Distances of the forests below key roots i and j, of which those that are trees are kept. */
static void forests(const struct tree *a, const struct tree *b, size_t i, size_t j, size_t *forest,
                    size_t *of_trees)
{
    size_t from_a = a->first[i], from_b = b->first[j], width = b->count + 1;

    forest[0] = 0;
    for (size_t x = from_a; x <= i; x++)
        forest[(x - from_a + 1) * width] = x - from_a + 1;
    for (size_t y = from_b; y <= j; y++)
        forest[y - from_b + 1] = y - from_b + 1;
    for (size_t x = from_a; x <= i; x++)
        for (size_t y = from_b; y <= j; y++) {
            size_t row = x - from_a + 1, column = y - from_b + 1;
            size_t gone = forest[(row - 1) * width + column] + 1;
            size_t come = forest[row * width + column - 1] + 1;
            bool trees = a->first[x] == from_a && b->first[y] == from_b;
            size_t kept =
                trees ? forest[(row - 1) * width + column - 1] + (a->label[x] != b->label[y])
                      : forest[(a->first[x] - from_a) * width + b->first[y] - from_b] +
                            of_trees[x * b->count + y];
            forest[row * width + column] = least(gone, come, kept);
            if (trees)
                of_trees[x * b->count + y] = forest[row * width + column];
        }
}

size_t tree_edit_distance(const struct tree *a, const struct tree *b)
{
    size_t *forest = mem_array((a->count + 1) * (b->count + 1), sizeof *forest);
    size_t *of_trees = mem_array(a->count * b->count, sizeof *of_trees);
    size_t count_a, count_b, *roots_a = key_roots(a, &count_a), *roots_b = key_roots(b, &count_b);

    for (size_t i = 0; i < count_a; i++)
        for (size_t j = 0; j < count_b; j++)
            forests(a, b, roots_a[i], roots_b[j], forest, of_trees);
    size_t distance = of_trees[a->count * b->count - 1];
    mem_free(forest);
    mem_free(of_trees);
    mem_free(roots_a);
    mem_free(roots_b);
    return distance;
}
