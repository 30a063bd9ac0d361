/* checkpoint_test.c - complete or absent, whatever wrote it; read by any number of ranks. */
#include "tests/unit/data/inputs.h"
#include "worker/engine/io/checkpoint.h"

enum { COUNT = 1001 };

static float values[COUNT], weights[6] = {1, 2, 3, 4, 5, 6};

/* Writes a checkpoint of `ranks` ranks in one process, in the order that checkpoint.h states. */
static char *save(const char *folder, uint64_t step, unsigned ranks)
{
    struct err err = {0};
    struct checkpoint_writer *writers[8];
    const struct named_array array = {"w", false, 2, {2, 3}, weights};
    char *path = NULL;
    for (unsigned rank = 0; rank < ranks; rank++) {
        uint64_t begin = COUNT * rank / ranks, end = COUNT * (rank + 1) / ranks;
        assert_int_equal(checkpoint_begin(folder, step, rank, ranks, &writers[rank], &err), 0);
        assert_int_equal(checkpoint_add_arrays(writers[rank], &array, 1, &err), 0);
        assert_int_equal(checkpoint_add_file(writers[rank], "extra.txt", "hi", 2, &err), 0);
        assert_int_equal(checkpoint_add_slice(writers[rank], "m", "a:b", begin, end,
                                              values + begin, &err), 0);
        checkpoint_put_int(writers[rank], "count", -7);
        checkpoint_put_float(writers[rank], "rate", 0.1);
        checkpoint_put_text(writers[rank], "word", "bird");
        assert_int_equal(checkpoint_finish_rank(writers[rank], &err), 0);
    }
    if (checkpoint_commit(writers[0], &path, &err) < 0)
        fail_msg("%s", err.text);
    for (unsigned rank = 0; rank < ranks; rank++)
        checkpoint_writer_free(writers[rank]);
    return path;
}

static void the_optimiser_reads_back_with_any_number_of_ranks(void **state)
{
    (void)state;
    static const unsigned readers[] = {1, 2, 3, 5};
    struct err err = {0};
    struct checkpoint_reader *reader;
    float back[COUNT];
    char *folder = folder_make(), *path = save(folder, 40, 4);
    assert_int_equal(checkpoint_open(path, &reader, &err), 0);
    assert_int_equal(checkpoint_step(reader), 40);
    for (size_t r = 0; r < ARRAY_COUNT(readers); r++) {
        memset(back, 0, sizeof back);
        for (unsigned rank = 0; rank < readers[r]; rank++) {
            uint64_t begin = COUNT * rank / readers[r], end = COUNT * (rank + 1) / readers[r];
            assert_int_equal(checkpoint_read_slice(reader, "m", "a:b", begin, end, back + begin,
                                                   &err), 0);
        }
        assert_memory_equal(back, values, sizeof values);
    }
    assert_int_equal(checkpoint_read_slice(reader, "m", "a:b", 0, COUNT + 1, back, &err), -1);
    assert_non_null(strstr(err.text, "lacks element 1001"));
    assert_int_equal(checkpoint_read_slice(reader, "v", "a:b", 0, 1, back, &err), -1);
    assert_int_equal(checkpoint_read_slice(reader, "m", "b", 0, 1, back, &err), -1);
    checkpoint_close(reader);
    mem_free(path);
    folder_done(folder);
}

static void weights_and_small_values_read_back(void **state)
{
    (void)state;
    struct err err = {0};
    struct checkpoint_reader *reader;
    float back[6];
    int64_t whole;
    double real;
    const char *text;
    const struct named_array array = {"w", false, 2, {2, 3}, back};
    char *folder = folder_make(), *path = save(folder, 7, 1);
    assert_non_null(strstr(path, "/step-0000000007"));
    assert_int_equal(checkpoint_open(path, &reader, &err), 0);
    assert_int_equal(checkpoint_read_arrays(reader, false, &array, 1, &err), 0);
    assert_memory_equal(back, weights, sizeof weights);
    assert_int_equal(checkpoint_get_int(reader, "count", &whole, &err), 0);
    assert_int_equal(whole, -7);
    assert_int_equal(checkpoint_get_float(reader, "rate", &real, &err), 0);
    assert_true(real == 0.1);
    assert_int_equal(checkpoint_get_text(reader, "word", &text, &err), 0);
    assert_string_equal(text, "bird");
    assert_int_equal(checkpoint_get_int(reader, "word", &whole, &err), -1);
    assert_int_equal(checkpoint_get_int(reader, "none", &whole, &err), -1);
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    checkpoint_close(reader);
    mem_free(path);
    folder_done(folder);
}

static void a_second_save_of_a_step_replaces_the_first(void **state)
{
    (void)state;
    struct err err = {0};
    struct checkpoint_reader *reader;
    char *folder = folder_make(), *first = save(folder, 7, 3), *second = save(folder, 7, 2);
    char *temporary = mem_printf("%s/tmp-step-0000000007", folder);
    char *stale = mem_printf("%s/optim-00002-of-00003.safetensors", second);
    assert_string_equal(first, second);
    assert_int_equal(checkpoint_open(second, &reader, &err), 0);
    assert_false(file_exists(stale));
    assert_false(file_exists(temporary));
    checkpoint_close(reader);
    mem_free(stale);
    mem_free(temporary);
    mem_free(first);
    mem_free(second);
    folder_done(folder);
}

static void an_abandoned_save_leaves_nothing_behind(void **state)
{
    (void)state;
    struct err err = {0};
    struct checkpoint_writer *writer;
    char *folder = folder_make(), *temporary = mem_printf("%s/tmp-step-0000000003", folder);
    char *final = mem_printf("%s/step-0000000003", folder);
    assert_int_equal(checkpoint_begin(folder, 3, 0, 1, &writer, &err), 0);
    assert_true(file_exists(temporary));
    checkpoint_writer_free(writer);
    assert_false(file_exists(temporary));
    assert_false(file_exists(final));
    mem_free(temporary);
    mem_free(final);
    folder_done(folder);
}

static void leftovers_of_killed_saves_are_swept(void **state)
{
    (void)state;
    struct err err = {0};
    struct checkpoint_writer *killed;
    struct checkpoint_reader *reader;
    char *folder = folder_make(), *path = save(folder, 1, 1);
    char *temporary = mem_printf("%s/tmp-step-0000000009", folder);
    assert_int_equal(checkpoint_begin(folder, 9, 0, 1, &killed, &err), 0);
    assert_int_equal(checkpoint_sweep(folder, &err), 0);
    assert_false(file_exists(temporary));
    assert_int_equal(checkpoint_open(path, &reader, &err), 0);
    assert_int_equal(checkpoint_sweep("/nowhere/at/all", &err), 0);
    checkpoint_close(reader);
    checkpoint_writer_free(killed);
    mem_free(temporary);
    mem_free(path);
    folder_done(folder);
}

/* Every single changed byte of every file is noticed, and the file named. */
static void a_changed_file_is_refused_by_name(void **state)
{
    (void)state;
    static const char *const names[] = {"model.safetensors", "trainer.json", "extra.txt",
                                        "optim-00000-of-00001.safetensors"};
    struct err err = {0};
    struct checkpoint_reader *reader;
    char *folder = folder_make(), *path = save(folder, 1, 1);
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        char *file = mem_printf("%s/%s", path, names[i]), *bytes;
        size_t length;
        assert_int_equal(file_read(file, INPUT_BYTES_MAX, &bytes, &length, &err), 0);
        bytes[length / 2] ^= 4;
        write_bytes(file, bytes, length);
        assert_int_equal(checkpoint_open(path, &reader, &err), -1);
        assert_non_null(strstr(err.text, names[i]));
        write_bytes(file, bytes, length - 1);
        assert_int_equal(checkpoint_open(path, &reader, &err), -1);
        assert_non_null(strstr(err.text, "bytes where the manifest says"));
        bytes[length / 2] ^= 4;
        write_bytes(file, bytes, length);
        assert_int_equal(checkpoint_open(path, &reader, &err), 0);
        checkpoint_close(reader);
        mem_free(bytes);
        mem_free(file);
    }
    mem_free(path);
    folder_done(folder);
}

static void a_folder_without_a_manifest_is_no_checkpoint(void **state)
{
    (void)state;
    struct err err = {0};
    struct checkpoint_reader *reader;
    char *folder = folder_make(), *path = save(folder, 1, 1);
    char *manifest = mem_printf("%s/manifest.json", path);
    assert_int_equal(remove(manifest), 0);
    assert_int_equal(checkpoint_open(path, &reader, &err), -1);
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    mem_free(manifest);
    mem_free(path);
    folder_done(folder);
}

static void assert_manifest_refused(const char *json, const char *expected)
{
    struct err err = {0};
    struct manifest manifest;
    assert_int_equal(manifest_parse(json, strlen(json), &manifest, &err), -1);
    if (!strstr(err.text, expected))
        fail_msg("'%s' does not say '%s'", err.text, expected);
}

static void damaged_manifests_are_refused_by_field(void **state)
{
    (void)state;
#define FILE_ENTRY(name) "{\"format\":1,\"step\":1,\"files\":[{\"name\":" name \
                         ",\"size_bytes\":1,\"blake2b\":\"00\"}]}"
    assert_manifest_refused("{", "line");
    assert_manifest_refused("{\"format\":2}", "format");
    assert_manifest_refused("{\"format\":1,\"step\":-1}", "step");
    assert_manifest_refused("{\"format\":1,\"step\":1}", "files");
    assert_manifest_refused(FILE_ENTRY("\"../x\""), "files[0].name");
    assert_manifest_refused(FILE_ENTRY("\"\""), "files[0].name");
    assert_manifest_refused(FILE_ENTRY("3"), "files[0].name");
    assert_manifest_refused(FILE_ENTRY("\"x\""), "files[0].blake2b");
#undef FILE_ENTRY
}

int main(void)
{
    for (int i = 0; i < COUNT; i++)
        values[i] = (float)i / 3;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_optimiser_reads_back_with_any_number_of_ranks),
        cmocka_unit_test(weights_and_small_values_read_back),
        cmocka_unit_test(a_second_save_of_a_step_replaces_the_first),
        cmocka_unit_test(an_abandoned_save_leaves_nothing_behind),
        cmocka_unit_test(leftovers_of_killed_saves_are_swept),
        cmocka_unit_test(a_changed_file_is_refused_by_name),
        cmocka_unit_test(a_folder_without_a_manifest_is_no_checkpoint),
        cmocka_unit_test(damaged_manifests_are_refused_by_field),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
