/* adapters.c - see adapters.h. */
#include "worker/engine/io/adapters.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "worker/engine/io/config_parts.h"
#include "worker/engine/io/model_files.h"
#include "worker/engine/io/safetensors.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define CONFIG_BYTES_MAX ((size_t)1 << 20)
#define CONFIG_NAME "adapter_config.json"
#define ARRAYS_NAME "adapter_model.safetensors"

/* -- adapter_config.json -------------------------------------------------------------------- */

/* A field that must say nothing: absent, null, false, or an empty list or object. */
static int expect_nothing(json_t *root, const char *field, struct err *err)
{
    json_t *value = json_object_get(root, field);

    if (config_is_absent(value) || json_is_false(value) ||
        (json_is_array(value) && json_array_size(value) == 0) ||
        (json_is_object(value) && json_object_size(value) == 0))
        return 0;
    return err_set(err, ERR_INVALID, "%s is set; only plain low-rank adapters are accepted, "
                   "without it", field);
}

static int expect_plain(json_t *root, struct err *err)
{
    static const char *const nothing[] = {"use_dora", "modules_to_save", "rank_pattern",
                                          "alpha_pattern", "lora_bias", "megatron_config",
                                          "trainable_token_indices"};

    for (size_t i = 0; i < ARRAY_COUNT(nothing); i++)
        if (expect_nothing(root, nothing[i], err) < 0)
            return -1;
    if (config_expect_text(root, "peft_type", "", "LORA", "LORA", err) < 0)
        return -1;
    return config_expect_text(root, "bias", "none", "none", "none", err);
}

static int read_base(json_t *root, struct adapter_config *out, struct err *err)
{
    json_t *base = json_object_get(root, "base_model_name_or_path");

    if (config_is_absent(base))
        return 0;
    if (!json_is_string(base) || !*json_string_value(base))
        return err_set(err, ERR_INVALID, "base_model_name_or_path is not a text");
    out->base = mem_strdup(json_string_value(base));
    return 0;
}

static int read_config(json_t *root, struct adapter_config *out, struct err *err)
{
    bool stabilised;
    double alpha;

    if (expect_plain(root, err) < 0 || config_read_size(root, "r", 0, &out->rank, err) < 0 ||
        config_read_positive(root, "lora_alpha", 8, &alpha, err) < 0 ||
        config_read_bool(root, "use_rslora", false, &stabilised, err) < 0)
        return -1;
    out->scale = alpha / (stabilised ? sqrt((double)out->rank) : (double)out->rank);
    return read_base(root, out, err);
}

int adapter_config_parse(const char *json, size_t length, struct adapter_config *out,
                         struct err *err)
{
    struct adapter_config config = {0};
    json_error_t why;
    json_t *root = json_loadb(json, length, JSON_REJECT_DUPLICATES, &why);
    int rc;

    if (!root)
        return err_set(err, ERR_PROTOCOL, "line %d column %d: %s", why.line, why.column, why.text);
    rc = json_is_object(root) ? read_config(root, &config, err)
                              : err_set(err, ERR_PROTOCOL, "not a JSON object");
    json_decref(root);
    if (rc == 0)
        *out = config;
    else
        adapter_config_done(&config);
    return rc;
}

void adapter_config_done(struct adapter_config *config)
{
    mem_free(config->base);
    config->base = NULL;
}

static int config_of(const char *folder, struct adapter_config *out, struct err *err)
{
    char *path = mem_printf("%s/" CONFIG_NAME, folder), *bytes = NULL;
    size_t length;
    int rc = file_read(path, CONFIG_BYTES_MAX, &bytes, &length, err);

    if (rc == 0 && adapter_config_parse(bytes, length, out, err) < 0)
        rc = err_wrap(err, "'%s'", path);
    mem_free(bytes);
    mem_free(path);
    return rc;
}

/* The last part of a module's name, which is what peft matches: "c_attn" of
 * "base_model.model.transformer.h.0.attn.c_attn.lora_A.weight". */
static char *module_of(const char *name)
{
    const char *end = strstr(name, ".lora_"), *begin;

    CHECK(end);
    for (begin = end; begin > name && begin[-1] != '.'; begin--)
        continue;
    return mem_strndup(begin, (size_t)(end - begin));
}

static json_t *target_modules(const struct model *weights)
{
    json_t *list = json_array();

    CHECK(list);
    for (int64_t i = 0; i < weights->weight_count; i += 2) {
        char *module = module_of(weights->weight[i].hf_name);
        bool known = false;

        for (size_t k = 0; k < json_array_size(list); k++)
            known = known || strcmp(json_string_value(json_array_get(list, k)), module) == 0;
        if (!known)
            CHECK(json_array_append_new(list, json_string(module)) == 0);
        mem_free(module);
    }
    return list;
}

static char *config_text(struct lora *lora, const char *base)
{
    const struct lora_config *config = lora_config_of(lora);
    const struct model *weights = lora_weights(lora);
    json_t *root = json_object();
    char *text, *copy;

    CHECK(root);
    config_put(root, "peft_type", json_string("LORA"));
    config_put(root, "task_type", json_string("CAUSAL_LM"));
    config_put(root, "base_model_name_or_path", json_string(base));
    config_put(root, "r", json_integer(config->rank));
    config_put(root, "lora_alpha", json_real(config->alpha));
    config_put(root, "lora_dropout", json_real(0));
    config_put(root, "target_modules", target_modules(weights));
    config_put(root, "fan_in_fan_out", json_boolean(weights->config.family == MODEL_GPT2));
    config_put(root, "bias", json_string("none"));
    config_put(root, "modules_to_save", json_null());
    config_put(root, "use_rslora", json_false());
    config_put(root, "use_dora", json_false());
    config_put(root, "init_lora_weights", json_true());
    config_put(root, "inference_mode", json_true());
    text = json_dumps(root, JSON_INDENT(2));
    json_decref(root);
    CHECK(text);
    copy = mem_printf("%s\n", text);
    free(text);
    return copy;
}

/* -- adapter_model.safetensors -------------------------------------------------------------- */

static int write_arrays(const char *folder, const struct model *weights, struct err *err)
{
    size_t count = (size_t)weights->weight_count;
    struct st_array *arrays = mem_zalloc(count * sizeof *arrays);
    char *path = mem_printf("%s/" ARRAYS_NAME, folder);
    int rc;

    for (size_t i = 0; i < count; i++) {
        const struct model_weight *weight = &weights->weight[i];
        float *host = mem_array((size_t)tensor_count(&weight->tensor), sizeof *host);

        model_weight_read(weight, host);
        arrays[i] = (struct st_array){.name = weight->hf_name, .type = ST_F32, .dim_count = 2,
                                      .shape = {(uint64_t)weight->tensor.dim[0],
                                                (uint64_t)weight->tensor.dim[1]},
                                      .values = host};
    }
    rc = safetensors_write(path, arrays, count, err);
    for (size_t i = 0; i < count; i++)
        mem_free((void *)arrays[i].values);
    mem_free(arrays);
    mem_free(path);
    return rc;
}

int adapters_write(const char *folder, struct lora *lora, const char *base, struct err *err)
{
    char *text = config_text(lora, base), *path = mem_printf("%s/" CONFIG_NAME, folder);
    int rc = file_replace(path, text, strlen(text), 0644, err);

    if (rc == 0)
        rc = write_arrays(folder, lora_weights(lora), err);
    mem_free(text);
    mem_free(path);
    return rc;
}

static int open_arrays(const char *folder, struct safetensors *out, struct err *err)
{
    char *path = mem_printf("%s/" ARRAYS_NAME, folder);
    int rc = safetensors_open(path, out, err);

    mem_free(path);
    return rc;
}

/* An array of this name and shape as floats; mem_free. */
static int read_array(const struct safetensors *file, const char *name, int64_t rows,
                      int64_t columns, float **out, struct err *err)
{
    const struct st_entry *entry = safetensors_find(file, name);
    float *values;

    if (!entry)
        return err_set(err, ERR_INVALID, "'" ARRAYS_NAME "' has no '%s'", name);
    if (entry->dim_count != 2 || entry->shape[0] != (uint64_t)rows ||
        entry->shape[1] != (uint64_t)columns)
        return err_set(err, ERR_INVALID, "'%s' in '" ARRAYS_NAME "' is not %lld by %lld", name,
                       (long long)rows, (long long)columns);
    values = mem_array((size_t)(rows * columns), sizeof *values);
    if (safetensors_read_f32(file, entry, 0, (uint64_t)(rows * columns), values, err) < 0) {
        mem_free(values);
        return -1;
    }
    *out = values;
    return 0;
}

static int fill_all(const struct safetensors *file, struct model *weights, struct err *err)
{
    if (file->count != (size_t)weights->weight_count)
        return err_set(err, ERR_INVALID, "'" ARRAYS_NAME "' has %zu arrays, the adapters %lld: "
                       "other targets", file->count, (long long)weights->weight_count);
    for (int64_t i = 0; i < weights->weight_count; i++) {
        struct model_weight *weight = &weights->weight[i];
        float *values;

        if (read_array(file, weight->hf_name, weight->tensor.dim[0], weight->tensor.dim[1],
                       &values, err) < 0)
            return -1;
        model_weight_write(weight, values);
        mem_free(values);
    }
    return 0;
}

int adapters_read(const char *folder, struct lora *lora, struct err *err)
{
    struct safetensors file;
    int rc;

    if (open_arrays(folder, &file, err) < 0)
        return -1;
    rc = fill_all(&file, lora_weights(lora), err);
    safetensors_close(&file);
    return rc < 0 ? err_wrap(err, "adapters in '%s'", folder) : 0;
}

/* W += scale B A, in double. */
static void add_product(struct model_weight *weight, const float *a, const float *b, int64_t rank,
                        double scale)
{
    int64_t rows = weight->tensor.dim[0], columns = weight->tensor.dim[1];
    float *w = mem_array((size_t)(rows * columns), sizeof *w);

    model_weight_read(weight, w);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++) {
            double sum = 0;

            for (int64_t k = 0; k < rank; k++)
                sum += (double)b[r * rank + k] * a[k * columns + c];
            w[r * columns + c] = (float)(w[r * columns + c] + scale * sum);
        }
    model_weight_write(weight, w);
    mem_free(w);
}

/* The pair of one weight, where the file has it; *used counts arrays. */
static int merge_weight(const struct safetensors *file, struct model_weight *weight,
                        const struct adapter_config *config, size_t *used, struct err *err)
{
    char name_a[MODEL_NAME_SIZE], name_b[MODEL_NAME_SIZE];
    float *a = NULL, *b = NULL;
    int rc = -1;

    if (weight->tensor.rank != 2)
        return 0;
    lora_file_name(weight, 'A', name_a);
    lora_file_name(weight, 'B', name_b);
    if (!safetensors_find(file, name_a))
        return 0;
    if (read_array(file, name_a, config->rank, weight->tensor.dim[1], &a, err) == 0 &&
        read_array(file, name_b, weight->tensor.dim[0], config->rank, &b, err) == 0) {
        add_product(weight, a, b, config->rank, config->scale);
        *used += 2;
        rc = 0;
    }
    mem_free(a);
    mem_free(b);
    return rc;
}

static bool has_name(struct model *model, const char *name)
{
    char known[MODEL_NAME_SIZE];

    for (int64_t i = 0; i < model->weight_count; i++)
        for (int k = 0; k < 2; k++) {
            lora_file_name(&model->weight[i], k == 0 ? 'A' : 'B', known);
            if (strcmp(known, name) == 0)
                return true;
        }
    return false;
}

static int merge_all(const struct safetensors *file, const struct adapter_config *config,
                     struct model *model, struct err *err)
{
    size_t used = 0;

    for (size_t i = 0; i < file->count; i++)
        if (!has_name(model, file->entries[i].name))
            return err_set(err, ERR_INVALID, "'%s' belongs to no weight of this %s",
                           file->entries[i].name, model_family_name(model->config.family));
    for (int64_t i = 0; i < model->weight_count; i++)
        if (merge_weight(file, &model->weight[i], config, &used, err) < 0)
            return -1;
    if (used != file->count)
        return err_set(err, ERR_INVALID, "'" ARRAYS_NAME "' has %zu arrays, of which only %zu are "
                       "pairs of A and B", file->count, used);
    return 0;
}

int adapters_merge(const char *folder, struct model *model, struct err *err)
{
    struct adapter_config config;
    struct safetensors file;
    int rc;

    if (config_of(folder, &config, err) < 0)
        return -1;
    rc = open_arrays(folder, &file, err);
    if (rc == 0) {
        rc = merge_all(&file, &config, model, err);
        safetensors_close(&file);
    }
    adapter_config_done(&config);
    return rc < 0 ? err_wrap(err, "adapters in '%s'", folder) : 0;
}

/* -- folders -------------------------------------------------------------------------------- */

bool adapters_alone(const char *folder)
{
    char *model = mem_printf("%s/config.json", folder);
    char *adapters = mem_printf("%s/" CONFIG_NAME, folder);
    bool alone = file_exists(adapters) && !file_exists(model);

    mem_free(model);
    mem_free(adapters);
    return alone;
}

int adapters_open(const char *folder, struct device *device, bool frozen, struct model **out,
                  struct err *err)
{
    struct adapter_config config;
    struct model *model = NULL;
    int rc = -1;

    if (config_of(folder, &config, err) < 0)
        return -1;
    if (!config.base)
        err_set(err, ERR_INVALID, "adapters in '%s' name no base_model_name_or_path", folder);
    else if (model_files_open(config.base, device, frozen, &model, err) < 0)
        err_wrap(err, "the base model of the adapters in '%s'", folder);
    else
        rc = adapters_merge(folder, model, err);
    adapter_config_done(&config);
    if (rc < 0) {
        model_free(model);
        return -1;
    }
    *out = model;
    return 0;
}
