/* web_scorers_test.c - params.scorers and rows of tables: what is read, what is refused, and which
 * stretches of a text are scored. */
#include "common/base/buf.h"
#include "common/base/rng.h"
#include "tests/unit/data/inputs.h"
#include "worker/recipes/data/web/rows.h"
#include "worker/recipes/data/web/scorer.h"

#include <math.h>

/* -- items ---------------------------------------------------------------------------------- */

static void an_item_says_what_is_asked_and_what_happens(void **state)
{
    struct scorer scorer;
    struct err err;

    (void)state;
    assert_int_equal(scorer_parse("hate=hate/hate max=0.4 unit=sentence action=cut", &scorer, &err),
                     0);
    assert_string_equal(scorer.name, "hate");
    assert_string_equal(scorer.input, "hate");
    assert_string_equal(scorer.label, "hate");
    assert_true(scorer.most == 0.4 && scorer.least == -INFINITY);
    assert_int_equal(scorer.unit, SCORER_SENTENCE);
    assert_int_equal(scorer.action, SCORER_CUT);
    assert_false(scorer_breaks(&scorer, 0.4));
    assert_true(scorer_breaks(&scorer, nextafter(0.4, 1)));
    assert_true(scorer_worse(&scorer, 0.1, 0.3) == 0.3 && scorer_worse(&scorer, 0.3, 0.1) == 0.3);
    scorer_done(&scorer);
    assert_int_equal(scorer_parse("  edu=scorer_1/high=school   min=auto ", &scorer, &err), 0);
    assert_string_equal(scorer.label, "high=school");
    assert_true(scorer.least_auto && !scorer.most_auto);
    assert_int_equal(scorer.unit, SCORER_DOCUMENT);
    assert_int_equal(scorer.action, SCORER_DROP);
    scorer_done(&scorer);
    assert_int_equal(scorer_parse("band=a/b min=0.25 max=0.75", &scorer, &err), 0);
    assert_true(scorer_breaks(&scorer, 0.2) && scorer_breaks(&scorer, 0.8));
    assert_false(scorer_breaks(&scorer, 0.25) || scorer_breaks(&scorer, 0.75));
    assert_true(scorer_worse(&scorer, 0.5, 0.3) == 0.3 && scorer_worse(&scorer, 0.9, 0.2) == 0.9);
    scorer_done(&scorer);
    assert_int_equal(scorer_parse("seen=a/b action=tag unit=paragraph", &scorer, &err), 0);
    assert_false(scorer_breaks(&scorer, 0) || scorer_breaks(&scorer, 1));
    assert_true(scorer_worse(&scorer, 0.2, 0.7) == 0.7);
    scorer_done(&scorer);
}

static void bad_items_are_refused_with_what_is_wrong(void **state)
{
    static const struct {
        const char *item, *says;
    } bad[] = {
        {"", "is empty"},
        {"hate", "NAME=INPUT/LABEL"},
        {"hate=hate", "NAME=INPUT/LABEL"},
        {"hate=hate/", "NAME=INPUT/LABEL"},
        {"hate=/x max=1", "NAME=INPUT/LABEL"},
        {"Hate=a/b max=0.5", "a name"},
        {"a234567890123456789012345678901234=a/b max=0.5", "a name"},
        {"a=a/b", "no limit"},
        {"a=a/b max=1.5", "bad max"},
        {"a=a/b min=-0.1", "bad min"},
        {"a=a/b min=nan", "bad min"},
        {"a=a/b max=0.5 unit=word", "unit"},
        {"a=a/b max=0.5 action=burn", "action"},
        {"a=a/b max=0.5 action=cut", "whole documents"},
        {"a=a/b max=0.5 often", "KEY=VALUE"},
        {"a=a/b most=0.5", "unknown key"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        struct scorer scorer = {0};
        struct err err;
        assert_int_equal(scorer_parse(bad[i].item, &scorer, &err), -1);
        assert_int_equal(err.kind, ERR_INVALID);
        if (!strstr(err.text, bad[i].says))
            fail_msg("'%s': %s", bad[i].item, err.text);
        assert_null(scorer.name);
    }
}

static void a_label_that_the_classifier_has_not_is_refused_with_those_it_has(void **state)
{
    static const char *const labels[] = {"clean", "hate"};
    struct classifier *classifier;
    struct scorer scorer;
    struct err err;

    (void)state;
    assert_int_equal(classifier_new(FEATURES_WORDS, 10, labels, 2, &classifier, &err), 0);
    classifier->threshold[1] = 0.625f;
    assert_int_equal(scorer_parse("a=hate/toxic max=0.5", &scorer, &err), 0);
    assert_int_equal(scorer_bind(&scorer, classifier, &err), -1);
    assert_non_null(strstr(err.text, "clean, hate"));
    scorer_done(&scorer);
    assert_int_equal(scorer_parse("a=hate/hate max=auto", &scorer, &err), 0);
    assert_int_equal(scorer_bind(&scorer, classifier, &err), 0);
    assert_true(scorer.most == 0.625);
    assert_string_equal(scorer.rule, "p(hate) of inputs.hate above 0.625 for a document");
    scorer_done(&scorer);
    classifier_free(classifier);
}

/* -- units ---------------------------------------------------------------------------------- */

/* By the definition: does a unit end after byte i? */
static bool ends_after(enum scorer_unit unit, const char *text, size_t length, size_t i)
{
    if (i + 1 == length)
        return true;
    if (unit == SCORER_DOCUMENT)
        return false;
    if (text[i] == '\n')
        return true;
    bool stop = text[i] == '.' || text[i] == '?' || text[i] == '!';
    return unit == SCORER_SENTENCE && stop && (text[i + 1] == ' ' || text[i + 1] == '\n');
}

static void units_follow_each_other_and_end_where_the_definition_says(void **state)
{
    static const char letters[] = "ab .?!\n";

    (void)state;
    for (uint64_t n = 0; n < 2000; n++) {
        char text[40];
        size_t length = rng_at(n, 0, 0) % sizeof text, begin, end = 0;
        enum scorer_unit unit = SCORER_DOCUMENT + (enum scorer_unit)(n % 3);
        for (size_t i = 0; i < length; i++)
            text[i] = letters[rng_at(n, 1, i) % (sizeof letters - 1)];
        for (size_t at = 0; scorer_next_unit(unit, text, length, &begin, &end); at = end) {
            assert_int_equal(begin, at);
            assert_true(end > begin && end <= length && ends_after(unit, text, length, end - 1));
            for (size_t i = begin; i + 1 < end; i++)
                assert_false(ends_after(unit, text, length, i));
        }
        assert_int_equal(end, length);
    }
}

/* -- rows ----------------------------------------------------------------------------------- */

static int join(void *argument, const char *text, size_t length, struct err *err)
{
    (void)err;
    buf_add(argument, text, length);
    buf_putc(argument, '|');
    return 0;
}

/* As Jigsaw's sets are: hate is any label but obscene alone; obscene is its own. */
static const char jigsaw[] =
    "\xEF\xBB\xBFid,comment_text,toxic,severe_toxic,obscene,threat,insult,identity_hate\r\n"
    "1,plain words,0,0,0,0,0,0\r\n"
    "2,\"a \"\"quoted\"\", longer\nremark\",1,0,0,0,0,0\r\n"
    "3,only rude,0,0,1,0,0,0\r\n"
    "\r\n"
    "4,both,1,0,1,0,1,0\r\n"
    "5,shares of judges,0.49,0,0.5,0,0,0\r\n"
    "6,\"\",0,0,0,0,0,1";

static void rows_of_published_tables_become_classes(void **state)
{
    static const struct {
        const char *query, *texts;
    } asked[] = {
        {"x?text=comment_text&any=toxic|severe_toxic|threat|insult|identity_hate",
         "a \"quoted\", longer\nremark|both||"},
        {"x?text=comment_text&none=toxic|severe_toxic|threat|insult|identity_hate",
         "plain words|only rude|shares of judges|"},
        {"x?text=comment_text&any=obscene", "only rude|both|shares of judges|"},
        {"x?text=comment_text&any=obscene&none=toxic|insult", "only rude|shares of judges|"},
        {"x?text=id&is=comment_text:both", "4|"},
        {"x?text=id", "1|2|3|4|5|6|"},
    };
    static const char by_p[] = "?text=t&any=p";
    static const char lines[] = "{\"t\": \"one\", \"k\": \"news\", \"bad\": true, \"p\": 0.4}\n\n"
                                "{\"t\": \"two\", \"k\": \"ads\", \"bad\": false, \"p\": 1}\n";
    struct buf out = {0};
    struct err err;

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(asked); i++) {
        buf_clear(&out);
        assert_int_equal(rows_of_csv(asked[i].query, jigsaw, sizeof jigsaw - 1, join, &out, &err),
                         0);
        assert_string_equal(buf_text(&out), asked[i].texts);
    }
    buf_clear(&out);
    assert_int_equal(rows_of_json_lines("?text=t&any=bad", lines, strlen(lines), join, &out, &err),
                     0);
    assert_int_equal(rows_of_json_lines(by_p, lines, strlen(lines), join, &out, &err), 0);
    assert_int_equal(rows_of_json_lines("?text=t&is=k:ads", lines, strlen(lines), join, &out, &err),
                     0);
    assert_string_equal(buf_text(&out), "one|two|two|");
    buf_done(&out);
}

static void what_a_table_has_not_is_refused_naming_the_row(void **state)
{
    static const struct {
        const char *query, *csv, *says;
    } bad[] = {
        {"x?text=t", "a,b\n1,2\n", "row 2: has no field 't'"},
        {"x?text=a&any=c", "a,b\n1,2\n", "has no field 'c'"},
        {"x?text=b", "a,b\n1,2\n3\n", "row 3: has no field 'b'"},
        {"x?text=a", "a,b\n1,\"2\n", "does not end"},
        {"x?text=", "a\n1\n", "is not FILES"},
        {"x?text=a&some=b", "a\n1\n", "is not FILES"},
        {"x?text=a&is=b", "a\n1\n", "is not FILES"},
    };
    struct buf out = {0};
    struct err err;

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        const char *csv = bad[i].csv;
        assert_int_equal(rows_of_csv(bad[i].query, csv, strlen(csv), join, &out, &err), -1);
        if (!strstr(err.text, bad[i].says))
            fail_msg("%s: %s", bad[i].query, err.text);
    }
    assert_int_equal(rows_of_json_lines("?text=t", "{\"t\": 1}\n[]\n", 12, join, &out, &err), -1);
    assert_non_null(strstr(err.text, "line 2"));
    buf_done(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_item_says_what_is_asked_and_what_happens),
        cmocka_unit_test(bad_items_are_refused_with_what_is_wrong),
        cmocka_unit_test(a_label_that_the_classifier_has_not_is_refused_with_those_it_has),
        cmocka_unit_test(units_follow_each_other_and_end_where_the_definition_says),
        cmocka_unit_test(rows_of_published_tables_become_classes),
        cmocka_unit_test(what_a_table_has_not_is_refused_naming_the_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
