/* keys_test.c - key files are written safely and read suspiciously. */
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/net/keys.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

/* The published example pair of libzmq's documentation, zmq_curve(7). */
#define EXAMPLE_PUBLIC "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"
#define EXAMPLE_SECRET "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs"

static int setup(void **state)
{
    char folder[] = "/tmp/athanor-keys-XXXXXX";
    assert_non_null(mkdtemp(folder));
    *state = mem_strdup(folder);
    return 0;
}

static int teardown(void **state)
{
    struct err err;
    assert_int_equal(file_remove_tree(*state, &err), 0);
    mem_free(*state);
    return 0;
}

static char *path_in(void **state, const char *name)
{
    return mem_printf("%s/%s", (const char *)*state, name);
}

static void a_written_pair_is_read_back(void **state)
{
    char *path = path_in(state, "admin.key"), *pub = path_in(state, "admin.key.pub");
    struct keypair made, read;
    char public_key[KEY_TEXT_SIZE];
    struct stat status;
    struct err err;
    keypair_make(&made);
    assert_int_equal(keypair_write(path, &made, &err), 0);
    assert_int_equal(keypair_read(path, &read, &err), 0);
    assert_string_equal(read.public_key, made.public_key);
    assert_string_equal(read.secret_key, made.secret_key);
    assert_int_equal(public_key_read(pub, public_key, &err), 0);
    assert_string_equal(public_key, made.public_key);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    mem_free(path);
    mem_free(pub);
}

static void the_public_file_holds_no_secret(void **state)
{
    char *path = path_in(state, "k"), *pub = path_in(state, "k.pub"), *text;
    struct keypair made;
    size_t length;
    struct err err;
    keypair_make(&made);
    assert_int_equal(keypair_write(path, &made, &err), 0);
    assert_int_equal(file_read(pub, 4096, &text, &length, &err), 0);
    assert_null(strstr(text, made.secret_key));
    assert_int_equal(keypair_read(pub, &made, &err), -1);
    mem_free(text);
    mem_free(path);
    mem_free(pub);
}

static void an_existing_secret_is_not_replaced(void **state)
{
    char *path = path_in(state, "k");
    struct keypair made;
    struct err err;
    keypair_make(&made);
    assert_int_equal(keypair_write(path, &made, &err), 0);
    assert_int_equal(keypair_write(path, &made, &err), -1);
    assert_int_equal(err.kind, ERR_EXISTS);
    mem_free(path);
}

static void a_secret_that_others_may_read_is_refused(void **state)
{
    static const mode_t modes[] = {0644, 0640, 0604, 0660, 0601};
    char *path = path_in(state, "k");
    struct keypair made, read;
    struct err err;
    keypair_make(&made);
    assert_int_equal(keypair_write(path, &made, &err), 0);
    for (size_t i = 0; i < ARRAY_COUNT(modes); i++) {
        assert_int_equal(chmod(path, modes[i]), 0);
        assert_int_equal(keypair_read(path, &read, &err), -1);
        assert_int_equal(err.kind, ERR_DENIED);
        assert_non_null(strstr(err.text, "chmod 600"));
    }
    assert_int_equal(chmod(path, 0400), 0);
    assert_int_equal(keypair_read(path, &read, &err), 0);
    mem_free(path);
}

static void a_missing_file_is_named(void **state)
{
    char *path = path_in(state, "nowhere");
    struct keypair read;
    struct err err;
    assert_int_equal(keypair_read(path, &read, &err), -1);
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, path));
    mem_free(path);
}

static void a_file_whose_name_looks_like_a_key_is_read(void **state)
{
    (void)state;
    struct keypair keys;
    struct err err;
    char folder[] = "/tmp/athanor-keys-XXXXXX", path[64], got[KEY_TEXT_SIZE];
    keypair_make(&keys);
    assert_int_equal(public_key_given(keys.public_key, got, &err), 0);
    assert_string_equal(got, keys.public_key);
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/%.*s", folder, (int)(KEY_TEXT_LENGTH - sizeof folder),
             "0123456789abcdef0123456789abcdef");
    assert_int_equal(public_key_check(path, &err), 0);
    assert_int_equal(keypair_write(path, &keys, &err), 0);
    assert_int_equal(public_key_given(path, got, &err), 0);
    assert_string_equal(got, keys.public_key);
    assert_int_equal(file_remove_tree(folder, &err), 0);
    assert_int_equal(public_key_given("no-such-file", got, &err), -1);
    keypair_wipe(&keys);
}

static void wrong_texts_are_refused_with_the_line(void **state)
{
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"", "no public-key line"},
        {"# nothing\n", "no public-key line"},
        {"public-key = \"short\"\n", "line 1: public-key needs"},
        {"\npublic-key = " EXAMPLE_PUBLIC "\n", "line 2: public-key needs"},
        {"public-key = \"" EXAMPLE_PUBLIC "\" x\n", "line 1: public-key needs"},
        {"public-key = \"~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~\"\n", "not Z85"},
        {"public-key = \"########################################\"\n", "not Z85"},
        {"public-key = \"" EXAMPLE_PUBLIC "\"\npublic-key = \"" EXAMPLE_PUBLIC "\"\n", "twice"},
        {"secret-key = \"" EXAMPLE_SECRET "\"\n", "no public-key line"},
        {"public-key = \"" EXAMPLE_SECRET "\"\nsecret-key = \"" EXAMPLE_SECRET "\"\n",
         "does not belong"},
        {"private = 1\n", "expected public-key"},
    };
    struct keypair keys;
    struct err err;
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        assert_int_equal(keypair_parse(cases[i].text, strlen(cases[i].text), &keys, &err), -1);
        assert_int_equal(err.kind, ERR_INVALID);
        if (!strstr(err.text, cases[i].words))
            fail_msg("case %zu: '%s' does not say '%s'", i, err.text, cases[i].words);
    }
}

static void blanks_comments_and_missing_newlines_are_fine(void **state)
{
    static const char text[] = "  # a comment\r\n\n public-key=\"" EXAMPLE_PUBLIC
                               "\" \r\n\tsecret-key\t=\t\"" EXAMPLE_SECRET "\"";
    struct keypair keys;
    struct err err;
    (void)state;
    assert_int_equal(keypair_parse(text, strlen(text), &keys, &err), 0);
    assert_string_equal(keys.public_key, EXAMPLE_PUBLIC);
    assert_string_equal(keys.secret_key, EXAMPLE_SECRET);
}

static void a_file_above_the_limit_is_refused(void **state)
{
    char text[KEY_FILE_BYTES_MAX + 1];
    struct keypair keys;
    struct err err;
    (void)state;
    memset(text, '#', sizeof text);
    assert_int_equal(keypair_parse(text, sizeof text, &keys, &err), -1);
    assert_int_equal(err.kind, ERR_LIMIT);
}

static void a_group_may_read_credentials_and_nothing_else(void **state)
{
    char *path = path_in(state, "credential");
    struct err err;
    assert_int_equal(file_replace(path, "x", 1, 0440, &err), 0);
    assert_int_equal(secret_file_check("password file", path, &err), -1);
    assert_int_equal(err.kind, ERR_DENIED);
    assert_int_equal(setenv("CREDENTIALS_DIRECTORY", *state, 1), 0);
    assert_int_equal(secret_file_check("password file", path, &err), 0);
    assert_int_equal(chmod(path, 0444), 0);
    assert_int_equal(secret_file_check("password file", path, &err), -1);
    assert_int_equal(unsetenv("CREDENTIALS_DIRECTORY"), 0);
    mem_free(path);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(a_written_pair_is_read_back),
        T(a_group_may_read_credentials_and_nothing_else),
        T(the_public_file_holds_no_secret),
        T(an_existing_secret_is_not_replaced),
        T(a_secret_that_others_may_read_is_refused),
        T(a_missing_file_is_named),
        T(a_file_whose_name_looks_like_a_key_is_read),
        T(wrong_texts_are_refused_with_the_line),
        T(blanks_comments_and_missing_newlines_are_fine),
        T(a_file_above_the_limit_is_refused),
    };
#undef T
    return cmocka_run_group_tests(tests, NULL, NULL);
}
