/* link: common-spec */
/* json_tree_fuzz.c - a tree says what jansson's objects say, and refuses what those refuse. */
#include "common/base/json_text.h"
#include "common/base/json_tree.h"
#include "common/spec/json.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

/* Recurses as deep as the text nests, which is bounded. */
static void check_same(const struct json_tree *tree, const json_t *value)
{
    size_t count = 0;
    switch (tree->kind) {
    case JSON_TREE_NULL:
        CHECK(json_is_null(value));
        break;
    case JSON_TREE_FALSE:
        CHECK(json_is_false(value));
        break;
    case JSON_TREE_TRUE:
        CHECK(json_is_true(value));
        break;
    case JSON_TREE_INTEGER:
        CHECK(json_is_integer(value) && json_integer_value(value) == tree->integer);
        break;
    case JSON_TREE_REAL:
        CHECK(json_is_real(value) && json_real_value(value) == tree->real);
        break;
    case JSON_TREE_STRING:
        CHECK(json_is_string(value) && strcmp(json_string_value(value), tree->text) == 0);
        break;
    case JSON_TREE_ARRAY:
        count = json_array_size(value);
        CHECK(json_is_array(value) && count == tree->count);
        for (size_t i = 0; i < count; i++)
            check_same(&tree->items[i], json_array_get(value, i));
        break;
    case JSON_TREE_OBJECT:
        CHECK(json_is_object(value) && json_object_size(value) == tree->count);
        for (size_t i = 0; i < tree->count; i++) {
            CHECK(i == 0 || strcmp(tree->items[i - 1].key, tree->items[i].key) < 0);
            CHECK(json_tree_get(tree, tree->items[i].key) == &tree->items[i]);
            check_same(&tree->items[i], json_object_get(value, tree->items[i].key));
        }
        break;
    }
    CHECK(tree->source_length > 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    const char *text = (const char *)bytes;
    struct arena arena = {0};
    struct json_tree tree;
    struct err err;
    json_t *value = NULL;
    bool is_read = length > 0 && json_read(text, length, &value, &err) == 0;
    bool is_tree = length > 0 && json_tree_read(text, length, &arena, &tree, &err) == 0;

    if (is_tree) {
        CHECK(is_read);
        check_same(&tree, value);
    } else if (is_read) {
        CHECK(!json_text_is_valid(text, length)); /* which is stricter about numbers */
    }
    if (is_read)
        json_decref(value);
    arena_done(&arena);
    return 0;
}
