/* sampler_test.c - the permutation's vectors and what follows from them for ranks. */
#include "common/base/rng.h"
#include "tests/unit/data/inputs.h"
#include "worker/engine/data/sampler.h"

/* Card data-tokenizers-and-shards, section 5. */
static void the_published_vectors_are_met(void **state)
{
    (void)state;
    static const uint64_t key42[] = {1, 7, 0, 8, 3, 5, 4, 6, 2, 9};
    static const uint64_t key43[] = {1, 3, 9, 6, 8, 7, 4, 2, 0, 5};
    assert_true(rng_mix(0) == 0xE220A8397B1DCDAFu);
    for (uint64_t i = 0; i < 10; i++) {
        assert_int_equal(sampler_permute(42, 10, i), key42[i]);
        assert_int_equal(sampler_permute(43, 10, i), key43[i]);
    }
}

static void every_epoch_visits_each_item_exactly_once(void **state)
{
    (void)state;
    static const uint64_t counts[] = {1, 2, 3, 7, 100, 1000, 12345};
    for (size_t c = 0; c < ARRAY_COUNT(counts); c++) {
        uint64_t count = counts[c];
        uint8_t *seen = mem_array(count, 1);
        for (uint64_t s = 3 * count; s < 4 * count; s++) {
            uint64_t item = sampler_item(1337, count, s);
            assert_true(item < count && !seen[item]);
            seen[item] = 1;
        }
        mem_free(seen);
    }
}

/* A random permutation has one fixed point on average; 200 keys keep the mean within 0.5. */
static void permutations_look_random(void **state)
{
    (void)state;
    int fixed = 0, ascents = 0;
    for (uint64_t key = 0; key < 200; key++)
        for (uint64_t i = 0; i < 1000; i++) {
            uint64_t item = sampler_permute(key, 1000, i);
            fixed += item == i;
            ascents += i > 0 && item > sampler_permute(key, 1000, i - 1);
        }
    assert_in_range(fixed, 100, 300);
    assert_in_range(ascents, 99900 - 2000, 99900 + 2000);
}

static void epochs_and_seeds_give_different_orders(void **state)
{
    (void)state;
    int same_epoch = 0, same_seed = 0;
    for (uint64_t s = 0; s < 1000; s++) {
        same_epoch += sampler_item(1, 1000, s) == sampler_item(1, 1000, s + 1000);
        same_seed += sampler_item(1, 1000, s) == sampler_item(2, 1000, s);
    }
    assert_true(same_epoch < 20 && same_seed < 20);
}

static void a_steps_items_do_not_depend_on_the_number_of_ranks(void **state)
{
    (void)state;
    static const unsigned ranks[] = {1, 2, 4, 8};
    for (uint64_t step = 0; step < 40; step++) {
        for (size_t r = 0; r < ARRAY_COUNT(ranks); r++) {
            uint64_t next = step * 16;
            for (unsigned rank = 0; rank < ranks[r]; rank++) {
                uint64_t first, count;
                sampler_share(step, 16, rank, ranks[r], &first, &count);
                assert_int_equal(first, next);
                assert_int_equal(count, 16 / ranks[r]);
                next += count;
            }
            assert_int_equal(next, (step + 1) * 16);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_published_vectors_are_met),
        cmocka_unit_test(every_epoch_visits_each_item_exactly_once),
        cmocka_unit_test(permutations_look_random),
        cmocka_unit_test(epochs_and_seeds_give_different_orders),
        cmocka_unit_test(a_steps_items_do_not_depend_on_the_number_of_ranks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
