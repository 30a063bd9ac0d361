/* recipes_test.c - what every recipe must do: the known trace, the same bits again, the same
 * bits after a resume, the same numbers on two ranks.
 *
 * Golden traces lie in tests/train/golden; ATHANOR_BLESS=1 rewrites them: review the diff.
 * They are compared to 1e-4, because another machine's vector width changes the last bits. */
#include "tests/train/fixture.h"
#include "worker/engine/io/model_files.h"

#define TOKENS 257 /* of the toys: bytes, and the one that begins a document */

struct golden_case {
    const char *name;
    const char *spec; /* D stands for the dataset's directory, P for the place */
    uint64_t steps;   /* 0: an evaluation, which takes no checkpoint */
};

#define PART(name) "{\"ref\": \"dataset:toys/" name "\", \"path\": \"D\", \"part\": \"" name "\"}"
#define MODEL(job, step)                                                                           \
    "{\"ref\": \"job:" job "/checkpoint:last\", \"path\": \"P/" job "/checkpoints/step-" step "\"" \
    "}"
#define SHAPE "\"layers\": 2, \"d_model\": 32, \"heads\": 2, \"context\": 64"

static const struct golden_case base_case = {
    "base",
    "\"kind\": \"pretraining\", \"recipe\": \"clm\", \"checkpoint\": {\"every_steps\": 20}, "
    "\"inputs\": {\"data\": " PART("train") ", \"valid\": " PART(
        "valid") "}, "
                 "\"params\": {" SHAPE ", \"steps\": 40, \"batch\": 8, \"learning_rate\": 0.01, "
                 "\"eval_every\": 10}",
    40};

#define BASE MODEL("base", "0000000040")

static const struct golden_case cases[] = {
    {"clm_llama",
     "\"kind\": \"pretraining\", \"recipe\": \"clm\", \"checkpoint\": {\"every_steps\": 6}, "
     "\"inputs\": {\"data\": " PART("train") ", \"valid\": " PART(
         "valid") "}, "
                  "\"params\": {\"arch\": \"llama\", \"kv_heads\": 1, \"tied\": false, " SHAPE
                  ", \"unit\": \"documents\", \"grad_accum\": 2, \"steps\": 12, \"batch\": 8, "
                  "\"learning_rate\": 0.003, \"schedule\": \"wsd\", \"warmup\": 3}",
     12},
    {"clm_transnormer",
     "\"kind\": \"pretraining\", \"recipe\": \"clm\", \"checkpoint\": {\"every_steps\": 6}, "
     "\"inputs\": {\"data\": " PART("train") ", \"valid\": " PART(
         "valid") "}, "
                  "\"params\": {\"arch\": \"transnormer\", " SHAPE
                  ", \"unit\": \"documents\", \"steps\": 12, \"batch\": 8, "
                  "\"learning_rate\": 0.003}",
     12},
    {"clm_moe",
     "\"kind\": \"pretraining\", \"recipe\": \"clm\", \"checkpoint\": {\"every_steps\": 6}, "
     "\"inputs\": {\"data\": " PART("train") ", \"valid\": " PART(
         "valid") "}, "
                  "\"params\": {\"arch\": \"moe\", \"experts\": 4, \"capacity_factor\": 1.25, "
                  "\"shared_experts\": 1, \"dropout\": 0.1, " SHAPE ", "
                  "\"grad_accum\": 2, \"steps\": 12, \"batch\": 8, \"learning_rate\": 0.003}",
     12},
    {"clm_upscaled",
     "\"kind\": \"pretraining\", \"recipe\": \"clm\", \"checkpoint\": {\"every_steps\": 6}, "
     "\"inputs\": {\"data\": " PART("train") ", \"valid\": " PART(
         "valid") ", \"init\": " MODEL("clm_llama", "0000000012") "}, \"params\": {\"upscale\": "
                  "\"0-2\", \"new_context\": 80, \"new_rope_theta\": 500000, \"steps\": 12, "
                  "\"batch\": 8, \"learning_rate\": 0.001, \"schedule\": \"constant\"}",
     12},
    {"logit_kd",
     "\"kind\": \"distillation\", \"recipe\": \"logit_kd\", \"checkpoint\": {\"every_steps\": "
     "6}, "
     "\"inputs\": {\"data\": " PART("train") ", \"valid\": " PART(
         "valid") ", \"teacher\": " BASE "}, \"params\": {\"student_init\": "
                  "\"teacher-layers\", \"layers\": 1, \"alpha\": 0.7, "
                  "\"temperature\": 2, \"steps\": 12, \"batch\": 8, \"learning_rate\": 0.003}",
     12},
    {"seq_kd",
     "\"kind\": \"distillation\", \"recipe\": \"seq_kd\", \"checkpoint\": {\"every_steps\": "
     "6}, \"inputs\": {\"data\": " PART("train") ", \"valid\": " PART(
         "valid") ", \"teacher\": " BASE "}, \"params\": {\"separator\": \":\", \"layers\": 1, "
                  "\"beams\": 2, \"max_new_tokens\": 12, \"loss\": \"sfkl\", \"alpha\": 0.5, "
                  "\"steps\": 12, \"batch\": 4, \"learning_rate\": 0.003}",
     12},
    {"gkd",
     "\"kind\": \"distillation\", \"recipe\": \"gkd\", \"checkpoint\": {\"every_steps\": "
     "6}, \"inputs\": {\"data\": " PART("train") ", \"valid\": " PART(
         "valid") ", \"teacher\": " BASE "}, \"params\": {\"separator\": \":\", \"student_init\": "
                  "\"teacher-layers\", \"layers\": 1, \"lambda\": 0.6, \"onpolicy_warmup\": 0, "
                  "\"grad_accum\": 2, \"max_new_tokens\": 20, \"steps\": 12, \"batch\": 8, "
                  "\"learning_rate\": 0.003}",
     12},
    {"grad_ascent",
     "\"kind\": \"unlearning\", \"recipe\": \"grad_ascent\", \"checkpoint\": {\"every_steps\": "
     "6}, "
     "\"inputs\": {\"model\": " BASE ", \"forget\": " PART("forget") ", \"retain\": " PART(
         "retain") "}, \"params\": {\"steps\": 12, \"batch\": 8, \"learning_rate\": 0.0003}",
     12},
    {"grad_diff",
     "\"kind\": \"unlearning\", \"recipe\": \"grad_diff\", \"checkpoint\": {\"every_steps\": "
     "6}, "
     "\"inputs\": {\"model\": " BASE ", \"forget\": " PART("forget") ", \"retain\": " PART(
         "retain") "}, \"params\": {\"steps\": 12, \"batch\": 8, \"retain_loss\": \"kl\", "
                   "\"learning_rate\": 0.001}",
     12},
    {"npo",
     "\"kind\": \"unlearning\", \"recipe\": \"npo\", \"checkpoint\": {\"every_steps\": 6}, "
     "\"inputs\": {\"model\": " BASE
     ", \"forget\": " PART("forget") ", \"retain\": " PART("retain") ", \"holdout\": " PART(
         "holdout") "}, \"params\": {\"steps\": 12, "
                    "\"batch\": 8, \"grad_accum\": 2, \"learning_rate\": 0.001}",
     12},
    {"perplexity",
     "\"kind\": \"eval\", \"recipe\": \"perplexity\", \"inputs\": {\"model\": " BASE
     ", \"data\": " PART("valid") "}, \"params\": {\"max_length\": 16, \"context\": 8}",
     0},
    {"forget_retain",
     "\"kind\": \"eval\", \"recipe\": \"forget_retain\", \"inputs\": {\"model\": " BASE
     ", \"forget\": " PART("forget") ", \"retain\": " PART("retain") ", \"holdout\": " PART(
         "holdout") ", \"reference\": " MODEL("base",
                                              "0000000020") ", \"teacher\": " MODEL("base",
                                                                                    "000000002"
                                                                                    "0") "}, "
                                                                                         "\"par"
                                                                                         "ams\""
                                                                                         ": "
                                                                                         "{\"sa"
                                                                                         "mples"
                                                                                         "\": "
                                                                                         "2, "
                                                                                         "\"boo"
                                                                                         "tstra"
                                                                                         "p\": "
                                                                                         "50}",
     0},
};

/* Puts the real paths in place of D and P (as path values only). */
static char *expand(const struct place *place, const char *text)
{
    struct buf out = {0};

    for (; *text; text++) {
        if (strncmp(text, "\"D\"", 3) == 0) {
            buf_printf(&out, "\"%s/toys\"", place->folder);
            text += 2;
        } else if (strncmp(text, "\"P/", 3) == 0) {
            buf_printf(&out, "\"%s/", place->folder);
            text += 2;
        } else {
            buf_putc(&out, *text);
        }
    }
    return buf_take(&out);
}

static void run_case(const struct place *place, const struct golden_case *golden,
                     const char *suffix, const char *resume, int ranks, struct trace *trace)
{
    char *spec = expand(place, golden->spec);
    char *name = mem_printf("%s%s", golden->name, suffix);
    struct job_run job = {.name = name, .spec = spec, .resume = resume, .ranks = ranks};

    run_job_in(place, &job, trace);
    mem_free(spec);
    mem_free(name);
}

/* The base model is trained once and used by all cases. */
static int with_base(void **state)
{
    if (place_open(state) < 0)
        return -1;
    run_case(*state, &base_case, "", NULL, 1, NULL);
    return 0;
}

/* -- golden --------------------------------------------------------------------------------- */

static void write_golden(const char *path, const struct trace *trace)
{
    struct buf text = {0};

    for (size_t i = 0; i < trace->count; i++) {
        if (!is_timing(trace->points[i].name))
            buf_printf(&text, "%llu %s %.9g\n", (unsigned long long)trace->points[i].step,
                       trace->points[i].name, trace->points[i].value);
    }
    OK(file_replace(path, text.bytes, text.length, 0644, &fixture_err));
    buf_done(&text);
}

static void read_golden(const char *path, struct trace *out)
{
    FILE *file = fopen(path, "r");
    unsigned long long step;
    char name[64];
    double value;

    if (!file)
        fail_msg("%s is missing: run with ATHANOR_BLESS=1 and review it", path);
    while (fscanf(file, "%llu %63s %lf", &step, name, &value) == 3) {
        VEC_RESERVE(out->points, out->count, out->capacity);
        out->points[out->count] = (struct point){.step = step, .value = value};
        memcpy(out->points[out->count++].name, name, sizeof name);
    }
    fclose(file);
}

static void check_golden(const char *name, const struct trace *trace)
{
    char *path = mem_printf("tests/train/golden/%s.golden", name);
    struct trace golden = {0};

    if (getenv("ATHANOR_BLESS"))
        write_golden(path, trace);
    read_golden(path, &golden);
    assert_same_trace(trace, &golden, 0, 1e-4);
    trace_done(&golden);
    mem_free(path);
}

/* -- one case --------------------------------------------------------------------------------- */

static void check_resume(const struct place *place, const struct golden_case *golden,
                         const struct trace *whole)
{
    char *middle = checkpoint_of(place, golden->name, golden->steps / 2);
    char *resumed_name = mem_printf("%s-resumed", golden->name);
    char *end = checkpoint_of(place, golden->name, golden->steps);
    char *resumed_end = checkpoint_of(place, resumed_name, golden->steps);
    struct trace resumed = {0};

    run_case(place, golden, "-resumed", middle, 1, &resumed);
    assert_same_trace(whole, &resumed, golden->steps / 2, 0);
    assert_same_file(end, resumed_end, "model.safetensors");
    assert_same_file(end, resumed_end, "optim-00000-of-00001.safetensors");
    trace_done(&resumed);
    mem_free(middle);
    mem_free(end);
    mem_free(resumed_name);
    mem_free(resumed_end);
}

/* The golden trace, the same bits again, and after a resume. */
static void check_alone(const struct place *place, const struct golden_case *golden,
                        struct trace *first)
{
    struct trace again = {0};

    run_case(place, golden, "", NULL, 1, first);
    check_golden(golden->name, first);
    run_case(place, golden, "-again", NULL, 1, &again);
    assert_same_trace(first, &again, 0, 0);
    assert_same_trace(&again, first, 0, 0);
    trace_done(&again);
    if (golden->steps > 0)
        check_resume(place, golden, first);
}

static bool long_mode(void)
{
    const char *mode = getenv("ATHANOR_TEST_MODE");

    return mode && strcmp(mode, "long") == 0;
}

/* Two ranks that share AdamW's moments have the bits of two that do not. */
static void check_shared(const struct place *place, const struct golden_case *golden,
                         const struct trace *two)
{
    const char *params = strstr(golden->spec, "\"params\": {") + strlen("\"params\": {");
    char *spec = mem_printf("%.*s\"zero\": true, %s", (int)(params - golden->spec), golden->spec,
                            params);
    struct golden_case sharing = {golden->name, spec, golden->steps};
    struct trace shared = {0};

    run_case(place, &sharing, "-shared", NULL, 2, &shared);
    assert_same_trace(two, &shared, 0, 0);
    assert_same_trace(&shared, two, 0, 0);
    trace_done(&shared);
    mem_free(spec);
}

static void check_case(const struct place *place, const struct golden_case *golden)
{
    bool trains = golden->steps > 0;
    struct trace first = {0}, more = {0};

    check_alone(place, golden, &first);
    run_case(place, golden, "-ranks", NULL, trains ? 2 : 4, &more);
    assert_same_trace(&first, &more, 0, trains ? 1e-6 : 0);
    if (trains && long_mode())
        check_shared(place, golden, &more);
    trace_done(&first);
    trace_done(&more);
}

#define CASE(name, index)                                                                          \
    static void name(void **state)                                                                 \
    {                                                                                              \
        check_case(*state, &cases[index]);                                                         \
    }

CASE(clm_on_documents_keeps_its_trace, 0)
CASE(clm_of_transnormer_keeps_its_trace, 1)
CASE(clm_from_a_doubled_model_keeps_its_trace, 3)
CASE(logit_kd_keeps_its_trace, 4)
CASE(seq_kd_keeps_its_trace, 5)
CASE(gkd_keeps_its_trace, 6)
CASE(grad_ascent_keeps_its_trace, 7)
CASE(grad_diff_keeps_its_trace, 8)
CASE(npo_keeps_its_trace, 9)
CASE(perplexity_keeps_its_numbers, 10)
CASE(forget_retain_keeps_its_numbers, 11)

/* Capacity is of a rank's own tokens, so two of them give other numbers. */
static void clm_of_experts_keeps_its_trace(void **state)
{
    struct trace first = {0};

    check_alone(*state, &cases[2], &first);
    trace_done(&first);
}

static void clm_on_windows_keeps_its_trace(void **state)
{
    check_case(*state, &base_case);
}

/* -- what the numbers must mean --------------------------------------------------------------- */

/* Loss of the model below on windows of 16 tokens whose first new one has `context` before it. */
static double windowed_loss(const struct place *place, int context)
{
    char *text = mem_printf("\"kind\": \"eval\", \"recipe\": \"perplexity\", \"inputs\": "
                            "{\"model\": " MODEL("longer", "0000000200") ", \"data\": " PART(
                                "valid") "}, \"params\": {\"max_length\": 16, \"context\": %d}",
                            context);
    char *spec = expand(place, text);
    struct job_run job = {.name = "windowed", .spec = spec};
    struct trace trace = {0};
    double loss;

    run_job_in(place, &job, &trace);
    loss = trace_at(&trace, "loss", 1);
    trace_done(&trace);
    mem_free(spec);
    mem_free(text);
    return loss;
}

/* Card eval-general, acceptance item E4: and what it has learned it needs context for. */
static void a_model_beats_counting_on_its_own_kind_of_text(void **state)
{
    static const struct golden_case longer = {
        "longer",
        "\"kind\": \"pretraining\", \"recipe\": \"clm\", \"inputs\": {\"data\": " PART(
            "train") ", \"valid\": " PART("valid") "}, \"params\": {" SHAPE
                                                   ", \"arch\": \"llama\", "
                                                   "\"unit\": \"documents\", \"steps\": 200, "
                                                   "\"batch\": 16, \"learning_rate\": 0.01}",
        0};
    struct trace trace = {0};

    run_case(*state, &longer, "", NULL, 1, &trace);
    assert_true(trace_at(&trace, "bigram_loss", 200) < trace_at(&trace, "unigram_loss", 200));
    assert_true(trace_at(&trace, "val_loss", 200) < trace_at(&trace, "bigram_loss", 200) - 0.3);
    assert_true(windowed_loss(*state, 12) < windowed_loss(*state, 1));
    trace_done(&trace);
}

#define GLOSSES 6000
#define WINDOW 32

/* Definitions of WordNet, one a line, and as many letters drawn from them one by one. */
static void write_glosses(const struct place *place)
{
    struct buf real = {0}, drawn = {0};
    char *paths[] = {job_path(place, "real", ".txt"), job_path(place, "drawn", ".txt")};
    char *nouns, *gloss;
    size_t length, count = 0;

    OK(file_read("/usr/share/wordnet/data.noun", 1 << 26, &nouns, &length, &fixture_err));
    for (char *rest = nouns, *line; count < GLOSSES && (line = strsep(&rest, "\n"));)
        if ((gloss = strstr(line, " | "))) {
            buf_printf(&real, "%s\n", gloss + 3);
            count++;
        }
    for (size_t i = 0; i < real.length; i++) {
        char letter = real.bytes[rng_at(5, i, 0) % real.length];
        buf_putc(&drawn, real.bytes[i] == '\n' || letter == '\n' ? real.bytes[i] : letter);
    }
    OK(file_replace(paths[0], real.bytes, real.length, 0644, &fixture_err));
    OK(file_replace(paths[1], drawn.bytes, drawn.length, 0644, &fixture_err));
    mem_free(nouns);
    mem_free(paths[0]);
    mem_free(paths[1]);
    buf_done(&real);
    buf_done(&drawn);
}

static void run_text(const struct place *place, char *name, struct trace *trace, char *spec)
{
    struct job_run job = {.name = name, .spec = spec};

    run_job_in(place, &job, trace);
    mem_free(spec);
    mem_free(name);
}

/* Perplexity on windows that begin `stride` tokens behind one another. */
static double strided(const struct place *place, const char *text, int seed, int stride)
{
    struct trace trace = {0};
    double perplexity;

    run_text(place, mem_printf("%s-eval", text), &trace,
             mem_printf("\"kind\": \"eval\", \"recipe\": \"perplexity\", \"inputs\": {\"model\": "
                        "{\"path\": \"%s/%s-%d/checkpoints/step-0000000400\"}, \"data\": "
                        "{\"path\": \"%s/%s-data/datasets/text\", \"part\": \"valid\"}}, "
                        "\"params\": {\"unit\": \"concatenated\", \"max_length\": %d, "
                        "\"stride\": %d}",
                        place->folder, text, seed, place->folder, text, WINDOW, stride));
    perplexity = trace_at(&trace, "perplexity", 1);
    trace_done(&trace);
    return perplexity;
}

/* Perplexity with half of each window read before and without, of each by the other. */
static double help_of_overlap(const struct place *place, const char *text, int seed)
{
    run_text(place, mem_printf("%s-%d", text, seed), NULL,
             mem_printf("\"kind\": \"pretraining\", \"recipe\": \"clm\", \"inputs\": {\"data\": "
                        "{\"path\": \"%s/%s-data/datasets/text\", \"part\": \"train\"}}, "
                        "\"params\": {\"arch\": \"llama\", \"layers\": 2, \"d_model\": 64, "
                        "\"heads\": 4, \"context\": %d, \"steps\": 400, \"batch\": 32, "
                        "\"learning_rate\": 3e-3, \"seed\": %d}",
                        place->folder, text, WINDOW, seed));
    double half = strided(place, text, seed, WINDOW / 2);
    double whole = strided(place, text, seed, WINDOW);

    print_message("%s, seed %d: perplexity %.4f with half a window before, %.4f without\n", text,
                  seed, half, whole);
    return half / whole;
}

/* Card eval-general, acceptance item E4, on real text and with three seeds; where each letter is
 * drawn by itself, what stands before it is of no help. */
static void overlap_helps_on_real_text_and_not_on_drawn_letters(void **state)
{
    static const char *const texts[] = {"real", "drawn"};
    const struct place *place = *state;

    if (!long_mode() || access("/usr/share/wordnet/data.noun", R_OK) != 0) {
        print_message("SKIPPED: needs ATHANOR_TEST_MODE=long and the package wordnet-base\n");
        skip();
    }
    write_glosses(place);
    for (size_t t = 0; t < ARRAY_COUNT(texts); t++) {
        run_text(place, mem_printf("%s-data", texts[t]), NULL,
                 mem_printf("\"kind\": \"data\", \"recipe\": \"text\", \"params\": {\"files\": "
                            "[\"%s/%s.txt\"], \"split_by\": \"line\", \"vocab_size\": 257, "
                            "\"name\": \"text\"}", place->folder, texts[t]));
        for (int seed = 0; seed < 3; seed++) {
            double ratio = help_of_overlap(place, texts[t], seed);
            assert_true(t == 0 ? ratio < 1 : fabs(ratio - 1) < 0.005);
        }
    }
}

static void results_without_a_reference_are_null(void **state)
{
    static const struct golden_case bare = {
        "bare",
        "\"kind\": \"eval\", \"recipe\": \"forget_retain\", \"inputs\": {\"model\": " BASE
        ", \"forget\": " PART("forget") ", \"retain\": " PART("retain") "}",
        0};
    const struct place *place = *state;
    char *path = job_path(place, "bare", "/forget_retain.json"), *text = NULL;
    struct trace trace = {0};
    json_t *root, *results;
    size_t length;

    run_case(place, &bare, "", NULL, 1, &trace);
    assert_true(trace_has(&trace, "forget_loss"));
    assert_false(trace_has(&trace, "mia_auc"));
    assert_false(trace_has(&trace, "privleak"));
    OK(file_read(path, 1 << 20, &text, &length, &fixture_err));
    root = json_loads(text, 0, NULL);
    results = json_object_get(root, "results");
    assert_true(json_is_null(json_object_get(results, "privleak")));
    assert_true(json_is_null(json_object_get(results, "mia_auc")));
    assert_true(json_is_real(json_object_get(results, "forget_loss")));
    assert_true(json_array_size(json_object_get(root, "samples")) > 0);
    assert_int_equal(strlen(json_string_value(json_object_get(root, "tokenizer"))), 64);
    json_decref(root);
    mem_free(text);
    mem_free(path);
    trace_done(&trace);
}

/* A model of one block whose weights are zero but for those that `fill` writes; NULL: all. */
static void write_zero_model(const struct place *place, const char *name, enum model_family family,
                             int64_t width, void (*fill)(struct model *model))
{
    struct device_config where = {.kind = BACKEND_CPU, .threads = 1};
    struct model_config shape = {.family = family,
                                 .vocab_size = TOKENS,
                                 .context = 16,
                                 .width = width,
                                 .layers = 1,
                                 .heads = 1,
                                 .tied = !fill,
                                 .bos_token = 256,
                                 .eos_token = 256};
    char *folder = job_path(place, name, "");
    struct device *device = NULL;
    struct model *model = NULL;

    OK(file_make_folders(folder, 0755, &fixture_err));
    OK(device_open(&where, &device, &fixture_err));
    OK(model_config_complete(&shape, &fixture_err));
    OK(model_new_frozen(device, &shape, &model, &fixture_err));
    if (fill)
        fill(model);
    OK(model_files_write(folder, model, &fixture_err));
    model_free(model);
    device_close(device);
    mem_free(folder);
}

/* Card eval-general, acceptance item E2, for both ways of cutting and both units. */
static void a_uniform_model_has_the_perplexity_of_its_vocabulary(void **state)
{
    static const char *const params[] = {"\"context\": 1", "\"context\": 5", "\"stride\": 4",
                                         "\"unit\": \"concatenated\""};

    write_zero_model(*state, "uniform", MODEL_GPT2, 8, NULL);
    for (size_t i = 0; i < ARRAY_COUNT(params); i++) {
        char *text = mem_printf("\"kind\": \"eval\", \"recipe\": \"perplexity\", \"inputs\": "
                                "{\"model\": {\"path\": \"P/uniform\"}, \"data\": " PART(
                                    "valid") "}, \"params\": {%s}",
                                params[i]);
        char *spec = expand(*state, text);
        struct job_run job = {.name = "uniform-eval", .spec = spec};
        struct trace trace = {0};
        double tokens, bytes;

        run_job_in(*state, &job, &trace);
        assert_float_equal(trace_at(&trace, "perplexity", 1), 257, 257 * 1e-6);
        tokens = trace_at(&trace, "tokens", 1);
        bytes = trace_at(&trace, "bytes", 1);
        if (i < 2) {
            assert_true(tokens == bytes); /* tokens are bytes here, each scored once */
            assert_float_equal(trace_at(&trace, "bits_per_byte", 1), log2(257), 1e-6);
        } else {
            assert_true(trace_has(&trace, "bits_per_byte") == (i == 3));
        }
        trace_done(&trace);
        mem_free(spec);
        mem_free(text);
    }
}

/* How often each byte comes after each in the documents of `train`; 256 begins a document. */
static void count_pairs(double pairs[TOKENS][TOKENS])
{
    memset(pairs, 0, sizeof *pairs * TOKENS);
    for (uint64_t i = fixture_parts[0].from; i < fixture_parts[0].to; i++) {
        char *text = document_text(i);
        for (size_t at = 0; text[at]; at++)
            pairs[at == 0 ? 256 : (unsigned char)text[at - 1]][(unsigned char)text[at]]++;
        mem_free(text);
    }
}

/* p of a byte after another, one more of each than was counted. */
static double pair_share(double pairs[TOKENS][TOKENS], int before, int byte)
{
    double all = TOKENS;

    for (int other = 0; other < TOKENS; other++)
        all += pairs[before][other];
    return (pairs[before][byte] + 1) / all;
}

/* The last token alone, in a place of its own, which the head turns into what was counted. What
 * the norm makes of one number among zeros is sqrt(width); at 1024 its eps is lost in rounding. */
static void fill_bigram(struct model *model)
{
    static double pairs[TOKENS][TOKENS];
    int64_t D = model->config.width;
    float *embed = mem_zalloc(TOKENS * (size_t)D * sizeof *embed);
    float *head = mem_zalloc(TOKENS * (size_t)D * sizeof *head);
    float *norm = mem_array((size_t)D, sizeof *norm);

    count_pairs(pairs);
    for (int64_t v = 0; v < TOKENS; v++)
        for (int64_t w = 0; w < TOKENS; w++)
            head[w * D + v] = (float)(log(pair_share(pairs, (int)v, (int)w)) / sqrt((double)D));
    for (int64_t v = 0; v < TOKENS; v++)
        embed[v * D + v] = 1024;
    model_weight_write(model_weight_find(model, "embed"), embed);
    model_weight_write(model_weight_find(model, "head"), head);
    for (int64_t i = 0; i < D; i++)
        norm[i] = 1;
    model_weight_write(model_weight_find(model, "norm.weight"), norm);
    mem_free(embed);
    mem_free(head);
    mem_free(norm);
}

/* Card eval-general, acceptance item E5: the entropy of a table of counts and the same counts run
 * as a model, whose weights and losses are f32 (ngram_test.c has counting itself to 1e-9). */
static void a_bigram_has_the_bits_per_byte_of_its_counts(void **state)
{
    static double pairs[TOKENS][TOKENS];
    char *spec = expand(*state, "\"kind\": \"eval\", \"recipe\": \"perplexity\", \"inputs\": "
                                "{\"model\": {\"path\": \"P/bigram\"}, \"data\": " PART("train")
                                "}, \"params\": {\"context\": 3}");
    struct job_run job = {.name = "bigram-eval", .spec = spec};
    struct trace trace = {0};
    double bits = 0, bytes = 0;

    write_zero_model(*state, "bigram", MODEL_LLAMA, 264, fill_bigram);
    run_job_in(*state, &job, &trace);
    count_pairs(pairs);
    for (int v = 0; v < TOKENS; v++)
        for (int w = 0; w < TOKENS; w++) {
            bits -= pairs[v][w] > 0 ? pairs[v][w] * log2(pair_share(pairs, v, w)) : 0;
            bytes += pairs[v][w];
        }
    assert_true(trace_at(&trace, "bytes", 1) == bytes);
    assert_float_equal(trace_at(&trace, "bits_per_byte", 1), bits / bytes, 1e-6);
    trace_done(&trace);
    mem_free(spec);
}

static void unlearning_ends_at_the_oracles_loss(void **state)
{
    static const struct golden_case stop = {
        "stop",
        "\"kind\": \"unlearning\", \"recipe\": \"npo\", \"inputs\": {\"model\": " BASE
        ", \"oracle\": " MODEL("base", "0000000020") ", \"forget\": " PART(
            "forget") ", \"retain\": " PART("retain") "}, \"params\": {\"steps\": 400, \"batch\": "
                                                      "8, "
                                                      "\"eval_every\": 2, \"stop\": "
                                                      "\"oracle_nll\", \"learning_rate\": 0.003}",
        0};
    struct trace trace = {0};
    uint64_t last;

    run_case(*state, &stop, "", NULL, 2, &trace);
    last = trace.points[trace.count - 1].step;
    assert_true(last < 400 && last % 2 == 0);
    assert_true(trace_at(&trace, "forget_nll", last) > trace_at(&trace, "forget_nll", 2) ||
                last == 2);
    assert_non_null(strstr(trace.events, "forgotten\n"));
    trace_done(&trace);
}

static void a_job_that_cannot_be_is_refused(void **state)
{
    static const struct {
        const char *spec, *complaint;
    } wrong[] = {
        {"\"kind\": \"unlearning\", \"recipe\": \"npo\", \"inputs\": {\"model\": " BASE
         ", \"forget\": " PART("forget") ", \"retain\": " PART(
             "retain") "}, \"params\": {\"stop\": \"oracle_nll\"}",
         "needs the input 'oracle'"},
        {"\"kind\": \"pretraining\", \"recipe\": \"clm\", \"inputs\": {\"data\": " PART(
             "train") "}, \"params\": {\"batch\": 4, \"grad_accum\": 5}",
         "make it 1..4"},
        {"\"kind\": \"pretraining\", \"recipe\": \"clm\", \"inputs\": {\"data\": " PART(
             "train") "}, \"params\": {\"steps\": 5, \"warmup\": 6}",
         "more than the job's 5 steps"},
        {"\"kind\": \"pretraining\", \"recipe\": \"clm\", \"inputs\": {\"data\": " PART(
             "train") "}, \"params\": {\"new_context\": 128}",
         "need an input 'init'"},
        {"\"kind\": \"finetuning\", \"recipe\": \"sft\", \"inputs\": {\"data\": " PART(
             "train") ", \"init\": " BASE "}, \"params\": {\"separator\": \":\", "
                      "\"new_context\": 128}",
         "learned a row for each of its 64 positions"},
        {"\"kind\": \"finetuning\", \"recipe\": \"sft\", \"inputs\": {\"data\": " PART(
             "train") ", \"init\": " BASE "}, \"params\": {\"separator\": \":\", "
                      "\"lora_rank\": 2, \"new_rope_theta\": 5e5}",
         "exclude 'lora_rank'"},
        {"\"kind\": \"distillation\", \"recipe\": \"logit_kd\", \"inputs\": {\"data\": " PART(
             "train") ", \"teacher\": " BASE "}, \"params\": {\"d_model\": 16, "
                      "\"student_init\": \"teacher-layers\"}",
         "has another shape in the teacher"},
        {"\"kind\": \"distillation\", \"recipe\": \"gkd\", \"inputs\": {\"data\": " PART(
             "train") ", \"teacher\": " BASE "}, \"params\": {\"separator\": \"#\"}",
         "document 0 of input 'data' has no separator"},
        {"\"kind\": \"distillation\", \"recipe\": \"gkd\", \"inputs\": {\"data\": " PART(
             "train") ", \"teacher\": " BASE "}, \"params\": {\"loss\": \"ce\"}",
         "finetuning/sft trains on the data alone"},
        {"\"kind\": \"eval\", \"recipe\": \"perplexity\", \"inputs\": {\"model\": " BASE
         ", \"data\": " PART("valid") "}, \"params\": {\"max_length\": 65}",
         "the model sees at most 64"},
        {"\"kind\": \"eval\", \"recipe\": \"perplexity\", \"inputs\": {\"model\": " BASE
         ", \"data\": " PART("moon") "}",
         "input 'data'"},
    };
    const struct place *place = *state;

    for (size_t i = 0; i < ARRAY_COUNT(wrong); i++) {
        char *spec = expand(place, wrong[i].spec);
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
}

/* A copy of the base model whose last weight is not a number. */
static void write_broken_model(const struct place *place)
{
    static const char *const files[] = {"config.json", "tokenizer.json", "model.safetensors"};
    char *from = checkpoint_of(place, "base", 40), *to = job_path(place, "broken", "");

    OK(file_make_folders(to, 0755, &fixture_err));
    for (size_t i = 0; i < ARRAY_COUNT(files); i++) {
        char *source = mem_printf("%s/%s", from, files[i]), *bytes;
        char *copy = mem_printf("%s/%s", to, files[i]);
        size_t length;

        OK(file_read(source, 64 << 20, &bytes, &length, &fixture_err));
        if (i == 2)
            memcpy(bytes + length - 4, "\0\0\xC0\x7F", 4);
        OK(file_replace(copy, bytes, length, 0644, &fixture_err));
        mem_free(bytes);
        mem_free(source);
        mem_free(copy);
    }
    mem_free(from);
    mem_free(to);
}

static void a_loss_that_is_not_finite_ends_the_job_as_diverged(void **state)
{
    static const char spec[] =
        "\"kind\": \"pretraining\", \"recipe\": \"clm\", \"inputs\": {\"data\": " PART(
            "train") ", \"init\": {\"path\": \"P/broken\"}}, \"params\": {\"steps\": 5, \"batch\": "
                     "8}";
    char *expanded = expand(*state, spec);
    struct trace trace = {0};

    write_broken_model(*state);
    for (int ranks = 1; ranks <= 2; ranks++) {
        struct job_run job = {.name = "diverges",
                              .spec = expanded,
                              .may_fail = true,
                              .ranks = ranks};

        assert_int_not_equal(run_job_in(*state, &job, &trace), 0);
        assert_non_null(strstr(trace.events, "diverged\n"));
        trace_done(&trace);
    }
    mem_free(expanded);
}

/* Without learning a step's loss is that of its batch: behind a skip of three, step 1 reads what
 * step 4 would have read. */
static void a_skip_of_batches_shifts_the_data_and_nothing_else(void **state)
{
    static const char still[] =
        "\"kind\": \"pretraining\", \"recipe\": \"clm\", \"inputs\": {\"data\": " PART(
            "train") "}, \"params\": {" SHAPE ", \"steps\": 6, \"batch\": 8, "
                     "\"learning_rate\": 0}";
    char *spec = expand(*state, still);
    struct job_run job = {.name = "still", .spec = spec};
    struct trace all = {0}, skipped = {0};

    run_job_in(*state, &job, &all);
    setenv("ATHANOR_DATA_SKIP", "3", 1);
    job.name = "skipping";
    run_job_in(*state, &job, &skipped);
    unsetenv("ATHANOR_DATA_SKIP");
    for (uint64_t step = 1; step <= 3; step++)
        assert_true(trace_at(&skipped, "loss", step) == trace_at(&all, "loss", step + 3));
    assert_true(trace_at(&skipped, "loss", 1) != trace_at(&all, "loss", 1));
    trace_done(&skipped);
    trace_done(&all);
    mem_free(spec);
}

/* What the run tells of its order, as its log has it. */
static char *told_order(const struct place *place, const char *name)
{
    char *path = job_path(place, name, ".log"), *log = NULL, *at, *order;
    size_t length;

    OK(file_read(path, 1 << 20, &log, &length, &fixture_err));
    at = strstr(log, "data_order: ");
    assert_non_null(at);
    order = mem_printf("%.*s", (int)strcspn(at + 12, "\n"), at + 12);
    mem_free(log);
    mem_free(path);
    return order;
}

/* Without learning and with one document a step, equal losses mean equal documents: over two
 * epochs those that athanor-engine names, and no others, must be equal. */
static void the_documents_of_a_step_are_told_afterwards(void **state)
{
    enum { STEPS = 48 };
    static const char still[] =
        "\"kind\": \"pretraining\", \"recipe\": \"clm\", \"inputs\": {\"data\": " PART(
            "forget") "}, \"params\": {" SHAPE ", \"steps\": 48, \"batch\": 1, \"unit\": "
                      "\"documents\", \"seed\": 9, \"learning_rate\": 0}";
    struct place *place = *state;
    char *spec = expand(place, still), *order, *path, *lines = NULL;
    struct job_run job = {.name = "ordered", .spec = spec};
    struct trace trace = {0};
    int document[STEPS + 1];
    size_t length;

    run_job_in(place, &job, &trace);
    assert_non_null(strstr(trace.events, "data_order\n"));
    order = told_order(place, "ordered");
    path = job_path(place, "ordered", ".documents");
    assert_int_equal(spawn_line(mem_printf("exec '%s' documents --order '%s' --steps 1-%d >'%s'",
                                           place->engine, order, STEPS, path)), 0);
    OK(file_read(path, 1 << 20, &lines, &length, &fixture_err));
    char *at = lines;

    for (uint64_t step = 1; step <= STEPS; step++, at = strchr(at, '\n') + 1) {
        json_t *row = json_loads(at, JSON_DISABLE_EOF_CHECK, NULL), *list;

        list = json_object_get(row, "documents");
        assert_int_equal(json_integer_value(json_object_get(row, "step")), step);
        assert_int_equal(json_array_size(list), 1);
        document[step] = (int)json_integer_value(json_array_get(list, 0));
        char *id = mem_printf("d%d", document[step]);

        assert_string_equal(json_string_value(json_array_get(json_object_get(row, "ids"), 0)), id);
        mem_free(id);
        json_decref(row);
    }
    assert_int_equal(*at, 0);
    for (uint64_t a = 1; a <= STEPS; a++)
        for (uint64_t b = 1; b < a; b++)
            assert_true((document[a] == document[b]) ==
                        (trace_at(&trace, "loss", a) == trace_at(&trace, "loss", b)));
    trace_done(&trace);
    mem_free(lines);
    mem_free(path);
    mem_free(order);
    mem_free(spec);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_documents_of_a_step_are_told_afterwards),
        cmocka_unit_test(clm_on_windows_keeps_its_trace),
        cmocka_unit_test(clm_on_documents_keeps_its_trace),
        cmocka_unit_test(clm_of_transnormer_keeps_its_trace),
        cmocka_unit_test(clm_of_experts_keeps_its_trace),
        cmocka_unit_test(clm_from_a_doubled_model_keeps_its_trace),
        cmocka_unit_test(logit_kd_keeps_its_trace),
        cmocka_unit_test(seq_kd_keeps_its_trace),
        cmocka_unit_test(gkd_keeps_its_trace),
        cmocka_unit_test(grad_ascent_keeps_its_trace),
        cmocka_unit_test(grad_diff_keeps_its_trace),
        cmocka_unit_test(npo_keeps_its_trace),
        cmocka_unit_test(perplexity_keeps_its_numbers),
        cmocka_unit_test(forget_retain_keeps_its_numbers),
        cmocka_unit_test(a_model_beats_counting_on_its_own_kind_of_text),
        cmocka_unit_test(overlap_helps_on_real_text_and_not_on_drawn_letters),
        cmocka_unit_test(results_without_a_reference_are_null),
        cmocka_unit_test(a_uniform_model_has_the_perplexity_of_its_vocabulary),
        cmocka_unit_test(a_bigram_has_the_bits_per_byte_of_its_counts),
        cmocka_unit_test(unlearning_ends_at_the_oracles_loss),
        cmocka_unit_test(a_job_that_cannot_be_is_refused),
        cmocka_unit_test(a_loss_that_is_not_finite_ends_the_job_as_diverged),
        cmocka_unit_test(a_skip_of_batches_shifts_the_data_and_nothing_else),
    };

    cmocka_set_test_filter(getenv("ATHANOR_TEST_FILTER"));
    return cmocka_run_group_tests(tests, with_base, place_close);
}
