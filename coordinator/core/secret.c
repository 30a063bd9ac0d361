/* secret.c - which secrets a worker may have: those that the jobs placed on it name. Their values
 * are the shell's, nothing of them is known here. */
#include "coordinator/core/state.h"

int core_secrets_find(const struct core *core, uint64_t attempt_id, uint64_t worker_peer,
                      struct arena *arena, struct core_secrets *out, struct err *err)
{
    const struct attempt *attempt = attempt_find(core, attempt_id);
    struct spec_job spec;
    if (!attempt || !core_exec_lives(core, attempt_id, worker_peer))
        return err_set(err, ERR_DENIED, "attempt %llu is not on this worker",
                       (unsigned long long)attempt_id);
    if (spec_job_from_json(attempt->job->spec_json, arena, &spec, err) < 0)
        return -1;
    *out = (struct core_secrets){.account = attempt->job->account,
                                 .items = spec.secrets,
                                 .count = spec.secret_count};
    return 0;
}
