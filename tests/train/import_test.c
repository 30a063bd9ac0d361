/* import_test.c - data/import as a user has it: another program's model and tokenizer become a
 * checkpoint, a dataset takes its tokens, an evaluation reads both. */
#include "tests/train/fixture.h"
#include "tests/unit/data/inputs.h"

#define FOLDER "models/stories260K/"

static int import(const struct place *place, const char *name, const char *model,
                  const char *tokenizer, bool may_fail)
{
    char *spec = mem_printf("\"kind\": \"data\", \"recipe\": \"import\", \"inputs\": {\"model\": "
                            "{\"ref\": \"file:model.bin\", \"path\": \"%s\"}, \"tokenizer\": "
                            "{\"ref\": \"file:tokenizer.bin\", \"path\": \"%s\"}}",
                            model, tokenizer);
    struct job_run job = {.name = name, .spec = spec, .may_fail = may_fail};
    int status = run_job_in(place, &job, NULL);

    mem_free(spec);
    return status;
}

static void make_dataset(const struct place *place, const char *file, const char *tokenizer)
{
    char *spec = mem_printf("\"kind\": \"data\", \"recipe\": \"text\", \"params\": {\"files\": "
                            "[\"%s\"], \"split_by\": \"file\", \"holdout_share\": 0, "
                            "\"tokenizer\": \"%s\", \"name\": \"tales\"}",
                            file, tokenizer);
    struct job_run job = {.name = "tales", .spec = spec};

    run_job_in(place, &job, NULL);
    mem_free(spec);
}

static double loss_of(const struct place *place, const char *model)
{
    char *spec = mem_printf("\"kind\": \"eval\", \"recipe\": \"perplexity\", \"inputs\": "
                            "{\"model\": {\"path\": \"%s\"}, \"data\": {\"path\": "
                            "\"%s/tales/datasets/tales\", \"part\": \"train\"}}",
                            model, place->folder);
    struct job_run job = {.name = "loss", .spec = spec};
    struct trace trace = {0};

    run_job_in(place, &job, &trace);
    double loss = trace_at(&trace, "loss", 1);
    trace_done(&trace);
    mem_free(spec);
    return loss;
}

static void assert_log_says(const struct place *place, const char *name, const char *expected)
{
    char *path = job_path(place, name, ".log"), *text = NULL;
    size_t length;

    OK(file_read(path, 1 << 20, &text, &length, &fixture_err));
    if (!strstr(text, expected))
        fail_msg("the log of '%s' does not say '%s': %s", name, expected, text);
    mem_free(text);
    mem_free(path);
}

/* The page's stories as files of their own, in plain quotes. Returns the pattern (mem_free). */
static char *write_tales(const struct place *place, char *page)
{
    int count = 0;

    for (char *tale = page, *end; (end = strstr(tale, "<|endoftext|>")); tale = end + 13) {
        char *path = mem_printf("%s/tale-%d.txt", place->folder, count++);
        struct buf text = {0};

        for (const char *c = tale + strspn(tale, "\n "); c < end; c++) {
            bool quote = strncmp(c, "\u201C", 3) == 0 || strncmp(c, "\u201D", 3) == 0;

            buf_putc(&text, quote ? '"' : *c);
            c += quote ? 2 : 0;
        }
        OK(file_replace(path, text.bytes, text.length, 0644, &fixture_err));
        buf_done(&text);
        mem_free(path);
    }
    assert_true(count > 2);
    return job_path(place, "tale-*", ".txt");
}

/* Its makers state a validation loss of 1.2968 nats a token; these are five such stories, each
 * behind <s>. Behind another token it would be 1.83. */
static void an_imported_model_knows_what_it_was_trained_on(void **state)
{
    const struct place *place = *state;
    char *model = input_path(FOLDER "stories260K.bin");
    char *tokenizer = input_path(FOLDER "tok512.bin");
    size_t length;
    char *page = input_read("tokenizers/bpe-train/tinystories_sample.txt", &length);
    char *tales = write_tales(place, page);
    char *end = checkpoint_of(place, "stories", 1);

    assert_int_equal(import(place, "stories", model, tokenizer, false), 0);
    make_dataset(place, tales, end);
    double loss = loss_of(place, end);
    if (!(loss > 1.1 && loss < 1.4))
        fail_msg("%g nats a token", loss);
    mem_free(end);
    mem_free(tales);
    mem_free(page);
    mem_free(tokenizer);
    mem_free(model);
}

static int write_pairs(const struct place *place, const char *name, const char *params)
{
    char *teacher = checkpoint_of(place, "writer", 1);
    char *spec = mem_printf("\"kind\": \"data\", \"recipe\": \"pairs\", \"inputs\": "
                            "{\"teacher\": {\"ref\": \"job:writer\", \"path\": \"%s\"}}, "
                            "\"params\": {\"samples\": 6, \"max_contexts\": 6, \"max_tokens\": 48, "
                            "\"context_sentences\": 2, \"separator\": \"none\", "
                            "\"min_yield\": 0%s}", teacher, params);
    struct job_run job = {.name = name, .spec = spec, .may_fail = true};
    int status = run_job_in(place, &job, NULL);

    mem_free(spec);
    mem_free(teacher);
    return status;
}

/* A model that others trained is a teacher like one of ours: it writes contexts and sentences. This
 * one's tokenizer has no newline of one token, which its own information as the critic asks. */
static void an_imported_model_is_a_teacher_of_pairs(void **state)
{
    const struct place *place = *state;
    char *model = input_path(FOLDER "stories260K.bin");
    char *tokenizer = input_path(FOLDER "tok512.bin");
    char *made = job_path(place, "told", "/datasets/told/pairs.jsonl");

    assert_int_equal(import(place, "writer", model, tokenizer, false), 0);
    assert_int_equal(write_pairs(place, "told", ", \"critic\": \"oracle\", \"tau\": -100"), 0);
    assert_true(file_exists(made));
    assert_int_not_equal(write_pairs(place, "judged", ""), 0);
    assert_log_says(place, "judged", "bad_input: input 'teacher' (job:writer): the critic's "
                                     "tokenizer cuts a newline into 2 tokens");
    mem_free(made);
    mem_free(tokenizer);
    mem_free(model);
}

static void a_cut_or_wrong_file_ends_the_job_and_leaves_nothing(void **state)
{
    const struct place *place = *state;
    char *model = input_path(FOLDER "stories260K.bin"), *bytes = NULL;
    char *tokenizer = input_path(FOLDER "tok512.bin");
    char *cut = job_path(place, "cut", ".bin"), *folder = checkpoint_of(place, "cut", 1);
    size_t length;

    OK(file_read(model, INPUT_BYTES_MAX, &bytes, &length, &fixture_err));
    OK(file_replace(cut, bytes, length / 2, 0644, &fixture_err));
    assert_int_not_equal(import(place, "cut", cut, tokenizer, true), 0);
    assert_log_says(place, "cut", "input 'model' (file:model.bin)");
    assert_log_says(place, "cut", "ends within 'block.");
    assert_false(file_exists(folder));
    assert_int_not_equal(import(place, "swapped", model, model, true), 0);
    assert_log_says(place, "swapped", "input 'tokenizer' (file:tokenizer.bin)");
    mem_free(folder);
    mem_free(cut);
    mem_free(tokenizer);
    mem_free(bytes);
    mem_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_imported_model_knows_what_it_was_trained_on),
        cmocka_unit_test(an_imported_model_is_a_teacher_of_pairs),
        cmocka_unit_test(a_cut_or_wrong_file_ends_the_job_and_leaves_nothing),
    };

    return cmocka_run_group_tests(tests, place_open, place_close);
}
