/* principals_test.c - enrolling, finding and revoking keys. */
#include "coordinator/shell/principals.h"

#include "common/base/file.h"
#include "common/net/keys.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct fixture {
    struct principals *principals;
    struct effects effects;
    struct keypair a, b;
    struct err err;
    bool changed;
    size_t count;
};

static int set_up(void **state)
{
    static struct fixture fixture;

    fixture = (struct fixture){.principals = principals_new()};
    effects_init(&fixture.effects);
    keypair_make(&fixture.a);
    keypair_make(&fixture.b);
    *state = &fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    principals_free(f->principals);
    effects_done(&f->effects);
    return 0;
}

static int enrol(struct fixture *f, const char *name, const char *role, const char *key)
{
    return principals_enrol(f->principals, name, role, key, 1000, &f->effects, &f->changed,
                            &f->err);
}

static void an_enrolled_key_is_found_and_written(void **state)
{
    struct fixture *f = *state;
    enum role role;

    assert_int_equal(enrol(f, "ann", "user", f->a.public_key), 0);
    assert_true(f->changed);
    assert_string_equal(principals_find(f->principals, f->a.public_key, &role), "ann");
    assert_int_equal(role, ROLE_USER);
    assert_null(principals_find(f->principals, f->b.public_key, &role));
    assert_int_equal(f->effects.persist_count, 1);
}

static void enrolling_again_writes_only_a_changed_role(void **state)
{
    struct fixture *f = *state;
    enum role role;

    assert_int_equal(enrol(f, "ann", "user", f->a.public_key), 0);
    assert_int_equal(enrol(f, "ann", "user", f->a.public_key), 0);
    assert_false(f->changed);
    assert_int_equal(f->effects.persist_count, 1);
    assert_int_equal(enrol(f, "ann", "operator", f->a.public_key), 0);
    assert_int_equal(f->effects.persist_count, 2);
    principals_find(f->principals, f->a.public_key, &role);
    assert_int_equal(role, ROLE_OPERATOR);
}

static void a_key_belongs_to_one_name(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(enrol(f, "ann", "user", f->a.public_key), 0);
    assert_int_equal(enrol(f, "bob", "user", f->a.public_key), -1);
    assert_int_equal(f->err.kind, ERR_EXISTS);
}

static void wrong_names_roles_and_keys_are_refused(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(enrol(f, "../ann", "user", f->a.public_key), -1);
    assert_int_equal(enrol(f, "ann", "king", f->a.public_key), -1);
    assert_non_null(strstr(f->err.text, "user, operator, worker or admin"));
    assert_int_equal(enrol(f, "ann", "user", "short"), -1);
    assert_int_equal(f->effects.persist_count, 0);
    assert_int_equal(principals_count(f->principals), 0);
}

static void revoking_a_name_ends_all_its_keys(void **state)
{
    struct fixture *f = *state;
    enum role role;

    assert_int_equal(enrol(f, "ann", "user", f->a.public_key), 0);
    assert_int_equal(enrol(f, "ann", "user", f->b.public_key), 0);
    assert_int_equal(principals_revoke(f->principals, "ann", "", 2000, &f->effects, &f->count,
                                       &f->err),
                     0);
    assert_int_equal(f->count, 2);
    assert_null(principals_find(f->principals, f->a.public_key, &role));
    assert_int_equal(principals_revoke(f->principals, "ann", "", 2000, &f->effects, &f->count,
                                       &f->err),
                     -1);
    assert_int_equal(f->err.kind, ERR_NOT_FOUND);
    const struct row_principal *row = f->effects.persist[2].row;
    assert_int_equal(row->revoked_at, 2000);
}

static int read_text(struct fixture *f, const char *text)
{
    char path[] = "/tmp/athanor-principals-XXXXXX";
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    assert_int_equal(file_write_all(fd, text, strlen(text), &f->err), 0);
    close(fd);
    int rc = principals_read_file(f->principals, path, 1000, &f->effects, &f->err);
    unlink(path);
    return rc;
}

static void a_file_of_keys_is_read_and_errors_name_the_line(void **state)
{
    struct fixture *f = *state;
    char text[300];

    snprintf(text, sizeof text, "# keys\n\nann user %s\r\nw1\tworker %s", f->a.public_key,
             f->b.public_key);
    assert_int_equal(read_text(f, text), 0);
    assert_int_equal(principals_count(f->principals), 2);
    snprintf(text, sizeof text, "# keys\nann user\n");
    assert_int_equal(read_text(f, text), -1);
    assert_non_null(strstr(f->err.text, ":2: expected NAME ROLE KEY"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(an_enrolled_key_is_found_and_written),
        TEST(enrolling_again_writes_only_a_changed_role),
        TEST(a_key_belongs_to_one_name),
        TEST(wrong_names_roles_and_keys_are_refused),
        TEST(revoking_a_name_ends_all_its_keys),
        TEST(a_file_of_keys_is_read_and_errors_name_the_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
