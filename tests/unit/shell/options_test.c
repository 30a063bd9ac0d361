/* options_test.c - the command line and the environment of the coordinator. */
#include "coordinator/shell/options.h"

#include "common/base/file.h"
#include "common/base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct options options;
static struct err err;

/* Parses a copy of the words, which live until the next call. */
static int parse(const char *first, const char *second, const char *third, const char *fourth)
{
    static char words[4][200];
    char *argv[6] = {"athanor-coordinator"};
    const char *given[4] = {first, second, third, fourth};
    int argc = 1;

    for (int i = 0; i < 4 && given[i]; i++) {
        snprintf(words[i], sizeof words[i], "%s", given[i]);
        argv[argc++] = words[i];
    }
    return options_parse(argc, argv, &options, &err);
}

static void a_value_may_follow_or_be_attached(void **state)
{
    (void)state;
    assert_int_equal(parse("--db=dbname=x", "--key", "/k", NULL), 0);
    assert_string_equal(options.db, "dbname=x");
    assert_string_equal(options.key, "/k");
    assert_int_equal(options.leader_ms, 2000);
    assert_string_equal(options.listen[0], "tcp://127.0.0.1:7117");
}

static void lists_take_commas_and_repeats(void **state)
{
    (void)state;
    assert_int_equal(parse("--db=x", "--key=/k", "--listen=tcp://a:1,tcp://b:2",
                           "--listen=ipc:///c"),
                     0);
    assert_int_equal(options.listen_count, 3);
    assert_string_equal(options.listen[1], "tcp://b:2");
    assert_string_equal(options.listen[2], "ipc:///c");
    assert_int_equal(parse("--db=x", "--key=/k", "--listen=1,2,3,4,5,6,7,8,9", NULL), -1);
    assert_non_null(strstr(err.text, "more than 8"));
}

static void wrong_options_say_what_would_do(void **state)
{
    (void)state;
    assert_int_equal(parse("--dbb", "x", NULL, NULL), -1);
    assert_non_null(strstr(err.text, "--dbb"));
    assert_int_equal(parse("--db", NULL, NULL, NULL), -1);
    assert_non_null(strstr(err.text, "CONNINFO"));
    assert_int_equal(parse("--single=yes", NULL, NULL, NULL), -1);
    assert_int_equal(parse("--db=x", "--key=/k", "--leader-lease=5", NULL), -1);
    assert_non_null(strstr(err.text, "--leader-lease"));
    assert_int_equal(parse("--db=x", "--key=/k", "--leader-lease=100ms", NULL), -1);
    assert_int_equal(parse("--db=x", "--key=/k", "--log-level=loud", NULL), -1);
    assert_non_null(strstr(err.text, "error, warn, info or debug"));
    assert_int_equal(parse("--db=x", NULL, NULL, NULL), -1);
    assert_non_null(strstr(err.text, "--key"));
    assert_int_equal(parse("--key=/k", NULL, NULL, NULL), -1);
    assert_non_null(strstr(err.text, "ATHANOR_DB"));
}

static void the_environment_fills_what_is_left_open(void **state)
{
    (void)state;
    setenv("ATHANOR_DB", "from-env", 1);
    setenv("ATHANOR_LISTEN", "tcp://e:1,tcp://e:2", 1);
    setenv("ATHANOR_SINGLE", "1", 1);
    assert_int_equal(parse("--key=/k", NULL, NULL, NULL), 0);
    assert_string_equal(options.db, "from-env");
    assert_int_equal(options.listen_count, 2);
    assert_true(options.single);
    assert_int_equal(parse("--key=/k", "--db=given", "--listen=tcp://g:1", NULL), 0);
    assert_string_equal(options.db, "given");
    assert_int_equal(options.listen_count, 1);
    unsetenv("ATHANOR_DB");
    unsetenv("ATHANOR_LISTEN");
    unsetenv("ATHANOR_SINGLE");
}

static void the_help_page_names_every_option_and_exit_code(void **state)
{
    (void)state;
    char *page = options_help();

    for (size_t i = 0; i < 4; i++)
        assert_non_null(strstr(page, (const char *[]){"--db CONNINFO", "ATHANOR_DB",
                                                      "--admin NAME:FILE", "exit codes:"}[i]));
    mem_free(page);
}

static void the_manual_page_has_an_entry_for_every_option(void **state)
{
    (void)state;
    char *page = options_man("Athanor 1.2.3");
    size_t entries = 0, lines = 0;

    for (const char *at = page; (at = strstr(at, "\n.TP\n\\fB\\-\\-")); at++)
        entries++;
    char *help = options_help();
    for (const char *at = help; (at = strstr(at, "\n  --")); at++)
        lines++;
    assert_int_equal(entries, lines);
    assert_non_null(strstr(page, ".TH \"ATHANOR-COORDINATOR\" 8 \"\" \"Athanor 1.2.3\"\n"));
    mem_free(help);
    mem_free(page);
}

static void credentials_fill_what_nobody_gave(void **state)
{
    char folder[] = "/tmp/athanor-credentials-XXXXXX", path[100];
    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/athanor.db-password", folder);
    assert_int_equal(file_replace(path, "pw\n", 3, 0600, &err), 0);
    assert_int_equal(setenv("CREDENTIALS_DIRECTORY", folder, 1), 0);
    assert_int_equal(parse("--db=x", "--key=/k", NULL, NULL), 0);
    assert_string_equal(options.db_password, path);
    assert_null(options.notify_secret);
    assert_null(options.secrets_key);
    assert_int_equal(parse("--db=x", "--key=/k", "--db-password=/mine", NULL), 0);
    assert_string_equal(options.db_password, "/mine");
    assert_int_equal(unsetenv("CREDENTIALS_DIRECTORY"), 0);
    assert_int_equal(parse("--db=x", "--key=/k", NULL, NULL), 0);
    assert_null(options.db_password);
    assert_int_equal(file_remove_tree(folder, &err), 0);
}

int main(void)
{
    unsetenv("ATHANOR_DB");
    unsetenv("ATHANOR_LISTEN");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_value_may_follow_or_be_attached),
        cmocka_unit_test(lists_take_commas_and_repeats),
        cmocka_unit_test(credentials_fill_what_nobody_gave),
        cmocka_unit_test(wrong_options_say_what_would_do),
        cmocka_unit_test(the_environment_fills_what_is_left_open),
        cmocka_unit_test(the_help_page_names_every_option_and_exit_code),
        cmocka_unit_test(the_manual_page_has_an_entry_for_every_option),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
