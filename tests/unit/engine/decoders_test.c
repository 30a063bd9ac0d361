/* decoders_test.c - experts, TransNormer and T5: gradients, caches, what is conserved, refusals. */
#include "tests/unit/engine/model_checks.h"
#include "worker/engine/generate.h"

#include <stdio.h>

#define SMALL .vocab_size = 53, .context = 24, .layers = 2, .init_std = 0.2, .bos_token = -1, \
              .eos_token = -1

static const struct model_config small_moe = {
    .family = MODEL_MOE, SMALL, .width = 24, .heads = 6, .kv_heads = 2, .head_width = 8,
    .ffn_width = 16, .experts = 4, .choices = 4, .shared_experts = 1, .qk_norm = true};

static const struct model_config small_transnormer = {
    .family = MODEL_TRANSNORMER, SMALL, .width = 24, .heads = 3, .ffn_width = 40};

static const struct model_config small_t5 = {
    .family = MODEL_T5, SMALL, .width = 24, .heads = 3, .head_width = 10, .ffn_width = 40,
    .gated = true, .buckets = 8, .bucket_span = 12};

#define SMALL_S 17

static void give_source(struct small_batch *b)
{
    static int32_t source[SMALL_B * SMALL_S];
    static const int32_t length[SMALL_B] = {SMALL_S, 5, 11};

    for (int i = 0; i < SMALL_B * SMALL_S; i++)
        source[i] = (i * 7 + 3) % 53;
    b->batch.source = source;
    b->batch.S = SMALL_S;
    b->batch.source_length = length;
}

static double loss_with_source(struct tape *tape, struct model *model, struct small_batch *b)
{
    give_source(b);
    return small_loss(tape, model, b);
}

/* All experts are chosen, so that no step changes the choice. */
static void gradients_match_differences_of_the_loss(void **state)
{
    struct model_config all = small_transnormer;

    (void)state;
    check_gradients(&small_moe, small_loss);
    check_gradients(&small_transnormer, small_loss);
    all.lrpe = LRPE_ALL;
    all.tied = true;
    check_gradients(&all, small_loss);
    check_gradients(&small_t5, loss_with_source);
}

static void cpu_backend_agrees_with_the_reference(void **state)
{
    (void)state;
    check_agreement(&small_moe, small_loss);
    check_agreement(&small_transnormer, small_loss);
    check_agreement(&small_t5, loss_with_source);
}

static void later_steps_of_a_shape_allocate_nothing(void **state)
{
    struct model_config chosen = small_moe, dropping = small_llama;

    (void)state;
    chosen.choices = 2; /* other loads in each step */
    dropping.dropout = 0.1;
    dropping.window = 6;
    check_memory(&small_moe, small_loss);
    check_memory(&chosen, small_loss);
    check_memory(&small_transnormer, small_loss);
    check_memory(&small_t5, loss_with_source);
    check_memory(&small_gpt2, small_loss);
    check_memory(&small_opt_350m, small_loss);
    check_memory(&dropping, small_loss);
}

/* A prefix of a row that is seen both ways; what follows sees only what came before. */
static void check_prefix(const struct model_config *config)
{
    enum { T = 12, PREFIX = 5 };
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model *model = small_model(device, config, 3);
    struct tape *tape = small_tape(device, TAPE_INFER);
    size_t count = (size_t)(T * config->vocab_size);
    float *causal = mem_array(count, 4), *prefix = mem_array(count, 4);
    float *changed = mem_array(count, 4);
    int32_t last[T], own[T];
    struct small_batch b;

    small_batch_fill(&b, config->vocab_size, 2);
    for (int i = 0; i < T; i++) {
        own[i] = i;
        last[i] = i < PREFIX ? PREFIX - 1 : i;
    }
    b.batch = (struct model_batch){.B = 1, .T = T, .token = b.token};
    read_logits(tape, model, &b, causal);
    b.batch.last = own;
    read_logits(tape, model, &b, prefix);
    for (size_t i = 0; i < count; i++) /* nothing seen both ways: a causal model */
        assert_true(fabsf(prefix[i] - causal[i]) < 1e-4f);
    b.batch.last = last;
    read_logits(tape, model, &b, prefix);
    b.token[PREFIX - 1] = (b.token[PREFIX - 1] + 1) % (int32_t)config->vocab_size;
    b.token[T - 1] = (b.token[T - 1] + 1) % (int32_t)config->vocab_size;
    read_logits(tape, model, &b, changed);
    int64_t V = config->vocab_size;

    assert_memory_not_equal(prefix, changed, (size_t)V * 4); /* token 0 sees the prefix's end */
    b.token[PREFIX - 1] = (b.token[PREFIX - 1] + (int32_t)V - 1) % (int32_t)V;
    read_logits(tape, model, &b, changed);
    assert_memory_equal(prefix, changed, (size_t)((T - 1) * V) * 4); /* and none the row's end */
    assert_memory_not_equal(prefix + (T - 1) * V, changed + (T - 1) * V, (size_t)V * 4);
    mem_free(causal);
    mem_free(prefix);
    mem_free(changed);
    tape_free(tape);
    model_free(model);
    device_close(device);
}

static void a_prefix_is_seen_both_ways_and_the_rest_is_not(void **state)
{
    (void)state;
    check_prefix(&small_gpt2);
    check_prefix(&small_llama);
    check_prefix(&small_moe);
}

/* As a training has it: gradients through a prefix. */
static double loss_with_prefix(struct tape *tape, struct model *model, struct small_batch *b)
{
    static int32_t last[SMALL_N];

    for (int i = 0; i < SMALL_N; i++)
        last[i] = i % SMALL_T < 7 ? 6 : i % SMALL_T;
    b->batch.last = last;
    return small_loss(tape, model, b);
}

static void gradients_through_a_prefix_match_differences(void **state)
{
    (void)state;
    check_gradients(&small_llama, loss_with_prefix);
    check_agreement(&small_llama, loss_with_prefix);
}

/* Feeds a sequence in uneven parts, the last with padding, then forks and goes on. */
static void check_cache(const struct model_config *config, float tolerance)
{
    static const int64_t parts[] = {7, 1, 1, 5, 6};
    struct device *device = small_device(BACKEND_CPU, 2);
    struct model *model = small_model(device, config, 4);
    struct tape *tape = small_tape(device, TAPE_INFER);
    struct kv_cache *cache = NULL, *fork = NULL;
    int64_t D = config->embed_width ? config->embed_width : config->width, at = 0;
    float *whole = mem_array((size_t)(SMALL_N * D), 4), *part = mem_array((size_t)(SMALL_N * D), 4);
    struct model_states states = {0};
    struct small_batch b;
    struct err err;

    small_batch_fill(&b, config->vocab_size, 6);
    if (config->family == MODEL_T5)
        give_source(&b);
    must(model_forward(tape, model, &b.batch, &states, &err));
    tensor_read(states.hidden, whole);
    must(kv_cache_new(model, SMALL_B, SMALL_T, &cache, &err));
    tape_reset(tape);
    if (config->family == MODEL_T5)
        must(kv_cache_read(tape, cache, b.batch.source, SMALL_S, b.batch.source_length, &err));
    for (size_t p = 0; p < ARRAY_COUNT(parts); p++) {
        int64_t T = parts[p], fed = T + (p == 3 ? 3 : 0), advance[SMALL_B] = {T, T, T};
        int32_t token[SMALL_N];
        struct tensor *hidden;

        for (int64_t i = 0; i < SMALL_B * fed; i++)
            token[i] = i % fed < T ? b.token[i / fed * SMALL_T + at + i % fed] : 1;
        tape_reset(tape);
        must(kv_cache_extend(tape, cache, token, fed, advance, &hidden, &err));
        tensor_read(hidden, part);
        for (int64_t i = 0; i < SMALL_B * fed * D; i++) {
            int64_t row = i / D / fed * SMALL_T + at + i / D % fed;

            if (i / D % fed < T && !(fabsf(part[i] - whole[row * D + i % D]) < tolerance))
                fail_msg("part %zu: %g, expected %g", p, (double)part[i],
                         (double)whole[row * D + i % D]);
        }
        at += T;
        if (p == 2) { /* row 1 alone, twice, then all again in another order and back */
            must(kv_cache_fork(cache, 1, 2, SMALL_T, &fork, &err));
            must(kv_cache_select(cache, (int32_t[]){2, 0, 1}, &err));
            must(kv_cache_select(cache, (int32_t[]){1, 2, 0}, &err));
        }
    }
    assert_int_equal(kv_cache_count(fork, 1), 9);
    int32_t pair[2] = {b.token[SMALL_T + 9], b.token[SMALL_T + 9]};
    tape_reset(tape);
    must(kv_cache_extend(tape, fork, pair, 1, NULL, &states.hidden, &err));
    tensor_read(states.hidden, part);
    for (int64_t i = 0; i < 2 * D; i++)
        assert_true(fabsf(part[i] - whole[(SMALL_T + 9) * D + i % D]) < tolerance);
    mem_free(whole);
    mem_free(part);
    kv_cache_free(fork);
    kv_cache_free(cache);
    tape_free(tape);
    model_free(model);
    device_close(device);
}

static void steps_through_the_cache_equal_the_full_forward(void **state)
{
    struct model_config moe = small_moe, plain = small_transnormer, window = small_llama;

    (void)state;
    moe.choices = 2;
    plain.lrpe = LRPE_NONE;
    check_cache(&small_opt, 1e-4f);
    check_cache(&small_opt_350m, 1e-4f);
    check_cache(&moe, 1e-4f);
    check_cache(&small_transnormer, 1e-4f);
    check_cache(&plain, 1e-4f);
    check_cache(&small_t5, 1e-4f);
    window.window = 6;
    check_cache(&window, 1e-4f);
    window.alibi = true;
    check_cache(&window, 1e-4f);
}

/* A state that leaks between documents would show here. */
static void documents_in_one_row_do_not_see_each_other(void **state)
{
    static const struct model_config *const configs[] = {&small_moe, &small_transnormer};

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(configs); k++) {
        struct device *device = small_device(BACKEND_CPU, 1);
        struct model *model = small_model(device, configs[k], 3);
        struct tape *tape = small_tape(device, TAPE_INFER);
        float packed[20 * 53], apart[20 * 53];
        int32_t position[20], first[20];
        struct small_batch b;

        small_batch_fill(&b, 53, 2);
        for (int i = 0; i < 20; i++) {
            position[i] = i % 10;
            first[i] = i / 10 * 10;
        }
        b.batch = (struct model_batch){
            .B = 1, .T = 20, .token = b.token, .position = position, .first = first};
        read_logits(tape, model, &b, packed);
        b.batch = (struct model_batch){.B = 2, .T = 10, .token = b.token};
        read_logits(tape, model, &b, apart);
        for (int i = 0; i < 20 * 53; i++)
            assert_true(fabsf(packed[i] - apart[i]) < 1e-4f);
        tape_free(tape);
        model_free(model);
        device_close(device);
    }
}

/* Every assignment is in one place, or dropped where the capacity says so. */
static void tokens_are_conserved(void **state)
{
    enum { N = 40, E = 5, K = 2, CAPACITY = 6 };
    struct device *device = small_device(BACKEND_CPU, 2);
    struct tape *tape = small_tape(device, TAPE_INFER);
    float logits[N * E], stats[ROUTE_STATS];
    int32_t slot[N * K], expert[N * K], starts[E + 1];
    struct rng rng;

    (void)state;
    rng_init(&rng, 4);
    for (int i = 0; i < N * E; i++)
        logits[i] = (float)rng_normal(&rng) + (i % E == 0 ? 3 : 0);
    for (int capacity = 0; capacity <= CAPACITY; capacity += CAPACITY) {
        struct route_config config = {.choices = K, .capacity = capacity};
        struct route route;
        bool taken[N * K] = {0};
        int kept = 0, load[E] = {0};

        tape_reset(tape);
        assert_true(op_route(tape, tape_f32(tape, logits, N, E), &config, &route));
        tensor_read(route.slot, slot);
        tensor_read(route.expert, expert);
        tensor_read(route.starts, starts);
        tensor_read(route.stats, stats);
        for (int a = 0; a < N * K; a++) {
            load[expert[a]]++;
            if (slot[a] < 0)
                continue;
            assert_false(taken[slot[a]]);
            taken[slot[a]] = true;
            assert_true(slot[a] >= starts[expert[a]] && slot[a] < starts[expert[a] + 1]);
            kept++;
        }
        assert_int_equal(kept, starts[E]);
        for (int e = 0; e < E; e++)
            assert_int_equal(starts[e + 1] - starts[e],
                             capacity && load[e] > capacity ? capacity : load[e]);
        assert_true(fabsf(stats[ROUTE_STAT_DROPPED] - (float)(N * K - kept) / (N * K)) < 1e-6f);
    }
    tape_free(tape);
    device_close(device);
}

/* -- one expert, alike experts, one that overflows (section 10, 1 and 3, of the card) ------ */

#define LOGITS (SMALL_B * SMALL_T * 53)

static float *weight_of(struct model *model, const char *name, float *after)
{
    struct model_weight *weight = model_weight_find(model, name);

    assert_non_null(weight);
    model_weight_read(weight, after);
    return after + tensor_count(&weight->tensor);
}

/* Gives `to` the weights of a Llama: each of its `experts` has the Llama's block of units. */
static void become(struct model *to, struct model *llama)
{
    static float host[4 * 32 * 24 + 53 * 24];

    for (int64_t i = 0; i < to->weight_count; i++) {
        struct model_weight *weight = &to->weight[i];
        bool in = strstr(weight->name, "experts.in") != NULL;
        char name[2 * MODEL_NAME_SIZE];
        float *end;

        if (strstr(weight->name, "router"))
            continue;
        snprintf(name, sizeof name, "%s", weight->name);
        if (strstr(name, "experts."))
            snprintf(strstr(name, "experts."), MODEL_NAME_SIZE, in ? "gate.weight" : "down.weight");
        end = weight_of(llama, name, host);
        if (in) {
            snprintf(strstr(name, "gate."), MODEL_NAME_SIZE, "up.weight");
            end = weight_of(llama, name, end);
        }
        for (int64_t e = 1; strstr(weight->name, "experts.") && e < to->config.experts; e++)
            memcpy(host + e * (end - host), host, (size_t)(end - host) * sizeof *host);
        model_weight_write(weight, host);
    }
}

static void logits_of_experts(struct device *device, struct model *llama, int64_t experts,
                              int64_t choices, float *out)
{
    struct model_config config = llama->config;
    struct tape *tape = small_tape(device, TAPE_INFER);
    struct small_batch b;

    config.family = MODEL_MOE;
    config.experts = experts;
    config.choices = choices;
    struct model *model = small_model(device, &config, 4);
    become(model, llama);
    small_batch_fill(&b, 53, 2);
    read_logits(tape, model, &b, out);
    tape_free(tape);
    model_free(model);
}

static void experts_that_are_all_one_block_are_that_block(void **state)
{
    static const struct model_config config = {
        .family = MODEL_LLAMA, SMALL, .width = 24, .heads = 6, .kv_heads = 2, .head_width = 8,
        .ffn_width = 16, .norm_eps = 1e-5, .rope_theta = 10000};
    static float dense[LOGITS], one[LOGITS], alike[LOGITS];
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model *llama = small_model(device, &config, 3);
    struct tape *tape = small_tape(device, TAPE_INFER);
    struct small_batch b;

    (void)state;
    small_batch_fill(&b, 53, 2);
    read_logits(tape, llama, &b, dense);
    logits_of_experts(device, llama, 1, 1, one);
    logits_of_experts(device, llama, 4, 2, alike);
    assert_memory_equal(dense, one, sizeof dense);
    for (int i = 0; i < LOGITS; i++)
        assert_true(fabsf(alike[i] - dense[i]) < 2e-5f * fmaxf(1, fabsf(dense[i])));
    tape_free(tape);
    model_free(llama);
    device_close(device);
}

/* A router of zeros sends every token to expert 0. */
static void an_expert_keeps_what_its_capacity_says_and_the_rest_is_zero(void **state)
{
    enum { N = 18, E = 4, D = 3, KEPT = 5 }; /* ceil(18 / 4) */
    struct model_config config = small_moe;
    struct device *device = small_device(BACKEND_CPU, 1);
    struct tape *tape = small_tape(device, TAPE_TRAIN);
    struct tensor *of_layer[2] = {0};
    struct model_states states = {.route = of_layer};
    float logits[N * E] = {0}, x[N * D], y[N * D], stats[ROUTE_STATS];
    struct route route;
    struct err err;
    int zeros = 0;

    (void)state;
    config.choices = 1;
    config.gate_before = true;
    config.capacity_factor = 1;
    struct model *model = small_model(device, &config, 3);
    static const float nothing[E * 24];
    model_weight_write(model_weight_find(model, "block.0.router.weight"), nothing);
    int32_t token[N];
    for (int i = 0; i < N; i++)
        token[i] = i;
    struct model_batch batch = {.B = 1, .T = N, .token = token, .share = 1};
    assert_int_equal(model_forward(tape, model, &batch, &states, &err), 0);
    tensor_read(of_layer[0], stats);
    assert_true(stats[ROUTE_STAT_HIGHEST_LOAD] == E);
    assert_true(fabsf(stats[ROUTE_STAT_DROPPED] - (float)(N - KEPT) / N) < 1e-6f);
    tape_reset(tape);
    for (int i = 0; i < N * D; i++)
        x[i] = (float)(i + 1);
    struct route_config one = {.choices = 1, .mode = ROUTE_BEFORE, .capacity = KEPT};
    assert_true(op_route(tape, tape_f32(tape, logits, N, E), &one, &route));
    tensor_read(op_combine(tape, op_dispatch(tape, tape_f32(tape, x, N, D), &route), &route), y);
    for (int n = 0; n < N; n++) {
        bool dropped = y[n * D] == 0;
        zeros += dropped;
        for (int d = 0; d < D; d++)
            assert_true(y[n * D + d] == (dropped ? 0 : x[n * D + d] / E));
    }
    assert_int_equal(zeros, N - KEPT);
    model_free(model);
    tape_free(tape);
    device_close(device);
}

/* Section 10, 5, of the card: E sum f P is 1 where all experts are alike, E / k where k of them get
 * every token for certain (E where k is 1), and never below 1 by more than rounding. */
static void the_balance_term_is_one_for_even_loads_and_most_for_a_collapse(void **state)
{
    enum { N = 64, E = 8 };
    struct device *device = small_device(BACKEND_CPU, 1);
    struct tape *tape = small_tape(device, TAPE_INFER);
    struct rng rng;

    (void)state;
    rng_init(&rng, 9);
    for (int k = 1; k <= 2; k++)
        for (int kind = 0; kind < 12; kind++) { /* even, collapsed, then drawn */
            struct route_config config = {.choices = k, .mode = ROUTE_BEFORE};
            float logits[N * E], stats[ROUTE_STATS];
            struct route route;

            for (int i = 0; i < N * E; i++)
                logits[i] = kind == 0   ? (i % E / k == i / E % (E / k) ? 1e-4f : 0)
                            : kind == 1 ? (i % E < k ? 60 : 0)
                                        : (float)rng_normal(&rng) + (i % E == 0 ? 1 : 0);
            tape_reset(tape);
            assert_true(op_route(tape, tape_f32(tape, logits, N, E), &config, &route));
            tensor_read(route.stats, stats);
            float highest = stats[ROUTE_STAT_HIGHEST_LOAD], lowest = stats[ROUTE_STAT_LOWEST_LOAD];
            assert_true(stats[ROUTE_STAT_BALANCE] >= 1 - 1e-3f && highest >= 1 && lowest <= 1);
            if (kind == 0)
                assert_true(fabsf(stats[ROUTE_STAT_BALANCE] - 1) < 1e-5f && lowest == 1 &&
                            highest == 1);
            if (kind == 1)
                assert_true(fabsf(stats[ROUTE_STAT_BALANCE] - (float)E / (float)k) < 1e-4f &&
                            lowest == 0 && highest == (float)E / (float)k);
        }
    tape_free(tape);
    device_close(device);
}

/* The balance loss alone, by plain descent, spreads tokens that all went to one expert: sizes and
 * bounds of the method card of mixtures (section 10, 6). */
static void check_recovery(struct device *device, int E, int choices)
{
    enum { N = 1024, D = 32, E_MOST = 64, K_MOST = 8, STEPS = 50 };
    static float x[N * D], w[E_MOST * D], grad[E_MOST * D];
    static const float zero[N * K_MOST];
    struct tape *tape = small_tape(device, TAPE_TRAIN);
    float stats[ROUTE_STATS], first = 0;
    struct rng rng;
    struct err err;

    rng_init(&rng, 3);
    for (int i = 0; i < N * D; i++)
        x[i] = i % D == 0 ? 1 : (float)rng_normal(&rng);
    for (int i = 0; i < E * D; i++)
        w[i] = i == 0 ? 5 : (float)(0.3 * rng_normal(&rng));
    for (int step = 0; step <= STEPS; step++) {
        struct route_config config = {.choices = choices, .balance_weight = 1};
        struct route route;
        struct tensor *weight;

        tape_reset(tape);
        weight = tape_f32(tape, w, E, D);
        weight->wants_grad = true;
        assert_true(op_route(tape, op_linear(tape, tape_f32(tape, x, N, D), weight, NULL),
                             &config, &route));
        tensor_read(route.stats, stats);
        first = step == 0 ? stats[ROUTE_STAT_BALANCE] : first;
        tape_seed(tape, route.gate, zero);
        must(tape_backward(tape, &err));
        tensor_read_grad(weight, grad);
        for (int i = 0; i < E * D; i++)
            w[i] -= 0.5f * grad[i];
    }
    if (!(first > 2 && stats[ROUTE_STAT_BALANCE] <= 1.05f &&
          stats[ROUTE_STAT_HIGHEST_LOAD] <= 1.5f))
        fail_msg("%d of %d experts: balance %g, after %d steps %g, highest load %g", choices, E,
                 (double)first, STEPS, (double)stats[ROUTE_STAT_BALANCE],
                 (double)stats[ROUTE_STAT_HIGHEST_LOAD]);
    tape_free(tape);
}

static void the_balance_loss_heals_a_collapsed_router(void **state)
{
    struct device *device = small_device(BACKEND_CPU, 1);

    (void)state;
    check_recovery(device, 8, 2);
    check_recovery(device, 8, 1);
    check_recovery(device, 64, 8);
    device_close(device);
}

static void impossible_shapes_are_refused(void **state)
{
    struct model_config config = small_moe;
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model *model = small_model(device, &small_t5, 3);
    struct tape *tape = small_tape(device, TAPE_INFER);
    struct model_states states = {0};
    struct small_batch b;
    struct err err;

    (void)state;
    config.choices = 5;
    assert_int_equal(model_config_complete(&config, &err), -1);
    assert_non_null(strstr(err.text, "choices is 5, expected 1..4"));
    config = small_t5;
    config.buckets = 6;
    assert_int_equal(model_config_complete(&config, &err), -1);
    small_batch_fill(&b, 53, 2);
    assert_int_equal(model_forward(tape, model, &b.batch, &states, &err), -1);
    assert_non_null(strstr(err.text, "needs a source"));
    tape_reset(tape);
    give_source(&b);
    b.batch.source_length = (int32_t[]){1, 18, 1};
    assert_int_equal(model_forward(tape, model, &b.batch, &states, &err), -1);
    assert_non_null(strstr(err.text, "source length 18 of row 1"));
    tape_free(tape);
    model_free(model);
    device_close(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_match_differences_of_the_loss),
        cmocka_unit_test(cpu_backend_agrees_with_the_reference),
        cmocka_unit_test(later_steps_of_a_shape_allocate_nothing),
        cmocka_unit_test(a_prefix_is_seen_both_ways_and_the_rest_is_not),
        cmocka_unit_test(gradients_through_a_prefix_match_differences),
        cmocka_unit_test(steps_through_the_cache_equal_the_full_forward),
        cmocka_unit_test(documents_in_one_row_do_not_see_each_other),
        cmocka_unit_test(tokens_are_conserved),
        cmocka_unit_test(experts_that_are_all_one_block_are_that_block),
        cmocka_unit_test(an_expert_keeps_what_its_capacity_says_and_the_rest_is_zero),
        cmocka_unit_test(the_balance_term_is_one_for_even_loads_and_most_for_a_collapse),
        cmocka_unit_test(the_balance_loss_heals_a_collapsed_router),
        cmocka_unit_test(impossible_shapes_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
