/* spec_test.c - what the golden cases cannot show: round trips, overrides, limits, expansion. */
#include "tests/unit/spec/support.h"

#include "common/wire/limits.h"

#include <stdio.h>
#include <unistd.h>

#define COMMAND "kind: command\ncommand: [\"true\"]\n"

_Static_assert(SPEC_TEXT_BYTES_MAX == SPEC_BYTES_MAX, "a spec that is accepted can be sent");
_Static_assert(SPEC_JOBS_MAX == SUBMIT_JOBS_MAX, "a spec that is accepted can be answered");

static const char everything[] =
    "athanor: 1\nname: all\nexperiment: trip\ndescription: \"caf\\u00e9 \\\"q\\\"\"\n"
    "kind: command\ncommand: [./run, '', \"a\\nb\"]\n"
    "params: {z: 1, a: {list: [1.5, 2.0, 1e-9, true, ~], text: '7'}}\n"
    "inputs: {m: job:x/checkpoint:12, d: dataset:g/birds, f: /abs, b: job:y/checkpoint:best}\n"
    "outputs: [dataset:made]\nneeds: [3, {job: job:old, on: failure}]\n"
    "env: {B: 2, A: 1}\nresources: {ranks: 4, cores: 2, memory: 3GiB, gpus: 1}\n"
    "constraint: {gpu: [a, b], zone: n}\nlauncher: fork\npriority: -7\nhold: true\n"
    "limits: {wall_time: 2h, stop_grace: 1m, stall: 5m}\n"
    "retry: {attempts: 9, on: [oom, stalled], backoff: 1s, backoff_max: 1m, memory_factor: 1.5}\n"
    "on_disconnect: replace\ncheckpoint: {every: [50 steps, 1h], "
    "keep: \"last 4, best 2 by max f1\"}\n";

/* ---- JSON ------------------------------------------------------------------------------- */

static void a_job_read_from_its_json_gives_the_same_json(void **state)
{
    (void)state;
    struct spec *spec = test_spec(everything);
    spec->jobs[0].inputs[0].job_id = 12;
    spec->jobs[0].needs[0].job_id = 3;
    char *json = spec_job_json(&spec->jobs[0]);
    struct arena arena = {0};
    struct spec_job job;
    struct err err;
    assert_int_equal(spec_job_from_json(json, &arena, &job, &err), 0);
    char *again = spec_job_json(&job);
    assert_string_equal(json, again);
    assert_int_equal(job.inputs[0].job_id, 12);
    assert_int_equal(job.retry.memory_factor_permille, 1500);
    assert_int_equal(job.checkpoint.best_mode, SPEC_BEST_MAX);
    assert_int_equal(job.needs[1].on, SPEC_ON_FAILURE);
    mem_free(again);
    mem_free(json);
    arena_done(&arena);
    spec_free(spec);
}

/* jsonb orders keys by length and writes numbers without exponents. */
static void a_job_survives_the_way_jsonb_writes_it(void **state)
{
    (void)state;
    struct spec *spec = test_spec("athanor: 1\nname: a\n" COMMAND
                                  "params: {large: 1e18, small: 1e-7, whole: 2.0}\n");
    char *json = spec_job_json(&spec->jobs[0]);
    json_t *object;
    struct err err;
    assert_int_equal(json_read(json, strlen(json), &object, &err), 0);
    json_t *params = json_object_get(object, "params");
    json_object_del(object, "params");
    char *rest = json_dumps(object, JSON_COMPACT); /* insertion order, other spacing */
    char *stored = mem_printf("{\"params\": {\"small\": 0.0000001, \"whole\": 2.0, "
                              "\"large\": 1000000000000000000.0}, %s", rest + 1);
    (void)params;
    struct arena arena = {0};
    struct spec_job job;
    assert_int_equal(spec_job_from_json(stored, &arena, &job, &err), 0);
    char *again = spec_job_json(&job);
    assert_string_equal(json, again);
    mem_free(again);
    mem_free(stored);
    free(rest);
    json_decref(object);
    mem_free(json);
    arena_done(&arena);
    spec_free(spec);
}

static void assert_json_refused(const char *text, const char *part)
{
    struct arena arena = {0};
    struct spec_job job;
    struct err err;
    assert_int_equal(spec_job_from_json(text, &arena, &job, &err), -1);
    assert_int_equal(err.kind, ERR_PROTOCOL);
    assert_non_null(strstr(err.text, part));
    arena_done(&arena);
}

static void damaged_job_json_is_refused_by_name(void **state)
{
    (void)state;
    struct spec *spec = test_spec(everything);
    char *json = spec_job_json(&spec->jobs[0]);
    static const char *const keys[] = {"name",   "resources", "limits", "retry",   "checkpoint",
                                       "inputs", "needs",     "params", "command", "env",
                                       "constraint", "outputs", "priority", "launcher"};
    for (size_t i = 0; i < ARRAY_COUNT(keys); i++) {
        json_t *object = json_loads(json, 0, NULL);
        json_object_set_new(object, keys[i], json_real(0.5));
        char *damaged = json_dumps(object, 0);
        assert_json_refused(damaged, keys[i]);
        free(damaged);
        json_decref(object);
    }
    assert_json_refused("{\"athanor\": 2}", "athanor");
    assert_json_refused("[", "JSON");
    mem_free(json);
    spec_free(spec);
}

static void the_spec_of_a_run_has_ids_and_places(void **state)
{
    (void)state;
    struct spec *spec = test_spec("athanor: 1\nname: a\n" COMMAND "inputs: {data: dataset:g/p}\n");
    char *json = spec_job_json(&spec->jobs[0]), *complete = NULL;
    struct spec_place place = {.name = "data", .path = "/d/g", .part = "p", .hash = "abc"};
    struct spec_run run = {.job_id = 7, .attempt_id = 9, .attempt = 1, .places = &place,
                           .place_count = 1};
    struct err err;
    assert_int_equal(spec_json_complete(json, &run, &complete, &err), 0);
    assert_non_null(strstr(complete, "\"job_id\": 7"));
    assert_non_null(strstr(complete, "\"attempt_id\": 9"));
    assert_non_null(strstr(complete, "{\"data\": {\"hash\": \"abc\", \"part\": \"p\", "
                                     "\"path\": \"/d/g\", \"ref\": \"dataset:g/p\"}}"));
    mem_free(complete);
    run.place_count = 0;
    assert_int_equal(spec_json_complete(json, &run, &complete, &err), -1);
    assert_string_equal(err.text, "input 'data' has no path: it was not found");
    run.place_count = 1;
    place.path = "/d/\xff";
    assert_int_equal(spec_json_complete(json, &run, &complete, &err), -1);
    assert_int_equal(err.kind, ERR_INVALID);
    assert_int_equal(spec_json_complete("{}", &run, &complete, &err), -1);
    assert_int_equal(err.kind, ERR_PROTOCOL);
    mem_free(json);
    spec_free(spec);
}

/* ---- references and arrays --------------------------------------------------------------- */

static void references_within_the_spec_become_indexes_and_others_stay_external(void **state)
{
    (void)state;
    struct spec *spec = test_spec(
        "athanor: 1\njobs:\n"
        "  late: {kind: command, command: [x], inputs: {d: dataset:made, e: dataset:other}}\n"
        "  make: {kind: command, command: [x], outputs: [dataset:made]}\n"
        "  use: {kind: command, command: [x], inputs: {m: job:make/checkpoint:last,\n"
        "        n: job:before/checkpoint:last}}\n");
    assert_int_equal(spec->job_count, 3);
    const struct spec_job *late = &spec->jobs[0], *use = &spec->jobs[2];
    assert_int_equal(late->inputs[0].job_index, 1);
    assert_int_equal(late->inputs[1].job_index, SPEC_EXTERNAL);
    assert_int_equal(late->need_count, 1);
    assert_true(late->needs[0].implied);
    assert_int_equal(use->inputs[0].job_index, 1);
    assert_int_equal(use->need_count, 2);
    assert_int_equal(use->needs[1].job_index, SPEC_EXTERNAL);
    assert_string_equal(use->needs[1].job, "before");
    spec_free(spec);
}

static void an_array_of_two_thousand_becomes_two_thousand_jobs(void **state)
{
    (void)state;
    struct spec *spec = test_spec("athanor: 1\nname: many\n" COMMAND "array: 2000\n");
    assert_int_equal(spec->job_count, 2000);
    for (uint32_t i = 0; i < 2000; i++) {
        char name[20], index[20];
        snprintf(name, sizeof name, "many-%u", i);
        snprintf(index, sizeof index, "%u", i);
        assert_string_equal(spec->jobs[i].name, name);
        assert_string_equal(spec->jobs[i].env[1].name, "ATHANOR_ARRAY_INDEX");
        assert_string_equal(spec->jobs[i].env[1].value, index);
    }
    spec_free(spec);
}

static void a_chain_of_ten_thousand_jobs_is_not_too_deep(void **state)
{
    (void)state;
    struct buf text = {0};
    buf_puts(&text, "athanor: 1\njobs:\n  j0: {kind: command, command: [x]}\n");
    for (unsigned i = 1; i < SPEC_JOBS_MAX; i++)
        buf_printf(&text, "  j%u: {kind: command, command: [x], needs: j%u}\n", i, i - 1);
    struct spec *spec = test_spec(buf_text(&text));
    assert_int_equal(spec->job_count, SPEC_JOBS_MAX);
    assert_int_equal(spec->jobs[9999].needs[0].job_index, 9998);
    spec_free(spec);
    buf_done(&text);
}

static void a_cycle_of_ten_thousand_jobs_is_reported_once(void **state)
{
    (void)state;
    struct buf text = {0};
    buf_puts(&text, "athanor: 1\njobs:\n");
    for (unsigned i = 0; i < SPEC_JOBS_MAX; i++)
        buf_printf(&text, "  j%u: {kind: command, command: [x], needs: j%u}\n", i,
                   (i + 1) % SPEC_JOBS_MAX);
    struct spec *spec;
    char *report = test_read(buf_text(&text), NULL, 0, &spec);
    assert_null(spec);
    assert_non_null(strstr(report, "wait for each other: j0 -> j1 -> "));
    assert_ptr_equal(strchr(report, '\n'), report + strlen(report) - 1);
    mem_free(report);
    buf_done(&text);
}

/* ---- limits ----------------------------------------------------------------------------- */

static void a_document_of_a_hundred_megabytes_is_refused_unread(void **state)
{
    (void)state;
    size_t length = (size_t)100 << 20;
    char *bytes = mem_alloc(length); /* not written: reading it would be an error of valgrind */
    struct catalogue *catalogue = test_catalogue();
    struct spec_errors errors = {0};
    struct spec_source source = {.name = "big.yaml", .bytes = bytes, .length = length};
    struct spec *spec;
    assert_int_equal(spec_read(&source, catalogue, &spec, &errors), -1);
    assert_int_equal(errors.count, 1);
    assert_string_equal(errors.items[0].message,
                        "has 104857600 bytes, at most 1048576 (1 MiB) are accepted");
    spec_errors_done(&errors);
    catalogue_free(catalogue);
    mem_free(bytes);
}

static void a_file_of_a_hundred_megabytes_is_refused_after_the_first(void **state)
{
    (void)state;
    char path[] = "/tmp/athanor-spec-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)100 << 20), 0); /* sparse: takes no space */
    char *bytes;
    size_t length;
    struct err err;
    assert_int_equal(spec_text_load(path, &bytes, &length, &err), -1);
    assert_int_equal(err.kind, ERR_LIMIT);
    assert_non_null(strstr(err.text, "larger than 1 MiB"));
    close(fd);
    unlink(path);
    assert_int_equal(spec_text_load(path, &bytes, &length, &err), -1);
    assert_int_equal(err.kind, ERR_NOT_FOUND);
}

static void a_mapping_of_a_hundred_thousand_keys_is_read_in_bounded_time(void **state)
{
    (void)state;
    struct buf text = {0};
    buf_puts(&text, "athanor: 1\nname: a\n" COMMAND "params: {");
    for (unsigned i = 0; i < 100000; i++)
        buf_printf(&text, "%u,", i);
    buf_puts(&text, "}\n");
    struct spec *spec;
    char *report = test_read(buf_text(&text), NULL, 0, &spec);
    assert_null(spec);
    assert_non_null(strstr(report, "at most 10000 are accepted"));
    mem_free(report);
    buf_done(&text);
}

static void a_hundred_thousand_wrong_keys_cost_no_more_than_the_first_hundred(void **state)
{
    (void)state;
    struct buf text = {0};
    buf_puts(&text, "athanor: 1\nname: a\nkind: pretraining\nrecipe: clm\nparams: {");
    for (unsigned i = 0; i < 100000; i++)
        buf_printf(&text, "k%u,", i);
    buf_puts(&text, "}\n");
    struct spec *spec;
    char *report = test_read(buf_text(&text), NULL, 0, &spec);
    assert_null(spec);
    assert_non_null(strstr(report, "... and 99901 more\n")); /* the input `data` is missing too */
    mem_free(report);
    buf_done(&text);
}

static void only_a_hundred_errors_are_kept_and_the_rest_is_counted(void **state)
{
    (void)state;
    struct buf text = {0};
    buf_puts(&text, "athanor: 1\njobs:\n");
    for (unsigned i = 0; i < 5000; i++)
        buf_printf(&text, "  j%u: {kind: command, command: [x], needs: [nobody-%u]}\n", i, i);
    struct spec *spec;
    char *report = test_read(buf_text(&text), NULL, 0, &spec);
    assert_null(spec);
    assert_non_null(strstr(report, "... and 4900 more\n"));
    mem_free(report);
    buf_done(&text);
}

/* ---- overrides --------------------------------------------------------------------------- */

static void an_override_replaces_what_the_file_says(void **state)
{
    (void)state;
    struct spec_set sets[] = {{"resources.ranks", "3"},
                              {"command", "[echo, 'a b']"},
                              {"env.NEW", "x=y"},
                              {"retry.on", "[oom]"}};
    struct spec *spec;
    char *report = test_read("athanor: 1\nname: a\n" COMMAND, sets, ARRAY_COUNT(sets), &spec);
    assert_string_equal(report, "");
    assert_int_equal(spec->jobs[0].resources.ranks, 3);
    assert_string_equal(spec->jobs[0].command[1], "a b");
    assert_string_equal(spec->jobs[0].env[0].value, "x=y");
    assert_int_equal(spec->jobs[0].retry.causes, SPEC_CAUSE_BIT(CAUSE_OOM));
    mem_free(report);
    spec_free(spec);
}

static void an_override_within_an_alias_changes_one_job_only(void **state)
{
    (void)state;
    struct spec_set sets[] = {{"jobs.b.env.X", "2"}};
    struct spec *spec;
    char *report = test_read("athanor: 1\njobs:\n"
                             "  a: &a {kind: command, command: [x], env: {X: 1}}\n"
                             "  b: *a\n", sets, 1, &spec);
    assert_string_equal(report, "");
    assert_string_equal(spec->jobs[0].env[0].value, "1");
    assert_string_equal(spec->jobs[1].env[0].value, "2");
    mem_free(report);
    spec_free(spec);
}

static void an_override_is_split_at_its_first_equals_sign(void **state)
{
    (void)state;
    struct spec_set set;
    struct err err;
    char good[] = "env.A=b=c", no_value[] = "description=", bad[] = "ranks", worse[] = "=3";
    assert_int_equal(spec_set_split(good, &set, &err), 0);
    assert_string_equal(set.path, "env.A");
    assert_string_equal(set.value, "b=c");
    assert_int_equal(spec_set_split(no_value, &set, &err), 0);
    assert_string_equal(set.value, "");
    assert_int_equal(spec_set_split(bad, &set, &err), -1);
    assert_int_equal(spec_set_split(worse, &set, &err), -1);
}

/* ---- errors ----------------------------------------------------------------------------- */

static void errors_come_as_json_too(void **state)
{
    (void)state;
    struct catalogue *catalogue = test_catalogue();
    struct spec_errors errors = {0};
    const char text[] = "athanor: 1\nname: a\nkind: command\ncommand: \"a\\\"b\"\n";
    struct spec_source source = {.name = "e.yaml", .bytes = text, .length = strlen(text)};
    struct spec *spec;
    assert_int_equal(spec_read(&source, catalogue, &spec, &errors), -1);
    char *json = spec_errors_json(&errors);
    assert_string_equal(json, "[{\"column\": 10, \"file\": \"e.yaml\", \"line\": 4, \"message\": "
                              "\"is 'a\\\"b', expected a list [program, argument, ...]\", "
                              "\"path\": \"command\"}]");
    mem_free(json);
    spec_errors_done(&errors);
    catalogue_free(catalogue);
}

static void without_recipes_only_command_is_known_and_the_report_says_why(void **state)
{
    (void)state;
    struct catalogue *catalogue = catalogue_new();
    struct spec_errors errors = {0};
    const char text[] = "athanor: 1\nname: a\nkind: pretraining\nrecipe: clm\n";
    struct spec_source source = {.name = "e.yaml", .bytes = text, .length = strlen(text)};
    struct spec *spec;
    assert_int_equal(spec_read(&source, catalogue, &spec, &errors), -1);
    assert_non_null(strstr(errors.items[0].message, "start a worker"));
    spec_errors_done(&errors);
    catalogue_free(catalogue);
}

static void a_relative_path_needs_the_submitters_folder(void **state)
{
    (void)state;
    struct catalogue *catalogue = test_catalogue();
    const char text[] = "athanor: 1\nname: a\n" COMMAND "inputs: {f: file:notes.txt}\n";
    struct spec_source source = {.name = "e.yaml", .bytes = text, .length = strlen(text)};
    static const char *const folders[] = {NULL, "relative", "/not\xff utf8"};
    for (size_t i = 0; i < ARRAY_COUNT(folders); i++) {
        struct spec_errors errors = {0};
        struct spec *spec;
        source.folder = folders[i];
        assert_int_equal(spec_read(&source, catalogue, &spec, &errors), -1);
        assert_non_null(strstr(errors.items[0].message, "path"));
        spec_errors_done(&errors);
    }
    catalogue_free(catalogue);
}

static void every_field_is_described(void **state)
{
    (void)state;
    char *text = spec_fields_text();
    static const char *const some[] = {"resources.memory\n", "one of wait, replace", "array\n",
                                       "a size from 16MiB to 16TiB; default 1GiB",
                                       "checkpoint.keep\n"};
    for (size_t i = 0; i < ARRAY_COUNT(some); i++)
        assert_non_null(strstr(text, some[i]));
    assert_null(strstr(text, "every_steps")); /* only in the JSON */
    mem_free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_job_read_from_its_json_gives_the_same_json),
        cmocka_unit_test(a_job_survives_the_way_jsonb_writes_it),
        cmocka_unit_test(damaged_job_json_is_refused_by_name),
        cmocka_unit_test(the_spec_of_a_run_has_ids_and_places),
        cmocka_unit_test(references_within_the_spec_become_indexes_and_others_stay_external),
        cmocka_unit_test(an_array_of_two_thousand_becomes_two_thousand_jobs),
        cmocka_unit_test(a_chain_of_ten_thousand_jobs_is_not_too_deep),
        cmocka_unit_test(a_cycle_of_ten_thousand_jobs_is_reported_once),
        cmocka_unit_test(a_document_of_a_hundred_megabytes_is_refused_unread),
        cmocka_unit_test(a_file_of_a_hundred_megabytes_is_refused_after_the_first),
        cmocka_unit_test(a_mapping_of_a_hundred_thousand_keys_is_read_in_bounded_time),
        cmocka_unit_test(a_hundred_thousand_wrong_keys_cost_no_more_than_the_first_hundred),
        cmocka_unit_test(only_a_hundred_errors_are_kept_and_the_rest_is_counted),
        cmocka_unit_test(an_override_replaces_what_the_file_says),
        cmocka_unit_test(an_override_within_an_alias_changes_one_job_only),
        cmocka_unit_test(an_override_is_split_at_its_first_equals_sign),
        cmocka_unit_test(errors_come_as_json_too),
        cmocka_unit_test(without_recipes_only_command_is_known_and_the_report_says_why),
        cmocka_unit_test(a_relative_path_needs_the_submitters_folder),
        cmocka_unit_test(every_field_is_described),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
