/* microworld_test.c - what the language says is what its parser reads. */
#include "worker/recipes/text/microworld.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static void every_fact_is_another_and_its_sentences_tell_it(void **state)
{
    static bool seen[10][8][10][6];
    struct buf text = {0};
    struct rng rng;

    (void)state;
    rng_init(&rng, 1);
    for (unsigned number = 0; number < MICROWORLD_FACTS; number++) {
        struct fact fact = microworld_fact(number), read;
        bool *mark = &seen[fact.value[SLOT_AGENT]][fact.value[SLOT_VERB]]
                          [fact.value[SLOT_PATIENT]][fact.value[SLOT_PLACE]];
        assert_false(*mark);
        *mark = true;
        buf_clear(&text);
        microworld_sentence(&fact, &rng, &text);
        assert_true(microworld_parse(buf_text(&text), text.length, &read));
        assert_true(microworld_entails(&fact, &read));
        assert_memory_equal(fact.value, read.value, 3 * sizeof fact.value[0]);
    }
    buf_done(&text);
}

static struct fact parse(const char *text)
{
    struct fact fact;

    assert_true(microworld_parse(text, strlen(text), &fact));
    return fact;
}

static void sentences_of_other_words_and_order_entail_each_other(void **state)
{
    struct fact a = parse("near the forest , the doctor buy the car ."),
                b = parse("it is the automobile that the physician purchase near the woods ."),
                c = parse("the car is buy by the doctor ."),
                d = parse("the lawyer buy the car .");

    (void)state;
    assert_true(microworld_entails(&a, &b) && microworld_entails(&b, &a));
    assert_true(microworld_entails(&a, &c));
    assert_false(microworld_entails(&c, &a));
    assert_false(microworld_entails(&c, &d) || microworld_entails(&d, &c));
}

static void what_is_no_sentence_is_refused(void **state)
{
    static const char *const others[] = {
        "", ".", "the doctor buy the car", "the doctor buy the car . .", "the car buy the doctor .",
        "the doctor buy the car near the .", "near the forest the doctor buy the car .",
        "the the the the the the the the the the the the the the the the the .",
        "someone is the doctor ."};
    struct fact fact;

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(others); i++)
        assert_false(microworld_parse(others[i], strlen(others[i]), &fact));
}

static void a_context_has_as_many_sentences_as_asked(void **state)
{
    struct fact fact = microworld_fact(1234);
    struct buf text = {0};
    struct rng rng;

    (void)state;
    rng_init(&rng, 2);
    for (unsigned n = 0; n <= MICROWORLD_SENTENCES; n++) {
        size_t dots = 0;
        buf_clear(&text);
        microworld_context(&fact, n, &rng, &text);
        for (const char *at = buf_text(&text); (at = strchr(at, '.')); at++)
            dots++;
        assert_int_equal(dots, n);
    }
    buf_done(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_fact_is_another_and_its_sentences_tell_it),
        cmocka_unit_test(sentences_of_other_words_and_order_entail_each_other),
        cmocka_unit_test(what_is_no_sentence_is_refused),
        cmocka_unit_test(a_context_has_as_many_sentences_as_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
