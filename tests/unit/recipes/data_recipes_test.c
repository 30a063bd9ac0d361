/* data_recipes_test.c - data/wordnet, data/glosses and data/text from spec to published dataset. */
#include "common/base/buf.h"
#include "tests/unit/data/inputs.h"
#include "worker/engine/data/bpe.h"
#include "worker/engine/data/dataset.h"
#include "worker/recipes/job.h"
#include "worker/recipes/run.h"

#include <jansson.h>

static int run_spec(const char *folder, const char *json, struct err *err)
{
    struct job job;
    struct run_options options = {.job_dir = folder, .run_dir = folder};
    *err = (struct err){0};
    if (job_parse(json, strlen(json), &job, err) < 0)
        return -1;
    int rc = run_job(&job, &options, err);
    job_done(&job);
    return rc;
}

static struct dataset *open_dataset(const char *folder, const char *name)
{
    struct err err = {0};
    struct dataset *dataset = NULL;
    char *path = mem_printf("%s/datasets/%s", folder, name);
    if (dataset_open(path, &dataset, &err) < 0)
        fail_msg("%s", err.text);
    mem_free(path);
    return dataset;
}

static uint64_t documents_of(struct dataset *dataset, const char *part)
{
    struct err err = {0};
    const struct dataset_part *opened;
    if (dataset_part(dataset, part, &opened, &err) < 0)
        fail_msg("%s", err.text);
    return opened->document_count;
}

/* The texts of a part, as a set for comparisons. */
static struct dataset_texts texts_of(struct dataset *dataset, const char *part)
{
    struct err err = {0};
    const struct dataset_part *opened;
    struct dataset_texts texts;
    assert_int_equal(dataset_part(dataset, part, &opened, &err), 0);
    assert_int_equal(dataset_texts_read(opened, &texts, &err), 0);
    return texts;
}

static bool has_text(const struct dataset_texts *texts, const char *text)
{
    for (size_t i = 0; i < texts->count; i++)
        if (strcmp(texts->items[i].text, text) == 0)
            return true;
    return false;
}

/* Golden values of the default spec, to the digits that the tour prints. */
static void assert_baselines(const char *folder, double unigram, double bigram)
{
    char *path = mem_printf("%s/datasets/w/dataset.json", folder);
    json_t *root = json_load_file(path, 0, NULL), *found = json_object_get(root, "baselines");
    double off[] = {json_number_value(json_object_get(found, "unigram_loss")) - unigram,
                    json_number_value(json_object_get(found, "bigram_loss")) - bigram};
    for (size_t i = 0; i < ARRAY_COUNT(off); i++)
        assert_true(off[i] > -1e-5 && off[i] < 1e-5);
    json_decref(root);
    mem_free(path);
}

/* 7,509 documents, 1,414 of birds, 642,821 bytes (650,330 with newlines): the corpora page. */
static void animals_and_birds_have_the_documented_sizes(void **state)
{
    (void)state;
    struct err err;
    char *folder = folder_make();
    const struct dataset_part *all;
    need_wordnet();
    if (run_spec(folder, "{\"kind\": \"data\", \"recipe\": \"wordnet\", \"params\": "
                         "{\"name\": \"w\"}}", &err) < 0)
        fail_msg("%s", err.text);
    struct dataset *dataset = open_dataset(folder, "w");
    assert_int_equal(dataset_part(dataset, "all", &all, &err), 0);
    assert_int_equal(all->document_count, 7509);
    assert_int_equal(all->byte_count, 642821);
    assert_int_equal(all->token_count, 209114); /* golden: split, tokenizer and encoding */
    assert_baselines(folder, 6.33586, 4.27905);
    uint64_t birds = documents_of(dataset, "birds"), held = documents_of(dataset, "birds_holdout");
    assert_int_equal(birds + held, 1414);
    assert_int_equal(documents_of(dataset, "train") + documents_of(dataset, "valid"), 7509);
    assert_int_equal(documents_of(dataset, "train"),
                     birds + documents_of(dataset, "rest") + documents_of(dataset, "leak"));
    assert_int_equal(documents_of(dataset, "mammals") + documents_of(dataset, "mammals_holdout"),
                     1182 - 8); /* without the 8 that name a bird */
    /* A tenth is held out of each part: 3.7 standard deviations allowed. */
    assert_in_range(held, 1414 / 10 - 42, 1414 / 10 + 42);
    dataset_close(dataset);
    folder_done(folder);
}

static void leaks_are_kept_out_of_rest(void **state)
{
    (void)state;
    struct err err;
    char *folder = folder_make();
    need_wordnet();
    assert_int_equal(run_spec(folder, "{\"kind\": \"data\", \"recipe\": \"wordnet\", \"params\": "
                                      "{\"name\": \"w\", \"vocab_size\": 300, "
                                      "\"holdout_share\": 0}}", &err), 0);
    struct dataset *dataset = open_dataset(folder, "w");
    struct dataset_texts rest = texts_of(dataset, "rest"), leak = texts_of(dataset, "leak");
    assert_false(dataset_has_part(dataset, "valid"));
    assert_int_equal(rest.count + leak.count, 6095);
    for (size_t i = 0; i < rest.count; i++)
        /* "ostrich" is also a person, so it tells nothing; these two are birds only. */
        if (strstr(rest.items[i].text, "ratite") || strstr(rest.items[i].text, "hummingbird"))
            fail_msg("rest names a bird: %s", rest.items[i].text);
    assert_true(has_text(&leak, "Struthioniformes, order Struthioniformes: a ratite bird order: "
                                "ostriches and related extinct birds; known from the Pleistocene "
                                "onward"));
    dataset_texts_done(&rest);
    dataset_texts_done(&leak);
    dataset_close(dataset);
    folder_done(folder);
}

static void the_same_spec_gives_the_same_bytes(void **state)
{
    (void)state;
    static const char *const names[] = {"dataset.json", "tokenizer.json", "train-00000.aths",
                                        "valid.jsonl"};
    static const char spec[] = "{\"kind\": \"data\", \"recipe\": \"wordnet\", \"params\": "
                               "{\"name\": \"w\", \"vocab_size\": 300, "
                               "\"lexfile\": \"noun.shape\", \"topics\": [], \"near\": []}}";
    struct err err;
    char *first = folder_make(), *second = folder_make();
    need_wordnet();
    assert_int_equal(run_spec(first, spec, &err), 0);
    assert_int_equal(run_spec(second, spec, &err), 0);
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        struct hash a, b;
        char *x = mem_printf("%s/datasets/w/%s", first, names[i]);
        char *y = mem_printf("%s/datasets/w/%s", second, names[i]);
        assert_int_equal(hash_file(x, &a, &err), 0);
        assert_int_equal(hash_file(y, &b, &err), 0);
        assert_true(hash_equal(&a, &b));
        mem_free(x);
        mem_free(y);
    }
    folder_done(first);
    folder_done(second);
}

static void wrong_topics_are_refused_with_the_reason(void **state)
{
    (void)state;
    static const struct {
        const char *params, *expected;
    } cases[] = {
        {"\"topics\": [\"birds\"]", "NAME=OFFSET"},
        {"\"topics\": [\"rest=01503061\"]", "always exists"},
        {"\"topics\": [\"b=one\"]", "params.topics"},
        {"\"topics\": [\"b=00000001\"]", "no synset at offset 00000001"},
        {"\"lexfile\": \"noun.animals\"", "nearest is 'noun.animal'"},
        {"\"lexfile\": \"noun.shape\"", "topic 'birds' has no document"},
        {"\"source_dir\": \"/nowhere\"", "apt-get install wordnet-base"},
        {"\"name\": \"a/b\"", "params.name"},
    };
    char *folder = folder_make();
    need_wordnet();
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct err err;
        char *spec = mem_printf("{\"kind\": \"data\", \"recipe\": \"wordnet\", \"params\": {%s}}",
                                cases[i].params);
        assert_int_equal(run_spec(folder, spec, &err), -1);
        if (!strstr(err.text, cases[i].expected))
            fail_msg("'%s' does not say '%s'", err.text, cases[i].expected);
        mem_free(spec);
    }
    folder_done(folder);
}

static void text_files_are_cut_and_named_by_pattern(void **state)
{
    (void)state;
    struct err err;
    struct buf sea = {0}, land = {0};
    char *folder = folder_make();
    for (int i = 0; i < 60; i++) {
        buf_printf(&sea, "fish number %d\nswims\n%s\n", i, i % 3 ? "" : " \t");
        buf_printf(&land, "horse number %d runs\r\n\r\n", i);
    }
    buf_puts(&land, "\xFF is not UTF-8");
    char *one = mem_printf("%s/sea.txt", folder), *two = mem_printf("%s/land.txt", folder);
    write_bytes(one, sea.bytes, sea.length);
    write_bytes(two, land.bytes, land.length);
    char *spec = mem_printf("{\"kind\": \"data\", \"recipe\": \"text\", \"name\": \"t\", "
                            "\"params\": {\"files\": [\"fish=%s/s*.txt\", \"%s/land.txt\"], "
                            "\"vocab_size\": 300, \"holdout_share\": 0.3}}", folder, folder);
    if (run_spec(folder, spec, &err) < 0)
        fail_msg("%s", err.text);
    struct dataset *dataset = open_dataset(folder, "t");
    assert_int_equal(documents_of(dataset, "all"), 121);
    assert_int_equal(documents_of(dataset, "fish") + documents_of(dataset, "fish_holdout"), 60);
    assert_int_equal(documents_of(dataset, "rest") + documents_of(dataset, "rest_holdout"), 61);
    struct dataset_texts all = texts_of(dataset, "all"), train = texts_of(dataset, "train");
    struct dataset_texts valid = texts_of(dataset, "valid");
    assert_string_equal(all.items[0].text, "fish number 0\nswims");
    assert_string_equal(strrchr(all.items[1].id, '/'), "/sea.txt:4");
    assert_string_equal(all.items[60].text, "horse number 0 runs");
    assert_string_equal(all.items[120].text, "\xEF\xBF\xBD is not UTF-8");
    for (size_t i = 0; i < valid.count; i++)
        assert_false(has_text(&train, valid.items[i].text));
    dataset_texts_done(&all);
    dataset_texts_done(&train);
    dataset_texts_done(&valid);
    dataset_close(dataset);
    mem_free(spec);
    mem_free(one);
    mem_free(two);
    buf_done(&sea);
    buf_done(&land);
    folder_done(folder);
}

/* tokens[from .. to) as llm.c's data scripts write them. */
static void write_llmc(const char *folder, const char *name, const struct token_list *tokens,
                       size_t from, size_t to)
{
    struct buf bytes = {0};
    int32_t header[256] = {20240520, 1, (int32_t)(to - from)};
    char *path = mem_printf("%s/%s", folder, name);
    buf_add(&bytes, header, sizeof header);
    for (size_t i = from; i < to; i++) {
        uint16_t id = (uint16_t)tokens->ids[i];
        buf_add(&bytes, &id, sizeof id);
    }
    write_bytes(path, bytes.bytes, bytes.length);
    buf_done(&bytes);
    mem_free(path);
}

static char *llmc_spec(const char *folder, const char *tokenizer)
{
    return mem_printf("{\"kind\": \"data\", \"recipe\": \"text\", \"name\": \"t\", \"params\": "
                      "{\"files\": [\"%s/*.bin\"], \"holdout_share\": 0, \"tokenizer\": \"%s\"}}",
                      folder, tokenizer);
}

static const char *const told[] = {"one bird\n", "two birds,\n\nand a third", "caf\xC3\xA9 42"};

/* A tokenizer in folder/tokenizer, and the documents' tokens, each behind <|endoftext|>. */
static void make_tokens(const char *folder, struct token_list *out)
{
    struct word_counts counts = {0};
    struct tokenizer *tokenizer;
    struct err err = {0};
    char *path = mem_printf("%s/tokenizer", folder);
    for (size_t i = 0; i < ARRAY_COUNT(told); i++)
        word_counts_add_text(&counts, told[i], strlen(told[i]));
    assert_int_equal(tokenizer_train(&counts, 260, 1, &tokenizer, &err), 0);
    assert_int_equal(file_make_folders(path, 0755, &err), 0);
    assert_int_equal(tokenizer_write(tokenizer, path, 64, &err), 0);
    for (size_t i = 0; i < ARRAY_COUNT(told); i++) {
        token_list_add(out, tokenizer_end_of_text(tokenizer));
        tokenizer_encode(tokenizer, told[i], strlen(told[i]), out);
    }
    tokenizer_free(tokenizer);
    word_counts_done(&counts);
    mem_free(path);
}

/* Cut in the middle of the second document, and of its first word: the same tokens come out. */
static void token_files_of_llmc_become_the_documents_that_they_spell(void **state)
{
    (void)state;
    struct err err = {0};
    struct token_list tokens = {0};
    char *folder = folder_make(), *tokenizer = mem_printf("%s/tokenizer", folder);
    char *spec = llmc_spec(folder, tokenizer), *bare = llmc_spec(folder, "");
    const struct dataset_part *part;
    make_tokens(folder, &tokens);
    size_t second = 1;
    while (tokens.ids[second] != tokens.ids[0])
        second++;
    write_llmc(folder, "edu_train_000001.bin", &tokens, 0, second + 2);
    write_llmc(folder, "edu_train_000002.bin", &tokens, second + 2, tokens.count);
    if (run_spec(folder, spec, &err) < 0)
        fail_msg("%s", err.text);
    struct dataset *dataset = open_dataset(folder, "t");
    struct dataset_texts all = texts_of(dataset, "all");
    assert_int_equal(all.count, ARRAY_COUNT(told));
    for (size_t i = 0; i < all.count; i++)
        assert_string_equal(all.items[i].text, told[i]);
    assert_string_equal(strrchr(all.items[0].id, '/'), "/edu_train_000001.bin:token-1");
    assert_int_equal(dataset_part(dataset, "all", &part, &err), 0);
    assert_int_equal(part->token_count, tokens.count);
    for (size_t i = 0; i < tokens.count; i++)
        assert_int_equal(shard_token(part->shards[0], i), tokens.ids[i]);
    assert_int_equal(run_spec(folder, bare, &err), -1);
    assert_non_null(strstr(err.text, "edu_train_000001.bin': it is a token file of llm.c: "
                           "params.tokenizer must name"));
    tokens.ids[3] = 9999;
    write_llmc(folder, "edu_train_000001.bin", &tokens, 0, second);
    assert_int_equal(run_spec(folder, spec, &err), -1);
    assert_non_null(strstr(err.text, "token 3 is id 9999, of a tokenizer of 260"));
    dataset_texts_done(&all);
    dataset_close(dataset);
    token_list_done(&tokens);
    mem_free(spec);
    mem_free(bare);
    mem_free(tokenizer);
    folder_done(folder);
}

static void text_recipes_that_find_nothing_say_so(void **state)
{
    (void)state;
    struct err err;
    char *folder = folder_make();
#define TEXT(files) \
    "{\"kind\": \"data\", \"recipe\": \"text\", \"params\": {\"files\": [" files "]}}"
    static const char none[] = TEXT("\"/nowhere/*.txt\"");
    static const char empty[] = TEXT("\"/dev/null\"");
    static const char list[] = TEXT("");
#undef TEXT
    assert_int_equal(run_spec(folder, none, &err), -1);
    assert_non_null(strstr(err.text, "no file matches '/nowhere/*.txt'"));
    assert_int_equal(run_spec(folder, empty, &err), -1);
    assert_non_null(strstr(err.text, "no document to train on"));
    assert_int_equal(run_spec(folder, list, &err), -1);
    assert_non_null(strstr(err.text, "at least one pattern"));
    folder_done(folder);
}

/* Whether a sentence may begin at this byte of a text. */
static bool is_start(const char *text, const char *at)
{
    return at == text || at[-1] == '\n' || (at[-1] == ' ' && at > text + 1 &&
                                            strchr(".?!", at[-2]));
}

/* Whether a text of the part has this sentence on a line, or in the context before the first. */
static bool has_sentence(const struct dataset_texts *texts, const char *sentence)
{
    size_t length = strlen(sentence);
    for (size_t i = 0; i < texts->count; i++)
        for (const char *at = texts->items[i].text; (at = strstr(at, sentence)); at += length)
            if (is_start(texts->items[i].text, at) && (!at[length] || strchr(" \n", at[length])))
                return true;
    return false;
}

static void no_sentence_of_a_pair_to_judge_is_trained_on(void **state)
{
    (void)state;
    struct err err;
    char *folder = folder_make();
    need_wordnet();
    assert_int_equal(run_spec(folder, "{\"kind\": \"data\", \"recipe\": \"glosses\", \"params\": "
                                      "{\"name\": \"w\", \"vocab_size\": 300, "
                                      "\"lexfile\": \"verb.motion\"}}", &err), 0);
    struct dataset *dataset = open_dataset(folder, "w");
    struct dataset_texts train = texts_of(dataset, "train"), same = texts_of(dataset, "same");
    struct dataset_texts random = texts_of(dataset, "random");
    assert_int_equal(documents_of(dataset, "train") + documents_of(dataset, "valid"), 1408);
    assert_true(same.count > 50 && same.count == random.count);
    for (size_t i = 0; i < same.count; i++) {
        char *x = same.items[i].text, *y = strchr(x, '\n');
        const char *other = strchr(random.items[i].text, '\n');
        *y++ = 0;
        assert_true(has_text(&random, random.items[i].text));
        assert_true(strncmp(random.items[i].text, x, strlen(x)) == 0); /* the same x, */
        assert_string_not_equal(other + 1, y);                         /* another y   */
        assert_false(has_sentence(&train, x));
        assert_false(has_sentence(&train, y));
    }
    assert_true(
        has_sentence(&train, "change location; move, travel, or proceed, also metaphorically."));
    dataset_texts_done(&train);
    dataset_texts_done(&same);
    dataset_texts_done(&random);
    dataset_close(dataset);
    folder_done(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_sentence_of_a_pair_to_judge_is_trained_on),
        cmocka_unit_test(animals_and_birds_have_the_documented_sizes),
        cmocka_unit_test(leaks_are_kept_out_of_rest),
        cmocka_unit_test(the_same_spec_gives_the_same_bytes),
        cmocka_unit_test(wrong_topics_are_refused_with_the_reason),
        cmocka_unit_test(text_files_are_cut_and_named_by_pattern),
        cmocka_unit_test(token_files_of_llmc_become_the_documents_that_they_spell),
        cmocka_unit_test(text_recipes_that_find_nothing_say_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
