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
    assert_non_null(strstr(f->err.text, "user, operator, worker, admin or pilot"));
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

/* ---- one-time tokens ------------------------------------------------------------------------ */

#define HOUR_MS 3600000u
#define NOW_US  1000000000ull

static int make_token(struct fixture *f, const char *name, const char *role, uint64_t ttl_ms,
                      struct keypair *out, char listed[TOKEN_NAME_SIZE])
{
    keypair_make(out);
    const struct token_wanted wanted = {name, role, out->public_key, ttl_ms};
    return principals_token(f->principals, &wanted, NOW_US, &f->effects, listed, &f->err);
}

static int use(struct fixture *f, const struct keypair *token, const char *name, const char *key,
               uint64_t wall_us)
{
    const struct token_use use = {token->public_key, key, name, "host7"};
    const char *enrolled;
    enum role role;
    int rc = principals_use_token(f->principals, &use, wall_us, &f->effects, &enrolled, &role,
                                  &f->err);
    if (rc == 0) {
        assert_int_equal(role, ROLE_WORKER);
        assert_string_equal(principals_find(f->principals, key, &role), enrolled);
    }
    return rc;
}

static void a_token_enrols_one_key_and_the_same_key_again(void **state)
{
    struct fixture *f = *state;
    struct keypair token;
    char name[TOKEN_NAME_SIZE];
    enum role role;

    assert_int_equal(make_token(f, "w1", "worker", HOUR_MS, &token, name), 0);
    assert_string_equal(principals_find(f->principals, token.public_key, &role), name);
    assert_int_equal(role, ROLE_TOKEN);
    assert_int_equal(use(f, &token, "", f->a.public_key, NOW_US), 0);
    assert_string_equal(principals_find(f->principals, f->a.public_key, &role), "w1");
    const struct row_principal *row = f->effects.persist[2].row;
    assert_string_equal(row->used_by, f->a.public_key);
    assert_int_equal(row->used_at, NOW_US);
    size_t rows = f->effects.persist_count;
    assert_int_equal(use(f, &token, "w1", f->a.public_key, NOW_US + 2 * HOUR_MS * 1000ull), 0);
    assert_int_equal(f->effects.persist_count, rows);
    assert_int_equal(use(f, &token, "", f->b.public_key, NOW_US), -1);
    assert_int_equal(f->err.kind, ERR_DENIED);
    assert_non_null(strstr(f->err.text, "was used already"));
    assert_null(principals_find(f->principals, f->b.public_key, &role));
}

static void a_token_that_has_expired_is_refused_and_forgotten_a_day_later(void **state)
{
    struct fixture *f = *state;
    struct keypair token, next;
    char name[TOKEN_NAME_SIZE];
    enum role role;
    uint64_t later = NOW_US + HOUR_MS * 1000ull + 1;

    assert_int_equal(make_token(f, "w1", "worker", HOUR_MS, &token, name), 0);
    assert_int_equal(use(f, &token, "", f->a.public_key, later), -1);
    assert_non_null(strstr(f->err.text, "has expired"));
    keypair_make(&next);
    const struct token_wanted wanted = {"w2", "worker", next.public_key, HOUR_MS};
    assert_int_equal(principals_token(f->principals, &wanted, later, &f->effects, name, &f->err),
                     0);
    assert_non_null(principals_find(f->principals, token.public_key, &role));
    const struct token_wanted third = {"w3", "worker", f->b.public_key, HOUR_MS};
    assert_int_equal(principals_token(f->principals, &third, later + TOKEN_REMEMBER_MS * 1000,
                                      &f->effects, name, &f->err),
                     0);
    assert_null(principals_find(f->principals, token.public_key, &role));
}

static void a_token_without_a_name_takes_none_that_is_taken(void **state)
{
    struct fixture *f = *state;
    struct keypair token;
    char name[TOKEN_NAME_SIZE];
    enum role role;

    assert_int_equal(enrol(f, "ann", "user", f->b.public_key), 0);
    assert_int_equal(make_token(f, "", "worker", HOUR_MS, &token, name), 0);
    assert_int_equal(use(f, &token, "ann", f->a.public_key, NOW_US), -1);
    assert_int_equal(f->err.kind, ERR_EXISTS);
    assert_int_equal(use(f, &token, "../x", f->a.public_key, NOW_US), -1);
    assert_int_equal(use(f, &token, "", "short", NOW_US), -1);
    assert_int_equal(use(f, &token, "", f->a.public_key, NOW_US), 0); /* refusals cost nothing */
    assert_string_equal(principals_find(f->principals, f->a.public_key, &role), "host7");
}

static void a_token_for_a_name_enrols_no_other(void **state)
{
    struct fixture *f = *state;
    struct keypair token;
    char name[TOKEN_NAME_SIZE];

    assert_int_equal(make_token(f, "w1", "worker", HOUR_MS, &token, name), 0);
    assert_int_equal(use(f, &token, "w2", f->a.public_key, NOW_US), -1);
    assert_int_equal(f->err.kind, ERR_DENIED);
    assert_non_null(strstr(f->err.text, "'w1' only"));
}

static void a_revoked_token_and_tokens_for_a_revoked_name_are_unknown(void **state)
{
    struct fixture *f = *state;
    struct keypair token, other;
    char name[TOKEN_NAME_SIZE], other_name[TOKEN_NAME_SIZE];
    enum role role;

    assert_int_equal(make_token(f, "w1", "worker", HOUR_MS, &token, name), 0);
    assert_int_equal(make_token(f, "w2", "worker", HOUR_MS, &other, other_name), 0);
    assert_int_equal(principals_revoke(f->principals, name, "", 2000, &f->effects, &f->count,
                                       &f->err),
                     0);
    assert_null(principals_find(f->principals, token.public_key, &role));
    assert_int_equal(principals_revoke(f->principals, "w2", "", 2000, &f->effects, &f->count,
                                       &f->err),
                     0);
    assert_null(principals_find(f->principals, other.public_key, &role));
    assert_int_equal(use(f, &other, "", f->a.public_key, NOW_US), -1);
}

static void a_revoked_key_does_not_come_back_by_its_token(void **state)
{
    struct fixture *f = *state;
    struct keypair token;
    char name[TOKEN_NAME_SIZE];

    assert_int_equal(make_token(f, "w1", "worker", HOUR_MS, &token, name), 0);
    assert_int_equal(use(f, &token, "", f->a.public_key, NOW_US), 0);
    assert_int_equal(principals_revoke(f->principals, "w1", "", NOW_US, &f->effects, &f->count,
                                       &f->err),
                     0);
    assert_int_equal(use(f, &token, "", f->a.public_key, NOW_US), -1);
    assert_non_null(strstr(f->err.text, "was revoked since"));
}

static void tokens_that_would_grant_nonsense_are_not_made(void **state)
{
    struct fixture *f = *state;
    struct keypair token;
    char name[TOKEN_NAME_SIZE];

    assert_int_equal(make_token(f, "w1", "token", HOUR_MS, &token, name), -1);
    assert_int_equal(make_token(f, "w1", "king", HOUR_MS, &token, name), -1);
    assert_int_equal(make_token(f, "w 1", "worker", HOUR_MS, &token, name), -1);
    assert_int_equal(make_token(f, "w1", "worker", 0, &token, name), -1);
    assert_int_equal(make_token(f, "w1", "worker", TOKEN_TTL_MAX_MS + 1, &token, name), -1);
    assert_int_equal(enrol(f, "w1", "token", f->a.public_key), -1);
    assert_int_equal(f->effects.persist_count, 0);
}

static void tokens_are_bounded_and_no_names_of_people(void **state)
{
    struct fixture *f = *state;
    struct arena arena = {0};
    struct keypair token;
    char name[TOKEN_NAME_SIZE], key[KEY_TEXT_SIZE];
    const char *const *names;

    memset(key, '0', KEY_TEXT_LENGTH);
    key[KEY_TEXT_LENGTH] = 0;
    for (unsigned i = 0; i < TOKENS_MAX; i++) {
        const struct token_wanted wanted = {"w1", "worker", key, HOUR_MS};
        key[39] = (char)('0' + i % 8);
        key[38] = (char)('0' + i / 8 % 8);
        key[34] = (char)('0' + i / 64 % 8);
        key[33] = (char)('0' + i / 512 % 8);
        assert_int_equal(principals_token(f->principals, &wanted, NOW_US, &f->effects, name,
                                          &f->err),
                         0);
    }
    assert_int_equal(make_token(f, "w1", "worker", HOUR_MS, &token, name), -1);
    assert_int_equal(f->err.kind, ERR_LIMIT);
    assert_int_equal(principals_names(f->principals, &arena, &names), 0);
    assert_true(principals_are_workers(f->principals, "w1"));
    arena_done(&arena);
}

static void what_is_loaded_is_what_was_written(void **state)
{
    struct fixture *f = *state;
    struct principals *again = principals_new();
    struct keypair token;
    char name[TOKEN_NAME_SIZE];
    const char *enrolled;
    enum role role;

    assert_int_equal(make_token(f, "w1", "worker", HOUR_MS, &token, name), 0);
    assert_int_equal(use(f, &token, "", f->a.public_key, NOW_US), 0);
    for (size_t i = 0; i < f->effects.persist_count; i++)
        if (i != 0) /* the token's row was written anew */
            principals_load(again, f->effects.persist[i].row);
    const struct token_use same = {token.public_key, f->a.public_key, "", ""},
                           other = {token.public_key, f->b.public_key, "", ""};
    assert_int_equal(principals_use_token(again, &same, NOW_US, &f->effects, &enrolled, &role,
                                          &f->err),
                     0);
    assert_string_equal(enrolled, "w1");
    assert_int_equal(principals_use_token(again, &other, NOW_US, &f->effects, &enrolled, &role,
                                          &f->err),
                     -1);
    principals_free(again);
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
        TEST(a_token_enrols_one_key_and_the_same_key_again),
        TEST(a_token_that_has_expired_is_refused_and_forgotten_a_day_later),
        TEST(a_token_without_a_name_takes_none_that_is_taken),
        TEST(a_token_for_a_name_enrols_no_other),
        TEST(a_revoked_token_and_tokens_for_a_revoked_name_are_unknown),
        TEST(a_revoked_key_does_not_come_back_by_its_token),
        TEST(tokens_that_would_grant_nonsense_are_not_made),
        TEST(tokens_are_bounded_and_no_names_of_people),
        TEST(what_is_loaded_is_what_was_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
