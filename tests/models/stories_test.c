/* stories_test.c - stories260K, a Llama trained by others (karpathy/llama2.c), gives in our engine
 * the logits, tokens and text that its makers publish.
 *
 * Its checkpoint (version 0 of llama2.c: seven int32, then float32 weights, layer by layer within
 * each kind) is written here as transformers would hold it, and read back as any model is. There,
 * rotary pairs are neighbours; in Hugging Face's layout they are half a head apart. */
#include "tests/unit/engine/small_models.h"

#include "tests/unit/data/inputs.h"
#include "worker/engine/generate.h"
#include "worker/engine/io/model_files.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define FOLDER "models/stories260K/"

/* The next `count` floats of a file. */
struct cursor {
    const char *at, *end;
};

static void take(struct cursor *c, float *out, int64_t count)
{
    assert_true(c->end - c->at >= 4 * count);
    memcpy(out, c->at, 4 * (size_t)count);
    c->at += 4 * count;
}

/* Rows of each head from (pair, half) to (half, pair). */
static void part_pairs(float *rows, int64_t count, int64_t width, int64_t head)
{
    float *copy = mem_array((size_t)(count * width), sizeof *copy);

    memcpy(copy, rows, 4 * (size_t)(count * width));
    for (int64_t r = 0; r < count; r++) {
        int64_t j = r % head, from = r - j + (j < head / 2 ? 2 * j : 2 * (j - head / 2) + 1);

        memcpy(rows + r * width, copy + from * width, 4 * (size_t)width);
    }
    mem_free(copy);
}

static void fill(struct model *model, struct cursor *c, const char *format, int64_t layer)
{
    char name[MODEL_NAME_SIZE];
    struct model_weight *weight;
    int64_t count;
    float *host;

    snprintf(name, sizeof name, format, (int)layer);
    weight = model_weight_find(model, name);
    assert_non_null(weight);
    count = tensor_count(&weight->tensor);
    host = mem_array((size_t)count, sizeof *host);
    take(c, host, count);
    if (strstr(name, ".q.") || strstr(name, ".k."))
        part_pairs(host, weight->tensor.dim[0], weight->tensor.dim[1], model->config.head_width);
    model_weight_write(weight, host);
    mem_free(host);
}

static struct model *stories_read(struct device *device)
{
    /* In the file's order; w1 gates, w2 leads back, w3 is gated. */
    static const char *const kinds[] = {
        "block.%d.norm1.weight", "block.%d.q.weight", "block.%d.k.weight", "block.%d.v.weight",
        "block.%d.o.weight", "block.%d.norm2.weight", "block.%d.gate.weight",
        "block.%d.down.weight", "block.%d.up.weight"};
    struct model_config config = {.family = MODEL_LLAMA, .tied = true, .bos_token = 1,
                                  .eos_token = 2};
    struct model *model = NULL;
    struct cursor c;
    int32_t head[7];
    size_t length;
    char *bytes = input_read(FOLDER "stories260K.bin", &length);
    struct err err;

    c = (struct cursor){bytes, bytes + length};
    take(&c, (float *)head, 7);
    config.width = head[0];
    config.ffn_width = head[1];
    config.layers = head[2];
    config.heads = head[3];
    config.kv_heads = head[4];
    config.vocab_size = head[5];
    config.context = head[6];
    assert_true(head[5] > 0); /* else the output matrix would be a weight of its own */
    must(model_new_frozen(device, &config, &model, &err));
    fill(model, &c, "embed", 0);
    for (size_t k = 0; k < ARRAY_COUNT(kinds); k++)
        for (int64_t i = 0; i < config.layers; i++)
            fill(model, &c, kinds[k], i);
    fill(model, &c, "norm.weight", 0);
    /* What is left are the angles of rotary positions, which we compute. */
    assert_int_equal(c.end - c.at, 4 * config.context * model->config.head_width);
    mem_free(bytes);
    return model;
}

/* Through config.json and model.safetensors. */
static struct model *stories_as_transformers_holds_it(struct device *device)
{
    char folder[] = "/tmp/athanor-stories-XXXXXX";
    static const char *const files[] = {"config.json", "model.safetensors",
                                        "generation_config.json"};
    struct model *model = stories_read(device), *read = NULL;
    struct err err;
    int rc;

    assert_non_null(mkdtemp(folder));
    rc = model_files_write(folder, model, &err);
    if (rc == 0)
        rc = model_files_open(folder, device, true, &read, &err);
    for (size_t i = 0; i < ARRAY_COUNT(files); i++) {
        char *path = mem_printf("%s/%s", folder, files[i]);

        unlink(path);
        mem_free(path);
    }
    rmdir(folder);
    must(rc);
    model_free(model);
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

/* The pieces of a llama2.c tokenizer (int32 longest; then float score, int32 length, bytes) that
 * the ids after the first stand for. <0x0A> is a byte; the text begins without its space. */
static char *text_of(const int32_t *ids, int64_t count)
{
    size_t length, used = 0;
    char *bytes = input_read(FOLDER "tok512.bin", &length), *text = mem_zalloc(16 * (size_t)count);

    for (int64_t n = 1; n < count; n++) {
        const char *at = bytes + 4, *end = bytes + length;
        int32_t size = 0;
        unsigned byte;

        for (int32_t id = 0; id <= ids[n]; id++) {
            at += id > 0 ? 8 + size : 0;
            assert_true(end - at >= 8);
            memcpy(&size, at + 4, 4);
            assert_true(size >= 0 && size < 16 && end - at >= 8 + size);
        }
        memcpy(text + used, at + 8, (size_t)size);
        text[used + (size_t)size] = 0;
        if (sscanf(text + used, "<0x%02X>", &byte) == 1) {
            text[used] = (char)byte;
            size = 1;
        }
        used += (size_t)size;
        text[used] = 0;
    }
    if (text[0] == ' ')
        memmove(text, text + 1, used);
    mem_free(bytes);
    return text;
}

static void a_llama_of_others_gives_its_published_logits_tokens_and_text(void **state)
{
    json_t *root = expected(), *given = json_object_get(root, "ids");
    int64_t count = (int64_t)json_array_size(given);
    int32_t *ids = mem_array((size_t)count, sizeof *ids);
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model *model = stories_as_transformers_holds_it(device);
    struct sampling greedy = {.stop_token = -1};
    struct generation text = {.token = mem_array((size_t)count, sizeof *ids)};
    char *words;
    struct err err;

    (void)state;
    for (int64_t i = 0; i < count; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(given, (size_t)i));
    check_logits(model, ids, count, json_object_get(root, "logits"));
    must(generate(model, &(struct prompt){ids, 1}, &text, 1, count - 1, &greedy, &err));
    assert_int_equal(text.count, count - 1);
    assert_memory_equal(text.token, ids + 1, 4 * (size_t)(count - 1));
    words = text_of(ids, count);
    assert_string_equal(words, json_string_value(json_object_get(root, "text")));
    mem_free(words);
    mem_free(text.token);
    mem_free(ids);
    json_decref(root);
    model_free(model);
    device_close(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_llama_of_others_gives_its_published_logits_tokens_and_text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
