/* spec.c - from bytes to resolved jobs: tree, overrides, fields, recipes, graph; see spec.h. */
#include "common/spec/field.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/parse.h"

#include <string.h>

static void version_check(struct reader *reader, const struct node *root,
                          const struct draft *top)
{
    struct place place = {.key = "athanor"};
    if (!draft_gives(top, "athanor"))
        reader_refuse(reader, root, &place, "is missing, expected athanor: 1, the version of the "
                                            "spec language");
}

struct drafts {
    struct draft *items;
    size_t count, capacity;
};

static struct draft *draft_add(struct drafts *drafts, const struct draft *start)
{
    VEC_RESERVE(drafts->items, drafts->count, drafts->capacity);
    struct draft *draft = &drafts->items[drafts->count++];
    *draft = *start;
    return draft;
}

/* Where a job's own fields come from: the document, or below jobs.NAME on top of defaults. */
struct job_source {
    const struct draft *start; /* before its own fields */
    enum field_scope scope;
    struct place place;        /* not used for a document */
    const char *name, *experiment; /* NULL for a document, which says them itself */
};

static void fields_take(struct reader *reader, const struct job_source *from,
                        const struct node *map, struct draft *draft)
{
    bool is_document = from->scope == SCOPE_SINGLE;
    draft->is_document = is_document;
    draft->place = from->place;
    draft->node = map;
    if (!is_document) {
        draft->job.name = from->name;
        draft->job.experiment = from->experiment;
    }
    fields_read(reader, map, is_document ? NULL : &draft->place, from->scope, draft);
}

static bool trials_fit(struct reader *reader, const struct draft *base, const struct place *place,
                       const struct spec_sweep *sweep, size_t job_count)
{
    if (job_count + sweep->trial_count > SPEC_TRIALS_MAX)
        reader_refuse(reader, draft_given(base, "sweep"), place,
                      "brings jobs and trials to %zu, at most %u are accepted in a spec with "
                      "sweeps",
                      job_count + sweep->trial_count, SPEC_TRIALS_MAX);
    else if (strlen(sweep->name) + strlen("-t9999") > SPEC_NAME_BYTES_MAX)
        reader_refuse(reader, base->node, draft_place(base),
                      "its name leaves no room for a trial's number");
    else
        return true;
    return false;
}

static void trial_read(struct reader *reader, const struct job_source *from, struct node *map,
                       const struct spec_sweep *sweep, uint32_t trial, struct drafts *drafts)
{
    struct draft *draft = draft_add(drafts, from->start);
    fields_take(reader, from, map, draft);
    draft->job.name = arena_printf(reader->arena, "%s-t%u", sweep->name, trial);
    draft->job.trial_index = trial;
    draft->job.trial_count = sweep->trial_count;
    draft->job.at_once = sweep->at_once;
    draft_check(reader, draft);
}

/* One draft for each trial. A sweep that was refused stays known, without trials: who needs it
 * is not told that there is no such job. */
static void trials_read(struct reader *reader, const struct job_source *from, struct node *map,
                        const struct draft *base, struct drafts *drafts, struct spec *spec)
{
    struct place place = {.up = draft_place(base), .key = "sweep"};
    struct spec_sweep sweep = {0};
    struct sweep_plan *plan = NULL;
    if (draft_gives(base, "array"))
        reader_refuse(reader, draft_given(base, "array"), &place,
                      "stands beside array: a job is either an array or a sweep");
    else
        plan = sweep_read(reader, draft_given(base, "sweep"), &place, &sweep);
    sweep.name = base->job.name;
    sweep.first_job = (uint32_t)drafts->count;
    if (!plan || base->failed || !trials_fit(reader, base, &place, &sweep, drafts->count))
        sweep.trial_count = 0;
    for (uint32_t i = 0; i < sweep.trial_count && !reader_is_full(reader); i++)
        trial_read(reader, from, sweep_trial(plan, map, i), &sweep, i, drafts);
    VEC_RESERVE(spec->sweeps, spec->sweep_count, reader->sweep_capacity);
    spec->sweeps[spec->sweep_count++] = sweep;
}

static void single_read(struct reader *reader, struct node *root, struct draft *top,
                        struct drafts *drafts, struct spec *spec)
{
    struct place name = {.key = "name"};
    struct draft *start = mem_zalloc(sizeof *start);
    *start = *top;
    struct job_source from = {.start = start, .scope = SCOPE_SINGLE};
    fields_take(reader, &from, root, top);
    version_check(reader, root, top);
    if (!draft_gives(top, "name"))
        reader_refuse(reader, root, &name, "is missing, expected a name for the job");
    if (draft_gives(top, "sweep"))
        trials_read(reader, &from, root, top, drafts, spec);
    else
        draft_check(reader, draft_add(drafts, top));
    mem_free(start);
}

/* One job of a pipeline: the defaults, then its own fields on top of them. */
static void job_read(struct reader *reader, struct node_pair *pair, const struct place *jobs,
                     const struct draft *defaults, const char *experiment, struct drafts *drafts,
                     struct spec *spec)
{
    const struct field *name = &fields[field_index("name")];
    struct draft *base = mem_zalloc(sizeof *base);
    struct job_source from = {.start = defaults,
                              .scope = SCOPE_JOB,
                              .place = {.up = jobs, .key = pair->key->text},
                              .name = pair->key->text,
                              .experiment = experiment};
    bool failed = false;
    *base = *defaults;
    if (!spec_name_is_valid(from.name) || spec_name_is_id(from.name)) {
        reader_refuse(reader, pair->key, &from.place,
                      "is no name of a job, expected %s, and not only digits",
                      field_accepts(reader->arena, name));
        failed = true;
    }
    if (pair->value->kind != NODE_MAP) {
        reader_refuse(reader, pair->value, &from.place, "is %s, expected a mapping of a job's "
                                                        "fields",
                      shown(reader, pair->value));
        base->node = pair->value;
        base->place = from.place;
        base->job.name = from.name;
        base->failed = true;
        draft_add(drafts, base);
        mem_free(base);
        return;
    }
    fields_take(reader, &from, pair->value, base);
    base->failed = base->failed || failed;
    if (draft_gives(base, "sweep"))
        trials_read(reader, &from, pair->value, base, drafts, spec);
    else
        draft_check(reader, draft_add(drafts, base));
    mem_free(base);
}

static const struct node *jobs_find(struct reader *reader, const struct node *root,
                                    const struct place *place)
{
    const struct node *jobs = node_get(root, "jobs");
    if (jobs->kind != NODE_MAP || jobs->count == 0) {
        reader_refuse(reader, jobs, place, "is %s, expected a mapping of name: job",
                      jobs->kind == NODE_MAP ? "empty" : shown(reader, jobs));
        return NULL;
    }
    if (jobs->count > SPEC_JOBS_MAX) {
        reader_refuse(reader, jobs, place, "has %zu jobs, at most %u are accepted", jobs->count,
                      SPEC_JOBS_MAX);
        return NULL;
    }
    return jobs;
}

static void pipeline_read(struct reader *reader, struct node *root, struct draft *top,
                          struct drafts *drafts, struct spec *spec)
{
    static const struct place jobs_place = {.key = "jobs"};
    struct place defaults_place = {.key = "defaults"};
    struct draft defaults = *top;
    fields_read(reader, root, NULL, SCOPE_PIPELINE, top);
    version_check(reader, root, top);
    if (draft_gives(top, "defaults"))
        fields_read(reader, draft_given(top, "defaults"), &defaults_place, SCOPE_DEFAULTS,
                    &defaults);
    const struct node *jobs = jobs_find(reader, root, &jobs_place);
    if (!jobs)
        return;
    for (size_t i = 0; i < jobs->count; i++)
        job_read(reader, &jobs->pairs[i], &jobs_place, &defaults, top->job.experiment, drafts,
                 spec);
}

static void document_read(struct reader *reader, struct node *root, struct spec *spec)
{
    struct draft *top = mem_zalloc(sizeof *top);
    size_t errors_before = reader->error_count;
    reader->error_count = 0;
    fields_init(reader, top);
    reader->error_count = errors_before;
    struct drafts drafts = {0};
    if (node_get(root, "jobs"))
        pipeline_read(reader, root, top, &drafts, spec);
    else
        single_read(reader, root, top, &drafts, spec);
    if (drafts.count > 0)
        graph_expand(reader, drafts.items, drafts.count, spec);
    mem_free(drafts.items);
    spec->name = top->job.name;
    spec->experiment = top->job.experiment;
    mem_free(top);
}

static struct node *tree_read(struct reader *reader)
{
    const struct spec_source *source = reader->source;
    struct node_source text = {
        .file = source->name, .bytes = source->bytes, .length = source->length};
    if (source->folder &&
        (source->folder[0] != '/' || !text_is_utf8(source->folder, strlen(source->folder)))) {
        reader_refuse(reader, NULL, NULL, "the submitter's folder %s is no absolute UTF-8 path",
                      quoted(reader, source->folder));
        return NULL;
    }
    if (source->length > SPEC_TEXT_BYTES_MAX) {
        reader_refuse(reader, NULL, NULL, "has %zu bytes, at most %zu (1 MiB) are accepted",
                      source->length, SPEC_TEXT_BYTES_MAX);
        return NULL;
    }
    struct node *root = node_read(&text, reader->arena, reader->errors);
    reader->error_count += root == NULL;
    if (root && root->kind != NODE_MAP) {
        reader_refuse(reader, root, NULL, "is %s, expected a mapping that starts with athanor: 1",
                      shown(reader, root));
        return NULL;
    }
    return root;
}

int spec_read(const struct spec_source *source, const struct catalogue *catalogue,
              struct spec **out, struct spec_errors *errors)
{
    CHECK(errors->count == 0 && catalogue);
    struct spec *spec = mem_zalloc(sizeof *spec);
    struct reader reader = {
        .source = source, .catalogue = catalogue, .arena = &spec->arena, .errors = errors};
    struct node *root = tree_read(&reader);
    if (root)
        document_read(&reader, sets_apply(&reader, root), spec);
    if (reader.error_count > 0) {
        spec_errors_sort(errors);
        spec_errors_unique(errors);
        spec_free(spec);
        return -1;
    }
    *out = spec;
    return 0;
}

void spec_free(struct spec *spec)
{
    if (!spec)
        return;
    arena_done(&spec->arena);
    mem_free(spec->sweeps);
    mem_free(spec);
}

int spec_text_load(const char *path, char **out_bytes, size_t *out_length, struct err *err)
{
    const char *from = strcmp(path, "-") == 0 ? "/dev/stdin" : path;
    if (file_read(from, SPEC_TEXT_BYTES_MAX, out_bytes, out_length, err) == 0)
        return 0;
    if (err->kind == ERR_LIMIT)
        return err_set(err, ERR_LIMIT, "spec '%.200s' is larger than 1 MiB, the most accepted",
                       path);
    return err_wrap(err, "spec");
}
