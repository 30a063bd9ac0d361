/* impossible.c - recipe distillation/impossible: Impossible Distillation as one job.
 *
 *   pairs, student, eval-teacher, eval-student, then for each round of self-distillation
 *   pairs-1, student-1, eval-1, ...
 *
 * and with control_codes at the end
 *
 *   codes, student-codes, eval-codes
 *
 * Each is a stage (stage.h): data/pairs, data/codes, finetuning/sft, eval/rewrite or eval/control
 * with the parameters that a pipeline of jobs would give them, so both make the same bytes. A step
 * of a stage is a step of the job; a killed job goes on in the stage where it was. Stages without
 * a model to save leave files (blocks of pairs), so the job's own checkpoints are of the training,
 * and the last one is the student that came out. */
#include "common/base/hash.h"
#include "common/base/mem.h"
#include "worker/engine/comm.h"
#include "worker/recipes/arch.h"
#include "worker/recipes/distillation/impossible/pairs.h"
#include "worker/recipes/stage.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum act {
    ACT_PAIRS,
    ACT_STUDENT,
    ACT_EVAL_TEACHER,
    ACT_EVAL,
    ACT_CODES,
    ACT_STUDENT_CODES,
    ACT_EVAL_CODES,
};

/* What a record of a stage holds, by act. */
enum { VALUE_CONTEXTS, VALUE_TAU, VALUE_ACCEPTED }; /* pairs */
enum { VALUE_SUCCESS };                             /* evaluations */

struct impossible {
    struct stage stage; /* at hand */
    bool running;       /* false: all stages are done */
    enum act act;
    int64_t round;      /* 0: the first student; then of self-distillation */
    unsigned begun;     /* stages, this one included */
    uint64_t base;      /* steps of those that are done */
    uint64_t train_steps;
    uint64_t next_context;
    double tau, accepted, success, success_before;
    char *dataset; /* folder of the newest */
    char *student, *student_hash, *student_name; /* the newest; NULL: none yet */
    char phase[160];
};

static bool is(const char *text, const char *word)
{
    return strcmp(text, word) == 0;
}

/* ---- names and places ------------------------------------------------------------------- */

static char *name_of(enum act act, int64_t round)
{
    static const char *const names[] = {"pairs", "student",       "eval-teacher", "eval",
                                        "codes", "student-codes", "eval-codes"};

    if (act == ACT_EVAL && round == 0)
        return mem_strdup("eval-student");
    if (round == 0 || act >= ACT_CODES)
        return mem_strdup(names[act]);
    return mem_printf("%s-%lld", names[act], (long long)round);
}

static char *dataset_of(const struct run *run, int64_t round)
{
    const char *name = *run_string(run, "name") ? run_string(run, "name") : run->name;

    return round ? mem_printf("%s-self%lld", name, (long long)round) : mem_strdup(name);
}

static char *dataset_folder(const struct run *run, int64_t round)
{
    char *stage = name_of(ACT_PAIRS, round), *name = dataset_of(run, round);
    char *rest = mem_printf("datasets/%s", name), *path = stage_path(run, stage, rest);

    mem_free(stage);
    mem_free(name);
    mem_free(rest);
    return path;
}

static char *codes_name(const struct run *run)
{
    char *pairs = dataset_of(run, 0), *name = mem_printf("%s-codes", pairs);

    mem_free(pairs);
    return name;
}

static char *codes_folder(const struct run *run)
{
    char *name = codes_name(run), *rest = mem_printf("datasets/%s", name);
    char *path = stage_path(run, "codes", rest);

    mem_free(name);
    mem_free(rest);
    return path;
}

/* Whether the dataset has a part, and how many documents: the same on all ranks. */
static int part_size(const char *folder, const char *part, uint64_t *out, struct err *err)
{
    struct dataset *dataset = NULL;
    const struct dataset_part *found = NULL;
    int rc = dataset_open(folder, &dataset, err);

    *out = 0;
    if (rc == 0 && dataset_has_part(dataset, part))
        rc = dataset_part(dataset, part, &found, err);
    if (rc == 0 && found)
        *out = found->document_count;
    dataset_close(dataset);
    return rc;
}

/* ---- plans ------------------------------------------------------------------------------ */

static void copy_input(struct stage_plan *plan, const char *to, const struct run_input *from)
{
    stage_plan_input(plan, to, from->path, from->ref, from->part, from->hash);
}

static void student_input(const struct impossible *state, struct stage_plan *plan, const char *to)
{
    char *ref = mem_printf("stage:%s", state->student_name);

    stage_plan_input(plan, to, state->student, ref, "", state->student_hash);
    mem_free(ref);
}

static void plan_pairs(struct run *run, const struct impossible *state, struct stage_plan *plan)
{
    const char *pick = run_string(run, "self_pick");
    char *name = dataset_of(run, state->round);

    plan->kind = "data";
    plan->recipe = "pairs";
    plan->params = json_pack("{s:s, s:I}", "name", name, "first_context",
                             (json_int_t)state->next_context);
    CHECK(plan->params);
    mem_free(name);
    if (state->round == 0)
        return;
    plan->prefix[0] = "self_";
    if (is(pick, "all"))
        json_object_set_new(plan->params, "diversity", json_false());
    else
        json_object_set_new(plan->params, "keep", json_string(pick));
    student_input(state, plan, "student");
}

static const char *first_weights(const struct run *run)
{
    const char *init = run_string(run, "student_init");

    return !is(init, "auto") ? init : run_input(run, "init") ? "checkpoint" : "teacher";
}

/* Where training begins: the input of sft, or none for new weights. */
static void plan_init(struct run *run, const struct impossible *state, struct stage_plan *plan)
{
    const char *init = first_weights(run);

    if (state->round && is(run_string(run, "self_train_from"), "student"))
        student_input(state, plan, "init");
    else if (is(init, "teacher"))
        copy_input(plan, "init", run_input(run, "teacher"));
    else if (is(init, "checkpoint"))
        copy_input(plan, "init", run_input(run, "init"));
}

static void plan_dataset(const struct run *run, const struct impossible *state,
                         struct stage_plan *plan, const char *input, const char *part)
{
    char *name = dataset_of(run, state->round), *ref = mem_printf("dataset:%s/%s", name, part);

    stage_plan_input(plan, input, state->dataset, ref, part, "");
    mem_free(name);
    mem_free(ref);
}

/* Steps of a training: as the parameters say, or what its epochs take. */
static uint64_t steps_for(const struct run *run, int64_t round, uint64_t documents)
{
    int64_t given = round ? run_int(run, "self_steps") : 0, epochs = 0;
    uint64_t batch = (uint64_t)run_int(run, "student_batch");

    if (round)
        epochs = run_int(run, "self_epochs");
    if (given == 0 && epochs == 0) {
        given = run_int(run, "student_steps");
        epochs = run_int(run, "student_epochs");
    }
    if (given)
        return (uint64_t)given;
    return max_u64(1, (documents * (uint64_t)epochs + batch - 1) / batch);
}

static int plan_student(struct run *run, const struct impossible *state, struct stage_plan *plan,
                        struct err *err)
{
    double rate = state->round ? run_float(run, "self_learning_rate") : 0;
    uint64_t train, valid;

    if (part_size(state->dataset, "train", &train, err) < 0 ||
        part_size(state->dataset, "valid", &valid, err) < 0)
        return -1;
    plan->kind = "finetuning";
    plan->recipe = "sft";
    plan->prefix[0] = "student_";
    plan->params = json_pack("{s:I}", "steps", (json_int_t)steps_for(run, state->round, train));
    CHECK(plan->params);
    if (rate > 0)
        json_object_set_new(plan->params, "learning_rate", json_real(rate));
    plan_init(run, state, plan);
    plan_dataset(run, state, plan, "data", "train");
    if (valid)
        plan_dataset(run, state, plan, "valid", "valid");
    return 0;
}

static void plan_eval(struct run *run, const struct impossible *state, struct stage_plan *plan)
{
    const struct run_input *judge = run_input(run, "judge");
    const char *critic = critic_resolve(run_string(run, "critic"), judge ? judge->path : NULL);
    bool scaled = is(critic, "oracle") || is(critic, "nli");
    /* The threshold that the pairs were judged with; without a semantic critic its default. */
    double tau = run_float(run, "tau") <= -100 && scaled ? 0 : state->tau;

    plan->kind = "eval";
    plan->recipe = "rewrite";
    plan->prefix[0] = "eval_";
    plan->params = json_pack("{s:f}", "tau", tau);
    CHECK(plan->params);
    if (state->act == ACT_EVAL_TEACHER)
        copy_input(plan, "model", run_input(run, "teacher"));
    else
        student_input(state, plan, "model");
    copy_input(plan, "judge", judge ? judge : run_input(run, "teacher"));
    if (run_input(run, "test"))
        copy_input(plan, "data", run_input(run, "test"));
    else
        plan_dataset(run, state, plan, "data", "valid");
}

/* The newest dataset with codes before its sources, and the newest student, trained on it. */
static void plan_codes(struct run *run, const struct impossible *state, struct stage_plan *plan)
{
    char *name = codes_name(run), *pairs = dataset_of(run, state->round);
    char *ref = mem_printf("dataset:%s", pairs);

    plan->kind = "data";
    plan->recipe = "codes";
    plan->prefix[0] = "control_";
    plan->params = json_pack("{s:s}", "name", name);
    CHECK(plan->params);
    stage_plan_input(plan, "pairs", state->dataset, ref, "", "");
    mem_free(name);
    mem_free(pairs);
    mem_free(ref);
}

static void codes_input(const struct run *run, struct stage_plan *plan, const char *input)
{
    char *folder = codes_folder(run), *name = codes_name(run);
    char *ref = mem_printf("dataset:%s/train", name);

    stage_plan_input(plan, input, folder, ref, "train", "");
    mem_free(folder);
    mem_free(name);
    mem_free(ref);
}

static int plan_student_codes(struct run *run, const struct impossible *state,
                              struct stage_plan *plan, struct err *err)
{
    double rate = run_float(run, "control_learning_rate");
    int64_t steps = run_int(run, "control_steps");
    char *folder = codes_folder(run);
    uint64_t train;
    int rc = part_size(folder, "train", &train, err);

    mem_free(folder);
    if (rc < 0)
        return -1;
    plan->kind = "finetuning";
    plan->recipe = "sft";
    plan->prefix[0] = "student_";
    plan->params = json_pack("{s:I}", "steps", (json_int_t)(steps ? (uint64_t)steps
                                                                  : steps_for(run, 0, train)));
    CHECK(plan->params);
    if (rate > 0)
        json_object_set_new(plan->params, "learning_rate", json_real(rate));
    student_input(state, plan, "init");
    codes_input(run, plan, "data");
    return 0;
}

static void plan_eval_codes(struct run *run, const struct impossible *state,
                            struct stage_plan *plan)
{
    plan->kind = "eval";
    plan->recipe = "control";
    plan->prefix[0] = "eval_";
    student_input(state, plan, "model");
    codes_input(run, plan, "codes");
    if (run_input(run, "test"))
        copy_input(plan, "data", run_input(run, "test"));
    else
        plan_dataset(run, state, plan, "data", "valid");
}

static int plan_stage(struct run *run, const struct impossible *state, struct stage_plan *plan,
                      struct err *err)
{
    switch (state->act) {
    case ACT_PAIRS:
        plan_pairs(run, state, plan);
        return 0;
    case ACT_STUDENT:
        return plan_student(run, state, plan, err);
    case ACT_CODES:
        plan_codes(run, state, plan);
        return 0;
    case ACT_STUDENT_CODES:
        return plan_student_codes(run, state, plan, err);
    case ACT_EVAL_CODES:
        plan_eval_codes(run, state, plan);
        return 0;
    case ACT_EVAL_TEACHER:
    case ACT_EVAL:
        break;
    }
    plan_eval(run, state, plan);
    return 0;
}

/* ---- which stage follows ---------------------------------------------------------------- */

/* What a stage left becomes the input of later ones. */
static int take(struct run *run, struct impossible *state, const char *name,
                const struct stage_record *record, struct err *err)
{
    struct hash hash;
    char *manifest, hex[HASH_HEX_SIZE];

    state->base += record->steps;
    if (state->act == ACT_PAIRS) {
        state->next_context += (uint64_t)record->values[VALUE_CONTEXTS];
        state->tau = record->values[VALUE_TAU];
        state->accepted = record->values[VALUE_ACCEPTED];
        mem_free(state->dataset);
        state->dataset = dataset_folder(run, state->round);
    } else if (state->act == ACT_EVAL_TEACHER || state->act == ACT_EVAL) {
        state->success_before = state->act == ACT_EVAL_TEACHER ? -INFINITY : state->success;
        state->success = record->values[VALUE_SUCCESS];
    } else if (state->act == ACT_STUDENT || state->act == ACT_STUDENT_CODES) {
        mem_free(state->student);
        mem_free(state->student_hash);
        mem_free(state->student_name);
        state->student = stage_model(run, name, record->steps);
        state->student_name = mem_strdup(name);
        manifest = mem_printf("%s/manifest.json", state->student);
        int rc = hash_file(manifest, &hash, err);
        mem_free(manifest);
        hash_to_hex(&hash, hex);
        state->student_hash = mem_strdup(rc < 0 ? "" : hex);
        state->train_steps = record->steps;
        return rc;
    }
    return 0;
}

static int can_evaluate(const struct run *run, const struct impossible *state, bool *out,
                        struct err *err)
{
    uint64_t held_out = 0;

    if (!run_input(run, "test") && part_size(state->dataset, "valid", &held_out, err) < 0)
        return -1;
    *out = run_input(run, "test") || held_out > 0;
    return 0;
}

/* Why self-distillation ends before its last round; NULL: it goes on. */
static const char *enough(const struct run *run, const struct impossible *state)
{
    if (state->act == ACT_PAIRS && state->round &&
        state->accepted > run_float(run, "self_kept_most"))
        return "self_kept_most: the critics accept nearly all that the student writes";
    if (state->act == ACT_EVAL && state->round &&
        state->success - state->success_before < run_float(run, "self_min_gain"))
        return "self_min_gain: the last round did not help enough";
    return NULL;
}

/* After the last round: codes, where they are wanted. */
static int follow_last(struct run *run, struct impossible *state, bool *out)
{
    *out = !is(run_string(run, "control_codes"), "off");
    state->act = ACT_CODES;
    return 0;
}

static int follow_codes(struct run *run, struct impossible *state, bool *out, struct err *err)
{
    *out = true;
    if (state->act == ACT_CODES) {
        state->act = ACT_STUDENT_CODES;
        return 0;
    }
    if (state->act == ACT_EVAL_CODES) {
        *out = false;
        return 0;
    }
    state->act = ACT_EVAL_CODES;
    return can_evaluate(run, state, out, err);
}

/* Sets act and round; *out false: there is no further stage. */
static int follow(struct run *run, struct impossible *state, bool *out, struct err *err)
{
    const char *why = enough(run, state);
    bool evaluates = false;

    *out = true;
    if (why) {
        run_note(run, "no further round: %s", why);
        return follow_last(run, state, out);
    }
    if (state->act >= ACT_CODES)
        return follow_codes(run, state, out, err);
    if (state->act == ACT_PAIRS) {
        state->act = ACT_STUDENT;
        return 0;
    }
    if (state->act == ACT_STUDENT && can_evaluate(run, state, &evaluates, err) < 0)
        return -1;
    if (evaluates) {
        state->act = state->round ? ACT_EVAL : ACT_EVAL_TEACHER;
        return 0;
    }
    if (state->act == ACT_EVAL_TEACHER) {
        state->act = ACT_EVAL;
        return 0;
    }
    if (state->round >= run_int(run, "self_rounds"))
        return follow_last(run, state, out);
    state->round++;
    state->act = ACT_PAIRS;
    return 0;
}

/* Stages and their steps to come after the one at hand, as far as can be told: for people. */
static uint64_t guess_rest(const struct run *run, const struct impossible *state,
                           unsigned *out_stages)
{
    int64_t rounds = run_int(run, "self_rounds") - state->round;
    uint64_t blocks = (uint64_t)run_int(run, "self_max_contexts") / (uint64_t)run_int(run, "block");
    uint64_t steps = (uint64_t)rounds * (blocks + 3);

    if (state->act >= ACT_CODES) {
        *out_stages = ACT_EVAL_CODES - state->act;
        return *out_stages;
    }
    *out_stages = 3 * (unsigned)rounds + (is(run_string(run, "control_codes"), "off") ? 0 : 3);
    if (state->act == ACT_PAIRS) {
        *out_stages += state->round ? 2 : 3;
        steps += state->train_steps;
    } else if (state->act == ACT_STUDENT) {
        *out_stages += state->round ? 1 : 2;
    } else if (state->act == ACT_EVAL_TEACHER) {
        *out_stages += 1;
    }
    return steps + *out_stages + (uint64_t)rounds * state->train_steps;
}

static void show(struct run *run, struct impossible *state)
{
    unsigned rest = 0;
    uint64_t steps = guess_rest(run, state, &rest);
    const struct run *stage = &state->stage.run;

    run->resting = state->running && !stage->recipe->save;
    if (!state->running) {
        run->phase = "done";
        run->step_count = state->base;
        return;
    }
    run->step_count = state->base + stage->step_count + steps;
    snprintf(state->phase, sizeof state->phase, "%s (stage %u of %u): %s %llu of %llu",
             state->stage.name, state->begun, state->begun + rest, stage->phase,
             (unsigned long long)stage->step, (unsigned long long)stage->step_count);
    run->phase = state->phase;
}

/* ---- life ------------------------------------------------------------------------------- */

/* Opens the stage of act and round, or passes it over if an earlier attempt has done it. */
static int begin(struct run *run, struct impossible *state, bool *out_done, struct err *err)
{
    struct stage_record record = {0};
    struct stage_plan plan = {.name = name_of(state->act, state->round)};
    int rc = plan_stage(run, state, &plan, err);

    if (rc == 0)
        rc = stage_resolve(run, &plan, &state->stage, err);
    if (rc == 0)
        rc = stage_find(&state->stage, out_done, &record, err);
    if (rc == 0 && *out_done)
        rc = take(run, state, plan.name, &record, err);
    else if (rc == 0)
        rc = stage_open(&state->stage, err);
    if (rc == 0 && *out_done)
        stage_close(&state->stage);
    state->begun++;
    mem_free((char *)plan.name);
    stage_plan_done(&plan);
    return rc;
}

/* The next stage that has something to do. */
static int begin_next(struct run *run, struct impossible *state, bool first, struct err *err)
{
    for (bool more = true, done; more;) {
        if (!first && follow(run, state, &more, err) < 0)
            return -1;
        first = false;
        state->running = more;
        if (!more)
            return 0;
        if (begin(run, state, &done, err) < 0)
            return -1;
        if (!done)
            return 0;
    }
    return 0;
}

/* A student that reads other tokens than the teacher writes is found out now, not in days. */
static int check_init(struct run *run, struct err *err)
{
    const struct run_input *teacher = run_input(run, "teacher"), *init = run_input(run, "init");
    struct tokenizer *ours = NULL, *theirs = NULL;
    bool wanted = is(first_weights(run), "checkpoint");
    int rc = 0;

    if (wanted != (init != NULL))
        return run_gave_up(run, err, "student_init",
                           wanted ? "it is 'checkpoint', but there is no input 'init'"
                                  : "the input 'init' is given, but student_init is '%s': set it "
                                    "to checkpoint", run_string(run, "student_init"));
    if (!init)
        return 0;
    if (tokenizer_read(teacher->path, &ours, err) < 0 ||
        tokenizer_read(init->path, &theirs, err) < 0)
        rc = -1;
    else if (!hash_equal(tokenizer_identity(ours), tokenizer_identity(theirs)))
        rc = run_gave_up(run, err, "student_vocabulary",
                         "input 'init' (%s) has another tokenizer than the teacher (%u and %u "
                         "ids): the dataset is cut into tokens once, for both", init->ref,
                         (unsigned)tokenizer_vocab_size(theirs),
                         (unsigned)tokenizer_vocab_size(ours));
    tokenizer_free(ours);
    tokenizer_free(theirs);
    return rc;
}

static int impossible_open(struct run *run, void *opaque, struct err *err)
{
    struct impossible *state = opaque;

    state->next_context = (uint64_t)run_int(run, "first_context");
    if (check_init(run, err) < 0 || begin_next(run, state, true, err) < 0)
        return -1;
    run->step = state->base;
    show(run, state);
    return 0;
}

/* Only a checkpoint of the stage at hand has anything that its files have not. */
static int impossible_load(struct run *run, void *opaque, struct checkpoint_reader *reader,
                           struct err *err)
{
    struct impossible *state = opaque;
    const char *stage;
    int64_t step;

    if (checkpoint_get_text(reader, "stage", &stage, err) < 0 ||
        checkpoint_get_int(reader, "stage_step", &step, err) < 0)
        return -1;
    if (!state->running || !is(stage, state->stage.name))
        return 0;
    if (state->stage.run.recipe->load(&state->stage.run, state->stage.state, reader, err) < 0)
        return -1;
    state->stage.run.step = (uint64_t)step;
    run->step = state->base + (uint64_t)step;
    show(run, state);
    return 0;
}

/* What later stages need of the one at hand; the same on all ranks. */
static void make_record(struct impossible *state, struct stage_record *record)
{
    const struct run *run = &state->stage.run;
    double success = 0;

    *record = (struct stage_record){.steps = run->step};
    if (state->act == ACT_PAIRS) {
        const struct pairs *pairs = state->stage.state;
        record->values[VALUE_CONTEXTS] = (double)pairs->built.contexts;
        record->values[VALUE_TAU] = pairs->filter.tau;
        record->values[VALUE_ACCEPTED] = pairs_accepted(pairs);
    } else if (state->act == ACT_EVAL_TEACHER || state->act == ACT_EVAL) {
        bool known = run_metric_newest(run, "success", &success);
        CHECK(known || run->rank != 0);
        comm_broadcast(run->comm, &success, sizeof success, 0);
        record->values[VALUE_SUCCESS] = success;
    }
}

static int impossible_step(struct run *run, void *opaque, struct err *err)
{
    struct impossible *state = opaque;
    struct stage_record record;

    state->stage.run.pace = run->pace;
    if (stage_step(&state->stage, err) < 0)
        return -1;
    run->pace = state->stage.run.pace;
    if (state->stage.run.step >= state->stage.run.step_count) {
        make_record(state, &record);
        if (stage_finish(&state->stage, &record, err) < 0 ||
            take(run, state, state->stage.name, &record, err) < 0)
            return -1;
        if (state->act == ACT_EVAL)
            run_metric(run, "success", state->success);
        stage_close(&state->stage);
        if (begin_next(run, state, false, err) < 0)
            return -1;
    }
    show(run, state);
    return 0;
}

/* After the last stage: the newest student, as a model. */
static int save_student(struct run *run, const struct impossible *state,
                        struct checkpoint_writer *writer, struct err *err)
{
    struct device *device = NULL;
    struct model *model = NULL;
    int rc = run_device_open(run, &device, err);

    if (rc == 0)
        rc = model_files_open(state->student, device, true, &model, err);
    if (rc == 0)
        rc = training_save(writer, model, NULL, err);
    if (rc == 0)
        rc = checkpoint_copy_tokenizer(writer, state->student, err);
    model_free(model);
    device_close(device);
    return rc;
}

static int impossible_save(struct run *run, void *opaque, struct checkpoint_writer *writer,
                           struct err *err)
{
    struct impossible *state = opaque;
    struct run *stage = &state->stage.run;

    checkpoint_put_text(writer, "stage", state->running ? state->stage.name : "");
    checkpoint_put_int(writer, "stage_step", state->running ? (int64_t)stage->step : 0);
    if (!state->running)
        return save_student(run, state, writer, err);
    return stage->recipe->save(stage, state->stage.state, writer, err);
}

static void impossible_close(struct run *run, void *opaque)
{
    struct impossible *state = opaque;

    (void)run;
    stage_close(&state->stage);
    mem_free(state->dataset);
    mem_free(state->student);
    mem_free(state->student_hash);
    mem_free(state->student_name);
}

/* The rows of pairs come first; self_ and student_ and eval_ before a name: of that stage. */
static const struct param impossible_params[] = {
    PAIRS_PARAMS,
    {"student_init", PARAM_CHOICE, "auto", 0, 0, "auto|teacher|checkpoint|scratch",
     "weights that the first student begins with; checkpoint: the input init; auto: that where it "
     "is given, else the teacher's"},
    {"student_steps", PARAM_INT, "0", 0, 1e9, NULL, "of training; 0: as student_epochs says"},
    {"student_epochs", PARAM_INT, "3", 1, 1e6, NULL, "times that each pair is trained on"},
    {"student_eval_every", PARAM_INT, "50", 0, 1e9, NULL,
     "steps between losses of held-out pairs; 0: only after the last step"},
    TRAIN_PARAMS_OF("student_", "1e-4", "cosine", "128", "0.01"),
    ARCH_PARAMS_OF("student_", "4", "128", "4", "128"),
    {"self_rounds", PARAM_INT, "1", 0, 8, NULL, "rounds of self-distillation"},
    {"self_samples", PARAM_INT, "10", 1, FILTER_SAMPLES_MAX, NULL,
     "rewrites of each sentence by the student"},
    {"self_temperature", PARAM_FLOAT, "0.7", 0.1, 2, NULL, "of these rewrites"},
    {"self_max_contexts", PARAM_INT, "10000", 1, 1e12, NULL,
     "most sentences of the teacher that a round rewrites"},
    {"self_target_pairs", PARAM_INT, "400000", 1, 1e12, NULL, "a round stops with so many"},
    {"self_pick", PARAM_CHOICE, "min_rouge", 0, 0, "min_rouge|max_entail|all",
     "which accepted rewrites of a sentence are kept"},
    {"self_train_from", PARAM_CHOICE, "student", 0, 0, "student|init",
     "weights that a round begins with: the last student's, or the first's own beginning"},
    {"self_steps", PARAM_INT, "0", 0, 1e9, NULL,
     "of a round's training; 0: as self_epochs says"},
    {"self_epochs", PARAM_INT, "0", 0, 1e6, NULL, "of a round; 0: as the first student's"},
    {"self_learning_rate", PARAM_FLOAT, "0", 0, 1, NULL, "of a round; 0: student_learning_rate"},
    {"self_kept_most", PARAM_FLOAT, "0.98", 0, 1, NULL,
     "end when the critics accept more than this share of the rewrites"},
    {"self_min_gain", PARAM_FLOAT, "0", -1, 1, NULL,
     "end after a round whose success gained less than this"},
    {"control_codes", PARAM_CHOICE, "off", 0, 0, "off|len|len+abs",
     "train the last student once more, with tokens that say length and abstractiveness"},
    {"control_drop", PARAM_FLOAT, "0.1", 0, 1, NULL,
     "probability that a pair is without a code, of each kind"},
    {"control_steps", PARAM_INT, "0", 0, 1e9, NULL, "of that training; 0: as the first student's"},
    {"control_learning_rate", PARAM_FLOAT, "0", 0, 1, NULL, "of it; 0: student_learning_rate"},
    {"eval_sources", PARAM_INT, "400", 0, 1e9, NULL,
     "sentences that each evaluation rewrites; 0: all"},
    {"eval_temperature", PARAM_FLOAT, "0.7", 0, 2, NULL, "of its rewrites; 0: greedy"},
    {"eval_bootstrap", PARAM_INT, "1000", 0, 100000, NULL,
     "draws of its 95 % intervals over sources"},
};

static const struct input impossible_inputs[] = {
    PAIRS_INPUTS,
    {"init", INPUT_CHECKPOINT, false, "model that the student begins as; same tokenizer"},
    {"test", INPUT_DATASET, false,
     "sources to evaluate with, each alone or with a newline and a reference after it; without it "
     "held-out pairs"},
};

const struct recipe recipe_distillation_impossible = {
    .name = "impossible",
    .kind = RECIPE_DISTILLATION,
    .version = 1,
    .summary = "A model's own samples and critics teach a student a task that the model cannot do",
    .source = "Jung et al. 2024 (Impossible Distillation), sections 2 and 3",
    .params = impossible_params,
    .param_count = ARRAY_COUNT(impossible_params),
    .inputs = impossible_inputs,
    .input_count = ARRAY_COUNT(impossible_inputs),
    .outputs = "checkpoint|dataset|metrics",
    .state_size = sizeof(struct impossible),
    .open = impossible_open,
    .load = impossible_load,
    .step = impossible_step,
    .save = impossible_save,
    .close = impossible_close,
};
