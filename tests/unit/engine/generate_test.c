/* generate_test.c - decoding through the cache, and sampling. */
#include "tests/unit/engine/small_models.h"
#include "worker/engine/generate.h"

#include <math.h>

/* Feeds a sequence to the cache in uneven parts and compares hidden states with one pass. */
static void check_cache(const struct model_config *config)
{
    static const int64_t parts[] = {7, 1, 1, 5, 6};
    struct device *device = small_device(BACKEND_CPU, 2);
    struct model *model = small_model(device, config, 4);
    struct tape *tape = small_tape(device, TAPE_INFER);
    struct kv_cache *cache = NULL;
    int64_t D = config->width, at = 0;
    float *whole = mem_array((size_t)(SMALL_N * D), 4), *part = mem_array((size_t)(SMALL_N * D), 4);
    struct model_states states = {0};
    struct small_batch batch;
    struct err err;

    small_batch_fill(&batch, config->vocab_size, 6);
    must(model_forward(tape, model, &batch.batch, &states, &err));
    tensor_read(states.hidden, whole);
    must(kv_cache_new(model, SMALL_B, SMALL_T, &cache, &err));
    for (size_t p = 0; p < ARRAY_COUNT(parts); p++) {
        int32_t token[SMALL_N];
        struct tensor *hidden;
        int64_t T = parts[p];

        for (int64_t i = 0; i < SMALL_B * T; i++)
            token[i] = batch.token[i / T * SMALL_T + at + i % T];
        tape_reset(tape);
        must(kv_cache_extend(tape, cache, token, T, NULL, &hidden, &err));
        tensor_read(hidden, part);
        for (int64_t i = 0; i < SMALL_B * T * D; i++) {
            int64_t row = i / D / T * SMALL_T + at + i / D % T;

            assert_true(fabsf(part[i] - whole[row * D + i % D]) < 1e-4f);
        }
        at += T;
    }
    assert_int_equal(kv_cache_extend(tape, cache, batch.token, 1, NULL, &states.hidden, &err), -1);
    assert_int_equal(err.kind, ERR_LIMIT);
    mem_free(whole);
    mem_free(part);
    kv_cache_free(cache);
    tape_free(tape);
    model_free(model);
    device_close(device);
}

static void decoding_through_the_cache_equals_the_full_forward(void **state)
{
    (void)state;
    check_cache(&small_gpt2);
    check_cache(&small_llama);
    check_cache(&small_qwen);
}

static const int32_t words[] = {3, 1, 4, 1, 5, 9, 2, 6};

/* The likeliest continuation, found with whole forward passes. */
static void greedy_texts_follow_the_full_forward(void **state)
{
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model *model = small_model(device, &small_llama, 4);
    struct tape *tape = small_tape(device, TAPE_INFER);
    int32_t token[24], text[10];
    struct prompt prompt = {words, 8};
    struct generation generation = {.token = text};
    struct sampling sampling = {.stop_token = -1};
    float *logits = mem_array(24 * 53, 4);
    struct err err;

    (void)state;
    must(generate(model, &prompt, &generation, 1, 10, &sampling, &err));
    assert_int_equal(generation.count, 10);
    memcpy(token, words, sizeof words);
    for (int i = 0; i < 10; i++) {
        struct model_batch batch = {.B = 1, .T = 8 + i, .token = token};
        struct model_states states = {0};

        tape_reset(tape);
        must(model_forward(tape, model, &batch, &states, &err));
        tensor_read(model_logits(tape, model, states.hidden), logits);
        token[8 + i] = sample_token(logits + (7 + i) * 53, 53, &sampling, 0);
        assert_int_equal(text[i], token[8 + i]);
    }
    mem_free(logits);
    tape_free(tape);
    model_free(model);
    device_close(device);
}

static void a_batch_of_ragged_prompts_gives_the_texts_of_its_members(void **state)
{
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model *model = small_model(device, &small_gpt2, 4);
    struct sampling sampling = {.temperature = 1, .top_p = 0.9, .seed = 7, .stop_token = 5};
    struct prompt prompts[3] = {{words, 8}, {words + 2, 3}, {words + 1, 1}};
    int32_t together[3][12], alone[12];
    struct generation texts[3];
    struct err err;

    (void)state;
    for (int i = 0; i < 3; i++)
        texts[i] = (struct generation){.token = together[i], .index = (uint64_t)i};
    must(generate(model, prompts, texts, 3, 12, &sampling, &err));
    for (int i = 0; i < 3; i++) {
        struct generation one = {.token = alone, .index = (uint64_t)i};

        must(generate(model, &prompts[i], &one, 1, 12, &sampling, &err));
        assert_int_equal(one.count, texts[i].count);
        assert_memory_equal(alone, together[i], 4 * (size_t)one.count);
    }
    model_free(model);
    device_close(device);
}

static void samples_of_one_shared_prompt_are_those_of_copies_of_it(void **state)
{
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model *model = small_model(device, &small_llama, 4);
    struct sampling sampling = {.temperature = 1, .top_p = 0.9, .seed = 7, .stop_token = 5};
    int32_t copies[4][8], apart[4][8], shared[4][8];
    struct prompt one[4], own[4];
    struct generation a[4], b[4];
    struct err err;

    (void)state;
    for (int i = 0; i < 4; i++) {
        memcpy(copies[i], words, sizeof copies[i]);
        one[i] = (struct prompt){words, 8};
        own[i] = (struct prompt){copies[i], 8};
        a[i] = (struct generation){.token = shared[i], .index = (uint64_t)i};
        b[i] = (struct generation){.token = apart[i], .index = (uint64_t)i};
    }
    must(generate(model, one, a, 4, 8, &sampling, &err));
    must(generate(model, own, b, 4, 8, &sampling, &err));
    for (int i = 0; i < 4; i++) {
        assert_int_equal(a[i].count, b[i].count);
        assert_memory_equal(shared[i], apart[i], 4 * (size_t)a[i].count);
    }
    model_free(model);
    device_close(device);
}

static void texts_end_at_the_context_and_bad_prompts_are_refused(void **state)
{
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model *model = small_model(device, &small_gpt2, 4);
    struct sampling sampling = {.stop_token = -1};
    int32_t text[40], bad = 61;
    struct prompt prompt = {words, 8}, empty = {words, 0}, foreign = {&bad, 1};
    struct generation generation = {.token = text};
    struct err err;

    (void)state;
    must(generate(model, &prompt, &generation, 1, 40, &sampling, &err));
    assert_int_equal(generation.count, 24 - 8);
    assert_int_equal(generate(model, &empty, &generation, 1, 4, &sampling, &err), -1);
    assert_int_equal(err.kind, ERR_INVALID);
    assert_int_equal(generate(model, &foreign, &generation, 1, 4, &sampling, &err), -1);
    assert_int_equal(err.kind, ERR_INVALID);
    model_free(model);
    device_close(device);
}

static void cuts_keep_the_likeliest_tokens(void **state)
{
    static const float logits[] = {0.0f, 2.0f, 1.0f, -1.0f};
    struct sampling greedy = {0}, top2 = {.temperature = 1, .top_k = 2};
    struct sampling nucleus = {.temperature = 1, .top_p = 0.5};

    (void)state;
    assert_int_equal(sample_token(logits, 4, &greedy, 0.99), 1);
    for (double unit = 0; unit < 1; unit += 0.01) {
        int32_t token = sample_token(logits, 4, &top2, unit);

        assert_true(token == 1 || token == 2);
        assert_int_equal(sample_token(logits, 4, &nucleus, unit), 1); /* p = 0.64 */
    }
}

/* What sorting all tokens would draw: likelier first, then lower id. */
static int32_t draw_by_sorting(const float *logits, int64_t V, const struct sampling *sampling,
                               double unit)
{
    int32_t order[200];
    double weight[200], total = 0, sum = 0, kept = 0;
    int64_t most = sampling->top_k > 0 && sampling->top_k < V ? sampling->top_k : V, count = most;
    float highest = -INFINITY;

    for (int64_t i = 0; i < V; i++)
        highest = fmaxf(highest, logits[i]);
    for (int64_t i = 0; i < V; i++) {
        int64_t at = i;
        for (; at > 0 && logits[order[at - 1]] < logits[i]; at--)
            order[at] = order[at - 1];
        order[at] = (int32_t)i;
    }
    for (int64_t i = 0; i < V; i++)
        weight[i] = exp(((double)logits[order[i]] - highest) / sampling->temperature);
    for (int64_t i = 0; i < most; i++)
        total += weight[i];
    for (int64_t i = 0; i < most && sampling->top_p > 0 && sampling->top_p < 1; i++) {
        sum += weight[i];
        if (sum >= sampling->top_p * total) {
            count = i + 1;
            break;
        }
    }
    for (int64_t i = 0; i < count; i++)
        kept += weight[i];
    for (int64_t i = 0; i < count; i++)
        if ((kept > 0 ? unit * kept : 0) < weight[i] || i == count - 1)
            return order[i];
        else
            unit -= weight[i] / kept;
    return -1;
}

static void draws_are_those_of_sorted_tokens(void **state)
{
    struct rng rng;

    (void)state;
    rng_init(&rng, 5);
    for (int round = 0; round < 3000; round++) {
        struct sampling sampling = {.temperature = 0.5 + rng_unit(&rng)};
        int64_t V = 1 + (int64_t)rng_below(&rng, 200);
        float logits[200];

        if (round % 3)
            sampling.top_p = 0.05 + 0.94 * rng_unit(&rng);
        if (round % 2)
            sampling.top_k = 1 + (int64_t)rng_below(&rng, 60);
        for (int64_t i = 0; i < V; i++) /* of a few values, so that some are equal */
            logits[i] = round % 5 == 0 ? (float)rng_below(&rng, 4) : (float)(6 * rng_unit(&rng));
        double unit = rng_unit(&rng);
        if (round % 3 == 0 && round % 2 == 0) /* all of them, in order of ids */
            continue;
        assert_int_equal(sample_token(logits, V, &sampling, unit),
                         draw_by_sorting(logits, V, &sampling, unit));
    }
}

/* Frequencies against softmax probabilities: 20,000 draws, 4 standard errors. */
static void draws_follow_the_softmax(void **state)
{
    static const float logits[] = {0.0f, 2.0f, 1.0f, -1.0f};
    struct sampling plain = {.temperature = 2};
    double weight[4], total = 0;
    int count[4] = {0};

    (void)state;
    for (int i = 0; i < 4; i++)
        total += weight[i] = exp(logits[i] / 2);
    for (int i = 0; i < 20000; i++)
        count[sample_token(logits, 4, &plain, rng_unit_at(1, 2, (uint64_t)i))]++;
    for (int i = 0; i < 4; i++) {
        double p = weight[i] / total;

        assert_true(fabs(count[i] / 20000.0 - p) < 4 * sqrt(p * (1 - p) / 20000));
    }
}

/* Log p of a continuation by one whole forward pass. */
static double whole_log_p(struct model *model, const int32_t *token, int64_t prefix, int64_t count)
{
    struct tape *tape = small_tape(model->device, TAPE_INFER);
    struct model_batch batch = {.B = 1, .T = count, .token = token};
    struct model_states states = {0};
    int32_t target[24];
    float nll[24];
    double sum = 0;
    struct err err;

    for (int64_t t = 0; t < count; t++)
        target[t] = t + 1 < count && t + 1 >= prefix ? token[t + 1] : -1;
    must(model_forward(tape, model, &batch, &states, &err));
    must(loss_nll(tape, states.hidden, model->head, target, nll, &err));
    for (int64_t t = 0; t < count; t++)
        sum -= nll[t];
    tape_free(tape);
    return sum;
}

static void continuations_of_one_prefix_score_as_whole_texts(void **state)
{
    static const struct model_config *const configs[] = {&small_gpt2, &small_llama};
    static const int32_t text[3][12] = {{3, 1, 4, 1, 5, 9, 2, 6}, {3, 1, 4, 1, 7}, {3, 1, 4, 1}};
    static const int64_t count[3] = {8, 5, 4};

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(configs); k++) {
        struct device *device = small_device(BACKEND_CPU, 2);
        struct model *model = small_model(device, configs[k], 4);
        struct prompt prefix, continuation[3];
        double log_p[3];
        bool greedy[3];
        struct err err;

        for (int64_t length = 1; length <= 4; length += 3) {
            prefix = (struct prompt){text[0], length};
            for (int i = 0; i < 3; i++)
                continuation[i] = (struct prompt){text[i] + length, count[i] - length};
            must(score_continuations(model, &prefix, continuation, 3, log_p, greedy, &err));
            for (int i = 0; i < 3; i++)
                assert_true(fabs(log_p[i] - whole_log_p(model, text[i], length, count[i])) < 1e-4);
            if (length == 4)
                assert_true(log_p[2] == 0 && greedy[2]);
        }
        continuation[0].count = 30;
        assert_int_equal(score_continuations(model, &prefix, continuation, 1, log_p, NULL, &err),
                         -1);
        assert_non_null(strstr(err.text, "continuation 0 of 30"));
        model_free(model);
        device_close(device);
    }
}

/* All texts of two tokens, by whole passes: what beams that are wide enough must find. */
static void wide_beams_find_the_likeliest_texts(void **state)
{
    enum { V = 53, K = V };
    struct device *device = small_device(BACKEND_CPU, 2);
    struct model *model = small_model(device, &small_llama, 4);
    struct beam_config config = {.beams = K, .most_tokens = 2, .stop_token = -1};
    struct prompt prompt = {words, 4};
    struct beam_text texts[K];
    int32_t token[K][2], best[6] = {3, 1, 4, 1};
    double highest = -INFINITY;
    struct err err;

    (void)state;
    for (int i = 0; i < K; i++)
        texts[i].token = token[i];
    must(beam_search(model, &prompt, &config, texts, &err));
    for (int i = 0; i < 3; i++) {
        memcpy(best + 4, texts[i].token, 8);
        assert_int_equal(texts[i].count, 2);
        assert_true(fabs(texts[i].log_p - whole_log_p(model, best, 4, 6)) < 1e-4);
        assert_true(i == 0 || texts[i].log_p <= texts[i - 1].log_p);
    }
    for (int i = 0; i < V * V; i++) {
        best[4] = i / V;
        best[5] = i % V;
        highest = fmax(highest, whole_log_p(model, best, 4, 6));
    }
    assert_true(fabs(highest - texts[0].log_p) < 1e-4);
    model_free(model);
    device_close(device);
}

static void one_beam_is_greedy_and_stops_where_greedy_stops(void **state)
{
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model *model = small_model(device, &small_gpt2, 4);
    struct prompt prompt = {words, 8};
    int32_t greedy[10], beam[10];
    struct generation generation = {.token = greedy};
    struct sampling sampling = {.stop_token = -1};
    struct beam_config config = {.beams = 1, .most_tokens = 10, .stop_token = -1};
    struct beam_text text = {.token = beam};
    struct err err;

    (void)state;
    must(generate(model, &prompt, &generation, 1, 10, &sampling, &err));
    must(beam_search(model, &prompt, &config, &text, &err));
    assert_int_equal(text.count, 10);
    assert_memory_equal(greedy, beam, sizeof greedy);
    config.stop_token = greedy[0];
    must(beam_search(model, &prompt, &config, &text, &err));
    assert_true(text.ended);
    assert_int_equal(text.count, 0);
    config.beams = 0;
    assert_int_equal(beam_search(model, &prompt, &config, &text, &err), -1);
    model_free(model);
    device_close(device);
}

/* Only odd tokens may follow. */
static void allow_odd(void *context, uint64_t index, const int32_t *token, int64_t count,
                      float *logits, int64_t V)
{
    int64_t *calls = context;

    (void)token;
    assert_true(index == 5 && count == *calls);
    for (int64_t i = 0; i < V; i += 2)
        logits[i] = -INFINITY;
    ++*calls;
}

static void constraints_hold_at_every_draw(void **state)
{
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model *model = small_model(device, &small_llama, 4);
    struct prompt prompt = {words, 8};
    int32_t token[12];
    int64_t calls = 0;
    struct generation text = {.token = token, .index = 5};
    struct sampling sampling = {.temperature = 1.5, .top_k = 20, .stop_token = -1,
                                .constrain = allow_odd, .context = &calls};
    struct err err;

    (void)state;
    must(generate(model, &prompt, &text, 1, 12, &sampling, &err));
    assert_int_equal(calls, 12);
    for (int i = 0; i < 12; i++)
        assert_int_equal(token[i] % 2, 1);
    model_free(model);
    device_close(device);
}

static const struct model_config small_t5 = {
    .family = MODEL_T5, .vocab_size = 47, .context = 24, .width = 24, .layers = 2, .heads = 3,
    .init_std = 0.2, .bos_token = -1, .eos_token = -1};

/* What a T5 writes about a source: token by token, with whole forward passes. */
static int64_t write_slowly(const struct model *model, const struct prompt *source, int64_t most,
                            int32_t stop, int32_t *out)
{
    struct tape *tape = small_tape(model->device, TAPE_INFER);
    struct sampling greedy = {.stop_token = stop};
    float *logits = mem_array(25 * 47, 4);
    int32_t token[25] = {0};
    int64_t count = 0;
    struct err err;

    while (count < most) {
        struct model_batch batch = {.B = 1, .T = count + 1, .token = token,
                                    .S = source->count, .source = source->token};
        struct model_states states = {0};

        tape_reset(tape);
        must(model_forward(tape, model, &batch, &states, &err));
        tensor_read(model_logits(tape, model, states.hidden), logits);
        token[count + 1] = sample_token(logits + count * 47, 47, &greedy, 0);
        if (token[count + 1] == stop)
            break;
        out[count] = token[count + 1];
        count++;
    }
    mem_free(logits);
    tape_free(tape);
    return count;
}

static void an_encoder_reads_the_prompt_and_a_decoder_writes(void **state)
{
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model *model = small_model(device, &small_t5, 4);
    struct prompt prompts[3] = {{words, 8}, {words + 2, 3}, {words + 1, 1}};
    struct sampling greedy = {.stop_token = -1};
    int32_t want[10], room[3][10], best[10];
    struct generation texts[3] = {{room[0], 0, 0}, {room[1], 0, 1}, {room[2], 0, 2}};
    struct beam_config one = {.beams = 1, .most_tokens = 10, .stop_token = -1};
    struct beam_text beam = {.token = best};
    struct err err;

    (void)state;
    must(generate(model, prompts, texts, 3, 10, &greedy, &err));
    for (int i = 0; i < 3; i++) {
        int64_t count = write_slowly(model, &prompts[i], 10, -1, want);

        assert_int_equal(texts[i].count, count);
        assert_memory_equal(room[i], want, 4 * (size_t)count);
        must(beam_search(model, &prompts[i], &one, &beam, &err));
        assert_int_equal(beam.count, count);
        assert_memory_equal(best, want, 4 * (size_t)count);
    }
    must(generate(model, prompts, texts, 1, 10, &(struct sampling){.stop_token = want[4]}, &err));
    assert_int_equal(texts[0].count, write_slowly(model, prompts, 10, want[4], want));
    model_free(model);
    device_close(device);
}

/* The samples of one array are those of copies of it, and a source as long as the context still
 * has all of the context for its text. */
static void sources_are_shared_and_leave_room_for_texts(void **state)
{
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model *model = small_model(device, &small_t5, 4);
    struct sampling sampling = {.temperature = 1, .seed = 7, .stop_token = -1};
    int32_t source[24], copy[24], room[4][30];
    struct generation texts[4];
    struct err err;

    (void)state;
    for (int i = 0; i < 24; i++)
        source[i] = copy[i] = i + 1;
    struct prompt shared[2] = {{source, 24}, {source, 24}}, apart[2] = {{source, 24}, {copy, 24}};
    for (int i = 0; i < 4; i++)
        texts[i] = (struct generation){.token = room[i], .index = (uint64_t)(i % 2)};
    must(generate(model, shared, texts, 2, 30, &sampling, &err));
    must(generate(model, apart, texts + 2, 2, 30, &sampling, &err));
    for (int i = 0; i < 2; i++) {
        assert_int_equal(texts[i].count, 23);
        assert_memory_equal(room[i], room[2 + i], 4 * 23);
    }
    assert_int_equal(score_continuations(model, shared, shared, 1, &(double){0}, NULL, &err), -1);
    assert_non_null(strstr(err.text, "t5"));
    model_free(model);
    device_close(device);
}

/* A model whose files list three ends: each ends a text, where texts are to end at all. */
static void every_end_that_a_models_files_name_ends_a_text(void **state)
{
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model *model = small_model(device, &small_llama, 4);
    struct prompt prompt = {words, 8};
    int32_t text[10], free_text[10], found[10];
    struct generation one = {.token = text}, endless = {.token = free_text};
    struct beam_text best = {.token = found};
    struct sampling sampling = {.stop_token = -1};
    struct err err;

    (void)state;
    must(generate(model, &prompt, &endless, 1, 10, &sampling, &err));
    model->config.end_count = 3;
    model->config.end_token[0] = 52;
    model->config.end_token[1] = 51;
    model->config.end_token[2] = free_text[3];
    int64_t first = 0;
    while (free_text[first] != free_text[3] && free_text[first] < 51)
        first++;
    must(generate(model, &prompt, &one, 1, 10, &sampling, &err)); /* -1: texts are not to end */
    assert_int_equal(one.count, 10);
    sampling.stop_token = 50;
    must(generate(model, &prompt, &one, 1, 10, &sampling, &err));
    assert_int_equal(one.count, first);
    must(beam_search(model, &prompt, &(struct beam_config){.beams = 1, .most_tokens = 10,
                                                           .stop_token = 50}, &best, &err));
    assert_int_equal(best.count, first);
    assert_true(best.ended);
    assert_memory_equal(found, free_text, sizeof *found * (size_t)first);
    assert_int_equal(model_end_count(&model->config, 50), 4);
    assert_int_equal(model_end_count(&model->config, 51), 3);
    model_free(model);
    device_close(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(continuations_of_one_prefix_score_as_whole_texts),
        cmocka_unit_test(wide_beams_find_the_likeliest_texts),
        cmocka_unit_test(one_beam_is_greedy_and_stops_where_greedy_stops),
        cmocka_unit_test(constraints_hold_at_every_draw),
        cmocka_unit_test(decoding_through_the_cache_equals_the_full_forward),
        cmocka_unit_test(greedy_texts_follow_the_full_forward),
        cmocka_unit_test(a_batch_of_ragged_prompts_gives_the_texts_of_its_members),
        cmocka_unit_test(samples_of_one_shared_prompt_are_those_of_copies_of_it),
        cmocka_unit_test(texts_end_at_the_context_and_bad_prompts_are_refused),
        cmocka_unit_test(cuts_keep_the_likeliest_tokens),
        cmocka_unit_test(draws_are_those_of_sorted_tokens),
        cmocka_unit_test(draws_follow_the_softmax),
        cmocka_unit_test(an_encoder_reads_the_prompt_and_a_decoder_writes),
        cmocka_unit_test(every_end_that_a_models_files_name_ends_a_text),
        cmocka_unit_test(sources_are_shared_and_leave_room_for_texts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
