/* web_mixing_test.c - conditions over documents: random ones against a tree that judges itself,
 * and wrong ones, which say where. */
#include "common/base/buf.h"
#include "common/base/rng.h"
#include "tests/unit/data/inputs.h"
#include "worker/recipes/data/web/predicate.h"

static const struct predicate_name names[] = {
    {"words", "gopher", false}, {"language", "language", false}, {"topic", "topic", true},
    {"source", NULL, true},     {"nothing", "other", false},
};
#define NAMES ARRAY_COUNT(names)

static const char *const texts[] = {"ads", "books", "old books", "and", ""};

/* ---- a tree that judges itself ------------------------------------------------------------ */

struct draws {
    struct rng rng;
    struct buf text;
    struct predicate_value values[NAMES];
};

static void draw_values(struct draws *draws)
{
    for (size_t i = 0; i < NAMES; i++)
        draws->values[i] = (struct predicate_value){
            .known = i < 4 && rng_below(&draws->rng, 4) > 0,
            .number = (double)rng_below(&draws->rng, 4) / 2,
            .text = texts[rng_below(&draws->rng, ARRAY_COUNT(texts))]};
}

static void put_space(struct draws *draws)
{
    static const char *const spaces[] = {" ", "  ", "\n", "\t "};

    buf_puts(&draws->text, spaces[rng_below(&draws->rng, ARRAY_COUNT(spaces))]);
}

/* Writes a condition and says what it is, from the draws themselves. */
static bool put_condition(struct draws *draws)
{
    static const char *const signs[] = {"<", "<=", ">", ">=", "=", "!=", "=="};
    size_t n = rng_below(&draws->rng, NAMES), sign = rng_below(&draws->rng, 7);
    const struct predicate_value *value = &draws->values[n];

    if (names[n].group && rng_below(&draws->rng, 2))
        buf_printf(&draws->text, "%s.", names[n].group);
    buf_puts(&draws->text, names[n].name);
    if (rng_below(&draws->rng, 5) == 0)
        return value->known;
    if (names[n].is_text) {
        const char *text = texts[rng_below(&draws->rng, ARRAY_COUNT(texts))];
        bool quoted = !*text || strchr(text, ' ') || rng_below(&draws->rng, 2);
        sign = 4 + sign % 3;
        buf_printf(&draws->text, " %s %s%s%s", signs[sign], quoted ? "'" : "", text,
                   quoted ? "'" : "");
        return value->known && (strcmp(value->text, text) != 0) == (sign == 5);
    }
    double bound = (double)rng_below(&draws->rng, 4) / 2, number = value->number;
    bool holds[] = {number < bound, number <= bound, number > bound, number >= bound,
                    number == bound, number != bound, number == bound};
    buf_printf(&draws->text, rng_below(&draws->rng, 2) ? "%s%g" : " %s %g", signs[sign], bound);
    return value->known && holds[sign];
}

/* What binds less closely than `level` (0: or, 1: and, 2: not) is put in parentheses. */
static bool put_tree(struct draws *draws, unsigned depth, unsigned level)
{
    unsigned kind = depth == 0 ? 3 : (unsigned)rng_below(&draws->rng, 4);
    bool open = kind < level || rng_below(&draws->rng, 6) == 0, result;

    if (open)
        buf_puts(&draws->text, "(");
    if (kind == 3) {
        result = put_condition(draws);
    } else if (kind == 2) {
        buf_puts(&draws->text, rng_below(&draws->rng, 2) ? "not" : "NOT");
        put_space(draws);
        result = !put_tree(draws, depth - 1, 2);
    } else {
        result = put_tree(draws, depth - 1, kind);
        put_space(draws);
        buf_puts(&draws->text, kind ? "and" : "or");
        put_space(draws);
        bool other = put_tree(draws, depth - 1, kind);
        result = kind ? result && other : result || other;
    }
    if (open)
        buf_puts(&draws->text, " )");
    return result;
}

static void random_conditions_are_judged_as_the_trees_they_were_made_of(void **state)
{
    size_t held = 0;

    (void)state;
    for (uint64_t n = 0; n < 10000; n++) {
        struct draws draws = {0};
        struct predicate *predicate;
        struct err err = {0};
        rng_init(&draws.rng, n);
        draw_values(&draws);
        bool expected = put_tree(&draws, (unsigned)(n % 6), 0);
        if (predicate_parse(draws.text.bytes, names, NAMES, &predicate, &err) < 0)
            fail_msg("'%s': %s", draws.text.bytes, err.text);
        if (predicate_holds(predicate, draws.values) != expected)
            fail_msg("'%s' is not %d", draws.text.bytes, expected);
        assert_string_equal(predicate_text(predicate), draws.text.bytes);
        held += expected;
        predicate_free(predicate);
        buf_done(&draws.text);
    }
    assert_in_range(held, 2000, 8000);
}

static void wrong_conditions_say_in_which_column_and_why(void **state)
{
    static const struct {
        const char *text, *says;
    } wrong[] = {
        {"", "column 1: a condition is expected at the end"},
        {"words < 80 and", "column 15: a condition is expected"},
        {"words < 80 language", "column 12: and, or or ) is expected"},
        {"word < 80", "column 1: 'word' is nothing that this job knows of documents; did you mean "
                      "'words'?"},
        {"words < 80 or ppl < 3", "column 15: 'ppl' is nothing that this job knows of documents; "
                                  "it knows words, language, topic, source, nothing"},
        {"topic.words < 80", "column 1: 'topic.words' is nothing"},
        {"words < many", "column 9: 'many' is no number, which 'words' is compared with"},
        {"words < nan", "column 9: 'nan' is no number"},
        {"words < ", "column 9: a value is expected"},
        {"words < )", "column 9: a value is expected"},
        {"topic < ads", "column 7: 'topic' is a text: = and != compare it"},
        {"topic = 'ads", "column 9: this ' is not closed"},
        {"source = '\xC3\xA9t\xC3\xA9' and (words", "column 20: this ( is not closed"},
        {"words > 1)", "column 10: this ) has no ( before it"},
        {"()", "column 2: a name, not or ( is expected"},
        {"words < < 3", "column 9: a value is expected"},
        {"not", "column 4: a condition is expected"},
    };
    struct predicate *made = NULL;
    struct err err;

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(wrong); i++) {
        assert_int_equal(predicate_parse(wrong[i].text, names, NAMES, &made, &err), -1);
        assert_int_equal(err.kind, ERR_INVALID);
        if (!strstr(err.text, wrong[i].says))
            fail_msg("'%s': %s", wrong[i].text, err.text);
        assert_null(made);
    }
}

static void a_condition_of_too_many_steps_is_refused(void **state)
{
    static const struct {
        const char *each, *end;
        size_t most; /* that many are fine */
    } forms[] = {{"words or ", "words", 127}, {"not ", "words", 255}, {"(", "words", 256}};

    (void)state;
    for (size_t f = 0; f < ARRAY_COUNT(forms); f++)
        for (size_t more = 0; more < 2; more++) {
            struct predicate *made = NULL;
            struct buf text = {0};
            struct err err;
            for (size_t i = 0; i < forms[f].most + more; i++)
                buf_puts(&text, forms[f].each);
            buf_puts(&text, forms[f].end);
            for (size_t i = 0; f == 2 && i < forms[f].most + more; i++)
                buf_putc(&text, ')');
            assert_int_equal(predicate_parse(text.bytes, names, NAMES, &made, &err),
                             more ? -1 : 0);
            if (more)
                assert_non_null(strstr(err.text, "more than 256"));
            predicate_free(made);
            buf_done(&text);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_conditions_are_judged_as_the_trees_they_were_made_of),
        cmocka_unit_test(wrong_conditions_say_in_which_column_and_why),
        cmocka_unit_test(a_condition_of_too_many_steps_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
