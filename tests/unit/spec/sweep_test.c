/* sweep_test.c - which trials a sweep makes; their errors are in the golden specs. */
#include "tests/unit/spec/support.h"

static const char head[] = "athanor: 1\nname: s\nkind: command\ncommand: [program]\nsweep:\n";

static struct spec *sweep_spec(const char *fields)
{
    char *text = mem_printf("%s%s", head, fields);
    struct spec *spec = test_spec(text);
    mem_free(text);
    return spec;
}

static double number_at(const char *json, const char *key)
{
    json_t *object;
    struct err err;
    assert_int_equal(json_read(json, strlen(json), &object, &err), 0);
    double value = json_number_value(json_object_get(object, key));
    json_decref(object);
    return value;
}

static const char drawn[] = "  method: random\n  trials: 500\n  seed: 4\n  over:\n"
                            "    params.u: {uniform: [-2, 3]}\n"
                            "    params.l: {log_uniform: [0.001, 10]}\n"
                            "    params.i: {int: [3, 5]}\n"
                            "    params.c: {choice: [7, 8]}\n";

static void draws_stay_in_their_ranges(void **state)
{
    (void)state;
    struct spec *spec = sweep_spec(drawn);
    size_t below_tenth = 0, ints[6] = {0};
    assert_int_equal(spec->sweep_count, 1);
    assert_int_equal(spec->job_count, 500);
    for (size_t i = 0; i < spec->job_count; i++) {
        const char *params = spec->sweeps[0].params[i];
        double u = number_at(params, "params.u"), l = number_at(params, "params.l");
        double whole = number_at(params, "params.i"), c = number_at(params, "params.c");
        assert_true(u >= -2 && u <= 3);
        assert_true(l >= 0.001 && l <= 10);
        assert_true(whole == 3 || whole == 4 || whole == 5);
        assert_true(c == 7 || c == 8);
        below_tenth += l < 0.1;
        ints[(int)whole]++;
    }
    /* Half of four decades lies below 0.1, a third of the integers is each: within 4.5 standard
     * deviations of 500 draws, sqrt(500 / 4) = 11.2 and sqrt(500 * 2 / 9) = 10.5. */
    assert_in_range(below_tenth, 250 - 50, 250 + 50);
    for (int i = 3; i <= 5; i++)
        assert_in_range(ints[i], 166 - 48, 167 + 48);
    spec_free(spec);
}

static void the_same_seed_draws_the_same_and_another_does_not(void **state)
{
    (void)state;
    char *other_text = mem_strdup(drawn);
    memcpy(strstr(other_text, "seed: 4"), "seed: 5", strlen("seed: 5"));
    struct spec *first = sweep_spec(drawn), *again = sweep_spec(drawn);
    struct spec *other = sweep_spec(other_text);
    size_t differ = 0;
    for (size_t i = 0; i < first->job_count; i++) {
        assert_string_equal(first->sweeps[0].params[i], again->sweeps[0].params[i]);
        assert_string_equal(first->jobs[i].params, again->jobs[i].params);
        differ += strcmp(first->sweeps[0].params[i], other->sweeps[0].params[i]) != 0;
    }
    assert_true(differ > 450);
    spec_free(first);
    spec_free(again);
    spec_free(other);
    mem_free(other_text);
}

static void assert_all_different(const struct spec *spec)
{
    for (size_t i = 0; i < spec->job_count; i++)
        for (size_t k = i + 1; k < spec->job_count; k++)
            assert_string_not_equal(spec->jobs[i].params, spec->jobs[k].params);
}

static void a_grid_has_every_combination_once_the_last_field_fastest(void **state)
{
    (void)state;
    struct spec *spec =
        sweep_spec("  method: grid\n  over: {params.a: [1, 2], params.b: [x, y, z]}\n");
    assert_int_equal(spec->job_count, 6);
    assert_string_equal(spec->jobs[0].params, "{\"a\": 1, \"b\": \"x\"}");
    assert_string_equal(spec->jobs[1].params, "{\"a\": 1, \"b\": \"y\"}");
    assert_string_equal(spec->jobs[5].params, "{\"a\": 2, \"b\": \"z\"}");
    assert_string_equal(spec->jobs[5].name, "s-t5");
    assert_all_different(spec);
    spec_free(spec);
}

static void points_drawn_of_a_grid_do_not_repeat(void **state)
{
    (void)state;
    struct spec *some = sweep_spec("  method: random\n  trials: 9\n"
                                   "  over: {params.a: [1, 2, 3, 4], params.b: [5, 6, 7]}\n");
    assert_int_equal(some->job_count, 9);
    assert_all_different(some);
    spec_free(some);
    struct spec *all = sweep_spec("  method: asha\n  metric: m\n  min_resource: 1\n"
                                  "  max_resource: 9\n"
                                  "  over: {params.a: [1, 2, 3, 4], params.b: [5, 6, 7]}\n");
    assert_int_equal(all->job_count, 12);
    assert_all_different(all);
    assert_int_equal(all->sweeps[0].reduction, 3);
    assert_string_equal(all->sweeps[0].resource, "step");
    spec_free(all);
}

static void trials_know_their_place_through_json(void **state)
{
    (void)state;
    struct arena arena = {0};
    struct spec_job job;
    struct err err;
    struct spec *spec = sweep_spec("  method: grid\n  at_once: 2\n  over: {params.a: [1, 2]}\n");
    char *json = spec_job_json(&spec->jobs[1]);
    assert_int_equal(spec_job_from_json(json, &arena, &job, &err), 0);
    assert_int_equal(job.trial_index, 1);
    assert_int_equal(job.trial_count, 2);
    assert_int_equal(job.at_once, 2);
    mem_free(json);
    arena_done(&arena);
    spec_free(spec);
}

static void identity_ignores_names_and_scheduling_and_nothing_else(void **state)
{
    (void)state;
    static const char base[] = "athanor: 1\nname: a\nkind: pretraining\nrecipe: clm\n"
                               "inputs: {data: dataset:d}\n";
    static const struct spec_set same[] = {{"name", "b"},
                                           {"experiment", "e"},
                                           {"description", "note"},
                                           {"priority", "7"},
                                           {"hold", "true"},
                                           {"inputs.data", "dataset:other"}};
    static const struct spec_set other[] = {{"params.steps", "7"},
                                            {"resources.ranks", "2"},
                                            {"env.X", "1"},
                                            {"checkpoint.keep", "last 1"},
                                            {"limits.wall_time", "1h"}};
    struct spec *spec = test_spec(base), *changed;
    char *identity = spec_job_identity(&spec->jobs[0]);
    for (size_t i = 0; i < ARRAY_COUNT(same) + ARRAY_COUNT(other); i++) {
        bool is_same = i < ARRAY_COUNT(same);
        const struct spec_set *set = is_same ? &same[i] : &other[i - ARRAY_COUNT(same)];
        mem_free(test_read(base, set, 1, &changed));
        assert_non_null(changed);
        char *text = spec_job_identity(&changed->jobs[0]);
        assert_int_equal(strcmp(identity, text) == 0, is_same);
        mem_free(text);
        spec_free(changed);
    }
    mem_free(identity);
    spec_free(spec);
}

static void what_hashes_do_not_cover_has_no_identity(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "athanor: 1\nname: a\nkind: command\ncommand: [program]\n",
        "athanor: 1\nname: a\nkind: data\nrecipe: corpus\nparams: {name: d}\n",
        "athanor: 1\nname: a\nkind: pretraining\nrecipe: clm\ninputs: {data: 'file:/d'}\n",
    };
    for (size_t i = 0; i < ARRAY_COUNT(texts); i++) {
        struct spec *spec = test_spec(texts[i]);
        assert_null(spec_job_identity(&spec->jobs[0]));
        spec_free(spec);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draws_stay_in_their_ranges),
        cmocka_unit_test(the_same_seed_draws_the_same_and_another_does_not),
        cmocka_unit_test(a_grid_has_every_combination_once_the_last_field_fastest),
        cmocka_unit_test(points_drawn_of_a_grid_do_not_repeat),
        cmocka_unit_test(trials_know_their_place_through_json),
        cmocka_unit_test(identity_ignores_names_and_scheduling_and_nothing_else),
        cmocka_unit_test(what_hashes_do_not_cover_has_no_identity),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
