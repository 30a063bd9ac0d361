/* experiment.c - experiments by name, and the memory of submits. */
#include "coordinator/core/state.h"

#include <string.h>

struct experiment *experiment_find(const struct core *core, const char *name)
{
    struct experiment *experiment = NULL;
    HASH_FIND_STR(core->experiments, name, experiment);
    return experiment;
}

struct experiment *experiment_by_id(const struct core *core, uint64_t experiment_id)
{
    struct experiment *experiment = NULL;
    HASH_FIND(hh_id, core->experiments_by_id, &experiment_id, sizeof experiment_id, experiment);
    return experiment;
}

struct experiment *experiment_add(struct core *core, uint64_t id, const char *name,
                                  const char *account, uint64_t created_at)
{
    struct experiment *experiment = mem_zalloc(sizeof *experiment);
    experiment->experiment_id = id;
    experiment->name = mem_strdup(name);
    experiment->account = mem_strdup(account);
    experiment->created_at = created_at;
    HASH_ADD_KEYPTR(hh, core->experiments, experiment->name, strlen(experiment->name), experiment);
    HASH_ADD(hh_id, core->experiments_by_id, experiment_id, sizeof id, experiment);
    return experiment;
}

struct submit_memory *submit_find(const struct core *core, const uint8_t key[16])
{
    struct submit_memory *submit = NULL;
    HASH_FIND(hh, core->submits, key, sizeof submit->key, submit);
    return submit;
}

static void submit_forget_oldest(struct core *core)
{
    struct submit_memory *oldest = core->submits; /* uthash: the head is the first added */
    HASH_DEL(core->submits, oldest);
    mem_free(oldest->experiment);
    mem_free(oldest);
}

void submit_remember(struct core *core, const uint8_t key[16], uint64_t job_id,
                     uint64_t submit_index, const char *experiment)
{
    CHECK(job_id > submit_index);
    struct submit_memory *submit = submit_find(core, key);
    if (!submit) {
        submit = mem_zalloc(sizeof *submit);
        memcpy(submit->key, key, sizeof submit->key);
        submit->first_job_id = job_id - submit_index; /* ids of a submit have no gaps */
        submit->experiment = mem_strdup(experiment);
        HASH_ADD(hh, core->submits, key, sizeof submit->key, submit);
        if (HASH_COUNT(core->submits) > CORE_SUBMITS_MAX)
            submit_forget_oldest(core);
    }
    submit->job_count = max_u64(submit->job_count, submit_index + 1);
}
