/* queue_config.c - queues, projects and the numbers that scheduling is tuned with. */
#include "coordinator/core/state.h"

#include "common/base/buf.h"
#include "common/base/parse.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    int64_t initial, least, most;
} settings[SETTING_END] = {
#define X(tag, name, initial, least, most, help) [SETTING_##tag] = {name, initial, least, most},
    SETTINGS(X)
#undef X
};

/* ---- tables ------------------------------------------------------------------------------ */

struct queue_config *queue_config_get(struct core *core, const char *name)
{
    struct queue_config *queue = NULL;
    HASH_FIND_STR(core->queues, name, queue);
    if (queue)
        return queue;
    queue = mem_zalloc(sizeof *queue);
    queue->name = mem_strdup(name);
    queue->evictable = true;
    queue->removed = true;
    HASH_ADD_KEYPTR(hh, core->queues, queue->name, strlen(queue->name), queue);
    return queue;
}

struct queue_config *queue_config_find(const struct core *core, const char *name)
{
    struct queue_config *queue = NULL;
    HASH_FIND_STR(core->queues, name, queue);
    return queue && !queue->removed ? queue : NULL;
}

struct project *project_get(struct core *core, const char *name)
{
    struct project *project = NULL;
    HASH_FIND_STR(core->projects, name, project);
    if (project)
        return project;
    project = mem_zalloc(sizeof *project);
    project->name = mem_strdup(name);
    project->open = true;
    project->removed = true;
    project->weight = 1;
    HASH_ADD_KEYPTR(hh, core->projects, project->name, strlen(project->name), project);
    return project;
}

struct project *project_find(const struct core *core, const char *name)
{
    struct project *project = NULL;
    HASH_FIND_STR(core->projects, name, project);
    return project && !project->removed ? project : NULL;
}

static void members_free(struct project *project)
{
    for (size_t i = 0; i < project->member_count; i++)
        mem_free(project->members[i]);
    mem_free(project->members);
    project->members = NULL;
    project->member_count = 0;
}

void rights_init(struct core *core)
{
    for (int i = 0; i < SETTING_END; i++)
        core->settings[i] = settings[i].initial;
    queue_config_get(core, "default")->removed = false;
    project_get(core, "default")->removed = false;
}

void rights_free(struct core *core)
{
    struct queue_config *queue, *next_queue;
    HASH_ITER(hh, core->queues, queue, next_queue)
    {
        HASH_DEL(core->queues, queue);
        mem_free(queue->name);
        mem_free(queue);
    }
    struct project *project, *next_project;
    HASH_ITER(hh, core->projects, project, next_project)
    {
        HASH_DEL(core->projects, project);
        members_free(project);
        mem_free(project->name);
        mem_free(project);
    }
    shares_free(core);
    reservations_free(core);
    quotas_free(core);
}

bool project_admits(const struct project *project, const char *account)
{
    for (size_t i = 0; !project->open && i < project->member_count; i++)
        if (strcmp(project->members[i], account) == 0)
            return true;
    return project->open;
}

/* Every hour of waiting is worth the same number of points for ever, so that of two waiting jobs
 * the one that is ahead stays ahead: with t the time of submit, priority - age_per_hour * t. */
int64_t job_key(const struct core *core, const struct job *job)
{
    if (core->policy->order == POLICY_ORDER_FIFO)
        return job->priority;
    uint64_t points = job->submitted_at / 1000 * (uint64_t)core->settings[SETTING_AGE_PER_HOUR];
    return job->priority * 1000 - (int64_t)(points / 3600000);
}

static void queues_rekey(struct core *core)
{
    struct job *job, *next;
    HASH_ITER(hh_id, core->jobs, job, next)
    {
        if (!job->node.queued)
            continue;
        queue_remove(&job->class->queue, &job->node);
        job->node.priority = job_key(core, job);
        queue_add(&job->class->queue, &job->node);
    }
}

void rights_pass(struct core *core)
{
    core->cores_usable = 0;
    for (size_t i = 0; i < core->worker_count; i++)
        if (worker_is_usable(core->workers[i]))
            core->cores_usable += core->workers[i]->cores;
    if (core->policy->order == POLICY_ORDER_FAIR)
        shares_rate(core);
    quotas_measure(core);
}

void rights_view(const struct core *core, const struct class *class, struct policy_class *out)
{
    const struct queue_config *queue = class->queue_config;
    if (class->ask.wall_time_ms == 0 && queue->default_wall_ms)
        out->wall_time_ms = queue->default_wall_ms;
    out->evicts = queue->evicts;
    out->preemption = (uint32_t)queue->preemption;
    out->constrained |= core->reservations.count > 0;
    if (core->policy->order == POLICY_ORDER_FIFO)
        return;
    uint64_t cores = min_u64(class->need.cores, core->cores_usable);
    uint64_t size = core->cores_usable
                        ? cores * (uint64_t)core->settings[SETTING_WEIGHT_SIZE] / core->cores_usable
                        : 0;
    out->bonus = queue->priority + share_points(core, class) + (int64_t)size;
}

void rights_changed(struct core *core)
{
    for (size_t i = 0; i < core->class_count; i++)
        core->classes[i]->blocked = false;
    core_mark_placement(core);
}

void settings_change(struct core *core, const int64_t wanted[SETTING_END])
{
    bool aged = core->settings[SETTING_AGE_PER_HOUR] != wanted[SETTING_AGE_PER_HOUR];
    shares_resettle(core, wanted);
    if (aged)
        queues_rekey(core);
    rights_changed(core);
}

/* ---- queues ------------------------------------------------------------------------------ */

static void queue_write(struct core *core, const struct queue_config *queue)
{
    struct row_queue row = {
        .name = queue->name,
        .priority = queue->priority,
        .default_wall_ms = queue->default_wall_ms,
        .max_wall_ms = queue->max_wall_ms,
        .preemption = queue->preemption,
        .evicts = queue->evicts,
        .evictable = queue->evictable,
        .removed_at = queue->removed ? core->wall_us : 0,
    };
    effects_persist(core->effects, ROW_TABLE_queue, PERSIST_UPSERT, &row);
}

/* What was removed and whether it may be: "default" stays, and what living jobs name. */
static bool removal_is_refused(struct configure_pass *pass, uint64_t job_count)
{
    const char *name = pass->request->name;
    if (strcmp(name, "default") == 0)
        configure_refuse(pass, name, "'default' cannot be removed: jobs that name nothing use it");
    else if (job_count)
        configure_refuse(pass, name,
                         arena_printf(pass->arena, "%llu jobs that have not ended use it",
                                      (unsigned long long)job_count));
    return pass->refusal_count > 0;
}

const char *queue_hint(const struct core *core, const char *name, struct arena *arena)
{
    struct hint hint = {.wrong = name};
    struct queue_config *queue, *next;
    HASH_ITER(hh, core->queues, queue, next)
    {
        if (!queue->removed)
            hint_offer(&hint, queue->name);
    }
    return hint_text(&hint, arena);
}

static void queue_remove_row(struct configure_pass *pass)
{
    struct core *core = pass->core;
    struct queue_config *queue = NULL;
    HASH_FIND_STR(core->queues, pass->request->name, queue);
    if (!queue) {
        configure_refuse(pass, pass->request->name,
                         arena_printf(pass->arena, "there is no queue '%.80s'%s",
                                      pass->request->name,
                                      queue_hint(core, pass->request->name, pass->arena)));
        return;
    }
    if (queue->removed || removal_is_refused(pass, queue->job_count))
        return;
    queue->removed = true;
    pass->changed = true;
    queue_write(core, queue);
}

static void wall_time_set(struct configure_pass *pass, const char *setting, uint64_t *field)
{
    static const int64_t none = 0;
    int64_t value = (int64_t)*field;
    configure_number(pass, setting, 1000, (int64_t)WALL_MS_MAX, &none, &value);
    *field = (uint64_t)value;
}

static bool queue_equal(const struct queue_config *a, const struct queue_config *b)
{
    return a->priority == b->priority && a->default_wall_ms == b->default_wall_ms &&
           a->max_wall_ms == b->max_wall_ms && a->preemption == b->preemption &&
           a->evicts == b->evicts && a->evictable == b->evictable && a->removed == b->removed;
}

/* A queue that comes back after its removal begins anew. */
static struct queue_config queue_present(const struct core *core, const char *name)
{
    const struct queue_config *queue = queue_config_find(core, name);
    return queue ? *queue : (struct queue_config){.evictable = true};
}

void queue_configure(struct configure_pass *pass)
{
    static const char *const known[] = {"priority", "default_wall_ms", "max_wall_ms", "preemption",
                                        "evicts",   "evictable",       NULL};
    struct core *core = pass->core;
    const char *name = pass->request->name;
    configure_known(pass, known);
    if (!configure_name(pass, "name", name))
        return;
    if (strcmp(pass->request->action, "remove") == 0) {
        queue_remove_row(pass);
        return;
    }
    struct queue_config wanted = queue_present(core, name);
    int64_t preemption = (int64_t)wanted.preemption;
    configure_number(pass, "priority", -POINTS_MAX, POINTS_MAX, NULL, &wanted.priority);
    configure_number(pass, "preemption", 0, PREEMPTION_MAX, NULL, &preemption);
    wall_time_set(pass, "default_wall_ms", &wanted.default_wall_ms);
    wall_time_set(pass, "max_wall_ms", &wanted.max_wall_ms);
    configure_flag(pass, "evicts", &wanted.evicts);
    configure_flag(pass, "evictable", &wanted.evictable);
    wanted.preemption = (uint64_t)preemption;
    if (wanted.max_wall_ms && wanted.default_wall_ms > wanted.max_wall_ms)
        configure_refuse(pass, "default_wall_ms", "the default is longer than the maximum");
    if (!queue_config_find(core, name) && HASH_COUNT(core->queues) >= QUEUES_MAX)
        configure_refuse(pass, "name",
                         arena_printf(pass->arena, "there are %u queues, which is the limit",
                                      QUEUES_MAX));
    if (pass->refusal_count)
        return;
    struct queue_config *queue = queue_config_get(core, name);
    wanted.name = queue->name;
    wanted.hh = queue->hh;
    wanted.job_count = queue->job_count;
    if (queue_equal(queue, &wanted))
        return;
    *queue = wanted;
    pass->changed = true;
    queue_write(core, queue);
    rights_changed(core);
}

void core_load_queue(struct core *core, const struct row_queue *row)
{
    struct queue_config *queue = queue_config_get(core, row->name);
    queue->priority = row->priority;
    queue->default_wall_ms = row->default_wall_ms;
    queue->max_wall_ms = row->max_wall_ms;
    queue->preemption = row->preemption;
    queue->evicts = row->evicts;
    queue->evictable = row->evictable;
    queue->removed = row->removed_at != 0;
}

/* ---- projects ---------------------------------------------------------------------------- */

static const char *members_json(const struct project *project, struct arena *arena)
{
    struct buf json = {0};
    buf_putc(&json, '[');
    for (size_t i = 0; i < project->member_count; i++) {
        buf_puts(&json, i ? "," : "");
        json_quote(&json, project->members[i]);
    }
    buf_putc(&json, ']');
    const char *text = arena_strdup(arena, buf_text(&json));
    buf_done(&json);
    return text;
}

static void project_write(struct core *core, const struct project *project)
{
    struct row_project row = {
        .name = project->name,
        .open = project->open,
        .members = members_json(project, step_arena(core)),
        .weight = project->weight,
        .removed_at = project->removed ? core->wall_us : 0,
    };
    effects_persist(core->effects, ROW_TABLE_project, PERSIST_UPSERT, &row);
}

static size_t member_place(const struct project *project, const char *name)
{
    size_t at = 0;
    while (at < project->member_count && strcmp(project->members[at], name) < 0)
        at++;
    return at;
}

static bool member_is(const struct project *project, const char *name)
{
    size_t at = member_place(project, name);
    return at < project->member_count && strcmp(project->members[at], name) == 0;
}

static void member_add(struct project *project, const char *name)
{
    size_t at = member_place(project, name);
    project->members =
        mem_grow(project->members, project->member_count + 1, sizeof *project->members);
    memmove(project->members + at + 1, project->members + at,
            (project->member_count - at) * sizeof *project->members);
    project->members[at] = mem_strdup(name);
    project->member_count++;
}

static void member_drop(struct project *project, const char *name)
{
    size_t at = member_place(project, name);
    mem_free(project->members[at]);
    project->member_count--;
    memmove(project->members + at, project->members + at + 1,
            (project->member_count - at) * sizeof *project->members);
}

const char *project_hint(const struct core *core, const char *name, struct arena *arena)
{
    struct hint hint = {.wrong = name};
    struct project *project, *next;
    HASH_ITER(hh, core->projects, project, next)
    {
        if (!project->removed)
            hint_offer(&hint, project->name);
    }
    return hint_text(&hint, arena);
}

static void project_remove_row(struct configure_pass *pass)
{
    struct core *core = pass->core;
    struct project *project = NULL;
    HASH_FIND_STR(core->projects, pass->request->name, project);
    if (!project) {
        configure_refuse(pass, pass->request->name,
                         arena_printf(pass->arena, "there is no project '%.80s'%s",
                                      pass->request->name,
                                      project_hint(core, pass->request->name, pass->arena)));
        return;
    }
    if (pass->event->secret_count)
        configure_refuse(pass, pass->request->name,
                         arena_printf(pass->arena,
                                      "it has %zu secret%s, which another project of this name "
                                      "would have: remove them first (athanor secret ls --project "
                                      "%s)",
                                      pass->event->secret_count,
                                      pass->event->secret_count == 1 ? "" : "s", project->name));
    if (project->removed || removal_is_refused(pass, project->job_count))
        return;
    project->removed = true;
    members_free(project);
    project->open = true;
    project->weight = 1;
    pass->changed = true;
    project_write(core, project);
    rights_changed(core);
}

static void members_check(struct configure_pass *pass)
{
    const struct msg_configure *request = pass->request;
    for (size_t i = 0; i < request->settings_count; i++)
        if (strcmp(request->settings[i].name, "member") == 0)
            configure_principal(pass, "member", request->settings[i].value);
    if (request->settings_count > MEMBERS_MAX)
        configure_refuse(pass, "member",
                         arena_printf(pass->arena, "more than %u at once", MEMBERS_MAX));
}

static void members_apply(struct configure_pass *pass, struct project *project)
{
    const struct msg_configure *request = pass->request;
    for (size_t i = 0; i < request->settings_count; i++) {
        const char *name = request->settings[i].value;
        bool is = member_is(project, name);
        if (strcmp(request->settings[i].name, "member") == 0 && !is &&
            project->member_count < MEMBERS_MAX)
            member_add(project, name);
        else if (strcmp(request->settings[i].name, "drop") == 0 && is)
            member_drop(project, name);
        else
            continue;
        pass->changed = true;
    }
}

void project_configure(struct configure_pass *pass)
{
    static const char *const known[] = {"open", "member", "drop", "weight", NULL};
    struct core *core = pass->core;
    const char *name = pass->request->name;
    const struct project *present = project_find(core, name);
    configure_known(pass, known);
    if (!configure_name(pass, "name", name))
        return;
    if (strcmp(pass->request->action, "remove") == 0) {
        project_remove_row(pass);
        return;
    }
    bool open = present ? present->open : true;
    int64_t weight = present ? (int64_t)present->weight : 1;
    configure_flag(pass, "open", &open);
    configure_number(pass, "weight", 1, WEIGHT_MAX, NULL, &weight);
    members_check(pass);
    if (present && present->member_count + pass->request->settings_count > MEMBERS_MAX)
        configure_refuse(pass, "member",
                         arena_printf(pass->arena, "it has %zu members and the limit is %u",
                                      present->member_count, MEMBERS_MAX));
    if (!present && HASH_COUNT(core->projects) >= PROJECTS_MAX)
        configure_refuse(pass, "name",
                         arena_printf(pass->arena, "there are %u projects, which is the limit",
                                      PROJECTS_MAX));
    if (pass->refusal_count)
        return;
    struct project *project = project_get(core, name);
    pass->changed =
        project->removed || project->open != open || project->weight != (uint64_t)weight;
    project->removed = false;
    project->open = open;
    project->weight = (uint64_t)weight;
    members_apply(pass, project);
    if (!pass->changed)
        return;
    project_write(core, project);
    rights_changed(core);
}

void core_load_project(struct core *core, const struct row_project *row)
{
    struct arena arena = {0};
    const char **names;
    struct project *project = project_get(core, row->name);
    project->open = row->open;
    project->weight = row->weight;
    project->removed = row->removed_at != 0;
    members_free(project);
    size_t count = json_texts(row->members, &arena, &names);
    for (size_t i = 0; i < count; i++)
        if (!member_is(project, names[i]))
            member_add(project, names[i]);
    arena_done(&arena);
}

/* ---- settings ---------------------------------------------------------------------------- */

void setting_configure(struct configure_pass *pass)
{
    struct core *core = pass->core;
    const char *names[SETTING_END + 1] = {NULL};
    int64_t wanted[SETTING_END];
    for (int i = 0; i < SETTING_END; i++) {
        names[i] = settings[i].name;
        wanted[i] = core->settings[i];
    }
    configure_known(pass, names);
    if (strcmp(pass->request->action, "set") != 0)
        configure_refuse(pass, "action", "settings can only be set");
    for (int i = 0; i < SETTING_END; i++)
        configure_number(pass, names[i], settings[i].least, settings[i].most, &settings[i].initial,
                         &wanted[i]);
    if (pass->refusal_count)
        return;
    for (int i = 0; i < SETTING_END; i++) {
        if (wanted[i] == core->settings[i])
            continue;
        struct row_setting row = {.name = names[i], .value = wanted[i]};
        effects_persist(core->effects, ROW_TABLE_setting, PERSIST_UPSERT, &row);
        pass->changed = true;
    }
    if (!pass->changed)
        return;
    settings_change(core, wanted);
}

/* Rows of settings that are gone from the code are passed over. */
void core_load_setting(struct core *core, const struct row_setting *row)
{
    for (int i = 0; i < SETTING_END; i++)
        if (strcmp(settings[i].name, row->name) == 0)
            core->settings[i] = row->value;
}

/* ---- jobs -------------------------------------------------------------------------------- */

const char *rights_fault(struct core *core, const char *account, const struct spec_job *spec,
                         struct arena *arena, const char **out_path)
{
    const struct queue_config *queue = queue_config_find(core, spec->queue);
    const struct project *project = project_find(core, spec->project);
    char most[PARSE_TEXT_SIZE], asked[PARSE_TEXT_SIZE];
    *out_path = "queue";
    if (!queue)
        return arena_printf(arena, "there is no queue '%s'%s", spec->queue,
                            queue_hint(core, spec->queue, arena));
    *out_path = "project";
    if (!project)
        return arena_printf(arena, "there is no project '%s'%s", spec->project,
                            project_hint(core, spec->project, arena));
    if (!project_admits(project, account))
        return arena_printf(arena, "'%s' is no member of project '%s', which is not open", account,
                            spec->project);
    *out_path = "limits.wall_time";
    if (queue->max_wall_ms && spec->limits.wall_time_ms > queue->max_wall_ms)
        return arena_printf(arena, "is %s, and queue '%s' takes jobs of at most %s",
                            format_duration_ms(spec->limits.wall_time_ms, asked), queue->name,
                            format_duration_ms(queue->max_wall_ms, most));
    return NULL;
}

void rights_key_add(struct buf *key, const struct job *job)
{
    buf_add(key, job->account, strlen(job->account) + 1);
    buf_add(key, job->queue->name, strlen(job->queue->name) + 1);
    buf_add(key, job->project->name, strlen(job->project->name) + 1);
}

/* ---- dump -------------------------------------------------------------------------------- */

static int queue_compare(const void *left, const void *right)
{
    const struct queue_config *const *a = left, *const *b = right;
    return strcmp((*a)->name, (*b)->name);
}

static int project_compare(const void *left, const void *right)
{
    const struct project *const *a = left, *const *b = right;
    return strcmp((*a)->name, (*b)->name);
}

static void queues_dump(const struct core *core, struct buf *out)
{
    size_t count = HASH_COUNT(core->queues), at = 0;
    struct queue_config **sorted = mem_array(count, sizeof *sorted);
    struct queue_config *queue, *next;
    HASH_ITER(hh, core->queues, queue, next)
    {
        sorted[at++] = queue;
    }
    qsort(sorted, count, sizeof *sorted, queue_compare);
    for (size_t i = 0; i < count; i++)
        if (!sorted[i]->removed)
            buf_printf(out,
                       "queue %s priority=%lld wall=%llu/%llu preemption=%llu evicts=%d "
                       "evictable=%d jobs=%llu\n",
                       sorted[i]->name, (long long)sorted[i]->priority,
                       (unsigned long long)sorted[i]->default_wall_ms,
                       (unsigned long long)sorted[i]->max_wall_ms,
                       (unsigned long long)sorted[i]->preemption, sorted[i]->evicts,
                       sorted[i]->evictable, (unsigned long long)sorted[i]->job_count);
    mem_free(sorted);
}

static void projects_dump(const struct core *core, struct buf *out)
{
    size_t count = HASH_COUNT(core->projects), at = 0;
    struct project **sorted = mem_array(count, sizeof *sorted);
    struct project *project, *next;
    HASH_ITER(hh, core->projects, project, next)
    {
        sorted[at++] = project;
    }
    qsort(sorted, count, sizeof *sorted, project_compare);
    for (size_t i = 0; i < count; i++) {
        if (sorted[i]->removed)
            continue;
        buf_printf(out, "project %s open=%d weight=%llu jobs=%llu", sorted[i]->name,
                   sorted[i]->open, (unsigned long long)sorted[i]->weight,
                   (unsigned long long)sorted[i]->job_count);
        for (size_t k = 0; k < sorted[i]->member_count; k++)
            buf_printf(out, " %s", sorted[i]->members[k]);
        buf_putc(out, '\n');
    }
    mem_free(sorted);
}

void rights_dump(const struct core *core, struct buf *out)
{
    for (int i = 0; i < SETTING_END; i++)
        if (core->settings[i] != settings[i].initial)
            buf_printf(out, "setting %s=%lld\n", settings[i].name, (long long)core->settings[i]);
    queues_dump(core, out);
    projects_dump(core, out);
    shares_dump(core, out);
    reservations_dump(core, out);
    quotas_dump(core, out);
}
