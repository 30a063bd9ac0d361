/* care.c - what is done to the node before an attempt's ranks start and after they have ended: the
 * operator's prolog and epilog, and a look whether its GPUs are free.
 *
 * The prolog runs when everything else is prepared; until it has ended the attempt is PREPARING. If
 * it fails the attempt ends launch_failed by the node's fault, so that it is tried elsewhere, and
 * the node goes into quarantine. The epilog runs when no process of the attempt is left; until it
 * has ended the attempt keeps its cores and GPUs here, although its end is told already, and a
 * START that needs them waits (pending.c). It may run twice: a daemon that was killed meanwhile
 * does not know how far it got.
 *
 * A GPU on which memory is in use although no attempt of ours is there may be held by a process
 * that escaped, or that others started. Before the ranks start, and behind the epilog, each GPU is
 * looked at, by a process of its own because a broken device may hang whoever asks, until it is
 * free or its time is over. One that is not is withheld: offered no more, told as an incident,
 * looked at again after twice that time, and offered when it has come free. */
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "worker/attempt/folder.h"
#include "worker/daemon/daemon.h"
#include "worker/daemon/hook.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FACTS_MAX 20u

struct facts {
    char *items[FACTS_MAX + 1];
    size_t count;
};

static void fact_add(struct facts *facts, const char *format, ...) FORMAT(2, 3);

static void fact_add(struct facts *facts, const char *format, ...)
{
    char *text;
    va_list args;
    va_start(args, format);
    int length = vasprintf(&text, format, args);
    va_end(args);
    CHECK(length >= 0 && facts->count < FACTS_MAX);
    facts->items[facts->count++] = mem_strdup(text);
    free(text);
}

static void facts_done(struct facts *facts)
{
    for (size_t i = 0; i < facts->count; i++)
        mem_free(facts->items[i]);
}

static char *cpus_text(const struct plan *plan)
{
    struct buf text = {0};
    for (size_t i = 0; i < plan->rank_count; i++)
        for (size_t k = 0; k < plan->ranks[i].cpu_count; k++)
            buf_printf(&text, "%s%u", text.length ? "," : "", plan->ranks[i].cpus[k]);
    return text.length ? buf_take(&text) : mem_strdup("");
}

static char *gpus_text(const struct plan *plan)
{
    struct buf text = {0};
    for (size_t i = 0; i < plan->rank_count; i++)
        if (plan->ranks[i].gpus[0])
            buf_printf(&text, "%s%s", text.length ? "," : "", plan->ranks[i].gpus);
    return text.length ? buf_take(&text) : mem_strdup("");
}

static void plan_facts(const struct plan *plan, struct facts *facts)
{
    char *cpus = cpus_text(plan), *gpus = gpus_text(plan);
    fact_add(facts, "ATHANOR_JOB_NAME=%s", plan->job_name);
    fact_add(facts, "ATHANOR_ACCOUNT=%s", plan->account);
    fact_add(facts, "ATHANOR_ATTEMPT=%" PRIu64, plan->attempt);
    fact_add(facts, "ATHANOR_JOB_DIR=%s", plan->job_dir);
    fact_add(facts, "ATHANOR_RANKS=%zu", plan->rank_count);
    fact_add(facts, "ATHANOR_MEMORY_BYTES=%" PRIu64, plan->memory_bytes * plan->rank_count);
    fact_add(facts, "ATHANOR_CGROUP=%s", plan->cgroup);
    fact_add(facts, "ATHANOR_CPUS=%s", cpus);
    fact_add(facts, "ATHANOR_GPUS=%s", gpus);
    mem_free(cpus);
    mem_free(gpus);
}

/* A job may have removed its folder, and the plan with it: then only the numbers are known. */
static void facts_collect(const struct attempt *attempt, const char *hook, struct facts *facts)
{
    struct plan plan;
    struct err err = {0};
    const struct options *options = attempt->daemon->options;
    fact_add(facts, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    fact_add(facts, "ATHANOR_HOOK=%s", hook);
    fact_add(facts, "ATHANOR_WORKER=%s", options->name);
    fact_add(facts, "ATHANOR_ATTEMPT_ID=%" PRIu64, attempt->attempt_id);
    fact_add(facts, "ATHANOR_JOB_ID=%" PRIu64, attempt->job_id);
    fact_add(facts, "ATHANOR_NODE=%" PRIu64, attempt->node);
    fact_add(facts, "ATHANOR_ATTEMPT_DIR=%s", attempt->folder);
    if (plan_read(attempt->folder, &plan, &err) < 0)
        return;
    plan_facts(&plan, facts);
    plan_done(&plan);
}

static void hook_run(struct attempt *attempt, const char *hook, const char *program,
                     hook_end_fn *on_end)
{
    struct facts facts = {0};
    facts_collect(attempt, hook, &facts);
    struct hook_config config = {.loop = attempt->daemon->loop,
                                 .program = program,
                                 .environment = facts.items,
                                 .timeout_ms = attempt->daemon->options->hook_timeout_ms,
                                 .on_end = on_end,
                                 .user = attempt};
    attempt->hook = hook_start(&config);
    facts_done(&facts);
}

/* ---- GPUs ------------------------------------------------------------------------------------ */

#define GPU_AGAIN_MS   500u
#define GPU_TIMEOUT_MS 10000u /* of one look */

static struct hook *gpu_look(struct daemon *daemon, const struct inventory_gpu *gpu,
                             hook_end_fn *on_end, void *user)
{
    static char *const environment[] = {"PATH=/usr/bin:/bin", NULL};
    const char *const arguments[] = {"--gpus", daemon->options->gpus, "--gpu-check", gpu->uuid,
                                     NULL};
    struct hook_config config = {.loop = daemon->loop,
                                 .program = "/proc/self/exe",
                                 .arguments = arguments,
                                 .environment = environment,
                                 .timeout_ms = GPU_TIMEOUT_MS,
                                 .on_end = on_end,
                                 .user = user};
    return hook_start(&config);
}

static void gpus_done(struct attempt *attempt);
static void gpu_next(struct attempt *attempt);

static void gpu_withhold(struct attempt *attempt, const struct inventory_gpu *gpu, const char *text)
{
    struct daemon *daemon = attempt->daemon;
    slots_withhold_gpu(&daemon->slots, gpu);
    node_report_add(daemon, "device", false, text, attempt->job_id, attempt->attempt_id);
    mem_free(attempt->gpu_fault);
    attempt->gpu_fault = mem_strdup(text);
    daemon->gpu_looked_ms = clock_steady_ms();
    daemon_offer_anew(daemon);
}

static void on_gpu_again(void *user)
{
    gpu_next(user);
}

static void on_gpu_look(void *user, const struct hook_result *result)
{
    struct attempt *attempt = user;
    const struct inventory_gpu *gpu =
        slots_gpu(&attempt->daemon->slots, attempt->attempt_id, attempt->gpu_at);
    attempt->hook = NULL;
    if (result->status != HOOK_OK && clock_steady_ms() < attempt->gpu_until_ms) {
        attempt->care_timer = (struct loop_timer){.fire = on_gpu_again, .user = attempt};
        loop_timer_start(attempt->daemon->loop, &attempt->care_timer, GPU_AGAIN_MS);
        return;
    }
    if (result->status != HOOK_OK && gpu) {
        char *how = hook_text(result);
        gpu_withhold(attempt, gpu, result->status == HOOK_FAILED ? result->text : how);
        mem_free(how);
    }
    attempt->gpu_at++;
    attempt->gpu_until_ms = clock_steady_ms() + attempt->daemon->options->gpu_free_timeout_ms;
    gpu_next(attempt);
}

static void gpu_next(struct attempt *attempt)
{
    const struct inventory_gpu *gpu = NULL;
    for (; attempt->gpu_at < attempt->gpu_count; attempt->gpu_at++) {
        gpu = slots_gpu(&attempt->daemon->slots, attempt->attempt_id, attempt->gpu_at);
        if (gpu && inventory_gpu_tells(gpu))
            break;
    }
    if (attempt->gpu_at == attempt->gpu_count)
        gpus_done(attempt);
    else
        attempt->hook = gpu_look(attempt->daemon, gpu, on_gpu_look, attempt);
}

static void gpus_look(struct attempt *attempt)
{
    attempt->gpu_at = 0;
    attempt->gpu_count = slots_gpu_count(&attempt->daemon->slots, attempt->attempt_id);
    attempt->gpu_until_ms = clock_steady_ms() + attempt->daemon->options->gpu_free_timeout_ms;
    gpu_next(attempt);
}

static bool has_telling_gpus(const struct attempt *attempt)
{
    const struct slots *slots = &attempt->daemon->slots;
    const struct inventory_gpu *gpu;
    for (size_t i = 0; (gpu = slots_gpu(slots, attempt->attempt_id, i)); i++)
        if (inventory_gpu_tells(gpu))
            return true;
    return false;
}

static void on_withheld_look(void *user, const struct hook_result *result)
{
    struct daemon *daemon = user;
    const struct inventory_gpu *gpu = &daemon->inventory.gpus[daemon->gpu_look];
    daemon->gpu_hook = NULL;
    if (result->status != HOOK_OK)
        return;
    log_info("%s has come free", gpu->uuid);
    slots_give_back_gpu(&daemon->slots, gpu);
    daemon_offer_anew(daemon);
}

/* One at a time, in turn. */
void care_tick(struct daemon *daemon)
{
    const struct inventory *inventory = &daemon->inventory;
    if (daemon->gpu_hook ||
        clock_steady_ms() - daemon->gpu_looked_ms < 2 * daemon->options->gpu_free_timeout_ms)
        return;
    daemon->gpu_looked_ms = clock_steady_ms();
    for (size_t i = 0; i < inventory->gpu_count; i++) {
        daemon->gpu_look = (daemon->gpu_look + 1) % inventory->gpu_count;
        const struct inventory_gpu *gpu = &inventory->gpus[daemon->gpu_look];
        if (!slots_gpu_is_withheld(&daemon->slots, gpu))
            continue;
        daemon->gpu_hook = gpu_look(daemon, gpu, on_withheld_look, daemon);
        return;
    }
}

/* ---- before ---------------------------------------------------------------------------------- */

static void prepare_failed(struct attempt *attempt, const char *kind, const char *text)
{
    node_report_add(attempt->daemon, kind, true, text, attempt->job_id, attempt->attempt_id);
    attempt->node_fault = true;
    attempt_finish(attempt, CAUSE_LAUNCH_FAILED, text);
}

static void on_prolog_end(void *user, const struct hook_result *result)
{
    struct attempt *attempt = user;
    attempt->hook = NULL;
    if (result->status != HOOK_OK) {
        char *how = hook_text(result);
        char *text = mem_printf("the prolog %s", how);
        prepare_failed(attempt, "prolog", text);
        mem_free(text);
        mem_free(how);
        return;
    }
    gpus_look(attempt);
}

static void ranks_start(struct attempt *attempt)
{
    struct err err = {0};
    attempt->state = ATTEMPT_RUNNING;
    if (attempt_launch(attempt, &err) == 0)
        return;
    attempt->node_fault = true;
    attempt_finish(attempt, CAUSE_LAUNCH_FAILED, err.text);
}

int care_before(struct attempt *attempt, struct err *err)
{
    const char *program = attempt->daemon->options->prolog;
    bool gpus = has_telling_gpus(attempt);
    attempt->cared_for = true;
    if (!program[0] && !gpus)
        return attempt_launch(attempt, err);
    attempt->state = ATTEMPT_PREPARING;
    if (program[0])
        hook_run(attempt, "prolog", program, on_prolog_end);
    else
        gpus_look(attempt);
    return 0;
}

void care_cancel(struct attempt *attempt)
{
    hook_cancel(attempt->hook);
    attempt->hook = NULL;
    loop_timer_stop(&attempt->care_timer);
    mem_free(attempt->gpu_fault);
    attempt->gpu_fault = NULL;
}

void care_stop(struct attempt *attempt, enum cause cause)
{
    care_cancel(attempt);
    attempt_finish(attempt, cause, "stopped before its ranks were started");
}

/* ---- after ----------------------------------------------------------------------------------- */

bool care_is_wanted(const struct attempt *attempt)
{
    return attempt->cared_for &&
           (attempt->daemon->options->epilog[0] || has_telling_gpus(attempt));
}

static void on_epilog_end(void *user, const struct hook_result *result)
{
    struct attempt *attempt = user;
    attempt->hook = NULL;
    if (result->status != HOOK_OK) {
        char *how = hook_text(result);
        char *text = mem_printf("the epilog %s", how);
        node_report_add(attempt->daemon, "epilog", true, text, attempt->job_id,
                        attempt->attempt_id);
        mem_free(text);
        mem_free(how);
    }
    gpus_look(attempt);
}

static void gpus_done(struct attempt *attempt)
{
    char *fault = attempt->gpu_fault;
    attempt->gpu_fault = NULL;
    if (attempt->state != ATTEMPT_PREPARING) {
        attempt->cared_for = attempt->cleaning = false;
        attempt_cleaned(attempt);
    } else if (fault) {
        attempt->node_fault = true;
        attempt_finish(attempt, CAUSE_LAUNCH_FAILED, fault);
    } else {
        ranks_start(attempt);
    }
    mem_free(fault);
}

void care_after(struct attempt *attempt)
{
    const char *program = attempt->daemon->options->epilog;
    attempt->cleaning = true;
    if (program[0])
        hook_run(attempt, "epilog", program, on_epilog_end);
    else
        gpus_look(attempt);
}
