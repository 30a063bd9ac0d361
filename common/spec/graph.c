/* graph.c - which job waits for which: names to indexes, cycles, arrays.
 *
 * Resolved among drafts, before arrays are expanded: a cycle of arrays is a cycle of drafts, and
 * 10,000 items then cost one node of the graph. A link is one draft waiting for another, or for
 * one item of it. */
#include "common/spec/field.h"

#include "common/base/buf.h"
#include "common/base/mem.h"
#include "common/base/parse.h"

#include <stdlib.h>
#include <string.h>

#define ALL_ITEMS UINT32_MAX
/* Texts of all jobs after expansion: what the coordinator will store for one submit. */
#define EXPANDED_BYTES_MAX ((uint64_t)64 << 20)

struct link {
    uint32_t to;   /* draft; SPEC_EXTERNAL: outside of the spec */
    uint32_t item; /* of the array `to`, or ALL_ITEMS */
    struct spec_need need;
    const struct node *node; /* where the user wrote it */
    const char *input;       /* name of the input that implies it; NULL: a need */
    size_t index;            /* of the need */
};

struct links {
    struct link *items;
    size_t count, capacity;
};

struct name_entry {
    const char *name;
    uint32_t draft;
};

/* The links there are, by whose they are and what they wait for: open addressing, so that a draft
 * of 100,000 needs costs as many looks. A slot names the first link of its kind. */
struct link_slot {
    uint32_t draft, index_plus_one; /* 0: free */
};
struct link_set {
    struct link_slot *slots;
    size_t count, capacity; /* a power of two */
};

struct graph {
    struct reader *reader;
    struct spec *spec; /* its sweeps; its jobs once expanded */
    struct draft *drafts;
    uint32_t draft_count;
    struct name_entry *jobs; /* sorted by name */
    struct name_entry *datasets;
    size_t dataset_count;
    struct name_entry *sweeps; /* sorted by name; draft: its index in spec->sweeps */
    uint32_t *sweep_linked;    /* of each sweep the draft, plus 1, that waits for all of it */
    struct links *links;       /* of each draft */
    uint64_t link_count, link_dropped; /* beyond SPEC_NEEDS_MAX they are only counted */
    struct link_set known;
};

/* ---- names ------------------------------------------------------------------------------ */

static int entry_compare(const void *left, const void *right)
{
    const struct name_entry *a = left, *b = right;
    int order = strcmp(a->name, b->name);
    return order ? order : (a->draft > b->draft) - (a->draft < b->draft);
}

static int entry_find_compare(const void *key, const void *entry)
{
    return strcmp(key, ((const struct name_entry *)entry)->name);
}

static const struct spec_sweep *sweep_find(const struct graph *graph, const char *name)
{
    const struct name_entry *entry = bsearch(name, graph->sweeps, graph->spec->sweep_count,
                                             sizeof *graph->sweeps, entry_find_compare);
    return entry ? &graph->spec->sweeps[entry->draft] : NULL;
}

static struct draft *draft_find(const struct graph *graph, const char *name)
{
    const struct name_entry *entry = bsearch(name, graph->jobs, graph->draft_count,
                                             sizeof *graph->jobs, entry_find_compare);
    return entry ? &graph->drafts[entry->draft] : NULL;
}

/* "sweep-12" as item 12 of the array "sweep"; NULL when there is no such item. */
static struct draft *item_find(const struct graph *graph, const char *name, uint32_t *out_item)
{
    const char *dash = strrchr(name, '-');
    struct err err;
    uint64_t item;
    if (!dash || parse_u64(dash + 1, &item, &err) < 0 || (dash[1] == '0' && dash[2] != '\0'))
        return NULL;
    struct draft *draft = draft_find(
        graph, arena_strndup(graph->reader->arena, name, (size_t)(dash - name)));
    if (!draft || item >= draft->job.array_count)
        return NULL;
    *out_item = (uint32_t)item;
    return draft;
}

static void names_index(struct graph *graph)
{
    graph->jobs = mem_array(graph->draft_count + 1, sizeof *graph->jobs);
    size_t outputs = 0;
    for (uint32_t i = 0; i < graph->draft_count; i++) {
        graph->jobs[i] = (struct name_entry){graph->drafts[i].job.name, i};
        outputs += graph->drafts[i].job.output_count;
    }
    qsort(graph->jobs, graph->draft_count, sizeof *graph->jobs, entry_compare);
    graph->datasets = mem_array(outputs + 1, sizeof *graph->datasets);
    for (uint32_t i = 0; i < graph->draft_count; i++) {
        const struct draft *draft = &graph->drafts[i];
        for (size_t j = 0; j < draft->job.output_count; j++)
            graph->datasets[graph->dataset_count++] =
                (struct name_entry){draft->job.outputs[j], i};
    }
    qsort(graph->datasets, graph->dataset_count, sizeof *graph->datasets, entry_compare);
    graph->sweeps = mem_array(graph->spec->sweep_count + 1, sizeof *graph->sweeps);
    graph->sweep_linked = mem_array(graph->spec->sweep_count + 1, sizeof *graph->sweep_linked);
    for (size_t i = 0; i < graph->spec->sweep_count; i++)
        graph->sweeps[i] = (struct name_entry){graph->spec->sweeps[i].name, (uint32_t)i};
    qsort(graph->sweeps, graph->spec->sweep_count, sizeof *graph->sweeps, entry_compare);
}

static void refuse_draft(const struct graph *graph, const struct draft *draft,
                         const char *message)
{
    reader_refuse(graph->reader, draft->node, draft_place(draft), "%s", message);
}

/* Two jobs of one name, or two producers of one dataset, would make references ambiguous. */
static void names_check(const struct graph *graph)
{
    struct arena *arena = graph->reader->arena;
    for (size_t i = 0; i < graph->spec->sweep_count; i++) {
        const struct draft *draft = draft_find(graph, graph->spec->sweeps[i].name);
        if (draft)
            refuse_draft(graph, draft, "its name is also that of a sweep");
    }
    for (uint32_t i = 1; i < graph->draft_count; i++) {
        const struct draft *draft = &graph->drafts[graph->jobs[i].draft];
        if (strcmp(graph->jobs[i - 1].name, graph->jobs[i].name) == 0)
            refuse_draft(graph, draft,
                         arena_printf(arena, "its name '%s' is also that of a trial of a sweep",
                                      draft->job.name));
    }
    for (uint32_t i = 0; i < graph->draft_count; i++) {
        const struct draft *draft = &graph->drafts[i];
        uint32_t item;
        if (item_find(graph, draft->job.name, &item))
            refuse_draft(graph, draft,
                         arena_printf(arena, "its name '%s' is also that of item %u of an array",
                                      draft->job.name, item));
        if (draft->job.array_count > 0 && draft->job.output_count > 0)
            refuse_draft(graph, draft, "an array cannot write datasets, since all its items would "
                                       "write the same: list the jobs under `jobs:` instead");
        if (draft->job.array_count > 0 &&
            strlen(draft->job.name) + strlen("-9999") > SPEC_NAME_BYTES_MAX)
            refuse_draft(graph, draft, "its name leaves no room for an item's number");
    }
    for (size_t i = 1; i < graph->dataset_count; i++) {
        const struct name_entry *a = &graph->datasets[i - 1], *b = &graph->datasets[i];
        if (strcmp(a->name, b->name) == 0)
            refuse_draft(graph, &graph->drafts[b->draft],
                         arena_printf(arena, "writes dataset '%s', as '%s' does: one job writes "
                                             "a dataset",
                                      b->name, graph->drafts[a->draft].job.name));
    }
}

/* ---- links ------------------------------------------------------------------------------ */

/* The place of a link within its draft, built in the three structs the caller provides. */
static const struct place *link_place(const struct draft *draft, const struct link *link,
                                      struct place *group, struct place *item)
{
    *group = (struct place){.up = draft_place(draft), .key = link->input ? "inputs" : "needs"};
    *item = (struct place){.up = group, .key = link->input, .index = link->index};
    const struct node *needs = draft_given(draft, "needs");
    bool is_item = link->input || (needs && needs->kind == NODE_LIST);
    return is_item ? item : group;
}

static void link_refuse(const struct graph *graph, const struct draft *draft,
                        const struct link *link, const char *message)
{
    struct place group, item;
    const struct place *place = link_place(draft, link, &group, &item);
    reader_refuse(graph->reader, link->node, place, "%s", message);
}

static size_t link_hash(uint32_t draft, const struct link *link)
{
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
    uint32_t numbers[] = {draft, link->to, link->item};
    for (size_t i = 0; i < ARRAY_COUNT(numbers); i++)
        hash = (hash ^ numbers[i]) * 0x100000001b3u;
    for (const char *c = link->to == SPEC_EXTERNAL ? link->need.job : ""; *c; c++)
        hash = (hash ^ (unsigned char)*c) * 0x100000001b3u;
    return (size_t)(hash ^ hash >> 32);
}

static bool link_is_same(const struct link *a, const struct link *b)
{
    return a->to == b->to && a->item == b->item &&
           (a->to != SPEC_EXTERNAL || strcmp(a->need.job, b->need.job) == 0);
}

/* The slot of the draft's link to the same job, or the free one where it would be. */
static struct link_slot *link_slot(const struct graph *graph, uint32_t draft,
                                   const struct link *link)
{
    const struct link_set *set = &graph->known;
    for (size_t at = link_hash(draft, link);; at++) {
        struct link_slot *slot = &set->slots[at & (set->capacity - 1)];
        if (!slot->index_plus_one ||
            (slot->draft == draft &&
             link_is_same(&graph->links[draft].items[slot->index_plus_one - 1], link)))
            return slot;
    }
}

static const struct link *link_known(const struct graph *graph, const struct draft *draft,
                                     const struct link *link)
{
    uint32_t number = (uint32_t)(draft - graph->drafts);
    if (graph->known.count == 0)
        return NULL;
    const struct link_slot *slot = link_slot(graph, number, link);
    return slot->index_plus_one ? &graph->links[number].items[slot->index_plus_one - 1] : NULL;
}

static void link_set_grow(struct graph *graph)
{
    struct link_set *set = &graph->known, old = *set;
    set->capacity = old.capacity ? 2 * old.capacity : 64;
    set->slots = mem_array(set->capacity, sizeof *set->slots);
    for (size_t i = 0; i < old.capacity; i++) {
        const struct link_slot *slot = &old.slots[i];
        if (slot->index_plus_one)
            *link_slot(graph, slot->draft,
                       &graph->links[slot->draft].items[slot->index_plus_one - 1]) = *slot;
    }
    mem_free(old.slots);
}

/* The newest link of the draft. */
static void link_remember(struct graph *graph, uint32_t draft)
{
    struct link_set *set = &graph->known;
    const struct links *links = &graph->links[draft];
    if (2 * (set->count + 1) > set->capacity)
        link_set_grow(graph);
    struct link_slot *slot = link_slot(graph, draft, &links->items[links->count - 1]);
    if (slot->index_plus_one)
        return;
    *slot = (struct link_slot){draft, (uint32_t)links->count};
    set->count++;
}

static void link_add(struct graph *graph, const struct draft *draft, const struct link *link)
{
    struct links *links = &graph->links[draft - graph->drafts];
    if (link->to == (uint32_t)(draft - graph->drafts)) {
        link_refuse(graph, draft, link, "a job cannot wait for itself");
        return;
    }
    if (graph->link_count == SPEC_NEEDS_MAX) {
        graph->link_dropped++; /* each stands for a need at least: sizes_fit refuses */
        return;
    }
    graph->link_count++;
    VEC_RESERVE(links->items, links->count, links->capacity);
    links->items[links->count++] = *link;
    link_remember(graph, (uint32_t)(draft - graph->drafts));
}

/* An input's job, unless the user already said how to wait for it. */
static void link_imply(struct graph *graph, const struct draft *draft, struct link *link)
{
    struct link whole = *link;
    whole.item = ALL_ITEMS;
    if (link_known(graph, draft, link) || link_known(graph, draft, &whole))
        return;
    link->need.implied = true;
    link_add(graph, draft, link);
}

/* "sweep-12" where the array has fewer items; NULL for any other name. */
static const struct draft *array_meant(const struct graph *graph, const char *name)
{
    const char *dash = strrchr(name, '-');
    if (!dash || !spec_name_is_id(dash + 1))
        return NULL;
    const struct draft *draft =
        draft_find(graph, arena_strndup(graph->reader->arena, name, (size_t)(dash - name)));
    return draft && draft->job.array_count > 0 ? draft : NULL;
}

static void job_unknown(const struct graph *graph, const struct draft *draft,
                        const struct link *link, const char *name)
{
    struct arena *arena = graph->reader->arena;
    const struct draft *array = array_meant(graph, name);
    struct nearest nearest = nearest_of(graph->reader, name);
    for (uint32_t i = 0; nearest.wanted && i < graph->draft_count; i++) /* NULL: not told */
        nearest_offer(&nearest, graph->drafts[i].job.name);
    const char *message =
        array ? arena_printf(arena, "'%s' is no item of the array: it has %s-0 to %s-%u", name,
                             array->job.name, array->job.name, array->job.array_count - 1)
              : arena_printf(arena,
                             "no job of this spec is called %s (one submitted earlier is written "
                             "job:%.100s)%s",
                             quoted(graph->reader, name), name,
                             nearest_hint(graph->reader, &nearest));
    link_refuse(graph, draft, link, message);
}

/* Finds the target; SPEC_EXTERNAL when the spec has no such job. */
static void target_find(const struct graph *graph, const char *name, struct link *link)
{
    link->item = ALL_ITEMS;
    const struct draft *target = draft_find(graph, name);
    if (!target)
        target = item_find(graph, name, &link->item);
    link->to = target ? (uint32_t)(target - graph->drafts) : SPEC_EXTERNAL;
}

/* Once a draft for each sweep: 10,000 trials are not looked through for each mention of it. */
static bool sweep_is_linked(struct graph *graph, const struct draft *draft,
                            const struct spec_sweep *sweep)
{
    uint32_t *linked = &graph->sweep_linked[sweep - graph->spec->sweeps];
    uint32_t number = (uint32_t)(draft - graph->drafts) + 1;
    bool known = *linked == number;
    *linked = number;
    return known;
}

/* A sweep as a whole can only be waited for: some of its trials are stopped, and some may fail. */
static void sweep_link(struct graph *graph, const struct draft *draft, struct link *link,
                       const struct spec_sweep *sweep)
{
    if (link->need.on != SPEC_ON_ANY && sweep->trial_count > 0) {
        link_refuse(graph, draft, link,
                    arena_printf(graph->reader->arena,
                                 "'%s' is a sweep of %u trials, of which some may be stopped or "
                                 "fail: expected {job: %s, on: any}, or one trial such as %s-t0",
                                 sweep->name, sweep->trial_count, sweep->name, sweep->name));
        return;
    }
    link->item = ALL_ITEMS;
    if (sweep_is_linked(graph, draft, sweep))
        return;
    for (uint32_t i = 0; i < sweep->trial_count && !graph->link_dropped; i++) {
        link->to = sweep->first_job + i;
        link_add(graph, draft, link);
    }
}

/* The same job twice would need two edges; two wishes about one job are rarely meant. */
static bool need_is_repeated(struct graph *graph, const struct draft *draft,
                             const struct link *link)
{
    const struct link *known = link_known(graph, draft, link);
    if (!known || (known->need.on == link->need.on &&
                   strcmp(known->need.artifact, link->need.artifact) == 0))
        return false;
    link_refuse(graph, draft, link,
                arena_printf(graph->reader->arena,
                             "needs '%s' a second time in another way: one condition a job",
                             link->need.job));
    return true;
}

static void need_link(struct graph *graph, const struct draft *draft, size_t index)
{
    static const char before[] = "job:";
    struct link link = {
        .need = draft->job.needs[index], .node = draft->need_nodes[index], .index = index};
    bool earlier = strncmp(link.need.job, before, strlen(before)) == 0;
    if (earlier)
        link.need.job += strlen(before);
    target_find(graph, link.need.job, &link);
    const struct spec_sweep *sweep =
        link.to == SPEC_EXTERNAL ? sweep_find(graph, link.need.job) : NULL;
    if (sweep)
        sweep_link(graph, draft, &link, sweep);
    else if (link.to == SPEC_EXTERNAL && !earlier && !spec_name_is_id(link.need.job))
        job_unknown(graph, draft, &link, link.need.job);
    else if (!need_is_repeated(graph, draft, &link))
        link_add(graph, draft, &link);
}

static bool writes_checkpoints(const struct draft *draft)
{
    if (!draft->recipe)
        return true; /* a user's program may report them */
    for (size_t i = 0; i < draft->recipe->output_count; i++)
        if (strcmp(draft->recipe->outputs[i], "checkpoint") == 0)
            return true;
    return false;
}

static bool producer_fits(struct graph *graph, const struct draft *draft, const struct link *link,
                          const struct spec_ref *ref)
{
    const struct draft *target = &graph->drafts[link->to];
    struct arena *arena = graph->reader->arena;
    const char *problem = NULL;
    if (target->job.array_count > 0 && link->item == ALL_ITEMS)
        problem = arena_printf(arena, "'%s' is an array of %u jobs: name one, such as %s-0",
                               ref->name, target->job.array_count, ref->name);
    else if (!target->failed && !writes_checkpoints(target))
        problem = arena_printf(arena, "job '%s' (%s/%s) writes no checkpoints", ref->name,
                               target->job.kind, target->job.recipe);
    else if (!target->failed && ref->select == SPEC_SELECT_BEST &&
             target->job.checkpoint.keep_best == 0)
        problem = arena_printf(arena,
                               "job '%s' keeps no best checkpoint: give it checkpoint.keep: last "
                               "1, best 1 by METRIC, or refer to checkpoint:last",
                               ref->name);
    if (problem)
        link_refuse(graph, draft, link, problem);
    return !problem;
}

/* The best trial is known when all have ended, however each did: it waits for every one of them.
 * Which of its steps have checkpoints nobody knows before. */
static void sweep_input_link(struct graph *graph, const struct draft *draft,
                             struct spec_input *input, struct link *link,
                             const struct spec_sweep *sweep)
{
    struct arena *arena = graph->reader->arena;
    if (sweep->trial_count == 0)
        return; /* refused already */
    if (input->ref.select == SPEC_SELECT_STEP) {
        link_refuse(graph, draft, link,
                    arena_printf(arena,
                                 "'%s' is a sweep of %u trials: expected job:%s/checkpoint:best or "
                                 "job:%s/checkpoint:last for that of its best trial, or one trial, "
                                 "such as job:%s-t0/checkpoint:%llu",
                                 sweep->name, sweep->trial_count, sweep->name, sweep->name,
                                 sweep->name, (unsigned long long)input->ref.step));
        return;
    }
    if (!*sweep->metric) {
        link_refuse(graph, draft, link,
                    arena_printf(arena,
                                 "sweep '%s' has no best trial, for it has no metric: give it "
                                 "sweep.metric, or name one trial, such as "
                                 "job:%s-t0/checkpoint:last",
                                 sweep->name, sweep->name));
        return;
    }
    input->job_index = sweep->first_job; /* a draft's index until graph_expand */
    input->trial_count = sweep->trial_count;
    link->need.on = SPEC_ON_ANY;
    link->item = ALL_ITEMS;
    link->to = sweep->first_job;
    if (!producer_fits(graph, draft, link, &input->ref) || sweep_is_linked(graph, draft, sweep))
        return;
    for (uint32_t i = 0; i < sweep->trial_count && !graph->link_dropped; i++) {
        link->to = sweep->first_job + i;
        link->need.job = graph->drafts[link->to].job.name;
        link_imply(graph, draft, link);
    }
}

static void checkpoint_link(struct graph *graph, const struct draft *draft,
                            struct spec_input *input, struct link *link)
{
    link->need.job = input->ref.name;
    target_find(graph, input->ref.name, link);
    const struct spec_sweep *sweep =
        link->to == SPEC_EXTERNAL ? sweep_find(graph, input->ref.name) : NULL;
    if (sweep) {
        sweep_input_link(graph, draft, input, link, sweep);
        return;
    }
    if (link->to != SPEC_EXTERNAL && !producer_fits(graph, draft, link, &input->ref))
        return;
    input->job_index = link->to; /* a draft's index until graph_expand */
    link_imply(graph, draft, link);
}

static void dataset_link(struct graph *graph, const struct draft *draft,
                         struct spec_input *input, struct link *link)
{
    const struct name_entry *entry =
        bsearch(input->ref.name, graph->datasets, graph->dataset_count, sizeof *entry,
                entry_find_compare);
    if (!entry)
        return; /* made earlier: the coordinator looks for it */
    link->to = entry->draft;
    link->item = ALL_ITEMS;
    link->need.job = graph->drafts[entry->draft].job.name;
    input->job_index = entry->draft;
    link_imply(graph, draft, link);
}

static void draft_link(struct graph *graph, const struct draft *draft)
{
    const struct node *inputs = draft_given(draft, "inputs");
    for (size_t i = 0; i < draft->job.need_count; i++)
        need_link(graph, draft, i);
    for (size_t i = 0; i < draft->job.input_count; i++) {
        struct spec_input *input = &draft->job.inputs[i];
        struct link link = {.need = {.on = SPEC_ON_SUCCESS,
                                     .artifact = "",
                                     .job_index = SPEC_EXTERNAL,
                                     .mark = input->mark},
                            .node = node_get(inputs, input->name),
                            .input = input->name};
        if (input->ref.kind == SPEC_REF_CHECKPOINT)
            checkpoint_link(graph, draft, input, &link);
        else if (input->ref.kind == SPEC_REF_DATASET)
            dataset_link(graph, draft, input, &link);
    }
}

/* ---- cycles ----------------------------------------------------------------------------- */

struct visit {
    uint32_t draft;
    size_t next; /* link */
};

static void cycle_refuse(const struct graph *graph, const struct visit *stack, size_t depth,
                         uint32_t closing)
{
    const struct visit *top = &stack[depth - 1];
    struct buf message = {0};
    buf_puts(&message, "these jobs wait for each other: ");
    size_t start = depth - 1;
    while (stack[start].draft != closing)
        start--;
    for (size_t i = start; i < depth && message.length < 600; i++)
        buf_printf(&message, "%s -> ", graph->drafts[stack[i].draft].job.name);
    buf_puts(&message, graph->drafts[closing].job.name);
    link_refuse(graph, &graph->drafts[top->draft],
                &graph->links[top->draft].items[top->next - 1], buf_text(&message));
    buf_done(&message);
}

/* Depth first with a stack of its own: a chain of 10,000 jobs is legal. */
static void cycles_from(const struct graph *graph, uint32_t start, uint8_t *state,
                        struct visit *stack)
{
    enum { NEW, OPEN, DONE };
    size_t depth = 0;
    stack[depth++] = (struct visit){start, 0};
    state[start] = OPEN;
    while (depth > 0) {
        struct visit *top = &stack[depth - 1];
        const struct links *links = &graph->links[top->draft];
        if (top->next == links->count) {
            state[top->draft] = DONE;
            depth--;
            continue;
        }
        uint32_t to = links->items[top->next++].to;
        if (to == SPEC_EXTERNAL || state[to] == DONE)
            continue;
        if (state[to] == OPEN)
            cycle_refuse(graph, stack, depth, to);
        else {
            state[to] = OPEN;
            stack[depth++] = (struct visit){to, 0};
        }
    }
}

static void cycles_check(const struct graph *graph)
{
    uint8_t *state = mem_array(graph->draft_count + 1, sizeof *state);
    struct visit *stack = mem_array(graph->draft_count + 1, sizeof *stack);
    for (uint32_t i = 0; i < graph->draft_count; i++)
        if (state[i] == 0)
            cycles_from(graph, i, state, stack);
    mem_free(stack);
    mem_free(state);
}

/* ---- expansion -------------------------------------------------------------------------- */

static uint32_t items_of(const struct draft *draft)
{
    return draft->job.array_count > 0 ? draft->job.array_count : 1;
}

/* Bytes that each job of the draft will occupy as JSON, about. */
static uint64_t draft_weight(const struct draft *draft)
{
    const struct spec_job *job = &draft->job;
    uint64_t bytes = 1000 + strlen(job->params) + strlen(job->description);
    for (size_t i = 0; i < job->command_count; i++)
        bytes += 4 + strlen(job->command[i]);
    for (size_t i = 0; i < job->env_count; i++)
        bytes += 32 + strlen(job->env[i].name) + strlen(job->env[i].value);
    for (size_t i = 0; i < job->secret_count; i++)
        bytes += 8 + strlen(job->secrets[i].name) + strlen(job->secrets[i].value);
    for (size_t i = 0; i < job->input_count; i++)
        bytes += 32 + strlen(job->inputs[i].name) + strlen(job->inputs[i].ref.text);
    return bytes;
}

/* Numbers the jobs; false when there are too many of anything. */
static bool sizes_fit(struct graph *graph, size_t *out_job_count)
{
    uint64_t jobs = 0, needs = graph->link_dropped, bytes = 0;
    for (uint32_t i = 0; i < graph->draft_count; i++) {
        struct draft *draft = &graph->drafts[i];
        uint64_t edges = 0;
        for (size_t j = 0; j < graph->links[i].count; j++) {
            const struct link *link = &graph->links[i].items[j];
            bool all = link->to != SPEC_EXTERNAL && link->item == ALL_ITEMS;
            edges += all ? items_of(&graph->drafts[link->to]) : 1;
        }
        draft->first_index = (uint32_t)min_u64(jobs, UINT32_MAX);
        jobs += items_of(draft);
        needs += items_of(draft) * edges;
        bytes += items_of(draft) * draft_weight(draft);
    }
    if (jobs > SPEC_JOBS_MAX)
        reader_refuse(graph->reader, NULL, NULL, "has %llu jobs, at most %u are accepted",
                      (unsigned long long)jobs, SPEC_JOBS_MAX);
    else if (needs > SPEC_NEEDS_MAX)
        reader_refuse(graph->reader, NULL, NULL,
                      "has %llu needs between jobs, at most %u are accepted: put one job between "
                      "two arrays",
                      (unsigned long long)needs, SPEC_NEEDS_MAX);
    else if (bytes > EXPANDED_BYTES_MAX)
        reader_refuse(graph->reader, NULL, NULL,
                      "its jobs hold %llu MiB of text together, at most 64 MiB are accepted",
                      (unsigned long long)(bytes >> 20));
    *out_job_count = jobs;
    return jobs <= SPEC_JOBS_MAX && needs <= SPEC_NEEDS_MAX && bytes <= EXPANDED_BYTES_MAX;
}

/* The needs of each job of a draft; its items share them. */
static void needs_expand(const struct graph *graph, struct draft *draft)
{
    const struct links *links = &graph->links[draft - graph->drafts];
    struct spec_need *needs = NULL;
    size_t count = 0, capacity = 0;
    for (size_t i = 0; i < links->count; i++) {
        const struct link *link = &links->items[i];
        bool inside = link->to != SPEC_EXTERNAL;
        const struct draft *target = inside ? &graph->drafts[link->to] : NULL;
        bool all = inside && link->item == ALL_ITEMS;
        uint32_t first = !inside ? SPEC_EXTERNAL : target->first_index + (all ? 0 : link->item);
        for (uint32_t j = 0; j < (all ? items_of(target) : 1); j++) {
            VEC_RESERVE(needs, count, capacity);
            needs[count] = link->need;
            needs[count++].job_index = inside ? first + j : SPEC_EXTERNAL;
        }
    }
    draft->job.needs = arena_alloc(graph->reader->arena, (count + 1) * sizeof *needs);
    if (count > 0)
        memcpy(draft->job.needs, needs, count * sizeof *needs);
    draft->job.need_count = count;
    mem_free(needs);
}

static void inputs_expand(const struct graph *graph, struct draft *draft)
{
    for (size_t i = 0; i < draft->job.input_count; i++) {
        struct spec_input *input = &draft->job.inputs[i];
        if (input->job_index == SPEC_EXTERNAL)
            continue;
        struct link link = {.item = 0};
        if (input->ref.kind == SPEC_REF_CHECKPOINT)
            target_find(graph, input->ref.name, &link);
        uint32_t item = link.item == ALL_ITEMS ? 0 : link.item;
        input->job_index = graph->drafts[input->job_index].first_index + item;
    }
}

static void item_expand(const struct graph *graph, const struct draft *draft, uint32_t item,
                        struct spec_job *job)
{
    struct arena *arena = graph->reader->arena;
    *job = draft->job;
    if (draft->job.array_count == 0)
        return;
    job->name = arena_printf(arena, "%s-%u", draft->job.name, item);
    job->array_index = item;
    struct spec_variable *env = arena_alloc(arena, (job->env_count + 2) * sizeof *env);
    size_t count = 0, at = 0;
    while (at < job->env_count && strcmp(job->env[at].name, "ATHANOR_ARRAY") < 0)
        env[count++] = job->env[at++];
    env[count++] = (struct spec_variable){
        "ATHANOR_ARRAY_COUNT", arena_printf(arena, "%u", draft->job.array_count)};
    env[count++] =
        (struct spec_variable){"ATHANOR_ARRAY_INDEX", arena_printf(arena, "%u", item)};
    while (at < job->env_count)
        env[count++] = job->env[at++];
    job->env = env;
    job->env_count = count;
}

static void jobs_expand(struct graph *graph, struct spec *spec, size_t job_count)
{
    spec->jobs = arena_alloc(graph->reader->arena, (job_count + 1) * sizeof *spec->jobs);
    spec->job_count = job_count;
    for (uint32_t i = 0; i < graph->draft_count; i++) {
        struct draft *draft = &graph->drafts[i];
        needs_expand(graph, draft);
        inputs_expand(graph, draft);
        for (uint32_t item = 0; item < items_of(draft); item++)
            item_expand(graph, draft, item, &spec->jobs[draft->first_index + item]);
    }
    for (size_t i = 0; i < spec->sweep_count; i++)
        spec->sweeps[i].first_job = graph->drafts[spec->sweeps[i].first_job].first_index;
}

void graph_expand(struct reader *reader, struct draft *drafts, size_t draft_count,
                  struct spec *spec)
{
    struct graph graph = {
        .reader = reader, .spec = spec, .drafts = drafts, .draft_count = (uint32_t)draft_count};
    size_t job_count;
    graph.links = mem_array(draft_count + 1, sizeof *graph.links);
    names_index(&graph);
    names_check(&graph);
    for (size_t i = 0; i < draft_count; i++)
        draft_link(&graph, &drafts[i]);
    cycles_check(&graph);
    if (sizes_fit(&graph, &job_count) && reader->error_count == 0)
        jobs_expand(&graph, spec, job_count);
    for (size_t i = 0; i < draft_count; i++)
        mem_free(graph.links[i].items);
    mem_free(graph.links);
    mem_free(graph.known.slots);
    mem_free(graph.sweeps);
    mem_free(graph.sweep_linked);
    mem_free(graph.jobs);
    mem_free(graph.datasets);
}
