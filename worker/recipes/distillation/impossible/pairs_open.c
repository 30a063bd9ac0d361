/* pairs_open.c - from parameters and inputs to models, critic, filter and contexts. */
#include "worker/recipes/distillation/impossible/pairs.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "worker/engine/data/bytemap.h"
#include "worker/recipes/train.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Streams of random numbers: what is drawn for one purpose says nothing about another. */
enum stream { STREAM_CONTEXTS = 1, STREAM_SENTENCES, STREAM_REWRITES, STREAM_TIES };

static bool is(const char *text, const char *word)
{
    return strcmp(text, word) == 0;
}

static int open_model(struct pairs *pairs, const char *input, struct model **out,
                      struct tokenizer **out_tokenizer, struct err *err)
{
    const struct run_input *given = run_input(pairs->run, input);

    if (run_writer_open(pairs->run, input, pairs->device, false, out, err) < 0)
        return -1;
    if (tokenizer_read(given->path, out_tokenizer, err) < 0)
        return err_wrap(err, "input '%s' (%s)", input, given->ref);
    if ((int64_t)tokenizer_vocab_size(*out_tokenizer) > (*out)->config.vocab_size)
        return err_set(err, ERR_INVALID,
                       "input '%s' (%s): its tokenizer has %u ids, the model knows only %lld",
                       input, given->ref, (unsigned)tokenizer_vocab_size(*out_tokenizer),
                       (long long)(*out)->config.vocab_size);
    return 0;
}

static int set_sampler(const struct run *run, const struct model *model,
                       const struct tokenizer *tokenizer, enum stream stream,
                       struct sentence_sampler *out, struct err *err)
{
    uint32_t end = tokenizer_end_of_text(tokenizer);
    int64_t most = run_int(run, "max_tokens");

    if (most + 2 > model->config.context)
        return err_set(err, ERR_INVALID,
                       "parameter 'max_tokens' is %lld, but the model's context of %lld leaves "
                       "room for at most %lld after a prompt",
                       (long long)most, (long long)model->config.context,
                       (long long)model->config.context - 2);
    *out = (struct sentence_sampler){
        .model = model,
        .tokenizer = tokenizer,
        .newline = true,
        .max_tokens = most,
        .no_repeat = run_int(run, "no_repeat_ngram"),
        .sampling = {.temperature = run_float(run, "temperature"),
                     .top_p = run_float(run, "top_p"),
                     .seed = rng_at((uint64_t)run_int(run, "seed"), stream, 0),
                     .stop_token = end < TOKENIZER_VOCAB_MAX ? (int32_t)end : -1}};
    return 0;
}

static int open_samplers(struct pairs *pairs, struct err *err)
{
    struct run *run = pairs->run;

    if (open_model(pairs, "teacher", &pairs->teacher, &pairs->tokenizer, err) < 0 ||
        set_sampler(run, pairs->teacher, pairs->tokenizer, STREAM_CONTEXTS, &pairs->contexts, err) <
            0 ||
        set_sampler(run, pairs->teacher, pairs->tokenizer, STREAM_SENTENCES, &pairs->sentences,
                    err) < 0)
        return -1;
    pairs->contexts.newline = false;
    pairs->contexts.sampling.temperature = run_float(run, "context_temperature");
    pairs->contexts.sampling.top_p = run_float(run, "context_top_p");
    pairs->sentences.newline = is(run_string(run, "separator"), "newline");
    if (!run_input(run, "student"))
        return 0;
    pairs->sentences.sampling.temperature = run_float(run, "source_temperature");
    if (open_model(pairs, "student", &pairs->student, &pairs->student_tokenizer, err) < 0)
        return -1;
    if (!hash_equal(tokenizer_identity(pairs->tokenizer),
                    tokenizer_identity(pairs->student_tokenizer)))
        return run_gave_up(run, err, "student_vocabulary",
                       "input 'student' has another tokenizer than 'teacher' (%u and %u ids): the "
                       "dataset is cut into tokens once, for both",
                       (unsigned)tokenizer_vocab_size(pairs->student_tokenizer),
                       (unsigned)tokenizer_vocab_size(pairs->tokenizer));
    return set_sampler(run, pairs->student, pairs->student_tokenizer, STREAM_REWRITES,
                       &pairs->rewrites, err);
}

/* An input that is damaged, no text or the wrong kind of model is so in every attempt; an I/O error
 * may pass. */
static int unfit(struct run *run, const char *name, const struct run_input *given, struct err *err)
{
    struct err why = *err;

    if (why.kind == ERR_PROTOCOL || why.kind == ERR_INVALID)
        return run_gave_up(run, err, "bad_input", "input '%s' (%s): %s", name, given->ref,
                           why.text);
    return err_wrap(err, "input '%s' (%s)", name, given->ref);
}

static int open_critic(struct pairs *pairs, struct err *err)
{
    struct run *run = pairs->run;
    const struct run_input *judge = run_input(run, "judge"), *embedder = run_input(run, "embedder");
    struct critic_choice choice = {.name = critic_resolve(run_string(run, "critic"),
                                                          judge ? judge->path : NULL),
                                   .folder = judge ? judge->path : NULL,
                                   .device = pairs->device,
                                   .model = pairs->teacher,
                                   .tokenizer = pairs->tokenizer};
    bool asked = run_float(run, "embed_min") > -1;

    pairs->critic_name = choice.name;
    if (!is(choice.name, run_string(run, "critic")))
        run_note(run, "critic %s, by the input 'judge'%s", choice.name,
                 judge ? "" : ", which is not given");
    if (is(choice.name, "pmi") && !is(run_string(run, "task"), "summarize"))
        return err_set(err, ERR_INVALID, "critic pmi asks what a summary tells of its source: task "
                       "must be summarize, or critic lm_mi");
    if (asked && !embedder)
        return err_set(err, ERR_INVALID, "embed_min is %g, but there is no input 'embedder'",
                       run_float(run, "embed_min"));
    if (asked && critic_embed(embedder->path, pairs->device, &pairs->likeness, err) < 0)
        return unfit(run, "embedder", embedder, err);
    if (critic_choose(&choice, &pairs->critic, err) == 0)
        return 0;
    if (judge)
        return unfit(run, "judge", judge, err);
    /* Without a judge only a language model may be asked, and that is the teacher. */
    return is(choice.name, "nli") ? -1 : unfit(run, "teacher", run_input(run, "teacher"), err);
}

static enum keep_rule keep_rule(const char *name)
{
    return is(name, "min_reverse") ? KEEP_MIN_REVERSE
           : is(name, "min_rouge") ? KEEP_MIN_ROUGE
                                   : KEEP_MAX_ENTAIL;
}

static void set_filter(struct pairs *pairs)
{
    const struct run *run = pairs->run;
    const char *numbers = run_string(run, "numbers");
    bool summary = is(run_string(run, "task"), "summarize");

    pairs->filter = (struct filter){
        .task = summary ? TASK_SUMMARIZE : TASK_PARAPHRASE,
        .source_only = pairs->student || pairs->sequential,
        .ratio_min = run_float(run, "length_ratio_min"),
        .ratio_max = run_float(run, summary ? "compression" : "length_ratio_max"),
        .numbers = is(numbers, "both")      ? NUMBERS_BOTH
                   : is(numbers, "one_way") ? NUMBERS_ONE_WAY
                                            : NUMBERS_OFF,
        .rouge_max = run_float(run, "rouge_max"),
        .ted_min = run_float(run, "ted_min"),
        .likeness = pairs->likeness,
        .likeness_min = run_float(run, "embed_min"),
        .asks_saliency = is(pairs->critic_name, "pmi"), /* saliency_tau: pairs_calibrate */
        .diversity_tau = run_bool(run, "diversity") ? 0 : INFINITY, /* set by pairs_calibrate */
        .keep = keep_rule(run_string(run, "keep")),
        .most = (size_t)run_int(run, "pairs_per_context"),
        .seed = rng_at((uint64_t)run_int(run, "seed"), STREAM_TIES, 0)};
}

static int open_prefixes(struct pairs *pairs, struct err *err)
{
    const struct run_input *given = run_input(pairs->run, "prefixes");

    if (!given)
        return 0;
    if (run_input(pairs->run, "contexts"))
        return run_gave_up(pairs->run, err, "bad_input",
                           "both 'contexts' and 'prefixes' are given; prefixes are for contexts "
                           "that the teacher writes");
    return prefixes_read(given->path, &pairs->prefixes, err) < 0
               ? unfit(pairs->run, "prefixes", given, err)
               : 0;
}

/* Contexts that say the same would only be sampled twice: the first stays. */
static int open_contexts(struct pairs *pairs, struct err *err)
{
    const struct run_input *given = run_input(pairs->run, "contexts");
    const struct dataset_part *part;
    struct byte_map seen = {0};

    if (!given)
        return 0;
    if (dataset_open(given->path, &pairs->source, err) < 0 ||
        dataset_part(pairs->source, given->part, &part, err) < 0 ||
        dataset_texts_read(part, &pairs->texts, err) < 0)
        return unfit(pairs->run, "contexts", given, err);
    pairs->usable = mem_array(pairs->texts.count + 1, sizeof *pairs->usable);
    for (size_t i = 0; i < pairs->texts.count; i++) {
        const char *text = pairs->texts.items[i].text;
        size_t known = seen.count;
        byte_map_put(&seen, text, strlen(text));
        if (seen.count > known)
            pairs->usable[pairs->usable_count++] = i;
    }
    byte_map_done(&seen);
    pairs->repeated = pairs->texts.count - pairs->usable_count;
    return 0;
}

/* Repetitions are never sampled, so the counts of blocks would not show them. */
int pairs_check_source(struct pairs *pairs, struct err *err)
{
    double least = run_float(pairs->run, "min_distinct"), all = (double)pairs->texts.count;

    if (!pairs->source || pairs->texts.count < PAIRS_CONTEXTS_FEW ||
        (double)pairs->usable_count >= least * all)
        return 0;
    run_metric(pairs->run, "contexts", all);
    run_metric(pairs->run, "distinct_contexts", (double)pairs->usable_count);
    return run_gave_up(pairs->run, err, "min_distinct",
                       "only %zu of %zu contexts of the input 'contexts' (%s) differ from all "
                       "before them, less than %.3g of them: the source repeats",
                       pairs->usable_count, pairs->texts.count,
                       run_input(pairs->run, "contexts")->ref, least);
}

static void set_numbers(struct pairs *pairs)
{
    struct run *run = pairs->run;
    uint64_t most = (uint64_t)run_int(run, "max_contexts"), there;

    pairs->context_first = (uint64_t)run_int(run, "first_context");
    if (pairs->source) {
        there = pairs->usable_count > pairs->context_first
                    ? pairs->usable_count - pairs->context_first
                    : 0;
        most = min_u64(most, there);
        if (pairs->repeated)
            run_note(run, "%zu of %zu contexts repeat an earlier one and are left out",
                     pairs->repeated, pairs->texts.count);
    }
    pairs->context_count = most;
    pairs->block_contexts = (uint64_t)run_int(run, "block");
    pairs->block_count = (most + pairs->block_contexts - 1) / pairs->block_contexts;
    pairs->samples = (size_t)run_int(run, "samples");
    pairs->target = (uint64_t)run_int(run, "target_pairs");
}

/* What the blocks depend on: parameters but the block's size and what only the build reads, and
 * the identity of inputs. */
static void hash_settings(struct pairs *pairs)
{
    static const char *const others[] = {
        "block",  "target_pairs", "max_contexts", "min_yield",    "min_distinct",
        "device", "bf16",         "name",         "holdout_share", "lease_s"};
    const struct run *run = pairs->run;
    struct buf text = {0};
    struct hash hash;

    buf_printf(&text, "%s %d\n", run->recipe->name, run->recipe->version);
    for (size_t i = 0; i < run->recipe->param_count; i++) {
        const struct param *param = &run->recipe->params[i];
        bool counts = true;
        for (size_t o = 0; o < ARRAY_COUNT(others); o++)
            counts = counts && !is(param->name, others[o]);
        if (!counts)
            continue;
        buf_printf(&text, "%s=", param->name);
        if (param->type == PARAM_INT)
            buf_printf(&text, "%lld\n", (long long)run_int(run, param->name));
        else if (param->type == PARAM_FLOAT)
            buf_printf(&text, "%.17g\n", run_float(run, param->name));
        else if (param->type == PARAM_BOOL)
            buf_printf(&text, "%d\n", run_bool(run, param->name));
        else
            buf_printf(&text, "%s\n", is(param->name, "critic") ? pairs->critic_name
                                                               : run_string(run, param->name));
    }
    for (size_t i = 0; i < run->recipe->input_count; i++) {
        const struct run_input *input = run_input(run, run->recipe->inputs[i].name);
        if (input)
            buf_printf(&text, "%s %s %s\n", input->input->name, input->part,
                       *input->hash ? input->hash : input->path); /* wherever it lies */
    }
    hash_bytes(buf_text(&text), text.length, &hash);
    hash_to_hex(&hash, pairs->settings);
    snprintf(pairs->header, sizeof pairs->header, "%s/%llu", pairs->settings,
             (unsigned long long)pairs->block_contexts);
    buf_done(&text);
}

int pairs_open(struct run *run, struct pairs *pairs, struct err *err)
{
    pairs->run = run;
    if (run_int(run, "samples") < 2 && !run_input(run, "student"))
        return err_set(err, ERR_INVALID, "parameter 'samples' is 1; a pair needs two");
    if (run_int(run, "context_sentences_min") > run_int(run, "context_sentences"))
        return run_gave_up(run, err, "context_sentences", "it is %lld, less than "
                           "context_sentences_min, %lld",
                           (long long)run_int(run, "context_sentences"),
                           (long long)run_int(run, "context_sentences_min"));
    if (run_device_open(run, &pairs->device, err) < 0 || open_samplers(pairs, err) < 0 ||
        open_critic(pairs, err) < 0 || open_prefixes(pairs, err) < 0 ||
        open_contexts(pairs, err) < 0)
        return -1;
    pairs->sequential = !pairs->student && !is(run_string(run, "mode"), "parallel");
    set_filter(pairs);
    set_numbers(pairs);
    hash_settings(pairs);
    if (pairs->context_count == 0)
        return run_gave_up(run, err, "no_contexts",
                           "the input 'contexts' has %zu different ones of %zu, and first_context "
                           "is %llu", pairs->usable_count, pairs->texts.count,
                           (unsigned long long)pairs->context_first);
    pairs->folder = mem_printf("%s/pairs", run->job_dir);
    pairs->rules = (struct lease_rules){
        .folder = pairs->folder,
        .rank = run->rank,
        .given_ms = (uint64_t)(1000 * run_float(run, "lease_s"))};
    return file_make_folders(pairs->folder, 0755, err) < 0 ? -1 : pairs_resume(pairs, err);
}

void pairs_close(struct pairs *pairs)
{
    struct err err = {0};

    if (pairs_put_down(pairs, &err) < 0)
        fprintf(stderr, "athanor-engine: a half-made block is lost: %s\n", err.text);
    buf_done(&pairs->hand.bytes);
    record_done(&pairs->hand.record);
    mem_free(pairs->peek);
    critic_free(pairs->critic);
    critic_free(pairs->likeness);
    dataset_texts_done(&pairs->texts);
    dataset_close(pairs->source);
    prefixes_done(&pairs->prefixes);
    byte_map_done(&pairs->seen);
    mem_free(pairs->usable);
    model_free(pairs->student);
    model_free(pairs->teacher);
    tokenizer_free(pairs->student_tokenizer);
    tokenizer_free(pairs->tokenizer);
    device_close(pairs->device);
    mem_free(pairs->folder);
    mem_free(pairs->built.folder);
}
