/* catalogue_test.c - recipe catalogues are foreign bytes: merged when right, refused whole. */
#include "tests/unit/spec/support.h"

#define RECIPE(kind, name, version, more) \
    "{\"kind\": \"" kind "\", \"name\": \"" name "\", \"version\": " version more "}"
#define CATALOGUE(recipes) "{\"format\": 1, \"engine\": \"1\", \"recipes\": [" recipes "]}"
#define PARAMS(text) ", \"params\": [" text "]"

static int add(struct catalogue *catalogue, const char *json, struct err *err)
{
    return catalogue_add(catalogue, json, strlen(json), err);
}

static void recipes_of_several_workers_are_merged_and_the_newer_version_stays(void **state)
{
    (void)state;
    struct catalogue *catalogue = catalogue_new();
    struct err err;
    assert_int_equal(add(catalogue, CATALOGUE(RECIPE("eval", "b", "2", "") ","
                                              RECIPE("data", "a", "1", "")), &err), 0);
    assert_int_equal(add(catalogue, CATALOGUE(RECIPE("eval", "b", "1", "") ","
                                              RECIPE("data", "a", "3", "") ","
                                              RECIPE("data", "b", "1", "")), &err), 0);
    assert_int_equal(catalogue->count, 3);
    assert_string_equal(catalogue->recipes[0].name, "a");
    assert_int_equal(catalogue_find(catalogue, "eval", "b")->version, 2);
    assert_int_equal(catalogue_find(catalogue, "data", "a")->version, 3);
    assert_null(catalogue_find(catalogue, "data", "c"));
    assert_null(catalogue_find(catalogue, "none", "a"));
    catalogue_free(catalogue);
}

static void a_worker_that_joins_again_does_not_grow_the_catalogue(void **state)
{
    (void)state;
    struct catalogue *catalogue = test_catalogue();
    size_t used = catalogue->arena.used_bytes;
    char *json;
    size_t length;
    struct err err;
    assert_int_equal(file_read(GOLDEN_FOLDER "/catalogue.json", CATALOGUE_TEXT_BYTES_MAX, &json,
                               &length, &err), 0);
    for (int i = 0; i < 100; i++)
        assert_int_equal(catalogue_add(catalogue, json, length, &err), 0);
    assert_int_equal(catalogue->arena.used_bytes, used);
    mem_free(json);
    catalogue_free(catalogue);
}

static void a_param_keeps_its_type_bounds_and_default(void **state)
{
    (void)state;
    struct catalogue *catalogue = test_catalogue();
    const struct catalogue_recipe *clm = catalogue_find(catalogue, "pretraining", "clm");
    assert_int_equal(clm->param_count, 5);
    assert_int_equal(clm->params[1].type, PARAM_FLOAT);
    assert_string_equal(clm->params[1].default_json, "0.001");
    assert_true(clm->params[1].has_max);
    assert_int_equal(clm->params[2].choice_count, 3);
    assert_false(clm->params[4].has_min);
    assert_string_equal(param_type_name(clm->params[3].type), "bool");
    assert_string_equal(input_type_name(clm->inputs[2].type), "checkpoint");
    assert_null(catalogue_find(catalogue, "data", "corpus")->params[0].default_json);
    catalogue_free(catalogue);
}

static void wrong_catalogues_are_refused_whole_with_their_place(void **state)
{
    (void)state;
    static const struct {
        const char *json, *part;
    } cases[] = {
        {"", "JSON"},
        {"[]", "format"},
        {"{\"format\": 2, \"recipes\": []}", "format"},
        {"{\"format\": 1, \"recipes\": {}}", "recipes"},
        {"{\"format\": 1, \"format\": 1, \"recipes\": []}", "duplicate"},
        {CATALOGUE("5"), "entry 0"},
        {CATALOGUE(RECIPE("eval", "a b", "1", "")), "'name' is 'a b'"},
        {CATALOGUE(RECIPE("", "a", "1", "")), "'kind'"},
        {CATALOGUE(RECIPE("command", "a", "1", "")), "kind other than command"},
        {CATALOGUE(RECIPE("eval", "a", "0", "")), "version"},
        {CATALOGUE(RECIPE("eval", "a", "\"1\"", "")), "version"},
        {CATALOGUE(RECIPE("eval", "a", "1", ", \"params\": {}")), "'params' is no list"},
        {CATALOGUE(RECIPE("eval", "a", "1", PARAMS("{\"name\": \"x\", \"type\": \"real\"}"))),
         "param 'x': 'type' is 'real'"},
        {CATALOGUE(RECIPE("eval", "a", "1", PARAMS("{\"name\": \"x\", \"type\": \"int\", "
                                                   "\"min\": \"0\"}"))), "'min' is no number"},
        {CATALOGUE(RECIPE("eval", "a", "1", PARAMS("{\"name\": \"x\", \"type\": \"int\", "
                                                   "\"default\": 1.5}"))), "does not fit"},
        {CATALOGUE(RECIPE("eval", "a", "1", PARAMS("{\"name\": \"x\", \"type\": \"list\", "
                                                   "\"default\": [1]}"))), "does not fit"},
        {CATALOGUE(RECIPE("eval", "a", "1", PARAMS("{\"name\": \"x\", \"type\": \"int\"}, "
                                                   "{\"name\": \"x\", \"type\": \"int\"}"))),
         "listed twice"},
        {CATALOGUE(RECIPE("eval", "a", "1", ", \"inputs\": [{\"name\": \"x\", \"type\": \"f\"}]")),
         "input 'x'"},
        {CATALOGUE(RECIPE("eval", "a", "1", ", \"outputs\": [7]")), "'outputs' item 0"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct catalogue *catalogue = catalogue_new();
        struct err err;
        assert_int_equal(add(catalogue, cases[i].json, &err), -1);
        assert_int_equal(err.kind, ERR_PROTOCOL);
        if (!strstr(err.text, cases[i].part))
            fail_msg("case %zu: %s", i, err.text);
        assert_int_equal(catalogue->count, 0);
        catalogue_free(catalogue);
    }
}

static void a_right_recipe_beside_a_wrong_one_is_not_added(void **state)
{
    (void)state;
    struct catalogue *catalogue = catalogue_new();
    struct err err;
    assert_int_equal(add(catalogue, CATALOGUE(RECIPE("eval", "a", "1", "") ","
                                              RECIPE("eval", "b", "0", "")), &err), -1);
    assert_int_equal(catalogue->count, 0);
    catalogue_free(catalogue);
}

static void too_much_is_refused_by_its_limit(void **state)
{
    (void)state;
    struct catalogue *catalogue = catalogue_new();
    struct err err;
    struct buf text = {0};
    buf_puts(&text, "{\"format\": 1, \"recipes\": [");
    for (unsigned i = 0; i <= CATALOGUE_RECIPES_MAX; i++)
        buf_printf(&text, "%s{\"kind\": \"eval\", \"name\": \"r%u\", \"version\": 1}",
                   i ? "," : "", i);
    buf_puts(&text, "]}");
    assert_int_equal(catalogue_add(catalogue, text.bytes, text.length, &err), -1);
    assert_int_equal(err.kind, ERR_LIMIT);
    buf_clear(&text);
    for (unsigned i = 0; i < 100; i++)
        buf_putc(&text, '[');
    assert_int_equal(catalogue_add(catalogue, text.bytes, text.length, &err), -1);
    assert_non_null(strstr(err.text, "nests deeper"));
    assert_int_equal(catalogue_add(catalogue, text.bytes, CATALOGUE_TEXT_BYTES_MAX + 1, &err), -1);
    assert_int_equal(err.kind, ERR_LIMIT);
    buf_done(&text);
    catalogue_free(catalogue);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recipes_of_several_workers_are_merged_and_the_newer_version_stays),
        cmocka_unit_test(a_worker_that_joins_again_does_not_grow_the_catalogue),
        cmocka_unit_test(a_param_keeps_its_type_bounds_and_default),
        cmocka_unit_test(wrong_catalogues_are_refused_whole_with_their_place),
        cmocka_unit_test(a_right_recipe_beside_a_wrong_one_is_not_added),
        cmocka_unit_test(too_much_is_refused_by_its_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
