/* distil_test.c - does a teacher help? The same student, data, steps and seed with and without
 * it; how close each comes to the teacher on documents that neither has seen.
 *
 * Gate per seed: forward KL to the teacher on held-out documents is at most 0.6 of the control
 * arm's, and the teacher's weights have not changed. Three seeds, each must pass: in the long
 * mode; one seed by default. */
#include "tests/train/fixture.h"

static char *input(const struct place *place, const char *part)
{
    return mem_printf("{\"ref\": \"dataset:toys/%s\", \"path\": \"%s/toys\", \"part\": \"%s\"}",
                      part, place->folder, part);
}

static void train_teacher(const struct place *place)
{
    char *wide = input(place, "wide");
    char *spec =
        mem_printf("\"kind\": \"pretraining\", \"recipe\": \"clm\", \"inputs\": {\"data\": %s}, "
                   "\"params\": {\"arch\": \"llama\", \"layers\": 2, \"d_model\": 48, "
                   "\"heads\": 4, \"context\": 64, \"unit\": \"documents\", \"steps\": 200, "
                   "\"batch\": 16, \"learning_rate\": 0.006, \"seed\": 9}",
                   wide);
    struct job_run job = {.name = "teacher", .spec = spec};

    run_job_in(place, &job, NULL);
    mem_free(wide);
    mem_free(spec);
}

/* The last kl_to_teacher of a student of one layer. */
static double student_kl(const struct place *place, const char *loss, int seed, double *out_val)
{
    char *wide = input(place, "wide"), *valid = input(place, "valid");
    char *spec = mem_printf("\"kind\": \"distillation\", \"recipe\": \"logit_kd\", \"inputs\": "
                            "{\"data\": %s, \"valid\": %s, "
                            "\"teacher\": {\"path\": \"%s/teacher/checkpoints/step-0000000200\"}}, "
                            "\"params\": {\"loss\": "
                            "\"%s\", \"layers\": 1, \"d_model\": 32, \"heads\": 2, \"unit\": "
                            "\"documents\", \"steps\": 300, "
                            "\"batch\": 16, \"learning_rate\": 0.006, \"seed\": %d}",
                            wide, valid, place->folder, loss, seed);
    char *name = mem_printf("student-%s-%d", loss, seed);
    struct job_run job = {.name = name, .spec = spec};
    struct trace trace = {0};
    double kl;

    run_job_in(place, &job, &trace);
    kl = trace_at(&trace, "kl_to_teacher", 300);
    *out_val = trace_at(&trace, "val_loss", 300);
    trace_done(&trace);
    mem_free(wide);
    mem_free(valid);
    mem_free(spec);
    mem_free(name);
    return kl;
}

static void a_taught_student_ends_closer_to_its_teacher(void **state)
{
    const char *mode = getenv("ATHANOR_TEST_MODE");
    int seeds = mode && strcmp(mode, "long") == 0 ? 3 : 1;
    const struct place *place = *state;
    char *weights =
        mem_printf("%s/teacher/checkpoints/step-0000000200/model.safetensors", place->folder);
    struct hash before, after;

    train_teacher(place);
    OK(hash_file(weights, &before, &fixture_err));
    for (int seed = 0; seed < seeds; seed++) {
        double alone_val, taught_val;
        double alone = student_kl(place, "ce", seed, &alone_val);
        double taught = student_kl(place, "fkl", seed, &taught_val);

        print_message("seed %d: forward KL to the teacher %.4f taught, %.4f alone; "
                      "val_loss %.4f, %.4f\n",
                      seed, taught, alone, taught_val, alone_val);
        assert_true(taught <= 0.6 * alone);
    }
    OK(hash_file(weights, &after, &fixture_err));
    assert_true(hash_equal(&before, &after));
    mem_free(weights);
}

/* Pure KD ignores the targets, alpha 0 ignores the teacher. */
static void alpha_zero_is_plain_cross_entropy(void **state)
{
    const struct place *place = *state;
    char *wide = input(place, "wide");
    struct trace none = {0}, zero = {0};
    const char *params[] = {"\"loss\": \"ce\"", "\"loss\": \"rkl\", \"alpha\": 0"};

    for (int i = 0; i < 2; i++) {
        char *spec = mem_printf(
            "\"kind\": \"distillation\", \"recipe\": \"logit_kd\", \"inputs\": {\"data\": %s, "
            "\"teacher\": {\"path\": \"%s/teacher/checkpoints/step-0000000200\"}}, \"params\": "
            "{%s, "
            "\"layers\": 1, \"unit\": \"documents\", \"steps\": 8, \"batch\": 8}",
            wide, place->folder, params[i]);
        struct job_run job = {.name = i ? "zero" : "none", .spec = spec};

        run_job_in(place, &job, i ? &zero : &none);
        mem_free(spec);
    }
    for (uint64_t step = 1; step <= 8; step++)
        assert_float_equal(trace_at(&none, "loss", step), trace_at(&zero, "loss", step), 1e-6);
    trace_done(&none);
    trace_done(&zero);
    mem_free(wide);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_taught_student_ends_closer_to_its_teacher),
        cmocka_unit_test(alpha_zero_is_plain_cross_entropy),
    };

    return cmocka_run_group_tests(tests, place_open, place_close);
}
