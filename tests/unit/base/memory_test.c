/* memory_test.c - mem, buf, arena and err: the four things that every file uses. */
#include "tests/unit/base/support.h"

#include "common/base/arena.h"
#include "common/base/buf.h"
#include "common/base/kinds.h"

#include <errno.h>

/* ---- mem -------------------------------------------------------------------------------- */

static void break_a_check(void)
{
    CHECK(1 + 1 == 3);
}

static void ask_for_too_much(void)
{
    volatile size_t count = SIZE_MAX / 2; /* volatile: the compiler would refuse the constant */
    mem_free(mem_array(count, 4));
}

static void a_broken_check_ends_the_process(void **state)
{
    (void)state;
    assert_true(ends_the_process(break_a_check));
}

static void an_overflowing_array_ends_the_process(void **state)
{
    (void)state;
    assert_true(ends_the_process(ask_for_too_much));
}

static void texts_are_copied_and_null_stays_null(void **state)
{
    (void)state;
    char *copy = mem_strdup("abc"), *cut = mem_strndup("abcdef", 2);
    char *made = mem_printf("%d-%s", 7, "x");
    assert_string_equal(copy, "abc");
    assert_string_equal(cut, "ab");
    assert_string_equal(made, "7-x");
    assert_null(mem_strdup(NULL));
    mem_free(copy);
    mem_free(cut);
    mem_free(made);
    mem_free(NULL);
}

static void a_growing_array_keeps_its_items(void **state)
{
    (void)state;
    struct { int *items; size_t count, capacity; } list = {0};
    for (int i = 0; i < 1000; i++) {
        VEC_RESERVE(list.items, list.count, list.capacity);
        list.items[list.count++] = i;
    }
    for (int i = 0; i < 1000; i++)
        assert_int_equal(list.items[i], i);
    mem_free(list.items);
}

/* ---- buf -------------------------------------------------------------------------------- */

static void a_buffer_is_always_terminated(void **state)
{
    (void)state;
    struct buf buf = {0};
    assert_string_equal(buf_text(&buf), "");
    buf_puts(&buf, "one ");
    buf_putc(&buf, '2');
    buf_printf(&buf, " %s", "three");
    buf_add(&buf, "", 0);
    assert_string_equal(buf.bytes, "one 2 three");
    assert_int_equal(buf.length, strlen("one 2 three"));
    buf_drop(&buf, 4);
    assert_string_equal(buf.bytes, "2 three");
    buf_drop(&buf, buf.length);
    assert_string_equal(buf.bytes, "");
    buf_clear(&buf);
    assert_string_equal(buf_text(&buf), "");
    buf_done(&buf);
}

static void a_buffer_grows_past_any_one_piece(void **state)
{
    (void)state;
    struct buf buf = {0};
    for (int i = 0; i < 5000; i++)
        buf_printf(&buf, "%04d", i);
    assert_int_equal(buf.length, 20000);
    assert_memory_equal(buf.bytes + 4 * 4321, "4321", 4);
    char *text = buf_take(&buf);
    assert_null(buf.bytes);
    assert_int_equal(strlen(text), 20000);
    mem_free(text);
    text = buf_take(&buf); /* an empty one gives an empty text, not NULL */
    assert_string_equal(text, "");
    mem_free(text);
}

static struct buf dropped;

static void drop_too_much(void)
{
    buf_puts(&dropped, "ab");
    buf_drop(&dropped, 3);
}

static void dropping_more_than_there_is_ends_the_process(void **state)
{
    (void)state;
    assert_true(ends_the_process(drop_too_much));
}

/* ---- arena ------------------------------------------------------------------------------ */

static void allocations_are_aligned_zeroed_and_apart(void **state)
{
    (void)state;
    struct arena arena = {0};
    unsigned char *last = NULL;
    for (size_t size = 0; size < 3000; size += 7) {
        unsigned char *memory = arena_alloc(&arena, size);
        assert_int_equal((uintptr_t)memory % 16, 0);
        for (size_t i = 0; i < size; i++)
            assert_int_equal(memory[i], 0);
        memset(memory, 0xAB, size);
        if (last && size > 7)
            assert_int_equal(last[0], 0xAB);
        last = memory;
    }
    arena_done(&arena);
}

static void an_arena_gives_blocks_larger_than_its_own(void **state)
{
    (void)state;
    struct arena arena = {0};
    char *large = arena_alloc(&arena, (size_t)5 << 20);
    large[((size_t)5 << 20) - 1] = 1;
    assert_string_equal(arena_strdup(&arena, "after"), "after");
    assert_true(arena.used_bytes >= (size_t)5 << 20);
    arena_done(&arena);
    assert_int_equal(arena.used_bytes, 0);
}

static void a_reset_arena_reuses_its_memory_and_zeroes_it_again(void **state)
{
    (void)state;
    struct arena arena = {0};
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 100; i++) {
            char *memory = arena_alloc(&arena, 100);
            assert_int_equal(memory[0] | memory[99], 0);
            memset(memory, 1, 100);
        }
        assert_int_equal(arena.used_bytes, 100 * 112);
        arena_reset(&arena);
        assert_int_equal(arena.used_bytes, 0);
    }
    assert_null(arena_strdup(&arena, NULL));
    assert_string_equal(arena_strndup(&arena, "abcdef", 3), "abc");
    assert_string_equal(arena_printf(&arena, "%s=%d", "x", 5), "x=5");
    arena_done(&arena);
}

/* 20 times 2,000 bytes, of which a first block holds two: joined, they lie side by side. */
static void a_joined_arena_gives_the_next_round_from_one_block(void **state)
{
    (void)state;
    struct arena arena = {0};
    for (int round = 0; round < 3; round++) {
        char *first = arena_alloc(&arena, 2000), *last = first;
        assert_int_equal(first[0] | first[1999], 0);
        memset(first, 1, 2000);
        for (int i = 1; i < 20; i++)
            last = arena_alloc(&arena, 2000);
        assert_true(round == 0 || last - first == 19 * 2000);
        arena_join(&arena);
        assert_int_equal(arena.used_bytes, 0);
    }
    arena_done(&arena);
    arena_join(&arena); /* empty */
}

/* ---- err -------------------------------------------------------------------------------- */

static void an_error_gathers_context_and_keeps_its_kind(void **state)
{
    (void)state;
    struct err err;
    assert_int_equal(err_set(&err, ERR_LIMIT, "%d is too much", 7), -1);
    assert_int_equal(err_wrap(&err, "file '%s'", "x"), -1);
    assert_string_equal(err.text, "file 'x': 7 is too much");
    assert_int_equal(err.kind, ERR_LIMIT);
    errno = ENOENT;
    assert_int_equal(err_errno(&err, "read '%s'", "y"), -1);
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    errno = EACCES;
    err_errno(&err, "read");
    assert_int_equal(err.kind, ERR_IO);
    assert_string_equal(err.text, "read: Permission denied");
    err_clear(&err);
    assert_int_equal(err.kind, ERR_NONE);
    assert_string_equal(err.text, "");
}

static void a_long_error_ends_in_an_ellipsis(void **state)
{
    (void)state;
    struct err err;
    char text[3000];
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    err_set(&err, ERR_INVALID, "%s", text);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
    assert_string_equal(err.text + sizeof err.text - 4, "...");
    err_wrap(&err, "context");
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
    assert_memory_equal(err.text, "context: xxx", 12);
}

static void wrap_nothing(void)
{
    struct err err = {0};
    err_wrap(&err, "context");
}

static void wrapping_no_error_ends_the_process(void **state)
{
    (void)state;
    assert_true(ends_the_process(wrap_nothing));
}

static void every_kind_has_a_name(void **state)
{
    (void)state;
    for (int kind = ERR_NONE; kind < ERR_KIND_END; kind++)
        assert_true(strlen(err_kind_name((enum err_kind)kind)) > 0);
    assert_string_equal(err_kind_name(ERR_KIND_END), "unknown");
}

static void causes_and_roles_read_back_from_their_names(void **state)
{
    (void)state;
    struct err err;
    for (int i = 1; i < CAUSE_END; i++) {
        enum cause cause;
        assert_int_equal(cause_from_name(cause_name((enum cause)i), &cause, &err), 0);
        assert_int_equal(cause, i);
    }
    for (int i = 1; i < ROLE_END; i++) {
        enum role role;
        assert_int_equal(role_from_name(role_name((enum role)i), &role, &err), 0);
        assert_int_equal(role, i);
    }
    enum cause cause;
    enum role role;
    assert_int_equal(cause_from_name("", &cause, &err), -1);
    assert_int_equal(cause_from_name("OOM", &cause, &err), -1);
    assert_int_equal(role_from_name("root", &role, &err), -1);
    assert_non_null(strstr(err.text, "expected user, operator, worker, admin or pilot"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_broken_check_ends_the_process),
        cmocka_unit_test(an_overflowing_array_ends_the_process),
        cmocka_unit_test(texts_are_copied_and_null_stays_null),
        cmocka_unit_test(a_growing_array_keeps_its_items),
        cmocka_unit_test(a_buffer_is_always_terminated),
        cmocka_unit_test(a_buffer_grows_past_any_one_piece),
        cmocka_unit_test(dropping_more_than_there_is_ends_the_process),
        cmocka_unit_test(allocations_are_aligned_zeroed_and_apart),
        cmocka_unit_test(an_arena_gives_blocks_larger_than_its_own),
        cmocka_unit_test(a_joined_arena_gives_the_next_round_from_one_block),
        cmocka_unit_test(a_reset_arena_reuses_its_memory_and_zeroes_it_again),
        cmocka_unit_test(an_error_gathers_context_and_keeps_its_kind),
        cmocka_unit_test(a_long_error_ends_in_an_ellipsis),
        cmocka_unit_test(wrapping_no_error_ends_the_process),
        cmocka_unit_test(every_kind_has_a_name),
        cmocka_unit_test(causes_and_roles_read_back_from_their_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
