/* config_encoders.c - config.json of encoders: BERT, RoBERTa with classes, and kona (a format of
 * our own). */
#include "worker/engine/io/config_parts.h"

#include <stdio.h>
#include <string.h>

static const char *const bert_architectures[] = {
    [MODEL_TOP_POOLER] = "BertModel",
    [MODEL_TOP_TOKENS] = "BertForMaskedLM",
    [MODEL_TOP_LABELS] = "BertForSequenceClassification",
};

/* What is above the blocks follows from the class that wrote the file; none: the bare model. */
static int read_top(json_t *root, struct model_config *out, struct err *err)
{
    json_t *list = json_object_get(root, "architectures");
    const char *name = json_string_value(json_array_get(list, 0));

    for (size_t i = 0; name && i < ARRAY_COUNT(bert_architectures); i++)
        if (strcmp(name, bert_architectures[i]) == 0) {
            out->top = (enum model_top)i;
            return 0;
        }
    if (!name && config_is_absent(list))
        return 0;
    return err_set(err, ERR_INVALID, "architectures[0] is %s; BertModel, BertForMaskedLM and "
                   "BertForSequenceClassification are accepted", name ? name : "not a text");
}

/* Names that do not fit are left out: only programs that ask for one by name miss it. */
static int read_label_names(json_t *names, struct model_config *out, struct err *err)
{
    out->labels = (int64_t)json_object_size(names);
    for (int64_t i = 0; i < out->labels; i++) {
        char id[24];

        snprintf(id, sizeof id, "%lld", (long long)i);
        const char *name = json_string_value(json_object_get(names, id));
        if (!name)
            return err_set(err, ERR_INVALID, "id2label has %lld entries, but none that names class "
                           "%s: keys \"0\" to \"%lld\" with texts are accepted",
                           (long long)out->labels, id, (long long)out->labels - 1);
        if (i < MODEL_LABELS_NAMED && strlen(name) < MODEL_LABEL_SIZE)
            snprintf(out->label_name[i], MODEL_LABEL_SIZE, "%s", name);
    }
    return 0;
}

/* transformers counts classes in id2label, or num_labels; it takes 2 when there are neither. */
static int read_labels(json_t *root, struct model_config *out, struct err *err)
{
    json_t *names = json_object_get(root, "id2label");

    if (out->top != MODEL_TOP_LABELS)
        return 0;
    if (json_is_object(names) && json_object_size(names) > 0)
        return read_label_names(names, out, err);
    return config_read_size(root, "num_labels", 2, &out->labels, err);
}

/* What BERT and RoBERTa have alike. */
static int read_blocks(json_t *root, struct model_config *out, struct err *err)
{
    if (config_read_size(root, "hidden_size", 768, &out->width, err) < 0 ||
        config_read_size(root, "num_hidden_layers", 12, &out->layers, err) < 0 ||
        config_read_size(root, "num_attention_heads", 12, &out->heads, err) < 0 ||
        config_read_size(root, "intermediate_size", 3072, &out->ffn_width, err) < 0 ||
        config_read_size(root, "type_vocab_size", 2, &out->token_types, err) < 0 ||
        config_read_positive(root, "layer_norm_eps", 1e-12, &out->norm_eps, err) < 0 ||
        config_read_bool(root, "tie_word_embeddings", true, &out->tied, err) < 0 ||
        config_read_activation(root, "hidden_act", ACTIVATION_GELU, &out->activation, err) < 0)
        return -1;
    out->kv_heads = out->heads;
    if (config_expect_text(root, "position_embedding_type", "absolute", "absolute", "absolute",
                           err) < 0 ||
        config_expect_bool(root, "is_decoder", false, err) < 0 ||
        config_expect_bool(root, "tie_word_embeddings", true, err) < 0)
        return -1;
    return 0;
}

static int read_bert(json_t *root, struct model_config *out, struct err *err)
{
    if (config_read_size(root, "max_position_embeddings", 512, &out->context, err) < 0 ||
        read_blocks(root, out, err) < 0 || read_top(root, out, err) < 0)
        return -1;
    return read_labels(root, out, err);
}

#define ROBERTA_CLASS "RobertaForSequenceClassification"

/* Two rows of positions are those of padding. */
static int read_roberta(json_t *root, struct model_config *out, struct err *err)
{
    const char *name =
        json_string_value(json_array_get(json_object_get(root, "architectures"), 0));

    out->roberta = true;
    out->top = MODEL_TOP_LABELS;
    if (!name || strcmp(name, ROBERTA_CLASS) != 0)
        return err_set(err, ERR_INVALID, "architectures[0] is %s; of RoBERTas " ROBERTA_CLASS
                       " is accepted", name ? name : "missing");
    if (config_read_size(root, "max_position_embeddings", 514, &out->context, err) < 0 ||
        read_blocks(root, out, err) < 0)
        return -1;
    if (out->context < 3)
        return err_set(err, ERR_INVALID, "max_position_embeddings is %lld; two of them stand for "
                       "padding, so at least 3 are accepted", (long long)out->context);
    out->context -= 2;
    return read_labels(root, out, err);
}

static void put_labels(json_t *root, const struct model_config *config)
{
    json_t *names = json_object(), *ids = json_object();

    for (int64_t i = 0; i < config->labels; i++) {
        char id[24], name[MODEL_LABEL_SIZE];

        snprintf(id, sizeof id, "%lld", (long long)i);
        snprintf(name, sizeof name, "LABEL_%lld", (long long)i);
        if (i < MODEL_LABELS_NAMED && config->label_name[i][0])
            memcpy(name, config->label_name[i], sizeof name);
        config_put(names, id, json_string(name));
        config_put(ids, name, json_integer(i));
    }
    config_put(root, "id2label", names);
    config_put(root, "label2id", ids);
}

static void put_bert(json_t *root, const struct model_config *config)
{
    config_put(root, "hidden_size", json_integer(config->width));
    config_put(root, "num_hidden_layers", json_integer(config->layers));
    config_put(root, "num_attention_heads", json_integer(config->heads));
    config_put(root, "intermediate_size", json_integer(config->ffn_width));
    config_put(root, "max_position_embeddings",
               json_integer(config->context + (config->roberta ? 2 : 0)));
    config_put(root, "type_vocab_size", json_integer(config->token_types));
    config_put(root, "hidden_act", json_string(config_activation_name(config->activation)));
    config_put(root, "layer_norm_eps", json_real(config->norm_eps));
    config_put(root, "position_embedding_type", json_string("absolute"));
    config_put(root, "hidden_dropout_prob", json_real(0));
    config_put(root, "attention_probs_dropout_prob", json_real(0));
    config_put(root, "pad_token_id", json_integer(config->roberta ? 1 : 0));
    if (config->top == MODEL_TOP_LABELS)
        put_labels(root, config);
}

static const char *bert_architecture(const struct model_config *config)
{
    return bert_architectures[config->top];
}

static const char *roberta_architecture(const struct model_config *config)
{
    (void)config;
    return ROBERTA_CLASS;
}

static bool is_roberta(const struct model_config *config)
{
    return config->roberta;
}

const struct config_format config_roberta = {
    .model_type = "roberta", .family = MODEL_BERT, .architecture = roberta_architecture,
    .holds = is_roberta, .read = read_roberta, .put = put_bert,
};

static bool is_bert(const struct model_config *config)
{
    return !config->roberta;
}

const struct config_format config_bert = {
    .model_type = "bert", .family = MODEL_BERT, .architecture = bert_architecture,
    .holds = is_bert, .read = read_bert, .put = put_bert,
};

static int read_kona(json_t *root, struct model_config *out, struct err *err)
{
    if (config_read_size(root, "max_position_embeddings", 128, &out->context, err) < 0 ||
        config_read_size(root, "hidden_size", 512, &out->width, err) < 0 ||
        config_read_size(root, "num_hidden_layers", 1, &out->layers, err) < 0 ||
        config_read_size(root, "num_attention_heads", 4, &out->heads, err) < 0 ||
        config_read_size(root, "intermediate_size", 1536, &out->ffn_width, err) < 0 ||
        config_read_positive(root, "layer_norm_eps", 1e-6, &out->norm_eps, err) < 0)
        return -1;
    out->tied = true;
    out->kv_heads = out->heads;
    return 0;
}

static void put_kona(json_t *root, const struct model_config *config)
{
    config_put(root, "hidden_size", json_integer(config->width));
    config_put(root, "num_hidden_layers", json_integer(config->layers));
    config_put(root, "num_attention_heads", json_integer(config->heads));
    config_put(root, "intermediate_size", json_integer(config->ffn_width));
    config_put(root, "max_position_embeddings", json_integer(config->context));
    config_put(root, "layer_norm_eps", json_real(config->norm_eps));
}

static const char *kona_architecture(const struct model_config *config)
{
    (void)config;
    return "KonaModel";
}

const struct config_format config_kona = {
    .model_type = "kona", .family = MODEL_KONA, .architecture = kona_architecture,
    .read = read_kona, .put = put_kona,
};
