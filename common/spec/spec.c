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

static void single_read(struct reader *reader, struct node *root, struct draft *draft)
{
    struct place name = {.key = "name"};
    draft->is_document = true;
    draft->node = root;
    fields_read(reader, root, NULL, SCOPE_SINGLE, draft);
    version_check(reader, root, draft);
    if (!draft_gives(draft, "name"))
        reader_refuse(reader, root, &name, "is missing, expected a name for the job");
    draft_check(reader, draft);
}

/* One job of a pipeline: the defaults, then its own fields on top of them. */
static void job_read(struct reader *reader, const struct node_pair *pair,
                     const struct place *jobs, const struct draft *defaults,
                     const char *experiment, struct draft *draft)
{
    const struct field *name = &fields[field_index("name")];
    *draft = *defaults;
    draft->is_document = false;
    draft->place = (struct place){.up = jobs, .key = pair->key->text};
    draft->node = pair->value;
    draft->job.name = pair->key->text;
    draft->job.experiment = experiment;
    if (!spec_name_is_valid(pair->key->text) || spec_name_is_id(pair->key->text)) {
        reader_refuse(reader, pair->key, &draft->place,
                      "is no name of a job, expected %s, and not only digits",
                      field_accepts(reader->arena, name));
        draft->failed = true;
    }
    if (pair->value->kind != NODE_MAP) {
        reader_refuse(reader, pair->value, &draft->place, "is %s, expected a mapping of a job's "
                                                          "fields",
                      shown(reader, pair->value));
        draft->failed = true;
        return;
    }
    fields_read(reader, pair->value, &draft->place, SCOPE_JOB, draft);
    draft_check(reader, draft);
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
                          struct spec *spec)
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
    struct draft *drafts = mem_array(jobs->count, sizeof *drafts);
    for (size_t i = 0; i < jobs->count; i++)
        job_read(reader, &jobs->pairs[i], &jobs_place, &defaults, top->job.experiment, &drafts[i]);
    graph_expand(reader, drafts, jobs->count, spec);
    mem_free(drafts);
}

static void document_read(struct reader *reader, struct node *root, struct spec *spec)
{
    struct draft *top = mem_zalloc(sizeof *top);
    size_t errors_before = reader->error_count;
    reader->error_count = 0;
    fields_init(reader, top);
    reader->error_count = errors_before;
    if (node_get(root, "jobs"))
        pipeline_read(reader, root, top, spec);
    else {
        single_read(reader, root, top);
        graph_expand(reader, top, 1, spec);
    }
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
