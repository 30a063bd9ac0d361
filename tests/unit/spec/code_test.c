/* code_test.c - code.snapshot: which folders a spec names, and what it says of those packed. */
#include "tests/unit/spec/support.h"

static const char pipeline[] = "athanor: 1\n"
                               "name: p\n"
                               "defaults: {code: {snapshot: src}}\n"
                               "jobs:\n"
                               "  a: {kind: command, command: [x]}\n"
                               "  b: {kind: command, command: [x], code: {"
                               "snapshot: /opt/b/, cwd: s}}\n"
                               "  c: {kind: command, command: [x], code: {snapshot: ./src}}\n";

static struct spec_source source_of(const char *text)
{
    return (struct spec_source){
        .name = "test.yaml", .bytes = text, .length = strlen(text), .folder = "/home/user"};
}

static void every_folder_is_named_once_and_absolute(void **state)
{
    (void)state;
    struct arena arena = {0};
    const char *const *folders;
    struct spec_source source = source_of(pipeline);
    struct spec_set set = {"jobs.a.code.snapshot", "."};
    assert_int_equal(spec_folders(&source, &arena, &folders), 2);
    assert_string_equal(folders[0], "/home/user/src");
    assert_string_equal(folders[1], "/opt/b");
    source.sets = &set;
    source.set_count = 1;
    assert_int_equal(spec_folders(&source, &arena, &folders), 3);
    source = source_of("a: [");
    assert_int_equal(spec_folders(&source, &arena, &folders), 0);
    arena_done(&arena);
}

static struct spec *read_with(const char *text, const struct spec_snapshot *snapshots, size_t count,
                              char **out_report)
{
    struct catalogue *catalogue = test_catalogue();
    struct spec_errors errors = {0};
    struct spec_source source = source_of(text);
    struct spec *spec = NULL;
    source.snapshots = snapshots;
    source.snapshot_count = count;
    int rc = spec_read(&source, catalogue, &spec, &errors);
    assert_int_equal(rc, spec ? 0 : -1);
    *out_report = spec_errors_text(&errors);
    spec_errors_done(&errors);
    catalogue_free(catalogue);
    return spec;
}

static void jobs_carry_the_hash_of_their_folder_and_keep_it_in_json(void **state)
{
    (void)state;
    static const struct spec_snapshot snapshots[] = {
        {"/home/user/src", "aa"}, {"/opt/b", "bb"}};
    struct arena arena = {0};
    struct spec_job again;
    struct err err;
    char *report;
    struct spec *spec = read_with(pipeline, snapshots, 2, &report);
    if (!spec)
        fail_msg("%s", report);
    assert_string_equal(spec->jobs[0].code.hash, "aa");
    assert_string_equal(spec->jobs[1].code.hash, "bb");
    assert_string_equal(spec->jobs[1].code.cwd, "s");
    char *json = spec_job_json(&spec->jobs[1]);
    assert_non_null(strstr(json, "{\"cwd\": \"s\", \"hash\": \"bb\", \"snapshot\": \"/opt/b\"}"));
    assert_int_equal(spec_job_from_json(json, &arena, &again, &err), 0);
    char *twice = spec_job_json(&again);
    assert_string_equal(json, twice);
    mem_free(json);
    mem_free(twice);
    mem_free(report);
    arena_done(&arena);
    spec_free(spec);
}

static void identity_is_that_of_the_code_wherever_it_was_packed(void **state)
{
    (void)state;
    static const struct spec_snapshot here = {"/home/user/src", "aa"}, other = {"/opt/b", "aa"},
                                      changed = {"/opt/b", "ab"};
    static const char one[] = "athanor: 1\nname: a\nkind: command\ncommand: [x]\n"
                              "code: {snapshot: src}\n",
                      two[] = "athanor: 1\nname: b\nkind: command\ncommand: [x]\n"
                              "code: {snapshot: /opt/b}\n";
    char *reports[3];
    struct spec *a = read_with(one, &here, 1, &reports[0]);
    struct spec *b = read_with(two, &other, 1, &reports[1]);
    struct spec *c = read_with(two, &changed, 1, &reports[2]);
    char *x = spec_job_identity(&a->jobs[0]), *y = spec_job_identity(&b->jobs[0]),
         *z = spec_job_identity(&c->jobs[0]);
    assert_string_equal(x, y);
    assert_string_not_equal(y, z);
    struct spec *plain = test_spec("athanor: 1\nname: a\nkind: command\ncommand: [x]\n");
    assert_null(spec_job_identity(&plain->jobs[0]));
    spec_free(plain);
    for (size_t i = 0; i < 3; i++)
        mem_free(reports[i]);
    mem_free(x);
    mem_free(y);
    mem_free(z);
    spec_free(a);
    spec_free(b);
    spec_free(c);
}

static void what_cannot_be_meant_is_refused_with_its_place(void **state)
{
    (void)state;
    test_refused("athanor: 1\nname: a\nkind: command\ncommand: [x]\ncode: {snapshot: src}\n",
                 "test.yaml:5:18: code.snapshot: is 'src', which the client has not packed: "
                 "`athanor submit` and `athanor check` do\n");
    test_refused("athanor: 1\nname: a\nkind: command\ncommand: [x]\ncode: {snapshot: [a]}\n",
                 "test.yaml:5:18: code.snapshot: is a list, expected a folder of code\n");
    static const char *const wrong[] = {"..", "a/../b", "/a", "a/", "a//b", "./a"};
    for (size_t i = 0; i < ARRAY_COUNT(wrong); i++) {
        char *text = mem_printf("athanor: 1\nname: a\nkind: command\ncommand: [x]\n"
                                "code: {cwd: %s}\n", wrong[i]);
        struct spec *spec;
        char *report = test_read(text, NULL, 0, &spec);
        assert_null(spec);
        assert_non_null(strstr(report, "5:13: code.cwd: is '"));
        mem_free(report);
        mem_free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_folder_is_named_once_and_absolute),
        cmocka_unit_test(jobs_carry_the_hash_of_their_folder_and_keep_it_in_json),
        cmocka_unit_test(identity_is_that_of_the_code_wherever_it_was_packed),
        cmocka_unit_test(what_cannot_be_meant_is_refused_with_its_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
