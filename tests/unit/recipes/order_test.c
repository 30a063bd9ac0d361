/* order_test.c - the documents that a step is said to have seen are those that it saw. */
#include "tests/unit/data/files.h"
#include "worker/recipes/order.h"

enum { DOCUMENTS = 40 };

struct fixture {
    char *folder, *path;
    struct dataset *dataset;
    const struct dataset_part *part;
};

static int setup(void **state)
{
    struct fixture *f = mem_zalloc(sizeof *f);
    struct err err;

    f->folder = folder_make();
    f->path = small_dataset(f->folder, DOCUMENTS, 150);
    assert_int_equal(dataset_open(f->path, &f->dataset, &err), 0);
    assert_int_equal(dataset_part(f->dataset, "even", &f->part, &err), 0);
    assert_true(f->part->shard_count > 2);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    dataset_close(f->dataset);
    mem_free(f->path);
    folder_done(f->folder);
    mem_free(f);
    return 0;
}

/* Which document each token of the part is of, shard after shard. */
static uint64_t *owners(const struct dataset_part *part)
{
    uint64_t *owner = mem_array(part->token_count, sizeof *owner), at = 0;

    for (size_t s = 0; s < part->shard_count; s++)
        for (uint64_t d = 0; d < part->shards[s]->document_count; d++)
            for (uint64_t i = part->shards[s]->document_start[d];
                 i < part->shards[s]->document_start[d + 1]; i++)
                owner[at++] = part->document_base[s] + d;
    assert_int_equal(at, part->token_count);
    return owner;
}

static void a_window_names_the_documents_of_all_its_tokens(void **state)
{
    struct fixture *f = *state;
    uint64_t *owner = owners(f->part);

    for (int64_t T = 1; T <= 64; T = 3 * T + 1) {
        struct windows windows;
        struct err err;
        uint64_t shard_begin = 0;

        assert_int_equal(windows_init(&windows, f->part, T, &err), 0);
        for (size_t s = 0; s < f->part->shard_count; s++) {
            uint64_t tokens = f->part->shards[s]->token_count;

            for (int64_t w = windows.window_base[s]; w < windows.window_base[s + 1]; w++) {
                uint64_t from = (uint64_t)((w - windows.window_base[s]) * T), first, last;
                uint64_t to = from + (uint64_t)T < tokens - 1 ? from + (uint64_t)T : tokens - 1;

                windows_documents(&windows, w, &first, &last);
                assert_int_equal(first, owner[shard_begin + from]);
                assert_int_equal(last, owner[shard_begin + to]);
            }
            shard_begin += tokens;
        }
        windows_done(&windows);
    }
    mem_free(owner);
}

/* The windows that ranks take, one after the other, against what is printed of them. */
static void printed_rows_are_those_that_any_number_of_ranks_takes(void **state)
{
    enum { T = 16, BATCH = 8, FIRST = 3, LAST = 9, SKIP = 2 };
    struct fixture *f = *state;
    struct err err;
    struct windows windows;
    struct batch batch;
    struct buf out = {0}, expected = {0};

    assert_int_equal(windows_init(&windows, f->part, T, &err), 0);
    assert_int_equal(batch_init(&batch, BATCH / 4, T, &err), 0);
    struct data_order order = {.path = f->path, .part = "even", .windows = true, .seed = 5,
                               .batch = BATCH, .items = (uint64_t)windows.window_count,
                               .context = T, .skip = SKIP};

    assert_int_equal(order_print(&order, FIRST, LAST, &out, &err), 0);
    for (uint64_t step = FIRST; step <= LAST; step++)
        for (unsigned rank = 0; rank < 4; rank++) {
            uint64_t from, count, first, last;

            sampler_share(step - 1 + SKIP, BATCH, rank, 4, &from, &count);
            windows_fill(&windows, 5, from, &batch);
            for (uint64_t row = 0; row < count; row++) {
                windows_documents(&windows, batch.item[row], &first, &last);
                buf_printf(&expected, "{\"step\": %lu, \"row\": %lu, \"window\": %ld, "
                           "\"documents\": [", step, rank * count + row, batch.item[row]);
                for (uint64_t d = first; d <= last; d++)
                    buf_printf(&expected, "%s%lu", d > first ? ", " : "", d);
                buf_puts(&expected, "], \"ids\": [");
                for (uint64_t d = first; d <= last; d++) /* "even": document d is text 2d */
                    buf_printf(&expected, "%s\"d%lu\"", d > first ? ", " : "", 2 * d);
                buf_puts(&expected, "]}\n");
            }
        }
    assert_string_equal(buf_text(&out), buf_text(&expected));
    buf_done(&out);
    buf_done(&expected);
    batch_done(&batch);
    windows_done(&windows);
}

static void an_order_reads_back_as_it_was_told(void **state)
{
    struct data_order order = {.input = "data", .path = "/a \"b\"", .part = "train",
                               .windows = true, .seed = UINT64_MAX, .batch = 32, .items = 99,
                               .context = 128, .skip = 7}, back;
    char *text = order_text(&order), *again;
    struct err err;

    (void)state;
    assert_int_equal(order_parse(text, strlen(text), &back, &err), 0);
    again = order_text(&back);
    assert_string_equal(text, again);
    order_done(&back);
    mem_free(again);
    mem_free(text);
}

static void assert_refused(const char *json, const char *why)
{
    struct data_order order;
    struct err err;

    assert_int_equal(order_parse(json, strlen(json), &order, &err), -1);
    if (!strstr(err.text, why))
        fail_msg("'%s' is refused with '%s', expected '%s'", json, err.text, why);
}

static void what_is_no_order_is_refused_by_member(void **state)
{
    struct fixture *f = *state;
    struct data_order order = {.path = f->path, .part = "even", .batch = 4, .items = 3};
    struct buf out = {0};
    struct err err;

    assert_refused("[1]", "not an object");
    assert_refused("{", "column 1");
    assert_refused("{}", "'input' is not a text");
#define HEAD "{\"input\": \"data\", \"path\": \"/a\", \"part\": \"p\", \"seed\": \"3\", "
    assert_refused(HEAD "\"unit\": \"rows\"}", "'unit' is 'rows', expected windows or documents");
    assert_refused(HEAD "\"unit\": \"windows\", \"batch\": 0}", "'batch' is not a whole number");
    assert_refused(HEAD "\"unit\": \"windows\", \"batch\": 1, \"items\": 5, \"context\": 0}",
                   "'context' is not a whole number of 1");
    assert_int_equal(order_print(&order, 1, 1, &out, &err), -1);
    assert_non_null(strstr(err.text, "has 20 documents, but 3 were trained on"));
    order.items = 20;
    assert_int_equal(order_print(&order, 0, 1, &out, &err), -1);
    assert_non_null(strstr(err.text, "counted from 1"));
    assert_int_equal(order_print(&order, 1, UINT64_MAX, &out, &err), -1);
    assert_int_equal(out.length, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_window_names_the_documents_of_all_its_tokens),
        cmocka_unit_test(printed_rows_are_those_that_any_number_of_ranks_takes),
        cmocka_unit_test(an_order_reads_back_as_it_was_told),
        cmocka_unit_test(what_is_no_order_is_refused_by_member),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
