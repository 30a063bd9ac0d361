/* entailment.c - recipe data/entailment: pairs of sentences with a label, for finetuning/classify.
 *
 * A document is x, a newline, y, a newline and the label. From files (pair_line.h) or, without
 * any, from WordNet by substitution.h. Parts:
 *   train, valid   from files: split by x, so that a premise is on one side only;
 *                  from WordNet: by frame, so that valid has sentences never trained on
 *   new_relations  WordNet: pairs of nouns that train never puts against each other
 *   texts          the pairs of train without their label: for a model that is to write such
 *                  sentences, entailed or not
 *   contexts       every x of valid alone: what that model may go on from */
#include "common/base/buf.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "worker/recipes/data/pair_line.h"
#include "worker/recipes/data/prepare.h"
#include "worker/recipes/data/substitution.h"

#include <stdio.h>
#include <string.h>

#define FILE_BYTES_MAX ((size_t)1 << 34)

struct entailment {
    struct preparation preparation;
    uint64_t number; /* of the next document */
};

static int add_text(struct entailment *state, const char *part, uint64_t number, const char *text,
                    struct err *err)
{
    char id[48];

    snprintf(id, sizeof id, "%s.%llu", part, (unsigned long long)number);
    return preparation_join(&state->preparation, part,
                            preparation_add(&state->preparation, id, text, strlen(text)), err);
}

static int add(struct entailment *state, const char *part, const char *x, const char *y,
               const char *label, struct err *err)
{
    char *pair = mem_printf("%s\n%s", x, y), *text = mem_printf("%s\n%s", pair, label);
    int rc = add_text(state, part, state->number, text, err);

    if (rc == 0 && strcmp(part, "train") == 0)
        rc = add_text(state, "texts", state->number, pair, err);
    if (rc == 0 && strcmp(part, "valid") == 0)
        rc = add_text(state, "contexts", state->number, x, err);
    state->number++;
    mem_free(pair);
    mem_free(text);
    return rc;
}

static const char *side_of(const struct run *run, const char *text)
{
    return preparation_is_held_out(run, text, strlen(text)) ? "valid" : "train";
}

/* ---- files ------------------------------------------------------------------------------ */

static int add_line(struct run *run, struct entailment *state, const char *line, size_t length,
                    struct err *err)
{
    struct pair_line pair = {0};
    size_t blank = strspn(line, " \t\r");

    if (blank >= length)
        return 0;
    if (pair_line_parse(line, length, &pair, err) < 0)
        return -1;
    int rc = add(state, side_of(run, pair.x), pair.x, pair.y, pair.label, err);
    pair_line_done(&pair);
    return rc;
}

static int read_pairs(struct run *run, struct entailment *state, const char *path, struct err *err)
{
    char *bytes = NULL;
    size_t length, number = 0;
    int rc = file_read(path, FILE_BYTES_MAX, &bytes, &length, err);

    for (char *at = bytes; rc == 0 && at < bytes + length;) {
        char *end = memchr(at, '\n', (size_t)(bytes + length - at));
        size_t line = (size_t)((end ? end : bytes + length) - at);
        number++;
        if (add_line(run, state, at, line, err) < 0)
            rc = err_wrap(err, "%s:%zu", path, number);
        at += line + 1;
    }
    mem_free(bytes);
    return rc;
}

/* ---- WordNet ---------------------------------------------------------------------------- */

static int draw_pairs(struct run *run, struct entailment *state,
                      const struct substitution *substitution, struct err *err)
{
    uint64_t seed = (uint64_t)run_int(run, "seed");
    double held = run_float(run, "new_relations");
    struct substituted pair = {0};
    struct rng rng;
    int rc = 0;

    rng_init(&rng, seed);
    for (int64_t i = 0; i < run_int(run, "documents") && rc == 0; i++) {
        substitution_draw(substitution, &rng, &pair);
        const char *part = rng_unit_at(seed, pair.relation, 1) < held
                               ? "new_relations"
                               : side_of(run, substitution_frame(substitution, pair.frame));
        rc = add(state, part, buf_text(&pair.x), buf_text(&pair.y), pair.label, err);
    }
    buf_done(&pair.x);
    buf_done(&pair.y);
    return rc;
}

static int read_wordnet(struct run *run, struct entailment *state, struct err *err)
{
    struct substitution *substitution = NULL;
    struct wordnet wordnet;

    if (wordnet_read(run_string(run, "source_dir"), &wordnet, err) < 0)
        return err_wrap(err, "params.source_dir (Debian's package wordnet-base has the files)");
    int rc = substitution_open(&wordnet, (size_t)run_int(run, "families"),
                               (size_t)run_int(run, "nouns"), &substitution, err);
    if (rc == 0) {
        run_note(run, "%zu frames, %zu families", substitution_frame_count(substitution),
                 substitution_family_count(substitution));
        rc = draw_pairs(run, state, substitution, err);
    }
    substitution_close(substitution);
    wordnet_done(&wordnet);
    return rc;
}

/* ---- the recipe ------------------------------------------------------------------------- */

static int write_texts(struct run *run, struct entailment *state, struct err *err)
{
    size_t files = run_list_count(run, "files");

    run->phase = "documents";
    for (size_t i = 0; i < files; i++)
        if (read_pairs(run, state, run_list_item(run, "files", i), err) < 0)
            return err_wrap(err, "params.files");
    if (files == 0 && read_wordnet(run, state, err) < 0)
        return -1;
    if (!preparation_part(&state->preparation, "train"))
        return err_set(err, ERR_INVALID, "no pair is left to train on: give more of them, or a "
                                         "smaller holdout_share");
    return 0;
}

static int entailment_open(struct run *run, void *state, struct err *err)
{
    (void)state;
    (void)err;
    run->step_count = PREPARE_STEPS;
    return 0;
}

static int entailment_step(struct run *run, void *opaque, struct err *err)
{
    struct entailment *state = opaque;

    if (run->rank != 0)
        return 0;
    return run->step == 0 ? write_texts(run, state, err)
                          : preparation_step(run, &state->preparation, run->step + 1, err);
}

static void entailment_close(struct run *run, void *opaque)
{
    (void)run;
    preparation_done(&((struct entailment *)opaque)->preparation);
}

static const struct param entailment_params[] = {
    {"files", PARAM_LIST, "", 0, 0, NULL,
     "files of pairs, a line each: {\"x\": ..., \"y\": ..., \"label\": ...}; none: from WordNet"},
    {"source_dir", PARAM_STRING, "/usr/share/wordnet", 0, 0, NULL,
     "folder of the WordNet database"},
    {"documents", PARAM_INT, "20000", 1, 1e8, NULL, "pairs drawn from WordNet"},
    {"families", PARAM_INT, "24", 1, 1e6, NULL, "synsets whose nouns are put for each other"},
    {"nouns", PARAM_INT, "6", 2, 1000, NULL, "most nouns of a family"},
    {"new_relations", PARAM_FLOAT, "0.05", 0, 0.9, NULL,
     "share of the pairs of nouns that only the part new_relations has"},
    PREPARE_PARAMS,
};

const struct recipe recipe_data_entailment = {
    .name = "entailment",
    .kind = RECIPE_DATA,
    .version = 1,
    .summary = "Pairs of sentences with a label, from files or by WordNet's hypernyms",
    .source = "Athanor; labels as Bowman et al. 2015 (SNLI); WordNet 3.0 (Miller 1995)",
    .params = entailment_params,
    .param_count = ARRAY_COUNT(entailment_params),
    .outputs = "dataset|metrics",
    .state_size = sizeof(struct entailment),
    .open = entailment_open,
    .step = entailment_step,
    .close = entailment_close,
};
