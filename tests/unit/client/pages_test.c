/* pages_test.c - help, man page and completion from the verbs' tables. */
#include "client/cli.h"

#include "common/base/mem.h"
#include "common/base/roff.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/client/golden.h"

static void the_overview_lists_every_verb(void **state)
{
    struct buf out = {0};
    (void)state;
    page_usage(&out);
    assert_golden("usage.txt", &out);
    buf_done(&out);
}

static void help_of_a_verb_tells_words_options_and_exit_codes(void **state)
{
    struct buf out = {0};
    (void)state;
    page_help(verb_find("submit"), &out);
    assert_golden("help-submit.txt", &out);
    buf_done(&out);
}

static void every_help_line_fits_eighty_columns(void **state)
{
    const struct verb *verb;
    (void)state;
    for (size_t i = 0; (verb = verb_at(i)); i++) {
        struct buf out = {0};
        char *save = NULL;
        page_help(verb, &out);
        for (char *line = strtok_r(out.bytes, "\n", &save); line;
             line = strtok_r(NULL, "\n", &save))
            if (strlen(line) > 80)
                fail_msg("athanor %s --help: '%s'", verb->name, line);
        buf_done(&out);
    }
}

static void the_man_page_names_every_verb_and_option(void **state)
{
    struct buf out = {0};
    const struct verb *verb;
    (void)state;
    page_man(&out);
    for (size_t i = 0; (verb = verb_at(i)); i++) {
        struct buf heading = {0};
        char *title = mem_printf("athanor %s %s", verb->name, verb->words);
        roff_subsection(&heading, title);
        assert_non_null(strstr(out.bytes, heading.bytes));
        mem_free(title);
        buf_done(&heading);
    }
    assert_non_null(strstr(out.bytes, "\\fB\\-\\-submit\\-key\\fR \\fIHEX\\fR"));
    buf_done(&out);
}

static int run_bash(const char *script)
{
    int status = -1;
    pid_t pid = fork();
    if (pid == 0) {
        execlp("bash", "bash", "--norc", script, (char *)NULL);
        _exit(127);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void completion_is_valid_bash_and_offers_verbs_and_options(void **state)
{
    char path[] = "/tmp/athanor-completion-XXXXXX";
    struct buf out = {0};
    struct err err;
    (void)state;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    page_completion_bash(&out);
    buf_puts(&out, "COMP_WORDS=(athanor su); COMP_CWORD=1; _athanor; [ \"${COMPREPLY[*]}\" = "
                   "submit ] || exit 7\n"
                   "COMP_WORDS=(athanor submit --id); COMP_CWORD=2; _athanor; [ "
                   "\"${COMPREPLY[*]}\" = --ids ] || exit 8\n"
                   "COMP_WORDS=(athanor keys re); COMP_CWORD=2; _athanor; [ \"${COMPREPLY[*]}\" = "
                   "revoke ] || exit 9\n");
    assert_int_equal(file_write_all(fd, out.bytes, out.length, &err), 0);
    assert_int_equal(run_bash(path), 0);
    remove(path);
    buf_done(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_overview_lists_every_verb),
        cmocka_unit_test(help_of_a_verb_tells_words_options_and_exit_codes),
        cmocka_unit_test(every_help_line_fits_eighty_columns),
        cmocka_unit_test(the_man_page_names_every_verb_and_option),
        cmocka_unit_test(completion_is_valid_bash_and_offers_verbs_and_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
