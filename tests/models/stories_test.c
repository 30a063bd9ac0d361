/* stories_test.c - stories260K, a Llama trained by others (karpathy/llama2.c), gives in our engine
 * the logits, tokens and text that its makers publish.
 *
 * It goes the way of a user: imported from its checkpoint and its tokenizer, written in Hugging
 * Face's layout, and read back as any model is. */
#include "tests/unit/engine/small_models.h"

#include "tests/unit/data/inputs.h"
#include "worker/engine/data/tokenizer.h"
#include "worker/engine/generate.h"
#include "worker/engine/io/llama2c_import.h"
#include "worker/engine/io/model_files.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#define FOLDER "models/stories260K/"

struct stories {
    struct model *model;
    struct tokenizer *tokenizer;
};

static struct tokenizer *stories_tokenizer(void)
{
    struct tokenizer *tokenizer = NULL;
    size_t length;
    char *bytes = input_read(FOLDER "tok512.bin", &length);
    struct err err;

    must(tokenizer_parse_llama2c(bytes, length, 512, &tokenizer, &err));
    mem_free(bytes);
    return tokenizer;
}

/* Through config.json, model.safetensors and tokenizer.json. */
static struct stories stories_as_transformers_holds_it(struct device *device)
{
    char *path = input_path(FOLDER "stories260K.bin"), *folder = folder_make();
    struct tokenizer *tokenizer = stories_tokenizer();
    struct stories read = {0};
    struct model *model = NULL;
    struct err err;

    must(llama2c_import(path, device, &model, &err));
    assert_true(model->config.tied);
    assert_int_equal(model->config.kv_heads, 4);
    must(model_files_write(folder, model, &err));
    must(tokenizer_write(tokenizer, folder, 512, &err));
    must(model_files_open(folder, device, true, &read.model, &err));
    must(tokenizer_read(folder, &read.tokenizer, &err));
    folder_done(folder);
    tokenizer_free(tokenizer);
    model_free(model);
    mem_free(path);
    return read;
}

static json_t *expected(void)
{
    size_t length;
    char *text = input_read(FOLDER "expected_greedy.json", &length);
    json_t *root = json_loadb(text, length, 0, NULL);

    mem_free(text);
    assert_non_null(root);
    return root;
}

static void check_logits(const struct model *model, const int32_t *ids, int64_t count,
                         json_t *points)
{
    struct tape *tape = small_tape(model->device, TAPE_INFER);
    struct model_batch batch = {.B = 1, .T = count, .token = ids};
    int64_t V = model->config.vocab_size;
    float *logits = mem_array((size_t)(count * V), sizeof *logits);
    struct model_states states = {0};
    json_t *point, *id;
    struct err err;
    size_t i, k;

    must(model_forward(tape, model, &batch, &states, &err));
    tensor_read(model_logits(tape, model, states.hidden), logits);
    json_array_foreach(points, i, point) {
        const float *row = logits + json_integer_value(json_object_get(point, "pos")) * V;
        json_t *values = json_object_get(point, "top5_logits");

        json_array_foreach(json_object_get(point, "top5_ids"), k, id) {
            double value = json_number_value(json_array_get(values, k));

            /* Recorded with four decimals, of float32 sums in another order. */
            assert_float_equal(row[json_integer_value(id)], value, 1e-3);
        }
    }
    assert_true(i > 0);
    mem_free(logits);
    tape_free(tape);
}

/* The ids after the first stand for the text, and the text's ids are they. */
static void check_text(const struct tokenizer *tokenizer, const int32_t *ids, int64_t count,
                       const char *text)
{
    struct token_list own = {0}, framed = {0}, types = {0};
    struct buf back = {0};

    tokenizer_decode(tokenizer, (const uint32_t *)ids + 1, (size_t)count - 1, &back);
    assert_string_equal(buf_text(&back), text);
    tokenizer_encode(tokenizer, text, strlen(text), &own);
    tokenizer_frame(tokenizer, &own, NULL, &framed, &types);
    assert_int_equal(framed.count, count);
    assert_memory_equal(framed.ids, ids, 4 * (size_t)count);
    token_list_done(&own);
    token_list_done(&framed);
    token_list_done(&types);
    buf_done(&back);
}

static void a_llama_of_others_gives_its_published_logits_tokens_and_text(void **state)
{
    json_t *root = expected(), *given = json_object_get(root, "ids");
    int64_t count = (int64_t)json_array_size(given);
    int32_t *ids = mem_array((size_t)count, sizeof *ids);
    struct device *device = small_device(BACKEND_CPU, 1);
    struct stories stories = stories_as_transformers_holds_it(device);
    struct sampling greedy = {.stop_token = -1};
    struct generation text = {.token = mem_array((size_t)count, sizeof *ids)};
    struct err err;

    (void)state;
    for (int64_t i = 0; i < count; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(given, (size_t)i));
    check_logits(stories.model, ids, count, json_object_get(root, "logits"));
    must(generate(stories.model, &(struct prompt){ids, 1}, &text, 1, count - 1, &greedy, &err));
    assert_int_equal(text.count, count - 1);
    assert_memory_equal(text.token, ids + 1, 4 * (size_t)(count - 1));
    check_text(stories.tokenizer, ids, count, json_string_value(json_object_get(root, "text")));
    mem_free(text.token);
    mem_free(ids);
    json_decref(root);
    tokenizer_free(stories.tokenizer);
    model_free(stories.model);
    device_close(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_llama_of_others_gives_its_published_logits_tokens_and_text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
