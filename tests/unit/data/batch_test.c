/* batch_test.c - windows and documents as rows: nothing lost, nothing twice. */
#include "tests/unit/data/files.h"
#include "worker/engine/data/batch.h"
#include "worker/engine/data/sampler.h"

enum { DOCUMENTS = 40, END = 258 };

struct fixture {
    char *folder, *path;
    struct dataset *dataset;
    const struct dataset_part *even;
};

static int setup(void **state)
{
    struct err err = {0};
    struct fixture *f = mem_zalloc(sizeof *f);
    f->folder = folder_make();
    f->path = small_dataset(f->folder, DOCUMENTS, 150);
    assert_int_equal(dataset_open(f->path, &f->dataset, &err), 0);
    assert_int_equal(dataset_part(f->dataset, "even", &f->even, &err), 0);
    assert_true(f->even->shard_count > 2);
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

/* Row b's cells are consecutive tokens of one shard, found by its window number. */
static void assert_row(const struct fixture *f, const struct windows *windows,
                       const struct batch *batch, int64_t row)
{
    int64_t item = batch->item[row];
    size_t s = 0;
    while (windows->window_base[s + 1] <= item)
        s++;
    const struct shard *shard = f->even->shards[s];
    uint64_t from = (uint64_t)((item - windows->window_base[s]) * batch->T);
    for (int64_t t = 0; t < batch->T; t++) {
        int32_t target = batch->target[row * batch->T + t];
        uint64_t at = from + (uint64_t)t;
        if (at + 1 >= shard->token_count) {
            assert_int_equal(target, -1);
            continue;
        }
        assert_int_equal(batch->token[row * batch->T + t], shard_token(shard, at));
        assert_int_equal(target, shard_token(shard, at + 1));
    }
}

static void an_epoch_of_windows_predicts_every_token_but_each_shards_first(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct windows windows;
    struct batch batch;
    int64_t targets = 0;
    assert_int_equal(windows_init(&windows, f->even, 16, &err), 0);
    assert_int_equal(batch_init(&batch, 3, 16, &err), 0);
    uint8_t *seen = mem_array((size_t)windows.window_count, 1);
    for (int64_t first = 0; first < windows.window_count; first += batch.B) {
        windows_fill(&windows, 9, (uint64_t)first, &batch);
        for (int64_t row = 0; row < batch.B && first + row < windows.window_count; row++) {
            assert_row(f, &windows, &batch, row);
            assert_false(seen[batch.item[row]]);
            seen[batch.item[row]] = 1;
            for (int64_t t = 0; t < batch.T; t++)
                targets += batch.target[row * batch.T + t] >= 0;
        }
    }
    assert_int_equal(targets, f->even->token_count - f->even->shard_count);
    mem_free(seen);
    batch_done(&batch);
    windows_done(&windows);
}

static void ordered_windows_end_in_padding(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct windows windows;
    struct batch batch;
    assert_int_equal(windows_init(&windows, f->even, 1000, &err), 0);
    assert_int_equal(windows.window_count, f->even->shard_count);
    assert_int_equal(batch_init(&batch, windows.window_count + 2, 1000, &err), 0);
    assert_int_equal(windows_fill_ordered(&windows, 0, &batch), windows.window_count);
    assert_int_equal(batch.target_count, f->even->token_count - f->even->shard_count);
    assert_int_equal(batch.item[windows.window_count], -1);
    for (int64_t t = 0; t < batch.T; t++)
        assert_int_equal(batch.target[windows.window_count * batch.T + t], -1);
    batch_done(&batch);
    windows_done(&windows);
}

/* The rows of one global step, concatenated over ranks, are those of a single rank. */
static void ranks_share_a_step_without_changing_it(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct windows windows;
    struct batch whole, share;
    assert_int_equal(windows_init(&windows, f->even, 8, &err), 0);
    assert_int_equal(batch_init(&whole, 8, 8, &err), 0);
    assert_int_equal(batch_init(&share, 2, 8, &err), 0);
    for (uint64_t step = 0; step < 30; step++) {
        windows_fill(&windows, 5, step * 8, &whole);
        for (unsigned rank = 0; rank < 4; rank++) {
            uint64_t first, count;
            sampler_share(step, 8, rank, 4, &first, &count);
            windows_fill(&windows, 5, first, &share);
            assert_memory_equal(share.token, whole.token + rank * 16, 16 * sizeof(int32_t));
            assert_memory_equal(share.target, whole.target + rank * 16, 16 * sizeof(int32_t));
        }
    }
    batch_done(&whole);
    batch_done(&share);
    windows_done(&windows);
}

static void a_document_row_begins_and_ends_with_the_separator(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct batch batch;
    struct token_list tokens = {0};
    int64_t longest = documents_longest(f->even);
    assert_int_equal(batch_init(&batch, DOCUMENTS, longest, &err), 0);
    assert_int_equal(documents_fill_ordered(f->even, 0, &batch), f->even->document_count);
    for (uint64_t d = 0; d < f->even->document_count; d++) {
        const int32_t *token = batch.token + d * (uint64_t)longest;
        const int32_t *target = batch.target + d * (uint64_t)longest;
        dataset_document(f->even, d, &tokens); /* separator first */
        assert_int_equal(tokens.ids[0], END);
        for (size_t t = 0; t < tokens.count; t++) {
            assert_int_equal(token[t], tokens.ids[t]);
            assert_int_equal(target[t], t + 1 < tokens.count ? tokens.ids[t + 1] : END);
        }
        for (int64_t t = (int64_t)tokens.count; t < longest; t++)
            assert_int_equal(target[t], -1);
    }
    /* Targets: all tokens, as many as there are separators and own tokens. */
    assert_int_equal(batch.target_count, f->even->token_count);
    token_list_done(&tokens);
    batch_done(&batch);
}

static void long_documents_are_cut_and_shuffled_ones_all_appear(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct batch batch;
    uint8_t seen[DOCUMENTS] = {0};
    assert_int_equal(batch_init(&batch, (int64_t)f->even->document_count, 4, &err), 0);
    documents_fill(f->even, 3, 0, &batch);
    for (int64_t row = 0; row < batch.B; row++) {
        assert_in_range(batch.item[row], 0, f->even->document_count - 1);
        assert_false(seen[batch.item[row]]);
        seen[batch.item[row]] = 1;
        assert_int_equal(batch.token[row * 4], END);
        assert_int_not_equal(batch.target[row * 4 + 3], -1);
    }
    batch_done(&batch);
}

static void an_impossible_batch_is_refused(void **state)
{
    (void)state;
    struct err err = {0};
    struct batch batch;
    assert_int_equal(batch_init(&batch, 0, 5, &err), -1);
    assert_int_equal(batch_init(&batch, (int64_t)1 << 40, (int64_t)1 << 40, &err), -1);
    assert_int_equal(err.kind, ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_epoch_of_windows_predicts_every_token_but_each_shards_first),
        cmocka_unit_test(ordered_windows_end_in_padding),
        cmocka_unit_test(ranks_share_a_step_without_changing_it),
        cmocka_unit_test(a_document_row_begins_and_ends_with_the_separator),
        cmocka_unit_test(long_documents_are_cut_and_shuffled_ones_all_appear),
        cmocka_unit_test(an_impossible_batch_is_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
