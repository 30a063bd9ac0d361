/* sim.c - draws the faults, turns the rounds; see sim.h. */
#include "tests/lib/core/sim_inner.h"

#include <stdio.h>

bool sim_chance(struct sim *sim, uint32_t permille)
{
    return permille && rng_below(&sim->rng, 1000) < permille;
}

void sim_violation(struct sim *sim, const char *text)
{
    if (sim->violated)
        return;
    sim->violated = true;
    err_set(sim->err, ERR_INVALID, "seed %llu, %llu ms: %s", (unsigned long long)sim->options.seed,
            (unsigned long long)sim->now_ms, text);
}

uint64_t sim_wall_us(const struct sim *sim)
{
    return SIM_BASE_US + sim->now_ms * 1000 + sim->wall_shift_us;
}

bool *sim_file(struct sim *sim, const char *path)
{
    unsigned long long job_id = 0, step = 0;
    CHECK(sscanf(path, "/job/%llu/%llu", &job_id, &step) == 2);
    CHECK(job_id < SIM_FILE_JOBS && step < SIM_FILE_STEPS);
    return &sim->files[job_id][step];
}

/* Each fault is absent for half of the seeds; otherwise its chance is drawn. */
static uint32_t draw(struct sim *sim, uint32_t most)
{
    uint64_t on = rng_below(&sim->rng, 2);
    uint64_t chance = rng_below(&sim->rng, most) + 1;
    return on ? (uint32_t)chance : 0;
}

static void chances_draw(struct sim *sim)
{
    struct sim_chances *c = &sim->chances;
    c->lose = draw(sim, 150);
    c->twice = draw(sim, 150);
    c->reorder = draw(sim, 300);
    c->cut = draw(sim, 4);
    c->leader_kill = draw(sim, 8);
    c->commit_fail = draw(sim, 10);
    c->commit_unknown = draw(sim, 10);
    c->commit_slow = draw(sim, 200);
    c->daemon_restart = draw(sim, 3);
    c->node_loss = draw(sim, 2);
    c->disk_loss = draw(sim, 500);
    c->clock_jump = draw(sim, 5);
    c->control = draw(sim, 30);
    c->resubmit = draw(sim, 300);
    c->fail_attempt = draw(sim, 50);
}

static void heal(struct sim *sim)
{
    sim->healing = true;
    sim->chances = (struct sim_chances){0};
}

static void clock_round(struct sim *sim)
{
    sim->now_ms += 1 + rng_below(&sim->rng, 20);
    if (!sim_chance(sim, sim->chances.clock_jump))
        return;
    /* Between an hour back and an hour ahead; time stays after the base. */
    uint64_t hour = 3600000000u;
    uint64_t shift = sim->wall_shift_us + rng_below(&sim->rng, 2 * hour);
    sim->wall_shift_us = shift > hour ? shift - hour : 0;
    sim->result->clock_jumps++;
}

static void round_run(struct sim *sim)
{
    clock_round(sim);
    arena_reset(&sim->arena);
    sim_packets_due(sim);
    client_round(sim);
    for (uint32_t i = 0; i < SIM_WORKERS; i++)
        worker_round(sim, &sim->workers[i]);
    leader_round(sim);
}

static void sim_init(struct sim *sim)
{
    rng_init(&sim->rng, sim->options.seed);
    chances_draw(sim);
    sim->config = (struct core_config){.lease_ms = 2000,
                                       .heartbeat_ms = 200,
                                       .resend_ms = 400,
                                       .reason_ms = 300,
                                       .jobs_max = 25,
                                       .seed = sim->options.seed};
    sim->db = memory_db_new();
    sim->now_ms = 1;
    sim->leader_up_ms = 1;
    sim->next_session = 1;
    effects_init(&sim->effects);
    for (uint32_t i = 0; i < SIM_WORKERS; i++)
        worker_init(sim, i);
}

static void sim_done(struct sim *sim)
{
    core_free(sim->core);
    memory_db_free(sim->db);
    effects_done(&sim->effects);
    arena_done(&sim->arena);
    client_done(sim);
    sim_net_done(sim);
    for (uint32_t i = 0; i < SIM_WORKERS; i++)
        worker_done(&sim->workers[i]);
}

int sim_run(const struct sim_options *options, struct sim_result *result, struct err *err)
{
    struct sim *sim = mem_zalloc(sizeof *sim);
    sim->options = *options;
    sim->result = result;
    sim->err = err;
    *result = (struct sim_result){.trace_hash = 1};
    sim_init(sim);
    if (options->bug == SIM_BUG_DOUBLE_SUBMIT)
        sim->chances.resubmit = 300;
    uint32_t rounds = options->fault_rounds ? options->fault_rounds : SIM_ROUNDS;
    for (uint32_t i = 0; i < rounds && !sim->violated; i++)
        round_run(sim);
    heal(sim);
    bool ended = false;
    for (uint32_t i = 0; i < SIM_HEAL_ROUNDS && !sim->violated && !ended; i++) {
        round_run(sim);
        ended = i % 64 == 0 && check_all_ended(sim);
    }
    if (!sim->violated)
        check_end(sim);
    int rc = sim->violated ? -1 : 0;
    sim_done(sim);
    mem_free(sim);
    return rc;
}
