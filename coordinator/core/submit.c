/* submit.c - jobs of a spec come into being, once (invariant 10).
 *
 * First everything is resolved without changing anything: which job each need and input means.
 * What cannot be resolved, or could never start, is refused as a whole with every reason. Only
 * then are jobs made, with ids in one piece, so that a repeat of the submit is recognised from
 * its key alone. */
#include "coordinator/core/submit.h"

#include <string.h>

#define REFUSALS_MAX 100u

/* ---- refusing ---------------------------------------------------------------------------- */

const struct spec_mark submit_nowhere = {0};

void submit_refuse(struct submit_pass *pass, struct spec_mark mark, const char *path,
                   const char *text)
{
    pass->refused_count++;
    if (pass->refusal_count == REFUSALS_MAX)
        return;
    if (!pass->refusals)
        pass->refusals = arena_alloc(pass->arena, REFUSALS_MAX * sizeof *pass->refusals);
    pass->refusals[pass->refusal_count++] =
        (struct rec_refusal){.file = mark.set ? arena_strdup(pass->arena, mark.set) : "",
                             .line = mark.line,
                             .column = mark.column,
                             .path = path,
                             .text = text};
}

/* What even a dry run does not look at. */
static void bounds_check(struct submit_pass *pass)
{
    size_t job_count = pass->event->spec->job_count;
    if (job_count == 0 || job_count > SUBMIT_JOBS_MAX)
        submit_refuse(pass, submit_nowhere, "jobs",
                      arena_printf(pass->arena, "%zu jobs in one submit, expected 1..%u", job_count,
                                   SUBMIT_JOBS_MAX));
    if (submit_names_too_much(pass->core, pass->event, pass->arena))
        submit_refuse(pass, submit_nowhere, "needs",
                      arena_printf(pass->arena,
                                   "needs and inputs name more than %u jobs and datasets outside "
                                   "of this spec, which is the limit: submit in parts, or in one "
                                   "spec with the jobs it needs",
                                   SUBMIT_OUTSIDE_MAX));
    pass->unplannable = pass->refused_count > 0;
}

static void limits_check(struct submit_pass *pass)
{
    const struct core *core = pass->core;
    const struct spec *spec = pass->event->spec;
    if (core->live_count + spec->job_count > core->config.jobs_max)
        submit_refuse(
            pass, submit_nowhere, "",
            arena_printf(pass->arena,
                         "%llu jobs are queued or running and the limit is %u: submit again "
                         "when some have ended",
                         (unsigned long long)core->live_count, core->config.jobs_max));
    struct quota_asker *askers = arena_alloc(pass->arena, spec->job_count * sizeof *askers);
    for (size_t i = 0; i < spec->job_count; i++)
        askers[i] =
            (struct quota_asker){pass->event->account, spec->jobs[i].project, spec->jobs[i].queue};
    const char *fault = quota_waiting_fault(core, askers, spec->job_count, "submit", pass->arena);
    if (fault)
        submit_refuse(pass, submit_nowhere, "quota", fault);
    if (!pass->experiment && HASH_COUNT(core->experiments) >= core->config.experiments_max)
        submit_refuse(pass, submit_nowhere, "experiment",
                      arena_printf(pass->arena, "%u experiments exist, which is the limit",
                                   core->config.experiments_max));
}

/* ---- repeats ----------------------------------------------------------------------------- */

/* True when the key is known and the answer was given. */
static bool repeat_answer(struct submit_pass *pass)
{
    struct core *core = pass->core;
    const struct event_submit *event = pass->event;
    for (size_t i = 0; i < event->found.job_count; i++) {
        const struct row_job *row = &event->found.jobs[i];
        if (row->submit_key.length == 16 &&
            memcmp(row->submit_key.bytes, event->submit_key, 16) == 0)
            submit_remember(core, event->submit_key, row->job_id, row->submit_index,
                            event->spec->experiment);
    }
    const struct submit_memory *known = submit_find(core, event->submit_key);
    if (!known)
        return false;
    if (known->job_count != event->spec->job_count)
        answer_refused(core, ADDRESS_CLIENT, event->client, event->request_seq, ERR_EXISTS,
                       arena_printf(pass->arena,
                                    "this submit key was used for another submit, of %llu job%s",
                                    (unsigned long long)known->job_count,
                                    known->job_count == 1 ? "" : "s"),
                       NULL, 0);
    else
        submit_answer_made(pass, known->first_job_id, known->experiment, true);
    return true;
}

/* ---- entry ------------------------------------------------------------------------------- */

static void answer_refusals(struct submit_pass *pass)
{
    const struct event_submit *event = pass->event;
    const char *text = arena_printf(pass->arena, "the submit was refused for %zu reason%s",
                                    pass->refused_count, pass->refused_count == 1 ? "" : "s");
    answer_refused(pass->core, ADDRESS_CLIENT, event->client, event->request_seq, ERR_INVALID, text,
                   pass->refusals, pass->refusal_count);
}

void submit_on_submit(struct core *core, const struct event_submit *event)
{
    struct submit_pass pass = {.core = core, .event = event, .arena = step_arena(core)};
    const struct spec *spec = event->spec;
    pass.experiment = experiment_find(core, spec->experiment);
    pass.first_job_id = core->ids.job + 1;
    if (!event->check_only && repeat_answer(&pass))
        return;
    for (size_t i = 0; i < event->found.job_count; i++)
        found_take(core, &event->found, event->found.jobs[i].job_id);
    bounds_check(&pass);
    limits_check(&pass);
    if (pass.refused_count == 0 || (event->check_only && !pass.unplannable))
        submit_plan(&pass);
    if (event->check_only && pass.jobs)
        submit_answer_checked(&pass);
    else if (pass.refused_count)
        answer_refusals(&pass);
    else
        submit_make(&pass);
}
