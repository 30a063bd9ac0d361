/* spool_test.c - the report stream on disk: what is written is read, torn ends are cut, numbers
 * never repeat. */
#include "common/base/file.h"
#include "common/base/mem.h"
#include "worker/attempt/folder.h"
#include "worker/attempt/spool.h"

#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[64];

static int set_up(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/spool-test-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int tear_down(void **state)
{
    struct err err = {0};
    (void)state;
    return file_remove_tree(folder, &err);
}

static void write_metrics(struct spool_writer *spool, size_t count)
{
    struct rec_report reports[8];
    struct err err = {0};
    for (size_t i = 0; i < count; i++)
        reports[i] = (struct rec_report){.kind = REPORT_METRIC,
                                         .name = "loss",
                                         .path = "",
                                         .meta = "",
                                         .cause = "",
                                         .step = spool->next_seq + i,
                                         .value = 0.5};
    assert_int_equal(spool_append(spool, reports, count, &err), 0);
}

/* Reads all; returns the newest sequence and checks that steps equal sequences. */
static uint64_t read_all(struct spool_reader *reader, size_t *out_count)
{
    struct arena arena = {0};
    struct rec_report *reports;
    struct err err = {0};
    size_t count;
    uint64_t newest = 0;
    int rc;
    *out_count = 0;
    while ((rc = spool_read(reader, &arena, &reports, &count, &err)) > 0)
        for (size_t i = 0; i < count; i++) {
            assert_int_equal(reports[i].step, reports[i].seq);
            newest = reports[i].seq;
            ++*out_count;
        }
    assert_int_equal(rc, 0);
    arena_done(&arena);
    return newest;
}

static uint64_t read_after(uint64_t after, size_t *out_count)
{
    struct spool_reader reader;
    struct err err = {0};
    assert_int_equal(spool_reader_open(folder, after, &reader, &err), 0);
    uint64_t newest = read_all(&reader, out_count);
    spool_reader_close(&reader);
    return newest;
}

static struct spool_writer open_writer(void)
{
    struct spool_writer spool;
    struct err err = {0};
    if (spool_open(folder, 9, &spool, &err) < 0)
        fail_msg("%s", err.text);
    return spool;
}

static char *first_segment(void)
{
    return folder_file(folder, "spool-00000000000000000001");
}

static void what_is_appended_is_read_in_order(void **state)
{
    struct spool_writer spool = open_writer();
    size_t count;
    (void)state;
    write_metrics(&spool, 3);
    write_metrics(&spool, 1);
    write_metrics(&spool, 4);
    spool_close(&spool);
    assert_int_equal(read_after(0, &count), 8);
    assert_int_equal(count, 8);
}

static void a_reader_that_starts_within_a_record_skips_what_it_knows(void **state)
{
    struct spool_writer spool = open_writer();
    size_t count;
    (void)state;
    write_metrics(&spool, 5);
    write_metrics(&spool, 5);
    spool_close(&spool);
    assert_int_equal(read_after(7, &count), 10);
    assert_int_equal(count, 3);
    assert_int_equal(read_after(10, &count), 0);
    assert_int_equal(count, 0);
}

static void a_reader_goes_back_within_its_newest_record_and_no_farther(void **state)
{
    struct spool_writer spool = open_writer();
    struct spool_reader reader;
    struct arena arena = {0};
    struct rec_report *reports;
    struct err err = {0};
    size_t count;
    (void)state;
    write_metrics(&spool, 5);
    write_metrics(&spool, 5);
    write_metrics(&spool, 5);
    assert_int_equal(spool_reader_open(folder, 2, &reader, &err), 0);
    assert_false(spool_reader_back(&reader, 1));
    assert_int_equal(spool_read(&reader, &arena, &reports, &count, &err), 1);
    assert_int_equal(reports[0].seq, 3);
    assert_int_equal(spool_read(&reader, &arena, &reports, &count, &err), 1);
    assert_false(spool_reader_back(&reader, 4)); /* in the one before */
    assert_false(spool_reader_back(&reader, 11)); /* not yet given */
    assert_int_equal(reader.next_seq, 11);
    assert_true(spool_reader_back(&reader, 7));
    assert_int_equal(spool_read(&reader, &arena, &reports, &count, &err), 1);
    assert_int_equal(reports[0].seq, 8);
    assert_int_equal(count, 3);
    assert_true(spool_reader_back(&reader, 10));
    assert_int_equal(spool_read(&reader, &arena, &reports, &count, &err), 1);
    assert_int_equal(reports[0].seq, 11);
    arena_done(&arena);
    spool_reader_close(&reader);
    spool_close(&spool);
}

static void a_reader_follows_a_writer(void **state)
{
    struct spool_reader reader;
    struct err err = {0};
    size_t count;
    (void)state;
    assert_int_equal(spool_reader_open(folder, 0, &reader, &err), 0);
    assert_int_equal(read_all(&reader, &count), 0);
    struct spool_writer spool = open_writer();
    write_metrics(&spool, 2);
    assert_int_equal(read_all(&reader, &count), 2);
    assert_int_equal(read_all(&reader, &count), 0);
    write_metrics(&spool, 1);
    assert_int_equal(read_all(&reader, &count), 3);
    spool_close(&spool);
    spool_reader_close(&reader);
}

static void a_reopened_spool_goes_on_behind_the_last_record(void **state)
{
    size_t count;
    (void)state;
    for (int round = 0; round < 3; round++) {
        struct spool_writer spool = open_writer();
        write_metrics(&spool, 2);
        spool_close(&spool);
    }
    assert_int_equal(read_after(0, &count), 6);
    assert_int_equal(count, 6);
}

static void every_torn_end_is_cut_and_its_numbers_are_used_again(void **state)
{
    struct spool_writer spool = open_writer();
    struct err err = {0};
    char *path = first_segment(), *whole;
    size_t length, count;
    (void)state;
    write_metrics(&spool, 2);
    uint64_t first_record = spool.segment_bytes;
    write_metrics(&spool, 3);
    spool_close(&spool);
    assert_int_equal(file_read(path, 1 << 20, &whole, &length, &err), 0);
    for (size_t cut = (size_t)first_record; cut < length; cut++) {
        assert_int_equal(file_replace(path, whole, cut, 0600, &err), 0);
        assert_int_equal(read_after(0, &count), 2); /* the torn record is not there */
        spool = open_writer();
        assert_int_equal(spool.next_seq, 3);
        write_metrics(&spool, 1);
        spool_close(&spool);
        assert_int_equal(read_after(0, &count), 3);
    }
    mem_free(whole);
    mem_free(path);
}

static void every_flipped_bit_of_a_record_is_noticed(void **state)
{
    struct spool_writer spool = open_writer();
    struct err err = {0};
    char *path = first_segment(), *whole;
    size_t length, count;
    (void)state;
    write_metrics(&spool, 2);
    size_t first_record = (size_t)spool.segment_bytes;
    write_metrics(&spool, 2);
    spool_close(&spool);
    assert_int_equal(file_read(path, 1 << 20, &whole, &length, &err), 0);
    for (size_t at = first_record; at < length; at++) {
        whole[at] ^= (char)(1 << at % 8);
        assert_int_equal(file_replace(path, whole, length, 0600, &err), 0);
        assert_int_equal(read_after(0, &count), 2);
        whole[at] ^= (char)(1 << at % 8);
    }
    mem_free(whole);
    mem_free(path);
}

static void segments_follow_each_other_and_go_when_acknowledged(void **state)
{
    struct spool_writer spool = open_writer();
    struct err err = {0};
    size_t count;
    (void)state;
    write_metrics(&spool, 4);
    spool.segment_bytes = SPOOL_SEGMENT_BYTES; /* as if it were full */
    write_metrics(&spool, 4);
    spool.segment_bytes = SPOOL_SEGMENT_BYTES;
    write_metrics(&spool, 4);
    spool_close(&spool);
    assert_int_equal(read_after(0, &count), 12);
    assert_int_equal(count, 12);
    assert_int_equal(spool_drop(folder, 3, &err), 0);
    assert_int_equal(read_after(0, &count), 12);
    assert_int_equal(count, 12); /* the first segment holds one that is not acknowledged */
    assert_int_equal(spool_drop(folder, 8, &err), 0);
    assert_int_equal(read_after(0, &count), 12);
    assert_int_equal(count, 4);
    assert_int_equal(spool_drop(folder, 12, &err), 0);
    assert_int_equal(read_after(0, &count), 12); /* the newest stays: it carries the numbers */
    spool = open_writer();
    assert_int_equal(spool.next_seq, 13);
    spool_close(&spool);
}

static void a_spool_that_nobody_acknowledges_has_a_bound(void **state)
{
    struct spool_writer spool = open_writer();
    struct err err = {0};
    (void)state;
    assert_int_equal(spool.segment_max, SPOOL_SEGMENTS_MAX);
    spool.segment_max = 2;
    write_metrics(&spool, 4);
    spool.segment_bytes = SPOOL_SEGMENT_BYTES; /* as if it were full */
    write_metrics(&spool, 4);
    assert_false(spool_is_full(&spool));
    spool.segment_bytes = SPOOL_SEGMENT_BYTES;
    assert_true(spool_is_full(&spool));
    write_metrics(&spool, 1); /* an end can be told all the same */
    assert_true(spool_is_full(&spool));
    assert_int_equal(spool_drop(folder, 8, &err), 0);
    assert_false(spool_is_full(&spool));
    spool_close(&spool);
}

static void numbers_that_were_acknowledged_are_never_used_again(void **state)
{
    struct spool_writer spool = open_writer();
    struct err err = {0};
    size_t count;
    (void)state;
    write_metrics(&spool, 4);
    spool_close(&spool);
    assert_int_equal(folder_set_acked(folder, 6, &err), 0); /* a power cut took 5 and 6 from here */
    spool = open_writer();
    assert_int_equal(spool.next_seq, 7);
    write_metrics(&spool, 1);
    spool_close(&spool);
    assert_int_equal(read_after(6, &count), 7);
}

static void the_last_report_is_found_by_kind(void **state)
{
    struct spool_writer spool = open_writer();
    struct err err = {0};
    uint64_t seq = 9, kind = 9;
    struct rec_report end = {
        .kind = REPORT_FINISHED, .name = "", .path = "", .meta = "{}", .cause = "success"};
    (void)state;
    assert_int_equal(spool_last(folder, &seq, &kind, &err), 0);
    assert_int_equal(seq, 0);
    assert_int_equal(kind, 0);
    write_metrics(&spool, 2);
    assert_int_equal(spool_append(&spool, &end, 1, &err), 0);
    spool_close(&spool);
    assert_int_equal(spool_last(folder, &seq, &kind, &err), 0);
    assert_int_equal(seq, 3);
    assert_int_equal(kind, REPORT_FINISHED);
}

static void what_the_disk_refuses_waits_in_memory_and_is_written_later(void **state)
{
    struct spool_writer spool = open_writer();
    struct rec_report report = {
        .kind = REPORT_METRIC, .name = "loss", .path = "", .meta = "", .cause = "", .step = 2};
    struct err err = {0};
    size_t count;
    (void)state;
    write_metrics(&spool, 1);
    int good = spool.fd;
    spool.fd = open("/dev/full", O_WRONLY);
    assert_int_equal(spool_append(&spool, &report, 1, &err), -1);
    assert_int_equal(err.kind, ERR_IO);
    assert_int_equal(read_after(0, &count), 1);
    close(spool.fd);
    spool.fd = good;
    err_clear(&err);
    assert_int_equal(spool_flush(&spool, &err), 0);
    assert_int_equal(read_after(0, &count), 2);
    spool_close(&spool);
}

/* Jobs can remove the folder; a reader that comes later finds what was written since. */
static void a_removed_folder_is_made_again_and_the_numbers_go_on(void **state)
{
    (void)state;
    struct spool_writer spool;
    struct err err = {0};
    size_t count;
    assert_int_equal(spool_open(folder, 1, &spool, &err), 0);
    write_metrics(&spool, 3);
    assert_int_equal(file_remove_tree(folder, &err), 0);
    write_metrics(&spool, 2);
    assert_int_equal(read_after(0, &count), 5);
    assert_int_equal(count, 2);
    spool_close(&spool);
    assert_int_equal(file_remove_tree(folder, &err), 0);
    assert_int_equal(mkdir(folder, 0700), 0);
    assert_int_equal(spool_open(folder, 1, &spool, &err), 0);
    assert_int_equal(file_remove_tree(folder, &err), 0); /* before the first record */
    write_metrics(&spool, 1);
    assert_int_equal(read_after(0, &count), 1);
    spool_close(&spool);
}

/* A removed folder takes segments with it that the reader has not opened yet, and the file that it
 * is in. */
static void a_reader_leaves_a_removed_folder_when_it_has_read_what_it_can(void **state)
{
    struct spool_writer spool = open_writer();
    struct spool_reader reader;
    struct err err = {0};
    size_t count;
    (void)state;
    write_metrics(&spool, 2);
    assert_int_equal(spool_reader_open(folder, 0, &reader, &err), 0);
    assert_int_equal(read_all(&reader, &count), 2);
    write_metrics(&spool, 3); /* read although its name is gone */
    spool.segment_bytes = SPOOL_SEGMENT_BYTES;
    write_metrics(&spool, 4); /* a segment that nobody has opened */
    assert_int_equal(file_remove_tree(folder, &err), 0);
    assert_int_equal(read_all(&reader, &count), 5);
    assert_int_equal(count, 3);
    assert_int_equal(read_all(&reader, &count), 0); /* there is no folder yet */
    write_metrics(&spool, 1);
    assert_int_equal(read_all(&reader, &count), 10);
    assert_int_equal(count, 1);
    write_metrics(&spool, 1);
    assert_int_equal(read_all(&reader, &count), 11);
    spool_reader_close(&reader);
    spool_close(&spool);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(what_is_appended_is_read_in_order),
        TEST(a_reader_that_starts_within_a_record_skips_what_it_knows),
        TEST(a_reader_goes_back_within_its_newest_record_and_no_farther),
        TEST(a_reader_follows_a_writer),
        TEST(a_reopened_spool_goes_on_behind_the_last_record),
        TEST(every_torn_end_is_cut_and_its_numbers_are_used_again),
        TEST(every_flipped_bit_of_a_record_is_noticed),
        TEST(segments_follow_each_other_and_go_when_acknowledged),
        TEST(a_spool_that_nobody_acknowledges_has_a_bound),
        TEST(numbers_that_were_acknowledged_are_never_used_again),
        TEST(the_last_report_is_found_by_kind),
        TEST(a_removed_folder_is_made_again_and_the_numbers_go_on),
        TEST(a_reader_leaves_a_removed_folder_when_it_has_read_what_it_can),
        TEST(what_the_disk_refuses_waits_in_memory_and_is_written_later),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
