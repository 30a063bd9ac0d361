/* web.c - a job of a pipeline: its parameters checked, its inputs opened, its steps told apart. */
#include "worker/recipes/data/web/web.h"

#include "common/base/buf.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "worker/engine/comm.h"
#include "worker/recipes/data/web/build.h"
#include "worker/recipes/data/web/coherence.h"
#include "worker/recipes/data/web/decon.h"
#include "worker/recipes/data/web/group.h"
#include "worker/recipes/data/web/limits.h"
#include "worker/recipes/data/web/mixing.h"
#include "worker/recipes/data/web/sorting.h"
#include "worker/recipes/data/web/texts.h"
#include "worker/recipes/data/web/trigram.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_LIST_MAX ((size_t)1 << 30)

/* ---- parameters ------------------------------------------------------------------------- */

/* Inputs that are classifiers: what params.scorers may ask. */
static bool is_classifier(const struct recipe *recipe, const char *input)
{
    for (size_t i = 0; i < recipe->input_count; i++)
        if (strcmp(recipe->inputs[i].name, input) == 0)
            return recipe->inputs[i].type == INPUT_CHECKPOINT;
    return false;
}

static int check_scorer(const struct run *run, const struct web *web, const struct scorer *scorer,
                        struct err *err)
{
    if (web->scorer_count == SCORERS_MAX)
        return err_set(err, ERR_LIMIT, "params.scorers: more than %d have their input given",
                       SCORERS_MAX);
    if (web_filter_find(web, scorer->name) < FILTER_END || mixing_is_taken(scorer->name))
        return err_set(err, ERR_INVALID, "params.scorers: the name '%s' is taken by a scorer, "
                       "filter or measure already", scorer->name);
    if (!is_classifier(run->recipe, scorer->input))
        return err_set(err, ERR_INVALID, "params.scorers: '%s' asks inputs.%s, which is no "
                       "classifier of data/%s; there are hate, nsfw, safety, topic, toxicity, "
                       "quality, langid and scorer_1 to scorer_8", scorer->name, scorer->input,
                       run->recipe->name);
    return 0;
}

/* Keeps the scorers whose input is given; the others are left out, as stages are. */
static int read_scorers(struct run *run, struct web *web, struct err *err)
{
    for (size_t i = 0; i < run_list_count(run, "scorers"); i++) {
        struct scorer scorer = {0};
        int rc = scorer_parse(run_list_item(run, "scorers", i), &scorer, err);
        if (rc == 0)
            rc = check_scorer(run, web, &scorer, err);
        if (rc == 0 && run_input(run, scorer.input)) {
            web->scorers[web->scorer_count++] = scorer;
            continue;
        }
        if (rc == 0)
            buf_printf(&web->off, "%s\"scores: %s\"", web->off.length ? ", " : "", scorer.name);
        scorer_done(&scorer);
        if (rc < 0)
            return -1;
    }
    return 0;
}

/* Whether the job gives what a stage needs; one without it is left out, and the card says so. */
static bool has_input(const struct run *run, const struct web *web, enum stage stage)
{
    switch (stage) {
    case STAGE_LANGUAGE:
        return run_input(run, "langid") != NULL;
    case STAGE_SCORES:
        return web->scorer_count > 0;
    case STAGE_TOPIC:
        return run_input(run, "topic") != NULL;
    case STAGE_TOXICITY:
        return run_input(run, "toxicity") != NULL;
    case STAGE_QUALITY:
        return run_input(run, "quality") != NULL;
    case STAGE_DECONTAMINATE:
        return run_list_count(run, "decontaminate") > 0;
    case STAGE_BLOCKED:
        return run_list_count(run, "block_lists") > 0;
    case STAGE_PERPLEXITY:
    case STAGE_COHERENCE:
        return run_list_count(run, "reference") > 0;
    default:
        return true;
    }
}

static int list_stages(struct run *run, struct web *web, struct err *err)
{
    bool used[STAGE_END] = {false};

    for (size_t i = 0; i < run_list_count(run, "stages"); i++) {
        const char *name = run_list_item(run, "stages", i);
        enum stage stage = web_stage_find(name);
        if (stage == STAGE_END)
            return err_set(err, ERR_INVALID, "params.stages: '%s' is no stage; there are language, "
                           "blocked, garbled, url, document, gopher, title, code, secrets, "
                           "social, wiki, c4, toxicity, pii, "
                           "repetition, decontaminate, perplexity, quality, coherence, scores, "
                           "topic, paragraph, minhash, minhash_paragraph, exact and cluster",
                           name);
        if (used[stage])
            return err_set(err, ERR_INVALID, "params.stages: '%s' is listed twice", name);
        used[stage] = true;
        if (!has_input(run, web, stage)) {
            buf_printf(&web->off, "%s\"%s\"", web->off.length ? ", " : "", name);
            continue;
        }
        if (stage_kind(stage) != STAGE_GROUP && web->local_count < web->stage_count)
            return err_set(err, ERR_INVALID, "params.stages: '%s' stands after '%s', which needs "
                           "all documents at once; minhash, minhash_paragraph, exact and cluster "
                           "come last", name,
                           stage_name(web->stages[web->stage_count - 1]));
        web->stages[web->stage_count++] = stage;
        web->local_count += stage_kind(stage) != STAGE_GROUP;
    }
    if (web->off.length)
        run_note(run, "left out, their inputs are not given: %s", web->off.bytes);
    return 0;
}

static int read_c4_rules(struct run *run, struct web *web, struct err *err)
{
    static const struct {
        const char *name;
        unsigned rule;
    } rules[] = {{"nopunc", C4_NOPUNC},   {"minwords", C4_MINWORDS}, {"naughty", C4_NAUGHTY},
                 {"js", C4_JS},           {"lorem", C4_LOREM},       {"brace", C4_BRACE},
                 {"minsents", C4_MINSENTS}};

    for (size_t i = 0; i < run_list_count(run, "c4_rules"); i++) {
        const char *name = run_list_item(run, "c4_rules", i);
        size_t r = 0;
        while (r < ARRAY_COUNT(rules) && strcmp(rules[r].name, name) != 0)
            r++;
        if (r == ARRAY_COUNT(rules))
            return err_set(err, ERR_INVALID, "params.c4_rules: '%s' is none of nopunc, minwords, "
                           "naughty, js, lorem, brace, minsents", name);
        web->c4_rules |= rules[r].rule;
    }
    if ((web->c4_rules & C4_NAUGHTY) && !*run_string(run, "naughty_words"))
        return err_set(err, ERR_INVALID, "params.c4_rules has naughty, but params.naughty_words "
                       "names no file of words, one a line");
    return 0;
}

static int read_naughty(struct run *run, struct web *web, struct err *err)
{
    const char *path = run_string(run, "naughty_words");
    char *bytes;
    size_t length;

    if (!*path)
        return 0;
    if (file_read(path, 1 << 24, &bytes, &length, err) < 0)
        return err_wrap(err, "params.naughty_words");
    hash_add(&web->lists, bytes, length);
    char *rest = bytes, *line;
    int rc = 0;
    for (size_t number = 1; rc == 0 && (line = strsep(&rest, "\n")); number++)
        if ((rc = c4_naughty_add(&web->naughty, line, strlen(line), err)) < 0)
            err_wrap(err, "params.naughty_words: '%s' line %zu", path, number);
    mem_free(bytes);
    web->has_naughty = true;
    return rc;
}

static int read_block_lists(struct run *run, struct web *web, struct err *err)
{
    for (size_t i = 0; i < run_list_count(run, "block_lists"); i++) {
        char *bytes;
        size_t length;
        if (file_read(run_list_item(run, "block_lists", i), BLOCK_LIST_MAX, &bytes, &length,
                      err) < 0)
            return err_wrap(err, "params.block_lists");
        blocked_add(&web->blocked, bytes, length);
        hash_add(&web->lists, bytes, length);
        mem_free(bytes);
    }
    return 0;
}

/* Names in lower case, one a line. */
static int read_forums(struct run *run, struct web *web, struct err *err)
{
    for (size_t i = 0; i < run_list_count(run, "forum_lists"); i++) {
        char *bytes;
        size_t length;
        if (file_read(run_list_item(run, "forum_lists", i), BLOCK_LIST_MAX, &bytes, &length,
                      err) < 0)
            return err_wrap(err, "params.forum_lists");
        hash_add(&web->lists, bytes, length);
        for (char *rest = bytes, *line; (line = strsep(&rest, "\n"));) {
            size_t end = strcspn(line, "\r");
            for (size_t c = 0; c < end; c++)
                line[c] = line[c] >= 'A' && line[c] <= 'Z' ? (char)(line[c] | 0x20) : line[c];
            if (end)
                byte_map_put(&web->forums, line, end);
        }
        mem_free(bytes);
    }
    return 0;
}

/* Items of params.source_limits are MEASURE=LOW:HIGH; either side may be empty: no limit. */
static int read_source_limits(struct run *run, struct web *web, struct err *err)
{
    source_limits_init(&web->source_limits);
    for (size_t i = 0; i < run_list_count(run, "source_limits"); i++) {
        const char *item = run_list_item(run, "source_limits", i), *equals = strchr(item, '=');
        enum source_measure m =
            equals ? source_find(item, (size_t)(equals - item)) : SOURCE_END;
        if (m == SOURCE_END)
            return err_set(err, ERR_INVALID, "params.source_limits: '%s' is not MEASURE=LOW:HIGH "
                           "with a measure of source.def, such as code_stars=2: or "
                           "social_votes=3:", item);
        if (limits_parse_sides(equals + 1, &web->source_limits.low[m],
                               &web->source_limits.high[m], err) < 0)
            return err_wrap(err, "params.source_limits: '%s'", item);
    }
    return 0;
}

static int read_rules(struct run *run, struct web *web, struct err *err)
{
    bool datatrove = strcmp(run_string(run, "gopher_variant"), "datatrove") == 0;

    web->variant = datatrove ? GOPHER_DATATROVE : GOPHER_DOLMA;
    web->whole_words = strcmp(run_string(run, "normalise"), "words") == 0;
    hash_start(&web->lists);
    if (limits_read(web, err) < 0 || read_c4_rules(run, web, err) < 0 ||
        read_naughty(run, web, err) < 0 || read_block_lists(run, web, err) < 0 ||
        read_forums(run, web, err) < 0 || read_source_limits(run, web, err) < 0)
        return -1;
    if (strcmp(run_string(run, "dedup"), "bloom") != 0)
        return 0;
    double n = (double)run_int(run, "bloom_n");
    if (n < 1)
        return err_set(err, ERR_INVALID, "params.dedup is bloom, but params.bloom_n does not say "
                       "how many units there will be at most");
    web->has_bloom = true;
    if (bloom_plan(n, run_float(run, "bloom_p"), (unsigned)run_int(run, "bloom_k_max"), &web->bloom,
                   err) < 0)
        return -1;
    run_note(run, "Bloom filters of %llu bytes and %u hashes: of %.0f units, %.3g are taken for "
             "seen by mistake", (unsigned long long)web->bloom.bytes, web->bloom.k, n,
             n * web->bloom.p);
    return 0;
}

/* ---- inputs ----------------------------------------------------------------------------- */

static bool has_stage(const struct web *web, enum stage stage)
{
    for (size_t s = 0; s < web->stage_count; s++)
        if (web->stages[s] == stage)
            return true;
    return false;
}

/* The classifier of an input that is given; opened once, however many stages ask it. */
static int classifier_of(struct web *web, const char *input, struct classifier **out,
                         struct err *err)
{
    const struct recipe *recipe = web->run->recipe;
    size_t i = 0;

    CHECK(recipe->input_count <= WEB_INPUTS_MAX);
    while (strcmp(recipe->inputs[i].name, input) != 0)
        i++;
    if (!web->classifiers[i] &&
        classifier_open(run_input(web->run, input)->path, &web->classifiers[i], err) < 0)
        return err_wrap(err, "inputs.%s", input);
    *out = web->classifiers[i];
    return 0;
}

static int open_classifier(struct web *web, bool wanted, const char *input,
                           const char *label_param, struct classifier **out, size_t *out_label,
                           struct err *err)
{
    const char *label = run_string(web->run, label_param);

    if (!wanted)
        return 0;
    if (classifier_of(web, input, out, err) < 0)
        return -1;
    *out_label = classifier_label(*out, label);
    if (*out_label < (*out)->label_count)
        return 0;
    return err_set(err, ERR_INVALID, "params.%s is '%s', which the classifier inputs.%s does not "
                   "know; its first label is '%s'", label_param, label, input, (*out)->labels[0]);
}

static int bind_scorers(struct web *web, struct err *err)
{
    struct classifier *classifier;

    for (size_t i = 0; i < web->scorer_count && has_stage(web, STAGE_SCORES); i++)
        if (classifier_of(web, web->scorers[i].input, &classifier, err) < 0 ||
            scorer_bind(&web->scorers[i], classifier, err) < 0)
            return -1;
    return 0;
}

/* Items of params.topic_keep are LABEL=RATE. */
static int open_topics(struct web *web, struct err *err)
{
    struct run *run = web->run;

    if (!has_stage(web, STAGE_TOPIC))
        return 0;
    if (classifier_of(web, "topic", &web->topic, err) < 0)
        return -1;
    for (size_t l = 0; l < web->topic->label_count; l++)
        web->topic_keep[l] = 1;
    for (size_t i = 0; i < run_list_count(run, "topic_keep"); i++) {
        const char *item = run_list_item(run, "topic_keep", i), *equals = strrchr(item, '=');
        double rate;
        if (!equals || parse_f64(equals + 1, &rate, err) < 0 || rate < 0 || rate > 1)
            return err_set(err, ERR_INVALID, "params.topic_keep: '%s' is not LABEL=RATE with a "
                           "rate of 0 to 1", item);
        char *label = mem_strndup(item, (size_t)(equals - item));
        size_t l = classifier_label(web->topic, label);
        mem_free(label);
        if (l == web->topic->label_count) {
            char *known = classifier_label_list(web->topic);
            err_set(err, ERR_INVALID, "params.topic_keep: '%s' names a label that the classifier "
                    "inputs.topic does not know; it knows %s", item, known);
            mem_free(known);
            return -1;
        }
        web->topic_keep[l] = rate;
    }
    return 0;
}

static int add_reference(void *argument, const char *text, size_t length, struct err *err)
{
    (void)err;
    trigram_add(argument, text, length);
    return 0;
}

static int learn_reference(struct run *run, struct web *web, struct err *err)
{
    double mu, sigma;
    size_t texts;

    if (!has_stage(web, STAGE_PERPLEXITY))
        return 0;
    web->trigram = trigram_new((uint64_t)run_int(run, "seed"));
    for (size_t i = 0; i < run_list_count(run, "reference"); i++)
        if (texts_read(run_list_item(run, "reference", i), TEXTS_DOCUMENTS, add_reference,
                       web->trigram, err) < 0)
            return err_wrap(err, "params.reference");
    if (trigram_finish(web->trigram, err) < 0)
        return err_wrap(err, "params.reference");
    trigram_stats(web->trigram, &mu, &sigma, &texts);
    run_note(run, "reference: mean log-probability %.4f, standard deviation %.4f over %zu texts",
             mu, sigma, texts);
    return 0;
}

static int count_reference(void *argument, const char *text, size_t length, struct err *err)
{
    (void)err;
    coherence_add(argument, text, length);
    return 0;
}

static int learn_coherence(struct run *run, struct web *web, struct err *err)
{
    if (!has_stage(web, STAGE_COHERENCE))
        return 0;
    web->coherence = coherence_new((uint64_t)run_int(run, "seed"));
    for (size_t i = 0; i < run_list_count(run, "reference"); i++)
        if (texts_read(run_list_item(run, "reference", i), TEXTS_DOCUMENTS, count_reference,
                       web->coherence, err) < 0)
            return err_wrap(err, "params.reference");
    if (coherence_finish(web->coherence, run_float(run, "coherence_drop_pct"), err) < 0)
        return err_wrap(err, "params.reference, for the stage coherence");
    run_note(run, "reference: coherence of at least %.4f", coherence_limit(web->coherence));
    return 0;
}

/* Languages are asked for where limits differ by them, also without the stage language. */
static int open_limits(struct run *run, struct web *web, struct err *err)
{
    if (web->draws_limits && !has_stage(web, STAGE_GOPHER))
        return err_set(err, ERR_INVALID, "params.rules_mode is quantile, but params.stages has no "
                       "gopher, whose limits it would draw");
    if ((web->draws_limits || web->limits_by_language) && run_input(run, "langid") &&
        classifier_of(web, "langid", &web->langid, err) < 0)
        return -1;
    return limits_open(web, err);
}

static int open_inputs(struct run *run, struct web *web, struct err *err)
{
    bool judged = has_stage(web, STAGE_CLUSTER) && run_input(run, "quality");

    if (has_stage(web, STAGE_CLUSTER) && !judged && run_float(run, "cluster_drop_pct") > 0)
        return err_set(err, ERR_INVALID, "params.cluster_drop_pct asks which clusters are worst, "
                       "but inputs.quality, the classifier that would say so, is not given");
    if (open_classifier(web, has_stage(web, STAGE_LANGUAGE), "langid", "language", &web->langid,
                        &web->langid_label, err) < 0 ||
        open_classifier(web, has_stage(web, STAGE_TOXICITY), "toxicity", "toxicity_label",
                        &web->toxicity, &web->toxicity_label, err) < 0 ||
        open_classifier(web, has_stage(web, STAGE_QUALITY) || judged, "quality", "quality_label",
                        &web->quality, &web->quality_label, err) < 0 ||
        open_limits(run, web, err) < 0 || bind_scorers(web, err) < 0 || open_topics(web, err) < 0 ||
        learn_reference(run, web, err) < 0 || learn_coherence(run, web, err) < 0)
        return -1;
    if (has_stage(web, STAGE_DECONTAMINATE)) {
        if (decon_new(web, &web->decon, err) < 0)
            return -1;
        run_note(run, "%zu paragraphs of eval sets", decon_count(web->decon));
    }
    for (size_t s = 0; s < web->local_count; s++)
        if (stage_kind(web->stages[s]) == STAGE_SEEN &&
            seen_init(&web->seen[web->stages[s]], run->comm, web->has_bloom ? &web->bloom : NULL,
                      err) < 0)
            return -1;
    return 0;
}

/* A dataset's part is a file of JSON lines too. */
static int list_dataset(struct web *web, const struct run_input *input, uint64_t block_bytes,
                        struct err *err)
{
    struct dataset *dataset = NULL;
    const struct dataset_part *part;
    int rc = dataset_open(input->path, &dataset, err);

    if (rc == 0)
        rc = dataset_part(dataset, *input->part ? input->part : "all", &part, err);
    if (rc == 0 && !part->texts_path)
        rc = err_set(err, ERR_INVALID, "part '%s' of dataset '%s' has no texts", part->name,
                     dataset_name(dataset));
    if (rc == 0)
        rc = document_list_add(&web->list, part->texts_path, block_bytes, err);
    dataset_close(dataset);
    return rc < 0 ? err_wrap(err, "inputs.data") : 0;
}

static int list_documents(struct run *run, struct web *web, struct err *err)
{
    uint64_t block = (uint64_t)run_int(run, "block_bytes");
    const struct run_input *input = run_input(run, "data");

    if (!input && run_list_count(run, "documents") == 0)
        return err_set(err, ERR_INVALID, "neither params.documents nor inputs.data says which "
                       "documents to read");
    web->list.skip.count = run_list_count(run, "html_skip");
    if (web->list.skip.count > HTML_SKIP_MAX)
        return err_set(err, ERR_LIMIT, "params.html_skip: more than %d elements", HTML_SKIP_MAX);
    for (size_t i = 0; i < web->list.skip.count; i++)
        web->list.skip.names[i] = run_list_item(run, "html_skip", i);
    if (input && list_dataset(web, input, block, err) < 0)
        return -1;
    for (size_t i = 0; i < run_list_count(run, "documents"); i++)
        if (document_list_add(&web->list, run_list_item(run, "documents", i), block, err) < 0)
            return err_wrap(err, "params.documents");
    if (web->list.block_count == 0)
        return err_set(err, ERR_INVALID, "the %zu files of documents are empty",
                       web->list.file_count);
    run_note(run, "%zu blocks of %zu files", web->list.block_count, web->list.file_count);
    return 0;
}

/* ---- settings --------------------------------------------------------------------------- */

/* Parameters that change nothing in a block: what comes after, and how much is kept of it. */
static bool is_later(const char *name)
{
    static const char *const later[] = {"name", "tokenizer", "vocab_size", "min_frequency",
                                        "shard_tokens", "holdout_share", "mix", "mix_include",
                                        "mix_exclude", "card_samples",
                                        "decon_max_removal", "minhash_bands", "minhash_rows",
                                        "minhash_ngram", "minhash_jaccard", "minhash_min_words",
                                        "exact_min_words",
                                        "exact_keep", "cluster_k", "cluster_rounds",
                                        "cluster_drop_pct", "cluster_keep"};

    for (size_t i = 0; i < ARRAY_COUNT(later); i++)
        if (strcmp(later[i], name) == 0)
            return true;
    return false;
}

static void put_param(struct buf *text, const struct run *run, const struct param *param)
{
    buf_printf(text, "%s=", param->name);
    if (param->type == PARAM_INT)
        buf_printf(text, "%lld\n", (long long)run_int(run, param->name));
    else if (param->type == PARAM_FLOAT)
        buf_printf(text, "%.17g\n", run_float(run, param->name));
    else if (param->type == PARAM_BOOL)
        buf_printf(text, "%d\n", run_bool(run, param->name));
    else if (param->type != PARAM_LIST)
        buf_printf(text, "%s\n", run_string(run, param->name));
    for (size_t i = 0; param->type == PARAM_LIST && i < run_list_count(run, param->name); i++)
        buf_printf(text, "%s\n", run_list_item(run, param->name, i));
}

/* What the outcome of a block depends on: files by path and size, parameters, inputs. */
static void hash_settings(struct run *run, struct web *web)
{
    struct buf text = {0};
    struct hash hash;

    char lists[HASH_HEX_SIZE];
    hash_end(&web->lists, &hash);
    hash_to_hex(&hash, lists);
    buf_printf(&text, "web %d\nlists %s\n", run->recipe->version, lists);
    for (size_t i = 0; i < web->list.file_count; i++)
        buf_printf(&text, "%s %llu\n", web->list.files[i].path,
                   (unsigned long long)web->list.files[i].bytes);
    for (size_t i = 0; i < run->recipe->param_count; i++)
        if (!is_later(run->recipe->params[i].name))
            put_param(&text, run, &run->recipe->params[i]);
    for (size_t i = 0; i < run->recipe->input_count; i++) {
        const struct run_input *input = run_input(run, run->recipe->inputs[i].name);
        if (input)
            buf_printf(&text, "%s %s %s\n", input->input->name, input->path, input->hash);
    }
    hash_bytes(buf_text(&text), text.length, &hash);
    hash_to_hex(&hash, web->settings);
    buf_done(&text);
}

/* ---- the run ---------------------------------------------------------------------------- */

int web_open(struct run *run, struct web *web, struct err *err)
{
    web->run = run;
    if (read_scorers(run, web, err) < 0 || list_stages(run, web, err) < 0 ||
        read_rules(run, web, err) < 0 || build_check(web, err) < 0 ||
        mixing_new(web, &web->mixing, err) < 0 ||
        sorting_check(run, err) < 0 || list_documents(run, web, err) < 0 ||
        open_inputs(run, web, err) < 0)
        return -1;
    hash_settings(run, web);
    web->rounds = (web->list.block_count + run->rank_count - 1) / run->rank_count;
    run->step_count = web->draws_limits + web->rounds + (web->stage_count - web->local_count) +
                      PREPARE_STEPS;
    web->folder = mem_printf("%s/web", run->job_dir);
    return file_make_folders(web->folder, 0755, err);
}

int web_step(struct web *web, struct err *err)
{
    struct run *run = web->run;
    uint64_t groups = web->stage_count - web->local_count, step = run->step;

    if (web->draws_limits && step-- == 0)
        return limits_draw(web, err);
    if (step < web->rounds)
        return round_run(web, step, err);
    step -= web->rounds;
    if (step < groups)
        return group_run(web, web->stages[web->local_count + step], err);
    step -= groups;
    if (run->rank != 0)
        return 0;
    if (step == 0)
        return build_gather(web, err);
    return preparation_step(run, &web->preparation, step + 1, err);
}

void web_close(struct web *web)
{
    for (int s = 0; s < STAGE_END; s++)
        seen_done(&web->seen[s]);
    for (size_t i = 0; i < WEB_INPUTS_MAX; i++)
        classifier_free(web->classifiers[i]);
    for (size_t i = 0; i < web->scorer_count; i++)
        scorer_done(&web->scorers[i]);
    limits_close(web);
    trigram_free(web->trigram);
    coherence_free(web->coherence);
    decon_free(web->decon);
    group_free(web->group);
    mixing_free(web->mixing);
    byte_map_done(&web->naughty);
    blocked_done(&web->blocked);
    byte_map_done(&web->forums);
    view_done(&web->view);
    features_done(&web->features);
    document_list_done(&web->list);
    preparation_done(&web->preparation);
    buf_done(&web->off);
    mem_free(web->folder);
}
