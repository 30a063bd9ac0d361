/* glosses_test.c - Impossible Distillation on real text: card distillation-impossible, gate 9.
 *
 * A teacher of the quickstart's shape learns WordNet's definitions and examples after those of
 * their hypernyms. Its mutual information must tell a held-out definition's own example from that
 * of another, and pairs are made of what it writes. In the long mode only: some ten minutes on two
 * idle cores. Needs the package wordnet-base. */
#include "tests/train/fixture.h"

#define STEPS 3000

static void run_spec(const struct place *place, const char *name, int ranks, char *spec,
                     struct trace *trace)
{
    struct job_run job = {.name = name, .spec = spec, .ranks = ranks};

    run_job_in(place, &job, trace);
    mem_free(spec);
}

static double last_value(const struct trace *trace, const char *name)
{
    for (size_t i = trace->count; i-- > 0;)
        if (strcmp(trace->points[i].name, name) == 0)
            return trace->points[i].value;
    fail_msg("no metric %s", name);
    return 0;
}

/* Every pair of the pool has one verdict, and the dataset's card says the same. */
static void check_yields(const struct place *place, const struct trace *trace)
{
    char *path = job_path(place, "pairs", "/datasets/pairs/dataset.json");
    json_t *root = json_load_file(path, 0, NULL), *value;
    json_t *verdicts = json_object_get(json_object_get(root, "pairs"), "verdicts");
    double total = 0, counted = 0;
    const char *name;

    json_object_foreach(verdicts, name, value)
    {
        char metric[64];
        snprintf(metric, sizeof metric, "share_%s", name);
        print_message("%s %.4f  ", name, last_value(trace, metric));
        total += last_value(trace, metric);
        counted += json_number_value(value);
    }
    print_message("\n%.0f pairs of %.0f, critic %.2f of the time\n", last_value(trace, "pairs"),
                  last_value(trace, "pool"), last_value(trace, "critic_time_share"));
    assert_true(fabs(total - 1) < 1e-6);
    assert_true(counted == last_value(trace, "pool") && last_value(trace, "pairs") > 0);
    json_decref(root);
    mem_free(path);
}

static void a_teacher_of_glosses_tells_examples_apart_and_makes_pairs(void **state)
{
    const struct place *place = *state;
    const char *mode = getenv("ATHANOR_TEST_MODE"), *at = place->folder;
    struct trace trained = {0}, judged = {0}, made = {0};

    if (!mode || strcmp(mode, "long") != 0 || access("/usr/share/wordnet/data.noun", R_OK) != 0) {
        print_message("SKIPPED: needs ATHANOR_TEST_MODE=long and the package wordnet-base\n");
        skip();
    }
    run_spec(place, "glosses", 1,
             mem_printf("\"kind\": \"data\", \"recipe\": \"glosses\", \"params\": {\"vocab_size\": "
                        "4096}"), NULL);
    char *data = mem_printf("%s/glosses/datasets/glosses", at);
    char *teacher = mem_printf("{\"ref\": \"job:teacher/checkpoint:last\", \"path\": "
                               "\"%s/teacher/checkpoints/step-%010d\"}", at, STEPS);
    run_spec(place, "teacher", 2,
             mem_printf("\"kind\": \"pretraining\", \"recipe\": \"clm\", \"inputs\": {\"data\": "
                        "{\"path\": "
                        "\"%s\", \"part\": \"train\"}, \"valid\": {\"path\": \"%s\", \"part\": "
                        "\"valid\"}}, \"params\": {\"arch\": \"llama\", \"layers\": 4, "
                        "\"d_model\": 128, "
                        "\"heads\": 4, \"context\": 128, \"unit\": \"documents\", \"batch\": 32, "
                        "\"steps\": %d, \"warmup\": 40, \"learning_rate\": 3e-3, \"eval_every\": "
                        "0}",
                        data, data, STEPS), &trained);
    print_message("val_loss %.4f, unigram %.4f, bigram %.4f\n", last_value(&trained, "val_loss"),
                  last_value(&trained, "unigram_loss"), last_value(&trained, "bigram_loss"));
    run_spec(place, "critic", 2,
             mem_printf("\"kind\": \"eval\", \"recipe\": \"critic\", \"inputs\": {\"judge\": %s, "
                        "\"same\": "
                        "{\"path\": \"%s\", \"part\": \"same\"}, \"random\": {\"path\": \"%s\", "
                        "\"part\": "
                        "\"random\"}}", teacher, data, data), &judged);
    print_message("AUC %.3f [%.3f, %.3f], reverse %.3f, both %.3f\n", last_value(&judged, "auc"),
                  last_value(&judged, "auc_low"), last_value(&judged, "auc_high"),
                  last_value(&judged, "auc_reverse"), last_value(&judged, "auc_both"));
    assert_true(last_value(&judged, "auc") > 0.6);
    run_spec(place, "pairs", 2,
             mem_printf("\"kind\": \"data\", \"recipe\": \"pairs\", \"inputs\": {\"teacher\": %s, "
                        "\"contexts\": {\"path\": \"%s\", \"part\": \"contexts\"}}, \"params\": "
                        "{\"samples\": 20, \"max_tokens\": 40, \"max_contexts\": 64, "
                        "\"min_yield\": 0}", teacher, data), &made);
    check_yields(place, &made);
    trace_done(&trained);
    trace_done(&judged);
    trace_done(&made);
    mem_free(teacher);
    mem_free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_teacher_of_glosses_tells_examples_apart_and_makes_pairs),
    };

    return cmocka_run_group_tests(tests, place_open, place_close);
}
