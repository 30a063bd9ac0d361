/* eval_test.c - eval/choice and eval/generation on a model that knows some lines by heart.
 *
 * The numbers of jobs are compared with what this file computes itself from the same weights. */
#include "tests/train/fixture.h"
#include "worker/engine/generate.h"
#include "worker/engine/io/model_files.h"

#define STEPS 300
#define LINES 24 /* documents of the part `forget` */

static char *part_of(const struct place *place, const char *part)
{
    return mem_printf("{\"path\": \"%s/toys\", \"part\": \"%s\"}", place->folder, part);
}

/* The model, and items whose true choice is the line's own end. */
static int with_model(void **state)
{
    struct buf items = {0};
    char *forget, *spec, *path;

    if (place_open(state) < 0)
        return -1;
    const struct place *place = *state;
    forget = part_of(place, "forget");
    spec = mem_printf("\"kind\": \"finetuning\", \"recipe\": \"sft\", \"inputs\": {\"data\": %s}, "
                      "\"params\": {\"arch\": \"llama\", \"layers\": 2, \"d_model\": 32, "
                      "\"heads\": 4, \"context\": 64, \"separator\": \":\", \"steps\": %d, "
                      "\"batch\": %d, \"learning_rate\": 0.01, \"weight_decay\": 0, \"seed\": 9}",
                      forget, STEPS, LINES);
    struct job_run job = {.name = "model", .spec = spec};

    run_job_in(place, &job, NULL);
    for (uint64_t i = 0; i < LINES; i++) {
        char *text = document_text(i), *other = document_text((i + 7) % LINES);
        char *end = strchr(text, ':');

        *end = 0;
        buf_printf(&items, "{\"context\": \"%s:\", \"choices\": [\"%s\", \"%s\"], \"gold\": %d}\n",
                   text, i % 2 ? end + 2 : strchr(other, ':') + 2,
                   i % 2 ? strchr(other, ':') + 2 : end + 2, i % 2 ? 0 : 1);
        mem_free(text);
        mem_free(other);
    }
    path = job_path(place, "items.jsonl", "");
    OK(file_replace(path, items.bytes, items.length, 0644, &fixture_err));
    buf_done(&items);
    mem_free(path);
    mem_free(spec);
    mem_free(forget);
    return 0;
}

static void evaluate(const struct place *place, const char *name, const char *recipe,
                     const char *input, const char *params, int ranks, struct trace *trace)
{
    char *model = checkpoint_of(place, "model", STEPS);
    char *spec = mem_printf("\"kind\": \"eval\", \"recipe\": \"%s\", \"inputs\": {\"model\": "
                            "{\"path\": \"%s\"}, %s}, \"params\": {%s}",
                            recipe, model, input, params);
    struct job_run job = {.name = name, .spec = spec, .ranks = ranks};

    run_job_in(place, &job, trace);
    mem_free(spec);
    mem_free(model);
}

/* The last value of a metric, whichever step it was. */
static double value_of(const struct trace *trace, const char *name)
{
    return trace_at(trace, name, trace->points[trace->count - 1].step);
}

/* -- choice ----------------------------------------------------------------------------------- */

/* log p of bytes after others, in one pass and without any cache. */
static double plain_score(const struct model *model, const char *context, const char *rest)
{
    int64_t split = (int64_t)strlen(context), count = split + (int64_t)strlen(rest);
    char *whole = mem_printf("%s%s", context, rest);
    int32_t *token = mem_array((size_t)count, sizeof *token);
    int32_t *target = mem_array((size_t)count, sizeof *target);
    float *nll = mem_array((size_t)count, sizeof *nll);
    struct model_batch batch = {.B = 1, .T = count, .token = token};
    struct model_states states = {0};
    struct tape *tape = NULL;
    double sum = 0;

    for (int64_t i = 0; i < count; i++) {
        token[i] = i == 0 ? 256 : (unsigned char)whole[i - 1];
        target[i] = i < split ? -1 : (unsigned char)whole[i];
    }
    OK(tape_new(model->device, TAPE_INFER, &tape, &fixture_err));
    OK(model_forward(tape, model, &batch, &states, &fixture_err));
    OK(loss_nll(tape, states.hidden, model->head, target, nll, &fixture_err));
    for (int64_t i = 0; i < count; i++)
        sum -= nll[i];
    tape_free(tape);
    mem_free(whole);
    mem_free(token);
    mem_free(target);
    mem_free(nll);
    return sum;
}

static struct model *open_model(const struct place *place, struct device **device)
{
    struct device_config where = {.kind = BACKEND_CPU, .threads = 1};
    char *folder = checkpoint_of(place, "model", STEPS);
    struct model *model = NULL;

    OK(device_open(&where, device, &fixture_err));
    OK(model_files_open(folder, *device, true, &model, &fixture_err));
    mem_free(folder);
    return model;
}

#define ITEMS(place) mem_printf("\"items\": {\"path\": \"%s/items.jsonl\"}", (place)->folder)

/* Card eval-general, E6 and E8: shared contexts change nothing, and neither do ranks. */
static void choices_score_as_separate_passes_do(void **state)
{
    const struct place *place = *state;
    char *items = ITEMS(place), *path = job_path(place, "choice", "/choice_items.jsonl"), *text;
    struct device *device = NULL;
    struct model *model = open_model(place, &device);
    static const char params[] = "\"mutual_info\": true, \"bootstrap\": 50";
    struct trace one = {0}, two = {0}, four = {0};
    size_t length, lines = 0;

    evaluate(place, "choice", "choice", items, params, 1, &one);
    evaluate(place, "choice-two", "choice", items, params, 2, &two);
    evaluate(place, "choice-four", "choice", items, params, 4, &four);
    assert_same_trace(&one, &two, 0, 0);
    assert_same_trace(&one, &four, 0, 0);
    assert_true(value_of(&one, "acc") == 1 && value_of(&one, "acc_norm") == 1);
    assert_true(value_of(&one, "acc_low") > 0.85 && value_of(&one, "acc_high") == 1);
    assert_true(value_of(&one, "truncated") == 0);
    OK(file_read(path, 1 << 20, &text, &length, &fixture_err));
    for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1, lines++) {
        json_t *root = json_loadb(line, (size_t)(end - line), 0, NULL);
        json_t *scores = json_object_get(root, "log_p");
        char *mine = document_text(lines), *context, *rest;
        size_t gold = (size_t)json_integer_value(json_object_get(root, "gold"));

        context = mem_strndup(mine, (size_t)(strchr(mine, ':') - mine) + 1);
        rest = mem_printf(" %s", strchr(mine, ':') + 2);
        assert_float_equal(json_number_value(json_array_get(scores, gold)),
                           plain_score(model, context, rest), 1e-4);
        mem_free(context);
        mem_free(rest);
        mem_free(mine);
        json_decref(root);
    }
    assert_int_equal(lines, LINES);
    model_free(model);
    device_close(device);
    trace_done(&one);
    trace_done(&two);
    trace_done(&four);
    mem_free(text);
    mem_free(path);
    mem_free(items);
}

static void choices_too_long_for_the_context_are_cut_and_counted(void **state)
{
    const struct place *place = *state;
    char *path = job_path(place, "long.jsonl", ""), *items;
    struct buf line = {0};
    struct trace trace = {0};

    buf_puts(&line, "{\"context\": \"");
    for (int i = 0; i < 80; i++)
        buf_putc(&line, (char)('a' + i % 26));
    buf_puts(&line, "\", \"choices\": [\"one\", \"three\"], \"gold\": 0}\n");
    OK(file_replace(path, line.bytes, line.length, 0644, &fixture_err));
    items = mem_printf("\"items\": {\"path\": \"%s\"}", path);
    evaluate(place, "long", "choice", items, "\"bootstrap\": 0", 1, &trace);
    assert_true(value_of(&trace, "truncated") == 2);
    trace_done(&trace);
    buf_done(&line);
    mem_free(items);
    mem_free(path);
}

/* -- generation ------------------------------------------------------------------------------- */

/* What is known by heart is written again; ranks and block sizes do not show. */
static void texts_known_by_heart_equal_their_references(void **state)
{
    const struct place *place = *state;
    char *forget = part_of(place, "forget"), *data = mem_printf("\"data\": %s", forget);
    static const char greedy[] = "\"separator\": \":\", \"max_new_tokens\": 40, \"bootstrap\": 50";
    struct trace one = {0}, four = {0}, beams = {0};

    evaluate(place, "texts", "generation", data, greedy, 1, &one);
    evaluate(place, "texts-four", "generation", data, greedy, 4, &four);
    assert_same_trace(&one, &four, 0, 0);
    assert_true(value_of(&one, "rouge_l") == 1 && value_of(&one, "exact") == 1);
    assert_float_equal(value_of(&one, "bleu"), 100, 1e-9);
    assert_true(value_of(&one, "bleu_low") > 99.9);
    assert_true(value_of(&one, "distinct_2") < 1 && value_of(&one, "self_bleu") > 1);
    assert_true(value_of(&one, "self_bleu_low") < value_of(&one, "self_bleu"));
    assert_true(value_of(&one, "self_bleu_high") > value_of(&one, "self_bleu"));
    evaluate(place, "beams", "generation", data,
             "\"separator\": \":\", \"max_new_tokens\": 40, \"beams\": 3, \"samples\": 2, "
             "\"bootstrap\": 0, \"limit\": 6",
             1, &beams);
    assert_true(value_of(&beams, "texts") == 12);
    assert_float_equal(value_of(&beams, "exact"), 0.5, 1e-12); /* the best beam only */
    trace_done(&one);
    trace_done(&four);
    trace_done(&beams);
    mem_free(data);
    mem_free(forget);
}

static void samples_differ_and_follow_from_the_seed(void **state)
{
    const struct place *place = *state;
    char *valid = part_of(place, "valid"), *data = mem_printf("\"data\": %s", valid);
    static const char *const params[] = {
        "\"separator\": \":\", \"samples\": 4, \"temperature\": 1, \"max_new_tokens\": 30, "
        "\"limit\": 10, \"bootstrap\": 200, \"seed\": 1",
        "\"separator\": \":\", \"samples\": 4, \"temperature\": 1, \"max_new_tokens\": 30, "
        "\"limit\": 10, \"bootstrap\": 200, \"seed\": 2"};
    struct trace first = {0}, again = {0}, other = {0};

    evaluate(place, "drawn", "generation", data, params[0], 1, &first);
    evaluate(place, "drawn-two", "generation", data, params[0], 2, &again);
    evaluate(place, "drawn-other", "generation", data, params[1], 1, &other);
    assert_same_trace(&first, &again, 0, 0);
    assert_true(value_of(&first, "rouge_l") != value_of(&other, "rouge_l"));
    assert_true(value_of(&first, "rouge_l_low") < value_of(&first, "rouge_l"));
    assert_true(value_of(&first, "rouge_l") < value_of(&first, "rouge_l_high"));
    assert_true(value_of(&first, "exact") < 1);
    trace_done(&first);
    trace_done(&again);
    trace_done(&other);
    mem_free(data);
    mem_free(valid);
}

static void what_cannot_be_evaluated_is_refused(void **state)
{
    const struct place *place = *state;
    char *forget = part_of(place, "forget"), *data = mem_printf("\"data\": %s", forget);
    char *items = mem_printf("\"items\": {\"path\": \"%s/toys/dataset.json\"}", place->folder);
    const struct {
        const char *recipe, *input, *params, *complaint;
    } wrong[] = {
        {"generation", data, "\"separator\": \":\", \"samples\": 3", "at temperature 0"},
        {"generation", data, "\"separator\": \":\", \"beams\": 2, \"samples\": 3", "no more texts"},
        {"choice", items, "\"limit\": 1", "line 1: 'context' is no text"},
    };
    char *model = checkpoint_of(place, "model", STEPS);

    for (size_t i = 0; i < ARRAY_COUNT(wrong); i++) {
        char *spec = mem_printf("\"kind\": \"eval\", \"recipe\": \"%s\", \"inputs\": {\"model\": "
                                "{\"path\": \"%s\"}, %s}, \"params\": {%s}",
                                wrong[i].recipe, model, wrong[i].input, wrong[i].params);
        struct job_run job = {.name = "wrong", .spec = spec, .may_fail = true};
        char *path = job_path(place, "wrong", ".log"), *log = NULL;
        size_t length;

        assert_int_equal(run_job_in(place, &job, NULL), 1);
        OK(file_read(path, 1 << 20, &log, &length, &fixture_err));
        if (!strstr(log, wrong[i].complaint))
            fail_msg("expected '%s' in: %s", wrong[i].complaint, log);
        mem_free(log);
        mem_free(path);
        mem_free(spec);
    }
    mem_free(model);
    mem_free(items);
    mem_free(data);
    mem_free(forget);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(choices_score_as_separate_passes_do),
        cmocka_unit_test(choices_too_long_for_the_context_are_cut_and_counted),
        cmocka_unit_test(texts_known_by_heart_equal_their_references),
        cmocka_unit_test(samples_differ_and_follow_from_the_seed),
        cmocka_unit_test(what_cannot_be_evaluated_is_refused),
    };

    return cmocka_run_group_tests(tests, with_model, place_close);
}
