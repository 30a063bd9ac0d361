/* samples.c - see samples.h. */
#include "worker/recipes/eval/samples.h"

#include "worker/engine/generate.h"
#include "worker/recipes/eval/results.h"

#include <stdlib.h>
#include <string.h>

size_t samples_prompt_length(const char *text)
{
    const char *mark = strstr(text, ": ");

    return mark ? (size_t)(mark - text) + 1 : 0;
}

/* <|endoftext|> and the prompt's tokens, leaving room for a continuation. */
static void prompt_tokens(const struct corpus *corpus, const char *text, int64_t context,
                          struct token_list *out)
{
    const struct tokenizer *tokenizer = dataset_tokenizer(corpus->dataset);
    size_t length = samples_prompt_length(text);
    size_t most = (size_t)context - 1;

    out->count = 0;
    token_list_add(out, (uint32_t)corpus->begin_of_text);
    tokenizer_encode(tokenizer, text, length > 0 ? length : strlen(text), out);
    if (length == 0)
        out->count = 2 + (out->count - 1) / 8;
    if (out->count > most)
        out->count = most;
}

static void put_tokens(struct buf *out, const struct tokenizer *tokenizer, const int32_t *token,
                       int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        uint32_t id = (uint32_t)token[i];

        tokenizer_decode(tokenizer, &id, 1, out);
    }
}

static void put_member(struct buf *out, const char *name, const char *text)
{
    buf_printf(out, "\"%s\": ", name);
    json_put_text(out, text, strlen(text));
}

static void put_sample(struct run *run, const struct corpus *corpus,
                       const struct dataset_text *document, const struct token_list *prompt,
                       const struct generation *generation, struct buf *out)
{
    const struct tokenizer *tokenizer = dataset_tokenizer(corpus->dataset);
    struct buf asked = {0}, said = {0};

    tokenizer_decode(tokenizer, prompt->ids + 1, prompt->count - 1, &asked);
    put_tokens(&said, tokenizer, generation->token, generation->count);
    run_note(run, "%s sample '%s' -> '%s'", corpus->input, buf_text(&asked), buf_text(&said));
    if (out->length > 0)
        buf_puts(out, ",\n  ");
    buf_puts(out, "{");
    put_member(out, "split", corpus->input);
    buf_puts(out, ", ");
    put_member(out, "id", document->id);
    buf_puts(out, ", ");
    put_member(out, "prompt", buf_text(&asked));
    buf_puts(out, ", ");
    put_member(out, "text", buf_text(&said));
    buf_puts(out, ", ");
    put_member(out, "truth", document->text);
    buf_puts(out, "}");
    buf_done(&asked);
    buf_done(&said);
}

static int sample(struct run *run, struct corpus *corpus, const struct model *model,
                  const struct dataset_text *document, uint64_t index, int32_t *room,
                  int64_t most_tokens, struct buf *out, struct err *err)
{
    struct token_list list = {0};
    struct sampling greedy = {.stop_token = corpus->end_of_text};
    struct generation generation = {.token = room, .index = index};
    struct prompt prompt;
    int rc;

    prompt_tokens(corpus, document->text, model->config.context, &list);
    prompt = (struct prompt){(const int32_t *)list.ids, (int64_t)list.count};
    rc = generate(model, &prompt, &generation, 1, most_tokens, &greedy, err);
    if (rc == 0)
        put_sample(run, corpus, document, &list, &generation, out);
    token_list_done(&list);
    return rc;
}

int samples_write(struct run *run, struct corpus *corpus, const struct model *model, int64_t count,
                  int64_t most_tokens, struct buf *out, struct err *err)
{
    struct dataset_texts texts = {0};
    int32_t *room = NULL;
    int rc = -1;

    if (!corpus->part->texts_path || count == 0)
        return 0;
    if (dataset_texts_read(corpus->part, &texts, err) < 0)
        return -1;
    room = malloc((size_t)most_tokens * sizeof *room);
    if (!room) {
        err_set(err, ERR_MEMORY, "cannot allocate %lld tokens", (long long)most_tokens);
        goto out;
    }
    if (count > (int64_t)texts.count)
        count = (int64_t)texts.count;
    for (int64_t i = 0; i < count; i++) {
        size_t at = (size_t)i * texts.count / (size_t)count;

        if (sample(run, corpus, model, &texts.items[at], (uint64_t)i, room, most_tokens, out, err) <
            0)
            goto out;
    }
    rc = 0;
out:
    free(room);
    dataset_texts_done(&texts);
    return rc;
}
