/* text.c - recipe data/text: files of text to token shards, with a split and named parts.
 *
 * files: patterns as the shell's, each "PATTERN" or "PART=PATTERN". Parts:
 *   all, train, valid    every document; those to train on; those held out
 *   PART, PART_holdout   the same two shares of the files a named pattern matched
 *   rest, rest_holdout   what no named pattern matched (when there are named ones)
 *
 * A token file of llm.c is read as the texts that its tokens spell, one document after each end of
 * text, across the files of a pattern: for these the parameter `tokenizer` says what they are cut
 * by. Cut again by the same one they give the same tokens, which is checked. */
#include "common/base/buf.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "worker/engine/data/llmc.h"
#include "worker/recipes/data/prepare.h"

#include <glob.h>
#include <string.h>

#define FILE_BYTES_MAX ((size_t)1 << 34)
#define FILES_MAX 1000000

enum split_by { SPLIT_BLANK_LINE = 1, SPLIT_LINE, SPLIT_FILE };

struct text_recipe {
    struct preparation preparation;
    enum split_by split;
    size_t bytes_min;
    bool named; /* at least one pattern names a part */
    size_t file_count;
    struct tokenizer *tokenizer; /* of token files; NULL until there is one */
    struct token_list pending;   /* the document that the file before left open */
    char *pending_id;
    uint64_t changed;            /* documents whose texts give other tokens */
};

/* Where the files of one pattern go. */
struct origin {
    const char *part; /* NULL: the pattern names none */
    const char *path;
};

static bool is_blank(const char *text, size_t length)
{
    return strspn(text, " \t\r\n\f\v") >= length;
}

/* The parts that a document is in. */
static int join_parts(struct run *run, struct text_recipe *state, const struct origin *origin,
                      uint64_t document, struct err *err)
{
    struct preparation *preparation = &state->preparation;
    const struct dataset_document *added = &preparation->documents[document];
    bool held_out = preparation_is_held_out(run, added->text, added->length);
    if (preparation_join(preparation, "all", document, err) < 0 ||
        preparation_join(preparation, held_out ? "valid" : "train", document, err) < 0)
        return -1;
    if (!state->named)
        return 0;
    return preparation_join_split(preparation, origin->part ? origin->part : "rest", held_out,
                                  document, err);
}

static int add_document(struct run *run, struct text_recipe *state, const struct origin *origin,
                        size_t line, const char *text, size_t length, struct err *err)
{
    struct preparation *preparation = &state->preparation;
    while (length > 0 && strchr("\r\n", text[length - 1]))
        length--;
    if (length < state->bytes_min || is_blank(text, length))
        return 0;
    char *id = mem_printf("%s:%zu", origin->path, line);
    uint64_t document = preparation_add(preparation, id, text, length);
    mem_free(id);
    return join_parts(run, state, origin, document, err);
}

/* ---- token files --------------------------------------------------------------------------- */

static bool same_tokens(const struct token_list *a, const struct token_list *b)
{
    return a->count == b->count &&
           (a->count == 0 || memcmp(a->ids, b->ids, a->count * sizeof *a->ids) == 0);
}

/* Adds the document that is open, as text. */
static int close_document(struct run *run, struct text_recipe *state,
                          const struct origin *origin, struct err *err)
{
    struct preparation *preparation = &state->preparation;
    struct token_list again = {0};
    struct buf text = {0};
    int rc = 0;
    tokenizer_decode(state->tokenizer, state->pending.ids, state->pending.count, &text);
    if (text.length >= state->bytes_min && !is_blank(buf_text(&text), text.length)) {
        uint64_t document =
            preparation_add(preparation, state->pending_id, buf_text(&text), text.length);
        const struct dataset_document *added = &preparation->documents[document];
        tokenizer_encode(state->tokenizer, added->text, added->length, &again);
        state->changed += !same_tokens(&again, &state->pending);
        rc = join_parts(run, state, origin, document, err);
    }
    token_list_done(&again);
    buf_done(&text);
    state->pending.count = 0;
    mem_free(state->pending_id);
    state->pending_id = NULL;
    return rc;
}

static int open_tokenizer(struct run *run, struct text_recipe *state, struct err *err)
{
    const char *given = run_string(run, "tokenizer");
    if (state->tokenizer)
        return 0;
    if (!*given)
        return err_set(err, ERR_INVALID, "it is a token file of llm.c: params.tokenizer must name "
                       "the tokenizer that its tokens are of");
    if (tokenizer_read(given, &state->tokenizer, err) < 0)
        return -1;
    if (tokenizer_end_of_text(state->tokenizer) == TOKENIZER_VOCAB_MAX)
        return err_set(err, ERR_INVALID, "the tokenizer '%s' has nothing that ends texts", given);
    return 0;
}

/* Llama 3's files have what begins texts before each document, GPT-2's what ends them. */
static int cut_tokens(struct run *run, struct text_recipe *state, const struct origin *origin,
                      const void *bytes, size_t length, struct err *err)
{
    struct llmc_tokens file;
    if (open_tokenizer(run, state, err) < 0 || llmc_parse(bytes, length, &file, err) < 0)
        return -1;
    uint32_t end = tokenizer_end_of_text(state->tokenizer);
    uint32_t begin = tokenizer_begin_of_text(state->tokenizer);
    for (uint64_t i = 0; i < file.count; i++) {
        uint32_t id = llmc_token(&file, i);
        if (id >= tokenizer_vocab_size(state->tokenizer))
            return err_set(err, ERR_PROTOCOL, "token %llu is id %u, of a tokenizer of %u",
                           (unsigned long long)i, id, tokenizer_vocab_size(state->tokenizer));
        if ((id == end || id == begin) && close_document(run, state, origin, err) < 0)
            return -1;
        if (id == end || id == begin)
            continue;
        if (!state->pending_id)
            state->pending_id = mem_printf("%s:token-%llu", origin->path, (unsigned long long)i);
        token_list_add(&state->pending, id);
    }
    return 0;
}

/* ---- text files ---------------------------------------------------------------------------- */

/* Cuts a file into documents: whole, by lines, or by runs of non-blank lines. */
static int cut_file(struct run *run, struct text_recipe *state, const struct origin *origin,
                    const char *bytes, size_t length, struct err *err)
{
    size_t begin = 0, begin_line = 1, line = 1;
    if (state->split == SPLIT_FILE)
        return add_document(run, state, origin, 1, bytes, length, err);
    for (size_t at = 0; at < length; line++) {
        const char *end = memchr(bytes + at, '\n', length - at);
        size_t next = end ? (size_t)(end - bytes) + 1 : length;
        bool blank = is_blank(bytes + at, next - at);
        bool cut = state->split == SPLIT_LINE || blank;
        if (cut && add_document(run, state, origin, begin_line, bytes + begin,
                                (blank ? at : next) - begin, err) < 0)
            return -1;
        if (cut) {
            begin = next;
            begin_line = line + 1;
        }
        at = next;
    }
    return add_document(run, state, origin, begin_line, bytes + begin, length - begin, err);
}

static int read_one(struct run *run, struct text_recipe *state, const struct origin *origin,
                    struct err *err)
{
    char *bytes = NULL;
    size_t length;
    if (++state->file_count > FILES_MAX)
        return err_set(err, ERR_LIMIT, "more than %d files", FILES_MAX);
    if (file_read(origin->path, FILE_BYTES_MAX, &bytes, &length, err) < 0)
        return -1;
    int rc = 0;
    if (llmc_is(bytes, length)) {
        rc = cut_tokens(run, state, origin, bytes, length, err);
        if (rc < 0)
            err_wrap(err, "'%s'", origin->path);
    } else {
        rc = cut_file(run, state, origin, bytes, length, err);
    }
    mem_free(bytes);
    return rc;
}

static int read_pattern(struct run *run, struct text_recipe *state, const char *item,
                        struct err *err)
{
    const char *equals = strchr(item, '='), *slash = strchr(item, '/');
    bool names = equals && (!slash || equals < slash);
    char *part = names ? mem_strndup(item, (size_t)(equals - item)) : NULL;
    const char *pattern = names ? equals + 1 : item;
    glob_t found = {0};
    int rc = 0, status = glob(pattern, 0, NULL, &found); /* sorted: the order is the corpus's */
    if (status == GLOB_NOMATCH)
        rc = err_set(err, ERR_NOT_FOUND, "no file matches '%s'", pattern);
    else if (status != 0)
        rc = err_set(err, ERR_IO, "the pattern '%s' could not be read", pattern);
    for (size_t i = 0; i < found.gl_pathc && rc == 0; i++)
        rc = read_one(run, state, &(struct origin){part, found.gl_pathv[i]}, err);
    if (rc == 0 && state->pending.count > 0)
        rc = close_document(run, state, &(struct origin){part, pattern}, err);
    globfree(&found);
    mem_free(part);
    return rc < 0 ? err_wrap(err, "params.files") : 0;
}

static int check_names(struct run *run, struct text_recipe *state, struct err *err)
{
    static const char *const taken[] = {"all=", "train=", "valid=", "rest="};
    for (size_t i = 0; i < run_list_count(run, "files"); i++) {
        const char *item = run_list_item(run, "files", i);
        const char *equals = strchr(item, '='), *slash = strchr(item, '/');
        state->named = state->named || (equals && (!slash || equals < slash));
        for (size_t t = 0; t < ARRAY_COUNT(taken); t++)
            if (strncmp(item, taken[t], strlen(taken[t])) == 0)
                return err_set(err, ERR_INVALID, "params.files: '%s' names a part that always "
                               "exists", item);
    }
    return 0;
}

/* Step 1: read and cut the files. */
static int read_files(struct run *run, struct text_recipe *state, struct err *err)
{
    run->phase = "documents";
    for (size_t i = 0; i < run_list_count(run, "files"); i++)
        if (read_pattern(run, state, run_list_item(run, "files", i), err) < 0)
            return -1;
    if (!preparation_part(&state->preparation, "train"))
        return err_set(err, ERR_INVALID, "the %zu files hold no document to train on (of at least "
                       "%zu bytes)", state->file_count, state->bytes_min);
    if (state->changed > 0)
        run_note(run, "%llu documents of token files give other tokens when their texts are cut "
                 "again: they are of another tokenizer, or no text",
                 (unsigned long long)state->changed);
    run_note(run, "%zu documents of %zu files", state->preparation.count, state->file_count);
    return 0;
}

static int text_open(struct run *run, void *opaque, struct err *err)
{
    struct text_recipe *state = opaque;
    const char *split = run_string(run, "split_by");
    state->split = strcmp(split, "line") == 0   ? SPLIT_LINE
                   : strcmp(split, "file") == 0 ? SPLIT_FILE
                                                : SPLIT_BLANK_LINE;
    state->bytes_min = (size_t)run_int(run, "min_bytes");
    run->step_count = PREPARE_STEPS;
    if (run_list_count(run, "files") == 0)
        return err_set(err, ERR_INVALID, "params.files is empty; at least one pattern is needed");
    return check_names(run, state, err);
}

static int text_step(struct run *run, void *opaque, struct err *err)
{
    struct text_recipe *state = opaque;
    if (run->rank != 0)
        return 0;
    return run->step == 0 ? read_files(run, state, err)
                          : preparation_step(run, &state->preparation, run->step + 1, err);
}

static void text_close(struct run *run, void *opaque)
{
    struct text_recipe *state = opaque;
    (void)run;
    token_list_done(&state->pending);
    mem_free(state->pending_id);
    tokenizer_free(state->tokenizer);
    preparation_done(&state->preparation);
}

static const struct param text_params[] = {
    {"files", PARAM_LIST, NULL, 0, 0, NULL,
     "shell patterns of files to read, each PATTERN or PART=PATTERN: texts, or llm.c's tokens"},
    {"split_by", PARAM_CHOICE, "blank_line", 0, 0, "blank_line|line|file",
     "what ends a document within a file"},
    {"min_bytes", PARAM_INT, "1", 1, 1e9, NULL, "shorter documents are left out"},
    PREPARE_PARAMS,
};

const struct recipe recipe_data_text = {
    .name = "text",
    .kind = RECIPE_DATA,
    .version = 1,
    .summary = "Text files as token shards, with a held-out share and parts by file",
    .source = "Athanor",
    .params = text_params,
    .param_count = ARRAY_COUNT(text_params),
    .outputs = "dataset|metrics",
    .state_size = sizeof(struct text_recipe),
    .open = text_open,
    .step = text_step,
    .close = text_close,
};
