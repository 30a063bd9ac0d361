/* conninfo_test.c - what psql gets among its arguments never holds the password. */
#include "client/conninfo.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void assert_split(const char *conninfo, const char *rest, const char *password)
{
    struct arena arena = {0};
    struct err err = {0};
    const char *got_rest, *got_password;
    if (conninfo_split(&arena, conninfo, &got_rest, &got_password, &err) < 0)
        fail_msg("%s: %s", conninfo, err.text);
    assert_string_equal(got_rest, rest);
    if (password)
        assert_string_equal(got_password, password);
    else
        assert_null(got_password);
    arena_done(&arena);
}

static void assert_refused(const char *conninfo)
{
    struct arena arena = {0};
    struct err err = {0};
    const char *rest, *password;
    assert_int_equal(conninfo_split(&arena, conninfo, &rest, &password, &err), -1);
    assert_int_equal(err.kind, ERR_INVALID);
    assert_null(strstr(err.text, "s3cret"));
    arena_done(&arena);
}

static void the_password_is_taken_out_of_keywords(void **state)
{
    (void)state;
    assert_split("host=h password=s3cret dbname=d", "host=h dbname=d", "s3cret");
    assert_split("password='a b\\'c\\\\' host='/x y'", "host='/x y'", "a b'c\\");
    assert_split(" password = s\\ p  user=u ", "user=u", "s p");
    assert_split("password=", "", "");
    assert_split("password=one password=two", "", "two"); /* libpq: the last one counts */
    assert_split("passfile=/f sslpassword_=x", "passfile=/f sslpassword_=x", NULL);
    assert_split("athanor", "athanor", NULL);
    assert_split("", "", NULL);
}

static void the_password_is_taken_out_of_addresses(void **state)
{
    (void)state;
    assert_split("postgresql://u:s3cret@h:5/d", "postgresql://u@h:5/d", "s3cret");
    assert_split("postgres://u:p%40%2f%3A@/d?host=/run", "postgres://u@/d?host=/run", "p@/:");
    assert_split("postgresql://h/d?password=s3cret&user=u&x=y", "postgresql://h/d?user=u&x=y",
                 "s3cret");
    assert_split("postgresql://h/d?user=u&password=s3cret", "postgresql://h/d?user=u", "s3cret");
    assert_split("postgresql://h?password=a%20b", "postgresql://h", "a b");
    assert_split("postgresql://u@h:5/d", "postgresql://u@h:5/d", NULL);
    assert_split("postgresql://[::1]:5432/d", "postgresql://[::1]:5432/d", NULL);
    assert_split("postgresql://", "postgresql://", NULL);
}

static void what_cannot_be_read_is_refused_without_being_repeated(void **state)
{
    (void)state;
    assert_refused("host=h password='s3cret");
    assert_refused("host=h password s3cret");
    assert_refused("password='s3cret\\");
    assert_refused(" postgresql://u:s3cret@h/d?x=y"); /* no address for libpq either */
    assert_refused("=s3cret");
    assert_refused("postgresql://u:s3cret%4@h/d");
    assert_refused("postgresql://u:s3cret%zz@h/d");
    assert_refused("postgresql://u:s3cret%00@h/d");
    assert_refused("postgresql://h/d?password=s3cret%");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_password_is_taken_out_of_keywords),
        cmocka_unit_test(the_password_is_taken_out_of_addresses),
        cmocka_unit_test(what_cannot_be_read_is_refused_without_being_repeated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
