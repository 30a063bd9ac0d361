/* submit_lookup.c - what a submit must know of history: the jobs and datasets it names.
 *
 * Each is asked for once, whatever number of jobs name it. How many of them there may be outside
 * the spec is bounded here (SUBMIT_OUTSIDE_MAX), before the database or the plan spend time. */
#include "coordinator/core/submit.h"

#include <string.h>

struct wanted { /* a lookup that is in the list already, by kind and name */
    const char *key;
    UT_hash_handle hh;
};

struct wish_list {
    struct arena *arena;
    struct core_lookup *items;
    size_t count, capacity;
    size_t outside; /* jobs and datasets */
    struct wanted *by_key;
};

static void wish_add(struct wish_list *list, struct core_lookup lookup)
{
    const char *key = arena_printf(list->arena, "%d %s", (int)lookup.kind, lookup.name);
    struct wanted *known = NULL;
    HASH_FIND_STR(list->by_key, key, known);
    if (known)
        return;
    known = arena_alloc(list->arena, sizeof *known);
    known->key = key;
    HASH_ADD_KEYPTR(hh, list->by_key, known->key, strlen(known->key), known);
    CHECK(list->count < list->capacity);
    list->items[list->count++] = lookup;
    list->outside += lookup.kind != LOOKUP_TWIN && lookup.kind != LOOKUP_SWEEP;
}

static struct core_lookup job_lookup(const char *name, const char *experiment)
{
    struct core_lookup lookup = {.kind = LOOKUP_JOB_NAME, .name = name, .experiment = experiment};
    if (!spec_name_is_id(name))
        return lookup;
    lookup.kind = LOOKUP_JOB_ID;
    for (const char *c = name; *c && lookup.job_id < INT64_MAX / 16; c++)
        lookup.job_id = lookup.job_id * 10 + (uint64_t)(*c - '0');
    return lookup;
}

/* A name may be a sweep's as well. Trials that end while the answer is on its way change it. */
static struct core_lookup sweep_lookup(const struct core *core, const char *name,
                                       const char *experiment)
{
    const struct sweep *living = sweep_find_name(core, experiment_find(core, experiment), name);
    uint64_t known = living ? living->sweep_id << 16 | (living->live_count & 0xffff) : 0;
    return (struct core_lookup){.kind = LOOKUP_SWEEP,
                                .name = name,
                                .experiment = experiment,
                                .job_id = known & INT64_MAX};
}

static void job_wishes(const struct core *core, const struct spec *spec,
                       const struct spec_job *job, struct wish_list *list)
{
    for (size_t i = 0; i < job->need_count && list->outside <= SUBMIT_OUTSIDE_MAX; i++)
        if (job->needs[i].job_index == SPEC_EXTERNAL)
            wish_add(list, job_lookup(job->needs[i].job, spec->experiment));
    for (size_t i = 0; i < job->input_count && list->outside <= SUBMIT_OUTSIDE_MAX; i++) {
        const struct spec_input *input = &job->inputs[i];
        if (input->job_index != SPEC_EXTERNAL || input->ref.kind == SPEC_REF_FILE)
            continue;
        if (input->ref.kind == SPEC_REF_DATASET)
            wish_add(list, (struct core_lookup){.kind = LOOKUP_DATASET,
                                                .name = input->ref.name,
                                                .experiment = spec->experiment});
        else {
            wish_add(list, job_lookup(input->ref.name, spec->experiment));
            if (!spec_name_is_id(input->ref.name))
                wish_add(list, sweep_lookup(core, input->ref.name, spec->experiment));
        }
    }
}

static void twin_wish(const struct spec_job *job, struct wish_list *list)
{
    struct hash spec_hash;
    char hex[HASH_HEX_SIZE];
    if (!reuse_spec_hash(job, &spec_hash))
        return;
    hash_to_hex(&spec_hash, hex);
    wish_add(list,
             (struct core_lookup){.kind = LOOKUP_TWIN, .name = arena_strdup(list->arena, hex)});
}

static void wishes_make(const struct core *core, const struct spec *spec, bool twins,
                        struct arena *arena, struct wish_list *out)
{
    size_t most = 2 * (SUBMIT_OUTSIDE_MAX + 1) + 1 + (twins ? spec->job_count : 0);
    *out = (struct wish_list){.arena = arena, .capacity = most};
    out->items = arena_alloc(arena, out->capacity * sizeof *out->items);
    for (size_t i = 0; i < spec->job_count && out->outside <= SUBMIT_OUTSIDE_MAX; i++)
        job_wishes(core, spec, &spec->jobs[i], out);
    for (size_t i = 0; twins && i < spec->job_count; i++)
        twin_wish(&spec->jobs[i], out);
    HASH_CLEAR(hh, out->by_key);
}

bool submit_names_too_much(const struct core *core, const struct event_submit *event,
                           struct arena *arena)
{
    struct wish_list list;
    wishes_make(core, event->spec, false, arena, &list);
    return list.outside > SUBMIT_OUTSIDE_MAX;
}

size_t submit_lookups(const struct core *core, const struct event_submit *event,
                      struct arena *arena, struct core_lookup **out)
{
    struct wish_list list;
    if (!event->check_only && submit_find(core, event->submit_key))
        return 0; /* a repeat: the answer is known */
    wishes_make(core, event->spec, event->reuse, arena, &list);
    if (list.outside > SUBMIT_OUTSIDE_MAX)
        list.count = 0; /* refused: but a repeat of something else is told so */
    if (!event->check_only)
        list.items[list.count++] =
            (struct core_lookup){.kind = LOOKUP_SUBMIT, .submit_key = event->submit_key};
    *out = list.items;
    return list.count;
}
