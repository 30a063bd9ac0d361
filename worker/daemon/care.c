/* care.c - what is done to the node before an attempt's ranks start and after they have ended: the
 * operator's prolog and epilog.
 *
 * The prolog runs when everything else is prepared; until it has ended the attempt is PREPARING. If
 * it fails the attempt ends launch_failed by the node's fault, so that it is tried elsewhere, and
 * the node goes into quarantine. The epilog runs when no process of the attempt is left; until it
 * has ended the attempt keeps its cores and GPUs here, although its end is told already, and a
 * START that needs them waits (pending.c). It may run twice: a daemon that was killed meanwhile
 * does not know how far it got. */
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
    struct err err = {0};
    attempt->hook = NULL;
    if (result->status != HOOK_OK) {
        char *how = hook_text(result);
        char *text = mem_printf("the prolog %s", how);
        prepare_failed(attempt, "prolog", text);
        mem_free(text);
        mem_free(how);
        return;
    }
    attempt->state = ATTEMPT_RUNNING;
    if (attempt_launch(attempt, &err) < 0) {
        attempt->node_fault = true;
        attempt_finish(attempt, CAUSE_LAUNCH_FAILED, err.text);
    }
}

int care_before(struct attempt *attempt, struct err *err)
{
    const char *program = attempt->daemon->options->prolog;
    attempt->cared_for = true;
    if (!program[0])
        return attempt_launch(attempt, err);
    attempt->state = ATTEMPT_PREPARING;
    hook_run(attempt, "prolog", program, on_prolog_end);
    return 0;
}

void care_stop(struct attempt *attempt, enum cause cause)
{
    hook_cancel(attempt->hook);
    attempt->hook = NULL;
    attempt_finish(attempt, cause, "stopped before its ranks were started");
}

/* ---- after ----------------------------------------------------------------------------------- */

bool care_is_wanted(const struct attempt *attempt)
{
    return attempt->cared_for && attempt->daemon->options->epilog[0];
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
    attempt->cared_for = attempt->cleaning = false;
    attempt_cleaned(attempt);
}

void care_after(struct attempt *attempt)
{
    attempt->cleaning = true;
    hook_run(attempt, "epilog", attempt->daemon->options->epilog, on_epilog_end);
}
