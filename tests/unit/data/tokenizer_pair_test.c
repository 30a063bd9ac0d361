/* tokenizer_pair_test.c - vocab.json with merges.txt, and what lies beside them: the ids of
 * pair_oracle.py, which shares no code with the engine; the same from the tokenizer.json that is
 * written; refusals that say file and line. */
#include "common/base/json_text.h"
#include "common/base/rng.h"
#include "tests/unit/data/inputs.h"
#include "worker/engine/data/pieces.h"
#include "worker/engine/data/tokenizer_parts.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utf8proc.h>

extern char **environ;

static struct err err;
#define OK(expression) do { if ((expression) < 0) fail_msg("%s", err.text); } while (0)

static void put_file(const char *folder, const char *name, const char *text)
{
    char *path = mem_printf("%s/%s", folder, name);
    write_bytes(path, text, strlen(text));
    mem_free(path);
}

static const char *const rules[] = {
    "t h", "i n", "th e", "\u0120 the", "o n", "\u0120 b", "i r", "ir d", "\u0120b ird", "e n",
    "l l", "' s", "1 9", "\u0120 \u0120", "\u00C3 \u00A9", "b ird", "a n", "an d",
};

/* Four names, then the byte alphabet from its end, then what the rules make, then a name. */
static char *small_vocab(void)
{
    struct buf out = {0};
    unsigned id = 4;
    buf_puts(&out, "{\"<s>\": 0,\n\"<pad>\": 1,\n\"</s>\": 2,\n\"<unk>\": 3");
    for (int byte = 255; byte >= 0; byte--) {
        uint8_t text[4];
        size_t length = (size_t)utf8proc_encode_char((int32_t)byte_to_char((uint8_t)byte), text);
        buf_puts(&out, ",\n");
        json_text_quote(&out, (const char *)text, length);
        buf_printf(&out, ": %u", id++);
    }
    for (size_t i = 0; i < ARRAY_COUNT(rules); i++) {
        const char *space = strchr(rules[i], ' ');
        char *joined = mem_printf("%.*s%s", (int)(space - rules[i]), rules[i], space + 1);
        buf_puts(&out, ",\n");
        json_text_quote(&out, joined, strlen(joined));
        buf_printf(&out, ": %u", id++);
        mem_free(joined);
    }
    buf_printf(&out, ",\n\"<mask>\": %u}\n", id);
    return buf_take(&out);
}

static char *small_merges(void)
{
    struct buf out = {0};
    buf_puts(&out, "#version: 0.2\n");
    for (size_t i = 0; i < ARRAY_COUNT(rules); i++)
        buf_printf(&out, "%s\n", rules[i]);
    return buf_take(&out);
}

/* A repository: NULL where it has no such file. */
struct beside {
    const char *config, *specials, *added, *model;
};

static char *make_pair(const struct beside *beside)
{
    char *folder = folder_make(), *vocab = small_vocab(), *merges = small_merges();
    const char *const texts[] = {vocab, merges, beside->config, beside->specials, beside->added,
                                 beside->model};
    static const char *const names[] = {"vocab.json", "merges.txt", "tokenizer_config.json",
                                        "special_tokens_map.json", "added_tokens.json",
                                        "config.json"};
    for (size_t i = 0; i < ARRAY_COUNT(names); i++)
        if (texts[i])
            put_file(folder, names[i], texts[i]);
    mem_free(vocab);
    mem_free(merges);
    return folder;
}

/* The oracle's lists as a text: a line each. */
static char *ask_oracle(const char *folder, char *const *texts, size_t count)
{
    char *from = mem_printf("%s/texts", folder), *to = mem_printf("%s/ids", folder), *answer;
    char *command = mem_printf("exec python3 -B tests/unit/data/pair_oracle.py '%s' <'%s' >'%s'",
                               folder, from, to);
    char *arguments[] = {"sh", "-c", command, NULL};
    struct buf lines = {0};
    size_t length;
    pid_t pid;
    int status;
    if (access("/usr/bin/python3", X_OK) != 0) {
        print_message("[  SKIP  ] needs python3\n");
        skip();
    }
    for (size_t i = 0; i < count; i++) {
        json_text_quote(&lines, texts[i], strlen(texts[i]));
        buf_putc(&lines, '\n');
    }
    write_bytes(from, lines.bytes, lines.length);
    assert_int_equal(posix_spawn(&pid, "/bin/sh", NULL, NULL, arguments, environ), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(file_read(to, INPUT_BYTES_MAX, &answer, &length, &err), 0);
    buf_done(&lines);
    mem_free(command);
    mem_free(from);
    mem_free(to);
    return answer;
}

/* As the oracle prints them. */
static void put_ids(const struct tokenizer *tokenizer, const char *text, struct buf *out)
{
    struct token_list ids = {0}, framed = {0}, types = {0};
    tokenizer_encode_special(tokenizer, text, strlen(text), &ids);
    tokenizer_frame(tokenizer, &ids, NULL, &framed, &types);
    for (size_t i = 0; i < framed.count; i++)
        buf_printf(out, "%s%u", i ? ", " : "[", framed.ids[i]);
    buf_puts(out, framed.count ? "]\n" : "[]\n");
    token_list_done(&ids);
    token_list_done(&framed);
    token_list_done(&types);
}

static void assert_as_told(const struct tokenizer *tokenizer, const char *told, char *const *texts,
                           size_t count)
{
    struct buf mine = {0};
    for (size_t i = 0; i < count; i++) {
        const char *end = strchr(told, '\n');
        buf_clear(&mine);
        put_ids(tokenizer, texts[i], &mine);
        if (!end || mine.length != (size_t)(end + 1 - told) ||
            memcmp(buf_text(&mine), told, mine.length) != 0)
            fail_msg("'%s': %s, expected %.300s", texts[i], buf_text(&mine), told);
        told = end + 1;
    }
    buf_done(&mine);
}

#define TEXTS 400
/* Letters, numbers, spaces and marks of several scripts, and texts of special tokens. */
static void make_texts(char **texts)
{
    static const char *const parts[] = {
        " ", "  ", "\n", "\t", "the", " the", "The", "bird", " birds", "in", "on", "'s", "'ll",
        "'S", "1999", " 42", "\u00BD", "\u00E9", "e\u0301", "\u4E2D\u6587", "\U0001F99C", "\u00A0",
        "\u3000", "\u200B", "...", " (", "</s>", "<s>", "<pad>", "<mask>", "<|endoftext|>",
        "<|new|>", "and", "\u0130", "\u0663", "-", "<", "\x7F", "\u0985",
    };
    struct rng rng;
    rng_init(&rng, 7);
    for (size_t i = 0; i < TEXTS; i++) {
        struct buf text = {0};
        for (uint64_t n = i == 0 ? 0 : 1 + rng_below(&rng, i < 390 ? 12 : 300); n > 0; n--)
            buf_puts(&text, parts[rng_below(&rng, ARRAY_COUNT(parts))]);
        texts[i] = text.length ? buf_take(&text) : mem_strdup("");
        buf_done(&text);
    }
}

/* The folder's tokenizer gives what the oracle gives, and so does what is written of it. */
static void check_texts(const char *folder, char *const *texts, size_t count)
{
    struct tokenizer *tokenizer, *back;
    char *written = folder_make();
    char *told = ask_oracle(folder, texts, count);
    OK(tokenizer_read(folder, &tokenizer, &err));
    assert_as_told(tokenizer, told, texts, count);
    OK(tokenizer_write(tokenizer, written, 64, &err));
    OK(tokenizer_read(written, &back, &err));
    assert_true(hash_equal(tokenizer_identity(tokenizer), tokenizer_identity(back)));
    assert_as_told(back, told, texts, count);
    assert_int_equal(tokenizer_begin_of_text(back), tokenizer_begin_of_text(tokenizer));
    assert_int_equal(tokenizer_end_of_text(back), tokenizer_end_of_text(tokenizer));
    assert_memory_equal(back->role, tokenizer->role, sizeof back->role);
    mem_free(told);
    tokenizer_free(tokenizer);
    tokenizer_free(back);
    folder_done(written);
}

static void check_folder(const char *folder)
{
    char *texts[TEXTS];
    make_texts(texts);
    check_texts(folder, texts, TEXTS);
    for (size_t i = 0; i < TEXTS; i++)
        mem_free(texts[i]);
}

static struct tokenizer *read_pair_of(const struct beside *beside)
{
    char *folder = make_pair(beside);
    struct tokenizer *tokenizer;
    OK(tokenizer_read(folder, &tokenizer, &err));
    folder_done(folder);
    return tokenizer;
}

static const struct beside opt = {
    .config = "{\"add_bos_token\": true, \"tokenizer_class\": \"GPT2Tokenizer\", \"bos_token\": "
              "{\"__type\": \"AddedToken\", \"content\": \"</s>\", \"normalized\": true}, "
              "\"eos_token\": {\"content\": \"</s>\"}, \"unk_token\": {\"content\": \"</s>\"}, "
              "\"pad_token\": {\"content\": \"<pad>\"}, \"add_prefix_space\": false}",
    .specials = "{\"bos_token\": \"<s>\"}", /* the other file counts more */
    .model = "{\"model_type\": \"opt\", \"bos_token_id\": 0, \"eos_token_id\": 0}"};
static const struct beside bare_opt = {
    .model = "{\"model_type\": \"opt\", \"bos_token_id\": 2, \"eos_token_id\": 2, "
             "\"pad_token_id\": 1}"};
static const struct beside roberta = {.model = "{\"model_type\": \"roberta\"}"};
static const struct beside gpt2_with_names = {
    .specials = "{\"bos_token\": \"<s>\", \"eos_token\": \"</s>\", \"unk_token\": \"<unk>\"}",
    .added = "{\"<|new|>\": 279, \"<|endoftext|>\": 280}"};

static void a_pair_gives_the_ids_of_its_definition_and_so_does_what_is_written(void **state)
{
    (void)state;
    const struct beside *const all[] = {&opt, &bare_opt, &roberta, &gpt2_with_names};
    for (size_t i = 0; i < ARRAY_COUNT(all); i++) {
        char *folder = make_pair(all[i]);
        check_folder(folder);
        folder_done(folder);
    }
}

static void published_vocabularies_too(void **state)
{
    (void)state;
    char *given[] = {input_path("tokenizers/gpt2/gpt2_vocab.json"),
                     input_path("tokenizers/gpt2/gpt2_merges.txt")};
    char *vocab = realpath(given[0], NULL); /* may be relative */
    char *merges = realpath(given[1], NULL);
    char *folder = folder_make();
    assert_true(vocab && merges);
    char *here[] = {mem_printf("%s/vocab.json", folder), mem_printf("%s/merges.txt", folder)};
    assert_int_equal(symlink(vocab, here[0]), 0);
    assert_int_equal(symlink(merges, here[1]), 0);
    check_folder(folder);
    static const char *const names[] = {"address.txt", "german.txt", "tinystories_sample.txt",
                                        "corpus.en"};
    char *texts[ARRAY_COUNT(names)];
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        char *name = mem_printf("tokenizers/bpe-train/%s", names[i]);
        size_t length;
        texts[i] = input_read(name, &length);
        assert_int_equal(strlen(texts[i]), length);
        mem_free(name);
    }
    check_texts(folder, texts, ARRAY_COUNT(names));
    for (size_t i = 0; i < ARRAY_COUNT(names); i++)
        mem_free(texts[i]);
    folder_done(folder);
    mem_free(here[0]);
    mem_free(here[1]);
    free(vocab);
    free(merges);
    mem_free(given[0]);
    mem_free(given[1]);
}

/* model.vocab, model.merges and added_tokens of a tokenizer.json as the files that came before. */
static void split_json(const char *from, const char *folder)
{
    json_t *root = json_load_file(from, 0, NULL), *model = json_object_get(root, "model"), *one;
    json_t *vocab = json_copy(json_object_get(model, "vocab")), *added = json_object();
    char *path = mem_printf("%s/vocab.json", folder);
    struct buf lines = {0};
    size_t index;
    json_array_foreach(json_object_get(root, "added_tokens"), index, one) {
        const char *text = json_string_value(json_object_get(one, "content"));
        json_object_del(vocab, text);
        json_object_set(added, text, json_object_get(one, "id"));
    }
    json_array_foreach(json_object_get(model, "merges"), index, one)
        buf_printf(&lines, "%s\r\n", json_string_value(one)); /* as Windows would have it */
    assert_int_equal(json_dump_file(vocab, path, JSON_ENSURE_ASCII), 0);
    put_file(folder, "merges.txt", buf_text(&lines));
    char *text = json_dumps(added, 0);
    put_file(folder, "added_tokens.json", text);
    free(text);
    buf_done(&lines);
    mem_free(path);
    json_decref(added);
    json_decref(vocab);
    json_decref(root);
}

static void a_tokenizer_json_taken_apart_gives_the_same_ids(void **state)
{
    (void)state;
    char *path = input_path("tokenizers/gpt2-style/tokenizer.json"), *folder = folder_make();
    struct tokenizer *whole, *pair;
    char *texts[TEXTS];
    split_json(path, folder);
    OK(tokenizer_read(path, &whole, &err));
    OK(tokenizer_read(folder, &pair, &err));
    assert_int_equal(tokenizer_vocab_size(pair), tokenizer_vocab_size(whole));
    assert_int_equal(tokenizer_end_of_text(pair), tokenizer_end_of_text(whole));
    make_texts(texts);
    for (size_t i = 0; i < TEXTS; i++) {
        struct buf theirs = {0}, ours = {0};
        if (!strstr(texts[i], "e\u0301")) { /* which that file composes first */
            put_ids(whole, texts[i], &theirs);
            put_ids(pair, texts[i], &ours);
            assert_string_equal(buf_text(&ours), buf_text(&theirs));
        }
        buf_done(&theirs);
        buf_done(&ours);
        mem_free(texts[i]);
    }
    tokenizer_free(whole);
    tokenizer_free(pair);
    folder_done(folder);
    mem_free(path);
}

static void what_begins_and_ends_texts_is_what_the_files_say(void **state)
{
    (void)state;
    struct tokenizer *t = read_pair_of(&opt);
    struct token_list a = {0}, b = {0}, ids = {0}, types = {0};
    assert_int_equal(tokenizer_begin_of_text(t), 2);
    assert_int_equal(tokenizer_end_of_text(t), 2);
    assert_int_equal(t->role[ROLE_PAD], 1);
    token_list_add(&a, 9);
    token_list_add(&b, 8);
    tokenizer_frame(t, &a, &b, &ids, &types); /* once, before the first of two */
    assert_int_equal(ids.count, 3);
    assert_memory_equal(ids.ids, ((uint32_t[]){2, 9, 8}), 12);
    tokenizer_free(t);
    t = read_pair_of(&roberta);
    assert_int_equal(tokenizer_begin_of_text(t), 0);
    assert_int_equal(tokenizer_end_of_text(t), 2);
    tokenizer_free(t);
    t = read_pair_of(&gpt2_with_names);
    ids.count = types.count = 0;
    tokenizer_frame(t, &a, NULL, &ids, &types);
    assert_int_equal(ids.count, 1);
    assert_int_equal(tokenizer_find(t, "<|new|>", 7), 279);
    tokenizer_free(t);
    token_list_done(&a);
    token_list_done(&b);
    token_list_done(&ids);
    token_list_done(&types);
}

static void assert_refused(const struct beside *beside, const char *name, const char *text,
                           const char *expected)
{
    char *folder = make_pair(beside);
    struct tokenizer *tokenizer = NULL;
    put_file(folder, name, text);
    assert_int_equal(tokenizer_read(folder, &tokenizer, &err), -1);
    assert_null(tokenizer);
    if (!strstr(err.text, expected))
        fail_msg("'%s' does not say '%s'", err.text, expected);
    folder_done(folder);
}

static void damaged_pairs_are_refused_with_file_and_line(void **state)
{
    (void)state;
    static const struct beside none;
    char *vocab = small_vocab(), *at = strstr(vocab, "\"th\": "), *longer;
    longer = mem_printf("%.*s\"\u4E2D\": 300,\n%s", (int)(at - vocab), vocab, at);
    assert_refused(&none, "merges.txt", "#version: 0.2\nt h\n\ni n o\n", "merges.txt:4: merge 1");
    assert_refused(&none, "merges.txt", "t h\nx y\n", "merges.txt:2: merge 1 names a token");
    assert_refused(&none, "merges.txt", "t h\nt h\n", "merges.txt:2: merge 1 is given twice");
    assert_refused(&none, "vocab.json", longer, "vocab.json:261: vocab['\u4E2D'] is not in the");
    assert_refused(&none, "vocab.json", "{\"a\": 0,\n \"b\": }", "vocab.json: line 2 column 7");
    assert_refused(&none, "vocab.json", "{\"a\": 0,\n \"b\": 0}", "vocab.json:2: vocab['b']: token "
                   "id 0 is given twice");
    assert_refused(&none, "vocab.json", "{\"\\u0120\": 0,\n \"\\u010a\": -1}", "vocab.json:2: ");
    assert_refused(&none, "tokenizer_config.json", "{\"a\": 1,\n}", "_config.json: line 2");
    assert_refused(&none, "tokenizer_config.json", "[]", "_config.json: not a JSON object");
    assert_refused(&none, "tokenizer_config.json", "{\"tokenizer_class\": \"CLIPTokenizer\"}",
                   "tokenizer_class is CLIPTokenizer");
    assert_refused(&none, "tokenizer_config.json", "{\"add_prefix_space\": true}",
                   "add_prefix_space is true");
    assert_refused(&none, "tokenizer_config.json", "{\"added_tokens_decoder\": {\"x\": {}}}",
                   "added_tokens_decoder['x'] is not an id");
    assert_refused(&none, "tokenizer_config.json", "{\"add_bos_token\": true}",
                   "bos_token is put around texts");
    assert_refused(&none, "added_tokens.json", "{\"<|new|>\": \"7\"}", "'<|new|>' is not an id");
    assert_refused(&none, "added_tokens.json", "{\"<|new|>\": 7}",
                   "vocab.json:8: vocab['\u00FC'] is id 7, which the files beside it give");
    assert_refused(&none, "config.json", "{\"model_type\": \"clip\"}", "a model of type clip");
    mem_free(longer);
    mem_free(vocab);
}

static void a_folder_without_a_tokenizer_says_what_it_might_hold(void **state)
{
    (void)state;
    char *folder = folder_make();
    struct tokenizer *tokenizer;
    put_file(folder, "vocab.json", "{}");
    assert_false(tokenizer_is_in(folder));
    assert_int_equal(tokenizer_read(folder, &tokenizer, &err), -1);
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "vocab.json with merges.txt"));
    folder_done(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pair_gives_the_ids_of_its_definition_and_so_does_what_is_written),
        cmocka_unit_test(published_vocabularies_too),
        cmocka_unit_test(a_tokenizer_json_taken_apart_gives_the_same_ids),
        cmocka_unit_test(what_begins_and_ends_texts_is_what_the_files_say),
        cmocka_unit_test(damaged_pairs_are_refused_with_file_and_line),
        cmocka_unit_test(a_folder_without_a_tokenizer_says_what_it_might_hold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
