/* job_test.c - resolved jobs against the recipes' tables, and the catalogue of them. */
#include "tests/unit/data/inputs.h"
#include "worker/recipes/job.h"
#include "worker/recipes/registry.h"

#include <jansson.h>

static const struct param_value *value_of(const struct job *job, const char *name)
{
    for (size_t i = 0; i < job->recipe->param_count; i++)
        if (strcmp(job->recipe->params[i].name, name) == 0)
            return &job->values[i];
    fail_msg("no parameter %s", name);
    return NULL;
}

static void defaults_fill_what_a_spec_leaves_out(void **state)
{
    (void)state;
    static const char json[] = "{\"kind\": \"data\", \"recipe\": \"wordnet\", \"params\": "
                               "{\"vocab_size\": 512, \"topics\": [\"a=1\", \"b=2\"]}, "
                               "\"checkpoint\": {\"every_steps\": 5, \"every_ms\": null}}";
    struct err err = {0};
    struct job job;
    if (job_parse(json, strlen(json), &job, &err) < 0)
        fail_msg("%s", err.text);
    assert_string_equal(job.name, "wordnet");
    assert_int_equal(job.checkpoint_every_steps, 5);
    assert_int_equal(job.checkpoint_every_ms, 0);
    assert_int_equal(value_of(&job, "vocab_size")->whole, 512);
    assert_true(value_of(&job, "holdout_share")->real == 0.1);
    assert_string_equal(value_of(&job, "lexfile")->text, "noun.animal");
    assert_int_equal(value_of(&job, "topics")->item_count, 2);
    assert_string_equal(value_of(&job, "topics")->items[1], "b=2");
    assert_string_equal(value_of(&job, "near")->items[0], "mammals=01861778");
    job_done(&job);
}

static void assert_refused(const char *json, const char *expected)
{
    struct err err = {0};
    struct job job;
    assert_int_equal(job_parse(json, strlen(json), &job, &err), -1);
    if (!strstr(err.text, expected))
        fail_msg("'%s' does not say '%s'", err.text, expected);
}

#define TEXT(params) "{\"kind\": \"data\", \"recipe\": \"text\", \"params\": {" params "}}"

static void bad_jobs_are_refused_by_field(void **state)
{
    (void)state;
    assert_refused("{", "line 1");
    assert_refused("[]", "not a JSON object");
    assert_refused("{\"athanor\": 2, \"kind\": \"data\"}", "version");
    assert_refused("{\"kind\": \"data\"}", "required");
    assert_refused("{\"kind\": \"data\", \"recipe\": \"wordnit\"}", "did you mean data/wordnet?");
    assert_refused("{\"kind\": \"eval\", \"recipe\": \"wordnet\"}", "did you mean data/wordnet?");
    assert_refused("{\"kind\": \"data\", \"recipe\": \"something\"}", "no recipe data/something");
    assert_refused(TEXT(""), "params.files (list) is required");
    assert_refused(TEXT("\"files\": [\"a\"], \"vocab_sise\": 9"), "did you mean vocab_size");
    assert_refused(TEXT("\"files\": \"a\""), "params.files is \"a\", expected a list of strings");
    assert_refused(TEXT("\"files\": [1]"), "params.files is [1], expected a list of strings");
    assert_refused(TEXT("\"files\": [\"a\"], \"vocab_size\": 256"), "257 to 4194304");
    assert_refused(TEXT("\"files\": [\"a\"], \"vocab_size\": 300.5"),
                   "params.vocab_size is 300.5, expected a whole number from 257 to 4194304");
    assert_refused(TEXT("\"files\": [\"a\"], \"holdout_share\": 1"), "0 to 0.9");
    assert_refused(TEXT("\"files\": [\"a\"], \"split_by\": \"word\""), "blank_line|line|file");
    assert_refused(TEXT("\"files\": [\"a\"], \"name\": 3"), "params.name is 3, expected a string");
    assert_refused("{\"kind\": \"data\", \"recipe\": \"text\", \"params\": [1]}", "params is not");
    assert_refused("{\"kind\": \"data\", \"recipe\": \"wordnet\", \"inputs\": {\"x\": {}}}",
                   "inputs.x is no input");
    assert_refused("{\"kind\": \"data\", \"recipe\": \"wordnet\", \"checkpoint\": "
                   "{\"every_steps\": -1}}", "checkpoint.every_steps");
    assert_refused("{\"kind\": \"pretraining\", \"recipe\": \"clm\"}", "inputs.");
    assert_refused("{\"kind\": \"pretraining\", \"recipe\": \"clm\", \"inputs\": {\"data\": "
                   "{\"ref\": \"x\"}}}", "inputs.data has no path");
}

/* What submit and the CLI rely on: every entry is complete, every default passes its own check. */
static void the_catalogue_describes_every_recipe(void **state)
{
    (void)state;
    char *text = recipe_catalogue();
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL), *entry, *param;
    json_t *recipes = json_object_get(root, "recipes");
    size_t i, p;
    assert_int_equal(json_integer_value(json_object_get(root, "format")), 1);
    assert_int_equal(json_array_size(recipes), recipe_count());
    assert_true(recipe_count() >= 2);
    json_array_foreach(recipes, i, entry) {
        static const char *const texts[] = {"name", "kind", "summary", "source"};
        for (size_t t = 0; t < ARRAY_COUNT(texts); t++)
            assert_true(json_string_length(json_object_get(entry, texts[t])) > 0);
        assert_true(json_integer_value(json_object_get(entry, "version")) >= 1);
        assert_true(json_array_size(json_object_get(entry, "outputs")) >= 1);
        json_array_foreach(json_object_get(entry, "params"), p, param) {
            assert_true(json_string_length(json_object_get(param, "name")) > 0);
            assert_true(json_string_length(json_object_get(param, "help")) > 0);
            assert_true(json_string_length(json_object_get(param, "type")) > 0);
            for (size_t other = 0; other < p; other++)
                assert_string_not_equal(
                    json_string_value(json_object_get(param, "name")),
                    json_string_value(json_object_get(
                        json_array_get(json_object_get(entry, "params"), other), "name")));
        }
    }
    json_decref(root);
    mem_free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_fill_what_a_spec_leaves_out),
        cmocka_unit_test(bad_jobs_are_refused_by_field),
        cmocka_unit_test(the_catalogue_describes_every_recipe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
