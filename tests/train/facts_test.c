/* facts_test.c - the unlearning methods on FACTS-64, the small world of the card
 * unlearning-baselines (sections 9 and 10): does each forget, and at what price elsewhere?
 *
 * 64 entities (8 first by 8 last names), four relations with two templates each; an answer is
 * two of 12 values. For relations 0 and 1 the second value follows from the last name, so it
 * can be known without having seen the entity; all else is arbitrary. Sequences are
 * [BOS first last template a1 a2 EOS], the loss is on a1, a2, EOS. Forget: 8 entities with
 * every name once. Seen: 8 that the unlearner gets to retain. Unseen: 48 it never sees again.
 *
 * One seed by default; three with ATHANOR_TEST_MODE=long, each of which must pass. */
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "worker/engine/optim.h"
#include "worker/engine/data/sampler.h"
#include "worker/recipes/unlearning/unlearn.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define NAMES      8
#define RELATIONS  4
#define VALUES     12
#define SEQUENCES  (NAMES * NAMES * RELATIONS * 2)
#define LENGTH     6 /* inputs; targets are the next tokens */
#define WORDS      52
#define ROWS_MOST  128
#define STEPS      60
#define EVAL_EVERY 6

enum {
    TOKEN_BOS,
    TOKEN_EOS,
    TOKEN_FIRST,
    TOKEN_LAST = TOKEN_FIRST + NAMES,
    TOKEN_TEMPLATE = TOKEN_LAST + NAMES,
    TOKEN_A1 = TOKEN_TEMPLATE + 2 * RELATIONS,
    TOKEN_A2 = TOKEN_A1 + VALUES
};

enum split { SPLIT_FORGET, SPLIT_SEEN, SPLIT_UNSEEN, SPLIT_END };

struct world {
    int32_t token[SEQUENCES][LENGTH + 1];
    enum split split[SEQUENCES];
    int member[SPLIT_END][SEQUENCES]; /* sequence numbers */
    int count[SPLIT_END];
};

/* -- the world ---------------------------------------------------------------------------- */

static void shuffle(struct rng *rng, int *items, int count)
{
    for (int i = count - 1; i > 0; i--) {
        int j = (int)rng_below(rng, (uint64_t)i + 1);
        int held = items[i];

        items[i] = items[j];
        items[j] = held;
    }
}

static void make_world(struct world *world, uint64_t seed)
{
    struct rng rng;
    int forget[NAMES] = {0, 1, 2, 3, 4, 5, 6, 7};
    int family[RELATIONS][NAMES];
    int number = 0;

    memset(world, 0, sizeof *world);
    rng_init(&rng, seed + 1000);
    shuffle(&rng, forget, NAMES); /* first name f goes with last name forget[f] */
    for (int r = 0; r < RELATIONS; r++) {
        for (int last = 0; last < NAMES; last++)
            family[r][last] = (int)rng_below(&rng, VALUES);
    }
    for (int first = 0; first < NAMES; first++) {
        for (int last = 0; last < NAMES; last++) {
            enum split split = forget[first] == last                 ? SPLIT_FORGET
                               : (forget[first] + 1) % NAMES == last ? SPLIT_SEEN
                                                                     : SPLIT_UNSEEN;
            for (int r = 0; r < RELATIONS; r++) {
                int a1 = (int)rng_below(&rng, VALUES), a2 = (int)rng_below(&rng, VALUES);

                if (r < 2)
                    a2 = family[r][last];
                for (int template = 0; template <2; template ++, number++) {
                    int32_t row[LENGTH + 1] = {TOKEN_BOS,         TOKEN_FIRST + first,
                                               TOKEN_LAST + last, TOKEN_TEMPLATE + 2 * r + template,
                                               TOKEN_A1 + a1,     TOKEN_A2 + a2,
                                               TOKEN_EOS};

                    memcpy(world->token[number], row, sizeof row);
                    world->split[number] = split;
                    world->member[split][world->count[split]++] = number;
                }
            }
        }
    }
}

/* -- one model and its training ------------------------------------------------------------ */

struct student {
    struct device *device;
    struct model *model;
    struct optim *optim;
    struct tape *tape;
    struct tape *infer;
};

static struct err err;

#define OK(call)                                                                                   \
    do {                                                                                           \
        if ((call) < 0)                                                                            \
            fail_msg("%s: %s", #call, err.text);                                                   \
    } while (0)

static struct model_config world_shape(void)
{
    struct model_config shape = {.family = MODEL_GPT2,
                                 .vocab_size = WORDS,
                                 .context = LENGTH,
                                 .width = 64,
                                 .layers = 2,
                                 .heads = 4,
                                 .tied = true,
                                 .bos_token = TOKEN_BOS,
                                 .eos_token = TOKEN_EOS};

    OK(model_config_complete(&shape, &err));
    return shape;
}

static void student_open(struct student *student, struct device *device, uint64_t seed)
{
    struct model_config shape = world_shape();

    memset(student, 0, sizeof *student);
    student->device = device;
    OK(model_new(device, &shape, seed, &student->model, &err));
    OK(tape_new(device, TAPE_TRAIN, &student->tape, &err));
    OK(tape_new(device, TAPE_INFER, &student->infer, &err));
}

static void student_close(struct student *student)
{
    optim_free(student->optim);
    tape_free(student->tape);
    tape_free(student->infer);
    model_free(student->model);
}

/* A fresh optimiser: pretraining's moments do not belong to unlearning. */
static void student_optimise(struct student *student, double decay)
{
    struct optim_config config = {.beta2 = 0.999, .clip_norm = 1.0, .weight_decay = decay};

    optim_free(student->optim);
    OK(optim_new(student->model, &config, &student->optim, &err));
}

static void copy_weights(const struct student *from, struct student *to)
{
    float *host = mem_array((size_t)from->model->flat_count, sizeof *host);

    tensor_read(&from->model->flat, host);
    tensor_write(&to->model->flat, host);
    mem_free(host);
}

struct rows6 {
    int count;
    int number[ROWS_MOST];
    int32_t token[ROWS_MOST * LENGTH], target[ROWS_MOST * LENGTH];
    float weight[ROWS_MOST * LENGTH], nll[ROWS_MOST * LENGTH];
    int32_t argmax[ROWS_MOST * LENGTH];
};

static void rows6_set(struct rows6 *rows, const struct world *world, const int *number, int count)
{
    rows->count = count;
    for (int i = 0; i < count; i++) {
        rows->number[i] = number[i];
        for (int t = 0; t < LENGTH; t++) {
            rows->token[i * LENGTH + t] = world->token[number[i]][t];
            rows->target[i * LENGTH + t] = t >= 3 ? world->token[number[i]][t + 1] : -1;
        }
    }
}

static struct tensor *forward(struct student *student, struct tape *tape, struct rows6 *rows)
{
    struct model_batch batch = {.B = rows->count, .T = LENGTH, .token = rows->token};
    struct model_states states = {0};

    OK(model_forward(tape, student->model, &batch, &states, &err));
    return states.hidden;
}

/* Adds the gradient of sum weight * nll. */
static void backward(struct student *student, struct tensor *hidden, struct rows6 *rows)
{
    struct loss_head loss = {.hidden = hidden,
                             .head = student->model->head,
                             .target = rows->target,
                             .ce_weight = rows->weight};
    struct loss_values values = {.nll = rows->nll};

    OK(loss_head(student->tape, &loss, &values, &err));
    OK(tape_backward(student->tape, &err));
}

static void weigh_all(struct rows6 *rows, double weight)
{
    for (int i = 0; i < rows->count * LENGTH; i++)
        rows->weight[i] = rows->target[i] >= 0 ? (float)weight : 0;
}

static void descend(struct student *student, struct rows6 *rows, double weight)
{
    tape_reset(student->tape);
    weigh_all(rows, weight / (3.0 * rows->count));
    backward(student, forward(student, student->tape, rows), rows);
}

/* Positions `step` * count and on of the shuffled stream over a set of sequences. */
static void draw(struct rows6 *rows, const struct world *world, const int *from, int total,
                 uint64_t seed, int step, int count)
{
    int number[ROWS_MOST];

    for (int i = 0; i < count; i++)
        number[i] = from[sampler_item(seed, (uint64_t)total, (uint64_t)(step * count + i))];
    rows6_set(rows, world, number, count);
}

static void pretrain(struct student *student, const struct world *world, bool without_forget,
                     uint64_t seed)
{
    struct schedule_config schedule = {SCHEDULE_COSINE, 3e-3, 0, 450, 0, 0};
    int from[SEQUENCES], total = 0;
    struct rows6 rows;
    double norm;

    for (int i = 0; i < SEQUENCES; i++) {
        if (!without_forget || world->split[i] != SPLIT_FORGET)
            from[total++] = i;
    }
    student_optimise(student, 0.0);
    for (int step = 0; step < 450; step++) {
        draw(&rows, world, from, total, seed, step, 128);
        descend(student, &rows, 1.0);
        OK(optim_step(student->optim, schedule_rate(&schedule, step), &norm, &err));
    }
}

/* -- measuring ----------------------------------------------------------------------------- */

struct measure {
    double nll;             /* nats a token of the answers */
    double a1;              /* share of first values right */
    double em;              /* share of answers right      */
    double each[SEQUENCES]; /* sum of nll, by place in the split */
};

static void measure(struct student *student, const struct world *world, enum split split,
                    struct measure *out)
{
    struct rows6 rows;
    int total = world->count[split];

    memset(out, 0, sizeof *out);
    for (int from = 0; from < total; from += ROWS_MOST) {
        int count = total - from < ROWS_MOST ? total - from : ROWS_MOST;
        struct loss_head loss = {.head = student->model->head, .target = rows.target};
        struct loss_values values = {.nll = rows.nll, .argmax = rows.argmax};

        rows6_set(&rows, world, world->member[split] + from, count);
        tape_reset(student->infer);
        loss.hidden = forward(student, student->infer, &rows);
        OK(loss_head(student->infer, &loss, &values, &err));
        for (int i = 0; i < count; i++) {
            const int32_t *target = rows.target + i * LENGTH, *argmax = rows.argmax + i * LENGTH;
            bool first = argmax[3] == target[3];

            for (int t = 3; t < LENGTH; t++)
                out->each[from + i] += (double)rows.nll[i * LENGTH + t];
            out->nll += out->each[from + i] / (3.0 * total);
            out->a1 += (double)first / total;
            out->em += (double)(first && argmax[4] == target[4]) / total;
        }
    }
}

/* -- unlearning, with the recipes' own weights ---------------------------------------------- */

struct course {
    double a1[STEPS / EVAL_EVERY], unseen_em[STEPS / EVAL_EVERY]; /* by evaluation */
    double forget_nll, end_a1, end_unseen_em, seen_em;            /* after the last step */
};

static void weigh_forget(const struct unlearn_method *method, double beta, struct rows6 *rows,
                         const double reference[SEQUENCES])
{
    struct unlearn unlearn = {.beta = beta};

    memset(rows->weight, 0, sizeof rows->weight);
    for (int i = 0; i < rows->count; i++) {
        struct forget_document document = {.reference_nll = reference[rows->number[i]],
                                           .count = 3,
                                           .token_total = 3 * rows->count,
                                           .document_total = rows->count};
        for (int t = 3; t < LENGTH; t++)
            document.nll += (double)rows->nll[i * LENGTH + t];
        for (int t = 3; t < LENGTH; t++)
            rows->weight[i * LENGTH + t] = (float)method->weigh(&unlearn, &document);
    }
}

static void forget_step(struct student *student, const struct unlearn_method *method, double beta,
                        struct rows6 *rows, const double reference[SEQUENCES])
{
    struct tensor *hidden;

    tape_reset(student->tape);
    hidden = forward(student, student->tape, rows);
    memset(rows->nll, 0, sizeof rows->nll);
    if (method->sequence_losses)
        OK(loss_nll(student->tape, hidden, student->model->head, rows->target, rows->nll, &err));
    weigh_forget(method, beta, rows, reference);
    backward(student, hidden, rows);
}

static void reference_losses(struct student *student, const struct world *world,
                             double reference[SEQUENCES])
{
    struct measure now;

    measure(student, world, SPLIT_FORGET, &now);
    for (int i = 0; i < world->count[SPLIT_FORGET]; i++)
        reference[world->member[SPLIT_FORGET][i]] = now.each[i];
}

static struct course unlearn_course(struct student *student, const struct student *target,
                                    const struct world *world, const struct unlearn_method *method,
                                    double beta, uint64_t seed)
{
    struct course course = {.forget_nll = 0};
    double reference[SEQUENCES] = {0}, norm;
    struct measure forget, unseen, seen;
    struct rows6 rows;

    copy_weights(target, student);
    student_optimise(student, 0.0);
    reference_losses(student, world, reference);
    for (int step = 0; step < STEPS; step++) {
        draw(&rows, world, world->member[SPLIT_FORGET], world->count[SPLIT_FORGET], seed, step, 32);
        forget_step(student, method, beta, &rows, reference);
        if (method->retains) {
            draw(&rows, world, world->member[SPLIT_SEEN], world->count[SPLIT_SEEN], seed + 77, step,
                 32);
            descend(student, &rows, 1.0);
        }
        OK(optim_step(student->optim, 3e-4, &norm, &err));
        if ((step + 1) % EVAL_EVERY != 0)
            continue;
        measure(student, world, SPLIT_FORGET, &forget);
        measure(student, world, SPLIT_UNSEEN, &unseen);
        course.a1[step / EVAL_EVERY] = course.end_a1 = forget.a1;
        course.unseen_em[step / EVAL_EVERY] = course.end_unseen_em = unseen.em;
    }
    measure(student, world, SPLIT_SEEN, &seen);
    course.forget_nll = forget.nll;
    course.seen_em = seen.em;
    return course;
}

/* Methods are compared when each has first forgotten as much: at the card's a1 <= .15, or, since
 * npo is bounded and may end above that, at the least that both reached. */
static double matched_level(const struct course *a, const struct course *b)
{
    double least_a = 1, least_b = 1;

    for (int i = 0; i < STEPS / EVAL_EVERY; i++) {
        least_a = fmin(least_a, a->a1[i]);
        least_b = fmin(least_b, b->a1[i]);
    }
    return fmax(0.15, fmax(least_a, least_b));
}

/* What the method still knew of unseen entities then. */
static double unseen_at(const struct course *course, double level)
{
    int i = 0;

    while (i + 1 < STEPS / EVAL_EVERY && course->a1[i] > level)
        i++;
    return course->unseen_em[i];
}

/* -- the gates ------------------------------------------------------------------------------ */

static double flat_cosine(const float *a, const float *b, int64_t count)
{
    double ab = 0, aa = 0, bb = 0;

    for (int64_t i = 0; i < count; i++) {
        ab += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    return ab / sqrt(aa * bb);
}

/* Acceptance item 1: at Delta = 0 NPO's gradient is that of ascent on the sum of each
 * sequence's NLL, meaned over sequences. */
static void check_first_npo_step(struct student *student, const struct student *target,
                                 const struct world *world)
{
    int64_t count = target->model->flat_count;
    float *npo = mem_array((size_t)count, sizeof *npo);
    float *ascent = mem_array((size_t)count, sizeof *ascent);
    double reference[SEQUENCES] = {0};
    struct rows6 rows;

    copy_weights(target, student);
    reference_losses(student, world, reference);
    rows6_set(&rows, world, world->member[SPLIT_FORGET], 32);
    model_zero_grad(student->model);
    forget_step(student, &unlearn_npo, 1e-3, &rows, reference);
    tensor_read_grad(&student->model->flat, npo);
    model_zero_grad(student->model);
    tape_reset(student->tape);
    weigh_all(&rows, -1.0 / rows.count);
    backward(student, forward(student, student->tape, &rows), &rows);
    tensor_read_grad(&student->model->flat, ascent);
    model_zero_grad(student->model);
    assert_true(flat_cosine(npo, ascent, count) >= 0.9999);
    mem_free(npo);
    mem_free(ascent);
}

static void print_course(uint64_t seed, const char *name, const struct course *course)
{
    print_message("seed %llu %-9s forget NLL %.2f, a1 %.2f, unseen EM %.2f, seen EM %.2f\n",
                  (unsigned long long)seed, name, course->forget_nll, course->end_a1,
                  course->end_unseen_em, course->seen_em);
}

static void check_seed(struct device *device, uint64_t seed)
{
    struct student target, oracle, student;
    struct measure forget, unseen, oracle_forget;
    struct course ascent, diff, npo;
    double level;
    struct world world;

    make_world(&world, seed);
    student_open(&target, device, seed);
    student_open(&oracle, device, seed);
    student_open(&student, device, seed);
    pretrain(&target, &world, false, seed);
    pretrain(&oracle, &world, true, seed);
    measure(&target, &world, SPLIT_FORGET, &forget);
    measure(&target, &world, SPLIT_UNSEEN, &unseen);
    measure(&oracle, &world, SPLIT_FORGET, &oracle_forget);
    print_message("seed %llu target EM %.2f / %.2f, oracle forget a1 %.2f NLL %.2f\n",
                  (unsigned long long)seed, forget.em, unseen.em, oracle_forget.a1,
                  oracle_forget.nll);
    assert_true(forget.em >= 0.99 && unseen.em >= 0.99);
    assert_true(oracle_forget.a1 <= 0.25); /* chance is 1/12; 64 answers, 32 distinct */
    check_first_npo_step(&student, &target, &world);

    ascent = unlearn_course(&student, &target, &world, &unlearn_grad_ascent, 0, seed);
    diff = unlearn_course(&student, &target, &world, &unlearn_grad_diff, 0, seed);
    npo = unlearn_course(&student, &target, &world, &unlearn_npo, 1.0, seed);
    print_course(seed, "ascent", &ascent);
    print_course(seed, "grad_diff", &diff);
    print_course(seed, "npo", &npo);
    /* item 3: ascent is unbounded, npo is not */
    assert_true(ascent.forget_nll > 2.5 * log(WORDS) && ascent.end_unseen_em <= 0.05);
    assert_true(fabs(npo.forget_nll - oracle_forget.nll) <= 1.0);
    /* item 4: at matched forgetting npo keeps more of what it never saw again */
    level = matched_level(&npo, &diff);
    print_message("seed %llu at a1 %.2f: unseen EM %.2f (npo), %.2f (grad_diff)\n",
                  (unsigned long long)seed, level, unseen_at(&npo, level), unseen_at(&diff, level));
    assert_true(level <= 0.30);
    assert_true(unseen_at(&npo, level) - unseen_at(&diff, level) >= 0.10);
    assert_true(npo.seen_em >= 0.95 && diff.seen_em >= 0.5);
    student_close(&target);
    student_close(&oracle);
    student_close(&student);
}

static void methods_forget_as_the_card_measured(void **state)
{
    const char *mode = getenv("ATHANOR_TEST_MODE");
    uint64_t seeds = mode && strcmp(mode, "long") == 0 ? 3 : 1;
    struct device_config where = {.kind = BACKEND_CPU};
    struct device *device = NULL;

    (void)state;
    OK(device_open(&where, &device, &err));
    for (uint64_t seed = 0; seed < seeds; seed++)
        check_seed(device, seed);
    device_close(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(methods_forget_as_the_card_measured)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
