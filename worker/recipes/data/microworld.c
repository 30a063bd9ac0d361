/* microworld.c - recipe data/microworld: a language with an exact oracle, as a dataset.
 *
 * Parts: train and valid (a context, a newline, a sentence of its fact; held out by text),
 * contexts (whole contexts of trained facts, without their sentences), test (sentences of facts
 * that are in none of these); where they are asked for fresh (more documents of trained facts, for
 * a student that is to see few) and unseen (documents of the facts of test). */
#include "common/base/mem.h"
#include "worker/recipes/data/prepare.h"
#include "worker/recipes/text/microworld.h"

#include <stdio.h>

struct microworld_recipe {
    struct preparation preparation;
    unsigned order[MICROWORLD_FACTS]; /* test facts, then trained ones, then unused ones */
};

/* Fisher and Yates, by the seed alone. */
static void shuffle_facts(struct microworld_recipe *state, struct rng *rng)
{
    for (unsigned i = 0; i < MICROWORLD_FACTS; i++)
        state->order[i] = i;
    for (unsigned i = MICROWORLD_FACTS - 1; i > 0; i--) {
        unsigned j = (unsigned)rng_below(rng, i + 1), held = state->order[i];
        state->order[i] = state->order[j];
        state->order[j] = held;
    }
}

static int add(struct microworld_recipe *state, const char *part, unsigned fact, int64_t number,
               const struct buf *text, struct err *err)
{
    char id[64];

    snprintf(id, sizeof id, "%s.%u.%lld", part, fact, (long long)number);
    return preparation_join(&state->preparation, part,
                            preparation_add(&state->preparation, id, buf_text(text), text->length),
                            err);
}

/* Facts of order[from .. from + count - 1]. */
struct share {
    unsigned from, count;
};

/* `documents` random contexts with their sentences. part: NULL for train and valid. */
static int add_documents(struct run *run, struct microworld_recipe *state, const char *part,
                         const struct share *facts, int64_t documents, struct rng *rng,
                         struct err *err)
{
    struct buf text = {0};
    int rc = 0;

    for (int64_t i = 0; i < documents && rc == 0; i++) {
        unsigned number = state->order[facts->from + rng_below(rng, facts->count)];
        struct fact fact = microworld_fact(number);
        buf_clear(&text);
        microworld_context(&fact, 1 + (unsigned)rng_below(rng, MICROWORLD_SENTENCES), rng, &text);
        buf_putc(&text, '\n');
        microworld_sentence(&fact, rng, &text);
        bool held_out = !part && preparation_is_held_out(run, buf_text(&text), text.length);
        rc = add(state, part ? part : held_out ? "valid" : "train", number, i, &text, err);
    }
    buf_done(&text);
    return rc;
}

/* Contexts to sample after, and sentences to rewrite. */
static int add_tasks(struct run *run, struct microworld_recipe *state, unsigned test,
                     unsigned trained, struct rng *rng, struct err *err)
{
    unsigned least = (unsigned)run_int(run, "context_min");
    unsigned more = (unsigned)run_int(run, "context_max") - least;
    struct buf text = {0};
    int rc = 0;

    for (int64_t i = 0; i < run_int(run, "contexts") && rc == 0; i++) {
        unsigned number = state->order[test + rng_below(rng, trained)];
        struct fact fact = microworld_fact(number);
        buf_clear(&text);
        microworld_context(&fact, least + (unsigned)rng_below(rng, more + 1), rng, &text);
        rc = add(state, "contexts", number, i, &text, err);
    }
    for (unsigned i = 0; i < test && rc == 0; i++) {
        struct fact fact = microworld_fact(state->order[i]);
        buf_clear(&text);
        microworld_sentence(&fact, rng, &text);
        rc = add(state, "test", state->order[i], i, &text, err);
    }
    buf_done(&text);
    return rc;
}

static int write_texts(struct run *run, struct microworld_recipe *state, struct err *err)
{
    unsigned test = (unsigned)run_int(run, "test_facts");
    struct share tested = {0, test}, trained = {test, (unsigned)run_int(run, "train_facts")};
    struct rng rng;

    run->phase = "documents";
    rng_init(&rng, (uint64_t)run_int(run, "seed"));
    shuffle_facts(state, &rng);
    if (add_documents(run, state, NULL, &trained, run_int(run, "documents"), &rng, err) < 0 ||
        add_tasks(run, state, test, trained.count, &rng, err) < 0 ||
        add_documents(run, state, "fresh", &trained, run_int(run, "fresh"), &rng, err) < 0 ||
        add_documents(run, state, "unseen", &tested, run_int(run, "unseen"), &rng, err) < 0)
        return -1;
    if (!preparation_part(&state->preparation, "train"))
        return err_set(err, ERR_INVALID, "no document is left to train on: ask for more documents "
                                         "or a smaller holdout_share");
    return 0;
}

static int microworld_open(struct run *run, void *state, struct err *err)
{
    int64_t facts = run_int(run, "test_facts") + run_int(run, "train_facts");

    (void)state;
    run->step_count = PREPARE_STEPS;
    if (facts > MICROWORLD_FACTS)
        return err_set(err, ERR_INVALID,
                       "test_facts and train_facts are %lld together; the world has %d facts",
                       (long long)facts, MICROWORLD_FACTS);
    if (run_int(run, "context_min") > run_int(run, "context_max"))
        return err_set(err, ERR_INVALID, "context_min is %lld, more than context_max, %lld",
                       (long long)run_int(run, "context_min"),
                       (long long)run_int(run, "context_max"));
    return 0;
}

static int microworld_step(struct run *run, void *opaque, struct err *err)
{
    struct microworld_recipe *state = opaque;

    if (run->rank != 0)
        return 0;
    return run->step == 0 ? write_texts(run, state, err)
                          : preparation_step(run, &state->preparation, run->step + 1, err);
}

static void microworld_close(struct run *run, void *opaque)
{
    (void)run;
    preparation_done(&((struct microworld_recipe *)opaque)->preparation);
}

static const struct param microworld_params[] = {
    {"documents", PARAM_INT, "48000", 1, 1e8, NULL,
     "contexts with their sentence, of which holdout_share goes to valid"},
    {"train_facts", PARAM_INT, "2000", 1, MICROWORLD_FACTS, NULL,
     "facts that documents and contexts tell of"},
    {"test_facts", PARAM_INT, "400", 1, MICROWORLD_FACTS, NULL,
     "other facts, one sentence each, in the part test"},
    {"contexts", PARAM_INT, "200", 1, 1e7, NULL, "contexts without a sentence"},
    {"context_min", PARAM_INT, "3", 1, MICROWORLD_SENTENCES, NULL,
     "fewest sentences of a context in the part contexts"},
    {"context_max", PARAM_INT, "4", 1, MICROWORLD_SENTENCES, NULL, "most sentences there"},
    {"fresh", PARAM_INT, "0", 0, 1e8, NULL,
     "documents of the trained facts, drawn anew, in the part fresh"},
    {"unseen", PARAM_INT, "0", 0, 1e8, NULL, "documents of the test facts, in the part unseen"},
    PREPARE_PARAMS,
};

const struct recipe recipe_data_microworld = {
    .name = "microworld",
    .kind = RECIPE_DATA,
    .version = 1,
    .summary = "A tiny language whose entailments are exact, to check distillation by",
    .source = "Athanor, after Jung et al. 2024; words: WordNet 3.0 (Miller 1995)",
    .params = microworld_params,
    .param_count = ARRAY_COUNT(microworld_params),
    .outputs = "dataset|metrics",
    .state_size = sizeof(struct microworld_recipe),
    .open = microworld_open,
    .step = microworld_step,
    .close = microworld_close,
};
