/* judges_test.c - a judge that has to be trained, where truth can be computed: what the critic pmi
 * does for summaries of the micro-world and for students of them, beside faithfulness alone and
 * beside no judge at all. In the long mode only, three seeds.
 *
 * Teachers are small encoders and decoders, stopped early: of two sentences after one context many
 * say different things, so that there is something to judge. All arms of a seed have as many
 * pairs. */
#include "tests/train/fixture.h"
#include "worker/recipes/text/microworld.h"

#define SEEDS         3
#define TEACHER_STEPS 350
#define STUDENT_STEPS 200
#define READER_STEPS  3000

static void run_spec(const struct place *place, const char *name, char *spec, struct trace *trace)
{
    struct job_run job = {.name = name, .spec = spec};

    run_job_in(place, &job, trace);
    mem_free(spec);
}

static char *part_of(const struct place *place, const char *job, const char *part)
{
    return mem_printf("{\"ref\": \"dataset:%s/%s\", \"path\": \"%s/%s/datasets/%s\", "
                      "\"part\": \"%s\"}", job, part, place->folder, job, job, part);
}

static char *model_of(const struct place *place, const char *job, int steps)
{
    return mem_printf("{\"ref\": \"job:%s/checkpoint:last\", \"path\": "
                      "\"%s/%s/checkpoints/step-%010d\"}", job, place->folder, job, steps);
}

static bool is_long(void)
{
    const char *mode = getenv("ATHANOR_TEST_MODE");

    return mode && strcmp(mode, "long") == 0;
}

/* ---- arms ------------------------------------------------------------------------------- */

/* What is true of pairs, or of a student's rewrites: shares. */
struct told {
    double count, entailed, same; /* y follows from x; both follow                     */
    double slots;                 /* of what x tells, y tells rightly                  */
    double success;               /* of the student: as eval/rewrite has it            */
};

static void add_told(struct told *sum, json_t *line, const char *x_name, const char *y_name)
{
    const char *x = json_string_value(json_object_get(line, x_name));
    const char *y = json_string_value(json_object_get(line, y_name));
    struct fact of_x, of_y;
    int known = 0, right = 0;

    if (!x || !y)
        return; /* the first line of rewrites says what they are */
    sum->count++;
    if (!microworld_parse(x, strlen(x), &of_x) || !microworld_parse(y, strlen(y), &of_y))
        return;
    for (int slot = 0; slot < SLOT_END; slot++) {
        known += of_x.value[slot] != MICROWORLD_UNSAID;
        right += of_x.value[slot] != MICROWORLD_UNSAID && of_x.value[slot] == of_y.value[slot];
    }
    sum->slots += (double)right / known;
    sum->entailed += microworld_entails(&of_x, &of_y);
    sum->same += microworld_entails(&of_x, &of_y) && microworld_entails(&of_y, &of_x);
}

/* Means over the lines of a file, which has pairs of these names. */
static struct told read_told(const char *path, const char *x_name, const char *y_name)
{
    struct told told = {0};
    char *bytes;
    size_t length;

    OK(file_read(path, 1 << 24, &bytes, &length, &fixture_err));
    for (char *at = bytes, *end; (end = strchr(at, '\n')); at = end + 1) {
        json_t *line = json_loadb(at, (size_t)(end - at), 0, NULL);
        add_told(&told, line, x_name, y_name);
        json_decref(line);
    }
    mem_free(bytes);
    told.entailed /= told.count;
    told.same /= told.count;
    told.slots /= told.count;
    return told;
}

static void make_world(const struct place *place)
{
    run_spec(place, "world", mem_printf("\"kind\": \"data\", \"recipe\": \"microworld\", "
                                        "\"params\": {\"contexts\": 400, \"context_min\": 4}"),
             NULL);
}

static char *make_teacher(const struct place *place, int seed)
{
    char *name = mem_printf("teacher-%d", seed), *data = part_of(place, "world", "train");

    run_spec(place, name,
             mem_printf("\"kind\": \"finetuning\", \"recipe\": \"sft\", \"inputs\": "
                        "{\"data\": %s}, \"params\": {\"arch\": \"t5\", \"layers\": 1, "
                        "\"d_model\": 64, \"heads\": 4, "
                        "\"context\": 64, \"steps\": %d, \"warmup\": 50, \"learning_rate\": 0.004, "
                        "\"beta2\": 0.99, \"weight_decay\": 0.01, \"eval_every\": 0, \"seed\": %d}",
                        data, TEACHER_STEPS, seed), NULL);
    char *model = model_of(place, name, TEACHER_STEPS);
    mem_free(name);
    mem_free(data);
    return model;
}

/* Pairs under a critic, at most `most` of them (0: all). */
static struct told sample(const struct place *place, const char *name, const char *teacher,
                          const char *judge, const char *params, double most)
{
    char *contexts = part_of(place, "world", "contexts");
    char *limit = mem_printf(", \"target_pairs\": %.0f", most);
    char *path = mem_printf("%s/%s/datasets/%s/pairs.jsonl", place->folder, name, name);

    run_spec(place, name,
             mem_printf("\"kind\": \"data\", \"recipe\": \"pairs\", \"inputs\": {\"teacher\": %s, "
                        "\"contexts\": %s%s%s}, \"params\": {\"length_ratio_min\": 0, "
                        "\"length_ratio_max\": 10, \"holdout_share\": 0, \"min_yield\": 0, "
                        "\"max_tokens\": 40, \"samples\": 20, \"max_contexts\": 400, "
                        "\"diversity\": false, \"pairs_per_context\": 3, %s%s}", teacher, contexts,
                        judge ? ", \"judge\": " : "", judge ? judge : "", params,
                        most > 0 ? limit : ""), NULL);
    struct told told = read_told(path, "x", "y");
    mem_free(path);
    mem_free(limit);
    mem_free(contexts);
    return told;
}

/* A student of the pairs, and what its rewrites of unseen facts tell. */
static struct told taught(const struct place *place, const char *pairs, const char *teacher,
                          const char *task)
{
    char *student = mem_printf("student-%s", pairs), *eval = mem_printf("eval-%s", pairs);
    char *data = part_of(place, pairs, "train"), *test = part_of(place, "world", "test");
    char *model = model_of(place, student, STUDENT_STEPS);
    char *path = mem_printf("%s/%s/rewrites.jsonl", place->folder, eval);
    struct trace trace = {0};

    run_spec(place, student,
             mem_printf("\"kind\": \"finetuning\", \"recipe\": \"sft\", \"inputs\": {\"init\": %s, "
                        "\"data\": %s}, \"params\": {\"steps\": %d, \"learning_rate\": 0.002, "
                        "\"beta2\": 0.999, \"weight_decay\": 0.01, \"eval_every\": 0}", teacher,
                        data, STUDENT_STEPS), NULL);
    run_spec(place, eval,
             mem_printf("\"kind\": \"eval\", \"recipe\": \"rewrite\", \"inputs\": {\"model\": %s, "
                        "\"data\": %s}, \"params\": {\"critic\": \"oracle\", \"max_tokens\": 30, "
                        "\"bootstrap\": 0, \"task\": \"%s\"}", model, test, task), &trace);
    struct told told = read_told(path, "source", "rewrite");
    told.success = trace_at(&trace, "success", trace.points[trace.count - 1].step);
    trace_done(&trace);
    mem_free(student);
    mem_free(eval);
    mem_free(data);
    mem_free(test);
    mem_free(model);
    mem_free(path);
    return told;
}

struct arm {
    struct told pairs, student;
};

static struct arm run_arm(const struct place *place, const char *what, int seed,
                          const char *teacher, const char *judge, const char *params,
                          const char *task, double most)
{
    char *name = mem_printf("%s-%d", what, seed);
    struct arm arm = {sample(place, name, teacher, judge, params, most), {0}};

    arm.student = taught(place, name, teacher, task);
    print_message("%-14s %4.0f pairs: true %.3f, same %.3f, slots told %.3f; "
                  "student: success %.3f, true %.3f, slots told %.3f\n", name,
                  arm.pairs.count, arm.pairs.entailed, arm.pairs.same, arm.pairs.slots,
                  arm.student.success, arm.student.entailed, arm.student.slots);
    mem_free(name);
    return arm;
}

/* ---- pmi -------------------------------------------------------------------------------- */

/* Two texts of one fact, one after the other: what the judge of information has read. */
static void write_texts(const char *path, int count)
{
    struct buf lines = {0}, x = {0}, y = {0};
    struct rng rng;

    rng_init(&rng, 21);
    for (int i = 0; i < count; i++) {
        struct fact fact = microworld_fact((unsigned)rng_below(&rng, MICROWORLD_FACTS));

        buf_clear(&x);
        buf_clear(&y);
        microworld_sentence(&fact, &rng, &x);
        microworld_sentence(&fact, &rng, &y);
        buf_printf(&lines, "%s\n%s\n\n", buf_text(&x), buf_text(&y));
    }
    OK(file_replace(path, lines.bytes, lines.length, 0644, &fixture_err));
    buf_done(&lines);
    buf_done(&x);
    buf_done(&y);
}

static char *make_reader(const struct place *place)
{
    char *path = mem_printf("%s/texts.txt", place->folder), *data;

    write_texts(path, 48000);
    run_spec(place, "texts", mem_printf("\"kind\": \"data\", \"recipe\": \"text\", \"params\": "
                                        "{\"files\": [\"%s\"]}", path), NULL);
    data = part_of(place, "texts", "train");
    run_spec(place, "reader",
             mem_printf("\"kind\": \"finetuning\", \"recipe\": \"sft\", \"inputs\": "
                        "{\"data\": %s}, \"params\": {\"layers\": 2, \"d_model\": 64, "
                        "\"heads\": 4, \"context\": 64, \"steps\": %d, \"warmup\": 50, "
                        "\"learning_rate\": 0.003, \"beta2\": 0.99, \"batch\": 64, "
                        "\"weight_decay\": 0.01, \"eval_every\": 0}", data, READER_STEPS), NULL);
    mem_free(data);
    mem_free(path);
    return model_of(place, "reader", READER_STEPS);
}

/* Faithfulness makes summaries true; saliency makes them tell more than truth alone does. */
static void information_makes_summaries_true_and_telling(void **state)
{
    const struct place *place = *state;
    double more = 0;

    if (!is_long())
        skip();
    char *judge = make_reader(place);
    for (int seed = 0; seed < SEEDS; seed++) {
        char *teacher = make_teacher(place, seed);
        struct arm pmi = run_arm(place, "pmi-short", seed, teacher, judge,
                                 "\"critic\": \"pmi\", \"task\": \"summarize\"", "summarize", 0);
        struct arm faithful = run_arm(place, "faithful-short", seed, teacher, judge,
                                      "\"critic\": \"lm_mi\", \"task\": \"summarize\"",
                                      "summarize", pmi.pairs.count);
        struct arm blind = run_arm(place, "blind-short", seed, teacher, NULL,
                                   "\"critic\": \"oracle\", \"tau\": -100, \"task\": \"summarize\"",
                                   "summarize", pmi.pairs.count);
        assert_true(faithful.pairs.entailed > blind.pairs.entailed);
        assert_true(pmi.pairs.entailed > blind.pairs.entailed);
        assert_true(pmi.pairs.slots > blind.pairs.slots);
        assert_true(pmi.student.success > blind.student.success);
        more += (pmi.pairs.slots - faithful.pairs.slots) / SEEDS;
        mem_free(teacher);
    }
    print_message("saliency: %+.3f of what a source tells, beside faithfulness alone\n", more);
    assert_true(more >= 0);
    mem_free(judge);
}

static int open_place(void **state)
{
    if (place_open(state) < 0)
        return -1;
    if (is_long())
        make_world(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(information_makes_summaries_true_and_telling),
    };

    cmocka_set_test_filter(getenv("ATHANOR_TEST_FILTER"));
    return cmocka_run_group_tests(tests, open_place, place_close);
}
