/* kd_test.c - sequence-level and on-policy distillation: what they equal in their limits, and on
 * the micro-world which student ends closer to its teacher.
 *
 * Limits (card distillation-baselines, acceptance 4): GKD with lambda 0 is logit_kd on documents,
 * and seq_kd under a teacher that knows the responses by heart is cross-entropy on them; both bit
 * for bit. Direction (acceptance 6, long mode): three seeds, each must pass its gates. */
#include "tests/train/fixture.h"
#include "worker/engine/generate.h"
#include "worker/engine/io/model_files.h"
#include "worker/recipes/text/microworld.h"

#define LIMIT_STEPS 12

static char *input(const struct place *place, const char *part)
{
    return mem_printf("{\"ref\": \"dataset:toys/%s\", \"path\": \"%s/toys\", \"part\": \"%s\"}",
                      part, place->folder, part);
}

/* Knows the 24 documents of the part `forget` by heart. */
static int with_teacher(void **state)
{
    if (place_open(state) < 0)
        return -1;
    const struct place *place = *state;
    char *forget = input(place, "forget");
    char *spec =
        mem_printf("\"kind\": \"finetuning\", \"recipe\": \"sft\", \"inputs\": {\"data\": %s}, "
                   "\"params\": {\"arch\": \"llama\", \"layers\": 2, \"d_model\": 32, "
                   "\"heads\": 4, \"context\": 64, \"separator\": \":\", \"steps\": 300, "
                   "\"batch\": 24, \"learning_rate\": 0.01, \"weight_decay\": 0, \"seed\": 9}",
                   forget);
    struct job_run job = {.name = "teacher", .spec = spec};

    run_job_in(place, &job, NULL);
    mem_free(spec);
    mem_free(forget);
    return 0;
}

#define STUDENT "\"layers\": 1, \"d_model\": 32, \"heads\": 2, "
#define TRAINING                                                                                   \
    "\"separator\": \":\", \"steps\": 12, \"batch\": 8, \"learning_rate\": 0.003, "                \
    "\"weight_decay\": 0.01"

/* A student of the recipe, trained on `forget`. */
static void train(const struct place *place, const char *name, const char *kind,
                  const char *recipe, const char *params, struct trace *trace)
{
    char *forget = input(place, "forget");
    bool taught = strcmp(kind, "distillation") == 0;
    char *teacher = taught ? mem_printf(", \"teacher\": {\"path\": "
                                        "\"%s/teacher/checkpoints/step-0000000300\"}",
                                        place->folder)
                           : mem_printf("%s", "");
    char *spec = mem_printf("\"kind\": \"%s\", \"recipe\": \"%s\", \"inputs\": {\"data\": %s%s}, "
                            "\"params\": {%s" STUDENT TRAINING "}",
                            kind, recipe, forget, teacher, params);
    struct job_run job = {.name = name, .spec = spec};

    run_job_in(place, &job, trace);
    mem_free(spec);
    mem_free(teacher);
    mem_free(forget);
}

static void assert_same_student(const struct place *place, const char *a, const char *b)
{
    char *left = checkpoint_of(place, a, LIMIT_STEPS);
    char *right = checkpoint_of(place, b, LIMIT_STEPS);

    assert_same_file(left, right, "model.safetensors");
    assert_same_file(left, right, "optim-00000-of-00001.safetensors");
    mem_free(left);
    mem_free(right);
}

static void gkd_that_never_samples_is_logit_kd(void **state)
{
    train(*state, "off", "distillation", "gkd", "\"lambda\": 0, \"loss\": \"rkl\", ", NULL);
    train(*state, "fixed", "distillation", "logit_kd",
          "\"unit\": \"documents\", \"loss\": \"rkl\", ", NULL);
    assert_same_student(*state, "off", "fixed");
}

/* And that the responses were written, not copied: a teacher stopped after a few tokens gives
 * another student. */
static void seq_kd_under_a_teacher_that_knows_the_data_is_cross_entropy(void **state)
{
    struct trace cut = {0}, whole = {0};

    train(*state, "gold", "finetuning", "sft", "\"arch\": \"llama\", \"context\": 64, ", NULL);
    train(*state, "beam", "distillation", "seq_kd", "", &whole);
    train(*state, "greedy", "distillation", "seq_kd", "\"mode\": \"sample\", "
          "\"gen_temperature\": 0, ", NULL);
    train(*state, "cut", "distillation", "seq_kd", "\"max_new_tokens\": 3, ", &cut);
    assert_same_student(*state, "gold", "beam");
    assert_same_student(*state, "gold", "greedy");
    assert_true(trace_at(&cut, "response_tokens", 1) == 3);
    assert_true(trace_at(&cut, "loss", 1) != trace_at(&whole, "loss", 1));
    trace_done(&cut);
    trace_done(&whole);
}

/* The same limits where the student is an encoder and a decoder: what it reads is another model's
 * business, and the decoders that teach it read prompt and response in one row. */
#define SOURCED "\"arch\": \"t5\", "

static void students_with_an_encoder_keep_the_same_limits(void **state)
{
    struct trace taught = {0}, own = {0};

    train(*state, "gold-t5", "finetuning", "sft", SOURCED "\"context\": 64, ", NULL);
    train(*state, "beam-t5", "distillation", "seq_kd", SOURCED, NULL);
    assert_same_student(*state, "gold-t5", "beam-t5");
    train(*state, "off-t5", "distillation", "gkd", SOURCED "\"lambda\": 0, ", NULL);
    train(*state, "fixed-t5", "distillation", "logit_kd",
          SOURCED "\"loss\": \"jsd\", \"unit\": \"documents\", \"alpha\": 1, ", &taught);
    assert_same_student(*state, "off-t5", "fixed-t5");
    assert_true(trace_at(&taught, "kd_loss", LIMIT_STEPS) < trace_at(&taught, "kd_loss", 1));
    train(*state, "own-t5", "distillation", "gkd",
          SOURCED "\"lambda\": 1, \"onpolicy_warmup\": 0, \"max_new_tokens\": 16, ", &own);
    assert_true(trace_at(&own, "sample_tokens", 1) > 0);
    trace_done(&taught);
    trace_done(&own);
}

/* Draws follow from (seed, step, sequence): another seed writes other texts, and a student that
 * always samples reports them. */
static void gkd_reports_what_the_student_writes(void **state)
{
    static const char own[] = "\"lambda\": 1, \"onpolicy_warmup\": 4, \"max_new_tokens\": 16, ";
    struct trace trace = {0};

    train(*state, "own", "distillation", "gkd", own, &trace);
    for (uint64_t step = 1; step <= LIMIT_STEPS; step++)
        assert_true(trace_at(&trace, "on_policy", step) == (step > 4));
    assert_true(trace_at(&trace, "sample_tokens", 5) > 0);
    assert_true(trace_at(&trace, "sample_tokens", 5) <= 16);
    assert_true(trace_at(&trace, "sample_entropy", 5) > 1); /* nearly untrained: ln 257 = 5.5 */
    trace_done(&trace);
}

/* -- the micro-world ------------------------------------------------------------------------ */

#define WORLD_STEPS 3000 /* of 64 documents, after which a teacher copies facts out of contexts, as
                            a small student cannot: without that the arms are alike */
#define TRUTHFUL    0.8  /* such a teacher's share of samples that tell nothing untrue: the least of
                            the card's three is 0.82 */

/* The teacher's world is large; its students see 600 fixed documents of it, in eight epochs. */
static char *world_input(const struct place *place, const char *world, const char *part)
{
    return mem_printf("{\"path\": \"%s/%s/datasets/%s\", \"part\": \"%s\"}", place->folder, world,
                      world, part);
}

static void make_worlds(const struct place *place)
{
    struct job_run large = {.name = "world",
                            .spec = "\"kind\": \"data\", \"recipe\": \"microworld\", \"params\": "
                                    "{\"documents\": 48000}"};
    char *spec = mem_printf("\"kind\": \"data\", \"recipe\": \"microworld\", \"params\": "
                            "{\"documents\": 600, \"holdout_share\": 0, \"seed\": 7, "
                            "\"tokenizer\": \"%s/world/datasets/world/tokenizer.json\"}",
                            place->folder);
    struct job_run few = {.name = "few", .spec = spec};

    run_job_in(place, &large, NULL);
    run_job_in(place, &few, NULL);
    mem_free(spec);
}

static void make_world_teacher(const struct place *place, int seed)
{
    char *data = world_input(place, "world", "train"), *name = mem_printf("world-teacher-%d", seed);
    char *spec =
        mem_printf("\"kind\": \"finetuning\", \"recipe\": \"sft\", \"inputs\": {\"data\": %s}, "
                   "\"params\": {\"layers\": 2, \"d_model\": 64, \"heads\": 4, \"context\": 64, "
                   "\"steps\": %d, \"warmup\": 50, \"batch\": 64, \"learning_rate\": 3e-3, "
                   "\"beta2\": 0.99, \"weight_decay\": 0.01, \"seed\": %d}",
                   data, WORLD_STEPS, seed);
    struct job_run job = {.name = name, .spec = spec};

    run_job_in(place, &job, NULL);
    mem_free(spec);
    mem_free(name);
    mem_free(data);
}

/* One arm: a student of one block. from: NULL for blocks of the teacher, or the arm whose
 * checkpoint it goes on from. Returns the last forward KL to the teacher. */
static double arm(const struct place *place, int seed, const char *name, const char *from,
                  const char *recipe, const char *params, int steps)
{
    char *job_name = mem_printf("%s-%d", name, seed);
    char *data = world_input(place, "few", "train");
    char *valid = world_input(place, "world", "valid");
    char *start = from ? mem_printf(", \"student\": {\"path\": "
                                    "\"%s/%s-%d/checkpoints/step-0000000300\"}",
                                    place->folder, from, seed)
                       : mem_printf("%s", "");
    char *spec =
        mem_printf("\"kind\": \"distillation\", \"recipe\": \"%s\", \"inputs\": {\"data\": %s, "
                   "\"valid\": %s, \"teacher\": {\"path\": "
                   "\"%s/world-teacher-%d/checkpoints/step-%010d\"}%s}, \"params\": {%s, "
                   "\"separator\": \"\\n\", \"layers\": 1, \"student_init\": \"%s\", \"steps\": "
                   "%d, \"eval_every\": 0, \"batch\": 16, \"learning_rate\": %s, \"beta2\": "
                   "0.999, \"seed\": %d}",
                   recipe, data, valid, place->folder, seed, WORLD_STEPS, start, params,
                   from ? "checkpoint" : "teacher-layers", steps, from ? "1e-3" : "2e-3", seed);
    struct job_run job = {.name = job_name, .spec = spec};
    struct trace trace = {0};
    double kl;

    run_job_in(place, &job, &trace);
    kl = trace_at(&trace, "kl_to_teacher", (uint64_t)steps);
    trace_done(&trace);
    mem_free(spec);
    mem_free(start);
    mem_free(data);
    mem_free(valid);
    mem_free(job_name);
    return kl;
}

/* The reverse KL of an arm's student, by a step without learning on the whole of `valid`. */
static double reverse_kl(const struct place *place, int seed, const char *name)
{
    char *job_name = mem_printf("%s-%d-rkl", name, seed);
    char *valid = world_input(place, "world", "valid");
    char *spec =
        mem_printf("\"kind\": \"distillation\", \"recipe\": \"logit_kd\", \"inputs\": {\"data\": "
                   "%s, \"teacher\": {\"path\": "
                   "\"%s/world-teacher-%d/checkpoints/step-%010d\"}, \"student\": {\"path\": "
                   "\"%s/%s-%d/checkpoints/step-0000000300\"}}, \"params\": {\"loss\": \"rkl\", "
                   "\"unit\": \"documents\", \"separator\": \"\\n\", \"student_init\": "
                   "\"checkpoint\", \"steps\": 1, \"batch\": 600, \"grad_accum\": 20, "
                   "\"learning_rate\": 0}",
                   valid, place->folder, seed, WORLD_STEPS, place->folder, name, seed);
    struct job_run job = {.name = job_name, .spec = spec};
    struct trace trace = {0};
    double kl;

    run_job_in(place, &job, &trace);
    kl = trace_at(&trace, "kd_loss", 1);
    trace_done(&trace);
    mem_free(spec);
    mem_free(valid);
    mem_free(job_name);
    return kl;
}

/* The facts that no document of the world tells: ids of the part `test` are test.FACT.NUMBER. */
static size_t read_facts(const struct place *place, struct fact *facts, size_t most)
{
    char *path = mem_printf("%s/world/datasets/world", place->folder);
    const struct dataset_part *part;
    struct dataset *dataset = NULL;
    struct dataset_texts texts = {0};
    size_t count = 0;

    OK(dataset_open(path, &dataset, &fixture_err));
    OK(dataset_part(dataset, "test", &part, &fixture_err));
    OK(dataset_texts_read(part, &texts, &fixture_err));
    for (; count < texts.count && count < most; count++) {
        unsigned number;

        assert_int_equal(sscanf(texts.items[count].id, "test.%u.", &number), 1);
        facts[count] = microworld_fact(number);
    }
    dataset_texts_done(&texts);
    dataset_close(dataset);
    mem_free(path);
    return count;
}

/* One sample after the fact's whole context; whether it is a sentence that tells nothing else. */
static bool tells_the_truth(const struct model *model, const struct tokenizer *tokenizer,
                            const struct fact *fact, uint64_t number)
{
    struct sampling sampling = {.temperature = 1, .top_p = 1, .seed = 5,
                                .stop_token = (int32_t)tokenizer_end_of_text(tokenizer)};
    struct token_list list = {0};
    struct buf text = {0};
    int32_t room[24];
    struct generation said = {.token = room, .index = number};
    struct prompt prompt;
    struct fact told;
    struct rng rng;
    bool truth;

    rng_init(&rng, number);
    microworld_context(fact, MICROWORLD_SENTENCES, &rng, &text);
    buf_putc(&text, '\n');
    token_list_add(&list, tokenizer_end_of_text(tokenizer));
    tokenizer_encode(tokenizer, buf_text(&text), text.length, &list);
    prompt = (struct prompt){(const int32_t *)list.ids, (int64_t)list.count};
    OK(generate(model, &prompt, &said, 1, 24, &sampling, &fixture_err));
    buf_clear(&text);
    tokenizer_decode(tokenizer, (const uint32_t *)room, (size_t)said.count, &text);
    truth = microworld_parse(buf_text(&text), text.length, &told) &&
            microworld_entails(fact, &told);
    token_list_done(&list);
    buf_done(&text);
    return truth;
}

/* The share of 300 new facts about which a model tells nothing untrue. */
static double consistent(const struct place *place, int seed, const char *name, int steps)
{
    struct device_config where = {.kind = BACKEND_CPU, .threads = 1};
    char *folder = mem_printf("%s/%s-%d/checkpoints/step-%010d", place->folder, name, seed, steps);
    struct tokenizer *tokenizer = NULL;
    struct device *device = NULL;
    struct model *model = NULL;
    struct fact facts[300];
    size_t count = read_facts(place, facts, ARRAY_COUNT(facts));
    double truths = 0;

    OK(device_open(&where, &device, &fixture_err));
    OK(model_files_open(folder, device, true, &model, &fixture_err));
    OK(tokenizer_read(folder, &tokenizer, &fixture_err));
    for (size_t i = 0; i < count; i++)
        truths += tells_the_truth(model, tokenizer, &facts[i], i);
    tokenizer_free(tokenizer);
    model_free(model);
    device_close(device);
    mem_free(folder);
    return truths / (double)count;
}

#define LOGITS(loss) "\"unit\": \"documents\", \"loss\": \"" loss "\""

/* The card's gates: the taught arm ends at half of the control's forward KL or less and tells the
 * truth more often by .15; the reverse KL is lower where it was trained; samples of its own do a
 * fitted student no harm. Before them: the teacher has something to teach.
 *
 * The card's teachers and controls are .5 apart in truth, and its students .013 or more from their
 * teacher. Ours copy better, and so do their controls: where teacher and control are less than .3
 * apart, half of that must be made up; and two students that both match their teacher to FLOOR
 * nats, the card's own measure of no harm, are not told apart. */
#define FLOOR 0.01

static void check_direction(const struct place *place, int seed)
{
    double ce, forward, reverse, off, on, forward_back, reverse_back, truth_ce, truth, known;

    make_world_teacher(place, seed);
    ce = arm(place, seed, "ce", NULL, "logit_kd", LOGITS("ce"), 300);
    forward = arm(place, seed, "fkl", NULL, "logit_kd", LOGITS("fkl"), 300);
    reverse = arm(place, seed, "rkl", NULL, "logit_kd", LOGITS("rkl"), 300);
    off = arm(place, seed, "off", "fkl", "gkd", "\"loss\": \"jsd\", \"lambda\": 0", 100);
    on = arm(place, seed, "on", "fkl", "gkd", "\"loss\": \"jsd\", \"lambda\": 1", 100);
    forward_back = reverse_kl(place, seed, "fkl");
    reverse_back = reverse_kl(place, seed, "rkl");
    known = consistent(place, seed, "world-teacher", WORLD_STEPS);
    truth_ce = consistent(place, seed, "ce", 300);
    truth = consistent(place, seed, "fkl", 300);
    print_message("seed %d: forward KL to the teacher: ce %.4f, fkl %.4f, rkl %.4f; then jsd off "
                  "policy %.4f, on policy %.4f; reverse KL: fkl %.4f, rkl %.4f; consistent: "
                  "teacher %.2f, ce %.2f, fkl %.2f\n",
                  seed, ce, forward, reverse, off, on, forward_back, reverse_back, known,
                  truth_ce, truth);
    assert_true(known >= TRUTHFUL);
    assert_true(forward <= 0.5 * ce);
    assert_true(truth - truth_ce >= fmin(0.15, (known - truth_ce) / 2));
    assert_true(reverse_back < forward_back || fmax(reverse_back, forward_back) < FLOOR);
    assert_true(fabs(on - off) <= 0.01);
}

static void taught_students_end_closer_each_by_its_own_measure(void **state)
{
    const char *mode = getenv("ATHANOR_TEST_MODE");

    if (!mode || strcmp(mode, "long") != 0)
        skip();
    make_worlds(*state);
    for (int seed = 0; seed < 3; seed++)
        check_direction(*state, seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gkd_that_never_samples_is_logit_kd),
        cmocka_unit_test(seq_kd_under_a_teacher_that_knows_the_data_is_cross_entropy),
        cmocka_unit_test(students_with_an_encoder_keep_the_same_limits),
        cmocka_unit_test(gkd_reports_what_the_student_writes),
        cmocka_unit_test(taught_students_end_closer_each_by_its_own_measure),
    };

    cmocka_set_test_filter(getenv("ATHANOR_TEST_FILTER"));
    return cmocka_run_group_tests(tests, with_teacher, place_close);
}
