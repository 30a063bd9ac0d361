/* args_test.c - words and options against the verbs' own tables. */
#include "client/cli.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

struct fixture {
    struct args args;
    struct err err;
};

/* Parses the words after `athanor VERB`. */
static int parse(struct fixture *f, const char *verb, int count, const char *const *words)
{
    char *argv[16];
    for (int i = 0; i < count; i++)
        argv[i] = (char *)(uintptr_t)words[i];
    assert_non_null(verb_find(verb));
    return args_parse(verb_find(verb), count, argv, &f->args, &f->err);
}

#define PARSE(f, verb, ...)                                                                        \
    parse(f, verb, (int)(sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *)),                  \
          (const char *[]){__VA_ARGS__})

static void assert_refused(struct fixture *f, int rc, const char *words)
{
    assert_int_equal(rc, -1);
    assert_int_equal(f->err.kind, ERR_INVALID);
    if (!strstr(f->err.text, words))
        fail_msg("'%s' does not say '%s'", f->err.text, words);
}

static void options_and_words_may_mix(void **state)
{
    struct fixture f;
    (void)state;
    assert_int_equal(PARSE(&f, "submit", "--set", "a=1", "job.yaml", "--set=b.c=x=y", "--ids"), 0);
    assert_int_equal(f.args.word_count, 1);
    assert_string_equal(f.args.words[0], "job.yaml");
    assert_true(args_has(&f.args, "ids"));
    assert_int_equal(f.args.given_count, 3);
    assert_string_equal(args_text(&f.args, "set"), "b.c=x=y");
    args_done(&f.args);
}

static void letters_may_be_joined_with_each_other_and_their_value(void **state)
{
    struct fixture f;
    (void)state;
    assert_int_equal(PARSE(&f, "logs", "-fn5", "-r", "2", "job"), 0);
    assert_true(args_has(&f.args, "follow"));
    assert_int_equal(args_count(&f.args, "tail", 0), 5);
    assert_int_equal(args_count(&f.args, "rank", 0), 2);
    assert_int_equal(args_count(&f.args, "attempt", 7), 7);
    args_done(&f.args);
}

static void everything_after_two_dashes_is_a_word(void **state)
{
    struct fixture f;
    (void)state;
    assert_int_equal(PARSE(&f, "sql", "--write", "--", "-At", "-c", "SELECT 1", "--", "--json"), 0);
    assert_int_equal(f.args.word_count, 5);
    assert_string_equal(f.args.words[0], "-At");
    assert_string_equal(f.args.words[3], "--");
    args_done(&f.args);
}

static void a_single_dash_is_a_word(void **state)
{
    struct fixture f;
    (void)state;
    assert_int_equal(PARSE(&f, "submit", "-"), 0);
    assert_string_equal(f.args.words[0], "-");
    args_done(&f.args);
}

static void global_options_are_taken_by_every_verb(void **state)
{
    struct fixture f;
    const struct verb *verb;
    (void)state;
    for (size_t i = 0; (verb = verb_at(i)); i++) {
        assert_int_equal(PARSE(&f, verb->name, "--help", "--timeout=2s", "--home", "/x"), 0);
        assert_int_equal(args_duration_ms(&f.args, "timeout", 0), 2000);
        args_done(&f.args);
    }
}

static void wrong_arguments_are_named_with_what_would_be_accepted(void **state)
{
    struct fixture f;
    (void)state;
    assert_refused(&f, PARSE(&f, "ls", "--experimnt", "x"), "did you mean --experiment?");
    assert_refused(&f, PARSE(&f, "ls", "--zzzzzzzz"), "see 'athanor ls --help'");
    assert_refused(&f, PARSE(&f, "ls", "-Z"), "no option -Z");
    assert_refused(&f, PARSE(&f, "ls", "--limit"), "needs a value: N");
    assert_refused(&f, PARSE(&f, "ls", "--limit", "many"), "option --limit");
    assert_refused(&f, PARSE(&f, "ls", "--timeout", "2"), "option --timeout");
    assert_refused(&f, PARSE(&f, "ls", "--json=yes"), "takes no value");
    assert_refused(&f, PARSE(&f, "ls", "--state", "a", "--state", "b"), "given twice");
    assert_refused(&f, PARSE(&f, "submit", "a.yaml", "--set", "novalue"), "NAME=VALUE");
    assert_refused(&f, PARSE(&f, "submit", "--ids"), "needs FILE");
    assert_refused(&f, PARSE(&f, "submit", "a", "b"), "one word too many");
}

static void the_first_verbs_are_there_and_all_are_distinct(void **state)
{
    static const char *const wanted[] = {
        "up",      "down", "status",      "submit",  "check",   "ls",         "show",
        "why",     "wait", "cancel",      "hold",    "release", "retry",      "logs",
        "metrics", "plot", "checkpoints", "workers", "drain",   "undrain",    "recipes",
        "sql",     "keys", "report",      "help",    "version", "completion",
    };
    const struct verb *verb;
    size_t count = 0;
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(wanted); i++)
        assert_non_null(verb_find(wanted[i]));
    for (; (verb = verb_at(count)); count++) {
        assert_ptr_equal(verb_find(verb->name), verb);
        assert_true(verb->run && *verb->summary && *verb->text && verb->words);
        assert_true(verb->words_min <= verb->words_max);
    }
    assert_true(count >= ARRAY_COUNT(wanted));
}

/* A verb's option must not hide another one of it, or a global one. */
static void no_verb_has_an_option_twice(void **state)
{
    const struct verb *verb;
    (void)state;
    for (size_t i = 0; (verb = verb_at(i)); i++)
        for (size_t a = 0; a < verb->option_count; a++) {
            const struct option *option = &verb->options[a];
            assert_true((option->kind == VALUE_NONE) == (option->value == NULL));
            for (size_t b = 0; b < a; b++) {
                assert_string_not_equal(option->name, verb->options[b].name);
                assert_true(!option->letter || option->letter != verb->options[b].letter);
            }
            for (size_t b = 0; b < global_option_count; b++) {
                assert_string_not_equal(option->name, global_options[b].name);
                assert_true(!option->letter || option->letter != global_options[b].letter);
            }
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_and_words_may_mix),
        cmocka_unit_test(letters_may_be_joined_with_each_other_and_their_value),
        cmocka_unit_test(everything_after_two_dashes_is_a_word),
        cmocka_unit_test(a_single_dash_is_a_word),
        cmocka_unit_test(global_options_are_taken_by_every_verb),
        cmocka_unit_test(wrong_arguments_are_named_with_what_would_be_accepted),
        cmocka_unit_test(the_first_verbs_are_there_and_all_are_distinct),
        cmocka_unit_test(no_verb_has_an_option_twice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
