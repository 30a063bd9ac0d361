/* foreign_test.c - other people's YAML: the YAML test suite and other schedulers' job specs.
 *
 * Real files, kept outside the repository (ATHANOR_SHARED_DATA, default ../shared/data); skipped
 * with a line where they are absent. None of them is a spec of ours: each must be refused with at
 * least one error that has a place, and nothing may crash. */
#include "tests/unit/spec/support.h"

#include "common/spec/node.h"

#include <ftw.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static struct catalogue *catalogue;
static size_t read_count, refused_count;

static const char *shared_data(void)
{
    const char *folder = getenv("ATHANOR_SHARED_DATA");
    return folder ? folder : "../shared/data";
}

static void text_read(const char *bytes, size_t length)
{
    struct spec_errors errors = {0};
    struct spec_source source = {.name = "foreign.yaml", .bytes = bytes, .length = length};
    struct spec *spec = NULL;
    read_count++;
    if (spec_read(&source, catalogue, &spec, &errors) < 0) {
        assert_true(errors.count > 0);
        refused_count++;
    }
    spec_free(spec);
    spec_errors_done(&errors);
}

/* The cases within a file of the YAML test suite: a list of mappings with a text `yaml`. */
static void inner_read(const char *bytes, size_t length)
{
    struct arena arena = {0};
    struct spec_errors errors = {0};
    struct node_source source = {.file = "suite", .bytes = bytes, .length = length};
    struct node *root = node_read(&source, &arena, &errors);
    for (size_t i = 0; root && root->kind == NODE_LIST && i < root->count; i++) {
        const struct node *text = node_get(root->items[i], "yaml");
        if (text && text->kind == NODE_SCALAR)
            text_read(text->text, strlen(text->text));
    }
    spec_errors_done(&errors);
    arena_done(&arena);
}

static int file_visit(const char *path, const struct stat *status, int type, struct FTW *at)
{
    (void)status, (void)at;
    char *bytes;
    size_t length;
    struct err err;
    if (type != FTW_F)
        return 0;
    assert_int_equal(file_read(path, SPEC_TEXT_BYTES_MAX, &bytes, &length, &err), 0);
    text_read(bytes, length);
    inner_read(bytes, length);
    mem_free(bytes);
    return 0;
}

static void unpack(const char *archive, const char *folder)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        execlp("tar", "tar", "-xzf", archive, "-C", folder, (char *)NULL);
        _exit(127);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void the_yaml_test_suite_is_refused_without_a_crash(void **state)
{
    (void)state;
    char archive[500], folder[] = "/tmp/athanor-yaml-XXXXXX";
    struct err err;
    snprintf(archive, sizeof archive, "%s/formats/yaml-test-suite-src.tar.gz", shared_data());
    if (!file_exists(archive)) {
        print_message("SKIPPED: %s is absent\n", archive);
        skip();
    }
    assert_non_null(mkdtemp(folder));
    unpack(archive, folder);
    read_count = refused_count = 0;
    assert_int_equal(nftw(folder, file_visit, 8, FTW_PHYS), 0);
    assert_true(read_count > 351);
    assert_int_equal(refused_count, read_count);
    assert_int_equal(file_remove_tree(folder, &err), 0);
}

static void job_specs_of_another_scheduler_are_refused_without_a_crash(void **state)
{
    (void)state;
    char folder[500];
    snprintf(folder, sizeof folder, "%s/jobspec", shared_data());
    if (!file_exists(folder)) {
        print_message("SKIPPED: %s is absent\n", folder);
        skip();
    }
    read_count = refused_count = 0;
    assert_int_equal(nftw(folder, file_visit, 8, FTW_PHYS), 0);
    assert_true(read_count >= 30);
    assert_int_equal(refused_count, read_count);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_yaml_test_suite_is_refused_without_a_crash),
        cmocka_unit_test(job_specs_of_another_scheduler_are_refused_without_a_crash),
    };
    catalogue = catalogue_new();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    catalogue_free(catalogue);
    return failed;
}
