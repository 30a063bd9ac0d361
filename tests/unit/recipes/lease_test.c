/* lease_test.c - which rank makes which block, and what a finished one says: files alone, by clocks
 * that the test sets. */
#include "common/base/file.h"
#include "common/base/mem.h"
#include "tests/unit/data/inputs.h"
#include "worker/recipes/distillation/impossible/lease.h"
#include "worker/recipes/distillation/impossible/record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[] = "/tmp/athanor-lease-XXXXXX";

static int open_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int close_folder(void **state)
{
    struct err err;

    (void)state;
    return file_remove_tree(folder, &err);
}

static char *in_folder(const char *name)
{
    return mem_printf("%s/%s", folder, name);
}

static bool take(const struct lease_rules *rules, uint64_t block, uint64_t now_ms,
                 struct lease_seen *seen)
{
    struct err err;
    bool taken;

    assert_int_equal(lease_take(rules, block, now_ms, seen, &taken, &err), 0);
    return taken;
}

static void one_rank_has_a_block_until_its_lease_was_seen_for_too_long(void **state)
{
    struct lease_rules one = {.folder = folder, .rank = 1, .given_ms = 500};
    struct lease_rules two = {.folder = folder, .rank = 2, .given_ms = 500};
    struct lease_seen ones = {0}, twos = {0}, late = {0};

    (void)state;
    assert_true(take(&one, 7, 1000, &ones));
    assert_int_equal(ones.turn, 1);
    assert_false(take(&two, 7, 90000, &twos)); /* other clocks do not matter: it is seen now */
    assert_int_equal(twos.rank, 1);
    assert_false(take(&two, 7, 90499, &twos));
    assert_true(take(&two, 7, 90500, &twos));
    assert_int_equal(twos.turn, 2);
    /* The first holder sees that it was given to another, and whoever comes late the newest. */
    assert_false(take(&one, 7, 1400, &ones));
    assert_int_equal(ones.rank, 2);
    assert_false(take(&one, 7, 1899, &ones));
    assert_false(take(&two, 7, 90600, &late));
    assert_int_equal(late.turn, 2);
    assert_true(take(&one, 8, 2000, &(struct lease_seen){0}));
}

static void leases_last_as_long_as_blocks_take_and_for_ever_while_none_is_done(void **state)
{
    struct lease_rules rules = {.folder = folder, .rank = 0};

    (void)state;
    assert_true(lease_limit_ms(&rules, 0) == UINT64_MAX);
    rules.longest_ms = 100;
    assert_int_equal(lease_limit_ms(&rules, 0), LEASE_LEAST_MS);
    rules.longest_ms = 100000;
    assert_int_equal(lease_limit_ms(&rules, 0), 400000);
    assert_int_equal(lease_limit_ms(&rules, 900000), 900000); /* a slow rank's own word */
    rules.given_ms = 50;
    assert_int_equal(lease_limit_ms(&rules, 900000), 50);
}

static void damaged_leases_are_named_and_old_ones_swept(void **state)
{
    struct lease_rules rules = {.folder = folder, .rank = 0, .given_ms = 500};
    struct lease_seen seen = {0};
    char *lease = in_folder("block-000009.lease-1"), *block = in_folder("block-000009.jsonl");
    struct err err;
    bool taken;

    (void)state;
    assert_int_equal(file_replace(lease, "{\"rank\": -1}", 12, 0644, &err), 0);
    assert_int_equal(file_replace(block, "x", 1, 0644, &err), 0);
    assert_int_equal(lease_take(&rules, 9, 1, &seen, &taken, &err), -1);
    assert_int_equal(err.kind, ERR_PROTOCOL);
    assert_non_null(strstr(err.text, "block-000009.lease-1"));
    assert_int_equal(lease_sweep(folder, &err), 0);
    assert_true(file_exists(block) && !file_exists(lease));
    assert_true(take(&rules, 9, 1, &seen));
    mem_free(lease);
    mem_free(block);
}

/* ---- blocks and records ----------------------------------------------------------------- */

#define LINE(context, text)                                                                        \
    "{\"context\":" #context ",\"origin\":\"o\",\"text\":\"" text "\",\"samples\":[\"a\",\"b\"],"  \
    "\"distinct\":[0,1],\"verdicts\":[\"-C\",\"C-\"],\"pool\":{\"kept\":2},\"kept\":[]}\n"
#define HEADER "{\"settings\":\"abc/2\"}\n"

static struct buf block_bytes(void)
{
    struct buf bytes = {0};

    block_begin(&bytes, "abc/2");
    assert_string_equal(buf_text(&bytes), HEADER);
    buf_puts(&bytes, LINE(4, "one") LINE(5, "two"));
    return bytes;
}

static void a_record_says_what_its_block_holds_and_is_read_back(void **state)
{
    struct buf bytes = block_bytes();
    struct record made = {0}, read;
    char *path = in_folder("block-000002.done");
    struct err err;

    (void)state;
    assert_int_equal(record_count(bytes.bytes, bytes.length, "abc/2", 2, &made, &err), 0);
    assert_int_equal(made.contexts, 2);
    assert_int_equal(made.count[VERDICT_KEPT], 4);
    assert_true(made.texts[0] != made.texts[1]);
    made.block = 2;
    made.rank = 3;
    made.leases = 2;
    made.critic_us = 77;
    assert_int_equal(record_write(path, "abc/2", &made, &err), 0);
    assert_int_equal(record_write(path, "abc/2", &made, &err), -1);
    assert_int_equal(err.kind, ERR_EXISTS);
    assert_int_equal(record_read(path, "abc/2", 2, 2, &read, &err), 0);
    assert_memory_equal(read.texts, made.texts, 16);
    assert_memory_equal(read.count, made.count, sizeof made.count);
    assert_string_equal(read.hash, made.hash);
    assert_true(read.rank == 3 && read.leases == 2 && read.critic_us == 77);
    record_done(&read);
    assert_int_equal(record_read(path, "other", 2, 2, &read, &err), -1);
    assert_int_equal(err.kind, ERR_STALE);
    assert_int_equal(record_read(path, "abc/2", 3, 2, &read, &err), -1);
    assert_int_equal(err.kind, ERR_PROTOCOL);
    assert_int_equal(truncate(path, 40), 0);
    assert_int_equal(record_read(path, "abc/2", 2, 2, &read, &err), -1);
    assert_int_equal(err.kind, ERR_PROTOCOL);
    record_done(&made);
    buf_done(&bytes);
    mem_free(path);
}

static void a_block_made_twice_must_be_the_same_bytes(void **state)
{
    struct buf bytes = block_bytes();
    char *path = in_folder("block-000003.jsonl");
    struct err err;
    bool first;

    (void)state;
    assert_int_equal(block_write(path, &bytes, &first, &err), 0);
    assert_true(first);
    assert_int_equal(block_write(path, &bytes, &first, &err), 0);
    assert_false(first);
    bytes.bytes[bytes.length - 4] = '2';
    assert_int_equal(block_write(path, &bytes, &first, &err), -1);
    assert_int_equal(err.kind, ERR_INVALID);
    assert_non_null(strstr(err.text, "block-000003.jsonl' was made twice and differs"));
    buf_done(&bytes);
    mem_free(path);
}

static void a_half_made_block_is_gone_on_with_from_its_last_whole_line(void **state)
{
    const char *text = HEADER LINE(4, "one") "{\"context\":5,\"ori";
    char *path = in_folder("block-000004.part");
    struct buf out = {0};
    struct err err;
    uint64_t count;

    (void)state;
    assert_int_equal(file_replace(path, text, strlen(text), 0644, &err), 0);
    assert_int_equal(block_read_start(path, "abc/2", 4, 2, &out, &count, &err), 0);
    assert_int_equal(count, 1);
    assert_string_equal(buf_text(&out), HEADER LINE(4, "one"));
    out.length = 0;
    assert_int_equal(block_read_start(path, "abc/2", 3, 2, &out, &count, &err), 0); /* not its */
    assert_int_equal(count, 0);
    out.length = 0;
    assert_int_equal(block_read_start(path, "other", 4, 2, &out, &count, &err), 0);
    assert_true(count == 0 && out.length == 0);
    assert_int_equal(block_read_start("/no/such", "abc/2", 4, 2, &out, &count, &err), 0);
    assert_true(count == 0 && out.length == 0);
    buf_done(&out);
    mem_free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_rank_has_a_block_until_its_lease_was_seen_for_too_long),
        cmocka_unit_test(leases_last_as_long_as_blocks_take_and_for_ever_while_none_is_done),
        cmocka_unit_test(damaged_leases_are_named_and_old_ones_swept),
        cmocka_unit_test(a_record_says_what_its_block_holds_and_is_read_back),
        cmocka_unit_test(a_block_made_twice_must_be_the_same_bytes),
        cmocka_unit_test(a_half_made_block_is_gone_on_with_from_its_last_whole_line),
    };

    return cmocka_run_group_tests(tests, open_folder, close_folder);
}
