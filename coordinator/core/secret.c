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
    const struct project *project = attempt->job->project;
    bool admitted = !project->removed && project_admits(project, attempt->job->account);
    *out = (struct core_secrets){.account = attempt->job->account,
                                 .project = admitted ? project->name : "",
                                 .items = spec.secrets,
                                 .count = spec.secret_count};
    return 0;
}

/* Who may submit to an open project is everybody: each could put a token of their own in the place
 * of one that the others' jobs use. */
int core_secret_right(const struct core *core, const char *project_name, const char *account,
                      bool is_operator, struct err *err)
{
    const struct project *project = project_find(core, project_name);
    struct arena arena = {0};
    if (!project) {
        err_set(err, ERR_NOT_FOUND, "there is no project '%.80s'%s", project_name,
                project_hint(core, project_name, &arena));
        arena_done(&arena);
        return -1;
    }
    if (is_operator || (!project->open && project_admits(project, account)))
        return 0;
    return err_set(err, ERR_DENIED, "secrets of project '%s' are set by %s", project->name,
                   project->open ? "operators: it is open to everybody"
                                 : "its members and by operators");
}
