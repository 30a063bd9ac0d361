/* model_files_test.c - config.json and weights: what transformers writes loads, and back. */
#include "tests/unit/data/inputs.h"
#include "worker/engine/backend.h"
#include "worker/engine/io/model_files.h"
#include "worker/engine/io/safetensors.h"

#define LLAMA \
    "{\"model_type\":\"llama\",\"vocab_size\":32,\"hidden_size\":8,\"intermediate_size\":16," \
    "\"num_hidden_layers\":1,\"num_attention_heads\":4,\"num_key_value_heads\":2," \
    "\"hidden_act\":\"silu\",\"max_position_embeddings\":64,\"rms_norm_eps\":1e-6"
#define GPT2 \
    "{\"model_type\":\"gpt2\",\"vocab_size\":32,\"n_positions\":16,\"n_embd\":8,\"n_layer\":2," \
    "\"n_head\":2,\"n_inner\":null,\"activation_function\":\"gelu_new\"," \
    "\"layer_norm_epsilon\":1e-5,\"bos_token_id\":31,\"eos_token_id\":50256"

#define OPT \
    "{\"model_type\":\"opt\",\"vocab_size\":32,\"hidden_size\":8,\"ffn_dim\":16," \
    "\"num_hidden_layers\":1,\"num_attention_heads\":2,\"max_position_embeddings\":16"

#define QWEN2 \
    "{\"model_type\":\"qwen2\",\"vocab_size\":32,\"hidden_size\":8,\"intermediate_size\":16," \
    "\"num_hidden_layers\":2,\"num_attention_heads\":4,\"num_key_value_heads\":2," \
    "\"hidden_act\":\"silu\",\"max_position_embeddings\":64,\"max_window_layers\":21," \
    "\"rms_norm_eps\":1e-6,\"rope_theta\":1000000.0,\"sliding_window\":32768"

#define BERT \
    "{\"model_type\":\"bert\",\"vocab_size\":32,\"hidden_size\":8,\"num_hidden_layers\":2," \
    "\"num_attention_heads\":2,\"intermediate_size\":16,\"max_position_embeddings\":12"

static void assert_config_refused(const char *json, const char *expected)
{
    struct err err = {0};
    struct model_config config;
    assert_int_equal(model_config_parse(json, strlen(json), &config, &err), -1);
    if (!strstr(err.text, expected))
        fail_msg("'%s' does not say '%s'", err.text, expected);
}

static struct model_config config_of(const char *json)
{
    struct err err = {0};
    struct model_config config;
    if (model_config_parse(json, strlen(json), &config, &err) < 0)
        fail_msg("%s", err.text);
    return config;
}

static void gpt2_configs_are_read(void **state)
{
    (void)state;
    struct model_config config = config_of(GPT2 "}");
    assert_int_equal(config.family, MODEL_GPT2);
    assert_int_equal(config.ffn_width, 32);
    assert_int_equal(config.kv_heads, 2);
    assert_int_equal(config.head_width, 4);
    assert_true(config.tied);
    assert_int_equal(config.bos_token, 31);
    assert_int_equal(config.eos_token, -1); /* outside this vocabulary */
    assert_true(config.norm_eps == 1e-5 && config.init_std == 0.02);
}

/* As the published 125m and 350m say it. */
static void opt_configs_are_read(void **state)
{
    (void)state;
    struct model_config config = config_of(OPT ",\"word_embed_proj_dim\":8}");
    assert_int_equal(config.family, MODEL_OPT);
    assert_int_equal(config.activation, ACTIVATION_RELU);
    assert_int_equal(config.embed_width, 0);
    assert_false(config.post_norm);
    assert_true(config.tied);
    config = config_of(OPT ",\"word_embed_proj_dim\":4,\"do_layer_norm_before\":false}");
    assert_int_equal(config.embed_width, 4);
    assert_true(config.post_norm);
}

/* As repositories of each say where texts begin and end. */
static const struct {
    const char *json;
    int32_t bos, ends[3];
} told_ends[] = {
    {LLAMA ",\"rope_theta\":10000,\"bos_token_id\":1,\"eos_token_id\":2}", 1, {2, -1}},
    {LLAMA ",\"rope_theta\":10000,\"bos_token_id\":3,\"eos_token_id\":[4,6,4,128009]}", 3,
     {4, 6, -1}}, /* Llama 3's list; twice, and outside the vocabulary, counts for nothing */
    {"{\"model_type\":\"mistral\",\"vocab_size\":32,\"hidden_size\":8,"
     "\"intermediate_size\":16,\"num_hidden_layers\":1,\"num_attention_heads\":2,"
     "\"rope_theta\":1e4,\"sliding_window\":4,\"bos_token_id\":1,\"eos_token_id\":2}", 1,
     {2, -1}},
    {OPT ",\"bos_token_id\":2,\"eos_token_id\":2,\"pad_token_id\":1}", 2, {2, -1}},
    {GPT2 "}", 31, {-1}},
    {"{\"model_type\":\"gpt2\",\"vocab_size\":32,\"n_embd\":8,\"n_head\":2,"
     "\"bos_token_id\":31,\"eos_token_id\":31}", 31, {31, -1}},
    {"{\"model_type\":\"t5\",\"vocab_size\":32,\"d_model\":8,\"d_kv\":4,\"num_heads\":2,"
     "\"eos_token_id\":1,\"pad_token_id\":0,\"decoder_start_token_id\":0}", -1, {1, -1}},
    {"{\"model_type\":\"olmoe\",\"vocab_size\":32,\"hidden_size\":8,\"intermediate_size\":8,"
     "\"num_hidden_layers\":1,\"num_attention_heads\":2,\"num_experts\":4,"
     "\"num_experts_per_tok\":2,\"rope_theta\":1e4,\"pad_token_id\":1,\"eos_token_id\":5}", -1,
     {5, -1}},
};

static void assert_ends(const struct model_config *config, int32_t bos, const int32_t *ends)
{
    int64_t count = 0;
    assert_int_equal(config->bos_token, bos);
    assert_int_equal(config->eos_token, ends[0]);
    for (; ends[count] >= 0; count++)
        assert_int_equal(config->end_token[count], ends[count]);
    assert_int_equal(config->end_count, count);
}

static void what_ends_texts_is_read_and_written_back_for_every_family(void **state)
{
    (void)state;
    struct err err = {0};
    for (size_t i = 0; i < ARRAY_COUNT(told_ends); i++) {
        struct model_config config = config_of(told_ends[i].json), again, other;
        char *folder = folder_make(), *path = mem_printf("%s/config.json", folder);
        char *beside = mem_printf("%s/generation_config.json", folder);
        assert_ends(&config, told_ends[i].bos, told_ends[i].ends);
        char *text = model_config_text(&config), *generation = model_generation_text(&config);
        write_bytes(path, text, strlen(text));
        write_bytes(beside, generation, strlen(generation));
        assert_int_equal(model_config_read(folder, &again, &err), 0);
        assert_ends(&again, told_ends[i].bos, told_ends[i].ends);
        assert_int_equal(again.has_pad, config.has_pad);
        assert_int_equal(again.pad_token, config.pad_token);
        write_bytes(beside, "{\"eos_token_id\": [7, 8]}", 24); /* counts more */
        assert_int_equal(model_config_read(folder, &other, &err), 0);
        assert_ends(&other, told_ends[i].bos, (const int32_t[]){7, 8, -1});
        write_bytes(beside, "{}", 2);
        assert_int_equal(model_config_read(folder, &other, &err), 0);
        assert_ends(&other, told_ends[i].bos, told_ends[i].ends);
        mem_free(text);
        mem_free(generation);
        mem_free(path);
        mem_free(beside);
        folder_done(folder);
    }
}

static void what_transformers_generates_by_is_written(void **state)
{
    (void)state;
    struct model_config llama3 = config_of(told_ends[1].json), t5 = config_of(told_ends[6].json);
    char *text = model_generation_text(&llama3);
    assert_string_equal(text, "{\n  \"bos_token_id\": 3,\n  \"eos_token_id\": [\n    4,\n    6\n"
                              "  ]\n}\n");
    mem_free(text);
    text = model_generation_text(&t5);
    assert_string_equal(text, "{\n  \"eos_token_id\": 1,\n  \"pad_token_id\": 0,\n"
                              "  \"decoder_start_token_id\": 0\n}\n");
    mem_free(text);
    assert_config_refused(GPT2 ",\"pad_token_id\":\"x\"}", "pad_token_id is not a token id");
    assert_config_refused(LLAMA ",\"rope_theta\":2,\"eos_token_id\":[1,\"</s>\"]}",
                          "eos_token_id is neither a token id nor a list");
    assert_config_refused(LLAMA ",\"rope_theta\":2,\"eos_token_id\":[1,2,3,4,5,6,7,8,9]}",
                          "more than 8");
}

static void the_rotary_base_must_be_given_and_agree(void **state)
{
    (void)state;
    assert_true(config_of(LLAMA ",\"rope_theta\":10000}").rope_theta == 10000);
    assert_true(config_of(LLAMA ",\"rope_parameters\":{\"rope_type\":\"default\","
                                "\"rope_theta\":500000.0}}").rope_theta == 500000);
    assert_true(config_of(LLAMA ",\"rope_theta\":7,\"rope_parameters\":{\"rope_type\":\"default\","
                                "\"rope_theta\":7.0}}").rope_theta == 7);
    assert_config_refused(LLAMA "}", "rope_theta is missing");
    assert_config_refused(LLAMA ",\"rope_theta\":10000,\"rope_parameters\":{\"rope_type\":"
                          "\"default\",\"rope_theta\":500000.0}}", "but 500000");
    assert_config_refused(LLAMA ",\"rope_theta\":10000,\"rope_scaling\":{\"type\":\"linear\"}}",
                          "rope_scaling");
    assert_config_refused(LLAMA ",\"rope_parameters\":{\"rope_type\":\"yarn\",\"rope_theta\":2}}",
                          "yarn");
    assert_true(config_of(LLAMA ",\"rope_theta\":3580165449.0}").rope_theta == 3580165449);
    static const char *const bases[] = {"-1", "0", "1", "0.5", "1e300", "\"10000\"", "true", "[]"};
    for (size_t i = 0; i < ARRAY_COUNT(bases); i++) {
        char *top = mem_printf(LLAMA ",\"rope_theta\":%s}", bases[i]);
        char *inner = mem_printf(LLAMA ",\"rope_theta\":10000,\"rope_parameters\":"
                                       "{\"rope_type\":\"default\",\"rope_theta\":%s}}", bases[i]);
        assert_config_refused(top, "rope_theta is not a number above 1, at most 1e12");
        assert_config_refused(inner, "rope_parameters.rope_theta is not a number above 1");
        mem_free(inner);
        mem_free(top);
    }
}

/* As the published 0.5B says it, and as transformers 5 would. */
static void qwen2_configs_are_read(void **state)
{
    (void)state;
    struct model_config config = config_of(QWEN2 ",\"use_sliding_window\":false,"
                                           "\"tie_word_embeddings\":true}");
    assert_int_equal(config.family, MODEL_LLAMA);
    assert_true(config.qkv_bias && config.tied);
    assert_int_equal(config.window, 0);
    assert_int_equal(config.head_width, 2);
    config = config_of(QWEN2 ",\"layer_types\":[\"full_attention\",\"full_attention\"]}");
    assert_true(config.qkv_bias && !config.tied);
    assert_config_refused(QWEN2 ",\"use_sliding_window\":true}",
                          "use_sliding_window is true; false is accepted");
    assert_config_refused(QWEN2 ",\"layer_types\":[\"full_attention\",\"sliding_attention\"]}",
                          "layer_types[1] is sliding_attention; full_attention is accepted");
    assert_config_refused(QWEN2 ",\"layer_types\":7}", "layer_types is not a list");
}

#define BASE ",\"rope_theta\":10000"
#define LLAMA3 \
    "\"rope_type\":\"llama3\",\"factor\":32,\"low_freq_factor\":1,\"high_freq_factor\":4," \
    "\"original_max_position_embeddings\":8192"

/* As Llama 3.2, Qwen 2.5 and files of transformers 5 say it. */
static void scalings_of_rotary_angles_are_read(void **state)
{
    static const struct {
        const char *fields;
        struct rope_scaling scaling;
    } told[] = {
        {",\"rope_scaling\":{" LLAMA3 "}", {ROPE_LLAMA3, 32, 1, 4, 0, 8192}},
        {",\"rope_parameters\":{\"rope_theta\":10000," LLAMA3 "}",
         {ROPE_LLAMA3, 32, 1, 4, 0, 8192}},
        {",\"rope_scaling\":{" LLAMA3 "},\"rope_parameters\":{" LLAMA3 "}",
         {ROPE_LLAMA3, 32, 1, 4, 0, 8192}},
        {",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4.0,"
         "\"original_max_position_embeddings\":32768}", {ROPE_YARN, 4, 1, 32, 0, 32768}},
        {",\"rope_scaling\":{\"type\":\"yarn\",\"rope_type\":\"yarn\",\"factor\":2,"
         "\"beta_fast\":16,\"beta_slow\":2,\"attention_factor\":1.5}",
         {ROPE_YARN, 2, 2, 16, 1.5, 64}},
        {",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.5}", {ROPE_LINEAR, 2.5}},
        {",\"rope_scaling\":{\"rope_type\":\"default\"}", {ROPE_PLAIN}},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(told); i++) {
        char *json = mem_printf(LLAMA BASE "%s}", told[i].fields);
        struct model_config config = config_of(json), again;
        char *text = model_config_text(&config);
        again = config_of(text);
        assert_true(rope_scaling_equal(&config.rope, &told[i].scaling));
        assert_true(rope_scaling_equal(&again.rope, &told[i].scaling));
        mem_free(text);
        mem_free(json);
    }
}

/* A gate over one chosen expert is 1 where it comes after the choice, and stays what the file says:
 * only new models are spared it. */
static void one_expert_a_token_keeps_the_gate_of_its_file(void **state)
{
    static const struct {
        const char *fields;
        bool before;
    } told[] = {
        {"\"model_type\":\"mixtral\",\"num_local_experts\":4", false},
        {"\"model_type\":\"olmoe\",\"num_experts\":4,\"norm_topk_prob\":true", false},
        {"\"model_type\":\"olmoe\",\"num_experts\":4", true},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(told); i++) {
        char *json = mem_printf("{%s,\"vocab_size\":32,\"hidden_size\":8,\"intermediate_size\":8,"
                                "\"num_hidden_layers\":1,\"num_attention_heads\":2,"
                                "\"num_experts_per_tok\":1,\"rope_theta\":1e4}", told[i].fields);
        struct model_config config = config_of(json), again;
        struct err err = {0};
        assert_int_equal(model_config_complete(&config, &err), 0);
        char *text = model_config_text(&config);
        again = config_of(text);
        assert_true(config.gate_before == told[i].before && again.gate_before == told[i].before);
        assert_non_null(strstr(text, told[i].fields[14] == 'm' ? "mixtral" : "olmoe"));
        mem_free(text);
        mem_free(json);
    }
}

static void other_scalings_are_refused_by_field(void **state)
{
    static const char *const bad[][2] = {
        {"7", "rope_scaling is not an object"},
        {"{\"type\":\"dynamic\",\"factor\":2}",
         "rope_scaling: rope_type is dynamic; default, linear, llama3 and yarn are accepted"},
        {"{\"type\":3}", "rope_type is not a text"},
        {"{\"type\":\"yarn\",\"rope_type\":\"linear\",\"factor\":2}", "rope_type and type differ"},
        {"{\"type\":\"linear\"}", "rope_type linear: factor is missing"},
        {"{\"type\":\"linear\",\"factor\":0.5}", "factor is 0.5; 1 to 1000000"},
        {"{\"type\":\"linear\",\"factor\":\"2\"}", "factor is not a number above 0"},
        {"{\"factor\":2}", "factor is set; of rope_type default are accepted: rope_type, type"},
        {"{\"type\":\"yarn\",\"factor\":2,\"mscale\":0.7}", "mscale is set; of rope_type yarn"},
        {"{\"type\":\"linear\",\"factor\":2,\"rope_theta\":7}", "rope_theta is set"},
        {"{\"type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,\"high_freq_factor\":4,"
         "\"original_max_position_embeddings\":64}", "low_freq_factor is 4 and high_freq_factor"},
        {"{\"type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4}",
         "original_max_position_embeddings is missing"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        char *json = mem_printf(LLAMA BASE ",\"rope_scaling\":%s}", bad[i][0]);
        assert_config_refused(json, bad[i][1]);
        mem_free(json);
    }
    assert_config_refused(LLAMA BASE ",\"rope_scaling\":{" LLAMA3 "},\"rope_parameters\":"
                          "{\"rope_type\":\"default\"}}", "are different scalings");
}

static void other_models_are_refused_by_field(void **state)
{
    (void)state;
    assert_config_refused("", "line 1");
    assert_config_refused("[]", "not a JSON object");
    assert_config_refused("{\"model_type\":\"mamba\"}", "model_type is mamba; gpt2, llama, bert");
    assert_config_refused("{\"model_type\":\"roberta\",\"vocab_size\":9,\"architectures\":"
                          "[\"RobertaModel\"]}", "RobertaForSequenceClassification is accepted");
    assert_config_refused("{\"model_type\":\"bert\",\"vocab_size\":9,\"architectures\":"
                          "[\"BertForSequenceClassification\"],\"id2label\":{\"0\":\"a\","
                          "\"2\":\"b\"}}", "none that names class 1");
    assert_config_refused("{\"model_type\":\"bert\",\"vocab_size\":9,\"is_decoder\":true}",
                          "is_decoder");
    assert_config_refused("{\"model_type\":\"bert\",\"vocab_size\":9,\"architectures\":"
                          "[\"BertForTokenClassification\"]}", "BertForSequenceClassification");
    assert_config_refused("{\"model_type\":\"bert\",\"vocab_size\":9,\"hidden_act\":\"mish\"}",
                          "hidden_act is mish");
    assert_config_refused("{\"model_type\":\"gpt2\"}", "vocab_size is missing");
    assert_config_refused(GPT2 ",\"n_embd\":9}", "duplicate");
    assert_config_refused("{\"model_type\":\"gpt2\",\"vocab_size\":9,\"n_embd\":9,\"n_head\":2}",
                          "multiple");
    assert_config_refused("{\"model_type\":\"gpt2\",\"vocab_size\":9,\"activation_function\":"
                          "\"relu\"}", "relu");
    assert_config_refused(GPT2 ",\"tie_word_embeddings\":false}", "tie_word_embeddings");
    assert_config_refused(GPT2 ",\"scale_attn_by_inverse_layer_idx\":true}", "scale_attn");
    assert_config_refused(LLAMA ",\"rope_theta\":2,\"attention_bias\":true}", "attention_bias");
    assert_config_refused(LLAMA ",\"rope_theta\":2,\"sliding_window\":4096}", "sliding_window");
    assert_config_refused(LLAMA ",\"rope_theta\":2,\"head_dim\":3}", "even");
    assert_config_refused("{\"model_type\":\"gpt2\",\"vocab_size\":1e9}", "vocab_size");
    assert_config_refused(OPT ",\"enable_bias\":false}", "enable_bias is false; true is accepted");
    assert_config_refused(OPT ",\"layer_norm_elementwise_affine\":false}", "elementwise_affine");
    assert_config_refused(OPT ",\"_remove_final_layer_norm\":true}", "_remove_final_layer_norm");
    assert_config_refused(OPT ",\"tie_word_embeddings\":false}", "tie_word_embeddings");
    assert_config_refused(OPT ",\"activation_function\":\"mish\"}", "mish");
}

static void assert_text_round_trip(const char *json)
{
    struct model_config first = config_of(json);
    char *text = model_config_text(&first);
    struct model_config second = config_of(text);
    char *again = model_config_text(&second);
    assert_string_equal(text, again);
    if (first.family == MODEL_LLAMA) { /* for readers of both generations */
        assert_non_null(strstr(text, "0.0,\n  \"rope_scaling\""));
        assert_non_null(strstr(text, "\"rope_parameters\""));
    }
    assert_non_null(strstr(text, "\"torch_dtype\": \"float32\""));
    assert_non_null(strstr(text, "\"dtype\": \"float32\""));
    mem_free(text);
    mem_free(again);
}

static void configs_written_by_us_read_back(void **state)
{
    (void)state;
    assert_text_round_trip(GPT2 "}");
    assert_text_round_trip(LLAMA ",\"rope_theta\":10000,\"tie_word_embeddings\":true}");
    assert_text_round_trip(LLAMA ",\"rope_theta\":10000,\"head_dim\":6}");
    assert_text_round_trip(QWEN2 ",\"tie_word_embeddings\":true}");
    assert_text_round_trip(OPT "}");
    assert_text_round_trip(OPT ",\"do_layer_norm_before\":false,\"word_embed_proj_dim\":4,"
                               "\"activation_function\":\"gelu\"}");
    assert_text_round_trip(BERT "}");
    assert_text_round_trip(BERT ",\"architectures\":[\"BertForMaskedLM\"]}");
    assert_text_round_trip(BERT ",\"architectures\":[\"BertForSequenceClassification\"],"
                                "\"id2label\":{\"0\":\"a\",\"1\":\"b\",\"2\":\"c\"}}");
}

/* Ours is [out, in] = (2, 3); the file of a Conv1D holds [in, out] = (3, 2). */
static void transposed_arrays_are_turned_both_ways(void **state)
{
    (void)state;
    struct err err = {0};
    struct safetensors file;
    float values[6] = {1, 2, 3, 4, 5, 6}, square[4] = {1, 2, 3, 4}, back[6], square_back[4];
    float stored[6];
    static const float expected[6] = {1, 4, 2, 5, 3, 6};
    char *folder = folder_make(), *path = mem_printf("%s/model.safetensors", folder);
    const struct named_array out[] = {
        {"transformer.h.0.mlp.c_fc.weight", true, 2, {2, 3}, values},
        {"transformer.h.0.attn.c_proj.weight", true, 2, {2, 2}, square}};
    const struct named_array in[] = {
        {"transformer.h.0.mlp.c_fc.weight", true, 2, {2, 3}, back},
        {"transformer.h.0.attn.c_proj.weight", true, 2, {2, 2}, square_back}};
    assert_int_equal(arrays_write(path, out, 2, &err), 0);
    assert_int_equal(safetensors_open(path, &file, &err), 0);
    const struct st_entry *entry = safetensors_find(&file, out[0].name);
    assert_int_equal(entry->shape[0], 3);
    assert_int_equal(entry->shape[1], 2);
    assert_int_equal(safetensors_read_f32(&file, entry, 0, 6, stored, &err), 0);
    assert_memory_equal(stored, expected, sizeof stored);
    safetensors_close(&file);
    assert_int_equal(arrays_read(folder, true, in, 2, &err), 0);
    assert_memory_equal(back, values, sizeof values);
    /* A square weight passes every shape check: only its values show a missed transpose. */
    assert_memory_equal(square_back, square, sizeof square);
    mem_free(path);
    folder_done(folder);
}

static void write_plain(const char *path, const struct st_array *arrays, size_t count)
{
    struct err err = {0};
    assert_int_equal(safetensors_write(path, arrays, count, &err), 0);
}

static void old_names_stored_masks_and_tied_heads_are_understood(void **state)
{
    (void)state;
    struct err err = {0};
    const float one[2] = {1, 2};
    float back[2];
    char *folder = folder_make(), *path = mem_printf("%s/model.safetensors", folder);
    const struct st_array stored[] = {{"wte.weight", ST_F32, 1, {2}, one},
                                      {"h.0.attn.bias", ST_F32, 1, {2}, one},
                                      {"h.0.attn.masked_bias", ST_F32, 1, {2}, one},
                                      {"lm_head.weight", ST_F32, 1, {2}, one}};
    const struct named_array wte = {"transformer.wte.weight", false, 1, {2}, back};
    write_plain(path, stored, 4);
    assert_int_equal(arrays_read(folder, true, &wte, 1, &err), 0);
    assert_memory_equal(back, one, sizeof one);
    assert_int_equal(arrays_read(folder, false, &wte, 1, &err), -1);
    assert_non_null(strstr(err.text, "lm_head.weight"));
    mem_free(path);
    folder_done(folder);
}

static void wrong_weights_are_refused_by_tensor(void **state)
{
    (void)state;
    struct err err = {0};
    const float one[4] = {1, 2, 3, 4};
    float back[4];
    char *folder = folder_make(), *path = mem_printf("%s/model.safetensors", folder);
    const struct st_array stored[] = {{"a", ST_F32, 2, {2, 2}, one}, {"b", ST_I32, 1, {2}, one}};
    const struct named_array missing[] = {{"a", false, 2, {2, 2}, back}, {"b", false, 1, {2}, back},
                                          {"c", false, 1, {2}, back}};
    const struct named_array shape[] = {{"a", false, 2, {4, 1}, back}, {"b", false, 1, {2}, back}};
    const struct named_array fewer[] = {{"a", false, 2, {2, 2}, back}};
    write_plain(path, stored, 2);
    assert_int_equal(arrays_read(folder, false, missing, 3, &err), -1);
    assert_non_null(strstr(err.text, "'b' is I32"));
    assert_int_equal(arrays_read(folder, false, shape, 2, &err), -1);
    assert_non_null(strstr(err.text, "[2, 2] where the configuration demands [4, 1]"));
    assert_int_equal(arrays_read(folder, false, fewer, 1, &err), -1);
    assert_non_null(strstr(err.text, "holds tensor 'b'"));
    write_plain(path, stored, 1);
    const struct named_array absent[] = {{"a", false, 2, {2, 2}, back}, {"c", false, 1, {2}, back}};
    assert_int_equal(arrays_read(folder, false, absent, 2, &err), -1);
    assert_non_null(strstr(err.text, "tensor 'c' is missing"));
    assert_int_equal(arrays_read("/nowhere", false, absent, 2, &err), -1);
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    mem_free(path);
    folder_done(folder);
}

static void sharded_weights_are_read_through_the_index(void **state)
{
    (void)state;
    struct err err = {0};
    const float one[2] = {1, 2}, two[2] = {3, 4};
    float a[2], b[2];
    static const char index[] = "{\"metadata\":{\"total_size\":16},\"weight_map\":{"
                                "\"a\":\"model-00001-of-00002.safetensors\","
                                "\"b\":\"model-00002-of-00002.safetensors\"}}";
    static const char *const bad[][2] = {
        {"{\"weight_map\":{\n\"a\":\"model-00001-of-00002.safetensors\",\n\"b\":"
         "\"model-00003-of-00002.safetensors\"}}", "index.json': line 3: open"},
        {"{\"weight_map\":{\"a\":\"model-00002-of-00002.safetensors\",\"b\":"
         "\"model-00001-of-00002.safetensors\"}}", "['a'] is 'model-00002-of-00002.safetensors', "
         "which does not hold it"},
        {"{\"weight_map\":{\n\"a\":\"/etc/passwd\"}}", "line 2: weight_map['a'] is not a plain"},
        {"{\"weight_map\":{\"a\":\"model.safetensors.index.json\"}}", "is not a plain file name"},
        {"{\"weight_map\":{\"a\":[1]}}", "is not a plain file name"},
        {"{\"weight_map\":[]}", "weight_map is not an object"},
        {"{\"weight_map\":{}}", "weight_map names no tensor"},
        {"[1]", "weight_map is not an object"},
        {"{\"weight_map\":{\"a\":\"x\",\n\"a\":\"y\"}}", "line 2"},
        {"{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\"}}",
         "tensor 'a' is in 'one.safetensors' and in 'two.safetensors'"},
    };
    static const char escape[] = "{\"weight_map\":{\"a\":\"../x.safetensors\"}}";
    char *folder = folder_make();
    char *first = mem_printf("%s/model-00001-of-00002.safetensors", folder);
    char *second = mem_printf("%s/model-00002-of-00002.safetensors", folder);
    char *path = mem_printf("%s/model.safetensors.index.json", folder);
    const struct named_array arrays[] = {{"b", false, 1, {2}, b}, {"a", false, 1, {2}, a}};
    write_plain(first, &(struct st_array){"a", ST_F32, 1, {2}, one}, 1);
    write_plain(second, &(struct st_array){"b", ST_F32, 1, {2}, two}, 1);
    write_bytes(path, index, strlen(index));
    assert_int_equal(arrays_read(folder, false, arrays, 2, &err), 0);
    assert_memory_equal(a, one, sizeof one);
    assert_memory_equal(b, two, sizeof two);
    char *same[2] = {mem_printf("%s/one.safetensors", folder),
                     mem_printf("%s/two.safetensors", folder)};
    for (size_t i = 0; i < 2; i++) {
        write_plain(same[i], &(struct st_array){"a", ST_F32, 1, {2}, one}, 1);
        mem_free(same[i]);
    }
    write_bytes(path, escape, strlen(escape));
    assert_int_equal(arrays_read(folder, false, arrays, 2, &err), -1);
    assert_non_null(strstr(err.text, "plain file name"));
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        write_bytes(path, bad[i][0], strlen(bad[i][0]));
        assert_int_equal(arrays_read(folder, false, arrays, 2, &err), -1);
        if (!strstr(err.text, bad[i][1]))
            fail_msg("'%s' does not say '%s'", err.text, bad[i][1]);
    }
    mem_free(first);
    mem_free(second);
    mem_free(path);
    folder_done(folder);
}

static void assert_same_arrays(const char *folder, const struct named_array *arrays, size_t count)
{
    struct named_array back[3];
    float values[3][6] = {0};
    struct err err = {0};
    memcpy(back, arrays, count * sizeof *arrays);
    for (size_t i = 0; i < count; i++)
        back[i].values = values[i];
    if (arrays_read(folder, false, back, count, &err) < 0)
        fail_msg("%s", err.text);
    for (size_t i = 0; i < count; i++)
        assert_memory_equal(values[i], arrays[i].values, (i == 1 ? 6 : 4) * sizeof(float));
}

/* 16, 24 and 16 bytes: one file of at most 56, two of 40, and three of 39 or less. */
static void large_weights_are_written_in_shards_with_an_index(void **state)
{
    (void)state;
    struct err err = {0};
    float a[4] = {1, 2, 3, 4}, b[6] = {5, 6, 7, 8, 9, 10}, c[4] = {11, 12, 13, 14};
    const struct named_array arrays[] = {{"a.\"w\"", false, 1, {4}, a}, {"b", true, 2, {2, 3}, b},
                                         {"c", false, 2, {2, 2}, c}};
    static const char expected[] =
        "{\n  \"metadata\": {\n    \"total_size\": 56\n  },\n  \"weight_map\": {\n"
        "    \"a.\\\"w\\\"\": \"model-00001-of-00002.safetensors\",\n"
        "    \"b\": \"model-00001-of-00002.safetensors\",\n"
        "    \"c\": \"model-00002-of-00002.safetensors\"\n  }\n}\n";
    static const struct { uint64_t most_bytes; size_t files; } cuts[] = {
        {40, 2}, {56, 1}, {39, 3}, {1, 3}, {UINT64_MAX, 1}, {40, 2}};
    char *folder = folder_make(), *text = NULL;
    char *index = mem_printf("%s/model.safetensors.index.json", folder);
    char *one = mem_printf("%s/model.safetensors", folder);
    size_t length;
    for (size_t i = 0; i < ARRAY_COUNT(cuts); i++) {
        char *last = mem_printf("%s/model-%05zu-of-%05zu.safetensors", folder, cuts[i].files,
                                cuts[i].files);
        assert_int_equal(arrays_write_folder(folder, arrays, 3, cuts[i].most_bytes, &err), 0);
        assert_true(file_exists(one) == (cuts[i].files == 1));
        assert_true(file_exists(index) == (cuts[i].files > 1));
        assert_true(file_exists(last) == (cuts[i].files > 1));
        assert_same_arrays(folder, arrays, 3);
        mem_free(last);
    }
    assert_int_equal(file_read(index, 4096, &text, &length, &err), 0);
    assert_string_equal(text, expected);
    mem_free(text);
    mem_free(one);
    mem_free(index);
    folder_done(folder);
}

static struct device *open_device(void)
{
    struct err err = {0};
    struct device *device;
    struct device_config config = {.kind = BACKEND_CPU, .threads = 1};
    if (device_open(&config, &device, &err) < 0)
        fail_msg("%s", err.text);
    return device;
}

/* All weights of a model survive the files; the data sections are equal bytes on re-export. */
static void assert_model_round_trip(const char *json, const char *absent_tensor)
{
    struct err err = {0};
    struct device *device = open_device();
    struct model_config config = config_of(json);
    struct model *model, *back;
    char *folder = folder_make(), *again = folder_make();
    assert_int_equal(model_new(device, &config, 42, &model, &err), 0);
    assert_int_equal(model_files_write(folder, model, &err), 0);
    if (model_files_open(folder, device, true, &back, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(back->weight_count, model->weight_count);
    for (int64_t i = 0; i < model->weight_count; i++) {
        size_t count = (size_t)tensor_count(&model->weight[i].tensor);
        float *x = mem_array(count, sizeof *x), *y = mem_array(count, sizeof *y);
        model_weight_read(&model->weight[i], x);
        model_weight_read(&back->weight[i], y);
        assert_memory_equal(x, y, count * sizeof *x);
        mem_free(x);
        mem_free(y);
    }
    assert_int_equal(model_files_write(again, back, &err), 0);
    struct safetensors file;
    struct hash a, b;
    char *path = mem_printf("%s/model.safetensors", folder);
    char *path_again = mem_printf("%s/model.safetensors", again);
    assert_int_equal(hash_file(path, &a, &err), 0);
    assert_int_equal(hash_file(path_again, &b, &err), 0);
    assert_true(hash_equal(&a, &b));
    assert_int_equal(safetensors_open(path, &file, &err), 0);
    assert_null(safetensors_find(&file, absent_tensor));
    safetensors_close(&file);
    mem_free(path);
    mem_free(path_again);
    model_free(back);
    model_free(model);
    device_close(device);
    folder_done(folder);
    folder_done(again);
}

static void whole_models_survive_their_files(void **state)
{
    (void)state;
    assert_model_round_trip(GPT2 "}", "lm_head.weight");
    assert_model_round_trip(OPT "}", "lm_head.weight");
    assert_model_round_trip(OPT ",\"do_layer_norm_before\":false,\"word_embed_proj_dim\":4}",
                            "model.decoder.final_layer_norm.weight");
    assert_model_round_trip(LLAMA ",\"rope_theta\":10000,\"tie_word_embeddings\":true}",
                            "lm_head.weight");
    assert_model_round_trip(LLAMA ",\"rope_theta\":10000}", "no.such.tensor");
    assert_model_round_trip(QWEN2 ",\"tie_word_embeddings\":true}", "lm_head.weight");
}

static void a_folder_of_another_shape_is_refused(void **state)
{
    (void)state;
    struct err err = {0};
    struct device *device = open_device();
    struct model_config config = config_of(GPT2 "}");
    struct model *model, *other;
    char *folder = folder_make();
    assert_int_equal(model_new(device, &config, 1, &model, &err), 0);
    assert_int_equal(model_files_write(folder, model, &err), 0);
    config.layers = 1;
    assert_int_equal(model_new(device, &config, 1, &other, &err), 0);
    assert_int_equal(model_files_read(folder, other, &err), -1);
    assert_non_null(strstr(err.text, "layers is 2, but 1 is wanted"));
    model_free(other);
    model_free(model);
    device_close(device);
    folder_done(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gpt2_configs_are_read),
        cmocka_unit_test(opt_configs_are_read),
        cmocka_unit_test(what_ends_texts_is_read_and_written_back_for_every_family),
        cmocka_unit_test(what_transformers_generates_by_is_written),
        cmocka_unit_test(the_rotary_base_must_be_given_and_agree),
        cmocka_unit_test(qwen2_configs_are_read),
        cmocka_unit_test(scalings_of_rotary_angles_are_read),
        cmocka_unit_test(one_expert_a_token_keeps_the_gate_of_its_file),
        cmocka_unit_test(other_scalings_are_refused_by_field),
        cmocka_unit_test(other_models_are_refused_by_field),
        cmocka_unit_test(configs_written_by_us_read_back),
        cmocka_unit_test(transposed_arrays_are_turned_both_ways),
        cmocka_unit_test(old_names_stored_masks_and_tied_heads_are_understood),
        cmocka_unit_test(wrong_weights_are_refused_by_tensor),
        cmocka_unit_test(sharded_weights_are_read_through_the_index),
        cmocka_unit_test(large_weights_are_written_in_shards_with_an_index),
        cmocka_unit_test(whole_models_survive_their_files),
        cmocka_unit_test(a_folder_of_another_shape_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
