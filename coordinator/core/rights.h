/* rights.h - who may use what: queues, projects, settings. Private to core/, part of state.h.
 *
 * Everything here is configuration: rows that operators change with CONFIGURE (configure.c). What
 * was removed stays in memory, flagged, because ended jobs that may be opened again name it.
 * Beside it: configure.h, quota.h, reservation.h, usage.h. */
#ifndef ATHANOR_CORE_RIGHTS_H
#define ATHANOR_CORE_RIGHTS_H

#include "coordinator/core/event.h"

#include <uthash.h>

struct attempt;
struct class;
struct configure_pass;
struct job;
struct worker;

/* Bounds (invariant 9): 1,000 queues x 150 B, 10,000 projects x 150 B with 1,000 members of 60 B.
 */
#define QUEUES_MAX      1000u
#define PROJECTS_MAX    10000u
#define MEMBERS_MAX     1000u
#define CONFIG_NAME_MAX 60u /* bytes of the name of a queue, project or reservation */
#define POINTS_MAX      1000000
#define WEIGHT_MAX      1000000
#define PREEMPTION_MAX  1000
#define WALL_MS_MAX     (366ull * 86400000)

/* Numbers that scheduling is tuned with: name, default, least, most, meaning. A job's key is its
 * priority x 1000 points; bonuses and age are points too. */
#define SETTINGS(X)                                                                                \
    X(HALF_LIFE_MS, "half_life_ms", 604800000, 60000, 31622400000,                                 \
      "use of this age counts half in the fair share")                                             \
    X(GPU_CORES, "gpu_cores", 16, 0, 1000, "cores that a GPU counts as in the fair share")         \
    X(WEIGHT_ACCOUNT, "weight_account", 1000, 0, 1000000,                                          \
      "points of an account that has used nothing lately")                                         \
    X(WEIGHT_PROJECT, "weight_project", 1000, 0, 1000000,                                          \
      "points of a project that has used nothing lately")                                          \
    X(WEIGHT_SIZE, "weight_size", 0, 0, 1000000,                                                   \
      "points of a job that asks for all cores there are; smaller ones in proportion")             \
    X(AGE_PER_HOUR, "age_per_hour", 100, 0, 1000000, "points of each hour of waiting")             \
    X(CODE_KEEP_MS, "code_keep_ms", 2592000000, 0, 315360000000,                                   \
      "code that no living job runs is kept so long after its last use; 0: for ever")              \
    X(CHECKPOINT_KEEP_MS, "checkpoint_keep_ms", 0, 0, 3153600000000,                               \
      "so long checkpoints stay after the end of their job and of those that used it, unless its " \
      "spec says; 0: for ever")                                                                    \
    X(ARTIFACT_KEEP_MS, "artifact_keep_ms", 0, 0, 3153600000000,                                   \
      "the same for datasets and other artifacts")
enum setting {
#define X(tag, name, initial, least, most, help) SETTING_##tag,
    SETTINGS(X)
#undef X
        SETTING_END,
};

struct queue_config {
    char *name;
    int64_t priority;                      /* points */
    uint64_t default_wall_ms, max_wall_ms; /* 0: none */
    uint64_t preemption;
    bool evicts, evictable, removed;
    uint64_t job_count; /* living jobs */
    UT_hash_handle hh;
};

struct project {
    char *name;
    bool open, removed;
    char **members; /* sorted; they count while it is not open */
    size_t member_count;
    uint64_t weight;
    uint64_t job_count; /* living jobs */
    UT_hash_handle hh;
};

/* ---- queue_config.c: queues, projects, settings -------------------------------------------- */

void rights_init(struct core *core);
void rights_free(struct core *core);
/* Never NULL: a name without a row is known as removed. */
struct queue_config *queue_config_get(struct core *core, const char *name);
struct project *project_get(struct core *core, const char *name);
/* NULL when it is not there or was removed. */
struct queue_config *queue_config_find(const struct core *core, const char *name);
struct project *project_find(const struct core *core, const char *name);
const char *queue_hint(const struct core *core, const char *name, struct arena *arena);
const char *project_hint(const struct core *core, const char *name, struct arena *arena);
bool project_admits(const struct project *project, const char *account);
void queue_configure(struct configure_pass *pass);
void project_configure(struct configure_pass *pass);
void setting_configure(struct configure_pass *pass);
/* What speaks against a job in this queue and project; NULL: nothing. `*out_path` is the field. */
const char *rights_fault(struct core *core, const char *account, const struct spec_job *spec,
                         struct arena *arena, const char **out_path);
/* Account, queue and project are part of what tells classes apart. */
void rights_key_add(struct buf *key, const struct job *job);
/* After a change: classes count against other limits, and what was blocked may go on. */
void rights_changed(struct core *core);
void settings_change(struct core *core, const int64_t wanted[SETTING_END]);
void rights_dump(const struct core *core, struct buf *out);
/* A waiting job's place in its class: the policy's order of priority and age. */
int64_t job_key(const struct core *core, const struct job *job);
/* Before a pass; then what queue and shares mean for a class. */
void rights_pass(struct core *core);
void rights_view(const struct core *core, const struct class *class, struct policy_class *out);

#endif
