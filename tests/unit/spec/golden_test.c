/* golden_test.c - every case NAME.yaml in tests/golden/spec against NAME.expect.
 *
 * In the folder itself are wrong specs, in right/ right ones, in set/ both with overrides: lines
 * "# --set path=value" at their top. The expected text is the report of errors, or the resolved
 * JSON of each job. ATHANOR_BLESS=1 rewrites the expected texts; review the diff. */
#include "tests/unit/spec/support.h"

#include <glob.h>
#include <stdio.h>

#define SETS_MAX 8

/* Cuts the case's header into overrides; the texts stay in `header`. */
static size_t sets_read(char *header, struct spec_set sets[SETS_MAX])
{
    static const char before[] = "# --set ";
    size_t count = 0;
    for (char *line; (line = strsep(&header, "\n")) && line[0] == '#';)
        if (strncmp(line, before, strlen(before)) == 0) {
            struct err err;
            assert_true(count < SETS_MAX);
            assert_int_equal(spec_set_split(line + strlen(before), &sets[count++], &err), 0);
        }
    return count;
}

static char *jobs_text(const struct spec *spec)
{
    struct buf text = {0};
    for (size_t i = 0; i < spec->job_count; i++) {
        char *json = spec_job_json(&spec->jobs[i]);
        buf_printf(&text, "%s\n", json);
        mem_free(json);
        for (size_t j = 0; j < spec->jobs[i].need_count; j++) {
            uint32_t needed = spec->jobs[i].needs[j].job_index;
            if (needed != SPEC_EXTERNAL)
                buf_printf(&text, "  needs %s\n", spec->jobs[needed].name);
        }
    }
    return buf_take(&text);
}

/* What reading the case gives, as the expected file holds it (mem_free). */
static char *case_run(const char *path, const struct catalogue *catalogue)
{
    char *bytes;
    size_t length;
    struct err err;
    assert_int_equal(file_read(path, 4 * SPEC_TEXT_BYTES_MAX, &bytes, &length, &err), 0);
    char *header = mem_strndup(bytes, length);
    struct spec_set sets[SETS_MAX];
    struct spec_source source = {.name = strrchr(path, '/') + 1, .bytes = bytes, .length = length,
                                 .folder = "/home/user", .sets = sets};
    source.set_count = sets_read(header, sets);
    struct spec_errors errors = {0};
    struct spec *spec = NULL;
    int rc = spec_read(&source, catalogue, &spec, &errors);
    char *text = rc == 0 ? jobs_text(spec) : spec_errors_text(&errors);
    spec_free(spec);
    spec_errors_done(&errors);
    mem_free(header);
    mem_free(bytes);
    return text;
}

static void case_check(const char *path, const struct catalogue *catalogue)
{
    char expected_path[500];
    snprintf(expected_path, sizeof expected_path, "%.*s.expect", (int)(strlen(path) - 5), path);
    char *text = case_run(path, catalogue), *expected;
    size_t length;
    struct err err;
    if (getenv("ATHANOR_BLESS"))
        assert_int_equal(file_replace(expected_path, text, strlen(text), 0644, &err), 0);
    if (file_read(expected_path, 4 * SPEC_TEXT_BYTES_MAX, &expected, &length, &err) < 0)
        fail_msg("%s: %s", path, err.text);
    if (strcmp(text, expected) != 0)
        fail_msg("%s gives\n%s\nexpected\n%s", path, text, expected);
    mem_free(expected);
    mem_free(text);
}

static void folder_check(const char *pattern, size_t cases_min)
{
    glob_t found;
    struct catalogue *catalogue = test_catalogue();
    assert_int_equal(glob(pattern, 0, NULL, &found), 0);
    assert_true(found.gl_pathc >= cases_min); /* guards against an empty folder */
    for (size_t i = 0; i < found.gl_pathc; i++)
        case_check(found.gl_pathv[i], catalogue);
    globfree(&found);
    catalogue_free(catalogue);
}

static void wrong_specs_give_their_expected_reports(void **state)
{
    (void)state;
    folder_check(GOLDEN_FOLDER "/*.yaml", 100);
}

static void right_specs_give_their_expected_jobs(void **state)
{
    (void)state;
    folder_check(GOLDEN_FOLDER "/right/*.yaml", 8);
}

static void overrides_give_their_expected_reports_or_jobs(void **state)
{
    (void)state;
    folder_check(GOLDEN_FOLDER "/set/*.yaml", 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_specs_give_their_expected_reports),
        cmocka_unit_test(right_specs_give_their_expected_jobs),
        cmocka_unit_test(overrides_give_their_expected_reports_or_jobs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
