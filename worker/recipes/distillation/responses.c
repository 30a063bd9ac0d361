/* responses.c - see responses.h. */
#include "worker/recipes/distillation/responses.h"

#include "common/base/mem.h"
#include "worker/engine/comm.h"
#include "worker/recipes/order.h"

#include <stdlib.h>
#include <string.h>

int responses_init(const struct trainer *trainer, struct corpus *corpus, int64_t most_tokens,
                   struct responses *out, struct err *err)
{
    int64_t T = trainer->model->config.context;
    int64_t most = trainer->batch / (int64_t)trainer->run->rank_count;
    size_t cells = (size_t)(most * T), room = (size_t)(most * most_tokens);

    *out = (struct responses){.trainer = trainer, .corpus = corpus, .T = T,
                              .most_tokens = most_tokens, .most = most};
    out->item = malloc((size_t)most * sizeof *out->item);
    out->position = malloc((size_t)most * sizeof *out->position);
    out->cells = malloc((size_t)most * sizeof *out->cells);
    out->token = malloc(cells * sizeof *out->token);
    out->target = malloc(cells * sizeof *out->target);
    out->room = malloc(room * sizeof *out->room);
    out->source = malloc(cells * sizeof *out->source);
    if (!out->item || !out->position || !out->cells || !out->token || !out->target || !out->room ||
        !out->source)
        return err_set(err, ERR_MEMORY, "cannot allocate %zu tokens of responses",
                       3 * cells + room);
    order_tell(trainer, corpus, trainer->seed, NULL);
    return pack_init(&out->pack, T, trainer_pass_most(trainer), err);
}

void responses_done(struct responses *responses)
{
    free(responses->item);
    free(responses->position);
    free(responses->cells);
    free(responses->token);
    free(responses->target);
    free(responses->room);
    free(responses->source);
    pack_done(&responses->pack);
    memset(responses, 0, sizeof *responses);
}

int64_t responses_rows(const struct responses *responses)
{
    return responses->most;
}

void responses_read(struct responses *responses)
{
    const struct trainer *trainer = responses->trainer;
    int64_t row = 0, T = responses->T;

    responses->written = responses->written_tokens = responses->written_ends = 0;
    for (int64_t pass = 0; pass < trainer->pass_count; pass++) {
        uint64_t first;
        int64_t count;

        trainer_share(trainer, pass, &first, &count);
        for (int64_t i = 0; i < count; i++, row++) {
            uint64_t position = first + (uint64_t)i;
            uint64_t documents = responses->corpus->part->document_count;

            responses->position[row] = position;
            responses->item[row] = (int64_t)sampler_item(trainer->seed, documents, position);
            responses->cells[row] =
                corpus_document(responses->corpus, responses->item[row], T,
                                responses->token + row * T, responses->target + row * T, NULL);
        }
    }
    CHECK(row == responses->most);
}

int64_t responses_prompt(const struct responses *responses, int64_t row)
{
    const int32_t *target = responses->target + row * responses->T;

    for (int64_t i = 0; i < responses->cells[row]; i++)
        if (target[i] >= 0)
            return i + 1;
    return 0;
}

void responses_put(struct responses *responses, int64_t row, const int32_t *response,
                   int64_t count, bool ended)
{
    int64_t prompt = responses_prompt(responses, row), last = prompt - 1;
    int32_t *token = responses->token + row * responses->T;
    int32_t *target = responses->target + row * responses->T;

    CHECK(prompt > 0 && prompt + count <= responses->T);
    for (int64_t i = 0; i < count; i++) {
        target[last + i] = response[i];
        token[last + i + 1] = response[i];
    }
    target[last + count] = ended ? responses->corpus->end_of_text : -1;
    responses->cells[row] = prompt + count;
    responses->written++;
    responses->written_tokens += count;
    responses->written_ends += ended;
}

struct prompt responses_given(struct responses *responses, int64_t row,
                              const struct model *model)
{
    int64_t count = responses_prompt(responses, row);
    struct prompt prompt = {responses->token + row * responses->T, count};
    int32_t *source = responses->source + row * responses->T;

    if (count > 0 && sourced_is_needed(model))
        prompt = (struct prompt){source, sourced_prompt(prompt.token, count, source)};
    return prompt;
}

/* The rows whose prompts leave room, as prompts; returns how many. */
static int64_t find_prompts(struct responses *responses, const struct model *model,
                            struct prompt *prompts, struct generation *texts, int64_t *rows)
{
    int64_t found = 0;

    for (int64_t row = 0; row < responses->most; row++) {
        int64_t count = responses_prompt(responses, row);

        if (count == 0 || count >= responses->T)
            continue;
        prompts[found] = responses_given(responses, row, model);
        texts[found] = (struct generation){.token = responses->room + row * responses->most_tokens,
                                           .index = responses->position[row]};
        rows[found++] = row;
    }
    return found;
}

/* A text shorter than both limits was ended by the stop token (generate.h). A decoder that has its
 * source elsewhere may write more than the document's row has room for: the rest is left out. */
static void put_text(struct responses *responses, int64_t row, const struct generation *text)
{
    int64_t room = responses->T - responses_prompt(responses, row);
    int64_t most = responses->most_tokens < room ? responses->most_tokens : room;

    responses_put(responses, row, text->token, text->count < most ? text->count : most,
                  text->count < most);
}

int responses_sample(struct responses *responses, const struct model *model, uint64_t seed,
                     const struct sampling *sampling, struct err *err)
{
    size_t most = (size_t)responses->most;
    struct prompt *prompts = mem_array(most, sizeof *prompts);
    struct generation *texts = mem_array(most, sizeof *texts);
    int64_t *rows = mem_array(most, sizeof *rows);
    struct sampling draws = *sampling;
    int64_t found = find_prompts(responses, model, prompts, texts, rows);
    int rc;

    draws.seed = seed;
    draws.stop_token = responses->corpus->end_of_text;
    rc = generate(model, prompts, texts, found, responses->most_tokens, &draws, err);
    for (int64_t i = 0; i < found && rc == 0; i++)
        put_text(responses, rows[i], &texts[i]);
    mem_free(prompts);
    mem_free(texts);
    mem_free(rows);
    return rc;
}

int64_t responses_count(const struct responses *responses)
{
    int64_t count = 0;

    for (int64_t row = 0; row < responses->most; row++)
        for (int64_t i = 0; i < responses->cells[row]; i++)
            count += responses->target[row * responses->T + i] >= 0;
    comm_sum_i64(responses->trainer->run->comm, &count, 1);
    return count;
}

void responses_pack(struct responses *responses, int64_t pass)
{
    int64_t row = 0, T = responses->T;

    pack_clear(&responses->pack);
    for (int64_t p = 0; p <= pass; p++) {
        uint64_t first;
        int64_t count;

        trainer_share(responses->trainer, p, &first, &count);
        for (int64_t i = 0; i < count; i++, row++)
            if (p == pass)
                CHECK(pack_add(&responses->pack, responses->item[row], responses->token + row * T,
                               responses->target + row * T, responses->cells[row]));
    }
}
