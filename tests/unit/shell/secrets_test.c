/* secrets_test.c - secrets of accounts and projects: encrypted, for their jobs alone, bound to
 * their row. */
#include "coordinator/shell/secrets.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

struct fixture {
    struct keypair own, worker;
    struct secrets *secrets;
    struct effects effects;
    struct err err;
};

static int set_up(void **state)
{
    static struct fixture fixture;
    fixture = (struct fixture){0};
    keypair_make(&fixture.own);
    keypair_make(&fixture.worker);
    effects_init(&fixture.effects);
    *state = &fixture;
    return secrets_new(&fixture.own, &fixture.own, &fixture.secrets, &fixture.err);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    secrets_free(f->secrets);
    effects_done(&f->effects);
    return 0;
}

static const struct secret_owner ann = {false, "ann"}, vision = {true, "vision"};

static int set_of(struct fixture *f, struct secret_owner owner, const char *name, const char *text)
{
    struct clear_value value;
    struct buf box = {0};
    struct secret_change change = {owner, name, "ann", 1000};
    assert_int_equal(clear_value_new(strlen(text), &value, &f->err), 0);
    memcpy(value.bytes, text, strlen(text));
    assert_int_equal(sealed_make(f->own.public_key, &value, &box, &f->err), 0);
    clear_value_done(&value);
    struct wire_bytes bytes = {box.bytes, box.length};
    int rc = secrets_set(f->secrets, &change, &bytes, &f->effects, &f->err);
    buf_done(&box);
    return rc;
}

static int set(struct fixture *f, const char *account, const char *name, const char *text)
{
    return set_of(f, (struct secret_owner){false, account}, name, text);
}

static int removes(struct fixture *f, struct secret_owner owner, const char *name)
{
    struct secret_change change = {owner, name, "ann", 2000};
    return secrets_remove(f->secrets, &change, &f->effects, &f->err);
}

/* What the worker finds in the box that it gets for a job of project vision. */
static bool worker_gets(struct fixture *f, const struct secrets *secrets, const char *account,
                        const char *name, const char *text)
{
    struct clear_value value;
    struct buf box = {0};
    assert_int_equal(
        secrets_give(secrets, account, "vision", name, f->worker.public_key, &box, &f->err), 0);
    assert_int_equal(sealed_open(&f->worker, box.bytes, box.length, &value, &f->err), 0);
    bool same = value.length == strlen(text) && memcmp(value.bytes, text, value.length) == 0;
    clear_value_done(&value);
    buf_done(&box);
    return same;
}

static int gives(struct fixture *f, const struct secrets *secrets, const char *account,
                 const char *name)
{
    struct buf box = {0};
    int rc = secrets_give(secrets, account, "vision", name, f->worker.public_key, &box, &f->err);
    buf_done(&box);
    return rc;
}

static const struct row_secret *newest_row(const struct fixture *f)
{
    const struct persist *persist = &f->effects.persist[f->effects.persist_count - 1];
    assert_int_equal(persist->table, ROW_TABLE_secret);
    return persist->row;
}

static void a_value_that_is_set_can_be_given_and_replaced(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(set(f, "ann", "hf", "first"), 0);
    assert_true(worker_gets(f, f->secrets, "ann", "hf", "first"));
    assert_int_equal(set(f, "ann", "hf", "the second"), 0);
    assert_true(worker_gets(f, f->secrets, "ann", "hf", "the second"));
}

static void a_row_holds_no_value_and_is_enough_for_the_next_leader(void **state)
{
    struct fixture *f = *state;
    struct secrets *next;
    assert_int_equal(set(f, "ann", "hf", "a value to hide"), 0);
    const struct row_secret *row = newest_row(f);
    assert_null(memmem(row->sealed.bytes, row->sealed.length, "value", 5));
    assert_string_equal(row->key_id, secrets_key_id(f->secrets));
    assert_int_equal(secrets_new(&f->own, &f->own, &next, &f->err), 0);
    secrets_load(next, row);
    assert_true(worker_gets(f, next, "ann", "hf", "a value to hide"));
    secrets_free(next);
}

static void a_row_moved_to_another_account_or_changed_does_not_open(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(set(f, "ann", "hf", "value"), 0);
    struct row_secret moved = *newest_row(f);
    moved.account = "bob";
    secrets_load(f->secrets, &moved);
    assert_int_equal(gives(f, f->secrets, "bob", "hf"), -1);
    assert_int_equal(f->err.kind, ERR_DENIED);
    assert_non_null(strstr(f->err.text, "was changed in the database"));
    struct row_secret torn = *newest_row(f);
    torn.sealed.length = 30;
    secrets_load(f->secrets, &torn);
    assert_int_equal(gives(f, f->secrets, "ann", "hf"), -1);
    assert_non_null(strstr(f->err.text, "is damaged in the database"));
}

static void another_key_is_told_apart_and_the_old_one_can_be_given(void **state)
{
    struct fixture *f = *state;
    struct keypair fresh;
    struct secrets *next;
    assert_int_equal(set(f, "ann", "hf", "value"), 0);
    keypair_make(&fresh);
    assert_int_equal(secrets_new(&fresh, &fresh, &next, &f->err), 0);
    secrets_load(next, newest_row(f));
    assert_int_equal(gives(f, next, "ann", "hf"), -1);
    assert_int_equal(f->err.kind, ERR_DENIED);
    assert_non_null(strstr(f->err.text, "--secrets-key"));
    secrets_free(next);
    assert_int_equal(secrets_new(&fresh, &f->own, &next, &f->err), 0);
    secrets_load(next, newest_row(f));
    assert_true(worker_gets(f, next, "ann", "hf", "value"));
    secrets_free(next);
}

static void secrets_of_others_are_not_there(void **state)
{
    struct fixture *f = *state;
    struct arena arena = {0};
    const struct secret_name *names;
    assert_int_equal(set(f, "ann", "b", "1"), 0);
    assert_int_equal(set(f, "ann", "a", "2"), 0);
    assert_int_equal(set(f, "anna", "c", "3"), 0);
    assert_int_equal(secrets_names(f->secrets, "ann", NULL, 0, &arena, &names), 2);
    assert_string_equal(names[0].name, "a");
    assert_string_equal(names[1].name, "b");
    assert_int_equal(secrets_names(f->secrets, "bob", NULL, 0, &arena, &names), 0);
    assert_int_equal(gives(f, f->secrets, "ann", "c"), -1);
    assert_int_equal(f->err.kind, ERR_NOT_FOUND);
    assert_int_equal(removes(f, ann, "c"), -1);
    arena_done(&arena);
}

static void a_removed_secret_leaves_a_row_without_a_value(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(set(f, "ann", "hf", "value"), 0);
    assert_int_equal(removes(f, ann, "hf"), 0);
    const struct row_secret *row = newest_row(f);
    assert_int_equal(row->sealed.length, 0);
    assert_int_equal(row->removed_at, 2000);
    assert_int_equal(gives(f, f->secrets, "ann", "hf"), -1);
    assert_int_equal(set(f, "ann", "hf", "again"), 0);
    assert_true(worker_gets(f, f->secrets, "ann", "hf", "again"));
}

static void a_project_s_secret_is_for_its_jobs_and_gives_way_to_the_account_s_own(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(set_of(f, vision, "hf", "of all"), 0);
    assert_true(worker_gets(f, f->secrets, "ann", "hf", "of all"));
    assert_int_equal(set(f, "ann", "hf", "of ann"), 0);
    assert_true(worker_gets(f, f->secrets, "ann", "hf", "of ann"));
    assert_true(worker_gets(f, f->secrets, "bob", "hf", "of all"));
    struct buf box = {0};
    const char *key = f->worker.public_key;
    assert_int_equal(secrets_give(f->secrets, "bob", "speech", "hf", key, &box, &f->err), -1);
    assert_int_equal(secrets_give(f->secrets, "bob", "", "hf", key, &box, &f->err), -1);
    /* A project may have the name of an account. */
    assert_int_equal(secrets_give(f->secrets, "vision", "", "hf", key, &box, &f->err), -1);
    assert_int_equal(f->err.kind, ERR_NOT_FOUND);
    assert_int_equal(removes(f, ann, "hf"), 0);
    assert_true(worker_gets(f, f->secrets, "ann", "hf", "of all"));
    assert_int_equal(removes(f, vision, "hf"), 0);
    assert_int_equal(gives(f, f->secrets, "ann", "hf"), -1);
    assert_int_equal(removes(f, vision, "hf"), -1);
}

static void rows_of_projects_and_of_accounts_do_not_open_as_each_other(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(set_of(f, (struct secret_owner){true, "bob"}, "hf", "value"), 0);
    const struct persist *persist = &f->effects.persist[f->effects.persist_count - 1];
    assert_int_equal(persist->table, ROW_TABLE_project_secret);
    const struct row_project_secret *row = persist->row;
    assert_string_equal(row->set_by, "ann");
    struct row_project_secret shared = *row;
    struct row_secret moved = {.account = "bob",
                               .name = "hf",
                               .sealed = row->sealed,
                               .key_id = row->key_id,
                               .set_at = row->set_at};
    secrets_load(f->secrets, &moved);
    assert_int_equal(gives(f, f->secrets, "bob", "hf"), -1);
    assert_int_equal(f->err.kind, ERR_DENIED);
    shared.project = "vision";
    secrets_load_shared(f->secrets, &shared);
    assert_int_equal(gives(f, f->secrets, "ann", "hf"), -1);
    assert_int_equal(f->err.kind, ERR_DENIED);
}

static void names_come_with_their_projects_in_the_order_of_the_core(void **state)
{
    struct fixture *f = *state;
    struct arena arena = {0};
    static const char *const projects[] = {"speech", "vision"};
    const struct secret_name *names;
    assert_int_equal(set_of(f, vision, "b", "1"), 0);
    assert_int_equal(set_of(f, (struct secret_owner){true, "speech"}, "c", "1"), 0);
    assert_int_equal(set_of(f, (struct secret_owner){true, "other"}, "d", "1"), 0);
    assert_int_equal(set(f, "ann", "z", "1"), 0);
    assert_int_equal(secrets_names(f->secrets, "ann", projects, 2, &arena, &names), 3);
    assert_string_equal(names[0].project, "");
    assert_string_equal(names[0].name, "z");
    assert_string_equal(names[1].project, "speech");
    assert_string_equal(names[2].name, "b");
    assert_int_equal(secrets_count(f->secrets, vision), 1);
    secrets_clear(f->secrets);
    assert_int_equal(secrets_count(f->secrets, vision), 0);
    arena_done(&arena);
}

static void names_boxes_and_numbers_have_their_bounds(void **state)
{
    struct fixture *f = *state;
    char name[24];
    const struct wire_bytes empty = {"", 0};
    assert_int_equal(set(f, "ann", "no/name", "v"), -1);
    assert_int_equal(f->err.kind, ERR_INVALID);
    assert_int_equal(secrets_set(f->secrets, &(struct secret_change){ann, "hf", "ann", 1}, &empty,
                                 &f->effects, &f->err), -1);
    assert_int_equal(f->effects.persist_count, 0);
    for (unsigned i = 0; i < SECRETS_OF_OWNER_MAX; i++) {
        snprintf(name, sizeof name, "s%u", i);
        assert_int_equal(set(f, "ann", name, "v"), 0);
    }
    assert_int_equal(set(f, "ann", "one-more", "v"), -1);
    assert_int_equal(f->err.kind, ERR_LIMIT);
    assert_int_equal(set(f, "ann", "s7", "replaced"), 0);
    assert_int_equal(set(f, "bob", "his", "v"), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_value_that_is_set_can_be_given_and_replaced),
        TEST(a_row_holds_no_value_and_is_enough_for_the_next_leader),
        TEST(a_row_moved_to_another_account_or_changed_does_not_open),
        TEST(another_key_is_told_apart_and_the_old_one_can_be_given),
        TEST(secrets_of_others_are_not_there),
        TEST(a_removed_secret_leaves_a_row_without_a_value),
        TEST(a_project_s_secret_is_for_its_jobs_and_gives_way_to_the_account_s_own),
        TEST(rows_of_projects_and_of_accounts_do_not_open_as_each_other),
        TEST(names_come_with_their_projects_in_the_order_of_the_core),
        TEST(names_boxes_and_numbers_have_their_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
