/* bert_score_test.c - BERTScore by hand on a table of four vectors, and BERT-iBLEU. */
#include "tests/unit/data/inputs.h"
#include "worker/engine/io/safetensors.h"
#include "worker/recipes/eval/bert_score.h"

#include <math.h>

static struct err err;

#define OK(call) \
    do { \
        if ((call) < 0) \
            fail_msg("%s: %s", #call, err.text); \
    } while (0)

static void write_file(const char *folder, const char *name, const char *text)
{
    char *path = mem_printf("%s/%s", folder, name);

    OK(file_replace(path, text, strlen(text), 0644, &err));
    mem_free(path);
}

/* car and auto point the same way, tree across, road between. */
static struct embedder *small_embedder(const char *folder)
{
    static const float rows[][2] = {{0, 0}, {5, 5}, {9, 9}, {9, 9}, {2, 0}, {1, 0}, {0, 3}, {1, 1}};
    struct st_array table = {.name = "embeddings", .type = ST_F32, .dim_count = 2,
                             .shape = {ARRAY_COUNT(rows), 2}, .values = rows};
    char *path = mem_printf("%s/model.safetensors", folder);
    struct embedder *embedder = NULL;

    OK(safetensors_write(path, &table, 1, &err));
    write_file(folder, "config.json", "{\"model_type\": \"model2vec\", \"normalize\": true}");
    write_file(folder, "vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\ncar\nauto\ntree\nroad\n");
    OK(embedder_open(folder, NULL, &embedder, &err));
    mem_free(path);
    return embedder;
}

static void tokens_are_matched_greedily_in_both_directions(void **state)
{
    char *folder = folder_make();
    struct embedder *embedder = small_embedder(folder);
    struct overlap score;

    (void)state;
    OK(bert_score(embedder, "car tree", "auto", &score, &err));
    assert_true(fabs(score.precision - 0.5) < 1e-6); /* 1 and 0 */
    assert_true(fabs(score.recall - 1) < 1e-6);
    assert_true(fabs(score.f - 2.0 / 3) < 1e-6);
    OK(bert_score(embedder, "road", "car tree", &score, &err));
    assert_true(fabs(score.precision - sqrt(0.5)) < 1e-6);
    assert_true(fabs(score.recall - sqrt(0.5)) < 1e-6);
    OK(bert_score(embedder, "zzz", "car", &score, &err)); /* unknown: no token */
    assert_true(score.precision == 0 && score.recall == 0 && score.f == 0);
    OK(bert_score(embedder, "tree car", "car tree", &score, &err));
    assert_true(fabs(score.f - 1) < 1e-6);
    embedder_close(embedder);
    folder_done(folder);
}

static void a_copy_is_worth_nothing_and_so_is_what_has_nothing_in_common(void **state)
{
    (void)state;
    assert_true(fabs(bert_ibleu(0.9, 40, 4) - 500 / (4 / 0.9 + 1 / 0.6)) < 1e-9);
    assert_true(fabs(bert_ibleu(0.5, 50, 1) - 50) < 1e-9);
    assert_true(bert_ibleu(1, 100, 4) == 0);
    assert_true(bert_ibleu(0, 0, 4) == 0);
    assert_true(bert_ibleu(-0.5, 10, 4) == 0);
    /* Likeness weighs more than other words. */
    assert_true(bert_ibleu(0.9, 40, 4) > bert_ibleu(0.6, 10, 4));
}

static void a_tables_file_is_refused_by_what_is_wrong_in_it(void **state)
{
    static const float rows[4][2] = {{0}};
    struct st_array table = {.name = "embeddings", .type = ST_F32, .dim_count = 2,
                             .shape = {4, 2}, .values = rows};
    char *folder = folder_make(), *path = mem_printf("%s/model.safetensors", folder);
    struct embedder *embedder = small_embedder(folder);

    (void)state;
    embedder_close(embedder);
    OK(safetensors_write(path, &table, 1, &err)); /* fewer rows than ids */
    assert_int_equal(embedder_open(folder, NULL, &embedder, &err), -1);
    assert_non_null(strstr(err.text, "4 rows of 2 numbers; the tokenizer has 8 ids"));
    table.name = "weights";
    OK(safetensors_write(path, &table, 1, &err));
    assert_int_equal(embedder_open(folder, NULL, &embedder, &err), -1);
    assert_non_null(strstr(err.text, "one matrix 'embeddings'"));
    write_file(folder, "config.json", "{\"model_type\": ");
    assert_int_equal(embedder_open(folder, NULL, &embedder, &err), -1);
    assert_non_null(strstr(err.text, "config.json' line 1"));
    folder_done(folder);
    mem_free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_are_matched_greedily_in_both_directions),
        cmocka_unit_test(a_copy_is_worth_nothing_and_so_is_what_has_nothing_in_common),
        cmocka_unit_test(a_tables_file_is_refused_by_what_is_wrong_in_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
