/* longer_test.c - a Llama goes on with longer texts and a larger rotary base (clm's new_context and
 * new_rope_theta), as Yi went from 4K to 200K tokens.
 *
 * Setting and bounds are those of the method card of Yi (section 8, 6), on tinyshakespeare. Long
 * mode only: recipes_test has a small job of this kind. */
#include "tests/train/plays.h"
#include "worker/engine/data/batch.h"
#include "worker/engine/io/model_files.h"

#define SHORT 128
#define LONG  512
#define ROWS  4 /* windows scored at once */

/* -- jobs ----------------------------------------------------------------------------------- */

/* init: NULL, or the job whose last checkpoint of 600 steps it goes on from. */
static void train(const struct place *place, const char *name, const char *init,
                  const char *params)
{
    char *from = init ? checkpoint_of(place, init, 600) : NULL;
    char *start = from ? mem_printf(", \"init\": {\"path\": \"%s\"}", from) : mem_strdup("");
    char *spec = mem_printf("\"kind\": \"pretraining\", \"recipe\": \"clm\", \"inputs\": "
                            "{\"data\": {\"path\": \"%s/plays\", \"part\": \"train\"}%s}, "
                            "\"params\": {%s}", place->folder, start, params);
    struct job_run job = {.name = name, .spec = spec};

    run_job_in(place, &job, NULL);
    mem_free(from);
    mem_free(start);
    mem_free(spec);
}

/* -- losses by position --------------------------------------------------------------------- */

struct losses {
    double early, late, all; /* positions 64..127, 384..511, 0..T-1: nats a token */
};

static double nll_of(const float *logits, int64_t count, int32_t target)
{
    double sum = 0, most = logits[0];

    for (int64_t v = 1; v < count; v++)
        most = fmax(most, logits[v]);
    for (int64_t v = 0; v < count; v++)
        sum += exp(logits[v] - most);
    return most + log(sum) - logits[target];
}

static void score_rows(struct tape *tape, const struct model *model, const struct batch *batch,
                       double *sum)
{
    int64_t V = model->config.vocab_size, T = batch->T;
    float *logits = mem_array((size_t)(batch->B * T * V), sizeof *logits);
    struct model_batch rows = {.B = batch->B, .T = T, .token = batch->token};
    struct model_states states = {0};

    tape_reset(tape);
    OK(model_forward(tape, model, &rows, &states, &fixture_err));
    tensor_read(model_logits(tape, model, states.hidden), logits);
    for (int64_t n = 0; n < batch->B * T; n++)
        sum[n % T] += nll_of(logits + n * V, V, batch->target[n]);
    mem_free(logits);
}

static double mean(const double *sum, int64_t from, int64_t to, int64_t windows)
{
    double total = 0;

    for (int64_t t = from; t < to; t++)
        total += sum[t];
    return total / (double)((to - from) * windows);
}

/* Of a job's last model, on as many whole windows of T tokens as the rest of the text has. A model
 * of fewer positions is given T: its angles go on. */
static struct losses measure(const struct place *place, const char *job, uint64_t step, int64_t T,
                             double theta)
{
    char *folder = checkpoint_of(place, job, step), *plays = job_path(place, "plays", "");
    struct device_config config = {.kind = BACKEND_CPU, .threads = 2};
    struct device *device;
    struct model *model;
    struct tape *tape;
    struct dataset *dataset;
    const struct dataset_part *part;
    struct windows windows;
    struct batch batch;
    double sum[LONG] = {0};
    int64_t count;

    OK(device_open(&config, &device, &fixture_err));
    OK(model_files_open(folder, device, true, &model, &fixture_err));
    OK(model_reach(model, T, theta, &fixture_err));
    OK(tape_new(device, TAPE_INFER, &tape, &fixture_err));
    OK(dataset_open(plays, &dataset, &fixture_err));
    OK(dataset_part(dataset, "valid", &part, &fixture_err));
    OK(windows_init(&windows, part, T, &fixture_err));
    OK(batch_init(&batch, ROWS, T, &fixture_err));
    count = (windows.window_count - 1) / ROWS * ROWS; /* the last one is padded */
    for (int64_t first = 0; first < count; first += ROWS) {
        assert_int_equal(windows_fill_ordered(&windows, (uint64_t)first, &batch), ROWS);
        score_rows(tape, model, &batch, sum);
    }
    struct losses losses = {.early = mean(sum, 64, 128, count),
                            .late = T == LONG ? mean(sum, 384, 512, count) : 0,
                            .all = mean(sum, 0, T, count)};
    batch_done(&batch);
    windows_done(&windows);
    dataset_close(dataset);
    tape_free(tape);
    model_free(model);
    device_close(device);
    mem_free(folder);
    mem_free(plays);
    return losses;
}

static struct losses show(const char *what, struct losses at_long, struct losses at_short)
{
    print_message("%s: positions 64-127 %.3f, 384-511 %.3f; windows of %d %.3f\n", what,
                  at_long.early, at_long.late, SHORT, at_short.all);
    return at_long;
}

/* A larger base without training is worse also on short texts; a hundred steps of long ones bring
 * the late positions to the early ones, and the short texts stay as they were. */
static void a_hundred_steps_on_longer_texts_reach_their_late_positions(void **state)
{
    const struct place *place = *state;

    if (!plays_are_there(place))
        skip();
    train(place, "short", NULL,
          "\"arch\": \"llama\", \"layers\": 3, \"d_model\": 64, \"heads\": 4, \"context\": 128, "
          "\"batch\": 8, \"steps\": 600, \"warmup\": 50, \"learning_rate\": 0.003");
#define GO_ON "\"new_context\": 512, \"batch\": 4, \"steps\": 100, \"learning_rate\": 0.001"
    train(place, "longer", "short", GO_ON ", \"new_rope_theta\": 500000");
    train(place, "same", "short", GO_ON);

    struct losses short_before = measure(place, "short", 600, SHORT, 0);
    struct losses before = show("before", measure(place, "short", 600, LONG, 0), short_before);
    struct losses short_turned = measure(place, "short", 600, SHORT, 500000);

    show("another base, untrained", measure(place, "short", 600, LONG, 500000), short_turned);
    struct losses short_longer = measure(place, "longer", 100, SHORT, 0);
    struct losses longer = show("another base", measure(place, "longer", 100, LONG, 0),
                                short_longer);
    struct losses same = show("the same base", measure(place, "same", 100, LONG, 0),
                              measure(place, "same", 100, SHORT, 0));

    assert_true(before.late - before.early > 0.5);
    assert_true(short_turned.all > short_before.all + 0.05);
    assert_true(longer.late - longer.early <= 0.10);
    assert_true(short_longer.all <= short_before.all + 0.03);
    assert_true(longer.late <= same.late);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hundred_steps_on_longer_texts_reach_their_late_positions),
    };

    return cmocka_run_group_tests(tests, place_open, place_close);
}
