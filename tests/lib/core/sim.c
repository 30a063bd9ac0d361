/* sim.c - draws the cluster and its faults, turns the rounds; see sim.h. */
#include "coordinator/policy/policy.h"
#include "tests/lib/core/sim_inner.h"

#include <stdarg.h>
#include <stdio.h>

/* ---- names ------------------------------------------------------------------------------- */

static const struct {
    const char *name, *what;
    uint32_t most;
} faults[SIM_FAULT_END] = {
#define X(tag, most, what) {#tag, what, most},
    SIM_FAULTS(X)
#undef X
};

static const struct {
    const char *name, *finding, *what;
    uint32_t seeds;
} bugs[SIM_BUG_END] = {
    {"NONE", "", "", 0},
#define X(tag, seeds, finding, what) {#tag, finding, what, seeds},
    SIM_BUGS(X)
#undef X
};

const char *sim_fault_name(enum sim_fault fault)
{
    return faults[fault].name;
}

const char *sim_fault_what(enum sim_fault fault)
{
    return faults[fault].what;
}

const char *sim_bug_name(enum sim_bug bug)
{
    return bugs[bug].name;
}

const char *sim_bug_what(enum sim_bug bug)
{
    return bugs[bug].what;
}

const char *sim_bug_finding(enum sim_bug bug)
{
    return bugs[bug].finding;
}

uint32_t sim_bug_seeds(enum sim_bug bug)
{
    return bugs[bug].seeds;
}

/* ---- small things ------------------------------------------------------------------------ */

bool sim_permille(struct sim *sim, uint32_t permille)
{
    return permille && rng_below(&sim->rng, 1000) < permille;
}

uint64_t sim_between(struct sim *sim, uint64_t least, uint64_t most)
{
    return least + rng_below(&sim->rng, most - least + 1);
}

bool sim_fault(struct sim *sim, enum sim_fault fault)
{
    uint32_t chance = sim->healing ? 0 : sim->swarm.chances[fault];
    if (!chance || rng_below(&sim->fault_rngs[fault], 1000) >= chance)
        return false;
    sim->result->faults[fault]++;
    return true;
}

void sim_violation(struct sim *sim, const char *format, ...)
{
    char text[600];
    va_list arguments;
    if (sim->violated)
        return;
    sim->violated = true;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    trace_line(sim, "VIOLATION %s", text);
    err_set(sim->err, ERR_INVALID, "seed %llu, %llu ms: %s", (unsigned long long)sim->options.seed,
            (unsigned long long)sim->now_ms, text);
}

bool sim_has_bug(const struct sim *sim, enum sim_bug bug)
{
    return sim->options.bug == bug && sim->now_ms > 2000;
}

uint64_t clock_ms(const struct sim *sim, const struct sim_clock *clock)
{
    return 1000 + sim->now_ms * clock->rate / 1000;
}

uint64_t clock_us(const struct sim *sim, const struct sim_clock *clock)
{
    return SIM_BASE_US + sim->now_ms * 1000 + clock->wall_shift_us;
}

struct sim_file *sim_file(struct sim *sim, const char *path)
{
    unsigned long long job_id = 0, step = 0;
    CHECK(sscanf(path, "/job/%llu/%llu", &job_id, &step) == 2);
    CHECK(job_id < SIM_FILE_JOBS && step < SIM_FILE_STEPS);
    return &sim->files[job_id][step];
}

/* ---- what a seed draws ------------------------------------------------------------------- */

/* What must happen for a planted bug to do harm. */
static const struct {
    enum sim_bug bug;
    enum sim_fault fault;
    uint32_t chance;
} needed[] = {
    {SIM_BUG_DOUBLE_SUBMIT, SIM_FAULT_RESUBMIT, 300},
    {SIM_BUG_NO_START_AGAIN, SIM_FAULT_LOSE, 100},
    {SIM_BUG_NO_STOP_AGAIN, SIM_FAULT_LOSE, 300},
    {SIM_BUG_NO_STOP_AGAIN, SIM_FAULT_SHEPHERD_HANG, 600},
    {SIM_BUG_NO_STOP_AGAIN, SIM_FAULT_CONTROL, 100},
    {SIM_BUG_NO_QUOTA, SIM_FAULT_CONFIGURE, 60},
    {SIM_BUG_NO_WINDOW, SIM_FAULT_CONFIGURE, 60},
    {SIM_BUG_NO_REQUEUE, SIM_FAULT_CONFIGURE, 60},
    {SIM_BUG_REPORT_GAP, SIM_FAULT_LOSE, 100},
};

/* Each fault is absent for half of the seeds; otherwise its chance is drawn. */
static void faults_draw(struct sim *sim)
{
    for (int i = 0; i < SIM_FAULT_END; i++) {
        rng_init(&sim->fault_rngs[i], rng_at(sim->options.seed, (uint64_t)i + 1, 0));
        struct rng *rng = &sim->fault_rngs[i];
        uint64_t on = rng_below(rng, 2);
        uint64_t chance = rng_below(rng, faults[i].most) + 1;
        bool off = (sim->options.faults_off >> i) & 1;
        sim->swarm.chances[i] = on && !off ? (uint32_t)chance : 0;
    }
    for (size_t i = 0; i < ARRAY_COUNT(needed); i++)
        if (needed[i].bug == sim->options.bug)
            sim->swarm.chances[needed[i].fault] = needed[i].chance;
}

static uint32_t rate_draw(struct sim *sim)
{
    return sim_fault(sim, SIM_FAULT_CLOCK_DRIFT) ? (uint32_t)sim_between(sim, 700, 1400) : 1000;
}

static void clocks_draw(struct sim *sim)
{
    for (uint32_t i = 0; i < SIM_COORDINATORS; i++)
        sim->coordinators[i].clock.rate = rate_draw(sim);
    for (uint32_t i = 0; i < SIM_WORKERS; i++)
        sim->workers[i].clock.rate = rate_draw(sim);
}

static const char *policy_draw(struct sim *sim)
{
    size_t count = 0;
    while (policy_at(count))
        count++;
    return policy_at(rng_below(&sim->rng, count))->name;
}

static void swarm_draw(struct sim *sim)
{
    struct sim_swarm *swarm = &sim->swarm;
    faults_draw(sim);
    clocks_draw(sim);
    swarm->coordinators = (uint32_t)sim_between(sim, 1, SIM_COORDINATORS);
    swarm->workers = (uint32_t)sim_between(sim, 1, SIM_WORKERS);
    swarm->submit_every = (uint32_t)sim_between(sim, 20, 80);
    swarm->gpu_jobs = (uint32_t)sim_between(sim, 0, 400);
    swarm->limited_jobs = (uint32_t)sim_between(sim, 0, 500);
    swarm->held_jobs = (uint32_t)sim_between(sim, 0, 150);
    swarm->needy_jobs = (uint32_t)sim_between(sim, 100, 700);
    swarm->arrays = (uint32_t)sim_between(sim, 0, 300);
    swarm->sweeps = (uint32_t)sim_between(sim, 0, 300);
    swarm->queued_jobs = (uint32_t)sim_between(sim, 0, 600);
    swarm->gangs = swarm->workers >= SIM_STURDY ? (uint32_t)sim_between(sim, 0, 400) : 0;
    swarm->lonely = (uint32_t)sim_between(sim, 0, 150);
    swarm->choosy = (uint32_t)sim_between(sim, 0, 300);
    swarm->best = (uint32_t)sim_between(sim, 0, 600);
    swarm->leader_ms = sim_between(sim, 150, 1500);
    sim->config = (struct core_config){.lease_ms = sim_between(sim, 1000, 3000),
                                       .heartbeat_ms = sim_between(sim, 100, 300),
                                       .resend_ms = sim_between(sim, 200, 600),
                                       .reason_ms = sim_between(sim, 200, 1000),
                                       .jobs_max = (uint32_t)sim_between(sim, 10, 40),
                                       .seed = sim->options.seed,
                                       .policy = policy_draw(sim)};
}

/* ---- rounds ------------------------------------------------------------------------------ */

/* Between an hour back and an hour ahead; time stays after the base. */
static void wall_jump(struct sim *sim, struct sim_clock *clock)
{
    uint64_t hour = 3600000000u;
    uint64_t shift = clock->wall_shift_us + rng_below(&sim->rng, 2 * hour);
    clock->wall_shift_us = shift > hour ? shift - hour : 0;
}

static void clock_round(struct sim *sim)
{
    sim->now_ms += sim_between(sim, 1, 20);
    if (!sim_fault(sim, SIM_FAULT_CLOCK_JUMP))
        return;
    uint64_t which = rng_below(&sim->rng, SIM_COORDINATORS + sim->swarm.workers);
    wall_jump(sim, which < SIM_COORDINATORS ? &sim->coordinators[which].clock
                                            : &sim->workers[which - SIM_COORDINATORS].clock);
}

static void round_run(struct sim *sim)
{
    uint32_t leading = 0;
    clock_round(sim);
    arena_reset(&sim->arena);
    net_faults(sim);
    net_round(sim);
    database_round(sim);
    people_round(sim);
    for (uint32_t i = 0; i < sim->swarm.workers; i++)
        worker_round(sim, &sim->workers[i]);
    for (uint32_t i = 0; i < sim->swarm.coordinators; i++)
        coordinator_round(sim, &sim->coordinators[i]);
    for (uint32_t i = 0; i < sim->swarm.coordinators; i++)
        leading += sim->coordinators[i].role == SIM_LEADING;
    sim->result->overlaps += leading > 1;
}

/* No fault happens any more, and what was cut off or stopped comes back. */
static void heal(struct sim *sim)
{
    trace_line(sim, "--- all faults end ---");
    sim->healing = true;
    sim->healed_ms = sim->now_ms;
    net_heal(sim);
    database_heal(sim);
    for (uint32_t i = 0; i < sim->swarm.coordinators; i++)
        coordinator_heal(sim, &sim->coordinators[i]);
    for (uint32_t i = 0; i < sim->swarm.workers; i++)
        worker_heal(sim, &sim->workers[i]);
}

static void sim_init(struct sim *sim)
{
    rng_init(&sim->rng, sim->options.seed);
    swarm_draw(sim);
    sim->now_ms = 1;
    sim->next_session = 1;
    sim->judge = judge_new();
    database_init(sim);
    for (uint32_t i = 0; i < SIM_COORDINATORS; i++)
        coordinator_init(sim, i);
    for (uint32_t i = 0; i < sim->swarm.workers; i++)
        worker_init(sim, i);
}

static void truths_done(struct sim *sim)
{
    struct sim_truth *next;
    for (size_t i = 0; i < sim->truth_count; i++)
        for (struct sim_truth *truth = sim->truths[i]; truth; truth = next) {
            next = truth->next;
            mem_free(truth->reports);
            mem_free(truth);
        }
    mem_free(sim->truths);
}

static void sim_done(struct sim *sim)
{
    for (uint32_t i = 0; i < SIM_COORDINATORS; i++)
        coordinator_done(&sim->coordinators[i]);
    for (uint32_t i = 0; i < sim->swarm.workers; i++)
        worker_done(&sim->workers[i]);
    truths_done(sim);
    database_done(sim);
    people_done(sim);
    net_done(sim);
    judge_free(sim->judge);
    arena_done(&sim->arena);
}

int sim_run(const struct sim_options *options, struct sim_result *result, struct err *err)
{
    struct sim *sim = mem_zalloc(sizeof *sim);
    sim->options = *options;
    sim->result = result;
    sim->err = err;
    *result = (struct sim_result){.trace_hash = 1};
    sim_init(sim);
    uint32_t rounds = options->fault_rounds ? options->fault_rounds : SIM_ROUNDS;
    for (uint32_t i = 0; i < rounds && !sim->violated; i++)
        round_run(sim);
    heal(sim);
    bool ended = false;
    for (uint32_t i = 0; i < SIM_HEAL_ROUNDS && !sim->violated && !ended; i++) {
        round_run(sim);
        ended = i % 64 == 0 && judge_all_ended(sim);
    }
    if (!sim->violated)
        judge_end(sim);
    int rc = sim->violated ? -1 : 0;
    sim_done(sim);
    mem_free(sim);
    return rc;
}
