/* pairs_card.c - what a dataset of pairs says of itself: counts, yields, examples, lineage. */
#include "worker/recipes/distillation/impossible/pairs_build.h"

#include "common/base/mem.h"
#include "worker/recipes/text/overlap.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static json_t *counts(const uint64_t count[VERDICT_END])
{
    json_t *out = json_object();

    for (enum verdict v = 0; v < VERDICT_END; v++)
        json_object_set_new(out, verdict_name(v), json_integer((json_int_t)count[v]));
    return out;
}

static json_t *yields(const struct build *build)
{
    json_t *list = json_array();

    for (size_t i = 0; i < CARD_LENGTHS; i++)
        if (build->length[i].contexts)
            json_array_append_new(
                list, json_pack("{s:I, s:I, s:o}", "sentences", (json_int_t)i, "contexts",
                                (json_int_t)build->length[i].contexts, "verdicts",
                                counts(build->length[i].count)));
    return list;
}

/* The reasons in the order in which they are asked. */
static json_t *critics(void)
{
    static const char *const texts[VERDICT_END] = {
#define VERDICT(NAME, name, letter, text) text,
#include "worker/recipes/distillation/impossible/verdicts.def"
#undef VERDICT
    };
    json_t *list = json_array();

    for (enum verdict v = 0; v < VERDICT_END; v++) {
        char letter[2] = {verdict_letter(v), 0};
        json_array_append_new(list, json_pack("{s:s, s:s, s:s}", "verdict", verdict_name(v),
                                              "letter", letter, "text", texts[v]));
    }
    return list;
}

/* Distinct n-grams of the targets, and how alike at most 200 of them are. */
static json_t *diversity(const struct build *build)
{
    struct words *words = mem_array(build->count + 1, sizeof *words);
    const struct words **list = mem_array(build->count + 1, sizeof *list);
    size_t few = build->count < 200 ? build->count : 200;

    for (size_t i = 0; i < build->count; i++) {
        const char *y = strchr(build->documents[i].text, '\n') + 1;
        words_split(&words[i], WORDS_ROUGE, y, strlen(y));
        list[i] = &words[i];
    }
    json_t *out = json_pack("{s:f, s:f, s:f, s:I}", "distinct_1", distinct_n(list, build->count, 1),
                            "distinct_2", distinct_n(list, build->count, 2), "self_bleu",
                            self_bleu(list, few), "self_bleu_texts", (json_int_t)few);
    for (size_t i = 0; i < build->count; i++)
        words_done(&words[i]);
    mem_free(words);
    mem_free(list);
    return out;
}

static json_t *lineage(const struct pairs *pairs)
{
    json_t *out = json_object();

    for (size_t i = 0; i < pairs->run->recipe->input_count; i++) {
        const struct run_input *input = run_input(pairs->run, pairs->run->recipe->inputs[i].name);
        if (input)
            json_object_set_new(out, input->input->name,
                                json_pack("{s:s, s:s}", "ref", input->ref, "hash", input->hash));
    }
    json_object_set_new(out, "seed", json_integer(run_int(pairs->run, "seed")));
    json_object_set_new(out, "settings", json_string(pairs->settings));
    return out;
}

static json_t *value_of(const struct run *run, const struct param *param)
{
    switch (param->type) {
    case PARAM_INT:
        return json_integer((json_int_t)run_int(run, param->name));
    case PARAM_FLOAT:
        return json_real(run_float(run, param->name));
    case PARAM_BOOL:
        return json_boolean(run_bool(run, param->name));
    default:
        return json_string(run_string(run, param->name));
    }
}

/* What the filters asked for, as the parameters have it; thresholds as they were in the end. */
static json_t *filters(const struct pairs *pairs)
{
    static const char *const asked[] = {
        "length_ratio_min", "length_ratio_max", "compression", "numbers", "rouge_max",
        "ted_min", "embed_min", "diversity", "keep", "pairs_per_context"};
    const struct filter *filter = &pairs->filter;
    const struct recipe *recipe = pairs->run->recipe;
    json_t *out = json_object();

    for (size_t a = 0; a < ARRAY_COUNT(asked); a++)
        for (size_t p = 0; p < recipe->param_count; p++)
            if (strcmp(recipe->params[p].name, asked[a]) == 0)
                json_object_set_new(out, asked[a], value_of(pairs->run, &recipe->params[p]));
    json_object_set_new(out, "tau", json_real(filter->tau));
    if (filter->asks_saliency)
        json_object_set_new(out, "saliency_tau", json_real(filter->saliency_tau));
    if (isfinite(filter->diversity_tau))
        json_object_set_new(out, "diversity_tau", json_real(filter->diversity_tau));
    return out;
}

char *pairs_card(const struct build *build, bool placed)
{
    const struct run *run = build->pairs->run;
    const struct pairs *pairs = build->pairs;
    json_t *root = json_pack(
        "{s:s, s:s, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:f, s:f, s:f, s:o, s:o, s:o, s:O, s:O, "
        "s:O}", "task", run_string(run, "task"), "critic", pairs->critic_name, "contexts",
        (json_int_t)build->sum.contexts, "pairs", (json_int_t)build->count, "duplicates",
        (json_int_t)build->duplicates, "held_out", (json_int_t)build->valid_count, "verdicts",
        counts(build->sum.count), "critics", critics(), "filters", filters(pairs), "temperature",
        run_float(run, "temperature"), "top_p", run_float(run, "top_p"), "tau",
        build->pairs->filter.tau, "by_context_length", yields(build), "diversity", diversity(build),
        "lineage", lineage(build->pairs), "kept", build->kept_samples, "dropped",
        build->dropped_samples, "texts", build->texts);
    CHECK(root);
    json_object_set_new(root, "tree_edit",
                        pairs->filter.ted_min > 0
                            ? json_pack("{s:s, s:f}", "trees", "function words", "least",
                                        pairs->filter.ted_min)
                            : json_string("off"));
    if (placed)
        json_object_set_new(root, "blocks",
                            json_pack("{s:s, s:I, s:I}", "folder", pairs->folder, "contexts",
                                      (json_int_t)pairs->block_contexts, "first",
                                      (json_int_t)pairs->context_first));
    json_t *wrapped = json_pack("{s:o}", "pairs", root);
    char *text = json_dumps(wrapped, JSON_COMPACT);
    CHECK(text);
    char *out = mem_strdup(text);
    free(text);
    json_decref(wrapped);
    return out;
}
