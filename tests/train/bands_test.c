/* bands_test.c - how well models of every family learn a real text, in the settings of their method
 * cards: engine-anchors (section 9), pretraining-transnormer and -moe (10), pretraining-yi (8).
 *
 * 600 steps of 16 windows of 64 characters of tinyshakespeare; three blocks of width 64, equally
 * many weights in each comparison (157k); in one test nanoGPT's settings for CPUs. The bounds are
 * the cards', mostly of differences of the losses on the last tenth of the text, in nats a
 * character; another seed moves a loss by 0.008. Long mode only. */
#include "tests/train/plays.h"

#define LAYERS(count) "\"layers\": " #count ", \"d_model\": 64, \"heads\": 4, \"context\": 64, " \
                      "\"tied\": false, \"batch\": 16, \"learning_rate\": 0.003, "
#define SMALL LAYERS(3) "\"steps\": 600, \"warmup\": 50, "
#define LLAMA SMALL "\"arch\": \"llama\", \"d_ff\": 171"
#define TRANSNORMER SMALL "\"arch\": \"transnormer\", "
#define MOE SMALL "\"arch\": \"moe\", \"experts\": 8, \"experts_per_token\": 2, \"d_ff\": 86"

/* init: a member of "inputs" with the comma before it, or "". */
static void train(const struct place *place, const char *name, const char *init,
                  const char *params, struct trace *trace)
{
    char *spec = mem_printf("\"kind\": \"pretraining\", \"recipe\": \"clm\", \"inputs\": "
                            "{\"data\": {\"path\": \"%s/plays\", \"part\": \"train\"}, "
                            "\"valid\": {\"path\": \"%s/plays\", \"part\": \"valid\"}%s}, "
                            "\"params\": {\"eval_every\": 0, %s}",
                            place->folder, place->folder, init, params);
    struct job_run job = {.name = name, .spec = spec};

    run_job_in(place, &job, trace);
    mem_free(spec);
}

/* The loss on the rest of the text after all `steps`. */
static double learnt(const struct place *place, const char *name, const char *params,
                     uint64_t steps)
{
    struct trace trace = {0};
    double loss;

    train(place, name, "", params, &trace);
    loss = trace_at(&trace, "val_loss", steps);
    print_message("%s: %.4f\n", name, loss);
    trace_done(&trace);
    return loss;
}

/* The dense twin of all comparisons; trained once. */
static double twin_loss(const struct place *place)
{
    static double loss;

    if (loss == 0)
        loss = learnt(place, "llama", LLAMA, 600);
    return loss;
}

static void settings_of_nanogpt_for_cpus_reach_what_they_reach_there(void **state)
{
    if (!plays_are_there(*state))
        skip();
    assert_true(learnt(*state, "gpt2",
                       "\"arch\": \"gpt2\", \"layers\": 4, \"d_model\": 128, \"heads\": 4, "
                       "\"context\": 64, \"batch\": 12, \"steps\": 2000, \"warmup\": 100, "
                       "\"learning_rate\": 0.001, \"beta2\": 0.99", 2000) <= 1.95);
}

/* Widths of the gated units make up for what a variant lacks. Nothing is asked of the paper's
 * decays, which cost 0.02 in the card's prototype and gain 0.012 and 0.023 (two seeds) here. */
static void linear_attention_is_near_softmax_and_needs_its_parts(void **state)
{
    const struct place *place = *state;

    if (!plays_are_there(place))
        skip();
    double twin = twin_loss(place);
    double whole = learnt(place, "transnormer", TRANSNORMER "\"d_ff\": 150", 600);
    double turned = learnt(place, "turned", TRANSNORMER "\"d_ff\": 150, \"lrpe\": \"all\"", 600);
    double kept = learnt(place, "kept", TRANSNORMER "\"d_ff\": 150, \"decay\": \"none\"", 600);
    double ungated = learnt(place, "ungated",
                            TRANSNORMER "\"d_ff\": 171, \"output_gate\": false", 600);

    assert_true(whole <= twin + 0.05);
    assert_true(turned <= whole - 0.01);
    assert_true(kept >= whole + 0.04);
    assert_true(ungated >= whole + 0.02);
}

/* Of the last 50 steps: the most or least tokens of an expert, as a multiple of equal loads. */
static double load_of(const struct trace *trace, const char *which)
{
    double sum = 0;

    for (uint64_t step = 551; step <= 600; step++)
        sum += trace_at(trace, which, step) / 50;
    return sum;
}

static void experts_beat_their_dense_twin_and_need_the_losses_of_the_router(void **state)
{
    const struct place *place = *state;
    struct trace balanced = {0}, loose = {0};

    if (!plays_are_there(place))
        skip();
    train(place, "moe", "", MOE, &balanced);
    train(place, "loose", "", MOE ", \"balance_loss\": 0, \"z_loss\": 0", &loose);
    double loss = trace_at(&balanced, "val_loss", 600);

    double highest = load_of(&balanced, "highest_load"), lowest = load_of(&balanced, "lowest_load");
    double most = load_of(&loose, "highest_load"), least = load_of(&loose, "lowest_load");
    print_message("moe: %.4f, loads %.2f to %.2f; without losses %.4f, loads %.2f to %.2f\n", loss,
                  lowest, highest, trace_at(&loose, "val_loss", 600), least, most);
    assert_true(loss <= twin_loss(place) - 0.005);
    assert_true(highest <= 1.6 && lowest >= 0.4);
    assert_true(most > highest + 0.4 && least < 0.2);
    trace_done(&balanced);
    trace_done(&loose);
}

static void one_head_of_keys_is_near_as_many_as_queries(void **state)
{
    if (!plays_are_there(*state))
        skip();
    assert_true(learnt(*state, "grouped",
                       SMALL "\"arch\": \"llama\", \"kv_heads\": 1, \"d_ff\": 203", 600) <=
                twin_loss(*state) + 0.05);
}

/* Loss of the doubled model as it is (a rate of 0 leaves the weights), and after 150 steps. */
static void doubled_blocks_cost_little_and_pay_after_a_few_steps(void **state)
{
    const struct place *place = *state;
    struct trace copied = {0}, taught = {0};

    if (!plays_are_there(place))
        skip();
    double before = learnt(place, "six", LAYERS(6) "\"arch\": \"llama\", \"d_ff\": 171, "
                                                   "\"steps\": 400, \"warmup\": 50", 400);
    char *from = checkpoint_of(place, "six", 400);
    char *init = mem_printf(", \"init\": {\"path\": \"%s\"}", from);

#define DOUBLED "\"upscale\": \"2-5\", \"batch\": 16, \"schedule\": \"constant\", "
    train(place, "copied", init, DOUBLED "\"learning_rate\": 0, \"steps\": 1", &copied);
    train(place, "taught", init, DOUBLED "\"learning_rate\": 0.001, \"steps\": 150", &taught);
    double after = trace_at(&copied, "val_loss", 1), end = trace_at(&taught, "val_loss", 150);

    print_message("nine blocks of six: %.4f, after 150 steps %.4f\n", after, end);
    assert_true(after >= before && after <= before + 0.25);
    assert_true(end <= before);
    trace_done(&copied);
    trace_done(&taught);
    mem_free(from);
    mem_free(init);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_head_of_keys_is_near_as_many_as_queries),
        cmocka_unit_test(doubled_blocks_cost_little_and_pay_after_a_few_steps),
        cmocka_unit_test(experts_beat_their_dense_twin_and_need_the_losses_of_the_router),
        cmocka_unit_test(linear_attention_is_near_softmax_and_needs_its_parts),
        cmocka_unit_test(settings_of_nanogpt_for_cpus_reach_what_they_reach_there),
    };

    cmocka_set_test_filter(getenv("ATHANOR_TEST_FILTER"));
    return cmocka_run_group_tests(tests, place_open, place_close);
}
