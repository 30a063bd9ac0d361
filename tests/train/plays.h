/* plays.h - tinyshakespeare of the shared data (ATHANOR_SHARED_DATA, default ../shared/data) as a
 * dataset "plays" of bytes, for trainings in the settings of the method cards. Their models know 65
 * characters; here are 257 tokens, of which as many occur, so that losses are the same to what is
 * learned in the first steps. */
#ifndef ATHANOR_TRAIN_PLAYS_H
#define ATHANOR_TRAIN_PLAYS_H

#include "tests/train/fixture.h"

static inline bool long_mode(void)
{
    const char *mode = getenv("ATHANOR_TEST_MODE");

    return mode && strcmp(mode, "long") == 0;
}

/* NULL: it is not there. (mem_free) */
static inline char *read_corpus(size_t *out_length)
{
    const char *folder = getenv("ATHANOR_SHARED_DATA");
    char *path = mem_printf("%s/corpora/tinyshakespeare.txt", folder ? folder : "../shared/data");
    char *text = NULL;

    if (access(path, R_OK) == 0)
        OK(file_read(path, 1 << 24, &text, out_length, &fixture_err));
    else
        print_message("skipped: needs %s (ATHANOR_SHARED_DATA)\n", path);
    mem_free(path);
    return text;
}

/* A part of one document. */
static inline void put_part(const char *folder, const char *name, const char *text, size_t length,
                     const struct tokenizer *tokenizer, struct buf *index)
{
    char *path = mem_printf("%s/%s.aths", folder, name);
    struct token_list tokens = {0};
    uint64_t start[2] = {0};

    tokenizer_encode_special(tokenizer, TOKENIZER_END_OF_TEXT, strlen(TOKENIZER_END_OF_TEXT),
                             &tokens);
    tokenizer_encode(tokenizer, text, length, &tokens);
    start[1] = tokens.count;
    struct shard_content content = {.tokens = tokens.ids,
                                    .token_count = tokens.count,
                                    .document_start = start,
                                    .document_count = 1,
                                    .vocab_size = 257,
                                    .flags = SHARD_FLAG_SEPARATOR_BEFORE,
                                    .tokenizer = *tokenizer_identity(tokenizer)};
    OK(shard_write(path, &content, &fixture_err));
    buf_printf(index, "%s\"%s\": {\"shards\": [\"%s.aths\"], \"tokens\": %zu, \"documents\": 1, "
               "\"bytes\": %zu}", index->length ? ", " : "", name, name, tokens.count, length);
    token_list_done(&tokens);
    mem_free(path);
}

/* Nine tenths to learn from, the rest to measure on. */
static inline void write_plays(const struct place *place, const char *text, size_t length)
{
    char *folder = job_path(place, "plays", ""), *path = job_path(place, "plays", "/dataset.json");
    struct tokenizer *tokenizer = byte_tokenizer();
    struct buf parts = {0}, json = {0};
    size_t most = length / 10 * 9;

    OK(file_make_folders(folder, 0755, &fixture_err));
    OK(tokenizer_write(tokenizer, folder, 64, &fixture_err));
    put_part(folder, "train", text, most, tokenizer, &parts);
    put_part(folder, "valid", text + most, length - most, tokenizer, &parts);
    buf_printf(&json, "{\"format\": 1, \"name\": \"plays\", \"tokenizer\": \"tokenizer.json\", "
               "\"vocab_size\": 257, \"parts\": {%s}}\n", buf_text(&parts));
    OK(file_replace(path, json.bytes, json.length, 0644, &fixture_err));
    tokenizer_free(tokenizer);
    buf_done(&parts);
    buf_done(&json);
    mem_free(folder);
    mem_free(path);
}

/* Whether the place has the dataset now; outside long mode and without the text it has not. */
static inline bool plays_are_there(const struct place *place)
{
    size_t length = 0;
    char *text = long_mode() ? read_corpus(&length) : NULL;

    if (!text)
        return false;
    write_plays(place, text, length);
    mem_free(text);
    return true;
}

#endif
