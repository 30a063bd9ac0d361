/* finetune_test.c - adapters (sft with lora_rank, merge) and preferences (dpo).
 *
 * Adapters: what is merged scores as what was trained, the base stays, files are peft's. DPO: the
 * published values where nothing is learned yet, and the direction in a small world of preferences
 * (card alignment, acceptance 0 and 2): prompts of four classes, responses of six of twenty
 * letters, five of them good for a class, preferences by the true reward 4 * (share of good
 * letters) with the noise of Bradley and Terry. One seed by default, five in long mode. */
#include "tests/train/fixture.h"
#include "worker/engine/generate.h"
#include "worker/engine/io/adapters.h"
#include "worker/engine/io/model_files.h"
#include "worker/engine/io/safetensors.h"

static bool long_mode(void)
{
    const char *mode = getenv("ATHANOR_TEST_MODE");

    return mode && strcmp(mode, "long") == 0;
}

static char *part_of(const struct place *place, const char *dataset, const char *part)
{
    return mem_printf("{\"path\": \"%s/%s\", \"part\": \"%s\"}", place->folder, dataset, part);
}

static void run_spec(const struct place *place, const char *name, char *spec, const char *resume,
                     int ranks, struct trace *trace)
{
    struct job_run job = {.name = name, .spec = spec, .resume = resume, .ranks = ranks};

    run_job_in(place, &job, trace);
    mem_free(spec);
}

/* -- adapters ------------------------------------------------------------------------------- */

#define SHAPE "\"layers\": 1, \"d_model\": 32, \"heads\": 2, \"context\": 64"

static void sft(const struct place *place, const char *name, const char *init, const char *params,
                const char *resume, int ranks, struct trace *trace)
{
    char *data = part_of(place, "toys", "train"), *valid = part_of(place, "toys", "valid");
    char *start = init ? mem_printf(", \"init\": {\"path\": \"%s/%s\"}", place->folder, init)
                       : mem_printf("%s", "");

    run_spec(place, name,
             mem_printf("\"kind\": \"finetuning\", \"recipe\": \"sft\", \"checkpoint\": "
                        "{\"every_steps\": 5}, \"inputs\": {\"data\": %s, \"valid\": %s%s}, "
                        "\"params\": {\"separator\": \":\", \"batch\": 8, %s}",
                        data, valid, start, params),
             resume, ranks, trace);
    mem_free(start);
    mem_free(data);
    mem_free(valid);
}

static int with_bases(void **state)
{
    if (place_open(state) < 0)
        return -1;
    sft(*state, "base", NULL, SHAPE ", \"steps\": 20, \"learning_rate\": 0.01", NULL, 1, NULL);
    sft(*state, "llama", NULL,
        SHAPE ", \"arch\": \"llama\", \"qkv_bias\": true, \"steps\": 20, "
              "\"learning_rate\": 0.01", NULL, 1, NULL);
    return 0;
}

#define BASE "base/checkpoints/step-0000000020"
#define LORA                                                                                       \
    "\"lora_rank\": 4, \"lora_alpha\": 8, \"steps\": 10, \"learning_rate\": 0.01, "                \
    "\"grad_accum\": 2"

/* The loss of a checkpoint's model on `valid`, as sft scores it: a step without learning. */
static double loss_of(const struct place *place, const char *name, const char *folder)
{
    struct trace trace = {0};
    double loss;

    sft(place, name, folder, "\"steps\": 1, \"learning_rate\": 0", NULL, 1, &trace);
    loss = trace_at(&trace, "val_loss", 1);
    trace_done(&trace);
    return loss;
}

static void adapters_train_resume_and_spread(void **state)
{
    const struct place *place = *state;
    char *middle = checkpoint_of(place, "lora", 5), *end = checkpoint_of(place, "lora", 10);
    char *resumed_end = checkpoint_of(place, "lora-resumed", 10);
    struct trace first = {0}, rest = {0}, ranks = {0};

    sft(place, "lora", BASE, LORA, NULL, 1, &first);
    sft(place, "lora-resumed", BASE, LORA, middle, 1, &rest);
    assert_same_trace(&first, &rest, 5, 0);
    assert_same_file(end, resumed_end, "adapter_model.safetensors");
    assert_same_file(end, resumed_end, "optim-00000-of-00001.safetensors");
    sft(place, "lora-two", BASE, LORA, NULL, 2, &ranks);
    assert_same_trace(&first, &ranks, 0, 1e-5);
    assert_true(trace_at(&first, "val_loss", 10) < loss_of(place, "before", BASE));
    trace_done(&first);
    trace_done(&rest);
    trace_done(&ranks);
    mem_free(middle);
    mem_free(end);
    mem_free(resumed_end);
}

/* The Llama of the tests as if it had been published with stretched positions. */
static void write_stretched(const struct place *place, const struct rope_scaling *scaling)
{
    struct device_config config = {.kind = BACKEND_CPU, .threads = 1};
    char *from = checkpoint_of(place, "llama", 20), *to = job_path(place, "stretched", "");
    struct device *device;
    struct model *model;

    OK(device_open(&config, &device, &fixture_err));
    OK(model_files_open(from, device, true, &model, &fixture_err));
    model->config.rope = *scaling;
    OK(file_make_folders(to, 0755, &fixture_err));
    OK(model_files_write(to, model, &fixture_err));
    model_free(model);
    device_close(device);
    mem_free(from);
    mem_free(to);
}

static void a_qwen_of_scaled_rotations_is_finetuned_and_resumed_to_the_bit(void **state)
{
    static const struct rope_scaling yarn = {ROPE_YARN, 4, .slow = 1, .fast = 32, .original = 16};
    const char *params = "\"steps\": 10, \"learning_rate\": 0.003";
    const struct place *place = *state;
    char *middle = checkpoint_of(place, "yarn", 5), *end = checkpoint_of(place, "yarn", 10);
    char *resumed_end = checkpoint_of(place, "yarn-resumed", 10);
    char *shorter = checkpoint_of(place, "yarn-lora", 10);
    struct trace plain = {0}, first = {0}, rest = {0};
    struct model_config config;

    write_stretched(place, &yarn);
    sft(place, "unstretched", "llama/checkpoints/step-0000000020", "\"steps\": 1", NULL, 1, &plain);
    sft(place, "yarn", "stretched", params, NULL, 1, &first);
    sft(place, "yarn-resumed", "stretched", params, middle, 1, &rest);
    assert_true(fabs(trace_at(&first, "loss", 1) - trace_at(&plain, "loss", 1)) > 1e-4);
    assert_same_trace(&first, &rest, 5, 0);
    assert_same_file(end, resumed_end, "model.safetensors");
    assert_same_file(end, resumed_end, "optim-00000-of-00001.safetensors");
    sft(place, "yarn-lora", "stretched", LORA ", \"new_context\": 32", NULL, 1, NULL);
    OK(model_config_read(end, &config, &fixture_err));
    assert_int_equal(config.context, 64);
    assert_true(config.qkv_bias && rope_scaling_equal(&config.rope, &yarn));
    OK(model_config_read(shorter, &config, &fixture_err)); /* merged */
    assert_int_equal(config.context, 32);
    assert_true(config.qkv_bias && rope_scaling_equal(&config.rope, &yarn));
    mem_free(shorter);
    trace_done(&plain);
    trace_done(&first);
    trace_done(&rest);
    mem_free(middle);
    mem_free(end);
    mem_free(resumed_end);
}

/* Trained beside the base, merged while saving, merged by a job, and read from the adapters: one
 * model. For GPT-2, whose files are transposed, and a Llama with the biases of Qwen 2, whose
 * products are joined. */
static void merged_adapters_are_the_model_that_was_trained(void **state)
{
    static const char *const bases[] = {BASE, "llama/checkpoints/step-0000000020"};
    const struct place *place = *state;

    for (int i = 0; i < 2; i++) {
        char *alone = mem_printf("alone-%d", i), *merge = mem_printf("merge-%d", i);
        char *both = mem_printf("both-%d", i), *score = mem_printf("score-%d", i);
        char *end = checkpoint_of(place, alone, 10), *merged = checkpoint_of(place, merge, 1);
        char *beside = checkpoint_of(place, both, 10);
        char *adapters = mem_printf("%s/checkpoints/step-0000000010", alone);
        struct trace trace = {0};
        double trained;

        sft(place, alone, bases[i], LORA ", \"merge\": false", NULL, 1, &trace);
        sft(place, both, bases[i], LORA, NULL, 1, NULL);
        run_spec(place, merge,
                 mem_printf("\"kind\": \"finetuning\", \"recipe\": \"merge\", \"inputs\": "
                            "{\"adapters\": {\"path\": \"%s\"}}",
                            end),
                 NULL, 1, NULL);
        assert_same_file(merged, beside, "model.safetensors");
        assert_same_file(merged, beside, "config.json");
        trained = trace_at(&trace, "val_loss", 10);
        assert_float_equal(loss_of(place, score, adapters), trained, 1e-5);
        trace_done(&trace);
        mem_free(adapters);
        mem_free(beside);
        mem_free(merged);
        mem_free(end);
        mem_free(score);
        mem_free(both);
        mem_free(merge);
        mem_free(alone);
    }
}

/* The layout that peft reads: fields, and A and B of each module. */
static void adapter_files_are_pefts(void **state)
{
    const struct place *place = *state;
    char *folder = job_path(place, "alone-1/checkpoints/step-0000000010", "");
    char *path = mem_printf("%s/adapter_config.json", folder), *text;
    char *arrays = mem_printf("%s/adapter_model.safetensors", folder);
    struct safetensors file;
    size_t length, index;
    json_t *root, *module;
    bool found = false;

    OK(file_read(path, 1 << 20, &text, &length, &fixture_err));
    root = json_loadb(text, length, 0, NULL);
    assert_string_equal(json_string_value(json_object_get(root, "peft_type")), "LORA");
    assert_string_equal(json_string_value(json_object_get(root, "task_type")), "CAUSAL_LM");
    assert_int_equal(json_integer_value(json_object_get(root, "r")), 4);
    assert_true(json_number_value(json_object_get(root, "lora_alpha")) == 8);
    json_array_foreach(json_object_get(root, "target_modules"), index, module)
    {
        found = found || strcmp(json_string_value(module), "q_proj") == 0;
        assert_null(strchr(json_string_value(module), '.'));
    }
    assert_true(found);
    assert_true(adapters_alone(folder));
    OK(safetensors_open(arrays, &file, &fixture_err));
    assert_non_null(safetensors_find(
        &file, "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"));
    assert_non_null(safetensors_find(
        &file, "base_model.model.model.layers.0.mlp.down_proj.lora_B.weight"));
    safetensors_close(&file);
    json_decref(root);
    mem_free(text);
    mem_free(arrays);
    mem_free(path);
    mem_free(folder);
}

/* -- a small world of preferences ------------------------------------------------------------- */

#define CLASSES 4
#define LETTERS 20
#define WRITTEN 6
#define TEMPERATURE 2.0

static bool is_good(int class, int letter)
{
    return letter / 5 == class; /* five letters each */
}

static double true_reward(int class, const char *response, size_t length)
{
    double good = 0;

    for (size_t i = 0; i < length && i < WRITTEN; i++)
        good += response[i] >= 'a' && is_good(class, response[i] - 'a');
    return 4 * good / WRITTEN;
}

static void draw_response(struct rng *rng, char out[WRITTEN + 1])
{
    for (int i = 0; i < WRITTEN; i++)
        out[i] = (char)('a' + rng_below(rng, LETTERS));
    out[WRITTEN] = 0;
}

/* Pairs from a uniform reference, and what noisy annotators say of them. */
static void write_pairs(const struct place *place, const char *name, int count, uint64_t seed)
{
    struct buf text[2] = {0};
    struct rng rng;

    rng_init(&rng, seed);
    for (int i = 0; i < count; i++) {
        int class = (int)rng_below(&rng, CLASSES);
        char one[WRITTEN + 1], other[WRITTEN + 1];
        double gap;
        bool first;

        draw_response(&rng, one);
        draw_response(&rng, other);
        gap = true_reward(class, one, WRITTEN) - true_reward(class, other, WRITTEN);
        first = rng_unit(&rng) < 1 / (1 + exp(-TEMPERATURE * gap));
        buf_printf(&text[0], "%c\n%s\n\n", 'A' + class, first ? one : other);
        buf_printf(&text[1], "%c\n%s\n\n", 'A' + class, first ? other : one);
    }
    for (int side = 0; side < 2; side++) {
        char *path = mem_printf("%s/%s-%d.txt", place->folder, name, side);

        OK(file_replace(path, text[side].bytes, text[side].length, 0644, &fixture_err));
        mem_free(path);
        buf_done(&text[side]);
    }
}

static void make_preferences(const struct place *place, int count)
{
    write_pairs(place, "pairs", count, 1);
    write_pairs(place, "new", 400, 2);
    run_spec(place, "world",
             mem_printf("\"kind\": \"data\", \"recipe\": \"text\", \"params\": {\"files\": "
                        "[\"chosen=%s/pairs-0.txt\", \"rejected=%s/pairs-1.txt\", "
                        "\"new_chosen=%s/new-0.txt\", \"new_rejected=%s/new-1.txt\"], "
                        "\"vocab_size\": 257, \"holdout_share\": 0, \"name\": \"world\"}",
                        place->folder, place->folder, place->folder, place->folder),
             NULL, 1, NULL);
}

#define WORLD "world/datasets/world"

static void make_reference(const struct place *place, int seed, int steps)
{
    char *data = part_of(place, WORLD, "all"), *name = mem_printf("reference-%d", seed);

    run_spec(place, name,
             mem_printf("\"kind\": \"finetuning\", \"recipe\": \"sft\", \"inputs\": {\"data\": "
                        "%s}, \"params\": {\"layers\": 1, \"d_model\": 32, \"heads\": 4, "
                        "\"context\": 16, \"steps\": %d, \"batch\": 64, \"learning_rate\": 0.01, "
                        "\"seed\": %d}",
                        data, steps, seed),
             NULL, 1, NULL);
    mem_free(data);
    mem_free(name);
}

static void dpo(const struct place *place, const char *name, int seed, int reference_steps,
                const char *params, const char *resume, int ranks, struct trace *trace)
{
    static const char *const parts[] = {"chosen", "rejected", "new_chosen", "new_rejected"};
    char *input[4];

    for (int i = 0; i < 4; i++)
        input[i] = part_of(place, WORLD, parts[i]);
    run_spec(place, name,
             mem_printf("\"kind\": \"finetuning\", \"recipe\": \"dpo\", \"checkpoint\": "
                        "{\"every_steps\": 5}, \"inputs\": {\"chosen\": %s, \"rejected\": %s, "
                        "\"valid_chosen\": %s, \"valid_rejected\": %s, \"init\": {\"path\": "
                        "\"%s/reference-%d/checkpoints/step-%010d\"}}, \"params\": {%s, "
                        "\"eval_every\": 0, \"seed\": %d}",
                        input[0], input[1], input[2], input[3], place->folder, seed,
                        reference_steps, params, seed),
             resume, ranks, trace);
    for (int i = 0; i < 4; i++)
        mem_free(input[i]);
}

/* The world has twenty letters, the vocabulary all bytes: preferences say nothing of the others, so
 * the mass that leaves rejected letters may go there. */
static void only_letters(void *context, uint64_t index, const int32_t *token, int64_t count,
                         float *logits, int64_t V)
{
    (void)context;
    (void)index;
    (void)token;
    (void)count;
    for (int64_t v = 0; v < V; v++)
        if (v < 'a' || v >= 'a' + LETTERS)
            logits[v] = -INFINITY;
}

/* The mean true reward of 400 samples. */
static double sampled_reward(const struct place *place, const char *folder)
{
    enum { SAMPLES = 400 };
    struct device_config where = {.kind = BACKEND_CPU, .threads = 1};
    struct sampling sampling = {.temperature = 1, .top_p = 1, .seed = 3, .stop_token = -1,
                                .constrain = only_letters};
    int32_t prompt[CLASSES][3], room[SAMPLES][WRITTEN];
    struct prompt prompts[SAMPLES];
    struct generation texts[SAMPLES];
    char *path = job_path(place, folder, "");
    struct device *device = NULL;
    struct model *model = NULL;
    double sum = 0;

    OK(device_open(&where, &device, &fixture_err));
    OK(model_files_open(path, device, true, &model, &fixture_err));
    for (int i = 0; i < CLASSES; i++)
        memcpy(prompt[i], (int32_t[]){256, 'A' + i, '\n'}, sizeof prompt[i]);
    for (int i = 0; i < SAMPLES; i++) {
        prompts[i] = (struct prompt){prompt[i % CLASSES], 3};
        texts[i] = (struct generation){.token = room[i], .index = (uint64_t)i};
    }
    OK(generate(model, prompts, texts, SAMPLES, WRITTEN, &sampling, &fixture_err));
    for (int i = 0; i < SAMPLES; i++) {
        char response[WRITTEN];

        for (int64_t k = 0; k < texts[i].count; k++)
            response[k] = (char)room[i][k];
        sum += true_reward(i % CLASSES, response, (size_t)texts[i].count);
    }
    model_free(model);
    device_close(device);
    mem_free(path);
    return sum / SAMPLES;
}

static void dpo_raises_the_true_reward(void **state)
{
    const struct place *place = *state;
    int seeds = long_mode() ? 5 : 1, steps = long_mode() ? 94 : 40;

    make_preferences(place, long_mode() ? 4000 : 1500);
    for (int seed = 0; seed < seeds; seed++) {
        char *name = mem_printf("prefers-%d", seed);
        char *before = mem_printf("reference-%d/checkpoints/step-0000000060", seed);
        char *after = mem_printf("%s/checkpoints/step-%010d", name, steps);
        char *params = mem_printf("\"steps\": %d, \"batch\": 128, \"learning_rate\": 5e-3, "
                                  "\"schedule\": \"constant\"", steps);
        struct trace trace = {0};
        double reward, raised;

        make_reference(place, seed, 60);
        dpo(place, name, seed, 60, params, NULL, 1, &trace);
        reward = sampled_reward(place, before);
        raised = sampled_reward(place, after);
        print_message("seed %d: true reward %.2f, then %.2f; accuracy on new pairs %.3f, margin "
                      "%.3f, log p of the chosen %.2f, then %.2f\n",
                      seed, reward, raised, trace_at(&trace, "val_reward_accuracy",
                                                     (uint64_t)steps),
                      trace_at(&trace, "val_reward_margin", (uint64_t)steps),
                      trace_at(&trace, "logp_chosen", 1),
                      trace_at(&trace, "logp_chosen", (uint64_t)steps));
        assert_float_equal(trace_at(&trace, "loss", 1), log(2), 1e-4);
        assert_true(reward < 1.25 && raised >= 1.6);
        assert_true(trace_at(&trace, "val_reward_accuracy", (uint64_t)steps) > 0.6);
        assert_true(trace_at(&trace, "logp_chosen", (uint64_t)steps) <
                    trace_at(&trace, "logp_chosen", 1)); /* known of DPO: only the margin counts */
        assert_true(trace_at(&trace, "val_reward_margin", (uint64_t)steps) > 0);
        trace_done(&trace);
        mem_free(params);
        mem_free(after);
        mem_free(before);
        mem_free(name);
    }
}

/* Where the model is still its reference: sigmoid ln 2, hinge 1, ipo 1 / (4 beta^2). */
static void losses_begin_at_their_published_values(void **state)
{
    static const struct {
        const char *name, *params;
        double loss;
    } cases[] = {
        {"smooth", "\"label_smoothing\": 0.2, \"steps\": 1", 0.693147},
        {"hinge", "\"loss\": \"hinge\", \"steps\": 1", 1},
        {"ipo", "\"loss\": \"ipo\", \"beta\": 0.5, \"steps\": 1", 1},
        {"lora-dpo", "\"lora_rank\": 2, \"steps\": 1", 0.693147},
    };

    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct trace trace = {0};

        dpo(*state, cases[i].name, 0, 60, cases[i].params, NULL, 1, &trace);
        assert_float_equal(trace_at(&trace, "loss", 1), cases[i].loss, 1e-4);
        assert_float_equal(trace_at(&trace, "reward_margin", 1), 0, 1e-4);
        trace_done(&trace);
    }
}

static void dpo_repeats_and_resumes(void **state)
{
    static const char params[] = "\"steps\": 10, \"batch\": 8, \"learning_rate\": 1e-3, "
                                 "\"grad_accum\": 2, \"label_smoothing\": 0.1";
    const struct place *place = *state;
    char *middle = checkpoint_of(place, "dpo", 5), *end = checkpoint_of(place, "dpo", 10);
    char *resumed_end = checkpoint_of(place, "dpo-resumed", 10);
    struct trace first = {0}, rest = {0}, ranks = {0};

    dpo(place, "dpo", 0, 60, params, NULL, 1, &first);
    dpo(place, "dpo-resumed", 0, 60, params, middle, 1, &rest);
    assert_same_trace(&first, &rest, 5, 0);
    assert_same_file(end, resumed_end, "model.safetensors");
    dpo(place, "dpo-two", 0, 60, params, NULL, 2, &ranks);
    assert_same_trace(&first, &ranks, 0, 1e-4);
    trace_done(&first);
    trace_done(&rest);
    trace_done(&ranks);
    mem_free(middle);
    mem_free(end);
    mem_free(resumed_end);
}

static void what_cannot_be_finetuned_is_refused(void **state)
{
    static const struct {
        const char *spec, *complaint;
    } wrong[] = {
        {"\"recipe\": \"sft\", \"inputs\": {\"data\": %s}, \"params\": {\"lora_rank\": 2, "
         "\"separator\": \":\"}",
         "needs an input 'init'"},
        {"\"recipe\": \"sft\", \"inputs\": {\"data\": %s, \"init\": %s}, \"params\": "
         "{\"lora_rank\": 2, \"lora_targets\": \"moon\", \"separator\": \":\"}",
         "no weight is called 'moon'"},
        {"\"recipe\": \"dpo\", \"inputs\": {\"chosen\": %s, \"rejected\": %s, \"init\": %s}, "
         "\"params\": {\"separator\": \":\"}",
         "pairs are documents of the same number"},
        {"\"recipe\": \"merge\", \"inputs\": {\"adapters\": %s}", "holds no adapters alone"},
    };
    const struct place *place = *state;
    char *train = part_of(place, "toys", "train"), *valid = part_of(place, "toys", "valid");
    char *base = mem_printf("{\"path\": \"%s/" BASE "\"}", place->folder);
    const char *args[ARRAY_COUNT(wrong)][3] = {{train, "", ""}, {train, base, ""},
                                               {train, valid, base}, {base, "", ""}};

    for (size_t i = 0; i < ARRAY_COUNT(wrong); i++) {
        struct buf spec = {0};
        const char *at = wrong[i].spec;
        char *path = job_path(place, "wrong", ".log"), *log = NULL;
        size_t length;

        buf_puts(&spec, "\"kind\": \"finetuning\", ");
        for (int k = 0; *at; at++) {
            if (at[0] == '%' && at[1] == 's') {
                buf_puts(&spec, args[i][k++]);
                at++;
            } else {
                buf_putc(&spec, *at);
            }
        }
        struct job_run job = {.name = "wrong", .spec = buf_text(&spec), .may_fail = true};

        assert_int_equal(run_job_in(place, &job, NULL), 1);
        OK(file_read(path, 1 << 20, &log, &length, &fixture_err));
        if (!strstr(log, wrong[i].complaint))
            fail_msg("expected '%s' in: %s", wrong[i].complaint, log);
        mem_free(log);
        mem_free(path);
        buf_done(&spec);
    }
    mem_free(train);
    mem_free(valid);
    mem_free(base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adapters_train_resume_and_spread),
        cmocka_unit_test(a_qwen_of_scaled_rotations_is_finetuned_and_resumed_to_the_bit),
        cmocka_unit_test(merged_adapters_are_the_model_that_was_trained),
        cmocka_unit_test(adapter_files_are_pefts),
        cmocka_unit_test(dpo_raises_the_true_reward),
        cmocka_unit_test(losses_begin_at_their_published_values),
        cmocka_unit_test(dpo_repeats_and_resumes),
        cmocka_unit_test(what_cannot_be_finetuned_is_refused),
    };

    return cmocka_run_group_tests(tests, with_bases, place_close);
}
