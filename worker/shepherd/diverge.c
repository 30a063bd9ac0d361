/* diverge.c - metrics against the bounds that the spec declares; see run.h.
 *
 * Decided here, where each value passes once and in order, and not by the coordinator: an outage
 * does not let a diverging job burn its nodes. The attempt is stopped like any other; what it saves
 * meanwhile is discarded, because the coordinator knows the step. */
#include "common/base/parse.h"
#include "worker/shepherd/run.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* NULL while the value is good, else what is wrong with it. Of any metric ("*") no bound could be
 * right, so that only not being finite counts. */
static const char *fault_of(const struct plan_diverge *rule, const char *name, double value)
{
    bool any = strcmp(rule->metric, "*") == 0;
    if (!rule->metric[0] || (!any && strcmp(rule->metric, name) != 0))
        return NULL;
    if (!isfinite(value))
        return rule->nan ? "not finite" : NULL;
    if (!any && value > rule->above)
        return "above its bound";
    if (!any && value < rule->below)
        return "below its bound";
    return NULL;
}

void diverge_metric(struct run *run, unsigned index, const char *name, uint64_t step, double value)
{
    const struct plan_diverge *rule = &run->plan.diverge;
    const char *fault = fault_of(rule, name, value);
    if (!rule->metric[0] || (!fault && strcmp(rule->metric, name) != 0))
        return; /* of another metric: says nothing */
    if (!fault) {
        run->bad_reports = 0;
        return;
    }
    if (run->bad_reports++ == 0)
        run->bad_since = step;
    if (run->bad_reports < rule->reports || run->state != RUN_UP)
        return;
    run->diverged_step = run->bad_since;
    run_stop(run, CAUSE_DIVERGED, run->plan.stop_grace_ms,
             "%s is %s: %g at step %" PRIu64 " from rank %u, bad since step %" PRIu64, name, fault,
             value, step, run_rank(run, index), run->bad_since);
}
