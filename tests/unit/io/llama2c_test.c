/* llama2c_test.c - checkpoints of llama2.c, written here in both versions from a random model. */
#include "tests/unit/engine/small_models.h"

#include "tests/unit/data/inputs.h"
#include "common/base/buf.h"
#include "worker/engine/io/llama2c_import.h"

#include <math.h>

#define LAYERS 2

static const struct model_config shape = {
    .family = MODEL_LLAMA, .vocab_size = 30, .context = 12, .width = 24, .layers = LAYERS,
    .heads = 3, .kv_heads = 1, .head_width = 8, .ffn_width = 20, .init_std = 0.3};

/* Theirs, in file order; '*' is every block in turn, '@' the angles. */
static const char *const version_0[] = {
    "model.embed_tokens.weight", "*input_layernorm.weight", "*self_attn.q_proj.weight",
    "*self_attn.k_proj.weight", "*self_attn.v_proj.weight", "*self_attn.o_proj.weight",
    "*post_attention_layernorm.weight", "*mlp.gate_proj.weight", "*mlp.down_proj.weight",
    "*mlp.up_proj.weight", "model.norm.weight", "@", "lm_head.weight"};
static const char *const version_1[] = {
    "*input_layernorm.weight", "*post_attention_layernorm.weight", "model.norm.weight",
    "model.embed_tokens.weight", "*self_attn.q_proj.weight", "*self_attn.k_proj.weight",
    "*self_attn.v_proj.weight", "*self_attn.o_proj.weight", "*mlp.gate_proj.weight",
    "*mlp.down_proj.weight", "*mlp.up_proj.weight", "lm_head.weight"};

/* Row (pair, half) of each head of theirs is our row (half, pair). */
static void put_weight(struct buf *out, struct model *model, const char *name)
{
    struct model_weight *weight = model_weight_find(model, name);
    int64_t rows, columns;
    float *host;

    if (!weight) { /* of a tied model: no head */
        assert_string_equal(name, "lm_head.weight");
        return;
    }
    rows = weight->tensor.dim[0];
    columns = tensor_count(&weight->tensor) / rows;
    host = mem_array((size_t)(rows * columns), sizeof *host);
    model_weight_read(weight, host);
    for (int64_t r = 0; r < rows; r++) {
        int64_t pair = r % 8 / 2, half = r % 2;
        int64_t from = strstr(name, "q_proj") || strstr(name, "k_proj")
                           ? r / 8 * 8 + 4 * half + pair : r;

        buf_add(out, host + from * columns, (size_t)columns * sizeof *host);
    }
    mem_free(host);
}

static void put_weights(struct buf *out, struct model *model, const char *const *order,
                        size_t count)
{
    for (size_t k = 0; k < count; k++) {
        char name[MODEL_NAME_SIZE];

        for (int i = 0; i < LAYERS && order[k][0] == '*'; i++) {
            snprintf(name, sizeof name, "model.layers.%d.%s", i, order[k] + 1);
            put_weight(out, model, name);
        }
        for (int64_t i = 0; i < shape.context * 8 && order[k][0] == '@'; i++)
            buf_add(out, &(float){0.5f}, 4);
        if (order[k][0] == 'm' || order[k][0] == 'l')
            put_weight(out, model, order[k]);
    }
}

static void make_file(struct buf *out, struct model *model, int version)
{
    int32_t sizes[7] = {24, 20, LAYERS, 3, 1, 30, 12};
    char zeros[256] = {0};

    if (version == 0) {
        sizes[5] = model->config.tied ? 30 : -30;
        buf_add(out, sizes, sizeof sizes);
        put_weights(out, model, version_0, ARRAY_COUNT(version_0));
        return;
    }
    buf_add(out, "24ka", 4); /* 0x616b3432, little-endian */
    buf_add(out, &version, 4);
    buf_add(out, sizes, sizeof sizes);
    buf_putc(out, model->config.tied);
    buf_add(out, zeros, 256 - out->length);
    put_weights(out, model, version_1, ARRAY_COUNT(version_1));
}

static struct model *random_model(struct device *device, bool tied)
{
    struct model_config config = shape;
    struct model *model;

    config.tied = tied;
    model = small_model(device, &config, 7);
    for (int64_t w = 0; w < model->weight_count; w++) { /* gains that differ too */
        struct model_weight *weight = &model->weight[w];
        int64_t count = tensor_count(&weight->tensor);
        float *host = mem_array((size_t)count, sizeof *host);

        model_weight_read(weight, host);
        for (int64_t i = 0; i < count; i++)
            host[i] += 0.01f * (float)(i + w);
        model_weight_write(weight, host);
        mem_free(host);
    }
    return model;
}

static void check_import(bool tied, int version)
{
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model *model = random_model(device, tied), *read = NULL;
    float *a, *b;
    struct buf file = {0};
    struct err err;

    make_file(&file, model, version);
    must(llama2c_parse(file.bytes, file.length, device, &read, &err));
    assert_int_equal(read->config.tied, tied);
    assert_int_equal(read->config.context, 12);
    assert_int_equal(read->config.bos_token, 1);
    assert_int_equal(read->config.eos_token, 1); /* as run.c has it */
    assert_int_equal(read->flat_count, model->flat_count);
    a = mem_array((size_t)model->flat_count, sizeof *a);
    b = mem_array((size_t)model->flat_count, sizeof *b);
    tensor_read(&model->flat, a);
    tensor_read(&read->flat, b);
    assert_memory_equal(a, b, 4 * (size_t)model->flat_count);
    mem_free(a);
    mem_free(b);
    buf_done(&file);
    model_free(read);
    model_free(model);
    device_close(device);
}

static void both_versions_give_the_weights_that_were_written(void **state)
{
    (void)state;
    for (int version = 0; version <= 1; version++) {
        check_import(true, version);
        check_import(false, version);
    }
}

static void assert_refused(struct device *device, const struct buf *file, size_t length,
                           const char *expected)
{
    uint64_t used_bytes = device->used_bytes;
    struct model *model = NULL;
    struct err err = {0};

    assert_int_equal(llama2c_parse(file->bytes, length, device, &model, &err), -1);
    assert_null(model);
    assert_int_equal(device->used_bytes, used_bytes);
    if (!strstr(err.text, expected))
        fail_msg("'%s' does not say '%s'", err.text, expected);
}

static void with_field(struct device *device, struct buf *file, size_t at, int32_t value,
                       const char *expected)
{
    int32_t before;

    memcpy(&before, file->bytes + at, 4);
    memcpy(file->bytes + at, &value, 4);
    assert_refused(device, file, file->length, expected);
    memcpy(file->bytes + at, &before, 4);
}

static void headers_that_name_no_model_are_refused_by_field(void **state)
{
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model *model = random_model(device, false);
    struct buf file = {0};

    (void)state;
    make_file(&file, model, 0);
    with_field(device, &file, 0, 0, "dim at byte 0 of its header is 0, expected 1..1048576");
    with_field(device, &file, 0, 25, "dim of 25 for 3 heads");
    with_field(device, &file, 4, -20, "hidden_dim at byte 4");
    with_field(device, &file, 8, 5000, "n_layers at byte 8");
    with_field(device, &file, 12, 24, "even");
    with_field(device, &file, 16, 4, "kv_heads");
    with_field(device, &file, 20, INT32_MIN, "vocab_size at byte 20");
    with_field(device, &file, 24, 0, "seq_len at byte 24");
    with_field(device, &file, 24, 13, "ends within 'head'");
    with_field(device, &file, 8, 3, "ends within");
    with_field(device, &file, 20, -29, "its weights end at byte");
    buf_clear(&file);
    make_file(&file, model, 1);
    with_field(device, &file, 4, 2, "version 2 (int8); versions 0 and 1 are accepted");
    with_field(device, &file, 4, 3, "version 3;");
    with_field(device, &file, 28, -30, "vocab_size at byte 28");
    assert_refused(device, &file, 255, "its header alone has 256");
    assert_refused(device, &file, 5, "its header alone has 28");
    buf_done(&file);
    model_free(model);
    device_close(device);
}

static void cut_and_damaged_files_are_refused_by_weight(void **state)
{
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model *model = random_model(device, true);
    struct buf file = {0};

    (void)state;
    for (int version = 0; version <= 1; version++) {
        buf_clear(&file);
        make_file(&file, model, version);
        for (size_t cut = version ? 256 : 28; cut < file.length; cut += 997)
            assert_refused(device, &file, cut, "ends within '");
        buf_putc(&file, 0);
        assert_refused(device, &file, file.length, "but its weights end at byte");
    }
    assert_refused(device, &file, file.length - 5, "ends within 'block.1.up.weight'");
    file.length--;
    memcpy(file.bytes + file.length - 8, &(float){INFINITY}, 4);
    assert_refused(device, &file, file.length, "number 478 of 'block.1.up.weight', at byte");
    buf_done(&file);
    model_free(model);
    device_close(device);
}

static void files_that_are_none_are_refused_by_name(void **state)
{
    struct device *device = small_device(BACKEND_CPU, 1);
    struct model *model = NULL;
    struct err err = {0};
    char *folder = folder_make(), *empty = mem_printf("%s/empty.bin", folder);

    (void)state;
    write_bytes(empty, "", 0);
    assert_int_equal(llama2c_import("/nowhere.bin", device, &model, &err), -1);
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    assert_int_equal(llama2c_import(folder, device, &model, &err), -1);
    assert_non_null(strstr(err.text, "not a regular file"));
    assert_int_equal(llama2c_import(empty, device, &model, &err), -1);
    assert_non_null(strstr(err.text, "empty.bin' is empty"));
    mem_free(empty);
    folder_done(folder);
    device_close(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_versions_give_the_weights_that_were_written),
        cmocka_unit_test(headers_that_name_no_model_are_refused_by_field),
        cmocka_unit_test(cut_and_damaged_files_are_refused_by_weight),
        cmocka_unit_test(files_that_are_none_are_refused_by_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
