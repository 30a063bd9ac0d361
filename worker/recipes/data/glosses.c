/* glosses.c - recipe data/glosses: WordNet's definitions and examples as sentences in context.
 *
 * A synset's sentences are its definition and its quoted examples, each ended by a full stop
 * where it has no mark of its own. Its context are the definitions of some of its hypernyms, the
 * most distant first. A document is
 *   context sentences, joined by blanks | newline | sentence | newline | sentence ...
 * with a number of hypernyms that is drawn for each synset (0: without a context; the newline
 * stays where there is but one sentence, so that a model also learns how texts begin after it).
 *
 * A synset is held out by the hash of its definition. What is held out is in no other synset's
 * context, and a pair to judge has no sentence that is trained on. Parts:
 *   train, valid    documents
 *   contexts        contexts of held-out synsets, all hypernyms, each once
 *   same, random    definition, newline, example: of one held-out synset, and of two. The same
 *                   definitions and the same examples in both, in another order */
#include "common/base/buf.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "worker/engine/data/bytemap.h"
#include "worker/engine/data/wordnet.h"
#include "worker/recipes/data/prepare.h"
#include "worker/recipes/distillation/impossible/sentence.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ANCESTORS_MAX 16

enum stream { STREAM_ANCESTORS = 1, STREAM_ORDER };

struct gloss {
    char *definition; /* a sentence */
    char **examples;  /* sentences */
    size_t example_count, example_capacity;
    bool chosen, held_out;
};

struct glosses_recipe {
    struct preparation preparation;
    struct wordnet wordnet;
    struct gloss *glosses;   /* by synset number */
    struct byte_map trained; /* sentences of synsets that are not held out */
    size_t *judged;          /* synsets with a pair to judge */
    size_t judged_count;
};

/* ---- glosses as sentences --------------------------------------------------------------- */

static bool is_trimmed(char c)
{
    return c == ' ' || c == ';' || c == ',' || c == ':';
}

/* A sentence of these bytes, or NULL where they hold none. mem_free. */
static char *sentence_of(const char *text, size_t length)
{
    while (length && is_trimmed(*text)) {
        text++;
        length--;
    }
    while (length && is_trimmed(text[length - 1]))
        length--;
    if (length < 3)
        return NULL;
    bool ended = strchr(".?!", text[length - 1]) != NULL;
    return mem_printf("%.*s%s", (int)length, text, ended ? "" : ".");
}

/* definition; "example"; "example" - what follows an example's closing quote names its source. */
static void split_gloss(const char *text, struct gloss *out)
{
    const char *quote = strchr(text, '"');

    out->definition = sentence_of(text, quote ? (size_t)(quote - text) : strlen(text));
    while (quote) {
        const char *end = strchr(quote + 1, '"');
        char *example = end ? sentence_of(quote + 1, (size_t)(end - quote - 1)) : NULL;
        if (example) {
            VEC_RESERVE(out->examples, out->example_count, out->example_capacity);
            out->examples[out->example_count++] = example;
        }
        quote = end ? strchr(end + 1, '"') : NULL;
    }
}

/* The number of a synset's first hypernym; the synset's own where it has none. */
static size_t hypernym_of(const struct wordnet *wordnet, size_t s)
{
    const struct synset *synset = &wordnet->synsets[s];

    for (size_t p = 0; p < synset->pointer_count; p++) {
        const struct synset_pointer *pointer = &synset->pointers[p];
        if (pointer->symbol[0] != '@')
            continue;
        const struct synset *found = wordnet_find(wordnet, pointer->file, pointer->offset);
        return found ? (size_t)(found - wordnet->synsets) : s;
    }
    return s;
}

/* Definitions of up to `most` of the nearest hypernyms that are not held out, nearest last. */
static size_t put_context(const struct glosses_recipe *state, size_t s, size_t most,
                          struct buf *out)
{
    const char *chain[ANCESTORS_MAX];
    size_t count = 0, at = s;

    for (size_t depth = 0; depth < 64 && count < most; depth++) { /* deeper is a circle */
        size_t up = hypernym_of(&state->wordnet, at);
        if (up == at)
            break;
        at = up;
        if (state->glosses[at].definition && !state->glosses[at].held_out)
            chain[count++] = state->glosses[at].definition;
    }
    for (size_t i = count; i-- > 0;)
        buf_printf(out, "%s%s", chain[i], i ? " " : "");
    return count;
}

/* ---- documents -------------------------------------------------------------------------- */

static void document_text(const struct run *run, const struct glosses_recipe *state, size_t s,
                          struct buf *out)
{
    const struct gloss *gloss = &state->glosses[s];
    uint64_t most = (uint64_t)run_int(run, "hypernyms") + 1;
    uint64_t draw = rng_at((uint64_t)run_int(run, "seed"), STREAM_ANCESTORS, s) % most;
    size_t above;

    buf_clear(out);
    above = put_context(state, s, (size_t)draw, out);
    if (above || gloss->example_count == 0)
        buf_putc(out, '\n');
    buf_puts(out, gloss->definition);
    for (size_t e = 0; e < gloss->example_count; e++)
        buf_printf(out, "\n%s", gloss->examples[e]);
}

static int add_document(struct run *run, struct glosses_recipe *state, size_t s, struct buf *text,
                        struct err *err)
{
    const struct synset *synset = &state->wordnet.synsets[s];
    struct preparation *preparation = &state->preparation;
    char id[48];

    snprintf(id, sizeof id, "%s.%08u", wordnet_file_name(synset->file), synset->offset);
    document_text(run, state, s, text);
    uint64_t number = preparation_add(preparation, id, buf_text(text), text->length);
    if (preparation_join(preparation, state->glosses[s].held_out ? "valid" : "train", number,
                         err) < 0)
        return -1;
    if (!state->glosses[s].held_out)
        return 0;
    buf_clear(text);
    if (put_context(state, s, (size_t)run_int(run, "hypernyms"), text) == 0)
        return 0;
    number = preparation_add(preparation, id, buf_text(text), text->length);
    return preparation_join(preparation, "contexts", number, err);
}

/* ---- pairs to judge --------------------------------------------------------------------- */

static void find_trained(struct glosses_recipe *state)
{
    for (size_t s = 0; s < state->wordnet.count; s++) {
        const struct gloss *gloss = &state->glosses[s];
        if (gloss->held_out || !gloss->definition)
            continue;
        byte_map_put(&state->trained, gloss->definition, strlen(gloss->definition));
        for (size_t e = 0; e < gloss->example_count; e++)
            byte_map_put(&state->trained, gloss->examples[e], strlen(gloss->examples[e]));
    }
}

static bool is_judged(const struct glosses_recipe *state, const char *text)
{
    return sentence_first(text, strlen(text)) == strlen(text) &&
           byte_map_find(&state->trained, text, strlen(text)) == BYTE_MAP_NONE;
}

/* Held-out synsets whose definition and first example are one sentence each that no other synset
 * has, in a random order, at most as many as asked for. */
static void choose_judged(struct run *run, struct glosses_recipe *state)
{
    size_t most = (size_t)run_int(run, "judged"), count = 0;
    struct rng rng;

    find_trained(state);
    state->judged = mem_array(state->wordnet.count + 1, sizeof *state->judged);
    for (size_t s = 0; s < state->wordnet.count; s++) {
        const struct gloss *gloss = &state->glosses[s];
        if (gloss->chosen && gloss->held_out && gloss->example_count &&
            is_judged(state, gloss->definition) && is_judged(state, gloss->examples[0]))
            state->judged[count++] = s;
    }
    rng_init(&rng, rng_at((uint64_t)run_int(run, "seed"), STREAM_ORDER, 0));
    for (size_t i = count; i > 1; i--) {
        size_t j = (size_t)rng_below(&rng, i), other = state->judged[i - 1];
        state->judged[i - 1] = state->judged[j];
        state->judged[j] = other;
    }
    state->judged_count = count < most ? count : most;
}

static int add_pair(struct glosses_recipe *state, const char *part, size_t x, size_t y,
                    struct err *err)
{
    struct preparation *preparation = &state->preparation;
    char *text = mem_printf("%s\n%s", state->glosses[x].definition, state->glosses[y].examples[0]);
    char *id = mem_printf("%s.%zu.%zu", part, x, y);
    uint64_t number = preparation_add(preparation, id, text, strlen(text));
    int rc = preparation_join(preparation, part, number, err);

    mem_free(text);
    mem_free(id);
    return rc;
}

/* In a random order the next synset's example is that of any other. */
static int add_pairs(struct run *run, struct glosses_recipe *state, struct err *err)
{
    choose_judged(run, state);
    for (size_t i = 0; i < state->judged_count && state->judged_count > 1; i++) {
        size_t s = state->judged[i], other = state->judged[(i + 1) % state->judged_count];
        if (add_pair(state, "same", s, s, err) < 0 || add_pair(state, "random", s, other, err) < 0)
            return -1;
    }
    return 0;
}

/* ---- the recipe ------------------------------------------------------------------------- */

static int read_glosses(struct run *run, struct glosses_recipe *state, struct err *err)
{
    const char *lexfile = run_string(run, "lexfile");
    unsigned wanted = WORDNET_LEXFILE_END;

    if (*lexfile && wordnet_lexfile_find(lexfile, &wanted, err) < 0)
        return err_wrap(err, "params.lexfile");
    if (wordnet_read(run_string(run, "source_dir"), &state->wordnet, err) < 0)
        return err_wrap(err, "params.source_dir (Debian: apt-get install wordnet-base)");
    state->glosses = mem_array(state->wordnet.count + 1, sizeof *state->glosses);
    for (size_t s = 0; s < state->wordnet.count; s++) {
        const struct synset *synset = &state->wordnet.synsets[s];
        struct gloss *gloss = &state->glosses[s];
        split_gloss(synset->gloss, gloss);
        gloss->chosen = gloss->definition &&
                        (wanted == WORDNET_LEXFILE_END || synset->lexfile == wanted);
        if (gloss->definition)
            gloss->held_out =
                preparation_is_held_out(run, gloss->definition, strlen(gloss->definition));
    }
    return 0;
}

static int gather(struct run *run, struct glosses_recipe *state, struct err *err)
{
    struct buf text = {0};
    int rc = 0;

    run->phase = "documents";
    if (read_glosses(run, state, err) < 0)
        return -1;
    for (size_t s = 0; s < state->wordnet.count && rc == 0; s++)
        if (state->glosses[s].chosen)
            rc = add_document(run, state, s, &text, err);
    buf_done(&text);
    if (rc < 0 || add_pairs(run, state, err) < 0)
        return -1;
    if (!preparation_part(&state->preparation, "train"))
        return err_set(err, ERR_INVALID, "no document is left to train on: choose another lexfile "
                       "or a smaller holdout_share");
    run_note(run, "%zu pairs to judge, and as many of two synsets", state->judged_count);
    return 0;
}

static int glosses_open(struct run *run, void *state, struct err *err)
{
    (void)state;
    (void)err;
    run->step_count = PREPARE_STEPS;
    return 0;
}

static int glosses_step(struct run *run, void *opaque, struct err *err)
{
    struct glosses_recipe *state = opaque;

    if (run->rank != 0)
        return 0;
    return run->step == 0 ? gather(run, state, err)
                          : preparation_step(run, &state->preparation, run->step + 1, err);
}

static void glosses_close(struct run *run, void *opaque)
{
    struct glosses_recipe *state = opaque;

    (void)run;
    for (size_t s = 0; state->glosses && s < state->wordnet.count; s++) {
        for (size_t e = 0; e < state->glosses[s].example_count; e++)
            mem_free(state->glosses[s].examples[e]);
        mem_free(state->glosses[s].examples);
        mem_free(state->glosses[s].definition);
    }
    mem_free(state->glosses);
    byte_map_done(&state->trained);
    mem_free(state->judged);
    wordnet_done(&state->wordnet);
    preparation_done(&state->preparation);
}

static const struct param glosses_params[] = {
    {"source_dir", PARAM_STRING, "/usr/share/wordnet", 0, 0, NULL,
     "folder that holds data.noun, data.verb, data.adj and data.adv"},
    {"lexfile", PARAM_STRING, "", 0, 0, NULL,
     "lexicographer file whose synsets become documents; empty: all 117,659 synsets"},
    {"hypernyms", PARAM_INT, "3", 1, ANCESTORS_MAX, NULL,
     "most definitions of a context; a document has a random number of them, from 0"},
    {"judged", PARAM_INT, "1000", 0, 1e6, NULL,
     "most pairs of a held-out definition and an example, in each of the parts same and random"},
    PREPARE_PARAMS,
};

const struct recipe recipe_data_glosses = {
    .name = "glosses",
    .kind = RECIPE_DATA,
    .version = 1,
    .summary = "WordNet's definitions and examples as sentences after those of their hypernyms",
    .source = "WordNet 3.0 (Miller 1995); hypernym chains as contexts: Athanor",
    .params = glosses_params,
    .param_count = ARRAY_COUNT(glosses_params),
    .outputs = "dataset|metrics",
    .state_size = sizeof(struct glosses_recipe),
    .open = glosses_open,
    .step = glosses_step,
    .close = glosses_close,
};
