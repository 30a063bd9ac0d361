/* jobspecs_test.c - every example in jobspecs/ is right, against the engine's own catalogue.
 *
 * The engine is looked for beside this program (build/bin/athanor-engine); where it was not
 * built, the recipes' examples are skipped with a line and only kind command is checked. */
#include "tests/unit/spec/support.h"

#include <ftw.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static struct catalogue *catalogue;
static size_t file_count;

/* What the engine prints (mem_free). */
static struct buf catalogue_print(const char *engine)
{
    int ends[2], status;
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(ends[1], STDOUT_FILENO);
        execl(engine, engine, "--catalogue", (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    struct buf json = {0};
    char chunk[4096];
    for (ssize_t got; (got = read(ends[0], chunk, sizeof chunk)) > 0;)
        buf_add(&json, chunk, (size_t)got);
    close(ends[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    return json;
}

static bool catalogue_load(void)
{
    char self[4000], engine[4200];
    struct err err;
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    assert_true(length > 0);
    self[length] = '\0';
    *strrchr(self, '/') = '\0';
    snprintf(engine, sizeof engine, "%s/../bin/athanor-engine", self);
    if (access(engine, X_OK) != 0)
        return false;
    struct buf json = catalogue_print(engine);
    if (catalogue_add(catalogue, json.bytes, json.length, &err) < 0)
        fail_msg("the engine's catalogue is refused: %s", err.text);
    buf_done(&json);
    return true;
}

static int file_check(const char *path, const struct stat *status, int type, struct FTW *at)
{
    (void)status, (void)at;
    size_t length = strlen(path);
    char *bytes;
    struct err err;
    if (type != FTW_F || length < 5 || strcmp(path + length - 5, ".yaml") != 0)
        return 0;
    assert_int_equal(file_read(path, SPEC_TEXT_BYTES_MAX, &bytes, &length, &err), 0);
    struct spec_errors errors = {0};
    struct arena arena = {0};
    struct spec_source source = {
        .name = path, .bytes = bytes, .length = length, .folder = "/somewhere"};
    struct spec_snapshot snapshots[4];
    const char *const *folders;
    struct spec *spec = NULL;
    source.snapshots = snapshots;
    source.snapshot_count = spec_folders(&source, &arena, &folders);
    assert_true(source.snapshot_count <= ARRAY_COUNT(snapshots));
    for (size_t i = 0; i < source.snapshot_count; i++) {
        assert_int_equal(access(folders[i] + strlen("/somewhere/"), R_OK), 0); /* it is there */
        snapshots[i] = (struct spec_snapshot){folders[i], "00"};
    }
    if (spec_read(&source, catalogue, &spec, &errors) < 0)
        fail_msg("%s", spec_errors_text(&errors));
    file_count++;
    spec_free(spec);
    spec_errors_done(&errors);
    arena_done(&arena);
    mem_free(bytes);
    return 0;
}

static void the_examples_of_kind_command_are_right(void **state)
{
    (void)state;
    file_count = 0;
    assert_int_equal(nftw("jobspecs/command", file_check, 8, FTW_PHYS), 0);
    assert_true(file_count >= 5);
}

static void every_example_is_right_for_the_engine_that_was_built(void **state)
{
    (void)state;
    if (!catalogue_load()) {
        print_message("SKIPPED: athanor-engine is not built\n");
        skip();
    }
    file_count = 0;
    assert_int_equal(nftw("jobspecs", file_check, 8, FTW_PHYS), 0);
    assert_true(file_count >= 15);
}

static void every_recipe_has_an_example(void **state)
{
    (void)state;
    if (catalogue->count == 0) {
        print_message("SKIPPED: athanor-engine is not built\n");
        skip();
    }
    for (size_t i = 0; i < catalogue->count; i++) {
        const struct catalogue_recipe *recipe = &catalogue->recipes[i];
        char *path = mem_printf("jobspecs/%s/%s.yaml", recipe->kind, recipe->name);
        if (!file_exists(path))
            fail_msg("recipe %s/%s has no example %s", recipe->kind, recipe->name, path);
        mem_free(path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_examples_of_kind_command_are_right),
        cmocka_unit_test(every_example_is_right_for_the_engine_that_was_built),
        cmocka_unit_test(every_recipe_has_an_example),
    };
    catalogue = catalogue_new();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    catalogue_free(catalogue);
    return failed;
}
