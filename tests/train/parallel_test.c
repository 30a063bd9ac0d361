/* parallel_test.c - what must hold of a training whatever it trains: killed and resumed it ends
 * with the same bits, on several ranks with the same numbers, and a checkpoint of some ranks goes
 * on with others.
 *
 * One table of architectures. In long mode all of them go through everything; otherwise all are
 * killed on one rank, some go through everything on four, and others take two steps there (each
 * launch of four ranks is half a second). */
#include "tests/train/fixture.h"
#include "worker/engine/io/model_files.h"

/* On four ranks outside long mode. */
enum four_ranks { NOT_SPREAD, TWO_STEPS, SPREAD };

struct arch {
    const char *name, *recipe, *params;
    enum four_ranks spreads;
    const char *alone;  /* more on one rank: what draws by rank, so differs on several of them */
    const char *spread; /* more on several ranks */
};

#define SHAPE "\"layers\": 2, \"d_model\": 32, \"heads\": 2, \"context\": 32, "

static const struct arch archs[] = {
    {"gpt2", "clm", SHAPE "\"arch\": \"gpt2\"", NOT_SPREAD, ", \"dropout\": 0.1"},
    {"opt", "clm", SHAPE "\"arch\": \"opt\", \"norm\": \"after\", \"d_embed\": 16", NOT_SPREAD,
     ""},
    {"qwen2", "clm",
     SHAPE "\"arch\": \"llama\", \"kv_heads\": 1, \"tied\": false, \"qkv_bias\": true", SPREAD,
     ""},
    {"yi", "clm",
     SHAPE "\"arch\": \"llama\", \"kv_heads\": 1, \"rope_theta\": 5e6, \"window\": 9, "
           "\"unit\": \"documents\"",
     NOT_SPREAD, ""},
    {"transnormer", "clm", SHAPE "\"arch\": \"transnormer\"", TWO_STEPS, ""},
    {"moe", "clm", SHAPE "\"arch\": \"moe\", \"experts\": 8, \"shared_experts\": 1", SPREAD, "",
     ", \"expert_parallel\": true"},
    {"bert", "mlm", SHAPE "\"whole_words\": true", NOT_SPREAD, ""},
    {"t5", "span_corruption", SHAPE "\"tied\": true", TWO_STEPS, ""},
};

#define STEPS 8
#define MIDDLE 4

static bool long_mode(void)
{
    const char *mode = getenv("ATHANOR_TEST_MODE");

    return mode && strcmp(mode, "long") == 0;
}

struct variant {
    const char *suffix; /* of the job's name */
    const char *params; /* more, beginning with a comma, or ""                   */
    const char *resume; /* NULL, or the suffix of the job whose middle it takes  */
    int ranks;
    uint64_t kill_at;
    int steps; /* 0: STEPS */
};

static void train(const struct place *place, const struct arch *arch, const struct variant *variant,
                  struct trace *trace)
{
    char *name = mem_printf("%s%s", arch->name, variant->suffix);
    char *from = variant->resume ? mem_printf("%s%s", arch->name, variant->resume) : NULL;
    char *resume = from ? checkpoint_of(place, from, MIDDLE) : NULL;
    char *data = lines_input(place, "train");
    char *spec = mem_printf("\"kind\": \"pretraining\", \"recipe\": \"%s\", \"checkpoint\": "
                            "{\"every_steps\": 2}, \"inputs\": {\"data\": %s}, \"params\": "
                            "{%s%s, \"steps\": %d, \"batch\": 12, \"learning_rate\": 0.003}",
                            arch->recipe, data, arch->params, variant->params,
                            variant->steps ? variant->steps : STEPS);
    struct job_run job = {.name = name, .spec = spec, .resume = resume, .ranks = variant->ranks,
                          .kill_at = variant->kill_at, .may_fail = variant->kill_at > 0};
    int status = run_job_in(place, &job, trace);

    assert_true((status != 0) == (variant->kill_at > 0));
    mem_free(name);
    mem_free(from);
    mem_free(resume);
    mem_free(data);
    mem_free(spec);
}

static void assert_same_end(const struct place *place, const struct arch *arch, const char *a,
                            const char *b, int ranks)
{
    char *name_a = mem_printf("%s%s", arch->name, a), *name_b = mem_printf("%s%s", arch->name, b);
    char *end_a = checkpoint_of(place, name_a, STEPS), *end_b = checkpoint_of(place, name_b, STEPS);

    assert_same_file(end_a, end_b, "model.safetensors");
    for (int rank = 0; rank < ranks; rank++) {
        char *file = mem_printf("optim-%05d-of-%05d.safetensors", rank, ranks);

        assert_same_file(end_a, end_b, file);
        mem_free(file);
    }
    mem_free(name_a);
    mem_free(name_b);
    mem_free(end_a);
    mem_free(end_b);
}

/* The undisturbed run, the same until it is killed, and the resume in the folder that the kill
 * has left: the same bits in all three. */
static void check_kill(const struct place *place, const struct arch *arch, const char *params,
                       const char *suffix, int ranks, struct trace *whole)
{
    char *dead = mem_printf("%s-killed", suffix);
    struct variant variant = {suffix, params, NULL, ranks, 0};
    struct trace killed = {0}, resumed = {0};

    train(place, arch, &variant, whole);
    variant = (struct variant){dead, params, NULL, ranks, MIDDLE};
    train(place, arch, &variant, &killed);
    assert_same_trace(whole, &killed, 0, 0);
    assert_true(trace_at(&killed, "loss", MIDDLE) == trace_at(whole, "loss", MIDDLE));
    variant = (struct variant){dead, params, dead, ranks, 0};
    train(place, arch, &variant, &resumed);
    assert_same_trace(whole, &resumed, MIDDLE, 0);
    assert_true(trace_at(&resumed, "loss", STEPS) == trace_at(whole, "loss", STEPS));
    assert_same_end(place, arch, suffix, dead, ranks);
    trace_done(&killed);
    trace_done(&resumed);
    mem_free(dead);
}

static void every_architecture_goes_on_after_a_kill_with_the_same_bits(void **state)
{
    for (size_t i = 0; i < ARRAY_COUNT(archs); i++) {
        struct trace whole = {0};

        check_kill(*state, &archs[i], archs[i].alone, "", 1, &whole);
        trace_done(&whole);
    }
}

static char *shared(const struct arch *arch)
{
    return mem_printf(", \"zero\": true%s", arch->spread ? arch->spread : "");
}

/* The middle of the run on four ranks goes on with others, with blocks computed again, and without
 * anything shared: to rounding as if nothing had been. */
static void check_elastic(const struct place *place, const struct arch *arch,
                          const struct trace *whole)
{
    for (int ranks = long_mode() ? 1 : 3; ranks <= 3; ranks++) {
        char *suffix = mem_printf("-on-%d", ranks);
        char *same = ranks == 2 ? mem_strdup("") : shared(arch);
        char *params = mem_printf("%s%s", same, ranks == 3 ? ", \"recompute\": \"block\"" : "");
        struct variant variant = {suffix, params, "-four", ranks, 0};
        struct trace resumed = {0};

        train(place, arch, &variant, &resumed);
        assert_same_trace(whole, &resumed, MIDDLE, 1e-5);
        trace_done(&resumed);
        mem_free(suffix);
        mem_free(same);
        mem_free(params);
    }
}

/* The first steps, without a kill. */
static void check_few_steps(const struct place *place, const struct arch *arch)
{
    struct variant alone = {.suffix = "-alone", .params = "", .ranks = 1, .steps = 2};
    struct variant four = {.suffix = "-four", .params = ", \"zero\": true", .ranks = 4, .steps = 2};
    struct trace one = {0}, whole = {0};

    train(place, arch, &alone, &one);
    train(place, arch, &four, &whole);
    assert_same_trace(&one, &whole, 0, 1e-5);
    trace_done(&one);
    trace_done(&whole);
}

static void four_ranks_with_shared_moments_and_experts_agree_with_one(void **state)
{
    for (size_t i = 0; i < ARRAY_COUNT(archs); i++) {
        struct variant alone = {"-alone", "", NULL, 1, 0};
        struct variant plain = {"-plain", "", NULL, 4, 0};
        struct trace one = {0}, whole = {0}, unshared = {0};

        if (archs[i].spreads != SPREAD && !long_mode()) {
            if (archs[i].spreads == TWO_STEPS)
                check_few_steps(*state, &archs[i]);
            continue;
        }
        train(*state, &archs[i], &alone, &one);
        char *params = shared(&archs[i]);

        check_kill(*state, &archs[i], params, "-four", 4, &whole);
        mem_free(params);
        assert_same_trace(&one, &whole, 0, 1e-5);
        check_elastic(*state, &archs[i], &whole);
        if (long_mode()) { /* unit-engine-comm_test compares them otherwise */
            train(*state, &archs[i], &plain, &unshared);
            assert_same_trace(&whole, &unshared, 0, archs[i].spread ? 1e-5 : 0);
        }
        trace_done(&one);
        trace_done(&whole);
        trace_done(&unshared);
    }
}

/* The largest difference of a weight, relative to 1 where weights are smaller. */
static double weights_apart(const struct place *place, const char *a, const char *b, int steps)
{
    char *end_a = checkpoint_of(place, a, (uint64_t)steps);
    char *end_b = checkpoint_of(place, b, (uint64_t)steps);
    struct device_config config = {.kind = BACKEND_CPU, .threads = 1};
    struct model *model_a, *model_b;
    struct device *device;
    double apart = 0;

    OK(device_open(&config, &device, &fixture_err));
    OK(model_files_open(end_a, device, true, &model_a, &fixture_err));
    OK(model_files_open(end_b, device, true, &model_b, &fixture_err));
    for (int64_t i = 0; i < model_a->flat_count; i++) {
        double x = tensor_f32(&model_a->flat)[i], y = tensor_f32(&model_b->flat)[i];

        apart = fmax(apart, fabs(x - y) / fmax(1, fabs(x)));
    }
    model_free(model_a);
    model_free(model_b);
    device_close(device);
    mem_free(end_a);
    mem_free(end_b);
    return apart;
}

/* Card of mixtures, section 10, 4: losses of twenty steps to 1e-6, weights after them to 1e-5. */
static void experts_on_two_and_four_ranks_keep_the_trace_of_one(void **state)
{
    static const struct arch moe = {
        "spread", "clm", SHAPE "\"arch\": \"moe\", \"experts\": 8", SPREAD, "", NULL};
    struct variant variant = {.suffix = "-1", .params = "", .ranks = 1, .steps = 20};
    struct trace one = {0}, several;

    if (!long_mode())
        skip();
    train(*state, &moe, &variant, &one);
    for (variant.ranks = 2; variant.ranks <= 4; variant.ranks += 2) {
        variant.suffix = variant.ranks == 2 ? "-2" : "-4";
        variant.params = ", \"expert_parallel\": true";
        several = (struct trace){0};
        train(*state, &moe, &variant, &several);
        for (uint64_t step = 1; step <= 20; step++) {
            double loss = trace_at(&one, "loss", step);

            if (!(fabs(trace_at(&several, "loss", step) - loss) <= 1e-6 * loss))
                fail_msg("%d ranks, step %d: loss %.9g, of one %.9g", variant.ranks, (int)step,
                         trace_at(&several, "loss", step), loss);
        }
        assert_true(weights_apart(*state, "spread-1",
                                  variant.ranks == 2 ? "spread-2" : "spread-4", 20) <= 1e-5);
        trace_done(&several);
    }
    trace_done(&one);
}

static int with_lines(void **state)
{
    if (place_open(state) < 0)
        return -1;
    make_lines(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_architecture_goes_on_after_a_kill_with_the_same_bits),
        cmocka_unit_test(four_ranks_with_shared_moments_and_experts_agree_with_one),
        cmocka_unit_test(experts_on_two_and_four_ranks_keep_the_trace_of_one),
    };

    return cmocka_run_group_tests(tests, with_lines, place_close);
}
