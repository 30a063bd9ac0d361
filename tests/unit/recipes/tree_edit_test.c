/* tree_edit_test.c - distances of trees against the definition, and the trees of sentences. */
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "worker/recipes/text/tree_edit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static struct tree tree_of(const char *text)
{
    struct words words = {0};
    struct tree tree;

    words_split(&words, WORDS_ROUGE, text, strlen(text));
    tree_of_words(&words, &tree);
    words_done(&words);
    return tree;
}

static size_t distance_of(const char *x, const char *y)
{
    struct tree a = tree_of(x), b = tree_of(y);
    size_t distance = tree_edit_distance(&a, &b);

    assert_int_equal(tree_edit_distance(&b, &a), distance);
    tree_done(&a);
    tree_done(&b);
    return distance;
}

/* ---- the definition --------------------------------------------------------------------- */

#define NODES 6

/* Of the forests of the nodes in the masks (bits in postorder), by recursion on their rightmost
 * roots, every way tried: delete the one, insert the other, or keep both and go on apart below and
 * beside them. */
static size_t by_definition(const struct tree *x, const struct tree *y, unsigned in_x,
                            unsigned in_y)
{
    unsigned below_x = 0, below_y = 0;
    int i = 31, j = 31;

    if (!in_x || !in_y)
        return (size_t)__builtin_popcount(in_x | in_y);
    while (!(in_x >> i & 1))
        i--;
    while (!(in_y >> j & 1))
        j--;
    for (size_t n = x->first[i]; n < (size_t)i; n++)
        below_x |= in_x & 1u << n;
    for (size_t n = y->first[j]; n < (size_t)j; n++)
        below_y |= in_y & 1u << n;
    unsigned rest_x = in_x & ~(1u << i), rest_y = in_y & ~(1u << j);
    size_t gone = by_definition(x, y, rest_x, in_y) + 1;
    size_t come = by_definition(x, y, in_x, rest_y) + 1;
    size_t kept = by_definition(x, y, below_x, below_y) +
                  by_definition(x, y, rest_x & ~below_x, rest_y & ~below_y) +
                  (x->label[i] != y->label[j]);
    size_t least = gone < come ? gone : come;
    return kept < least ? kept : least;
}

static struct tree drawn(struct rng *rng)
{
    size_t count = 1 + rng_below(rng, NODES), parent[NODES] = {0};
    uint64_t label[NODES];
    struct tree tree;

    /* the order in which nodes are met: a parent is the node before, or one above that */
    for (size_t i = 0; i < count; i++) {
        size_t at = i ? i - 1 : 0;
        label[i] = rng_below(rng, 3);
        for (uint64_t up = rng_below(rng, 3); up > 0 && at; up--)
            at = parent[at];
        parent[i] = at;
    }
    tree_of_parents(label, parent, count, &tree);
    return tree;
}

static void distances_are_those_of_the_definition(void **state)
{
    struct rng rng;

    (void)state;
    rng_init(&rng, 12);
    for (int i = 0; i < 300; i++) {
        struct tree a = drawn(&rng), b = drawn(&rng);
        assert_int_equal(tree_edit_distance(&a, &b),
                         by_definition(&a, &b, (1u << a.count) - 1, (1u << b.count) - 1));
        assert_int_equal(tree_edit_distance(&a, &a), 0);
        tree_done(&a);
        tree_done(&b);
    }
}

/* Zhang and Shasha's own example: f(d(a, c(b)), e) and f(c(d(a, b)), e), distance 2. */
static void the_published_example_has_its_distance(void **state)
{
    static const uint64_t label_a[] = {'f', 'd', 'a', 'c', 'b', 'e'};
    static const uint64_t label_b[] = {'f', 'c', 'd', 'a', 'b', 'e'};
    static const size_t parent_a[] = {0, 0, 1, 1, 3, 0}, parent_b[] = {0, 0, 1, 2, 2, 0};
    struct tree a, b;

    (void)state;
    tree_of_parents(label_a, parent_a, 6, &a);
    tree_of_parents(label_b, parent_b, 6, &b);
    assert_int_equal(tree_edit_distance(&a, &b), 2);
    tree_done(&a);
    tree_done(&b);
}

/* ---- sentences -------------------------------------------------------------------------- */

static void function_words_open_brackets(void **state)
{
    /* (S (near (the .)) (the . .) (it)), postorder: . the near . . the it S */
    static const size_t first[] = {0, 0, 0, 3, 4, 3, 6, 0};
    struct tree tree = tree_of("near the coast , the thief hides it");

    (void)state;
    assert_int_equal(tree.count, 8);
    assert_memory_equal(tree.first, first, sizeof first);
    assert_true(tree.label[0] == 0 && tree.label[3] == 0 && tree.label[4] == 0);
    assert_true(tree.label[1] == tree.label[5] && tree.label[1] != tree.label[2]);
    tree_done(&tree);
    tree = tree_of("");
    assert_int_equal(tree.count, 1);
    tree_done(&tree);
}

static void other_words_for_the_same_are_built_alike_and_a_passive_is_not(void **state)
{
    (void)state;
    assert_int_equal(distance_of("the doctor buys the car .", "The physician purchases the auto."),
                     0);
    assert_true(distance_of("the doctor buys the car .", "the car is bought by the doctor .") >= 3);
    assert_true(distance_of("near the coast , the thief hides the rug .",
                            "the thief hides the rug near the coast .") >= 2);
    assert_int_equal(distance_of("", "stay"), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(distances_are_those_of_the_definition),
        cmocka_unit_test(the_published_example_has_its_distance),
        cmocka_unit_test(function_words_open_brackets),
        cmocka_unit_test(other_words_for_the_same_are_built_alike_and_a_passive_is_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
