/* diverged_test.c - every recipe that trains reports numbers that are none as `diverged`, with what
 * was not finite, at which step and how much it was; whether the loss shows it or only the
 * gradient, and when one rank of several meets it. */
#include "tests/train/fixture.h"
#include "worker/engine/data/sampler.h"
#include "worker/engine/io/model_files.h"

#define SHAPE "\"layers\": 1, \"d_model\": 32, \"heads\": 2, \"context\": 64, "
#define TOYS(part) "{\"path\": \"P/toys\", \"part\": \"" part "\"}"
#define MADE(name) "{\"path\": \"P/data/datasets/" name "\", \"part\": \"train\"}"
#define PAIRS(part) "{\"path\": \"P/data/datasets/pairs\", \"part\": \"" part "\"}"
#define SOUND(name) "{\"path\": \"P/" name "/checkpoints/step-0000000001\"}"
#define SPOILT "{\"path\": \"P/spoilt\"}"

/* What is trained one step, then spoilt: weight is the gain, or matrix, right below the logits. */
struct sound {
    const char *name, *spec, *weight;
};

static const struct sound sounds[] = {
    {"gpt2",
     "\"kind\": \"pretraining\", \"recipe\": \"clm\", \"inputs\": {\"data\": " TOYS(
         "train") "}, \"params\": {" SHAPE,
     "transformer.ln_f.weight"},
    {"pairs",
     "\"kind\": \"pretraining\", \"recipe\": \"clm\", \"inputs\": {\"data\": " PAIRS(
         "chosen") "}, \"params\": {" SHAPE,
     "transformer.ln_f.weight"},
    {"bert",
     "\"kind\": \"pretraining\", \"recipe\": \"mlm\", \"inputs\": {\"data\": " MADE(
         "lines") "}, \"params\": {" SHAPE,
     "cls.predictions.transform.LayerNorm.weight"},
    {"t5",
     "\"kind\": \"pretraining\", \"recipe\": \"span_corruption\", \"inputs\": {\"data\": " MADE(
         "lines") "}, \"params\": {" SHAPE "\"tied\": true, ",
     "decoder.final_layer_norm.weight"},
    {"classes",
     "\"kind\": \"finetuning\", \"recipe\": \"classify\", \"inputs\": {\"data\": " MADE(
         "labels") "}, \"params\": {" SHAPE "\"labels\": [\"yes\", \"no\"], ",
     "classifier.weight"},
};

struct victim {
    const char *model, *spec;
    const char *steep; /* what it says of the steep loss; NULL: the first gradient is infinite */
};

#define UNLEARNS(recipe) \
    "\"kind\": \"unlearning\", \"recipe\": \"" recipe "\", \"inputs\": {\"model\": " SPOILT \
    ", \"forget\": " TOYS("forget") ", \"retain\": " TOYS("retain") "}, \"params\": {"
#define DISTILS(recipe, teacher, data, params) \
    "\"kind\": \"distillation\", \"recipe\": \"" recipe "\", \"inputs\": {\"data\": " data \
    ", \"teacher\": " SOUND(teacher) ", \"student\": " SPOILT "}, \"params\": {" \
    "\"student_init\": \"checkpoint\", " params

static const struct victim victims[] = {
    {"gpt2", "\"kind\": \"pretraining\", \"recipe\": \"clm\", \"inputs\": {\"data\": " TOYS(
                 "train") ", \"init\": " SPOILT "}, \"params\": {"},
    {"gpt2", "\"kind\": \"finetuning\", \"recipe\": \"sft\", \"inputs\": {\"data\": " TOYS(
                 "train") ", \"init\": " SPOILT "}, \"params\": {\"separator\": \":\", "},
    {"pairs", "\"kind\": \"finetuning\", \"recipe\": \"dpo\", \"inputs\": {"
              "\"chosen\": " PAIRS("chosen") ", \"rejected\": " PAIRS("rejected") ", \"init\": "
              SPOILT "}, \"params\": {"},
    {"gpt2", DISTILS("logit_kd", "gpt2", TOYS("train"), "")},
    {"gpt2", DISTILS("seq_kd", "gpt2", TOYS("train"),
                     "\"separator\": \":\", \"beams\": 1, \"max_new_tokens\": 4, "
                     "\"loss\": \"fkl\", ")},
    {"gpt2", DISTILS("gkd", "gpt2", TOYS("train"),
                     "\"separator\": \":\", \"lambda\": 0, \"loss\": \"fkl\", ")},
    {"gpt2", DISTILS("minillm", "gpt2", TOYS("train"),
                     "\"separator\": \":\", \"max_new_tokens\": 4, "),
     "the gradient is not finite after update 1: its norm is nan"}, /* rewards are clipped */
    {"gpt2", UNLEARNS("grad_ascent")},
    {"gpt2", UNLEARNS("grad_diff")},
    {"gpt2", UNLEARNS("npo")},
    {"bert", "\"kind\": \"pretraining\", \"recipe\": \"mlm\", \"inputs\": {\"data\": " MADE(
                 "lines") ", \"init\": " SPOILT "}, \"params\": {"},
    {"bert", DISTILS("hidden_kd", "bert", MADE("lines"), "")},
    {"t5", "\"kind\": \"pretraining\", \"recipe\": \"span_corruption\", \"inputs\": {"
           "\"data\": " MADE("lines") ", \"init\": " SPOILT "}, \"params\": {"},
    {"classes", "\"kind\": \"finetuning\", \"recipe\": \"classify\", \"inputs\": {\"data\": " MADE(
                    "labels") ", \"init\": " SPOILT
                    "}, \"params\": {\"labels\": [\"yes\", \"no\"], "},
};

static bool long_mode(void)
{
    const char *mode = getenv("ATHANOR_TEST_MODE");

    return mode && strcmp(mode, "long") == 0;
}

/* A spec with the place for P and these parameters behind its own. (mem_free) */
static char *spec_of(const struct place *place, const char *spec, const char *params)
{
    struct buf out = {0};

    for (const char *at = spec; *at; at++)
        if (strncmp(at, "P/", 2) == 0)
            buf_puts(&out, place->folder);
        else
            buf_putc(&out, *at);
    buf_printf(&out, "%s}", params);
    return buf_take(&out);
}

enum { NOT_A_NUMBER, STEEP };

/* One number that is none; or 1e25 times the logits, whose loss is still a float, but not the
 * square of its gradient. */
static void spoil_weight(struct model *model, const char *name, int how)
{
    struct model_weight *weight = model_weight_find(model, name);
    int64_t count;
    float *host;

    assert_non_null(weight);
    count = tensor_count(&weight->tensor);
    host = mem_array((size_t)count, sizeof *host);
    model_weight_read(weight, host);
    for (int64_t i = 0; i < count && how == STEEP; i++)
        host[i] *= 1e25f;
    if (how == NOT_A_NUMBER)
        host[0] = NAN;
    model_weight_write(weight, host);
    mem_free(host);
}

static struct model *open_sound(const struct place *place, const char *name,
                                struct device *device)
{
    char *from = checkpoint_of(place, name, 1);
    struct model *model = NULL;

    OK(model_files_open(from, device, true, &model, &fixture_err));
    mem_free(from);
    return model;
}

static void write_spoilt(const struct place *place, const char *name, const struct model *model)
{
    char *to = job_path(place, "spoilt", ""), *from = checkpoint_of(place, name, 1), *text;
    char *source = mem_printf("%s/tokenizer.json", from);
    char *copy = mem_printf("%s/tokenizer.json", to);
    size_t length;

    OK(file_make_folders(to, 0755, &fixture_err));
    OK(model_files_write(to, model, &fixture_err));
    OK(file_read(source, 64 << 20, &text, &length, &fixture_err));
    OK(file_replace(copy, text, length, 0644, &fixture_err));
    mem_free(text);
    mem_free(copy);
    mem_free(source);
    mem_free(from);
    mem_free(to);
}

static void spoil(const struct place *place, const struct sound *sound, int how)
{
    struct device_config config = {.kind = BACKEND_CPU, .threads = 1};
    struct device *device = NULL;
    struct model *model;

    OK(device_open(&config, &device, &fixture_err));
    model = open_sound(place, sound->name, device);
    spoil_weight(model, sound->weight, how);
    write_spoilt(place, sound->name, model);
    model_free(model);
    device_close(device);
}

/* What the run said when it ended as diverged; it must have. (trace_done) */
static void diverge(const struct place *place, const char *spec, const char *params, int ranks,
                    struct trace *trace)
{
    char *whole = spec_of(place, spec, params);
    struct job_run job = {.name = "victim", .spec = whole, .ranks = ranks, .may_fail = true};

    memset(trace, 0, sizeof *trace);
    int status = run_job_in(place, &job, trace);

    if (status == 0 || !strstr(trace->events, "diverged\n")) {
        show_log(place, "victim");
        for (size_t i = 0; i < trace->count; i++)
            print_error("%s=%g at step %llu\n", trace->points[i].name, trace->points[i].value,
                        (unsigned long long)trace->points[i].step);
        fail_msg("status %d, not diverged: %s", status, whole);
    }
    mem_free(whole);
}

static void assert_said(const struct trace *trace, const char *what, const char *spec)
{
    if (!strstr(trace->texts, what))
        fail_msg("expected '%s' in '%s' of %s", what, trace->texts, spec);
}

#define SHORT "\"steps\": 2, \"batch\": 4"

static void check_victim(const struct place *place, const struct victim *victim, int how, int ranks)
{
    struct trace trace;

    diverge(place, victim->spec, SHORT, ranks, &trace);
    if (how == NOT_A_NUMBER) {
        assert_said(&trace, "is not finite at step 1: nan", victim->spec);
    } else {
        assert_said(&trace, "step 1: ", victim->spec);
        assert_said(&trace,
                    victim->steep ? victim->steep
                                  : "the gradient is not finite after update 0: its norm is inf",
                    victim->spec);
        assert_null(strstr(trace.texts, "is not finite at step")); /* no metric */
    }
    trace_done(&trace);
}

static void every_recipe_that_trains_says_what_was_not_finite_and_when(void **state)
{
    for (size_t s = 0; s < ARRAY_COUNT(sounds); s++)
        for (int how = NOT_A_NUMBER; how <= STEEP; how++) {
            spoil(*state, &sounds[s], how);
            for (size_t v = 0; v < ARRAY_COUNT(victims); v++)
                for (int ranks = 1; ranks <= (long_mode() ? 2 : 1); ranks++)
                    if (strcmp(victims[v].model, sounds[s].name) == 0)
                        check_victim(*state, &victims[v], how, ranks);
        }
}

/* A byte of the second document that the first has not. */
static int32_t byte_of_the_second_only(void)
{
    uint64_t count = fixture_parts[0].to - fixture_parts[0].from;
    char *first = document_text(fixture_parts[0].from + sampler_item(0, count, 0));
    char *second = document_text(fixture_parts[0].from + sampler_item(0, count, 1));
    char *found = second;

    while (*found && strchr(first, *found))
        found++;
    int32_t byte = (uint8_t)*found;
    assert_true(byte != 0);
    mem_free(first);
    mem_free(second);
    return byte;
}

/* The row of one token is no number: it is in the document of the second rank only. */
static void all_ranks_end_when_one_of_them_meets_a_number_that_is_none(void **state)
{
    static const char spec[] =
        "\"kind\": \"pretraining\", \"recipe\": \"clm\", \"inputs\": {\"data\": " TOYS(
            "train") ", \"init\": " SPOILT "}, \"params\": {\"unit\": \"documents\", ";
    struct device_config config = {.kind = BACKEND_CPU, .threads = 1};
    struct device *device = NULL;
    struct model_weight *rows;
    struct model *model;
    struct trace trace;
    float *host;

    OK(device_open(&config, &device, &fixture_err));
    model = open_sound(*state, "llama", device);
    rows = model_weight_find(model, "model.embed_tokens.weight");
    assert_non_null(rows);
    host = mem_array((size_t)tensor_count(&rows->tensor), sizeof *host);
    model_weight_read(rows, host);
    host[byte_of_the_second_only() * rows->tensor.dim[1]] = NAN;
    model_weight_write(rows, host);
    write_spoilt(*state, "llama", model);
    mem_free(host);
    model_free(model);
    device_close(device);

    char *alone = spec_of(*state, spec, "\"steps\": 1, \"batch\": 1");
    struct job_run first = {.name = "first", .spec = alone};

    run_job_in(*state, &first, NULL); /* the first document alone is sound */
    for (int zero = 0; zero < 2; zero++) {
        diverge(*state, spec, zero ? "\"steps\": 2, \"batch\": 2, \"zero\": true"
                                   : "\"steps\": 2, \"batch\": 2", 2, &trace);
        assert_said(&trace, "loss is not finite at step 1: nan; step 1: the gradient is not finite "
                            "after update 0: its norm is nan", spec);
        trace_done(&trace);
    }
    mem_free(alone);
}

/* A file of 60 texts of two lines, the second one yes or no in turn: no first, where `odd` yes. */
static char *two_lines_each(const struct place *place, const char *name, bool odd)
{
    struct buf texts = {0};
    char *path = job_path(place, name, ".txt");

    for (uint64_t i = 0; i < 60; i++) {
        char *text = document_text(i);

        buf_printf(&texts, "%s\n%s\n\n", text, (i % 2 == 0) == odd ? "yes" : "no");
        mem_free(text);
    }
    OK(file_replace(path, texts.bytes, texts.length, 0644, &fixture_err));
    buf_done(&texts);
    return path;
}

/* Datasets "labels", and "pairs" with a better and a worse answer to each line. */
static void make_answers(const struct place *place)
{
    char *even = two_lines_each(place, "even", false), *odd = two_lines_each(place, "odd", true);
    char *spec[2] = {
        mem_printf("\"kind\": \"data\", \"recipe\": \"text\", \"params\": {\"files\": [\"%s\"], "
                   "\"vocab_size\": 320, \"name\": \"labels\"}", even),
        mem_printf("\"kind\": \"data\", \"recipe\": \"text\", \"params\": {\"files\": "
                   "[\"chosen=%s\", \"rejected=%s\"], \"vocab_size\": 320, \"holdout_share\": 0, "
                   "\"name\": \"pairs\"}",
                   even, odd)};

    for (int i = 0; i < 2; i++) {
        struct job_run job = {.name = "data", .spec = spec[i]};

        run_job_in(place, &job, NULL);
        mem_free(spec[i]);
    }
    mem_free(even);
    mem_free(odd);
}

static int with_sound_models(void **state)
{
    static const struct sound llama = {
        "llama",
        "\"kind\": \"pretraining\", \"recipe\": \"clm\", \"inputs\": {\"data\": " TOYS(
            "train") "}, \"params\": {" SHAPE "\"arch\": \"llama\", \"tied\": false, ", NULL};

    if (place_open(state) < 0)
        return -1;
    make_lines(*state);
    make_answers(*state);
    for (size_t i = 0; i <= ARRAY_COUNT(sounds); i++) {
        const struct sound *sound = i < ARRAY_COUNT(sounds) ? &sounds[i] : &llama;
        char *spec = spec_of(*state, sound->spec, "\"steps\": 1, \"batch\": 4");
        struct job_run job = {.name = sound->name, .spec = spec};

        run_job_in(*state, &job, NULL);
        mem_free(spec);
    }
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_recipe_that_trains_says_what_was_not_finite_and_when),
        cmocka_unit_test(all_ranks_end_when_one_of_them_meets_a_number_that_is_none),
    };

    return cmocka_run_group_tests(tests, with_sound_models, place_close);
}
