/* corpus.c - see corpus.h. */
#include "worker/recipes/corpus.h"

#include "common/base/file.h"
#include "common/base/mem.h"

#include <string.h>

static int find_ends(struct corpus *corpus, struct err *err)
{
    uint32_t begin = tokenizer_begin_of_text(dataset_tokenizer(corpus->dataset));
    uint32_t end = tokenizer_end_of_text(dataset_tokenizer(corpus->dataset));

    if (end >= dataset_vocab_size(corpus->dataset) || begin >= dataset_vocab_size(corpus->dataset))
        return err_set(err, ERR_INVALID,
                       "the tokenizer of '%s' has no token that ends texts, as %s does; prepare "
                       "the dataset with one that has it",
                       dataset_path(corpus->dataset), TOKENIZER_END_OF_TEXT);
    corpus->begin_of_text = (int32_t)begin;
    corpus->end_of_text = (int32_t)end;
    return 0;
}

int corpus_open(const struct run *run, const char *input, struct corpus *out, struct err *err)
{
    const struct run_input *given = run_input(run, input);
    struct corpus fresh = {.input = input, .separator = -1};

    if (!given)
        return err_set(err, ERR_INVALID, "input '%s' is missing; give it as dataset:NAME/PART",
                       input);
    if (dataset_open(given->path, &fresh.dataset, err) < 0 ||
        dataset_part(fresh.dataset, given->part, &fresh.part, err) < 0 ||
        find_ends(&fresh, err) < 0) {
        dataset_close(fresh.dataset);
        return err_wrap(err, "input '%s' (%s)", input, given->ref);
    }
    if (fresh.part->document_count == 0) {
        dataset_close(fresh.dataset);
        return err_set(err, ERR_INVALID, "input '%s' (%s) holds no documents", input, given->ref);
    }
    *out = fresh;
    return 0;
}

void corpus_close(struct corpus *corpus)
{
    token_list_done(&corpus->scratch);
    dataset_close(corpus->dataset);
    memset(corpus, 0, sizeof *corpus);
}

bool corpus_is_open(const struct corpus *corpus)
{
    return corpus->dataset != NULL;
}

static int match_identity(const struct corpus *corpus, const struct tokenizer *other,
                          const char *owner, struct err *err)
{
    const struct tokenizer *mine = dataset_tokenizer(corpus->dataset);

    if (hash_equal(tokenizer_identity(mine), tokenizer_identity(other)))
        return 0;
    return err_set(err, ERR_INVALID,
                   "input '%s' (%s) was cut into tokens by another tokenizer than %s "
                   "(%u and %u tokens): prepare it with that one",
                   corpus->input, dataset_path(corpus->dataset), owner,
                   (unsigned)tokenizer_vocab_size(mine), (unsigned)tokenizer_vocab_size(other));
}

static int match_size(const struct corpus *corpus, const struct model *model, struct err *err)
{
    if ((int64_t)dataset_vocab_size(corpus->dataset) <= model->config.vocab_size)
        return 0;
    return err_set(err, ERR_INVALID, "input '%s' uses %u tokens, the model knows only %lld",
                   corpus->input, (unsigned)dataset_vocab_size(corpus->dataset),
                   (long long)model->config.vocab_size);
}

int corpus_match_model(const struct corpus *corpus, const char *model_folder,
                       const struct model *model, struct err *err)
{
    struct tokenizer *tokenizer = NULL;
    int rc = -1;

    if (match_size(corpus, model, err) < 0)
        goto out;
    if (!tokenizer_is_in(model_folder)) {
        rc = 0;
        goto out;
    }
    if (tokenizer_read(model_folder, &tokenizer, err) < 0 ||
        match_identity(corpus, tokenizer, model_folder, err) < 0)
        goto out;
    rc = 0;
out:
    tokenizer_free(tokenizer);
    return rc;
}

int corpus_widens_model(const struct corpus *corpus, const char *model_folder,
                        int64_t *out_tokens, struct err *err)
{
    const struct tokenizer *mine = dataset_tokenizer(corpus->dataset);
    struct tokenizer *theirs = NULL;
    int rc = 0;

    *out_tokens = 0;
    if (tokenizer_is_in(model_folder)) {
        rc = tokenizer_read(model_folder, &theirs, err);
        if (rc == 0 && tokenizer_extends(mine, theirs))
            *out_tokens = tokenizer_vocab_size(mine);
    }
    tokenizer_free(theirs);
    return rc;
}

int corpus_match(const struct corpus *corpus, const struct corpus *other, struct err *err)
{
    return match_identity(corpus, dataset_tokenizer(other->dataset), other->input, err);
}

static int find_separator(struct corpus *corpus, const char *text, struct err *err)
{
    struct token_list *list = &corpus->scratch;

    list->count = 0;
    tokenizer_encode(dataset_tokenizer(corpus->dataset), text, strlen(text), list);
    if (list->count != 1)
        return err_set(err, ERR_INVALID,
                       "the separator is %zu tokens of the tokenizer of '%s'; it must be one, as a "
                       "newline is",
                       list->count, dataset_path(corpus->dataset));
    corpus->separator = (int32_t)list->ids[0];
    return 0;
}

/* Cells up to the one whose input is the last separator; -1 when there is none. */
static int64_t prompt_cells(const struct corpus *corpus, const int32_t *token, int64_t cells)
{
    for (int64_t i = cells - 1; i > 0; i--)
        if (token[i] == corpus->separator)
            return i;
    return -1;
}

int corpus_mask_prompts(struct corpus *corpus, const char *separator, struct err *err)
{
    if (find_separator(corpus, separator, err) < 0)
        return -1;
    for (int64_t i = 0; i < corpus_count(corpus); i++) {
        struct token_list *list = &corpus->scratch;
        bool found = false;

        dataset_document(corpus->part, (uint64_t)i, list);
        for (size_t t = 1; t < list->count && !found; t++)
            found = (int32_t)list->ids[t] == corpus->separator;
        if (!found)
            return err_set(err, ERR_INVALID,
                           "document %lld of input '%s' has no separator between prompt and "
                           "response; every document needs one",
                           (long long)i, corpus->input);
    }
    return 0;
}

int64_t corpus_count(const struct corpus *corpus)
{
    return (int64_t)corpus->part->document_count;
}

/* A document cut before its response has no target left. */
static void mask_prompt(const struct corpus *corpus, const int32_t *token, int32_t *target,
                        int64_t cells)
{
    int64_t prompt = prompt_cells(corpus, token, cells);

    for (int64_t i = 0; i < (prompt < 0 ? cells : prompt); i++)
        target[i] = -1;
}

int64_t corpus_document(struct corpus *corpus, int64_t index, int64_t T, int32_t *token,
                        int32_t *target, bool *out_cut)
{
    struct token_list *list = &corpus->scratch;
    size_t skip, cells;

    CHECK(index >= 0 && index < corpus_count(corpus) && T > 0);
    dataset_document(corpus->part, (uint64_t)index, list);
    skip = list->count > 0 && (int32_t)list->ids[0] == corpus->begin_of_text;
    cells = list->count - skip + 1;
    if (out_cut)
        *out_cut = cells > (size_t)T;
    if (cells > (size_t)T)
        cells = (size_t)T;
    for (size_t i = 0; i < cells; i++) {
        token[i] = i == 0 ? corpus->begin_of_text : (int32_t)list->ids[skip + i - 1];
        target[i] = skip + i < list->count ? (int32_t)list->ids[skip + i] : corpus->end_of_text;
    }
    if (corpus->separator >= 0)
        mask_prompt(corpus, token, target, (int64_t)cells);
    return (int64_t)cells;
}
