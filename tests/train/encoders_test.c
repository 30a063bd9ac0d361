/* encoders_test.c - pretraining of encoders: masks as published, runs that repeat, resume and
 * spread over ranks, and a model that learns what was hidden from it.
 *
 * The dataset is made by data/text, with the special tokens that these recipes need. */
#include "tests/train/fixture.h"
#include "worker/recipes/masks.h"
#include "worker/recipes/spans.h"

static bool long_mode(void)
{
    const char *mode = getenv("ATHANOR_TEST_MODE");

    return mode && strcmp(mode, "long") == 0;
}

/* The toys' documents, one a line, as a dataset with [MASK] and sentinels. */
static int with_dataset(void **state)
{
    struct buf lines = {0};
    char *path, *spec;

    if (place_open(state) < 0)
        return -1;
    const struct place *place = *state;
    for (uint64_t i = 0; i < 300; i++) {
        char *text = document_text(i);

        buf_printf(&lines, "%s\n", text);
        mem_free(text);
    }
    path = job_path(place, "toys.txt", "");
    OK(file_replace(path, lines.bytes, lines.length, 0644, &fixture_err));
    spec = mem_printf("\"kind\": \"data\", \"recipe\": \"text\", \"params\": {\"files\": [\"%s\"], "
                      "\"split_by\": \"line\", \"vocab_size\": 320, \"special_tokens\": "
                      "[\"[MASK]\"], \"sentinels\": 16, \"name\": \"lines\"}",
                      path);
    struct job_run job = {.name = "data", .spec = spec};

    run_job_in(place, &job, NULL);
    mem_free(spec);
    mem_free(path);
    buf_done(&lines);
    return 0;
}

static char *input(const struct place *place, const char *part)
{
    return mem_printf("{\"path\": \"%s/data/datasets/lines\", \"part\": \"%s\"}", place->folder,
                      part);
}

/* more: further inputs, beginning with a comma, or "". */
static void train(const struct place *place, const char *name, const char *kind,
                  const char *recipe, const char *more, const char *params, const char *resume,
                  int ranks, struct trace *trace)
{
    char *data = input(place, "train"), *valid = input(place, "valid");
    char *spec = mem_printf("\"kind\": \"%s\", \"recipe\": \"%s\", \"checkpoint\": "
                            "{\"every_steps\": 5}, \"inputs\": {\"data\": %s, \"valid\": %s%s}, "
                            "\"params\": {%s}",
                            kind, recipe, data, valid, more, params);
    struct job_run job = {.name = name, .spec = spec, .resume = resume, .ranks = ranks};

    run_job_in(place, &job, trace);
    mem_free(spec);
    mem_free(data);
    mem_free(valid);
}

/* The same bits again, after a resume from step 5 of 10, and to rounding on two ranks. */
static void check_repeats(const struct place *place, const char *name, const char *kind,
                          const char *recipe, const char *more, const char *params)
{
    char *resumed = mem_printf("%s-resumed", name), *two = mem_printf("%s-two", name);
    char *middle = checkpoint_of(place, name, 5), *end = checkpoint_of(place, name, 10);
    char *resumed_end = checkpoint_of(place, resumed, 10);
    struct trace first = {0}, rest = {0}, ranks = {0};

    train(place, name, kind, recipe, more, params, NULL, 1, &first);
    train(place, resumed, kind, recipe, more, params, middle, 1, &rest);
    assert_same_trace(&first, &rest, 5, 0);
    assert_same_file(end, resumed_end, "model.safetensors");
    assert_same_file(end, resumed_end, "optim-00000-of-00001.safetensors");
    train(place, two, kind, recipe, more, params, NULL, 2, &ranks);
    assert_same_trace(&first, &ranks, 0, 1e-5);
    trace_done(&first);
    trace_done(&rest);
    trace_done(&ranks);
    mem_free(resumed);
    mem_free(two);
    mem_free(middle);
    mem_free(end);
    mem_free(resumed_end);
}

#define SHAPE "\"layers\": 2, \"d_model\": 32, \"heads\": 2, \"context\": 48"

static void mlm_repeats_and_resumes(void **state)
{
    check_repeats(*state, "mlm", "pretraining", "mlm", "",
                  SHAPE ", \"steps\": 10, \"batch\": 8, \"grad_accum\": 2, \"whole_words\": true");
    check_repeats(*state, "mlm-windows", "pretraining", "mlm", "",
                  SHAPE ", \"steps\": 10, \"batch\": 4, \"unit\": \"windows\"");
}

static void span_corruption_repeats_and_resumes(void **state)
{
    check_repeats(*state, "spans", "pretraining", "span_corruption", "",
                  SHAPE ", \"steps\": 10, \"batch\": 4, \"grad_accum\": 2");
    check_repeats(*state, "spans-documents", "pretraining", "span_corruption", "",
                  SHAPE ", \"steps\": 10, \"batch\": 8, \"unit\": \"documents\", \"tied\": true, "
                        "\"gated\": false");
}

/* What follows from the rest of a line (the kind of a name, and the words) is learned. */
static void mlm_learns_what_is_hidden(void **state)
{
    int steps = long_mode() ? 600 : 150, seeds = long_mode() ? 3 : 1;

    for (int seed = 0; seed < seeds; seed++) {
        char *params = mem_printf(SHAPE ", \"steps\": %d, \"batch\": 32, \"learning_rate\": 0.01, "
                                        "\"warmup\": 20, \"seed\": %d, \"eval_every\": 1",
                                  steps, seed);
        char *name = mem_printf("learns-%d", seed);
        struct trace trace = {0};
        double before, after;

        train(*state, name, "pretraining", "mlm", "", params, NULL, 1, &trace);
        before = trace_at(&trace, "val_loss", 1);
        after = trace_at(&trace, "val_loss", (uint64_t)steps);
        print_message("seed %d: val_loss %.3f, then %.3f\n", seed, before, after);
        assert_true(before > 5 && after < (long_mode() ? 2.5 : 3.5));
        trace_done(&trace);
        mem_free(name);
        mem_free(params);
    }
}

/* A dataset without what a recipe needs, and shapes that cannot be. */
static void encoders_say_what_they_lack(void **state)
{
    static const struct {
        const char *recipe, *data, *params, *complaint;
    } wrong[] = {
        {"mlm", "toys", "\"steps\": 1", "has no token [MASK] or <mask>"},
        {"span_corruption", "toys", "\"steps\": 1", "has no sentinel <extra_id_0>"},
        {"span_corruption", "data/datasets/lines", "\"context\": 400",
         "prepare the dataset with sentinels: 22"},
        {"span_corruption", "data/datasets/lines", "\"noise_density\": 0.9, \"mean_span\": 100",
         "more than the model's context"},
        {"mlm", "data/datasets/lines", "\"mask_random\": 0.3", "their sum must be at most 1"},
    };
    const struct place *place = *state;

    for (size_t i = 0; i < ARRAY_COUNT(wrong); i++) {
        char *spec = mem_printf("\"kind\": \"pretraining\", \"recipe\": \"%s\", \"inputs\": "
                                "{\"data\": {\"path\": \"%s/%s\", \"part\": \"train\"}}, \"params\": "
                                "{%s}",
                                wrong[i].recipe, place->folder, wrong[i].data, wrong[i].params);
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

/* -- masks ---------------------------------------------------------------------------------- */

/* A vocabulary of WordPiece kind: even ids begin words, odd ones continue them; 0 is special,
 * the last is [MASK]. */
#define V 100

static void make_masks(struct masks *masks, bool whole_words, int64_t cells)
{
    memset(masks, 0, sizeof *masks);
    masks->share = 0.15;
    masks->replace = 0.8;
    masks->random = 0.1;
    masks->whole_words = whole_words;
    masks->seed = 5;
    masks->mask_token = V - 1;
    masks->kind = calloc(V, 1);
    masks->ordinary = malloc(V * sizeof *masks->ordinary);
    masks->last = malloc((size_t)cells * sizeof *masks->last);
    masks->row = malloc((size_t)cells * sizeof *masks->row);
    masks->truth = malloc((size_t)cells * sizeof *masks->truth);
    masks->group = malloc(2 * (size_t)(cells + 1) * sizeof *masks->group);
    masks->kind[0] = masks->kind[V - 1] = 1; /* special */
    for (int32_t id = 1; id < V - 1; id++) {
        if (id % 2)
            masks->kind[id] = 2; /* continues */
        masks->ordinary[masks->ordinary_count++] = id;
    }
}

/* A pack of `count` rows of 41 cells: the special token, then 40 tokens that are 2, 3 in turn. */
static void make_pack(struct pack *pack, int64_t count)
{
    int32_t token[41], target[41];

    OK(pack_init(pack, 41, count, &fixture_err));
    for (int i = 0; i < 41; i++) {
        token[i] = i == 0 ? 0 : 2 + (i - 1) % 2;
        target[i] = -1;
    }
    for (int64_t row = 0; row < count; row++)
        assert_true(pack_add(pack, row, token, target, 41));
}

static void masks_follow_the_published_shares(void **state)
{
    enum { ROWS = 400 };
    uint64_t position[ROWS];
    double masked = 0, kept = 0, drawn = 0;
    struct masks masks;
    struct pack pack;

    (void)state;
    make_masks(&masks, false, ROWS * 41);
    make_pack(&pack, ROWS);
    for (int i = 0; i < ROWS; i++)
        position[i] = (uint64_t)i;
    masks_pack(&masks, &pack, 1, position);
    assert_int_equal(masks.count, ROWS * 6); /* round(0.15 * 41) */
    for (int64_t i = 0; i < masks.count; i++) {
        int32_t now = pack.token[masks.row[i]];

        assert_int_not_equal(masks.truth[i], 0);
        assert_int_equal(masks.truth[i], 2 + (masks.row[i] % 41 - 1) % 2);
        masked += now == V - 1;
        kept += now == masks.truth[i];
        drawn += now != V - 1 && now != masks.truth[i];
        assert_int_not_equal(now, 0);
    }
    /* 2400 draws: three standard errors are 0.025 and 0.019; a random token is the true one in
     * 1 of 98 draws. */
    assert_float_equal(masked / (double)masks.count, 0.8, 0.025);
    assert_float_equal(kept / (double)masks.count, 0.1 + 0.1 / 98, 0.019);
    assert_float_equal(drawn / (double)masks.count, 0.1 - 0.1 / 98, 0.019);
    pack_done(&pack);
    masks_done(&masks);
}

static void whole_words_are_hidden_whole(void **state)
{
    enum { ROWS = 50 };
    uint64_t position[ROWS];
    bool chosen[ROWS * 41] = {0};
    struct masks masks;
    struct pack pack;

    (void)state;
    make_masks(&masks, true, ROWS * 41);
    make_pack(&pack, ROWS);
    for (int i = 0; i < ROWS; i++)
        position[i] = (uint64_t)i;
    masks_pack(&masks, &pack, 1, position);
    assert_int_equal(masks.count, ROWS * 6); /* three words of two tokens */
    for (int64_t i = 0; i < masks.count; i++)
        chosen[masks.row[i]] = true;
    for (int64_t row = 0; row < ROWS; row++)
        for (int64_t column = 1; column < 41; column += 2)
            assert_true(chosen[row * 41 + column] == chosen[row * 41 + column + 1]);
    pack_done(&pack);
    masks_done(&masks);
}

static void masks_follow_from_position_alone(void **state)
{
    uint64_t forward[3] = {7, 8, 9}, alone[1] = {8}, later[1] = {108};
    struct masks masks;
    struct pack all, one, other;

    (void)state;
    make_masks(&masks, false, 3 * 41);
    make_pack(&all, 3);
    make_pack(&one, 1);
    make_pack(&other, 1);
    masks_pack(&masks, &all, 1, forward);
    masks_pack(&masks, &one, 1, alone);
    masks_pack(&masks, &other, 1, later);
    assert_memory_equal(all.token + 41, one.token, 41 * sizeof *one.token);
    assert_memory_not_equal(other.token, one.token, 41 * sizeof *one.token);
    pack_done(&all);
    pack_done(&one);
    pack_done(&other);
    masks_done(&masks);
}

/* -- spans ---------------------------------------------------------------------------------- */

/* The worked example of the release: 512 tokens of source take 568 of text, 114 of target. */
static void span_sizes_are_the_published_ones(void **state)
{
    struct spans_config config = {0.15, 3};
    struct spans_sizes sizes;

    (void)state;
    assert_int_equal(spans_longest(&config, 512), 568);
    sizes = spans_sizes(&config, 568);
    assert_int_equal(sizes.noise, 85);
    assert_int_equal(sizes.spans, 28);
    assert_int_equal(sizes.source, 512);
    assert_int_equal(sizes.target, 114);
    sizes = spans_sizes(&config, 1);
    assert_int_equal(sizes.noise, 0);
    sizes = spans_sizes(&config, 2);
    assert_int_equal(sizes.noise, 1);
    assert_int_equal(sizes.source, 3);
    assert_int_equal(sizes.target, 3);
}

/* For many lengths: sizes are as stated, the text begins with what stays and ends with noise, and
 * source and target together give the text back. */
static void spans_put_back_give_the_text(void **state)
{
    static const struct spans_config configs[] = {{0.15, 3}, {0.5, 1}, {0.3, 8}};
    int32_t token[200], sentinel[200], source[400], target[400];
    bool noise[200];

    (void)state;
    for (int i = 0; i < 200; i++) {
        token[i] = 10 + i;
        sentinel[i] = 1000 + i;
    }
    for (size_t c = 0; c < ARRAY_COUNT(configs); c++)
        for (int64_t n = 1; n < 200; n += 3) {
            struct spans_sizes sizes = spans_sizes(&configs[c], n);
            int64_t s, t, at = 0, back = 0;
            struct rng rng;

            rng_init(&rng, (uint64_t)n);
            spans_draw(&configs[c], n, &rng, noise);
            assert_false(noise[0]);
            assert_true(n < 2 || noise[n - 1]);
            spans_write(token, noise, n, sentinel, 1, source, &s, target, &t);
            assert_int_equal(s, sizes.source);
            assert_int_equal(t, sizes.target);
            for (int64_t i = 0; i < s - 1; i++) {
                if (source[i] < 1000) {
                    assert_int_equal(source[i], token[back++]);
                    continue;
                }
                assert_int_equal(target[at++], source[i]);
                while (target[at] < 1000 && target[at] != 1)
                    assert_int_equal(target[at++], token[back++]);
            }
            assert_int_equal(back, n);
            assert_int_equal(target[at], 1);
            assert_int_equal(source[s - 1], 1);
        }
}

/* The mean length of a span over many draws is what was asked, and starts are spread. */
static void spans_have_the_mean_length_and_spread(void **state)
{
    struct spans_config config = {0.15, 3};
    double first = 0, spans = 0;
    bool noise[100];

    (void)state;
    for (uint64_t draw = 0; draw < 2000; draw++) {
        struct rng rng;
        int64_t at = 0;

        rng_init(&rng, draw);
        spans_draw(&config, 100, &rng, noise);
        while (!noise[at])
            at++;
        first += (double)at;
        for (int i = 1; i < 100; i++)
            spans += noise[i] && !noise[i - 1];
    }
    assert_float_equal(15 * 2000 / spans, 3, 1e-9);
    assert_float_equal(first / 2000, 85 / 5.0, 0.9); /* mean of 85 cut into 5; three std. errors */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(masks_follow_the_published_shares),
        cmocka_unit_test(whole_words_are_hidden_whole),
        cmocka_unit_test(masks_follow_from_position_alone),
        cmocka_unit_test(mlm_repeats_and_resumes),
        cmocka_unit_test(span_sizes_are_the_published_ones),
        cmocka_unit_test(spans_put_back_give_the_text),
        cmocka_unit_test(spans_have_the_mean_length_and_spread),
        cmocka_unit_test(span_corruption_repeats_and_resumes),
        cmocka_unit_test(encoders_say_what_they_lack),
        cmocka_unit_test(mlm_learns_what_is_hidden),
    };

    return cmocka_run_group_tests(tests, with_dataset, place_close);
}
