/* orders_test.c - every recipe that trains tells in which order it sees its data, and that is the
 * order in which it sees it. A new recipe that makes checkpoints fails here until it is listed. */
#include "tests/train/fixture.h"
#include "worker/recipes/registry.h"

#define DOCUMENTS 12
#define SHAPE     "\"layers\": 1, \"d_model\": 16, \"heads\": 2, \"context\": 48, "
#define DATA      "\"data\": {\"path\": \"P/data/datasets/lines\", \"part\": \"all\"}"
#define OTHER(name) "\"" name "\": {\"path\": \"P/data/datasets/lines\", \"part\": \"all\"}"
#define MODEL(name, job)                                                                           \
    "\"" name "\": {\"path\": \"P/" job "/checkpoints/step-0000000001\"}"

/* What makes checkpoints: how it is trained for a step, or why it is not here. In this order the
 * later ones find the models that they need. */
static const struct {
    const char *recipe, *inputs, *params;
    const char *elsewhere;
} trained[] = {
    {"pretraining/clm", DATA, SHAPE, NULL},
    {"pretraining/mlm", DATA, SHAPE, NULL},
    {"pretraining/span_corruption", DATA, SHAPE, NULL},
    {"finetuning/sft", DATA, SHAPE, NULL},
    {"finetuning/classify", DATA, SHAPE "\"labels\": [\"yes\", \"no\"], ", NULL},
    {"finetuning/dpo", OTHER("chosen") ", " OTHER("rejected") ", " MODEL("init", "clm"), "", NULL},
    {"distillation/logit_kd", DATA ", " MODEL("teacher", "clm"), "", NULL},
    {"distillation/seq_kd", DATA ", " MODEL("teacher", "clm"), "\"max_new_tokens\": 2, ", NULL},
    {"distillation/gkd", DATA ", " MODEL("teacher", "clm"), "\"max_new_tokens\": 2, ", NULL},
    {"distillation/minillm", DATA ", " MODEL("teacher", "clm"), "\"max_new_tokens\": 2, ", NULL},
    {"distillation/hidden_kd", DATA ", " MODEL("teacher", "mlm"), "", NULL},
    {"unlearning/grad_ascent", OTHER("forget") ", " MODEL("model", "clm"), "", NULL},
    {"unlearning/grad_diff",
     OTHER("forget") ", " OTHER("retain") ", " MODEL("model", "clm"), "", NULL},
    {"unlearning/npo", OTHER("forget") ", " OTHER("retain") ", " MODEL("model", "clm"), "", NULL},
    {"distillation/impossible", NULL, NULL, "its students are trained by sft as stages of it, "
                                            "whose orders t2900-distillation.bats looks for"},
    {"finetuning/merge", NULL, NULL, "adds adapters to a model: it trains nothing"},
    {"data/import", NULL, NULL, "another format of a model: it trains nothing"},
    {"data/classifier", NULL, NULL, "draws texts of files with replacement by (seed, draw): there "
                                    "are no documents of a dataset, and no permutation of them"},
};

/* The place's folder for each P that begins a path. */
static char *placed(const struct place *place, const char *text)
{
    struct buf out = {0};

    for (; *text; text++) {
        if (strncmp(text, "\"P/", 3) == 0) {
            buf_printf(&out, "\"%s/", place->folder);
            text += 2;
        } else {
            buf_putc(&out, *text);
        }
    }
    return buf_take(&out);
}

/* Documents of a text, a line end and a label, none like another. */
static int with_documents(void **state)
{
    struct buf text = {0};
    struct err err;

    if (place_open(state) < 0)
        return -1;
    const struct place *place = *state;
    char *path = job_path(place, "texts", ".txt");
    for (uint64_t i = 0; i < DOCUMENTS; i++) {
        char *document = document_text(i);
        buf_printf(&text, "%.20s\n%s\n\n", document, i % 3 ? "yes" : "no");
        mem_free(document);
    }
    int rc = file_replace(path, text.bytes, text.length, 0644, &err);
    char *spec = mem_printf("\"kind\": \"data\", \"recipe\": \"text\", \"params\": {\"files\": "
                            "[\"%s\"], \"split_by\": \"blank_line\", \"vocab_size\": 280, "
                            "\"special_tokens\": [\"[MASK]\"], \"sentinels\": 4, "
                            "\"holdout_share\": 0, \"name\": \"lines\"}", path);
    struct job_run job = {.name = "data", .spec = spec};
    run_job_in(place, &job, NULL);
    mem_free(spec);
    mem_free(path);
    buf_done(&text);
    return rc;
}

/* Runs steps of a recipe; its rows, a JSON object each, as athanor-engine tells them of the order
 * that the run told (json_decref). NULL when it told none. */
static json_t *rows_of(const struct place *place, size_t t, const char *name, unsigned steps,
                       const char *params, struct trace *trace)
{
    const char *slash = strchr(trained[t].recipe, '/');
    char *inputs = placed(place, trained[t].inputs), *log, *rows;
    char *spec = mem_printf("\"kind\": \"%.*s\", \"recipe\": \"%s\", \"inputs\": {%s}, \"params\": "
                            "{%s%s\"steps\": %u}", (int)(slash - trained[t].recipe),
                            trained[t].recipe, slash + 1, inputs, trained[t].params, params, steps);
    char *path = job_path(place, name, ".log"), *told_path = job_path(place, name, ".rows");
    struct job_run job = {.name = name, .spec = spec};
    size_t length;
    json_t *all = NULL;

    run_job_in(place, &job, trace);
    OK(file_read(path, 1 << 20, &log, &length, &fixture_err));
    char *at = strstr(log, "data_order: ");
    if (at) {
        at[strcspn(at, "\n")] = 0;
        assert_int_equal(spawn_line(mem_printf("exec '%s' documents --order '%s' --steps 1-%u "
                                               ">'%s'", place->engine, at + 12, steps,
                                               told_path)), 0);
        OK(file_read(told_path, 1 << 20, &rows, &length, &fixture_err));
        all = json_array();
        for (char *rest = rows, *line; (line = strsep(&rest, "\n"));)
            if (*line)
                json_array_append_new(all, json_loads(line, 0, NULL));
        mem_free(rows);
    }
    mem_free(log);
    mem_free(path);
    mem_free(told_path);
    mem_free(inputs);
    mem_free(spec);
    return all;
}

static size_t place_of(const char *recipe)
{
    size_t t = 0;

    while (t < ARRAY_COUNT(trained) && strcmp(trained[t].recipe, recipe) != 0)
        t++;
    return t;
}

static void every_recipe_that_makes_checkpoints_is_listed(void **state)
{
    size_t makers = 0;

    (void)state;
    for (size_t i = 0; i < recipe_count(); i++) {
        const struct recipe *recipe = recipe_at(i);
        if (!strstr(recipe->outputs, "checkpoint"))
            continue;
        char *name = mem_printf("%s/%s", recipe_kind_name(recipe->kind), recipe->name);
        if (place_of(name) == ARRAY_COUNT(trained))
            fail_msg("%s makes checkpoints: say above how it is trained, or where its order is "
                     "looked at, or that it trains nothing", name);
        mem_free(name);
        makers++;
    }
    assert_int_equal(makers, ARRAY_COUNT(trained));
}

static void every_recipe_that_trains_tells_its_order(void **state)
{
    const struct place *place = *state;

    for (size_t t = 0; t < ARRAY_COUNT(trained); t++) {
        if (trained[t].elsewhere)
            continue;
        struct trace trace = {0};
        json_t *rows = rows_of(place, t, strchr(trained[t].recipe, '/') + 1, 1,
                               "\"batch\": 4, ", &trace);
        if (!rows || !strstr(trace.events, "data_order\n"))
            fail_msg("%s does not tell in which order it sees its data", trained[t].recipe);
        assert_int_equal(json_array_size(rows), 4);
        json_decref(rows);
        trace_done(&trace);
    }
}

/* Without learning and with one document a step, equal losses mean equal documents. */
static void the_classifier_sees_the_documents_that_it_told(void **state)
{
    enum { STEPS = 2 * DOCUMENTS };
    struct trace trace = {0};
    json_t *rows = rows_of(*state, place_of("finetuning/classify"), "still", STEPS,
                           "\"batch\": 1, \"learning_rate\": 0, \"seed\": 5, ", &trace);
    json_int_t document[STEPS];

    assert_int_equal(json_array_size(rows), STEPS);
    for (size_t s = 0; s < STEPS; s++)
        document[s] = json_integer_value(json_array_get(
            json_object_get(json_array_get(rows, s), "documents"), 0));
    for (size_t a = 0; a < STEPS; a++)
        for (size_t b = 0; b < a; b++)
            assert_true((document[a] == document[b]) == (trace_at(&trace, "loss", a + 1) ==
                                                         trace_at(&trace, "loss", b + 1)));
    json_decref(rows);
    trace_done(&trace);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_recipe_that_makes_checkpoints_is_listed),
        cmocka_unit_test(every_recipe_that_trains_tells_its_order),
        cmocka_unit_test(the_classifier_sees_the_documents_that_it_told),
    };
    return cmocka_run_group_tests(tests, with_documents, place_close);
}
